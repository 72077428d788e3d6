"""Training a network, or what of it is not frozen: the loop, in plain sight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from budwood.config.metric_registry import LAST, LOSS
from budwood.config.resolved_recipe import Limits, ResolvedRecipe, Sampling
from budwood.errors import RecipeError, diverged
from budwood.evaluation.label_task import task_of
from budwood.inference.input_sources import InputSource, Labelled, batches, in_groups
from budwood.inference.pytorch_backend import NetworkSlice, compile_module
from budwood.networks.freezing import set_modes
from budwood.progress import Progress
from budwood.training.callbacks import OF_EPOCHS, OF_STEPS, Callbacks, Moment
from budwood.training.checkpoints import Checkpoints, LoopState, Tensors
from budwood.training.clock import Clock
from budwood.training.device import OnDevice, is_out_of_memory, place_on_device
from budwood.training.growth import find_side
from budwood.training.history import EpochCallback
from budwood.training.loop_notes import is_out_of_patience, show_bar, tell_early_end
from budwood.training.losses import LossOfBatch, draw_epoch_order, make_loss
from budwood.training.norms import (
    Stages,
    group_by_stage,
    make_history_columns,
    measure_gradient_norms,
    measure_weight_norms,
)
from budwood.training.schedules import Position, compute_rate_factor, find_best_epoch, score_row
from budwood.training.state import TrainingState, count_correct, forward_batch, predict_logits, prepare_training
from budwood.training.training_record import Choices, Selected
from budwood.training.wise_ft import Blend, blend_weights, count_evaluations

STEP_PASSES: Final = 3  # evaluations that training on as many images takes
COMPILE_PAYS: Final = 600.0  # seconds of training that must be left for torch.compile to be worth its minute or two


@dataclass(frozen=True)
class LoopResult:
    """A network that the loop has trained.

    Attributes:
        state: Every tensor of the best epoch's network, by name.
        logits: Validation logits of the best epoch, float32 [n, classes].
        history: One row for each epoch.
        selected: The `epoch` that was kept, from 1; 0: the start.
        choices: What was chosen for this machine: device, precision, threads and others.
        aside: What was left out of the weights when they were loaded; empty where nothing was.
    """

    state: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: Selected
    choices: Choices
    aside: str


@dataclass(frozen=True)
class LoopHooks:
    """What `fit` does besides learning.

    Attributes:
        checkpoints: Where checkpoints go.
        on_epoch_end: Is called with the whole history after every epoch.
        left: Returns the seconds that are left to training, evaluation included; None: as many as it takes.
    """

    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    on_epoch_end: EpochCallback = lambda history: None
    left: Callable[[], float | None] = lambda: None


def fit(
    part: NetworkSlice,
    recipe: ResolvedRecipe,
    train: Labelled,
    val: Labelled,
    progress: Progress,
    start: Mapping[str, NDArray[Any]] | None = None,
    hooks: LoopHooks | None = None,
    views: Sequence[InputSource] = (),
    probed: Mapping[str, float] | None = None,
) -> LoopResult:
    """Train what is not frozen of a network, and keep the epoch that validation prefers, or the last.

    Where training starts from a solved head, that start counts as epoch 0. With `wise_ft` it does not, as what is kept
    then lies between it and the best epoch, both included.

    Training goes on from a checkpoint where there is one. It ends after the last epoch, when no epoch was better
    for long enough, or when the time is over.

    Args:
        part: The network; its `stop` is the end of the frozen prefix whose outputs `train` and `val` hold, None
            when they hold pixels.
        recipe: How it is trained.
        train: The training split.
        val: The validation split.
        progress: Where the bar and notes go.
        start: Tensors to start from, by name, beside the weights of the part; None: those weights alone.
        hooks: Checkpoints, the callback after every epoch, and the time that is left; None: none of them.
        views: Other views of the validation images, over which logits are averaged.
        probed: Figures on the training set of the solved head that training starts from, as columns of a history;
            None: it starts from none.

    Returns:
        The network of the best epoch.

    Raises:
        DivergedError: The loss is no longer a number.
        RecipeError: Memory does not do for one image in evaluation or two in training, or a user's own part fails.
        RunError: A checkpoint cannot be read.
        StorageError: A checkpoint cannot be written.
    """
    hooks, model = hooks or LoopHooks(), prepare_training(part, recipe, start)
    origin = model.copy_unfrozen() if count_evaluations(recipe.wise_ft) else {}
    splits = (train, val, *(replace(val, inputs=inputs) for inputs in views))
    train, *val_views = (place_on_device(split, model.device) for split in splits)
    loss_of_batch = make_loss(recipe.loss, train.labels, part.spec.classes, model.device, train.label_sets)
    random, stages = np.random.default_rng(recipe.seed), group_by_stage(model.network)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        state = _restore_state(hooks.checkpoints, model, random)
        clock, last = Clock(state.seconds, hooks.left()), count_evaluations(recipe.wise_ft)
        size = sum(tensor.nbytes for tensor in model.unfrozen_tensors().values())
        kept = (clock, hooks.checkpoints, progress, size, last, Callbacks(recipe.callbacks))
        fixed = _Fixed(train, val_views, loss_of_batch, random, stages, *kept)
        if probed is not None and not state.start:
            _measure_start(model, state, fixed, probed)
        model, steps = _train_epochs(model, state, fixed, hooks.on_epoch_end)
        hooks.checkpoints.save(state, model.step_tensors(), random)
    tell_early_end(state, recipe.limits, progress, fixed.callbacks.stopped)
    return _make_result(model, state, fixed, steps, _blend_with_start(model, state, fixed, origin))


@dataclass(frozen=True)
class _Fixed:
    """What stays the same from one epoch to the next; the random generator is advanced in place."""

    train: Labelled
    val_views: Sequence[Labelled]
    loss_of_batch: LossOfBatch
    random: np.random.Generator
    stages: Stages
    clock: Clock
    checkpoints: Checkpoints
    progress: Progress
    size: int
    last_evaluations: int
    callbacks: Callbacks


def _train_epochs(
    model: TrainingState, state: LoopState, fixed: _Fixed, on_epoch_end: EpochCallback
) -> tuple[TrainingState, int]:
    """The epochs that are not done yet; returns the network, which may be compiled now, and the steps of all epochs."""
    recipe, clock, late = model.recipe, fixed.clock, False
    steps = _count_steps_done(state, recipe, fixed.train)
    with show_bar(model, state, len(fixed.train.labels), clock, fixed.progress) as advance:
        while not (late or is_finished(state, recipe.limits, clock, _estimate_epoch(model, state, fixed))):
            late = _train_epoch(model, state, fixed, advance)
            steps += state.step
            model = _compile_if_it_pays(model, state, clock, fixed.progress)
            _end_epoch(model, state, fixed)
            state.seconds = clock.seconds
            if fixed.checkpoints.due or state.epoch == 2:
                fixed.checkpoints.save(state, model.step_tensors(), fixed.random)
            on_epoch_end(state.history)
            late |= fixed.callbacks.call(OF_EPOCHS, partial(_make_moment, model, state))
    return model, steps


def _train_epoch(model: TrainingState, state: LoopState, fixed: _Fixed, advance: Callable[[], None]) -> bool:
    """The steps of this epoch that are not done yet; returns whether there is to be none more."""
    recipe, train, random, clock = model.recipe, fixed.train, fixed.random, fixed.clock
    set_modes(model.network.module, model.frozen)
    if state.step == 0:
        state.order = draw_epoch_order(recipe.sampling, train.labels, random)
    for group in _steps_left(state, recipe.sampling):
        reserve, before = _estimate_ending(state, fixed), state.seconds
        at = _find_position(state, recipe, len(train.labels), clock, reserve)
        state.factor = compute_rate_factor(recipe.schedule, at.step, at.steps_an_epoch, at.losses, at.epochs)
        model.set_rates(state.factor)
        side = find_side(recipe.network, at.step / at.steps)
        loss, correct = compute_gradients(model, train, group, fixed.loss_of_batch, random, state, fixed.progress, side)
        if not math.isfinite(loss):
            raise diverged(state.epoch, state.step + 1, recipe.steps.lr * state.factor)
        norms = measure_gradient_norms(fixed.stages)
        model.take_step()
        _count(state, loss, correct, sum(map(len, group)), norms, clock)
        advance()
        stopped = fixed.callbacks.call(OF_STEPS, partial(_make_moment, model, state))
        if fixed.checkpoints.due:
            fixed.checkpoints.save(state, model.step_tensors(), random)
        if stopped or clock.is_over(reserve + state.seconds - before):  # the next step would end too late
            return True
    return False


def _make_moment(model: TrainingState, state: LoopState) -> Moment:
    """What callbacks are told; after an epoch, of that which has just ended."""
    if state.step:
        shown = (state.epoch, state.step, state.losses / state.seen)
    else:
        shown = (state.epoch - 1, 0, state.history[-1]["train_loss"])
    return Moment(*shown, tuple(dict(row) for row in state.history), model.network.module, model.optimizer)


def is_finished(state: LoopState, limits: Limits, clock: Clock, reserve: float) -> bool:
    """Return whether training is over.

    Args:
        state: The state of the loop.
        limits: How long training may go on.
        clock: The clock of the training.
        reserve: Seconds that one more step with an evaluation and a checkpoint takes.

    Returns:
        True after the last epoch, after too many epochs without a better one, or when no time is left.
    """
    late = bool(state.history) and clock.is_over(reserve)
    return is_out_of_patience(state, limits) or late or state.epoch > limits.epochs


def count_steps(sampling: Sampling, images: int) -> int:
    """Count the optimizer steps of one epoch.

    Args:
        sampling: Images a batch and batches a step.
        images: Number of training images.

    Returns:
        The number of steps.
    """
    return -(-len(list(batches(np.arange(images), sampling.batch))) // sampling.accumulate)


def compute_gradients(
    model: TrainingState,
    train: Labelled,
    group: Sequence[NDArray[np.int64]],
    loss_of_batch: LossOfBatch,
    random: np.random.Generator,
    state: LoopState,
    progress: Progress,
    side: int | None = None,
) -> tuple[float, int]:
    """Compute the gradients of one optimizer step and leave them in the parameters.

    Where memory runs out, the step is done again with batches in twice as many parts, and so are all that follow.

    Args:
        model: The network in training.
        train: The training split.
        group: Row numbers of each batch of the step, int64.
        loss_of_batch: The training loss, from logits and targets to a scalar in nats.
        random: The generator of augmentation and mixing.
        state: The state of the loop; its `parts` grow where memory runs out.
        progress: Where notes go.
        side: Side of the square that images are shrunk to, pixels; None: they stay as they are.

    Returns:
        The summed loss (nats) and the number of correct predictions over all images of the step.

    Raises:
        RecipeError: Not even two images at a time fit into memory.
    """
    images = sum(map(len, group))
    task = task_of(train.label_sets, model.part.spec.classes)
    while True:
        model.optimizer.zero_grad(set_to_none=True)
        losses, correct = 0.0, 0
        try:
            for rows in group:
                for piece in batches(rows, -(-model.recipe.sampling.batch // state.parts)):
                    logits, shares, truth = forward_batch(model, train, piece, random, side)
                    loss = loss_of_batch(logits, shares)
                    (loss * (len(piece) / images)).backward()  # type: ignore[no-untyped-call]
                    losses += float(loss.detach()) * len(piece)
                    correct += count_correct(task, logits, truth)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return losses, correct
        _halve(state, model, progress)


def _count_steps_done(state: LoopState, recipe: ResolvedRecipe, train: Labelled) -> int:
    """The optimizer steps of the finished epochs."""
    return len(state.history) * count_steps(recipe.sampling, len(train.labels))


def _steps_left(state: LoopState, sampling: Sampling) -> list[list[NDArray[np.int64]]]:
    """The rows of each step of this epoch that is not done yet, in batches."""
    return list(in_groups(batches(state.order, sampling.batch), sampling.accumulate))[state.step :]


def _find_position(state: LoopState, recipe: ResolvedRecipe, images: int, clock: Clock, reserve: float) -> Position:
    """Where the next step stands in the training, with as many epochs as the recipe's time will do for.

    A limit that is not the recipe's own only ends the training: its schedule is that of the recipe.
    """
    steps_an_epoch = count_steps(recipe.sampling, images)
    done = (state.epoch - 1) * steps_an_epoch + state.step
    epochs, timed = recipe.limits.epochs, math.isfinite(recipe.limits.seconds)
    epochs = clock.epochs(done / steps_an_epoch, epochs, reserve) if timed else epochs
    return Position(done, steps_an_epoch, epochs, [row["val_loss"] for row in state.history])


def _count(state: LoopState, loss: float, correct: int, images: int, norms: Sequence[float], clock: Clock) -> None:
    """Count a step that is done: its summed loss, correct answers, images and gradient norms by stage."""
    state.gradients = [a + b for a, b in zip_longest(state.gradients, norms, fillvalue=0.0)]
    state.losses, state.correct = state.losses + loss, state.correct + correct
    state.step, state.seen, state.seconds = state.step + 1, state.seen + images, clock.seconds


def _restore_state(checkpoints: Checkpoints, model: TrainingState, random: np.random.Generator) -> LoopState:
    """Restore the model and all random states from the checkpoint; the beginning where there is none."""
    checkpoint = checkpoints.load(random)
    if checkpoint is None:
        return LoopState()
    state, tensors = checkpoint
    model.restore(tensors)
    return state


def _make_result(model: TrainingState, state: LoopState, fixed: _Fixed, steps: int, kept: Blend) -> LoopResult:
    """What training has come to: the best epoch's network, or what lies between it and the start."""
    tensors = {**model.network.module.state_dict(), **kept.tensors}
    choices, stopped = _describe_choices(model, state, fixed.train, steps), fixed.callbacks.stopped
    choices = choices.merged(Choices(probe=state.start)) if state.start else choices
    choices = choices.merged(Choices(wise_ft=kept.share)) if kept.chosen else choices
    choices = choices.merged(Choices(stopped_by=stopped)) if stopped else choices
    return LoopResult(
        state={name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()},
        logits=kept.logits,
        history=tuple(state.history),
        selected=Selected(epoch=state.best_epoch),
        choices=choices,
        aside=model.aside,
    )


