"""A run's network, loaded once and asked about images as often as wanted: what predict, test and explain stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Samples
from budwood.data.image_inputs import ImageInput, list_inputs, name_input, read_input
from budwood.data.images import BadImage
from budwood.data.loading import TTA_FLIPS, Pixels, decode_sample, flip, resize_pixels
from budwood.errors import DataError, WeightsError
from budwood.evaluation.prediction_table import TOP, ImagePrediction, list_top_classes
from budwood.inference.bundle import Prefix
from budwood.inference.engines import BATCH, InferenceEngine, choose_engine
from budwood.inference.feature_cache import CHECKED, compute_tta_features
from budwood.inference.quantization import quantize_int8
from budwood.progress import Progress
from budwood.runs.networks import make_trunk, make_whole_network
from budwood.runs.run import Run, open_any_run
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context, open_context
from budwood.training.linear_head import compute_head_logits

Logits = NDArray[np.float32]
Head = tuple[NDArray[np.float32], NDArray[np.float32]]
Inputs = tuple[Pixels, ...]  # of one image, for each network


@dataclass
class _EngineSlot:
    """The engine of a network, which is chosen when it is first needed, by one thread."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    engine: InferenceEngine | None = None


@dataclass(frozen=True)
class Predictor:
    """A run's network, ready to say what images show.

    It may be used by many threads at once. What it is asked writes nothing to the disk; only opening it may fill the
    cache, so that it opens faster the next time.

    Attributes:
        run: The run.
        part: The network up to the logits, or up to the features that `head` receives.
        head: The trained linear head of a run that trained nothing else; None where `part` ends with the logits.
        context: The cache folder, and where notes go.
    """

    run: Run
    part: Prefix
    head: Head | None
    context: Context
    _slot: _EngineSlot = field(default_factory=_EngineSlot, repr=False, compare=False)

    @classmethod
    def open(
        cls, run: Run | str | Path, *, int8: bool = False, cache: Path | None = None, progress: Progress | None = None
    ) -> Predictor:
        """Open a run's network, and load it.

        Args:
            run: A finished run, or its path or name.
            int8: Whether to compute in 8-bit integers, unless that classifies fewer of the run's validation images
                correctly.
            cache: The cache folder, which keeps the exported network for the next time; None: the usual one.
            progress: Where notes go; None: nowhere.

        Returns:
            The predictor.

        Raises:
            RunError: There is no such finished run.
            WeightsError: The run's weights cannot be read.
            StorageError: The cache cannot be written.
        """
        predictor = make_predictor(open_any_run(run), open_context(cache, progress), int8)
        predictor.prepare()
        return predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the logits."""
        return self.run.classes

    def predict(self, images: ImageInput | Sequence[ImageInput], top: int = TOP) -> list[ImagePrediction]:
        """Predict the classes of images; an image that cannot be decoded has its problem instead.

        Args:
            images: One image or several: paths, the bytes of files, PIL images, or arrays of uint8
                [height, width], [height, width, 3] or [n, height, width, 3]; where the run's images had more than 8
                bits, also arrays of other numbers, which are scaled as those were.
            top: Number of likeliest classes to give of each image.

        Returns:
            A prediction for each image, in order; images that are no files are named `image 0`, `image 1`, ...

        Raises:
            DataError: A value is no image, or an array has another type or shape.
        """
        given = list_inputs(images)
        names = [name_input(image, number) for number, image in enumerate(given)]
        pixels: list[Inputs] = []
        problems: dict[int, str] = {}
        for number, image in enumerate(given):
            try:
                pixels.append(self._read(image))
            except BadImage as bad:
                problems[number] = f"{bad.problem}: {bad.detail}"
        tops = iter(list_top_classes(self._to_probabilities(pixels), self.classes, top))
        return [
            ImagePrediction(name, (), problems[number]) if number in problems else ImagePrediction(name, next(tops))
            for number, name in enumerate(names)
        ]

    def compute_probabilities(self, images: ImageInput | Sequence[ImageInput]) -> NDArray[np.float64]:
        """Compute the probability of every class for images.

        Args:
            images: One image or several, as for `predict`.

        Returns:
            float64 [n, classes]: each row adds up to 1; where images have several labels, each value is a
            probability of its own.

        Raises:
            DataError: An image cannot be decoded, or is none.
        """
        pixels = []
        for number, image in enumerate(list_inputs(images)):
            try:
                pixels.append(self._read(image))
            except BadImage as bad:
                raise DataError(
                    f"{name_input(image, number)}: {bad.detail}.", "Leave it out, or replace it by an image."
                ) from bad
        return self._to_probabilities(pixels)

    def compute_logits(self, pixels: Pixels) -> Logits:
        """Compute logits of pixels as the network receives them, without test-time augmentation.

        Args:
            pixels: uint8 [n, size, size, 3].

        Returns:
            float32 [n, classes].

        Raises:
            WeightsError: A logit is not finite.
        """
        if not len(pixels):
            return np.zeros((0, len(self.classes)), np.float32)
        engine = self.load(lambda: pixels[:CHECKED])
        outputs = [engine.run(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]
        logits = self._apply_head(np.concatenate(outputs))
        if not np.isfinite(logits).all():
            raise WeightsError(
                f"{self.run.path}: the network's outputs are not finite (NaN or infinite) for an image.",
                "Train again with a lower learning rate, or from other weights.",
            )
        return logits

    def predict_samples(self, samples: Samples) -> Logits:
        """Compute the logits of a data set's images; what an earlier command computed is read from the cache.

        Args:
            samples: The images, whose values of more than 8 bits are scaled as those of the run's data.

        Returns:
            Logits float32 [n, classes], averaged over the mirror images of the recipe's `tta`.

        Raises:
            DataError: An image file was changed since it was scanned.
            StorageError: The cache cannot be written.
        """
        samples = replace(samples, value_range=self.run.value_range)
        with raise_storage_errors(self.context.cache):
            return compute_tta_features(self.part, samples, self.context.progress, self._apply_head).values

    def prepare(self) -> None:
        """Load the engine that runs the network, checked on validation images of the run where it was not yet.

        Raises:
            WeightsError: The weights cannot be read or do not fit.
            StorageError: The cache cannot be written.
        """
        self.load(self._take_check_images)

    def load(self, images: Callable[[], Pixels]) -> InferenceEngine:
        """Return the engine that runs the network, which is chosen and loaded at the first call.

        Args:
            images: Returns real images, uint8 [n, size, size, 3], on which the engine is checked where that has not
                been done before.

        Returns:
            The engine.

        Raises:
            WeightsError: The weights cannot be read or do not fit.
            StorageError: The cache cannot be written.
        """
        with self._slot.lock:
            if self._slot.engine is None:
                with raise_storage_errors(self.context.cache):
                    self._slot.engine = choose_engine(self.part, images, CHECKED, self.context.progress)
            return self._slot.engine

    def _read(self, image: ImageInput) -> Inputs:
        size, resizing = self.part.spec.plan.size, self.run.recipe.resizing
        return (read_input(image, size, resizing, self.run.value_range),)

    def _to_probabilities(self, images: Sequence[Inputs]) -> NDArray[np.float64]:
        if not images:
            return np.zeros((0, len(self.classes)))
        upright = np.stack([pixels for (pixels,) in images])
        views = [flip(upright, letters) for letters in TTA_FLIPS[self.run.recipe.tta]]
        logits = sum((self.compute_logits(view) for view in views[1:]), self.compute_logits(views[0]))
        return self.run.task.to_probabilities(logits / np.float32(len(views)))

    def _apply_head(self, outputs: Logits) -> Logits:
        return compute_head_logits(outputs, *self.head) if self.head else outputs

    def _take_check_images(self) -> Pixels:
        """Validation images of the run; where they are gone, made ones, on which engines differ as they do on real."""
        size, samples = self.part.spec.plan.size, self.run.dataset().samples("val")
        rows, resizing = range(min(CHECKED, len(samples))), self.run.recipe.resizing
        try:
            return np.stack([decode_sample(samples, row, size, resizing) for row in rows])
        except DataError:
            noise = np.random.default_rng(0).integers(0, 256, (CHECKED, 8, 8, 3), np.uint8)
            return noise.repeat(-(-size // 8), axis=1).repeat(-(-size // 8), axis=2)[:, :size, :size]


@dataclass(frozen=True)
class EnsemblePredictor(Predictor):
    """The networks of an ensemble, each of which reads every image in its own size and way; `part` is the first's.

    Attributes:
        members: A predictor for each network, the one with the largest weight first.
        weights: Weight of each network, float64 [members].
    """

    members: tuple[Predictor, ...] = ()
    weights: NDArray[np.float64] = field(default_factory=lambda: np.ones(0))

    def prepare(self) -> None:
        """Load the engine of every network, as `Predictor.prepare` does of one."""
        for member in self.members:
            member.prepare()

    def load(self, images: Callable[[], Pixels]) -> InferenceEngine:
        """Load the engine of every network, checked on the same images in its own size.

        Args:
            images: Returns real images of the largest input, uint8 [n, size, size, 3].

        Returns:
            The engine of the first network.
        """
        engines = [member.load(lambda one=member: _fit_pixels(images(), one)) for member in self.members]  # type: ignore[misc]
        return engines[0]

    def compute_logits(self, pixels: Pixels) -> Logits:
        """Compute logits of pixels of the largest input, without test-time augmentation.

        A network of a smaller input sees them scaled down, which differs slightly from what it reads from a file.

        Args:
            pixels: uint8 [n, size, size, 3].

        Returns:
            Logits of the mean probabilities, float32 [n, classes].

        Raises:
            WeightsError: A logit is not finite.
        """
        return self._average([member.compute_logits(_fit_pixels(pixels, member)) for member in self.members])

    def predict_samples(self, samples: Samples) -> Logits:
        """Compute the logits of a data set's images; what an earlier command computed is read from the cache.

        Args:
            samples: The images.

        Returns:
            Logits of the mean probabilities, float32 [n, classes]; those of each network are averaged over the mirror
            images of its recipe's `tta`.

        Raises:
            DataError: An image file was changed since it was scanned.
            StorageError: The cache cannot be written.
        """
        return self._average([member.predict_samples(samples) for member in self.members])

    def _average(self, logits: Sequence[Logits]) -> Logits:
        return self.run.task.average_logits(logits, self.weights)

    def _read(self, image: ImageInput) -> Inputs:
        return tuple(pixels for member in self.members for pixels in member._read(image))

    def _to_probabilities(self, images: Sequence[Inputs]) -> NDArray[np.float64]:
        each = [
            member._to_probabilities([(inputs[number],) for inputs in images])
            for number, member in enumerate(self.members)
        ]
        return np.asarray(np.average(each, axis=0, weights=self.weights), np.float64)


def _fit_pixels(pixels: Pixels, member: Predictor) -> Pixels:
    """Pixels uint8 [n, size, size, 3] in the size of a network's input."""
    return resize_pixels(pixels, member.part.spec.plan.size)


def make_predictor(run: Run, context: Context, int8: bool = False) -> Predictor:
    """Make the predictor of a run; its engine is loaded when it is first needed.

    Args:
        run: A finished run.
        context: The cache folder, and where notes and bars go.
        int8: Whether to compute in 8-bit integers, unless that classifies fewer of the run's validation images
            correctly.

    Returns:
        The predictor.

    Raises:
        RecipeError: The network of the recipe does not exist here.
        WeightsError: The run's weights cannot be read.
        StorageError: The cache cannot be written.
    """
    if run.record.ensemble:
        members = tuple(make_predictor(member, context, int8) for member in run.members())
        weights = np.array([member.weight for member in run.record.ensemble.members])
        return EnsemblePredictor(run, members[0].part, None, context, members=members, weights=weights)
    if int8:
        training, known = run.dataset().samples("train"), run.predictions("val")
        with raise_storage_errors(context.cache):
            eight = quantize_int8(make_whole_network(run, context.cache), training, known, context.progress)
        return Predictor(run, eight, None, context)
    if run.record.trained == "head":
        return Predictor(run, make_trunk(run, context), run.head(), context)
    return Predictor(run, make_whole_network(run, context.cache), None, context)
