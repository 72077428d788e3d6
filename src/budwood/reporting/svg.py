"""The parts that figures are drawn of: scales, ticks, axes, texts, as strings of SVG in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

from budwood.evaluation.intervals import Metric
from budwood.text import LEAST_TOLD, count_columns, say_too_few, shorten, show_unprintable

WIDTH: Final = 460
HEIGHT: Final = 300
ROW: Final = 24
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 48, 46
CHAR: Final = 7.2  # mean width of a character, in units of the drawing
LETTER: Final = 6.2  # that of a small text
LINE: Final = 13  # height of a small text
SMALL: Final = ' style="font-size: 12px"'
_DECIMALS: Final = 12  # of a tick, at most
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Mapping from values to coordinates in a drawing, linear or logarithmic.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Coordinate of `low`.
        end: Coordinate of `high`.
        log: Whether the scale is logarithmic; then all values are positive.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value.

        Args:
            value: The value.

        Returns:
            The coordinate; the middle where `low` and `high` are equal.
        """
        place, low, high = (math.log10(v) if self.log else v for v in (value, self.low, self.high))
        if high == low:
            return (self.start + self.end) / 2
        return self.start + (place - low) / (high - low) * (self.end - self.start)


def draw_frame(
    across: Scale,
    up: Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
    height: float = HEIGHT,
) -> Iterator[str]:
    """Draw axes with ticks and labels; the y label stands at the top left.

    Args:
        across: Scale of the x axis.
        up: Scale of the y axis.
        x_ticks: Values of the ticks on the x axis.
        y_ticks: Values of the ticks on the y axis.
        x_label: Label of the x axis.
        y_label: Label of the y axis.
        height: Height of the drawing.

    Yields:
        SVG elements.
    """
    floor = height - BOTTOM
    for tick, text in zip(y_ticks, format_numbers(y_ticks), strict=True):
        y = up(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for tick, text in zip(x_ticks, format_numbers(x_ticks), strict=True):
        x = across(tick)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        label = format_power(tick) if across.log else text
        yield f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{label}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'
    yield draw_x_title(x_label, height - 6, LEFT)
    yield f'<text class="tick" x="2" y="16.5">{to_xml(y_label)}</text>'


def draw_percent_grid(across: Scale, floor: float) -> Iterator[str]:
    """Draw vertical lines at even shares, with their values below.

    Args:
        across: Scale of shares, 0 to 1.
        floor: Lower end of the lines.

    Yields:
        SVG elements.
    """
    for tick in make_even_ticks(across.low, across.high):
        x = across(tick)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{floor}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{format_percent(tick)}</text>'


def draw_interval(metric: Metric, across: Scale, y: float) -> Iterator[str]:
    """Draw a dot with its 95 % interval, and its value at the right; a dash where it is undefined.

    In place of a figure of fewer than 5 images stands that they are too few.

    Args:
        metric: A share from 0 to 1; its value is None where it is undefined.
        across: Scale of shares.
        y: Height at which to draw.

    Yields:
        SVG elements.
    """
    value = metric.value
    if value is None:
        yield f'<text class="tick" x="{across.start + 4:.1f}" y="{y + 4:.1f}">–</text>'
        return
    if metric.n < LEAST_TOLD:
        yield f'<text class="tick" x="{WIDTH - 2}" y="{y + 4:.1f}" text-anchor="end">{say_too_few(metric.n)}</text>'
        return
    if metric.low is not None and metric.high is not None:
        ends = f'x1="{across(metric.low):.1f}" x2="{across(metric.high):.1f}"'
        yield f'<line class="range" {ends} y1="{y}" y2="{y}"/>'
    yield f'<circle class="dot" cx="{across(value):.1f}" cy="{y}" r="4.5"/>'
    yield f'<text class="tick" x="{WIDTH - 2}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.1f} %</text>'


def draw_diamond(x: float, y: float, colour: str, inner: str = "") -> str:
    """Draw a diamond, the mark of published values.

    Args:
        x: Its middle.
        y: Its middle.
        colour: The colour of its line and its inside.
        inner: Elements inside, such as a title.

    Returns:
        An SVG element.
    """
    shape = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
    return f'<polygon points="{shape}" fill="{colour}" stroke="{colour}" stroke-width="1.6">{inner}</polygon>'


def draw_row_name(name: str, left: float, y: float, *, small: bool = False) -> str:
    """Draw the label of a row, cut to its margin, with the whole name as a tooltip.

    Args:
        name: The label.
        left: Width of the margin.
        y: Height at which to draw.
        small: Whether the text is small.

    Returns:
        An SVG element.
    """
    short = shorten(show_unprintable(name), int((left - 12) / (LETTER if small else CHAR)))
    place = f'x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end"{SMALL if small else ""}'
    return f"<text {place}>{escape(short)}<title>{to_xml(name)}</title></text>"


def measure_left_margin(names: Sequence[str]) -> float:
    """Measure the room that the names of rows need.

    Args:
        names: The names.

    Returns:
        Width in units of the drawing, at most 160.
    """
    return min(160.0, 16 + CHAR * max((count_columns(show_unprintable(name)) for name in names), default=0))


def draw_x_title(label: str, y: float, left: float) -> str:
    """Draw the label of the x axis.

    Args:
        label: The label.
        y: Height at which to draw.
        left: Left end of the axis.

    Returns:
        An SVG element.
    """
    middle = (left + WIDTH - RIGHT) / 2
    return f'<text class="tick" x="{middle:.0f}" y="{y:.0f}" text-anchor="middle">{to_xml(label)}</text>'


def wrap_svg(title: str, description: str, body: str, height: float) -> str:
    """Wrap the parts of a drawing in an SVG element with a title and a description in words.

    Args:
        title: Title of the figure.
        description: The figure in words, for readers who cannot see it.
        body: SVG elements.
        height: Height of the drawing; its width is `WIDTH`.

    Returns:
        The SVG element.
    """
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{to_xml(title)}">'
        f"<title>{to_xml(title)}</title><desc>{to_xml(description)}</desc>{body}</svg>"
    )


