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
    """Rows of inputs that are held on the device of training.

    Attributes:
        values: The rows, [n, ...], on the device.
    """

    values: Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return some rows, in the given order.

        Args:
            rows: Row numbers, int64 [k].

        Returns:
            The rows [k, ...], on the device.
        """
        return self.values[torch.from_numpy(rows).to(self.values.device)]


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Have PyTorch compute in a number of threads inside a block.

    Args:
        count: Number of threads.

    Yields:
        Nothing; the number from before is restored afterwards.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_bfloat16(device: str) -> bool:
    """Return whether a device computes in bfloat16 natively, without emulation.

    Args:
        device: `cuda`, `mps` or `cpu`; true for some `cuda` only.

    Returns:
        Whether it does.
    """
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def place_on_device(split: Labelled, device: str) -> Labelled:
    """Move the inputs of a split to a CUDA device where they fit easily.

    They are moved if they take at most a quarter of the device's free memory.

    Args:
        split: The split.
        device: The device of training.

    Returns:
        The split with its inputs on the device; or the split as it is, where the device is another or too small.
    """
    if device != "cuda":
        return split
    first = split.inputs.take(np.zeros(1, np.int64))
    if isinstance(first, Tensor) or first.nbytes * len(split.inputs) > DEVICE_SHARE * torch.cuda.mem_get_info()[0]:
        return split
    return move_inputs(split, device)


def move_inputs(split: Labelled, device: str) -> Labelled:
    """Move the inputs of a split to a device, whatever room they take.

    Args:
        split: The split.
        device: The device.

    Returns:
        The split with its inputs on the device.
    """
    loaded = [load_batch(split, rows, device) for rows in batches(np.arange(len(split.inputs)), EVALUATED)]
    return Labelled(OnDevice(torch.cat(loaded)), split.labels, split.label_sets)


def load_batch(split: Labelled, rows: NDArray[np.int64], device: str) -> Tensor:
    """Load some rows of a split's inputs onto a device.

    Args:
        split: The split.
        rows: Row numbers, int64 [k].
        device: The device.

    Returns:
        The rows [k, ...], on the device.
    """
    inputs = split.inputs.take(rows)
    return (inputs if isinstance(inputs, Tensor) else torch.from_numpy(inputs)).to(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that PyTorch could not get memory.

    On the CPU PyTorch has no exception of its own for it, so the message is read.

    Args:
        error: What PyTorch raised.

    Returns:
        Whether memory ran out, on a device or on the CPU.
    """
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error).lower() for word in OUT_OF_MEMORY)


def disable_malloc_trim() -> bool:
    """Have the C library keep freed memory for the next step instead of handing it back after each.

    glibc maps every large array anew and the kernel clears its pages, which took half of a training step's time.
    The setting is of the whole process; memory is still reused, and is handed back when the process ends.

    Returns:
        Whether the setting is now in force; only glibc on Linux has it.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in ALLOCATOR.items())
