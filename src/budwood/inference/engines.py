"""The fastest engine of this machine that runs a part of a network and agrees with PyTorch.

A prefix is the part of a network up to a stage, with the preprocessing folded in: uint8 pixels [n, size, size, 3] to
float32 [n, *shape]. Its bundle (graph, weights, how well the engine agreed with PyTorch) lies in the cache, keyed by
weights, stages and preprocessing. A trained network as a whole is run the same way.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.loading import Pixels
from budwood.errors import StorageError
from budwood.hardware import count_threads
from budwood.inference.bundle import (
    GRAPH,
    STATE,
    Prefix,
    ensure_exported,
    read_added_file,
    read_bundle_file,
    remember,
    slice_network,
)
from budwood.progress import Progress
from budwood.storage.packing import pack, unpack

ERRORS: Final = 3  # severity from which ONNX Runtime writes to the terminal; its warnings are of graphs it made
TOLERANCE: Final = {"ONNX Runtime": 1e-4, "PyTorch": 1e-5, "PyTorch, half precision": 2e-2}  # of the largest output
PACKED: Final = 1e-4  # of the largest logit: what keeping outputs in 16 bits may change
BATCH: Final = 16  # images a call of the engine; larger batches fall out of a CPU's cache
COMPILE_PAYS: Final = 200_000  # images on a GPU from which on torch.compile is worth its minute
MANY: Final = 4  # processors, from which on fewer threads may be faster

Floats = NDArray[np.float32]
InferenceFn = Callable[[Pixels], Floats]


@dataclass(frozen=True)
class InferenceEngine:
    """An engine that runs a prefix.

    Attributes:
        run: Function from uint8 pixels [n, size, size, 3] to float32 outputs [n, *shape].
        name: Library, version and mode, for reports.
        agreement: How well it agrees with PyTorch, in words.
        packs: Whether 16 bits a value are precise enough to store its outputs.
        threads: Threads of ONNX Runtime; None where PyTorch runs the prefix.
    """

    run: InferenceFn
    name: str
    agreement: str
    packs: bool
    threads: int | None = None


def choose_engine(prefix: Prefix, sample: Callable[[], Pixels], images: int, progress: Progress) -> InferenceEngine:
    """Choose this machine's fastest engine that agrees with PyTorch, and export the prefix if needed.

    On a CUDA device that is PyTorch in half precision; on a CPU ONNX Runtime, with the number of threads that was
    fastest. Where the graph cannot be exported, or the outputs differ too much, it is PyTorch in full precision; a
    note gives the reason. A quantised graph is run by ONNX Runtime as it is.

    Args:
        prefix: Part of the network to run.
        sample: Returns the real images that engines are checked on, uint8 [n, size, size, 3].
        images: Number of images to compute; compiling pays from 200,000 on.
        progress: Receives the notes.

    Returns:
        The engine.

    Raises:
        WeightsError: The weights cannot be read or do not fit.
    """
    record = ensure_exported(prefix)
    if not prefix.bundle.is_relative_to(prefix.cache):
        progress.note(
            f"{prefix.cache}: the cache is full or cannot be written, so {prefix.spec.plan.name} is exported again "
            "the next time."
        )
    if prefix.graph != GRAPH:
        threads = count_threads()
        name = f"ONNX Runtime {version('onnxruntime')}, {prefix.graph}"
        run = _make_onnx_inference(prefix, threads)
        return InferenceEngine(run, name, "was compared on validation", False, threads)
    if has_cuda_device():
        return _check_cuda(prefix, sample(), images >= COMPILE_PAYS, progress)
    if record.no_graph:
        progress.note(f"{prefix.spec.plan.name} cannot be exported to ONNX ({record.no_graph}), so PyTorch is used.")
        return InferenceEngine(
            _make_eager_inference(prefix), f"PyTorch {version('torch')}", "reference engine, no check needed", False
        )
    agreement = _measure_agreement(prefix, sample)
    packs = _is_harmless(agreement["packed"])
    if agreement["error"] <= TOLERANCE["ONNX Runtime"]:
        threads, name = _find_fastest_threads(prefix, sample), f"ONNX Runtime {version('onnxruntime')}"
        run = _make_onnx_inference(prefix, threads)
        return InferenceEngine(run, name, _describe_agreement(agreement), packs, threads)
    progress.note(
        f"ONNX Runtime {_describe_agreement(agreement)}: too different, so PyTorch is used for the frozen layers."
    )
    return InferenceEngine(
        _make_eager_inference(prefix), f"PyTorch {version('torch')}", "reference engine, no check needed", packs
    )


def read_state(prefix: Prefix) -> dict[str, NDArray[Any]]:
    """Read a prefix's tensors from its bundle, without torch; the bundle is exported first if needed.

    Args:
        prefix: Part of the network.

    Returns:
        Arrays by the tensors' names in the network.

    Raises:
        WeightsError: The weights cannot be read or do not fit.
    """
    from safetensors.numpy import load

    return dict(load(read_bundle_file(prefix, STATE)))


def describe_unused(prefix: Prefix) -> str:
    """Describe which tensors of the weights file were not used.

    Args:
        prefix: Part of the network; it is exported first if needed.

    Returns:
        A sentence; empty where all were used.

    Raises:
        WeightsError: The weights cannot be read or do not fit.
    """
    return ensure_exported(prefix).aside


def _measure_agreement(prefix: Prefix, sample: Callable[[], Pixels]) -> dict[str, Any]:
    """How far ONNX Runtime is from PyTorch, and 16 bits from full precision, on real images; measured once a bundle."""

    def measure() -> dict[str, Any]:
        batch = sample()
        expected = _make_eager_inference(prefix)(batch)
        error = _measure_disagreement(_make_onnx_inference(prefix, count_threads())(batch), expected)
        return {"error": error, "images": len(batch), "packed": _measure_packing_error(prefix, expected)}

    return remember(prefix.bundle / "checked.json", measure)


def _check_cuda(prefix: Prefix, batch: Pixels, compiles: bool, progress: Progress) -> InferenceEngine:
    expected = _make_eager_inference(prefix, "cuda")(batch)
    half = _make_half_cuda_inference(prefix, compiles, progress)
    agreement = {"error": _measure_disagreement(half(batch), expected), "images": len(batch)}
    packs = _is_harmless(_measure_packing_error(prefix, expected))
    if agreement["error"] <= TOLERANCE["PyTorch, half precision"]:
        name = f"PyTorch {version('torch')}, half precision, channels last, {'compiled, ' * compiles}CUDA"
        return InferenceEngine(half, name, _describe_agreement(agreement), packs)
    progress.note(f"Half precision {_describe_agreement(agreement)}: too different, so full precision is used.")
    return InferenceEngine(
        _make_eager_inference(prefix, "cuda"),
        f"PyTorch {version('torch')}, CUDA",
        "reference engine, no check needed",
        packs,
    )


def _measure_disagreement(outputs: Floats, expected: Floats) -> float:
    """The largest difference as a share of the largest output."""
    return float(np.abs(outputs - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _is_harmless(error: float | None) -> bool:
    """Whether outputs are kept in 16 bits, by what that changes."""
    return error is not None and error <= PACKED


def _measure_packing_error(prefix: Prefix, outputs: Floats) -> float | None:
    """How much keeping outputs in 16 bits changes the logits that the rest of the network makes of them.

    A share of the largest logit. None for vectors, which are small as they are.
    """
    if len(prefix.shape) < 2:
        return None
    from budwood.inference import pytorch_backend

    rest = pytorch_backend.run_rest(slice_network(prefix))
    return _measure_disagreement(rest(unpack(pack(outputs), prefix.shape)), rest(outputs))


def _describe_agreement(agreement: Mapping[str, Any]) -> str:
    error, images = agreement["error"], agreement["images"]
    return f"differs from PyTorch by at most {error:.1e} of the largest output on {images} images"


def _find_fastest_threads(prefix: Prefix, sample: Callable[[], Pixels]) -> int:
    """Threads with which ONNX Runtime is fastest: all allowed, or half as many, as two may share a core.

    Measured once a bundle and number of threads.
    """
    count = count_threads()
    if count < MANY:
        return count

    def measure() -> dict[str, float]:
        batch = sample()
        return {str(n): _time_batch(_make_onnx_inference(prefix, n), batch) for n in (count, count // 2)}

    seconds = remember(prefix.bundle / f"threads-{count}.json", measure)
    return int(min(seconds, key=lambda n: float(seconds[n])))


def _time_batch(run: InferenceFn, batch: Pixels) -> float:
    """Seconds that a batch takes; the first is slower and does not count."""
    run(batch)
    started = time.perf_counter()
    run(batch)
    return time.perf_counter() - started


def _make_onnx_inference(prefix: Prefix, threads: int) -> InferenceFn:
    """ONNX Runtime, with a session of its own for full batches; each is opened when it is first needed.

    Where the number of images is fixed, it folds all that is computed of shapes, and padding becomes part of the
    convolutions: EfficientNet-Lite0 has 56 nodes instead of 269 and takes three quarters of the time.
    """
    sessions = Sessions(prefix, threads)

    def run(batch: Pixels) -> Floats:
        return np.asarray(sessions.find(len(batch)).run(None, {"pixels": batch})[0], np.float32)

    return run


class Sessions:
    """The two sessions of ONNX Runtime for one graph: for full batches and for any number of images.

    Each is opened by the first thread that needs it, while others wait.
    """

    def __init__(self, prefix: Prefix, threads: int, extra: bytes = b"") -> None:
        """Open nothing yet.

        Args:
            prefix: Part of the network to run.
            threads: Threads of ONNX Runtime.
            extra: What is appended to the graph's bytes, and so merged into it.
        """
        self._prefix, self._threads, self._extra = prefix, threads, extra
        self._lock = threading.Lock()
        self._opened: dict[int | None, Any] = {}

    def find(self, images: int) -> Any:
        """Return the session for so many images; raises `WeightsError` when the weights cannot be read."""
        fixed = BATCH if images == BATCH else None
        with self._lock:
            if fixed not in self._opened:
                self._opened[fixed] = _open_session(self._prefix, self._threads, fixed, self._extra)
            return self._opened[fixed]


def _open_session(prefix: Prefix, threads: int, images: int | None, extra: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave cores to decoding
    if images:
        options.add_free_dimension_override_by_name("n", images)
    return onnxruntime.InferenceSession(read_graph(prefix) + extra, options, providers=["CPUExecutionProvider"])


def read_graph(prefix: Prefix) -> bytes:
    """Read the graph of a prefix that ONNX Runtime runs.

    Args:
        prefix: Part of the network; its bundle exists.

    Returns:
        The ONNX model.

    Raises:
        StorageError: An 8-bit graph has gone since it was chosen, or the cache cannot be read.
    """
    if prefix.graph == GRAPH:
        return read_bundle_file(prefix, GRAPH)
    graph = read_added_file(prefix, prefix.graph)
    if graph is None:
        raise StorageError(
            f"{prefix.bundle / prefix.graph}: was removed or damaged while it was needed.", "Run the command again."
        )
    return graph


def _make_eager_inference(prefix: Prefix, device: str = "cpu") -> InferenceFn:
    from budwood.inference import pytorch_backend

    return pytorch_backend.run_eager(slice_network(prefix), read_bundle_file(prefix, STATE), device)


def _make_half_cuda_inference(prefix: Prefix, compiles: bool, progress: Progress) -> InferenceFn:
    from budwood.inference import pytorch_backend

    return pytorch_backend.run_half_cuda(slice_network(prefix), read_bundle_file(prefix, STATE), compiles, progress)


def has_cuda_device() -> bool:
    """Tell whether there is a CUDA device.

    Torch, which is slow to load, is only asked where an NVIDIA driver is installed.

    Returns:
        True if `nvidia-smi` is installed and PyTorch finds a device.
    """
    if shutil.which("nvidia-smi") is None:
        return False
    from budwood.inference import pytorch_backend

    return pytorch_backend.has_cuda()
