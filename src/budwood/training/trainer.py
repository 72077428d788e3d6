"""A recipe and two splits to a trained network, the shortest way: solved, descended, or trained in PyTorch.

frozen prefix -> outputs -> head, or what is not frozen -> the epoch that validation prefers
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from budwood.config.optimizers import LBFGS
from budwood.config.resolved_recipe import TRIAL_RATE, ResolvedRecipe, resolve
from budwood.data.dataset import Samples
from budwood.data.loading import TTA_FLIPS, PixelSource
from budwood.errors import RecipeError
from budwood.hardware import count_threads
from budwood.inference.bundle import Prefix, make_prefix
from budwood.inference.engines import (
    Floats,
    choose_engine,
    describe_unused,
    has_cuda_device,
    read_state,
)
from budwood.inference.feature_cache import (
    IDENTITY,
    Transform,
    compute_features,
    compute_tta_features,
    flip_transform,
    take_first_images,
    why_not_cached,
)
from budwood.inference.input_sources import ArraySource, ConcatSource, FeatureSource, InputSource, Labelled, flip_source
from budwood.networks.plan import spec_of
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.progress import Progress
from budwood.storage.atomic import write_text
from budwood.training.history import EpochCallback
from budwood.training.linear_head import HeadSplit, LinearHead, compute_head_logits, descend
from budwood.training.schedules import find_best_epoch
from budwood.training.training_record import Choices, PrefixRecord, Selected

if TYPE_CHECKING:
    from budwood.inference.pytorch_backend import NetworkSlice
    from budwood.training.lr_finder import RateCurve

LapCallback = Callable[[str], None]
MANY: Final = 4  # processors, from which on fewer threads may be faster
LONG: Final = 500  # steps, from which on it is worth measuring
CHOSEN: Final = "chosen.json"  # beside a checkpoint: what was decided once, before the first step


@dataclass(frozen=True)
class TrainingTask:
    """What is to be trained, and on what.

    Attributes:
        spec: The recipe with its network and weights.
        training: Samples of the training set.
        validation: Samples of the validation set.
        cache: The cache folder.
        start: Tensors that an earlier phase ended with, by name; None: the recipe's weights.
        before: Last stage of the frozen prefix of each earlier phase (None: no prefix).
        phase: Number of the phase, from 1; 0 for a recipe without phases.
        checkpoint: Folder of the checkpoints; None: none are kept.
        on_epoch_end: Is called with the whole history after every epoch.
        left: Returns the seconds that are left to training; None: as many as it takes.
    """

    spec: NetworkSpec
    training: Samples
    validation: Samples
    cache: Path
    start: Mapping[str, NDArray[Any]] | None = None
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
class Features:
    """The outputs of the frozen prefix for both splits.

    Attributes:
        training: Outputs for the training images, float32 [n, *shape], once for each view.
        validation: Outputs for the validation images, float32 [n, *shape].
        computed: Number of images computed now, over all views.
        reused: Number of images taken from the cache, over all views.
        engine: Name of the engine that computed them.
        agreement: How well the engine agrees with PyTorch.
    """

    training: tuple[Floats, ...]
    validation: Floats
    computed: int
    reused: int
    engine: str
    agreement: str


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


def train_network(task: TrainingTask, progress: Progress, lap: LapCallback) -> TrainingResult:
    """Train the network of a recipe: a linear head alone, or in PyTorch, in one go or in phases.

    Args:
        task: What is to be trained.
        progress: Where bars and notes go.
        lap: Is called with the name of each part of the work when it ends.

    Returns:
        The best epoch's network, with its evidence.

    Raises:
        DivergedError: The loss is no longer a number.
        RecipeError: No learning rate was found where one is asked for, or memory is too small.
        RunError: A checkpoint cannot be read.
        StorageError: A checkpoint cannot be written.
    """
    if task.spec.recipe.phases:
        return _train_in_phases(task, progress, lap)
    return _train_once(task, progress, lap)


def has_checkpoint(folder: Path | None) -> bool:
    """Return whether a folder holds a checkpoint to go on from.

    Args:
        folder: Folder of checkpoints, or of phases with theirs; None: no checkpoints are kept.

    Returns:
        Whether there is any.
    """
    return folder is not None and any(folder.rglob("*.safetensors"))


def search_rate(task: TrainingTask, progress: Progress) -> RateCurve:
    """Measure the learning-rate curve of a recipe.

    Args:
        task: What would be trained.
        progress: Where bars and notes go.

    Returns:
        The training loss over the learning rate.
    """
    features = load_features(task, progress)
    train, _ = make_inputs(task, features, progress)
    return _measure_rates(task, features, train, progress)


def each_phase(task: TrainingTask) -> Iterator[TrainingTask]:
    """Iterate over the phases of a task.

    Args:
        task: The task of a recipe with phases.

    Yields:
        A task for each phase, with its own recipe, plan and checkpoint folder, and the frozen prefixes of those
        before.
    """
    before: tuple[str | None, ...] = ()
    for number, recipe in enumerate(task.spec.recipe.in_phases(), 1):
        spec = spec_of(recipe, task.spec.classes, task.spec.weights, task.cache)
        checkpoint = task.checkpoint and task.checkpoint / f"phase-{number}"
        yield replace(task, spec=spec, before=before, phase=number, checkpoint=checkpoint)
        before = (*before, spec.plan.prefix)


def _train_in_phases(task: TrainingTask, progress: Progress, lap: LapCallback) -> TrainingResult:
    """One phase after another, each from the best state of the one before; the best epoch of all is kept."""
    history: list[dict[str, float]] = []
    start, kept, select = None, None, task.resolved.select
    for phase in each_phase(task):
        told = _append_phase(history, phase.phase, task.on_epoch_end)
        made = _train_once(replace(phase, start=start, on_epoch_end=told), progress, lap)
        done = len(history)
        history += _number_epochs(made.history, phase.phase, done)
        if find_best_epoch(history, select) > done:
            kept = made
        start = made.state
    assert kept is not None
    return replace(kept, history=tuple(history), selected=Selected(epoch=find_best_epoch(history, select)))


def _append_phase(history: Sequence[Mapping[str, float]], phase: int, callback: EpochCallback) -> EpochCallback:
    """Passes a phase's history on behind those of the phases before it."""
    before = list(history)
    return lambda rows: callback([*before, *_number_epochs(rows, phase, len(before))])


