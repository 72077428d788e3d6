"""Figures as SVG strings: plain values in, one drawing out, in the colours of the page that holds it.

Drawn by hand rather than by a plotting library: the figures are few and simple, follow the light and dark theme of the
report through CSS variables, and cost no start-up time. Each has a title and a description in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Final
from unicodedata import east_asian_width

WIDTH: Final = 460
HEIGHT: Final = 300
ROW: Final = 24
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 48, 46
_CHAR = 7.2  # mean width of a character, in units of the drawing
_STROKES: Final = ("var(--accent)", "var(--second)")
_DASHES: Final = ("none", "6 4")
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_JOINERS: Final = "\u200c\u200d"  # unprintable by Unicode's letter, but part of words and of emoji


@dataclass(frozen=True)
class Series:
    """A named line through points (x, y); points that are not finite are left out."""

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
        if high == low:
            return (self.start + self.end) / 2
        return self.start + (place - low) / (high - low) * (self.end - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    chosen: float | None = None,
) -> str:
    """Lines over a common axis; `chosen` marks the x that was kept. With `log_x` every x is positive."""
    lines = [Series(line.name, [point for point in line.points if all(map(math.isfinite, point))]) for line in series]
    xs = [x for line in lines for x, _ in line.points] or [1.0]
    ys = [y for line in lines for _, y in line.points] or [0.0, 1.0]
    low, high = _rounded(min(ys), max(ys))
    across = _Scale(min(xs), max(xs), _LEFT + 8, WIDTH - _RIGHT - 8, log_x)
    up = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    x_ticks = _powers(min(xs), max(xs)) if log_x else _ticks(min(xs), max(xs), whole=True)
    parts = [*_frame(across, up, x_ticks, _ticks(low, high), x_label, y_label)]
    if chosen is not None and min(xs) <= chosen <= max(xs):
        parts.extend(_mark(across(chosen)))
    for number, line in enumerate(lines):
        parts.extend(_line(line, number, across, up, chosen))
    parts.extend(_legend([line.name for line in lines], dashed=True))
    return _svg(title, _said(lines, x_label, chosen), "".join(parts), HEIGHT)


def interval_chart(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], x_label: str) -> str:
    """A dot with its 95 % interval for each named share, in the order given; an undefined one has a dash."""
    left, floor = _margin([name for name, _ in rows]), 10 + ROW * len(rows)
    ends = [end for _, metric in rows for end in (metric["low"], metric["value"]) if end is not None]
    start = min(0.8, math.floor(min(ends, default=0.0) * 10) / 10)
    across = _Scale(start, 1, left, WIDTH - _RIGHT - 52)
    parts = [*_percent_grid(across, floor)]
    for row, (name, metric) in enumerate(rows):
        y = 10 + ROW * row + ROW / 2
        parts.append(_name(name, left, y))
        parts.extend(_range(metric, across, y))
    beginning = f"; the axis begins at {100 * start:.0f} %" if start else ""
    parts.append(_x_label(f"{x_label}{beginning}", floor + 40, left))
    return _svg(title, _said_shares(rows), "".join(parts), floor + 48)


def reliability_chart(title: str, bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy with its interval against mean confidence, beside the diagonal of a calibrated network.

    A bin has `confidence` and `accuracy` (a metric); the area of its dot grows with its number of images.
    """
    across, up = _Scale(0, 1, _LEFT + 8, WIDTH - _RIGHT - 8), _Scale(0, 1, HEIGHT - _BOTTOM, _TOP)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [*_frame(across, up, ticks, ticks, "mean confidence", "share that is right")]
    ends = f'x1="{across(0):.1f}" y1="{up(0):.1f}" x2="{across(1):.1f}" y2="{up(1):.1f}"'
    parts.append(f'<line class="chosen" {ends}/>')
    most = max((item["accuracy"]["n"] for item in bins), default=1)
    for item in bins:
        x, share = across(item["confidence"]), item["accuracy"]
        radius = 3 + 4 * math.sqrt(share["n"] / (most or 1))
        parts.append(
            f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{up(share["low"]):.1f}" y2="{up(share["high"]):.1f}"/>'
            f'<circle class="dot" cx="{x:.1f}" cy="{up(share["value"]):.1f}" r="{radius:.1f}">'
            f"<title>{share['n']:,} images: mean confidence {_percent(item['confidence'])}, "
            f"{_percent(share['value'])} right</title></circle>"
        )
    said = [f"At {_percent(item['confidence'])} {_percent(item['accuracy']['value'])} are right" for item in bins]
    return _svg(title, ". ".join(said), "".join(parts), HEIGHT)


