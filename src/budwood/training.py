"""A recipe and two splits to a trained network, the shortest way: solved, descended, or trained in PyTorch.

frozen prefix -> outputs -> head, or what is not frozen -> the epoch that validation prefers
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.dataset import Samples
from budwood.decoding import VIEWS, PixelRows, processors
from budwood.descent import descend_head
from budwood.errors import RecipeError
from budwood.files import write_text
from budwood.head import Head, Split, logits
from budwood.networks import TRUNK
from budwood.plan import Plan, plan_of
from budwood.prefix import Outputs, Prefix, evaluated, outputs, part_state, prefix_of, set_aside, too_large
from budwood.progress import Progress
from budwood.recipe import Recipe
from budwood.schedule import best_epoch
from budwood.weights import Weights

if TYPE_CHECKING:
    from budwood.learner import Labelled, Rows
    from budwood.rates import Curve
    from budwood.torch_engine import Part

Lap = Callable[[str], None]
Told = Callable[[Sequence[Mapping[str, float]]], None]
MANY: Final = 4  # processors, from which on fewer threads may be faster
LONG: Final = 500  # steps, from which on it is worth measuring
CHOSEN: Final = "chosen.json"  # beside a checkpoint: what was decided once, before the first step


@dataclass(frozen=True)
class Task:
    """What is to be trained, on what.

    `start` is the state that an earlier phase ended with; `phase` counts from 1, 0 for a recipe without phases.
    Checkpoints lie in the folder `checkpoint` (None: none are kept); `told` gets the whole history after every epoch;
    `left` gives the seconds that are left to training (None: as many as it takes).
    """

    recipe: Recipe
    plan: Plan
    weights: Weights
    classes: int
    training: Samples
    validation: Samples
    cache: Path
    start: Mapping[str, NDArray[Any]] | None = None
    phase: int = 0
    checkpoint: Path | None = None
    told: Told = lambda history: None
    left: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Made:
    """What training gives, however it was done: the record of a run takes it as it is.

    `trained` says whether the head alone was trained; `state` has every tensor by its name in the network; `logits` are
    those of the validation split, float32 [n, classes]; `history` has one row an epoch or strength of the penalty.
    """

    trained: str
    state: Mapping[str, NDArray[Any]]
    logits: NDArray[np.float32]
    history: tuple[dict[str, float], ...]
    selected: dict[str, float]
    choices: dict[str, Any]
    prefix: dict[str, Any]
    aside: str


def trained(task: Task, progress: Progress, lap: Lap) -> Made:
    """The network of a recipe, trained; `lap` is told when a step of it ends."""
    if task.recipe.phases:
        return _in_phases(task, progress, lap)
    return _in_one(task, progress, lap)


def has_checkpoint(folder: Path | None) -> bool:
    """Whether a folder of checkpoints, or of phases with theirs, holds anything to go on with."""
    return folder is not None and any(folder.rglob("*.safetensors"))


def rate_search(task: Task, progress: Progress) -> Curve:
    """The learning-rate curve of a recipe."""
    features = features_of(task, progress)
    train, _ = inputs_of(task, features, progress)
    return _rate_curve(task, features, train, progress)


def _in_phases(task: Task, progress: Progress, lap: Lap) -> Made:
    """One phase after another, each from the best state of the one before; the best epoch of all is kept."""
    history: list[dict[str, float]] = []
    start, kept = None, None
    for number, recipe in enumerate(task.recipe.in_phases(), 1):
        phase = replace(
            task,
            recipe=recipe,
            plan=plan_of(recipe, task.classes, task.cache),
            start=start,
            phase=number,
            checkpoint=task.checkpoint and task.checkpoint / f"phase-{number}",
            told=_after(history, number, task.told),
        )
        made = _in_one(phase, progress, lap)
        done = len(history)
        history += _numbered(made.history, number, done)
        if best_epoch(history, recipe) > done:
            kept = made
        start = made.state
    assert kept is not None
    return replace(kept, history=tuple(history), selected={"epoch": best_epoch(history, task.recipe)})


def _after(history: Sequence[Mapping[str, float]], phase: int, told: Told) -> Told:
    """Tells of a phase's history behind those of the phases before it."""
    before = list(history)
    return lambda rows: told([*before, *_numbered(rows, phase, len(before))])


