"""What there is to compute with: processors, the device, and the other processes of one training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
DEVICE_VARIABLE: Final = "BUDWOOD_DEVICE"  # set to cpu: PyTorch computes on the processor, whatever else there is
GPUS_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_NO_GPU: Final = "-1"  # for CUDA; Windows has no empty variables


def count_processors() -> int:
    """Count the processors that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_threads() -> int:
    """Count the threads in which a network computes: one a processor, or fewer where `OMP_NUM_THREADS` says so.

    Two processes that each compute in a thread on every processor wait for each other in every step: threads of OpenMP
    spin until the last of them has come.

    Returns:
        The number of threads, from 1.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # later numbers are of nested threads
    return min(int(limit), count_processors()) if limit.isdecimal() and int(limit) else count_processors()


def has_fast_bfloat16() -> bool:
    """Tell whether the processor multiplies in bfloat16 natively, so that training steps are faster than in float32.

    Returns:
        True where Linux lists AVX-512 BF16 or AMX; False elsewhere, where it is not known.
    """
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def find_best_device() -> str:
    """Return the fastest kind of device that PyTorch sees, or that of `use_device`.

    Returns:
        `cuda`, `mps` (Apple) or `cpu`.
    """
    if os.environ.get(DEVICE_VARIABLE, "").lower() == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def use_device(device: str) -> Iterator[None]:
    """Have this process, and those that it starts, compute on one device inside a block.

    It says so in the environment, which PyTorch reads when it first looks for a GPU: the block must begin before.

    Args:
        device: `cpu`; `cuda:N`, the GPU of that number among those that are visible; another word: the best device.

    Yields:
        Nothing; the environment from before is restored afterwards.
    """
    kind, _, number = device.partition(":")
    changes: dict[str, str | None] = {DEVICE_VARIABLE: "cpu" if kind == "cpu" else None}
    if kind == "cpu" or number:
        changes[GPUS_VARIABLE] = _name_gpu(int(number)) if number else _NO_GPU
    before = {name: os.environ.get(name) for name in changes}
    _change_environment(changes)
    try:
        yield
    finally:
        _change_environment(before)


def _name_gpu(number: int) -> str:
    """The name of a GPU for CUDA, of those that are visible; that of none where there are not so many."""
    visible = os.environ.get(GPUS_VARIABLE)
    if not visible:
        return str(number)
    return dict(enumerate(visible.split(","))).get(number, _NO_GPU).strip()


def _change_environment(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@dataclass(frozen=True)
class Runtime:
    """The processes that carry out one job together; alone, there is one of rank 0.

    Whatever is decided from a clock, a file or a random number is decided by the process of rank 0 and broadcast, so
    that all processes go the same way. Torch is loaded only by what needs it.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this process decides, writes files and speaks to the user."""
        return self.rank == 0

    @cached_property
    def device(self) -> str:
        """Return the device that this process computes on: `cuda`, `cuda:N` for one of several processes, `mps`, `cpu`.

        Of several processes of one machine each has the GPU of its local rank, as `torchrun` numbers them.
        """
        device = find_best_device()
        return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}" if device == "cuda" and self.world_size > 1 else device

    def broadcast(self, value: T) -> T:
        """Give every process the value that the process of rank 0 has.

        Args:
            value: Any value that can be pickled; ignored in the other processes.

        Returns:
            The value of rank 0.
        """
        if self.world_size == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def all_reduce(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up an array over all processes.

        Args:
            values: float64 of any shape, the same in every process.

        Returns:
            The sum, of the same shape; in one process the values as they are.
        """
        if self.world_size == 1:
            return values
        import torch
        from torch import distributed

        total = torch.from_numpy(values.copy()).to(self.device if distributed.get_backend() == "nccl" else "cpu")
        distributed.all_reduce(total)
        summed: NDArray[np.float64] = total.cpu().numpy()
        return summed


def find_runtime() -> Runtime:
    """Find the processes that a launcher such as `torchrun` started together, by what it sets in the environment.

    Returns:
        The runtime by `RANK` and `WORLD_SIZE`; that of one process where they are not set, or are no numbers.
    """
    rank, world_size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return Runtime(int(rank), int(world_size)) if rank.isdecimal() and world_size.isdecimal() else Runtime()
