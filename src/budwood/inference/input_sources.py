"""Inputs of a network by row, wherever they come from: memory, the store of pixels, an engine that is run for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from budwood.data.blocks import split_blocks
from budwood.data.dataset import Sets
from budwood.data.loading import Pixels, flip
from budwood.inference.engines import BATCH, Floats, InferenceEngine

if TYPE_CHECKING:
    from torch import Tensor

EVALUATED: Final = 64  # images a batch where nothing is learned


class InputSource(Protocol):
    """Interface of a network's inputs by row.

    Rows are uint8 pixels [n, size, size, 3] or float32 outputs of a frozen prefix [n, *shape].
    """

    def __len__(self) -> int:
        """Return the number of rows.

        Returns:
            Number of rows, 0 or more.
        """

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any] | Tensor:
        """Return some rows.

        Args:
            rows: Row numbers from 0, int64 [n].

        Returns:
            The rows in the order asked for, an array or tensor [n, ...].
        """


@dataclass(frozen=True)
class ArraySource:
    """Rows of an array in memory.

    Attributes:
        values: The array, [rows, ...].
    """

    values: NDArray[Any]

    def __len__(self) -> int:
        """Return the number of rows.

        Returns:
            Number of rows, 0 or more.
        """
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows.

        Args:
            rows: Row numbers from 0, int64 [n].

        Returns:
            The rows in the order asked for, [n, ...].
        """
        return np.asarray(self.values[rows])


@dataclass(frozen=True)
class ConcatSource:
    """Rows of several arrays of one shape, all of the first before all of the second.

    Attributes:
        parts: The arrays, each [rows, ...]; all have the same number of rows.
    """

    parts: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        """Return the number of rows.

        Returns:
            Number of rows, 0 or more.
        """
        return sum(map(len, self.parts))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows.

        Args:
            rows: Row numbers from 0, int64 [n].

        Returns:
            The rows in the order asked for, [n, ...].
        """
        which, place = np.divmod(rows, len(self.parts[0]))
        return np.stack([self.parts[part][row] for part, row in zip(which.tolist(), place.tolist(), strict=True)])


@dataclass(frozen=True)
class FlippedSource:
    """Rows of pixels, mirrored as one view shows them.

    Attributes:
        rows: Source of the pixels.
        view: `h` (left to right), `v` (upside down), `hv` (both), or empty for no change.
    """

    rows: InputSource
    view: str

    def __len__(self) -> int:
        """Return the number of rows.

        Returns:
            Number of rows, 0 or more.
        """
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> Pixels:
        """Return some rows.

        Args:
            rows: Row numbers from 0, int64 [n].

        Returns:
            Pixels in the order asked for, uint8 [n, size, size, 3].
        """
        return flip(np.asarray(self.rows.take(rows)), self.view)


@dataclass(frozen=True)
class FeatureSource:
    """Outputs of an engine for rows of pixels, computed whenever they are asked for.

    Attributes:
        engine: Engine that computes the outputs.
        rows: Source of the pixels.
    """

    engine: InferenceEngine
    rows: InputSource

    def __len__(self) -> int:
        """Return the number of rows.

        Returns:
            Number of rows, 0 or more.
        """
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """Compute the outputs for some rows, in batches of the engine's size.

        Args:
            rows: Row numbers from 0, int64 [n], at least one.

        Returns:
            Outputs in the order asked for, float32 [n, *shape].
        """
        pixels = np.asarray(self.rows.take(rows))
        return np.concatenate([self.engine.run(pixels[block]) for block in split_blocks(len(pixels), BATCH)])


def flip_source(rows: InputSource, view: str) -> InputSource:
    """Make the source of the same rows for mirrored images.

    Args:
        rows: Source of pixels, or of outputs that an engine computes from pixels.
        view: `h` (left to right), `v` (upside down), `hv` (both), or empty for no change.

    Returns:
        A source with the same number of rows; where an engine computes them, the pixels are mirrored first.
    """
    return (
        FeatureSource(rows.engine, FlippedSource(rows.rows, view))
        if isinstance(rows, FeatureSource)
        else FlippedSource(rows, view)
    )


@dataclass(frozen=True)
class Labelled:
    """The inputs and labels of one split.

    Attributes:
        inputs: Inputs by row; may be several views of the n images, all rows of the first before all of the second.
        labels: int32 [n]; with `label_sets`, each is the number of a set.
        label_sets: The sets of classes that images have; empty where each image has one label.
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
