"""The commands about tables of runs: compare, study, tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_path, complete_run
from budwood.cli.device_option import add_device_option, refuse_device
from budwood.cli.exit_codes import Level, add_fail_on_option, judge_findings
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
    read_settings,
)
from budwood.cli.output import find_width

if TYPE_CHECKING:
    from budwood.comparison.document import Comparison
    from budwood.comparison.text import Order
    from budwood.data.leaks import Leaks


def _add_execution_options(command: Command) -> Command:
    for option in (
        add_device_option,
        add_fail_on_option,
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
            type=click.Choice(["given", "metric"], case_sensitive=False),
            help="Order of the rows: given, as in the file, or metric, the best first. [given; for a search metric]",
        ),
        click.option("--ray", metavar="ADDRESS", help="Train on a Ray cluster; `local` starts one on this machine."),
        click.option("--jobs", "count", type=click.IntRange(1), default=1, help="Number of training processes. [1]"),
    ):
        command = option(command)
    return command


@click.command(cls=BudwoodCommand)
@click.argument(
    "arguments", metavar="FILE [DATA | NAME=DATA]...", nargs=-1, required=True, shell_complete=complete_path
)
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
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0),
    multiple=True,
    metavar="N",
    help="Train every row with this seed in place of the file's seeds; may be repeated.",
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
    seeds: tuple[int, ...],
    fail_on: Level,
    out: Path,
    as_json: bool,
    debug: bool,
) -> int | None:
    """Carry out a whole table of experiments and compare its rows; what is finished is not repeated."""
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
    _refuse_device_of_cluster(ray)
    overrides = Overrides(quick, read_settings(settings), places, corrections, tuple(dict.fromkeys(seeds)))
    studies = [load_study(file, overrides) for file in files]
    if dry_run:
        estimates = [(one, estimate_rows(one, open_context(progress=make_terminal_progress()))) for one in studies]
        if as_json:
            print_json([text.estimate_record(*one) for one in estimates])
            return None
        print("\n\n".join(text.estimate_text(*one, find_width()) for one in estimates))
        return None
    options = ExecutionOptions(count, ray, storage, _parse_limit(limit), opens, order)
    comparisons = [carry_out(one, execution=options, out=out, leaks=leaks, monitor=LiveTable()) for one in studies]
    failed = [finding for comparison in comparisons for finding in comparison.findings]
    if as_json:
        print_json([text.make_study_record(*one, out) for one in zip(studies, comparisons, strict=True)])
        return judge_findings(failed, fail_on)
    print(
        "\n\n".join(text.format_study(*one, out, order, find_width()) for one in zip(studies, comparisons, strict=True))
    )
    return judge_findings(failed, fail_on)


@click.command(cls=TuneCommand)
@click.argument("data", metavar="DATA...", nargs=-1, required=True, callback=join_data, shell_complete=complete_path)
@click.option("--trials", type=click.IntRange(1), default=30, show_default=True, help="Number of recipes to try.")
@click.option("--sampler", type=click.Choice(("random", "tpe"), case_sensitive=False), default="tpe", show_default=True)
@click.option(
    "--metric",
    help="Metric on the validation set to optimise. [accuracy; for multi-label data mean_average_precision]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, metavar="N", help="Random seed of the recipes that are tried. [0]"
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
    seed: int,
    fail_on: Level,
    file: Path | None,
    settings: tuple[str, ...],
    out: Path,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Search for a better recipe; what is given is not searched. An interrupted search is resumed."""
    from budwood.studies import text
    from budwood.studies.live_table import LiveTable
    from budwood.studies.runner import ExecutionOptions
    from budwood.studies.runner import study as carry_out
    from budwood.studies.study_file import make_tuning_study

    _refuse_device_of_cluster(ray)
    base = {**collect_options(file, settings, drop_unset(options))}
    if corrections:
        base["corrections"] = list(corrections)
    base.update((name, word) for name, word in reading.items() if word != READING_OPTIONS[name])
    search = make_tuning_study(data, base, trials=trials, sampler=sampler, metric=metric, seed=seed)
    comparison = carry_out(
        search,
        execution=ExecutionOptions(count, ray, storage, _parse_limit(limit), opens, order),
        out=out,
        leaks=leaks,
        monitor=LiveTable(),
    )
    if as_json:
        print_json(text.make_study_record(search, comparison, out))
        return judge_findings(comparison.findings, fail_on)
    print(text.format_study(search, comparison, out, order, find_width()))
    return judge_findings(comparison.findings, fail_on)


