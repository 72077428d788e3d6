"""Findings about results: numbered, one sentence each, with what to do and the rows they speak of.

A finding's severity is `error` (the figure is not to be believed), `warning` (the result may be worse than it could be,
or less sure than it looks) or `note` (good to know). They speak of one run as of a table of many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np

from budwood.config.recipe import Recipe
from budwood.evaluation.differences import difference_interval
from budwood.evaluation.intervals import Metric
from budwood.text import counted, listed

Severity = Literal["error", "warning", "note"]
History = Sequence[Mapping[str, float]]

OVERFIT: Final = 0.10  # training accuracy over validation accuracy
LEAK: Final = 0.03  # test over validation
WIDE: Final = 0.05  # half an interval of one run
GRID: Final = 3  # values of an option, at least, that have an edge
EPOCHS: Final = 5  # of a curve that can be judged
STILL: Final = 0.02  # share of the validation loss that fell in the last fifth of training
STEPS: Final = 20  # optimizer steps, below which a training has hardly begun
SHOWN: Final = 4  # rows that a finding names


@dataclass(frozen=True)
class ResultFinding:
    """Remark about results.

    Attributes:
        code: Number of the finding, such as `R001`.
        severity: `error` (the figure is not to be believed), `warning` (the result may be worse than it could be,
            or less certain than it looks) or `note` (good to know).
        message: What was found, in one sentence.
        advice: What to do about it.
        rows: Labels of the rows that the finding is about.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    rows: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Convert the finding to plain values for JSON.

        Returns:
            The attributes by name.
        """
        return asdict(self)


@dataclass(frozen=True)
class RowOutcome:
    """Results of one row of a table, from one or more runs.

    Accuracies are metrics with value, low, high and n; they are None where unknown.

    Attributes:
        label: Name of the row; empty for a single run.
        train: Accuracy on the training set.
        val: Accuracy on the validation set.
        test: Accuracy on the test set.
        histories: Training history of each run, one mapping for each epoch or, without epochs, each penalty tried.
        options: Values of the row's recipe options by name.
        scores: The table's metric for each run.
        looks: For each run, how often its test split had been opened when it was tested, that time included.
        problem: Why the row failed; empty if it did not.
        steps: Optimizer steps that each run took in all; empty where heads were solved.
        leaking: Whether the row was trained although the given split leaks.
        folds: Whether its runs are folds, not seeds.
        published: What a source reports of the row's accuracy or another score, 0 to 1, by split: the ends of a range,
            or the same value twice.
    """

    label: str
    train: Metric | None = None
    val: Metric | None = None
    test: Metric | None = None
    histories: Sequence[History] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    scores: Sequence[float] = ()
    looks: Sequence[int] = ()
    problem: str = ""
    steps: Sequence[int] = ()
    leaking: bool = False
    folds: bool = False
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolution:
    """Smallest differences that a table can tell from chance.

    Differences are of proportions, from 0 to 1, or of a loss in nats.

    Attributes:
        n: Number of images.
        pairs: Number of pairs of rows.
        alone: Smallest difference that a single test shows.
        corrected: Smallest difference that this table shows, after the correction for all its pairs.
        found: Largest difference found between the best row and rows that cannot be told from it.
        tied: Number of rows that cannot be told from the best, the best included.
        loss: Whether the differences are of a loss.
    """

    n: int
    pairs: int
    alone: float
    corrected: float
    found: float
    tied: int
    loss: bool = False


def check_run(outcome: RowOutcome) -> tuple[ResultFinding, ...]:
    """Check the results of a single run.

    Args:
        outcome: Results of the run.

    Returns:
        The findings, sorted by code.
    """
    return _sort_findings([*_check_rows([outcome]), *_check_interval(outcome)])


def check_table(
    outcomes: Sequence[RowOutcome],
    best: str | None = None,
    edges: Mapping[str, Sequence[float]] | None = None,
    resolution: Resolution | None = None,
) -> tuple[ResultFinding, ...]:
    """Check the results of a table of runs.

    The checks cover each row, whether the best row lies at the edge of a grid, and which rows cannot be told apart.

    Args:
        outcomes: Results of the rows.
        best: Label of the best row; None if there is none.
        edges: Values that were tried of each option, by name; None where no grid was searched.
        resolution: What differences the table can show; None to leave out that check.

    Returns:
        The findings, sorted by code.
    """
    found = [
        *_check_rows(outcomes),
        *_check_edges(outcomes, best, edges or {}),
        *(_check_resolution(resolution) if resolution else []),
        *_check_seeds(outcomes, best),
        *_check_looks(outcomes),
        *_check_allowed_leaks(outcomes),
        *_check_published_leaks(outcomes),
    ]
    return _sort_findings(found)


def _sort_findings(found: Sequence[ResultFinding]) -> tuple[ResultFinding, ...]:
    return tuple(sorted(found, key=lambda finding: finding.code))


def _check_rows(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    checks = (_check_overfit, _check_leaking, _check_still_learning, _check_diverged, _check_steps)
    return [found for check in checks for found in check(outcomes)]


def _check_overfit(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    far = [one for one in outcomes if one.train and one.val and _is_above(one.train, one.val, OVERFIT)]
    if not far:
        return []
    told = _join_names(
        [f"{_prefix_label(one)}{_format_percent(one.train)} against {_format_percent(one.val)}" for one in far]
    )
    return [
        ResultFinding(
            "R001",
            "warning",
            f"Training accuracy is far above validation accuracy: {told}.",
            "The network has memorised its training images (overfitting): " + _advise_on_overfitting(far),
            _collect_labels(far),
        )
    ]


def _advise_on_overfitting(outcomes: Sequence[RowOutcome]) -> str:
    """What helps a network that was trained in steps, or a head that was solved, which has no steps."""
    if any(_is_solved(one) for one in outcomes):
        solved = "use more training images, a higher `regularisation`, or a network with fewer features"
        if all(_is_solved(one) for one in outcomes):
            return f"{solved}."
        return f"use augmentation, dropout or weight decay where training takes steps; for a solved head, {solved}."
    return "use augmentation, dropout or weight decay, freeze more layers, or train for fewer epochs."


def _is_solved(outcome: RowOutcome) -> bool:
    """Whether the history is a choice of penalties."""
    return any("epoch" not in row for history in outcome.histories for row in history)


def _check_leaking(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    far = [one for one in outcomes if one.test and one.val and _is_above(one.test, one.val, LEAK)]
    if not far:
        return []
    told = _join_names(
        [f"{_prefix_label(one)}{_format_percent(one.test)} against {_format_percent(one.val)}" for one in far]
    )
    return [
        ResultFinding(
            "R002",
            "error",
            f"Test accuracy is far above validation accuracy: {told}. Test images may have been used for training.",
            "Look for the same images in both splits (`budwood inspect`), then make a new split; "
            "do not publish these scores.",
            _collect_labels(far),
        )
    ]


def _check_published_leaks(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    """Published figures have no number of images, so a difference counts from `LEAK` on; a range by its nearest end."""
    both = [one for one in outcomes if {"val", "test"} <= one.published.keys()]
    far = [one for one in both if one.published["test"][0] - one.published["val"][1] >= LEAK - 1e-9]
    if not far:
        return []
    gaps = [one.published["test"][0] - one.published["val"][1] for one in far]
    by = _format_points(gaps[0]) if len(far) == 1 else f"{100 * min(gaps):.1f} to {100 * max(gaps):.1f} points"
    scores = {split: _span([end for one in far for end in one.published[split]]) for split in ("test", "val")}
    return [
        ResultFinding(
            "R002",
            "warning",
            f"The source reports test scores far above validation scores, in {len(far)} of {counted(len(both), 'row')} "
            f"with both: by {by} (test {scores['test']}, validation {scores['val']}). Its test images may have been "
            "used for training.",
            "Do not take these published test scores as a goal: compare with the published validation scores.",
            _collect_labels(far),
        )
    ]


def _check_still_learning(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    rising = [one for one in outcomes if one.histories and all(_falls_at_end(rows) for rows in one.histories)]
    if not rising:
        return []
    return [
        ResultFinding(
            "R005",
            "note",
            f"Validation loss was still falling when training ended{_list_rows(rising)}.",
            "Train for more epochs (`budwood resume RUN --epochs N` continues), or use a higher learning rate.",
            _collect_labels(rising),
        )
    ]


def _check_diverged(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    failed = [one for one in outcomes if one.problem]
    diverged = [one for one in outcomes if any(_loss_rises(rows) for rows in one.histories)]
    found = []
    if failed:
        told = _join_names([f"{one.label} ({one.problem.rstrip('.')})" for one in failed])
        advice = "Correct the cause and train the row again; the other rows are not affected."
        found.append(
            ResultFinding(
                "R006", "warning", f"{counted(len(failed), 'row')} failed: {told}.", advice, _collect_labels(failed)
            )
        )
    if diverged:
        message = f"Training loss was higher at the end than at the start{_list_rows(diverged)}."
        advice = "The learning rate is too high: lower it, for example by a factor of ten, or use a warm-up."
        found.append(ResultFinding("R007", "warning", message, advice, _collect_labels(diverged)))
    return found


def _check_steps(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    few = [one for one in outcomes if one.steps and min(one.steps) < STEPS]
    if not few:
        return []
    advice = "Train for more epochs or with a smaller batch before you compare: one epoch of few images is no result."
    if len(few) == 1 and not few[0].label:
        steps = counted(min(few[0].steps), "optimizer step")
        message = f"Training took only {steps} in all: its figures say little about the recipe."
    else:
        told = _join_names([f"{one.label} ({min(one.steps)})" for one in few])
        were, their = ("was", "its") if len(few) == 1 else ("were", "their")
        message = (
            f"{counted(len(few), 'row')} {were} trained for fewer than {STEPS} optimizer steps, so that {their} "
            f"figures say little about the recipe: {told}."
        )
    return [ResultFinding("R011", "warning", message, advice, _collect_labels(few))]


def _check_edges(
    outcomes: Sequence[RowOutcome], best: str | None, edges: Mapping[str, Sequence[float]]
) -> list[ResultFinding]:
    found = []
    chosen = next((one.options for one in outcomes if one.label == best), {})
    for name, values in edges.items():
        tried, value = sorted(set(values)), chosen.get(name)
        if len(tried) < GRID or not isinstance(value, int | float) or value not in (tried[0], tried[-1]):
            continue
        if value in _option_bounds(name):
            continue
        side = "smallest" if value == tried[0] else "largest"
        beyond = "smaller" if value == tried[0] else "larger"
        found.append(
            ResultFinding(
                "R003",
                "warning",
                f"The best row, {best}, uses the {side} {name.replace('_', ' ')} that was tried ({value:g}).",
                f"Try {beyond} values: the best may lie outside the range that was tried.",
                (str(best),),
            )
        )
    return found


def _option_bounds(name: str) -> set[float]:
    """The values that an option cannot go beyond."""
    known = Recipe.model_fields.get(name)
    limits = [getattr(rule, side, None) for rule in (known.metadata if known else ()) for side in ("ge", "le")]
    return {float(limit) for limit in limits if limit is not None}


def _check_resolution(resolution: Resolution) -> list[ResultFinding]:
    if resolution.tied < 2:
        return []
    alone, corrected = (_format_difference(size, resolution.loss) for size in (resolution.alone, resolution.corrected))
    among = "" if resolution.pairs == 1 else f", or of {corrected} when all {resolution.pairs:,} pairs are tested"
    needed = ""
    if 0 < resolution.found < resolution.corrected:
        many = resolution.n * (resolution.corrected / resolution.found) ** 2
        needed = f" About {_round(many):,} images would be needed to show the largest difference among them."
    return [
        ResultFinding(
            "R004",
            "note",
            f"{counted(resolution.tied, 'row')} (the best included) are not distinguishable from the best: "
            f"{counted(resolution.n, 'image')} can show a difference of {alone} between two rows{among}.",
            f"Use the cheapest of them, or compare on more images{'' if not among else ' or fewer rows'}.{needed}",
        )
    ]


def _check_interval(outcome: RowOutcome) -> list[ResultFinding]:
    val = outcome.val
    if not val or val.low is None or val.high is None or (val.high - val.low) / 2 < WIDE:
        return []
    half = (val.high - val.low) / 2
    return [
        ResultFinding(
            "R004",
            "note",
            f"With {counted(val.n, 'validation image')}, accuracy is known only to within ±{_format_points(half)}.",
            f"About {_round(val.n * (half / 0.02) ** 2):,} images would be needed for ±2 points.",
            (outcome.label,),
        )
    ]


def _check_seeds(outcomes: Sequence[RowOutcome], best: str | None) -> list[ResultFinding]:
    top = next((one for one in outcomes if one.label == best and len(one.scores) > 1), None)
    if top is None:
        return []
    near = [
        one for one in outcomes if one is not top and len(one.scores) > 1 and _spreads_overlap(one.scores, top.scores)
    ]
    if not near:
        return []
    folds = top.folds
    repeats = "fold" if folds else "seed"
    return [
        ResultFinding(
            "R008",
            "note",
            f"In {counted(len(near), 'row')}, {repeats}s differ more than the row differs from the "
            f"best{_list_rows(near)}.",
            f"Another {'split' if folds else 'seed'} may change the order: add {repeats}s, or use the cheaper row.",
            _collect_labels([top, *near]),
        )
    ]


def _spreads_overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two rows' means lie closer than the seeds of either spread."""
    spread = max(max(one) - min(one), max(other) - min(other))
    return spread > 0 and abs(float(np.mean(one)) - float(np.mean(other))) < spread


