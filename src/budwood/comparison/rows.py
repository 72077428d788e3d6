"""One row of a table: its runs, and the figures that are told of it alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np

from budwood.comparison.alignment import AlignedPredictions, ScoredRow, align_predictions, score_rows
from budwood.comparison.published import SPLITS, Missing, Published, PublishedComparison, compare_published
from budwood.comparison.recipe_diff import Options, find_differing
from budwood.config.metric_registry import is_loss
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.result_checks import RowOutcome
from budwood.networks.network_plan import ParameterCount
from budwood.runs.run import Run

TRAINING: Final = ("head", "rate", "threads", "train")  # laps of a run in which its own part of a network is trained
_BLENDING: Final = ("mixup", "cutmix")  # options that count answers for blended images while training
_CHANGING_LOSS: Final = ("label_smoothing", "class_weights", "logit_adjustment")

RowEnd = Literal["done", "failed", "refused", "pruned", "repeated"]


@dataclass(frozen=True)
class Spread:
    """How a metric differs between the runs of a row.

    Attributes:
        low: The lowest value.
        high: The highest value.
        sd: Standard deviation.
    """

    low: float
    high: float
    sd: float


@dataclass(frozen=True)
class RowSpec:
    """A row of a table before it is scored.

    Attributes:
        label: Name of the row.
        runs: Its runs, one for each seed or fold; empty where it failed or is not done.
        published: What a source reports for it; None where there is nothing.
        problem: Why there is no run; empty where there is one.
        state: What a row with a problem is: `failed`, or what is no failure: `refused` on purpose, `pruned` by a
            search, `repeated` (another row is the same experiment).
        varied: Whether it is one of the rows in which options were varied, at whose edges the best may lie.
        stand_in: What stands in for what the source had, where it cannot be run as published; empty: nothing.
    """

    label: str
    runs: tuple[Run, ...]
    published: Published | None = None
    problem: str = ""
    state: RowEnd = "failed"
    varied: bool = True
    stand_in: str = ""


@dataclass(frozen=True)
class ComparisonRow:
    """One row of a comparison.

    Metrics have `value`, `low`, `high` (95 % confidence interval over n images) and `n`; they are None where
    unknown.

    Attributes:
        label: Name of the row.
        runs: Folders of its runs.
        seeds: Number of its runs.
        group: Number of its set of held-out images, from 1; 0 where it has no run.
        differs: Options that differ from the base recipe.
        options: Options that vary in the table.
        parameters: Numbers of parameters.
        macs: Multiply-adds for one image.
        epochs: The selected epoch of each run.
        seconds: Duration of the whole command, a mean over the runs; of an ensemble that of all its members.
        training_seconds: Duration of training alone, a mean over the runs.
        train: Metric on training images in the selected epoch.
        value: Metric on the split that is compared on.
        spread: How the metric differs between the runs; None for fewer than two runs.
        test: Metric on the test split; None where it is sealed.
        looks: At which look each run's test split was opened.
        published: What a source reports, each figure beside our own of the same split.
        difference: Difference from the best row of the same images, with its interval; None for the best row
            itself.
        p: Holm's p-value against the best row of the same images.
        p_alone: The p-value of that pair before Holm's correction, which agrees with the interval of the difference.
        best: Whether it is the best row of its images.
        tied: Whether it cannot be distinguished from the best row, or is that row.
        problem: Why it has no run.
        state: `done`, `failed`, `refused`, `pruned` or `repeated` (another row is the same experiment).
        stand_in: What stands in for what the source had, where it cannot be run as published; empty: nothing.
    """

    label: str
    runs: tuple[str, ...]
    seeds: int
    group: int
    differs: Options
    options: Options
    parameters: ParameterCount | None
    macs: int | None
    epochs: tuple[int, ...]
    seconds: float | None
    training_seconds: float | None
    train: Metric | None
    value: Metric | None
    spread: Spread | None
    test: Metric | None
    looks: tuple[int, ...]
    published: PublishedComparison | None
    difference: Metric | None = None
    p: float | None = None
    best: bool = False
    tied: bool = False
    problem: str = ""
    p_alone: float | None = None
    state: RowEnd = "done"
    stand_in: str = ""


def make_row(
    entry: RowSpec,
    metric: str,
    split: str,
    found: ScoredRow | None,
    group: int,
    base: Options | None,
    table: Options,
    options: Options,
) -> ComparisonRow:
    """Compute the figures of one row on its own, without comparing it to others.

    Args:
        entry: The row's runs and label.
        metric: Name of the metric.
        split: `val` or `test`.
        found: The row's score on that split; None to compute it where needed.
        group: Number of the row's set of held-out images, from 1; 0 without runs.
        base: Options from which differences are given; None to give the varying ones.
        table: Options of the row's recipe.
        options: Those of them that vary in the table.

    Returns:
        The row, without its difference from the best.

    Raises:
        RunError: The runs were scored on different images that are not folds of one whole.
    """
    runs = entry.runs
    network = runs[0].record.network if runs else None
    looks = _looks(runs)
    opened = bool(looks)
    return ComparisonRow(
        label=entry.label,
        runs=tuple(str(run.path) for run in runs),
        seeds=len(runs),
        group=group,
        differs=options if base is None or not runs else find_differing(table, base),
        options=options,
        parameters=network.parameters if network else None,
        macs=network.macs if network else None,
        epochs=tuple(run.record.selected.epoch for run in runs if run.record.selected.epoch is not None),
        seconds=_average([sum(one.record.timings.total for one in _list_trained(run)) for run in runs]),
        training_seconds=_average([_sum_training_seconds(run) for run in runs]),
        train=score_training(runs, metric),
        value=_summarize_metric(entry.label, runs, metric, split, found),
        spread=_measure_spread(runs, metric, split),
        test=_summarize_metric(entry.label, runs, metric, "test") if opened else None,
        looks=looks,
        published=_compare_published(entry, opened),
        problem=entry.problem,
        state=entry.state if entry.problem else "done",
        stand_in=entry.stand_in,
    )


def _looks(runs: Sequence[Run]) -> tuple[int, ...]:
    """The look at which each run was scored on the test split; none where it is sealed for one of them."""
    looks = [run.record.test.looks for run in runs if run.record.test]
    return tuple(looks) if len(looks) == len(runs) else ()


def _list_trained(run: Run) -> tuple[Run, ...]:
    """The trainings that a run cost: itself, or all members of an ensemble."""
    return run.members() or (run,)


def _sum_training_seconds(run: Run) -> float:
    steps = [step for one in _list_trained(run) for step in one.record.timings.steps().items()]
    return float(sum(seconds for name, seconds in steps if name in TRAINING))


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def score_run(run: Run, metric: str, split: str) -> Metric:
    """Look up a metric in the record of one run.

    Args:
        run: A finished run.
        metric: Name of the metric.
        split: `val`, or `test` where it has been opened.

    Returns:
        The metric with its interval.

    Raises:
        KeyError: The record does not have that metric or split.
    """
    return run.metrics[split].figures[metric]


def _measure_spread(runs: Sequence[Run], metric: str, split: str) -> Spread | None:
    """Lowest, highest and standard deviation of a metric over the runs of a row."""
    values = [float(value) for run in runs if (value := score_run(run, metric, split).value) is not None]
    if len(values) < 2:
        return None
    return Spread(min(values), max(values), float(np.std(values, ddof=1)))


def _summarize_metric(
    label: str, runs: Sequence[Run], metric: str, split: str, found: ScoredRow | None = None
) -> Metric | None:
    """A metric of a row with its interval over images: the run's own, or the mean over several."""
    if not runs:
        return None
    if len(runs) == 1:
        return score_run(runs[0], metric, split)
    found = found or score_rows([align_predictions(label, runs, split)], metric)[0]
    return found.whole


