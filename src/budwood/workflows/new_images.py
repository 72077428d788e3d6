"""Images that a run has not seen: files, folders and archives, decoded, with their features and logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.data.archives import extract, is_archive
from budwood.data.dataset import SEALED, Dataset, Samples
from budwood.data.file_tree import find_image_files, may_be_image
from budwood.data.images import BadImage
from budwood.data.metadata import compute_content_ids
from budwood.errors import DataError
from budwood.inference.bundle import Prefix
from budwood.inference.feature_cache import compute_features
from budwood.runs.networks import make_trunk
from budwood.runs.novelty_bank import find_feature_run
from budwood.runs.predictor import make_predictor
from budwood.runs.run import Run
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NewImages:
    """Images that can be decoded, each content once, and what was left out.

    Attributes:
        samples: The images; their labels are not known.
        unreadable: Path and problem of each file that cannot be decoded.
        known: Path and split (`train`, `val`, `test`) of each file that has the content of an image of the data set.
        repeated: Number of files that have the content of an earlier one.
        found: Number of all files.
        from_archive: Whether an archive was among the sources.
    """

    samples: Samples
    unreadable: tuple[tuple[str, str], ...]
    known: tuple[tuple[str, str], ...]
    repeated: int
    found: int
    from_archive: bool


def find_new_images(
    sources: Sequence[str | Path], run: Run, data: Dataset, context: Context, leave_out: Sequence[str]
) -> NewImages:
    """Find the images of files, folders and archives.

    Args:
        sources: Files, folders and archives.
        run: The run, which has read its images in a certain way.
        data: Its data set.
        context: The cache folder, for archives, and where bars go.
        leave_out: Splits of the data set whose images are left out where they are met again.

    Returns:
        The images.

    Raises:
        DataError: A source does not exist, or an archive cannot be used.
    """
    places = [Path(source) for source in sources]
    archives = [place for place in places if place.is_file() and is_archive(place)]
    paths = list(find_image_files([extract(place, context) if place in archives else place for place in places]))
    named = {place for place in places if place not in archives}
    paths = [path for path in paths if path in named or may_be_image(path)]
    facts = compute_content_ids(paths, context.progress, run.value_range)
    split_of_id = _map_splits(data)
    good, bad, known, seen, repeated = [], [], [], set[str](), 0
    for path, fact in zip(paths, facts, strict=True):
        if isinstance(fact, BadImage):
            bad.append((str(path), f"{fact.problem}: {fact.detail}"))
            continue
        split = split_of_id.get(fact)
        if split:
            known.append((str(path), split))
        if split in leave_out:
            continue
        if fact in seen:
            repeated += 1
            continue
        seen.add(fact)
        good.append((fact, str(path)))
    samples = Samples(
        Path(),
        tuple(id for id, _ in good),
        tuple(path for _, path in good),
        np.full(len(good), SEALED, np.int32),
        value_range=run.value_range,
    )
    return NewImages(samples, tuple(bad), tuple(known), repeated, len(paths), bool(archives))


def _map_splits(data: Dataset) -> dict[str, str]:
    """The split of each content of a data set; one that is in training, too, is training's."""
    names = ("train", "val", "test")
    found: dict[str, str] = {item.id: item.split for item in data.left_out}
    for id, split in sorted(
        zip(data.table["id"].to_pylist(), data.table["split"].to_pylist(), strict=True), key=lambda one: -one[1]
    ):
        found[id] = names[split]
    return found


def refuse_none(new: NewImages, sources: Sequence[str | Path]) -> None:
    """Refuse sources without an image.

    Raises:
        DataError: No image can be decoded.
    """
    if len(new.samples) or new.known:
        return
    place = ", ".join(map(str, sources))
    first = "".join(f"; the first of {len(new.unreadable):,} that cannot be: {path}" for path, _ in new.unreadable[:1])
    raise DataError(
        f"{place}: contains no image that can be decoded{first}.",
        "Give a folder, files or an archive of images.",
        new.unreadable,
    )


def make_feature_trunk(run: Run, context: Context) -> Prefix:
    """Make the trunk that gives a run's features, of an ensemble that of its first member."""
    return make_trunk(find_feature_run(run), context)


def compute_vectors(prefix: Prefix, samples: Samples, context: Context) -> Floats:
    """Compute the features of images.

    Args:
        prefix: The trunk.
        samples: The images.
        context: The cache folder, and where bars go.

    Returns:
        float32 [n, features].

    Raises:
        DataError: An image that has to be read is missing or was changed.
        StorageError: The cache cannot be written.
    """
    with raise_storage_errors(context.cache):
        values = compute_features(prefix, samples, context.progress).values
    return np.ascontiguousarray(values.reshape(len(values), -1))


def compute_answers(run: Run, samples: Samples, context: Context) -> NDArray[np.float64]:
    """Compute the calibrated probabilities of images, float64 [n, classes], as `run.decision_rule` has them."""
    if not len(samples):
        return np.zeros((0, len(run.classes)))
    return run.decision_rule.to_probabilities(make_predictor(run, context).predict_samples(samples))
