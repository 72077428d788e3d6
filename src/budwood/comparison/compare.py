"""Runs to Comparison: one table with intervals, paired tests of all its pairs, and findings.

    runs -> rows (one for all seeds) -> refusals -> aligned answers -> figures -> tests, Holm -> findings

Every test is paired: the rows answered the same images. Raises `RunError` where they did not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

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
from budwood.comparison.recipe_diff import (
    Options,
    describe_options,
    drop_defaults,
    fill_defaults,
    find_varying,
    label_rows,
    make_distinct,
    normalize_options,
)
from budwood.comparison.rows import ComparisonRow as Row
from budwood.comparison.rows import RowSpec as Entry
from budwood.comparison.rows import make_outcome, make_row, score_run
from budwood.config.metric_registry import REPORTED, is_loss
from budwood.config.registry import is_entry_point
from budwood.errors import RunError, did_you_mean
from budwood.evaluation.intervals import Metric, Values
from budwood.evaluation.result_checks import Resolution, ResultFinding, RowOutcome, check_table
from budwood.evaluation.significance import (
    ALPHA,
    bootstrap_p,
    correct_holm,
    difference_intervals,
    mcnemar_test,
    mean_difference_intervals,
    paired_permutation_test,
    smallest_difference,
)
from budwood.runs.run import Run, find_run, open_run
from budwood.training.history import drop_stage_columns

SPLITS: Final = ("val", "test")
MCNEMAR: Final = "McNemar's exact test"
PERMUTATION: Final = "sign-flip permutation test"
BOOTSTRAP: Final = "paired bootstrap"


@dataclass(frozen=True)
class Pair:
    """The test of two rows against each other.

    Attributes:
        one: Label of the first row.
        other: Label of the second row.
        difference: Metric of the first minus that of the second, with its 95 % confidence interval.
        p: P-value of the test.
        p_holm: P-value after Holm's correction over all pairs of the table.
        test: Name of the test.
    """

    one: str
    other: str
    difference: Metric
    p: float
    p_holm: float
    test: str


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison of runs.

    Attributes:
        metric: Name of the metric.
        split: Split that is compared on, `val` or `test`.
        data: Name, fingerprint, split, classes and numbers of images of the first run's data set.
        base: Recipe options from which differences are given.
        hardware: Hardware of the runs, one line for each machine.
        rows: Rows in the order given.
        pairs: All pairs of rows on the same images.
        findings: What deserves attention in the results.
        curves: History of each run (rows of numbers by name), by label of the row.
    """

    metric: str
    split: str
    data: Mapping[str, Any]
    base: Mapping[str, Any]
    hardware: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    findings: tuple[ResultFinding, ...]
    curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]

    @property
    def best(self) -> tuple[str, ...]:
        """Return the labels of the rows that are not distinguishable from the best, which is included.

        Returns:
            Labels in the order of the rows.
        """
        return tuple(row.label for row in self.rows if row.tied)

    def table(self) -> list[dict[str, Any]]:
        """Convert the rows to plain dicts.

        Returns:
            One dict a row, with the fields of `ComparisonRow`.
        """
        return [asdict(row) for row in self.rows]

    def record(self) -> dict[str, Any]:
        """Convert the comparison to plain values for JSON.

        Returns:
            All fields and the labels of the best rows; each metric has `value`, `low`, `high` and `n`. Histories come
            without the columns of single stages.
        """
        return {
            "metric": self.metric,
            "split": self.split,
            "data": dict(self.data),
            "base": dict(self.base),
            "hardware": list(self.hardware),
            "best": list(self.best),
            "rows": self.table(),
            "pairs": [asdict(pair) for pair in self.pairs],
            "findings": [finding.record() for finding in self.findings],
            "curves": {label: [drop_stage_columns(history) for history in runs] for label, runs in self.curves.items()},
        }

    def csv(self) -> str:
        """Write the table as CSV.

        Returns:
            A header and one line a row, with a column for each part of a metric.
        """
        text = io.StringIO()
        lines = [_csv_row(row) for row in self.rows]
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()


