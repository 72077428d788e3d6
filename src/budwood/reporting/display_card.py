"""What a notebook shows of a value, as a record, and how it becomes HTML.

The HTML inherits the notebook's own text colour and uses colours that can be read on light and on dark, as notebooks
tell their theme each in another way. It needs no other file, and everything in it is escaped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markupsafe import Markup

from budwood.reporting.run_page import MatrixRow
from budwood.reporting.templating import load_template

ROWS_SHOWN: Final = 12


@dataclass(frozen=True)
class CardTable:
    """A table of a card.

    Attributes:
        header: Names of the columns.
        rows: Cells of each row, as texts.
        numbers: Columns that hold numbers, from 0.
        more: What is not shown, in words.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = ()
    more: str = ""


@dataclass(frozen=True)
class CardChart:
    """A chart of a card: its title, and an SVG element."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class CardPicture:
    """A picture of a card: its data URI (None: there is none), what it shows, and the lines below it."""

    uri: str | None
    alt: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class PictureGroup:
    """Pictures of a card under a title; `whole`: each as wide as the card; `crisp`: every value a square."""

    title: str
    pictures: Sequence[CardPicture]
    size: Literal["", "large", "whole", "whole crisp"] = ""


@dataclass(frozen=True)
class Card:
    """What a notebook shows of a value.

    Attributes:
        kind: What it is, in a word or two.
        title: Its name.
        facts: Name and text of each fact.
        tables: Tables.
        matrix: A confusion matrix.
        charts: Charts.
        pictures: Groups of pictures.
        notes: Sentences below, in which backticks mark code.
    """

    kind: str
    title: str = ""
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[CardTable] = ()
    matrix: Sequence[MatrixRow] = ()
    charts: Sequence[CardChart] = ()
    pictures: Sequence[PictureGroup] = ()
    notes: Sequence[str] = ()


def render_card(card: Card) -> str:
    """Render a card as HTML.

    Args:
        card: The card.

    Returns:
        A `div` element with its own style.
    """
    return load_template("display.html").render(card=card)


def tell_more(shown: int, of: int) -> str:
    """Say how many rows are shown where they are not all; empty where they are."""
    return f"{shown:,} of {of:,} rows" if shown < of else ""