def _measure_start(model: TrainingState, state: LoopState, fixed: _Fixed, probed: Mapping[str, float]) -> None:
    """Evaluate the solved head that training starts from, and keep it as the best so far, as epoch 0."""
    logits = _evaluate_views(model, state, fixed)
    figures = _measure_validation(model.recipe.select, logits, fixed.val_views[0])
    state.start = {"epoch": 0.0, **probed, **figures}
    if not count_evaluations(model.recipe.wise_ft):
        state.best, state.best_logits = model.copy_unfrozen(), logits


def _blend_with_start(model: TrainingState, state: LoopState, fixed: _Fixed, origin: Tensors) -> Blend:
    """The weights that are kept at the end: those of the best epoch, or what lies between them and the start."""
    recipe = model.recipe
    if not count_evaluations(recipe.wise_ft):
        return Blend(1.0, state.best, state.best_logits)

    def evaluate(tensors: Tensors) -> NDArray[np.float32]:
        with torch.no_grad():
            for name, tensor in model.unfrozen_tensors().items():
                tensor.copy_(tensors[name])
        return _evaluate_views(model, state, fixed)

    def score(logits: NDArray[np.float32]) -> float:
        return score_row(_measure_validation(recipe.select, logits, fixed.val_views[0]), recipe.select)

    kept = blend_weights(origin, Blend(1.0, state.best, state.best_logits), recipe.wise_ft, evaluate, score)
    fixed.progress.note(
        f"Kept {kept.share:.0%} of the trained weights and {1 - kept.share:.0%} of those at the start (wise_ft)."
    )
    return kept