def compare(
    runs: Sequence[Run | str | Path | Entry],
    *,
    metric: str = "accuracy",
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
        runs: Each a `Run`, a run folder, a folder of runs, or a `RowSpec`.
        metric: `accuracy`, `balanced_accuracy`, `macro_f1`, `log_loss`, or the import path of a user's own metric
            that all runs have. Where images have several labels also `mean_average_precision`; accuracy then means
            that every label is right.
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
    entries = _group_runs(runs)
    _refuse_fewer(entries)
    done = [run for entry in entries for run in entry.runs]
    refuse_unfinished(done)
    _refuse_unknown(metric, split, done)
    if split == "test":
        refuse_unopened(done, allow_looks)
    answers = {entry.label: align_predictions(entry.label, entry.runs, split) for entry in entries if entry.runs}
    if not apart and answers:
        refuse_different({entry.label: entry.runs for entry in entries if entry.runs}, answers, split)
    groups = [
        dict(zip(names, score_rows([answers[name] for name in names], metric), strict=True))
        for names in _group_by_images(answers)
    ]
    tables = {entry.label: normalize_options(entry.runs[0].recipe.table()) for entry in entries if entry.runs}
    options = dict(zip(tables, find_varying(list(tables.values())), strict=True))
    given = fill_defaults(base) if base is not None else None
    rows = [
        make_row(
            entry,
            metric,
            split,
            next((group[entry.label] for group in groups if entry.label in group), None),
            next((number for number, group in enumerate(groups, 1) if entry.label in group), 0),
            given,
            tables.get(entry.label, {}),
            options.get(entry.label, {}),
        )
        for entry in entries
    ]
    pairs = _correct_p_values([pair for group in groups for pair in _test_all_pairs(group, metric)])
    ranked = [_rank(row, rows, pairs, metric) for row in rows]
    return Comparison(
        metric,
        split,
        _describe_runs(done),
        _find_shared_options(list(tables.values())) if given is None else given,
        tuple(dict.fromkeys(_describe_machine(run) for run in done)),
        tuple(ranked),
        tuple(pairs),
        _check_rows(entries, answers, ranked, pairs, metric, split, edges),
        {entry.label: [run.history() for run in entry.runs] for entry in entries if entry.runs},
    )


def find_runs(path: str | Path, out: Path = Path("runs")) -> tuple[list[Run], list[str]]:
    """Find the finished run in a folder or with an id, or all finished runs in a folder of runs.

    Args:
        path: Run folder, id of a run under `out`, or folder of runs.
        out: Folder in which ids are looked up.

    Returns:
        The finished runs, and name and state of each other run that was left out.

    Raises:
        RunError: There is no finished run, or a run's record cannot be read.
    """
    folder = Path(path)
    files = [] if (folder / "run.json").is_file() else sorted(folder.glob("*/run.json"))
    if not files:
        return [open_run(path, out)], []
    found = [find_run(file.parent) for file in files]
    left = [f"{run.path.name} ({run.record.state})" for run in found if run.record.state != "done"]
    finished = [run for run in found if run.record.state == "done"]
    if not finished:
        raise RunError(f"{folder}: contains no finished run.", "`budwood resume RUN` continues an unfinished run.")
    return finished, left


def _group_runs(runs: Sequence[Run | str | Path | Entry]) -> list[Entry]:
    """The rows of a table: entries as they are, and runs that differ in nothing but the seed together."""
    entries = [item for item in runs if isinstance(item, Entry)]
    plain_runs = [run for item in runs if not isinstance(item, Entry) for run in _open_runs(item)]
    rows: dict[str, list[Run]] = {}
    seen: dict[str, int] = {}
    for run in plain_runs:
        key = _repeat_key(run)
        again = seen[key + _describe_seed(run)] = seen.get(key + _describe_seed(run), 0) + 1
        rows.setdefault(f"{key} {again}", []).append(run)
    options = find_varying([normalize_options(row[0].recipe.table()) for row in rows.values()])
    names = label_rows(options, [row[0].path.name for row in rows.values()])
    made = [Entry(name, tuple(row)) for name, row in zip(names, rows.values(), strict=True)]
    every = [*entries, *made]
    return [
        replace(entry, label=name) for entry, name in zip(every, make_distinct(e.label for e in every), strict=True)
    ]


def _open_runs(item: Run | str | Path) -> list[Run]:
    return [item] if isinstance(item, Run) else find_runs(item)[0]


def _repeat_key(run: Run) -> str:
    """What runs have in common that are repeats of one recipe on the same data, or folds of them."""
    weights = run.record.network.weights
    came = "" if weights.kind == "none" else weights.digest
    return f"{sorted(normalize_options(run.recipe.table()).items(), key=str)} {came} {run.record.dataset.fingerprint}"


def _describe_seed(run: Run) -> str:
    return f" {run.recipe.seed}"


def _refuse_fewer(entries: Sequence[Entry]) -> None:
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
    known = [name for name in REPORTED if all(name in run.task.metric_names for run in runs)]
    own = is_entry_point(metric) and all(metric in run.metrics.get(split, {}) for run in runs)
    if metric not in known and not own:
        raise RunError(f"metric: these runs have no metric {metric!r}.", did_you_mean(metric, known))


def _group_by_images(answers: Mapping[str, AlignedPredictions]) -> list[list[str]]:
    """The labels of rows that answered the same images."""
    groups: dict[str, list[str]] = {}
    for label, found in answers.items():
        groups.setdefault(found.images, []).append(label)
    return list(groups.values())


def _find_shared_options(tables: Sequence[Options]) -> dict[str, Any]:
    """The options that all recipes have, with the value that they share."""
    if not tables:
        return {}
    return {name: value for name, value in tables[0].items() if all(t.get(name) == value for t in tables)}


def _test_all_pairs(group: Mapping[str, ScoredRow], metric: str) -> Iterator[Pair]:
    """Every pair of rows on the same images, with its test."""
    rows = list(group.values())
    p, low, high = _test_pairs(rows, metric)
    for (one, name), (other, against) in combinations(enumerate(group), 2):
        value = rows[one].value - rows[other].value
        difference = Metric(value, float(low[one, other]), float(high[one, other]), rows[one].n)
        found = float(p[one, other])
        yield Pair(name, against, difference, found, found, _test_of(rows[one], rows[other], metric))


def _test_of(one: ScoredRow, other: ScoredRow, metric: str) -> str:
    """The test that a pair is compared by."""
    if one.means is None:
        return BOOTSTRAP
    return MCNEMAR if not is_loss(metric) and one.repeats == other.repeats == 1 else PERMUTATION


def _test_pairs(rows: Sequence[ScoredRow], metric: str) -> tuple[Values, Values, Values]:
    """The p-values of all pairs of rows, and the ends of the intervals of their differences: [rows, rows] each."""
    if any(row.means is None for row in rows):
        spread = np.stack([row.spread for row in rows if row.spread is not None], axis=1)
        return bootstrap_p(np.array([row.value for row in rows]), spread), *difference_intervals(spread)
    values = np.stack([row.means for row in rows if row.means is not None], axis=1)
    exact = np.array([[_test_of(one, other, metric) == MCNEMAR for other in rows] for one in rows])
    p = np.ones(exact.shape) if exact.all() else paired_permutation_test(values)
    if exact.any():
        alone = np.array([row.repeats == 1 for row in rows])
        p = np.where(exact, mcnemar_test(np.where(alone, values, 0.0)), p)
    return p, *mean_difference_intervals(values)


def _correct_p_values(pairs: Sequence[Pair]) -> list[Pair]:
    corrected = correct_holm(np.array([pair.p for pair in pairs]))
    return [replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True)]


