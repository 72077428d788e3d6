"""Figures as SVG strings: plain values in, one drawing out, in the colours of the page that holds it.

Drawn by hand rather than by a plotting library: the figures are few and simple, follow the light and dark theme of the
report through CSS variables, and cost no start-up time. Each has a title and a description in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from budwood.evaluation.calibration import ReliabilityBin
from budwood.evaluation.intervals import Metric
from budwood.reporting.metric_axes import is_far, make_log_ticks
from budwood.reporting.svg import (
    BOTTOM,
    CHAR,
    HEIGHT,
    LEFT,
    RIGHT,
    ROW,
    TOP,
    WIDTH,
    Scale,
    describe_share,
    describe_shares,
    draw_frame,
    draw_interval,
    draw_percent_grid,
    draw_row_name,
    draw_x_title,
    format_percent,
    make_even_ticks,
    measure_left_margin,
    round_range,
    to_xml,
    wrap_svg,
)
from budwood.text import LEAST_TOLD, count_columns, counted, show_unprintable

_STROKES: Final = ("var(--accent)", "var(--second)")
_DASHES: Final = ("none", "6 4")


@dataclass(frozen=True)
class Series:
    """A named line through points.

    Attributes:
        name: Name of the line.
        points: (x, y) each; points that are not finite are left out.
    """

    name: str
    points: Sequence[tuple[float, float]]


def draw_lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    chosen: float | None = None,
) -> str:
    """Draw lines over a common axis.

    Args:
        title: Title of the figure.
        series: The lines.
        x_label: Label of the x axis.
        y_label: Label of the y axis.
        log_x: Whether the x axis is logarithmic where its values lie far apart; then every x is positive.
        chosen: The x that was kept, to be marked; None for no mark.

    Returns:
        The figure as an SVG element.
    """
    lines = [Series(line.name, [point for point in line.points if all(map(math.isfinite, point))]) for line in series]
    xs = [x for line in lines for x, _ in line.points] or [1.0]
    ys = [y for line in lines for _, y in line.points] or [0.0, 1.0]
    low, high = round_range(min(ys), max(ys))
    log = log_x and is_far(min(xs), max(xs))
    across = Scale(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8, log)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    x_ticks = make_log_ticks(min(xs), max(xs)) if log else make_even_ticks(min(xs), max(xs), whole=not log_x)
    parts = [*draw_frame(across, up, x_ticks, make_even_ticks(low, high), x_label, y_label)]
    if chosen is not None and min(xs) <= chosen <= max(xs):
        parts.extend(_draw_mark(across(chosen)))
    for number, line in enumerate(lines):
        parts.extend(_draw_line(line, number, across, up, chosen))
    parts.extend(_draw_legend([line.name for line in lines], dashed=True))
    return wrap_svg(title, _describe_lines(lines, x_label, chosen), "".join(parts), HEIGHT)


def draw_intervals(title: str, rows: Sequence[tuple[str, Metric]], x_label: str) -> str:
    """Draw a dot with its 95 % interval for each named share, in the order given.

    An undefined share has a dash. The axis ends at 100 % and begins at the multiple of 10 % below the lowest end,
    at most at 80 %.

    Args:
        title: Title of the figure.
        rows: Name of each row, and its share from 0 to 1.
        x_label: Label of the x axis.

    Returns:
        The figure as an SVG element.
    """
    left, floor = measure_left_margin([name for name, _ in rows]), 10 + ROW * len(rows)
    known = [metric for _, metric in rows if metric.n >= LEAST_TOLD]
    ends = [end for metric in known for end in (metric.low, metric.value) if end is not None]
    start = min(0.8, math.floor(min(ends, default=0.0) * 10) / 10)
    across = Scale(start, 1, left, WIDTH - RIGHT - 52)
    parts = [*draw_percent_grid(across, floor)]
    for row, (name, metric) in enumerate(rows):
        y = 10 + ROW * row + ROW / 2
        parts.append(draw_row_name(name, left, y))
        parts.extend(draw_interval(metric, across, y))
    beginning = f"; the axis starts at {100 * start:.0f} %" if start else ""
    parts.append(draw_x_title(f"{x_label}{beginning}", floor + 40, left))
    return wrap_svg(title, describe_shares(rows), "".join(parts), floor + 48)


def draw_reliability(title: str, bins: Sequence[ReliabilityBin]) -> str:
    """Draw accuracy with its interval against mean confidence, beside the diagonal of a calibrated network.

    The area of a dot grows with its number of images; a hollow dot stands for fewer than 5, too few to tell.

    Args:
        title: Title of the figure.
        bins: The bins, each of at least one image.

    Returns:
        The figure as an SVG element.
    """
    across, up = Scale(0, 1, LEFT + 8, WIDTH - RIGHT - 8), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [*draw_frame(across, up, ticks, ticks, "mean confidence", "share that is correct")]
    ends = f'x1="{across(0):.1f}" y1="{up(0):.1f}" x2="{across(1):.1f}" y2="{up(1):.1f}"'
    parts.append(f'<line class="chosen" {ends}/>')
    most = max((item.accuracy.n for item in bins), default=1)
    said = []
    for item in bins:
        share = item.accuracy
        if share.value is None or share.low is None or share.high is None:
            continue
        x, confidence, correct = across(item.confidence), format_percent(item.confidence), format_percent(share.value)
        if share.n < LEAST_TOLD:
            told = f"<title>{counted(share.n, 'image')} at {confidence}: too few to tell</title>"
            parts.append(f'<circle class="hollow" cx="{x:.1f}" cy="{up(share.value):.1f}" r="3">{told}</circle>')
            continue
        radius = 3 + 4 * math.sqrt(share.n / (most or 1))
        parts.append(
            f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{up(share.low):.1f}" y2="{up(share.high):.1f}"/>'
            f'<circle class="dot" cx="{x:.1f}" cy="{up(share.value):.1f}" r="{radius:.1f}">'
            f"<title>{share.n:,} images: mean confidence {confidence}, {correct} correct</title></circle>"
        )
        said.append(f"At {confidence} {correct} are correct")
    return wrap_svg(title, ". ".join(said), "".join(parts), HEIGHT)


def draw_counts(title: str, rows: Sequence[tuple[str, Sequence[int]]], parts: Sequence[str]) -> str:
    """Draw a bar of image counts for each class, in the order given.

    Args:
        title: Title of the figure.
        rows: Name of each class, and its number of images in each part.
        parts: Names of at most two parts (splits) into which a bar is divided.

    Returns:
        The figure as an SVG element.
    """
    left, floor = measure_left_margin([name for name, _ in rows]), TOP + ROW * len(rows)
    most = max((sum(counts) for _, counts in rows), default=0) or 1
    written = [" + ".join(f"{count:,}" for count in counts) for _, counts in rows]
    across = Scale(0, most, left, WIDTH - RIGHT - 10 - CHAR * max(map(len, written), default=0))
    drawn = [*_draw_legend(parts, dashed=False)]
    for row, ((name, counts), text) in enumerate(zip(rows, written, strict=True)):
        y = TOP + ROW * row + ROW / 2
        drawn.append(draw_row_name(name, left, y))
        ends = [across(sum(counts[:number])) for number in range(len(counts) + 1)]
        for number, (start, end) in enumerate(pairwise(ends)):
            shape = f'x="{start:.1f}" width="{end - start:.1f}" y="{y - 7:.1f}" height="14"'
            drawn.append(f'<rect {shape} fill="{_STROKES[number % 2]}"/>')
        drawn.append(f'<text class="tick" x="{ends[-1] + 8:.1f}" y="{y + 4:.1f}">{text}</text>')
    said = "; ".join(f"{show_unprintable(name)} {text}" for (name, _), text in zip(rows, written, strict=True))
    return wrap_svg(title, f"{' + '.join(parts)}: {said}", "".join(drawn), floor + 8)


def draw_interval_strip(title: str, metric: Metric, marks: Sequence[tuple[str, float]] = ()) -> str:
    """Draw one share between 0 and 100 % as a dot with its 95 % interval on a line.

    Args:
        title: Title of the figure.
        metric: A share from 0 to 1; its value is None where it is undefined. Of fewer than 5 images none is drawn.
        marks: Names of other shares, from 0 to 1, that are marked on the line.

    Returns:
        The figure as an SVG element.
    """
    across = Scale(0, 1, 8, WIDTH - 12)
    parts = [f'<line class="grid" x1="8" x2="{WIDTH - 12}" y1="10" y2="10" stroke-width="2"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        anchor = "start" if tick == 0 else "end" if tick == 1 else "middle"
        at = {"start": 2.0, "end": WIDTH - 4.0}.get(anchor, across(tick))
        parts.append(f'<text class="tick" x="{at:.1f}" y="34" text-anchor="{anchor}">{format_percent(tick)}</text>')
    if metric.value is not None and metric.n >= LEAST_TOLD:
        if metric.low is not None and metric.high is not None:
            ends = f'x1="{across(metric.low):.1f}" x2="{across(metric.high):.1f}"'
            parts.append(f'<line class="range" {ends} y1="10" y2="10" style="stroke-width: 9"/>')
        parts.append(f'<circle class="dot" cx="{across(metric.value):.1f}" cy="10" r="6"/>')
    for name, share in marks:
        x = across(share)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="1" y2="19"><title>{to_xml(name)}</title></line>'
        )
    said = [describe_share(metric), *(f"{show_unprintable(name)} {format_percent(share)}" for name, share in marks)]
    return wrap_svg(title, "; ".join(said), "".join(parts), 40)


def _draw_line(
    line: Series, number: int, across: Callable[[float], float], up: Callable[[float], float], chosen: float | None
) -> Iterator[str]:
    stroke, dash = _STROKES[number % 2], _DASHES[number % 2]
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    yield f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2.2" stroke-dasharray="{dash}"/>'
    for x, y in line.points:
        place = f'cx="{across(x):.1f}" cy="{up(y):.1f}"'
        look = f'fill="var(--card)" stroke="{stroke}" stroke-width="2.6"' if x == chosen else f'fill="{stroke}"'
        yield f'<circle {place} r="{5 if x == chosen else 2.6}" {look}><title>{x:.4g}: {y:.4g}</title></circle>'


def _draw_mark(x: float) -> Iterator[str]:
    """The dotted line of what was chosen, with its word on the side that has room."""
    yield f'<line class="chosen" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 14}" y2="{HEIGHT - BOTTOM}"/>'
    right = x > WIDTH - 80
    anchor, shift = ("end", -5) if right else ("start", 5)
    yield f'<text class="tick" x="{x + shift:.1f}" y="{TOP - 8}" text-anchor="{anchor}">chosen</text>'


def _draw_legend(names: Sequence[str], *, dashed: bool) -> Iterator[str]:
    """The names of the parts with their looks, in the top right corner."""
    x = WIDTH - RIGHT - sum(34 + CHAR * count_columns(name) for name in names) + 8
    for number, name in enumerate(names):
        stroke = _STROKES[number % 2]
        if dashed:
            look = f'stroke="{stroke}" stroke-width="2.4" stroke-dasharray="{_DASHES[number % 2]}"'
            yield f'<line x1="{x:.1f}" x2="{x + 18:.1f}" y1="12" y2="12" {look}/>'
        else:
            yield f'<rect x="{x + 6:.1f}" y="6" width="12" height="12" fill="{stroke}"/>'
        yield f'<text x="{x + 23:.1f}" y="16.5">{to_xml(name)}</text>'
        x += 34 + CHAR * count_columns(name)


def _describe_lines(lines: Sequence[Series], x_label: str, chosen: float | None) -> str:
    said = [
        f"{show_unprintable(line.name)}: {line.points[0][1]:.4g} at {line.points[0][0]:.4g}, "
        f"{line.points[-1][1]:.4g} at {line.points[-1][0]:.4g}"
        for line in lines
        if line.points
    ]
    return ". ".join([f"By {x_label}", *said, *([] if chosen is None else [f"Chosen: {chosen:.4g}"])])
