"""From which probability on an image has a label, where images have several; chosen on validation images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.errors import RecipeError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
RULES: Final = "0.5 (or another probability), f1, precision=0.9 or recall=0.9"


@dataclass(frozen=True)
class ThresholdRule:
    """How thresholds are chosen.

    Attributes:
        kind: `fixed`: the same for every label; `f1`: that of the best F1; `precision` or `recall`: the one that
            reaches a wanted value with as much of the other as possible.
        value: The threshold, or the wanted value, 0 to 1; without meaning for `f1`.
    """

    kind: str
    value: float = 0.5

    def __str__(self) -> str:
        """Return the rule as it is written on the command line, with every digit, as records keep it."""
        value = np.format_float_positional(self.value, trim="-")
        return {"fixed": value, "f1": "f1"}.get(self.kind, f"{self.kind}={value}")


def parse_rule(text: str) -> ThresholdRule:
    """Parse a rule such as `0.5`, `f1`, `precision=0.9` or `recall=0.9`.

    Args:
        text: The rule.

    Returns:
        The rule.

    Raises:
        RecipeError: It is none of these, or its value is not between 0 and 1.
    """
    match = re.fullmatch(r"\s*(?:(f1)|(?:(precision|recall)\s*=\s*)?([0-9.]+))\s*", text.lower())
    try:
        if match is None:
            raise ValueError(text)
        if match[1]:
            return ThresholdRule("f1")
        value = float(match[3])
        if not 0 < value < 1:
            raise ValueError(text)
    except ValueError:
        raise RecipeError(
            f"threshold: expected {RULES}, with a value between 0 and 1; found {text!r}.", "Write one of these."
        ) from None
    return ThresholdRule(match[2] or "fixed", value)


def choose_thresholds(rule: ThresholdRule, targets: Flags, probabilities: Floats) -> tuple[Floats, list[int]]:
    """Choose a threshold for each label.

    Args:
        rule: How.
        targets: Which labels each image has, bool [n, classes].
        probabilities: Of each label, float64 [n, classes].

    Returns:
        The thresholds, float64 [classes], and the labels for which the wanted value cannot be reached, or for which
        there is no image with the label (or none without); these have one half, or the threshold that comes nearest.
    """
    classes = targets.shape[1]
    if rule.kind == "fixed":
        return np.full(classes, rule.value), []
    chosen, failed = np.full(classes, 0.5), list[int]()
    for k in range(classes):
        if targets[:, k].all() or not targets[:, k].any():
            failed.append(k)
            continue
        chosen[k], reached = _choose_threshold(rule, targets[:, k], probabilities[:, k])
        if not reached:
            failed.append(k)
    return chosen, failed


def _choose_threshold(rule: ThresholdRule, truth: Flags, scores: Floats) -> tuple[float, bool]:
    """The threshold of one label, and whether it does what is wanted; halfway between two scores."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal scores are on one side
    hits = np.cumsum(truth[order])[last].astype(np.float64)
    called = last + 1.0
    precision, recall = hits / called, hits / truth.sum()
    below = np.append(ranked[last[:-1] + 1], 0.0)
    thresholds = (ranked[last] + below) / 2
    if rule.kind == "f1":
        return float(thresholds[int(np.argmax(2 * hits / (called + truth.sum())))]), True
    wanted, other = (precision, recall) if rule.kind == "precision" else (recall, precision)
    enough = wanted >= rule.value - 1e-12
    if not enough.any():
        return float(thresholds[int(wanted.argmax())]), False
    return float(thresholds[int(np.where(enough, other, -1.0).argmax())]), True
