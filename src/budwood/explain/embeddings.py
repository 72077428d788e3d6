"""Where images lie in the space that a run's network has made of them: features, two axes of it, nearest neighbours.

A feature vector is the output of the trunk, which the head sees. When the store holds all of them, no torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Samples, Sets
from budwood.data.images import BadImage
from budwood.data.listing import SPLITS
from budwood.data.metadata import compute_content_ids
from budwood.data.splits import stratified_sample
from budwood.errors import DataError, RunError, did_you_mean
from budwood.evaluation.predictions import Predictions, make_predictions
from budwood.inference.feature_cache import compute_features
from budwood.progress import Progress, Silent
from budwood.runs.networks import make_trunk, predict_logits
from budwood.runs.run import Run
from budwood.storage.atomic import cache_folder, raise_storage_errors

Method = Literal["pca", "umap"]
Features = NDArray[np.float32]

MOST: Final = 5000  # images of an embedding
ROWS: Final = 256  # images whose neighbours are looked for at a time
COLUMNS: Final = 4096  # images among which they are looked for at a time
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Embedding:
    """Images of one split as points of a plane: float64 [n, 2], with ids, paths, labels and predicted classes int32
    [n], and whether each is right bool [n].

    `explained` are the shares of variance of the two axes (PCA), or None (UMAP). `of` counts the split's images, of
    which the n are a sample where there were too many. Where images have several labels each, a label is the number of
    a set of classes in `label_sets`, and `predicted` is the likeliest class.
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
        return len(self.ids)


@dataclass(frozen=True)
class Neighbours:
    """The training images nearest to one image, nearest first: ids, paths, labels int32 [k], and the cosine of the
    angle between the features float32 [k] (1: the same direction)."""

    id: str
    path: str
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    similarities: NDArray[np.float32]


def compute_run_features(
    run: Run, samples: Samples, *, cache: Path | None = None, progress: Progress | None = None
) -> Features:
    """The features of images as they are (no flips): float32 [n, features], from the store or computed and stored.

    Raises `DataError` for an image that was changed since it was scanned.
    """
    cache, progress = cache or cache_folder(), progress or Silent()
    with raise_storage_errors(cache):
        return compute_features(make_trunk(run, cache, progress), samples, progress).values


