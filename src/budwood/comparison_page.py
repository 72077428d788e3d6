"""A comparison's record to one HTML file, in the manner of `page.py`; computes no result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from budwood.comparison_plots import (
    Curves,
    Dot,
    Point,
    Unit,
    curves_chart,
    dots_chart,
    importance_chart,
    pareto_chart,
    slice_chart,
)
from budwood.differences import in_words, unusual
from budwood.importance import importance
from budwood.metrics import LOSSES
from budwood.page import template

PAIRS_SHOWN: Final = 66
SLICES_SHOWN: Final = 8
METRICS: Final = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "mean_average_precision": "mean average precision",
}
SPLITS: Final = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Cells:
    """One row of the page's table, as it is written."""

    row: Mapping[str, Any]
    differs: str
    value: Markup
    from_best: Markup
    p: str
    seeds: Markup
    train: Markup
    test: Markup
    published: Markup
    epochs: str
    parameters: Markup
    macs: str
    seconds: Markup


def render_comparison(record: Mapping[str, Any], title: str = "") -> str:
    """A comparison as HTML: `record` is what `Comparison.record()` gives; `title` stands above it."""
    unit = Unit(record["metric"] in LOSSES)
    rows = ranked(record["rows"], unit)
    name = METRICS[record["metric"]]
    html: str = template("comparison.html").render(
        record=record,
        title=title or record["data"].get("name", "comparison"),
        name=name,
        label=f"{SPLITS[record['split']]} {name}",
        split=SPLITS[record["split"]],
        rows=[_cells(row, unit) for row in rows],
        best=[row for row in rows if row["best"]],
        tied=[row for row in rows if row["tied"]],
        has=_present(rows),
        text=unit.text,
        dots=Markup(_dots(rows, record, unit)),
        planes=[Markup(figure) for figure in _planes(rows, name, unit)],
        curves=[Markup(figure) for figure in _curves(rows, record["curves"])],
        shares=_importance(rows),
        slices=[Markup(figure) for figure in _slices(rows, name, unit)],
        importance=Markup(importance_chart("Share of variance that each option explains", _importance(rows))),
        pairs=_pairs(record["pairs"], unit) if len(record["pairs"]) <= PAIRS_SHOWN else [],
        tests=sorted({pair["test"] for pair in record["pairs"]}),
        base=in_words(unusual(record["base"])),
    )
    return html


def ranked(rows: Sequence[Mapping[str, Any]], unit: Unit) -> list[Mapping[str, Any]]:
    """Rows by group, the best first, those without a value last."""

    def place(row: Mapping[str, Any]) -> tuple[bool, int, float]:
        value = row["value"]["value"] if row["value"] else None
        return value is None, row["group"], 0.0 if value is None else value if unit.loss else -value

    return sorted(rows, key=place)


def figure(metric: Mapping[str, Any] | None, unit: Unit) -> Markup:
    """A metric of a table cell: the value, and its interval in small."""
    if metric is None or metric["value"] is None:
        return Markup("–")
    if metric["low"] is None or metric["high"] is None:
        return Markup("{}").format(unit.text(metric["value"]))
    low, high = (unit.text(metric[end]).removesuffix(" %") for end in ("low", "high"))
    return Markup("{} <small>{}–{}</small>").format(unit.text(metric["value"]), low, high)


def difference(value: float, unit: Unit) -> str:
    """A difference of a metric with its sign, shares in points."""
    return f"{value:+.3f}" if unit.loss else f"{100 * value:+.1f}"


def _cells(row: Mapping[str, Any], unit: Unit) -> Cells:
    gap = row["difference"]
    return Cells(
        row=row,
        differs=in_words(unusual(row["differs"])),
        value=figure(row["value"], unit),
        from_best=Markup("best")
        if row["best"]
        else Markup("–")
        if gap is None
        else Markup("{} <small>{} to {}</small>").format(
            *(difference(gap[end], unit) for end in ("value", "low", "high"))
        ),
        p=probability(row["p"]),
        seeds=_seeds(row, unit),
        train=figure(row["train"], unit),
        test=_test(row, unit),
        published=_published(row["published"]),
        epochs=_epochs(row["epochs"]),
        parameters=_parameters(row["parameters"]),
        macs=compact(row["macs"]),
        seconds=_seconds(row),
    )


