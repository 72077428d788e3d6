"""Short notations of options: what a flag or a person writes, as the value that TOML would give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from budwood.config.augmentations import OwnAugmentation
from budwood.config.options import DURATION
from budwood.config.own_objects import is_object_name, name_object
from budwood.config.toml import parse_value

_LISTS: Final = ("kernels", "strides", "pools", "widths", "fc", "schedule_at")
OWN: Final = ("model", "transform", "loss", "optimizer", "schedule", "select", "metrics", "callbacks")  # may be objects
_SECONDS: Final[Mapping[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?) *([hms]?)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern} *)+")


def normalize_value(name: str, value: object) -> object:
    """Convert a value to what TOML would give, where a flag or a short notation gave a string or one number for many.

    Args:
        name: Name of the option.
        value: Its value, as it was given.

    Returns:
        The value; not validated.
    """
    value = _name_objects(value) if name in OWN else value
    if name in ("regularisation", "lr", "wise_ft") and isinstance(value, str):
        return _parse_number(value)
    if name == DURATION and isinstance(value, str):
        return parse_duration(value)
    if name in ("freeze", "model", "weights", "cut", "head"):
        return tuple(value) if isinstance(value, list) else value
    if name == "taps" and isinstance(value, str):
        return parse_value(value) if value.strip().startswith("[") else [each.strip() for each in value.split(",")]
    if name in (*_LISTS, "blocks") and isinstance(value, str):
        depth = "[[" if name == "blocks" else "["
        value = parse_value(value if value.strip().startswith(depth) else f"[{value}]")
    if name in _LISTS and isinstance(value, int):
        return (value,)
    if name == "phases" and isinstance(value, str):
        return parse_value(value)
    if name in ("transform", "callbacks", "metrics") and isinstance(value, str) and not is_object_name(value):
        if value.strip().startswith(("[", "{")):
            return parse_value(value)
        if name != "transform":
            return [each.strip() for each in value.split(",")]
        return [each.strip() for each in value.split(",")] if "," in value else value
    if name in ("callbacks", "metrics") and isinstance(value, str):
        return (value,)
    return value


def _name_objects(value: object) -> object:
    """A user's own by name, where objects are given: one, several, or tables of such a `name` and options."""
    if isinstance(value, OwnAugmentation):
        return value
    if isinstance(value, list | tuple):
        return type(value)(_name_objects(each) for each in value)
    if isinstance(value, Mapping) and "name" in value:
        return {**value, "name": name_object(value["name"])}
    return name_object(value)


def parse_duration(text: str) -> object:
    """Parse a duration.

    Args:
        text: A duration such as 90s, 10m, 1.5h or 1h30m.

    Returns:
        The seconds; everything else as it is.
    """
    if text and _DURATION.fullmatch(text.strip()):
        return sum(float(count) * _SECONDS[unit or "s"] for count, unit in _PART.findall(text))
    return text


def write_duration(seconds: float) -> str:
    """Write a duration as `parse_duration` reads it.

    Args:
        seconds: The seconds; fewer than 1 are written as 1.

    Returns:
        Whole hours, minutes or seconds, such as 2h, 20m or 90s, whichever is the largest that fits.
    """
    whole = max(1, round(seconds))
    unit, size = next((unit, int(size)) for unit, size in _SECONDS.items() if whole % size == 0)
    return f"{whole // size}{unit}"


def _parse_number(value: str) -> object:
    """A number where a flag that also takes words holds one; everything else as it is."""
    try:
        return float(value)
    except ValueError:
        return value
