"""Search spaces: which options are searched, over what, and how.

A space names options with a list of choices, or with a range of numbers:

    optimizer = ["adam", "sgd"]
    lr = { low = 1e-4, high = 1e-1, log = true }
    momentum = { low = 0.5, high = 0.99, when = { optimizer = ["sgd"] } }
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    model_validator,
)

from budwood.comparison.published import Published
from budwood.config.file_checks import FileModel

Sampler = Literal["random", "tpe", "grid"]


def _freeze(value: object) -> object:
    """A value of TOML with tuples for lists, so that equal ones compare and hash."""
    return tuple(map(_freeze, value)) if isinstance(value, list | tuple) else value


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {value!r}")
    return value  # whole ones stay whole


Choices = Annotated[tuple[Any, ...], BeforeValidator(_freeze), Field(min_length=1)]
Number = Annotated[float, PlainValidator(_check_number)]


class _Axis(FileModel):
    when: Mapping[str, Choices] = Field({}, description="a list of values for each option")

    def applies(self, options: Mapping[str, Any]) -> bool:
        """Whether the option is drawn beside what has been chosen."""
        return all(options.get(name) in values for name, values in self.when.items())


class ChoiceAxis(_Axis):
    """An option of a search that takes one of several values.

    Attributes:
        values: The values, at least one; in a file a plain list.
    """

    values: Choices = Field(description="a list of values")

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, value: object) -> object:
        return {"values": value} if isinstance(value, list | tuple) else value

    @property
    def ends(self) -> tuple[Any, ...]:
        """Return all values."""
        return self.values

    points = ends


class RangeAxis(_Axis):
    """An option of a search that takes a number in a range.

    Numbers are drawn evenly; they are whole where `low`, `high` and `step` are.

    Attributes:
        low: Lowest value; above 0 with `log`.
        high: Highest value, above `low`.
        log: Whether numbers are drawn evenly on a logarithmic scale.
        step: Distance of the values from `low` on, above 0; None: any number. Not with `log`.
    """

    low: Number = Field(description="a number")
    high: Number = Field(description="a number")
    log: bool = Field(False, description="true or false")
    step: Number | None = Field(None, description="a number")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        step_fits = self.step is None or (self.step > 0 and not self.log)
        if not self.low < self.high or not step_fits or (self.log and self.low <= 0):
            values = ", ".join(f"{name} {getattr(self, name)}" for name in ("low", "high", "step", "log"))
            raise ValueError(f"expected low < high, step > 0, and with log a low above 0 and no step, found {values}")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Return the two ends of the range."""
        return self.low, self.high

    @property
    def points(self) -> tuple[float, ...]:
        """Return every value of the range; empty without a step."""
        if self.step is None:
            return ()
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + number * self.step for number in range(count))

    @property
    def whole(self) -> bool:
        """Return whether the values are whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))


def _tag_axis(value: object) -> str:
    is_choice = isinstance(value, list | tuple | ChoiceAxis) or (isinstance(value, Mapping) and "values" in value)
    return ChoiceAxis.__name__ if is_choice else RangeAxis.__name__


Axis = ChoiceAxis | RangeAxis
AxisTable = Annotated[
    Annotated[ChoiceAxis, Tag(ChoiceAxis.__name__)] | Annotated[RangeAxis, Tag(RangeAxis.__name__)],
    Discriminator(_tag_axis),
]
Space = Mapping[str, Axis]


@dataclass(frozen=True)
class Search:
    """A search for a better recipe.

    Attributes:
        sampler: How trials are drawn: random, tpe or grid.
        trials: Number of trials at most.
        space: What is searched, by option.
        options: The options that all trials share.
        seed: Seed of the trials.
        best: What a source reports of its own best trial.
        worst: What a source reports of its own worst trial.
        stand_in: What stands in for what the source had; empty: nothing.
    """

    sampler: str
    trials: int
    space: Space
    options: Mapping[str, object]
    seed: int = 0
    best: Published | None = None
    worst: Published | None = None
    stand_in: str = ""

    def record(self) -> dict[str, Any]:
        """Return what decides the trials, as plain values.

        The names of stored trials depend on it, so its form must not change.

        Returns:
            Sampler, space, options and seed; not the number of trials.
        """
        blank = {"values": (), "low": 0.0, "high": 0.0, "log": False, "step": None}
        space = {
            name: {**blank, **axis.model_dump(exclude={"when"}), "when": tuple(axis.when.items())}
            for name, axis in self.space.items()
        }
        return {"sampler": self.sampler, "space": space, "options": dict(self.options), "seed": self.seed}


def fix_options(space: Space, fixed: Mapping[str, object]) -> dict[str, Axis]:
    """Take options out of a space that have a fixed value, and what applies only with another value of theirs.

    Args:
        space: The space.
        fixed: The fixed values, by option.

    Returns:
        The rest of the space; what applies with the fixed values no longer depends on them.
    """
    values = {name: _freeze(value) for name, value in fixed.items()}
    return {
        name: axis.model_copy(
            update={"when": {other: needed for other, needed in axis.when.items() if other not in fixed}}
        )
        for name, axis in space.items()
        if name not in fixed and all(values[other] in needed for other, needed in axis.when.items() if other in fixed)
    }


def order_space(space: Space) -> dict[str, Axis]:
    """Order a space so that options on which others depend come first.

    Args:
        space: The space.

    Returns:
        The ordered space.
    """
    return dict(sorted(space.items(), key=lambda item: bool(item[1].when)))


def default_space(options: Mapping[str, object]) -> dict[str, object]:
    """Make the default search space of a recipe, without the options that are given.

    Where the trunk is frozen, options of the head are searched, over features that are computed once.

    Args:
        options: The options that are given, by name.

    Returns:
        The space as a table of a study file.
    """
    trained = options.get("freeze", "trunk") != "trunk" or "phases" in options or options.get("weights") == "none"
    space: dict[str, object] = {
        "optimizer": ["adam", "adamw", "sgd"] if trained else ["adam", "sgd"],
        "lr": {"low": 1e-5, "high": 1e-1, "log": True} if trained else {"low": 1e-4, "high": 1.0, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "dropout": [0.0, 0.25, 0.5],
        "batch": [16, 32, 64] if trained else [32, 64, 128],
    }
    if options.get("optimizer", "sgd") == "sgd":
        when = {} if "optimizer" in options else {"when": {"optimizer": ["sgd"]}}
        space["momentum"] = {"low": 0.5, "high": 0.99, **when}
    if not trained:
        space["head"] = ["linear", "mlp:256"]
    return {name: value for name, value in space.items() if name not in options}


def list_grid_points(space: Space) -> list[dict[str, Any]]:
    """List every combination of the values of a space, each once, in the order of the values.

    Args:
        space: The space; each range has a step.

    Returns:
        Options by name, one mapping a combination.
    """
    points: list[dict[str, Any]] = [{}]
    for name, axis in space.items():
        points = [
            {**point, name: value} if applies else point
            for point in points
            for applies in (axis.applies(point),)
            for value in (axis.points if applies else (None,))
        ]
    return points


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Iterate over choices in which every value and both ends of every option occur.

    They are combined with every value of the options on which others depend, and of the optimizer.

    Args:
        space: The space, ordered by `order_space`.

    Yields:
        Options by name.
    """
    deciding = {name for axis in space.values() for name in axis.when} | ({"optimizer"} & space.keys())
    free = [name for name in space if name in deciding]
    for values in itertools.product(*(space[name].ends for name in free)):
        first = dict(zip(free, values, strict=True))
        rest = [name for name in space if name not in deciding and space[name].applies(first)]
        longest = max((len(space[name].ends) for name in rest), default=1)
        for number in range(longest):
            yield first | {name: space[name].ends[number % len(space[name].ends)] for name in rest}
