"""How names, numbers and tables are written for people."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final
from unicodedata import east_asian_width

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is computed by spreadsheets
TEXT: Final = "'"  # before such a cell: it is text
NARROWEST: Final = 6  # columns of a terminal that a column of a table has at least
_JOINERS: Final = "\u200c\u200d"  # unprintable by Unicode's letter, but part of words and of emoji


def show_unprintable(name: str) -> str:
    """Make line breaks and other unprintable characters of a name visible.

    Joiners (U+200C and U+200D) stay as they are: Unicode calls them unprintable, but words and emoji contain them.

    Args:
        name: Any text, for example a file name.

    Returns:
        The name with unprintable characters written as escape sequences.
    """
    return "".join(
        char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode() for char in name
    )


def quote_path(path: str | PurePath) -> str:
    """Quote a path as one word of a shell.

    Args:
        path: The path.

    Returns:
        The word; a path with unprintable characters in the shell's own notation for them.
    """
    path = str(path)
    if show_unprintable(path) == path:
        return shlex.quote(path)
    return "$'" + show_unprintable(path.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def escape_cell(text: str) -> str:
    """Escape a text so that spreadsheets do not take the cell for a formula.

    Args:
        text: Content of the cell.

    Returns:
        The text, with an apostrophe before it if it begins like a formula.
    """
    return f"{TEXT}{text}" if text.startswith(FORMULA) else text


def format_csv(rows: Iterable[Sequence[object]]) -> str:
    """Write a table as CSV that every program reads.

    Texts that begin like a formula are escaped. Bytes of file names that are no UTF-8 are written as escape sequences.

    Args:
        rows: The rows, the header first; None is an empty cell.

    Returns:
        The lines, which can be encoded as UTF-8.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([escape_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue().encode("utf-8", "backslashreplace").decode()


def count_columns(text: str) -> int:
    """Count the terminal columns that a text takes.

    Args:
        text: One line of text.

    Returns:
        The number of columns; wide East Asian characters count as two.
    """
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def shorten(text: str, most: int) -> str:
    """Cut a text to a number of terminal columns.

    Args:
        text: One line of text.
        most: Largest number of columns, at least 1.

    Returns:
        The text itself if it fits, else its beginning with an ellipsis at the end.
    """
    if count_columns(text) <= most:
        return text
    while text and count_columns(text) > most - 1:
        text = text[:-1]
    return f"{text}…"


def format_seconds(seconds: float) -> str:
    """Write a duration in seconds, minutes or hours, whichever suits its size.

    Args:
        seconds: Duration in seconds, 0 or more.

    Returns:
        The number with its unit: s below 100 seconds, min below 100 minutes, else h.
    """
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a number and its noun in the singular or the plural.

    Args:
        count: How many there are.
        noun: The singular of the noun.
        plural: The plural, where it is not the singular and an s.

    Returns:
        For example "1 file" or "1,234 files".
    """
    return f"1 {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Write the first names of a list, and how many more there are.

    Args:
        names: What is listed.
        most: The most names that are written before "and 2 more"; a single one more is written out.
        separator: What stands between two names.

    Returns:
        For example "a.png, b.png and 190 more".
    """
    more = len(names) - most
    if more < 2:
        return separator.join(names)
    return f"{separator.join(names[:most])}{separator.rstrip() if separator.strip() != ',' else ''} and {more:,} more"


def format_table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Align rows of text in columns, with a line under the first row.

    Args:
        rows: Cells of each row, the header first; at least one row, all of equal length.
        right: Numbers of the columns, from 0, that are aligned to the right.

    Returns:
        The table as lines joined by line breaks, without one at the end.
    """
    widths = [max(count_columns(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            _pad_cell(cell, width, column in right)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def fit_table(
    rows: Sequence[Sequence[str]],
    right: Sequence[int],
    width: int | None,
    kept: Sequence[int] = (0,),
    *,
    join: bool = True,
) -> str:
    """Align rows of text in columns that a terminal has room for.

    A column that says the same of all rows can be told in a line below. Cells that are too long go on in the next line,
    and where that is not enough the last columns are left out, which is told, too.

    Args:
        rows: Cells of each row, the header first; at least one row, all of equal length.
        right: Numbers of the columns, from 0, that are aligned to the right.
        width: Columns of the terminal; None: as many as it takes.
        kept: Numbers of the columns that are always shown, in one line a row.
        join: Whether what is the same in all rows is told once, below the table.

    Returns:
        The table as lines joined by line breaks, without one at the end.
    """
    numbers, same = range(len(rows[0])), dict[int, str]()
    if join and len(rows) > 2:
        same = {n: rows[1][n] for n in numbers if n not in kept and len({row[n] for row in rows[1:]}) == 1}
    shown = [number for number in numbers if number not in same]
    left_out: list[int] = []
    while (widths := _fit_widths([[row[n] for n in shown] for row in rows], width, [n in kept for n in shown])) is None:
        left_out.insert(0, next(number for number in reversed(shown) if number not in kept))
        shown.remove(left_out[0])
    parts = [[_wrap_cell(row[n], size) for n, size in zip(shown, widths, strict=True)] for row in rows]
    lines = [
        ["".join(cell[line : line + 1]) for cell in cells] for cells in parts for line in range(max(map(len, cells)))
    ]
    heads = max(map(len, parts[0]))
    aligned = format_table(lines, [place for place, number in enumerate(shown) if number in right]).split("\n")
    table = [aligned[0], *aligned[2 : heads + 1], aligned[1], *aligned[heads + 1 :]]
    told = [f"{rows[0][n]} {text}" for n, text in same.items() if rows[0][n] and text]
    notes = [f"The same in all rows: {'; '.join(told)}."] if told else []
    if left_out:
        notes.append(f"Left out, as the terminal is too narrow: {', '.join(rows[0][n] for n in left_out)}.")
    return "\n".join([*table, *(line for note in notes for line in wrap_text(note, width))])


def wrap_text(text: str, width: int | None, indent: str = "  ") -> list[str]:
    """Break a text into lines of a terminal.

    Args:
        text: The text.
        width: Columns of a line; None: as many as it takes.
        indent: What the second and later lines begin with.

    Returns:
        The lines, at least one.
    """
    if width is None:
        return [text]
    lines = [""]
    for word in text.split(" "):
        if lines[-1].strip() and count_columns(f"{lines[-1]} {word}") > width:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _fit_widths(rows: Sequence[Sequence[str]], width: int | None, fixed: Sequence[bool]) -> list[int] | None:
    """The widths of columns that take no more than so many columns of a terminal; None where they cannot."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(count_columns, column)) for column in columns]
    least = [
        size
        if stays
        else min(size, max(NARROWEST, *(count_columns(word) for cell in column for word in cell.split(" "))))
        for column, size, stays in zip(columns, widths, fixed, strict=True)
    ]
    if width is None or len(columns) == sum(fixed):
        return widths
    room = width - 2 * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((n for n in range(len(widths)) if widths[n] > least[n]), key=lambda n: widths[n])
        widths[widest] -= 1
    return widths


def _wrap_cell(cell: str, width: int) -> list[str]:
    return wrap_text(cell, width, "") if count_columns(cell) > width else [cell]


def _pad_cell(cell: str, width: int, right: bool) -> str:
    """A cell filled up to so many columns of a terminal, which count wide characters twice."""
    space = " " * (width - count_columns(cell))
    return space + cell if right else cell + space


@dataclass(frozen=True)
class Unit:
    """Way to write a metric: as a percentage, or as a plain number if it is a loss.

    Attributes:
        loss: Whether the metric is a loss, of which lower values are better.
    """

    loss: bool = False

    def text(self, value: float) -> str:
        """Format a value of the metric.

        Args:
            value: A loss in nats, or a proportion from 0 to 1.

        Returns:
            A loss with three decimals, or a percentage with one.
        """
        return f"{value:.3f}" if self.loss else f"{100 * value:.1f} %"

    def better(self, one: float, other: float) -> bool:
        """Tell whether one value of the metric is better than another.

        Args:
            one: Value that may be better.
            other: Value that it is compared with.

        Returns:
            True if `one` is lower for a loss, higher otherwise; False if they are equal.
        """
        return one < other if self.loss else one > other


def format_difference(value: float, unit: Unit) -> str:
    """Format a difference of a metric with its sign.

    Args:
        value: Difference, in nats for a loss, else of proportions from 0 to 1.
        unit: How the metric is written.

    Returns:
        A loss with three decimals, or percentage points with one; no sign where that rounds to 0.
    """
    text = f"{value:+.3f}" if unit.loss else f"{100 * value:+.1f}"
    return text.replace("-", "−") if text.strip("+-0.") else text[1:]


SPLITS: Final = {"train": "training", "val": "validation", "test": "test"}
TOO_FEW: Final = "n too small for an interval"  # where a figure has none