def probability(p: float | None) -> str:
    """A p-value, in as many digits as matter."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def compact(count: int | None) -> str:
    """A number with three digits that count, and k, M or G after it."""
    if count is None:
        return "–"
    for least, size, letter in ((10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**4, 10**3, "k")):
        if count >= least:
            digits = max(0, 3 - len(str(count // size)))
            return f"{count / size:.{digits}f} {letter}"
    return f"{count:,}"


def _parameters(counts: Mapping[str, int] | None) -> Markup:
    if counts is None:
        return Markup("–")
    return Markup("{} <small>{} trained</small>").format(compact(counts["total"]), compact(counts["trainable"]))


def _seconds(row: Mapping[str, Any]) -> Markup:
    if row["training_seconds"] is None:
        return Markup("–")
    return Markup("{} <small>{} in all</small>").format(duration(row["training_seconds"]), duration(row["seconds"]))


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _seeds(row: Mapping[str, Any], unit: Unit) -> Markup:
    spread = row["spread"]
    if spread is None:
        return Markup("1") if row["seeds"] else Markup("–")
    low, high = (unit.text(spread[end]).removesuffix(" %") for end in ("low", "high"))
    sd = f"{spread['sd']:.3f}" if unit.loss else f"{100 * spread['sd']:.1f}"
    return Markup("{} <small>{}–{}, sd {}</small>").format(row["seeds"], low, high, sd)


def _test(row: Mapping[str, Any], unit: Unit) -> Markup:
    if row["test"] is None:
        return Markup("sealed") if row["seeds"] else Markup("–")
    looks = ", ".join(map(str, sorted(set(row["looks"]))))
    return Markup("{} <small>look {}</small>").format(figure(row["test"], unit), looks)


def _published(given: Mapping[str, Any] | None) -> Markup:
    """A published figure, of which split it is, and how ours differs, of which split that is."""
    if given is None:
        return Markup("–")
    unit = Unit(given["metric"] in LOSSES)
    told = Markup("{} <small>{}{}</small>").format(
        unit.text(given["value"]),
        SPLITS[given["split"]],
        "" if given["metric"] == "accuracy" else f", {METRICS.get(given['metric'], given['metric'])}",
    )
    if given["difference"] is None:
        return told
    unlike = "" if given["ours_split"] == given["split"] else " (another split)"
    ours = f"ours on {SPLITS[given['ours_split']]}{unlike} {difference(given['difference'], unit)}"
    return told + Markup("<small>{}</small>").format(ours)


def _epochs(epochs: Sequence[int]) -> str:
    if not epochs:
        return "–"
    return str(epochs[0]) if len(set(epochs)) == 1 else f"{min(epochs)}–{max(epochs)}"


def _present(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Which columns have something to show."""
    return {
        "differs": any(
            row["differs"] and in_words(unusual(row["differs"]), short=True) != row["label"] for row in rows
        ),
        "seeds": any(row["spread"] for row in rows),
        "train": any(row["train"] for row in rows),
        "test": any(row["test"] for row in rows),
        "published": any(row["published"] for row in rows),
        "epochs": any(row["epochs"] for row in rows),
        "groups": len({row["group"] for row in rows if row["group"]}) > 1,
        "unlike": any(p["split"] == "test" and p["ours_split"] == "val" for row in rows if (p := row["published"])),
    }


def _dots(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any], unit: Unit) -> str:
    label = METRICS[record["metric"]]
    dots = []
    for row in rows:
        given = row["published"] if row["published"] and row["published"]["metric"] == record["metric"] else None
        spread = row["spread"]
        dots.append(
            Dot(
                row["label"],
                row["value"],
                (spread["low"], spread["high"]) if spread else None,
                given["value"] if given else None,
                given is None or given["split"] == record["split"],
                row["tied"],
            )
        )
    return dots_chart(f"{label.capitalize()} of each row with its 95 % interval", dots, label, unit)


def _planes(rows: Sequence[Mapping[str, Any]], name: str, unit: Unit) -> list[str]:
    """The metric against time, and against all or the trained parameters: those in which rows differ more."""
    known = [row for row in rows if row["value"] and row["value"]["value"] is not None]
    sizes = {
        "parameters": [row["parameters"]["total"] for row in known],
        "trained parameters": [row["parameters"]["trainable"] for row in known],
    }
    farther = max(sizes, key=lambda kind: max(sizes[kind], default=1) / max(1, min(sizes[kind], default=1)))
    costs = {"seconds of training": [row["training_seconds"] for row in known], farther: sizes[farther]}
    return [
        pareto_chart(
            f"{name.capitalize()} against {cost}",
            [Point(row["label"], float(v), row["value"], row["tied"]) for row, v in zip(known, values, strict=True)],
            cost,
            name,
            unit,
        )
        for cost, values in costs.items()
        if len(set(values)) > 1
    ]


def _curves(rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Any]) -> list[str]:
    """Validation accuracy and loss of every row by epoch."""
    figures = []
    for column, name, unit in (("val_accuracy", "accuracy", Unit()), ("val_loss", "loss (nats)", Unit(loss=True))):
        drawn = [
            Curves(
                row["label"],
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
            figures.append(curves_chart(f"Validation {name} by epoch", drawn, name, unit))
    return figures


def _records(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    return [
        (row["options"], row["value"]["value"])
        for row in rows
        if row["group"] == 1 and row["value"] and row["value"]["value"] is not None
    ]


def _importance(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    return [(one.option.replace("_", " "), one.share) for one in importance(_records(rows))]


def _slices(rows: Sequence[Mapping[str, Any]], name: str, unit: Unit) -> list[str]:
    """The metric against each option that varies, the most important first."""
    figures = []
    for one in importance(_records(rows))[:SLICES_SHOWN]:
        points = [
            (row["options"][one.option], row["value"]["value"], row["tied"])
            for row in rows
            if one.option in row["options"] and row["group"] == 1 and row["value"]
        ]
        figures.append(slice_chart(one.option.replace("_", " "), points, name, unit))
    return figures


def _pairs(pairs: Sequence[Mapping[str, Any]], unit: Unit) -> list[tuple[str, str, Markup, str, str, str]]:
    written = []
    for pair in sorted(pairs, key=lambda one: one["p"]):
        gap = Markup("{} <small>{} to {}</small>").format(
            *(difference(pair["difference"][end], unit) for end in ("value", "low", "high"))
        )
        written.append(
            (pair["one"], pair["other"], gap, probability(pair["p"]), probability(pair["p_holm"]), pair["test"])
        )
    return written
