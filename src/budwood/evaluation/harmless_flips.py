"""Which flips leave the class of an image as it is: measured on images that a head has not seen.

A head that was solved on unchanged images answers held-out images unchanged and mirrored. Where a flip changes what
an image shows (a street upside down, a sign of the hand), answers get worse by much; where it does not (fields from
above), by little. The rule is careful: of few images, or where the head knows too little to tell, no flip is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Values
from budwood.evaluation.logits import cross_entropy
from budwood.evaluation.significance import mcnemar_test

FLIPS: Final = {"h": "left to right", "v": "upside down", "hv": "turned by 180 degrees"}
FEWEST: Final = 50  # held-out images below which nothing is said to be harmless
SOME: Final = 200  # held-out images from which a small drop may do that is not distinguishable from none
SURE: Final = 0.03  # drop of accuracy that a harmless flip surely stays below
SMALL: Final = 0.02  # drop that may do where images are SOME or more
WIDE: Final = 0.05  # but not where it may be as large as this
CHANCE: Final = 0.1  # p-value from which a drop is not distinguishable from none
SKILL: Final = 0.2  # share of the mistakes of always answering the commonest class that a head must avoid to tell
RISE: Final = 0.25  # share by which a harmless flip may raise the loss
SLIGHT: Final = 0.02  # nats by which it may in any case
_Z_90: Final = 1.6448536269514722  # of the normal distribution, 90 % within


@dataclass(frozen=True)
class FlipVerdict:
    """What a flip does to answers to held-out images.

    Attributes:
        letters: `h`, `v` or `hv`.
        n: Number of images.
        drop: Accuracy on unchanged images minus that on mirrored ones, from -1 to 1.
        low: Lower end of its 90 % interval.
        high: Upper end.
        p: p-value of McNemar's exact test.
        rise: Loss on mirrored images minus that on unchanged ones, nats.
        harmless: Whether the flip may be taken not to change classes.
        sentence: The verdict in words.
    """

    letters: str
    n: int
    drop: float
    low: float
    high: float
    p: float
    rise: float
    harmless: bool
    sentence: str


def judge_flips(
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    labels: NDArray[np.int32],
    unchanged: NDArray[np.float32],
    mirrored: Mapping[str, NDArray[np.float32]],
) -> dict[str, FlipVerdict]:
    """Judge flips by a linear head and the features of images that it was not solved on.

    Args:
        weight: Of the head, float32 [classes, features].
        bias: float32 [classes].
        labels: Class of each image, int32 [n].
        unchanged: Features of the images, float32 [n, features].
        mirrored: Features of the images mirrored, float32 [n, features], by `h`, `v` and `hv`.

    Returns:
        The verdict on each flip, as `judge_flip`.
    """
    answers = unchanged @ weight.T + bias
    return {
        letters: judge_flip(letters, labels, answers, features @ weight.T + bias)
        for letters, features in mirrored.items()
    }


def judge_flip(
    letters: str, labels: NDArray[np.int32], unchanged: NDArray[np.float32], mirrored: NDArray[np.float32]
) -> FlipVerdict:
    """Judge a flip by answers to held-out images, unchanged and mirrored.

    It is harmless where the upper end of the 90 % interval of the drop of accuracy is below SURE, or, of SOME images
    or more, where the drop is below SMALL, its upper end below WIDE, and the drop not distinguishable from none; and
    the loss rises by no more than RISE. The interval is Agresti and Min's (2005) for paired proportions. Fewer than
    FEWEST images, or a head that avoids less than SKILL of the mistakes of the commonest class, cannot tell.

    Args:
        letters: `h`, `v` or `hv`.
        labels: Class of each image, int32 [n].
        unchanged: Logits of the images, float32 [n, classes].
        mirrored: Logits of the images mirrored, float32 [n, classes].

    Returns:
        The verdict.
    """
    n = len(labels)
    if n == 0:
        return FlipVerdict(letters, 0, 0.0, -1.0, 1.0, 1.0, 0.0, False, _explain(letters, "", "no image"))
    right = np.stack([logits.argmax(axis=1) == labels for logits in (unchanged, mirrored)], axis=1).astype(np.float64)
    accuracy = right.mean(axis=0)
    drop, low, high = _compute_drop(right)
    p = float(mcnemar_test(right)[0, 1])
    before, after = (float(cross_entropy(labels, logits).mean()) for logits in (unchanged, mirrored))
    commonest = float(np.bincount(labels).max()) / n
    unclear = ""
    if n < FEWEST:
        unclear = f"fewer than {FEWEST} images"
    elif accuracy[0] - commonest < SKILL * (1 - commonest) or commonest == 1:
        unclear = "the answers to unchanged images are hardly better than always the commonest class"
    small = high < SURE or (n >= SOME and drop < SMALL and high < WIDE and p >= CHANCE)
    harmless = not unclear and small and after - before <= max(RISE * before, SLIGHT)
    found = f"{accuracy[0]:.1%} of {n:,} held-out images are right unchanged, {accuracy[1]:.1%} mirrored"
    sentence = _explain(letters, found, unclear, harmless)
    return FlipVerdict(letters, n, drop, low, high, p, after - before, harmless, sentence)


def _compute_drop(right: Values) -> tuple[float, float, float]:
    """The drop of accuracy and its 90 % interval (Agresti and Min 2005: half an image more in each of four cells)."""
    n, difference = len(right), right[:, 0] - right[:, 1]
    lost, won = float((difference > 0).sum()), float((difference < 0).sum())
    more, change = n + 2, (lost - won) / (n + 2)
    error = float(np.sqrt((lost + won + 1) / more - change**2) / np.sqrt(more))
    drop = (lost - won) / n
    return drop, max(-1.0, min(drop, change - _Z_90 * error)), min(1.0, max(drop, change + _Z_90 * error))


def _explain(letters: str, found: str, unclear: str, harmless: bool = False) -> str:
    """The verdict in words."""
    flip = f"Mirroring images {FLIPS[letters]}" if letters != "hv" else f"Images {FLIPS[letters]}"
    if unclear:
        return f"{flip}: whether classes stay cannot be told ({unclear}), so it is not done."
    stays = "classes stay as they are" if harmless else "classes may change, so it is not done"
    return f"{flip}: {stays} ({found})."
