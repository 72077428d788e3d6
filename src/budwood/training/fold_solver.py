"""Linear heads of many folds solved together, strong penalty to weak: one matrix product serves all folds.

The folds share the features and differ in which rows count. Their heads are found by L-BFGS (Nocedal 1980), each with
its own steps, from one shared curvature: a bound-like multiple of the features' second moments plus the penalty, which
makes some ten steps enough where plain L-BFGS takes hundreds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Left = Callable[[], float | None]

STEPS: Final = 100  # at most, for each strength
ENOUGH: Final = 2e-5  # share of the loss that the next step would still take off, at which a head counts as found,
MANY: Final = 2000  # of so many images; of fewer, where steps are cheap, it is less in proportion
LEAST: Final = 2e-7  # but not below this
MEMORY: Final = 8  # steps that L-BFGS remembers
ROWS: Final = 4096  # at most, from which the shared curvature is taken
WIDEST: Final = 4096  # features above which the shared curvature is taken to be diagonal
SOFTEN: Final = 0.1  # of the mean bend of a row that every row has in the shared curvature
_ABSENT: Final = -1e30  # logit of a class that no training row of a fold has
_SLACK: Final = 5e-6  # share of the loss by which float32 may make a good step look like a bad one


@dataclass(frozen=True)
class FoldProblem:
    """What the heads of several folds are solved for.

    Attributes:
        inputs: Features and a last column of ones, float32 [n, features + 1].
        targets: What is asked of each fold, over its total; 0 in rows that it does not train on: float32 [folds,
            classes, n].
        shift: What is added to the logits in training, float32 [folds, classes].
        absent: Classes that a fold leaves out, bool [folds, classes].
        variance: How much of the penalty each weight has, float32 [folds, features + 1]; 0 for the bias.
    """

    inputs: Array
    targets: Array
    shift: Array
    absent: NDArray[np.bool_]
    variance: Array


def solve_folds(problem: FoldProblem, start: Array, strength: float, left: Left) -> Array:
    """Solve the heads of all folds for one strength of the penalty.

    A head minimises the weighed cross-entropy + strength / 2 * sum of variance * weight^2.

    Args:
        problem: What the heads are solved for.
        start: Where to start, float32 [folds, classes, features + 1].
        strength: Of the penalty.
        left: Returns the seconds that are left; None: as many as it takes.

    Returns:
        The heads, as `start`; where the time was over, what was reached.
    """
    heads = start.copy()
    active = np.arange(len(start))
    state = _Descent(problem, heads, strength)
    for _ in range(STEPS):
        found = state.step()
        heads[active] = state.heads
        if found.all() or is_over(left):
            break
        if found.any():
            state.keep(~found)
            active = active[~found]
    return heads


def is_over(left: Left) -> bool:
    """Return whether no time is left.

    Args:
        left: Returns the seconds that are left; None where there is no limit.

    Returns:
        Whether it is over.
    """
    seconds = left()
    return seconds is not None and seconds <= 0


class _Descent:
    """L-BFGS on several folds at once, each with a step of its own."""

    def __init__(self, problem: FoldProblem, heads: Array, strength: float) -> None:
        self.problem, self.heads, self.strength = problem, heads.copy(), strength
        self.penalty = np.float32(strength) * problem.variance[:, None, :]
        self.loss, self.slope, spread = self._measure(self.heads)
        self.inverse = _invert_curvature(problem.inputs, spread, strength)
        self.enough = max(LEAST, ENOUGH * min(1.0, len(problem.inputs) / MANY))
        self.length = np.ones(len(heads), np.float32)
        self.pairs: list[tuple[Array, Array, Array]] = []  # moves, changes of the slope, 1 / their product

    def step(self) -> NDArray[np.bool_]:
        """Move every fold whose loss falls by it, and return which folds are found."""
        direction = self._choose_direction()
        gain = -_dot(direction, self.slope)
        bad = gain <= 0
        direction[bad], gain[bad] = -self.slope[bad], _dot(self.slope, self.slope)[bad]
        found = gain / 2 < self.enough * self.loss
        move = self.length[:, None, None] * direction
        loss, slope, _ = self._measure(self.heads + move)
        better = loss <= self.loss - 1e-4 * self.length * gain + _SLACK * np.maximum(self.loss, 0.02)
        change = slope - self.slope
        product = _dot(move, change)
        useful = better & (product > 1e-12)
        inverse = np.where(useful, 1 / np.where(useful, product, 1), 0).astype(np.float32)
        self.pairs = [*self.pairs[1 - MEMORY :], (move, change, inverse)]
        self.heads[better] += move[better]
        self.slope[better], self.loss[better] = slope[better], loss[better]
        self.length = np.where(better, 1, self.length / 3).astype(np.float32)
        return np.asarray(found | (self.length < 1e-4))

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Go on with some of the folds."""
        whole = self.problem
        self.problem = FoldProblem(
            whole.inputs, whole.targets[rows], whole.shift[rows], whole.absent[rows], whole.variance[rows]
        )
        self.heads, self.loss, self.slope = self.heads[rows], self.loss[rows], self.slope[rows]
        self.penalty, self.length = self.penalty[rows], self.length[rows]
        self.pairs = [(move[rows], change[rows], inverse[rows]) for move, change, inverse in self.pairs]

    def _choose_direction(self) -> Array:
        """The two loops of L-BFGS, float32 [folds, classes, features + 1]."""
        rest, parts = self.slope.copy(), []
        for move, change, inverse in reversed(self.pairs):
            part = inverse * _dot(move, rest)
            rest -= part[:, None, None] * change
            parts.append(part)
        flat = rest.reshape(-1, rest.shape[2])
        ahead = (flat @ self.inverse if self.inverse.ndim == 2 else flat * self.inverse).reshape(rest.shape)
        for (move, change, inverse), part in zip(self.pairs, reversed(parts), strict=True):
            ahead += (part - inverse * _dot(change, ahead))[:, None, None] * move
        return -ahead

    def _measure(self, heads: Array) -> tuple[NDArray[np.float64], Array, Array]:
        """The loss of each fold, its slope, and how much each row bends it: its mean p (1 - p), weighed."""
        logits = (heads.reshape(-1, heads.shape[2]) @ self.problem.inputs.T).reshape(*heads.shape[:2], -1)
        logits += np.where(self.problem.absent, np.float32(_ABSENT), self.problem.shift)[:, :, None]
        logits -= logits.max(axis=1, keepdims=True)
        chance = np.exp(logits)
        total = chance.sum(axis=1, keepdims=True)
        chance /= total
        logits -= np.log(total)
        targets = self.problem.targets
        mass = targets.sum(axis=1, keepdims=True)
        loss = -(targets * logits).sum(axis=(1, 2), dtype=np.float64) + _dot(self.penalty * heads, heads) / 2
        spread = (mass * chance * (1 - chance)).mean(axis=(0, 1))
        chance *= mass
        chance -= targets
        slope = (chance.reshape(-1, chance.shape[2]) @ self.problem.inputs).reshape(heads.shape)
        slope += self.penalty * heads
        return loss, slope, spread


