"""Figures of many rows: what is best for its cost, curves, intervals beside published figures, options."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from budwood.evaluation.intervals import Metric
from budwood.reporting.svg import (
    BOTTOM,
    CHAR,
    HEIGHT,
    LEFT,
    LETTER,
    RIGHT,
    ROW,
    TOP,
    WIDTH,
    Scale,
    draw_frame,
    draw_row_name,
    draw_x_title,
    format_percent,
    format_power,
    make_even_ticks,
    make_power_ticks,
    measure_left_margin,
    round_range,
    to_xml,
    wrap_svg,
)
from budwood.text import Unit, count_columns, counted, shorten, show_unprintable

TALL: Final = 380
LABEL: Final = 24  # columns of a label beside a point
FEW: Final = 10  # points of which all have their whole name
NAMED: Final = 6  # curves that have their name at the right, five of them in a colour
SIDE: Final = 132  # room for those names
LINE: Final = 13  # height of a small text
MARGIN: Final = 184  # most room for the names of rows
_PLACES: Final = (  # of a label around its point: shift in x and y, and which of its ends it is placed by
    *((8.0, 4.0, "start"), (-8.0, 4.0, "end"), (0.0, -10.0, "middle"), (0.0, 18.0, "middle")),
    *((8.0, -8.0, "start"), (8.0, 16.0, "start"), (-8.0, -8.0, "end"), (-8.0, 16.0, "end")),
    *((10.0, -22.0, "start"), (10.0, 30.0, "start"), (-10.0, -22.0, "end"), (-10.0, 30.0, "end")),
)
_WIDER: Final = 1.08  # of a logarithmic axis at each end


@dataclass(frozen=True, eq=False)
class Point:
    """A row of a comparison as a point of cost and metric.

    Attributes:
        label: Name of the row.
        cost: Cost of the row, such as seconds or parameters.
        metric: The metric, whose value may be undefined.
        short: Short name, used where there are many points; empty for none.
    """

    label: str
    cost: float
    metric: Metric
    short: str = ""

    @property
    def value(self) -> float:
        """The metric's value; not a number where it is undefined."""
        return math.nan if self.metric.value is None else self.metric.value


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
        published: Published value; None where there is none.
        alike: Whether the published value is of the same split.
        tied: Whether the row cannot be told from the best.
    """

    label: str
    metric: Metric | None
    seeds: tuple[float, float] | None = None
    published: float | None = None
    alike: bool = True
    tied: bool = False


def find_pareto_front(points: Sequence[Point], unit: Unit) -> list[Point]:
    """Find the points that no other beats in cost and metric together (Pareto).

    Args:
        points: Points whose metrics have a value.
        unit: Unit of the metric, which says whether less is better.

    Returns:
        The front, by rising cost.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, one.value * (1 if unit.loss else -1))):
        if not kept or unit.better(point.value, kept[-1].value):
            kept.append(point)
    return kept


def draw_pareto(title: str, points: Sequence[Point], cost: str, metric: str, unit: Unit) -> str:
    """Draw rows by cost and metric, with intervals and the Pareto front.

    The front is joined and its points are named; others are named where there is room. Rows without a value or with
    a cost that is not finite are left out.

    Args:
        title: Title of the figure.
        points: The rows.
        cost: Label of the cost axis.
        metric: Label of the metric axis.
        unit: Unit of the metric.

    Returns:
        The figure as an SVG element.
    """
    known = [point for point in points if math.isfinite(point.value) and math.isfinite(point.cost)]
    best = find_pareto_front(known, unit)
    across, x_ticks = _make_cost_scale([point.cost for point in known])
    up, y_ticks = _make_value_scale([end for point in known for end in _list_ends(point.metric)], TALL - BOTTOM)
    parts = [*_draw_frame(across, up, x_ticks, y_ticks, cost, metric, unit, TALL)]
    for point in known:
        parts.extend(_draw_whisker(point, across, up, point in best))
    parts.extend(_draw_stairs(best, across, up))
    behind_first = sorted(known, key=lambda one: one in best)
    parts.extend(_draw_dot(point, across, up, point in best, unit) for point in behind_first)
    parts.extend(_place_names(best, known, across, up))
    said = "; ".join(f"{show_unprintable(p.label)}: {unit.text(p.value)} at {p.cost:.4g}" for p in best)
    return wrap_svg(
        title, f"By {cost}. No other row is both cheaper and better than: {said or 'no row'}", "".join(parts), TALL
    )


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
    up, y_ticks = _make_value_scale([y for _, points in lines for _, y in points], HEIGHT - BOTTOM)
    x_ticks = make_even_ticks(min(xs), max(xs), whole=True)
    parts = [*_draw_frame(across, up, x_ticks, y_ticks, "epoch", y_label, unit, HEIGHT)]
    number = {id(row): rank for rank, (row, _) in enumerate(named)}
    for row, points in sorted(lines, key=lambda line: -number.get(id(line[0]), NAMED)):
        parts.append(_draw_curve(row.label, points, number.get(id(row)), across, up, unit))
    parts.extend(_draw_end_names([(row, points[-1]) for row, points in named], right, up))
    said = "; ".join(f"{show_unprintable(row.label)} {unit.text(points[-1][1])} at the end" for row, points in lines)
    return wrap_svg(title, f"By epoch. {said or 'No row has a curve'}", "".join(parts), HEIGHT)


