"""Figures of many rows: their curves, and their intervals beside published figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from budwood.evaluation.intervals import Metric
from budwood.reporting.metric_axes import draw_metric_frame, list_ends, make_value_scale
from budwood.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LETTER,
    LINE,
    RIGHT,
    ROW,
    TOP,
    WIDTH,
    Scale,
    draw_diamond,
    draw_row_name,
    draw_x_title,
    format_percent,
    make_even_ticks,
    round_range,
    to_xml,
    wrap_svg,
)
from budwood.text import Unit, count_columns, counted, shorten, show_unprintable

NAMED: Final = 6  # curves that have their name at the right, five of them in a colour
SIDE: Final = 132  # room for those names
MARGIN: Final = 184  # most room for the names of rows


@dataclass(frozen=True)
class Curves:
    """Training curves of the runs of a row.

    Attributes:
        label: Name of the row.
        runs: (epoch, value) points of each run.
        tied: Whether the row cannot be told from the best.
    """

    label: str
    runs: Sequence[Sequence[tuple[float, float]]]
    tied: bool = False


@dataclass(frozen=True)
class Dot:
    """A row of a comparison as a dot beside its seeds and a published value.

    Attributes:
        label: Name of the row.
        metric: The metric; None where there is none.
        seeds: Lowest and highest value of its seeds; None for a single run.
        published: Ends of the published range, or the published value twice; None where there is none.
        tied: Whether the row cannot be told from the best.
    """

    label: str
    metric: Metric | None
    seeds: tuple[float, float] | None = None
    published: tuple[float, float] | None = None
    tied: bool = False


def draw_curves(title: str, rows: Sequence[Curves], y_label: str, unit: Unit) -> str:
    """Draw the mean curve of each row's runs by epoch.

    A mean covers the epochs that all runs of the row have. The curves that end best, and the worst, have names.

    Args:
        title: Title of the figure.
        rows: The rows.
        y_label: Label of the y axis.
        unit: Unit of the values.

    Returns:
        The figure as an SVG element.
    """
    lines = [(row, _average_curves(row.runs)) for row in rows]
    lines = [(row, points) for row, points in lines if points]
    named = _choose_named(lines, unit)
    xs = [x for _, points in lines for x, _ in points] or [1.0]
    right = WIDTH - RIGHT - (SIDE if named else 0)
    across = Scale(min(xs), max(xs), LEFT + 8, right)
    up, y_ticks = make_value_scale([y for _, points in lines for _, y in points], HEIGHT - BOTTOM)
    x_ticks = make_even_ticks(min(xs), max(xs), whole=True)
    parts = [*draw_metric_frame(across, up, x_ticks, y_ticks, "epoch", y_label, unit, HEIGHT)]
    number = {id(row): rank for rank, (row, _) in enumerate(named)}
    for row, points in sorted(lines, key=lambda line: -number.get(id(line[0]), NAMED)):
        parts.append(_draw_curve(row.label, points, number.get(id(row)), across, up, unit))
    parts.extend(_draw_end_names([(row, points[-1]) for row, points in named], right, up))
    said = "; ".join(f"{show_unprintable(row.label)} {unit.text(points[-1][1])} at the end" for row, points in lines)
    return wrap_svg(title, f"By epoch. {said or 'No row has a curve'}", "".join(parts), HEIGHT)


def draw_dots(title: str, rows: Sequence[Dot], x_label: str, unit: Unit) -> str:
    """Draw a dot with its interval for each row of a comparison.

    There are marks at its lowest and highest seed, and a diamond at the published value, or one at each end of a
    published range.

    Args:
        title: Title of the figure.
        rows: The rows, from top to bottom.
        x_label: Label of the x axis.
        unit: Unit of the metric.

    Returns:
        The figure as an SVG element.
    """
    longest = max((count_columns(show_unprintable(row.label)) for row in rows), default=0)
    left, floor = min(MARGIN, 16 + LETTER * longest), 34 + ROW * len(rows)
    ends = [end for row in rows if row.metric for end in list_ends(row.metric)]
    ends += [end for row in rows for end in row.published or ()]
    ends += [end for row in rows if row.seeds for end in row.seeds]
    low, high = round_range(min(ends, default=0.0), max(ends, default=1.0))
    across = Scale(low, high, left, WIDTH - RIGHT - 52)
    parts = [*_draw_legend(rows)]
    for tick in make_even_ticks(low, high):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="30" y2="{floor}"/>')
        text = f"{tick:.2g}" if unit.loss else format_percent(tick)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{text}</text>')
    for number, row in enumerate(rows):
        y = 34 + ROW * number + ROW / 2
        parts.append(draw_row_name(row.label, left, y, small=True))
        parts.extend(_draw_dot_row(row, across, y, unit))
    parts.append(draw_x_title(x_label, floor + 40, left))
    said = "; ".join(f"{show_unprintable(row.label)} {_describe_row(row, unit)}" for row in rows)
    return wrap_svg(title, said or "no row", "".join(parts), floor + 48)


def _average_curves(runs: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean of several curves over the epochs that all of them have; what is not finite is left out."""
    finite = [{x: y for x, y in points if math.isfinite(y)} for points in runs]
    shared = set.intersection(*map(set, finite)) if finite else set()
    return [(x, float(np.mean([points[x] for points in finite]))) for x in sorted(shared)]


