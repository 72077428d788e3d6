"""On test each row is held against the one that validation chose, and p is corrected over these pairs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from budwood.comparison.compare import compare
from budwood.comparison.document import Comparison
from budwood.comparison.rows import RowSpec
from budwood.comparison.tested_rows import compare_on_test, describe_tested, format_tested, format_tested_rows
from budwood.reporting.comparison_page import render_comparison
from budwood.runs.run import Run
from conftest import answers, scored_run

VAL = np.random.default_rng(0).integers(0, 3, 300).astype(np.int32)
TRUTH = np.random.default_rng(1).integers(0, 3, 400).astype(np.int32)
# Validation chooses "a", although "c" is best on test.
ROWS = {"a": (0.95, 0.80), "b": (0.80, 0.60), "c": (0.70, 0.90), "d": (0.60, 0.78)}


def _right(run: Run) -> NDArray[np.bool_]:
    """Which test images a run has right, in the order of their ids."""
    found = run.predictions("test")
    return np.asarray((found.logits.argmax(1) == found.labels)[np.argsort(found.ids)])


def _entry(folder: Path, label: str, looks: int = 1, seeds: int = 1) -> RowSpec:
    val, test = ROWS[label]
    runs = tuple(
        scored_run(
            folder / f"{label}{seed}",
            VAL,
            answers(VAL, val, 10 * seed + ord(label)),
            test=(TRUTH, answers(TRUTH, test, 100 * seed + ord(label)), looks),
            lr=0.1 * ord(label),
            seed=seed,
        )
        for seed in range(seeds)
    )
    return RowSpec(label, runs)


def _compare(entries: list[RowSpec], metric: str = "accuracy") -> Comparison:
    return compare_on_test(compare(entries, metric=metric), entries)


def test_rows_are_held_against_the_one_that_validation_chose(tmp_path: Path) -> None:
    entries = [_entry(tmp_path, label) for label in ROWS]
    made = _compare(entries)
    assert made.best == ("a",), "validation chose, and still does"
    assert [(pair.one, pair.other) for pair in made.test_pairs] == [("b", "a"), ("c", "a"), ("d", "a")]
    right = {entry.label: _right(entry.runs[0]) for entry in entries}
    expected = []
    for pair in made.test_pairs:
        one, chosen = right[pair.one], right["a"]
        wins, losses = int((one & ~chosen).sum()), int((~one & chosen).sum())
        expected.append(binomtest(wins, wins + losses).pvalue)
        assert pair.difference.value == pytest.approx((wins - losses) / 400)
        assert pair.difference.low is not None
        assert pair.difference.high is not None
        assert pair.difference.low < (wins - losses) / 400 < pair.difference.high
        assert (pair.difference.low < 0 < pair.difference.high) == (pair.p >= 0.05)
    assert [pair.p for pair in made.test_pairs] == pytest.approx(expected)
    holm, largest = dict[float, float](), 0.0
    for rank, p in enumerate(sorted(expected)):
        largest = max(largest, min(1.0, (3 - rank) * p))
        holm[p] = largest
    assert [pair.p_holm for pair in made.test_pairs] == pytest.approx([holm[p] for p in expected])


def test_it_is_told_with_intervals_in_the_terminal_and_on_the_page(tmp_path: Path) -> None:
    made = _compare([*(_entry(tmp_path, label) for label in "abc"), RowSpec("failed", (), problem="oh")])
    rows = format_tested_rows(made)
    assert [(cells.row.label, cells.look) for cells in rows] == [("a", "1"), ("b", "1"), ("c", "1")]
    assert rows[0].gap[0] == "chosen"
    assert all("–" in cells.value[1] for cells in rows)
    assert describe_tested(made) == (
        "p: McNemar's exact test against the row that was chosen on validation, Holm correction for all 2 rows. "
        "No row was chosen by these figures; to choose by them makes the score of the chosen row too optimistic."
    )
    told = format_tested(made).splitlines()
    assert told[0].split() == ["row", "test", "accuracy", "from", "chosen", "p"]
    assert "The same in all rows: look 1." in told
    assert told[2].startswith("* a")
    assert describe_tested(made) in told[-1]
    page = render_comparison(made)
    assert "<h2>Test set</h2>" in page
    assert "Holm correction for all 2 rows" in page
    assert "<h2>Test set</h2>" not in render_comparison(compare([_entry(tmp_path / "x", label) for label in "ab"]))


def test_other_looks_and_sealed_rows_are_left_out(tmp_path: Path) -> None:
    sealed = RowSpec("sealed", (scored_run(tmp_path / "sealed", VAL, answers(VAL, 0.5, 9), lr=7.0),))
    made = _compare([_entry(tmp_path, "a"), _entry(tmp_path, "b", looks=2), _entry(tmp_path, "c"), sealed])
    assert [pair.one for pair in made.test_pairs] == ["c"]
    assert [cells.gap[0] for cells in format_tested_rows(made)] == ["chosen", "–", made_gap(made)]
    untested = _compare([_entry(tmp_path / "two", "a"), _entry(tmp_path / "two", "b", looks=2)])
    assert untested.test_pairs == ()
    assert format_tested(untested) == ""


def made_gap(made: Comparison) -> str:
    """The only difference, in points."""
    return f"{100 * (made.test_pairs[0].difference.value or 0):+.1f}"


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_other_metrics_and_seeds_have_their_tests(tmp_path: Path, metric: str) -> None:
    made = _compare([_entry(tmp_path, label, seeds=2) for label in "ab"], metric)
    (pair,) = made.test_pairs
    values = {row.label: row.test.value for row in made.rows if row.test}
    assert pair.test in ("paired bootstrap", "sign-flip permutation test")
    assert pair.difference.value == pytest.approx((values[pair.one] or 0) - (values[pair.other] or 0))
    assert pair.p < 0.05
    assert describe_tested(made).startswith(f"p: {pair.test} against the row that was chosen on validation. No row")
