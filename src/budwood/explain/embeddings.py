"""Where images lie in the space that a run's network has made of them: features, two axes of it, nearest neighbours.

A feature vector is the output of the trunk, which the head sees. When the store holds all of them, no torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from budwood.data.blocks import split_blocks
from budwood.data.dataset import SEALED, Samples, Sets
from budwood.data.images import BadImage
from budwood.data.listing import SPLITS
from budwood.data.metadata import compute_content_ids
from budwood.data.splits import stratified_sample
from budwood.data.value_range import ValueRange
from budwood.errors import DataError, RunError, did_you_mean
from budwood.evaluation.predictions import Predictions, make_predictions
from budwood.inference.feature_cache import compute_features
from budwood.progress import Progress
from budwood.runs.networks import make_trunk
from budwood.runs.predictor import make_predictor
from budwood.runs.run import Run
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context
from budwood.text import quote_path

Method = Literal["pca", "umap"]
Features = NDArray[np.float32]

MOST: Final = 5000  # images of an embedding
ROWS: Final = 256  # images whose neighbours are looked for at a time
COLUMNS: Final = 4096  # images among which they are looked for at a time
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Embedding:
    """Images of one split as points of a plane.

    Attributes:
        method: `pca` or `umap`.
        split: `train`, `val` or `test`.
        points: float64 [n, 2].
        explained: Shares of variance of the two axes (PCA), or None (UMAP).
        ids: Content ids [n].
        paths: Paths relative to the data set [n].
        labels: int32 [n]; where images have several labels each, the number of a set of classes in `sets`.
        predicted: int32 [n], the likeliest classes.
        right: bool [n], whether each image is classified correctly.
        of: Number of images of the split; the n are a sample where there are too many.
        sets: Sets of classes, where images have several labels each; else empty.
    """

    method: str
    split: str
    points: NDArray[np.float64]
    explained: tuple[float, float] | None
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    predicted: NDArray[np.int32]
    correct: NDArray[np.bool_]
    of: int
    label_sets: Sets = ()

    def __len__(self) -> int:
        """Return the number of points.

        Returns:
            The number of images that are placed, n.
        """
        return len(self.ids)


@dataclass(frozen=True)
class Neighbours:
    """Training images nearest to one image, nearest first.

    Attributes:
        id: Content id of the image.
        path: Path of the image.
        ids: Content ids of the neighbours [k].
        paths: Paths of the neighbours, relative to the data set [k].
        labels: int32 [k], labels of the neighbours.
        similarities: float32 [k], cosines of the angles between the features (1: the same direction).
    """

    id: str
    path: str
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    similarities: NDArray[np.float32]


def compute_run_features(run: Run, samples: Samples, context: Context) -> Features:
    """Compute the features of images as they are (no flips), or read them from the store.

    What is computed is stored.

    Args:
        run: The run whose trunk makes the features.
        samples: The images.
        context: The cache folder, and where progress is shown.

    Returns:
        float32 [n, features]; of an ensemble those of its members, each of length 1 and weighted so that the cosine
        of two images is the weighted mean of the members' cosines (of those whose features are not all 0).

    Raises:
        DataError: When an image was changed since it was scanned.
        RunError: When the weights that a head was trained on are not on this machine.
        StorageError: When the cache cannot be written.
    """
    made = run.record.ensemble
    if made:
        parts = [compute_run_features(member, samples, context) for member in run.members()]
        weights = [member.weight**0.5 for member in made.members]
        return np.concatenate([w * _normalise(part) for w, part in zip(weights, parts, strict=True)], axis=1)
    own = replace(samples, value_range=run.value_range)
    with raise_storage_errors(context.cache):
        return compute_features(make_trunk(run, context), own, context.progress).values


def make_embedding(
    run: Run, context: Context, split: str = "val", method: Method = "pca", *, most: int = MOST
) -> Embedding:
    """Place the images of a split in a plane.

    Of too many images a sample is taken in which each class has its share.

    Args:
        run: The run.
        context: The cache folder, and where progress is shown.
        split: `train`, `val`, or `test` once it has been opened.
        method: `pca` or `umap`.
        most: Number of images at most.

    Returns:
        The points, with labels and predictions.

    Raises:
        RunError: When the method or split does not exist, the test split is sealed, or UMAP is not installed.
        DataError: When an image was changed since it was scanned.
    """
    if method not in get_args(Method):
        raise RunError(f"method: there is no method {method!r}.", did_you_mean(method, get_args(Method)))
    if method == "umap":
        _refuse_without_umap()
    whole = load_or_predict(run, split, context)
    chosen = np.flatnonzero(stratified_sample(whole.ids, whole.labels, most))
    samples = whole.samples(run.dataset().root).subset(chosen)
    features = compute_run_features(run, samples, context)
    points, explained = project_on_principal_axes(features) if method == "pca" else (_project_umap(features), None)
    return Embedding(
        method,
        split,
        points,
        explained,
        samples.ids,
        samples.paths,
        samples.labels,
        whole.logits[chosen].argmax(axis=1).astype(np.int32),
        whole.correct[chosen],
        len(whole.ids),
        whole.label_sets,
    )


def load_or_predict(run: Run, split: str, context: Context) -> Predictions:
    """Load a run's predictions for a split; compute those for the training split.

    Args:
        run: The run.
        split: `train`, `val` or `test`.
        context: The cache folder, and where progress is shown.

    Returns:
        The predictions.

    Raises:
        RunError: When the split does not exist, or is a test split that has not been opened.
        StorageError: When the cache cannot be written.
    """
    if split not in SPLITS:
        raise RunError(f"split: there is no split {split!r}.", f"Valid: {', '.join(SPLITS)}.")
    if split == "test" and run.record.test is None:
        raise RunError(f"{run.path}: its test set is sealed.", f"Run `budwood test {quote_path(run.path)}` first.")
    if split != "train":
        return run.predictions(split)
    samples = run.dataset().samples(split)
    return make_predictions(samples, make_predictor(run, context).predict_samples(samples))


def project_on_principal_axes(features: Features) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Project features on the two axes along which they vary most.

    This is principal component analysis (Pearson 1901; Hotelling 1933), computed exactly by the singular value
    decomposition of the centred features in float64; where there are more images than features, of the triangular
    factor of their QR decomposition, which has the same axes. The largest entry of each axis is positive, so that
    signs do not depend on the machine. An axis that does not exist is zero.

    Args:
        features: float32 [n, features].

    Returns:
        The points float64 [n, 2], and the share of variance of each axis, 0 to 1.
    """
    centred = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    tall = len(centred) > centred.shape[1]
    _, lengths, axes = np.linalg.svd(np.linalg.qr(centred, mode="r") if tall else centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    points = np.zeros((len(centred), 2))
    points[:, : len(axes)] = centred @ axes.T
    variance = np.square(lengths)
    shares = np.zeros(2)
    if variance.sum() > _TINY:
        shares[: len(axes)] = variance[:2] / variance.sum()
    return points, (float(shares[0]), float(shares[1]))


def find_neighbours(run: Run, images: Samples | Iterable[str | Path], context: Context, k: int = 5) -> list[Neighbours]:
    """Find the training images that a run's network finds most similar to each image.

    Similarity is the cosine of the features. The search is exact. An image of the training split is not its own
    neighbour.

    Args:
        run: The run.
        images: Image files, or samples of a data set.
        context: The cache folder, and where progress is shown.
        k: Number of neighbours, from 1.

    Returns:
        The neighbours of each image in order, nearest first; fewer than `k` where there are fewer training images.

    Raises:
        DataError: When a file is missing or cannot be decoded.
        RunError: When `k` is below 1.
    """
    if k < 1:
        raise RunError(f"k: expected a whole number from 1, found {k}.", "Ask for 5 neighbours.")
    asked = images if isinstance(images, Samples) else make_file_samples(images, context.progress, run.value_range)
    known = _list_training_images(run)
    own = {id: row for row, id in enumerate(known.ids)}
    features = compute_run_features(run, asked, context)
    training = compute_run_features(run, known, context)
    skipped = np.array([own.get(id, -1) for id in asked.ids], np.int64)
    rows, similarities = find_nearest(features, training, k, skipped)
    return [
        Neighbours(
            id,
            path,
            tuple(known.ids[row] for row in found.tolist()),
            tuple(known.paths[row] for row in found.tolist()),
            known.labels[found],
            near,
        )
        for id, path, found, near in zip(asked.ids, asked.paths, rows, similarities, strict=True)
    ]


def _list_training_images(run: Run) -> Samples:
    """The images that a run was trained on; of an ensemble of folds all outside the test split."""
    folds = run.record.ensemble is not None and run.record.ensemble.folds
    return run.dataset().samples("val" if folds else "train")


def make_file_samples(files: Iterable[str | Path], progress: Progress, scale: ValueRange | None = None) -> Samples:
    """Make samples without labels of image files.

    Args:
        files: Image files.
        progress: Where progress is shown.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        The samples in order, with their paths as given and their content ids.

    Raises:
        DataError: When files cannot be read as images; it names all of them.
    """
    paths = [Path(file) for file in files]
    found = compute_content_ids(paths, progress, scale)
    bad = [
        f"{path} ({one.problem}: {one.detail})"
        for path, one in zip(paths, found, strict=True)
        if isinstance(one, BadImage)
    ]
    if bad:
        raise DataError(f"These files cannot be read as images: {'; '.join(bad)}.", "Leave them out, or repair them.")
    ids = tuple(str(one) for one in found)
    return Samples(Path(), ids, tuple(map(str, paths)), np.full(len(ids), SEALED, np.int32), value_range=scale)


def find_nearest(
    features: Features, among: Features, k: int, skipped: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Features]:
    """Find the rows with the largest cosine to each of some vectors.

    All pairs are compared, in blocks of `ROWS` x `COLUMNS`. A row of zeros is similar to none: its cosine is 0.

    Args:
        features: float32 [n, features], the vectors to find neighbours of.
        among: float32 [m, features], the vectors to search.
        k: Number of neighbours.
        skipped: int64 [n], a row of `among` that is no answer, or -1.

    Returns:
        Rows of `among` int64 [n, k], the largest cosine first, and the cosines float32 [n, k]; fewer columns where
        `among` has fewer rows.
    """
    k = min(k, len(among) - int(np.any(skipped >= 0)))
    rows, cosines = np.empty((len(features), max(k, 0)), np.int64), np.empty((len(features), max(k, 0)), np.float32)
    if k < 1:
        return rows, cosines
    unit = _normalise(among)
    for part in split_blocks(len(features), ROWS):
        best, where = _find_nearest_block(_normalise(features[part]), unit, k, skipped[part])
        rows[part], cosines[part] = where, best
    return rows, cosines


def _find_nearest_block(
    block: Features, among: Features, k: int, skipped: NDArray[np.int64]
) -> tuple[Features, NDArray[np.int64]]:
    """The k largest cosines of a block of images to all others, and their rows."""
    best = np.empty((len(block), 0), np.float32)
    where = np.empty((len(block), 0), np.int64)
    for part in split_blocks(len(among), COLUMNS):
        cosines = block @ among[part].T
        inside = np.flatnonzero((skipped >= part.start) & (skipped < part.stop))
        cosines[inside, skipped[inside] - part.start] = -np.inf
        best = np.concatenate([best, cosines], axis=1)
        numbers = np.broadcast_to(np.arange(part.start, part.start + cosines.shape[1]), cosines.shape)
        where = np.concatenate([where, numbers], axis=1)
        if best.shape[1] > k:
            kept = np.argpartition(-best, k - 1, axis=1)[:, :k]
            best, where = np.take_along_axis(best, kept, 1), np.take_along_axis(where, kept, 1)
    order = np.lexsort((where, -best), axis=1)
    return np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)


def _normalise(features: Features) -> Features:
    """Features divided by their length."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1), np.float32)


def _project_umap(features: Features) -> NDArray[np.float64]:
    """Features on a plane that keeps neighbours together (McInnes, Healy and Melville 2018), with a fixed seed."""
    from umap import UMAP

    near = max(2, min(15, len(features) - 1))
    start = "spectral" if len(features) > near + 2 else "random"
    return np.asarray(UMAP(n_neighbors=near, init=start, random_state=0, n_jobs=1).fit_transform(features), np.float64)


def _refuse_without_umap() -> None:
    if find_spec("umap") is None:
        raise RunError("method: umap-learn is not installed.", "Install it with: pip install 'budwood[embed]'")
