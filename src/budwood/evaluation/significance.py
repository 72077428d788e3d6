"""How sure a difference between rows is: pure functions of arrays, all pairs of a table at once.

Values are float64 [n, rows], one for each image and row: whether it is right, its loss, or the mean of either over the
seeds of the row. Everything random has a fixed seed. The same images stand behind every row, so all tests are paired.

Each test has its interval of the difference, which leaves out 0 where, and only where, p is below ALPHA: `differences`
has that of McNemar's test, `permutation_intervals` inverts the permutation test, and `compare_resampled` takes both
from one standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Z_95, Values, bounded_mean_ends

ALPHA: Final = 0.05
FLIPS: Final = 10_000  # sign flips of a test, at least
FLIPS_A_PAIR: Final = 40  # and for each pair of a table, so that a small p-value can survive Holm's correction
ENOUGH: Final = 50  # sign vectors of FLIPS as far from zero as what was observed: the pair is far from significant
PART: Final = 1000  # flips at a time
SLIGHT: Final = 1e-6  # how far an end is from 0 that the test puts beyond it, as a part of the difference
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
    from scipy.special import bdtr

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


def permutation_intervals(
    values: Values, p: Values, bound: float | None = None, seed: int = 0
) -> tuple[Values, Values]:
    """Compute the 95 % intervals of differences of means that invert the permutation test, row minus column.

    A difference is in the interval if the test does not reject it, subtracted from every image. The ends are quantiles
    of the means over random subsets of the images (Hartigan 1969): a sign vector is as far from zero as what was
    observed where the mean over the images that it flips is at most the difference. Of fewer than six images no
    difference can be rejected, and there is no interval.

    Where values have a bound, the ends are also at least as far out as those of `bounded_mean_ends`, as images may
    differ of which there is none yet; the end between 0 and the difference only where that agrees with the test.

    Args:
        values: Value of each image for each row, float64 [n, rows].
        p: p-values of `paired_permutation_test`, float64 [rows, rows].
        bound: The largest difference that an image can have; None where there is no bound.
        seed: Seed of the sign vectors.

    Returns:
        Lower and upper ends, float64 [rows, rows] each; NaN where there is no interval. 0 lies outside where p is below
        ALPHA, and nowhere else.
    """
    n, rows = values.shape
    one, other = np.triu_indices(rows, 1)
    difference = values.mean(axis=0)[one] - values.mean(axis=0)[other]
    low, high = _invert_permutations(values, one, other, seed)
    if bound is not None:
        products = values.T @ values
        squares = np.diag(products)[one] + np.diag(products)[other] - 2 * products[one, other]
        least, most = bounded_mean_ends(difference * n, squares, n, -bound, bound)
        low = np.where((low > 0) & (least <= 0), low, np.minimum(np.nan_to_num(low, neginf=-bound), least))
        high = np.where((high < 0) & (most >= 0), high, np.maximum(np.nan_to_num(high, posinf=bound), most))
    low, high = _agree(difference, p[one, other], low, high)
    return _make_antisymmetric(low, high, rows)


def _invert_permutations(
    values: Values, one: NDArray[np.intp], other: NDArray[np.intp], seed: int
) -> tuple[Values, Values]:
    """The ends of each pair's interval: minus and plus infinity where the test rejects nothing, [pairs] each."""
    n = len(values)
    drawn = np.random.default_rng(seed).integers(0, 256, (FLIPS, -(-n // 8)), np.uint8)
    chosen = np.unpackbits(drawn, axis=1, count=n).astype(np.float32)
    centred = values - values.mean(axis=1, keepdims=True)
    sums, total, size = chosen @ centred.astype(np.float32), centred.sum(axis=0), chosen.sum(axis=1)
    place = int(np.ceil(ALPHA * (FLIPS + 1) - 1)) - 1  # of a subset mean, so that as few are beyond as p allows
    empty = np.concatenate([size, n - size]) == 0
    count = np.where(empty, 1, np.concatenate([size, n - size]))
    low, high = np.empty(len(one)), np.empty(len(one))
    for pair, (row, against) in enumerate(zip(one.tolist(), other.tolist(), strict=True)):
        part = sums[:, row] - sums[:, against]
        means = np.concatenate([part, total[row] - total[against] - part]) / count
        low[pair] = np.partition(np.where(empty, -np.inf, means), place)[place]
        high[pair] = np.partition(np.where(empty, np.inf, means), len(means) - 1 - place)[len(means) - 1 - place]
    return low, high


def compare_resampled(
    observed: Values, spread: Values, least_p: Values | None = None, unit: float = 0.0, bound: float = np.inf
) -> tuple[Values, Values, Values]:
    """Compare every pair of rows by a metric that is no mean over images: p-values and 95 % intervals that agree.

    A difference is divided by its bootstrap standard error (Efron and Tibshirani 1993), which, unlike counting
    resamples, still distinguishes small p-values; the interval has the same standard error. As resamples repeat only
    images that there are, the error has the part of one image more, and p is at least what a permutation test can show.

    Args:
        observed: Metric of each row, not a mean over images, float64 [rows].
        spread: The same metric for resamples of the images that all rows share, float64 [resamples, rows].
        least_p: The smallest p-value that exchanging the answers of two rows can show, float64 [rows, rows].
        unit: How much one image more may change the difference.
        bound: The largest difference that there can be.

    Returns:
        The p-values, symmetric with 1 on the diagonal, and the lower and upper ends of the differences, row minus
        column: float64 [rows, rows] each. 0 lies outside where p is below ALPHA, and nowhere else.
    """
    from scipy.special import ndtr

    difference = observed[:, None] - observed
    covariance = np.atleast_2d(np.cov(spread, rowvar=False))
    variance = np.diag(covariance)
    error = np.sqrt(np.maximum(0.0, variance[:, None] + variance - 2 * covariance) + unit**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(error > 1e-12, 2 * ndtr(-np.abs(difference) / error), np.where(difference != 0, 0.0, 1.0))
    np.fill_diagonal(p, 1.0)
    p = p if least_p is None else np.maximum(p, least_p)
    low, high = difference - Z_95 * error, difference + Z_95 * error
    return p, *_agree(difference, p, np.maximum(low, -bound), np.minimum(high, bound))


def smallest_permutation_p(answers: Sequence[NDArray[Any]]) -> Values:
    """Compute the smallest two-sided p-value that exchanging the answers of two rows can show.

    Where the rows differ on m images, there are 2 ** m ways to exchange them, and two of these are as extreme as any.

    Args:
        answers: What each row says of each image, [n, ...]; rows of different shapes differ on every image.

    Returns:
        The p-values, float64 [rows, rows], symmetric.
    """
    found = np.ones((len(answers), len(answers)))
    for (one, first), (other, second) in combinations(enumerate(answers), 2):
        if first.shape == second.shape:
            differing = int(np.any(np.reshape(first != second, (len(first), -1)), axis=1).sum())
        else:
            differing = len(first)
        found[one, other] = found[other, one] = min(1.0, 2.0 ** (1 - differing))
    return found


def _agree(difference: Values, p: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """The ends, with 0 outside where p is below ALPHA and nowhere else; NaN where an end is infinite.

    Ends and p-values are of the same test, but rounded, or drawn from unequally many sign vectors.
    """
    told = p < ALPHA
    slight = SLIGHT * difference
    low = np.where(told & (difference > 0), np.maximum(low, slight), np.where(told, low, np.minimum(low, 0.0)))
    high = np.where(told & (difference < 0), np.minimum(high, slight), np.where(told, high, np.maximum(high, 0.0)))
    known = np.isfinite(low) & np.isfinite(high)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def _make_antisymmetric(low: Values, high: Values, rows: int) -> tuple[Values, Values]:
    """Matrices of ends, row minus column, from those of the pairs; 0 on the diagonal."""
    lower, upper = np.zeros((rows, rows)), np.zeros((rows, rows))
    one, other = np.triu_indices(rows, 1)
    lower[one, other], upper[one, other] = low, high
    lower[other, one], upper[other, one] = -high, -low
    return lower, upper


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
    from scipy.special import ndtri

    return float(half * -ndtri(ALPHA / (2 * max(1, tests))) / Z_95)


def _make_symmetric(pairs: Values, rows: int) -> Values:
    matrix = np.ones((rows, rows))
    one, other = np.triu_indices(rows, 1)
    matrix[one, other] = matrix[other, one] = pairs
    return matrix
