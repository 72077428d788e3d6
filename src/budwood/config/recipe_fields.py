"""The kinds of values that options of a recipe take, checked when they are given, and the phases of a training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from budwood.config.augmentations import OwnAugmentation, find_option, read_own_augmentations
from budwood.config.losses import LOSSES
from budwood.config.metric_registry import SELECTABLE, is_metric
from budwood.config.optimizers import OPTIMIZERS
from budwood.config.options import NameOf
from budwood.config.own_objects import ObjectName
from budwood.config.registry import is_entry_point
from budwood.config.schedules import SCHEDULES


def check_selection(name: str) -> str:
    """Check a value of the option `select`.

    Args:
        name: A metric that may select, or `package.module:name`.

    Returns:
        The name.

    Raises:
        ValueError: It is neither.
    """
    if not is_metric(name, SELECTABLE):
        raise ValueError(f"expected one of {', '.join(SELECTABLE)}, or package.module:name")
    return name


def keep_object(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Keep the name of an object as it is, with the object; any other value is read.

    Args:
        value: The value as it was given.
        read: What reads it.

    Returns:
        The value.
    """
    return value if isinstance(value, ObjectName) else read(value)


def check_own(name: str) -> str:
    """Check a name that can only be of the user's own code.

    Args:
        name: `package.module:name`.

    Returns:
        The name.

    Raises:
        ValueError: It is something else.
    """
    if not is_entry_point(name):
        raise ValueError("expected your own as package.module:name")
    return name


def read_conv_norm(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read a value of the option `conv_norm`.

    Args:
        value: The value as it was given.
        read: What reads it.

    Returns:
        The value.

    Raises:
        ValueError: It is none of those that there are.
    """
    try:
        return read(value)
    except ValidationError as error:
        raise ValueError("expected true, false or between") from error


def refuse_words(value: object) -> object:
    """Refuse a duration that is none, as only what `parse_duration` understands has become a number.

    Args:
        value: The value of the option `time`.

    Returns:
        The value.

    Raises:
        ValueError: It is a string, and no number.
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError as error:
        raise ValueError("expected seconds, or a duration such as 90s, 10m or 1.5h") from error


Seconds = Annotated[float, BeforeValidator(refuse_words)]
Own = WrapValidator(keep_object)
ModelName = Annotated[str, Own]
OwnName = Annotated[str, AfterValidator(check_own), Own]
Selection = Annotated[str, AfterValidator(check_selection), Own]
Width = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
OptimizerName = Annotated[str, AfterValidator(NameOf(OPTIMIZERS.entries)), Own]
ScheduleName = Annotated[str, AfterValidator(NameOf(SCHEDULES.entries)), Own]
LossName = Annotated[str, AfterValidator(NameOf(LOSSES.entries)), Own]
OwnAugmentations = Annotated[str | tuple[OwnAugmentation, ...], Own, BeforeValidator(read_own_augmentations)]
ConvNorm = Annotated[bool | Literal["between"], WrapValidator(read_conv_norm)]


def describe_augmentation(name: str) -> Any:
    """Make the field of an augmentation's option, with the range and the words of its entry.

    Args:
        name: Name of the option.

    Returns:
        The field.
    """
    option = find_option(name)
    return Field(None, description=option.words, ge=option.ge, gt=option.gt, le=option.le, lt=option.lt)


class Phase(BaseModel):
    """A part of training with its own frozen stages, length and learning rate.

    Attributes:
        freeze: What is frozen, as in a recipe.
        epochs: Number of epochs, at least 1.
        lr: Learning rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    freeze: str | tuple[str, ...]
    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)
