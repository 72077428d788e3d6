"""What a network says of several images: a list that is also a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from budwood.display import Displayed
from budwood.evaluation.prediction_rows import make_document, make_table
from budwood.evaluation.prediction_table import ImagePrediction
from budwood.storage.tabular import Tabular
from budwood.text import counted

if TYPE_CHECKING:
    import pyarrow as pa


class PredictionList(list[ImagePrediction], Displayed, Tabular):
    """Predictions in the order of the images, as `bw.predict` returns them.

    Attributes:
        classes: Names of the classes.
        multilabel: Whether an image may have several of the classes.
    """

    def __init__(self, answers: Any = (), classes: tuple[str, ...] = (), multilabel: bool = False) -> None:
        """Hold predictions.

        Args:
            answers: The predictions.
            classes: Names of the classes.
            multilabel: Whether an image may have several of the classes.
        """
        super().__init__(answers)
        self.classes = classes
        self.multilabel = multilabel

    def __repr__(self) -> str:
        most = 3
        shown = "".join(f"\n  {one!r}," for one in self[:most])
        more = f"\n  and {len(self) - most:,} more" if len(self) > most else ""
        return f"PredictionList of {counted(len(self), 'image')}{':' if self else ''}{shown}{more}"

    def to_arrow(self) -> pa.Table:
        """Convert to an Arrow table.

        Returns:
            A row an image, with the columns that `budwood predict --parquet` writes.
        """
        return make_table((make_document(one, self.classes) for one in self), self.classes, self.multilabel)
