"""Runs to Comparison: one table with intervals, paired tests of all its pairs, and findings.

    runs -> rows (one for all seeds) -> refusals -> aligned answers -> figures -> tests, Holm -> findings

Every test is paired: the rows answered the same images. Raises `RunError` where they did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from budwood.comparison.alignment import (
    AlignedPredictions,
    ScoredRow,
    align_predictions,
    refuse_different,
    refuse_unfinished,
    refuse_unopened,
    score_rows,
)
from budwood.comparison.document import Comparison, Pair
from budwood.comparison.ensemble_members import find_chosen_weights
from budwood.comparison.pairs import compare_pairs, find_best, rank_row
from budwood.comparison.published import Published
from budwood.comparison.recipe_diff import Options, fill_defaults, find_shared, find_varying
from budwood.comparison.rows import ComparisonRow, RowSpec, make_outcome, make_row, score_run
from budwood.comparison.run_groups import group_runs
from budwood.comparison.run_options import list_run_options
from budwood.config.metric_registry import REPORTED, is_loss
from budwood.config.registry import is_entry_point
from budwood.errors import RunError, did_you_mean
from budwood.evaluation.intervals import Metric
from budwood.evaluation.result_checks import Resolution, ResultFinding, RowOutcome, check_table
from budwood.evaluation.significance import smallest_difference
from budwood.runs.run import Run

SPLITS: Final = ("val", "test")


def compare(
    runs: Sequence[Run | str | Path | RowSpec] | str | Path,
    *,
    metric: str | None = None,
    split: str = "val",
    base: Options | None = None,
    edges: Mapping[str, Sequence[float]] | None = None,
    allow_looks: bool = False,
    apart: bool = False,
) -> Comparison:
    """Compare runs that were scored on the same images.

    Runs that differ only in the seed make one row.

    Two rows of one run each are compared by McNemar's exact test, others by a permutation test of the images' mean
    differences, and metrics that are not means over images by the paired bootstrap. P-values are corrected over all
    pairs (Holm), so that at most 5 tables in 100 have a row that is wrongly distinguished from the best.

    Args:
        runs: Each a `Run`, what a run is called (as in `open_run`), a folder of runs, or a `RowSpec`.
        metric: `accuracy`, `balanced_accuracy`, `macro_f1`, `log_loss`, or the import path of a user's own metric
            that all runs have. Where images have several labels also `mean_average_precision`; accuracy then means
            that every label is right. None: accuracy, or mean average precision where images have several labels.
        split: `val`, or `test` where it has been opened.
        base: Recipe options from which differences are given; None for those that all runs share.
        edges: Values that were tried of each option, to find a best row at their edge; None for those of the rows.
        allow_looks: Whether test splits may have been opened at different looks.
        apart: Whether rows on other held-out images stay in the table and are compared among themselves only.

    Returns:
        Rows, tests of all pairs, and findings.

    Raises:
        RunError: There are fewer than two runs, or one is named twice or not finished; data, classes or splits
            differ (unless `apart`); the metric or split is unknown; a test split is sealed, or test splits were
            opened at different looks (unless `allow_looks`).
    """
    entries = group_runs([runs] if isinstance(runs, str | Path) else runs)
    done = [run for entry in entries for run in entry.runs]
    metric = metric or _choose_metric(done, split)
    _refuse_uncomparable(entries, metric, split, allow_looks)
    answers = _align_rows(entries, split, apart)
    groups = _score_groups(answers, metric)
    tables = {entry.label: list_run_options(entry.runs[0]) for entry in entries if entry.runs}
    given = fill_defaults(base) if base is not None else None
    rows = _make_rows(entries, metric, split, groups, given, tables)
    pairs = compare_pairs(groups, metric)
    ranked = tuple(rank_row(row, rows, pairs, metric) for row in rows)
    return Comparison(
        metric,
        split,
        done[0].record.dataset if done else None,
        find_shared(list(tables.values())) if given is None else given,
        tuple(dict.fromkeys(_describe_machine(run) for run in done)),
        ranked,
        pairs,
        _check_rows(entries, answers, ranked, pairs, metric, split, edges),
        {entry.label: [run.history() for run in entry.runs] for entry in entries if entry.runs},
    )


def _choose_metric(runs: Sequence[Run], split: str) -> str:
    """The metric that the runs are compared by where none is named; one that all have."""
    chosen = {run.task.choose_headline(run.metrics.get(split, run.record.val).figures) for run in runs}
    return chosen.pop() if len(chosen) == 1 else "accuracy"


def _refuse_uncomparable(entries: Sequence[RowSpec], metric: str, split: str, allow_looks: bool) -> None:
    """Raises `RunError` for runs that are too few, unfinished, or without that metric or split."""
    _refuse_fewer(entries)
    done = [run for entry in entries for run in entry.runs]
    refuse_unfinished(done)
    _refuse_unknown(metric, split, done)
    if split == "test":
        refuse_unopened(done, allow_looks)


def _refuse_fewer(entries: Sequence[RowSpec]) -> None:
    """Raises `RunError` when there is nothing to compare."""
    paths = [run.path.resolve() for entry in entries for run in entry.runs]
    twice = [path.name for path in dict.fromkeys(paths) if paths.count(path) > 1]
    if twice:
        raise RunError(f"{twice[0]}: is given twice.", "Give every run once.")
    if len(entries) < 2 and len(paths) < 2:
        named = ", ".join(path.name for path in paths) or "none"
        raise RunError(
            f"A comparison needs two or more runs ({named}).",
            "Give two or more runs, or the folder that contains them.",
        )


def _refuse_unknown(metric: str, split: str, runs: Sequence[Run]) -> None:
    """Raises `RunError` for a metric or a split that there is not."""
    if split not in SPLITS:
        raise RunError(f"split: runs cannot be compared on {split!r}.", did_you_mean(split, SPLITS))
    scores = [(run.task, run.metrics.get(split, run.record.val).figures) for run in runs]
    known = [name for name in REPORTED if all(name in task.metric_names and name in has for task, has in scores)]
    own = is_entry_point(metric) and all(metric in has for _, has in scores)
    if metric not in known and not own:
        raise RunError(f"metric: these runs have no metric {metric!r}.", did_you_mean(metric, known))


def _align_rows(entries: Sequence[RowSpec], split: str, apart: bool) -> dict[str, AlignedPredictions]:
    """The predictions of the rows that have runs, by label; refused where images differ, unless they may."""
    rows = {entry.label: entry.runs for entry in entries if entry.runs}
    answers = {label: align_predictions(label, runs, split) for label, runs in rows.items()}
    if not apart and answers:
        refuse_different(rows, answers, split)
    return answers


def _score_groups(answers: Mapping[str, AlignedPredictions], metric: str) -> list[dict[str, ScoredRow]]:
    """The scored rows by label, in groups that answered the same images."""
    groups: dict[str, list[str]] = {}
    for label, found in answers.items():
        groups.setdefault(found.images, []).append(label)
    return [
        dict(zip(labels, score_rows([answers[label] for label in labels], metric), strict=True))
        for labels in groups.values()
    ]


def _make_rows(
    entries: Sequence[RowSpec],
    metric: str,
    split: str,
    groups: Sequence[Mapping[str, ScoredRow]],
    base: Options | None,
    tables: Mapping[str, Options],
) -> list[ComparisonRow]:
    """The figures of every row on its own."""
    varying = dict(zip(tables, find_varying(list(tables.values())), strict=True))
    places = {label: (number, scored) for number, group in enumerate(groups, 1) for label, scored in group.items()}
    rows = []
    for entry in entries:
        number, scored = places.get(entry.label, (0, None))
        table, options = tables.get(entry.label, {}), varying.get(entry.label, {})
        rows.append(make_row(entry, metric, split, scored, number, base, table, options))
    return rows


def _check_rows(
    entries: Sequence[RowSpec],
    answers: Mapping[str, AlignedPredictions],
    rows: Sequence[ComparisonRow],
    pairs: Sequence[Pair],
    metric: str,
    split: str,
    edges: Mapping[str, Sequence[float]] | None,
) -> tuple[ResultFinding, ...]:
    known = answers if split == "val" else {}
    outcomes = [
        _make_outcome(entry, row, metric, split, known.get(entry.label))
        for entry, row in zip(entries, rows, strict=True)
    ]
    best = find_best(rows, 1, metric)
    varied = best is not None and any(entry.varied for entry in entries if entry.label == best.label)
    tried = (edges if edges is not None else _find_edges(rows)) if varied else {}
    checked = check_table(outcomes, best.label if best else None, tried, _measure_resolution(rows, pairs, best, metric))
    return (*checked, *find_chosen_weights(entries, split))


def _find_edges(rows: Sequence[ComparisonRow]) -> dict[str, list[float]]:
    """The numbers that the rows have of each option that varies."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.options.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, []).append(value)
    return found


