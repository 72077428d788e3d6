"""The learning curve of a run: heads solved on parts of its training images, and what more images would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from budwood.config.optimizers import LBFGS
from budwood.data.dataset import Samples
from budwood.errors import RunError, WeightsError
from budwood.evaluation.intervals import Metric, Values, proportion_interval
from budwood.evaluation.learning_curve import (
    FAR,
    FRACTIONS,
    LEAST_SIZES,
    ClassGain,
    LearningCurve,
    draw_nested_subsets,
    measure_class_gains,
)
from budwood.evaluation.logits import probabilities
from budwood.inference.bundle import Prefix
from budwood.inference.feature_cache import compute_features
from budwood.progress import Progress, Silent
from budwood.runs.networks import make_initial_trunk, make_trunk
from budwood.runs.run import Run, open_any_run
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context, open_context
from budwood.training.head_solver import solve
from budwood.training.linear_head import HeadSplit, compute_head_logits

DRAWS: Final = 5  # of each size
LEAST_IMAGES: Final = 20  # of a class, in the mean
MOST_IMAGES: Final = 20_000  # training images of a curve; of more, so many are drawn
MOST_CLASSES: Final = 20  # whose worth is measured, each by two heads
HALVINGS: Final = 2  # draws of the half of a class that is left
FORECASTS: Final = (2.0, FAR)  # times the training images
LEAST_GAIN: Final = 0.005  # of accuracy, from which on more images help
Penalty = float | Literal["auto"]
Head = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class CurveReport:
    """The learning curve of a run with its forecasts.

    Attributes:
        run: Path of the run.
        curve: Errors by number of training images.
        about: Which features the heads are on, and what follows from that.
        accuracy: Accuracy on the validation images with all training images.
        forecasts: Accuracy at so many training images.
        gain: By how much the accuracy rises when the training images are doubled.
        verdict: Whether more images would help, one sentence.
        target: The accuracy that is asked for.
        needed: Training images for the target: the number, and the ends of its interval; None where it is unknown.
        classes: What half of a class's training images are worth, of the classes that were measured.
        class_verdict: Of which class more images would help most, one sentence.
    """

    run: Path
    curve: LearningCurve
    about: str
    accuracy: Metric
    forecasts: tuple[tuple[int, Metric], ...]
    gain: Metric
    verdict: str
    target: float
    needed: tuple[float | None, float | None, float | None]
    classes: tuple[ClassGain, ...]
    class_verdict: str

    @property
    def needed_sentence(self) -> str:
        """Return how many training images the target needs, in words."""
        most = f"more than {FAR * self.curve.sizes[-1]:,.0f}"
        value, low, high = (most if one is None else f"{one:,.0f}" for one in self.needed)
        if self.needed[1] is None:
            return f"An accuracy of {self.target:.1%} needs {most} training images, or cannot be reached with them."
        return f"An accuracy of {self.target:.1%} needs {value} training images (95 % interval {low} to {high})."

    def table(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        law, m = self.curve.fit(), self.curve.wrong[0].shape[1]
        return {
            "run": str(self.run),
            "about": self.about,
            "accuracy": self.accuracy,
            "points": [
                {"images": int(size), "accuracy": 1 - float(part.mean()), "draws": len(part), "n": m}
                for size, part in zip(self.curve.sizes, self.curve.wrong, strict=True)
            ],
            "fit": {"a": float(law.a[0]), "b": float(law.b[0]), "c": float(law.c[0])},
            "forecasts": [{"images": images, "accuracy": metric} for images, metric in self.forecasts],
            "gain_of_doubling": self.gain,
            "verdict": self.verdict,
            "target": self.target,
            "needed_sentence": self.needed_sentence,
            "images_needed": dict(zip(("value", "low", "high"), self.needed, strict=True)),
            "classes": [vars(one) for one in self.classes],
            "class_verdict": self.class_verdict,
        }


def learning_curve(
    run: Run | str | Path,
    *,
    target: float | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> CurveReport:
    """Measure how a run's accuracy rises with its training images, and forecast what more of them would bring.

    Args:
        run: The run, or its path or name.
        target: Accuracy for which images are counted, 0 to 1; None: half of the present error away.
        seed: Seed of the parts of the training images that are drawn, and of the bootstrap.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        The curve with its forecasts.

    Raises:
        RunError: There is no such finished run, its images have several labels, it is an ensemble or was trained from
            scratch, its training images are too few, or the target is no accuracy.
        WeightsError: The weights that the run started from are not on this machine.
        DataError: An image that has to be read again is missing or was changed.
    """
    run, context = open_any_run(run), open_context(cache, progress)
    if target is not None and not 0 < target < 1:
        raise RunError(f"target {target}: expected an accuracy between 0 and 1.", "For example 0.97.")
    _refuse_inapplicable(run)
    prefix, about = _find_trunk(run, context)
    data, random = run.dataset(), np.random.default_rng(seed)
    training, validation = data.samples("train").in_content_order(), data.samples("val")
    if len(training) > MOST_IMAGES:
        context.progress.note(f"The curve is made of {MOST_IMAGES:,} of {len(training):,} training images.")
        training = training.subset(draw_nested_subsets(training.labels, [MOST_IMAGES], random)[0])
    sizes = choose_sizes(len(training), len(run.classes))
    if len(sizes) < LEAST_SIZES or len(training) < LEAST_IMAGES * len(run.classes):
        raise RunError(
            f"{run.path}: has {len(training):,} training images in {len(run.classes)} classes, too few for a curve.",
            f"Train on {LEAST_IMAGES} images of each class or more.",
        )
    with raise_storage_errors(context.cache):
        train, val = (_compute_split(prefix, samples, context) for samples in (training, validation))
    curve = measure_curve(train, val, len(run.classes), sizes, DRAWS, context, seed)
    gains = _measure_classes(train, val, run, context, seed)
    return _make_report(run, curve, about, target, gains, seed)


def _refuse_inapplicable(run: Run) -> None:
    run.refuse_ensemble("a learning curve")
    if run.task.multilabel:
        raise RunError(
            f"{run.path}: its images have several labels, for which there is no learning curve yet.",
            "Compare runs on parts of the images instead, such as `budwood study` with a table of them.",
        )


def _find_trunk(run: Run, context: Context) -> tuple[Prefix, str]:
    """The trunk under the heads of the curve, and what follows from it, in words."""
    if run.record.trained == "head":
        return make_trunk(run, context), "Linear heads on the run's frozen trunk, which has not seen these images."
    if run.recipe.weights == "none":
        raise RunError(
            f"{run.path}: was trained from scratch, so a curve would need a whole training for each of its points.",
            "Train with `--images-per-class` of several sizes and compare the runs, or train on a pretrained trunk.",
        )
    try:
        prefix = make_initial_trunk(run, context)
    except WeightsError as error:
        raise WeightsError(
            f"{run.path}: the curve needs the trunk that the run started from. {error.message}", error.hint
        ) from error
    return prefix, (
        "Linear heads on the trunk that the run started from, not the fine-tuned one, which has seen all training "
        "images: the curve shows what more images bring to a head, and fine-tuning may gain more."
    )


def _compute_split(prefix: Prefix, samples: Samples, context: Context) -> HeadSplit:
    values = compute_features(prefix, samples, context.progress).values
    return HeadSplit(np.ascontiguousarray(values.reshape(len(values), -1)), samples.labels, prefix.spec.plan.blocks)


def choose_sizes(images: int, classes: int) -> list[int]:
    """Choose numbers of training images for a curve.

    Args:
        images: Number of all training images.
        classes: Number of classes.

    Returns:
        The numbers, rising, each of at least two images a class.
    """
    sizes = sorted({round(images * fraction) for fraction in FRACTIONS})
    return [size for size in sizes if size >= 2 * classes]


def solve_plain_head(
    train: HeadSplit, val: HeadSplit, classes: int, progress: Progress, penalty: Penalty = "auto"
) -> Head:
    """Solve a linear head by L-BFGS on the cross-entropy, its penalty chosen on validation.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        classes: Number of classes.
        progress: Where bars go.
        penalty: Strength of the L2 penalty, or `auto`.

    Returns:
        Weight, float32 [classes, features], and bias, float32 [classes].
    """
    head = solve(train, val, classes, LBFGS(regularisation=penalty), progress)
    return head.weight, head.bias


def measure_curve(
    train: HeadSplit, val: HeadSplit, classes: int, sizes: Sequence[int], draws: int, context: Context, seed: int = 0
) -> LearningCurve:
    """Solve heads on nested parts of the training images and apply them to the validation images.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        classes: Number of classes.
        sizes: Numbers of training images, rising; the last may be all.
        draws: Number of nested sequences of parts.
        context: Where the bar goes.
        seed: Seed of the draws.

    Returns:
        The curve. A part that is all images is solved once.
    """
    random, n = np.random.default_rng(seed), len(train.labels)
    wrong: list[list[NDArray[np.bool_]]] = [[] for _ in sizes]
    with context.progress.bar("Solving heads of the learning curve", draws * len(sizes)) as step:
        for draw in range(draws):
            for place, rows in enumerate(draw_nested_subsets(train.labels, sizes, random)):
                if len(rows) < n or not draw:
                    part = replace(train, outputs=train.outputs[rows], labels=train.labels[rows])
                    head = solve_plain_head(part, val, classes, Silent())
                    wrong[place].append(compute_head_logits(val.outputs, *head).argmax(axis=1) != val.labels)
                step(1)
    return LearningCurve(np.array(sizes, np.float64), [np.stack(part) for part in wrong])


def _measure_classes(train: HeadSplit, val: HeadSplit, run: Run, context: Context, seed: int) -> tuple[ClassGain, ...]:
    """What half of the images of each class are worth; of many classes, those with the most validation mistakes."""
    classes, random = len(run.classes), np.random.default_rng(seed)
    head = solve(train, val, classes, LBFGS(), Silent())
    penalty = float(head.selected["regularisation"])
    logits = compute_head_logits(val.outputs, head.weight, head.bias)
    mistakes = np.bincount(val.labels[logits.argmax(axis=1) != val.labels], minlength=classes)
    counts = np.bincount(train.labels, minlength=classes)
    measured = [one for one in np.argsort(-mistakes, kind="stable").tolist() if counts[one] >= 4][:MOST_CLASSES]
    before, rows = _true_chances(logits, val.labels, np.zeros(classes)), np.arange(val.labels.size)
    losses = np.zeros((len(measured), len(rows)))
    with context.progress.bar("Measuring the worth of each class", len(measured) * HALVINGS) as step:
        for place, label in enumerate(measured):
            for _ in range(HALVINGS):
                own = random.permutation(np.flatnonzero(train.labels == label))
                keep = np.setdiff1d(np.arange(len(train.labels)), own[: len(own) // 2])
                part = replace(train, outputs=train.outputs[keep], labels=train.labels[keep])
                halved = compute_head_logits(val.outputs, *solve_plain_head(part, val, classes, Silent(), penalty))
                prior = np.log(counts / np.maximum(np.bincount(part.labels, minlength=classes), 1).clip(1e-9))
                losses[place] += (before - _true_chances(halved, val.labels, prior)) / HALVINGS
                step(1)
    names = [run.classes[label] for label in measured]
    return measure_class_gains(names, [int(counts[label]) for label in measured], losses)


def _true_chances(logits: NDArray[np.float32], labels: NDArray[np.int32], prior: NDArray[np.float64]) -> Values:
    """The probability of each image's class, with the shares of the classes in training set right."""
    return probabilities((logits + prior).astype(np.float32))[np.arange(len(labels)), labels]