def _check_looks(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    looks = {count for one in outcomes for count in one.looks}
    if len(looks) < 2:
        return []
    told = _join_names([f"{one.label} ({', '.join(map(str, one.looks))})" for one in outcomes if one.looks])
    return [
        ResultFinding(
            "R009",
            "warning",
            f"The test set was used a different number of times (looks): {told}.",
            "Choosing after more looks gives a better score by chance: trust the row with the fewest looks, "
            "or use new test images.",
            tuple(one.label for one in outcomes if len(one.looks) and max(one.looks) > min(looks)),
        )
    ]


def _check_allowed_leaks(outcomes: Sequence[RowOutcome]) -> list[ResultFinding]:
    leaking = [one for one in outcomes if one.leaking]
    if not leaking:
        return []
    were = "was" if len(leaking) == 1 else "were"
    message = (
        f"{counted(len(leaking), 'row')} {were} trained although the given split leaks: "
        "the same images or groups are in different splits."
    )
    advice = "Do not trust these scores; train the rows again with a split that does not leak (see `budwood inspect`)."
    return [ResultFinding("R010", "warning", message, advice, _collect_labels(leaking))]


def _is_above(one: Metric, other: Metric, least: float) -> bool:
    """Whether one share is above another by at least so much, and by more than chance would bring about."""
    if one.value is None or other.value is None or one.value - other.value < least - 1e-9:
        return False
    _, low, _ = difference_interval(one, other)
    return low > 0


def _falls_at_end(history: History) -> bool:
    """Whether the mean validation loss of the last fifth of the epochs is lower than that of the fifth before."""
    losses = [row["val_loss"] for row in _select_last_phase(history)]
    if len(losses) < EPOCHS or not all(map(math.isfinite, losses)):
        return False
    part = max(1, len(losses) // 5)
    before, last = float(np.mean(losses[-2 * part : -part])), float(np.mean(losses[-part:]))
    return before - last > STILL * abs(before) and losses[-1] <= min(losses) * (1 + STILL)


def _loss_rises(history: History) -> bool:
    """Whether the training loss of the last epoch is above that of the first, or no number."""
    losses = [row["train_loss"] for row in _select_last_phase(history)]
    return len(losses) > 1 and not losses[-1] <= losses[0]


def _select_last_phase(history: History) -> list[Mapping[str, float]]:
    """The epochs of the last phase; none where the history is no course of time but a choice of penalties."""
    last = max((row.get("phase", 0.0) for row in history), default=0.0)
    return [row for row in history if "epoch" in row and row.get("phase", 0.0) == last]


def _prefix_label(outcome: RowOutcome) -> str:
    return f"{outcome.label}: " if outcome.label else ""


def _list_rows(outcomes: Sequence[RowOutcome]) -> str:
    """The rows that are meant, after a colon; nothing where only one without a name is."""
    named = [one.label for one in outcomes if one.label]
    return f": {_join_names(named)}" if named else ""


def _join_names(names: Sequence[str]) -> str:
    return listed(names, SHOWN, "; ")


def _collect_labels(outcomes: Sequence[RowOutcome]) -> tuple[str, ...]:
    return tuple(one.label for one in outcomes if one.label)


def _span(shares: Sequence[float]) -> str:
    """The lowest and the highest of some shares."""
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"


def _format_percent(metric: Metric | None) -> str:
    return f"{100 * metric.value:.1f} %" if metric and metric.value is not None else "–"


def _format_points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _format_difference(size: float, loss: bool) -> str:
    return f"{size:.2g} nats" if loss else _format_points(size)


def _round(count: float) -> int:
    """A number with two digits that count."""
    return int(round(count, 1 - math.floor(math.log10(count)))) if count > 0 else 0
