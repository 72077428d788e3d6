"""The frozen prefix: what is frozen runs once per image, through the fastest engine that agrees with PyTorch.

A prefix is the part of a network up to a stage, with the preprocessing folded in: uint8 pixels [n, size, size, 3] to
float32 [n, *shape]. Its bundle (graph, weights, how well the engine agreed with PyTorch) and its outputs lie in the
cache, keyed by weights, stages and preprocessing; outputs also by image content. When all is there, no torch is loaded.
A trained network as a whole is run the same way.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.dataset import Samples
from budwood.decoding import SHARD, VIEWS, Decoder, decoded, kept, processors, viewed
from budwood.files import folder_draft, write_text
from budwood.networks import TRUNK
from budwood.plan import Plan, hash_of, toolchain
from budwood.progress import Progress
from budwood.recipe import Recipe
from budwood.space import make_room
from budwood.store import Store
from budwood.weights import Weights

if TYPE_CHECKING:
    from budwood.torch_engine import Part

BATCH: Final = 16  # images a call of the engine; larger batches fall out of a CPU's cache
CHECKED: Final = 16  # real images that the engine must agree on
TOLERANCE: Final = {"ONNX Runtime": 1e-4, "PyTorch": 1e-5, "PyTorch, half precision": 2e-2}  # of the largest output
OUTPUT_LIMIT: Final = 4 * 2**30  # bytes of outputs that are held in memory at most

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Prefix:
    """The part of a recipe's network from the image to the end of `stop` (None: the logits), ready to run.

    `key` names the weights, the stages and the preprocessing; `shape` is that of one image's output.
    """

    recipe: Recipe
    plan: Plan
    classes: int
    weights: Weights
    stop: str | None
    shape: tuple[int, ...]
    key: str
    cache: Path

    @property
    def bundle(self) -> Path:
        """The folder with the exported graph and the weights."""
        return self.cache / "networks" / f"{self.key}-{toolchain()}"


@dataclass(frozen=True)
class Outputs:
    """A prefix's outputs for images in their order: float32 [n, *shape]; how many were computed and reused."""

    values: NDArray[np.float32]
    computed: int
    engine: str
    agreement: str

    @property
    def reused(self) -> int:
        """Images whose output an earlier run had computed."""
        return len(self.values) - self.computed


def prefix_of(recipe: Recipe, plan: Plan, classes: int, weights: Weights, stop: str | None, cache: Path) -> Prefix:
    """The prefix up to a place of a recipe's network. Loads no torch."""
    kept_parts = [plan[name] for name in ("source", "name", "channels", "size", "mean", "std")]
    parts = [weights.digest, *kept_parts, recipe.own_options, stop, "bicubic"]
    if stop in (TRUNK, None):
        parts += [plan["cut"], plan["pool"]]
    if stop is None:
        parts += [recipe.head, recipe.batch_norm, recipe.activation, classes]
    shape = (classes,) if stop is None else (plan["features"],) if stop == TRUNK else tuple(plan["prefix_shape"])
    return Prefix(recipe, plan, classes, weights, stop, shape, hash_of(parts), cache)


def too_large(prefix: Prefix, images: int) -> bool:
    """Whether the outputs for so many images would not fit into memory."""
    return images * math.prod(prefix.shape) * 4 > OUTPUT_LIMIT


def outputs(prefix: Prefix, samples: Samples, progress: Progress, view: str = "") -> Outputs:
    """The outputs of the prefix for every sample as a view shows it: from the store, else computed and stored."""
    store = _store(prefix, view)
    values = np.empty((len(samples), *prefix.shape), np.float32)
    missing = []
    for row, id in enumerate(samples.ids):
        if (known := store.row(id)) is None:
            missing.append(row)
        else:
            values[row] = known
    store.use(samples.ids)
    if missing:
        size, resize = prefix.plan["size"], prefix.recipe.resize
        with Decoder(samples, missing, size, resize, prefix.cache, progress) as decoder:
            run, engine, agreement = _engine(prefix, samples, missing, progress)
            _compute(prefix, lambda batch: run(viewed(batch, view)), decoder, missing, values, store, progress)
    else:
        engine, agreement = "none: every output was in the store", "checked when the outputs were computed"
    return Outputs(values, len(missing), engine, agreement)


def missing_outputs(prefix: Prefix, samples: Samples) -> list[int]:
    """The rows whose outputs are not in the store yet."""
    store = _store(prefix, "")
    return [row for row, id in enumerate(samples.ids) if id not in store]


def evaluated(prefix: Prefix, samples: Samples, progress: Progress) -> Outputs:
    """The mean outputs over the views of the recipe's test-time augmentation."""
    first, *others = (outputs(prefix, samples, progress, view) for view in VIEWS[prefix.recipe.tta])
    if not others:
        return first
    return replace(first, values=sum((other.values for other in others), first.values) / np.float32(1 + len(others)))


def part_state(prefix: Prefix) -> dict[str, NDArray[Any]]:
    """The part's tensors by their names in the network, from the bundle, without torch."""
    from safetensors.numpy import load_file

    _ensure_bundle(prefix)
    return dict(load_file(prefix.bundle / "part.safetensors"))


