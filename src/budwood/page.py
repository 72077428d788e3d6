"""Records to one HTML file that needs nothing else: no script, no font, no image from outside. Computes no result."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from budwood.drawing import visible
from budwood.explanations import Explanation
from budwood.history import GRADIENT, WEIGHT, by_stage
from budwood.plots import Series, counts_chart, interval_chart, interval_strip, line_chart, reliability_chart
from budwood.recipe import neutral
from budwood.stage_plots import network_diagram, norms_chart

FILES_SHOWN: Final = 12
GROUPS_SHOWN: Final = 8
MATRIX_MOST: Final = 25  # classes of a confusion matrix that can still be read
CHART_MOST: Final = 40  # rows of a chart that can still be read
WEAKEST_SHOWN: Final = 20
PAIRS_SHOWN: Final = 20
OPTIMIZERS: Final = {
    "lbfgs": "solved to convergence (L-BFGS)",
    **{
        name.lower(): f"trained by gradient descent ({name})"
        for name in ("SGD", "Adam", "AdamW", "NAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
    },
}
VIEWED: Final = {
    "none": "",
    "flip": "Its answers are means of the logits for an image and its mirror image",
    "flips": "Its answers are means of the logits for an image and its flips in both directions",
}
SELECTED: Final = {
    "loss": "lowest validation loss",
    "accuracy": "highest validation accuracy",
    "balanced_accuracy": "highest balanced validation accuracy",
    "macro_f1": "highest macro F1 on validation",
    "auroc": "highest AUROC on validation",
}
RESIZES: Final = {
    "crop": "cropped to its middle square",
    "pad": "padded to a square",
    "squash": "squashed to a square",
}
STEPS: Final = {
    "check": "Checking the data",
    "scan": "Scanning the data",
    "prefix": "Frozen part of the network",
    "head": "Training the head",
    "rate": "Looking for a learning rate",
    "train": "Training the network",
    "evaluate": "Scoring",
    "report": "Writing the report",
    "save": "Saving",
}


@dataclass(frozen=True)
class Shown:
    """One image of a gallery: a path, its true class, what was predicted with which probability, a data URI or None."""

    path: str
    label: str
    predicted: str
    probability: float
    thumbnail: str | None
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a report: thumbnails of findings by relative path (data URIs), the two galleries, and the contact
    sheet of augmented images as a data URI."""

    thumbnails: Mapping[str, str] = field(default_factory=dict)
    mistakes: Sequence[Shown] = ()
    hits: Sequence[Shown] = ()
    augmented: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What a run's report shows beside its record: history, pictures, confusion matrix, reliability bins, findings
    about the result, and what was found out about what it has learned."""

    history: Sequence[Mapping[str, float]]
    pictures: Pictures
    confusion: Sequence[Sequence[int]]
    reliability: Sequence[Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]] = ()
    explanation: Explanation | None = None


def render_run(record: Mapping[str, Any], evidence: Evidence) -> str:
    """The report of a run, as HTML."""
    classes, val = record["dataset"]["classes"], record["metrics"]["val"]
    several = bool(record["dataset"].get("several"))
    weakest = _weakest_first(val["per_class"])
    html: str = template("report.html").render(
        record=record,
        pictures=evidence.pictures,
        results=evidence.results,
        explanation=evidence.explanation,
        words=recipe_in_words(record),
        neutral=neutral(record["recipe"]),
        val_strip=Markup(interval_strip("Validation accuracy with its 95 % interval", val["accuracy"])),
        test_strip=Markup(_test_strip(record["test"])),
        counts_chart=Markup(_counts_chart(record["dataset"]["counts"], classes)),
        selected_on_val=len(evidence.history) > 1,
        selected_by=SELECTED[record["recipe"].get("select", "loss")],
        curves=[Markup(svg) for svg in _curves(record, evidence.history)],
        norms=Markup(_norms(evidence.history)),
        diagram=Markup(_diagram(record["network"])),
        weakest=weakest if len(classes) <= MATRIX_MOST else weakest[:WEAKEST_SHOWN],
        by_class=weakest,
        classes_chart=Markup(_classes_chart(weakest)) if len(classes) <= MATRIX_MOST else "",
        reliability=Markup(reliability_chart("Confidence against accuracy", evidence.reliability)),
        several=several,
        matrix=_matrix(evidence.confusion, classes) if len(classes) <= MATRIX_MOST and not several else [],
        pairs=[] if several else _confused(evidence.confusion, classes),
        chance_loss=math.log(2 if several else len(classes)),
        laps=[(STEPS.get(name, name), seconds) for name, seconds in record["timings"].items() if name != "total"],
        again=_command(record),
    )
    return html


def render_findings(about: Mapping[str, Any], pictures: Pictures) -> str:
    """The findings about a data set, as HTML.

    `about` has name, source, fingerprint, split, classes, several, counts, n and findings.
    """
    chart = Markup(_counts_chart(about["counts"], about["classes"]))
    html: str = template("inspect.html").render(about=about, pictures=pictures, counts_chart=chart)
    return html


def render_rates(
    name: str, model: str, rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> str:
    """The curve of a learning-rate finder, as HTML: losses in nats at rising rates, and the rate that is suggested."""
    series = [Series("loss", list(zip(rates, losses, strict=True)))]
    chart = line_chart(
        "Loss at each learning rate", series, "learning rate", "loss (nats)", log_x=True, chosen=suggestion
    )
    html: str = template("rates.html").render(name=name, model=model, suggestion=suggestion, chart=Markup(chart))
    return html


def recipe_in_words(record: Mapping[str, Any]) -> str:
    """What was asked, in plain sentences."""
    recipe, network = record["recipe"], record["network"]
    sight = "" if recipe["channels"] == 3 else " and made grey"
    sentences = [
        f"Each image was {RESIZES[recipe['resize']]} and scaled to {recipe['size']} x {recipe['size']} pixels{sight}",
        f"The network is {network['name']} ({network['source']}){_cut_in_words(network)}; {_weights_in_words(network)}",
        _frozen_in_words(record),
        _training_in_words(record),
        _resumed_in_words(record),
        VIEWED[recipe.get("tta", "none")],
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _cut_in_words(network: Mapping[str, Any]) -> str:
    if network["cut"] is None:
        return ""
    shape = " x ".join(map(str, network["shape"]))
    return f", cut off after {network['cut']} ({shape}, pooled by {network['pool']})"


def _weights_in_words(network: Mapping[str, Any]) -> str:
    weights = network["weights"]
    came = {
        "imagenet": f"it started from ImageNet weights ({weights['file']})",
        "file": f"it started from the weights in {weights['file']}",
        "run": f"it started from the weights of {weights['about']}",
        "none": f"it started from {weights['about']} weights",
    }[weights["kind"]]
    return f"{came}. {weights['set_aside']}".rstrip(". ") if weights["kind"] in ("file", "run") else came


def _frozen_in_words(record: Mapping[str, Any]) -> str:
    network = record["network"]
    trainable, frozen = network["parameters"]["trainable"], network["parameters"]["frozen"]
    if not frozen:
        return f"All its {trainable:,} parameters were trained"
    stage = record["prefix"]["stage"]
    once = f"; the frozen part up to {stage} looked at each image once" if stage else ""
    return f"{frozen:,} of its parameters were frozen and kept their values, {trainable:,} were trained{once}"


def _training_in_words(record: Mapping[str, Any]) -> str:
    recipe, chosen = record["recipe"], record["selected"]
    what = f"A {'linear head' if recipe['head'] == 'linear' else 'head of ' + recipe['head']}"
    what = f"{what} on {record['network']['features']:,} features was {OPTIMIZERS[recipe['optimizer']]}"
    if "phases" in recipe:
        return f"{what} in {len(recipe['phases'])} phases{_phases_in_words(recipe)}; epoch {chosen['epoch']} was kept"
    if "epoch" in chosen:
        epochs = _length_in_words(recipe)
        rate = record["choices"].get("lr", recipe["lr"])
        how = f" for {epochs} of batches of {recipe['batch']} at a learning rate of {rate:g}"
        how += " (found by a trial)" if recipe["lr"] == "auto" else ""
        together = ", together with what of the trunk was not frozen" if record["network"]["trunk_trained"] else ""
        selected = SELECTED[recipe.get("select", "loss")]
        return f"{what}{how}{together}; epoch {chosen['epoch']} was kept, of the {selected}"
    auto = "chosen on the validation split" if recipe["regularisation"] == "auto" else "as given"
    return f"{what}; the strength of its L2 penalty is {chosen['regularisation']:.2g}, {auto}"


def _length_in_words(recipe: Mapping[str, Any]) -> str:
    """How long training was to be, at most."""
    epochs, seconds = recipe.get("epochs"), recipe.get("time")
    if epochs is None:
        return f"{seconds:,.0f} seconds in all"
    count = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return count if seconds is None else f"{count} or {seconds:,.0f} seconds"


def _resumed_in_words(record: Mapping[str, Any]) -> str:
    times = len(record.get("resumed", ()))
    return f"Training was interrupted or prolonged and went on {_times(times)}" if times else ""


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _phases_in_words(recipe: Mapping[str, Any]) -> str:
    told = [
        f"{'nothing' if phase['freeze'] == 'none' else phase['freeze']} frozen "
        f"for {phase['epochs']} epochs at a rate of {phase['lr']:g}"
        for phase in recipe["phases"]
    ]
    return f" of batches of {recipe['batch']}: {', then '.join(told)}"


def template(name: str) -> Any:
    """A template of a page, with the filters that all pages share."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    """The templates, compiled once a process: a study renders many reports."""
    loader = PackageLoader("budwood", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "interval": _interval,
        "plain": _plain,
        "shares": _shares,
        "visible": visible,
    }
    environment.globals |= {"FILES_SHOWN": FILES_SHOWN, "GROUPS_SHOWN": GROUPS_SHOWN}
    return environment


def _command(record: Mapping[str, Any]) -> str:
    """The command that carries the recipe out again, for a shell."""
    recipe = shlex.quote(f"runs/{record['id']}/recipe.toml")
    leaks = " --allow-leaks" if record["dataset"]["leaks_allowed"] else ""
    return f"budwood train {_quoted(record['source'])} --recipe {recipe}{leaks}"


def _quoted(path: str) -> str:
    """A path as one word of a shell; one with unprintable characters in the shell's own notation for them."""
    if visible(path) == path:
        return shlex.quote(path)
    return "$'" + visible(path.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def _test_strip(test: Mapping[str, Any] | None) -> str:
    return interval_strip("Test accuracy with its 95 % interval", test["metrics"]["accuracy"]) if test else ""


def _counts_chart(counts: Mapping[str, Any], classes: Sequence[str]) -> str:
    if len(classes) > CHART_MOST:
        return ""
    rows = [(name, (counts["train"][name], counts["val"][name])) for name in classes]
    return counts_chart("Images of each class", rows, ("train", "validation"))


def _curves(record: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> list[str]:
    if len(history) < 2:
        return []
    axis = next(iter(history[0]))
    log = axis == "regularisation" and min(row[axis] for row in history) > 0
    label = "strength of the L2 penalty" if axis == "regularisation" else "epoch"
    chosen = float(record["selected"][axis])

    def drawn(title: str, y_label: str, *columns: tuple[str, str]) -> str:
        series = [Series(name, [(row[axis], row[key]) for row in history if key in row]) for key, name in columns]
        return line_chart(title, series, label, y_label, log_x=log, chosen=chosen)

    figures = [
        drawn(
            f"{name.capitalize()} of training and validation",
            f"{name}{' (nats)' if name == 'loss' else ''}",
            *((f"{key}_{name}", split) for key, split in _NAMES),
        )
        for name in ("loss", "accuracy")
    ]
    if len({row["lr"] for row in history if "lr" in row}) > 1:
        figures.append(drawn("Learning rate of each epoch", "learning rate", ("lr", "at its end")))
    return figures


def _norms(history: Sequence[Mapping[str, float]]) -> str:
    weights = by_stage(history, WEIGHT)
    if len(history) < 2 or not weights:
        return ""
    return norms_chart("Norms of weights and gradients by stage", weights, by_stage(history, GRADIENT))


def _diagram(network: Mapping[str, Any]) -> str:
    image = (network["channels"], network["size"], network["size"])
    rows, removed = network["stages"], network.get("removed", ())
    return network_diagram(f"{network['name']}, stage by stage", image, rows, removed, network["head"])


_NAMES: Final = (("train", "training"), ("val", "validation"))


def _weakest_first(by_class: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Classes by F1, the lowest first and those without one last."""

    def rank(row: tuple[str, Mapping[str, Any]]) -> tuple[bool, float]:
        value = row[1]["f1"]["value"]
        return value is None, value or 0.0

    return sorted(by_class.items(), key=rank)


def _classes_chart(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    metrics = [(name, values["f1"]) for name, values in rows]
    return interval_chart("F1 of each class with its 95 % interval", metrics, "F1 on the validation split")


def _matrix(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "n": sum(row),
            "cells": [
                {"called": called, "count": count, "share": count / (sum(row) or 1), "right": column == number}
                for column, (called, count) in enumerate(zip(classes, row, strict=True))
            ],
        }
        for number, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]


def _confused(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, int]]:
    pairs = [
        (classes[true], classes[guess], count, sum(row))
        for true, row in enumerate(counts)
        for guess, count in enumerate(row)
        if guess != true and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:PAIRS_SHOWN]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def _interval(metric: Mapping[str, Any]) -> str:
    if metric["low"] is None or metric["high"] is None:
        return f"n = {metric['n']:,}"
    return f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f} %, n = {metric['n']:,}"


def _shares(metric: Mapping[str, Any]) -> Markup:
    """A metric of a table cell: the value, and its interval in small."""
    if metric["value"] is None:
        return Markup("–")
    if metric["low"] is None or metric["high"] is None:
        return Markup("{:.1f}&nbsp;%").format(100 * metric["value"])
    return Markup("{:.1f}&nbsp;% <small>{:.0f}–{:.0f}</small>").format(
        *(100 * metric[key] for key in ("value", "low", "high"))
    )


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        nested = any(isinstance(part, list | tuple) for part in value)
        return ("; " if nested else ", ").join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
