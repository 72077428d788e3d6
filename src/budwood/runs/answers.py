"""From logits and features to what is said of images: all that a predictor needs beside its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budwood.data.images import ImageShape
from budwood.data.training_images import TrainingImages, note_differences
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.novelty import NoveltyScorer
from budwood.evaluation.prediction_table import ImagePrediction, list_top_classes


@dataclass(frozen=True)
class Outputs:
    """What a network makes of images, as the mean over the views of test-time augmentation.

    Attributes:
        features: What the head receives, float32 [n, features]; of an ensemble, its heaviest member's. [n, 0] where
            they were not needed.
        logits: float32 [n, classes]; of an ensemble, those of the mean probabilities.
        strangeness: Scores of novelty, float64 [n], where the network itself computes them; None: the rules do.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    strangeness: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class AnswerRules:
    """How a network's outputs become answers.

    Attributes:
        classes: Names of the classes, in the order of the logits.
        decision: From logits to probabilities, labels and sets.
        novelty: What tells images that show none of the classes; None where nothing does.
        training: What the training images were like; None where that is not known.
    """

    classes: tuple[str, ...]
    decision: DecisionRule
    novelty: NoveltyScorer | None
    training: TrainingImages | None

    @property
    def needs_features(self) -> bool:
        """Return whether answers need features beside logits."""
        return self.novelty is not None and self.novelty.method != "energy"

    def describe(
        self,
        names: Sequence[str],
        shapes: Sequence[ImageShape],
        outputs: Outputs,
        top: int,
        keep_features: bool,
    ) -> list[ImagePrediction]:
        """Say what images show.

        Args:
            names: Path or name of each image.
            shapes: What each image was like.
            outputs: The network's outputs for them.
            top: Number of likeliest classes to list.
            keep_features: Whether each prediction has the features.

        Returns:
            A prediction for each image, in order.
        """
        decision, classes, n = self.decision, self.classes, len(names)
        if not n:
            return []
        probabilities = decision.to_probabilities(outputs.logits)
        called = decision.decide(probabilities)
        sure = np.where(called, probabilities, 1 - probabilities).prod(axis=1)
        confidence = sure if decision.task.multilabel else probabilities[called]
        tops = list_top_classes(probabilities, classes, top)
        sets = None if decision.set_limits is None else decision.list_candidates(probabilities)
        scores = outputs.strangeness
        if scores is None and self.novelty:
            scores = self.novelty.score(outputs.features, outputs.logits)
        return [
            ImagePrediction(
                names[row],
                tops[row],
                probabilities=probabilities[row],
                labels=_pick(classes, called[row]),
                decisions=tuple(called[row].tolist()) if decision.task.multilabel else None,
                label=decision.name_answer(called[row], classes),
                confidence=float(confidence[row]),
                refused=None if scores is None or self.novelty is None else bool(scores[row] > self.novelty.threshold),
                strangeness=None if scores is None else float(scores[row]),
                candidates=None if sets is None else _pick(classes, sets[row]),
                notes=note_differences(shapes[row], self.training) if self.training else (),
                features=outputs.features[row] if keep_features else None,
            )
            for row in range(n)
        ]


def _pick(classes: Sequence[str], which: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(classes[number] for number in np.flatnonzero(which).tolist())
