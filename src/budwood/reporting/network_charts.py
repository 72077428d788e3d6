"""Figures with one row a stage: the network as it stands after surgery, and how its stages moved in training."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from budwood.networks.network_plan import StagePlan
from budwood.networks.registry import HEAD, TRUNK, is_channels_last
from budwood.reporting.svg import CHAR, ROW, WIDTH, Scale, draw_row_name, measure_left_margin, to_xml, wrap_svg
from budwood.text import count_columns, shorten, show_unprintable

Rows = Sequence[StagePlan]

BAR, THIN, THICK = 132.0, 4.0, 18.0  # the widest bar of a stage, and how thick one of few and of many channels is
NAME_AT, SHAPE_AT = 150.0, 372.0
LOOKS: Final = {  # how a stage is drawn
    "frozen": 'fill="var(--rule)" stroke="var(--soft)"',
    "trained": 'fill="var(--accent)" stroke="var(--accent)"',
    "partly trained": 'fill="var(--accent)" fill-opacity="0.4" stroke="var(--accent)"',
    "new head": 'fill="var(--second)" stroke="var(--second)"',
    "no parameters": 'fill="none" stroke="var(--soft)"',
    "cut off": 'fill="none" stroke="var(--soft)" stroke-dasharray="3 3" opacity="0.7"',
}
SPARK, LAST = 92.0, 62.0  # widths of a small curve, and of the number behind it


def draw_network(
    title: str, image: Sequence[int], stages: Rows, removed: Rows, head: str, taps: Collection[str] = ()
) -> str:
    """Draw a network from the image down to the logits, one bar for each stage.

    A bar is as wide as the map is large and as thick as it has channels, both on logarithmic scales.

    Args:
        title: Title of the figure.
        image: Shape of the image: channels, size, size.
        stages: The stages, the trunk and the head, each with `name`, `shape`, `parameters` and `trainable` as in a
            plan.
        removed: The stages that surgery has cut off, with the same keys.
        head: Name of the head.
        taps: Names of the stages that the head sees beside the trunk.

    Returns:
        The figure as an SVG element.
    """
    places = [row for row in stages if row.name not in (TRUNK, head)]
    trunk = [row for row in stages if row.name == TRUNK]
    heads = [row for row in stages if row.name == head]
    rows: list[tuple[str, Sequence[int], int | None, str]] = [("image", image, None, "no parameters")]
    named = [f"{row.name} (tap)" if row.name in taps else row.name for row in places]
    rows += [(name, row.shape, row.parameters, _describe_state(row)) for name, row in zip(named, places, strict=True)]
    rows += [(row.name, row.shape, row.parameters, "cut off") for row in removed]
    rows += [(row.name, row.shape, row.parameters, _describe_state(row)) for row in trunk]
    rows += [(row.name if row.name == HEAD else f"{row.name} (head)", *_stage_facts(row)) for row in heads]
    sizes = [_measure_output(shape) for _, shape, _, _ in rows]
    wide = Scale(0, max(math.log2(1 + side) for side, _ in sizes), 3, BAR)
    thick = Scale(0, max(math.log2(1 + channels) for _, channels in sizes), THIN, THICK)
    shown = [look for look in LOOKS if look in {row[3] for row in rows}]
    parts = [*_draw_legend(shown)]
    top = 34.0
    for (name, shape, parameters, look), (side, channels) in zip(rows, sizes, strict=True):
        width, height = wide(math.log2(1 + side)), thick(math.log2(1 + channels))
        y = top + ROW / 2
        box = f'x="{(BAR - width) / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"'
        parts.append(f"<rect {box} {LOOKS[look]}><title>{to_xml(name)}: {to_xml(look)}</title></rect>")
        soft = ' class="tick"' if look == "cut off" else ""
        size = " × ".join(map(str, shape))
        short = _cut_to_ending(show_unprintable(name), int((SHAPE_AT - 8 - NAME_AT) / CHAR) - count_columns(size))
        parts.append(f'<text x="{NAME_AT}" y="{y + 4:.1f}"{soft}>{to_xml(short)}<title>{to_xml(name)}</title></text>')
        end = 'text-anchor="end" class="tick"'
        parts.append(f'<text x="{SHAPE_AT}" y="{y + 4:.1f}" {end}>{to_xml(size)}</text>')
        if parameters is not None:
            parts.append(f'<text x="{WIDTH}" y="{y + 4:.1f}" {end}>{parameters:,}</text>')
        top += ROW
    end = 'y="26" text-anchor="end" class="tick"'
    parts += [f'<text x="{SHAPE_AT}" {end}>output</text>', f'<text x="{WIDTH}" {end}>parameters</text>']
    said = "; ".join(f"{show_unprintable(name)} {' x '.join(map(str, shape))} {look}" for name, shape, _, look in rows)
    return wrap_svg(title, said, "".join(parts), top + 4)


def draw_norms(title: str, weights: Mapping[str, Sequence[float]], gradients: Mapping[str, Sequence[float]]) -> str:
    """Draw how the weights and gradients of each stage changed in training, as small curves over the epochs.

    Weights: the change of their norm relative to the first epoch that has it. Gradients: their mean norm, on one
    logarithmic scale for all stages. A stage without a gradient above 0 is shown as frozen.

    Args:
        title: Title of the figure.
        weights: Norm of the weights by epoch, for each stage.
        gradients: Mean norm of the gradients by epoch, for each stage.

    Returns:
        The figure as an SVG element.
    """
    left = measure_left_margin([*weights])
    moved = {stage: _relative_to_first(values) for stage, values in weights.items()}
    steep = {stage: [math.log10(v) if v > 0 else math.nan for v in gradients.get(stage, ())] for stage in weights}
    far = max((abs(v) for values in moved.values() for v in values if math.isfinite(v)), default=0.0) or 1.0
    powers = [v for values in steep.values() for v in values if math.isfinite(v)] or [0.0]
    first, second = left, left + SPARK + LAST + 12
    stretch = (WIDTH - 2 - second - LAST) / SPARK
    parts = [
        f'<text class="tick" x="{first}" y="12">weight norm, change</text>',
        f'<text class="tick" x="{second}" y="12">mean norm of gradients</text>',
    ]
    said = []
    for row, stage in enumerate(weights):
        y = 20 + ROW * row
        middle = y + ROW / 2
        parts.append(draw_row_name(stage, left, middle))
        frozen = not any(value > 0 for value in gradients.get(stage, ()))
        if frozen:
            parts.append(f'<text class="tick" x="{first}" y="{middle + 4}">frozen</text>')
            said.append(f"{show_unprintable(stage)} frozen")
            continue
        parts += _draw_spark(moved[stage], Scale(-far, far, y + ROW - 4, y + 4), first, SPARK)
        change, slope = _last_number(moved[stage]), _last_number(steep[stage])
        told = f"{100 * change:+.2f} %" if math.isfinite(change) else "–"
        parts.append(_draw_number(first + SPARK + LAST - 4, middle, told))
        parts += _draw_spark(steep[stage], Scale(min(powers), max(powers), y + ROW - 4, y + 4), second, SPARK * stretch)
        parts.append(_draw_number(WIDTH - 2, middle, f"{10**slope:.2g}"))
        said.append(f"{show_unprintable(stage)} weights {told}, gradients {10**slope:.2g}")
    return wrap_svg(title, "; ".join(said), "".join(parts), 24 + ROW * len(weights))


def _cut_to_ending(name: str, most: int) -> str:
    """A name cut to so many columns, of which its end tells most."""
    return name if count_columns(name) <= most else f"…{shorten(name[::-1], most)[:-1][::-1]}"


def _stage_facts(row: StagePlan) -> tuple[list[int], int, str]:
    return list(row.shape), row.parameters, "new head"


def _describe_state(row: StagePlan) -> str:
    if not row.parameters:
        return "no parameters"
    if not row.trainable:
        return "frozen"
    return "trained" if row.trainable == row.parameters else "partly trained"


def _measure_output(shape: Sequence[int]) -> tuple[float, int]:
    """The side of an output's map and how many channels it has; tokens count as the square that they make."""
    if len(shape) == 3:
        return (shape[0], shape[2]) if is_channels_last(shape) else (shape[1], shape[0])
    return (math.sqrt(shape[0]), shape[1]) if len(shape) == 2 else (1, shape[0])


