"""Inputs of a network by row, wherever they come from: memory, the store of pixels, an engine that is run for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Sets
from budwood.data.loading import Pixels, flip
from budwood.inference.engines import BATCH, Floats, InferenceEngine

if TYPE_CHECKING:
    from torch import Tensor

EVALUATED: Final = 64  # images a batch where nothing is learned


class InputSource(Protocol):
    """Inputs of a network by row: uint8 pixels [n, size, size, 3] or float32 outputs of a frozen prefix [n, *shape]."""

    def __len__(self) -> int:
        """How many there are."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any] | Tensor:
        """Some of them, in that order."""


@dataclass(frozen=True)
class ArraySource:
    """Rows that are held in memory."""

    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some of them, in that order."""
        return np.asarray(self.values[rows])


@dataclass(frozen=True)
class ConcatSource:
    """The rows of several arrays of one shape, all of the first before all of the second."""

    parts: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some of them, in that order."""
        which, place = np.divmod(rows, len(self.parts[0]))
        return np.stack([self.parts[part][row] for part, row in zip(which.tolist(), place.tolist(), strict=True)])


@dataclass(frozen=True)
class FlippedSource:
    """Rows of pixels as one view shows them."""

    rows: InputSource
    view: str

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> Pixels:
        """The pixels of some rows, uint8 [n, size, size, 3]."""
        return flip(np.asarray(self.rows.take(rows)), self.view)


@dataclass(frozen=True)
class FeatureSource:
    """What an engine makes of rows of pixels, computed whenever it is asked for."""

    engine: InferenceEngine
    rows: InputSource

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The outputs for some rows, float32 [n, *shape]."""
        pixels = np.asarray(self.rows.take(rows))
        return np.concatenate(
            [self.engine.run(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]
        )


def flip_source(rows: InputSource, view: str) -> InputSource:
    """Rows as they are for images that one view shows."""
    return (
        FeatureSource(rows.engine, FlippedSource(rows.rows, view))
        if isinstance(rows, FeatureSource)
        else FlippedSource(rows, view)
    )


@dataclass(frozen=True)
class Labelled:
    """The inputs and labels (int32 [n]) of one split; a label is the number of a set in `label_sets`, if there are any.

    Inputs may be several views of the images, each of n rows: all of the first before all of the second.
    """

    inputs: InputSource
    labels: NDArray[np.int32]
    label_sets: Sets = ()


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """An order of rows in batches; a single row that is left over joins the batch before, as batch norm needs two."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:stop]


def in_groups(items: Iterable[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    """Items in lists of `size`; the last may be shorter."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group