def _evaluate_views(model: TrainingState, state: LoopState, fixed: _Fixed) -> NDArray[np.float32]:
    """The logits of the validation images, the mean over their views."""
    by_view = [_evaluate_split(state, model, view, fixed.progress) for view in fixed.val_views]
    return np.asarray(np.mean(by_view, axis=0), np.float32)


def _end_epoch(model: TrainingState, state: LoopState, fixed: _Fixed) -> None:
    """Evaluate, add a row to the history, and keep the network if it is the best so far."""
    recipe, stages, started = model.recipe, fixed.stages, time.monotonic()
    with model.average.in_place() if model.average else nullcontext():
        logits = _evaluate_views(model, state, fixed)
        row = {"epoch": float(state.epoch), "lr": recipe.steps.lr * state.factor}
        means = make_history_columns([total / state.step for total in state.gradients], stages)
        figures = _measure_epoch(recipe.select, state, logits, fixed.val_views[0])
        state.history.append(row | figures | measure_weight_norms(stages) | means)
        start = None if count_evaluations(recipe.wise_ft) else state.start
        if find_best_epoch(state.history, recipe.select, start) == state.epoch:
            state.best = model.copy_unfrozen()
            state.best_epoch, state.best_logits = state.epoch, logits
    state.evaluating = time.monotonic() - started
    state.epoch, state.step, state.losses, state.correct, state.seen, state.gradients = (
        state.epoch + 1,
        0,
        0.0,
        0,
        0,
        [],
    )