def describe_shares(rows: Sequence[tuple[str, Metric]]) -> str:
    """Describe named shares in words.

    Args:
        rows: Name and metric of each share.

    Returns:
        One text, the shares separated by semicolons.
    """
    return "; ".join(f"{show_unprintable(name)} {describe_share(metric)}" for name, metric in rows)


def describe_share(metric: Metric) -> str:
    """Describe a share with its interval in words.

    Args:
        metric: A share from 0 to 1; its value is None where it is undefined.

    Returns:
        Percentages, such as "93.1 % (90.0 to 95.3 %)", "undefined" or that the images are too few.
    """
    if metric.value is None:
        return "undefined"
    if metric.n < LEAST_TOLD:
        return say_too_few(metric.n)
    value = f"{100 * metric.value:.1f} %"
    if metric.low is None or metric.high is None:
        return value
    return f"{value} ({100 * metric.low:.1f} to {100 * metric.high:.1f} %)"


def round_range(low: float, high: float) -> tuple[float, float]:
    """Extend a range to the nearest ticks outside it.

    Args:
        low: Lowest value.
        high: Highest value.

    Returns:
        The tick at or below the lowest value, and the one at or above the highest, never equal.
    """
    step = choose_tick_step(low, high)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return bottom, top if top > bottom else bottom + step


def choose_tick_step(low: float, high: float) -> float:
    """Choose a round distance between about six ticks.

    Args:
        low: Lowest value.
        high: Highest value.

    Returns:
        1, 2 or 5 times a power of ten.
    """
    raw = ((high - low) or abs(high) or 1) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)


def make_even_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Make evenly spaced round values within a range.

    Args:
        low: Lowest value.
        high: Highest value.
        whole: Whether the values are integers.

    Returns:
        The values, rising.
    """
    step = max(1.0, choose_tick_step(low, high)) if whole else choose_tick_step(low, high)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    digits = 10 - math.floor(math.log10(step))
    return [round((first + number) * step, digits) for number in range(count)]


def make_power_ticks(low: float, high: float) -> list[float]:
    """Make ticks at powers of ten within a range, at most nine of them.

    Args:
        low: Lowest value, above 0.
        high: Highest value.

    Returns:
        The values, rising; `low` itself where no power of ten lies in the range.
    """
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    return [10.0**power for power in powers[:: 1 + len(powers) // 9]] or [low]


def format_power(value: float) -> str:
    """Format a tick of a logarithmic axis as people write it: 0.05, 10⁻⁴, 2·10⁵.

    Args:
        value: The value, above 0.

    Returns:
        The text.
    """
    power = math.floor(math.log10(value) + 1e-9)
    if abs(power) < 3:
        return f"{value:.2g}" if value < 1 else f"{value:g}"
    raised, factor = f"10{str(power).translate(_RAISED)}", value / 10.0**power
    return raised if abs(factor - 1) < 1e-9 else f"{factor:.2g}·{raised}"


def format_numbers(values: Sequence[float]) -> list[str]:
    """Format the numbers of one axis with the same number of decimals, as few as distinguish them.

    Args:
        values: The numbers.

    Returns:
        Their texts, in order, different wherever the numbers are; powers of ten where they are very large or small.
    """
    if not values or not 1e-4 <= max(map(abs, values)) < 1e6:
        apart = (digits for digits in range(3, 16) if len({f"{v:.{digits}g}" for v in values}) == len(set(values)))
        digits = next(apart, 16)
        return [f"{value:.{digits}g}" for value in values]
    step = min((abs(one - other) for one, other in pairwise(sorted(set(values)))), default=1.0)
    digits = next((n for n in range(_DECIMALS) if all(abs(round(v, n) - v) < 1e-6 * step for v in values)), _DECIMALS)
    return [f"{value:,.{digits}f}" for value in values]


def format_percent(share: float) -> str:
    """Format a share in whole percent.

    Args:
        share: 0 to 1.

    Returns:
        The text, such as "93 %".
    """
    return f"{100 * share:.0f} %"


def to_xml(text: str) -> str:
    """Escape a text for XML, with unprintable characters spelt out.

    Args:
        text: The text.

    Returns:
        The escaped text.
    """
    return escape(show_unprintable(text))
