"""How sure a difference between rows is: pure functions of arrays, all pairs of a table at once.

Values are float64 [n, rows], one for each image and row: whether it is right, its loss, or the mean of either over the
seeds of the row. Everything random has a fixed seed. The same images stand behind every row, so all tests are paired.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri

from budwood.evaluation.intervals import Z_95, Values, iterate_bootstrap_weights

ALPHA: Final = 0.05
FLIPS: Final = 10_000  # sign flips of a test, at least
FLIPS_A_PAIR: Final = 40  # and for each pair of a table, so that a small p-value can survive Holm's correction
ENOUGH: Final = 50  # sign vectors of FLIPS as far from zero as what was observed: the pair is far from significant
PART: Final = 1000  # flips at a time
TIE: Final = 1e-3  # sums over images that differ by less are equal; seeds divide a right answer into larger steps


def mcnemar_test(correct: Values) -> Values:
    """Compute two-sided p-values of the exact McNemar test for every pair of rows.

    If two rows are equally good, each is favoured by half of the images on which they differ (McNemar 1947; exact
    as in Dietterich 1998).

    Args:
        correct: 1 where a row is correct on an image and 0 where it is not, float64 [n, rows].

    Returns:
        The p-values, float64 [rows, rows], symmetric.
    """
    wins = correct.T @ (1 - correct)
    fewer, discordant = np.minimum(wins, wins.T), wins + wins.T
    return np.asarray(np.minimum(1.0, 2 * bdtr(fewer, discordant.astype(np.int64), 0.5)))


def paired_permutation_test(values: Values, seed: int = 0) -> Values:
    """Compute two-sided p-values of the paired permutation test for every pair of rows.

    If two rows were equally good, the sign of every image's difference would be a matter of chance (Fisher 1935).
    The p-value is the proportion of random sign vectors, the observed one included, whose sum is at least as far
    from zero (Phipson and Smyth 2010). All pairs share the vectors, as a flipped difference is a difference of
    flipped values. Where Hoeffding's bound (1963) on that proportion is smaller than one vector can show, the bound
    is returned instead. A pair that FLIPS vectors show to be far from significant gets no more of them (Besag and
    Clifford 1991).

    Args:
        values: Value of each image for each row, float64 [n, rows].
        seed: Seed of the sign vectors.

    Returns:
        The p-values, float64 [rows, rows], symmetric, with 1 on the diagonal.
    """
    rows = values.shape[1]
    one, other = np.triu_indices(rows, 1)
    centred = values - values.mean(axis=1, keepdims=True)
    centred = centred[np.any(centred != 0, axis=1)]
    sums, bound = _sum_differences(centred, one, other)
    total = max(FLIPS, FLIPS_A_PAIR * len(one))
    limit, small = (sums - TIE * np.minimum(sums, 1)).astype(np.float32), centred.astype(np.float32)
    random, hits, flips = np.random.default_rng(seed), np.zeros(len(one), np.int64), np.zeros(len(one), np.int64)
    open_ = np.flatnonzero(bound > 1 / (total + 1))
    for start in range(0, total, PART):
        if start == FLIPS:
            open_ = open_[hits[open_] < ENOUGH]
        bits = random.integers(0, 256, (min(PART, total - start), -(-len(small) // 8)), np.uint8)
        flipped = (np.unpackbits(bits, axis=1, count=len(small)).astype(np.float32) * 2 - 1) @ small
        hits[open_] += (np.abs(flipped[:, one[open_]] - flipped[:, other[open_]]) >= limit[open_]).sum(axis=0)
        flips[open_] += len(bits)
    return _make_symmetric(np.where(flips > 0, (hits + 1) / (flips + 1), bound), rows)


def _sum_differences(values: Values, one: NDArray[np.intp], other: NDArray[np.intp]) -> tuple[Values, Values]:
    """How far from zero the sum of each pair's differences is, and the most that its p-value can be: [pairs]."""
    sums = values.sum(axis=0)
    products = values.T @ values
    squares = np.diag(products)
    observed = np.abs(sums[one] - sums[other])
    spread = np.maximum(squares[one] + squares[other] - 2 * products[one, other], 1e-12)
    return observed, np.minimum(1.0, 2 * np.exp(-(observed**2) / (2 * spread)))