def draw_dots(title: str, rows: Sequence[Dot], x_label: str, unit: Unit) -> str:
    """Draw a dot with its interval for each row of a comparison.

    There are marks at its lowest and highest seed, and a diamond at the published value: filled for one of the same
    split, else hollow.

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
    ends = [end for row in rows if row.metric for end in _list_ends(row.metric)]
    ends += [row.published for row in rows if row.published is not None]
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
    place, x_ticks = _make_numeric_axis(numbers) if len(numbers) == len(values) else _make_named_axis(values)
    up, y_ticks = _make_value_scale([score for _, score, _ in points], HEIGHT - BOTTOM)
    parts = [*_draw_frame(Scale(0, 1, LEFT, WIDTH - RIGHT), up, [], y_ticks, option, y_label, unit, HEIGHT)]
    for x, text in x_ticks:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - 46}" y2="{HEIGHT - 42}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 28}" text-anchor="middle">{to_xml(text)}</text>')
    for value, score, tied in points:
        look = 'class="dot"' if tied else 'fill="var(--card)" stroke="var(--soft)" stroke-width="1.8"'
        told = f"<title>{to_xml(_format_value(value))}: {unit.text(score)}</title>"
        parts.append(f'<circle cx="{place(value):.1f}" cy="{up(score):.1f}" r="4.5" {look}>{told}</circle>')
    said = "; ".join(f"{show_unprintable(_format_value(value))}: {unit.text(score)}" for value, score, _ in points)
    return wrap_svg(f"{y_label} by {option}", said, "".join(parts), HEIGHT)


def _draw_frame(
    across: Scale,
    up: Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
    unit: Unit,
    height: int,
) -> Iterator[str]:
    """Axes whose y ticks are written in the metric's unit."""
    if unit.loss:
        yield from draw_frame(across, up, x_ticks, y_ticks, x_label, y_label, height)
        return
    shares = Scale(100 * up.low, 100 * up.high, up.start, up.end)
    yield from draw_frame(across, shares, x_ticks, [100 * tick for tick in y_ticks], x_label, f"{y_label}, %", height)


def _make_cost_scale(costs: Sequence[float]) -> tuple[Scale, list[float]]:
    """A logarithmic axis where costs lie more than a factor of eight apart, else one from zero."""
    low, high = min(costs, default=1.0), max(costs, default=1.0)
    ends = LEFT + 12, WIDTH - RIGHT - 12
    if low > 0 and high / low > 8:
        scale = Scale(low / _WIDER, high * _WIDER, *ends, log=True)
        return scale, _make_log_ticks(scale.low, scale.high)
    top = round_range(0, high or 1.0)[1]
    return Scale(0, top, *ends), make_even_ticks(0, top)


def _make_log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times them where there are few."""
    powers = make_power_ticks(low, high)
    if len(powers) > 3:
        return powers
    start = math.floor(math.log10(low))
    steps = [factor * 10.0**power for power in range(start, math.ceil(math.log10(high)) + 1) for factor in (1, 2, 5)]
    return [step for step in steps if low <= step <= high] or powers


def _make_value_scale(values: Sequence[float], floor: float) -> tuple[Scale, list[float]]:
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = round_range(min(known), max(known))
    return Scale(low, high, floor, TOP), make_even_ticks(low, high)


def _list_ends(metric: Metric) -> list[float]:
    return [end for end in (metric.low, metric.value, metric.high) if end is not None]


def _draw_whisker(point: Point, across: Scale, up: Scale, on_front: bool) -> Iterator[str]:
    if point.metric.low is None or point.metric.high is None:
        return
    x, low, high = across(point.cost), up(point.metric.low), up(point.metric.high)
    colour = "var(--accent)" if on_front else "var(--soft)"
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"'
    yield f'<line {ends} stroke="{colour}" stroke-width="{2.2 if on_front else 1.2}" opacity="0.4"/>'


def _draw_stairs(points: Sequence[Point], across: Scale, up: Scale) -> Iterator[str]:
    """The front as steps: the best that each cost can buy."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _find_corners(points, across, up))
    yield f'<polyline points="{path}" fill="none" stroke="var(--accent)" stroke-width="1.6" stroke-dasharray="5 4"/>'


