"""Paired tests of all rows on the same images, corrected over the table, and what they say of each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final

import numpy as np

from budwood.comparison.alignment import ScoredRow
from budwood.comparison.document import Pair
from budwood.comparison.rows import ComparisonRow
from budwood.config.metric_registry import is_loss
from budwood.evaluation.intervals import Metric, Values
from budwood.evaluation.significance import (
    ALPHA,
    bootstrap_p,
    correct_holm,
    difference_intervals,
    mcnemar_test,
    mean_difference_intervals,
    paired_permutation_test,
)

MCNEMAR: Final = "McNemar's exact test"
PERMUTATION: Final = "sign-flip permutation test"
BOOTSTRAP: Final = "paired bootstrap"


def compare_pairs(groups: Sequence[Mapping[str, ScoredRow]], metric: str) -> tuple[Pair, ...]:
    """Test every row against every other on the same images.

    Args:
        groups: Scored rows by label, in groups on the same images.
        metric: Name of the metric.

    Returns:
        All pairs, with p-values corrected over all of them (Holm).
    """
    pairs = [pair for group in groups for pair in _test_group(group, metric)]
    corrected = correct_holm(np.array([pair.p for pair in pairs]))
    return tuple(replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True))


def _test_group(group: Mapping[str, ScoredRow], metric: str) -> Iterator[Pair]:
    """Every pair of rows on the same images, with its test."""
    rows = list(group.values())
    p, low, high = _compute_p_values(rows, metric)
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


def _compute_p_values(rows: Sequence[ScoredRow], metric: str) -> tuple[Values, Values, Values]:
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


def rank_row(row: ComparisonRow, rows: Sequence[ComparisonRow], pairs: Sequence[Pair], metric: str) -> ComparisonRow:
    """Compare a row with the best row on the same images.

    Args:
        row: The row.
        rows: All rows of the table.
        pairs: The tests of all pairs.
        metric: Name of the metric.

    Returns:
        The row with its difference from the best, its p-value, and whether it can be told from it.
    """
    best = find_best(rows, row.group, metric)
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


def find_best(rows: Sequence[ComparisonRow], group: int, metric: str) -> ComparisonRow | None:
    """Find the row of a group with the best value, the earliest of equals.

    Args:
        rows: All rows of the table.
        group: Number of the group of rows on the same images.
        metric: Name of the metric.

    Returns:
        The row; None where none has a value.
    """
    sign = -1 if is_loss(metric) else 1
    known = [
        (sign * row.value.value, row)
        for row in rows
        if row.group == group and row.value and row.value.value is not None
    ]
    return max(known, key=lambda one: one[0], default=(0.0, None))[1]
