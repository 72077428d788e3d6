"""A figure of one option: the metric of each split against its values, beside published figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from budwood.evaluation.intervals import Metric
from budwood.reporting.metric_axes import draw_metric_frame, list_ends, make_numeric_axis, make_value_scale
from budwood.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LETTER,
    RIGHT,
    WIDTH,
    Scale,
    draw_diamond,
    to_xml,
    wrap_svg,
)
from budwood.text import SPLITS, Unit, show_unprintable

COLOURS: Final = {"train": "var(--green)", "val": "var(--accent)", "test": "var(--violet)"}
_APART: Final = 7.0  # how far the splits of one value stand apart, so that their intervals do not cover each other
_LEGEND: Final = 36.0  # height of the line that says what the marks are


@dataclass(frozen=True)
class SweepPoint:
    """A row at the value of its option.

    Attributes:
        value: Value of the option.
        metrics: The metric of each split, `train`, `val` or `test`, that was measured.
        published: The ends of each published range by split, or the published value twice.
    """

    value: float
    metrics: Mapping[str, Metric]
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def draw_sweep(option: str, points: Sequence[SweepPoint], y_label: str, unit: Unit) -> str:
    """Draw the metric of each split against the values of an option.

    The axis is logarithmic where values are far apart. Bars are intervals, diamonds published figures, each in the
    colour of its split.

    Args:
        option: Name of the option.
        points: The rows, by rising value; at least one has a metric.
        y_label: Label of the metric axis.
        unit: Unit of the metric.

    Returns:
        The figure as an SVG element.
    """
    place, x_ticks = make_numeric_axis([point.value for point in points])
    ends = [end for point in points for metric in point.metrics.values() for end in list_ends(metric)]
    ends += [end for point in points for pair in point.published.values() for end in pair]
    up, y_ticks = make_value_scale(ends, HEIGHT - BOTTOM)
    parts = [*draw_metric_frame(Scale(0, 1, LEFT, WIDTH - RIGHT), up, [], y_ticks, option, y_label, unit, HEIGHT)]
    for x, text in x_ticks:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - 46}" y2="{HEIGHT - 42}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 28}" text-anchor="middle">{to_xml(text)}</text>')
    present = [split for split in SPLITS if any(split in one.metrics or split in one.published for one in points)]
    for number, split in enumerate(present):
        shift = _APART * (number - (len(present) - 1) / 2)
        parts.extend(_draw_split(split, points, [place(one.value) + shift for one in points], up, unit))
    parts.extend(_draw_legend(points, present))
    return wrap_svg(f"{y_label} against {option}", _describe(points, present, unit), "".join(parts), HEIGHT)


def _draw_split(
    split: str, points: Sequence[SweepPoint], places: Sequence[float], up: Scale, unit: Unit
) -> Iterator[str]:
    """The joined values of one split with their intervals, and what was published of it."""
    colour = COLOURS[split]
    known = [(x, one.metrics[split]) for x, one in zip(places, points, strict=True) if split in one.metrics]
    drawn = [(x, metric.value, metric) for x, metric in known if metric.value is not None]
    path = " ".join(f"{x:.1f},{up(value):.1f}" for x, value, _ in drawn)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    for x, value, metric in drawn:
        if metric.low is not None and metric.high is not None:
            bar = f'x1="{x:.1f}" x2="{x:.1f}" y1="{up(metric.low):.1f}" y2="{up(metric.high):.1f}"'
            yield f'<line {bar} stroke="{colour}" stroke-width="3" stroke-linecap="round" opacity="0.4"/>'
        told = f"<title>{SPLITS[split]}: {unit.text(value)}</title>"
        yield f'<circle cx="{x:.1f}" cy="{up(value):.1f}" r="4" fill="{colour}">{told}</circle>'
    for x, one in zip(places, points, strict=True):
        for end in dict.fromkeys(one.published.get(split, ())):
            told = f"<title>published, {SPLITS[split]}: {unit.text(end)}</title>"
            yield draw_diamond(x, up(end), colour, told)


def _draw_legend(points: Sequence[SweepPoint], splits: Sequence[str]) -> Iterator[str]:
    measured = {split for one in points for split in one.metrics}
    marks = [("●" if split in measured else "◆", SPLITS[split], COLOURS[split]) for split in splits]
    if any(one.published for one in points):
        marks.append(("◆", "published, in the same colours", "var(--soft)"))
    x = float(LEFT)
    for mark, text, colour in marks:
        yield f'<text class="tick" x="{x:.1f}" y="{_LEGEND}"><tspan style="fill: {colour}">{mark}</tspan> {text}</text>'
        x += 24 + LETTER * len(text)


def _describe(points: Sequence[SweepPoint], splits: Sequence[str], unit: Unit) -> str:
    told = []
    for one in points:
        metrics = [(SPLITS[split], one.metrics[split].value) for split in splits if split in one.metrics]
        said = [f"{name} {unit.text(value)}" for name, value in metrics if value is not None]
        said += [
            f"published {SPLITS[split]} {' to '.join(dict.fromkeys(map(unit.text, ends)))}"
            for split, ends in one.published.items()
        ]
        told.append(f"{one.value:g}: {', '.join(said) or 'no figure'}")
    return show_unprintable("; ".join(told))
