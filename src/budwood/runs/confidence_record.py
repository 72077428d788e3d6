"""What a run's record tells of its confidence: calibration, prediction sets, thresholds, and "none of these"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from budwood.config.records import FrozenRecord
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.intervals import Metric
from budwood.evaluation.label_task import LabelTask
from budwood.evaluation.novelty import NoveltyMethod

NOVELTY_FILE: Final = "novelty.safetensors"  # the arrays of a run's `NoveltyScorer`, and scores of its images
VALIDATION_SCORES: Final = "validation"  # float32 [validation images], NaN where an image was not scored
STRANGER_SCORES: Final = "strangers"  # float32 [strangers] of the folder that was tried last


class CalibrationRecord(FrozenRecord):
    """Temperature scaling (Guo et al. 2017), fitted on the validation set.

    Attributes:
        temperature: One, or one for each label where images have several.
        before: Expected calibration error without it, 0 to 1.
        after: The same with it; on the images that it was fitted on.
        noise: The error that exactly right confidence would have by chance on as many images, by split.
        test: Both on the test set, `before` and `after`, once it is opened.
    """

    temperature: tuple[float, ...]
    before: Metric
    after: Metric
    noise: Mapping[str, float]
    test: Mapping[str, Metric] | None = None


class SetsRecord(FrozenRecord):
    """Prediction sets by split conformal prediction (LAC: Sadinle, Lei and Wasserman 2019).

    Attributes:
        coverage: The share of images whose true class is to be in their set, 0 to 1.
        limits: The least probability with which each class is in a set.
        per_class: Which classes have a limit of their own; the others share one.
        n: Number of images that the limits were found on.
    """

    coverage: float
    limits: tuple[float, ...]
    per_class: tuple[bool, ...]
    n: int


class DecisionsRecord(FrozenRecord):
    """How an answer is chosen where it is not simply the likeliest class, or all labels over one half.

    Attributes:
        rule: How thresholds were chosen: `0.5`, `f1`, `precision=0.9` or `recall=0.9`; `costs` where there are costs.
        thresholds: Of each label, where images have several.
        unreached: The labels for which the rule cannot be followed on the validation set, by number.
        costs: Of calling class i (row) class j (column), where images have one label.
    """

    rule: str
    thresholds: tuple[float, ...] | None = None
    unreached: tuple[int, ...] = ()
    costs: tuple[tuple[float, ...], ...] | None = None


class StrangersRecord(FrozenRecord):
    """How well a run told its validation images from a folder of the user's that shows none of its classes.

    Attributes:
        folder: The folder, as it was named.
        n: Number of its images.
        auroc: Area under the ROC curve.
        fpr95: Share of strangers that pass where 95 % of the known images do.
        refused: Share of strangers refused at the run's threshold.
    """

    folder: str
    n: int
    auroc: Metric
    fpr95: Metric
    refused: Metric


class NoveltyRecord(FrozenRecord):
    """How images that show none of the classes are found.

    Attributes:
        method: The score that told classes apart best that were left out in turn; `knn` where none could be.
        threshold: An image with a larger score is none of the classes.
        share: The share of known images that is refused, by the choice of the threshold, 0 to 1.
        auroc: Of each method, the mean area under the ROC curve with classes left out in turn; of those alone that
            could be compared.
        neighbour: The k of knn.
        n: Number of validation images that the threshold was found on.
        strangers: What a folder of strangers gave; None where none was tried.
    """

    method: NoveltyMethod
    threshold: float
    share: float
    auroc: Mapping[str, Metric]
    neighbour: int
    n: int
    strangers: StrangersRecord | None = None


class ConfidenceRecord(FrozenRecord):
    """All that makes a run's confidence worth trusting; what a run has no part of is None."""

    calibration: CalibrationRecord | None = None
    sets: SetsRecord | None = None
    decisions: DecisionsRecord | None = None
    novelty: NoveltyRecord | None = None

    def make_rule(self, task: LabelTask) -> DecisionRule:
        """Make the rule by which logits become probabilities, answers and sets.

        Args:
            task: Whether images have one label or several.

        Returns:
            The rule; what the record has no part of is as usual.
        """
        calibration, decisions, sets = self.calibration, self.decisions, self.sets
        return DecisionRule(
            task,
            np.array(calibration.temperature) if calibration else np.ones(1),
            np.array(decisions.thresholds) if decisions and decisions.thresholds else None,
            np.array(decisions.costs) if decisions and decisions.costs else None,
            np.array(sets.limits) if sets else None,
        )
