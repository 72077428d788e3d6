"""A linear head and what it is trained on: the records that `solve` and `train` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budwood.metrics import cross_entropy


@dataclass(frozen=True)
class Split:
    """Inputs of a head: outputs of the trunk float32 [n, features] and labels int32 [n]."""

    outputs: NDArray[np.float32]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Head:
    """A linear head: weight float32 [classes, features], bias float32 [classes].

    `history` has one row per epoch, or per strength of the penalty; `selected` names the row that was kept.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: dict[str, float]


def logits(outputs: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """The head's logits: float32 [n, classes]."""
    return outputs @ weight.T + bias


def scores(train: Split, val: Split, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> dict[str, float]:
    """Mean loss (nats) and accuracy of a head on both splits, for a row of the history."""
    row = {}
    for name, split in (("train", train), ("val", val)):
        answers = logits(split.outputs, weight, bias)
        row[f"{name}_loss"] = float(cross_entropy(split.labels, answers).mean())
        row[f"{name}_accuracy"] = float((answers.argmax(axis=1) == split.labels).mean())
    return row


def best_row(history: list[dict[str, float]]) -> int:
    """The row with the lowest validation loss; the earliest of equals."""
    return min(range(len(history)), key=lambda row: history[row]["val_loss"])
