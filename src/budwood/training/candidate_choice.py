"""Which of several candidates to take: the cheapest that is not clearly worse than the best one.

The best of many is best partly by luck; the one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984) takes
the simplest that is within one standard error of it. Here the error is that of the difference, image by image, which
is much smaller than that of either score; near copies count as one image. Folds share training images, which the error
does not know of, so an interval is rather too narrow than too wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from budwood.config.metric_registry import LOSS
from budwood.evaluation.label_task import task_of
from budwood.training.head_selection import CandidateScore

SLIGHT: Final = 1e-3  # a difference of the metric, or in nats, that is worth no cost, however sure it is
RESAMPLES: Final = 100  # bootstrap samples, for the error of a metric that is no mean over images

Values = NDArray[np.float64]


@dataclass(frozen=True)
class CandidateDifference:
    """How a candidate differs from the chosen one, candidate minus chosen.

    Attributes:
        value: Difference of the metric (of the loss: nats, more is worse).
        error: Its standard error.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class CandidateChoice:
    """Which candidate is taken, and how the others differ from it.

    Attributes:
        chosen: Its place.
        best: The place of the one with the best figure.
        figures: The figure of each candidate.
        differences: Of each candidate to the chosen one.
    """

    chosen: int
    best: int
    figures: tuple[float, ...]
    differences: tuple[CandidateDifference, ...]


def choose_candidate(
    scores: Sequence[CandidateScore],
    costs: Sequence[float],
    select: str = LOSS,
    labels: NDArray[np.int32] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> CandidateChoice:
    """Choose the cheapest candidate that is less than one standard error of the difference worse than the best.

    Args:
        scores: Of at least one candidate, for the same images.
        costs: What each costs, in any unit; of equal ones the better is taken.
        select: `loss`, `accuracy`, or another metric, for which `labels` are needed; its error is that of
            bootstrap samples.
        labels: Class of each image, int32 [n].
        groups: Equal for near copies, int64 [n]; None: every image is its own.

    Returns:
        The choice.

    Raises:
        ValueError: The candidates were scored on different images, or on none, or labels are missing.
    """
    seen = np.flatnonzero(~np.isnan(scores[0].losses))
    if not len(seen) or any(not np.array_equal(np.flatnonzero(~np.isnan(one.losses)), seen) for one in scores):
        raise ValueError("Expected candidates that were scored on the same images, found others or none.")
    units = np.unique(seen if groups is None else groups[seen], return_inverse=True)[1]
    if select in (LOSS, "accuracy"):
        values = np.stack([(one.losses if select == LOSS else one.correct)[seen] for one in scores], axis=1)
        figures, spread = values.mean(axis=0), _sum_units(values - values.mean(axis=0), units) / len(values)
        spread *= np.sqrt(len(spread) / max(len(spread) - 1, 1))
    elif labels is None:
        raise ValueError(f"Expected the labels of the images, by which {select} is computed, found none.")
    else:
        figures, spread = _resample(scores, select, labels, seen, units)
    worse = figures if select == LOSS else -figures
    best = min(range(len(scores)), key=lambda place: (worse[place], costs[place]))
    near = [
        place for place in range(len(scores)) if worse[place] - worse[best] <= max(_error(spread, place, best), SLIGHT)
    ]
    chosen = min(near, key=lambda place: (costs[place], worse[place]))
    reach = float(stdtrit(max(int(units.max()), 1), 0.975))
    differences = []
    for place in range(len(scores)):
        value, error = float(figures[place] - figures[chosen]), _error(spread, place, chosen)
        differences.append(CandidateDifference(value, error, value - reach * error, value + reach * error))
    return CandidateChoice(chosen, best, tuple(figures.tolist()), tuple(differences))


def _error(spread: Values, one: int, other: int) -> float:
    """The standard error of a difference: the root of the squares of what each unit adds to it."""
    return float(np.linalg.norm(spread[:, one] - spread[:, other]))


def _sum_units(values: Values, units: NDArray[np.intp]) -> Values:
    """Sums over the images of each unit, float64 [units, candidates]."""
    sums = np.zeros((int(units.max()) + 1, values.shape[1]))
    np.add.at(sums, units, values)
    return sums


def _resample(
    scores: Sequence[CandidateScore],
    select: str,
    labels: NDArray[np.int32],
    seen: NDArray[np.intp],
    units: NDArray[np.intp],
) -> tuple[Values, Values]:
    """A metric of each candidate, and how it spreads over samples of the units that all share."""
    task = task_of((), scores[0].logits.shape[1])
    truth, answers = labels[seen], [one.logits[seen] for one in scores]
    order, sizes = np.argsort(units, kind="stable"), np.bincount(units)
    members = np.split(order, np.cumsum(sizes)[:-1])
    random, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[unit] for unit in random.integers(0, len(members), len(members))])
        drawn.append([task.score(select, task.read_labels(truth[rows]), logits[rows]) for logits in answers])
    spread = np.array(drawn, np.float64)
    figures = np.array([task.score(select, task.read_labels(truth), logits) for logits in answers], np.float64)
    return figures, (spread - spread.mean(axis=0)) / np.sqrt(RESAMPLES - 1)
