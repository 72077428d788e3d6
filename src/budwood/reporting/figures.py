"""The figures of `run.plot()`, `run.show_mistakes()`, `run.confusion.plot()` and `data.show()`."""

from __future__ import annotations

from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Dataset
from budwood.errors import DataError, RunError
from budwood.evaluation.confusion import Confusion
from budwood.evaluation.label_task import task_of
from budwood.evaluation.predictions import Predictions
from budwood.reporting.charts import draw_intervals
from budwood.reporting.display_card import Card, CardChart, CardPicture, PictureGroup, render_card
from budwood.reporting.display_pictures import list_pictures
from budwood.reporting.displays import make_confusion_card
from budwood.reporting.run_page import CHART_MOST, draw_training_curves
from budwood.reporting.thumbnails import make_thumbnail
from budwood.runs.run import Run
from budwood.storage.figure import Figure
from budwood.text import SPLITS, counted

CLASSES_SHOWN: Final = 25
MOST: Final = 200  # pictures of a figure


def plot_run(run: Run) -> Figure:
    """Draw how training went, and how well each class is recognised on validation images.

    Args:
        run: The run.

    Returns:
        The figure.
    """
    record = run.record
    headline = run.task.choose_headline(record.val.figures) if "val" in record.metrics else "accuracy"
    charts = [CardChart("", Markup(svg)) for svg in draw_training_curves(record, run.history, headline)]
    if "val" in record.metrics and len(run.classes) <= CHART_MOST:
        rows = [(name, found.recall) for name, found in record.val.per_class.items()]
        title = "Recall of each class on validation images, with 95 % intervals"
        charts.append(CardChart("", Markup(draw_intervals(title, rows, "recall on validation, with 95 % interval"))))
    notes = [] if charts else ["There is nothing to draw yet: no epoch is done."]
    title = f"{record.network.name} on {record.dataset.name}"
    card = Card("Training", title, [("scores", "; ".join(run.list_scores()))], charts=charts, notes=notes)
    return Figure(f"Training of {run.path.name}", render_card(card))


def plot_confusion(confusion: Confusion) -> Figure:
    """Draw a confusion matrix.

    Args:
        confusion: The counts.

    Returns:
        The figure.
    """
    return Figure("Confusion matrix", render_card(make_confusion_card(confusion)))


def show_mistakes(predictions: Predictions, n: int) -> Figure:
    """Show the surest mistakes among predictions of a run.

    Args:
        predictions: The predictions, with their origin.
        n: Number of pictures, from 1.

    Returns:
        The figure.

    Raises:
        RunError: `n` is no such number.
    """
    if not isinstance(n, int) or not 1 <= n <= MOST:
        raise RunError(f"n: expected a whole number from 1 to {MOST}, found {n!r}.", "Ask for 12.")
    wrong = predictions.wrong()
    split = SPLITS[wrong.origin.split] if wrong.origin else ""
    pictures = list_pictures(wrong, min(n, len(wrong)))
    title = f"{counted(len(wrong), 'mistake')} on {counted(len(predictions), f'{split} image')}"
    more = f"; the {len(pictures)} surest" if len(pictures) < len(wrong) else ", the surest first" if pictures else ""
    card = Card("Mistakes", f"{title}{more}", pictures=[PictureGroup("", pictures)])
    return Figure(title, render_card(card))


def show_dataset(data: Dataset, split: str, per_class: int) -> Figure:
    """Show some pictures of each class, chosen by their contents and so always the same.

    Args:
        data: The data set.
        split: `train`, `val` or `test`; the labels of `test` are not shown.
        per_class: Number of pictures of each class, from 1.

    Returns:
        The figure.

    Raises:
        DataError: `per_class` is no such number, or there is no such split.
    """
    if not isinstance(per_class, int) or not 1 <= per_class <= MOST:
        raise DataError(f"per_class: expected a whole number from 1 to {MOST}, found {per_class!r}.", "Ask for 4.")
    samples = data.samples(split).in_content_order()
    hidden = split == "test"
    labels = np.full(len(samples), SEALED, np.int32) if hidden else samples.labels
    groups = []
    for number, rows in _group_rows(labels):
        name = "" if hidden else task_of(data.label_sets, len(data.classes)).name_label(number, data.classes)
        chosen = rows[: 4 * per_class if hidden else per_class].tolist()
        pictures = [
            CardPicture(make_thumbnail(data.root, path, id, data.value_range), path, (path,))
            for path, id in ((samples.paths[row], samples.ids[row]) for row in chosen)
        ]
        groups.append(PictureGroup(f"{name} ({len(rows):,})" if name else "", pictures))
    notes = ["The labels of test images are sealed until `budwood test`."] if hidden else []
    if len(groups) > CLASSES_SHOWN:
        notes.append(f"The first {CLASSES_SHOWN} of {len(groups):,} classes.")
    title = f"{data.name}: {counted(len(samples), f'{SPLITS[split]} image')}"
    return Figure(title, render_card(Card("Images", title, pictures=groups[:CLASSES_SHOWN], notes=notes)))


def _group_rows(labels: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int64]]]:
    """The rows of each label number that occurs."""
    return [(int(number), np.flatnonzero(labels == number)) for number in np.unique(labels)]
