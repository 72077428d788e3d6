"""Checkpoints: all that the next step of training depends on, in one file that holds no pickles.

On a CPU a training that goes on from a checkpoint ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as encode_tensors
from torch import Tensor

from budwood.errors import RunError
from budwood.storage.atomic import raise_storage_errors, write_bytes
from budwood.storage.checked_files import digest_bytes
from budwood.storage.strict_json import decode_json, encode_json
from budwood.training.clock import WRITING

LAST: Final = "last.safetensors"
OFTEN: Final = 30.0  # seconds from one checkpoint to the next, at least
SHARE: Final = 0.02  # of the time that may go into checkpoints
ORDER, LOGITS, CPU_RANDOM, CUDA_RANDOM = "/order", "/logits", "/random/cpu", "/random/cuda"  # no module has such a name
COUNTERS: Final = ("step", "mu_product")  # of optimizers, kept on the CPU whatever the device

Tensors = dict[str, Tensor]


@dataclass
class LoopState:
    """The state of the training loop between two steps.

    Attributes:
        epoch: The epoch that is being trained, from 1.
        step: Optimizer steps of this epoch that are done.
        order: Rows of this epoch in order, int64.
        losses: Sum of the losses (nats) of the images seen in this epoch.
        correct: Number of them that were classified correctly.
        seen: Number of images seen in this epoch.
        gradients: Sums of the gradient norm of each stage over the steps of this epoch.
        factor: The schedule's factor on the learning rate at the latest step.
        history: One row for every finished epoch.
        start: Figures of the solved head that training started from, as a row of the history; empty without one.
        best_epoch: The epoch that validation prefers so far, from 1; 0: none yet, or that solved head.
        best: Tensors of the best epoch by name.
        best_logits: Validation logits of the best epoch, float32 [n, classes].
        parts: Parts in which a batch is computed, where memory is short.
        at_once: Images that are evaluated together.
        seconds: Seconds of training so far, over all interruptions.
        evaluating: Seconds of the latest evaluation; None before the first.
    """

    epoch: int = 1
    step: int = 0
    order: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    losses: float = 0.0
    correct: int = 0
    seen: int = 0
    gradients: list[float] = field(default_factory=list)
    factor: float = 1.0
    history: list[dict[str, float]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    best: Tensors = field(default_factory=dict)
    best_logits: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    parts: int = 1
    at_once: int = 64
    seconds: float = 0.0
    evaluating: float | None = None


class Checkpoints:
    """The checkpoints of one training in a folder; without a folder, none are written or found."""

    def __init__(self, folder: Path | None, often: float = OFTEN) -> None:
        """Open the checkpoints of a training.

        Args:
            folder: Where they are; None: none are written or found.
            often: Seconds from one checkpoint to the next, at least.
        """
        self.folder, self._often = folder, often
        self._best: tuple[int, str] | None = None  # the best epoch whose file is written, and the file's digest
        self._next = time.monotonic() + often
        self._seconds: float | None = None  # of the longest so far
        self._saved: tuple[int, int, int] | None = None

    @property
    def due(self) -> bool:
        """Return whether enough time has passed since the last checkpoint to write the next.

        Writing may take only a small share of the time (2 %).
        """
        return self.folder is not None and time.monotonic() >= self._next

    def save(self, state: LoopState, tensors: Tensors, random: np.random.Generator) -> None:
        """Write a checkpoint.

        The best epoch has a file of its own, which is written only when it changes, and before the file that names it.
        Nothing is written while any tensor is not finite, so that the checkpoint before is the last good one.

        Args:
            state: The state of the loop.
            tensors: Every tensor that a step changes, by name.
            random: The loop's generator; its state is kept, too, as are those of PyTorch.

        Raises:
            StorageError: The disk is full or the folder cannot be written; the checkpoint before is then still whole.
        """
        here = (state.epoch, state.step, state.best_epoch)
        if (
            self.folder is None
            or here == self._saved
            or not all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
        ):
            return
        started = time.monotonic()
        with raise_storage_errors(self.folder):
            self._write(self.folder, state, tensors, random)
        self._saved, self._seconds = here, max(self._seconds or 0.0, time.monotonic() - started)
        self._next = time.monotonic() + max(self._often, (time.monotonic() - started) / SHARE)

    def expect_seconds(self, size: int) -> float:
        """Estimate the seconds that a checkpoint takes: as the longest so far, else by its bytes.

        Args:
            size: Bytes of what is trained; an optimizer may keep twice as much, and the best epoch has as much.

        Returns:
            Seconds; 0 where none are kept.
        """
        if self.folder is None:
            return 0.0
        return 4 * size / WRITING if self._seconds is None else self._seconds

    def _write(self, folder: Path, state: LoopState, tensors: Tensors, random: np.random.Generator) -> None:
        best = folder / f"best-{state.best_epoch}.safetensors"
        if state.best and (self._best is None or self._best[0] != state.best_epoch):
            content = encode_tensors({**state.best, LOGITS: torch.from_numpy(state.best_logits)})
            write_bytes(best, content)
            self._best = state.best_epoch, digest_bytes(content)
        metadata = {
            "standing": {_NAMES.get(name, name): getattr(state, name) for name in _PLAIN},
            "random": random.bit_generator.state,
            "best": self._best[1] if state.best and self._best else None,
        }
        extra = {ORDER: torch.from_numpy(state.order), **_generator_states()}
        network = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        about, tensors = encode_json(metadata), {**network, **extra}
        write_bytes(folder / LAST, encode_tensors(tensors, {"about": about, "digest": _digest(tensors, about)}))
        self._forget_all_but(best)

    def load(self, random: np.random.Generator) -> tuple[LoopState, Tensors] | None:
        """Read the latest checkpoint and restore the random states.

        Args:
            random: The loop's generator; it is set to its state at the checkpoint, as are those of PyTorch.

        Returns:
            The state of the loop, and every tensor that a step changes, by name; None where there is no checkpoint.

        Raises:
            RunError: A file cannot be read, or is damaged.
        """
        if self.folder is None or not (self.folder / LAST).is_file():
            return None
        tensors, metadata = _read_checkpoint(self.folder / LAST)
        with _raise_unreadable(self.folder / LAST):
            standing = {"start": {}, **metadata["standing"]}  # of earlier versions, which had none
            plain = {name: _read_undefined(name, standing[_NAMES.get(name, name)]) for name in _PLAIN}
            state = LoopState(**plain, order=tensors[ORDER].numpy())
        best = self.folder / f"best-{state.best_epoch}.safetensors"
        if state.best_epoch or metadata.get("best"):
            self._best = state.best_epoch, _check_best(best, metadata.get("best"))
            state.best, _ = _read_checkpoint(best)
            with _raise_unreadable(best):
                state.best_logits = state.best.pop(LOGITS).numpy()
        with _raise_unreadable(self.folder / LAST):
            random.bit_generator.state = metadata["random"]
            _set_generators(tensors)
        self._forget_all_but(best)  # a later one, that no checkpoint came to name
        return state, {name: tensor for name, tensor in tensors.items() if not name.startswith("/")}

    def _forget_all_but(self, best: Path) -> None:
        for old in best.parent.glob("best-*.safetensors"):
            if old != best:
                old.unlink()


_PLAIN: Final = tuple(f.name for f in fields(LoopState) if f.name not in ("order", "best", "best_logits"))
_NAMES: Final = {"correct": "right"}  # fields that have another name in the file


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the tensors that an optimizer keeps between steps.

    Args:
        optimizer: The optimizer.

    Returns:
        The tensors by `<number of the parameter>.<name>`.
    """
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(optimized_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what an optimizer keeps between steps.

    The memory format of the parameters is kept: it decides which kernels are used, and so the last bits.

    Args:
        optimizer: An optimizer of the same kind, with the same parameters in the same order.
        tensors: The tensors as `optimizer_tensors` returned them.
    """
    parameters = optimized_parameters(optimizer)
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        if name in COUNTERS:
            optimizer.state[parameter][name] = value.clone()
        else:  # the memory format decides which kernels are used, and so the last bits
            empty = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
            optimizer.state[parameter][name] = empty.to(parameter.device).copy_(value)


def optimized_parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return the parameters that an optimizer moves, in its order.

    Args:
        optimizer: The optimizer.

    Returns:
        The parameters of all its groups, one group after the other.
    """
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _generator_states() -> Tensors:
    states = {CPU_RANDOM: torch.get_rng_state()}
    return {**states, CUDA_RANDOM: torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _set_generators(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors[CPU_RANDOM])
    if torch.cuda.is_available() and CUDA_RANDOM in tensors:
        torch.cuda.set_rng_state(tensors[CUDA_RANDOM])


def _read_checkpoint(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors of a file and what it says beside them; a file of an earlier version has no digest of them."""
    with _raise_unreadable(path), safe_open(path, framework="pt") as file:
        found = file.metadata() or {}
        about = found.get("about", "{}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "digest" in found and found["digest"] != _digest(tensors, about):
            raise ValueError("its content has another digest than when it was written")
        return tensors, decode_json(about)


def _read_undefined(name: str, value: Any) -> Any:
    """A value of the state with its numbers that are not defined, which JSON has as null."""
    if value is None:
        return None if name == "evaluating" else math.nan
    if isinstance(value, dict):
        return {key: _read_undefined(key, one) for key, one in value.items()}
    return [_read_undefined("", one) for one in value] if isinstance(value, list) else value


def _check_best(path: Path, expected: str | None) -> str:
    """The digest of the best epoch's file; checked, but for a checkpoint of an earlier version, which has none."""
    with _raise_unreadable(path):
        found = digest_bytes(path.read_bytes())
        if expected not in (None, found):
            raise ValueError("it has another digest than when it was written")
    return found


def _digest(tensors: Tensors, about: str) -> str:
    """The digest of tensors, with their names, types and shapes, and of what is said beside them."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        if tensor.numel():  # one without values cannot be viewed as bytes
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _raise_unreadable(path: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint leads to into one error."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise RunError(
            f"{path}: the checkpoint cannot be read ({reason}).", "Restore the file, or train again from the start."
        ) from error