def bootstrap_p(observed: Values, spread: Values) -> Values:
    """Compute two-sided p-values of the paired bootstrap for every pair of rows.

    A difference is divided by its bootstrap standard error (Efron and Tibshirani 1993), which, unlike counting
    resamples, still distinguishes small p-values.

    Args:
        observed: Metric of each row, not a mean over images, float64 [rows].
        spread: The same metric for resamples of the images that all rows share, float64 [resamples, rows].

    Returns:
        The p-values, float64 [rows, rows], symmetric, with 1 on the diagonal.
    """
    difference = np.abs(observed[:, None] - observed)
    covariance = np.atleast_2d(np.cov(spread, rowvar=False))
    variance = np.diag(covariance)
    error = np.sqrt(np.maximum(0.0, variance[:, None] + variance - 2 * covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(error > 1e-12, 2 * ndtr(-difference / error), np.where(difference > 0, 0.0, 1.0))
    return np.asarray(p)


def bootstrap_means(values: Values) -> Values:
    """Compute the mean of every row for bootstrap resamples of the images.

    Args:
        values: Value of each image for each row, float64 [n, rows].

    Returns:
        The means, float64 [resamples, rows].
    """
    return np.concatenate([part @ values for part in iterate_bootstrap_weights(len(values))]) / max(1, len(values))


def mean_difference_intervals(values: Values) -> tuple[Values, Values]:
    """Compute 95 % bootstrap intervals of the differences of means, row minus column.

    The intervals are percentiles of paired resamples with two images added, one favouring each row, each present a
    random number of times with mean one half (Agresti and Min 2005). Without them, rows that differ on a few images
    only would get an interval that is too narrow.

    Args:
        values: Value of each image for each row, float64 [n, rows].

    Returns:
        Lower and upper ends, float64 [rows, rows] each.
    """
    n, spread = len(values), bootstrap_means(values)
    added = np.random.default_rng(1).poisson(0.5, (2, len(spread)))
    return _compute_percentiles(spread * n / (n + 2), (added[0] - added[1]) / (n + 2))


def difference_intervals(spread: Values) -> tuple[Values, Values]:
    """Compute 95 % percentile intervals of differences of a metric, row minus column.

    Args:
        spread: Metric of each row for resamples that all rows share, float64 [resamples, rows].

    Returns:
        Lower and upper ends, float64 [rows, rows] each.
    """
    return _compute_percentiles(spread, np.zeros(len(spread)))


def _compute_percentiles(spread: Values, added: Values) -> tuple[Values, Values]:
    rows = spread.shape[1]
    low, high = np.zeros((rows, rows)), np.zeros((rows, rows))
    for row in range(rows):
        drawn = spread[:, [row]] - spread[:, row + 1 :] + added[:, None]
        low[row, row + 1 :], high[row, row + 1 :] = np.percentile(drawn, [2.5, 97.5], axis=0)
        low[row + 1 :, row], high[row + 1 :, row] = -high[row, row + 1 :], -low[row, row + 1 :]
    return low, high


def correct_holm(p: Values) -> Values:
    """Correct p-values for multiple tests with Holm's method.

    The chance of any false alarm among all tests is then at most the level of a single test (Holm 1979).

    Args:
        p: p-values, float64 [tests]; NaN where there is no test, which stays NaN and does not count.

    Returns:
        The corrected p-values, float64 [tests], in the same order.
    """
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    corrected = p.astype(np.float64)
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return corrected


def smallest_difference(half: float, tests: int = 1) -> float:
    """Compute the smallest difference that is significant at 5 % after correction for several tests.

    The correction is for the strictest of the tests.

    Args:
        half: Half the width of the 95 % confidence interval of such a difference.
        tests: Number of tests.

    Returns:
        The difference, in the unit of `half`.
    """
    return float(half * -ndtri(ALPHA / (2 * max(1, tests))) / Z_95)


def _make_symmetric(pairs: Values, rows: int) -> Values:
    matrix = np.ones((rows, rows))
    one, other = np.triu_indices(rows, 1)
    matrix[one, other] = matrix[other, one] = pairs
    return matrix