def _invert_curvature(inputs: Array, spread: Array, strength: float) -> Array:
    """The inverse of the curvature that all folds share: float32 [features + 1, features + 1], or its diagonal."""
    n, width = inputs.shape
    ridge = np.full(width, strength, np.float32)
    ridge[-1] = 0
    every = -(-n // ROWS)
    rows = inputs[::every] * np.sqrt(spread[::every, None] * np.float32(every) + np.float32(SOFTEN * spread.mean()))
    if width > WIDEST:
        return np.asarray(1 / (np.square(rows).sum(axis=0) + ridge), np.float32)
    from scipy.linalg.lapack import spotrf, spotri

    curvature = rows.T @ rows
    floor = max(float(np.trace(curvature)) / width * 1e-6, 1e-9)
    curvature[np.diag_indices(width)] += ridge + np.float32(floor)
    factor, failed = spotrf(curvature, lower=0)
    if failed:
        return np.asarray(1 / np.diag(curvature), np.float32)
    half, _ = spotri(factor, lower=0)  # the upper half; the lower one is 0
    inverse = half + half.T
    inverse[np.diag_indices(width)] /= 2
    return np.asarray(inverse, np.float32)


def _dot(one: Array, other: Array) -> Array:
    """The product of two arrays fold by fold, float32 [folds]."""
    product = np.matmul(one.reshape(len(one), 1, -1), other.reshape(len(other), -1, 1))
    return np.asarray(product[:, 0, 0], np.float32)


def find_absent(targets: Array) -> NDArray[np.bool_]:
    """Find the classes that no training row of a fold has.

    Args:
        targets: float32 [folds, classes, n].

    Returns:
        bool [folds, classes].
    """
    return np.asarray(targets.sum(axis=2) == 0)
