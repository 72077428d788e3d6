"""TOML files: read with one message where they cannot be, and written."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from budwood.errors import BudwoodError


@dataclass(frozen=True)
class TomlFile:
    """A TOML file that was read.

    Attributes:
        text: The text of the file.
        table: The table that it holds.
    """

    text: str
    table: dict[str, Any]


def read_toml(path: Path, kind: str, error: type[BudwoodError], *, missing: str, malformed: str) -> TomlFile:
    """Read a TOML file.

    Args:
        path: The file.
        kind: What it holds, in a word for the message: "recipe", "study".
        error: The class of the error that is raised.
        missing: The hint when there is no such file.
        malformed: The hint when it is not TOML.

    Returns:
        Its text and its table.

    Raises:
        BudwoodError: One of class `error`, when the file is missing, cannot be read or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return TomlFile(text, tomllib.loads(text))
    except FileNotFoundError as problem:
        raise error(f"{path}: no such {kind} file.", missing) from problem
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise error(f"{path}: cannot be read as TOML ({problem}).", malformed) from problem


def parse_value(text: str) -> Any:
    """Parse the text of one value, such as `[3, 5]`, as TOML.

    Args:
        text: The text.

    Returns:
        The value; the text itself where it is not TOML.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def write_table(table: Mapping[str, Any]) -> str:
    """Write a table as the text of a TOML file.

    Args:
        table: Plain values, lists or tuples of them, and tables; no None.

    Returns:
        The text, which `read_toml` reads to an equal table, except that tuples become lists.
    """
    return tomli_w.dumps(table)
