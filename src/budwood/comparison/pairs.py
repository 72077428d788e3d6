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
from budwood.config.registry import is_entry_point
from budwood.evaluation.differences import paired_difference_interval
from budwood.evaluation.intervals import Metric, Values
from budwood.evaluation.resampling import FEWEST
from budwood.evaluation.significance import (
    ALPHA,
    compare_resampled,
    correct_holm,
    mcnemar_test,
    paired_permutation_test,
    permutation_intervals,
    smallest_permutation_p,
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
        ends = None if np.isnan(low[one, other]) else (float(low[one, other]), float(high[one, other]))
        least, most = ends or (None, None)
        difference = Metric(value, least, most, rows[one].n)
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
        return _test_resampled(rows, metric)
    values = np.stack([row.means for row in rows if row.means is not None], axis=1)
    exact = np.array([[_test_of(one, other, metric) == MCNEMAR for other in rows] for one in rows])
    p, low, high = np.ones(exact.shape), np.zeros(exact.shape), np.zeros(exact.shape)
    if not exact.all():
        p = paired_permutation_test(values)
        low, high = permutation_intervals(values, p, None if is_loss(metric) else 1.0)
    if exact.any():
        alone = np.array([row.repeats == 1 for row in rows])
        correct = np.where(alone, values, 0.0)
        wins = correct.T @ (1 - correct)
        p = np.where(exact, mcnemar_test(correct), p)
        low, high = (
            np.where(exact, end, other)
            for end, other in zip(paired_difference_interval(wins, wins.T, len(values)), (low, high), strict=True)
        )
    return p, low, high


def _test_resampled(rows: Sequence[ScoredRow], metric: str) -> tuple[Values, Values, Values]:
    """The same for a metric that is no mean over images; of a user's own nothing is told on few images."""
    own = is_entry_point(metric)
    if own and rows[0].n < FEWEST:
        unknown = np.full((len(rows), len(rows)), np.nan)
        return np.ones(unknown.shape), unknown, unknown
    return compare_resampled(
        np.array([row.value for row in rows]),
        np.stack([row.spread for row in rows if row.spread is not None], axis=1),
        smallest_permutation_p([row.answers for row in rows]),
        rows[0].unit,
        np.inf if own else 1.0,
    )


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
            difference = (pair if pair.one == row.label else turn_around(pair)).difference
            return replace(row, difference=difference, p=pair.p_holm, p_alone=pair.p, tied=pair.p_holm > ALPHA)
    return row


def turn_around(pair: Pair) -> Pair:
    """Turn a pair the other way round.

    Args:
        pair: The test of one row against another.

    Returns:
        The same test of the other row against the one, whose difference has the other sign.
    """
    return replace(pair, one=pair.other, other=pair.one, difference=_negate(pair.difference))


def _negate(difference: Metric) -> Metric:
    value = -float(difference.value or 0.0)
    if difference.low is None or difference.high is None:
        return replace(difference, value=value)
    return Metric(value, -difference.high, -difference.low, difference.n)


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