def _rank(row: Row, rows: Sequence[Row], pairs: Sequence[Pair], metric: str) -> Row:
    """A row with its difference from the best row on the same images."""
    best = _find_best(rows, row.group, metric)
    if best is None or row.value is None:
        return row
    if row.label == best.label:
        return replace(row, best=True, tied=True)
    for pair in pairs:
        if {pair.one, pair.other} == {row.label, best.label}:
            difference = pair.difference if pair.one == row.label else _negate(pair.difference)
            return replace(row, difference=difference, p=pair.p_holm, tied=pair.p_holm > ALPHA)
    return row


def _negate(difference: Metric) -> Metric:
    value, low, high = (-float(end or 0.0) for end in (difference.value, difference.high, difference.low))
    return Metric(value, low, high, difference.n)


def _find_best(rows: Sequence[Row], group: int, metric: str) -> Row | None:
    """The row of a group with the best value; the earliest of equals."""
    sign = -1 if is_loss(metric) else 1
    known = [
        (sign * row.value.value, row)
        for row in rows
        if row.group == group and row.value and row.value.value is not None
    ]
    return max(known, key=lambda one: one[0], default=(0.0, None))[1]


def _check_rows(
    entries: Sequence[Entry],
    answers: Mapping[str, AlignedPredictions],
    rows: Sequence[Row],
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
    best = _find_best(rows, 1, metric)
    varied = best is not None and any(entry.varied for entry in entries if entry.label == best.label)
    tried = (edges if edges is not None else _find_edges(rows)) if varied else {}
    return check_table(outcomes, best.label if best else None, tried, _measure_resolution(rows, pairs, best, metric))


def _find_edges(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The numbers that the rows have of each option that varies."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.options.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, []).append(value)
    return found


def _make_outcome(entry: Entry, row: Row, metric: str, split: str, answers: AlignedPredictions | None) -> RowOutcome:
    scores = [float(value) for run in entry.runs if (value := score_run(run, metric, split).value) is not None]
    return replace(
        make_outcome(entry.label, entry.runs, answers),
        options=row.options,
        scores=scores,
        looks=row.looks,
        problem="" if entry.aside else entry.problem,
    )


def _measure_resolution(rows: Sequence[Row], pairs: Sequence[Pair], best: Row | None, metric: str) -> Resolution | None:
    """How finely the table tells rows of the first group apart."""
    near = [(row.difference, row.tied) for row in rows if row.difference and best and row.group == best.group]
    if not near:
        return None
    tied = [abs(difference.value or 0.0) for difference, is_tied in near if is_tied]
    half = float(np.median([_interval_width(difference) / 2 for difference, _ in near]))
    corrected = smallest_difference(half, len(pairs))
    found = max(tied, default=0.0)
    return Resolution(near[0][0].n, len(pairs), half, corrected, found, len(tied) + 1, is_loss(metric))


def _interval_width(metric: Metric) -> float:
    return 0.0 if metric.low is None or metric.high is None else metric.high - metric.low


def _describe_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The data that the runs share: name, classes and numbers of images; of the first run where there are several."""
    if not runs:
        return {}
    shared = {"name", "fingerprint", "split", "classes", "counts", "several"}
    return runs[0].record.dataset.model_dump(mode="json", include=shared)


def _describe_machine(run: Run) -> str:
    """The hardware of a run's times in one line."""
    about, device = run.record.hardware, run.record.choices.device
    accelerator = "" if about.accelerator == "none" else f", {about.accelerator}"
    return f"{about.cpu}, {about.cores} cores{accelerator}; trained on {device}"


def _csv_row(row: Row) -> dict[str, Any]:
    """The columns of a row in a CSV file: parts of metrics as `name_part`, options as one text."""
    parameters, spread, published = row.parameters or {}, row.spread or {}, row.published or {}
    return {
        "label": row.label,
        "differs": describe_options(drop_defaults(row.differs)),
        "runs": " ".join(row.runs),
        "seeds": row.seeds,
        "group": row.group,
        **{f"parameters_{name}": parameters.get(name) for name in ("trainable", "total")},
        "multiply_adds": row.macs,
        "best_epochs": " ".join(map(str, row.epochs)),
        **_csv_metric("train", row.train),
        **_csv_metric("value", row.value),
        **{f"seeds_{name}": spread.get(name) for name in ("low", "high", "sd")},
        **_csv_metric("test", row.test),
        "test_looks": " ".join(map(str, row.looks)),
        **_csv_metric("from_best", row.difference),
        "p_holm": row.p,
        "best": row.best,
        "not_distinguishable_from_best": row.tied,
        "seconds": row.seconds,
        "training_seconds": row.training_seconds,
        **{f"published_{name}": published.get(name) for name in ("value", "metric", "split", "note")},
        "published_against": published.get("ours_split"),
        "published_difference": published.get("difference"),
        "problem": row.problem,
    }


def _csv_metric(name: str, metric: Metric | None) -> dict[str, Any]:
    return {f"{name}_{part}": getattr(metric, part, None) for part in ("value", "low", "high", "n")}
