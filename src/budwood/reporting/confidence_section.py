"""What a run's report tells of its confidence: calibration, accuracy against coverage, prediction sets, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.intervals import Metric, bounded_mean_interval, proportion_interval
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.selective import SelectivePoint, trace_accuracy
from budwood.reporting.charts import draw_reliability
from budwood.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    draw_frame,
    format_percent,
    make_even_ticks,
    wrap_svg,
)
from budwood.runs.confidence_record import CalibrationRecord, ConfidenceRecord, SetsRecord
from budwood.runs.run_record import RunRecord
from budwood.text import TOO_FEW

PERSON: Final = 0.9  # the share that the network answers in the sentence about what a person looks at
HARDLY: Final = 0.05  # distance of the logarithm of a temperature from 0 that is not worth a reason
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorRow:
    """The calibration error of a split before and after scaling, and by chance."""

    split: str
    before: Metric
    after: Metric
    noise: float


@dataclass(frozen=True)
class SetRow:
    """How prediction sets did on a split: how many held the true class, their mean size, how many are of one class."""

    split: str
    covered: Metric
    size: float
    single: Metric


@dataclass(frozen=True)
class ShownConfidence:
    """What the report shows of a run's confidence.

    Attributes:
        reliability: The reliability diagram of the validation set after scaling.
        tested: Those of the test set before and after scaling, with their names; none where it is sealed.
        temperature: The temperature in words.
        errors: Calibration errors by split.
        selective: The chart of accuracy against coverage.
        selective_words: The same in a sentence.
        coverage: What prediction sets promise, in words.
        sets: How they did, by split.
        calibrated_on: Number of images that their limits were found on, as text.
        own_limits: Number of classes with a limit of their own.
        classes: Number of classes.
        notes: What the images were too few for.
        decisions: Rows of the table of thresholds or costs; none where answers are the usual ones.
        decisions_title: Its title.
        decisions_head: Its head.
    """

    reliability: Markup
    tested: Sequence[tuple[str, Markup]]
    temperature: str
    errors: Sequence[ErrorRow]
    selective: Markup
    selective_words: str
    coverage: str
    sets: Sequence[SetRow]
    calibrated_on: str
    own_limits: int
    classes: int
    notes: Sequence[str]
    decisions: Sequence[Sequence[str]]
    decisions_title: str
    decisions_head: Sequence[str]


@dataclass(frozen=True)
class _Split:
    """Predictions of a split with what the run's rule says of them."""

    name: str
    predictions: Predictions
    chances: Floats
    called: Flags


def show_confidence(record: RunRecord, val: Predictions, test: Predictions | None) -> ShownConfidence | None:
    """Prepare what the report shows of a run's confidence.

    Args:
        record: The record of the run.
        val: Its predictions for the validation split.
        test: Those for the test split; None where it is sealed.

    Returns:
        What is shown; None of a run without calibration.
    """
    known = record.confidence
    if known is None or known.calibration is None:
        return None
    rule = known.make_rule(val.task)
    splits = [_decide("val", val, rule), *([_decide("test", test, rule)] if test else [])]
    last = splits[-1]
    points = trace_accuracy(*_rate_answers(last))
    title, head, rows = _list_decisions(known, splits, record.dataset.classes)
    sets = known.sets
    return ShownConfidence(
        reliability=_draw_reliability(_NAMES["val"], val, rule.temperature),
        tested=[
            (f"As the network gives it, {_NAMES['test']}", _draw_reliability(_NAMES["test"], test, np.ones(1))),
            (f"With the temperature, {_NAMES['test']}", _draw_reliability(_NAMES["test"], test, rule.temperature)),
        ]
        if test
        else [],
        temperature=describe_temperature(known.calibration, record.dataset.classes),
        errors=_list_errors(known.calibration),
        selective=Markup(draw_selective(points, _NAMES[last.name])),
        selective_words=describe_selective(points, _NAMES[last.name]),
        coverage=describe_sets(sets, val.task.multilabel) if sets else "",
        sets=[_measure_sets(split, rule) for split in splits] if sets else [],
        calibrated_on=f"{sets.n:,}" if sets else "",
        own_limits=sum(sets.per_class) if sets else 0,
        classes=len(record.dataset.classes),
        notes=_describe_shortfalls(known),
        decisions=rows,
        decisions_title=title,
        decisions_head=head,
    )


