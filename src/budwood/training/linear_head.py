"""A linear head on features, trained in NumPy, which loads in no time: SGD and Adam as torch.optim has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.metric_registry import LOSS
from budwood.config.optimizers import SGD, Adam, StepOptimizer
from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.errors import diverged
from budwood.evaluation.logits import cross_entropy
from budwood.networks.registry import HEAD
from budwood.progress import Progress
from budwood.training.history import GRADIENT, WEIGHT


@dataclass(frozen=True)
class HeadSplit:
    """The inputs of a linear head for one split.

    Attributes:
        outputs: Features from the trunk, float32 [n, features].
        labels: int32 [n].
        blocks: Widths of the blocks that the features consist of, as a network's plan has them; with fewer than two,
            all are one.
    """

    outputs: NDArray[np.float32]
    labels: NDArray[np.int32]
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class LinearHead:
    """A linear head that has been trained.

    Attributes:
        weight: float32 [classes, features].
        bias: float32 [classes].
        history: One row per epoch, or per strength of the penalty.
        selected: The row that was kept: its `epoch` or its `regularisation`.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: dict[str, float]


def compute_head_logits(
    outputs: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute the logits of a linear head.

    Args:
        outputs: Features, float32 [n, features].
        weight: float32 [classes, features].
        bias: float32 [classes].

    Returns:
        Logits float32 [n, classes].
    """
    return outputs @ weight.T + bias


def score_head(
    train: HeadSplit, val: HeadSplit, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> dict[str, float]:
    """Compute the loss and the accuracy of a linear head on both splits.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        weight: float32 [classes, features].
        bias: float32 [classes].

    Returns:
        Columns of a history: `train_loss` and `val_loss` (mean, nats), `train_accuracy` and `val_accuracy` (0 to
        1).
    """
    row = {}
    for name, split in (("train", train), ("val", val)):
        answers = compute_head_logits(split.outputs, weight, bias)
        row[f"{name}_loss"] = float(cross_entropy(split.labels, answers).mean())
        row[f"{name}_accuracy"] = float((answers.argmax(axis=1) == split.labels).mean())
    return row


def find_best_row(history: Sequence[Mapping[str, float]], select: str = LOSS) -> int:
    """Find the row of a history that validation prefers.

    Args:
        history: At least one row with `val_loss` and the figure that `select` names.
        select: `loss` (lowest is best) or a metric (highest is best, and among equals the lowest loss).

    Returns:
        The row's number from 0; the earliest of equals.
    """

    def rank(row: Mapping[str, float]) -> tuple[float, float]:
        return (0.0 if select == LOSS else -row[f"val_{select}"], row["val_loss"])

    return min(range(len(history)), key=lambda number: rank(history[number]))


Array = NDArray[np.float32]
Optimizer = Callable[[Array, Array], None]  # moves a parameter, in place, along its gradient

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


def descend(train: HeadSplit, val: HeadSplit, classes: int, recipe: ResolvedRecipe, progress: Progress) -> LinearHead:
    """Train a linear head by mini-batch gradient descent on the cross-entropy.

    The epoch with the lowest validation loss is kept. The gradient is two matrix products, so the loop runs in
    NumPy and needs no PyTorch, which takes three seconds to load where ten epochs take a third of one. Its steps
    are those of `torch.optim`; tests hold it to that.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        classes: Number of classes.
        recipe: The recipe, whose optimizer is SGD or Adam; its epochs are finite.
        progress: Where the bar goes.

    Returns:
        The head of the best epoch, with one row of history for each epoch.

    Raises:
        DivergedError: The loss is no longer a number.
    """
    section, epochs, batch = recipe.steps, int(recipe.limits.epochs), recipe.sampling.batch
    random = np.random.default_rng(recipe.seed)
    n, features = train.outputs.shape
    bound = features**-0.5
    weight = random.uniform(-bound, bound, (classes, features)).astype(np.float32)
    bias = random.uniform(-bound, bound, classes).astype(np.float32)
    move_weight, move_bias = make_numpy_optimizer(section), make_numpy_optimizer(section)
    history: list[dict[str, float]] = []
    heads = []
    with progress.bar("Training the head", epochs) as step:
        for epoch in range(1, epochs + 1):
            order, gradients = random.permutation(n), []
            for start in range(0, n, batch):
                rows = order[start : start + batch]
                inputs, labels = train.outputs[rows], train.labels[rows]
                loss, excess = _loss_and_slope(compute_head_logits(inputs, weight, bias), labels)
                if not np.isfinite(loss):
                    raise diverged(epoch, start // batch + 1, section.lr)
                slope, shift = excess.T @ inputs, excess.sum(axis=0)
                gradients.append(_joint_norm(slope, shift))
                move_weight(weight, slope)
                move_bias(bias, shift)
            heads.append((weight.copy(), bias.copy()))
            norms = {f"{WEIGHT}{HEAD}": _joint_norm(weight, bias), f"{GRADIENT}{HEAD}": float(np.mean(gradients))}
            history.append({"epoch": float(epoch), **score_head(train, val, weight, bias), **norms})
            step(1)
    best = find_best_row(history)
    return LinearHead(*heads[best], tuple(history), {"epoch": best + 1})


def _joint_norm(*tensors: Array) -> float:
    """The L2 norm of several tensors together."""
    return math.sqrt(sum(float(np.vdot(tensor, tensor)) for tensor in tensors))


def make_numpy_optimizer(section: StepOptimizer) -> Optimizer:
    """Make the optimizer of one parameter, with the state that it keeps between steps.

    Args:
        section: The options of SGD or Adam.

    Returns:
        A function that moves a parameter in place along its gradient, both float32 of one shape.
    """
    return _make_sgd(section) if isinstance(section, SGD) else _make_adam(section)


def _make_sgd(section: SGD) -> Optimizer:
    """Stochastic gradient descent with momentum; weight decay is part of the gradient."""
    lr, decay, momentum = map(np.float32, (section.lr, section.weight_decay, section.momentum))
    velocity: list[Array] = []

    def move(parameter: Array, gradient: Array) -> None:
        gradient = gradient + decay * parameter
        velocity[:] = [momentum * velocity[0] + gradient] if velocity else [gradient]
        parameter -= lr * velocity[0]

    return move


def _make_adam(section: StepOptimizer) -> Optimizer:
    """Adam (Kingma and Ba 2015); weight decay is part of the gradient, or taken off the weights before the step."""
    decoupled = isinstance(section, Adam) and section.decay == "decoupled"
    lr, decay = np.float32(section.lr), np.float32(0.0 if decoupled else section.weight_decay)
    kept = np.float32(1 - section.lr * section.weight_decay if decoupled else 1)
    first, second = (np.float32(beta) for beta in BETAS)
    mean: Array = np.zeros(1, np.float32)
    square: Array = np.zeros(1, np.float32)
    count = 0

    def move(parameter: Array, gradient: Array) -> None:
        nonlocal mean, square, count
        count += 1
        parameter *= kept
        gradient = gradient + decay * parameter
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient * gradient
        unbiased = np.sqrt(square / np.float32(1 - BETAS[1] ** count)) + np.float32(EPSILON)
        parameter -= lr / np.float32(1 - BETAS[0] ** count) * mean / unbiased

    return move


def _loss_and_slope(answers: Array, labels: NDArray[np.int32]) -> tuple[float, Array]:
    """Mean cross-entropy (nats) and its derivative by the logits: float32 [n, classes]."""
    rows = np.arange(len(labels))
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = answers - answers.max(axis=1, keepdims=True)
        chance = np.exp(shifted)
        total = chance.sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) - shifted[rows, labels]).mean())
        chance /= total
    chance[rows, labels] -= 1
    return loss, chance / np.float32(len(labels))
