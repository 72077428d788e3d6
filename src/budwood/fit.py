"""Training a network, or what of it is not frozen: the loop, in plain sight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from budwood.errors import RecipeError
from budwood.head import best_row
from budwood.progress import Progress
from budwood.recipe import Recipe
from budwood.stages import segment
from budwood.surgery import Grafted, frozen_parts, loaded, parameter_groups, set_modes
from budwood.torch_engine import FromPixels, Part

EVALUATED: Final = 64  # images a batch where nothing is learned
OPTIMIZERS: Final[dict[str, Callable[..., torch.optim.Optimizer]]] = {
    "adam": lambda groups, recipe: torch.optim.Adam(groups),
    "sgd": lambda groups, recipe: torch.optim.SGD(groups, momentum=recipe.momentum or 0.0),
}


class Rows(Protocol):
    """Inputs of a network by row: uint8 pixels [n, size, size, 3] or float32 outputs of a frozen prefix [n, *shape]."""

    def __len__(self) -> int:
        """How many there are."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some of them, in that order."""


@dataclass(frozen=True)
class Held:
    """Rows that are held in memory."""

    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some of them, in that order."""
        return np.asarray(self.values[rows])


@dataclass(frozen=True)
class Labelled:
    """The inputs and labels (int32 [n]) of one split."""

    inputs: Rows
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Fitted:
    """A trained network: its tensors by name, the validation logits float32 [n, classes], one row of history an epoch,
    the epoch that was kept, the device, and what was set aside of the weights."""

    state: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: dict[str, float]
    device: str
    aside: str


def fit(part: Part, train: Labelled, val: Labelled, progress: Progress) -> Fitted:
    """Train a recipe's network; the epoch with the lowest validation loss is kept.

    `part.stop` is the place of the frozen prefix whose outputs `train` and `val` hold; None when they hold pixels.
    Raises `RecipeError` when the loss is no longer a number.
    """
    recipe = part.recipe
    assert recipe.epochs
    assert recipe.batch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, aside = loaded(recipe, part.plan, part.classes, part.weights)
    frozen = frozen_parts(network.staged, recipe.freeze)
    module = (
        FromPixels(network.module, part.plan) if part.stop is None else segment(network.staged, part.stop, None)
    ).to(device)
    network.module.to(device)
    optimizer = OPTIMIZERS[recipe.optimizer](parameter_groups(network.staged, frozen, recipe), recipe)
    order = np.random.default_rng(recipe.seed)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    best_logits = np.empty(0, np.float32)
    with (
        torch.random.fork_rng(),
        progress.bar(f"Training {part.plan['name']}", recipe.epochs * len(train.labels)) as step,
    ):
        torch.manual_seed(recipe.seed or 0)
        for epoch in range(1, recipe.epochs + 1):
            losses, right = 0.0, 0
            set_modes(network.module, frozen)
            for rows in batches(order.permutation(len(train.labels)), recipe.batch):
                inputs, labels = _on(train, rows, device)
                logits = module(inputs)
                loss = F.cross_entropy(logits, labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if not torch.isfinite(loss):
                    raise _diverged(epoch, recipe)
                losses += float(loss.detach()) * len(rows)
                right += int((logits.argmax(dim=1) == labels).sum())
                step(len(rows))
            val_logits = logits_of(module, network, val, device)
            history.append(_row(epoch, losses, right, len(train.labels), val_logits, val.labels))
            if best_row(history) == epoch - 1:
                best = {name: tensor.detach().cpu().clone() for name, tensor in network.module.state_dict().items()}
                best_logits = val_logits
    state = {name: tensor.numpy() for name, tensor in best.items()}
    return Fitted(state, best_logits, tuple(history), {"epoch": best_row(history) + 1}, device, aside)


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """An order of rows in batches; a single row that is left over joins the batch before, as batch norm needs two."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:stop]


def logits_of(module: nn.Module, network: Grafted, split: Labelled, device: str) -> NDArray[np.float32]:
    """The logits of a whole split in evaluation mode, float32 [n, classes]."""
    network.module.eval()
    order = np.arange(len(split.labels))
    with torch.inference_mode():
        found = [module(_on(split, rows, device)[0]).float().cpu().numpy() for rows in batches(order, EVALUATED)]
    return np.concatenate(found)


def _on(split: Labelled, rows: NDArray[np.int64], device: str) -> tuple[Tensor, Tensor]:
    """A batch and its labels on the device."""
    inputs = torch.from_numpy(split.inputs.take(rows))
    labels = torch.from_numpy(split.labels[rows].astype(np.int64))
    return inputs.to(device), labels.to(device)


def _row(
    epoch: int, losses: float, right: int, n: int, val_logits: NDArray[np.float32], labels: NDArray[np.int32]
) -> dict[str, float]:
    """A row of the history: training figures are means over the epoch's steps, validation's are after it."""
    val = torch.from_numpy(val_logits)
    return {
        "epoch": float(epoch),
        "train_loss": losses / n,
        "train_accuracy": right / n,
        "val_loss": float(F.cross_entropy(val, torch.from_numpy(labels.astype(np.int64)))),
        "val_accuracy": float((val_logits.argmax(axis=1) == labels).mean()),
    }


def _diverged(epoch: int, recipe: Recipe) -> RecipeError:
    return RecipeError(
        f"The loss is no longer a number in epoch {epoch}, at a learning rate of {recipe.lr}.",
        "Lower the learning rate, for example by a factor of ten.",
    )
