"""Checks of files that people write against pydantic models.

Every mistake is reported at once, with its line, its place and what to write instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from budwood.config.toml_lines import Place, find_line, find_lines
from budwood.errors import did_you_mean

HIDDEN: Final = "options as given"  # the alias of a field that is no key of the file
_LISTED: Final = 20  # names that a message lists at most


class FileModel(BaseModel):
    """A table of a file that people write: unknown keys are refused, and no value is converted.

    The description of a field says what values it expects; messages use it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def known_keys(cls) -> set[str]:
        """Return the keys that the table may have.

        Returns:
            The keys, as written in files.
        """
        return {name for name, info in cls.model_fields.items() if info.alias != HIDDEN}


@dataclass(frozen=True)
class Mistake:
    """What is wrong at a place of a file; of equal ones only the first is told, with the `case` in which it was met."""

    place: Place
    message: str
    case: str = field(default="", compare=False)


def describe_errors(error: ValidationError, model: type[FileModel]) -> list[Mistake]:
    """Describe validation errors by what the fields of a model expect.

    Args:
        error: The errors that pydantic found.
        model: The model of the whole table.

    Returns:
        One mistake for each error.
    """
    return [_describe_error(item, model) for item in error.errors()]


def suggest(name: str, known: Collection[str]) -> str:
    """Suggest the known name that was probably meant, and list the others if they are few.

    Args:
        name: The unknown name.
        known: The known names.

    Returns:
        A sentence or two for a message.
    """
    told = did_you_mean(name, known)
    if len(known) <= _LISTED:
        return told
    return told.partition("Valid: ")[0].strip() or "`budwood train --help-all` lists the options."


def leave_out(value: Any, name: str | int, *rest: str | int) -> Any:
    """Copy nested tables and lists without the part at one place.

    Args:
        value: A table or list.
        name: The first key, or number from 0, of the place.
        *rest: The other keys and numbers of the place.

    Returns:
        The copy; other parts are shared with `value`.
    """
    if isinstance(value, list):
        return [leave_out(part, *rest) if n == name else part for n, part in enumerate(value)]
    inner = {name: leave_out(value[name], *rest)} if rest and name in value else {}
    return {key: part for key, part in value.items() if key != name} | inner


def tell_mistakes(mistakes: Sequence[Mistake], table: Mapping[str, Any], text: str) -> str:
    """Format the mistakes of a table, in the order of their lines.

    Args:
        mistakes: The mistakes, at least one.
        table: The table, from which labels are taken.
        text: The TOML text that it was read from; may be empty, then no lines are given.

    Returns:
        Their number, and each mistake with its line and place.
    """
    lines = find_lines(text)
    numbered = sorted(((find_line(one.place, lines) or 0, one) for one in mistakes), key=lambda item: item[0])
    told = [f"line {line}: " * bool(line) + _show_mistake(one, table).rstrip(".") for line, one in numbered]
    whole = f"1 mistake: {told[0]}" if len(told) == 1 else f"{len(told)} mistakes:\n  " + "\n  ".join(told)
    return whole if whole.endswith("?") else f"{whole}."


def _describe_error(error: ErrorDetails, model: type[FileModel]) -> Mistake:
    models, expected, values = [model], "", tuple[str, ...]()
    place: Place = ()
    for part in error["loc"]:
        tagged = [one for one in models if one.__name__ == part]  # which member of a union was meant
        field = next((info for name, info in _fields(models) if name == part), None)
        if field and not tagged:
            expected, values = field.description or "", _list_words(field.annotation)
        models = tagged or (_models_in(field.annotation) if field else models)
        place += () if tagged or part == HIDDEN else (part,)
    found = list(error["input"]) if isinstance(error["input"], tuple) else error["input"]
    match error["type"]:
        case "extra_forbidden":
            message = f"unknown key. {suggest(str(place[-1]), models[0].known_keys())}"
        case "literal_error":
            message = f"found {found!r}. {did_you_mean(str(found), values)}"
        case "missing":
            message = f"is missing, expected {expected}"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
        case _:
            message = f"expected {expected or error['msg']}, found {found!r}"
    return Mistake(place, message)


def _fields(models: Sequence[type[FileModel]]) -> list[tuple[str, Any]]:
    """The fields of the first of the models, by their names in files."""
    return [(info.alias or name, info) for one in models[:1] for name, info in one.model_fields.items()]


def _list_words(annotation: object) -> tuple[str, ...]:
    """The words that a type allows, also where it may be left out."""
    parts = get_args(annotation)
    return tuple(part for one in parts for part in ((one,) if isinstance(one, str) else _list_words(one)))


def _models_in(annotation: object) -> list[type[FileModel]]:
    """The models in a type, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, FileModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _show_mistake(mistake: Mistake, table: Mapping[str, Any]) -> str:
    """A mistake with its place in words, such as `rows 3 (fast): lr`."""
    words, rest = "".join(map(str, mistake.place[:1])), mistake.place[1:]
    tables = table.get(words)
    if rest and isinstance(rest[0], int) and isinstance(tables, list):
        label = tables[rest[0]].get("label") if isinstance(tables[rest[0]], dict) else None
        words += (f" {rest[0] + 1}" if len(tables) > 1 else "") + (f" ({label})" if label else "")
        rest = rest[1:]
    path = "".join(f" {part + 1}" if isinstance(part, int) else f".{part}" for part in rest).lstrip(".")
    case = f" ({mistake.case})" if mistake.case and f"({mistake.case})" not in words else ""
    return ": ".join(filter(None, (words, path, mistake.message.rstrip(".")))) + case
