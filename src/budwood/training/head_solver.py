"""A linear head solved to convergence, without torch: multinomial logistic regression by SciPy's L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from threadpoolctl import ThreadpoolController

from budwood.config.losses import CrossEntropy, OneLabel
from budwood.config.metric_registry import LOSS
from budwood.config.optimizers import LBFGS
from budwood.evaluation.label_task import task_of
from budwood.progress import Progress
from budwood.text import counted
from budwood.training.linear_head import HeadSplit, LinearHead, compute_head_logits, find_best_row, score_head

PENALTIES: Final = tuple(10.0 ** (power / 2) for power in range(4, -11, -1))  # 100 to 1e-5, strong to weak
PATIENCE: Final = 4  # weaker penalties that are tried after the best one
STEPS: Final = 300
GRADIENT: Final = 1e-5  # largest entry of the gradient at which a solution counts as found
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Objective:
    """What a head is solved for, beside the penalty.

    Attributes:
        loss: Label smoothing, class weights and logit adjustment, as of a training in steps.
        balanced: Whether every class counts equally, as where every class is sampled equally often.
        select: The validation metric by which the strength of the penalty is chosen, or `loss`.
    """

    loss: OneLabel = field(default_factory=CrossEntropy)
    balanced: bool = False
    select: str = LOSS


@dataclass(frozen=True)
class Standardized:
    """Features as a head is solved on them.

    Attributes:
        inputs: Centred and scaled features, float32 [n, d].
        centre: What was taken off, float32 [d].
        scale: What they were divided by then: one number, or float64 [d] where there are several blocks.
    """

    inputs: NDArray[np.float32]
    centre: NDArray[np.float32]
    scale: float | NDArray[np.float64]

    def fold_back(self, solution: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Make a solution one for the features as they were.

        Args:
            solution: Weights and, last, biases for `inputs`, float64 [classes, d + 1].

        Returns:
            Weights float32 [classes, d] and biases float32 [classes].
        """
        weights, biases = solution[:, :-1], solution[:, -1]
        if isinstance(self.scale, float):
            shift = weights @ self.centre / self.scale
        else:
            shift = weights / self.scale @ self.centre
        return (weights / self.scale).astype(np.float32), (biases - shift).astype(np.float32)


def standardize(outputs: NDArray[np.float32], blocks: Sequence[int]) -> Standardized:
    """Centre features and give each block of them the same total variance.

    The mean variance of all features becomes 1. Dividing each feature by its own deviation would make the rare ones
    loud; one scale for all would let the block with the largest values speak alone.

    Args:
        outputs: Features, float32 [n, d].
        blocks: Widths of the blocks, which sum to d; with fewer than two, one scale serves all.

    Returns:
        The inputs with what was taken off and divided by.
    """
    centre = outputs.mean(axis=0)
    variance = outputs.var(axis=0)
    if len(blocks) < 2:
        common = float(np.sqrt(variance.mean() + _TINY))
        return Standardized((outputs - centre) / np.float32(common), centre, common)
    parts = np.split(variance.astype(np.float64), np.cumsum(blocks)[:-1])
    share = len(variance) / len(blocks)
    scale = np.concatenate([np.full(len(part), np.sqrt(part.sum() / share + _TINY)) for part in parts])
    return Standardized((outputs - centre) / scale.astype(np.float32), centre, scale)


def solve(
    train: HeadSplit,
    val: HeadSplit,
    classes: int,
    section: LBFGS,
    progress: Progress,
    objective: Objective | None = None,
    left: Callable[[], float | None] = lambda: None,
) -> LinearHead:
    """Solve a linear head to convergence for each strength of the L2 penalty, and keep the best.

    The head minimises mean cross-entropy + strength / 2 * |weight|^2 on features as `standardize` makes them, and is
    folded back to the features as they are. The solution for one strength starts the next. With
    `regularisation = "auto"` the strength that validation prefers is kept; the path ends when none of PATIENCE
    strengths was better, nor had a lower validation loss, or when the time is over, but never before there is one
    head.

    Args:
        train: Training features, of which each block is scaled by itself, and labels.
        val: Validation features and labels.
        classes: Number of classes.
        section: The options of the solver.
        progress: Where the bar and notes go.
        objective: What is minimised and selected by; None: plain cross-entropy.
        left: Returns the seconds that are left; None: as many as it takes.

    Returns:
        The head, with one row of history for each strength that was tried.
    """
    objective = objective or Objective()
    standard = standardize(train.outputs, train.blocks)
    targets = weigh_targets(objective, train.labels, classes)
    strengths = PENALTIES if section.regularisation == "auto" else (float(section.regularisation),)
    solution = np.zeros((classes, standard.inputs.shape[1] + 1))
    history: list[dict[str, float]] = []
    heads = []
    with limit_scipy_threads(), progress.bar("Solving the head", len(strengths)) as step:
        for strength in strengths:
            solution = _minimise(solution, standard.inputs, targets, strength, left)
            weight, bias = standard.fold_back(solution)
            scores = score_head(train, val, weight, bias)
            history.append(
                {"regularisation": strength, **scores, **_score_selected(objective.select, val, weight, bias)}
            )
            heads.append((weight, bias))
            step(1)
            if strength != strengths[-1] and _is_over(left):
                progress.note(_explain_end(len(history), len(strengths)))
                break
            if len(history) - 1 - max(find_best_row(history), find_best_row(history, objective.select)) == PATIENCE:
                break
    best = find_best_row(history, objective.select)
    return LinearHead(*heads[best], tuple(history), {"regularisation": strengths[best]})


