"""The images that a run knows, as its network sees them: features, classes and logits; and what is kept of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Samples
from budwood.evaluation.label_task import task_of
from budwood.evaluation.novelty import Features
from budwood.evaluation.novelty_fitting import KnownImages, draw_evenly, limit_bank, pack_arrays
from budwood.evaluation.scoring import Logits
from budwood.inference.feature_cache import compute_features, compute_tta_features, find_missing_features
from budwood.runs.confidence_record import NOVELTY_FILE
from budwood.runs.networks import make_trunk
from budwood.runs.run import Run
from budwood.storage.atomic import raise_storage_errors, write_bytes
from budwood.storage.context import Context

MOST_VALIDATED: Final = 10_000  # validation images that are scored


@dataclass(frozen=True)
class RunImages:
    """Training and validation images of a run, some of them where there are very many.

    Attributes:
        training: The training images, in the order of their contents.
        validation: The validation images, in that order.
        logits: Logits of the validation images, float32 [validation, classes].
        ids: Content ids of the validation images.
    """

    training: KnownImages
    validation: KnownImages
    logits: Logits
    ids: tuple[str, ...]


def find_feature_run(run: Run) -> Run:
    """Return the run whose trunk tells strangers: the run itself, or the member of an ensemble with the most weight."""
    return run.members()[0] if run.record.ensemble else run


def load_run_images(run: Run, context: Context, most_new: int | None = None) -> RunImages | None:
    """Load the features of a run's training and validation images.

    Where only a head was trained they are in the cache. Else the run's own trunk computes them, which needs the images.

    Args:
        run: A finished run that is no ensemble; its weights may be in its folder before its record is.
        context: The cache folder, and where bars and notes go.
        most_new: Number of images of either split that the trunk may see once more where it has to; None: up to 10,000.

    Returns:
        The images: up to 10,000 of either split, fewer training images where features are long, and no more than
        `most_new` where the trunk has to see any; None where it has to and may see none.

    Raises:
        DataError: An image file is gone or was changed.
        WeightsError: The weights cannot be read.
        StorageError: The cache cannot be written.
    """
    trunk, predictions = make_trunk(run, context), run.predictions("val")
    training = _draw(run.dataset().samples("train").in_content_order(), limit_bank(math.prod(trunk.shape)))
    order = np.argsort(np.array(predictions.ids))
    ordered = replace(predictions.samples(run.root), value_range=run.value_range).subset(order)
    validation = _draw(ordered, MOST_VALIDATED)
    if most_new is not None and find_missing_features(trunk, training.join(validation)):
        if not most_new:
            return None
        training, validation = _draw(training, most_new), _draw(validation, most_new)
    with raise_storage_errors(context.cache):
        known = compute_features(trunk, training, context.progress).values
        shown = compute_tta_features(trunk, validation, context.progress).values
    return RunImages(
        _describe(training, known, len(run.classes)),
        _describe(validation, shown, len(run.classes)),
        predictions.in_order(validation.ids).logits,
        validation.ids,
    )


def _draw(samples: Samples, most: int) -> Samples:
    return samples.subset(draw_evenly(samples.labels, most))


def _describe(samples: Samples, features: Features, classes: int) -> KnownImages:
    task = task_of(samples.label_sets, classes)
    return KnownImages(np.asarray(features), task.to_targets(task.read_labels(samples.labels)), task.multilabel)


def align_scores(run: Run, ids: tuple[str, ...], scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return scores of some validation images in the order of a run's predictions, NaN where there is none."""
    score_of_id = dict(zip(ids, scores.tolist(), strict=True))
    return np.array([score_of_id.get(id, np.nan) for id in run.predictions("val").ids], np.float32)


def save_novelty(folder: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Write what a run's scorer keeps, with the scores that the report shows, as one file, atomically.

    Args:
        folder: The run folder.
        arrays: Arrays by name; a bank is written in 16 bits a value.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(one) for name, one in pack_arrays(arrays).items()}
    write_bytes(folder / NOVELTY_FILE, save(tensors))
