"""95 % intervals of means over classes: each class has an exact interval, and their ends are put together.

The ends are combined by their distances from the figures (MOVER: Zou and Donner 2008), which add up as the standard
deviations of sums do. A class with few images borrows from the others: alone, a class of one image would be taken for
sure to be all right or all wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from budwood.evaluation.intervals import Z_95, Metric, Values, clopper_pearson

BORROWED: Final = 10.0  # images of the mean over classes that a class counts beside its own


@dataclass(frozen=True)
class ClassFigures:
    """A figure of each class that has an image, with its interval, float64 [classes] each.

    Attributes:
        value: The figures, from 0 to 1.
        low: Lower ends.
        high: Upper ends.
        n: Number of images that each is a proportion of.
    """

    value: Values
    low: Values
    high: Values
    n: Values


def recall_figures(correct: Values, support: Values) -> ClassFigures:
    """Compute recalls with their exact intervals.

    Args:
        correct: True positives of each class, float64 [classes].
        support: Images of each class, float64 [classes]; none without one.

    Returns:
        The recalls.
    """
    low, high = clopper_pearson(correct, support)
    return ClassFigures(correct / support, low, high, support)


def f1_figures(correct: Values, support: Values, predicted: Values) -> ClassFigures:
    """Compute F1 scores with their exact intervals.

    F1 is 2 J / (1 + J), where J (Jaccard's index) is the proportion of true positives among the images that are of the
    class or are called it. So the ends are those of the interval of that proportion.

    Args:
        correct: True positives of each class, float64 [classes].
        support: Images of each class, float64 [classes].
        predicted: Images that are called each class, float64 [classes]; either number is above 0.

    Returns:
        The F1 scores.
    """
    n = support + predicted - correct
    value, low, high = (2 * j / (1 + j) for j in (correct / n, *clopper_pearson(correct, n)))
    return ClassFigures(value, low, high, n)


def class_mean_interval(figures: ClassFigures, ratio: float, images: int) -> Metric:
    """Compute the mean of a figure over classes with its 95 % confidence interval.

    Args:
        figures: The figure of each class that has an image.
        ratio: Variance of the sum of the figures, divided by the sum of their variances: 1 where they are independent.
        images: Number of images.

    Returns:
        `value`, `low` and `high` (each from 0 to 1, None where there is no class) and `n`.
    """
    classes = len(figures.value)
    if classes == 0:
        return Metric(None, None, None, images)
    value = float(figures.value.mean())
    pooled = Z_95**2 * value * (1 - value) / figures.n
    down = _combine(figures.value - figures.low, pooled, figures.n, ratio)
    up = _combine(figures.high - figures.value, pooled, figures.n, ratio)
    low, high = value - down / classes, value + up / classes
    if value in (0.0, 1.0):  # nothing tells the classes apart: the mean is one proportion of weighted images
        effective = np.float64(classes**2 / np.sum(1 / figures.n))
        one = clopper_pearson(effective * value, effective)
        low, high = min(low, float(one[0])), max(high, float(one[1]))
    return Metric(value, max(0.0, low), min(1.0, high), images)


def _combine(distances: Values, pooled: Values, n: Values, ratio: float) -> float:
    """The distance of an end of the sum, at most the sum of the distances."""
    own = np.square(distances)
    mixed = np.maximum(own, (n * own + BORROWED * pooled) / (n + BORROWED))
    return float(min(np.sqrt(ratio * mixed.sum()), np.sqrt(mixed).sum()))


def variance_ratio(influences: Iterable[Values], n: Values, most: int) -> float:
    """Estimate how the figures of classes vary together, from what each image adds to them.

    An image that is wrong harms two classes at once where an image has one label, and any number where it has several.
    One wrong image is added that harms as many as it can, as there may be none to learn from.

    Args:
        influences: What each image adds to the figure of each class, float64 [images, classes], in parts.
        n: Number of images that the figure of each class is a proportion of, float64 [classes].
        most: The most classes that an image can concern.

    Returns:
        The variance of the sum of the figures, divided by the sum of their variances: from 0 to `most`.
    """
    added = float(np.mean(1 / np.square(n + 1)))
    together, alone = most * added, added
    for influence in influences:
        together += float(np.square(influence.sum(axis=1)).sum())
        alone += float(np.square(influence).sum())
    return together / alone
