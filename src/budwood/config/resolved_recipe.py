"""A recipe resolved for a data set: every choice is made, every number is there, in sections by what they are about.

A `Recipe` is what somebody asks for, and has gaps. Training reads what `resolve` makes of it, which has none: where
there is no limit, the limit is infinite; where an option belongs to one optimizer, schedule or loss, only that has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, TypeVar

from budwood.config.options import (
    LBFGS,
    LOSS_PREFIX,
    LOSSES,
    OPTIMIZERS,
    SCHEDULE_PREFIX,
    SCHEDULES,
    CustomLoss,
    CustomOptimizer,
    CustomSchedule,
    Fill,
    Loss,
    Optimizer,
    Policy,
    Precision,
    Resize,
    Schedule,
    StepOptimizer,
    TtaMode,
)
from budwood.config.recipe import Recipe, adapt_to_labels
from budwood.config.registry import import_entry, is_entry_point, source_digest
from budwood.errors import RecipeError

OWN: Final = ("optimizer", "schedule", "loss", "transform", "select")  # options that may name code of the user's own
TRIAL_RATE: Final = 1.0  # stands in for a rate that a trial is yet to find
Value = TypeVar("Value")


@dataclass(frozen=True)
class OwnPart:
    """A part of training that is the user's own: `package.module:name`, and the digest of its source."""

    name: str
    digest: str


@dataclass(frozen=True)
class Network:
    """What the network sees, and what of it is frozen.

    Attributes:
        freeze: What is frozen: trunk, none, upto:STAGE, or patterns of parameter names.
        size: Side of the square that the network sees, pixels.
        resize: How an image becomes a square.
        tta: The mirror images over which logits are averaged in evaluation.
    """

    freeze: str | tuple[str, ...]
    size: int
    resize: Resize
    tta: TtaMode


@dataclass(frozen=True)
class WholeImage:
    """No random resized crop.

    Attributes:
        name: Name of this kind.
    """

    name: Literal["whole"] = "whole"


@dataclass(frozen=True)
class ResizedCrop:
    """A random resized crop: a box of random area and aspect, enlarged to the size of the image.

    Attributes:
        scale: Smallest share of the area.
        name: Name of this kind.
    """

    scale: float
    name: Literal["resized"] = "resized"


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random, one by one; the defaults change nothing.

    Attributes:
        flip: Chance that an image is mirrored left to right.
        flip_vertical: Chance that it is mirrored upside down.
        rotation: Largest rotation, degrees.
        shift_x: Largest shift sideways, share of the width.
        shift_y: Largest shift up or down, share of the height.
        shear: Largest shear, degrees.
        zoom: Largest zoom in or out, share of the size.
        crop_padding: Largest shift by whole pixels, as of a random crop after padding.
        crop: The random resized crop, or none.
        brightness: Largest change of brightness, share.
        contrast: Largest change of contrast, share.
        saturation: Largest change of saturation, share.
        hue: Largest change of hue, share of the colour circle.
        erase: Chance that a box of an image is erased.
        policy: A policy of random changes of all kinds.
        transforms: The user's own transform as `package.module:name`, where there is one.
        fill: What is beyond the edge of a moved image.
    """

    flip: float = 0.0
    flip_vertical: float = 0.0
    rotation: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    crop_padding: int = 0
    crop: WholeImage | ResizedCrop = WholeImage()
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0
    policy: Policy = "none"
    transforms: tuple[str, ...] = ()
    fill: Fill = "reflect"


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
        precision: Precision of the training steps.
        versions: Augmented versions of each training image that are made once; 0: they are made anew in every
            epoch.
        seed: Seed of all random numbers.
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
    precision: Precision
    versions: int
    seed: int

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
        network=Network(recipe.freeze, size, recipe.resize, recipe.tta),
        optimizer=_optimizer(recipe),
        schedule=_schedule(recipe),
        loss=_loss(recipe),
        augmentation=_augmentation(recipe),
        mixing=_section(Mixing, recipe),
        sampling=Sampling(_or(recipe.batch, 64), _or(recipe.accumulate, 1), bool(recipe.balanced_sampling)),
        limits=Limits(_or(recipe.epochs, math.inf), _or(recipe.patience, math.inf), _or(recipe.time, math.inf)),
        select=_or(recipe.select, "loss"),
        clip=_or(recipe.clip, math.inf),
        ema=_or(recipe.ema, 0.0),
        precision=_or(recipe.precision, "auto"),
        versions=_or(recipe.views, 0),
        seed=_or(recipe.seed, 0),
    )


def own_parts(recipe: Recipe) -> dict[str, OwnPart]:
    """Return the user's own code that a recipe names, imported to be sure that it is there.

    Args:
        recipe: The recipe as it was asked for.

    Returns:
        By option, the `name` (`package.module:name`) and the `digest` of the source, as a run records them.

    Raises:
        RecipeError: Something that is named cannot be imported, or has no source to read.
    """
    named = {option: getattr(recipe, option) for option in OWN}
    return {
        option: OwnPart(name, source_digest(import_entry(name, option)))
        for option, name in named.items()
        if name is not None and is_entry_point(name)
    }


def _or(value: Value | None, otherwise: Value) -> Value:
    """A value, or what stands in where there is none."""
    return otherwise if value is None else value


def _section(kind: type[Value], recipe: Recipe, prefix: str = "", **given: Any) -> Value:
    """A record of what the recipe says of its fields, beside what is given; what is not said keeps its default."""
    names = [field.name for field in fields(kind) if field.name not in given]  # type: ignore[arg-type]
    said = {name: getattr(recipe, f"{prefix}{name}", None) for name in names}
    return kind(**given, **{name: value for name, value in said.items() if value is not None})


def _optimizer(recipe: Recipe) -> Optimizer:
    if recipe.optimizer not in OPTIMIZERS:
        return _section(CustomOptimizer, recipe, **_rate(recipe), name=recipe.optimizer)
    kind = OPTIMIZERS.get(recipe.optimizer)
    return _section(kind, recipe, **({} if kind is LBFGS else _rate(recipe)))


def _rate(recipe: Recipe) -> dict[str, Any]:
    if recipe.lr == "auto":
        return {"lr": TRIAL_RATE, "lr_from_trial": True}
    return {} if recipe.lr is None else {"lr": float(recipe.lr)}


def _schedule(recipe: Recipe) -> Schedule:
    name, warm = _or(recipe.schedule, "constant"), {"warmup": _or(recipe.warmup, 0.0)}
    if name not in SCHEDULES:
        return CustomSchedule(**warm, name=name)
    return _section(SCHEDULES.get(name), recipe, SCHEDULE_PREFIX, **warm)


def _loss(recipe: Recipe) -> Loss:
    name = _or(recipe.loss, "cross_entropy")
    if name not in LOSSES:
        return _section(CustomLoss, recipe, name=name)
    kind = LOSSES.get(name)
    own = _section(kind, recipe, LOSS_PREFIX)
    shared = [field.name for field in fields(kind) if getattr(recipe, field.name, None) is not None]
    return replace(own, **{name: getattr(recipe, name) for name in shared})


def _augmentation(recipe: Recipe) -> Augmentation:
    crop = WholeImage() if recipe.crop_scale is None else ResizedCrop(recipe.crop_scale)
    return _section(Augmentation, recipe, crop=crop, transforms=tuple(filter(None, [recipe.transform])))
