"""A recipe and two splits to a trained network, the shortest way: solved, descended, or trained in PyTorch.

frozen prefix -> outputs -> head, or what is not frozen -> the epoch that validation prefers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from budwood.config.losses import OneLabel
from budwood.config.optimizers import LBFGS
from budwood.config.resolved_recipe import TRIAL_RATE, ResolvedRecipe
from budwood.errors import RecipeError
from budwood.hardware import count_threads
from budwood.inference.engines import describe_unused, read_state
from budwood.inference.feature_cache import compute_tta_features
from budwood.inference.input_sources import Labelled
from budwood.progress import Progress
from budwood.storage.atomic import write_text
from budwood.storage.strict_json import decode_json, encode_json
from budwood.training.frozen_features import SplitFeatures, load_features, make_frozen_prefix
from budwood.training.history import EpochCallback
from budwood.training.inputs import (
    describe_feature_choices,
    describe_input_choices,
    make_head_splits,
    make_inputs,
    make_trained_slice,
    make_tta_views,
    take_one_step,
)
from budwood.training.linear_head import HeadSplit, LinearHead, compute_head_logits, descend
from budwood.training.probe import start_from_probe
from budwood.training.schedules import find_best_epoch
from budwood.training.task import LapCallback, TrainingResult, TrainingTask, each_phase, trains_linear_head_only
from budwood.training.training_record import Choices, PrefixRecord, Selected

if TYPE_CHECKING:
    from budwood.inference.pytorch_backend import NetworkSlice
    from budwood.training.lr_finder import RateCurve


MANY: Final = 4  # processors, from which on fewer threads may be faster
LONG: Final = 500  # steps, from which on it is worth measuring
CHOSEN: Final = "chosen.json"  # beside a checkpoint: what was decided once, before the first step


def train_network(task: TrainingTask, lap: LapCallback) -> TrainingResult:
    """Train the network of a recipe: a linear head alone, or in PyTorch, in one go or in phases.

    Args:
        task: What is to be trained.
        lap: Is called with the name of each part of the work when it ends.

    Returns:
        The best epoch's network, with its evidence.

    Raises:
        DivergedError: The loss is no longer a number.
        RecipeError: No learning rate was found where one is asked for, or memory is too small.
        RunError: A checkpoint cannot be read.
        StorageError: A checkpoint cannot be written.
    """
    if task.spec.recipe.probe:
        task = start_from_probe(task, fit_head)
        lap("probe")
    if task.spec.recipe.phases:
        return _train_in_phases(task, lap)
    return _train_once(task, lap)


def search_rate(task: TrainingTask) -> RateCurve:
    """Measure the learning-rate curve of a recipe.

    Args:
        task: What would be trained.

    Returns:
        The training loss over the learning rate.
    """
    task = start_from_probe(task, fit_head)
    features = load_features(task)
    train, _ = make_inputs(task, features)
    return _measure_rates(task, features, train)


def fit_head(
    train: HeadSplit,
    val: HeadSplit,
    classes: int,
    recipe: ResolvedRecipe,
    progress: Progress,
    left: Callable[[], float | None] = lambda: None,
) -> LinearHead:
    """Train a linear head as the recipe asks: solved, or by gradient descent.

    SciPy is slow to load and is imported only where a head is solved.

    Args:
        train: Training features and labels.
        val: Validation features and labels.
        classes: Number of classes.
        recipe: The recipe.
        progress: Where the bar goes.
        left: Returns the seconds that are left to training; None: as many as it takes.

    Returns:
        The head with its history.

    Raises:
        DivergedError: The loss is no longer a number.
    """
    if isinstance(recipe.optimizer, LBFGS):
        from budwood.training.head_solver import Objective, solve

        assert isinstance(recipe.loss, OneLabel)
        objective = Objective(recipe.loss, recipe.sampling.balanced, recipe.select)
        return solve(train, val, classes, recipe.optimizer, progress, objective, left)
    return descend(train, val, classes, recipe, progress)


def _train_in_phases(task: TrainingTask, lap: LapCallback) -> TrainingResult:
    """One phase after another, each from the best state of the one before; the best epoch of all is kept."""
    history: list[dict[str, float]] = []
    start, best, select, steps, stopped = task.start, None, task.resolved.select, 0, None
    probe: dict[str, float] | None = None
    for phase in each_phase(task):
        if best and (left := task.left()) is not None and left <= 0:
            task.context.progress.note(f"Phase {phase.phase} was not begun, because the time limit was reached.")
            break
        on_epoch_end = _append_phase(history, phase.phase, task.on_epoch_end)
        probed = task.probed if phase.phase == 1 else None
        result = _train_once(replace(phase, start=start, probed=probed, on_epoch_end=on_epoch_end), lap)
        done, steps = len(history), steps + (result.choices.steps or 0)
        history += _number_epochs(result.history, phase.phase, done)
        probe = probe or result.choices.probe
        if best is None or find_best_epoch(history, select, probe) > done:
            best = result
        start, stopped = result.state, result.choices.stopped_by
        if stopped:
            break
    assert best is not None
    selected = Selected(epoch=find_best_epoch(history, select, probe))
    choices = best.choices.merged(Choices(steps=steps))
    if probe:
        choices = choices.merged(Choices(probe=probe))
    if stopped:
        choices = choices.merged(Choices(stopped_by=stopped))
    return replace(best, history=tuple(history), selected=selected, choices=choices)


def _append_phase(history: Sequence[Mapping[str, float]], phase: int, callback: EpochCallback) -> EpochCallback:
    """Passes a phase's history on behind those of the phases before it."""
    before = list(history)
    return lambda rows: callback([*before, *_number_epochs(rows, phase, len(before))])


