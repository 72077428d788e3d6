"""What a source reports for a row, each figure beside our own of the same split, where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from budwood.config.metric_registry import is_loss
from budwood.evaluation.intervals import Metric

Reported = float | tuple[float, float]  # a value, or the ends of a range
Measure = Callable[[str, str], Metric | None]  # our figure of a metric and a split
Missing = Literal["", "no run", "sealed", "not measured", "other scale"]  # why a figure has no difference

SPLITS: Final = ("train", "val", "test")
LOSS: Final = "log_loss"
LOSSES: Final[Mapping[str, str]] = {f"{split}_loss": split for split in SPLITS}
NAMES: Final = (*SPLITS, *LOSSES)  # of the figures that a source may report, as files name them


@dataclass(frozen=True)
class PublishedFigure:
    """One figure that a source reports for a row.

    Attributes:
        split: `train`, `val` or `test`.
        metric: Name of the metric.
        value: The figure, 0 to 1 (nats for a loss); the middle of a range.
        low: Lower end of a range; None for a single value.
        high: Upper end of a range; None for a single value.
    """

    split: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the range; the value twice where it is no range."""
        return self.value if self.low is None else self.low, self.value if self.high is None else self.high


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a source reports for a row: figures of each split, and what they took.

    Figures are of the metric, 0 to 1 (nats for a loss), or losses in nats; each is one value or the ends of a range.

    Attributes:
        train: On the training images.
        val: On the validation images.
        test: On the test images.
        train_loss: Loss on the training images.
        val_loss: Loss on the validation images.
        test_loss: Loss on the test images.
        seconds: Duration of the training; None: not told.
        machine: The machine of that duration; empty: not told.
        parameters: Number of parameters; None: not told.
        metric: The metric of train, val and test.
        note: Source or remark.
    """

    train: Reported | None = None
    val: Reported | None = None
    test: Reported | None = None
    train_loss: Reported | None = None
    val_loss: Reported | None = None
    test_loss: Reported | None = None
    seconds: float | None = None
    machine: str = ""
    parameters: int | None = None
    metric: str = "accuracy"
    note: str = ""

    @property
    def figures(self) -> tuple[PublishedFigure, ...]:
        """The figures that are told, those of the metric first, in the order train, val, test."""
        told = [(split, self.metric, getattr(self, split)) for split in SPLITS]
        told += [(split, LOSS, getattr(self, name)) for name, split in LOSSES.items()]
        return tuple(_make_figure(*one) for one in told if one[2] is not None)

    def record(self) -> dict[str, Any]:
        """Return what is told, as plain values by the names of the attributes.

        Returns:
            The attributes that are not empty, and the metric.
        """
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class ComparedFigure(PublishedFigure):
    """A published figure beside our own of the same split.

    Attributes:
        ours: Our figure of that split and metric; None where there is none that can be held against it.
        difference: Our figure minus the published one, from the nearest end of a range and 0 within; None without
            ours.
        missing: Why there is no difference: `no run`, `sealed` (our test split is), `not measured`, or `other scale`
            (the published loss is no mean over images); empty where there is one.
    """

    ours: Metric | None = None
    difference: float | None = None
    missing: Missing = ""


@dataclass(frozen=True)
class PublishedComparison:
    """What a source reports for a row, its figures compared.

    Attributes:
        figures: The figures, each beside ours of the same split.
        seconds: Published duration of the training; None: not told. It is not compared: it is of another machine.
        machine: The machine of that duration; empty: not told.
        parameters: Published number of parameters; None: not told.
        note: Source or remark.
    """

    figures: tuple[ComparedFigure, ...]
    seconds: float | None = None
    machine: str = ""
    parameters: int | None = None
    note: str = ""


Figure = TypeVar("Figure", bound=PublishedFigure)


def find_figure(figures: Sequence[Figure], metric: str, split: str) -> Figure | None:
    """Find the figure of a metric and a split.

    Args:
        figures: What a source reports for a row.
        metric: Name of the metric.
        split: `train`, `val` or `test`.

    Returns:
        The figure; None where the source does not tell it.
    """
    return next((one for one in figures if (one.metric, one.split) == (metric, split)), None)


def choose_figure(figures: Sequence[Figure], metric: str, split: str) -> Figure | None:
    """Choose the figure that stands for all where there is room for one only.

    Args:
        figures: What a source reports for a row.
        metric: The metric of the table.
        split: The split of the table, `val` or `test`.

    Returns:
        The figure of that metric and split; where it is not told, that of the test, validation or training split in
        this order, and of another metric only where there is none; None where there are no figures.
    """
    order = (split, *reversed(SPLITS))
    return min(figures, key=lambda one: (one.metric != metric, order.index(one.split)), default=None)


def read_published(content: object) -> object:
    """Read a published result as files have it: one figure as `value` and `split`, or several by their names.

    Args:
        content: The table of a file; None for nothing.

    Returns:
        The arguments of `Published` by name; anything else as it is, for a model to refuse.
    """
    if not isinstance(content, Mapping) or "value" not in content:
        return content
    rest = {name: value for name, value in content.items() if name not in ("value", "split")}
    return {**rest, content.get("split", "test"): content["value"]}


def compare_published(given: Published, measure: Measure, closed: Mapping[str, Missing]) -> PublishedComparison:
    """Hold each published figure against our own of the same split.

    A loss that is too low for the accuracy of its split is on another scale and is not compared: where an image is
    wrong, its class has at most half of the probability, so a mean over images is at least ln 2 times the share of
    wrong images. Such losses are often divided by the batch size once too often.

    Args:
        given: What the source reports.
        measure: Returns our figure of a metric and a split, None where there is none.
        closed: Why there are no figures of a split at all, for each such split.

    Returns:
        The figures with ours and the differences.
    """
    figures = tuple(_compare_figure(one, given.figures, measure, closed) for one in given.figures)
    return PublishedComparison(figures, given.seconds, given.machine, given.parameters, given.note)


def _make_figure(split: str, metric: str, told: Reported) -> PublishedFigure:
    if isinstance(told, tuple):
        return PublishedFigure(split, metric, sum(told) / 2, *told)
    return PublishedFigure(split, metric, told)


def _compare_figure(
    one: PublishedFigure, others: Sequence[PublishedFigure], measure: Measure, closed: Mapping[str, Missing]
) -> ComparedFigure:
    told = vars(one)
    if one.split in closed:
        return ComparedFigure(**told, missing=closed[one.split])
    ours = measure(one.metric, one.split)
    if ours is None or ours.value is None:
        return ComparedFigure(**told, missing="not measured")
    if is_loss(one.metric) and not _is_possible(one, others):
        return ComparedFigure(**told, ours=ours, missing="other scale")
    low, high = one.ends
    nearest = min(max(ours.value, low), high)
    return ComparedFigure(**told, ours=ours, difference=ours.value - nearest)


def _is_possible(loss: PublishedFigure, figures: Sequence[PublishedFigure]) -> bool:
    """Whether a loss can be a mean over images beside the accuracy of its split."""
    right = next((one for one in figures if (one.metric, one.split) == ("accuracy", loss.split)), None)
    return right is None or loss.ends[1] >= (1 - right.ends[1]) * math.log(2)