@dataclass(frozen=True)
class WeighedTargets:
    """What a head is solved for: minus the sum of targets times log-chances, divided by a total, is the loss.

    Attributes:
        values: float64 [n, classes].
        total: What their sum is divided by.
        shift: What is added to the logits, float64 [classes].
    """

    values: NDArray[np.float64]
    total: float
    shift: NDArray[np.float64]


def weigh_targets(objective: Objective, labels: NDArray[np.int32], classes: int) -> WeighedTargets:
    """Weigh the targets of each image.

    The loss is that of a training in steps (`losses.make_loss`), over all images at once.

    Args:
        objective: What the head is solved for.
        labels: int32 [n].
        classes: Number of classes.

    Returns:
        The targets with what they are divided by.
    """
    loss, n = objective.loss, len(labels)
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    shift = loss.logit_adjustment * np.log(counts / counts.sum())
    targets = np.eye(classes, dtype=np.float64)[labels]
    if not (loss.class_weights or objective.balanced or loss.label_smoothing):
        return WeighedTargets(targets, n, shift)
    weight = n / (classes * counts) if loss.class_weights else np.ones(classes)
    share = 1 / counts[labels] if objective.balanced else np.ones(n)
    targets = targets * (1 - loss.label_smoothing) + loss.label_smoothing / classes
    return WeighedTargets(targets * weight * share[:, None], float((share * weight[labels]).sum()), shift)


def _score_selected(
    select: str, val: HeadSplit, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> dict[str, float]:
    """The metric on validation that the strength is chosen by, where it is not in every row anyway."""
    if select in (LOSS, "accuracy"):
        return {}
    task = task_of((), len(weight))
    logits = compute_head_logits(val.outputs, weight, bias)
    return {f"val_{select}": task.score(select, task.read_labels(val.labels), logits)}


def _is_over(left: Callable[[], float | None]) -> bool:
    seconds = left()
    return seconds is not None and seconds <= 0


def _explain_end(done: int, count: int) -> str:
    return f"The time limit was reached after {counted(done, 'strength')} of the penalty, of at most {count}."


def limit_scipy_threads() -> AbstractContextManager[object]:
    """Limit SciPy to one thread: its linear algebra library fights with NumPy's, which makes both nine times slower.

    Returns:
        A context in which the limit holds.
    """
    limit: AbstractContextManager[object] = (
        ThreadpoolController().select(filepath=_list_scipy_libraries()).limit(limits=1)
    )
    return limit


def _list_scipy_libraries() -> list[str]:
    libraries = ThreadpoolController().info()
    return [library["filepath"] for library in libraries if "scipy" in library["filepath"].lower()]


def _minimise(
    start: NDArray[np.float64],
    inputs: NDArray[np.float32],
    targets: WeighedTargets,
    strength: float,
    left: Callable[[], float | None],
) -> NDArray[np.float64]:
    """The weights and biases, float64 [classes, features + 1], at the minimum, or where the time was over."""
    mass = targets.values.sum(axis=1, keepdims=True)

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, bias = flat.reshape(start.shape)[:, :-1], flat.reshape(start.shape)[:, -1]
        logits = (inputs @ weight.T.astype(np.float32)).astype(np.float64) + (bias + targets.shift)
        logits -= logits.max(axis=1, keepdims=True)
        log_chance = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -float((targets.values * log_chance).sum()) / targets.total + strength / 2 * float(
            np.square(weight).sum()
        )
        excess = (np.exp(log_chance) * mass - targets.values) / targets.total
        slope = (excess.T.astype(np.float32) @ inputs).astype(np.float64) + strength * weight
        return loss, np.concatenate([slope, excess.sum(axis=0)[:, None]], axis=1).ravel()

    def stop_in_time(intermediate_result: OptimizeResult) -> None:
        if _is_over(left):
            raise StopIteration

    options = {"maxiter": STEPS, "gtol": GRADIENT, "ftol": 1e-9}
    optimum = minimize(
        loss_and_gradient, start.ravel(), jac=True, method="L-BFGS-B", options=options, callback=stop_in_time
    )
    return np.asarray(optimum.x, np.float64).reshape(start.shape)
