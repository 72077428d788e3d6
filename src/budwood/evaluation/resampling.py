"""Samples of images for functions of which nothing is known, with one image added that is wrong or right.

Samples of the images alone can only repeat what there is: of 20 images that are all right, every sample is all right,
and an interval of percentiles has no width. So one image is added, as in `intervals`: half of the samples are of the
images and one that is called wrongly, the other half of the images and one that is called rightly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import RESAMPLES

FEWEST: Final = 6  # images, for the interval of a function of which nothing is known


def sample_with_added(
    labels: NDArray[Any], decided: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Draw RESAMPLES samples of the images and one more, always the same ones.

    The image that is added is one of the images with a label that makes it wrong (in the first half of the samples) or
    right; which one, and which wrong label, is drawn anew each time that it is in a sample.

    Args:
        labels: Class numbers int32 [n], or bool [n, classes] where an image may have several; n is at least 1.
        decided: Which classes are predicted for each image, bool [n, classes].

    Yields:
        The images of a sample, intp [n + 1], and their labels.
    """
    random = np.random.default_rng(0)
    n, classes = decided.shape
    called = decided.argmax(axis=1).astype(labels.dtype) if labels.ndim == 1 else decided
    for number in range(RESAMPLES):
        rows = random.integers(0, n + 1, n + 1)
        added = rows == n
        rows[added] = random.integers(0, n, int(added.sum()))
        given = labels[rows]
        right = called[rows[added]]
        if number >= RESAMPLES // 2:
            given[added] = right
        elif labels.ndim == 1:
            given[added] = (right + random.integers(1, max(2, classes), len(right))) % classes
        else:
            given[added] = ~right
        yield rows, given
