"""How good predictions are, with intervals: pure functions of labels and logits.

`intervals` has the 95 % intervals: Wilson's for shares, a normal one for means, percentiles of resampled images for the
rest. An undefined value is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import (
    RESAMPLES,
    Values,
    iterate_bootstrap_weights,
    mean_interval,
    percentile_interval,
    proportion_interval,
)

NAMES: Final = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")  # that evaluate gives
NAMES_MULTILABEL: Final = ("accuracy", "macro_f1", "mean_average_precision", "log_loss")  # that evaluate_several gives
MEANS: Final = ("accuracy", "log_loss")  # those that are means over images
LOSSES: Final = ("log_loss",)  # those of which less is better


def evaluate(labels: NDArray[np.int32], logits: NDArray[np.float32], classes: tuple[str, ...]) -> dict[str, Any]:
    """Every metric of one split: labels int32 [n], logits float32 [n, classes].

    `accuracy`, `balanced_accuracy`, `macro_f1`, `log_loss` (nats), and `per_class` with precision, recall, F1, support.
    A class without an image does not enter balanced accuracy and macro F1.
    """
    matrix = confusion(labels, logits)
    tally, spread, n = _tally(matrix), _bootstrap_tally(matrix), len(labels)
    return {
        "accuracy": proportion_interval(int(np.trace(matrix)), n),
        "balanced_accuracy": percentile_interval(
            _average_present(_compute_recall(tally), tally), _average_present(_compute_recall(spread), spread), n
        ),
        "macro_f1": percentile_interval(
            _average_present(_compute_f1(tally), tally), _average_present(_compute_f1(spread), spread), n
        ),
        "log_loss": mean_interval(cross_entropy(labels, logits)),
        "per_class": {name: _score_class(tally, spread, c) for c, name in enumerate(classes)},
    }


def score(name: str, labels: NDArray[np.int32], logits: NDArray[np.float32]) -> float:
    """One figure to select by, higher is better: accuracy, balanced_accuracy, macro_f1 or auroc.

    Means are over the classes that the labels hold; the AUROC is that of each class against all others, from the ranks
    of its probability (Hanley and McNeil 1982).
    """
    if name == "accuracy":
        return float((logits.argmax(axis=1) == labels).mean())
    if name == "auroc":
        chance = probabilities(logits)
        return float(np.mean([_compute_auroc(labels == c, chance[:, c]) for c in np.unique(labels)]))
    tally = _tally(confusion(labels, logits))
    values = _compute_recall(tally) if name == "balanced_accuracy" else _compute_f1(tally)
    return float(_average_present(values, tally))


def score_images(name: str, targets: NDArray[np.bool_], logits: NDArray[np.float32], several: bool) -> Values:
    """What each image adds to a metric that is a mean: whether it is right (0 or 1), or its loss in nats: float64 [n].

    `targets` bool [n, classes], logits float32 [n, classes]. Where images have several labels, right means every class.
    """
    if name == "log_loss":
        if several:
            return binary_cross_entropy(targets, logits)
        return cross_entropy(targets.argmax(axis=1).astype(np.int32), logits)
    if several:
        return np.asarray(((logits > 0) == targets).all(axis=1), np.float64)
    return np.asarray(targets[np.arange(len(targets)), logits.argmax(axis=1)], np.float64)


def bootstrap_metric(
    name: str, targets: NDArray[np.bool_], answers: Sequence[NDArray[np.float32]], several: bool
) -> tuple[Values, Values]:
    """A metric that is no mean over images, for the logits of several networks on the same images: float64 [networks];
    and the same for every bootstrap resample of `image_weights`: float64 [resamples, networks].

    All networks share the resamples, so that their differences are paired.
    """
    if name == "mean_average_precision":
        support = np.concatenate([part @ targets for part in iterate_bootstrap_weights(len(targets))])
        whole, spread = _sum_counts([targets, targets, targets]), _Tally(support, support, support)
        made = [_compute_average_precision(targets, logits) for logits in answers]
        values = [float(_average_present(precision, whole)) for precision, _ in made]
        return np.array(values), np.stack([_average_present(np.nan_to_num(drawn), spread) for _, drawn in made], axis=1)
    counts = [_count_outcomes(targets, logits, several) for logits in answers]
    stacked = [np.concatenate(count, axis=1).astype(np.float32) for count in counts]  # counts are exact in float32
    by_class = _compute_recall if name == "balanced_accuracy" else _compute_f1
    drawn = [
        [_average_over_classes(np.split((weights @ one).astype(np.int64), 3, axis=1), by_class) for one in stacked]
        for part in iterate_bootstrap_weights(len(targets))
        for weights in [part.astype(np.float32)]
    ]
    values = [float(_average_over_classes([part.sum(axis=0) for part in count], by_class)) for count in counts]
    return np.array(values), np.concatenate([np.stack(part, axis=1) for part in drawn])


def _count_outcomes(targets: NDArray[np.bool_], logits: NDArray[np.float32], several: bool) -> list[NDArray[np.bool_]]:
    """What is called rightly, is, and is called, for each image and class: bool [n, classes] each."""
    classes = np.arange(logits.shape[1])
    called = np.asarray(logits > 0) if several else np.asarray(logits.argmax(axis=1)[:, None] == classes)
    return [targets & called, targets, called]


def _average_over_classes(counts: Sequence[NDArray[np.int64]], by_class: Callable[[_Tally], Values]) -> Values:
    tally = _Tally(*counts)
    return _average_present(by_class(tally), tally)


def _compute_auroc(positive: NDArray[np.bool_], chance: NDArray[np.float64]) -> float:
    """The share of pairs of a positive and a negative that are in the right order; one half where there is no pair."""
    _, rank, count = np.unique(chance, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return 0.5
    return float((middle[rank][positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def evaluate_multilabel(
    targets: NDArray[np.bool_], logits: NDArray[np.float32], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Every metric where images have several labels each: targets bool [n, classes], logits float32 [n, classes].

    A class is called where its logit is over 0. `accuracy` is the share of images right in every class, `macro_f1` and
    `mean_average_precision` are means over the classes that have an image, `log_loss` is the binary cross-entropy
    (nats, mean over classes); `per_class` has precision, recall, F1, average precision and support.
    """
    called, n = logits > 0, len(targets)
    counts = [targets & called, targets, called]
    tally = _sum_counts(counts)
    spread = _Tally(*(np.concatenate([part @ count for part in iterate_bootstrap_weights(n)]) for count in counts))
    precision, precisions = _compute_average_precision(targets, logits)
    per_class = {
        name: {
            **_score_class(tally, spread, c),
            "average_precision": percentile_interval(precision[c], precisions[:, c], int(tally.support[c])),
        }
        for c, name in enumerate(classes)
    }
    whole, resampled = _average_present(precision, tally), _average_present(np.nan_to_num(precisions), spread)
    return {
        "accuracy": proportion_interval(int((called == targets).all(axis=1).sum()), n),
        "macro_f1": percentile_interval(
            _average_present(_compute_f1(tally), tally), _average_present(_compute_f1(spread), spread), n
        ),
        "mean_average_precision": percentile_interval(whole, resampled, n),
        "log_loss": mean_interval(binary_cross_entropy(targets, logits)),
        "per_class": per_class,
    }


