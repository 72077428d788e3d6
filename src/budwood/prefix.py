"""The frozen prefix: what is frozen runs once per image, through the fastest engine that agrees with PyTorch.

A prefix is a network's stages with the preprocessing folded in: uint8 pixels [n, size, size, 3] to float32
[n, features]. Its bundle (graph, weights, how well the engine agreed with PyTorch) and its outputs lie in the cache,
keyed by weights, stages and preprocessing; outputs also by image content. When all are there, no torch is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.dataset import Samples
from budwood.errors import DataError
from budwood.files import folder_draft, is_full, write_text
from budwood.images import BadImage, pixels
from budwood.networks import Network, file_digest
from budwood.progress import Progress
from budwood.recipe import Resize
from budwood.store import Store

BATCH: Final = 16  # images a call of the engine; larger batches fall out of a CPU's cache
SHARD: Final = 512  # images a file of the store
AHEAD: Final = 128 * 2**20  # bytes of pixels that are decoded before they are needed
CHECKED: Final = 16  # real images that the engine must agree on
TOLERANCE: Final = {"ONNX Runtime": 1e-4, "PyTorch": 1e-5, "PyTorch, half precision": 2e-2}  # of the largest output
PIXEL_LIMIT: Final = 20 * 2**30  # bytes of decoded pixels that the cache holds at most

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Prefix:
    """A frozen prefix that is ready to run: where its bundle is and what it is.

    `digest` names the weights; `key` the weights, the stages and the preprocessing.
    """

    net: Network
    weights: Path
    digest: str
    size: int
    resize: Resize
    key: str
    cache: Path

    @property
    def bundle(self) -> Path:
        """The folder with the exported graph and the trunk's weights."""
        return self.cache / "networks" / f"{self.key}-{_toolchain()}"


@dataclass(frozen=True)
class Outputs:
    """A prefix's outputs for images in their order: float32 [n, features]; how many were computed and reused."""

    values: NDArray[np.float32]
    computed: int
    engine: str
    agreement: str

    @property
    def reused(self) -> int:
        """Images whose output an earlier run had computed."""
        return len(self.values) - self.computed


def prefix_of(net: Network, weights: Path, size: int, resize: Resize, cache: Path) -> Prefix:
    """The prefix made of all of a network's stages. Reads the weights file, loads no torch."""
    digest = file_digest(weights)
    parts = [digest, net.name, *net.stages, size, net.mean, net.std, "bicubic"]
    return Prefix(net, weights, digest, size, resize, _hash(parts), cache)


def outputs(prefix: Prefix, samples: Samples, progress: Progress) -> Outputs:
    """The outputs of the prefix for every sample, from the store where they are there, else computed and stored."""
    folder = prefix.cache / "outputs" / f"{prefix.key}-{prefix.resize}"
    store = Store(folder, (prefix.net.features,), np.float32)
    values = np.empty((len(samples), prefix.net.features), np.float32)
    missing = []
    for row, id in enumerate(samples.ids):
        if (known := store.row(id)) is None:
            missing.append(row)
        else:
            values[row] = known
    if missing:
        with _Decoder(prefix, samples, missing, progress) as decoder:
            run, engine, agreement = _engine(prefix, samples, missing, progress)
            _compute(run, decoder, missing, values, store, progress)
    else:
        engine, agreement = "none: every output was in the store", "checked when the outputs were computed"
    return Outputs(values, len(missing), engine, agreement)


def trunk_state(prefix: Prefix) -> dict[str, NDArray[Any]]:
    """The trunk's tensors by their names in the network, from the bundle, without torch."""
    from safetensors.numpy import load_file

    _ensure_bundle(prefix)
    return dict(load_file(prefix.bundle / "trunk.safetensors"))


