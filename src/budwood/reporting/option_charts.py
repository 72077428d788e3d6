"""Figures of options: how much each explains, and the metric against the values of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from budwood.reporting.metric_axes import draw_metric_frame, make_numeric_axis, make_value_scale
from budwood.reporting.svg import (
    BOTTOM,
    CHAR,
    HEIGHT,
    LEFT,
    RIGHT,
    ROW,
    WIDTH,
    Scale,
    draw_row_name,
    format_percent,
    measure_left_margin,
    to_xml,
    wrap_svg,
)
from budwood.text import Unit, shorten, show_unprintable


def draw_importance(title: str, shares: Sequence[tuple[str, float]]) -> str:
    """Draw a bar for the share of variance that each option explains.

    Args:
        title: Title of the figure.
        shares: Name of each option and its share, 0 to 1.

    Returns:
        The figure as an SVG element.
    """
    left, floor = measure_left_margin([name for name, _ in shares]), 10 + ROW * len(shares)
    across = Scale(0, max([0.01, *(share for _, share in shares)]), left, WIDTH - RIGHT - 52)
    parts = []
    for number, (name, share) in enumerate(shares):
        y = 10 + ROW * number + ROW / 2
        parts.append(draw_row_name(name, left, y))
        shape = f'x="{left:.1f}" width="{max(1.0, across(share) - left):.1f}" y="{y - 7:.1f}" height="14"'
        parts.append(f'<rect {shape} fill="var(--accent)"/>')
        parts.append(f'<text class="tick" x="{across(share) + 8:.1f}" y="{y + 4:.1f}">{format_percent(share)}</text>')
    said = "; ".join(f"{show_unprintable(name)} {format_percent(share)}" for name, share in shares)
    return wrap_svg(title, said or "no option", "".join(parts), floor + 8)


def draw_slice(option: str, points: Sequence[tuple[object, float, bool]], y_label: str, unit: Unit) -> str:
    """Draw the metric of each row against the value of one option.

    The axis is numeric where all values are numbers, and logarithmic where these are far apart; else it has one
    place for each value. A row that cannot be told from the best is filled.

    Args:
        option: Name of the option.
        points: Value of the option, metric, and whether the row cannot be told from the best; at least one row.
        y_label: Label of the metric axis.
        unit: Unit of the metric.

    Returns:
        The figure as an SVG element.
    """
    values = [value for value, _, _ in points]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    place, x_ticks = make_numeric_axis(numbers) if len(numbers) == len(values) else _make_named_axis(values)
    up, y_ticks = make_value_scale([score for _, score, _ in points], HEIGHT - BOTTOM)
    parts = [*draw_metric_frame(Scale(0, 1, LEFT, WIDTH - RIGHT), up, [], y_ticks, option, y_label, unit, HEIGHT)]
    for x, text in x_ticks:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - 46}" y2="{HEIGHT - 42}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 28}" text-anchor="middle">{to_xml(text)}</text>')
    for value, score, tied in points:
        look = 'class="dot"' if tied else 'fill="var(--card)" stroke="var(--soft)" stroke-width="1.8"'
        told = f"<title>{to_xml(_format_value(value))}: {unit.text(score)}</title>"
        parts.append(f'<circle cx="{place(value):.1f}" cy="{up(score):.1f}" r="4.5" {look}>{told}</circle>')
    said = "; ".join(f"{show_unprintable(_format_value(value))}: {unit.text(score)}" for value, score, _ in points)
    return wrap_svg(f"{y_label} by {option}", said, "".join(parts), HEIGHT)


def _make_named_axis(values: Sequence[object]) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Places of words along the axis, in the order of their first use, and the words."""
    names = list(dict.fromkeys(map(_format_value, values)))
    wide = (WIDTH - RIGHT - LEFT) / len(names)
    middle = {name: LEFT + wide * (number + 0.5) for number, name in enumerate(names)}
    ticks = [(x, shorten(name, max(3, int(wide / CHAR)))) for name, x in middle.items()]
    return lambda value: middle[_format_value(value)], ticks


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
