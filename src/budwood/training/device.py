"""The device that trains, its threads and its memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

ALLOCATOR: Final = {-4: 0, -1: 2**31 - 1}  # glibc's M_MMAP_MAX and M_TRIM_THRESHOLD: map nothing apart, trim nothing


DEVICE_SHARE: Final = 0.25  # of a GPU's free memory that a split may take


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


def disable_malloc_trim() -> bool:
    """Whether the C library now keeps freed memory for the next step instead of handing it back after each.

    glibc maps every large array anew and the kernel clears its pages, which took half of a training step's time. The
    setting is of the whole process; memory is still reused, and is handed back when the process ends.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in ALLOCATOR.items())