def _find_corners(points: Sequence[Point], across: Scale, up: Scale) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for point in points:
        x, y = across(point.cost), up(point.value)
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return corners


def _draw_dot(point: Point, across: Scale, up: Scale, on_front: bool, unit: Unit) -> str:
    look = 'class="dot"' if on_front else 'fill="var(--card)" stroke="var(--soft)" stroke-width="1.8"'
    told = f"{to_xml(point.label)}: {unit.text(point.value)} at {point.cost:.4g}"
    place = f'cx="{across(point.cost):.1f}" cy="{up(point.value):.1f}"'
    return f'<circle {place} r="{5 if on_front else 4}" {look}><title>{told}</title></circle>'


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether two boxes overlap."""
        apart = self.right < other.left or other.right < self.left
        return not (apart or self.bottom < other.top or other.bottom < self.top)


def _place_names(best: Sequence[Point], points: Sequence[Point], across: Scale, up: Scale) -> Iterator[str]:
    """The names of points where they meet no other name or dot: first those of the front, then others."""
    at = {point: (across(point.cost), up(point.value)) for point in points}
    taken = [_Box(x - 6, y - 6, x + 6, y + 6) for x, y in at.values()]
    corners = _find_corners(best, across, up)
    taken += [_Box(min(x, u), min(y, v) - 1, max(x, u), max(y, v) + 1) for (x, y), (u, v) in pairwise(corners)]
    rest = [point for point in points if point not in best]
    for point in [*reversed(best), *sorted(rest, key=lambda one: -abs(at[one][1] - TALL / 2))]:
        few = point in best or len(points) <= FEW
        name = shorten(show_unprintable(point.label if few else point.short or point.label), LABEL)
        for shift_x, shift_y, anchor in _PLACES:
            x, y = at[point][0] + shift_x, at[point][1] + shift_y
            box = _make_box(name, x, y, anchor)
            inside = box.left > LEFT and box.right < WIDTH and box.top > TOP - 22 and box.bottom < TALL - BOTTOM
            if inside and not any(box.meets(other) for other in taken):
                taken.append(box)
                weight = ' font-weight="600"' if point in best else ""
                yield (
                    f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{to_xml(name)}</text>'
                )
                break


def _make_box(name: str, x: float, y: float, anchor: str) -> _Box:
    width = LETTER * count_columns(name)
    left = x if anchor == "start" else x - width if anchor == "end" else x - width / 2
    return _Box(left, y - LINE + 3, left + width, y + 3)


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
    marks += [("◆", "published", "var(--second)", any(row.published is not None and row.alike for row in rows))]
    marks += [
        (
            "◇",
            "published, other split",
            "var(--second)",
            any(row.published is not None and not row.alike for row in rows),
        )
    ]
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
    if row.published is not None:
        x = across(row.published)
        fill = "var(--second)" if row.alike else "var(--card)"
        shape = f"{x:.1f},{y - 6} {x + 6:.1f},{y} {x:.1f},{y + 6} {x - 6:.1f},{y}"
        told = f"<title>published: {unit.text(row.published)}</title>"
        yield f'<polygon points="{shape}" fill="{fill}" stroke="var(--second)" stroke-width="1.6">{told}</polygon>'


def _describe_row(row: Dot, unit: Unit) -> str:
    if row.metric is None or row.metric.value is None:
        said = "undefined"
    elif row.metric.low is None or row.metric.high is None:
        said = unit.text(row.metric.value)
    else:
        low, high = (unit.text(end).removesuffix(" %") for end in (row.metric.low, row.metric.high))
        said = f"{unit.text(row.metric.value)} ({low} to {high})"
    return said if row.published is None else f"{said}, published {unit.text(row.published)}"


def _make_numeric_axis(values: Sequence[float]) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Places of numbers along the axis, logarithmic where they are far apart, and its ticks."""
    low, high = min(values), max(values)
    log = low > 0 and high / low > 8
    scale = Scale(low, high, LEFT + 16, WIDTH - RIGHT - 16, log)
    if log:
        return scale, [(scale(tick), format_power(tick)) for tick in _make_log_ticks(low, high)]
    return scale, [(scale(tick), f"{tick:g}") for tick in make_even_ticks(low, high)]


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
