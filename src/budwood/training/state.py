"""The state of a training: a network on its device with its optimizer and average, and what it makes of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.errors import RecipeError
from budwood.evaluation.label_task import LabelTask, MultiLabel, SingleLabel, task_of
from budwood.hardware import find_best_device
from budwood.inference.input_sources import EVALUATED, Labelled, batches
from budwood.inference.pytorch_backend import NetworkSlice, WithPreprocessing
from budwood.networks.freezing import Frozen, find_frozen
from budwood.networks.stages import slice_stages
from budwood.networks.surgery import BuiltNetwork, load_network
from budwood.training.augmentation import augment, sample_parameters
from budwood.training.checkpoints import Tensors, load_optimizer_tensors, optimized_parameters, optimizer_tensors
from budwood.training.depthwise import ease_depthwise, has_slow_depthwise
from budwood.training.device import disable_malloc_trim, has_bfloat16, load_batch
from budwood.training.ema import WeightAverage
from budwood.training.growth import refuse_fixed_size, shrink
from budwood.training.losses import blend
from budwood.training.optimizers import make_optimizer, parameter_groups


@dataclass(frozen=True)
class TrainingState:
    """A network on its device, ready to be trained, with its optimizer and average.

    Attributes:
        part: The network's specification, and the end of the frozen prefix whose outputs are its inputs.
        recipe: How it is trained.
        network: The whole network.
        frozen: What of it is frozen.
        module: Takes what the inputs hold and returns logits; shares its parts with `network`.
        optimizer: The optimizer.
        rates: Learning rates of the optimizer's groups before any schedule.
        average: The average that stands in for the weights in evaluation; None without one.
        device: The device of training.
        halved: Whether training steps are in bfloat16.
        eased: Whether gradients of depthwise convolutions are computed from fast parts.
        keeps_memory: Whether freed memory is kept between steps.
        aside: What was left out of the weights when they were loaded; empty where nothing was.
        compiled: Whether `module` is compiled.
    """

    part: NetworkSlice
    recipe: ResolvedRecipe
    network: BuiltNetwork
    frozen: Frozen
    module: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    rates: tuple[float, ...]
    average: WeightAverage | None
    device: str
    halved: bool
    eased: bool
    keeps_memory: bool
    aside: str
    compiled: bool = False

    @property
    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer moves."""
        return optimized_parameters(self.optimizer)

    def set_rates(self, factor: float) -> None:
        """Set the learning rate of every group to its own rate times a factor.

        Args:
            factor: The schedule's factor.
        """
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def take_step(self) -> None:
        """Take one optimizer step, with the gradient clipped where the recipe says so, and update the average."""
        if math.isfinite(self.recipe.clip):
            nn.utils.clip_grad_norm_(self.trained, self.recipe.clip)
        self.optimizer.step()
        if self.average:
            self.average.update()

    def unfrozen_tensors(self) -> Tensors:
        """Return the tensors of the network that are not frozen.

        Returns:
            Parameters and buffers by name.
        """
        return {
            name: tensor
            for name, tensor in self.network.module.state_dict().items()
            if name not in self.frozen.parameters and name.rpartition(".")[0] not in self.frozen.modules
        }

    def copy_unfrozen(self) -> Tensors:
        """Copy the tensors of the network that are not frozen into memory of their own.

        Returns:
            Parameters and buffers by name, on the CPU.
        """
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.unfrozen_tensors().items()}

    def step_tensors(self) -> Tensors:
        """Return every tensor that a step changes.

        Returns:
            Tensors by name, with the prefix `network/`, `optimizer/` or `average/`.
        """
        averaged = self.average.values if self.average else []
        parts = {
            "network": self.unfrozen_tensors(),
            "optimizer": optimizer_tensors(self.optimizer),
            "average": {str(number): value for number, value in enumerate(averaged)},
        }
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def restore(self, tensors: Tensors) -> None:
        """Restore the tensors that a step changes.

        Args:
            tensors: The tensors by name, as `step_tensors` returned them at another time.
        """
        parts: dict[str, Tensors] = {"network": {}, "optimizer": {}, "average": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        with torch.no_grad():
            for name, tensor in self.unfrozen_tensors().items():
                tensor.copy_(parts["network"][name])
            for number, value in enumerate(self.average.values if self.average else []):
                value.copy_(parts["average"][str(number)])
        load_optimizer_tensors(self.optimizer, parts["optimizer"])


def prepare_training(
    part: NetworkSlice, recipe: ResolvedRecipe, start: Mapping[str, NDArray[Any]] | None = None
) -> TrainingState:
    """Make a network ready to be trained, on the best device of this machine.

    Args:
        part: The network, from the image or from the outputs of a frozen prefix on.
        recipe: How it is trained.
        start: Tensors to start from, by name, beside the weights of the part; None: those weights alone.

    Returns:
        The network with its weights, its optimizer and its average.

    Raises:
        RecipeError: A user's own optimizer cannot be imported, or is none; or images are to grow, and the network
            takes one size only.
        WeightsError: The weights do not fit the network.
    """
    device = find_best_device()
    keeps_memory = device == "cpu" and disable_malloc_trim()
    network, aside = load_network(part.spec)
    if start is not None:
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in start.items()}
        network.module.load_state_dict({**network.module.state_dict(), **tensors})
    network.module.to(device).to(memory_format=torch.channels_last)
    asked = recipe.network
    frozen = find_frozen(network.staged, asked.freeze, asked.frozen_norm, asked.trained_norm)
    rest = (
        WithPreprocessing(network.module, part.spec.plan)
        if part.stop is None
        else slice_stages(network.staged, part.stop, None)
    )
    rest.to(device)
    if recipe.network.size_start < recipe.network.size:
        refuse_fixed_size(rest, recipe.network, part.spec.plan.name)
    halved = recipe.precision == "bfloat16" or (recipe.precision == "auto" and has_bfloat16(device))
    optimizer = make_optimizer(recipe.steps, parameter_groups(network.staged, frozen, recipe.steps))
    return TrainingState(
        part=part,
        recipe=recipe,
        network=network,
        frozen=frozen,
        module=rest,
        optimizer=optimizer,
        rates=tuple(float(group["lr"]) for group in optimizer.param_groups),
        average=WeightAverage(optimized_parameters(optimizer), recipe.ema) if recipe.ema else None,
        device=device,
        halved=halved,
        eased=device == "cpu" and has_slow_depthwise(network.module, halved),
        keeps_memory=keeps_memory,
        aside=aside,
    )


