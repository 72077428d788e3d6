"""A budget of memory for the images that the threads of this process decode: large ones wait their turn."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image

from budwood.data.deep_images import find_deep_colours

# Bytes that a pixel takes at most: as decoded, as scaled or laid on white, and as turned upright.
BYTES_A_PIXEL: Final = 12
DEEP_BYTES_A_PIXEL: Final = 20  # of colours of 16 bits, which are decoded twice and may be laid on white, too
LEAST: Final = 2**30  # bytes of a budget
SHARE: Final = 4  # of the memory, one part in so many
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


class DecodingBudget:
    """Bytes that may be in use at a time, given out in the order in which they are asked for."""

    def __init__(self, limit: int) -> None:
        """Make a budget of which nothing is used.

        Args:
            limit: Bytes.
        """
        self._limit = limit
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until there is room, and hold it while the block runs.

        What is larger than the whole budget runs alone. Blocks must not be nested.

        Args:
            size: Bytes.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._fits(size))
                self._used += size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._limit


@contextmanager
def reserve_memory(image: Image.Image) -> Iterator[None]:
    """Wait until there is memory to decode an image, and hold it while the block runs.

    Args:
        image: An opened image, which need not be loaded.
    """
    each = DEEP_BYTES_A_PIXEL if find_deep_colours(image) else BYTES_A_PIXEL
    with share_budget().reserve(image.width * image.height * each):
        yield


@cache
def share_budget() -> DecodingBudget:
    """Return the one budget of this process, as all its threads share the memory.

    Returns:
        A budget of a quarter of the memory, at least 1 GiB.
    """
    return DecodingBudget(max(LEAST, _count_memory() // SHARE))


def _count_memory() -> int:
    """The bytes of memory of this machine, or of the container; 0 where that cannot be told."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
    try:
        return min(machine, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no limit
        return machine
