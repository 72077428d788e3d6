"""The learning-rate schedules: the options of each, with the values that stand in, and what carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from budwood.config.registry import Registry

Per = Literal["epoch", "step"]


@dataclass(frozen=True)
class Schedule:
    """The options of every schedule.

    Attributes:
        warmup: Epochs in which the rate grows to the schedule's own value.
        name: Name in recipes.
    """

    function: ClassVar[str] = ""  # from the options and a `Position` to a factor on the rate, as `module:name`
    warmup: float
    name: str = ""


@dataclass(frozen=True)
class Constant(Schedule):
    """A learning rate that stays the same.

    Attributes:
        name: Name in recipes.
    """

    function = "budwood.training.schedules:stay_constant"
    name: Literal["constant"] = "constant"


@dataclass(frozen=True)
class StepDecay(Schedule):
    """A learning rate that is multiplied by a factor at regular intervals.

    Attributes:
        every: Epochs between changes.
        factor: Factor of a change.
        by: It changes between epochs.
        name: Name in recipes.
    """

    function = "budwood.training.schedules:decay_at_intervals"
    every: int = 10
    factor: float = 0.1
    by: Literal["epoch"] = "epoch"
    name: Literal["step"] = "step"


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """A learning rate that is multiplied by a factor at given epochs.

    Attributes:
        at: Epochs of the changes.
        factor: Factor of a change.
        by: It changes between epochs.
        name: Name in recipes.
    """

    function = "budwood.training.schedules:decay_at_epochs"
    at: tuple[int, ...]
    factor: float = 0.1
    by: Literal["epoch"] = "epoch"
    name: Literal["multistep"] = "multistep"


@dataclass(frozen=True)
class Cosine(Schedule):
    """A learning rate that falls to 0 along a cosine.

    Attributes:
        t_max: Epochs until the rate is 0; end: all of them.
        by: Whether the rate changes every epoch or every step.
        name: Name in recipes.
    """

    function = "budwood.training.schedules:follow_cosine"
    t_max: float | Literal["end"] = "end"
    by: Per = "step"
    name: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class OneCycle(Schedule):
    """A learning rate that rises and falls in one cycle over the whole training (Smith and Topin 2019).

    Attributes:
        name: Name in recipes.
    """

    function = "budwood.training.schedules:follow_one_cycle"
    name: Literal["onecycle"] = "onecycle"


@dataclass(frozen=True)
class Plateau(Schedule):
    """A learning rate that is multiplied by a factor whenever the validation loss stops falling.

    Attributes:
        patience: Epochs without a lower validation loss that are tolerated before a change.
        factor: Factor of a change.
        name: Name in recipes.
    """

    function = "budwood.training.schedules:decay_on_plateaus"
    patience: int = 3
    factor: float = 0.1
    name: Literal["plateau"] = "plateau"


@dataclass(frozen=True)
class CustomSchedule(Schedule):
    """A user's own schedule: `name` is a function from the share of training done (0 to 1) to a factor."""

    function = "budwood.training.schedules:follow_own"


SCHEDULES: Final[Registry[type[Schedule]]] = Registry(
    "schedule", {each.name: each for each in (Constant, StepDecay, MultiStep, Cosine, OneCycle, Plateau)}
)
BETWEEN_EPOCHS: Final = (StepDecay.name, MultiStep.name)  # those that change only there