def forward_batch(
    model: TrainingState,
    split: Labelled,
    rows: NDArray[np.int64],
    random: np.random.Generator,
    side: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the network on a training batch, with augmentation and mixing where the recipe asks for them.

    Args:
        model: The network in training.
        split: The training split; of several views, one is drawn for each image.
        rows: Row numbers of the images, int64 [n].
        random: The generator of views, augmentation and mixing.
        side: Side of the square that images are shrunk to, pixels; None: they stay as they are.

    Returns:
        Logits float32 [n, classes], the targets [n, classes], and the targets before images were blended.

    Raises:
        RecipeError: A user's own transform returns something other than a tensor of the shape that it was given, or
            batch norm gets one value a channel.
    """
    recipe = model.recipe
    views = len(split.inputs) // len(split.labels)
    source_rows = rows if views == 1 else rows + len(split.labels) * random.integers(views, size=len(rows))
    inputs = load_batch(split, source_rows, model.device)
    truth = shares = target_shares(task_of(split.label_sets, model.part.spec.classes), split.labels[rows], model.device)
    if recipe.augments and model.part.stop is None:
        parameters = sample_parameters(recipe.augmentation, len(rows), recipe.network.size, random)
        inputs = augment(inputs.float(), parameters, recipe.augmentation)
        inputs, shares = blend(recipe.mixing, inputs, shares, random)
    if side is not None and model.part.stop is None:
        inputs = shrink(inputs, side)
    eased = ease_depthwise() if model.eased else nullcontext()
    with torch.autocast(model.device, torch.bfloat16, enabled=model.halved), eased, _explain_single_values():
        logits = model.module(inputs).float()
    return logits, shares, truth


@contextmanager
def _explain_single_values() -> Iterator[None]:
    """Say what is wrong where batch norm gets one value a channel, of which it can tell no spread."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RecipeError(
            "batch: batch norm needs at least two values of each channel in training, and found one: "
            "the batch has one image, and its map at that stage is 1 x 1.",
            "Use a batch of at least 2 (and as many training images), a larger size, or freeze the stages with batch "
            "norm.",
        ) from error


def predict_logits(model: TrainingState, split: Labelled, size: int = EVALUATED) -> NDArray[np.float32]:
    """Compute the logits of a whole split, in evaluation mode and full precision.

    Args:
        model: The network in training.
        split: The split.
        size: Images a batch.

    Returns:
        Logits float32 [n, classes].
    """
    model.network.module.eval()
    order = np.arange(len(split.labels))
    with torch.inference_mode():
        logits = [model.module(load_batch(split, rows, model.device)).cpu().numpy() for rows in batches(order, size)]
    return np.concatenate(logits)


def target_shares(task: LabelTask, numbers: NDArray[np.int32], device: str) -> Tensor:
    """Convert label numbers to targets.

    Args:
        task: The label task of the data set.
        numbers: Labels int32 [n].
        device: The device of training.

    Returns:
        float32 [n, classes], with a one for every class that an image has.
    """
    return torch.from_numpy(task.to_targets(task.read_labels(numbers))).to(device).float()


@singledispatch
def count_correct(task: LabelTask, logits: Tensor, shares: Tensor) -> int:
    """Count the images that are classified correctly; with several labels, in every class.

    Args:
        task: The label task of the data set.
        logits: float32 [n, classes].
        shares: Targets, float32 [n, classes].

    Returns:
        The number of images.

    Raises:
        NotImplementedError: The kind of task is not known.
    """
    raise NotImplementedError(type(task).__name__)


@count_correct.register
def _(task: SingleLabel, logits: Tensor, shares: Tensor) -> int:
    return int((logits.argmax(dim=1) == shares.argmax(dim=1)).sum())


@count_correct.register
def _(task: MultiLabel, logits: Tensor, shares: Tensor) -> int:
    return int(((logits > 0) == (shares > 0)).all(dim=1).sum())
