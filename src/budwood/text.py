"""How names, numbers and tables are written for people."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import east_asian_width

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is computed by spreadsheets
TEXT: Final = "'"  # before such a cell: it is text
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


def quote_path(path: str) -> str:
    """Quote a path as one word of a shell.

    Args:
        path: The path.

    Returns:
        The word; a path with unprintable characters in the shell's own notation for them.
    """
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
LEAST_TOLD: Final = 5  # images, below which a figure says nothing


def say_too_few(n: int) -> str:
    """Say in place of a figure that its images are too few.

    Args:
        n: Number of images, below `LEAST_TOLD`.

    Returns:
        "too few to tell (n = 3)".
    """
    return f"too few to tell (n = {n})"
