"""The commands about tables of runs: compare, study, tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budwood.cli.options import (
    READING_OPTIONS,
    Command,
    TuneCommand,
    add_common_options,
    add_corrections_option,
    add_leaks_option,
    add_out_option,
    add_reading_options,
    add_recipe_sources,
    collect_options,
    drop_unset,
    join_data,
    make_terminal_progress,
    print_json,
)

if TYPE_CHECKING:
    from budwood.comparison.text import Order
    from budwood.data.leaks import Leaks


def _add_execution_options(command: Command) -> Command:
    for option in (
        add_leaks_option,
        click.option(
            "--test",
            "opens",
            is_flag=True,
            help="Once every row has ended, evaluate all on the sealed test set, which counts as one use (look).",
        ),
        click.option(
            "--time",
            "limit",
            metavar="TIME",
            help="Time limit of the whole command, for example 90s, 10m, 1.5h: no row or trial starts that would end "
            "later; one that is still trained then is stopped, and resumed by the same command.",
        ),
        click.option(
            "--storage",
            metavar="URL",
            help="Optuna storage URL for the trials of a search. [a file in the study folder]",
        ),
        click.option(
            "--sort",
            "order",
            type=click.Choice(["given", "metric"]),
            help="Order of the rows: given, as in the file, or metric, the best first. [given; for a search metric]",
        ),
        click.option("--ray", metavar="ADDRESS", help="Train on a Ray cluster; `local` starts one on this machine."),
        click.option("--jobs", "count", type=click.IntRange(1), default=1, help="Number of training processes. [1]"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("arguments", metavar="FILE [DATA | NAME=DATA]...", nargs=-1, required=True)
@click.option(
    "--dry-run", is_flag=True, help="Show the network, estimated time and shared features of every row; train nothing."
)
@click.option(
    "--quick", is_flag=True, help="Use the values of the file's [quick] table for every row, to finish in minutes."
)
@click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set an option of the recipe for every row; may be repeated.",
)
@_add_execution_options
@add_corrections_option
@add_out_option
@add_common_options
def study(
    arguments: tuple[str, ...],
    corrections: tuple[str, ...],
    dry_run: bool,
    quick: bool,
    settings: tuple[str, ...],
    count: int,
    ray: str | None,
    storage: str | None,
    limit: str | None,
    opens: bool,
    order: Order | None,
    leaks: Leaks,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Carry out a whole table of experiments and compare its rows; what is finished is not repeated."""
    from budwood.config.recipe import parse_settings
    from budwood.storage.context import open_context
    from budwood.studies import text
    from budwood.studies.cost_estimate import estimate_rows
    from budwood.studies.live_table import LiveTable
    from budwood.studies.runner import ExecutionOptions
    from budwood.studies.runner import study as carry_out
    from budwood.studies.study import Overrides
    from budwood.studies.study_file import load_study

    files = [Path(argument) for argument in arguments if argument.endswith(".toml")]
    places = dict(_parse_place(argument) for argument in arguments if not argument.endswith(".toml"))
    if not files:
        raise click.UsageError("Missing argument 'FILE': expected a study file (.toml).")
    overrides = Overrides(quick, parse_settings(settings), places, corrections)
    studies = [load_study(file, overrides) for file in files]
    if dry_run:
        estimates = [(one, estimate_rows(one, open_context(progress=make_terminal_progress()))) for one in studies]
        if as_json:
            print_json([text.estimate_record(*one) for one in estimates])
            return
        print("\n\n".join(text.estimate_text(*one) for one in estimates))
        return
    options = ExecutionOptions(count, ray, storage, _parse_limit(limit), opens, order)
    comparisons = [carry_out(one, execution=options, out=out, leaks=leaks, monitor=LiveTable()) for one in studies]
    if as_json:
        print_json([text.make_study_record(*one, out) for one in zip(studies, comparisons, strict=True)])
        return
    print("\n\n".join(text.format_study(*one, out, order) for one in zip(studies, comparisons, strict=True)))


