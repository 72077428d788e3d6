"""Search spaces as records: which options are searched, over what, and how.

A space names options with a list of choices, or with a range of numbers:

    optimizer = ["adam", "sgd"]
    lr = { low = 1e-4, high = 1e-1, log = true }
    momentum = { low = 0.5, high = 0.99, when = { optimizer = ["sgd"] } }
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budwood.comparison.rows import Published
from budwood.config.recipe import Recipe
from budwood.errors import RecipeError, did_you_mean

SAMPLERS: Final = ("random", "tpe", "grid")
RANGE_KEYS: Final = ("low", "high", "log", "step", "when")
CHOICE_KEYS: Final = ("values", "when")


@dataclass(frozen=True)
class Axis:
    """One option that is searched: `values` to choose from, or numbers from `low` to `high`.

    Numbers are drawn evenly, on a logarithmic scale with `log`, in multiples of `step` above `low` where it is given;
    whole where `low`, `high` and `step` are. `when` holds, by option, the choices with which this one is drawn at all.
    """

    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every choice, or the two ends of the range."""
        return self.values or (self.low, self.high)

    @property
    def points(self) -> tuple[Any, ...]:
        """Every value there is; empty where there is no end of them."""
        if self.values or self.step is None:
            return self.values
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + number * self.step for number in range(count))

    @property
    def whole(self) -> bool:
        """Whether the range is of whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the option is drawn beside what has been chosen."""
        return all(chosen.get(name) in values for name, values in self.when)


Space = Mapping[str, Axis]


@dataclass(frozen=True)
class Search:
    """So many `trials` of a `space` over fixed `options`, drawn by a `sampler` from a `seed`.

    `best` and `worst` are what a source reports of its own trials.
    """

    sampler: str
    trials: int
    space: Space
    options: Mapping[str, Any]
    seed: int = 0
    best: Published | None = None
    worst: Published | None = None

    def record(self) -> dict[str, Any]:
        """What decides the trials, as plain values."""
        space = {
            name: {
                "values": axis.values,
                "low": axis.low,
                "high": axis.high,
                "log": axis.log,
                "step": axis.step,
                "when": axis.when,
            }
            for name, axis in self.space.items()
        }
        return {"sampler": self.sampler, "space": space, "options": dict(self.options), "seed": self.seed}


def parse_space(table: Mapping[str, Any], wrong: list[str]) -> dict[str, Axis]:
    """A `[search.space]` table as axes, those that others depend on first; what is wrong is added to `wrong`."""
    axes = {}
    for name, value in table.items():
        axis = _parse_axis(name, value, wrong)
        if axis is not None:
            axes[name] = axis
    for name, axis in axes.items():
        for other, _ in axis.when:
            if other not in axes or axes[other].when:
                wrong.append(
                    f"space.{name}: `when` names {other!r}, expected an option of the space that is always drawn"
                )
    return dict(sorted(axes.items(), key=lambda item: bool(item[1].when)))


def default_space(options: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a search space for what matters most of a recipe, without the options that are given.

    Where the trunk is frozen it is the head's options that are searched, over outputs that are computed once.
    """
    trained = options.get("freeze", "trunk") != "trunk" or "phases" in options or options.get("weights") == "none"
    space: dict[str, Any] = {
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


def check_space(search: Search, wrong: list[str]) -> None:
    """Every choice and end of the space, one after another, must make a recipe."""
    told: set[str] = set()
    for chosen in _list_corners(search.space):
        try:
            Recipe(**{**search.options, **chosen})
        except RecipeError as error:
            lines = error.message.partition(": ")[2].rstrip(".")
            if lines not in told:
                shown = ", ".join(f"{name}={value}" for name, value in chosen.items())
                wrong.append(f"space with {shown}: {lines}")
            told.add(lines)
    if search.sampler == "grid":
        wrong += [
            f"space.{name}: the sampler grid needs a list of values, or a step"
            for name, axis in search.space.items()
            if not axis.points
        ]


def list_grid_points(space: Space) -> list[dict[str, Any]]:
    """Every combination of the space's values, each once, in their order."""
    points: list[dict[str, Any]] = [{}]
    for name, axis in space.items():
        points = [
            {**point, name: value} if applies else point
            for point in points
            for applies in (axis.applies(point),)
            for value in (axis.points if applies else (None,))
        ]
    return points


def _list_corners(space: Space) -> Iterator[dict[str, Any]]:
    """Choices in which every value and end of each option occurs, with every value of what decides what is drawn."""
    deciding = {name for axis in space.values() for name, _ in axis.when} | ({"optimizer"} & space.keys())
    free = [name for name in space if name in deciding]
    for values in itertools.product(*(space[name].ends for name in free)):
        first = dict(zip(free, values, strict=True))
        rest = [name for name in space if name not in deciding and space[name].applies(first)]
        longest = max((len(space[name].ends) for name in rest), default=1)
        for number in range(longest):
            yield first | {name: space[name].ends[number % len(space[name].ends)] for name in rest}


def _parse_axis(name: str, value: Any, wrong: list[str]) -> Axis | None:
    where = f"space.{name}"
    if name not in Recipe.model_fields:
        wrong.append(f"{where}: there is no such option. {did_you_mean(name, Recipe.model_fields)}")
        return None
    if isinstance(value, list):
        value = {"values": value}
    if not isinstance(value, Mapping):
        wrong.append(f"{where}: expected a list of values, or {{low, high, log, step}}, found {value!r}")
        return None
    known = CHOICE_KEYS if "values" in value else RANGE_KEYS
    unknown = [key for key in value if key not in known]
    if unknown:
        wrong.append(f"{where}: there is no {unknown[0]!r}. {did_you_mean(unknown[0], known)}")
        return None
    when = value.get("when", {})
    if not isinstance(when, Mapping) or not all(isinstance(values, list) and values for values in when.values()):
        wrong.append(f"{where}: expected `when` to have a list of values for each option, found {when!r}")
        return None
    conditions = tuple((other, tuple(map(_freeze_value, values))) for other, values in when.items())
    if "values" in value:
        return _parse_choice(where, value["values"], conditions, wrong)
    return _parse_range(where, value, conditions, wrong)


def _parse_choice(
    where: str, values: Any, when: tuple[tuple[str, tuple[Any, ...]], ...], wrong: list[str]
) -> Axis | None:
    if not isinstance(values, list) or not values:
        wrong.append(f"{where}: expected a list with at least one value, found {values!r}")
        return None
    return Axis(values=tuple(map(_freeze_value, values)), when=when)


def _parse_range(
    where: str, value: Mapping[str, Any], when: tuple[tuple[str, tuple[Any, ...]], ...], wrong: list[str]
) -> Axis | None:
    low: Any = value.get("low")
    high: Any = value.get("high")
    step, log = value.get("step"), value.get("log", False)
    numbers = [low, high, *([step] if "step" in value else [])]
    if not all(_is_number(number) for number in numbers) or not isinstance(log, bool):
        wrong.append(f"{where}: expected numbers low and high (and step), log true or false, found {dict(value)!r}")
        return None
    if not low < high or (step is not None and step <= 0) or (log and (low <= 0 or step is not None)):
        wrong.append(
            f"{where}: expected low < high, step > 0, and with log a low above 0 and no step, found {dict(value)!r}"
        )
        return None
    return Axis(low=low, high=high, log=log, step=step, when=when)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _freeze_value(value: Any) -> Any:
    """A value of TOML with tuples for lists, so that equal ones compare and hash."""
    return tuple(map(_freeze_value, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