def _choose_named(
    lines: Sequence[tuple[Curves, list[tuple[float, float]]]], unit: Unit
) -> list[tuple[Curves, list[tuple[float, float]]]]:
    """The curves that end best, and the one that ends worst."""
    ordered = sorted(lines, key=lambda line: line[1][-1][1] * (1 if unit.loss else -1))
    return ordered if len(ordered) <= NAMED else [*ordered[: NAMED - 1], ordered[-1]]


def _draw_curve(
    label: str, points: Sequence[tuple[float, float]], rank: int | None, across: Scale, up: Scale, unit: Unit
) -> str:
    """One line, or a dot where there is one point only; without a rank it stays in the background."""
    told = f"<title>{to_xml(label)}: {unit.text(points[-1][1])} after {counted(round(points[-1][0]), 'epoch')}</title>"
    look = 'class="curve"' if rank is None else f'class="curve named-{rank}"'
    if len(points) == 1:
        return f'<circle cx="{across(points[0][0]):.1f}" cy="{up(points[0][1]):.1f}" r="3" {look}>{told}</circle>'
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" {look}>{told}</polyline>'


def _draw_end_names(ends: Sequence[tuple[Curves, tuple[float, float]]], right: float, up: Scale) -> Iterator[str]:
    """Names beside the ends of curves, pushed apart so that they do not overlap."""
    wanted = sorted(enumerate(ends), key=lambda end: up(end[1][1][1]))
    places = _spread_places([up(value) + 4 for _, (_, (_, value)) in wanted], TOP, HEIGHT - BOTTOM)
    for (rank, (row, (_, value))), y in zip(wanted, places, strict=True):
        line = f'x1="{right + 2:.1f}" x2="{right + 12:.1f}" y1="{up(value):.1f}" y2="{y - 4:.1f}"'
        yield f'<line {line} stroke="var(--rule)" stroke-width="1"/>'
        name = shorten(show_unprintable(row.label), int((SIDE + RIGHT - 16) / LETTER))
        yield (
            f'<text class="tick name-{rank}" x="{right + 15:.1f}" y="{y:.1f}">{to_xml(name)}'
            f"<title>{to_xml(row.label)}</title></text>"
        )


def _spread_places(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Rising places at least a line apart, near those that are wanted."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + LINE + 1 if places else low))
    for number in range(len(places) - 1, -1, -1):
        limit = places[number + 1] - LINE - 1 if number + 1 < len(places) else high
        places[number] = min(places[number], limit)
    return places


def _choose_colour(tied: bool) -> str:
    return "var(--accent)" if tied else "var(--soft)"


def _draw_legend(rows: Sequence[Dot]) -> Iterator[str]:
    """What the marks mean, in one line at the top; only those that are there."""
    x = 4.0
    marks = [("●", "not distinguishable from the best", "var(--accent)", any(row.tied for row in rows))]
    marks += [("●", "others", "var(--soft)", any(not row.tied and row.metric for row in rows))]
    marks += [("|", "runs of a row", "var(--ink)", any(row.seeds for row in rows))]
    marks += [("◆", "published", "var(--second)", any(row.published for row in rows))]
    for mark, text, colour, present in marks:
        if present:
            yield f'<text class="tick" x="{x:.1f}" y="14"><tspan style="fill: {colour}">{mark}</tspan> {text}</text>'
            x += 24 + LETTER * len(text)


def _draw_dot_row(row: Dot, across: Scale, y: float, unit: Unit) -> Iterator[str]:
    if row.metric is None or row.metric.value is None:
        yield f'<text class="tick" x="{WIDTH - 2}" y="{y + 4:.1f}" text-anchor="end">–</text>'
    else:
        colour, metric = _choose_colour(row.tied), row.metric
        if metric.low is not None and metric.high is not None:
            ends = f'x1="{across(metric.low):.1f}" x2="{across(metric.high):.1f}" y1="{y}" y2="{y}"'
            yield f'<line {ends} stroke="{colour}" stroke-width="3" stroke-linecap="round" opacity="0.4"/>'
        for seed in row.seeds or ():
            x = across(seed)
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 6}" y2="{y + 6}" stroke="var(--ink)" stroke-width="1.4"/>'
        told = f"<title>{to_xml(row.label)}: {_describe_row(row, unit)}</title>"
        yield f'<circle cx="{across(row.metric.value):.1f}" cy="{y}" r="4.5" fill="{colour}">{told}</circle>'
        value = unit.text(row.metric.value)
        yield f'<text class="tick" x="{WIDTH - 2}" y="{y + 4:.1f}" text-anchor="end">{value}</text>'
    for end in dict.fromkeys(row.published or ()):
        told = f"<title>published: {_describe_published(row.published, unit)}</title>"
        yield draw_diamond(across(end), y, "var(--second)", told)


def _describe_row(row: Dot, unit: Unit) -> str:
    if row.metric is None or row.metric.value is None:
        said = "undefined"
    elif row.metric.low is None or row.metric.high is None:
        said = unit.text(row.metric.value)
    else:
        low, high = (unit.text(end).removesuffix(" %") for end in (row.metric.low, row.metric.high))
        said = f"{unit.text(row.metric.value)} ({low} to {high})"
    return said if row.published is None else f"{said}, published {_describe_published(row.published, unit)}"


def _describe_published(ends: Sequence[float] | None, unit: Unit) -> str:
    return " to ".join(dict.fromkeys(unit.text(end) for end in ends or ()))
