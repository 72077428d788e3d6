"""Training a network, or what of it is not frozen: the loop, in plain sight."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from budwood.augment import augmented, drawn
from budwood.errors import RecipeError
from budwood.losses import blended, epoch_order, loss_of
from budwood.metrics import cross_entropy, score
from budwood.progress import Progress
from budwood.recipe import Recipe
from budwood.schedule import rate_factor
from budwood.stages import segment
from budwood.surgery import Frozen, Grafted, frozen_parts, loaded, parameter_groups, set_modes
from budwood.torch_engine import FromPixels, Part

ALLOCATOR: Final = {-4: 0, -1: 2**31 - 1}  # glibc's M_MMAP_MAX and M_TRIM_THRESHOLD: map nothing apart, trim nothing
EVALUATED: Final = 64  # images a batch where nothing is learned
OPTIMIZERS: Final[dict[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]]] = {
    "sgd": lambda groups, recipe: torch.optim.SGD(
        groups, momentum=recipe.momentum or 0.0, nesterov=bool(recipe.nesterov)
    ),
    "adam": lambda groups, recipe: torch.optim.Adam(groups),
    "adamw": lambda groups, recipe: torch.optim.AdamW(groups),
    "nadam": lambda groups, recipe: torch.optim.NAdam(groups),
    "adamax": lambda groups, recipe: torch.optim.Adamax(groups),
    "adagrad": lambda groups, recipe: torch.optim.Adagrad(groups),
    "adadelta": lambda groups, recipe: torch.optim.Adadelta(groups),
    "rmsprop": lambda groups, recipe: torch.optim.RMSprop(groups, momentum=recipe.momentum or 0.0),
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
    the epoch that was kept, the device, the precision of the steps, whether freed memory was kept between them, and
    what was set aside of the weights."""

    state: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: dict[str, float]
    device: str
    precision: str
    keeps_memory: bool
    aside: str


def fit(
    part: Part, train: Labelled, val: Labelled, progress: Progress, start: Mapping[str, NDArray[Any]] | None = None
) -> Fitted:
    """Train a recipe's network; the epoch that validation prefers is kept.

    `part.stop` is the place of the frozen prefix whose outputs `train` and `val` hold; None when they hold pixels.
    `start` has the tensors to start from, where they are not the recipe's weights. Raises `RecipeError` when the loss
    is no longer a number.
    """
    recipe = part.recipe
    assert recipe.epochs
    assert recipe.batch
    assert recipe.accumulate
    model = ready(part, start)
    average = Average(model.trained, recipe.ema) if recipe.ema else None
    loss_of_batch = loss_of(recipe, train.labels, part.classes, model.device)
    random = np.random.default_rng(recipe.seed)
    steps_an_epoch = -(-len(list(batches(np.arange(len(train.labels)), recipe.batch))) // recipe.accumulate)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    best_logits = np.empty(0, np.float32)
    total = recipe.epochs * len(train.labels)
    with torch.random.fork_rng(), progress.bar(f"Training {part.plan['name']}", total) as advance:
        torch.manual_seed(recipe.seed or 0)
        for epoch in range(1, recipe.epochs + 1):
            losses, right = 0.0, 0
            set_modes(model.network.module, model.frozen)
            order = batches(epoch_order(recipe, train.labels, random), recipe.batch)
            for step, group in enumerate(in_groups(order, recipe.accumulate), (epoch - 1) * steps_an_epoch):
                factor = rate_factor(recipe, step, steps_an_epoch, [row["val_loss"] for row in history])
                model.set_rates(factor)
                model.optimizer.zero_grad(set_to_none=True)
                images = sum(map(len, group))
                for rows in group:
                    logits, shares, labels = seen(model, train, rows, random)
                    loss = loss_of_batch(logits, shares)
                    (loss * (len(rows) / images)).backward()  # type: ignore[no-untyped-call]
                    losses += float(loss.detach()) * len(rows)
                    right += int((logits.argmax(dim=1) == labels).sum())
                    if not math.isfinite(losses):
                        raise _diverged(epoch, recipe)
                    advance(len(rows))
                if recipe.clip:
                    nn.utils.clip_grad_norm_(model.trained, recipe.clip)
                model.optimizer.step()
                if average:
                    average.update()
            with average.in_place() if average else nullcontext():
                val_logits = logits_of(model, val)
                state = {n: tensor.detach().cpu().clone() for n, tensor in model.network.module.state_dict().items()}
            row = {"epoch": float(epoch), "lr": float(recipe.lr or 0.0) * factor}
            history.append(row | _figures(recipe, losses, right, len(train.labels), val_logits, val.labels))
            kept = best_epoch(history, recipe)
            if kept == epoch:
                best, best_logits = state, val_logits
            if recipe.patience and epoch - kept >= recipe.patience:
                progress.note(f"Stopped after epoch {epoch}: none was better than epoch {kept} since.")
                break
    tensors = {name: tensor.numpy() for name, tensor in best.items()}
    selected: dict[str, float] = {"epoch": best_epoch(history, recipe)}
    precision = "bfloat16 (autocast)" if model.halved else "float32"
    return Fitted(
        tensors, best_logits, tuple(history), selected, model.device, precision, model.keeps_memory, model.aside
    )


@dataclass(frozen=True)
class Ready:
    """A network that is ready to be trained: `module` takes what the inputs hold, and shares its parts with `network`.

    `rates` are those of the optimizer's groups before any schedule; `halved` says whether steps are in bfloat16, and
    `keeps_memory` whether freed memory is kept between them.
    """

    part: Part
    network: Grafted
    frozen: Frozen
    module: nn.Module
    optimizer: torch.optim.Optimizer
    rates: tuple[float, ...]
    device: str
    halved: bool
    keeps_memory: bool
    aside: str

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimizer moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def set_rates(self, factor: float) -> None:
        """Give every group its own rate times a factor."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


def ready(part: Part, start: Mapping[str, NDArray[Any]] | None) -> Ready:
    """The network of a part with its weights, or with the tensors `start`, on the device, and its optimizer."""
    recipe = part.recipe
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keeps_memory = device == "cpu" and keep_memory()
    network, aside = loaded(recipe, part.plan, part.classes, part.weights)
    if start is not None:
        network.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in start.items()})
    network.module.to(device).to(memory_format=torch.channels_last)
    frozen = frozen_parts(network.staged, recipe.freeze)
    rest = FromPixels(network.module, part.plan) if part.stop is None else segment(network.staged, part.stop, None)
    optimizer = OPTIMIZERS[recipe.optimizer](parameter_groups(network.staged, frozen, recipe), recipe)
    rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
    able = device == "cuda" and torch.cuda.is_bf16_supported()
    halved = recipe.precision == "bfloat16" or (recipe.precision == "auto" and able)
    return Ready(part, network, frozen, rest.to(device), optimizer, rates, device, halved, keeps_memory, aside)


def keep_memory() -> bool:
    """Whether the C library now keeps freed memory for the next step instead of handing it back after each.

    glibc maps every large array anew and the kernel clears its pages, which took half of a training step's time. The
    setting is of the whole process; memory is still reused, and is handed back when the process ends.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in ALLOCATOR.items())


