"""Predict: images from anywhere, one batch after another, to answers; nothing of them is kept in the cache.

What `test` computes is read from the cache and kept there, since every run on a data set asks for it again. Images that
are only predicted are seen once: keeping their pixels and features would push out what training needs.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, Final

from budwood.data.dataset import Dataset
from budwood.data.frames import is_frame
from budwood.data.given import list_given_images
from budwood.data.given_rows import are_paths
from budwood.data.image_streams import LIST, PATTERN, StreamedImage, stream_images
from budwood.data.pixel_files import read_given
from budwood.errors import DataError
from budwood.evaluation.prediction_list import PredictionList
from budwood.evaluation.prediction_table import TOP, ImagePrediction, refuse_bad_top
from budwood.hardware import count_processors
from budwood.inference.engines import BATCH
from budwood.progress import Progress
from budwood.runs.base_predictor import Predictor, ReadImage
from budwood.runs.run import Run

AHEAD: Final = 4 * BATCH  # images that are decoded before they are needed
MOST_TOGETHER: Final = 16 * BATCH  # images of a batch, those included that cannot be read


def predict(
    run: Run | str | Path,
    files: Any,
    *,
    int8: bool = False,
    top: int = TOP,
    features: bool = False,
    coverage: float | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PredictionList:
    """Predict the classes of images, in files, folders and archives or as a program has them, with a run's network.

    Args:
        run: The run, its path or name, or a file that `budwood export` made.
        files: One or several: files, folders, archives and patterns such as `photos/**/*.jpg`; what is hidden in
            folders is left out. Or images of every form that `scan` takes: the bytes of files, PIL images, arrays,
            tensors, a frame or a data set of them, whose labels are not looked at; or a `Dataset`, of which all images
            are predicted.
        int8: Whether to compute in 8-bit integers, unless that classifies fewer of the run's validation images
            correctly.
        top: Number of likeliest classes to give of each image.
        features: Whether each prediction has what the head received.
        coverage: The share of images whose true class is to be in their prediction set; None: that of the run.
        cache: The cache folder, which keeps the network for the next time; None: the usual one.
        progress: Where notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        A prediction for each image, in order; one that cannot be decoded has its problem instead. Images that are no
        files are named `image 0`, `image 1`, ... The list is a table, too:
        `.to_pandas()`.

    Raises:
        DataError: A path does not exist, an archive is damaged, or a value is no image.
        RunError: There is no such finished run, or its files were changed.
        StorageError: The cache cannot be written.
    """
    images = _open_stream(files)
    refuse_bad_top(top)
    predictor = Predictor.open(run, int8=int8, coverage=coverage, cache=cache, progress=progress)
    answers = predict_stream(predictor, images, top=top, features=features)
    return PredictionList(chain.from_iterable(answers), predictor.classes, predictor.task.multilabel)


def _open_stream(files: Any) -> Iterator[StreamedImage]:
    """The images of an argument, of which what is no image is refused before a network is loaded."""
    if isinstance(files, Dataset):
        paths = [files.root / path for path in files.table["path"].to_pylist()]
        return (StreamedImage(str(path), path) for path in paths)
    if isinstance(files, Iterable) and not (hasattr(files, "__getitem__") or is_frame(files)):
        files = list(files)
    if not are_paths(files):
        count, take = list_given_images(files)
        return (_name_given(read_given(take(row), f"image {row}"), row) for row in range(count))
    sources = list_sources(files)
    check_sources(sources)
    return stream_images(sources)


def _name_given(content: Path | bytes, row: int) -> StreamedImage:
    return StreamedImage(str(content) if isinstance(content, Path) else f"image {row}", content)


def list_sources(files: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """List the paths of an argument that may be one path or several.

    Args:
        files: One or several paths.

    Returns:
        The paths.
    """
    return [files] if isinstance(files, (str, Path)) else list(files)


def check_sources(sources: Sequence[str | Path]) -> None:
    """Check that what is to be predicted is there, before anything is loaded.

    Args:
        sources: As for `stream_images`.

    Raises:
        DataError: A path does not exist.
    """
    for source in sources:
        path = Path(source)
        if not str(source):
            raise DataError("IMAGES: an empty path.", "Write `.` for the working folder.")
        is_pattern = any(letter in str(source) for letter in PATTERN)
        if str(source) != LIST and not is_pattern and not path.exists() and not path.is_symlink():
            raise DataError(f"{path}: no such file or folder.", "Check the path, and quote it if it contains spaces.")


def predict_stream(
    predictor: Predictor, images: Iterable[StreamedImage], *, top: int = TOP, features: bool = False
) -> Iterator[list[ImagePrediction]]:
    """Predict images as they come; decoding goes on while the network computes.

    Args:
        predictor: Says what images show.
        images: The images; at most 64 of them are read ahead.
        top: Number of likeliest classes to give of each image.
        features: Whether each prediction has what the head received.

    Yields:
        Predictions of some images after another, in order: of full batches of those that can be read.

    Raises:
        DataError: An archive is damaged.
        WeightsError: A logit is not finite.
    """
    batch: list[ReadImage] = []
    for image in _read_ahead(images, lambda image: _read(predictor, image)):
        batch.append(image)
        if len(batch) == MOST_TOGETHER or sum(not one.problem for one in batch) == BATCH:
            yield predictor.answer(batch, top, features=features)
            batch = []
    if batch:
        yield predictor.answer(batch, top, features=features)


def _read(predictor: Predictor, image: StreamedImage) -> ReadImage:
    if image.problem:
        return ReadImage(image.name, problem=image.problem)
    return predictor.read(image.content, image.name)


def _read_ahead(images: Iterable[StreamedImage], read: Callable[[StreamedImage], ReadImage]) -> Iterator[ReadImage]:
    """Images in order, read by threads before they are asked for."""
    pool, ahead = ThreadPoolExecutor(count_processors()), deque[Future[ReadImage]]()
    try:
        for image in images:
            ahead.append(pool.submit(read, image))
            if len(ahead) >= AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class NamesDigest:
    """A digest of the names of images in their order, by which two streams are told apart."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, name: str) -> None:
        """Add the next name."""
        self._digest.update(name.encode("utf-8", "surrogatepass") + b"\0")

    def __str__(self) -> str:
        return self._digest.hexdigest()
