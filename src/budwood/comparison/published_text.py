"""What a source reports for a row in words: its figures with our differences, its time, its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from budwood.comparison.published import ComparedFigure, PublishedComparison, PublishedFigure
from budwood.config.metric_registry import describe_metric, is_loss
from budwood.text import SPLITS, Unit, format_difference

Cell = tuple[str, str]  # what a cell says, and what it adds in small

SEALED: Final = "ours sealed"
MISSING: Final = {
    "sealed": SEALED,
    "not measured": "ours not measured",
    "other scale": "other scale",
    "no run": "",
    "": "",
}


def format_published(given: PublishedComparison | None) -> dict[str, tuple[Cell, ...]]:
    """Format the published figures of a row.

    Args:
        given: What the source reports; None for nothing.

    Returns:
        By split, scores before losses: each figure, and our difference from it, or why there is none, as the addition.
    """
    told: dict[str, tuple[Cell, ...]] = {}
    for one in given.figures if given else ():
        told[one.split] = (*told.get(one.split, ()), _format_figure(one))
    return told


def join_published(told: Mapping[str, Sequence[Cell]]) -> str:
    """Write the published figures of a row in one line.

    Args:
        told: The figures by split.

    Returns:
        For example "97.1 % training; 91 % test"; empty where there are none.
    """
    return "; ".join(f"{value} {SPLITS[split]}" for split, cells in told.items() for value, _ in cells)


def format_reported(figure: PublishedFigure) -> str:
    """Format a published figure with the digits that sources have.

    Args:
        figure: The figure.

    Returns:
        A percentage with at most two decimals, a loss with four digits, or both ends of a range, such as "28 to 30 %".
    """
    loss = is_loss(figure.metric)
    ends = [f"{end:.4g}" if loss else f"{100 * end:.2f}".rstrip("0").rstrip(".") for end in figure.ends]
    return " to ".join(dict.fromkeys(ends)) + ("" if loss else " %")


def format_clock(seconds: float) -> str:
    """Format a published duration to the second.

    Args:
        seconds: Duration in seconds, above 0.

    Returns:
        For example "6 min 4 s", "45 s" or "2 h 5 min".
    """
    whole = round(seconds)
    parts = {"h": whole // 3600, "min": whole // 60 % 60, "s": whole % 60}
    return " ".join(f"{count} {unit}" for unit, count in parts.items() if count) or f"{seconds:.2g} s"


def list_machines(given: Sequence[PublishedComparison | None]) -> list[str]:
    """List the machines of published durations.

    Args:
        given: What the source reports for each row.

    Returns:
        Each machine once; empty where none is told.
    """
    return list(dict.fromkeys(one.machine for one in given if one and one.machine))


def _format_figure(one: ComparedFigure) -> Cell:
    unit = Unit(is_loss(one.metric))
    name = "" if one.metric == "accuracy" else "loss " if unit.loss else f"{describe_metric(one.metric)} "
    difference = "" if one.difference is None else f"ours {format_difference(one.difference, unit)}"
    return f"{name}{format_reported(one)}", difference or MISSING[one.missing]