def _number_epochs(rows: Sequence[Mapping[str, float]], phase: int, done: int) -> list[dict[str, float]]:
    """Rows of a phase with their epochs counted over all phases."""
    return [{**row, "epoch": done + row["epoch"], "phase": float(phase)} for row in rows]


def _train_once(task: TrainingTask, lap: LapCallback) -> TrainingResult:
    """A recipe without phases, or one phase: the head alone, or what is not frozen of the network."""
    features = load_features(task)
    lap("prefix")
    if features and trains_linear_head_only(task):
        result = _train_head(task, features)
        lap("head")
        return result
    return _train_in_loop(task, features, lap)


def _train_head(task: TrainingTask, features: SplitFeatures) -> TrainingResult:
    progress = task.context.progress
    train, val = make_head_splits(features, task)
    if task.spec.recipe.tta != "none":  # the head is linear: the mean of logits is that of the mean output
        val = replace(val, outputs=compute_tta_features(make_frozen_prefix(task), task.validation, progress).values)
    head = fit_head(train, val, task.spec.classes, task.resolved, progress, task.left)
    path = task.spec.plan.head
    return TrainingResult(
        trained="head",
        state={**read_state(make_frozen_prefix(task)), f"{path}.weight": head.weight, f"{path}.bias": head.bias},
        logits=compute_head_logits(val.outputs, head.weight, head.bias),
        history=head.history,
        selected=Selected.model_validate(head.selected),
        choices=describe_feature_choices(features),
        prefix=_count_features(features, task.spec.plan.prefix),
        aside=describe_unused(make_frozen_prefix(task)),
    )


def _train_in_loop(task: TrainingTask, features: SplitFeatures | None, lap: LapCallback) -> TrainingResult:
    from budwood.training.checkpoints import Checkpoints
    from budwood.training.device import use_threads
    from budwood.training.loop import LoopHooks, fit

    train, val = make_inputs(task, features)
    recipe, progress = task.resolved, task.context.progress
    if recipe.steps.lr_from_trial:
        rate = _decide_once(task, "lr", lambda: _suggest_rate(_measure_rates(task, features, train), progress))
        recipe = recipe.with_rate(rate)
        lap("rate")
    part = make_trained_slice(task, features)
    threads = _choose_threads(task, part, recipe, train, val, lap)
    hooks = LoopHooks(Checkpoints(task.checkpoint), task.on_epoch_end, task.left)
    views = make_tta_views(task, features, val)
    with use_threads(threads):
        result = fit(part, recipe, train, val, progress, task.start, hooks, views, task.probed)
    lap("train")
    choices = describe_feature_choices(features) if features else describe_input_choices(train.inputs)
    return TrainingResult(
        trained="network",
        state=result.state,
        logits=result.logits,
        history=result.history,
        selected=result.selected,
        choices=choices.merged(result.choices).merged(Choices(lr=recipe.steps.lr)),
        prefix=_count_features(features, task.spec.plan.prefix) if features else PrefixRecord(),
        aside=result.aside,
    )


def _choose_threads(
    task: TrainingTask,
    part: NetworkSlice,
    recipe: ResolvedRecipe,
    train: Labelled,
    val: Labelled,
    lap: LapCallback,
) -> int:
    """How many threads training computes in: measured where there are many and training is long."""
    from budwood.hardware import find_best_device
    from budwood.training.profiling import find_fastest_threads

    threads = count_threads()
    if threads < MANY or find_best_device() != "cpu" or _count_steps(recipe, train) < LONG:
        return threads
    step, progress = take_one_step(recipe, train, val), task.context.progress
    threads = int(_decide_once(task, "threads", lambda: find_fastest_threads(part, recipe, *step, progress)))
    progress.note(f"Training uses {threads} of {count_threads()} threads, which was measured to be faster.")
    lap("threads")
    return threads


def _decide_once(task: TrainingTask, name: str, decide: Callable[[], float]) -> float:
    """What is decided by measuring; it is kept beside the checkpoint, so that a resumed training decides alike."""
    file = task.checkpoint and task.checkpoint / CHOSEN
    decisions: dict[str, float] = decode_json(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    if name not in decisions:
        decisions[name] = decide()
        if file:
            write_text(file, encode_json(decisions))
    return decisions[name]


def _count_steps(recipe: ResolvedRecipe, train: Labelled) -> float:
    """Batches of the whole training, without end where time is the limit."""
    return len(train.labels) / recipe.sampling.batch * recipe.limits.epochs


def _measure_rates(task: TrainingTask, features: SplitFeatures | None, train: Labelled) -> RateCurve:
    from budwood.training.lr_finder import measure_rate_curve

    recipe = task.resolved.with_rate(TRIAL_RATE)
    return measure_rate_curve(make_trained_slice(task, features), recipe, train, task.context.progress, task.start)


def _suggest_rate(curve: RateCurve, progress: Progress) -> float:
    """The rate that a curve suggests; raises `RecipeError` when it suggests none."""
    if curve.suggestion is None:
        raise RecipeError(
            f"lr: auto found no learning rate: {curve.problem}.",
            "Use `budwood lr-find` to see the curve, and set lr yourself.",
        )
    progress.note(f"Learning rate {curve.suggestion:.2g}, found automatically (where the loss falls fastest).")
    return curve.suggestion


def _count_features(features: SplitFeatures, stage: str | None) -> PrefixRecord:
    return PrefixRecord(stage=stage, computed=features.computed, reused=features.reused)