def _measure_epoch(select: str, state: LoopState, logits: NDArray[np.float32], val: Labelled) -> dict[str, float]:
    """Figures of one epoch: training's are means over its steps, as they were made; validation's are after it."""
    trained = {"train_loss": state.losses / state.seen, "train_accuracy": state.correct / state.seen}
    return trained | _measure_validation(select, logits, val)


def _measure_validation(select: str, logits: NDArray[np.float32], val: Labelled) -> dict[str, float]:
    """Figures of validation: the loss (nats), the accuracy, and what the network is selected by."""
    task = task_of(val.label_sets, logits.shape[1])
    names = sorted({"accuracy", task.default_metric, select} - {LOSS, LAST})
    labels = task.read_labels(val.labels)
    return {
        "val_loss": float(task.losses(labels, logits).mean()),
        **{f"val_{name}": task.score(name, labels, logits) for name in names},
    }


def _evaluate_split(state: LoopState, model: TrainingState, split: Labelled, progress: Progress) -> NDArray[np.float32]:
    """The logits of a split, in as many parts as memory asks for."""
    while True:
        try:
            return predict_logits(model, split, state.at_once)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        state.at_once //= 2
        _free(model)
        if state.at_once < 1:
            raise _make_memory_error("1 image", model)
        progress.note(f"Out of memory: now {state.at_once} images are evaluated at a time.")


