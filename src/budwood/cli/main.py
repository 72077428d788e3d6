"""The command line: one thin command a stage.

Results go to stdout, everything that is said on the way to stderr. What the exit codes mean is in `exit_codes`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budwood.cli.calibrate_command import calibrate
from budwood.cli.commands import BudwoodGroup
from budwood.cli.completers import complete_run
from budwood.cli.completion import completion
from budwood.cli.device_option import add_device_option
from budwood.cli.ensemble_command import ensemble
from budwood.cli.epoch_lines import EpochLines
from budwood.cli.exit_codes import INTERRUPTED, Level, add_fail_on_option, judge_findings
from budwood.cli.explain_command import explain
from budwood.cli.export_command import export
from budwood.cli.failures import fail, flush_output, tell_failed_file
from budwood.cli.help_sections import write_help_command
from budwood.cli.inspection import make_findings_document, save_findings, scan_or_list_files
from budwood.cli.interrupts import heed_interrupts, ignore_interrupts
from budwood.cli.options import (
    RecipeCommand,
    SurgeryCommand,
    add_common_options,
    add_data_argument,
    add_out_option,
    add_recipe_sources,
    collect_options,
    drop_unset,
    make_terminal_progress,
    print_json,
    read_settings,
    say_nothing,
)
from budwood.cli.output import (
    find_width,
    format_day,
    format_looks,
    list_networks,
    show_dataset,
    show_layers,
    show_metrics,
    show_plan,
    show_run,
)
from budwood.cli.predict_command import predict
from budwood.cli.publish_command import publish
from budwood.cli.runs_command import runs
from budwood.cli.study_commands import compare, study, tune
from budwood.cli.train_command import train
from budwood.cli.watch_commands import drift, suggest
from budwood.errors import BudwoodError, DataError

if TYPE_CHECKING:
    from budwood.comparison.text import Order


@click.group(cls=BudwoodGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="budwood")
def app() -> None:
    """Turn a folder of labelled images into a classifier, and into the evidence that it is the right one."""


for command in (
    calibrate,
    compare,
    completion,
    drift,
    ensemble,
    explain,
    export,
    predict,
    publish,
    runs,
    study,
    suggest,
    train,
    tune,
):
    app.add_command(command)


def main() -> None:
    """Run the command line and exit with its code."""
    heed_interrupts()
    arguments = sys.argv[1:] or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end a command
            stream.reconfigure(errors="backslashreplace")
    code = run(arguments, as_json="--json" in arguments, debug="--debug" in arguments)
    if code == INTERRUPTED:
        ignore_interrupts()
    sys.exit(flush_output(code))


def run(arguments: Sequence[str], *, as_json: bool = False, debug: bool = False) -> int:
    """Carry out one command line and return its exit code.

    Every exception becomes a message and an exit code; with `debug` it is raised instead, except for usage errors
    and interruptions.

    Args:
        arguments: The arguments after the program's name.
        as_json: Whether an error is written as JSON to stdout, not as text to stderr.
        debug: Whether errors are raised with their traceback.

    Returns:
        The exit code, one of `exit_codes`.

    Raises:
        BudwoodError: The user's input is at fault, and `debug` is set.
    """
    try:
        code = app(list(arguments), prog_name="budwood", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BudwoodError as error:
        if debug:
            raise
        files = error.files if isinstance(error, DataError) else ()
        return fail(error.code, error.message, error.hint, 2, as_json, files)
    except click.UsageError as error:
        hint = f"`{write_help_command(error.ctx)}` lists the arguments and options." if error.ctx else ""
        return fail("usage", error.format_message(), hint, 2, as_json)
    except OSError as error:
        if debug:
            raise
        return tell_failed_file(error, as_json)
    except (KeyboardInterrupt, click.Abort):
        return fail("interrupted", "Interrupted. No incomplete files were left behind.", "", INTERRUPTED, as_json)
    except Exception as error:
        if debug:
            raise
        hint = "This is an error in Budwood, not in your input. Repeat the command with --debug and report its output."
        return fail("internal", f"{type(error).__name__}: {error}", hint, 1, as_json)


@app.command()
@add_out_option
@add_device_option
@add_common_options
def demo(out: Path, as_json: bool, debug: bool) -> None:
    """Run the whole job on the bundled solar cells, offline."""
    from budwood.workflows.demo import run_demo

    result = run_demo(out, make_terminal_progress(), say=say_nothing if as_json else print)
    if as_json:
        print_json(result)


@app.command("inspect")
@add_data_argument
@add_fail_on_option
@click.option("--html", type=click.Path(path_type=Path), help="Also write the findings to HTML, with pictures.")
@click.option(
    "--augment",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Augmentation option to show in the HTML file; may be repeated.",
)
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write every file of a finding to a table.")
@add_common_options
def inspect_data(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    corrections: tuple[str, ...],
    reading: dict[str, Any],
    html: Path | None,
    settings: tuple[str, ...],
    table: Path | None,
    fail_on: Level,
    as_json: bool,
    debug: bool,
) -> int:
    """Show findings about a data set, single-label or multi-label.

    Nothing is trained, no file of yours is changed.
    """
    from budwood.config.recipe import Recipe
    from budwood.data import checks
    from budwood.workflows.report import report_findings

    if settings and html is None:
        raise click.UsageError("--augment: needs --html FILE, because the augmented images are shown in the HTML file.")
    recipe = Recipe(**read_settings(settings)) if settings else None
    reading.update(val=val, test=test, exclude=exclude, corrections=corrections)
    dataset = scan_or_list_files(data, table, progress=make_terminal_progress(), **reading)
    findings = checks.findings(dataset)
    if table:
        save_findings(table, dataset, findings)
    if html:
        report_findings(dataset, findings, html, recipe)
    if as_json:
        print_json(make_findings_document(dataset, findings))
        return judge_findings(findings, fail_on)
    show_dataset(dataset, findings)
    for what, file in (("with pictures", html), ("as a table", table)):
        if file:
            print(f"\nFindings {what}: {file}")
    return judge_findings(findings, fail_on)


@app.command()
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.option("--epochs", type=click.IntRange(1), help="Total number of epochs, including those already trained.")
@click.option("--patience", type=click.IntRange(1), help="Stop after this many epochs without improvement.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="New learning rate for the remaining epochs.")
@add_out_option
@add_device_option
@add_common_options
def resume(
    run: str, epochs: int | None, patience: int | None, lr: float | None, out: Path, as_json: bool, debug: bool
) -> None:
    """Resume an interrupted training, or train a finished run for more epochs."""
    import budwood as bw
    from budwood.runs.run import find_run
    from budwood.workflows.continuation import continue_recipe

    found, progress = find_run(run, out), make_terminal_progress()
    changes = {name: value for name, value in (("epochs", epochs), ("patience", patience), ("lr", lr)) if value}
    lines = EpochLines(progress, None if found.record.ensemble else continue_recipe(found, changes))
    finished = bw.resume(found, epochs=epochs, patience=patience, lr=lr, progress=progress, on_epoch_end=lines)
    show_run(finished, as_json)


@app.command()
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@add_out_option
@add_device_option
@add_common_options
def test(run: str, out: Path, as_json: bool, debug: bool) -> None:
    """Open the sealed test split, score the run on it and count the look."""
    import budwood as bw
    from budwood.runs.run import open_run

    tested = bw.test(open_run(run, out), progress=make_terminal_progress())
    opened = tested.opened()
    if as_json:
        print_json({"run": str(tested.path), "split": "test", "looks": opened.looks, "metrics": opened.metrics})
        return
    show_metrics("Test", tested.task, opened.metrics)
    print(format_looks(opened.looks))
    print(f"Report: {tested.path / 'report.html'}")


@app.command()
@click.argument("run", metavar="RUN|STUDY", shell_complete=complete_run)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["given", "metric"], case_sensitive=False),
    help="Order of a study's rows: given, as in its file, or metric, the best first. [given; for a search metric]",
)
@add_out_option
@add_common_options
def report(run: str, order: Order | None, out: Path, as_json: bool, debug: bool) -> None:
    """Write the report of a run, with its model card, or of a study again and print its path."""
    import budwood as bw
    from budwood.reporting.model_card import CARD_FILE
    from budwood.runs.run import open_run
    from budwood.studies.reports import report_study
    from budwood.studies.study_state import find_study_folder

    study = find_study_folder(run, out)
    if order and not study:
        raise click.UsageError("--sort: needs a study; a run has one row.")
    if study:
        report_study(study, order)
    path = (study or bw.report(open_run(run, out)).path) / "report.html"
    if as_json:
        print_json({"report": str(path), **({} if study else {"card": str(path.with_name(CARD_FILE))})})
    else:
        print(path)


@app.command("lr-find", cls=RecipeCommand)
@add_data_argument
@add_recipe_sources
@click.option("--html", type=click.Path(path_type=Path), help="Also write the curve to an HTML file.")
@add_device_option
@add_common_options
def lr_find(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    corrections: tuple[str, ...],
    reading: dict[str, Any],
    file: Path | None,
    settings: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Try growing learning rates for a hundred steps and suggest one; nothing is kept of what is learned."""
    from budwood.config.recipe import Recipe
    from budwood.data.scanning import scan
    from budwood.reporting.run_page import render_rates
    from budwood.storage.atomic import raise_storage_errors, write_text
    from budwood.storage.context import open_context
    from budwood.workflows.train import find_learning_rate

    named = collect_options(file, settings, drop_unset(options))
    recipe = Recipe(**named)
    if recipe.optimizer == "lbfgs" and "optimizer" not in named:
        recipe = Recipe(**{**named, "optimizer": "adam"})
    if recipe.optimizer == "lbfgs":
        raise click.UsageError("optimizer: lbfgs has no learning rate; choose another optimizer.")
    progress = make_terminal_progress()
    dataset = scan(data, val=val, test=test, exclude=exclude, corrections=corrections, progress=progress, **reading)
    curve = find_learning_rate(dataset, recipe, open_context(progress=progress))
    if html:
        with raise_storage_errors(html):
            page = render_rates(dataset.name, recipe.model, curve.rates, curve.losses, curve.suggestion)
            write_text(html, page)
    if as_json:
        print_json({"suggestion": curve.suggestion, "rates": curve.rates, "losses": curve.losses})
        return
    print("rate      training loss")
    for rate, loss in list(zip(curve.rates, curve.losses, strict=True))[::6]:
        print(f"{rate:<9.1e} {loss:.3f}")
    steepest = "(where the loss falls fastest)"
    suggestion = f"{curve.suggestion:.2g} {steepest}" if curve.suggestion else f"none, because {curve.problem}"
    print(f"Suggested learning rate: {suggestion}")
    if html:
        print(f"Curve: {html}")