_NAMES: Final = {"val": "validation set", "test": "test set"}


def _draw_reliability(where: str, predictions: Predictions, temperature: Floats) -> Markup:
    scaled = np.asarray(predictions.logits / temperature, np.float32)
    bins = predictions.task.bin_reliability(predictions.truth, scaled)
    return Markup(draw_reliability(f"Confidence against accuracy, {where}, temperature {temperature.mean():.2f}", bins))


def _decide(name: str, predictions: Predictions, rule: DecisionRule) -> _Split:
    chances = rule.to_probabilities(predictions.logits)
    return _Split(name, predictions, chances, rule.decide(chances))


def _rate_answers(split: _Split) -> tuple[Floats, Flags]:
    """How sure each image's whole answer is, float64 [n], and whether it is right, bool [n]."""
    correct = (split.called == split.predictions.targets).all(axis=1)
    if split.predictions.task.multilabel:
        return np.where(split.called, split.chances, 1 - split.chances).prod(axis=1), correct
    return split.chances[split.called], correct


def describe_temperature(calibration: CalibrationRecord, classes: Sequence[str]) -> str:
    """Describe in a sentence what the temperature does.

    Args:
        calibration: The record of the calibration.
        classes: The classes.

    Returns:
        The sentence.
    """
    values = calibration.temperature
    if len(values) > 1 and any(value != 1 for value in values):
        extremes = sorted(zip(values, classes, strict=True))
        (low, first), (high, last) = extremes[0], extremes[-1]
        return (
            f"The outputs of each label are divided by a number of its own (its temperature), {low:.2f} ({first}) to "
            f"{high:.2f} ({last}): above 1 the network was too sure of the label, below 1 not sure enough."
        )
    value = values[0]
    if value == 1:
        return (
            "The outputs are used as they are (temperature 1): there are too few images to fit one, or nothing to fit."
        )
    if abs(np.log(value)) < HARDLY:
        return (
            f"The network's outputs are divided by {value:.2f} (its temperature) before they become probabilities, "
            "which changes hardly anything: on the validation set it was about as sure as it should be."
        )
    side = "was too sure" if value > 1 else "was not sure enough"
    return (
        f"The network's outputs are divided by {value:.2f} (its temperature) before they become probabilities, because "
        f"it {side} of its answers. The answers stay the same; only how sure they are changes."
    )


def describe_sets(sets: SetsRecord, multilabel: bool) -> str:
    """Describe in words what prediction sets promise: they hold ..."""
    share = f"{100 * sets.coverage:g} %"
    if multilabel:
        return f"each label that an image has in {share} of new images of the same kind"
    return f"the true class of {share} of new images of the same kind"


def describe_selective(points: Sequence[SelectivePoint], where: str) -> str:
    """Describe the curve of accuracy against coverage in a sentence.

    Args:
        points: Its points, by falling share.
        where: The split in words.

    Returns:
        The sentence.
    """
    if len(points) < 2:
        return f"The {where} has too few images to tell."
    point = min(points[1:], key=lambda one: abs(one.share - PERSON))
    aside = 1 - point.share
    return (
        f"If a person looks at the {100 * aside:.0f} % of images that the network is least sure of (less than "
        f"{format_percent(point.threshold)}), {_format_share(point.accuracy)} of the others are right on the {where}; "
        f"of all together {_format_share(points[0].accuracy)}."
    )


def _format_share(metric: Metric) -> str:
    if metric.value is None or metric.low is None or metric.high is None:
        return f"an unknown share ({TOO_FEW})"
    return (
        f"{100 * metric.value:.1f} % (95 % confidence interval {100 * metric.low:.1f} to {100 * metric.high:.1f}, "
        f"n = {metric.n:,})"
    )


