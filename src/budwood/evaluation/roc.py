"""How well a score tells strangers from known images: the area under the ROC curve, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric, Values, clopper_pearson, proportion_interval

KNOWN_PASS: Final = 0.95  # share of the known images that pass at the threshold of FPR95


@dataclass(frozen=True)
class RocParts:
    """What each image adds to an area under the ROC curve (DeLong, DeLong and Clarke-Pearson 1988).

    Attributes:
        known: Share of the strangers that score above each known image, ties by half: float64 [known].
        strange: Share of the known images that score below each stranger, ties by half: float64 [strange].
    """

    known: Values
    strange: Values

    @property
    def area(self) -> float:
        """Return the area under the curve, 0 to 1."""
        return float(self.strange.mean())


def compare_scores(known: Values, strange: Values) -> RocParts:
    """Compare the scores of known images with those of strangers.

    Args:
        known: Scores, float64 [known], at least one.
        strange: Scores, float64 [strange], at least one; they should be larger.

    Returns:
        What each image adds to the area under the ROC curve.
    """
    return RocParts(1 - _count_below(strange, known), _count_below(known, strange))


def _count_below(others: Values, scores: Values) -> Values:
    """The share of others that are below each score, ties by half."""
    ranked = np.sort(others)
    below, up_to = (np.searchsorted(ranked, scores, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * len(ranked)))


def auroc_interval(known: Values, strange: Values) -> Metric:
    """Compute the area under the ROC curve with its 95 % interval.

    Args:
        known: Scores of known images, float64 [known].
        strange: Scores of strangers, float64 [strange].

    Returns:
        As `mean_auroc_interval`, of one comparison.
    """
    rows = np.arange(len(known) + len(strange)) >= len(known)
    return mean_auroc_interval(np.concatenate([known, strange])[:, None], rows[:, None], ~rows[:, None])


def mean_auroc_interval(scores: Values, strange: NDArray[np.bool_], known: NDArray[np.bool_]) -> Metric:
    """Compute the mean area under the ROC curve over comparisons that share images, with its 95 % interval.

    The variance is DeLong's, of what each image adds to all comparisons together. The interval is Clopper and
    Pearson's of so many images as have this variance (Korn and Graubard 1998), at most as many as there are known
    images or strangers: of scores that part a few images without a mistake there is little variance, but no certainty.

    Args:
        scores: Score of each image in each comparison, float64 [images, comparisons].
        strange: Which images are the strangers of each comparison, bool [images, comparisons].
        known: Which are its known images; comparisons without either do not count.

    Returns:
        `value`, `low` and `high`, 0 to 1, None where no comparison counts; `n` is the number of strangers.
    """
    valid = np.flatnonzero(strange.any(axis=0) & known.any(axis=0))
    if not len(valid):
        return proportion_interval(0, 0)
    added, areas = np.zeros(len(scores)), []
    for column in valid.tolist():
        here, there = known[:, column], strange[:, column]
        parts = compare_scores(scores[here, column], scores[there, column])
        areas.append(parts.area)
        added[here] += (parts.known - parts.area) / max(len(parts.known) - 1, 1)
        added[there] += (parts.strange - parts.area) / max(len(parts.strange) - 1, 1)
    area, variance = float(np.mean(areas)), float(np.square(added / len(valid)).sum())
    seen = [int(np.count_nonzero(flags[:, valid].any(axis=1))) for flags in (strange, known)]
    most = float(min(seen))
    effective = min(most, area * (1 - area) / variance) if variance > 0 else most
    low, high = clopper_pearson(np.float64(area * effective), np.float64(effective))
    return Metric(area, min(area, float(low)), max(area, float(high)), seen[0])


def pass_rate(known: Values, strange: Values) -> Metric:
    """Compute the share of strangers that pass where 95 % of the known images do (FPR95).

    Args:
        known: Scores of known images, float64 [known], at least one.
        strange: Scores of strangers, float64 [strange].

    Returns:
        The share with its 95 % interval, which is that of the strangers at this threshold.
    """
    threshold = np.quantile(known, KNOWN_PASS, method="inverted_cdf")
    return proportion_interval(int(np.count_nonzero(strange <= threshold)), len(strange))


def rank_by_area(areas: Sequence[tuple[str, Metric]]) -> list[str]:
    """Rank names by their areas, the largest first; those that differ by less than 0.001 stay in order."""
    return [name for name, _ in sorted(areas, key=lambda one: -round(one[1].value or 0.0, 3))]
