"""Which classes were taken for which, as a record that is also a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from budwood.display import Displayed, draw
from budwood.storage.figure import Figure
from budwood.storage.tabular import refuse_without_pandas
from budwood.text import SPLITS, counted

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Confusion(Displayed):
    """Numbers of images by true class (rows) and predicted class (columns).

    Attributes:
        labels: Names of the classes, in the order of rows and columns.
        counts: int64 [classes, classes].
        split: `val` or `test`; empty where it is not known.
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    split: str = ""

    def __repr__(self) -> str:
        split = f"{SPLITS[self.split]} " if self.split else ""
        images = counted(int(self.counts.sum()), f"{split}image")
        wrong = counted(int(self.counts.sum() - self.counts.trace()), "mistake")
        return f"Confusion({counted(len(self.labels), 'class', 'classes')}, {images}, {wrong})"

    def list_pairs(self) -> list[tuple[str, str, int, int]]:
        """List the pairs of classes that were confused, the most frequent first.

        Returns:
            True class, predicted class, number of such images, and number of images of the true class.
        """
        wrong = self.counts - np.diag(np.diagonal(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        places = [divmod(place, len(self.labels)) for place in order.tolist()]
        return [
            (self.labels[row], self.labels[column], int(wrong[row, column]), int(self.counts[row].sum()))
            for row, column in places
        ]

    def plot(self) -> Figure:
        """Draw the matrix.

        Returns:
            A figure that a notebook shows, and that `save(path)` writes as an HTML file.
        """
        made: Figure = draw("budwood.reporting.figures:plot_confusion", self)
        return made

    def to_pandas(self) -> pandas.DataFrame:
        """Convert to a frame of pandas.

        Returns:
            Counts with the true classes as index and the predicted ones as columns.

        Raises:
            StorageError: pandas is not installed.
        """
        refuse_without_pandas()
        import pandas as pd

        true, predicted = pd.Index(self.labels, name="true"), pd.Index(self.labels, name="predicted")
        return pd.DataFrame(self.counts, index=true, columns=predicted)