def draw_selective(points: Sequence[SelectivePoint], where: str) -> str:
    """Draw accuracy with its interval against the share of images that the network answers.

    Args:
        points: The points.
        where: The split in words.

    Returns:
        The figure as an SVG element.
    """
    shares = [(100 * p.share, p.accuracy.value, p.accuracy.low, p.accuracy.high) for p in points]
    known = [(x, 100 * y, 100 * low, 100 * high) for x, y, low, high in shares if None not in (y, low, high)]  # type: ignore[operator]
    least = min((low for _, _, low, _ in known), default=0.0)
    start = max(0.0, 10 * np.floor(least / 10))
    across, up = Scale(50, 100, LEFT + 8, WIDTH - RIGHT - 8), Scale(start, 100, HEIGHT - BOTTOM, TOP)
    ticks = [50.0, 60.0, 70.0, 80.0, 90.0, 100.0]
    label = "share that the network answers, the surest first, %"
    parts = [*draw_frame(across, up, ticks, make_even_ticks(start, 100), label, "accuracy, %")]
    line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _, _ in known)
    parts.append(f'<polyline points="{line}" fill="none" stroke="var(--accent)" stroke-width="1.5"/>')
    for x, y, low, high in known:
        parts.append(
            f'<line class="range" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}"/>'
            f'<circle class="dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4.5">'
            f"<title>{x:.0f} % answered: {y:.1f} % correct</title></circle>"
        )
    said = ". ".join(f"Of the surest {x:.0f} % {y:.1f} % are correct" for x, y, _, _ in known)
    return wrap_svg(f"Accuracy of the surest images, {where}", said, "".join(parts), HEIGHT)


def _list_errors(calibration: CalibrationRecord) -> list[ErrorRow]:
    rows = [ErrorRow("val", calibration.before, calibration.after, calibration.noise["val"])]
    if calibration.test:
        test = calibration.test
        rows.append(ErrorRow("test", test["before"], test["after"], calibration.noise["test"]))
    return rows


def _measure_sets(split: _Split, rule: DecisionRule) -> SetRow:
    held, targets = rule.list_candidates(split.chances), split.predictions.targets
    sizes = held.sum(axis=1)
    return SetRow(
        split.name,
        proportion_interval(int((held & targets).sum()), int(targets.sum())),
        float(sizes.mean()) if len(sizes) else 0.0,
        proportion_interval(int((sizes == 1).sum()), len(sizes)),
    )


def _describe_shortfalls(known: ConfidenceRecord) -> list[str]:
    if known.sets and any(limit == 0 for limit in known.sets.limits):
        return ["Where the images are too few for this coverage, a set holds every class."]
    return []


def _list_decisions(
    known: ConfidenceRecord, splits: Sequence[_Split], classes: Sequence[str]
) -> tuple[str, list[str], list[list[str]]]:
    """Title, head and rows of the table of thresholds or costs; nothing where answers are the usual ones."""
    decisions = known.decisions
    if decisions is None:
        return "", [], []
    if decisions.costs:
        costs = np.array(decisions.costs)
        rows = [_compare_costs(split, costs) for split in splits]
        return "Mistakes that are not equally bad", ["mean cost of an image", "likeliest class", "least cost"], rows
    assert decisions.thresholds
    head = ["label", "threshold"]
    head += [f"{what}, {_NAMES[split.name]}" for split in splits for what in ("precision", "recall")]
    rows = [
        [name + (" (not reached)" if k in decisions.unreached else ""), f"{decisions.thresholds[k]:.3f}"]
        + [cell for split in splits for cell in _measure_label(split, k)]
        for k, name in enumerate(classes)
    ]
    return f"From which probability on an image has a label ({decisions.rule})", head, rows


def _compare_costs(split: _Split, costs: Floats) -> list[str]:
    truth = split.predictions.targets.argmax(axis=1)
    bounds = float(costs.min()), float(costs.max())
    called = (split.chances.argmax(axis=1), split.called.argmax(axis=1))
    figures = [bounded_mean_interval(costs[truth, one], *bounds) for one in called]
    return [f"{_NAMES[split.name]}, n = {len(truth):,}", *map(_format_mean, figures)]


def _format_mean(metric: Metric) -> str:
    if metric.value is None or metric.low is None or metric.high is None:
        return "–"
    return f"{metric.value:.3g} ({metric.low:.3g} to {metric.high:.3g})"


def _measure_label(split: _Split, k: int) -> list[str]:
    called, truth = split.called[:, k], split.predictions.targets[:, k]
    hits = int((called & truth).sum())
    return [_format_ratio(hits, int(called.sum())), _format_ratio(hits, int(truth.sum()))]


def _format_ratio(count: int, n: int) -> str:
    metric = proportion_interval(count, n)
    if metric.value is None or metric.low is None or metric.high is None:
        return f"– (n = {n})"
    return f"{100 * metric.value:.0f} % ({100 * metric.low:.0f}–{100 * metric.high:.0f}, n = {n:,})"