def _estimate_evaluation(state: LoopState, images: int) -> float:
    """Seconds that an evaluation takes: as the latest did, else a third of training on so many images."""
    if state.evaluating is not None:
        return state.evaluating
    return state.seconds / state.seen * images / STEP_PASSES if state.seen else 0.0


def _estimate_ending(state: LoopState, fixed: _Fixed) -> float:
    """Seconds that must stay free of a limited time while steps are taken: for evaluations and a checkpoint.

    Those that follow training are counted once one was measured: the first steps, which are slow, say too much of it.
    """
    if fixed.clock.budget is None:
        return 0.0
    evaluation = _estimate_evaluation(state, sum(len(view.labels) for view in fixed.val_views))
    following = 0 if state.evaluating is None else fixed.last_evaluations
    return evaluation * (1 + following) + fixed.checkpoints.expect_seconds(fixed.size)


def _estimate_epoch(model: TrainingState, state: LoopState, fixed: _Fixed) -> float:
    """Seconds that the shortest further epoch takes, of one step."""
    steps = _count_steps_done(state, model.recipe, fixed.train)
    return _estimate_ending(state, fixed) + (state.seconds / steps if steps else 0.0)


def _compile_if_it_pays(model: TrainingState, state: LoopState, clock: Clock, progress: Progress) -> TrainingState:
    """On a GPU, the network compiled after the first epoch where enough is left to do.

    On a CPU compiled steps were no faster than eager ones (BENCHMARKS.md).
    """
    epochs = clock.epochs(state.epoch, model.recipe.limits.epochs, 0.0)
    left = clock.seconds / state.epoch * (epochs - state.epoch)
    if model.device != "cuda" or model.compiled or left < COMPILE_PAYS:
        return model
    progress.note(f"About {left / 60:.0f} minutes of training are left, so the network is compiled.")
    return replace(model, module=compile_module(model.module, progress), compiled=True)


def _describe_choices(model: TrainingState, state: LoopState, train: Labelled, steps: int) -> Choices:
    """What was chosen for this machine."""
    batch = model.recipe.sampling.batch
    images = f"{batch} images"
    return Choices(
        device=model.device,
        training=f"PyTorch {torch.__version__.partition('+')[0]}, channels last",
        precision="bfloat16 (autocast)" if model.halved else "float32",
        batch=images
        if state.parts == 1
        else f"{images} in parts of {-(-batch // state.parts)}, because memory ran out",
        data="on the device" if isinstance(train.inputs, OnDevice) else "read from memory for every step",
        freed_memory="kept between steps" if model.keeps_memory else "handed back",
        training_threads=torch.get_num_threads(),
        compiled=model.compiled,
        steps=steps,
    )


def _halve(state: LoopState, model: TrainingState, progress: Progress) -> None:
    """Twice as many parts a batch from here on; raises `RecipeError` when a part would be less than two images."""
    state.parts *= 2
    size = -(-model.recipe.sampling.batch // state.parts)
    _free(model)
    if size < 2:
        raise _make_memory_error("2 images", model)
    progress.note(f"Out of memory: each batch is now computed in {state.parts} parts of {size} images.")


def _free(model: TrainingState) -> None:
    """Hand back what a step that failed has taken."""
    model.optimizer.zero_grad(set_to_none=True)
    if model.device == "cuda":
        torch.cuda.empty_cache()


def _make_memory_error(count: str, model: TrainingState) -> RecipeError:
    return RecipeError(
        f"batch: not even {count} at a time fit into the memory of the device ({model.device}).",
        "Choose a smaller size or network, or freeze more layers.",
    )
