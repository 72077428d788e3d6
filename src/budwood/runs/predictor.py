"""A run's network, loaded once and asked about images as often as wanted: what predict, test and explain stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from budwood.config.options import Resizing
from budwood.config.registry import entry_digest, find_source
from budwood.data.dataset import Samples
from budwood.data.listing import SPLITS
from budwood.data.loading import TTA_FLIPS, Pixels, decode_sample, flip, resize_pixels
from budwood.data.training_images import TrainingImages, describe_training_images
from budwood.data.value_range import ValueRange
from budwood.errors import DataError, RunError, WeightsError
from budwood.evaluation.conformal import find_limits
from budwood.inference.bundle import Prefix
from budwood.inference.engines import BATCH, InferenceEngine, choose_engine
from budwood.inference.feature_cache import CHECKED, compute_tta_features
from budwood.inference.head_inputs import OutputsFn, make_outputs_inference
from budwood.inference.quantization import quantize_int8
from budwood.networks.plan import hash_json
from budwood.networks.weights import digest_file
from budwood.progress import Progress
from budwood.runs.answers import AnswerRules, Outputs
from budwood.runs.base_predictor import Logits, Predictor, average_views
from budwood.runs.networks import make_trunk, make_whole_network
from budwood.runs.run import Run, open_any_run
from budwood.runs.run_files import DATASET
from budwood.storage.atomic import raise_storage_errors, read_parquet
from budwood.storage.context import Context, open_context
from budwood.training.linear_head import compute_head_logits

__all__ = ["EnsemblePredictor", "Outputs", "Predictor", "RunPredictor", "make_predictor", "open_run_predictor"]

Head = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass
class _EngineSlot:
    """The engine of a network, and what computes features beside logits; each is made by the first thread to ask."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    engine: InferenceEngine | None = None
    outputs: OutputsFn | None = None


