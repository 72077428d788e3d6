"""Frozen candidates compared: a linear head on the features of each, solved fold by fold (repeated cross-validation).

Every image is scored by heads that were solved without it and without its near copies. Features of several stages lie
side by side in blocks, each scaled to the same total variance on what the fold trains on. The loss of an image is the
mean over the repeats. Which candidate to take is for `candidate_choice` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from budwood.config.metric_registry import LOSS
from budwood.data.splits import assign_folds
from budwood.evaluation.label_task import task_of
from budwood.evaluation.logits import cross_entropy
from budwood.text import counted
from budwood.training.fold_solver import (
    ROWS,
    WIDEST,
    Array,
    FoldProblem,
    Left,
    find_absent,
    is_over,
    solve_folds,
)
from budwood.training.head_solver import PENALTIES, Objective, limit_scipy_threads, weigh_targets

ALWAYS: Final = -1  # in an assignment: trained on and never scored
LEFT_OUT: Final = -2  # neither trained on nor scored
PATH: Final = tuple(strength for strength in PENALTIES if strength <= 10)
FIRST: Final = 2  # place in PATH of the first strength that is tried: 1
STRIDE: Final = 2  # places between those that are tried at first
PILOTS: Final = 2  # folds that try them
TOGETHER: Final = 2**23  # numbers in the answers of folds that are solved together: 32 MiB
TURNED: Final = 4096  # images, at most, of which a wider block is turned into as many features
MANY: Final = 20_000  # images above which one split is precise enough: half a percent of accuracy, with 5,000 scored
MOST: Final = 2**26  # numbers that features or answers may have: 256 MiB
FEWEST: Final = 2000  # images that a sample has at least
FEW: Final = 5  # and for each class
EVALUATIONS: Final = 60  # of the loss, for a fold, over all strengths; measured
CURVATURES: Final = 7  # strengths that are tried; measured
RATE: Final = 4e10  # floating-point operations a second; measured on two cores
_TINY: Final = 1e-12

Assignment = NDArray[np.int8]


@dataclass(frozen=True)
class CrossValidation:
    """How candidates are compared.

    Attributes:
        folds: Parts of the images, each scored by a head that was solved on the others; 2 to 127.
        repeats: How often the images are parted anew.
        seed: Of the parts.
    """

    folds: int = 5
    repeats: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CandidateScore:
    """How well a candidate does on images that its heads have not seen; NaN for images that were not scored.

    Attributes:
        losses: Mean out-of-fold cross-entropy of each image over the repeats, nats: float64 [n].
        correct: Share of the repeats in which its out-of-fold answer is right: float64 [n].
        strength: Of the L2 penalty that was best.
        logits: Mean out-of-fold logits, float32 [n, classes].
    """

    losses: NDArray[np.float64]
    correct: NDArray[np.float64]
    strength: float
    logits: Array


def make_folds(
    labels: NDArray[np.int32], groups: NDArray[np.int64] | None, folds: int, repeats: int, seed: int
) -> list[Assignment]:
    """Part images into folds, several times; each class is spread evenly, and no group lies in two folds.

    Args:
        labels: Class of each image, int32 [n].
        groups: Equal for near copies, int64 [n]; None: every image is its own.
        folds: Number of folds; fewer where there are fewer groups.
        repeats: How often they are drawn.
        seed: Of the draw.

    Returns:
        The fold of each image from 0, int8 [n], for every repeat.

    Raises:
        ValueError: All images are near copies of each other, so that none can be held out.
    """
    n = len(labels)
    cluster = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    folds = min(folds, int(cluster.max(initial=-1)) + 1)
    if folds < 2:
        raise ValueError(f"Expected at least two images that are no copies of each other, found {n:,} in one group.")
    random = np.random.default_rng(seed)
    draws = (random.permutation(n) for _ in range(repeats))
    return [assign_folds([f"{place:09d}" for place in draw], labels, [""] * n, cluster, folds) for draw in draws]


def hold_out(validation: NDArray[np.bool_], used: NDArray[np.bool_] | None = None) -> list[Assignment]:
    """Make the one assignment in which validation images are scored and the others trained on.

    Args:
        validation: Whether each image is a validation image, bool [n].
        used: Whether each image takes part at all, bool [n]; None: all do.

    Returns:
        A list of one assignment, int8 [n].
    """
    fold = np.where(validation, 0, ALWAYS).astype(np.int8)
    return [fold if used is None else np.where(used, fold, LEFT_OUT).astype(np.int8)]


def cross_validate_head(
    features: Array,
    blocks: Sequence[int],
    labels: NDArray[np.int32],
    assignments: Sequence[Assignment],
    classes: int,
    objective: Objective | None = None,
    left: Left = lambda: None,
    mirrored: Array | None = None,
) -> CandidateScore:
    """Score a candidate by linear heads that are solved without the images that they answer.

    Two folds try every second strength of the penalty from strong to weak, until one is worse; all folds solve the
    best one and its neighbours, each from its own head for another strength (a head that has seen the images that a
    fold holds out never starts it), and go on while an end of what was tried is the best. A class of
    which a fold trains on no image is given the chance of half an image in it.

    Args:
        features: float32 [n, sum of blocks]; not copied in double precision.
        blocks: Widths of the features that belong together.
        labels: Class of each image, int32 [n].
        assignments: As of `make_folds` or `hold_out`.
        classes: Number of classes.
        objective: What is minimised, and the metric by which the strength is chosen; None: plain cross-entropy.
        left: Returns the seconds that are left; None: as many as it takes. One strength is always tried.
        mirrored: Features of the mirrored images, as `features`. Heads are solved on unchanged images and answer each
            by the mean of its logits unchanged and mirrored. None: they see no mirrored image.

    Returns:
        The score of the best strength.
    """
    used = np.flatnonzero(np.any([fold != LEFT_OUT for fold in assignments], axis=0))
    parts = [fold[used] for fold in assignments]
    chosen, other = (one if one is None or len(used) == len(one) else one[used] for one in (features, mirrored))
    assert chosen is not None
    search = _Search(chosen, blocks, labels[used], parts, classes, objective or Objective(), left, other)
    with limit_scipy_threads():
        scored = search.find_best()
    losses, correct = np.full((2, len(labels)), np.nan)
    logits = np.full((len(labels), classes), np.nan, np.float32)
    losses[used], correct[used], logits[used] = scored.losses, scored.correct, scored.logits
    return CandidateScore(losses, correct, scored.strength, logits)


class _Search:
    """The strengths that were tried, with the answers to held-out images, for every fold of every repeat."""

    def __init__(
        self,
        features: Array,
        blocks: Sequence[int],
        labels: NDArray[np.int32],
        parts: Sequence[Assignment],
        classes: int,
        objective: Objective,
        left: Left,
        mirrored: Array | None,
    ) -> None:
        self.labels, self.classes, self.objective, self.left = labels, classes, objective, left
        self.inputs, other, widths = _scale_blocks(features, blocks, mirrored)
        self.asked: Array = (
            self.inputs if other is None else (self.inputs + other) * np.float32(0.5)
        )  # a head is linear
        folds = [(part, fold) for part in parts for fold in range(int(part.max()) + 1)]
        self.held = [np.flatnonzero(part == fold) for part, fold in folds]
        self.trained = [(part != fold) & (part != LEFT_OUT) for part, fold in folds]
        self.variance = _measure_variance(self.inputs, widths, sum(blocks), self.trained)
        self.heads: dict[int, Array] = {}  # by fold, of the strength that was solved last
        self.answers: dict[tuple[float, int], Array] = {}  # by strength and fold, float32 [held, classes]

    def find_best(self) -> CandidateScore:
        """Return the score of the best of the strengths that all folds have tried."""
        everywhere = range(len(self.held))
        centres = self._explore()
        near = {place + step for place in centres for step in (-1, 0, 1)} - {-1, len(PATH)}
        order = [max(centres)] if is_over(self.left) else sorted(near)
        ranks: dict[int, tuple[float, float]] = {}
        while order and not (ranks and is_over(self.left)):
            place = order.pop(0)
            self._solve(PATH[place], everywhere)
            ranks[place] = self._rank(PATH[place], everywhere)
            best = min(ranks, key=lambda tried: ranks[tried])
            if not order:
                order = [other for other in (best + 1, best - 1) if other not in ranks and 0 <= other < len(PATH)]
        return self._score(PATH[best], everywhere)

    def _explore(self) -> set[int]:
        """The places of the strengths that a few folds prefer: by the loss, and by what is selected by."""
        pilots, ranks, best = range(min(PILOTS, len(self.held))), {}, {FIRST}
        for place in range(FIRST, len(PATH), STRIDE):
            self._solve(PATH[place], pilots)
            ranks[place] = self._rank(PATH[place], pilots)
            best = {min(ranks, key=lambda tried: ranks[tried][by:]) for by in (0, 1)}
            if is_over(self.left) or max(best) < place:
                break
        return best

    def _solve(self, strength: float, folds: Sequence[int]) -> None:
        """Solve what folds lack, some at a time, each from its own head for another strength."""
        lacking = [fold for fold in folds if (strength, fold) not in self.answers]
        together = max(1, TOGETHER // (self.classes * len(self.inputs)))
        for start in range(0, len(lacking), together):
            some = lacking[start : start + together]
            problem = self._pose(some)
            none = np.zeros((self.classes, self.inputs.shape[1]), np.float32)
            begin = np.stack([self.heads.get(fold, none) for fold in some])
            heads = solve_folds(
                problem, begin, strength, self.left if len(self.answers) > len(self.held) else _no_limit
            )
            for fold, head, absent in zip(some, heads, problem.absent, strict=True):
                self.heads[fold] = head
                self.answers[strength, fold] = self._answer(fold, head, absent)

    def _pose(self, folds: Sequence[int]) -> FoldProblem:
        """What some folds are solved for."""
        targets = np.zeros((len(folds), self.classes, len(self.inputs)), np.float32)
        shift = np.zeros((len(folds), self.classes), np.float32)
        for place, fold in enumerate(folds):
            rows = np.flatnonzero(self.trained[fold])
            weighed = weigh_targets(self.objective, self.labels[rows], self.classes)
            targets[place][:, rows] = weighed.values.T / weighed.total
            shift[place] = weighed.shift
        return FoldProblem(self.inputs, targets, shift, find_absent(targets), self.variance[folds])

    def _answer(self, fold: int, head: Array, absent: NDArray[np.bool_]) -> Array:
        """The logits of the images that a fold holds out, float32 [held, classes]."""
        logits = self.asked[self.held[fold]] @ head.T
        if absent.any():
            least = np.log(0.5 / self.trained[fold].sum())
            logits[:, absent] = (logsumexp(logits[:, ~absent], axis=1) + least)[:, None]
        return logits

    def _rank(self, strength: float, folds: Sequence[int]) -> tuple[float, float]:
        """How bad a strength is by what is selected by, and by its loss: the least is best."""
        score, select = self._score(strength, folds), self.objective.select
        seen = np.flatnonzero(~np.isnan(score.losses))
        loss = float(score.losses[seen].mean())
        if select == LOSS:
            return loss, loss
        if select == "accuracy":
            return -float(score.correct[seen].mean()), loss
        task = task_of((), self.classes)
        return -task.score(select, task.read_labels(self.labels[seen]), score.logits[seen]), loss

    def _score(self, strength: float, folds: Sequence[int]) -> CandidateScore:
        """The mean over the repeats of the answers of some folds."""
        n = len(self.labels)
        losses, correct, count = np.zeros((3, n))
        logits = np.zeros((n, self.classes), np.float32)
        for fold in folds:
            rows, answers = self.held[fold], self.answers[strength, fold]
            losses[rows] += cross_entropy(self.labels[rows], answers)
            correct[rows] += answers.argmax(axis=1) == self.labels[rows]
            logits[rows] += answers
            count[rows] += 1
        count[count == 0] = np.nan
        return CandidateScore(losses / count, correct / count, strength, (logits / count[:, None]).astype(np.float32))


def _no_limit() -> None:
    """No limit of time: of the first strength."""


def _scale_blocks(
    features: Array, blocks: Sequence[int], mirrored: Array | None
) -> tuple[Array, Array | None, list[int]]:
    """Centre features and scale their blocks, float32 [n, width + 1] with a last column of ones; the blocks' widths.

    This is for the numerics alone: what a fold minimises is scaled by its own training images (`_measure_variance`).
    A block of more features than images is turned into as many as there are images, which keeps all products of
    images, and so the solution. Features of mirrored images, if any, are changed by what the others say.
    """
    n, start = len(features), 0
    parts: list[Array] = []
    others: list[Array] = []
    for width in blocks:
        block = features[:, start : start + width]
        other = None if mirrored is None else mirrored[:, start : start + width]
        start += width
        centre = block.mean(axis=0, dtype=np.float64).astype(np.float32)
        block = block - centre
        scale = np.float32(np.sqrt(float(np.square(block).mean()) * width * len(blocks) / sum(blocks) + _TINY))
        block /= scale
        other = None if other is None else (other - centre) / scale
        if n * 1.2 < width and n <= TURNED:
            block, other = _turn(block, other)
        parts.append(block)
        others += [] if other is None else [other]
    ones = np.ones((n, 1), np.float32)
    asked = np.concatenate([*others, ones], axis=1) if others else None
    return np.concatenate([*parts, ones], axis=1), asked, [part.shape[1] for part in parts]


def _turn(block: Array, other: Array | None) -> tuple[Array, Array | None]:
    """As few features as images, float32 [n, n], with the same products of images; those of others with these, too.

    What others have outside of the space of the images is lost: a head, a sum of images, does not see it.
    """
    wide = block.astype(np.float64)
    products = wide @ wide.T
    products[np.diag_indices(len(block))] += 1e-8 * np.trace(products) / len(block) + _TINY
    lower = np.linalg.cholesky(products)
    turned: Array | None = None
    if other is not None:
        turned = np.asarray(solve_triangular(lower, wide @ other.astype(np.float64).T, lower=True).T, np.float32)
    return np.asarray(lower, np.float32), turned


def _measure_variance(
    inputs: Array, widths: Sequence[int], features: int, trained: Sequence[NDArray[np.bool_]]
) -> Array:
    """The square of the scale of each block on what each fold trains on: float32 [folds, width + 1], 0 for the bias."""
    share = np.stack([rows / max(rows.sum(), 1) for rows in trained]).astype(np.float32)
    centres, variance = share @ inputs, np.zeros((len(trained), inputs.shape[1]), np.float32)
    start = 0
    for width in widths:
        block = slice(start, start + width)
        start += width
        squares = np.einsum("nd,nd->n", inputs[:, block], inputs[:, block])
        total = share @ squares - np.square(centres[:, block]).sum(axis=1)
        variance[:, block] = (np.maximum(total, 0) * len(widths) / features + _TINY)[:, None]
    return variance


@dataclass(frozen=True)
class Plan:
    """How candidates are compared in the time that there is.

    Attributes:
        cross: The cross-validation; None: one split, training images against validation images.
        images: How many images take part; the others need no features.
        seconds: What a candidate takes, about.
        reason: Why, in a sentence.
    """

    cross: CrossValidation | None
    images: int
    seconds: float
    reason: str


def choose_plan(n: int, d: int, classes: int, budget_seconds: float) -> Plan:
    """Choose how candidates are compared: the most precise way that fits the time for each.

    With many images one split is precise enough. Where even that takes too long, or more memory than MOST numbers,
    a sample of the images takes part, in which each class keeps its share (`stratified_sample`): never fewer than
    FEWEST images or FEW a class, for which `seconds` may be more than the budget.

    Args:
        n: Images of training and validation together.
        d: Features of an image.
        classes: Number of classes.
        budget_seconds: Time for one candidate.

    Returns:
        The plan.
    """
    least = min(n, max(FEWEST, FEW * classes))
    most = min(n, max(least, MOST // max(d, classes)))
    for limit, folds, repeats in ((300, 5, 10), (1000, 5, 4), (MANY, 5, 2), (MANY, 5, 1)):
        seconds = _estimate_seconds(n, d, classes, folds * repeats)
        if n <= min(limit, most) and seconds <= budget_seconds:
            drawn = f"{folds} folds, drawn {counted(repeats, 'time')}"
            reason = f"{counted(n, 'image')} are compared by cross-validation with {drawn}."
            return Plan(CrossValidation(folds, repeats), n, seconds, reason)
    while most > least and _estimate_seconds(most, d, classes, 1) > budget_seconds:
        most = max(least, most // 2)
    seconds = _estimate_seconds(most, d, classes, 1)
    some = f"a sample of {most:,} of the {n:,} images" if most < n else f"all {n:,} images"
    why = "more folds would take too long" if n <= MANY else "so many are precise enough without folds"
    return Plan(None, most, seconds, f"Training images are compared with validation images once, on {some}: {why}.")


def _estimate_seconds(n: int, d: int, classes: int, folds: int) -> float:
    """What a candidate takes, about: products with the features, and the shared curvatures."""
    width = min(d, WIDEST) if d <= n * 1.2 else n
    products = 4.0 * n * width * classes * folds * EVALUATIONS
    curvatures = CURVATURES * width**2 * (2.0 * min(n, ROWS) + width)
    return (products + curvatures) / RATE