def _refuse_device_of_cluster(ray: str | None) -> None:
    if ray is not None:
        refuse_device("the machines of a Ray cluster choose their own. Leave out --device or --ray.")


def _parse_place(argument: str) -> tuple[str, str]:
    """DATA, or NAME=DATA, as a pair of the name ("" for the study's own) and the place."""
    name, separator, place = argument.partition("=")
    return (name, place) if separator and not Path(argument).exists() else ("", argument)


def _parse_limit(text: str | None) -> float | None:
    """A duration in seconds, as the recipe reads it."""
    from budwood.config.recipe import Recipe

    return Recipe(optimizer="adam", time=text).time if text else None


@click.command(cls=BudwoodCommand)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_run)
@click.option(
    "--metric",
    help="Metric to rank rows by: accuracy, macro_f1, log_loss, ... [accuracy; for multi-label runs "
    "mean_average_precision]",
)
@click.option("--split", type=click.Choice(["val", "test"], case_sensitive=False), default="val", show_default=True)
@click.option(
    "--allow-looks",
    is_flag=True,
    help="Compare on the test set even if runs used it a different number of times (looks).",
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["given", "metric"], case_sensitive=False),
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

    Runs of several data sets or splits have a table each; --csv and --html then write FILE-1, FILE-2 and so on.

    Multi-label runs are ranked by mean average precision: that all labels of an image are right may be rare.
    """
    from budwood.comparison.compare import compare as compare_runs
    from budwood.comparison.data_groups import describe_data, split_by_data
    from budwood.comparison.run_groups import find_runs

    named = [find_runs(run, out) for run in runs]
    progress = make_terminal_progress()
    for left_out in (name for _, others in named for name in others):
        progress.note(f"Left out, because it is not finished: {left_out}.")
    finished = [run for group, _ in named for run in group]
    groups = split_by_data(finished, split)
    several = [group for group in groups if len(group) > 1]
    if not several or len(groups) == 1:
        several, groups = [finished], [finished]  # where they cannot be compared, that is said
    for alone in (group[0] for group in groups if len(group) == 1 and len(groups) > 1):
        progress.note(
            f"Left out, because no other run is of its data and split: {alone.path.name}, {describe_data(alone)}."
        )
    comparisons = [compare_runs(group, metric=metric, split=split, allow_looks=allow_looks) for group in several]
    pages = [_number_file(html, place, len(several)) for place in range(len(several))]
    for place, comparison in enumerate(comparisons):
        _write_comparison(comparison, _number_file(csv, place, len(several)), pages[place], order)
    if as_json:
        records = [comparison.record() for comparison in comparisons]
        print_json(records[0] if len(groups) == 1 else {"groups": records})
        return
    titles = [f"{describe_data(group[0])}: {len(group)} runs\n" if len(groups) > 1 else "" for group in several]
    told = [_format_comparison(*one, order) for one in zip(titles, comparisons, pages, strict=True)]
    print("\n\n".join(told))


def _number_file(file: Path | None, place: int, count: int) -> Path | None:
    """The file of one of several comparisons; of a single one as it was named."""
    return file if file is None or count == 1 else file.with_name(f"{file.stem}-{place + 1}{file.suffix}")


def _write_comparison(comparison: Comparison, csv: Path | None, html: Path | None, order: Order) -> None:
    from budwood.reporting.comparison_page import render_comparison
    from budwood.storage.atomic import raise_storage_errors, write_text

    if csv:
        with raise_storage_errors(csv):
            write_text(csv, comparison.csv())
    if html:
        with raise_storage_errors(html):
            write_text(html, render_comparison(comparison, order=order))


def _format_comparison(title: str, comparison: Comparison, page: Path | None, order: Order) -> str:
    """A comparison with its findings, and where its page is."""
    from budwood.comparison.text import format_comparison

    findings = [f"\n{one.code} {one.severity}: {one.message}\n  {one.advice}" for one in comparison.findings]
    shown = format_comparison(comparison, order, find_width())
    return "\n".join([f"{title}{shown}", *findings, *([f"\nPage: {page}"] if page else [])])
