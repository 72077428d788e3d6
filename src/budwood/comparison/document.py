"""A comparison as a document: the records of its rows and pairs, and how they are written as JSON and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from budwood.comparison.recipe_diff import Options, describe_options, drop_defaults
from budwood.comparison.rows import ComparisonRow
from budwood.evaluation.intervals import Metric
from budwood.evaluation.result_checks import History, ResultFinding
from budwood.runs.run_record import DatasetRecord
from budwood.text import format_csv
from budwood.training.history import drop_stage_columns

# Of a data set, what all rows of a comparison share.
_SHARED: Final = {"name", "fingerprint", "split", "classes", "counts", "several"}


@dataclass(frozen=True)
class Pair:
    """The test of two rows against each other.

    Attributes:
        one: Label of the first row.
        other: Label of the second row.
        difference: Metric of the first minus that of the second, with its 95 % confidence interval, which leaves out 0
            where p is below 0.05 and nowhere else.
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
        data: The data set of the first run; None where no row has a run.
        base: Recipe options from which differences are given.
        hardware: Hardware of the runs, one line for each machine.
        rows: Rows in the order given.
        pairs: All pairs of rows on the same images.
        findings: What deserves attention in the results.
        curves: History of each run (rows of numbers by name), by label of the row.
        test_pairs: Each row against the row of its images that validation chose, on the opened test split, with
            p-values corrected over these pairs (Holm).
    """

    metric: str
    split: str
    data: DatasetRecord | None
    base: Options
    hardware: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    pairs: tuple[Pair, ...]
    findings: tuple[ResultFinding, ...]
    curves: Mapping[str, Sequence[History]]
    test_pairs: tuple[Pair, ...] = ()

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
        return [_plain_row(row) for row in self.rows]

    def record(self) -> dict[str, Any]:
        """Convert the comparison to plain values for JSON.

        Returns:
            All fields and the labels of the best rows; each metric has `value`, `low`, `high` and `n`. Histories come
            without the columns of single stages, and `test_pairs` only where there are some.
        """
        return {
            "metric": self.metric,
            "split": self.split,
            "data": self.data.model_dump(mode="json", include=_SHARED) if self.data else {},
            "base": dict(self.base),
            "hardware": list(self.hardware),
            "best": list(self.best),
            "rows": self.table(),
            "pairs": [asdict(pair) for pair in self.pairs],
            **({"test_pairs": [asdict(pair) for pair in self.test_pairs]} if self.test_pairs else {}),
            "findings": [finding.record() for finding in self.findings],
            "curves": {label: [drop_stage_columns(history) for history in runs] for label, runs in self.curves.items()},
        }

    def csv(self) -> str:
        """Write the table as CSV.

        Returns:
            A header and one line a row, with a column for each part of a metric.
        """
        lines = [_csv_row(row) for row in self.rows]
        return format_csv([list(lines[0]), *(list(line.values()) for line in lines)])


def _plain_row(row: ComparisonRow) -> dict[str, Any]:
    """A row as it is written: of its parameters the trained ones and all."""
    counts = row.parameters
    return {
        **asdict(row),
        "parameters": {"trainable": counts.trainable, "total": counts.total} if counts else None,
    }


def _csv_row(row: ComparisonRow) -> dict[str, object]:
    """The columns of a row in a CSV file: parts of metrics as `name_part`, options as one text."""
    return {
        "label": row.label,
        "differs": describe_options(drop_defaults(row.differs)),
        "runs": " ".join(row.runs),
        "seeds": row.seeds,
        "group": row.group,
        **_csv_parts("parameters", row.parameters, ("trainable", "total")),
        "multiply_adds": row.macs,
        "best_epochs": " ".join(map(str, row.epochs)),
        **_csv_metric("train", row.train),
        **_csv_metric("value", row.value),
        **_csv_parts("seeds", row.spread, ("low", "high", "sd")),
        **_csv_metric("test", row.test),
        "test_looks": " ".join(map(str, row.looks)),
        **_csv_metric("from_best", row.difference),
        "p_holm": row.p,
        "p_alone": row.p_alone,
        "best": row.best,
        "not_distinguishable_from_best": row.tied,
        "seconds": row.seconds,
        "training_seconds": row.training_seconds,
        **_csv_parts("published", row.published, ("value", "metric", "split", "note")),
        "published_against": row.published.ours_split if row.published else None,
        "published_difference": row.published.difference if row.published else None,
        "problem": row.problem,
    }


def _csv_metric(name: str, metric: Metric | None) -> dict[str, object]:
    return _csv_parts(name, metric, ("value", "low", "high", "n"))


def _csv_parts(name: str, record: object | None, parts: Sequence[str]) -> dict[str, object]:
    """Attributes of a record as columns; empty ones where there is no record."""
    return {f"{name}_{part}": getattr(record, part, None) for part in parts}