def _make_outcome(
    entry: RowSpec, row: ComparisonRow, metric: str, split: str, answers: AlignedPredictions | None
) -> RowOutcome:
    scores = [float(value) for run in entry.runs if (value := score_run(run, metric, split).value) is not None]
    return replace(
        make_outcome(entry.label, entry.runs, answers),
        options=row.options,
        scores=scores,
        looks=row.looks,
        problem=entry.problem if entry.state == "failed" else "",
        published=_list_published_ends(entry.published),
    )


def _list_published_ends(given: Published | None) -> dict[str, tuple[float, float]]:
    """The published scores of each split, without losses."""
    return {one.split: one.ends for one in (given.figures if given else ()) if not is_loss(one.metric)}


def _measure_resolution(
    rows: Sequence[ComparisonRow], pairs: Sequence[Pair], best: ComparisonRow | None, metric: str
) -> Resolution | None:
    """How finely the table tells rows of the first group apart."""
    near = [
        (row.difference, row.tied)
        for row in rows
        if row.difference and row.difference.low is not None and best and row.group == best.group
    ]
    if not near:
        return None
    tied = [abs(difference.value or 0.0) for difference, is_tied in near if is_tied]
    half = float(np.median([_interval_width(difference) / 2 for difference, _ in near]))
    corrected = smallest_difference(half, len(pairs))
    found = max(tied, default=0.0)
    return Resolution(near[0][0].n, len(pairs), half, corrected, found, len(tied) + 1, is_loss(metric))


def _interval_width(metric: Metric) -> float:
    return 0.0 if metric.low is None or metric.high is None else metric.high - metric.low


def _describe_machine(run: Run) -> str:
    """The hardware of a run's times in one line."""
    about, device = run.record.hardware, run.record.choices.device
    accelerator = "" if about.accelerator == "none" else f", {about.accelerator}"
    return f"{about.cpu}, {about.cores} cores{accelerator}; trained on {device}"
