"""Drift: whether new images are like those that a run was validated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Samples
from budwood.errors import RunError
from budwood.evaluation.acquisition import measure_nearest
from budwood.evaluation.novelty import normalise
from budwood.evaluation.shift import ShiftTest, compare_features, compare_mix, compare_scores
from budwood.evaluation.significance import correct_holm
from budwood.progress import Progress
from budwood.runs.run import Run, open_any_run
from budwood.storage.context import Context, open_context
from budwood.workflows.new_images import (
    NewImages,
    compute_answers,
    compute_vectors,
    find_new_images,
    make_feature_trunk,
    refuse_none,
)
from budwood.workflows.predict import list_sources

FEWEST: Final = 10  # images on either side, below which nothing can be told
ALPHA: Final = 0.01
LEAST_SIZE: Final = 0.2
MOST_IMAGES: Final = 500  # on either side that are compared
MOST_TRAINING: Final = 5000  # training images among which the nearest are looked for
STRANGEST: Final = 12
IMAGES, CONFIDENCE, MIX = "images", "confidence", "classes"
QUESTIONS: Final = {
    IMAGES: "features of images that are called the same class",
    CONFIDENCE: "confidence in images that are called the same class",
    MIX: "shares of the classes that images are called",
}


@dataclass(frozen=True)
class DriftTest:
    """One of the three comparisons.

    Attributes:
        name: `images`, `confidence` or `classes`.
        p: p-value, corrected for the three tests (Holm); NaN where there is nothing to compare.
        size: Size of the change: 0 none, 1 nothing in common.
        low: Lower end of the 95 % interval of the size.
        high: Its upper end.
        found: Whether p is below alpha and the size is at least the bound.
    """

    name: str
    p: float
    size: float
    low: float
    high: float
    found: bool


@dataclass(frozen=True)
class Stranger:
    """A new image that is far from all training images.

    Attributes:
        path: Its path.
        called: What the network calls it.
        probability: Calibrated probability of the likeliest class.
        beyond: Share of the validation images that are nearer to the training images, 0 to 1.
        nearest: Paths of the nearest training images.
    """

    path: str
    called: str
    probability: float
    beyond: float
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """What a comparison of new images with a run's validation images found.

    Attributes:
        run: Path of the run.
        verdict: `drift`, `no drift`, or `unknown` where there are too few images.
        sentence: The verdict in words.
        tests: The three comparisons; none where there are too few images.
        n: New images that were compared.
        reference: Validation images that were compared.
        alpha: Level of the tests together.
        least_size: Size from which on a change counts.
        notes: What was left out or should be known, each one sentence.
        strangest: The strangest new images, the strangest first.
        new: All new images.
        training: Training images among which the nearest were looked for.
    """

    run: Path
    verdict: str
    sentence: str
    tests: tuple[DriftTest, ...]
    n: int
    reference: int
    alpha: float
    least_size: float
    notes: tuple[str, ...]
    strangest: tuple[Stranger, ...]
    new: NewImages
    training: Samples

    @property
    def found(self) -> bool:
        """Return whether drift was found."""
        return self.verdict == "drift"

    def table(self) -> dict[str, Any]:
        """Return the findings as plain values for JSON."""
        names = ("verdict", "sentence", "n", "reference", "alpha", "least_size", "notes")
        return {
            "run": str(self.run),
            **{name: getattr(self, name) for name in names},
            "tests": [{**vars(test), "question": QUESTIONS[test.name]} for test in self.tests],
            "strangest": [vars(one) for one in self.strangest],
            "unreadable": [{"path": path, "problem": problem} for path, problem in self.new.unreadable],
            "known": [{"path": path, "split": split} for path, split in self.new.known],
        }


def drift(
    run: Run | str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    alpha: float = ALPHA,
    least_size: float = LEAST_SIZE,
    n: int = MOST_IMAGES,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Drift:
    """Test whether new images are like the validation images of a run.

    Three tests are made: of the features and of the confidence of images that are called the same class, and of the
    shares of the classes. Drift is a change that is both significant and large enough.

    Args:
        run: The run, or its path or name.
        images: Files, folders and archives.
        alpha: Chance of a false alarm of the tests together, between 0 and 1.
        least_size: Size from which on a change counts, 0 to 1.
        n: Number of images on either side that are compared at most; of more, so many are drawn.
        seed: Seed of that draw, and of the permutations of the tests.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        What was found.

    Raises:
        DataError: A path does not exist, no image can be decoded, or an image of the run has to be read again and is
            missing or was changed.
        RunError: There is no such finished run, or an option is out of range.
        StorageError: The cache cannot be written.
    """
    run, context = open_any_run(run), open_context(cache, progress)
    _check_options(alpha, least_size, n)
    sources = list_sources(images)
    data = run.dataset()
    new = find_new_images(sources, run, data, context, leave_out=("train", "val"))
    refuse_none(new, sources)
    notes, random = _list_notes(new), np.random.default_rng(seed)
    reference, compared = data.samples("val").in_content_order(), new.samples.in_content_order()
    if len(compared) > n or len(reference) > n:
        notes.append(f"At most {n:,} images on either side are compared, drawn by chance (--n sets the number).")
    compared, reference = (_draw(samples, n, random) for samples in (compared, reference))
    training = _draw(data.samples("train").in_content_order(), MOST_TRAINING, random)
    tests: tuple[DriftTest, ...] = ()
    strangest: tuple[Stranger, ...] = ()
    if len(compared):
        vectors, answers = _measure(run, (reference, compared, training), context)
        strangest = _find_strangest(run, compared, training, vectors, answers[1])
        if min(len(compared), len(reference)) >= FEWEST:
            tests = _make_tests(vectors[:2], answers, alpha, least_size, seed)
    found, old = len(compared), len(reference)
    verdict = _judge(tests, found, old)
    return Drift(run.path, *verdict, tests, found, old, alpha, least_size, tuple(notes), strangest, new, training)


def _check_options(alpha: float, least_size: float, n: int) -> None:
    if not 0 < alpha < 1:
        raise RunError(f"alpha {alpha}: expected a chance between 0 and 1.", "For example 0.01.")
    if not 0 <= least_size <= 1:
        raise RunError(f"size {least_size}: expected a size from 0 to 1.", "For example 0.2.")
    if n < FEWEST:
        raise RunError(f"n {n}: expected {FEWEST} images or more.", "Fewer cannot show whether there is drift.")


def _list_notes(new: NewImages) -> list[str]:
    notes = []
    for split, words in (("train", "training"), ("val", "validation")):
        if count := sum(one == split for _, one in new.known):
            notes.append(f"{count:,} of {new.found:,} files are copies of {words} images and were left out.")
    if count := sum(one == "test" for _, one in new.known):
        notes.append(f"{count:,} files are images of the run's test set; they are compared, as no label is read.")
    if new.repeated:
        notes.append(f"{new.repeated:,} files are exact copies of other new ones and count once.")
    if new.unreadable:
        path, problem = new.unreadable[0]
        notes.append(
            f"{len(new.unreadable):,} files cannot be decoded and were left out; the first: {path} ({problem})."
        )
    return notes


def _draw(samples: Samples, n: int, random: np.random.Generator) -> Samples:
    if len(samples) <= n:
        return samples
    return samples.subset(np.sort(random.permutation(len(samples))[:n]))


def _measure(
    run: Run, samples: tuple[Samples, Samples, Samples], context: Context
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float64]]]:
    """Features of the reference, the new and the training images, and probabilities of the first two."""
    prefix = make_feature_trunk(run, context)
    vectors = [compute_vectors(prefix, part, context) for part in samples]
    return vectors, [compute_answers(run, part, context) for part in samples[:2]]


def _make_tests(
    vectors: Sequence[NDArray[np.float32]],
    answers: Sequence[NDArray[np.float64]],
    alpha: float,
    least_size: float,
    seed: int,
) -> tuple[DriftTest, ...]:
    values, chances = np.concatenate(vectors).astype(np.float64), np.concatenate(answers)
    is_new = np.arange(len(values)) >= len(vectors[0])
    called = chances.argmax(axis=1)
    made: list[ShiftTest] = [
        compare_features(values, is_new, called, seed),
        compare_scores(chances.max(axis=1), is_new, called, seed),
        compare_mix(is_new, called, seed),
    ]
    p = correct_holm(np.array([test.p for test in made]))
    return tuple(
        DriftTest(name, float(one), test.size, test.low, test.high, bool(one < alpha and test.size >= least_size))
        for name, one, test in zip((IMAGES, CONFIDENCE, MIX), p, made, strict=True)
    )


def _judge(tests: Sequence[DriftTest], n: int, reference: int) -> tuple[str, str]:
    if not tests:
        return "unknown", (
            f"Cannot tell: {n} new and {reference} validation images are compared; it takes {FEWEST} of each or more."
        )
    found = {test.name for test in tests if test.found}
    kind, mix = {IMAGES, CONFIDENCE} & found, MIX in found
    if not found:
        return (
            "no drift",
            "No drift found: neither the images, nor the confidence, nor the mix of classes changed by so much.",
        )
    parts = []
    if IMAGES in kind:
        parts.append("The images are of another kind than the validation images.")
    elif kind:
        parts.append("The network is more or less confident than in validation images that it calls the same.")
    if mix:
        shift = "They are also called other classes" if kind else "The images are of the same kind, in another mix of"
        parts.append(
            f"{shift}, which may be mistakes of the network: it does not know such images."
            if kind
            else f"{shift} classes."
        )
    return "drift", f"Drift: {' '.join(parts)}"


def _find_strangest(
    run: Run,
    compared: Samples,
    training: Samples,
    vectors: Sequence[NDArray[np.float32]],
    chances: NDArray[np.float64],
) -> tuple[Stranger, ...]:
    """The new images whose nearest training image is farthest, in the space of normalised features."""
    if not len(training):
        return ()
    reference, new, bank = (normalise(part).astype(np.float64) for part in vectors)
    distance, usual = measure_nearest(new, bank), np.sort(measure_nearest(reference, bank))
    rule, strangest = run.decision_rule, []
    for row in np.argsort(-distance, kind="stable")[:STRANGEST].tolist():
        nearest = np.argsort(((bank - new[row]) ** 2).sum(axis=1), kind="stable")[:3].tolist()
        called = rule.name_answer(rule.decide(chances[row : row + 1])[0], run.classes)
        beyond = float(np.searchsorted(usual, distance[row]) / max(len(usual), 1))
        paths = tuple(training.paths[one] for one in nearest)
        strangest.append(Stranger(compared.paths[row], called, float(chances[row].max()), beyond, paths))
    return tuple(strangest)
