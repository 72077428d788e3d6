"""One row of a table: its runs, and the figures that are told of it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from budwood.comparison.alignment import AlignedPredictions, ScoredRow, align_predictions, score_rows
from budwood.comparison.recipe_diff import Options, find_differing
from budwood.config.metric_registry import is_loss
from budwood.evaluation.intervals import (
    Metric,
    mean_interval,
    mean_proportion_interval,
    percentile_interval,
    proportion_interval,
)
from budwood.evaluation.result_checks import RowOutcome
from budwood.networks.network_plan import ParameterCount
from budwood.runs.run import Run

TRAINING: Final = ("head", "rate", "threads", "train")  # laps of a run in which its own part of a network is trained


@dataclass(frozen=True)
class Published:
    """What a source reports for a row: a `value` from 0 to 1 of a metric on `val`, `test` or `train`."""

    value: float
    metric: str = "accuracy"
    split: str = "test"
    note: str = ""


@dataclass(frozen=True)
class RowSpec:
    """One row of a table: its runs, one a seed or fold; none where it failed or is not done, with the `problem`.

    `aside` says that this is no failure: a search has pruned it, or another row is the same experiment. `varied` says
    that the row is one of those that options were varied in, at whose edges the best may lie.
    """

    label: str
    runs: tuple[Run, ...]
    published: Published | None = None
    problem: str = ""
    aside: bool = False
    varied: bool = True


@dataclass(frozen=True)
class ComparisonRow:
    """One row of a comparison. Metrics are value, low, high (95 % interval over n images), n; None where unknown.

    `differs` are the options that are not the base recipe's, `options` those that vary in the table. `spread` tells how
    the metric differs between the row's runs: lowest, highest, standard deviation. Times are means over the runs in
    seconds: of the whole command, and of training alone. `published` holds what a source reports and the difference to
    the figure of ours that is closest in kind. `p` is Holm's p-value against the best row of the same images, `tied`
    says that it cannot be told from it; `group` numbers the sets of held-out images.
    """

    label: str
    runs: tuple[str, ...]
    seeds: int
    group: int
    differs: Mapping[str, Any]
    options: Mapping[str, Any]
    parameters: Mapping[str, int] | None
    macs: int | None
    epochs: tuple[int, ...]
    seconds: float | None
    training_seconds: float | None
    train: Metric | None
    value: Metric | None
    spread: Mapping[str, float] | None
    test: Metric | None
    looks: tuple[int, ...]
    published: Mapping[str, Any] | None
    difference: Metric | None = None
    p: float | None = None
    best: bool = False
    tied: bool = False
    problem: str = ""


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
    """The figures of one row alone."""
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
        parameters=_count_parameters(network.parameters) if network else None,
        macs=network.macs if network else None,
        epochs=tuple(run.record.selected.epoch for run in runs if run.record.selected.epoch is not None),
        seconds=_average([run.record.timings.total for run in runs]),
        training_seconds=_average([_sum_training_seconds(run) for run in runs]),
        train=_train(runs, metric),
        value=_summarize_metric(entry.label, runs, metric, split, found),
        spread=_measure_spread(runs, metric, split),
        test=_summarize_metric(entry.label, runs, metric, "test") if opened else None,
        looks=looks,
        published=_compare_published(entry, opened) if entry.published else None,
        problem=entry.problem,
    )


def _looks(runs: Sequence[Run]) -> tuple[int, ...]:
    """The look at which each run was scored on the test split; none where it is sealed for one of them."""
    looks = [run.record.test.looks for run in runs if run.record.test]
    return tuple(looks) if len(looks) == len(runs) else ()


def _count_parameters(counts: ParameterCount) -> dict[str, int]:
    return {"trainable": counts.trainable, "total": counts.total}


def _sum_training_seconds(run: Run) -> float:
    return float(sum(seconds for name, seconds in run.record.timings.steps().items() if name in TRAINING))


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def score_run(run: Run, metric: str, split: str) -> Metric:
    """A metric of one run, as its record has it."""
    return run.metrics[split].figures[metric]


def _measure_spread(runs: Sequence[Run], metric: str, split: str) -> dict[str, float] | None:
    """Lowest, highest and standard deviation of a metric over the runs of a row."""
    values = [float(value) for run in runs if (value := score_run(run, metric, split).value) is not None]
    if len(values) < 2:
        return None
    return {"low": min(values), "high": max(values), "sd": float(np.std(values, ddof=1))}


def _summarize_metric(
    label: str, runs: Sequence[Run], metric: str, split: str, found: ScoredRow | None = None
) -> Metric | None:
    """A metric of a row with its interval over images: the run's own, or the mean over several."""
    if not runs:
        return None
    if len(runs) == 1:
        return score_run(runs[0], metric, split)
    found = found or score_rows([align_predictions(label, runs, split)], metric)[0]
    if found.spread is not None:
        return percentile_interval(found.value, found.spread, found.n)
    means = found.means if found.means is not None else np.empty(0)
    return mean_interval(means) if is_loss(metric) else mean_proportion_interval(means, found.repeats)


def _train(runs: Sequence[Run], metric: str) -> Metric | None:
    """The metric on training images in the epoch that was kept, as the run's history has it: accuracy or loss."""
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


def _find_kept_epoch(run: Run) -> Mapping[str, float] | None:
    """The row of a run's history that was kept."""
    chosen = run.record.selected
    return next((row for row in run.history() if row.get(chosen.axis) == chosen.value), None)


def _compare_published(entry: RowSpec, opened: bool) -> dict[str, Any] | None:
    """What a source reports, the figure of ours that is held against it, of which split that is, and the difference."""
    given = entry.published
    if given is None:
        return None
    record = {**asdict(given), "ours": None, "ours_split": None, "difference": None}
    split = given.split if given.split != "test" or opened else "val"
    if not entry.runs:
        return record
    if split == "train":
        ours = _train(entry.runs, given.metric)
    else:
        known = all(given.metric in run.metrics[split] for run in entry.runs)
        ours = _summarize_metric(entry.label, entry.runs, given.metric, split) if known else None
    if ours is None or ours.value is None:
        return record
    return {**record, "ours": ours, "ours_split": split, "difference": ours.value - given.value}


def make_outcome(label: str, runs: Sequence[Run], answers: AlignedPredictions | None = None) -> RowOutcome:
    """What findings about results look at in the runs of one row; `answers` are those on validation, where known."""
    return RowOutcome(
        label,
        _train(runs, "accuracy"),
        _summarize_metric(label, runs, "accuracy", "val", score_rows([answers], "accuracy")[0] if answers else None),
        _summarize_metric(label, runs, "accuracy", "test") if _looks(runs) else None,
        [run.history() for run in runs],
        leaking=any(run.record.dataset.leaks_allowed for run in runs),
    )