def trunk_parameters(prefix: Prefix) -> int:
    """How many parameters the trunk has; running statistics are none."""
    _ensure_bundle(prefix)
    return int(json.loads((prefix.bundle / "bundle.json").read_text())["parameters"])


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compute(
    run: Engine,
    decoder: _Decoder,
    rows: Sequence[int],
    values: NDArray[np.float32],
    store: Store,
    progress: Progress,
) -> None:
    """Fill `values[rows]`, a shard at a time, and keep each shard; what is kept survives an interruption."""
    keep = True
    with progress.bar(f"Frozen prefix of {decoder.prefix.net.name}", len(rows)) as step:
        for start in range(0, len(rows), SHARD):
            shard = rows[start : start + SHARD]
            for first in range(0, len(shard), BATCH):
                part = shard[first : first + BATCH]
                values[part] = run(decoder.take(part))
                step(len(part))
            decoder.keep()
            keep = keep and _kept(store, [decoder.samples.ids[row] for row in shard], values[shard], progress)


def _kept(store: Store, ids: Sequence[str], values: NDArray[Any], progress: Progress) -> bool:
    """Whether a shard was stored. A full disk costs the cache, not the result, and is said once."""
    try:
        store.add(ids, values)
    except OSError as error:
        reason = "the disk is full" if is_full(error) else str(error)
        progress.note(f"The cache cannot be written ({reason}); going on without it.")
        return False
    return True


