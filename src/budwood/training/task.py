"""What a training is asked for and what it gives, however it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import ResolvedRecipe, resolve
from budwood.data.dataset import Samples
from budwood.networks.plan import spec_of
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.storage.context import Context
from budwood.training.history import EpochCallback
from budwood.training.training_record import Choices, PrefixRecord, Selected

LapCallback = Callable[[str], None]


@dataclass(frozen=True)
class TrainingTask:
    """What is to be trained, and on what.

    Attributes:
        spec: The recipe with its network and weights.
        training: Samples of the training set.
        validation: Samples of the validation set.
        context: The cache folder, and where bars and notes go.
        start: Tensors that an earlier phase ended with, or those of a solved head, by name; None: the recipe's weights.
        probed: Figures of the solved head on the training set that training starts from; None: it starts from none.
        before: Last stage of the frozen prefix of each earlier phase (None: no prefix).
        phase: Number of the phase, from 1; 0 for a recipe without phases.
        checkpoint: Folder of the checkpoints; None: none are kept.
        on_epoch_end: Is called with the whole history after every epoch.
        left: Returns the seconds that are left to training; None: as many as it takes.
    """

    spec: NetworkSpec
    training: Samples
    validation: Samples
    context: Context
    start: Mapping[str, NDArray[Any]] | None = None
    probed: Mapping[str, float] | None = None
    before: tuple[str | None, ...] = ()
    phase: int = 0
    checkpoint: Path | None = None
    on_epoch_end: EpochCallback = lambda history: None
    left: Callable[[], float | None] = lambda: None

    @cached_property
    def resolved(self) -> ResolvedRecipe:
        """Return the recipe without gaps; of one with phases, what they share."""
        return resolve(self.spec.recipe, bool(self.training.label_sets), self.spec.plan.size)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, however it was done, as the record of a run takes it.

    Attributes:
        trained: `head` where a linear head was trained alone, else `network`.
        state: Every tensor by its name in the network.
        logits: Validation logits, float32 [n, classes].
        history: One row for each epoch, or for each strength of the penalty.
        selected: The epoch or strength that was kept.
        choices: What was chosen for this machine.
        prefix: Last stage of the frozen prefix, and how many outputs were computed and reused.
        aside: What was left out of the weights when they were loaded; empty where nothing was.
    """

    trained: Literal["head", "network"]
    state: Mapping[str, NDArray[Any]]
    logits: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: Selected
    choices: Choices
    prefix: PrefixRecord
    aside: str


def has_checkpoint(folder: Path | None) -> bool:
    """Return whether a folder holds a checkpoint to go on from.

    Args:
        folder: Folder of checkpoints, or of phases with theirs; None: no checkpoints are kept.

    Returns:
        Whether there is any.
    """
    return folder is not None and any(folder.rglob("*.safetensors"))


def each_phase(task: TrainingTask) -> Iterator[TrainingTask]:
    """Iterate over the phases of a task.

    Args:
        task: The task of a recipe with phases.

    Yields:
        A task for each phase, with its own recipe, plan, checkpoint folder and share of the time that is left, and
        the frozen prefixes of those before.
    """
    before: tuple[str | None, ...] = ()
    for number, recipe in enumerate(task.spec.recipe.in_phases(), 1):
        spec = spec_of(recipe, task.spec.classes, task.spec.weights, task.context.cache)
        checkpoint = task.checkpoint and task.checkpoint / f"phase-{number}"
        left = _share(task.left, share_of_time(task.spec.recipe, number))
        yield replace(task, spec=spec, before=before, phase=number, checkpoint=checkpoint, left=left)
        before = (*before, spec.plan.prefix)


def share_of_time(recipe: Recipe, phase: int) -> float:
    """Return the share of the time that is left when a phase begins which is this phase's, by its epochs.

    Args:
        recipe: A recipe with phases.
        phase: The number of the phase, from 1.

    Returns:
        The share, 1 for the last phase.
    """
    epochs = [each.epochs for each in (recipe.phases or ())[phase - 1 :]]
    return epochs[0] / sum(epochs)


def _share(left: Callable[[], float | None], share: float) -> Callable[[], float | None]:
    def left_to_phase() -> float | None:
        seconds = left()
        return None if seconds is None else seconds * share

    return left_to_phase


def trains_linear_head_only(task: TrainingTask) -> bool:
    """Return whether nothing but a linear head is trained, without PyTorch.

    Args:
        task: What is to be trained.

    Returns:
        True for a plain linear head on a frozen trunk, outside phases, without a checkpoint of the loop.
    """
    head_only = task.spec.recipe.head_alone and task.spec.plan.prefix == TRUNK
    return head_only and not task.phase and not has_checkpoint(task.checkpoint)
