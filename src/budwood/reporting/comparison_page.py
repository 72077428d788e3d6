"""A comparison to one HTML file, in the manner of `run_page.py`; computes no result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup

from budwood.comparison.claims import ALTERED, format_claims
from budwood.comparison.document import Comparison, Pair
from budwood.comparison.importance import Importance, rank_options
from budwood.comparison.published import find_figure
from budwood.comparison.published_text import SEALED, Cell, join_published
from budwood.comparison.recipe_diff import describe_options, drop_defaults
from budwood.comparison.rows import ComparisonRow
from budwood.comparison.sweeps import find_sweeps
from budwood.comparison.tested_rows import describe_tested, format_tested_rows
from budwood.comparison.text import Cells, Order, find_present_columns, format_gap, format_p_value, format_rows
from budwood.config.metric_registry import describe_metric, is_loss
from budwood.evaluation.result_checks import History
from budwood.reporting.comparison_charts import Curves, Dot, draw_curves, draw_dots
from budwood.reporting.cost_charts import Point, draw_pareto
from budwood.reporting.option_charts import draw_importance, draw_slice
from budwood.reporting.sweep_charts import SweepPoint, draw_sweep
from budwood.reporting.templating import render_page
from budwood.text import SPLITS, Unit

PAIRS_SHOWN: Final = 66
SLICES_SHOWN: Final = 8
SWEEPS_SHOWN: Final = 8
SWEEPS_OF_ONE: Final = 2  # of one option, among rows with other options


@dataclass(frozen=True)
class About:
    """Where the rows of a page come from.

    Attributes:
        source: Where they were published.
        caveats: What readers of the table must know.
        assumed: What the source does not tell: what was chosen and why, by what it is about.
        changed: The options that were set for every row, so that these are not the rows as the study has them; empty
            where none was.
    """

    source: str = ""
    caveats: Sequence[str] = ()
    assumed: Mapping[str, str] = field(default_factory=dict)
    changed: str = ""


def render_comparison(made: Comparison, title: str = "", order: Order = "metric", about: About | None = None) -> str:
    """Render a comparison as one HTML page.

    Args:
        made: The comparison.
        title: Heading of the page; empty for the name of the data.
        order: Of the rows: `given`, or `metric`: the best first.
        about: Where the rows come from; None: not told.

    Returns:
        The page.
    """
    unit = Unit(is_loss(made.metric))
    rows = format_rows(made, order)
    name = describe_metric(made.metric)
    shares, has = _rank_shares(rows), find_present_columns(made)
    return render_page(
        "comparison.html",
        made=made,
        title=title or (made.data.name if made.data else "comparison"),
        name=name,
        order=order,
        about=about,
        altered=ALTERED if about and about.changed else "",
        label=f"{SPLITS[made.split]} {name}",
        split=SPLITS[made.split],
        rows=rows,
        best=[one.row for one in rows if one.row.best],
        tied=[one.row for one in rows if one.row.tied],
        has=has,
        elsewhere=[
            split for split in SPLITS if not ((split == "train" and has.train) or (split == "test" and has.test))
        ],
        SPLITS=SPLITS,
        SEALED=SEALED,
        join_published=join_published,
        text=unit.text,
        dots=Markup(_draw_row_dots(rows, made, unit)),
        planes=[Markup(figure) for figure in _draw_planes(rows, name, unit)],
        curves=[Markup(figure) for figure in _draw_row_curves(rows, made.curves)],
        sweeps=_draw_sweeps(made, name, unit),
        shares=shares,
        slices=[Markup(figure) for figure in _draw_slices(rows, name, unit)],
        importance=Markup(draw_importance("Share of the variance that each option explains", shares)),
        pairs=_format_pairs(made.pairs, unit) if 1 < len(made.pairs) <= PAIRS_SHOWN else [],
        tests=sorted({pair.test for pair in made.pairs}),
        base=describe_options(drop_defaults(made.base)),
        claims=format_claims(made),
        tested=format_tested_rows(made),
        tested_how=describe_tested(made),
    )


def _draw_row_dots(rows: Sequence[Cells], made: Comparison, unit: Unit) -> str:
    label = describe_metric(made.metric)
    dots = []
    for one in rows:
        row = one.row
        given = find_figure(row.published.figures, made.metric, made.split) if row.published else None
        dots.append(
            Dot(
                one.name,
                row.value,
                (row.spread.low, row.spread.high) if row.spread else None,
                given.ends if given else None,
                row.tied,
            )
        )
    return draw_dots(f"{label.capitalize()} of each row with its 95 % confidence interval", dots, label, unit)


def _draw_planes(rows: Sequence[Cells], name: str, unit: Unit) -> list[str]:
    """The metric against time, and against all or the trained parameters: those in which rows differ more."""
    known = [
        (one, one.row.value, one.row.parameters, one.row.training_seconds)
        for one in rows
        if one.row.value
        and one.row.value.value is not None
        and one.row.parameters
        and one.row.training_seconds is not None
    ]
    sizes = {
        "parameters": [counts.total for _, _, counts, _ in known],
        "trained parameters": [counts.trainable for _, _, counts, _ in known],
    }
    farther = max(sizes, key=lambda kind: max(sizes[kind], default=1) / max(1, min(sizes[kind], default=1)))
    costs: dict[str, Sequence[float]] = {
        "training time in seconds": [seconds for _, _, _, seconds in known],
        farther: sizes[farther],
    }
    return [
        draw_pareto(
            f"{name.capitalize()} against {cost}",
            [
                Point(one.name, float(amount), metric, str(one.number))
                for (one, metric, _, _), amount in zip(known, amounts, strict=True)
            ],
            cost,
            name,
            unit,
        )
        for cost, amounts in costs.items()
        if len(set(amounts)) > 1
    ]


def _draw_row_curves(rows: Sequence[Cells], curves: Mapping[str, Sequence[History]]) -> list[str]:
    """Validation accuracy and loss of every row by epoch."""
    figures = []
    for column, name, unit in (("val_accuracy", "accuracy", Unit()), ("val_loss", "loss (nats)", Unit(loss=True))):
        drawn = [
            Curves(
                one.name,
                [
                    [(epoch["epoch"], epoch[column]) for epoch in history if "epoch" in epoch]
                    for history in curves[one.row.label]
                ],
                one.row.tied,
            )
            for one in rows
            if one.row.label in curves
        ]
        if any(run for row in drawn for run in row.runs):
            figures.append(draw_curves(f"Validation {name} by epoch", drawn, name, unit))
    return figures


def _draw_sweeps(made: Comparison, name: str, unit: Unit) -> list[tuple[Markup, str]]:
    """The metric against each option in which rows differ alone, with what else these rows are."""
    figures = list[tuple[Markup, str]]()
    drawn = Counter[str]()
    for sweep in find_sweeps(made.rows):
        if drawn[sweep.option] < SWEEPS_OF_ONE and len(figures) < SWEEPS_SHOWN:
            drawn[sweep.option] += 1
            points = [_make_point(row, value, made) for row, value in zip(sweep.rows, sweep.values, strict=True)]
            figure = draw_sweep(sweep.option.replace("_", " "), points, name, unit)
            figures.append((Markup(figure), describe_options(drop_defaults(sweep.shared), short=True)))
    return figures


def _make_point(row: ComparisonRow, value: float, made: Comparison) -> SweepPoint:
    metrics = {"train": row.train, made.split: row.value, "test": row.test}
    told = [one for one in (row.published.figures if row.published else ()) if one.metric == made.metric]
    return SweepPoint(
        value,
        {split: metric for split, metric in metrics.items() if metric is not None},
        {one.split: one.ends for one in told},
    )


def _list_scored(rows: Sequence[Cells]) -> list[tuple[ComparisonRow, float]]:
    """The rows of the first group whose metric is defined, with its value."""
    return [
        (one.row, one.row.value.value)
        for one in rows
        if one.row.group == 1 and one.row.value and one.row.value.value is not None
    ]


def _rank(rows: Sequence[Cells]) -> list[Importance]:
    return rank_options([(row.options, value) for row, value in _list_scored(rows)])


def _rank_shares(rows: Sequence[Cells]) -> list[tuple[str, float]]:
    return [(one.option.replace("_", " "), one.share) for one in _rank(rows)]


def _draw_slices(rows: Sequence[Cells], name: str, unit: Unit) -> list[str]:
    """The metric against each option that varies, the most important first."""
    figures = []
    for one in _rank(rows)[:SLICES_SHOWN]:
        points = [
            (row.options[one.option], value, row.tied) for row, value in _list_scored(rows) if one.option in row.options
        ]
        figures.append(draw_slice(one.option.replace("_", " "), points, name, unit))
    return figures


def _format_pairs(pairs: Sequence[Pair], unit: Unit) -> list[tuple[str, str, Cell, str, str, str]]:
    """Pairs as they are written, the surest first."""
    return [
        (
            pair.one,
            pair.other,
            format_gap(pair.difference, unit),
            format_p_value(pair.p),
            format_p_value(pair.p_holm),
            pair.test,
        )
        for pair in sorted(pairs, key=lambda one: one.p)
    ]
