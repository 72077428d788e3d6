"""`budwood ensemble`: several runs, or those of a study, as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budwood.cli.options import (
    add_common_options,
    add_name_option,
    add_out_option,
    make_terminal_progress,
    print_json,
    refuse_bad_name,
)
from budwood.cli.output import show_metrics, show_next

if TYPE_CHECKING:
    from budwood.progress import Progress
    from budwood.runs.run import Run
    from budwood.workflows.ensemble import Rule


@click.command()
@click.argument("runs", metavar="RUN|STUDY...", nargs=-1, required=True)
@click.option(
    "--weights",
    type=click.Choice(("equal", "validation")),
    help="Give every run the same weight, or select runs greedily on the validation set, with replacement, by the "
    "loss; runs that are never picked are left out. [equal; of a study validation, of folds equal]",
)
@click.option(
    "--row", "labels", multiple=True, metavar="LABEL", help="Use this row of STUDY only; may be repeated. [all rows]"
)
@add_name_option
@add_out_option
@add_common_options
def ensemble(
    runs: tuple[str, ...],
    weights: Rule | None,
    labels: tuple[str, ...],
    name: str | None,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Make one run of several, which answers with the mean of their probabilities.

    RUN may be a folder of runs. A STUDY stands for its finished runs, and the ensemble is made in its folder, unless
    --out says otherwise. The folds of a row are one ensemble with its cross-validated score.
    """
    from budwood.studies.ensemble_rows import choose_rule
    from budwood.studies.study_state import find_study_folder
    from budwood.workflows.ensemble import ensemble as make_ensemble

    places = [find_study_folder(run, out) for run in runs]
    studies = [place for place in places if place]
    if labels and not studies:
        raise click.UsageError("--row: needs the folder of a study in place of RUN.")
    given = [item for place, run in zip(places, runs, strict=True) for item in _list_runs(place, run, labels)]
    if studies and click.get_current_context().get_parameter_source("out") is click.core.ParameterSource.DEFAULT:
        out = studies[0]
    rule = weights or (choose_rule([one for one in given if not isinstance(one, str)]) if studies else "equal")
    refuse_bad_name(name, out)
    show_ensemble(make_ensemble(given, rule, out=out, id=name), as_json)


def _list_runs(study: Path | None, run: str, labels: Sequence[str]) -> Sequence[Run | str]:
    """The finished runs of a study, those that are not being told; or the run as it was named."""
    from budwood.studies.ensemble_rows import list_study_runs

    if study is None:
        return [run]
    runs, left = list_study_runs(study, labels)
    progress: Progress = make_terminal_progress()
    for name in left:
        progress.note(f"Left out, because it is not finished: {name}.")
    return runs


def show_ensemble(run: Run, as_json: bool) -> None:
    """Print an ensemble: its validation metrics, its members with their weights, and what its score is worth.

    Args:
        run: An ensemble.
        as_json: Whether to print JSON.
    """
    from budwood.reporting.ensemble_text import describe_ensemble

    record = run.record
    if as_json:
        table = record.table()
        columns = {name: table[name] for name in ("state", "ensemble", "timings")}
        print_json({"run": str(run.path), **columns, "metrics": run.metrics})
        return
    assert record.ensemble
    show_metrics("Cross-validated" if record.ensemble.folds else "Validation", run.task, record.val)
    for one in record.ensemble.members:
        print(f"  weight {one.weight:.2f}  {one.run}")
    print(describe_ensemble(record))
    print(f"Run: {run.path}\nReport: {run.path / 'report.html'}")
    show_next(run)
