"""A recipe resolved for a data set: every choice is made, every number is there, in sections by what they are about.

A `Recipe` is what somebody asks for, and has gaps. Training reads what `resolve` makes of it, which has none: where
there is no limit, the limit is infinite; where an option belongs to one optimizer, schedule or loss, only that has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, TypeVar

from budwood.config.augmentations import Augmentation, OwnAugmentation
from budwood.config.label_rules import adapt_to_labels
from budwood.config.losses import LOSSES, CustomLoss, Loss, OneLabel
from budwood.config.optimizers import LBFGS, OPTIMIZERS, CustomOptimizer, Optimizer, StepOptimizer
from budwood.config.options import (
    SCHEDULE_PREFIX,
    UNCHANGED,
    FrozenNorm,
    Options,
    Precision,
    Resizing,
    TrainedNorm,
    TtaMode,
    loss_prefix,
)
from budwood.config.own_calls import CALLS, check_part
from budwood.config.own_networks import is_users_code
from budwood.config.recipe import Recipe
from budwood.config.registry import entry_digest, find_source, import_entry, is_entry_point, part_digest
from budwood.config.schedules import SCHEDULES, CustomSchedule, Schedule
from budwood.errors import RecipeError

TRIAL_RATE: Final = 1.0  # stands in for a rate that a trial is yet to find
Value = TypeVar("Value")


@dataclass(frozen=True)
class OwnPart:
    """A part of training that is the user's own.

    Attributes:
        name: `package.module:name`.
        digest: Digest of its source.
        file: The file that it was read from, below the working directory or absolute; it tells no parts apart. Empty
            in runs of version 0.1.
    """

    name: str
    digest: str
    file: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Network:
    """What the network sees, and what of it is frozen.

    Attributes:
        freeze: What is frozen: trunk, none, upto:STAGE, or patterns of parameter names.
        size: Side of the square that the network sees, pixels.
        resizing: How an image becomes a square.
        tta: The mirror images over which logits are averaged in evaluation.
        frozen_norm: Whether batch norm of frozen layers is in evaluation or in training mode while others are trained.
        trained_norm: Whether batch norm of trained layers, the head's apart, is in training or in evaluation mode
            while they are trained.
        size_start: Side of the square at the start of training, pixels; `size` where it does not grow.
    """

    freeze: str | tuple[str, ...]
    size: int
    resizing: Resizing
    tta: TtaMode
    frozen_norm: FrozenNorm
    trained_norm: TrainedNorm
    size_start: int


@dataclass(frozen=True)
class Mixing:
    """How images are blended in pairs.

    Attributes:
        mixup: Alpha of mixup; 0: none.
        cutmix: Alpha of CutMix; 0: none.
    """

    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class Sampling:
    """How training images are drawn.

    Attributes:
        batch: Images a batch.
        accumulate: Batches an optimizer step.
        balanced: Whether an epoch draws every class equally often.
    """

    batch: int
    accumulate: int
    balanced: bool

    @property
    def step(self) -> int:
        """Return the number of images of one optimizer step."""
        return self.batch * self.accumulate


@dataclass(frozen=True)
class Limits:
    """How long training goes on; infinite where there is no limit.

    Attributes:
        epochs: Number of epochs.
        patience: Epochs without a better one after which training stops.
        seconds: Seconds of the whole command.
    """

    epochs: float
    patience: float
    seconds: float


@dataclass(frozen=True)
class ResolvedRecipe:
    """Everything that training does, without gaps.

    Attributes:
        network: What the network sees, and what is frozen.
        optimizer: The options of the optimizer.
        schedule: The options of the learning-rate schedule.
        loss: The options of the loss.
        augmentation: How images are changed at random, one by one.
        mixing: How images are blended in pairs.
        sampling: How training images are drawn.
        limits: How long training goes on.
        select: The validation metric by which an epoch is kept, or `loss`.
        clip: Largest norm of the gradient; infinite: it is not clipped.
        ema: Decay of the average of weights that is evaluated and kept; 0: the weights themselves are.
        wise_ft: Share of the trained weights in those that are kept at the end, the rest being of the start; None: it
            is chosen on validation.
        precision: Precision of the training steps.
        versions: Augmented versions of each training image that are made once; 0: they are made anew in every
            epoch.
        seed: Seed of all random numbers.
        callbacks: The user's own that are called while training goes on, as `package.module:name`.
    """

    network: Network
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    augmentation: Augmentation
    mixing: Mixing
    sampling: Sampling
    limits: Limits
    select: str
    clip: float
    ema: float
    wise_ft: float | None
    precision: Precision
    versions: int
    seed: int
    callbacks: tuple[str, ...] = ()

    @property
    def steps(self) -> StepOptimizer:
        """Return the optimizer of a training in steps.

        Raises:
            RecipeError: The head is solved instead.
        """
        if isinstance(self.optimizer, LBFGS):
            raise RecipeError("optimizer: lbfgs solves a linear head and takes no steps.", "Choose adam or another.")
        return self.optimizer

    @property
    def augments(self) -> bool:
        """Return whether images are changed at random before the network sees them."""
        return replace(self.augmentation, fill="reflect") != Augmentation() or self.mixing != Mixing()

    def with_rate(self, lr: float) -> ResolvedRecipe:
        """Return the recipe with a learning rate that is settled.

        Args:
            lr: The learning rate.

        Returns:
            The recipe, whose rate is no longer left to a trial.

        Raises:
            RecipeError: The head is solved, without a learning rate.
        """
        return replace(self, optimizer=replace(self.steps, lr=lr, lr_from_trial=False))


def resolve(recipe: Recipe, multilabel: bool, size: int) -> ResolvedRecipe:
    """Resolve a recipe for a data set.

    Args:
        recipe: The recipe as it was asked for, without phases: `Recipe.in_phases` returns one for each.
        multilabel: Whether images have several labels or none, so that every class is a yes or no.
        size: Side of the square that the network sees, pixels.

    Returns:
        The recipe without gaps.

    Raises:
        RecipeError: An option has no meaning for images with such labels.
    """
    recipe = adapt_to_labels(recipe, multilabel)
    return ResolvedRecipe(
        network=_network(recipe, size),
        optimizer=_optimizer(recipe),
        schedule=_schedule(recipe),
        loss=_loss(recipe),
        augmentation=_augmentation(recipe),
        mixing=_section(Mixing, recipe, {}),
        sampling=Sampling(_or(recipe.batch, 64), _or(recipe.accumulate, 1), bool(recipe.balanced_sampling)),
        limits=Limits(_or(recipe.epochs, math.inf), _or(recipe.patience, math.inf), _or(recipe.time, math.inf)),
        select=_or(recipe.select, "loss"),
        clip=_or(recipe.clip, math.inf),
        ema=_or(recipe.ema, 0.0),
        wise_ft=None if recipe.wise_ft == "auto" else _or(recipe.wise_ft, 1.0),
        precision=_or(recipe.precision, "auto"),
        versions=_or(recipe.views, 0),
        seed=_or(recipe.seed, 0),
        callbacks=recipe.callbacks or (),
    )


def own_parts(recipe: Recipe) -> dict[str, OwnPart]:
    """Return the user's own code that a recipe names, imported to be sure that it is there and can be called.

    Args:
        recipe: The recipe as it was asked for.

    Returns:
        By option, the `name` (`package.module:name`), the `digest` of the source and its `file`, as a run records
        them; several augmentations are numbered, as `transform 1`.

    Raises:
        RecipeError: Something that is named cannot be imported or called, or has no source to read.
    """
    found = {}
    for option in CALLS:
        named = list_own(getattr(recipe, option))
        for number, own in enumerate(named, 1):
            key = option if len(named) == 1 else f"{option} {number}"
            found[key] = _describe_part(check_part(own.name, option, own.keywords), own.name, option)
    return found


def recorded_parts(recipe: Recipe, track: Sequence[str] = ()) -> dict[str, OwnPart]:
    """Return the user's own code that a run records: that of training, that of the network, and that of trackers.

    Args:
        recipe: The recipe as it was asked for.
        track: The names of the tools that are told of every epoch.

    Returns:
        What `own_parts` returns, and `model` where the network is made by the user's own factory, and `track 1`.

    Raises:
        RecipeError: Something that is named cannot be imported or called, or has no source to read.
    """
    name, found = recipe.model, own_parts(recipe)
    own = filter(is_entry_point, track)
    found |= {f"track {n}": _describe_part(import_entry(each, "track"), each, "track") for n, each in enumerate(own, 1)}
    if not is_users_code(name):
        return found
    model = OwnPart(name, entry_digest(name, "model"), _describe_file(find_source(name, "model")))
    return {"model": model, **found}


def list_own(named: str | tuple[str | OwnAugmentation, ...] | None) -> tuple[OwnAugmentation, ...]:
    """List the user's own code that the value of an option names.

    Args:
        named: The value.

    Returns:
        What it names, with its options; empty for plain names.
    """
    if isinstance(named, tuple):
        return tuple(OwnAugmentation(name=each) if isinstance(each, str) else each for each in named)
    return (OwnAugmentation(name=named),) if named and is_entry_point(named) else ()


def _describe_part(entry: object, name: str, option: str) -> OwnPart:
    return OwnPart(name, part_digest(entry, name, option), _describe_file(find_source(name, option)))


def _describe_file(file: Path | None) -> str:
    if file is None:
        return ""
    here = Path.cwd()
    return file.relative_to(here).as_posix() if file.is_relative_to(here) else str(file)


def _or(value: Value | None, otherwise: Value) -> Value:
    """A value, or what stands in where there is none."""
    return otherwise if value is None else value


def _network(recipe: Recipe, size: int) -> Network:
    """What the network sees; raises `RecipeError` where it is to grow and starts no smaller."""
    start = recipe.size_start if recipe.freeze == "none" else None
    if start and start >= size:
        raise RecipeError(
            f"size_start: expected under the size of the network, {size}, found {start}.", "Start smaller."
        )
    return Network(
        recipe.freeze,
        size,
        recipe.resizing,
        recipe.tta,
        _or(recipe.frozen_norm, "eval"),
        _or(recipe.trained_norm, "train"),
        start or size,
    )


def _section(kind: type[Value], recipe: Recipe, given: Options, prefix: str = "") -> Value:
    """A record of what the recipe says of its fields, beside what is given; what is not said keeps its default."""
    names = [each.name for each in fields(kind) if each.name not in given]  # type: ignore[arg-type]
    said = {name: getattr(recipe, f"{prefix}{name}", None) for name in names}
    return kind(**given, **{name: value for name, value in said.items() if value is not None})


def _optimizer(recipe: Recipe) -> Optimizer:
    if recipe.optimizer not in OPTIMIZERS:
        return _section(CustomOptimizer, recipe, {**_rate(recipe), "name": recipe.optimizer})
    kind = OPTIMIZERS.get(recipe.optimizer)
    return _section(kind, recipe, {} if kind is LBFGS else _rate(recipe))


def _rate(recipe: Recipe) -> Options:
    if recipe.lr == "auto":
        return {"lr": TRIAL_RATE, "lr_from_trial": True}
    return {} if recipe.lr is None else {"lr": float(recipe.lr)}


def _schedule(recipe: Recipe) -> Schedule:
    name, warmup = _or(recipe.schedule, "constant"), _or(recipe.warmup, 0.0)
    if name not in SCHEDULES:
        return CustomSchedule(warmup, name)
    return _section(SCHEDULES.get(name), recipe, {"warmup": warmup}, SCHEDULE_PREFIX)


def _loss(recipe: Recipe) -> Loss:
    name = _or(recipe.loss, "cross_entropy")
    if name not in LOSSES:
        return _section(CustomLoss, recipe, {"name": name})
    kind = LOSSES.get(name)
    shared = {each.name for each in fields(OneLabel)} & {each.name for each in fields(kind)} - {"name"}
    said = {each: getattr(recipe, each) for each in shared if getattr(recipe, each) is not None}
    return _section(kind, recipe, said, loss_prefix(name))


def _augmentation(recipe: Recipe) -> Augmentation:
    asked = {name: getattr(recipe, name) for name in UNCHANGED if name != "transform"}
    values = {name: value for name, value in asked.items() if value and value != UNCHANGED[name]}
    return Augmentation(values, list_own(recipe.transform), _or(recipe.fill, "reflect"))