def _make_report(
    run: Run, curve: LearningCurve, about: str, target: float | None, gains: tuple[ClassGain, ...], seed: int
) -> CurveReport:
    last, m = float(curve.sizes[-1]), curve.wrong[0].shape[1]
    accuracy = proportion_interval(int((~curve.wrong[-1][0]).sum()), m)
    forecasts = tuple(
        (round(last * times), _complement(curve.forecast(round(last * times), seed))) for times in FORECASTS
    )
    gain = curve.forecast_gain(2 * last, seed)
    target = 1 - float(curve.errors[-1]) / 2 if target is None else target
    value, low, high = (end if np.isfinite(end) else None for end in curve.count_needed(1 - target, seed))
    return CurveReport(
        run.path,
        curve,
        about,
        accuracy,
        forecasts,
        gain,
        _judge_gain(gain, int(last)),
        target,
        (value, low, high),
        gains,
        _judge_classes(gains),
    )


def _complement(error: Metric) -> Metric:
    """The accuracy of an error."""
    assert error.value is not None
    assert error.low is not None
    assert error.high is not None
    return Metric(1 - error.value, 1 - error.high, 1 - error.low, error.n)


def _judge_gain(gain: Metric, images: int) -> str:
    assert gain.value is not None
    assert gain.low is not None
    assert gain.high is not None
    points = f"{100 * gain.value:.1f} points of accuracy ({100 * gain.low:.1f} to {100 * gain.high:.1f})"
    doubled = f"Twice the training images ({2 * images:,}) would bring about {points}"
    if gain.low >= LEAST_GAIN:
        return f"More images would help. {doubled}."
    if gain.high < LEAST_GAIN:
        return f"More images of this kind would hardly help. {doubled}."
    return f"Whether more images would help cannot be told for sure. {doubled}."


def _judge_classes(gains: Sequence[ClassGain]) -> str:
    told = [one for one in gains if one.p < 0.05 and one.loss > 0]
    if not told:
        return (
            "Of which class more images would help most is not distinguishable: halving the images of any one changes "
            "no more than chance explains."
        )
    best = told[0]
    rest = f" So it is with {len(told) - 1} more." if len(told) > 1 else ""
    return (
        f"More images of {best.name!r} are likely to help most: without half of its {best.images:,}, the mean "
        f"probability of the true class is {100 * best.loss:.2f} points lower ({100 * best.low:.2f} to "
        f"{100 * best.high:.2f}).{rest}"
    )
