"""The learning-rate finder: the loss while the rate grows from far too small to far too large (Smith 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from budwood.config.resolved_recipe import ResolvedRecipe, Sampling
from budwood.errors import RecipeError
from budwood.inference.input_sources import Labelled, batches
from budwood.inference.pytorch_backend import NetworkSlice
from budwood.networks.freezing import set_modes
from budwood.progress import Progress
from budwood.training.checkpoints import LoopState
from budwood.training.loop import compute_gradients
from budwood.training.losses import draw_epoch_order, make_loss
from budwood.training.state import prepare_training

STEPS: Final = 100
LOWEST: Final = 1e-7
HIGHEST: Final = 10.0
SMOOTHING: Final = 0.8  # decay of the running mean by which a trial ends
DIVERGED: Final = 4.0  # times the lowest mean: larger rates are not tried
WINDOW: Final = 9  # steps about each one whose mean is its loss; a running mean would shift the curve to larger rates
LEAST: Final = 1e-3  # share of the loss: less of a fall is not told
FALL: Final = 0.95  # of the loss at the smallest rates: less of a fall is none


@dataclass(frozen=True)
class RateCurve:
    """The training loss over the learning rate, as a trial measured it.

    Attributes:
        rates: Learning rates that were tried, rising.
        losses: Training loss (nats) at each: the mean of the steps about it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def suggestion(self) -> float | None:
        """Return the learning rate at which the loss falls most steeply over the logarithm of the rate.

        None where the loss does not fall far enough to be told from chance.
        """
        losses = np.array(self.losses)
        lowest = int(losses.argmin())
        if lowest < WINDOW or self.fall < 1 - FALL:
            return None
        slopes = _smooth_centred(np.gradient(losses, np.log(self.rates)))[: lowest + 1]
        return self.rates[int(slopes.argmin())]

    @property
    def fall(self) -> float:
        """Return by which share of the loss at the smallest rates the loss falls; 0 where it does not."""
        losses = np.array(self.losses)
        return max(0.0, 1 - float(losses.min()) / float(losses[:WINDOW].mean()))

    @property
    def problem(self) -> str:
        """Return why there is no suggestion, in a clause; empty where there is one."""
        if self.suggestion is not None:
            return ""
        if self.fall < LEAST or self.losses[0] == min(self.losses):
            return "the loss fell at no rate"
        if self.fall < 1 - FALL:
            return f"the loss fell by {self.fall:.1%} at most, and less than {1 - FALL:.0%} may be chance"
        return "the loss fell at the smallest rates only, where it can be no effect of the rate"


def measure_rate_curve(
    part: NetworkSlice,
    recipe: ResolvedRecipe,
    train: Labelled,
    progress: Progress,
    start: Mapping[str, NDArray[Any]] | None = None,
) -> RateCurve:
    """Train for a hundred steps at growing learning rates, and forget what was learned (Smith 2017).

    The recipe's own rate plays no part. The trial ends early when the loss is far over its lowest value.

    Args:
        part: The network, from the image or from the outputs of a frozen prefix on.
        recipe: How it is trained.
        train: The training split.
        progress: Where the bar goes.
        start: Tensors to start from, by name; None: the weights of the part.

    Returns:
        The curve of the loss.

    Raises:
        RecipeError: Not even two images at a time fit into memory, or the loss is no finite number from the start.
    """
    model = prepare_training(part, recipe, start)
    loss_of_batch = make_loss(recipe.loss, train.labels, part.spec.classes, model.device, train.label_sets)
    random = np.random.default_rng(recipe.seed)
    rates, losses, state = [], [], LoopState()
    mean, lowest = 0.0, float("inf")
    with torch.random.fork_rng(), progress.bar("Finding a learning rate", STEPS) as advance:
        torch.manual_seed(recipe.seed)
        set_modes(model.network.module, model.frozen)
        for step, rows in zip(range(STEPS), _iterate_endlessly(recipe.sampling, train, random), strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            model.set_rates(rate / model.rates[0])
            loss = compute_gradients(model, train, [rows], loss_of_batch, random, state, progress)[0] / len(rows)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smooth = mean / (1 - SMOOTHING ** (step + 1))
            if not np.isfinite(smooth) or smooth > DIVERGED * lowest:
                break
            model.take_step()
            lowest = min(lowest, smooth)
            rates.append(rate)
            losses.append(loss)
            advance(1)
    if not losses:
        raise RecipeError(
            f"The loss is not a finite number at the smallest learning rate already ({LOWEST:g}).",
            "Look for broken images with `budwood inspect`, and check the weights, the loss and the transforms.",
        )
    return RateCurve(tuple(rates), tuple(_smooth_centred(np.array(losses)).tolist()))


def _smooth_centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the values about each one; the ends are repeated."""
    half = WINDOW // 2
    padded = np.pad(values, half, mode="edge")
    return np.convolve(padded, np.full(WINDOW, 1 / WINDOW), mode="valid")


def _iterate_endlessly(sampling: Sampling, train: Labelled, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches of one epoch after another."""
    while True:
        yield from batches(draw_epoch_order(sampling, train.labels, random), sampling.batch)
