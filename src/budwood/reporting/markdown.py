"""Text of users, such as names of classes and files, in Markdown, where nothing of it is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from budwood.text import show_unprintable

_SPECIAL: Final = re.compile(r"[\\`*\[\]|~#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_BLOCK_MARK: Final = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[-+=]))(.)")  # begins a list or a heading


def escape_markdown(text: str) -> str:
    """Escape a text so that GitHub's Markdown shows it as it is, in a paragraph or in the cell of a table.

    Args:
        text: Any text.

    Returns:
        One line of Markdown.
    """
    line = " ".join(show_unprintable(text).split())
    line = _SPECIAL.sub(lambda found: "\\" + found[0], line)
    line = re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], line)
    return _BLOCK_MARK.sub(r"\1\\\2", line)


def escape_prose(sentence: str) -> str:
    """Escape a sentence of Budwood's own, in which what stands between backticks is code.

    Args:
        sentence: A sentence of a finding or of advice.

    Returns:
        One line of Markdown; where the backticks are no pairs, as in a file's name, they are shown as they are.
    """
    parts = sentence.split("`")
    if len(parts) % 2 == 0:
        return escape_markdown(sentence)
    return "".join(format_code(part) if number % 2 else _escape_part(part) for number, part in enumerate(parts))


def _escape_part(part: str) -> str:
    """A part of a sentence, with the spaces at its ends."""
    if not part.strip():
        return part
    before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
    return f"{before}{escape_markdown(part)}{after}"


def format_code(text: str) -> str:
    """Format a text as code within a line, whatever backticks it has.

    Args:
        text: Any text.

    Returns:
        The text between backticks; empty where it is.
    """
    line = " ".join(show_unprintable(text).split())
    if not line:
        return ""
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def format_markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Format a table of GitHub's Markdown.

    Args:
        head: The names of the columns.
        rows: The cells, already escaped.
        right: Numbers of the columns that are set to the right.

    Returns:
        Its lines.
    """
    rule = ["--:" if column in right else "---" for column in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