def make_embedding(
    run: Run,
    split: str = "val",
    method: Method = "pca",
    *,
    most: int = MOST,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Embedding:
    """The images of a split as points of a plane, at most so many of them, each class with its share.

    `split` is train, val, or test once it was opened. Raises `RunError` for a test split that was not, and when UMAP is
    asked for and not installed.
    """
    if method not in get_args(Method):
        raise RunError(f"method: there is no method {method!r}.", did_you_mean(method, get_args(Method)))
    if method == "umap":
        _refuse_without_umap()
    cache, progress = cache or cache_folder(), progress or Silent()
    whole = load_or_predict(run, split, cache, progress)
    chosen = np.flatnonzero(stratified_sample(whole.ids, whole.labels, most))
    samples = Samples(
        run.dataset().root,
        tuple(whole.ids[row] for row in chosen.tolist()),
        tuple(whole.paths[row] for row in chosen.tolist()),
        whole.labels[chosen],
        whole.label_sets,
    )
    features = compute_run_features(run, samples, cache=cache, progress=progress)
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


def load_or_predict(run: Run, split: str, cache: Path, progress: Progress) -> Predictions:
    """A run's predictions for a split; those for train are computed. Raises `RunError` for a test split that was not
    opened, and for a split that does not exist."""
    if split not in SPLITS:
        raise RunError(f"split: there is no split {split!r}.", f"Valid: {', '.join(SPLITS)}.")
    if split == "test" and run.record.test is None:
        raise RunError(f"{run.path}: its test set is sealed.", f"Run `budwood test {run.path}` first.")
    if split != "train":
        return run.predictions(split)
    samples = run.dataset().samples(split)
    with raise_storage_errors(cache):
        return make_predictions(samples, predict_logits(run, samples, cache, progress))


def project_on_principal_axes(features: Features) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Features [n, features] on the two axes along which they differ most, float64 [n, 2], and the share of variance of
    each (principal component analysis, Pearson 1901; Hotelling 1933).

    Computed exactly, by the singular value decomposition of the centred features in float64; where there are more
    images than features, of the triangular factor of their QR decomposition, which has the same axes. The largest entry
    of each axis is positive, so that signs do not depend on the machine. An axis that does not exist is zero.
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


def find_neighbours(
    run: Run,
    images: Samples | Iterable[str | Path],
    k: int = 5,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Neighbours]:
    """The k training images that a run's network finds most like each image, by the cosine of their features.

    The search is exact. An image that was itself trained on is not its own neighbour. Raises `DataError` for a file
    that is missing or cannot be decoded, `RunError` for a k below 1.
    """
    if k < 1:
        raise RunError(f"k: expected a whole number from 1, found {k}.", "Ask for 5 neighbours.")
    progress = progress or Silent()
    asked = images if isinstance(images, Samples) else make_file_samples(images, progress)
    known = run.dataset().samples("train")
    own = {id: row for row, id in enumerate(known.ids)}
    features = compute_run_features(run, asked, cache=cache, progress=progress)
    training = compute_run_features(run, known, cache=cache, progress=progress)
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


def make_file_samples(files: Iterable[str | Path], progress: Progress) -> Samples:
    """Image files as samples without labels, in order; raises `DataError` that names every file that cannot be read."""
    paths = [Path(file) for file in files]
    found = compute_content_ids(paths, progress)
    bad = [
        f"{path} ({one.problem}: {one.detail})"
        for path, one in zip(paths, found, strict=True)
        if isinstance(one, BadImage)
    ]
    if bad:
        raise DataError(f"These files cannot be read as images: {'; '.join(bad)}.", "Leave them out, or repair them.")
    ids = tuple(str(one) for one in found)
    return Samples(Path(), ids, tuple(map(str, paths)), np.full(len(ids), SEALED, np.int32))


def find_nearest(
    features: Features, among: Features, k: int, skipped: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Features]:
    """The rows of `among` with the largest cosine to each row of `features`, largest first: int64 [n, k], and the
    cosines float32 [n, k], with fewer columns where there are fewer rows. `skipped` int64 [n] is a row that is no
    answer, or -1.

    All pairs are compared, a block of ROWS x COLUMNS at a time. A row of zeros is like none: its cosine is 0.
    """
    k = min(k, len(among) - int(np.any(skipped >= 0)))
    rows, cosines = np.empty((len(features), max(k, 0)), np.int64), np.empty((len(features), max(k, 0)), np.float32)
    if k < 1:
        return rows, cosines
    unit = _normalise(among)
    for part in _split_blocks(len(features), ROWS):
        best, where = _find_nearest_block(_normalise(features[part]), unit, k, skipped[part])
        rows[part], cosines[part] = where, best
    return rows, cosines


def _find_nearest_block(
    block: Features, among: Features, k: int, skipped: NDArray[np.int64]
) -> tuple[Features, NDArray[np.int64]]:
    """The k largest cosines of a block of images to all others, and their rows."""
    best = np.empty((len(block), 0), np.float32)
    where = np.empty((len(block), 0), np.int64)
    for part in _split_blocks(len(among), COLUMNS):
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


def _split_blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _project_umap(features: Features) -> NDArray[np.float64]:
    """Features on a plane that keeps neighbours together (McInnes, Healy and Melville 2018), with a fixed seed."""
    from umap import UMAP

    near = max(2, min(15, len(features) - 1))
    start = "spectral" if len(features) > near + 2 else "random"
    return np.asarray(UMAP(n_neighbors=near, init=start, random_state=0, n_jobs=1).fit_transform(features), np.float64)


def _refuse_without_umap() -> None:
    if find_spec("umap") is None:
        raise RunError("method: umap-learn is not installed.", "Install it with: pip install 'budwood[embed]'")