def _draw_legend(looks: Sequence[str]) -> Iterator[str]:
    x = 0.0
    for look in looks:
        yield f'<rect x="{x + 0.5:.1f}" y="0.5" width="11" height="11" rx="2" {LOOKS[look]}/>'
        yield f'<text class="tick" x="{x + 16:.1f}" y="10.5">{look}</text>'
        x += 30 + 6.4 * count_columns(look)


def _relative_to_first(values: Sequence[float]) -> list[float]:
    """Values relative to the first that is a number, less one."""
    start = next((value for value in values if math.isfinite(value)), math.nan)
    return [value / start - 1 if start else math.nan for value in values]


def _last_number(values: Sequence[float]) -> float:
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def _draw_spark(values: Sequence[float], up: Scale, x: float, width: float) -> Iterator[str]:
    """A small curve; what is no number is left out."""
    across = Scale(0, max(len(values) - 1, 1), x, x + width - 6)
    points = [(across(n), up(value)) for n, value in enumerate(values) if math.isfinite(value)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    yield f'<line class="grid" x1="{x}" x2="{x + width - 6:.1f}" y1="{up.start:.1f}" y2="{up.start:.1f}"/>'
    yield f'<polyline points="{path}" fill="none" stroke="var(--accent)" stroke-width="1.8"/>'
    if points:
        yield f'<circle class="dot" cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.4"/>'


def _draw_number(x: float, y: float, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
