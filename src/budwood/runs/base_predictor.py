"""What every predictor answers, whatever it was opened from.

A predictor reads an image, computes its network's outputs, and says by its rules what the image shows. A kind of
predictor gives four things: `rules` (classes, decision rule, novelty, training images), `squares` (the size of each
network's input, and how an image becomes one) with `value_range`, `compute` (pixels to features and logits), and
`identity` (by which an interrupted command knows that its answers go on alike). All else - forms of images, labels,
sets, notes - is written here once.

- `predictor.RunPredictor`: a run's network; `predictor.EnsemblePredictor`: the networks of an ensemble;
  `bundle_predictor.BundlePredictor`: an exported file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from budwood.data.image_inputs import ImageInput, list_inputs, name_input, read_input
from budwood.data.images import BadImage, ImageShape, Square
from budwood.data.loading import Pixels, resize_pixels
from budwood.data.value_range import ValueRange
from budwood.errors import DataError, RunError
from budwood.evaluation.label_task import LabelTask
from budwood.evaluation.prediction_table import TOP, ImagePrediction, refuse_bad_top
from budwood.progress import Progress
from budwood.runs.answers import AnswerRules, Outputs

if TYPE_CHECKING:
    from budwood.runs.run import Run

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class ReadImage:
    """An image as the networks receive it.

    Attributes:
        name: Its path, or `image` with its number.
        pixels: For each network, uint8 [size, size, 3]; none where the image could not be read.
        shape: What the image was like; None where it could not be read.
        problem: Why it could not be read; empty if it could.
        outputs: What the network makes of it, where that is computed at once, so that no pixels are kept.
    """

    name: str
    pixels: tuple[Pixels, ...] = ()
    shape: ImageShape | None = None
    problem: str = ""
    outputs: Outputs | None = None


class Predictor(ABC):
    """A network, loaded once and asked about images as often as wanted.

    It may be used by many threads at once. What it is asked writes nothing to the disk; only opening it may fill the
    cache, so that it opens faster the next time.
    """

    @classmethod
    def open(
        cls,
        run: Run | str | Path,
        *,
        int8: bool = False,
        coverage: float | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> Predictor:
        """Open a run's network, or an exported ONNX file, and load it.

        Args:
            run: A finished run, its path or name, or the path of a file that `budwood export` made.
            int8: Whether to compute in 8-bit integers, unless that classifies fewer of the run's validation images
                correctly.
            coverage: The share of images whose true class is to be in their prediction set, above 0 and below 1; None:
                that of the run.
            cache: The cache folder, which keeps the exported network for the next time; None: the usual one.
            progress: Where notes go; None: below the cell of a notebook, else nowhere.

        Returns:
            The predictor.

        Raises:
            RunError: There is no such finished run, or its files were changed.
            WeightsError: The run's weights cannot be read.
            StorageError: The cache cannot be written.
        """
        from budwood.runs.bundle_predictor import is_bundle, open_bundle

        if isinstance(run, str | Path) and is_bundle(run):
            if int8:
                raise RunError(f"{run}: int8 is for a run, as a file is computed as it is.", "Export with `--int8`.")
            if coverage is not None:
                raise RunError(
                    f"{run}: coverage is for a run, as a file has the limits of its own only.",
                    "Calibrate the run with another coverage, and export it again.",
                )
            return open_bundle(run)
        from budwood.runs.predictor import open_run_predictor

        return open_run_predictor(run, int8=int8, coverage=coverage, cache=cache, progress=progress)

    @property
    @abstractmethod
    def rules(self) -> AnswerRules:
        """Return how outputs become answers."""

    @property
    @abstractmethod
    def squares(self) -> tuple[Square | None, ...]:
        """Return for each network the side of its input in pixels, and how an image becomes a square.

        None stands for a network that takes whole images.
        """

    @property
    @abstractmethod
    def value_range(self) -> ValueRange | None:
        """Return the values of more than 8 bits that become black and white; None: the range of their type does."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Return a digest of all that decides the answers: network, rules, precision."""

    @abstractmethod
    def compute(self, pixels: Sequence[Pixels], features: bool) -> Outputs:
        """Compute outputs, as the mean over the views of test-time augmentation.

        Args:
            pixels: For each network of `squares`, at least one image, uint8 [n, size, size, 3].
            features: Whether features are needed beside logits.

        Returns:
            The outputs.

        Raises:
            WeightsError: A logit is not finite.
        """

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the logits."""
        return self.rules.classes

    @property
    def task(self) -> LabelTask:
        """Return the kind of labels that images have: one each, or several."""
        return self.rules.decision.task

    def predict(
        self, images: ImageInput | Sequence[ImageInput], top: int = TOP, *, features: bool = False
    ) -> list[ImagePrediction]:
        """Predict the classes of images; an image that cannot be decoded has its problem instead.

        Args:
            images: One image or several: paths, of folders too, the bytes of files, PIL images, or arrays of uint8
                [height, width], [height, width, 3] or [n, height, width, 3]; where the run's images had more than 8
                bits, also arrays of other numbers, which are scaled as those were.
            top: Number of likeliest classes to give of each image.
            features: Whether each prediction has what the head received.

        Returns:
            A prediction for each image, in order; images that are no files are named `image 0`, `image 1`, ...

        Raises:
            DataError: A value is no image, or an array has another type or shape.
            WeightsError: A logit is not finite.
        """
        refuse_bad_top(top)
        given = list_inputs(images)
        return self.answer(
            [self.read(image, name_input(image, number)) for number, image in enumerate(given)], top, features=features
        )

    def read(self, image: ImageInput, name: str) -> ReadImage:
        """Read an image as the networks receive it; of one that cannot be decoded, why.

        Args:
            image: A path, the bytes of a file, a PIL image or an array.
            name: What to call it.

        Returns:
            The image, for `answer`.

        Raises:
            DataError: The value is no image, or an array has another type or shape.
        """
        try:
            pixels, shape = read_input(image, self.squares, self.value_range)
        except BadImage as bad:
            return ReadImage(name, problem=f"{bad.problem}: {bad.detail}")
        return ReadImage(name, tuple(pixels), shape)

    def answer(self, images: Sequence[ReadImage], top: int = TOP, *, features: bool = False) -> list[ImagePrediction]:
        """Say what images show that have been read.

        Args:
            images: What `read` returned.
            top: Number of likeliest classes to give of each image.
            features: Whether each prediction has what the head received.

        Returns:
            A prediction for each image, in order.

        Raises:
            WeightsError: A logit is not finite.
        """
        good = [image for image in images if image.shape is not None]
        said: list[ImagePrediction] = []
        if good:
            outputs = self.compute_read(good, features or self.rules.needs_features)
            shapes = [image.shape for image in good if image.shape is not None]
            said = self.rules.describe([image.name for image in good], shapes, outputs, top, features)
        answers = iter(said)
        return [
            ImagePrediction(image.name, (), image.problem) if image.shape is None else next(answers) for image in images
        ]

    def compute_read(self, images: Sequence[ReadImage], features: bool) -> Outputs:
        """Compute the outputs of images that have been read, at least one; see `compute`."""
        return self.compute(_stack(images), features)

    def compute_probabilities(self, images: ImageInput | Sequence[ImageInput]) -> NDArray[np.float64]:
        """Compute the calibrated probability of every class for images.

        Args:
            images: One image or several, as for `predict`.

        Returns:
            float64 [n, classes]: each row adds up to 1; where images have several labels, each value is a
            probability of its own.

        Raises:
            DataError: An image cannot be decoded, or is none.
            WeightsError: A logit is not finite.
        """
        read = []
        for number, image in enumerate(list_inputs(images)):
            read.append(self.read(image, name_input(image, number)))
            if read[-1].problem:
                _, _, detail = read[-1].problem.partition(": ")
                raise DataError(f"{read[-1].name}: {detail}.", "Leave it out, or replace it by an image.")
        if not read:
            return np.zeros((0, len(self.classes)))
        return self.rules.decision.to_probabilities(self.compute_read(read, False).logits)

    def compute_outputs(self, pixels: Pixels) -> Outputs:
        """Compute features and logits of pixels, as answers rest on them: the mean over test-time augmentation.

        Args:
            pixels: uint8 [n, size, size, 3] of the largest input; a network of a smaller one sees them scaled down,
                which differs slightly from what it reads from a file.

        Returns:
            The outputs.

        Raises:
            WeightsError: A logit is not finite.
        """
        if not len(pixels):
            width = self.compute_outputs(np.zeros((1, *pixels.shape[1:]), np.uint8)).features.shape[1]
            return Outputs(np.zeros((0, width), np.float32), np.zeros((0, len(self.classes)), np.float32))
        return self.compute([resize_pixels(pixels, one[0]) if one else pixels for one in self.squares], True)

    def compute_logits(self, pixels: Pixels) -> Logits:
        """Compute logits of pixels, where the network allows without test-time augmentation.

        Args:
            pixels: As for `compute_outputs`.

        Returns:
            float32 [n, classes].

        Raises:
            WeightsError: A logit is not finite.
        """
        return self.compute_outputs(pixels).logits


def average_views(views: Sequence[Pixels], compute: Callable[[Pixels], Outputs]) -> Outputs:
    """Compute the mean outputs over views of the same images.

    Args:
        views: Pixels of each view, uint8 [n, size, size, 3]; at least one view.
        compute: Computes the outputs of one.

    Returns:
        The means.
    """
    first, *others = [compute(view) for view in views]
    if not others:
        return first
    count = np.float32(len(views))
    features = sum((other.features for other in others), first.features) / count
    return Outputs(features, sum((other.logits for other in others), first.logits) / count)


def _stack(images: Sequence[ReadImage]) -> list[Pixels]:
    """The pixels of images for each network, uint8 [n, size, size, 3]."""
    return [np.stack(each) for each in zip(*(image.pixels for image in images), strict=True)]
