"""A comparison's record to one HTML file, in the manner of `run_page.py`; computes no result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from budwood.comparison.importance import rank_options
from budwood.comparison.recipe_diff import describe_options, drop_defaults
from budwood.comparison.text import Cell, find_present_columns, format_gap, format_p_value, format_rows
from budwood.config.metric_registry import describe_metric, is_loss
from budwood.reporting.comparison_charts import (
    Curves,
    Dot,
    Point,
    draw_curves,
    draw_dots,
    draw_importance,
    draw_pareto,
    draw_slice,
)
from budwood.reporting.templating import load_template
from budwood.text import SPLITS, Unit

PAIRS_SHOWN: Final = 66
SLICES_SHOWN: Final = 8


def render_comparison(record: Mapping[str, Any], title: str = "") -> str:
    """Render a comparison as one HTML page.

    Args:
        record: What `Comparison.record()` gives.
        title: Heading of the page; empty for the name of the data.

    Returns:
        The page.
    """
    unit = Unit(is_loss(record["metric"]))
    cells = format_rows(record)
    rows = [{**one.row, "name": f"{one.rank}  {one.row['label']}"} for one in cells]
    name = describe_metric(record["metric"])
    html: str = load_template("comparison.html").render(
        record=record,
        title=title or record["data"].get("name", "comparison"),
        name=name,
        label=f"{SPLITS[record['split']]} {name}",
        split=SPLITS[record["split"]],
        rows=cells,
        best=[row for row in rows if row["best"]],
        tied=[row for row in rows if row["tied"]],
        has=find_present_columns(record),
        text=unit.text,
        dots=Markup(_draw_row_dots(rows, record, unit)),
        planes=[Markup(figure) for figure in _draw_planes(rows, name, unit)],
        curves=[Markup(figure) for figure in _draw_row_curves(rows, record["curves"])],
        shares=_rank_shares(rows),
        slices=[Markup(figure) for figure in _draw_slices(rows, name, unit)],
        importance=Markup(draw_importance("Share of the variance that each option explains", _rank_shares(rows))),
        pairs=_format_pairs(record["pairs"], unit) if 1 < len(record["pairs"]) <= PAIRS_SHOWN else [],
        tests=sorted({pair["test"] for pair in record["pairs"]}),
        base=describe_options(drop_defaults(record["base"])),
    )
    return html


def _draw_row_dots(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any], unit: Unit) -> str:
    label = describe_metric(record["metric"])
    dots = []
    for row in rows:
        given = row["published"] if row["published"] and row["published"]["metric"] == record["metric"] else None
        spread = row["spread"]
        dots.append(
            Dot(
                row["name"],
                row["value"],
                (spread["low"], spread["high"]) if spread else None,
                given["value"] if given else None,
                given is None or given["split"] == record["split"],
                row["tied"],
            )
        )
    return draw_dots(f"{label.capitalize()} of each row with its 95 % confidence interval", dots, label, unit)


def _draw_planes(rows: Sequence[Mapping[str, Any]], name: str, unit: Unit) -> list[str]:
    """The metric against time, and against all or the trained parameters: those in which rows differ more."""
    known = [row for row in rows if row["value"] and row["value"]["value"] is not None]
    sizes = {
        "parameters": [row["parameters"]["total"] for row in known],
        "trained parameters": [row["parameters"]["trainable"] for row in known],
    }
    farther = max(sizes, key=lambda kind: max(sizes[kind], default=1) / max(1, min(sizes[kind], default=1)))
    costs = {"training time in seconds": [row["training_seconds"] for row in known], farther: sizes[farther]}
    return [
        draw_pareto(
            f"{name.capitalize()} against {cost}",
            [
                Point(row["name"], float(value), row["value"], row["name"].partition(" ")[0])
                for row, value in zip(known, values, strict=True)
            ],
            cost,
            name,
            unit,
        )
        for cost, values in costs.items()
        if len(set(values)) > 1
    ]


def _draw_row_curves(rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Any]) -> list[str]:
    """Validation accuracy and loss of every row by epoch."""
    figures = []
    for column, name, unit in (("val_accuracy", "accuracy", Unit()), ("val_loss", "loss (nats)", Unit(loss=True))):
        drawn = [
            Curves(
                row["name"],
                [
                    [(one["epoch"], one[column]) for one in history if "epoch" in one]
                    for history in curves[row["label"]]
                ],
                row["tied"],
            )
            for row in rows
            if row["label"] in curves
        ]
        if any(run for row in drawn for run in row.runs):
            figures.append(draw_curves(f"Validation {name} by epoch", drawn, name, unit))
    return figures


def _list_records(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    return [
        (row["options"], row["value"]["value"])
        for row in rows
        if row["group"] == 1 and row["value"] and row["value"]["value"] is not None
    ]


def _rank_shares(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    return [(one.option.replace("_", " "), one.share) for one in rank_options(_list_records(rows))]


def _draw_slices(rows: Sequence[Mapping[str, Any]], name: str, unit: Unit) -> list[str]:
    """The metric against each option that varies, the most important first."""
    figures = []
    for one in rank_options(_list_records(rows))[:SLICES_SHOWN]:
        points = [
            (row["options"][one.option], row["value"]["value"], row["tied"])
            for row in rows
            if one.option in row["options"] and row["group"] == 1 and row["value"]
        ]
        figures.append(draw_slice(one.option.replace("_", " "), points, name, unit))
    return figures


def _format_pairs(pairs: Sequence[Mapping[str, Any]], unit: Unit) -> list[tuple[str, str, Cell, str, str, str]]:
    """Pairs as they are written, the surest first."""
    return [
        (
            pair["one"],
            pair["other"],
            format_gap(pair["difference"], unit),
            format_p_value(pair["p"]),
            format_p_value(pair["p_holm"]),
            pair["test"],
        )
        for pair in sorted(pairs, key=lambda one: one["p"])
    ]