@dataclass(frozen=True)
class RunPredictor(Predictor):
    """A run's network, ready to say what images show.

    Attributes:
        run: The run.
        part: The network up to the logits, or up to the features that `head` receives.
        head: The trained linear head of a run that trained nothing else; None where `part` ends with the logits.
        context: The cache folder, and where notes go.
        coverage: The share of images whose true class is to be in their prediction set; None: that of the run.
    """

    run: Run
    part: Prefix
    head: Head | None
    context: Context
    coverage: float | None = None
    _slot: _EngineSlot = field(default_factory=_EngineSlot, repr=False, compare=False)

    @cached_property
    def rules(self) -> AnswerRules:
        """Return how the run's outputs become answers."""
        run, decision = self.run, self.run.decision_rule
        if self.coverage is not None:
            known = run.predictions("val")
            chances = decision.to_probabilities(known.logits)
            decision = replace(decision, set_limits=find_limits(known.targets, chances, self.coverage).limits)
        return AnswerRules(run.classes, decision, run.novelty_scorer(), read_training_images(run))

    @cached_property
    def identity(self) -> str:
        """Return a digest of weights, confidence, precision and preprocessing."""
        record = self.run.record
        weights = [digest_file(self.run.path / name) for name in self.run.weight_files]
        shares = [member.weight for member in record.ensemble.members] if record.ensemble else []
        known = record.confidence.model_dump(mode="json") if record.confidence else None
        return hash_json([weights, shares, known, self.part.graph, self.coverage, self.run.recipe.resize])

    @property
    def squares(self) -> tuple[tuple[int, Resizing], ...]:
        """Return the side of the network's input in pixels, and how an image becomes a square."""
        return ((self.part.spec.plan.size, self.run.recipe.resizing),)

    @property
    def value_range(self) -> ValueRange | None:
        """Return the values of more than 8 bits that become black and white."""
        return self.run.value_range

    def compute(self, pixels: Sequence[Pixels], features: bool) -> Outputs:
        """Compute outputs, as the mean over the mirror images of the recipe's `tta`; see `Predictor.compute`."""
        (upright,) = pixels
        views = [flip(upright, letters) for letters in TTA_FLIPS[self.run.recipe.tta]]
        return average_views(views, self._compute_both if features else self._compute_logits)

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
        return self._compute_logits(pixels).logits

    def _compute_logits(self, pixels: Pixels) -> Outputs:
        known = self.run.record.confidence
        if known and known.novelty and known.novelty.method != "energy":  # one session of the engine is enough
            return self._compute_both(pixels)
        engine = self.load(lambda: pixels[:CHECKED])
        outputs = [engine.run(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]
        return Outputs(np.zeros((len(pixels), 0), np.float32), self._check(self._apply_head(np.concatenate(outputs))))

    def _compute_both(self, pixels: Pixels) -> Outputs:
        engine = self.load(lambda: pixels[:CHECKED])
        blocks = [pixels[first : first + BATCH] for first in range(0, len(pixels), BATCH)]
        if self.head:
            features = np.concatenate([engine.run(block) for block in blocks])
            return Outputs(features, self._check(self._apply_head(features)))
        run = self._load_outputs(engine, lambda: pixels[:CHECKED])
        parts = [run(block) for block in blocks]
        features, logits = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Outputs(features, self._check(logits))

    def _check(self, logits: Logits) -> Logits:
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
        self.load(lambda: take_check_images(self.run, self.part.spec.plan.size))
        blank = np.zeros((1, self.part.spec.plan.size, self.part.spec.plan.size, 3), np.uint8)
        self._compute_logits(blank)  # opens what the first image would wait for

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

    def _load_outputs(self, engine: InferenceEngine, images: Callable[[], Pixels]) -> OutputsFn:
        with self._slot.lock:
            if self._slot.outputs is None:
                with raise_storage_errors(self.context.cache):
                    self._slot.outputs = make_outputs_inference(self.part, engine, images, self.context.progress)
            return self._slot.outputs

    def _apply_head(self, outputs: Logits) -> Logits:
        return compute_head_logits(outputs, *self.head) if self.head else outputs


def take_check_images(run: Run, size: int) -> Pixels:
    """Take validation images of a run; where they are gone, made ones, on which engines differ as they do on real.

    Args:
        run: The run.
        size: Side of the network's input, pixels.

    Returns:
        uint8 [n, size, size, 3].

    Raises:
        RunError: The list of images was changed or damaged.
    """
    if not (run.path / DATASET).is_file():
        return _make_noise(size)
    samples, resizing = run.dataset().samples("val"), run.recipe.resizing
    try:
        return np.stack([decode_sample(samples, row, size, resizing) for row in range(min(CHECKED, len(samples)))])
    except DataError:
        return _make_noise(size)


def _make_noise(size: int) -> Pixels:
    noise = np.random.default_rng(0).integers(0, 256, (CHECKED, 8, 8, 3), np.uint8)
    return noise.repeat(-(-size // 8), axis=1).repeat(-(-size // 8), axis=2)[:, :size, :size]


@dataclass(frozen=True)
class EnsemblePredictor(RunPredictor):
    """The networks of an ensemble, each of which reads every image in its own size and way; `part` is the first's.

    Attributes:
        members: A predictor for each network, the one with the largest weight first.
        weights: Weight of each network, float64 [members].
    """

    members: tuple[RunPredictor, ...] = ()
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

    @property
    def squares(self) -> tuple[tuple[int, Resizing], ...]:
        """Return for each network the side of its input in pixels, and how an image becomes a square."""
        return tuple(square for member in self.members for square in member.squares)

    def compute(self, pixels: Sequence[Pixels], features: bool) -> Outputs:
        """Compute the logits of the mean probabilities and the heaviest member's features; see `Predictor.compute`."""
        each = [
            member.compute([own], features and number == 0)
            for number, (member, own) in enumerate(zip(self.members, pixels, strict=True))
        ]
        return Outputs(each[0].features, self._average([one.logits for one in each]))

    def _average(self, logits: Sequence[Logits]) -> Logits:
        return self.run.task.average_logits(logits, self.weights)


def _fit_pixels(pixels: Pixels, member: RunPredictor) -> Pixels:
    """Pixels uint8 [n, size, size, 3] in the size of a network's input."""
    return resize_pixels(pixels, member.part.spec.plan.size)


def open_run_predictor(
    run: Run | str | Path,
    *,
    int8: bool = False,
    coverage: float | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> RunPredictor:
    """Open a run's network, and load it; see `Predictor.open`."""
    if coverage is not None and not 0 < coverage < 1:
        raise RunError(f"coverage: expected a number above 0 and below 1, found {coverage:g}.", "Ask for 0.95.")
    opened, context = open_any_run(run), open_context(cache, progress)
    for each in opened.members() if opened.record.ensemble else [opened]:
        _tell_own_network(each, context.progress)
    predictor = replace(make_predictor(opened, context, int8), coverage=coverage)
    predictor.prepare()
    return predictor


def _tell_own_network(run: Run, progress: Progress) -> None:
    """Say which code of the user's own is imported to make a run's network, and whether it is still the same."""
    part = run.record.parts.get("model")
    if part is None:
        return
    changed = entry_digest(part.name, "model") != part.digest
    since = "; its source has changed since this run was trained" if changed else ""
    progress.note(
        f"The network is code of your own: {part.name} is imported from {find_source(part.name, 'model')}{since}."
    )


def read_training_images(run: Run) -> TrainingImages | None:
    """Read what a run's training images were like.

    Args:
        run: The run.

    Returns:
        A summary; None where the run has no list of its images.

    Raises:
        RunError: The list was changed or damaged.
    """
    file = run.path / DATASET
    if not file.is_file():
        return None
    try:
        table = read_parquet(run.file(DATASET))
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{file}: cannot be read ({error}).", "Restore the file, or train again.") from error
    table = table.filter(pc.equal(table["split"], SPLITS.index("train")))
    widths, heights = table["width"].to_numpy(), table["height"].to_numpy()
    return describe_training_images(widths, heights, table["mode"].to_pylist(), table["notes"].to_pylist())


def make_predictor(run: Run, context: Context, int8: bool = False) -> RunPredictor:
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
        return RunPredictor(run, eight, None, context)
    if run.record.trained == "head":
        return RunPredictor(run, make_trunk(run, context), run.head(), context)
    return RunPredictor(run, make_whole_network(run, context.cache), None, context)
