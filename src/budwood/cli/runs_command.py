"""`budwood runs`: the runs of a folder in a list, and the removal of some of them."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.options import add_common_options, print_json
from budwood.cli.output import find_width
from budwood.text import TOO_FEW, counted, fit_table, listed, quote_path, show_unprintable

if TYPE_CHECKING:
    from budwood.comparison.run_list import ListedRun
    from budwood.runs.run import Run

COLUMNS = ("run", "data", "recipe", "validation", "state", "test set", "trained")


@click.command("runs", cls=BudwoodCommand)
@click.argument("folder", metavar="[FOLDER]", type=click.Path(path_type=Path), default="runs")
@click.option("--data", metavar="TEXT", help="Only runs of data whose name or path has this in it.")
@click.option("--state", metavar="STATE", help="Only runs that are finished, interrupted, training (now) or damaged.")
@click.option("--model", metavar="NAME", help="Only runs of this network, or of those that a pattern finds.")
@click.option("--delete", "doomed", multiple=True, metavar="RUN", help="Remove this run of FOLDER; may be repeated.")
@click.option("--yes", is_flag=True, help="With --delete: do not ask.")
@add_common_options
def runs(
    folder: Path,
    data: str | None,
    state: str | None,
    model: str | None,
    doomed: tuple[str, ...],
    yes: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """List the runs of FOLDER (runs, if not given) and of the studies in it, the newest first.

    A run is named at every command by its folder, its name, a part of its id that no other has, any file in it, or
    `last`, the newest that is finished.
    """
    from budwood.comparison.run_list import list_runs

    if doomed:
        _refuse_filters({"--data": data, "--state": state, "--model": model})
        _remove(doomed, folder, yes, as_json)
        return
    if yes:
        raise click.UsageError("--yes: needs --delete RUN.")
    found = list_runs(folder, data=data, state=state, model=model)
    if as_json:
        print_json([one.table() for one in found])
    elif found:
        print(format_runs(found, find_width()))
    else:
        print(f"There are no runs in {folder}/" + (" that fit." if data or state or model else "."))


def format_runs(found: Sequence[ListedRun], width: int | None) -> str:
    """Format a list of runs as a table.

    Args:
        found: The runs, at least one.
        width: Columns of the terminal; None: as many as it takes.

    Returns:
        Lines of text, without a line break at the end.
    """
    rows = [
        (
            show_unprintable(one.name),
            show_unprintable(one.data),
            show_unprintable(one.short_recipe),
            _format_score(one),
            one.state,
            f"look {one.looks}" if one.looks else "sealed" if one.score else "",
            _format_time(one.began),
        )
        for one in found
    ]
    table = fit_table([COLUMNS, *rows], (), width)
    problems = [f"{show_unprintable(one.name)}: {show_unprintable(one.problem)}" for one in found if one.problem]
    return "\n".join([table, *problems])


def _format_score(one: ListedRun) -> str:
    from budwood.config.metric_registry import describe_metric

    if one.score is None or one.score.value is None:
        return ""
    low, high = one.score.low, one.score.high
    interval = TOO_FEW if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{describe_metric(one.metric)} {100 * one.score.value:.1f} % ({interval}), n = {one.score.n:,}"


def _format_time(moment: str) -> str:
    """A time in UTC as a local date and time."""
    try:
        return f"{datetime.datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return moment


def _refuse_filters(filters: dict[str, str | None]) -> None:
    """Raises `UsageError` where runs are to be removed and a list is asked for, too."""
    given = [name for name, value in filters.items() if value is not None]
    if given:
        raise click.UsageError(f"{', '.join(given)}: chooses what is listed; --delete takes the runs by name.")


def _remove(names: Sequence[str], folder: Path, yes: bool, as_json: bool) -> None:
    """Remove runs, once the user has agreed."""
    from budwood.runs.removal import remove_run
    from budwood.runs.run import find_run

    chosen = {run.path.absolute(): run for run in (find_run(name, folder) for name in names)}
    _refuse_outside(list(chosen.values()), folder)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise click.UsageError("--delete: nobody can be asked here; --yes removes the runs without asking.")
        _tell_doomed(list(chosen.values()), folder)
        if not click.confirm(f"Remove {counted(len(chosen), 'run')}?", err=True):
            print("Nothing was removed.")
            return
    left = {run.path: remove_run(run) for run in chosen.values()}
    if as_json:
        print_json(
            {"removed": [str(path) for path in left], "left": [str(file) for kept in left.values() for file in kept]}
        )
        return
    for path, kept in left.items():
        print(f"Removed: {path}")
        if kept:
            print(f"  Its folder stays, with what is not the run's: {listed([file.name for file in kept], 5)}")


def _refuse_outside(chosen: Sequence[Run], folder: Path) -> None:
    """Raises `RunError` for a run that is not in the folder whose runs are listed."""
    from budwood.errors import RunError

    for run in chosen:
        if folder.absolute() not in run.path.absolute().parents:
            raise RunError(
                f"{run.path}: is not a run of {folder}/, so it is not removed.",
                f"Name its folder, too: `budwood runs {quote_path(run.path.parent)} --delete {run.path.name}`.",
            )


def _tell_doomed(chosen: Sequence[Run], folder: Path) -> None:
    """Say on stderr what would be removed, and what has begun with it."""
    from budwood.comparison.run_list import find_dependents, list_runs

    others = list_runs(folder)
    print(
        format_runs(
            [one for one in others if one.path.absolute() in {run.path.absolute() for run in chosen}], find_width()
        ),
        file=sys.stderr,
    )
    for run in chosen:
        if dependents := find_dependents(run, others):
            names = listed(dependents, 5)
            print(f"{run.path.name} is what {names} began with, and cannot be resumed without.", file=sys.stderr)