@app.command(cls=SurgeryCommand)
@click.argument("name", metavar="[NAME | PATTERN]", required=False)
@click.option(
    "--classes",
    type=click.IntRange(2),
    default=1000,
    show_default=True,
    help="Number of classes (outputs of the new head).",
)
@click.option("--layers", is_flag=True, help="List every layer in the order of execution, with its name and number.")
@add_common_options
def models(name: str | None, classes: int, layers: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """List the networks, or show one before and after surgery; a pattern such as '*vit*' searches."""
    changes = drop_unset(options)
    if name is None or set(name) & set("*?["):
        if changes or layers:
            needing = sorted([*changes, *(["layers"] if layers else [])])
            raise click.UsageError(f"{', '.join(needing)}: this option needs the name of one network.")
        list_networks(name, as_json)
        return
    from budwood.config.recipe import Recipe
    from budwood.networks.plan import load_plan
    from budwood.storage.atomic import cache_folder

    recipe = Recipe(model=name, **changes)
    plan = load_plan(recipe, classes, cache_folder())
    shown = {key: value for key, value in plan.record().items() if key not in ("code", "origins", "schema_version")}
    if layers:
        from budwood.networks.layers import list_recipe_layers

        listed = list_recipe_layers(recipe, plan, classes)
        show_layers(plan.name, listed, shown if as_json else None)
    elif as_json:
        print_json(shown)
    else:
        show_plan(plan, changes)


@app.command()
@click.option("--clear", is_flag=True, help="Remove everything that can be computed again; downloads stay.")
@add_common_options
def cache(clear: bool, as_json: bool, debug: bool) -> None:
    """Show what the cache holds: how much, where, and how to clear it."""
    from budwood.storage import eviction
    from budwood.storage.atomic import cache_folder
    from budwood.text import fit_table

    folder = cache_folder()
    removed = eviction.clear(folder) if clear else None
    usage, limit = eviction.measure_cache(folder), eviction.limit()
    if as_json:
        kinds = {one.kind: {"bytes": one.bytes, "files": one.files, "used": one.used or None} for one in usage}
        print_json({"folder": str(folder), "limit_bytes": limit, "removed_bytes": removed, "kinds": kinds})
        return
    if removed is not None:
        print(f"Removed {removed / 2**20:,.1f} MiB.")
    rows = [("kind", "MiB", "files", "last used", "what")]
    rows += [
        (one.kind, f"{one.bytes / 2**20:,.1f}", f"{one.files:,}", format_day(one.used), eviction.KINDS[one.kind])
        for one in usage
    ]
    print(fit_table(rows, (1, 2), find_width(), join=False))
    print(f"Folder: {folder} (set BUDWOOD_CACHE to use another folder)")
    limited = sum(one.bytes for one in usage if one.kind in eviction.LIMITED)
    allowed = f"{limit / 2**30:.1f} GiB (set BUDWOOD_CACHE_LIMIT to change this, for example 50GB)"
    print(f"Pixels, outputs and archives use {limited / 2**30:.2f} of {allowed}.")