def _numbered(rows: Sequence[Mapping[str, float]], phase: int, done: int) -> list[dict[str, float]]:
    """Rows of a phase with their epochs counted over all phases."""
    return [{**row, "epoch": done + row["epoch"], "phase": float(phase)} for row in rows]


def _in_one(task: Task, progress: Progress, lap: Lap) -> Made:
    recipe, stop = task.recipe, task.plan["prefix"]
    features = features_of(task, progress)
    lap("prefix")
    alone = recipe.head_alone and stop == TRUNK and not task.phase and not has_checkpoint(task.checkpoint)
    if features and alone:
        fitted, held_out = halves(features.values, task)
        if task.recipe.tta != "none":  # the head is linear: the mean of logits is that of the mean output
            held_out = replace(held_out, outputs=evaluated(frozen_prefix(task), task.validation, progress).values)
        head = fitted_head(fitted, held_out, task.classes, recipe, progress)
        lap("head")
        path = task.plan["head"]
        return Made(
            trained="head",
            state={**part_state(frozen_prefix(task)), f"{path}.weight": head.weight, f"{path}.bias": head.bias},
            logits=logits(held_out.outputs, head.weight, head.bias),
            history=head.history,
            selected=head.selected,
            choices=_choices(features),
            prefix=_counted(features, stop),
            aside=set_aside(frozen_prefix(task)),
        )
    from budwood.checkpoints import Checkpoints
    from budwood.fit import Keeping, fastest_threads, fit
    from budwood.learner import best_device, in_threads

    train, val = inputs_of(task, features, progress)
    if recipe.lr == "auto":
        rate = _decided(task, "lr", lambda: _found(_rate_curve(task, features, train, progress), progress))
        task = replace(task, recipe=recipe.model_copy(update={"lr": rate}))
        lap("rate")
    part = part_of(task, features)
    threads = processors()
    if threads >= MANY and best_device() == "cpu" and _steps(recipe, train) >= LONG:
        threads = int(_decided(task, "threads", lambda: fastest_threads(part, *_a_step_of(part, train, val), progress)))
        progress.note(f"Training computes in {threads} of {processors()} threads: measured, and so faster.")
        lap("threads")
    keeping = Keeping(Checkpoints(task.checkpoint), task.told, task.left)
    views = _other_views(task, features, val, progress)
    with in_threads(threads):
        made = fit(part, train, val, progress, task.start, keeping, views)
    lap("train")
    choices = _choices(features) if features else {"engine": "PyTorch for the whole network", "threads": processors()}
    return Made(
        trained="network",
        state=made.state,
        logits=made.logits,
        history=made.history,
        selected=made.selected,
        choices=choices | made.choices | {"lr": task.recipe.lr},
        prefix=_counted(features, stop) if features else {"stage": None, "computed": 0, "reused": 0},
        aside=made.aside,
    )


def _decided(task: Task, name: str, decide: Callable[[], float]) -> float:
    """What is decided by measuring; it is kept beside the checkpoint, so that a resumed training decides alike."""
    file = task.checkpoint and task.checkpoint / CHOSEN
    chosen: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    if name not in chosen:
        chosen[name] = decide()
        if file:
            write_text(file, json.dumps(chosen))
    return chosen[name]


def _steps(recipe: Recipe, train: Labelled) -> float:
    """Optimizer steps of the whole training, without end where time is the limit."""
    return len(train.labels) / (recipe.batch or 1) * (recipe.epochs or math.inf)


def _a_step_of(part: Part, train: Labelled, val: Labelled) -> tuple[Labelled, Labelled]:
    """One step's worth of training inputs, and the first validation inputs, held in memory."""
    from budwood.learner import Held, Labelled

    recipe = part.recipe
    rows = np.arange(min(len(train.labels), (recipe.batch or 1) * (recipe.accumulate or 1)))
    some = Labelled(Held(np.asarray(train.inputs.take(rows))), train.labels[rows], train.sets)
    return some, Labelled(Held(np.asarray(val.inputs.take(rows[:1]))), val.labels[:1], val.sets)