def _number_epochs(rows: Sequence[Mapping[str, float]], phase: int, done: int) -> list[dict[str, float]]:
    """Rows of a phase with their epochs counted over all phases."""
    return [{**row, "epoch": done + row["epoch"], "phase": float(phase)} for row in rows]


def _train_once(task: TrainingTask, progress: Progress, lap: LapCallback) -> TrainingResult:
    """A recipe without phases, or one phase: the head alone, or what is not frozen of the network."""
    features = load_features(task, progress)
    lap("prefix")
    if features and trains_linear_head_only(task):
        made = _head_alone(task, features, progress)
        lap("head")
        return made
    return _in_loop(task, features, progress, lap)


def _head_alone(task: TrainingTask, features: Features, progress: Progress) -> TrainingResult:
    fitted, held_out = make_head_splits(features, task)
    if task.spec.recipe.tta != "none":  # the head is linear: the mean of logits is that of the mean output
        held_out = replace(
            held_out, outputs=compute_tta_features(make_frozen_prefix(task), task.validation, progress).values
        )
    head = fit_head(fitted, held_out, task.spec.classes, task.resolved, progress)
    path = task.spec.plan.head
    return TrainingResult(
        trained="head",
        state={**read_state(make_frozen_prefix(task)), f"{path}.weight": head.weight, f"{path}.bias": head.bias},
        logits=compute_head_logits(held_out.outputs, head.weight, head.bias),
        history=head.history,
        selected=Selected.model_validate(head.selected),
        choices=_describe_choices(features),
        prefix=_count_features(features, task.spec.plan.prefix),
        aside=describe_unused(make_frozen_prefix(task)),
    )