class _Decoder:
    """The pixels of images in order: decoded by threads ahead of their use, or read from the store of decoded pixels.

    Decoding starts at once, so that it goes on while an engine is made.
    """

    def __init__(self, prefix: Prefix, samples: Samples, rows: Sequence[int], progress: Progress) -> None:
        self.prefix, self.samples = prefix, samples
        shape = (prefix.size, prefix.size, 3)
        self._store = Store(prefix.cache / "pixels" / f"{prefix.size}-{prefix.resize}-bicubic", shape, np.uint8)
        self._keeps = _room_for(len(rows) * int(np.prod(shape)), prefix.cache, progress)
        self._progress = progress
        self._new: list[tuple[str, NDArray[np.uint8]]] = []
        self._upcoming = iter(rows)
        self._ahead: deque[Future[tuple[NDArray[np.uint8], bool]]] = deque()
        self._pool = ThreadPoolExecutor(processors())
        self._most_ahead = max(2 * BATCH, AHEAD // int(np.prod(shape)))
        self._look_ahead()

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """The pixels of the next rows, uint8 [n, size, size, 3]; raises `DataError` for a file that was changed."""
        got = [self._ahead.popleft().result() for _ in rows]
        self._look_ahead()
        self._new += [(self.samples.ids[row], p) for row, (p, stored) in zip(rows, got, strict=True) if not stored]
        return np.stack([p for p, _ in got])

    def keep(self) -> None:
        """Store the pixels that were decoded since the last call."""
        if self._keeps and self._new:
            ids, pictures = zip(*self._new, strict=True)
            self._keeps = _kept(self._store, ids, np.stack(pictures), self._progress)
        self._new.clear()

    def _look_ahead(self) -> None:
        while len(self._ahead) < self._most_ahead and (row := next(self._upcoming, None)) is not None:
            self._ahead.append(self._pool.submit(self._one, row))

    def _one(self, row: int) -> tuple[NDArray[np.uint8], bool]:
        known = self._store.row(self.samples.ids[row])
        return (known, True) if known is not None else (_decoded(self.prefix, self.samples, row), False)


def _decoded(prefix: Prefix, samples: Samples, row: int) -> NDArray[np.uint8]:
    path = samples.root / samples.paths[row]
    try:
        return pixels(path, samples.ids[row], prefix.size, prefix.resize)
    except BadImage as problem:
        raise DataError(f"{path}: {problem.detail}.", "Scan the images again, then repeat the command.") from problem


def _room_for(wanted: int, cache: Path, progress: Progress) -> bool:
    folder = cache / "pixels"
    held = sum(file.stat().st_size for file in folder.rglob("*.npy")) if folder.is_dir() else 0
    place = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if held + wanted <= PIXEL_LIMIT and wanted < free // 2:
        return True
    progress.note(
        f"Decoded pixels are not kept: they need {wanted / 2**30:.1f} GiB beside {held / 2**30:.1f} GiB "
        f"(limit {PIXEL_LIMIT / 2**30:.0f} GiB, {free / 2**30:.1f} GiB free)."
    )
    return False


def _engine(prefix: Prefix, samples: Samples, rows: Sequence[int], progress: Progress) -> tuple[Engine, str, str]:
    """The engine for this machine, its name and how well it agrees with PyTorch on real images."""
    _ensure_bundle(prefix)
    record = prefix.bundle / "agreement.json"
    if _cuda():
        return _checked_cuda(prefix, samples, rows, progress)
    if not record.is_file():
        _record_agreement(prefix, samples, rows, record)
    agreement = json.loads(record.read_text())
    if agreement["error"] <= TOLERANCE["ONNX Runtime"]:
        return _onnx(prefix), f"ONNX Runtime {version('onnxruntime')}", _sentence(agreement)
    progress.note(f"ONNX Runtime {_sentence(agreement)}: not good enough, so PyTorch computes the prefix.")
    return _eager(prefix), f"PyTorch {version('torch')}", "is the reference itself"


def _record_agreement(prefix: Prefix, samples: Samples, rows: Sequence[int], record: Path) -> None:
    batch = np.stack([_decoded(prefix, samples, row) for row in rows[:CHECKED]])
    write_text(record, json.dumps({"error": _disagreement(_onnx(prefix), _eager(prefix), batch), "images": len(batch)}))


def _checked_cuda(prefix: Prefix, samples: Samples, rows: Sequence[int], progress: Progress) -> tuple[Engine, str, str]:
    half = _half_cuda(prefix)
    batch = np.stack([_decoded(prefix, samples, row) for row in rows[:CHECKED]])
    agreement = {"error": _disagreement(half, _eager(prefix), batch), "images": len(batch)}
    if agreement["error"] <= TOLERANCE["PyTorch, half precision"]:
        return half, f"PyTorch {version('torch')}, half precision, channels last, CUDA", _sentence(agreement)
    progress.note(f"Half precision {_sentence(agreement)}: not good enough, so full precision is used.")
    return _eager(prefix, "cuda"), f"PyTorch {version('torch')}, CUDA", "is the reference itself"


def _disagreement(engine: Engine, reference: Engine, batch: NDArray[np.uint8]) -> float:
    """The largest difference as a share of the largest output."""
    expected = reference(batch)
    return float(np.abs(engine(batch) - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _sentence(agreement: dict[str, Any]) -> str:
    error, images = agreement["error"], agreement["images"]
    return f"differs from PyTorch by at most {error:.1e} of the largest output on {images} images"


def _ensure_bundle(prefix: Prefix) -> None:
    """Export the trunk once: `trunk.onnx`, `trunk.safetensors` and `bundle.json` appear together or not at all."""
    if (prefix.bundle / "bundle.json").is_file():
        return
    from budwood import torch_engine

    with folder_draft(prefix.bundle) as draft:
        parameters = torch_engine.export(prefix.net, prefix.weights, prefix.size, draft)
        (draft / "bundle.json").write_text(json.dumps({"network": prefix.net.name, "parameters": parameters}))


def _onnx(prefix: Prefix) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave cores to decoding
    graph = str(prefix.bundle / "trunk.onnx")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {"pixels": batch})[0], np.float32)

    return run


def _eager(prefix: Prefix, device: str = "cpu") -> Engine:
    from budwood import torch_engine

    return torch_engine.eager(prefix.net, prefix.bundle / "trunk.safetensors", device)


def _half_cuda(prefix: Prefix) -> Engine:
    from budwood import torch_engine

    return torch_engine.half_cuda(prefix.net, prefix.bundle / "trunk.safetensors")


def _cuda() -> bool:
    """Whether there is a CUDA device. Torch, slow to load, is asked only where a driver is installed."""
    if shutil.which("nvidia-smi") is None:
        return False
    from budwood import torch_engine

    return torch_engine.has_cuda()


def _toolchain() -> str:
    """The versions that the exported graph depends on."""
    return _hash([version(name) for name in ("torch", "timm", "onnxruntime")])[:8]


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=12).hexdigest()
