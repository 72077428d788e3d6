"""From logits to what an image is called: temperature, thresholds, costs, and the sets of classes that may be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.label_task import NO_LABEL, LabelTask
from budwood.evaluation.scoring import Labels, Logits

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
HALF = 0.5  # the probability from which on an image has a label, unless a threshold says otherwise


@dataclass(frozen=True)
class DecisionRule:
    """How a run's logits become probabilities, answers and sets; it travels with the model.

    Attributes:
        task: Whether an image has one label or several.
        temperature: What logits are divided by before they become probabilities, float64 [1] or, where images have
            several labels, [classes]; ones change nothing.
        thresholds: Where images have several labels, the probability from which on an image has each, float64
            [classes]; None: one half.
        costs: Where images have one label, what it costs to call an image of class i (row) class j (column), float64
            [classes, classes]; None: every mistake costs the same, so that the likeliest class is the answer.
        set_limits: The least probability with which each class is in an image's prediction set, float64 [classes];
            None: there are no sets.
    """

    task: LabelTask
    temperature: Floats = field(default_factory=lambda: np.ones(1))
    thresholds: Floats | None = None
    costs: Floats | None = None
    set_limits: Floats | None = None

    def to_probabilities(self, logits: Logits) -> Floats:
        """Return the calibrated probability of each class.

        Args:
            logits: float32 [n, classes].

        Returns:
            float64 [n, classes]: each row adds up to 1, or each value is a probability of its own.
        """
        return self.task.to_probabilities(np.asarray(logits / self.temperature, np.float32))

    def decide(self, probabilities: Floats) -> Flags:
        """Return which classes each image is called.

        Args:
            probabilities: Calibrated, float64 [n, classes].

        Returns:
            bool [n, classes]: exactly one class of each image, or, where images have several labels, any number.
        """
        if self.task.multilabel:
            return np.asarray(probabilities > (HALF if self.thresholds is None else self.thresholds))
        best = probabilities.argmax(axis=1) if self.costs is None else (probabilities @ self.costs).argmin(axis=1)
        return np.asarray(best[:, None] == np.arange(self.task.classes))

    def is_correct(self, labels: Labels, logits: Logits) -> Flags:
        """Return whether each image is called what it is, in every label where it may have several.

        Args:
            labels: Class numbers int32 [n], or bool [n, classes].
            logits: float32 [n, classes].

        Returns:
            bool [n].
        """
        return np.asarray((self.decide(self.to_probabilities(logits)) == self.task.to_targets(labels)).all(axis=1))

    def shift_logits(self, logits: Logits) -> Logits:
        """Return logits that decide at 0 what this rule decides, where images have several labels.

        Args:
            logits: float32 [n, classes].

        Returns:
            float32 [n, classes]; the images rank as before for each label.
        """
        limits = np.full(self.task.classes, HALF) if self.thresholds is None else self.thresholds
        limits = np.clip(limits, 1e-9, 1 - 1e-9)  # so that the images go on to be ranked
        odds = np.log(limits / (1 - limits))
        return np.asarray(logits / self.temperature - odds, np.float32)

    def list_candidates(self, probabilities: Floats) -> Flags:
        """Return the prediction set of each image: the classes that may be true.

        Args:
            probabilities: Calibrated, float64 [n, classes].

        Returns:
            bool [n, classes]. Where images have one label, the likeliest class is always among them.
        """
        assert self.set_limits is not None
        held = probabilities >= self.set_limits
        if not self.task.multilabel:
            held[np.arange(len(held)), probabilities.argmax(axis=1)] = True
        return np.asarray(held)

    def name_answer(self, called: Flags, classes: Sequence[str]) -> str:
        """Return what an image is called, in words.

        Args:
            called: Which classes, bool [classes].
            classes: Their names.

        Returns:
            The names, separated by commas; that there are none, where there is none.
        """
        return ", ".join(name for name, one in zip(classes, called.tolist(), strict=True) if one) or NO_LABEL
