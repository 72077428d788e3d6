"""Rows in blocks, so that the memory of a computation does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator


def split_blocks(n: int, size: int) -> Iterator[slice]:
    """Split the numbers below n into blocks.

    Args:
        n: How many there are, 0 or more.
        size: How many a block has, at least 1; the last may have fewer.

    Yields:
        Each block as a slice, in order; nothing where n is 0.
    """
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
