"""What commands print: metrics, networks, data sets, costs and runs, as text for a terminal."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from budwood.cli.options import print_json
from budwood.text import TOO_FEW, counted, format_seconds, listed, quote_path, show_unprintable

if TYPE_CHECKING:
    from budwood.config.recipe import Recipe
    from budwood.data.checks import Finding
    from budwood.data.dataset import Dataset
    from budwood.evaluation.intervals import Metric
    from budwood.evaluation.label_task import LabelTask
    from budwood.evaluation.split_metrics import SplitMetrics
    from budwood.networks.layers import Layer
    from budwood.networks.network_plan import NetworkPlan
    from budwood.runs.explanation_record import ExplanationRecord, ImagesPart
    from budwood.runs.run import Run
    from budwood.training.cost_estimate import CostEstimate


SHOWN: Final = 10  # files or groups of a finding that the terminal shows


def find_width() -> int | None:
    """Find how many columns a line on stdout has room for.

    Returns:
        Those of the terminal, or what the environment variable COLUMNS says; None for a file or a pipe, where a line
        may be as long as it is.
    """
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def format_metric(metric: Metric) -> str:
    """Format a metric between 0 and 1: its value, 95 % interval and n.

    Args:
        metric: `value`, `low` and `high` from 0 to 1, and `n`; a value of None is undefined, ends of
            None are unknown.

    Returns:
        Text in percent.
    """
    if metric.value is None:
        return f"undefined (n = {metric.n:,})"
    if metric.low is None or metric.high is None:
        return f"{100 * metric.value:.1f} % ({TOO_FEW}), n = {metric.n:,}"
    value, low, high = 100 * metric.value, 100 * metric.low, 100 * metric.high
    return f"{value:.1f} % (95 % confidence interval {low:.1f} to {high:.1f}), n = {metric.n:,}"


def show_metrics(split: str, task: LabelTask, scores: SplitMetrics) -> None:
    """Print the metrics of a split, one a line.

    Args:
        split: Name of the split, as it is printed.
        task: The label task of the data set.
        scores: Metrics by name.
    """
    from budwood.config.metric_registry import find_metric

    first = task.choose_headline(scores.figures)
    others = [name for name in scores.figures if name != first and find_metric(name).printed]
    for name in (first, *others, *(["accuracy"] if first != "accuracy" else [])):
        note = f"; {task.note_metric(name)}" if task.note_metric(name) else ""
        print(f"{split} {find_metric(name).words}  {format_metric(scores.figures[name])}{note}")


def format_looks(looks: int) -> str:
    """Format what the number of looks at a test split means.

    Args:
        looks: Number of looks, this one included.

    Returns:
        A sentence.
    """
    if looks == 1:
        return "This was the first use of this test set (look 1)."
    used = f"This test set has been used {looks} times (looks)."
    return f"{used} Choosing between runs by its score makes the score too optimistic."


def list_networks(pattern: str | None, as_json: bool) -> None:
    """Print the networks that a pattern finds, as a table or as JSON.

    Args:
        pattern: A pattern of names, such as `*vit*`; None: the usual ones.
        as_json: Whether to print JSON.
    """
    from dataclasses import asdict

    from budwood.networks.catalogue import list_models
    from budwood.storage.atomic import cache_folder
    from budwood.text import format_table

    networks, others = list_models(pattern, cache_folder())
    if as_json:
        print_json([asdict(entry) for entry in networks])
        return
    rows = [("network", "source", "pixels", "parameters", "ImageNet top-1", "weights")]
    rows += [
        (
            entry.name,
            entry.source,
            str(entry.size),
            f"{entry.parameters:,}" if entry.parameters else "–",
            f"{100 * entry.accuracy:.1f} %" if entry.accuracy else "–",
            "on disk" if entry.local else "none" if entry.source == "budwood" else "to download",
        )
        for entry in networks
    ]
    print(format_table(rows, right=(2, 3, 4)))
    print("Top-1 accuracy as published with the weights, n = 50,000 (95 % confidence interval: about ±0.4 points).")
    if others:
        print(f"And {others:,} more from timm: `budwood models '*vit*'` searches by name.")


def show_plan(plan: NetworkPlan, options: Mapping[str, object]) -> None:
    """Print the stages of a network before and after surgery.

    Args:
        plan: The network's plan.
        options: The options of surgery that were given.
    """
    from budwood.text import format_table

    right = (1, 2, 3, 4, 5)
    head = ("stage", "output", "parameters", "multiply-adds")
    before = [(row.name, _format_shape(row.shape), f"{row.parameters:,}", f"{row.macs:,}") for row in plan.before]
    total = sum(row.parameters for row in plan.before), sum(row.macs for row in plan.before)
    image = _format_shape([plan.channels, plan.size, plan.size])
    print(f"{plan.name} ({plan.source}) for images of {image}, as published")
    print(format_table([head, *before, ("total", "", f"{total[0]:,}", f"{total[1]:,}")], right))
    changes = ", ".join(f"{name} {value}" for name, value in options.items()) or "a new head on frozen layers"
    after = [
        (
            row.name,
            _format_shape(row.shape),
            f"{row.parameters:,}",
            f"{row.trainable:,}",
            f"{row.parameters - row.trainable:,}",
            f"{row.macs:,}",
        )
        for row in plan.stages
    ]
    counts = plan.parameters
    last = ("total", "", f"{counts.total:,}", f"{counts.trainable:,}", f"{counts.frozen:,}", f"{plan.macs:,}")
    print(f"\nAfter changes: {changes}")
    print(
        format_table([("stage", "output", "parameters", "trainable", "frozen", "multiply-adds"), *after, last], right)
    )
    if plan.taps:
        names = [*(tap.name for tap in plan.taps), "the trunk"]
        seen = ", ".join(f"{width:,} of {name}" for name, width in zip(names, plan.blocks, strict=True))
        print(f"The head's {plan.features:,} inputs: {seen}.")
    print(f"Computed once per image (frozen): {'all up to ' + plan.prefix if plan.prefix else 'nothing'}.")


def show_layers(name: str, layers: Sequence[Layer], document: Mapping[str, Any] | None) -> None:
    """Print the layers of a network in the order in which it runs them; those that change nothing are left out.

    Args:
        name: Name of the network.
        layers: Its layers.
        document: What is printed with them as JSON; None for a table.
    """
    from budwood.text import format_table

    shown = [layer for layer in layers if not layer.idle]
    if document is not None:
        keys = ("number", "label", "kind", "shape")
        print_json({**document, "layers": [{key: getattr(layer, key) for key in keys} for layer in shown]})
        return
    rows = [
        (
            "" if layer.number is None else str(layer.number),
            layer.label,
            layer.kind,
            layer.gives if layer.shape is None else _format_shape(layer.shape),
        )
        for layer in shown
    ]
    print(f"Layers of {name} in the order in which their outputs are there; a part that holds others has no number.")
    print(format_table([("layer", "name", "kind", "output"), *rows], (0,)))


def _format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def show_dataset(dataset: Dataset, findings: Sequence[Finding]) -> None:
    """Print the splits of a data set and the findings about it, each with at most ten groups of a few files.

    Args:
        dataset: The data set.
        findings: The findings.
    """
    classes = counted(len(dataset.classes), "class", "classes")
    print(f"{dataset.name}: {counted(len(dataset), 'image')} in {classes}; split: {dataset.split_source}")
    train, val = (len(dataset.samples(name)) for name in ("train", "val"))
    print(f"  training {train:,}, validation {val:,}, test {dataset.counts()['test']:,} (sealed)")
    for finding in findings:
        print(f"\n{finding.code} {finding.severity}: {finding.message}\n  {finding.advice}")
        groups = finding.groups or [(file,) for file in finding.files]
        for group in groups[:SHOWN]:
            print("    " + listed([show_unprintable(path) for path in group], 6, "  =  "))
        if len(groups) > SHOWN:
            print(f"    and {len(groups) - SHOWN:,} more (all with --json or --csv)")
    if not findings:
        print("\nNo findings.")


def show_cost(recipe: Recipe, cost: CostEstimate, as_json: bool) -> None:
    """Print a recipe and what it will cost.

    Args:
        recipe: The recipe as it would be carried out.
        cost: The estimate.
        as_json: Whether to print JSON.
    """
    if as_json:
        print_json({"recipe": recipe.table(), "estimate": cost.record()})
        return
    print(recipe.toml())
    steps = _format_steps(recipe, cost) if cost.steps else "one head on fixed features"
    parts = ", ".join(f"{name} {_format_duration(seconds)}" for name, seconds in cost.seconds.items())
    print(f"Training    {steps}")
    print(f"Time        about {_format_duration(cost.total)} ({parts})")
    print(f"Memory      about {cost.memory / 2**30:.1f} GiB at most")
    cache, run = (cost.disk[place] / 2**20 for place in ("cache", "run"))
    print(f"Disk        about {cache:,.0f} MiB more in the cache, {run:,.0f} MiB in the run folder")
    print(f"Estimated from a measurement: {cost.measured}. Nothing was trained.")


def _format_steps(recipe: Recipe, cost: CostEstimate) -> str:
    """Steps and epochs; where there is only a time limit, how many are about to fit into it."""
    if recipe.time is not None and recipe.epochs is None and not recipe.phases:
        return f"until the time limit: about {float(f'{cost.epochs:.2g}'):,.6g} epochs fit into it on this machine"
    epochs = f"{cost.epochs:,.0f}" if cost.epochs >= 100 else f"{cost.epochs:.3g}"
    return f"{counted(cost.steps, 'optimizer step')} in {epochs} {'epoch' if cost.epochs == 1 else 'epochs'}"


def _format_duration(seconds: float) -> str:
    """An estimate, in tenths of seconds where it is short."""
    return f"{seconds:.1f} s" if seconds < 100 else format_seconds(seconds)


def show_run(run: Run, as_json: bool) -> None:
    """Print a trained run: what was trained on what, its scores, what it took, its findings, where it is, what is next.

    Args:
        run: The run.
        as_json: Whether to print JSON.
    """
    record = run.record
    if as_json:
        table = record.table()
        columns = {name: table[name] for name in ("state", "recipe", "timings", "ladder") if name in table}
        print_json({"run": str(run.path), **columns, "metrics": run.metrics})
        return
    _show_training(run)
    show_metrics("Validation", run.task, record.val)
    choices, prefix = record.choices, record.prefix
    if prefix.stage:
        print(f"Features up to {prefix.stage}: {prefix.computed:,} computed, {prefix.reused:,} from the cache")
    threads = f" ({counted(choices.threads, 'thread')})" if choices.threads else ""
    print(f"Engine: {choices.engine}{threads}")
    print(f"{'Time of this run alone' if record.ladder else 'Total time'}: {record.timings.total:.1f} s")
    loud = [finding for finding in record.findings if finding.severity != "note"]
    if loud:
        print("Findings:")
    for finding in loud:
        print(f"  {finding.code} {finding.severity}: {finding.message}")
    print(f"Run: {run.path}\nReport: {run.path / 'report.html'}")
    show_next(run)


def show_next(run: Run) -> None:
    """Print the commands that come next: what predicts with a run, and what opens its test set.

    Args:
        run: A finished run.
    """
    place = quote_path(run.path)
    print(f"To use it: budwood predict {place} IMAGES...")
    if run.record.dataset.counts.test:
        print(f"The test set is sealed (not used yet). When you have chosen your run: budwood test {place}")


def _show_training(run: Run) -> None:
    """Print what was trained on what, what validation chose, and the score on training images."""
    from budwood.comparison.rows import score_training
    from budwood.config.metric_registry import describe_selection
    from budwood.reporting.ensemble_text import describe_ensemble

    record, training = run.record, score_training([run], "accuracy")
    data, counts = record.dataset, record.network.parameters
    if record.ensemble:
        print(describe_ensemble(record))
        return
    what = "the head alone" if record.trained == "head" else f"{counts.trainable:,} of {counts.total:,} parameters"
    images = counted(training.n if training else sum(data.counts.train.values()), "training image")
    classes = counted(len(data.classes), "class", "classes")
    print(f"Trained: {record.network.name}, {what}, on {show_unprintable(data.name)} ({images}, {classes})")
    if record.selected.epoch is not None:
        why = describe_selection(run.recipe.select or "loss")
        print(f"Kept: epoch {record.selected.epoch} ({why})")
    elif record.selected.regularisation is not None:
        print(f"Kept: a penalty of {record.selected.regularisation:.3g} on the head's weights (by validation)")
    if training:
        print(f"Training accuracy  {format_metric(training)}")


def format_day(seconds: float) -> str:
    """Format a moment as a local date and time.

    Args:
        seconds: Seconds since 1970; 0: never.

    Returns:
        Text such as 2026-01-31 09:30; a dash for never.
    """
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}" if seconds else "–"


def show_explanation(record: ExplanationRecord) -> None:
    """Print what was found about a network, in a few lines.

    Args:
        record: The record of an explanation.
    """
    from budwood.runs.explanation_record import JudgedLabels, MappedLayer

    if record.images:
        _show_images(record.images)
    for rows in (*(record.maps.rows if record.maps else ()), *(record.units.rows if record.units else ())):
        what = "maps of" if isinstance(rows[0], MappedLayer) else "what is looked for by"
        networks = f" in {counted(len(rows), 'network')}" if len(rows) > 1 else ""
        print(f"{rows[0].layer} ({rows[0].kind}): {what} {counted(len(rows[0].channels), 'channel')}{networks}.")
    for layer in record.filters.rows if record.filters else ():
        told = f"{len(layer.dead)} dead, {counted(len(layer.duplicates), 'pair')} of duplicates"
        print(f"{layer.layer}: {counted(layer.filters, 'filter')}, {told}.")
    if isinstance(record.labels, JudgedLabels):
        print(f"{len(record.labels.rows):,} of {record.labels.n:,} labels may be wrong: {record.labels.file}")


def _show_images(part: ImagesPart) -> None:
    """Print what each image was called, and whether the maps of each method can be trusted."""
    for row in part.rows:
        wrong = f" (wrong: label {show_unprintable(row.label)})" if row.label and row.label != row.called else ""
        print(f"{show_unprintable(row.path)}: {show_unprintable(row.called)} {row.probability:.1%}{wrong}")
    for name, method in part.methods.items():
        where = f" after {method.place}" if method.place else ""
        if method.likeness.value is None:
            print(f"{name}{where}: no map for any image, because nothing supports the class.")
            continue
        verb = "depend" if method.depends else "DO NOT depend"
        correlation = f"rank correlation with the maps of a random network: {method.likeness.value:.2f}"
        print(f"The maps of {name}{where} {verb} on what was learned ({correlation}).")