def features_of(task: Task, progress: Progress) -> Outputs | None:
    """The outputs of the frozen prefix for both splits; None where images change, nothing is frozen, or too much is."""
    stop = task.plan["prefix"]
    if not stop or task.recipe.augments or task.start is not None:
        return None
    both = joined(task.training, task.validation)
    if too_large(frozen_prefix(task), len(both)):
        progress.note(f"The outputs of {stop} would take more memory than is set aside for them; they are not kept.")
        return None
    return outputs(frozen_prefix(task), both, progress)


def frozen_prefix(task: Task) -> Prefix:
    """The frozen prefix of a recipe's network."""
    return prefix_of(task.recipe, task.plan, task.classes, task.weights, task.plan["prefix"], task.cache)


def fitted_head(train: Split, val: Split, classes: int, recipe: Recipe, progress: Progress) -> Head:
    """The head that the recipe asks for; SciPy, slow to load, is imported only where it solves one."""
    if recipe.optimizer == "lbfgs":
        from budwood.solve import solve_head

        return solve_head(train, val, classes, recipe, progress)
    return descend_head(train, val, classes, recipe, progress)


def _rate_curve(task: Task, features: Outputs | None, train: Labelled, progress: Progress) -> Curve:
    from budwood.rates import rate_curve

    trial = replace(task, recipe=task.recipe.model_copy(update={"lr": 1.0}))
    return rate_curve(part_of(trial, features), train, progress, task.start)


def _found(curve: Curve, progress: Progress) -> float:
    """The rate that a curve suggests; raises `RecipeError` when it suggests none."""
    if curve.suggestion is None:
        raise RecipeError(
            "lr: auto found no rate at which the loss falls.", "Look at `budwood lr-find`, and give a rate yourself."
        )
    progress.note(f"Learning rate {curve.suggestion:.2g}, found by the steepest fall of the loss.")
    return curve.suggestion


def inputs_of(task: Task, features: Outputs | None, progress: Progress) -> tuple[Labelled, Labelled]:
    """What training and validation read: the frozen prefix's outputs, or pixels where nothing is kept."""
    from budwood.learner import Held, Labelled

    if features:
        train, val = halves(features.values, task)
        sets = task.training.sets
        return Labelled(Held(train.outputs), train.labels, sets), Labelled(Held(val.outputs), val.labels, sets)
    resize, size = task.recipe.resize, task.plan["size"]
    train_rows, val_rows = (
        PixelRows(split, size, resize, task.cache, progress) for split in (task.training, task.validation)
    )
    sets = task.training.sets
    return Labelled(train_rows, task.training.labels, sets), Labelled(val_rows, task.validation.labels, sets)


def _other_views(task: Task, features: Outputs | None, val: Labelled, progress: Progress) -> list[Rows]:
    """What evaluation sees of the validation images beside the images themselves."""
    from budwood.learner import Held, Viewed

    others = VIEWS[task.recipe.tta][1:]
    if features:
        return [Held(outputs(frozen_prefix(task), task.validation, progress, view).values) for view in others]
    return [Viewed(val.inputs, view) for view in others]


def part_of(task: Task, features: Outputs | None) -> Part:
    """What of the network is trained in PyTorch."""
    from budwood.torch_engine import Part

    stop = task.plan["prefix"] if features else None
    return Part(task.recipe, task.plan, task.classes, task.weights, stop)


def halves(values: NDArray[np.float32], task: Task) -> tuple[Split, Split]:
    """Outputs of both splits, apart and with their labels."""
    n = len(task.training)
    return Split(values[:n], task.training.labels), Split(values[n:], task.validation.labels)


def joined(first: Samples, second: Samples) -> Samples:
    """The samples of two splits, one after the other."""
    return Samples(
        first.root,
        first.ids + second.ids,
        first.paths + second.paths,
        np.concatenate([first.labels, second.labels]),
        first.sets,
    )


def _choices(features: Outputs) -> dict[str, Any]:
    return {
        "device": "cuda" if "CUDA" in features.engine else "cpu",
        "engine": features.engine,
        "engine_check": features.agreement,
        "threads": processors(),
    }


def _counted(features: Outputs, stage: str) -> dict[str, Any]:
    return {"stage": stage, "computed": features.computed, "reused": features.reused}
