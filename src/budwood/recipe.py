"""Recipe: everything that decides one experiment, frozen, validated, one TOML table.

Options that the chosen optimizer does not use are refused, not ignored; all mistakes are told at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, field_validator

from budwood.errors import RecipeError, did_you_mean

Resize = Literal["crop", "pad", "squash"]
Optimizer = Literal["lbfgs", "adam", "sgd"]

# What each optimizer uses, and the value that stands in when none is given.
OPTIMIZER_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lbfgs": {"regularisation": "auto"},
    "adam": {"epochs": 10, "batch": 64, "lr": 1e-3, "weight_decay": 0.0, "seed": 0},
    "sgd": {"epochs": 10, "batch": 64, "lr": 1e-2, "momentum": 0.9, "weight_decay": 0.0, "seed": 0},
}


class Recipe(BaseModel):
    """How a classifier is made. What is not given is filled in on construction; values are final.

    Raises one `RecipeError` that names every mistake.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: str = Field("tf_efficientnet_lite0", description="network whose trunk is used")
    weights: Literal["imagenet"] = Field("imagenet", description="where the trunk's weights come from")
    freeze: Literal["trunk"] = Field("trunk", description="what is not trained")
    head: Literal["linear"] = Field("linear", description="what is put on the trunk and trained")
    size: int = Field(224, ge=32, le=1024, description="side of the square that the network sees, pixels")
    resize: Resize = Field("crop", description="how an image becomes a square")
    optimizer: Optimizer = Field("lbfgs", description="lbfgs solves the head to convergence; adam and sgd take epochs")
    regularisation: Literal["auto"] | NonNegativeFloat | None = Field(
        None, description="lbfgs: strength of the L2 penalty, or auto: chosen on validation"
    )
    epochs: int | None = Field(None, ge=1, description="adam, sgd: passes over the training images (default 10)")
    batch: int | None = Field(None, ge=1, description="adam, sgd: images a step (default 64)")
    lr: float | None = Field(None, gt=0, description="adam, sgd: learning rate (default 0.001, 0.01)")
    momentum: float | None = Field(None, ge=0, description="sgd: momentum, under 1 (default 0.9)")
    weight_decay: float | None = Field(None, ge=0, description="adam, sgd: L2 penalty in the gradient (default 0)")
    seed: int | None = Field(None, ge=0, description="adam, sgd: seed of start and order (default 0)")

    def __init__(self, **options: Any) -> None:
        refused = _refused(options)
        applied = {name: value for name, value in options.items() if name not in refused}
        try:
            super().__init__(**_completed(applied))
        except ValidationError as error:
            raise _mistakes([*refused.values(), *_lines(error)], _unknown(error)) from error
        if refused:
            raise _mistakes(list(refused.values()), [])

    @field_validator("momentum")
    @classmethod
    def _converges(cls, momentum: float | None) -> float | None:
        if momentum is not None and momentum >= 1:
            raise ValueError("expected under 1, or the steps grow without bound")
        return momentum

    def table(self) -> dict[str, Any]:
        """The options that apply, as plain values."""
        return {name: value for name, value in self.model_dump().items() if value is not None}

    def toml(self) -> str:
        """The recipe as a TOML table that `load_recipe` reads back to an equal recipe."""
        return "".join(f"{name} = {_toml_value(value)}\n" for name, value in self.table().items())


def load_recipe(path: Path) -> dict[str, Any]:
    """The options in a TOML file; raises `RecipeError` when it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe file.", "Check the path given to --recipe.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as TOML ({error}).", "Write one `key = value` a line.") from error


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` strings as options; a value is read as TOML, else as a plain string."""
    options = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise RecipeError(f"-s {setting}: expected KEY=VALUE.", "For example: -s optimizer=adam -s lr=0.001")
        options[key.strip()] = _parsed(text.strip())
    return options


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _as_number(value: Any) -> Any:
    """A number where a flag that also takes words holds one; everything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _toml_value(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _refused(options: Mapping[str, Any]) -> dict[str, str]:
    """The options that the optimizer does not use, each with the sentence that refuses it."""
    optimizer = options.get("optimizer", "lbfgs")
    used = OPTIMIZER_OPTIONS.get(optimizer) if isinstance(optimizer, str) else None
    if used is None:
        return {}
    every = {name for names in OPTIMIZER_OPTIONS.values() for name in names}
    return {
        name: f"{name}: optimizer {optimizer!r} does not use it; it uses {', '.join(sorted(used))}"
        for name in sorted(every - used.keys())
        if options.get(name) is not None
    }


def _completed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the optimizer's own values where none is given."""
    optimizer = options.get("optimizer", "lbfgs")
    stand_ins = OPTIMIZER_OPTIONS.get(optimizer, {}) if isinstance(optimizer, str) else {}
    given = {name: value for name, value in options.items() if value is not None}
    completed = {**stand_ins, **given}
    if "regularisation" in completed:
        completed["regularisation"] = _as_number(completed["regularisation"])
    return completed


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        name = str(item["loc"][0])
        if item["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such option")
        else:
            expected = str(item["msg"]).removeprefix("Value error, ")
            lines.append(f"{name}: {expected[0].lower()}{expected[1:]}, found {item['input']!r}")
    return lines


def _unknown(error: ValidationError) -> list[str]:
    return [str(item["loc"][0]) for item in error.errors() if item["type"] == "extra_forbidden"]


def _mistakes(lines: Sequence[str], unknown: Sequence[str]) -> RecipeError:
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    hint = " ".join(did_you_mean(name, Recipe.model_fields) for name in unknown)
    return RecipeError(
        f"The recipe has {count}: {'; '.join(lines)}.",
        hint or "`budwood train --help` lists every option and its values.",
    )
