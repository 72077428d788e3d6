"""A network that is ready to learn: on its device, with its optimizer, and the inputs that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from budwood.data.dataset import Sets, members
from budwood.inference.input_sources import Rows
from budwood.inference.pytorch_backend import FromPixels, Part
from budwood.networks.freezing import Frozen, frozen_parts, parameter_groups
from budwood.networks.stages import segment
from budwood.networks.surgery import Grafted, loaded
from budwood.training.augmentation import augmented, drawn
from budwood.training.checkpoints import parameters_of
from budwood.training.device import DEVICE_SHARE, best_device, keep_memory
from budwood.training.losses import blended
from budwood.training.optimizers import OPTIMIZERS

EVALUATED: Final = 64  # images a batch where nothing is learned


@dataclass(frozen=True)
class OnDevice:
    """Rows that are held on the device of training."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Some of them, in that order."""
        return self.values[torch.from_numpy(rows).to(self.values.device)]


@dataclass(frozen=True)
class Labelled:
    """The inputs and labels (int32 [n]) of one split; a label is the number of a set in `sets`, where there are any.

    Inputs may be several views of the images, each of n rows: all of the first before all of the second.
    """

    inputs: Rows
    labels: NDArray[np.int32]
    sets: Sets = ()


@dataclass(frozen=True)
class Ready:
    """A network that is ready to be trained: `module` takes what the inputs hold, and shares its parts with `network`.

    `rates` are those of the optimizer's groups before any schedule; `halved` says whether steps are in bfloat16, and
    `keeps_memory` whether freed memory is kept between them.
    """

    part: Part
    network: Grafted
    frozen: Frozen
    module: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    rates: tuple[float, ...]
    device: str
    halved: bool
    keeps_memory: bool
    aside: str
    compiled: bool = False

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimizer moves."""
        return parameters_of(self.optimizer)

    def set_rates(self, factor: float) -> None:
        """Give every group its own rate times a factor."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


def ready(part: Part, start: Mapping[str, NDArray[Any]] | None) -> Ready:
    """The network of a part with its weights, or with the tensors `start`, on the device, and its optimizer."""
    recipe = part.recipe
    device = best_device()
    keeps_memory = device == "cpu" and keep_memory()
    network, aside = loaded(recipe, part.plan, part.classes, part.weights)
    if start is not None:
        network.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in start.items()})
    network.module.to(device).to(memory_format=torch.channels_last)
    frozen = frozen_parts(network.staged, recipe.freeze)
    rest = FromPixels(network.module, part.plan) if part.stop is None else segment(network.staged, part.stop, None)
    optimizer = OPTIMIZERS[recipe.optimizer](parameter_groups(network.staged, frozen, recipe), recipe)
    rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
    able = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    halved = recipe.precision == "bfloat16" or (recipe.precision == "auto" and able)
    return Ready(part, network, frozen, rest.to(device), optimizer, rates, device, halved, keeps_memory, aside)


def on_device(split: Labelled, device: str) -> Labelled:
    """The split with its inputs on a CUDA device, where they take a small part of its free memory; else as it is."""
    if device != "cuda":
        return split
    first = split.inputs.take(np.zeros(1, np.int64))
    if isinstance(first, Tensor) or first.nbytes * len(split.inputs) > DEVICE_SHARE * torch.cuda.mem_get_info()[0]:
        return split
    return placed(split, device)


def placed(split: Labelled, device: str) -> Labelled:
    """The split with its inputs on a device."""
    taken = [_inputs(split, rows, device) for rows in batches(np.arange(len(split.inputs)), EVALUATED)]
    return Labelled(OnDevice(torch.cat(taken)), split.labels, split.sets)


def seen(
    model: Ready, split: Labelled, rows: NDArray[np.int64], random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What a network makes of a training batch: logits float32 [n, classes], the shares [n, classes] that are its
    targets, and those that they were before images were blended."""
    recipe, plan = model.part.recipe, model.part.plan
    views = len(split.inputs) // len(split.labels)
    shown = rows if views == 1 else rows + len(split.labels) * random.integers(views, size=len(rows))
    inputs = _inputs(split, shown, model.device)
    labels = torch.from_numpy(split.labels[rows].astype(np.int64)).to(model.device)
    truth = shares = targets(split, labels, model.part.classes)
    if recipe.augments and model.part.stop is None:
        inputs = augmented(inputs.float(), drawn(recipe, len(rows), plan["size"], random), recipe)
        inputs, shares = blended(recipe, inputs, shares, random)
    with torch.autocast(model.device, torch.bfloat16, enabled=model.halved):
        logits = model.module(inputs).float()
    return logits, shares, truth


def targets(split: Labelled, labels: Tensor, classes: int) -> Tensor:
    """The target shares of labels [n], float32 [n, classes]: one for every class that an image has."""
    if not split.sets:
        return F.one_hot(labels, classes).float()
    return torch.from_numpy(members(split.sets, classes)).to(labels.device)[labels].float()


def called_rightly(logits: Tensor, shares: Tensor, several: bool) -> int:
    """How many images are called rightly: by their likeliest class, or in every class where they have several."""
    if several:
        return int(((logits > 0) == (shares > 0)).all(dim=1).sum())
    return int((logits.argmax(dim=1) == shares.argmax(dim=1)).sum())


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


def logits_of(model: Ready, split: Labelled, size: int = EVALUATED) -> NDArray[np.float32]:
    """The logits of a whole split in evaluation mode and full precision, float32 [n, classes]."""
    model.network.module.eval()
    order = np.arange(len(split.labels))
    with torch.inference_mode():
        found = [model.module(_inputs(split, rows, model.device)).cpu().numpy() for rows in batches(order, size)]
    return np.concatenate(found)


def _inputs(split: Labelled, rows: NDArray[np.int64], device: str) -> Tensor:
    """A batch on the device."""
    taken = split.inputs.take(rows)
    return (taken if isinstance(taken, Tensor) else torch.from_numpy(taken)).to(device)
