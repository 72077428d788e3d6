"""Features: what the head of a run's network receives for images, as an array for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.data.image_inputs import ImageInput, list_inputs, name_input
from budwood.errors import DataError
from budwood.inference.engines import BATCH
from budwood.progress import Progress
from budwood.runs.base_predictor import Predictor, ReadImage
from budwood.runs.run import Run
from budwood.storage.context import open_context


def features(
    run: Run | str | Path,
    files: ImageInput | Sequence[ImageInput],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Compute the features of images: what the network's head receives.

    Args:
        run: A finished run, its path or name, or a file that `budwood export` made.
        files: One image or several, as `bw.Predictor.predict` takes them: paths, folders (their files in order of
            path), the bytes of files, PIL images or arrays.
        cache: The cache folder, which keeps the network for the next time; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        float32 [n, features], in the order of the images; the mean over the mirror images of the recipe's `tta`. Of an
        ensemble, those of the network with the largest weight.

    Raises:
        DataError: An image cannot be decoded, is not there, or is none.
        RunError: There is no such finished run, or its files were changed.
        StorageError: The cache cannot be written.
    """
    context = open_context(cache, progress)
    given = list_inputs(files)
    _refuse_missing(given)
    predictor = Predictor.open(run, cache=cache, progress=context.progress)
    with context.progress.bar("Computing features", len(given)) as step:
        blocks = list(_compute_blocks(predictor, given, step))
    if blocks:
        return np.concatenate(blocks)
    side = next((one[0] for one in predictor.squares if one), 1)
    return predictor.compute_outputs(np.zeros((0, side, side, 3), np.uint8)).features


def _refuse_missing(images: Iterable[ImageInput]) -> None:
    """Raise `DataError` where a file is not there, before anything is loaded."""
    missing = [str(one) for one in images if isinstance(one, str | Path) and not Path(one).exists()]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more}: no such file or folder.", "Check the path.")


def _compute_blocks(
    predictor: Predictor, images: Sequence[ImageInput], step: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    for first in range(0, len(images), BATCH):
        read = [_read(predictor, images[row], row) for row in range(first, min(first + BATCH, len(images)))]
        yield np.asarray(predictor.compute_read(read, True).features, np.float32)
        step(len(read))


def _read(predictor: Predictor, image: ImageInput, number: int) -> ReadImage:
    read = predictor.read(image, name_input(image, number))
    if read.problem:
        raise DataError(f"{read.name}: {read.problem.partition(': ')[2]}.", "Leave it out, or replace it by an image.")
    return read