def score_multilabel(name: str, targets: NDArray[np.bool_], logits: NDArray[np.float32]) -> float:
    """One figure to select by where images have several labels: accuracy (all classes right), macro_f1 or auroc."""
    called = logits > 0
    if name == "accuracy":
        return float((called == targets).all(axis=1).mean())
    if name == "auroc":
        present = np.flatnonzero(targets.any(axis=0)).tolist()
        return float(np.mean([_compute_auroc(targets[:, c], logits[:, c].astype(np.float64)) for c in present]))
    tally = _sum_counts([targets & called, targets, called])
    return float(_average_present(_compute_f1(tally), tally))


def _sum_counts(counts: Sequence[NDArray[np.bool_]]) -> _Tally:
    """The tally of all images, of what each is called rightly, is, and is called: bool [n, classes] each."""
    return _Tally(*(np.asarray(count.sum(axis=0), np.int64) for count in counts))


def _compute_average_precision(
    targets: NDArray[np.bool_], logits: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean precision at each image of a class, by falling logit: float64 [classes], and [resamples, classes]."""
    orders = np.argsort(-logits, axis=0, kind="stable")

    def weighed(part: NDArray[np.int64]) -> NDArray[np.float64]:
        values = []
        for c in range(targets.shape[1]):
            ordered = part[:, orders[:, c]]
            found = ordered * targets[orders[:, c], c]
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.nan_to_num(np.cumsum(found, axis=1) / np.cumsum(ordered, axis=1))
                values.append((found * precision).sum(axis=1) / found.sum(axis=1))
        return np.stack(values, axis=1)

    whole = weighed(np.ones((1, len(targets)), np.int64))[0]
    return whole, np.concatenate([weighed(part) for part in iterate_bootstrap_weights(len(targets))])


def confusion(labels: NDArray[np.int32], logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Counts of true class (row) by predicted class (column): int64 [classes, classes]."""
    classes = logits.shape[1]
    cells = labels.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of logits, float64 [n, classes]."""
    return np.exp(_log_softmax(logits))


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability of each class where images have several labels: float64 [n, classes]."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))))


def binary_cross_entropy(targets: NDArray[np.bool_], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean loss over classes of each image, nats: float64 [n]."""
    signed = np.where(targets, logits, -logits).astype(np.float64)
    return np.asarray(np.logaddexp(0, -signed).mean(axis=1))


def cross_entropy(labels: NDArray[np.int32], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The loss of each image in nats: float64 [n]."""
    return np.asarray(-_log_softmax(logits)[np.arange(len(labels)), labels])


def reliability(labels: NDArray[np.int32], logits: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Confidence against accuracy: for each bin of the top probability its mean, the accuracy and its interval."""
    chance = probabilities(logits)
    return _bin_by_confidence(chance.max(axis=1), chance.argmax(axis=1) == labels)


def reliability_multilabel(targets: NDArray[np.bool_], logits: NDArray[np.float32]) -> list[dict[str, Any]]:
    """The same where images have several labels: the probability of every class against how often it is there."""
    return _bin_by_confidence(sigmoid(logits).ravel(), targets.ravel())


def _bin_by_confidence(top: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 10) -> list[dict[str, Any]]:
    which = np.minimum((top * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(top[which == b].mean()),
            "accuracy": proportion_interval(int(right[which == b].sum()), int(np.sum(which == b))),
        }
        for b in np.unique(which).tolist()
    ]


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


@dataclass(frozen=True)
class _Tally:
    """Images by class, int64 [..., classes]: predicted rightly, truly of it, predicted as it."""

    right: NDArray[np.int64]
    support: NDArray[np.int64]
    predicted: NDArray[np.int64]


def _tally(matrix: NDArray[np.int64]) -> _Tally:
    return _Tally(np.diagonal(matrix).copy(), matrix.sum(axis=1), matrix.sum(axis=0))


def _bootstrap_tally(matrix: NDArray[np.int64]) -> _Tally:
    """The tallies of RESAMPLES bootstrap samples of the images, [resamples, classes] each."""
    classes, n = len(matrix), int(matrix.sum())
    true, guess = np.nonzero(matrix)
    right, support, predicted = (np.zeros((RESAMPLES, classes), np.int64) for _ in range(3))
    if n:
        drawn = np.random.default_rng(0).multinomial(n, matrix[true, guess] / n, RESAMPLES)
        _add_by(true, drawn, support)
        _add_by(guess, drawn, predicted)
        _add_by(true[true == guess], drawn[:, true == guess], right)
    return _Tally(right, support, predicted)


def _add_by(column: NDArray[np.intp], drawn: NDArray[np.int64], total: NDArray[np.int64]) -> None:
    """Sum the columns of `drawn` that belong to one class into that column of `total`."""
    if not len(column):
        return
    order = np.argsort(column, kind="stable")
    names, starts = np.unique(column[order], return_index=True)
    total[:, names] = np.add.reduceat(drawn[:, order], starts, axis=1)


def _score_class(tally: _Tally, spread: _Tally, c: int) -> dict[str, Any]:
    right, support, predicted = int(tally.right[c]), int(tally.support[c]), int(tally.predicted[c])
    return {
        "precision": proportion_interval(right, predicted),
        "recall": proportion_interval(right, support),
        "f1": percentile_interval(_compute_f1(tally)[c], _compute_f1(spread)[:, c], support),
        "support": support,
    }


def _compute_f1(tally: _Tally) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * tally.right / (tally.support + tally.predicted))


def _compute_recall(tally: _Tally) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(tally.right / tally.support)


def _average_present(values: NDArray[np.float64], tally: _Tally) -> NDArray[np.float64]:
    """The mean over the classes that have an image."""
    present = tally.support > 0
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, values, 0).sum(axis=-1) / present.sum(axis=-1))
