"""Which images to label next: those that a network is unsure of, and that are unlike each other and the labelled ones.

Every image has a weight, its uncertainty, and a place, its features. Measured on photographs of scenes, the most
uncertain images alone, or the farthest ones alone, taught a head no more than images drawn by chance.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
BLOCK: Final = 1024  # images whose distances are computed at a time
STEPS: Final = 20  # of k-means


def measure_uncertainty(probabilities: Floats, multilabel: bool = False) -> Floats:
    """Measure how unsure a network is of each image: 1 minus the margin of the two likeliest answers.

    Args:
        probabilities: Calibrated, float64 [n, classes].
        multilabel: Whether each class is a question of its own; then the least sure class counts.

    Returns:
        0 (sure) to 1 (two answers are equally likely), float64 [n].
    """
    if multilabel:
        return np.asarray(1 - np.abs(2 * probabilities - 1).min(axis=1))
    ranked = np.partition(probabilities, -2, axis=1)
    return np.asarray(1 - (ranked[:, -1] - ranked[:, -2]))


def measure_nearest(values: Floats, others: Floats) -> Floats:
    """Compute the squared distance of each image to the nearest of others.

    Args:
        values: float64 [n, features].
        others: float64 [m, features].

    Returns:
        float64 [n]; infinite where there are no others.
    """
    nearest = np.full(len(values), np.inf)
    norms = (others**2).sum(axis=1)
    for first in range(0, len(values) if len(others) else 0, BLOCK):
        part = values[first : first + BLOCK]
        squares = (part**2).sum(axis=1)[:, None] - 2 * part @ others.T + norms
        nearest[first : first + BLOCK] = np.maximum(squares.min(axis=1), 0.0)
    return nearest


def select_images(
    values: Floats, weights: Floats, labelled: Floats, groups: Numbers, count: int, seed: int = 0
) -> Numbers:
    """Select images to label: the middles of clusters that are drawn to what the network is unsure of.

    Clusters are found by k-means in which every image weighs as much as its uncertainty (Zhdanov 2019), begun with
    weighted k-means++ among what is far from the labelled images. Of each cluster the image nearest to its mean is
    taken, so that no outlier is.

    Args:
        values: Features of the images, float64 [n, features].
        weights: Weight of each image, 0 or more, float64 [n].
        labelled: Features of labelled images, float64 [m, features].
        groups: Equal for images that are copies of each other, of which the one that weighs most may be selected,
            int64 [n].
        count: Number of images to select.
        seed: Seed of the first middles.

    Returns:
        Rows of the selected images, the largest weight first, int64 [count], or fewer where there are fewer groups.
    """
    order = np.argsort(-weights, kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    rows = np.sort(order[first])
    if len(rows) > count:
        part, weight = values[rows], weights[rows] + 1e-9
        means = part[draw_spread(part, weight, labelled, count, np.random.default_rng(seed))]
        chosen = _take_middles(part, *_move_means(part, weight, means))
        rest = np.setdiff1d(np.arange(len(rows)), chosen)
        rest = rest[np.argsort(-weight[rest], kind="stable")]
        rows = rows[np.concatenate([chosen, rest[: count - len(chosen)]])]
    return np.asarray(rows[np.argsort(-weights[rows], kind="stable")], np.int64)


def draw_spread(values: Floats, weights: Floats, labelled: Floats, count: int, random: np.random.Generator) -> Numbers:
    """Draw images by weighted k-means++: each by its weight times its squared distance to all before it.

    Args:
        values: Features, float64 [n, features], n >= count.
        weights: Weight of each image, above 0, float64 [n].
        labelled: Features of images that are there already, float64 [m, features].
        count: Number of images.
        random: Where they are drawn from.

    Returns:
        Different rows, int64 [count].
    """
    nearest = measure_nearest(values, labelled) if len(labelled) else np.ones(len(values))
    chosen: list[int] = []
    free = np.ones(len(values), bool)
    for _ in range(count):
        chance = np.where(free, weights * nearest, 0.0)
        if chance.sum() <= 0:
            chance = np.where(free, weights, 0.0)
        row = int(np.searchsorted(np.cumsum(chance), random.random() * chance.sum(), side="right"))
        row = min(row, int(np.flatnonzero(chance)[-1]))
        chosen.append(row)
        free[row] = False
        distance = ((values - values[row]) ** 2).sum(axis=1)
        nearest = distance if len(chosen) == 1 and not len(labelled) else np.minimum(nearest, distance)
    return np.array(chosen, np.int64)


def _move_means(values: Floats, weights: Floats, means: Floats) -> tuple[Floats, Numbers]:
    """Weighted k-means: the means, and the cluster of each image."""
    for _ in range(STEPS):
        cluster = _assign(values, means)
        mass = np.bincount(cluster, weights=weights, minlength=len(means))
        moved = means.copy()
        for number in np.flatnonzero(mass > 0).tolist():
            own = cluster == number
            moved[number] = weights[own] @ values[own] / mass[number]
        if np.allclose(moved, means, rtol=0, atol=1e-9):
            break
        means = moved
    return means, _assign(values, means)


def _assign(values: Floats, means: Floats) -> Numbers:
    norms, cluster = (means**2).sum(axis=1), np.empty(len(values), np.int64)
    for first in range(0, len(values), BLOCK):
        cluster[first : first + BLOCK] = (norms - 2 * values[first : first + BLOCK] @ means.T).argmin(axis=1)
    return cluster


def _take_middles(values: Floats, means: Floats, cluster: Numbers) -> Numbers:
    """The image of each cluster that is nearest to its mean; empty clusters have none."""
    distance = ((values - means[cluster]) ** 2).sum(axis=1)
    order = np.lexsort((distance, cluster))
    return np.asarray(order[np.unique(cluster[order], return_index=True)[1]], np.int64)
