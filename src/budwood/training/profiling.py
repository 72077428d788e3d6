"""What a step costs, measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.hardware import count_threads
from budwood.inference.input_sources import Labelled, batches
from budwood.inference.pytorch_backend import NetworkSlice
from budwood.networks.freezing import set_modes
from budwood.progress import Progress
from budwood.training.checkpoints import LoopState
from budwood.training.device import use_threads
from budwood.training.loop import compute_gradients
from budwood.training.losses import make_loss
from budwood.training.state import predict_logits, prepare_training

MEASURED: Final = 4  # steps of a measurement; the first is slower and does not count


@dataclass(frozen=True)
class StepCost:
    """What a training step costs, measured on real inputs.

    Attributes:
        starting: Seconds until the first step.
        seconds: Seconds of a step.
        evaluating: Seconds to evaluate one image.
        network: Bytes of the network's tensors that a step changes.
        moved: Bytes of all tensors that a step changes: the network's, the optimizer's and the average's.
    """

    starting: float
    seconds: float
    evaluating: float
    network: int
    moved: int


def measure_step(
    part: NetworkSlice, recipe: ResolvedRecipe, train: Labelled, val: Labelled, progress: Progress
) -> StepCost:
    """Measure a few training steps and an evaluation, and forget what was learned.

    The first step is slower and does not count; of the others the fastest does.

    Args:
        part: The network, from the image or from the outputs of a frozen prefix on.
        recipe: How it is trained.
        train: Training inputs for exactly one step.
        val: Some validation inputs.
        progress: Where notes go.

    Returns:
        What a step costs.

    Raises:
        RecipeError: Not even two images at a time fit into memory.
    """
    started = time.perf_counter()
    model = prepare_training(part, recipe)
    starting = time.perf_counter() - started
    loss_of_batch = make_loss(recipe.loss, train.labels, part.spec.classes, model.device, train.label_sets)
    group = list(batches(np.arange(len(train.labels)), recipe.sampling.batch))
    random, state, seconds = np.random.default_rng(recipe.seed), LoopState(), []
    with torch.random.fork_rng():
        set_modes(model.network.module, model.frozen)
        for _ in range(MEASURED):
            started = time.perf_counter()
            compute_gradients(model, train, group, loss_of_batch, random, state, progress)
            model.take_step()
            seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        predict_logits(model, val)
        evaluating = (time.perf_counter() - started) / len(val.labels)
    network, step_tensors = (
        sum(t.nbytes for t in part.values()) for part in (model.unfrozen_tensors(), model.step_tensors())
    )
    return StepCost(starting, min(seconds[1:]), evaluating, network, step_tensors)


def find_fastest_threads(
    part: NetworkSlice, recipe: ResolvedRecipe, train: Labelled, val: Labelled, progress: Progress
) -> int:
    """Find the number of threads with which a training step is fastest.

    As many as `count_threads` allows and half as many are tried, as two processors may share a core.

    Args:
        part: The network, from the image or from the outputs of a frozen prefix on.
        recipe: How it is trained.
        train: Training inputs for exactly one step.
        val: Some validation inputs.
        progress: Where notes go.

    Returns:
        The number of threads.
    """
    seconds, most = {}, count_threads()
    for count in sorted({most, max(most // 2, 1)}, reverse=True):
        with use_threads(count):
            seconds[count] = measure_step(part, recipe, train, val, progress).seconds
    return min(seconds, key=lambda count: seconds[count])