def score_training(runs: Sequence[Run], metric: str) -> Metric | None:
    """Look up a metric on training images in the epoch that was kept, as the histories of runs have it.

    Args:
        runs: Runs of the same images.
        metric: `accuracy` or `log_loss`; others are not kept.

    Returns:
        The mean over the runs, of so many training images; the accuracy with its interval. None where it is not known.
    """
    column = {"accuracy": "train_accuracy", "log_loss": "train_loss"}.get(metric)
    kept = [row for run in runs if (row := _find_kept_epoch(run)) is not None]
    if not kept or column is None:
        return None
    n, value = _count_training_images(runs[0]), float(np.mean([row[column] for row in kept]))
    if is_loss(metric):
        return Metric(value, None, None, n)
    return replace(proportion_interval(round(value * n), n), value=value)


def _count_training_images(run: Run) -> int:
    """How many images a run was trained on."""
    about = run.record.dataset
    if run.task.multilabel:
        return len(run.dataset().samples("train"))
    return sum(about.counts.train.values())


def _count_steps(run: Run) -> int | None:
    """How many optimizer steps a run took in all; None where its head was solved."""
    recipe = run.recipe
    if run.record.choices.steps is not None or recipe.batch is None:
        return run.record.choices.steps
    epoch = math.ceil(_count_training_images(run) / (recipe.batch * (recipe.accumulate or 1)))
    return epoch * len(run.history())


