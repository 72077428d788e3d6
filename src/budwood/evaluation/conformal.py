"""Prediction sets: the classes that may be true, so chosen that the true one is among them as often as promised.

Split conformal prediction with the least ambiguous sets (LAC; Sadinle, Lei and Wasserman 2019; for an introduction
Angelopoulos and Bates 2021): a class is in the set where its probability is at least a limit, and the limit is the
probability below which few enough of the true classes of the calibration images lie. The promise holds for new images
of the same kind whatever the network is. A class with enough calibration images has a limit of its own, so that it
holds for that class alone. The rarest classes share one that is found on their images together: one found on all images
would leave them below the promise where they are the hard ones, and then all classes together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
FEWEST_OF_CLASS: Final = 30  # calibration images of a class, for a limit of its own
ROUNDING: Final = 1e-9  # 0.1 times 20 must be 2


@dataclass(frozen=True)
class SetLimits:
    """Limits of prediction sets.

    Attributes:
        limits: The least probability with which each class is in a set, float64 [classes]; 0: it always is.
        per_class: Which classes have a limit of their own, bool [classes]; the others share one.
    """

    limits: Floats
    per_class: Flags


def find_limits(targets: Flags, probabilities: Floats, coverage: float) -> SetLimits:
    """Find the limits of prediction sets on calibration images.

    Args:
        targets: Which classes each image has, bool [n, classes]: one, or several or none where images have several.
        probabilities: Of each class, float64 [n, classes].
        coverage: The share of true classes that are to be in their sets, above 0 and below 1.

    Returns:
        The limits; where the images are too few for the coverage, 0, with which every class is in every set.
    """
    counts = targets.sum(axis=0)
    fewest = max(FEWEST_OF_CLASS, math.ceil(1 / (1 - coverage) - 1 - ROUNDING))
    own = _find_common(counts, fewest)
    common = find_limit(probabilities[targets & ~own], coverage)
    limits = [
        find_limit(probabilities[targets[:, k], k], coverage) if own[k] else common for k in range(targets.shape[1])
    ]
    return SetLimits(np.array(limits), own)


def _find_common(counts: NDArray[np.intp], fewest: int) -> Flags:
    """The classes with enough images for a limit of their own, but for those that the rarer ones need beside them."""
    own = np.asarray(counts >= fewest)
    for k in np.argsort(counts, kind="stable"):
        if own.all() or counts[~own].sum() >= fewest:
            break
        own[k] = False
    return own


def find_limit(true_probabilities: Floats, coverage: float) -> float:
    """Find the probability that at least the wanted share of new true classes reaches.

    Args:
        true_probabilities: The probability of each calibration image's true class, float64 [n].
        coverage: The wanted share, above 0 and below 1.

    Returns:
        The k-th smallest of them, where k is the largest number of at most (n + 1) (1 - coverage); 0 where that is
        below 1.
    """
    n = len(true_probabilities)
    k = int(np.floor((n + 1) * (1 - coverage) + ROUNDING))
    return float(np.partition(true_probabilities, k - 1)[k - 1]) if k >= 1 else 0.0
