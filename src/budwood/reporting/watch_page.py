"""The pages about a model in use: drift of its images, and its learning curve with the forecast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from budwood.evaluation.intervals import Metric
from budwood.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    describe_share,
    draw_frame,
    make_even_ticks,
    round_range,
    wrap_svg,
)
from budwood.reporting.templating import load_template

Points = Sequence[tuple[float, float]]


def render_drift(title: str, drift: Mapping[str, Any], thumbnails: Mapping[str, str | None]) -> str:
    """Render the findings about drift as one HTML page.

    Args:
        title: Name of the run.
        drift: The findings as plain values, as `Drift.table` gives them.
        thumbnails: Data URIs of the strangest new images and of the training images beside them, by path.

    Returns:
        The page.
    """
    return load_template("drift.html").render(title=title, drift=drift, thumbnails=thumbnails)


def render_curve(title: str, report: Mapping[str, Any], line: Points, bands: Sequence[tuple[int, Metric]]) -> str:
    """Render a learning curve as one HTML page.

    Args:
        title: Name of the run.
        report: The curve with its forecasts as plain values, as `CurveReport.table` gives them.
        line: Points (images, accuracy) of the fitted curve, up to the last forecast.
        bands: Forecast accuracies by number of images.

    Returns:
        The page.
    """
    points = [(float(one["images"]), float(one["accuracy"])) for one in report["points"]]
    chart = draw_learning_curve("Accuracy by number of training images", points, line, bands)
    return load_template("curve.html").render(title=title, report=report, chart=Markup(chart))


def draw_learning_curve(title: str, points: Points, line: Points, bands: Sequence[tuple[int, Metric]]) -> str:
    """Draw measured accuracies, the fitted curve and the intervals of forecasts over a logarithmic axis.

    Args:
        title: Title of the figure.
        points: Measured (images, accuracy), the first with the fewest images.
        line: Points of the fitted curve; what lies beyond the measured ones is dashed.
        bands: Forecast accuracies by number of images.

    Returns:
        The figure as an SVG element.
    """
    ends = [end for _, metric in bands for end in (metric.low, metric.high) if end is not None]
    values = [value for _, value in (*points, *line)] + ends
    low, high = round_range(min(values), min(1.0, max(values)))
    first, last = points[0][0], max([x for x, _ in line] + [points[-1][0]])
    across = Scale(first, last, LEFT + 8, WIDTH - RIGHT - 22, log=True)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = list(draw_frame(across, up, [], make_even_ticks(low, high), "training images", "accuracy (validation)"))
    parts.extend(_draw_counts(across, [first, points[-1][0], *[float(images) for images, _ in bands]]))
    known = points[-1][0]
    for dash, part in (
        ("none", [(x, y) for x, y in line if x <= known]),
        ("5 4", [(x, y) for x, y in line if x >= known]),
    ):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in part)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="var(--accent)" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
    for images, metric in bands:
        if metric.low is not None and metric.high is not None:
            x = across(float(images))
            parts.append(
                f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{up(metric.low):.1f}" y2="{up(metric.high):.1f}"/>'
            )
    for x, y in points:
        parts.append(
            f'<circle class="dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4"><title>{x:,.0f}: {y:.1%}</title></circle>'
        )
    told = [f"{y:.1%} with {x:,.0f}" for x, y in points]
    told += [f"forecast with {images:,}: {describe_share(metric)}" for images, metric in bands]
    return wrap_svg(title, "Accuracy by training images: " + "; ".join(told), "".join(parts), HEIGHT)


def _draw_counts(across: Scale, counts: Sequence[float]) -> Iterator[str]:
    """Ticks at numbers of images."""
    floor = HEIGHT - BOTTOM
    for count in counts:
        x = across(count)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{count:,.0f}</text>'
