"""JSON as the standard has it: a number that is not defined is null, and a file with NaN is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn


def encode_json(value: object, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """Write plain values as JSON.

    Args:
        value: Plain values, mappings and records; a number that is not finite becomes null.
        indent: Spaces for each level; None: all in one line.
        ensure_ascii: Whether other characters than those of ASCII are escaped.

    Returns:
        The text, which every reader of JSON takes.

    Raises:
        TypeError: A value is of a type that JSON does not have.
    """
    plain = replace_undefined(value)
    return json.dumps(plain, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False, default=_list_fields)


def decode_json(text: str | bytes) -> Any:
    """Read JSON.

    Args:
        text: The text.

    Returns:
        Plain values.

    Raises:
        ValueError: The text is no JSON, or has NaN or an infinite number, which JSON does not.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_read_finite)


def replace_undefined(value: object) -> Any:
    """Return plain values with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: replace_undefined(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [replace_undefined(one) for one in value]
    return value


def _list_fields(record: Any) -> Any:
    """The fields of a record of pydantic's."""
    return replace_undefined(dict(record))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _read_finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)
