"""`budwood train`: the best network is searched for, or one recipe trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budwood.cli.device_option import add_device_option
from budwood.cli.epoch_lines import EpochLines
from budwood.cli.exit_codes import INTERRUPTED, Level, add_fail_on_option, judge_findings
from budwood.cli.options import (
    RecipeCommand,
    add_common_options,
    add_data_argument,
    add_leaks_option,
    add_name_option,
    add_out_option,
    add_recipe_sources,
    add_selection_options,
    collect_options,
    drop_unset,
    make_terminal_progress,
    print_json,
    refuse_bad_name,
)
from budwood.cli.output import show_cost, show_run

if TYPE_CHECKING:
    from budwood.config.recipe import Recipe
    from budwood.data.dataset import Dataset
    from budwood.data.leaks import Leaks
    from budwood.progress import Progress


@click.command(cls=RecipeCommand)
@add_data_argument
@add_selection_options
@add_leaks_option
@click.option(
    "--track",
    multiple=True,
    metavar="TOOL",
    help="Log every epoch to tensorboard, mlflow or your own package.module:name; may be repeated.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the whole recipe and its estimated time, memory and disk space; train nothing.",
)
@click.option("--quick", is_flag=True, help="Without training options: stop after frozen networks were compared.")
@add_recipe_sources
@add_name_option
@add_fail_on_option
@add_out_option
@add_device_option
@add_common_options
def train(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    corrections: tuple[str, ...],
    reading: dict[str, Any],
    selection: dict[str, int],
    leaks: Leaks,
    track: tuple[str, ...],
    dry_run: bool,
    quick: bool,
    file: Path | None,
    settings: tuple[str, ...],
    name: str | None,
    fail_on: Level,
    out: Path,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> int | None:
    """Train a classifier and keep it with its evidence.

    Without options that say how to train, the best network is searched for that this machine gives in the time
    (--time, 5 minutes if not given); model, size and others narrow the search.

    DATA is a folder of class folders, or a table (CSV, TSV, Parquet) with the columns path and label. With a column
    labels in its place, such as "cat; dog", an image has several labels or none (multi-label).
    """
    import budwood as bw
    from budwood.config.ladder_options import explain_recipe, list_recipe_options
    from budwood.config.option_rules import explain_steps
    from budwood.config.recipe import Recipe
    from budwood.data.scanning import scan
    from budwood.data.selection import select_per_class

    started = time.perf_counter()
    named = collect_options(file, settings, drop_unset(options))
    resolved = Recipe(**named)
    progress = make_terminal_progress()
    asking = ["recipe"] if file else list_recipe_options(named)
    if asking and quick:
        raise click.UsageError(f"--quick: nothing is searched for. {explain_recipe(asking)}")
    for why in filter(None, ("" if file else explain_recipe(asking), explain_steps(named))):
        progress.note(why)
    refuse_bad_name(name, out, search=not asking)
    dataset = scan(data, val=val, test=test, exclude=exclude, corrections=corrections, progress=progress, **reading)
    dataset = select_per_class(dataset, leaks=leaks, **selection)
    if not asking:
        return _search(dataset, named, quick, out, name, leaks, track, dry_run, fail_on, as_json, started, progress)
    if dry_run:
        show_cost(*bw.estimate_cost(dataset, resolved, out=out, leaks=leaks, progress=progress), as_json)
        return None
    return _train_recipe(dataset, resolved, out, name, leaks, track, fail_on, as_json, started, progress)


def _train_recipe(
    dataset: Dataset,
    recipe: Recipe,
    out: Path,
    name: str | None,
    leaks: Leaks,
    track: tuple[str, ...],
    fail_on: Level,
    as_json: bool,
    started: float,
    progress: Progress,
) -> int | None:
    """Train one recipe and print what it gave; returns the exit code that its findings ask for."""
    from budwood.workflows.train import train_recipe

    spent = time.perf_counter() - started
    lines = EpochLines(progress, recipe, None if recipe.time is None else recipe.time - spent)
    hooks: dict[str, Any] = {"track": track, "spent": spent, "id": name, "on_epoch_end": lines}
    finished = train_recipe(dataset, recipe, out=out, leaks=leaks, progress=progress, **hooks)
    lines.tell_unsaid(finished.history)
    show_run(finished, as_json)
    return judge_findings(finished.record.findings, fail_on)


def _search(
    dataset: Dataset,
    given: dict[str, Any],
    quick: bool,
    out: Path,
    name: str | None,
    leaks: Leaks,
    track: tuple[str, ...],
    dry_run: bool,
    fail_on: Level,
    as_json: bool,
    started: float,
    progress: Progress,
) -> int | None:
    """Search for the best network, or show what would be tried; returns the exit code of a search that Ctrl-C ended."""
    from dataclasses import asdict

    from budwood.cli.ladder_output import show_ladder, show_ladder_plan
    from budwood.storage.context import open_context
    from budwood.workflows.ladder import plan_search, read_budget, search

    context = open_context(progress=progress)
    spent = time.perf_counter() - started
    if dry_run:
        rows, budget, notes = plan_search(dataset, given, quick, out, leaks, context, spent)
        if as_json:
            print_json({"budget": budget, "rows": [asdict(row) for row in rows], "notes": notes})
        else:
            show_ladder_plan(rows, budget, notes)
        return None
    lines = EpochLines(progress, None, read_budget(given) - spent)
    hooks: dict[str, Any] = {"track": track, "on_epoch_end": lines, "novelty": True}
    best = search(dataset, given, quick, out, leaks, context, spent=spent, id=name, **hooks)
    if not as_json:
        show_ladder(best)
    show_run(best, as_json)
    failed = judge_findings(best.record.findings, fail_on)
    return INTERRUPTED if best.record.ladder and best.record.ladder.interrupted else failed
