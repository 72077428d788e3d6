"""A network that is ready to learn: on its device, with its optimizer, and the inputs that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from budwood.data.dataset import Sets
from budwood.evaluation.label_task import LabelTask, MultiLabel, SingleLabel, task_of
from budwood.inference.input_sources import InputSource
from budwood.inference.pytorch_backend import NetworkSlice, WithPreprocessing
from budwood.networks.freezing import Frozen, find_frozen, group_parameters
from budwood.networks.stages import slice_stages
from budwood.networks.surgery import BuiltNetwork, load_network
from budwood.training.augmentation import augment, sample_parameters
from budwood.training.checkpoints import optimized_parameters
from budwood.training.device import DEVICE_SHARE, disable_malloc_trim, find_best_device
from budwood.training.losses import blend
from budwood.training.optimizers import OPTIMIZERS

EVALUATION_BATCH: Final = 64  # images a batch where nothing is learned


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
    """The inputs and labels (int32 [n]) of one split; a label is the number of a set in `label_sets`, if there are any.

    Inputs may be several views of the images, each of n rows: all of the first before all of the second.
    """

    inputs: InputSource
    labels: NDArray[np.int32]
    label_sets: Sets = ()


@dataclass(frozen=True)
class TrainingState:
    """A network that is ready to be trained: `module` takes what the inputs hold, and shares its parts with `network`.

    `rates` are those of the optimizer's groups before any schedule; `halved` says whether steps are in bfloat16, and
    `keeps_memory` whether freed memory is kept between them.
    """

    part: NetworkSlice
    network: BuiltNetwork
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
        return optimized_parameters(self.optimizer)

    def set_rates(self, factor: float) -> None:
        """Give every group its own rate times a factor."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


def prepare_training(part: NetworkSlice, start: Mapping[str, NDArray[Any]] | None) -> TrainingState:
    """The network of a part with its weights, or with the tensors `start`, on the device, and its optimizer."""
    recipe = part.spec.recipe
    device = find_best_device()
    keeps_memory = device == "cpu" and disable_malloc_trim()
    network, aside = load_network(part.spec)
    if start is not None:
        network.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in start.items()})
    network.module.to(device).to(memory_format=torch.channels_last)
    frozen = find_frozen(network.staged, recipe.freeze)
    rest = (
        WithPreprocessing(network.module, part.spec.plan)
        if part.stop is None
        else slice_stages(network.staged, part.stop, None)
    )
    optimizer = OPTIMIZERS[recipe.optimizer](group_parameters(network.staged, frozen, recipe), recipe)
    rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
    able = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    halved = recipe.precision == "bfloat16" or (recipe.precision == "auto" and able)
    return TrainingState(part, network, frozen, rest.to(device), optimizer, rates, device, halved, keeps_memory, aside)


def place_on_device(split: Labelled, device: str) -> Labelled:
    """The split with its inputs on a CUDA device, where they take a small part of its free memory; else as it is."""
    if device != "cuda":
        return split
    first = split.inputs.take(np.zeros(1, np.int64))
    if isinstance(first, Tensor) or first.nbytes * len(split.inputs) > DEVICE_SHARE * torch.cuda.mem_get_info()[0]:
        return split
    return move_inputs(split, device)


def move_inputs(split: Labelled, device: str) -> Labelled:
    """The split with its inputs on a device."""
    taken = [
        _take_inputs(split, rows, device) for rows in iterate_batches(np.arange(len(split.inputs)), EVALUATION_BATCH)
    ]
    return Labelled(OnDevice(torch.cat(taken)), split.labels, split.label_sets)


def forward_batch(
    model: TrainingState, split: Labelled, rows: NDArray[np.int64], random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What a network makes of a training batch: logits float32 [n, classes], the shares [n, classes] that are its
    targets, and those that they were before images were blended."""
    recipe, plan = model.part.spec.recipe, model.part.spec.plan
    views = len(split.inputs) // len(split.labels)
    shown = rows if views == 1 else rows + len(split.labels) * random.integers(views, size=len(rows))
    inputs = _take_inputs(split, shown, model.device)
    truth = shares = target_shares(task_of(split.label_sets, model.part.spec.classes), split.labels[rows], model.device)
    if recipe.augments and model.part.stop is None:
        inputs = augment(inputs.float(), sample_parameters(recipe, len(rows), plan.size, random), recipe)
        inputs, shares = blend(recipe, inputs, shares, random)
    with torch.autocast(model.device, torch.bfloat16, enabled=model.halved):
        logits = model.module(inputs).float()
    return logits, shares, truth


def target_shares(task: LabelTask, numbers: NDArray[np.int32], device: str) -> Tensor:
    """Return the targets of label numbers int32 [n]: float32 [n, classes], one for every class that an image has."""
    return torch.from_numpy(task.to_targets(task.read_labels(numbers))).to(device).float()


@singledispatch
def count_correct(task: LabelTask, logits: Tensor, shares: Tensor) -> int:
    """Return how many images are called what they are, in every class.

    Args:
        task: What the images are labelled with.
        logits: float32 [n, classes].
        shares: Their targets, float32 [n, classes].
    """
    raise NotImplementedError(type(task).__name__)


@count_correct.register
def _(task: SingleLabel, logits: Tensor, shares: Tensor) -> int:
    return int((logits.argmax(dim=1) == shares.argmax(dim=1)).sum())


@count_correct.register
def _(task: MultiLabel, logits: Tensor, shares: Tensor) -> int:
    return int(((logits > 0) == (shares > 0)).all(dim=1).sum())


def group_batches(items: Iterable[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    """Items in lists of `size`; the last may be shorter."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


def iterate_batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """An order of rows in batches; a single row that is left over joins the batch before, as batch norm needs two."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:stop]


def predict_logits(model: TrainingState, split: Labelled, size: int = EVALUATION_BATCH) -> NDArray[np.float32]:
    """The logits of a whole split in evaluation mode and full precision, float32 [n, classes]."""
    model.network.module.eval()
    order = np.arange(len(split.labels))
    with torch.inference_mode():
        found = [
            model.module(_take_inputs(split, rows, model.device)).cpu().numpy() for rows in iterate_batches(order, size)
        ]
    return np.concatenate(found)


def _take_inputs(split: Labelled, rows: NDArray[np.int64], device: str) -> Tensor:
    """A batch on the device."""
    taken = split.inputs.take(rows)
    return (taken if isinstance(taken, Tensor) else torch.from_numpy(taken)).to(device)
