"""A comparison as a document: the records of its rows and pairs, and how they are written as JSON and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from budwood.comparison.published import LOSS, LOSSES, NAMES, PublishedComparison, choose_figure, find_figure
from budwood.comparison.recipe_diff import Options, describe_options, drop_defaults
from budwood.comparison.rows import ComparisonRow
from budwood.display import Displayed
from budwood.evaluation.intervals import Metric
from budwood.evaluation.result_checks import History, ResultFinding
from budwood.runs.run_record import DatasetRecord
from budwood.text import counted, format_csv, listed, show_unprintable
from budwood.training.history import drop_stage_columns

Verdict = Literal["confirmed", "denied", "not distinguishable", "not tested"]

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
class Claim:
    """A statement about two rows of a study, made before they were trained.

    Attributes:
        says: The statement, in words.
        better: Label of the row that is said to be better.
        than: Label of the other row.
        margin: By how much `better` may be worse all the same, 0 to 1: above 0 the statement is that it costs little.
    """

    says: str
    better: str
    than: str
    margin: float = 0.0


@dataclass(frozen=True)
class JudgedClaim(Claim):
    """A claim beside what was found.

    Attributes:
        verdict: `confirmed` or `denied`, where the images decide; `not distinguishable` where they do not; `not tested`
            where the two rows were not scored on the same images.
        difference: Metric of `better` minus that of `than`, with its 95 % confidence interval.
        p: P-value of the paired test, corrected over all claims without a margin (Holm); None for a claim with one,
            which its interval decides.
        reason: Why it was not tested.
    """

    verdict: Verdict = "not tested"
    difference: Metric | None = None
    p: float | None = None
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Comparison(Displayed):
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
        claims: What a source says of the rows, held against them.
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
    claims: tuple[JudgedClaim, ...] = ()
    test_pairs: tuple[Pair, ...] = ()

    def __repr__(self) -> str:
        name = f"{self.data.name!r}: " if self.data else ""
        best = f"; not distinguishable from the best: {listed(self.best, 3)}" if self.best else ""
        rows = f"{counted(len(self.rows), 'row')} by {self.split} {self.metric}"
        return show_unprintable(f"Comparison({name}{rows}{best})")

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
            One dict a row, with the fields of `ComparisonRow`. `published` has all figures under `figures`, and on
            its own level once more the one that is most like the figure of the table.
        """
        return [_plain_row(row, self.metric, self.split) for row in self.rows]

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
            **({"claims": [asdict(claim) for claim in self.claims]} if self.claims else {}),
            "curves": {label: [drop_stage_columns(history) for history in runs] for label, runs in self.curves.items()},
        }

    def csv(self) -> str:
        """Write the table as CSV.

        Returns:
            A header and one line a row, with a column for each part of a metric.
        """
        lines = [_csv_row(row, self.metric, self.split) for row in self.rows]
        return format_csv([list(lines[0]), *(list(line.values()) for line in lines)])


def _plain_row(row: ComparisonRow, metric: str, split: str) -> dict[str, Any]:
    """A row as it is written: of its parameters the trained ones and all, of what is published the main figure, too."""
    counts = row.parameters
    return {
        **asdict(row),
        "parameters": {"trainable": counts.trainable, "total": counts.total} if counts else None,
        "published": _plain_published(row.published, metric, split) if row.published else None,
    }


def _plain_published(given: PublishedComparison, metric: str, split: str) -> dict[str, Any]:
    main = choose_figure(given.figures, metric, split)
    return {
        "value": main.value if main else None,
        "metric": main.metric if main else None,
        "split": main.split if main else None,
        "note": given.note,
        "ours": asdict(main.ours) if main and main.ours and main.difference is not None else None,
        "ours_split": main.split if main and main.difference is not None else None,
        "difference": main.difference if main else None,
        **asdict(given),
    }


def _csv_row(row: ComparisonRow, metric: str, split: str) -> dict[str, object]:
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
        **_csv_published(row.published, metric, split),
        "problem": row.problem,
        "state": row.state,
        "stand_in": row.stand_in,
    }


def _csv_published(given: PublishedComparison | None, metric: str, split: str) -> dict[str, object]:
    """The main figure, then every figure with the ends of its range and our difference from it."""
    main = choose_figure(given.figures, metric, split) if given else None
    named = main.metric if main and main.metric != LOSS else metric
    columns: dict[str, object] = {
        **_csv_parts("published", main, ("value", "metric", "split")),
        "published_note": given.note if given else None,
        "published_against": main.split if main and main.difference is not None else None,
        "published_difference": main.difference if main else None,
    }
    for name in NAMES:
        about = (LOSS, LOSSES[name]) if name in LOSSES else (named, name)
        figure = find_figure(given.figures, *about) if given else None
        columns |= _csv_parts(f"published_{name}", figure, ("value", "low", "high", "difference"))
    return columns | _csv_parts("published", given, ("seconds", "machine", "parameters"))


def _csv_metric(name: str, metric: Metric | None) -> dict[str, object]:
    return _csv_parts(name, metric, ("value", "low", "high", "n"))


def _csv_parts(name: str, record: object | None, parts: Sequence[str]) -> dict[str, object]:
    """Attributes of a record as columns; empty ones where there is no record."""
    return {f"{name}_{part}": getattr(record, part, None) for part in parts}
