"""Which classes are taken for which, with images that show it: predictions to records, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.errors import RunError
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.metrics import confusion, probabilities
from budwood.evaluation.predictions import Predictions
from budwood.explain.embeddings import compute_run_features, find_nearest
from budwood.inference.feature_cache import find_missing_features
from budwood.progress import Progress, Silent
from budwood.runs.networks import make_trunk
from budwood.runs.run import Run
from budwood.storage.atomic import cache_folder

PAIRS: Final = 6
EXAMPLES: Final = 4  # of a pair


@dataclass(frozen=True)
class Mistake:
    """One image that was called wrongly, with the probability (0 to 1) of what it was called, and the image of that
    class, rightly called, which the network finds most like it; None where no image of it was called rightly."""

    id: str
    path: str
    probability: float
    like_id: str | None
    like_path: str | None
    similarity: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """A class that was taken for another: how often of all its images, with a 95 % interval, and the mistakes that the
    network was surest of. `by` says what likeness was measured by: the cosine of features, or of centred logits."""

    actual: str
    called: str
    count: int
    share: Metric
    by: str
    examples: tuple[Mistake, ...]

    def record(self) -> dict[str, Any]:
        """The pair as plain values."""
        return asdict(self)


def find_confusions(
    run: Run,
    *,
    pairs: int = PAIRS,
    examples: int = EXAMPLES,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[ConfusedPair, ...]:
    """The most confused pairs of classes on validation, most frequent first.

    Likeness is measured by features where the store has them, else by logits, so that nothing is computed by the
    network. Raises `RunError` for images with several labels each, which are not called one class.
    """
    predictions = run.predictions("val")
    if predictions.task.multilabel:
        raise RunError(
            f"{run.path}: its data are multi-label (several labels for an image), so there is no confusion matrix.",
            "The report shows precision and recall of each class.",
        )
    cache, progress = cache or cache_folder(), progress or Silent()
    known = run.record.trained == "head"
    samples = run.dataset().samples("val")
    if (
        known
        and samples.ids == predictions.ids
        and not find_missing_features(make_trunk(run, cache, progress), samples)
    ):
        features = compute_run_features(run, samples, cache=cache, progress=progress)
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
    """The most confused pairs of classes; `space` float32 [n, ...] holds the vectors that likeness is measured by."""
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
