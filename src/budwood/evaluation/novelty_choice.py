"""Which score tells strangers best: classes are left out in turn, and their validation images play the strangers.

    groups of classes -> what each method knows without them -> scores of all validation images -> area under the curve

A trained head has learned to answer with no class but the true one, so its own logits would tell a class that is only
struck out too well. Hence the energy is that of linear heads on the same features that never saw the class. Where the
network itself was trained, its features have seen all classes, which flatters every method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric
from budwood.evaluation.novelty import BLOCK, Features, Floats, NoveltyMethod, normalise
from budwood.evaluation.novelty_fitting import (
    KnownImages,
    choose_neighbour,
    compute_class_means,
    draw_evenly,
    shrink_covariance,
    whiten,
)
from budwood.evaluation.roc import mean_auroc_interval, rank_by_area

METHODS: Final[tuple[NoveltyMethod, ...]] = ("energy", "mahalanobis", "knn")  # the cheapest first
FALLBACK: Final[NoveltyMethod] = "knn"  # where no class can be left out
MOST_GROUPS: Final = 8
MOST_HEADS: Final = 500  # classes that the heads of all groups have together, about
MOST_DRAWN: Final = 1000  # images of either split that the choice is made on
HEAD_STEPS: Final = 20  # of a head that is fitted without some classes: more hardly changes what it tells


@dataclass(frozen=True)
class Choice:
    """The method that told strangers best.

    Attributes:
        method: Its name.
        auroc: Of each method, the mean area under the ROC curve with classes left out in turn; of those alone that
            could be compared.
    """

    method: NoveltyMethod
    auroc: dict[str, Metric]


@dataclass(frozen=True)
class _Trial:
    """One group of classes left out after another.

    `left` are the classes of each group, bool [groups, classes]; `kept` the training images without any of them, bool
    [training, groups].
    """

    training: KnownImages
    validation: KnownImages
    left: NDArray[np.bool_]
    kept: NDArray[np.bool_]


def choose_method(
    training: KnownImages, validation: KnownImages, methods: tuple[NoveltyMethod, ...] = METHODS
) -> Choice:
    """Choose the score that tells strangers best, on validation images of classes left out in turn.

    Known are the validation images without any class of the group, strangers those with no other class. Of two classes
    one is left, whose logit alone has no energy to compare; where images have several labels there are no classes
    within which to measure a covariance, and no label at all is an answer, so that only neighbours are compared.

    Args:
        training: Training images in an order that tells nothing, such as that of content ids.
        validation: Validation images in such an order.
        methods: The methods to choose from.

    Returns:
        The method with the largest mean area under the ROC curve; among equals the cheapest; `knn` where no group has
        both known images and strangers.
    """
    training = training.take(draw_evenly(training.labels, MOST_DRAWN))
    validation = validation.take(draw_evenly(validation.labels, MOST_DRAWN))
    left = group_classes(training.targets.shape[1])
    out, others = validation.targets @ left.T, validation.targets @ ~left.T
    trial = _Trial(training, validation, left, ~(training.targets @ left.T))
    usable = trial.kept.any(axis=0)
    areas = [
        (name, mean_auroc_interval(_score(name, trial), out & ~others & usable, ~out & usable))
        for name in METHODS
        if name in methods and name in list_comparable(training)
    ]
    compared = [(name, area) for name, area in areas if area.value is not None]
    best = next((name for name in rank_by_area(compared)), FALLBACK)
    return Choice(next(name for name in METHODS if name == best), dict(compared))


def list_comparable(training: KnownImages) -> tuple[NoveltyMethod, ...]:
    """Return the methods that can be compared on such data."""
    if training.multilabel:
        return ("knn",)
    return METHODS if training.targets.shape[1] > 2 else ("mahalanobis", "knn")


def group_classes(classes: int) -> NDArray[np.bool_]:
    """Divide classes into the groups that are left out in turn; neighbours in the list of classes are parted.

    Args:
        classes: Number of classes, at least 1.

    Returns:
        Which classes each group has, bool [groups, classes]: at most 8 groups, fewer of very many classes.
    """
    groups = max(1, min(classes, MOST_GROUPS, max(2, 1 + MOST_HEADS // classes)))
    return np.asarray(np.arange(classes)[None, :] % groups == np.arange(groups)[:, None])


def _score(method: NoveltyMethod, trial: _Trial) -> Floats:
    """The scores of the validation images by what a method knows without each group, float64 [validation, groups]."""
    if method == "energy":
        return _score_energy(trial)
    return _score_mahalanobis(trial) if method == "mahalanobis" else _score_neighbours(trial)


def _score_neighbours(trial: _Trial) -> Floats:
    """Minus the similarity to the k-th nearest image; it ranks as the distance does."""
    bank, rows = normalise(trial.training.features), normalise(trial.validation.features)
    scores = np.full((len(rows), len(trial.left)), np.inf)
    for first in range(0, len(rows), BLOCK):
        similarity = rows[first : first + BLOCK] @ bank.T
        for group in np.flatnonzero(trial.kept.any(axis=0)).tolist():
            seen = similarity[:, trial.kept[:, group]]
            k = choose_neighbour(seen.shape[1], int(np.count_nonzero(~trial.left[group])))
            scores[first : first + BLOCK, group] = -np.partition(seen, -k, axis=1)[:, -k]
    return scores


def _score_mahalanobis(trial: _Trial) -> Floats:
    """Squared distances to the nearest mean of the other classes, in the covariance of their images alone.

    What the images of a group added to the covariance of all is taken off again: by Woodbury's identity that is some
    more coordinates for every image and mean.
    """
    labels = trial.training.labels
    means, spread = compute_class_means(normalise(trial.training.features), labels)
    covariance, shrunk = shrink_covariance(spread)
    whitening = whiten(covariance)
    images, centres = normalise(trial.validation.features) @ whitening, means @ whitening
    parts = (spread @ whitening * np.float32(np.sqrt((1 - shrunk) / len(spread)))).astype(np.float64)
    present = np.unique(labels)
    scores = np.full((len(images), len(trial.left)), np.inf)
    for group in np.flatnonzero(trial.kept.any(axis=0)).tolist():
        out = parts[~trial.kept[:, group]].T
        rest = np.eye(out.shape[1]) * (1 + 1e-4) - out.T @ out
        factor = np.linalg.inv(np.linalg.cholesky(rest)).T
        these = centres[~trial.left[group][present]]
        further = [np.concatenate([some, some @ out @ factor], axis=1) for some in (images, these)]
        scores[:, group] = _square_distances(*further).min(axis=1)
    return scores


def _square_distances(rows: Floats, centres: Floats) -> Floats:
    """Squared distances of rows from centres, float64 [rows, centres]."""
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    return np.asarray(lengths - 2 * rows @ centres.T)


def _score_energy(trial: _Trial) -> Floats:
    """The energies of heads that never saw the classes of each group."""
    offset = trial.training.features.mean(axis=0)
    rows, images = (_centre(part.features, offset) for part in (trial.training, trial.validation))
    size = np.float32(max(float(np.sqrt(np.square(rows[:, :-1]).sum(axis=1).mean())), 1e-12))
    rows[:, :-1] /= size
    images[:, :-1] /= size
    group, column = np.nonzero(~trial.left)
    logits = images @ _fit_heads(rows, trial, group, column)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.asarray(-np.logaddexp.reduceat(logits.astype(np.float64), starts, axis=1))


def _centre(features: Features, offset: Features) -> Features:
    """Features less their mean, with a column of ones for the bias."""
    return np.concatenate([features - offset, np.ones((len(features), 1), np.float32)], axis=1)


def _fit_heads(rows: Features, trial: _Trial, group: NDArray[np.intp], column: NDArray[np.intp]) -> Features:
    """The weights, float32 [d, heads' classes], of a softmax head for each group's other classes, all at once.

    Nesterov's accelerated gradient descent (1983) from 0, with the step that the curvature of the softmax allows at
    most (Boehning 1992); it stops early, which keeps the weights small as a penalty would.
    """
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    kept, n = trial.kept[:, group].astype(np.float32), np.float32(len(rows))
    targets = trial.training.targets[:, column].astype(np.float32)
    step = np.float32(2 / max(_measure_curvature(rows), 1e-12))
    weights = ahead = np.zeros((rows.shape[1], len(group)), np.float32)
    for number in range(HEAD_STEPS):
        logits = rows @ ahead
        chances = np.exp(logits - np.maximum.reduceat(logits, starts, axis=1)[:, group])
        chances /= np.add.reduceat(chances, starts, axis=1)[:, group]
        moved = ahead - step * (rows.T @ ((chances - targets) * kept / n))
        ahead = moved + np.float32(number / (number + 3)) * (moved - weights)
        weights = moved
    return weights


def _measure_curvature(rows: Features) -> float:
    """The largest eigenvalue of the rows' second moments, by power iteration from a direction that is always alike."""
    direction: Features = np.random.default_rng(0).normal(0.0, 1.0, (rows.shape[1],)).astype(np.float32)
    length = 0.0
    for _ in range(10):
        moved = rows.T @ (rows @ direction) / np.float32(len(rows))
        length = float(np.linalg.norm(moved))
        direction = np.asarray(moved / max(length, 1e-12), np.float32)
    return length
