"""Whether two samples of images are alike: kind of images, confidence, and mix of classes, each a test and a size.

Images are compared only with images that are called the same class, so that another mix of classes is not taken for
another kind of images. Every p-value is of a permutation test: (1 + permutations that are as extreme) / (1 + all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import TAIL

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
PERMUTATIONS: Final = 1999
FOLDS: Final = 5
RIDGE: Final = 0.01  # of kernel ridge regression, in units of the number of images
BLOCK: Final = 250  # permutations that are computed at a time
RESAMPLES: Final = 500
_SLIGHT: Final = 1e-12  # by which equal statistics may differ in rounding


@dataclass(frozen=True)
class ShiftTest:
    """One comparison of new images with the reference.

    Attributes:
        p: p-value, from 1 / (1 + permutations) to 1; NaN where there is nothing to compare.
        size: Size of the change: 0 for none, 1 where the samples have nothing in common.
        low: Lower end of the 95 % bootstrap interval of the size.
        high: Its upper end.
    """

    p: float
    size: float
    low: float
    high: float


def measure_kernel(values: Floats) -> Floats:
    """Compute the Gaussian kernel of all pairs, with the median of their distances as bandwidth.

    The kernel is exp(-d^2 / m), where m is the median of the squared distances d^2 of different rows (Gretton et al.
    2012 use the median heuristic).

    Args:
        values: float64 [n, features], n >= 2.

    Returns:
        float64 [n, n], 0 to 1, with ones on the diagonal.
    """
    centred = values - values.mean(axis=0)
    norms = (centred**2).sum(axis=1)
    squares = np.maximum(norms[:, None] + norms - 2 * centred @ centred.T, 0.0)
    np.fill_diagonal(squares, 0.0)
    median = float(np.median(squares[np.triu_indices(len(values), 1)]))
    return np.asarray(np.exp(-squares / (median or 1.0)))


def weigh_alike(is_new: Flags, strata: Numbers) -> Floats:
    """Weigh images so that both samples have the same mix of strata.

    A stratum with a reference and b new images counts a * b / (a + b), which is 0 where one of them has none.

    Args:
        is_new: Whether each image is new, bool [n].
        strata: Stratum of each image, from 0, int64 [n].

    Returns:
        Positive weights of new images, which add up to 1, and negative ones of the reference, which add up to -1,
        float64 [n]; all 0 where no stratum has both.
    """
    count = int(strata.max()) + 1
    new = np.bincount(strata[is_new], minlength=count).astype(np.float64)
    old = np.bincount(strata[~is_new], minlength=count).astype(np.float64)
    both = np.divide(new * old, new + old, out=np.zeros(count), where=(new + old) > 0)
    share = both / max(both.sum(), 1e-300)
    each = np.where(is_new, share[strata] / np.maximum(new, 1)[strata], -share[strata] / np.maximum(old, 1)[strata])
    return np.asarray(each)


def compute_mmd(kernel: Floats, weights: Floats) -> float:
    """Compute the squared maximum mean discrepancy of weighted samples (Gretton et al. 2012).

    Args:
        kernel: float64 [n, n].
        weights: Of new images positive, of the reference negative, each adding up to 1 and -1, float64 [n].

    Returns:
        The squared distance of the mean embeddings, 0 or more but for rounding.
    """
    return float(weights @ kernel @ weights)


def permute_within(is_new: Flags, strata: Numbers, count: int, random: np.random.Generator) -> Flags:
    """Draw which images are called new, with the same number in each stratum.

    Args:
        is_new: Whether each image is new, bool [n].
        strata: Stratum of each image, from 0, int64 [n].
        count: Number of permutations.
        random: Where they are drawn from.

    Returns:
        bool [count, n].
    """
    drawn = np.empty((count, len(is_new)), bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        order = random.random((count, len(rows))).argsort(axis=1)
        drawn[:, rows] = is_new[rows][order]
    return drawn


def permutation_p(observed: float, permuted: Floats) -> float:
    """Return the p-value of a statistic that is large where samples differ (Phipson and Smyth 2010).

    Args:
        observed: The statistic.
        permuted: That of each permutation, float64 [permutations].

    Returns:
        (1 + number of permutations as large) / (1 + permutations).
    """
    near = _SLIGHT * max(1.0, abs(observed))
    return float((1 + np.count_nonzero(permuted >= observed - near)) / (1 + len(permuted)))


def compare_features(values: Floats, is_new: Flags, strata: Numbers, seed: int = 0) -> ShiftTest:
    """Test whether new images have other features than reference images that are called the same class.

    The statistic is the maximum mean discrepancy with the mix of classes made equal. The size is 2 * AUROC - 1 of a
    classifier that was trained to tell new from reference images, for images that it was not trained on (a classifier
    two-sample test: Lopez-Paz and Oquab 2017), within each class.

    Args:
        values: Features, float64 [n, features].
        is_new: Whether each image is new, bool [n].
        strata: Class that each is called, from 0, int64 [n].
        seed: Seed of the permutations and folds.

    Returns:
        The test.
    """
    weights = weigh_alike(is_new, strata)
    if not weights.any():
        return ShiftTest(np.nan, np.nan, np.nan, np.nan)
    random = np.random.default_rng(seed)
    kernel = measure_kernel(values)
    weight_of_new, weight_of_old = _weigh_each(is_new, strata)
    permuted = np.empty(PERMUTATIONS)
    for first in range(0, PERMUTATIONS, BLOCK):
        block = slice(first, min(first + BLOCK, PERMUTATIONS))
        drawn = permute_within(is_new, strata, block.stop - block.start, random)
        signed = np.where(drawn, weight_of_new, weight_of_old)
        permuted[block] = ((signed @ kernel) * signed).sum(axis=1)
    p = permutation_p(compute_mmd(kernel, weights), permuted)
    return _measure_size(p, score_newness(kernel, is_new, weights, random), is_new, strata, random)


def _weigh_each(is_new: Flags, strata: Numbers) -> tuple[Floats, Floats]:
    """The weight that each image has where it is called new, and where it is not: permutations keep the counts."""
    weights = weigh_alike(is_new, strata)
    of_new, of_old = np.zeros(len(strata)), np.zeros(len(strata))
    for stratum in np.unique(strata):
        rows = strata == stratum
        if (rows & is_new).any() and (rows & ~is_new).any():
            of_new[rows], of_old[rows] = weights[rows & is_new][0], weights[rows & ~is_new][0]
    return of_new, of_old


def score_newness(kernel: Floats, is_new: Flags, weights: Floats, random: np.random.Generator) -> Floats:
    """Score how new each image looks to kernel ridge regression that was fitted without it, in folds.

    Args:
        kernel: float64 [n, n].
        is_new: Whether each image is new, bool [n].
        weights: Weights of `weigh_alike`, whose absolute values weigh the images in the fit, float64 [n].
        random: Where folds are drawn from.

    Returns:
        Scores, larger for newer images, float64 [n].
    """
    fold, scores = np.empty(len(is_new), np.int64), np.zeros(len(is_new))
    for part in (is_new, ~is_new):
        fold[part] = random.permutation(np.count_nonzero(part)) % FOLDS
    target, weight = np.where(is_new, 1.0, -1.0), np.abs(weights)
    for number in range(FOLDS):
        held, fitted = np.flatnonzero(fold == number), np.flatnonzero((fold != number) & (weight > 0))
        if not len(held) or not len(fitted):
            continue
        root = np.sqrt(weight[fitted] / weight[fitted].mean())
        inner = root[:, None] * kernel[np.ix_(fitted, fitted)] * root + RIDGE * len(fitted) * np.eye(len(fitted))
        scores[held] = kernel[np.ix_(held, fitted)] @ (root * np.linalg.solve(inner, root * target[fitted]))
    return scores


def compare_scores(scores: Floats, is_new: Flags, strata: Numbers, seed: int = 0) -> ShiftTest:
    """Test whether new images have other scores than reference images of the same stratum (van Elteren 1960).

    The statistic is the AUROC within strata, in both directions. The size is abs(2 * AUROC - 1).

    Args:
        scores: Score of each image, float64 [n].
        is_new: Whether each image is new, bool [n].
        strata: Stratum of each image, from 0, int64 [n].
        seed: Seed of the permutations.

    Returns:
        The test.
    """
    weights = weigh_alike(is_new, strata)
    if not weights.any():
        return ShiftTest(np.nan, np.nan, np.nan, np.nan)
    random = np.random.default_rng(seed)
    ranks = _rank_within(scores, strata)
    of_new, of_old = _weigh_each(is_new, strata)
    permuted = np.empty(PERMUTATIONS)
    for first in range(0, PERMUTATIONS, BLOCK):
        block = slice(first, min(first + BLOCK, PERMUTATIONS))
        drawn = permute_within(is_new, strata, block.stop - block.start, random)
        permuted[block] = np.abs(np.where(drawn, of_new, of_old) @ ranks)
    p = permutation_p(abs(float(weights @ ranks)), permuted)
    auroc = auroc_within(scores, is_new, strata, np.ones((1, len(scores))))
    sign = 1.0 if auroc[0] >= 0.5 else -1.0
    return _measure_size(p, sign * scores, is_new, strata, random)


def _rank_within(scores: Floats, strata: Numbers) -> Floats:
    """Mid-ranks within each stratum, divided by its images."""
    ranks = np.empty(len(scores))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        _, place, count = np.unique(scores[rows], return_inverse=True, return_counts=True)
        middle = np.cumsum(count) - (count - 1) / 2
        ranks[rows] = middle[place] / len(rows)
    return ranks


def auroc_within(scores: Floats, is_new: Flags, strata: Numbers, counts: Floats) -> Floats:
    """Compute the chance that a new image scores higher than a reference image of the same stratum; ties count half.

    Args:
        scores: float64 [n].
        is_new: Whether each image is new, bool [n].
        strata: Stratum of each image, from 0, int64 [n].
        counts: How often each image counts in each resample, float64 [resamples, n].

    Returns:
        float64 [resamples], the strata weighed by a * b / (a + b) as in `weigh_alike`; 0.5 where none has both.
    """
    total, mass = np.zeros(len(counts)), np.zeros(len(counts))
    for stratum in np.unique(strata):
        new, old = (np.flatnonzero((strata == stratum) & part) for part in (is_new, ~is_new))
        if not len(new) or not len(old):
            continue
        above = (scores[new][:, None] > scores[old]) + 0.5 * (scores[new][:, None] == scores[old])
        b, a = counts[:, new].sum(axis=1), counts[:, old].sum(axis=1)
        wins = ((counts[:, new] @ above) * counts[:, old]).sum(axis=1)
        share = np.divide(a * b, a + b, out=np.zeros(len(counts)), where=(a + b) > 0)
        total += share * np.divide(wins, a * b, out=np.full(len(counts), 0.5), where=(a * b) > 0)
        mass += share
    return np.asarray(np.divide(total, mass, out=np.full(len(counts), 0.5), where=mass > 0))


def _measure_size(p: float, scores: Floats, is_new: Flags, strata: Numbers, random: np.random.Generator) -> ShiftTest:
    counts = np.ones((1 + RESAMPLES, len(scores)))
    for part in (np.flatnonzero(is_new), np.flatnonzero(~is_new)):
        counts[1:, part] = random.multinomial(len(part), np.full(len(part), 1 / len(part)), RESAMPLES)
    sizes = np.maximum(0.0, 2 * auroc_within(scores, is_new, strata, counts) - 1)
    low, high = np.quantile(sizes[1:], (TAIL, 1 - TAIL))
    return ShiftTest(p, float(sizes[0]), min(float(low), float(sizes[0])), max(float(high), float(sizes[0])))


def compare_mix(is_new: Flags, strata: Numbers, seed: int = 0) -> ShiftTest:
    """Test whether new images are called other classes than the reference, in other shares.

    The statistic is chi-square of the table of counts; permutations of it are drawn as tables with the same margins.
    The size is the total variation distance: the share of the images that would have to be of another class.

    Args:
        is_new: Whether each image is new, bool [n].
        strata: Class that each is called, from 0, int64 [n].
        seed: Seed of the permutations.

    Returns:
        The test.
    """
    random = np.random.default_rng(seed)
    together = np.bincount(strata)
    new = np.bincount(strata[is_new], minlength=len(together))
    n, total = int(is_new.sum()), len(is_new)
    expected = np.maximum(together * n / total, 1e-300)

    def chi_square(counts: NDArray[np.int64]) -> Floats:
        return np.asarray(((counts - expected) ** 2 / expected * (together > 0)).sum(axis=-1))

    drawn = random.multivariate_hypergeometric(together, n, PERMUTATIONS, method="marginals")
    p = permutation_p(float(chi_square(new)), chi_square(drawn))
    shares, before = new / n, (together - new) / (total - n)
    size = float(np.abs(shares - before).sum() / 2)
    resampled = random.multinomial(n, shares, RESAMPLES) / n - random.multinomial(total - n, before, RESAMPLES) / (
        total - n
    )
    low, high = np.quantile(np.abs(resampled).sum(axis=1) / 2, (TAIL, 1 - TAIL))
    return ShiftTest(p, size, min(size, float(low)), max(size, float(high)))
