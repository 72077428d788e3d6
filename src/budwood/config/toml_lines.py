"""Where the tables and keys of a TOML text stand, which `tomllib` does not say: for messages about them.

A text is cut into its statements, and each is read by `tomllib` itself, so no grammar is kept here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

Place = tuple[str | int, ...]  # keys, and numbers from 0 in lists: ("rows", 2, "lr")


def find_lines(text: str) -> dict[Place, int]:
    """Find the lines of all tables and keys of a TOML text.

    Args:
        text: A valid TOML text.

    Returns:
        Line numbers, from 1, by place.
    """
    found: dict[Place, int] = {}
    sizes: dict[Place, int] = {}  # of the lists of tables so far
    table: Place = ()
    statement, first = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        first = first if statement else number
        statement += f"{line}\n"
        try:
            value = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it goes on in the next line
        is_header = statement.lstrip().startswith("[")
        table = _enter_table(value, sizes) if is_header else table
        for place in [table] if is_header else [(*table, name) for name in value]:
            found.setdefault(place, first)
        statement = ""
    return found


def find_line(place: Place, lines: Mapping[Place, int]) -> int | None:
    """Find the line of a place, or of the nearest table around it.

    Args:
        place: The place; the number of a list's only table may stand in it though the text has a plain table.
        lines: Line numbers by place, as `find_lines` returns them.

    Returns:
        The line number, from 1; None where neither is known.
    """
    for size in range(len(place), 0, -1):
        for known in (place[:size], place[:1] + place[2:size]):
            if known in lines:
                return lines[known]
    return None


def _enter_table(header: Mapping[str, object], sizes: dict[Place, int]) -> Place:
    """The place of a table, from its header read alone; `sizes` counts the lists that it is in."""
    place: Place = ()
    inner: object = header
    while isinstance(inner, Mapping) and inner:
        ((name, inner),) = inner.items()
        place = (*place, name)
        if isinstance(inner, list):
            sizes[place] = sizes.get(place, 0) + 1
        if place in sizes:
            place = (*place, sizes[place] - 1)
    return place
