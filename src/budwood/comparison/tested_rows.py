"""The opened test split in a table of validation: each row against the row that validation chose, and as text.

Nothing is chosen by these figures, so the chosen row's is unbiased, and only pairs with it are tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from budwood.comparison.alignment import align_predictions, score_rows
from budwood.comparison.document import Comparison, Pair
from budwood.comparison.pairs import compare_pairs, turn_around
from budwood.comparison.published_text import Cell
from budwood.comparison.rows import ComparisonRow, RowSpec
from budwood.comparison.text import (
    LABEL,
    MARK,
    NONE,
    format_figure,
    format_gap,
    format_looks,
    format_p_values,
    format_rows,
    join_cell,
)
from budwood.config.metric_registry import describe_metric, is_loss
from budwood.evaluation.significance import correct_holm
from budwood.runs.run import Run
from budwood.text import Unit, fit_table, shorten, show_unprintable


def compare_on_test(made: Comparison, entries: Sequence[RowSpec]) -> Comparison:
    """Test each row of a table against the row that validation chose, on the test images that both have answered.

    Rows are left out whose test split is sealed, has other images, or was opened at another look.

    Args:
        made: The comparison on validation.
        entries: The rows that were compared, with their runs.

    Returns:
        The comparison with `test_pairs`, whose p-values are corrected over all of them (Holm).

    Raises:
        RunError: The predictions of a run were changed, or its runs were tested on different images.
    """
    runs = {entry.label: entry.runs for entry in entries}
    pairs = [
        pair
        for chosen in made.rows
        if chosen.best and chosen.looks
        for pair in _test_against(chosen, [row for row in made.rows if row.group == chosen.group], runs, made.metric)
    ]
    corrected = correct_holm(np.array([pair.p for pair in pairs]))
    told = tuple(replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True))
    return replace(made, test_pairs=told)


def _test_against(
    chosen: ComparisonRow, rows: Sequence[ComparisonRow], runs: Mapping[str, Sequence[Run]], metric: str
) -> Iterator[Pair]:
    """The rows of a group that can be compared with the chosen one on test, each as a pair with it."""
    known = [row.label for row in rows if row.looks and set(row.looks) == set(chosen.looks)]
    answers = {label: align_predictions(label, runs[label], "test") for label in known}
    same = [label for label in known if answers[label].images == answers[chosen.label].images]
    scored = dict(zip(same, score_rows([answers[label] for label in same], metric), strict=True))
    for pair in compare_pairs([scored], metric):
        if chosen.label == pair.other:
            yield pair
        elif chosen.label == pair.one:
            yield turn_around(pair)


@dataclass(frozen=True)
class TestedCells:
    """One row of the table of test figures as text.

    Attributes:
        row: The row itself.
        value: Metric on the test split, with its interval.
        gap: Difference from the row that validation chose, with its interval.
        p: P-value against that row, with that of the pair alone where it was corrected.
        look: At which look the test split was opened.
    """

    row: ComparisonRow
    value: Cell
    gap: Cell
    p: Cell
    look: str


def format_tested_rows(made: Comparison) -> list[TestedCells]:
    """Format the test figures of a comparison, in the order of its table.

    Args:
        made: The comparison.

    Returns:
        The rows whose test split is open; none where no two of them were compared.
    """
    unit = Unit(is_loss(made.metric))
    pairs = {pair.one: pair for pair in made.test_pairs}
    rows = [cells.row for cells in format_rows(made)] if pairs else []
    return [_format_row(row, pairs.get(row.label), unit) for row in rows if row.test]


def _format_row(row: ComparisonRow, pair: Pair | None, unit: Unit) -> TestedCells:
    look, value = format_looks(row.looks), format_figure(row.test, unit)
    if pair is None:
        return TestedCells(row, value, ("chosen", "") if row.best else NONE, NONE, look)
    return TestedCells(row, value, format_gap(pair.difference, unit), format_p_values(pair.p_holm, pair.p), look)


def describe_tested(made: Comparison) -> str:
    """Describe how the rows of a comparison were tested.

    Args:
        made: A comparison with `test_pairs`.

    Returns:
        Two sentences: the tests with their correction, and what the figures are not for.
    """
    count = len(made.test_pairs)
    tests = ", ".join(sorted({pair.test for pair in made.test_pairs}))
    holm = f", Holm correction for all {count:,} rows" if count > 1 else ""
    return (
        f"p: {tests} against the row that was chosen on validation{holm}. "
        "No row was chosen by these figures; to choose by them makes the score of the chosen row too optimistic."
    )


def format_tested(made: Comparison, width: int | None = None) -> str:
    """Format the test figures of a comparison for a terminal.

    Args:
        made: The comparison.
        width: Columns of the terminal; None: as many as it takes.

    Returns:
        A table and its legend; empty where no two rows were compared on test.
    """
    rows = format_tested_rows(made)
    if not rows:
        return ""
    columns = ("row", f"test {describe_metric(made.metric)}", "from chosen", "p", "look")
    lines = [
        (
            f"{MARK if cells.row.best else ' '} {shorten(show_unprintable(cells.row.label), LABEL)}",
            join_cell(cells.value),
            join_cell(cells.gap),
            join_cell(cells.p),
            cells.look,
        )
        for cells in rows
    ]
    return "\n".join(
        [
            fit_table([columns, *lines], range(1, len(columns)), width, (0, 1)),
            f"{MARK} chosen on validation. {describe_tested(made)}",
        ]
    )