@click.command(cls=TuneCommand)
@click.argument("data", metavar="DATA...", nargs=-1, required=True, callback=join_data)
@click.option("--trials", type=click.IntRange(1), default=30, show_default=True, help="Number of recipes to try.")
@click.option("--sampler", type=click.Choice(("random", "tpe")), default="tpe", show_default=True)
@click.option(
    "--metric",
    help="Metric on the validation set to optimise. [accuracy; for multi-label data mean_average_precision]",
)
@_add_execution_options
@add_recipe_sources
@add_corrections_option
@add_reading_options
@add_out_option
@add_common_options
def tune(
    data: str,
    corrections: tuple[str, ...],
    reading: dict[str, Any],
    trials: int,
    sampler: str,
    metric: str | None,
    count: int,
    ray: str | None,
    storage: str | None,
    limit: str | None,
    opens: bool,
    order: Order | None,
    leaks: Leaks,
    file: Path | None,
    settings: tuple[str, ...],
    out: Path,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Search for a better recipe; what is given is not searched. An interrupted search is resumed."""
    from budwood.studies import text
    from budwood.studies.live_table import LiveTable
    from budwood.studies.runner import ExecutionOptions
    from budwood.studies.runner import study as carry_out
    from budwood.studies.study_file import make_tuning_study

    base = {**collect_options(file, settings, drop_unset(options))}
    if corrections:
        base["corrections"] = list(corrections)
    base.update((name, word) for name, word in reading.items() if word != READING_OPTIONS[name])
    search = make_tuning_study(data, base, trials=trials, sampler=sampler, metric=metric)
    comparison = carry_out(
        search,
        execution=ExecutionOptions(count, ray, storage, _parse_limit(limit), opens, order),
        out=out,
        leaks=leaks,
        monitor=LiveTable(),
    )
    if as_json:
        print_json(text.make_study_record(search, comparison, out))
        return
    print(text.format_study(search, comparison, out, order))


def _parse_place(argument: str) -> tuple[str, str]:
    """DATA, or NAME=DATA, as a pair of the name ("" for the study's own) and the place."""
    name, separator, place = argument.partition("=")
    return (name, place) if separator and not Path(argument).exists() else ("", argument)


def _parse_limit(text: str | None) -> float | None:
    """A duration in seconds, as the recipe reads it."""
    from budwood.config.recipe import Recipe

    return Recipe(optimizer="adam", time=text).time if text else None


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--metric",
    help="Metric to rank rows by: accuracy, macro_f1, log_loss, ... [accuracy; for multi-label runs "
    "mean_average_precision]",
)
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option(
    "--allow-looks",
    is_flag=True,
    help="Compare on the test set even if runs used it a different number of times (looks).",
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["given", "metric"]),
    default="metric",
    show_default=True,
    help="Order of the rows: given, as the runs were named, or metric, the best first.",
)
@click.option("--csv", type=click.Path(path_type=Path), help="Also write the table to a CSV file.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with charts to an HTML file.")
@add_out_option
@add_common_options
def compare(
    runs: tuple[str, ...],
    metric: str | None,
    split: str,
    allow_looks: bool,
    order: Order,
    csv: Path | None,
    html: Path | None,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Compare runs, or all in a folder: intervals, paired tests, and which cannot be distinguished from the best.

    Multi-label runs are ranked by mean average precision: that all labels of an image are right may be rare.
    """
    from budwood.comparison.compare import compare as compare_runs
    from budwood.comparison.run_groups import find_runs
    from budwood.comparison.text import format_comparison
    from budwood.reporting.comparison_page import render_comparison
    from budwood.storage.atomic import raise_storage_errors, write_text

    groups = [find_runs(run, out) for run in runs]
    progress = make_terminal_progress()
    for left_out in (name for _, others in groups for name in others):
        progress.note(f"Left out, because it is not finished: {left_out}.")
    finished = [run for group, _ in groups for run in group]
    comparison = compare_runs(finished, metric=metric, split=split, allow_looks=allow_looks)
    for path, text in ((csv, comparison.csv()), (html, render_comparison(comparison, order=order))):
        if path:
            with raise_storage_errors(path):
                write_text(path, text)
    if as_json:
        print_json(comparison.record())
        return
    print(format_comparison(comparison, order))
    for finding in comparison.findings:
        print(f"\n{finding.code} {finding.severity}: {finding.message}\n  {finding.advice}")
    if html:
        print(f"\nPage: {html}")