def _find_kept_epoch(run: Run) -> Mapping[str, float] | None:
    """The row of a run's history that was kept."""
    chosen, start = run.record.selected, run.record.choices.probe
    rows = [*run.history(), *([start] if start else [])]
    return next((row for row in rows if row.get(chosen.axis) == chosen.value), None)


def _compare_published(entry: RowSpec, opened: bool) -> PublishedComparison | None:
    if entry.published is None:
        return None
    closed: dict[str, Missing] = {} if opened else {"test": "sealed"}
    return compare_published(
        entry.published, partial(_measure, entry), closed if entry.runs else dict.fromkeys(SPLITS, "no run")
    )


def _measure(entry: RowSpec, metric: str, split: str) -> Metric | None:
    """Our figure that may be held against a published one; None where there is none."""
    runs = entry.runs
    if split == "train":
        return None if any(_is_changed_by_recipe(run, metric) for run in runs) else score_training(runs, metric)
    known = all(metric in run.metrics[split] for run in runs)
    return _summarize_metric(entry.label, runs, metric, split) if known else None


def _is_changed_by_recipe(run: Run, metric: str) -> bool:
    """Whether the figure that training has counted is another one than the accuracy or the cross-entropy of images."""
    options = run.recipe.table()
    names = _BLENDING if metric == "accuracy" else (*_BLENDING, *_CHANGING_LOSS)
    plain = options.get("loss") in (None, "cross_entropy", "binary_cross_entropy")
    return any(options.get(name) for name in names) or (is_loss(metric) and not plain)


def make_outcome(label: str, runs: Sequence[Run], answers: AlignedPredictions | None = None) -> RowOutcome:
    """Collect what checks of results look at in the runs of one row.

    Args:
        label: Name of the row.
        runs: Runs of the row.
        answers: Their predictions on the validation set; None to read them where needed.

    Returns:
        Accuracies on training, validation and opened test images, histories, and whether leaks were allowed.

    Raises:
        RunError: The runs were scored on different images that are not folds of one whole.
    """
    return RowOutcome(
        label,
        score_training(runs, "accuracy"),
        _summarize_metric(label, runs, "accuracy", "val", score_rows([answers], "accuracy")[0] if answers else None),
        _summarize_metric(label, runs, "accuracy", "test") if _looks(runs) else None,
        [run.history() for run in runs],
        steps=[steps for run in runs if not run.record.ensemble and (steps := _count_steps(run)) is not None],
        leaking=any(run.record.dataset.leaks_allowed for run in runs),
        folds=any(run.record.dataset.split.startswith("fold ") for run in runs),
    )
