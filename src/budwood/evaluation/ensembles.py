"""The mathematics of ensembles: the mean of several networks' probabilities, and which networks to take it of.

The mean is taken of probabilities and returned as logits, so that all that is computed from logits - metrics, losses,
calibration - speaks of the mean. It is computed from logarithms, so that no probability is rounded to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Values
from budwood.evaluation.scoring import Logits

PICKS: Final = 50  # of a greedy selection, at most
SLIGHT: Final = 1e-9  # a difference between losses that rounding makes, nats
_TINY: Final = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Selection:
    """What a greedy selection picked.

    Attributes:
        picks: How often each candidate was picked, int64 [candidates].
        loss: The loss of the mean of the picks, nats.
        losses: The loss after each pick that was tried, those after the best number included, nats.
    """

    picks: NDArray[np.int64]
    loss: float
    losses: tuple[float, ...]

    @property
    def weights(self) -> Values:
        """Return the share of the picks of each candidate, float64 [candidates]."""
        return np.asarray(self.picks / self.picks.sum(), np.float64)


def average_softmax(logits: Sequence[Logits], weights: Values) -> Logits:
    """Compute the weighted mean of softmax probabilities.

    Args:
        logits: Logits of each member, float32 [n, classes].
        weights: Weight of each member, float64 [members], above 0; they need not add up to 1.

    Returns:
        Natural logarithms of the mean probabilities, float32 [n, classes]; their softmax is the mean. Of one member
        its own logits, so that it is scored to the same bits.
    """
    if len(logits) == 1:
        return logits[0].astype(np.float32)
    stacked = np.stack([one.astype(np.float64) for one in logits])
    logs = stacked - np.logaddexp.reduce(stacked, axis=2, keepdims=True)
    return _average_logs(logs, weights).astype(np.float32)


def average_sigmoid(logits: Sequence[Logits], weights: Values) -> Logits:
    """Compute the weighted mean of sigmoid probabilities, each class by itself.

    Args:
        logits: Logits of each member, float32 [n, classes].
        weights: Weights, as for `average_softmax`.

    Returns:
        Logarithms of the odds of the mean probabilities, float32 [n, classes]; their sigmoid is the mean. Of one
        member its own logits.
    """
    if len(logits) == 1:
        return logits[0].astype(np.float32)
    stacked = np.stack([one.astype(np.float64) for one in logits])
    yes, no = (_average_logs(-np.logaddexp(0, -signed), weights) for signed in (stacked, -stacked))
    return (yes - no).astype(np.float32)


def _average_logs(logs: Values, weights: Values) -> Values:
    """The logarithm of the weighted mean of what `logs` [members, n, classes] are the logarithms of."""
    shares = np.log(np.asarray(weights, np.float64) / np.sum(weights))
    return np.asarray(np.logaddexp.reduce(logs + shares[:, None, None], axis=0))


def select_greedily(true: Sequence[Values], most: int = PICKS) -> Selection:
    """Select candidates for an ensemble greedily, with replacement (Caruana et al. 2004, "Ensemble selection").

    Starting from none, the candidate is picked with which the mean of all picks so far has the lowest loss: the mean
    negative logarithm of the probability of what is true. A candidate may be picked again, which gives it more weight.
    Of equal candidates the first is picked. The picks up to the lowest loss of all are kept, the fewest if equal.

    Args:
        true: Probability that each candidate gives to what is true of each image, float64 of any shape, such as [n],
            or [n, classes] where an image has several labels; equal shapes.
        most: Number of picks at most.

    Returns:
        The picks and their loss.
    """
    candidates = np.stack([np.ravel(one) for one in true])
    total = np.zeros(candidates.shape[1])
    order: list[int] = []
    losses: list[float] = []
    for count in range(1, most + 1):
        tried = [compute_mean_loss((total + one) / count) for one in candidates]
        best = int(np.argmin(tried))
        total += candidates[best]
        order.append(best)
        losses.append(tried[best])
    kept = next(count for count, loss in enumerate(losses, 1) if loss <= min(losses) + SLIGHT)
    picks = np.bincount(order[:kept], minlength=len(candidates))
    return Selection(picks.astype(np.int64), losses[kept - 1], tuple(losses))


def compute_mean_loss(true: Values) -> float:
    """Compute the mean negative logarithm of the probabilities of what is true.

    Args:
        true: Probabilities, float64 of any shape.

    Returns:
        The loss, nats.
    """
    return float(-np.log(np.maximum(true, _TINY)).mean())


def spread_weights(parts: Sequence[Sequence[tuple[str, float]]], weights: Sequence[float]) -> dict[str, float]:
    """Compute the weights of networks in a mean of means.

    Args:
        parts: For each part of the outer mean the names of its networks with their weights in it.
        weights: Weight of each part.

    Returns:
        The weight of each network by its name, in the order in which they first occur, adding up to 1. Networks of
        weight 0 are left out.
    """
    spread: dict[str, float] = {}
    for part, weight in zip(parts, weights, strict=True):
        inner = sum(share for _, share in part)
        for name, share in part:
            if weight * share > 0:
                spread[name] = spread.get(name, 0.0) + weight * share / inner
    total = sum(spread.values())
    return {name: weight / total for name, weight in spread.items()}
