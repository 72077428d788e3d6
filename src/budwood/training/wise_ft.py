"""Weights between those that training started from and those that it ended with (WiSE-FT, Wortsman et al. 2022).

A fine-tuned network often answers better, and on other images more surely, when its weights are moved some way back
(https://arxiv.org/abs/2109.01903).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from budwood.training.checkpoints import Tensors

SHARES: Final = tuple(tenth / 10 for tenth in range(10, -1, -1))  # of the trained weights, that `auto` tries


@dataclass(frozen=True)
class Blend:
    """The weights that are kept at the end of a training.

    Attributes:
        share: Share of the trained weights in them; the rest is of the start.
        tensors: The tensors that are not frozen, by name.
        logits: Validation logits, float32 [n, classes].
        chosen: Whether the recipe asked for a share, or to choose one.
    """

    share: float
    tensors: Tensors
    logits: NDArray[np.float32]
    chosen: bool = False


def count_evaluations(share: float | None) -> int:
    """Count the evaluations that follow the last epoch.

    Args:
        share: Share of the trained weights; None: it is chosen.

    Returns:
        How often validation is evaluated; 0 where the trained weights themselves are kept.
    """
    return len(SHARES) - 1 if share is None else int(share != 1)


def blend_weights(
    start: Tensors,
    trained: Blend,
    share: float | None,
    evaluate: Callable[[Tensors], NDArray[np.float32]],
    score: Callable[[NDArray[np.float32]], float],
) -> Blend:
    """Blend the weights at the start of a training with those at its end.

    Parameters and the statistics of batch norm are interpolated alike; counters are those at the end.

    Args:
        start: The tensors at the start, by name.
        trained: The tensors at the end, with their logits.
        share: Share of the trained weights, 0 to 1; None: of 0, 0.1 and so on to 1 that with the best score, and of
            equals the largest.
        evaluate: Returns the validation logits of a network with other tensors.
        score: Returns how good logits are; higher is better.

    Returns:
        The tensors of that share, with their logits.
    """
    best, highest = None, -np.inf
    for each in SHARES if share is None else (share,):
        tensors = {name: _interpolate(start[name], end, each) for name, end in trained.tensors.items()}
        logits = trained.logits if each == 1 else evaluate(tensors)
        reached = score(logits)
        if best is None or reached > highest:
            best, highest = Blend(each, tensors, logits, chosen=True), reached
    assert best is not None
    return best


def _interpolate(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    """A tensor between two, which are met exactly at 0 and 1; of whole numbers the second, but at 0."""
    if end.is_floating_point():
        return torch.lerp(start, end, share)
    return end if share else start