def counts_chart(title: str, rows: Sequence[tuple[str, Sequence[int]]], parts: Sequence[str]) -> str:
    """A bar of images for each class, in the order given, divided into at most two parts (splits)."""
    left, floor = _margin([name for name, _ in rows]), _TOP + ROW * len(rows)
    most = max((sum(counts) for _, counts in rows), default=0) or 1
    written = [" + ".join(f"{count:,}" for count in counts) for _, counts in rows]
    across = _Scale(0, most, left, WIDTH - _RIGHT - 10 - _CHAR * max(map(len, written), default=0))
    drawn = [*_legend(parts, dashed=False)]
    for row, ((name, counts), text) in enumerate(zip(rows, written, strict=True)):
        y = _TOP + ROW * row + ROW / 2
        drawn.append(_name(name, left, y))
        ends = [across(sum(counts[:number])) for number in range(len(counts) + 1)]
        for number, (start, end) in enumerate(pairwise(ends)):
            shape = f'x="{start:.1f}" width="{end - start:.1f}" y="{y - 7:.1f}" height="14"'
            drawn.append(f'<rect {shape} fill="{_STROKES[number % 2]}"/>')
        drawn.append(f'<text class="tick" x="{ends[-1] + 8:.1f}" y="{y + 4:.1f}">{text}</text>')
    said = "; ".join(f"{visible(name)} {text}" for (name, _), text in zip(rows, written, strict=True))
    return _svg(title, f"{' + '.join(parts)}: {said}", "".join(drawn), floor + 8)


