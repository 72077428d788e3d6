"""Axes of figures about a metric: in its unit, and of costs and options that lie far apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from budwood.evaluation.intervals import Metric
from budwood.reporting.svg import (
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    draw_frame,
    format_power,
    make_even_ticks,
    make_power_ticks,
    round_range,
)
from budwood.text import Unit

_FAR: Final = 8  # the ratio of two ends from which on an axis is logarithmic


def is_far(low: float, high: float) -> bool:
    """Tell whether values lie so far apart that their axis is logarithmic.

    Args:
        low: Lowest value.
        high: Highest value.

    Returns:
        Whether both are positive and more than a factor of eight apart.
    """
    return low > 0 and high / low > _FAR


def draw_metric_frame(
    across: Scale,
    up: Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
    unit: Unit,
    height: int,
) -> Iterator[str]:
    """Draw axes whose y ticks are written in the metric's unit.

    Args:
        across: Scale of the x axis.
        up: Scale of the y axis, in values of the metric.
        x_ticks: Values of the ticks on the x axis.
        y_ticks: Values of the ticks on the y axis.
        x_label: Label of the x axis.
        y_label: Label of the y axis.
        unit: Unit of the metric.
        height: Height of the drawing.

    Yields:
        SVG elements.
    """
    if unit.loss:
        yield from draw_frame(across, up, x_ticks, y_ticks, x_label, y_label, height)
        return
    shares = Scale(100 * up.low, 100 * up.high, up.start, up.end)
    yield from draw_frame(across, shares, x_ticks, [100 * tick for tick in y_ticks], x_label, f"{y_label}, %", height)


def make_value_scale(values: Sequence[float], floor: float) -> tuple[Scale, list[float]]:
    """Make the axis of a metric.

    Args:
        values: What is drawn; values that are not finite are left out.
        floor: Height of the x axis.

    Returns:
        The scale, and its ticks.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = round_range(min(known), max(known))
    return Scale(low, high, floor, TOP), make_even_ticks(low, high)


def make_log_ticks(low: float, high: float) -> list[float]:
    """Make the ticks of a logarithmic axis: powers of ten, with 2 and 5 times them where there are few.

    Args:
        low: Lowest value, above 0.
        high: Highest value.

    Returns:
        The ticks, rising.
    """
    powers = make_power_ticks(low, high)
    if len(powers) > 3:
        return powers
    start = math.floor(math.log10(low))
    steps = [factor * 10.0**power for power in range(start, math.ceil(math.log10(high)) + 1) for factor in (1, 2, 5)]
    return [step for step in steps if low <= step <= high] or powers


def list_ends(metric: Metric) -> list[float]:
    """List the values of a metric that a figure must hold.

    Args:
        metric: The metric.

    Returns:
        Its value and the ends of its interval, as far as they are known.
    """
    return [end for end in (metric.low, metric.value, metric.high) if end is not None]


def make_numeric_axis(values: Sequence[float]) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Make an axis of numbers, logarithmic where they are far apart.

    Args:
        values: The numbers.

    Returns:
        A function from a number to its place, and the ticks as places and texts.
    """
    low, high = min(values), max(values)
    log = is_far(low, high)
    scale = Scale(low, high, LEFT + 16, WIDTH - RIGHT - 16, log)
    if log:
        return scale, [(scale(tick), format_power(tick)) for tick in make_log_ticks(low, high)]
    return scale, [(scale(tick), f"{tick:g}") for tick in make_even_ticks(low, high)]