def _in_loop(task: TrainingTask, features: Features | None, progress: Progress, lap: LapCallback) -> TrainingResult:
    from budwood.training.checkpoints import Checkpoints
    from budwood.training.device import use_threads
    from budwood.training.loop import LoopHooks, fit

    train, val = make_inputs(task, features, progress)
    recipe = task.resolved
    if recipe.steps.lr_from_trial:
        rate = _decide_once(
            task, "lr", lambda: _suggest_rate(_measure_rates(task, features, train, progress), progress)
        )
        recipe = recipe.with_rate(rate)
        lap("rate")
    part = make_trained_slice(task, features)
    threads = _threads(task, part, recipe, train, val, progress, lap)
    hooks = LoopHooks(Checkpoints(task.checkpoint), task.on_epoch_end, task.left)
    views = _make_tta_views(task, features, val, progress)
    with use_threads(threads):
        made = fit(part, recipe, train, val, progress, task.start, hooks, views)
    lap("train")
    choices = _describe_choices(features) if features else _describe_input_choices(train.inputs)
    return TrainingResult(
        trained="network",
        state=made.state,
        logits=made.logits,
        history=made.history,
        selected=made.selected,
        choices=choices.merged(made.choices).merged(Choices(lr=recipe.steps.lr)),
        prefix=_count_features(features, task.spec.plan.prefix) if features else PrefixRecord(),
        aside=made.aside,
    )


def _threads(
    task: TrainingTask,
    part: NetworkSlice,
    recipe: ResolvedRecipe,
    train: Labelled,
    val: Labelled,
    progress: Progress,
    lap: LapCallback,
) -> int:
    """How many threads training computes in: measured where there are many and training is long."""
    from budwood.hardware import find_best_device
    from budwood.training.profiling import find_fastest_threads

    threads = count_threads()
    if threads < MANY or find_best_device() != "cpu" or _count_steps(recipe, train) < LONG:
        return threads
    some = _take_one_step(recipe, train, val)
    threads = int(_decide_once(task, "threads", lambda: find_fastest_threads(part, recipe, *some, progress)))
    progress.note(f"Training uses {threads} of {count_threads()} threads, which was measured to be faster.")
    lap("threads")
    return threads


def _decide_once(task: TrainingTask, name: str, decide: Callable[[], float]) -> float:
    """What is decided by measuring; it is kept beside the checkpoint, so that a resumed training decides alike."""
    file = task.checkpoint and task.checkpoint / CHOSEN
    chosen: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    if name not in chosen:
        chosen[name] = decide()
        if file:
            write_text(file, json.dumps(chosen))
    return chosen[name]


def _count_steps(recipe: ResolvedRecipe, train: Labelled) -> float:
    """Batches of the whole training, without end where time is the limit."""
    return len(train.labels) / recipe.sampling.batch * recipe.limits.epochs


def _take_one_step(recipe: ResolvedRecipe, train: Labelled, val: Labelled) -> tuple[Labelled, Labelled]:
    """One step's worth of training inputs, and the first validation inputs, held in memory."""
    rows = np.arange(min(len(train.labels), recipe.sampling.step))
    some = Labelled(ArraySource(np.asarray(train.inputs.take(rows))), train.labels[rows], train.label_sets)
    return some, Labelled(ArraySource(np.asarray(val.inputs.take(rows[:1]))), val.labels[:1], val.label_sets)


def load_features(task: TrainingTask, progress: Progress) -> Features | None:
    """Load or compute the outputs of the frozen prefix for both splits.

    Args:
        task: What is to be trained.
        progress: Where bars and notes go; the reason is noted where outputs could be kept but are not worth it.

    Returns:
        The outputs; None where they are not kept.
    """
    if not caches_features(task):
        if prefix_is_separable(task):
            why = why_not_cached(make_frozen_prefix(task), _count_images(task))
            progress.note(
                f"Features of {task.spec.plan.prefix} are computed again in every epoch, not kept in the cache: {why}."
            )
        return None
    found = [
        compute_features(make_frozen_prefix(task), samples, progress, view)
        for samples, view in list_feature_requests(task)
    ]
    last, n = max(found, key=lambda part: part.computed), len(task.training)
    return Features(
        training=tuple(part.values for part in found[1:]) or (found[0].values[:n],),
        validation=found[0].values[len(found[0].values) - len(task.validation) :],
        computed=sum(part.computed for part in found),
        reused=sum(part.reused for part in found),
        engine=last.engine,
        agreement=last.agreement,
    )