def set_aside(prefix: Prefix) -> str:
    """A sentence on what of the weights file was not used; empty when all was."""
    _ensure_bundle(prefix)
    return str(_about_bundle(prefix)["aside"])


def _store(prefix: Prefix, view: str) -> Store:
    folder = prefix.cache / "outputs" / "-".join([prefix.key, prefix.recipe.resize, *([view] if view else [])])
    return Store(folder, prefix.shape, np.float32)


def _compute(
    prefix: Prefix,
    run: Engine,
    decoder: Decoder,
    rows: Sequence[int],
    values: NDArray[np.float32],
    store: Store,
    progress: Progress,
) -> None:
    """Fill `values[rows]`, a shard at a time, and keep each shard; what is kept survives an interruption."""
    size = len(rows) * math.prod(prefix.shape) * 4
    keep = make_room(prefix.cache, size, decoder.pending, f"Outputs of {prefix.stop or 'the network'}", progress)
    label = "Network" if prefix.stop is None else "Frozen prefix"
    with progress.bar(f"{label} of {prefix.plan['name']}", len(rows)) as step:
        for start in range(0, len(rows), SHARD):
            shard = rows[start : start + SHARD]
            for first in range(0, len(shard), BATCH):
                part = shard[first : first + BATCH]
                values[part] = run(decoder.take(part))
                step(len(part))
            decoder.keep()
            keep = keep and kept(store, [decoder.samples.ids[row] for row in shard], values[shard], progress)


def _engine(prefix: Prefix, samples: Samples, rows: Sequence[int], progress: Progress) -> tuple[Engine, str, str]:
    """The engine for this machine, its name and how well it agrees with PyTorch on real images."""
    _ensure_bundle(prefix)
    record = prefix.bundle / "agreement.json"
    if _cuda():
        return _checked_cuda(prefix, samples, rows, progress)
    if reason := _about_bundle(prefix)["no_graph"]:
        progress.note(f"{prefix.plan['name']} cannot be exported to ONNX ({reason}), so PyTorch computes it.")
        return _eager(prefix), f"PyTorch {version('torch')}", "is the reference itself"
    if not record.is_file():
        _record_agreement(prefix, samples, rows, record)
    agreement = json.loads(record.read_text())
    if agreement["error"] <= TOLERANCE["ONNX Runtime"]:
        return _onnx(prefix), f"ONNX Runtime {version('onnxruntime')}", _sentence(agreement)
    progress.note(f"ONNX Runtime {_sentence(agreement)}: not good enough, so PyTorch computes the prefix.")
    return _eager(prefix), f"PyTorch {version('torch')}", "is the reference itself"


def _record_agreement(prefix: Prefix, samples: Samples, rows: Sequence[int], record: Path) -> None:
    batch = _first_images(prefix, samples, rows)
    write_text(record, json.dumps({"error": _disagreement(_onnx(prefix), _eager(prefix), batch), "images": len(batch)}))


def _checked_cuda(prefix: Prefix, samples: Samples, rows: Sequence[int], progress: Progress) -> tuple[Engine, str, str]:
    half = _half_cuda(prefix)
    batch = _first_images(prefix, samples, rows)
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


def _first_images(prefix: Prefix, samples: Samples, rows: Sequence[int]) -> NDArray[np.uint8]:
    size, resize = prefix.plan["size"], prefix.recipe.resize
    return np.stack([decoded(samples, row, size, resize) for row in rows[:CHECKED]])


def _ensure_bundle(prefix: Prefix) -> None:
    """Export the part once: graph, weights and `bundle.json` appear together or not at all."""
    if (prefix.bundle / "bundle.json").is_file():
        return
    from budwood import torch_engine

    with folder_draft(prefix.bundle) as draft:
        told = torch_engine.export(_part(prefix), draft)
        (draft / "bundle.json").write_text(json.dumps({"network": prefix.plan["name"], **told}))


def _about_bundle(prefix: Prefix) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((prefix.bundle / "bundle.json").read_text())
    return about


def _part(prefix: Prefix) -> Part:
    from budwood.torch_engine import Part

    return Part(prefix.recipe, prefix.plan, prefix.classes, prefix.weights, prefix.stop)


def _onnx(prefix: Prefix) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave cores to decoding
    graph = str(prefix.bundle / "part.onnx")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {"pixels": batch})[0], np.float32)

    return run


def _eager(prefix: Prefix, device: str = "cpu") -> Engine:
    from budwood import torch_engine

    return torch_engine.eager(_part(prefix), prefix.bundle / "part.safetensors", device)


def _half_cuda(prefix: Prefix) -> Engine:
    from budwood import torch_engine

    return torch_engine.half_cuda(_part(prefix), prefix.bundle / "part.safetensors")


def _cuda() -> bool:
    """Whether there is a CUDA device. Torch, slow to load, is asked only where a driver is installed."""
    if shutil.which("nvidia-smi") is None:
        return False
    from budwood import torch_engine

    return torch_engine.has_cuda()
