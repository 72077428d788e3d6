"""A linear head solved to convergence, without torch: multinomial logistic regression by SciPy's L-BFGS."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from budwood.config.optimizers import LBFGS
from budwood.progress import Progress
from budwood.training.linear_head import HeadSplit, LinearHead, find_best_row, score_head

PENALTIES: Final = tuple(10.0 ** (power / 2) for power in range(4, -11, -1))  # 100 to 1e-5, strong to weak
PATIENCE: Final = 4  # weaker penalties that are tried after the best one
STEPS: Final = 300
GRADIENT: Final = 1e-5  # largest entry of the gradient at which a solution counts as found
_TINY: Final = 1e-12


def solve(train: HeadSplit, val: HeadSplit, classes: int, section: LBFGS, progress: Progress) -> LinearHead:
    """Solve a linear head to convergence for each strength of the L2 penalty, and keep the best.

    The head minimises mean cross-entropy + strength / 2 * |weight|^2. Features are centred and divided by one
    common scale, the root mean variance: dividing each feature by its own deviation made the rare ones loud and
    validation worse. The solution for one strength starts the next. With `regularisation = "auto"` the strength
    with the lowest validation loss is kept; the path ends when that loss has not fallen for PATIENCE strengths.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        classes: Number of classes.
        section: The options of the solver.
        progress: Where the bar goes.

    Returns:
        The head, with one row of history for each strength that was tried.
    """
    centre = train.outputs.mean(axis=0)
    scale = float(np.sqrt(train.outputs.var(axis=0).mean() + _TINY))
    inputs = (train.outputs - centre) / np.float32(scale)
    targets = np.eye(classes, dtype=np.float64)[train.labels]
    strengths = PENALTIES if section.regularisation == "auto" else (float(section.regularisation),)
    solution = np.zeros((classes, inputs.shape[1] + 1))
    history: list[dict[str, float]] = []
    heads = []
    with _limit_scipy_threads(), progress.bar("Solving the head", len(strengths)) as step:
        for strength in strengths:
            solution = _minimise(solution, inputs, targets, strength)
            weight = (solution[:, :-1] / scale).astype(np.float32)
            bias = (solution[:, -1] - solution[:, :-1] @ centre / scale).astype(np.float32)
            history.append({"regularisation": strength, **score_head(train, val, weight, bias)})
            heads.append((weight, bias))
            step(1)
            if len(history) - 1 - find_best_row(history) == PATIENCE:
                break
    best = find_best_row(history)
    return LinearHead(*heads[best], tuple(history), {"regularisation": strengths[best]})


def _limit_scipy_threads() -> AbstractContextManager[object]:
    """SciPy brings a linear algebra library of its own, whose threads fight with NumPy's: nine times slower."""
    limit: AbstractContextManager[object] = (
        ThreadpoolController().select(filepath=_list_scipy_libraries()).limit(limits=1)
    )
    return limit


def _list_scipy_libraries() -> list[str]:
    libraries = ThreadpoolController().info()
    return [library["filepath"] for library in libraries if "scipy" in library["filepath"].lower()]


def _minimise(
    start: NDArray[np.float64], inputs: NDArray[np.float32], targets: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    n = len(inputs)

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, bias = flat.reshape(start.shape)[:, :-1], flat.reshape(start.shape)[:, -1]
        logits = (inputs @ weight.T.astype(np.float32)).astype(np.float64) + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_chance = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -float((targets * log_chance).sum()) / n + strength / 2 * float(np.square(weight).sum())
        excess = (np.exp(log_chance) - targets) / n
        slope = (excess.T.astype(np.float32) @ inputs).astype(np.float64) + strength * weight
        return loss, np.concatenate([slope, excess.sum(axis=0)[:, None]], axis=1).ravel()

    options = {"maxiter": STEPS, "gtol": GRADIENT, "ftol": 1e-9}
    optimum = minimize(loss_and_gradient, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(optimum.x, np.float64).reshape(start.shape)
