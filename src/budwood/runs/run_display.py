"""What a run shows of itself: in one line, in a notebook, and as figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budwood.display import Displayed, draw
from budwood.evaluation.confusion import Confusion
from budwood.evaluation.intervals import describe_share_of
from budwood.storage.figure import Figure
from budwood.text import SPLITS, show_unprintable

if TYPE_CHECKING:
    from budwood.evaluation.predictions import Predictions
    from budwood.runs.run_record import RunRecord

MISTAKES = 12


class RunDisplay(Displayed):
    """What a `Run` shows; it has the run's `path` and `record`."""

    path: Path
    record: RunRecord

    def predictions(self, split: str) -> Predictions:
        """Load the predictions for a split."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = [f"{self.record.network.name} on {self.record.dataset.name}", *self.list_scores()]
        facts += [] if self.record.state == "done" else [self.record.state]
        return show_unprintable(f"Run({str(self.path)!r}: {'; '.join(facts)})")

    def list_scores(self) -> list[str]:
        """List the run's scores in words, each with its interval and number of images; that the test is sealed, too."""
        opened = self.record.test
        splits = {**self.record.metrics, **({"test": opened.metrics} if opened else {})}
        lines = [f"{SPLITS[name]} accuracy {describe_share_of(found.accuracy)}" for name, found in splits.items()]
        return [*lines, *([] if opened else ["test sealed"])]

    @property
    def confusion(self) -> Confusion:
        """Count which classes validation images were taken for; of test images: `predictions("test").confusion`.

        Raises:
            RunError: Images have several labels each, or the predictions are missing, damaged or were changed.
        """
        return self.predictions("val").confusion

    def show_mistakes(self, n: int = MISTAKES, split: str = "val") -> Figure:
        """Show the surest mistakes with their pictures.

        Args:
            n: How many, at most.
            split: `val`, or `test` once the test split has been opened.

        Returns:
            A figure that a notebook shows, and that `save(path)` writes as an HTML file. An image whose file is gone
            or was changed has no picture.

        Raises:
            RunError: The test split is still sealed, or there is no such split.
        """
        made: Figure = draw("budwood.reporting.figures:show_mistakes", self.predictions(split), n)
        return made

    def plot(self) -> Figure:
        """Draw how training went, and how well each class is recognised.

        Returns:
            A figure that a notebook shows, and that `save(path)` writes as an HTML file.

        Raises:
            RunError: A file of the run is missing, damaged or was changed.
        """
        made: Figure = draw("budwood.reporting.figures:plot_run", self)
        return made