def seen(
    model: Ready, split: Labelled, rows: NDArray[np.int64], random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What a network makes of a training batch: logits float32 [n, classes], target shares [n, classes], labels [n]."""
    recipe, plan = model.part.recipe, model.part.plan
    inputs, labels = _on(split, rows, model.device)
    shares = F.one_hot(labels, model.part.classes).float()
    if recipe.augments:
        inputs = augmented(inputs.float(), drawn(recipe, len(rows), plan["size"], random), recipe)
        inputs, shares = blended(recipe, inputs, shares, random)
    with torch.autocast(model.device, torch.bfloat16, enabled=model.halved):
        logits = model.module(inputs).float()
    return logits, shares, labels


class Average:
    """The exponential moving average of parameters (Polyak and Juditsky 1992), which may stand in for them."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step towards the parameters."""
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter, 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the parameters, for a block."""
        held = [parameter.data for parameter in self._parameters]
        for value, parameter in zip(self.values, self._parameters, strict=True):
            parameter.data = value
        try:
            yield
        finally:
            for data, parameter in zip(held, self._parameters, strict=True):
                parameter.data = data


def best_epoch(history: Sequence[Mapping[str, float]], recipe: Recipe) -> int:
    """The epoch that validation prefers, from 1; the earliest of equals."""
    chosen = recipe.select or "loss"
    scores = [-row["val_loss"] if chosen == "loss" else row[f"val_{chosen}"] for row in history]
    return scores.index(max(scores)) + 1


def in_groups(items: Iterable[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    """Items in lists of `size`; the last may be shorter."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """An order of rows in batches; a single row that is left over joins the batch before, as batch norm needs two."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:stop]


def logits_of(model: Ready, split: Labelled) -> NDArray[np.float32]:
    """The logits of a whole split in evaluation mode and full precision, float32 [n, classes]."""
    model.network.module.eval()
    order = np.arange(len(split.labels))
    with torch.inference_mode():
        found = [model.module(_on(split, rows, model.device)[0]).cpu().numpy() for rows in batches(order, EVALUATED)]
    return np.concatenate(found)


def _on(split: Labelled, rows: NDArray[np.int64], device: str) -> tuple[Tensor, Tensor]:
    """A batch and its labels on the device."""
    inputs = torch.from_numpy(split.inputs.take(rows))
    labels = torch.from_numpy(split.labels[rows].astype(np.int64))
    return inputs.to(device), labels.to(device)


def _figures(
    recipe: Recipe, losses: float, right: int, n: int, val_logits: NDArray[np.float32], labels: NDArray[np.int32]
) -> dict[str, float]:
    """Figures of one epoch: training's are means over its steps, as they were made; validation's are after it."""
    chosen = recipe.select or "loss"
    figures = {
        "train_loss": losses / n,
        "train_accuracy": right / n,
        "val_loss": float(cross_entropy(labels, val_logits).mean()),
        "val_accuracy": float((val_logits.argmax(axis=1) == labels).mean()),
    }
    return (
        figures if chosen in ("loss", "accuracy") else {**figures, f"val_{chosen}": score(chosen, labels, val_logits)}
    )


def _diverged(epoch: int, recipe: Recipe) -> RecipeError:
    return RecipeError(
        f"The loss is no longer a number in epoch {epoch}, at a learning rate of {recipe.lr}.",
        "Lower the learning rate, for example by a factor of ten.",
    )
