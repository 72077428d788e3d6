"""Figures as SVG strings: plain values in, one drawing out, in the colours of the page that holds it.

Drawn by hand rather than by a plotting library: the figures are few and simple, follow the light and dark theme of the
report through CSS variables, and cost no start-up time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

WIDTH: Final = 520
HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 34, 48
_STROKES: Final = ("var(--accent)", "var(--second)")
_DASHES: Final = ("none", "5 4")


@dataclass(frozen=True)
class Series:
    """A named line through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        place, low, high = (math.log10(v) if self.log else v for v in (value, self.low, self.high))
        return self.start + (place - low) / ((high - low) or 1) * (self.end - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    chosen: float | None = None,
) -> str:
    """Lines over a common axis; `chosen` marks the x that was kept."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points if math.isfinite(y)]
    low, high = _rounded(min(ys), max(ys))
    across = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT, log_x)
    up = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    x_ticks = _powers(min(xs), max(xs)) if log_x else _ticks(min(xs), max(xs), whole=True)
    parts = [*_frame(across, up, x_ticks, _ticks(low, high), x_label, y_label)]
    if chosen is not None:
        x = across(chosen)
        parts.append(f'<line class="chosen" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    for number, line in enumerate(series):
        parts.extend(_line(line, number, across, up))
    return _svg(title, "".join(parts), HEIGHT)


def interval_chart(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], x_label: str) -> str:
    """A dot with its 95 % interval for each named metric between 0 and 1; undefined ones have no dot."""
    height = 26 * len(rows) + _BOTTOM + 12
    left = min(190, 20 + 7 * max(len(name) for name, _ in rows))
    across = _Scale(0, 1, left, WIDTH - _RIGHT)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    for row, (name, metric) in enumerate(rows):
        y = 20 + 26 * row
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(_short(name, 24))}</text>')
        if metric["value"] is not None:
            parts.append(
                f'<line class="range" x1="{across(metric["low"]):.1f}" x2="{across(metric["high"]):.1f}" '
                f'y1="{y}" y2="{y}"/>'
                f'<circle class="dot" cx="{across(metric["value"]):.1f}" cy="{y}" r="4.5"/>'
            )
    parts.append(_x_label(x_label, height, left))
    return _svg(title, "".join(parts), height)


def reliability_chart(title: str, bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy with its interval against mean confidence, beside the diagonal of a calibrated network."""
    across, up = _Scale(0, 1, _LEFT, WIDTH - _RIGHT), _Scale(0, 1, HEIGHT - _BOTTOM, _TOP)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = [*_frame(across, up, ticks, ticks, "mean confidence", "share that is right")]
    parts.append(f'<line class="chosen" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>')
    for item in bins:
        x, share = across(item["confidence"]), item["accuracy"]
        parts.append(
            f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{up(share["low"]):.1f}" y2="{up(share["high"]):.1f}"/>'
            f'<circle class="dot" cx="{x:.1f}" cy="{up(share["value"]):.1f}" r="4.5"/>'
        )
    return _svg(title, "".join(parts), HEIGHT)


def _line(line: Series, number: int, across: Callable[[float], float], up: Callable[[float], float]) -> Iterator[str]:
    stroke, dash = _STROKES[number % 2], _DASHES[number % 2]
    places = [(across(x), up(y)) for x, y in line.points if math.isfinite(y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2.2" stroke-dasharray="{dash}"/>'
    yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{stroke}"/>' for x, y in places)
    x = _LEFT + 8 + 120 * number
    look = f'stroke="{stroke}" stroke-width="2.2" stroke-dasharray="{dash}"'
    yield f'<line x1="{x}" x2="{x + 22}" y1="16" y2="16" {look}/>'
    yield f'<text x="{x + 28}" y="20">{escape(line.name)}</text>'


def _frame(
    across: _Scale, up: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> Iterator[str]:
    floor = HEIGHT - _BOTTOM
    for tick in y_ticks:
        y = up(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for tick in x_ticks:
        yield f'<text class="tick" x="{across(tick):.1f}" y="{floor + 18}" text-anchor="middle">{_number(tick)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    yield _x_label(x_label, HEIGHT, _LEFT)
    turned = f"translate(13 {(_TOP + floor) / 2}) rotate(-90)"
    yield f'<text class="tick" transform="{turned}" text-anchor="middle">{escape(y_label)}</text>'


def _x_label(label: str, height: int, left: int) -> str:
    middle = (left + WIDTH - _RIGHT) / 2
    return f'<text class="tick" x="{middle:.0f}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>'


def _svg(title: str, body: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _rounded(low: float, high: float) -> tuple[float, float]:
    step = _step(low, high)
    return math.floor(low / step) * step, math.ceil(high / step) * step or step


def _step(low: float, high: float) -> float:
    raw = ((high - low) or abs(high) or 1) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    step = max(1.0, _step(low, high)) if whole else _step(low, high)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + number) * step, 10) for number in range(count)]


def _powers(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
