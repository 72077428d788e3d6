"""What a data set shows of itself: in one line, in a notebook, and as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budwood.display import Displayed, draw
from budwood.storage.figure import Figure
from budwood.text import counted, show_unprintable

if TYPE_CHECKING:
    from budwood.data.dataset import Dataset

SHOWN = 4


class DatasetDisplay(Displayed):
    """What a `Dataset` shows."""

    def __repr__(self: Dataset) -> str:  # type: ignore[misc]
        counts = {split: len(self.samples(split)) for split in ("train", "val", "test")}
        splits = ", ".join(f"{split} {count:,}" for split, count in counts.items())
        images, classes = counted(len(self), "image"), counted(len(self.classes), "class", "classes")
        return show_unprintable(f"Dataset({self.name!r}: {images}, {classes}; {splits}, test sealed)")

    def show(self: Dataset, split: str = "train", per_class: int = SHOWN) -> Figure:  # type: ignore[misc]
        """Show some pictures of each class.

        Args:
            split: `train` or `val`; of `test` the pictures are shown without their labels, which are sealed.
            per_class: Number of pictures of each class, at most; of at most 25 classes.

        Returns:
            A figure that a notebook shows, and that `save(path)` writes as an HTML file.

        Raises:
            DataError: There is no such split.
        """
        made: Figure = draw("budwood.reporting.figures:show_dataset", self, split, per_class)
        return made
