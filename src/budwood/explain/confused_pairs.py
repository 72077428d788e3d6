"""Which classes are taken for which, with images that show it: predictions to records, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.errors import RunError
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.logits import confusion, probabilities
from budwood.evaluation.predictions import Predictions
from budwood.explain.embeddings import compute_run_features, find_nearest
from budwood.inference.feature_cache import find_missing_features
from budwood.runs.networks import make_trunk
from budwood.runs.run import Run
from budwood.storage.context import Context

PAIRS: Final = 6
EXAMPLES: Final = 4  # of a pair


@dataclass(frozen=True)
class Mistake:
    """One misclassified image, beside a similar correct image of the predicted class.

    The similar image is the one that the network finds most like it among the correctly classified images of the
    predicted class; its fields are None where there is no such image.

    Attributes:
        id: Content id of the image.
        path: Path of the image, relative to the data set.
        probability: Probability of the predicted class, 0 to 1.
        like_id: Content id of the similar image, or None.
        like_path: Path of the similar image, or None.
        similarity: Cosine between the two images, or None.
    """

    id: str
    path: str
    probability: float
    like_id: str | None
    like_path: str | None
    similarity: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """A class that was predicted as another, with the mistakes of highest confidence.

    Attributes:
        actual: Name of the true class.
        called: Name of the predicted class.
        count: Number of images of `actual` that were predicted as `called`.
        share: That count as a share of all images of `actual`, with a 95 % interval.
        by: What similarity is measured by: the cosine of `features`, or of centred `logits`.
        examples: The most confident mistakes, the surest first.
    """

    actual: str
    called: str
    count: int
    share: Metric
    by: str
    examples: tuple[Mistake, ...]

    def record(self) -> dict[str, Any]:
        """Convert the pair to plain values.

        Returns:
            The fields by name, those of the examples included.
        """
        return asdict(self)


def find_confusions(
    run: Run, context: Context, *, pairs: int = PAIRS, examples: int = EXAMPLES
) -> tuple[ConfusedPair, ...]:
    """Find the most confused pairs of classes on validation.

    Similarity is measured by features where the store has all of them, else by logits, so that the network computes
    nothing.

    Args:
        run: The run.
        context: The cache folder, and where progress is shown.
        pairs: Number of pairs at most.
        examples: Number of mistakes of each pair at most.

    Returns:
        The pairs, most frequent first.

    Raises:
        RunError: When images have several labels each, so that none is predicted as one class.
    """
    predictions = run.predictions("val")
    if predictions.task.multilabel:
        raise RunError(
            f"{run.path}: its data are multi-label (several labels for an image), so there is no confusion matrix.",
            "The report shows precision and recall of each class.",
        )
    known = run.record.trained == "head"
    samples = run.dataset().samples("val")
    if known and samples.ids == predictions.ids and not find_missing_features(make_trunk(run, context), samples):
        features = compute_run_features(run, samples, context)
        return rank_confused_pairs(predictions, run.classes, features, "features", pairs, examples)
    centred = predictions.logits - predictions.logits.mean(axis=1, keepdims=True)
    return rank_confused_pairs(predictions, run.classes, centred, "logits", pairs, examples)


def rank_confused_pairs(
    predictions: Predictions,
    classes: Sequence[str],
    space: NDArray[np.float32],
    by: str,
    pairs: int = PAIRS,
    examples: int = EXAMPLES,
) -> tuple[ConfusedPair, ...]:
    """Rank the most confused pairs of classes among predictions.

    Args:
        predictions: Predictions for one split, with one label an image.
        classes: Names of the classes.
        space: float32 [n, values], the vectors whose cosine measures similarity.
        by: What `space` holds, `features` or `logits`; it is only recorded.
        pairs: Number of pairs at most.
        examples: Number of mistakes of each pair at most.

    Returns:
        The pairs, most frequent first; those that never occur are left out.
    """
    matrix = confusion(predictions.labels, predictions.logits)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:pairs]
    found = [divmod(place, len(classes)) for place in order.tolist() if wrong.flat[place] > 0]
    chances, called = probabilities(predictions.logits), predictions.logits.argmax(axis=1)
    made = []
    for actual, guess in found:
        rows = np.flatnonzero((predictions.labels == actual) & (called == guess))
        surest = rows[np.argsort(-chances[rows, guess], kind="stable")][:examples]
        hits = np.flatnonzero((predictions.labels == guess) & (called == guess))
        near, cosines = find_nearest(space[surest], space[hits], 1, np.full(len(surest), -1))
        shown = [
            Mistake(
                predictions.ids[row],
                predictions.paths[row],
                float(chances[row, guess]),
                *_find_alike(predictions, hits, near[place], cosines[place]),
            )
            for place, row in enumerate(surest.tolist())
        ]
        times = proportion_interval(len(rows), int(matrix[actual].sum()))
        made.append(ConfusedPair(classes[actual], classes[guess], len(rows), times, by, tuple(shown)))
    return tuple(made)


def _find_alike(
    predictions: Predictions, hits: NDArray[np.int64], near: NDArray[np.int64], cosines: NDArray[np.float32]
) -> tuple[str | None, str | None, float | None]:
    """The id, the path and the likeness of the nearest hit."""
    if len(near) == 0:
        return None, None, None
    row = int(hits[near[0]])
    return predictions.ids[row], predictions.paths[row], float(cosines[0])