def caches_features(task: TrainingTask) -> bool:
    """Return whether the outputs of the frozen prefix are kept for all epochs.

    They are where there is such a prefix, images are either not augmented or augmented in a fixed number of views,
    and the outputs are worth their room. A head that is trained alone needs them in any case.

    Args:
        task: What is to be trained.

    Returns:
        Whether they are kept.
    """
    if trains_linear_head_only(task):
        return True
    apart = prefix_is_separable(task) or (task.resolved.versions and prefix_is_untrained(task))
    return bool(apart) and not why_not_cached(make_frozen_prefix(task), _count_images(task))


def list_feature_requests(task: TrainingTask) -> list[tuple[Samples, Transform]]:
    """List the images for which the frozen prefix is computed.

    Args:
        task: What is to be trained.

    Returns:
        Samples with the transform that is applied to them: both splits as they are; or validation as it is, and
        then training once for each augmented view.
    """
    if not task.resolved.versions:
        return [(join_samples(task.training, task.validation), IDENTITY)]
    from budwood.training.cached_augmentation import make_augmentation_transform

    views = [make_augmentation_transform(task.resolved, number) for number in range(task.resolved.versions)]
    return [(task.validation, IDENTITY), *((task.training, view) for view in views)]


def _count_images(task: TrainingTask) -> int:
    """How many images a frozen prefix is shown, views of one counted each."""
    return len(task.training) * max(task.resolved.versions, 1) + len(task.validation)


def trains_linear_head_only(task: TrainingTask) -> bool:
    """Return whether nothing but a linear head is trained, without PyTorch.

    Args:
        task: What is to be trained.

    Returns:
        True for a plain linear head on a frozen trunk, outside phases, without a checkpoint of the loop.
    """
    alone = task.spec.recipe.head_alone and task.spec.plan.prefix == TRUNK
    return alone and not task.phase and not has_checkpoint(task.checkpoint)


def prefix_is_separable(task: TrainingTask) -> bool:
    """Return whether the frozen prefix can be computed apart from what is trained.

    Args:
        task: What is to be trained.

    Returns:
        True where images are not augmented and no earlier phase has trained the prefix.
    """
    return not task.resolved.augments and prefix_is_untrained(task)


def prefix_is_untrained(task: TrainingTask) -> bool:
    """Return whether there is a frozen prefix whose weights are still the recipe's.

    Args:
        task: What is to be trained.

    Returns:
        True where there is a frozen prefix and no earlier phase has trained any of it.
    """
    places = [row.name for row in task.spec.plan.stages]
    stop = task.spec.plan.prefix
    return stop is not None and all(other and places.index(stop) <= places.index(other) for other in task.before)


def make_frozen_prefix(task: TrainingTask) -> Prefix:
    """Make the frozen prefix of a recipe's network.

    Args:
        task: What is to be trained.

    Returns:
        The prefix, from the image to its last frozen stage.
    """
    return make_prefix(task.spec, task.spec.plan.prefix, task.cache)


def fit_head(train: HeadSplit, val: HeadSplit, classes: int, recipe: ResolvedRecipe, progress: Progress) -> LinearHead:
    """Train a linear head as the recipe asks: solved, or by gradient descent.

    SciPy is slow to load and is imported only where a head is solved.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        classes: Number of classes.
        recipe: The recipe.
        progress: Where the bar goes.

    Returns:
        The head with its history.

    Raises:
        DivergedError: The loss is no longer a number.
    """
    if isinstance(recipe.optimizer, LBFGS):
        from budwood.training.head_solver import solve

        return solve(train, val, classes, recipe.optimizer, progress)
    return descend(train, val, classes, recipe, progress)


def _measure_rates(task: TrainingTask, features: Features | None, train: Labelled, progress: Progress) -> RateCurve:
    from budwood.training.lr_finder import measure_rate_curve

    return measure_rate_curve(
        make_trained_slice(task, features), task.resolved.with_rate(TRIAL_RATE), train, progress, task.start
    )


def _suggest_rate(curve: RateCurve, progress: Progress) -> float:
    """The rate that a curve suggests; raises `RecipeError` when it suggests none."""
    if curve.suggestion is None:
        raise RecipeError(
            "lr: auto found no learning rate at which the loss falls.",
            "Use `budwood lr-find` to see the curve, and set lr yourself.",
        )
    progress.note(f"Learning rate {curve.suggestion:.2g}, found automatically (where the loss falls fastest).")
    return curve.suggestion


