"""The device that trains, its threads and its memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from budwood.inference.input_sources import EVALUATED, Labelled, batches

ALLOCATOR: Final = {-4: 0, -1: 2**31 - 1}  # glibc's M_MMAP_MAX and M_TRIM_THRESHOLD: map nothing apart, trim nothing
DEVICE_SHARE: Final = 0.25  # of a GPU's free memory that a split may take
OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class OnDevice:
    """Rows that are held on the device of training."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Some of them, in that order."""
        return self.values[torch.from_numpy(rows).to(self.values.device)]


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """PyTorch computes in so many threads, for a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find_best_device() -> str:
    """The fastest kind of device that PyTorch sees: cuda, mps (Apple) or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself, and does not only imitate it."""
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def place_on_device(split: Labelled, device: str) -> Labelled:
    """The split with its inputs on a CUDA device, where they take a small part of its free memory; else as it is."""
    if device != "cuda":
        return split
    first = split.inputs.take(np.zeros(1, np.int64))
    if isinstance(first, Tensor) or first.nbytes * len(split.inputs) > DEVICE_SHARE * torch.cuda.mem_get_info()[0]:
        return split
    return move_inputs(split, device)


def move_inputs(split: Labelled, device: str) -> Labelled:
    """The split with its inputs on a device."""
    taken = [load_batch(split, rows, device) for rows in batches(np.arange(len(split.inputs)), EVALUATED)]
    return Labelled(OnDevice(torch.cat(taken)), split.labels, split.label_sets)


def load_batch(split: Labelled, rows: NDArray[np.int64], device: str) -> Tensor:
    """Take some rows of the inputs to the device."""
    taken = split.inputs.take(rows)
    return (taken if isinstance(taken, Tensor) else torch.from_numpy(taken)).to(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch could not get memory, on a device or on the CPU, which has no exception of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error).lower() for word in OUT_OF_MEMORY)


def disable_malloc_trim() -> bool:
    """Have the C library keep freed memory for the next step instead of handing it back after each.

    glibc maps every large array anew and the kernel clears its pages, which took half of a training step's time. The
    setting is of the whole process; memory is still reused, and is handed back when the process ends.

    Returns:
        Whether it does so now; not every C library can.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in ALLOCATOR.items())
