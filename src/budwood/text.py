"""How names, numbers and tables are written for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import east_asian_width

_JOINERS: Final = "\u200c\u200d"  # unprintable by Unicode's letter, but part of words and of emoji


def show_unprintable(name: str) -> str:
    """A name in which line breaks and other unprintable characters can be seen."""
    return "".join(
        char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode() for char in name
    )


def count_columns(text: str) -> int:
    """Columns that a text takes; East Asian characters take two."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def shorten(text: str, most: int) -> str:
    """A text cut to `most` columns."""
    if count_columns(text) <= most:
        return text
    while text and count_columns(text) > most - 1:
        text = text[:-1]
    return f"{text}…"


def format_seconds(seconds: float) -> str:
    """Seconds in the unit that suits them."""
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
    """Rows of text in columns, the first row above a line; the columns in `right` end flush."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


@dataclass(frozen=True)
class Unit:
    """How a metric is written: as a percentage, or as a number where it is a loss, of which less is better."""

    loss: bool = False

    def text(self, value: float) -> str:
        """A value in words."""
        return f"{value:.3f}" if self.loss else f"{100 * value:.1f} %"

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one < other if self.loss else one > other


SPLITS: Final = {"train": "training", "val": "validation", "test": "test"}