def make_inputs(task: TrainingTask, features: Features | None, progress: Progress) -> tuple[Labelled, Labelled]:
    """Make the inputs of training and validation.

    Args:
        task: What is to be trained.
        features: Outputs of the frozen prefix; None where they are not kept.
        progress: Where bars and notes go.

    Returns:
        The training and validation split, with kept outputs, with outputs that are computed when asked for, or with
        pixels.
    """
    label_sets = task.training.label_sets
    if features:
        train: InputSource = (
            ArraySource(features.training[0]) if len(features.training) == 1 else ConcatSource(features.training)
        )
        return (
            Labelled(train, task.training.labels, label_sets),
            Labelled(ArraySource(features.validation), task.validation.labels, label_sets),
        )
    network = task.resolved.network
    rows: list[InputSource] = [
        PixelSource(split, network.size, network.resize, task.cache, progress)
        for split in (task.training, task.validation)
    ]
    if _uses_engine(task):
        prefix = make_frozen_prefix(task)
        epochs = task.resolved.limits.epochs
        steps = len(task.training) * (int(epochs) if math.isfinite(epochs) else 1)
        engine = choose_engine(prefix, lambda: take_first_images(prefix, task.training), steps, progress)
        rows = [FeatureSource(engine, pixels) for pixels in rows]
    return Labelled(rows[0], task.training.labels, label_sets), Labelled(rows[1], task.validation.labels, label_sets)


def _uses_engine(task: TrainingTask) -> bool:
    """Whether what is frozen is computed in an engine of its own when its outputs are not kept: on a GPU it is not."""
    return prefix_is_separable(task) and not has_cuda_device()


def _make_tta_views(
    task: TrainingTask, features: Features | None, val: Labelled, progress: Progress
) -> list[InputSource]:
    """What evaluation sees of the validation images beside the images themselves."""
    others = TTA_FLIPS[task.spec.recipe.tta][1:]
    if features:
        prefix = make_frozen_prefix(task)
        return [
            ArraySource(compute_features(prefix, task.validation, progress, flip_transform(letters)).values)
            for letters in others
        ]
    return [flip_source(val.inputs, view) for view in others]


def make_trained_slice(task: TrainingTask, features: Features | None) -> NetworkSlice:
    """Make the part of the network that PyTorch runs in training.

    Args:
        task: What is to be trained.
        features: Outputs of the frozen prefix; None where they are not kept.

    Returns:
        The network from the end of the prefix on, or the whole network where the inputs are pixels.
    """
    from budwood.inference.pytorch_backend import NetworkSlice

    stop = task.spec.plan.prefix if features or _uses_engine(task) else None
    return NetworkSlice(task.spec, stop)


def make_head_splits(features: Features, task: TrainingTask) -> tuple[HeadSplit, HeadSplit]:
    """Make the inputs of a head that is trained alone.

    Args:
        features: Outputs of the trunk.
        task: What is to be trained.

    Returns:
        Training and validation features with their labels.
    """
    return HeadSplit(features.training[0], task.training.labels), HeadSplit(features.validation, task.validation.labels)


def join_samples(first: Samples, second: Samples) -> Samples:
    """Join the samples of two splits of one data set.

    Args:
        first: The first split.
        second: The second split.

    Returns:
        The samples, one split after the other.
    """
    return Samples(
        first.root,
        first.ids + second.ids,
        first.paths + second.paths,
        np.concatenate([first.labels, second.labels]),
        first.label_sets,
    )


def _describe_input_choices(rows: InputSource) -> Choices:
    """What runs a network of which no outputs are kept."""
    if not isinstance(rows, FeatureSource):
        return Choices(engine="PyTorch for the whole network", threads=count_threads())
    name = f"{rows.engine.name} for the frozen layers, in every step; PyTorch for the rest"
    return Choices(engine=name, engine_check=rows.engine.agreement, threads=count_threads())


def _describe_choices(features: Features) -> Choices:
    return Choices(
        device="cuda" if "CUDA" in features.engine else "cpu",
        engine=features.engine,
        engine_check=features.agreement,
        threads=count_threads(),
    )


def _count_features(features: Features, stage: str | None) -> PrefixRecord:
    return PrefixRecord(stage=stage, computed=features.computed, reused=features.reused)
