"""Differences of two proportions, with a test and a 95 % interval that agree: both are one distribution.

For the lower end one image more is thought of that only the second of the two has right, for the upper end one that
only the first has, and all images are weighed at random, as in `intervals`. The chance that the difference is then
below 0 is exactly the one-sided p-value of McNemar's exact test where both answered the same images (the beta
distribution at one half is the sum of binomial chances), and of Fisher's exact test where they did not (Altham 1969).
So the interval leaves out 0 where, and only where, p is below 0.05.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from budwood.evaluation.beta import beta_quantile
from budwood.evaluation.intervals import TAIL, Metric, Values

QUANTILES: Final = 64  # at which the other distribution is looked at
HALVINGS: Final = 24  # of the range in which an end lies


def paired_difference_interval(wins: Values, losses: Values, n: int) -> tuple[Values, Values]:
    """Compute 95 % intervals of differences of two proportions of the same images, row minus other.

    Args:
        wins: Number of images that only the row has right, float64 of any shape.
        losses: Number of images that only the other has right, float64 of the same shape.
        n: Number of all images, 1 or more.

    Returns:
        Lower and upper ends, float64, from -1 to 1. 0 lies outside where the p-value of McNemar's exact test is below
        0.05, and nowhere else.
    """
    pairs = np.stack([np.ravel(wins), np.ravel(losses)], axis=1)
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    ends = _find_paired_ends(both[:, 0], both[:, 1], n)
    place = {(one, other): end for (one, other), end in zip(both.tolist(), ends.tolist(), strict=True)}
    low = np.array([place[one, other] for one, other in pairs.tolist()])
    high = np.array([-place[other, one] for one, other in pairs.tolist()])
    return low.reshape(np.shape(wins)), high.reshape(np.shape(wins))


def _find_paired_ends(wins: Values, losses: Values, n: int) -> Values:
    """The lower ends: where the difference is below with a chance of TAIL, [pairs]."""
    from scipy.special import betainc

    discordant = wins + losses
    share = beta_quantile(_middles()[:, None], discordant + 1, n - discordant)  # of images on which they differ
    low, high = -np.ones(len(wins)), np.ones(len(wins))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        half = np.clip((1 + middle / share) / 2, 0.0, 1.0)
        below = betainc(np.maximum(wins, 1e-12), losses + 1, half).mean(axis=0)
        low, high = np.where(below < TAIL, middle, low), np.where(below < TAIL, high, middle)
    return np.asarray(np.where(wins > 0, low, -beta_quantile(1 - TAIL, discordant + 1, n - discordant)))


def fisher_test(count: int, n: int, other_count: int, other_n: int) -> tuple[float, float, float]:
    """Compare two proportions of different images: Fisher's exact test, and the 95 % interval that agrees with it.

    The two-sided p-value is twice the smaller one-sided one (the central test, Fay 2010).

    Args:
        count: Number of images of the first proportion that count.
        n: Number of its images, 1 or more.
        other_count: Number of images of the second proportion that count.
        other_n: Number of its images, 1 or more.

    Returns:
        The p-value, and the lower and upper end of the difference, first minus second. 0 lies outside where the
        p-value is below 0.05, and nowhere else.
    """
    less, greater = _fisher_tails(count, n, other_count, other_n)
    low = _find_unpaired_end(count, n, other_count, other_n, greater < TAIL)
    high = -_find_unpaired_end(other_count, other_n, count, n, less < TAIL)
    return min(1.0, 2 * min(less, greater)), low, high


def difference_interval(one: Metric, other: Metric) -> tuple[float, float, float]:
    """Compute the difference of two proportions of different images, with the 95 % interval of `fisher_test`.

    Args:
        one: Proportion with its n, as from `proportion_interval`; its value must not be None.
        other: Proportion that is subtracted, likewise.

    Returns:
        The difference, its lower end and its upper end; the difference three times if a proportion has no interval.
    """
    p, q = one.value or 0.0, other.value or 0.0
    if one.low is None or other.low is None or not one.n or not other.n:
        return p - q, p - q, p - q
    _, low, high = fisher_test(round(p * one.n), one.n, round(q * other.n), other.n)
    return p - q, low, high


def _fisher_tails(count: int, n: int, other_count: int, other_n: int) -> tuple[float, float]:
    """The chances of as few in the first as there are, and of as many, if the proportions are equal."""
    from scipy.special import gammaln

    total = count + other_count
    possible = np.arange(max(0, total - other_n), min(n, total) + 1)
    logs = -sum(gammaln(part + 1) for part in (possible, n - possible, total - possible, other_n - total + possible))
    chances = np.exp(logs - logs.max())
    chances /= chances.sum()
    return float(chances[possible <= count].sum()), float(chances[possible >= count].sum())


def _find_unpaired_end(count: int, n: int, other_count: int, other_n: int, above: bool) -> float:
    """The lower end, which is known to be above 0 or not."""
    from scipy.special import betainc

    a, b = np.float64(other_count + 1), np.float64(other_n - other_count)
    if count == 0:
        return -float(beta_quantile(1 - TAIL, a, b))
    other = beta_quantile(_middles(), a, b)
    low, high = (0.0, 1.0) if above else (-1.0, 0.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = betainc(count, n - count + 1, np.clip(middle + other, 0.0, 1.0)).mean()
        low, high = (middle, high) if below < TAIL else (low, middle)
    return high if above else low


def _middles() -> Values:
    """The middles of QUANTILES equal parts of 0 to 1."""
    return (np.arange(QUANTILES) + 0.5) / QUANTILES