def interval_strip(title: str, metric: Mapping[str, Any]) -> str:
    """One share between 0 and 100 %: a dot and its 95 % interval on a line."""
    across = _Scale(0, 1, 8, WIDTH - 12)
    parts = [f'<line class="grid" x1="8" x2="{WIDTH - 12}" y1="10" y2="10" stroke-width="2"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        anchor = "start" if tick == 0 else "end" if tick == 1 else "middle"
        at = {"start": 2.0, "end": WIDTH - 4.0}.get(anchor, across(tick))
        parts.append(f'<text class="tick" x="{at:.1f}" y="34" text-anchor="{anchor}">{_percent(tick)}</text>')
    if metric["value"] is not None:
        if metric["low"] is not None:
            ends = f'x1="{across(metric["low"]):.1f}" x2="{across(metric["high"]):.1f}"'
            parts.append(f'<line class="range" {ends} y1="10" y2="10" style="stroke-width: 9"/>')
        parts.append(f'<circle class="dot" cx="{across(metric["value"]):.1f}" cy="10" r="6"/>')
    return _svg(title, _said_share(metric), "".join(parts), 40)


def visible(name: str) -> str:
    """A name in which line breaks and other unprintable characters can be seen."""
    return "".join(
        char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode() for char in name
    )


def _line(
    line: Series, number: int, across: Callable[[float], float], up: Callable[[float], float], chosen: float | None
) -> Iterator[str]:
    stroke, dash = _STROKES[number % 2], _DASHES[number % 2]
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    yield f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2.2" stroke-dasharray="{dash}"/>'
    for x, y in line.points:
        place = f'cx="{across(x):.1f}" cy="{up(y):.1f}"'
        look = f'fill="var(--card)" stroke="{stroke}" stroke-width="2.6"' if x == chosen else f'fill="{stroke}"'
        yield f'<circle {place} r="{5 if x == chosen else 2.6}" {look}><title>{x:.4g}: {y:.4g}</title></circle>'


def _mark(x: float) -> Iterator[str]:
    """The dotted line of what was chosen, with its word on the side that has room."""
    yield f'<line class="chosen" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 14}" y2="{HEIGHT - _BOTTOM}"/>'
    right = x > WIDTH - 80
    anchor, shift = ("end", -5) if right else ("start", 5)
    yield f'<text class="tick" x="{x + shift:.1f}" y="{_TOP - 8}" text-anchor="{anchor}">chosen</text>'


def _legend(names: Sequence[str], *, dashed: bool) -> Iterator[str]:
    """The names of the parts with their looks, in the top right corner."""
    x = WIDTH - _RIGHT - sum(34 + _CHAR * _cells(name) for name in names) + 8
    for number, name in enumerate(names):
        stroke = _STROKES[number % 2]
        if dashed:
            look = f'stroke="{stroke}" stroke-width="2.4" stroke-dasharray="{_DASHES[number % 2]}"'
            yield f'<line x1="{x:.1f}" x2="{x + 18:.1f}" y1="12" y2="12" {look}/>'
        else:
            yield f'<rect x="{x + 6:.1f}" y="6" width="12" height="12" fill="{stroke}"/>'
        yield f'<text x="{x + 23:.1f}" y="16.5">{_text(name)}</text>'
        x += 34 + _CHAR * _cells(name)


def _frame(
    across: _Scale, up: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> Iterator[str]:
    floor = HEIGHT - _BOTTOM
    for tick, text in zip(y_ticks, _numbers(y_ticks), strict=True):
        y = up(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for tick, text in zip(x_ticks, _numbers(x_ticks), strict=True):
        x = across(tick)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        label = _power(tick) if across.log else text
        yield f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{label}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    yield _x_label(x_label, HEIGHT - 6, _LEFT)
    yield f'<text class="tick" x="2" y="16.5">{_text(y_label)}</text>'


def _percent_grid(across: _Scale, floor: float) -> Iterator[str]:
    for tick in _ticks(across.low, across.high):
        x = across(tick)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{floor}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{_percent(tick)}</text>'


def _range(metric: Mapping[str, Any], across: _Scale, y: float) -> Iterator[str]:
    value = metric["value"]
    if value is None:
        yield f'<text class="tick" x="{across.start + 4:.1f}" y="{y + 4:.1f}">–</text>'
        return
    if metric["low"] is not None:
        ends = f'x1="{across(metric["low"]):.1f}" x2="{across(metric["high"]):.1f}"'
        yield f'<line class="range" {ends} y1="{y}" y2="{y}"/>'
    yield f'<circle class="dot" cx="{across(value):.1f}" cy="{y}" r="4.5"/>'
    yield f'<text class="tick" x="{WIDTH - 2}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.1f} %</text>'


def _name(name: str, left: float, y: float) -> str:
    """The label of a row, cut to its margin; the whole name shows on pointing at it."""
    short = _short(visible(name), int((left - 12) / _CHAR))
    place = f'x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end"'
    return f"<text {place}>{escape(short)}<title>{_text(name)}</title></text>"


def _margin(names: Sequence[str]) -> float:
    return min(160.0, 16 + _CHAR * max((_cells(visible(name)) for name in names), default=0))


def _x_label(label: str, y: float, left: float) -> str:
    middle = (left + WIDTH - _RIGHT) / 2
    return f'<text class="tick" x="{middle:.0f}" y="{y:.0f}" text-anchor="middle">{_text(label)}</text>'


def _svg(title: str, description: str, body: str, height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{_text(title)}">'
        f"<title>{_text(title)}</title><desc>{_text(description)}</desc>{body}</svg>"
    )


def _said(lines: Sequence[Series], x_label: str, chosen: float | None) -> str:
    said = [
        f"{visible(line.name)}: {line.points[0][1]:.4g} at {line.points[0][0]:.4g}, "
        f"{line.points[-1][1]:.4g} at {line.points[-1][0]:.4g}"
        for line in lines
        if line.points
    ]
    return ". ".join([f"By {x_label}", *said, *([] if chosen is None else [f"Chosen: {chosen:.4g}"])])


def _said_shares(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return "; ".join(f"{visible(name)} {_said_share(metric)}" for name, metric in rows)


def _said_share(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "undefined"
    interval = "" if metric["low"] is None else f" ({100 * metric['low']:.1f} to {100 * metric['high']:.1f} %)"
    return f"{100 * metric['value']:.1f} %{interval}"


def _rounded(low: float, high: float) -> tuple[float, float]:
    step = _step(low, high)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return bottom, top if top > bottom else bottom + step


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
    """Powers of ten from low to high, at most eight of them; low itself when there is none between."""
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    return [10.0**power for power in powers[:: 1 + len(powers) // 9]] or [low]


def _power(value: float) -> str:
    power = math.log10(value)
    if abs(power - round(power)) > 1e-9:
        return f"{value:.2g}"
    return f"10{str(round(power)).translate(_RAISED)}" if abs(power) > 2.5 else f"{value:g}"


def _numbers(values: Sequence[float]) -> list[str]:
    """Numbers of one axis with the same digits after the point, as few as tell them apart."""
    if not values or not 1e-4 <= max(map(abs, values)) < 1e6:
        return [f"{value:.3g}" for value in values]
    digits = next((n for n in range(5) if all(abs(round(v, n) - v) < 1e-9 for v in values)), 5)
    return [f"{value:,.{digits}f}" for value in values]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _text(text: str) -> str:
    return escape(visible(text))


def _cells(text: str) -> int:
    """Columns that a text takes; East Asian characters take two."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _short(text: str, most: int) -> str:
    """A text cut to `most` columns."""
    if _cells(text) <= most:
        return text
    while text and _cells(text) > most - 1:
        text = text[:-1]
    return f"{text}…"
