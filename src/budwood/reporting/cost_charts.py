"""Figures of rows by what they cost: points of cost and metric, and which no other beats (Pareto)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from budwood.evaluation.intervals import Metric
from budwood.reporting.metric_axes import draw_metric_frame, is_far, list_ends, make_log_ticks, make_value_scale
from budwood.reporting.svg import (
    BOTTOM,
    LEFT,
    LETTER,
    LINE,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    make_even_ticks,
    round_range,
    to_xml,
    wrap_svg,
)
from budwood.text import Unit, count_columns, shorten, show_unprintable

TALL: Final = 380
LABEL: Final = 24  # columns of a label beside a point
FEW: Final = 10  # points of which all have their whole name
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
    up, y_ticks = make_value_scale([end for point in known for end in list_ends(point.metric)], TALL - BOTTOM)
    parts = [*draw_metric_frame(across, up, x_ticks, y_ticks, cost, metric, unit, TALL)]
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


def _make_cost_scale(costs: Sequence[float]) -> tuple[Scale, list[float]]:
    """A logarithmic axis where costs lie more than a factor of eight apart, else one from zero."""
    low, high = min(costs, default=1.0), max(costs, default=1.0)
    ends = LEFT + 12, WIDTH - RIGHT - 12
    if is_far(low, high):
        scale = Scale(low / _WIDER, high * _WIDER, *ends, log=True)
        return scale, make_log_ticks(scale.low, scale.high)
    top = round_range(0, high or 1.0)[1]
    return Scale(0, top, *ends), make_even_ticks(0, top)


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
