"""`budwood calibrate`: how a finished run answers, and how sure it says it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_run
from budwood.cli.device_option import add_device_option
from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress, print_json
from budwood.cli.output import format_metric
from budwood.text import show_unprintable

if TYPE_CHECKING:
    from budwood.runs.confidence_record import NoveltyRecord
    from budwood.runs.run import Run


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.option(
    "--coverage",
    type=float,
    help="Share of images whose true class is to be in their prediction set, 0 to 1. [0.9]",
)
@click.option(
    "--threshold",
    metavar="RULE",
    help="Of multi-label images, from which probability on an image has a label: 0.5, f1 (the best F1 of each label), "
    "precision=0.9 or recall=0.9. [0.5]",
)
@click.option(
    "--costs",
    metavar="FILE",
    help="CSV file of what mistakes cost: true classes by row, called classes by column; none: all the same.",
)
@click.option(
    "--refuse",
    type=float,
    metavar="SHARE",
    help="Share of images like the known ones that is refused as none of the classes, 0 to 1. [0.05]",
)
@click.option(
    "--unknown",
    metavar="IMAGES",
    help="Images that show none of the classes, on which refusing is measured: a folder, a file or an archive.",
)
@add_out_option
@add_device_option
@add_common_options
def calibrate(
    run: str,
    coverage: float | None,
    threshold: str | None,
    costs: str | None,
    refuse: float | None,
    unknown: str | None,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Choose how a run answers: how sure it is, its prediction sets, its thresholds.

    Everything is fitted on the validation set; the weights stay the same. What is not given stays as it was.
    """
    import budwood as bw
    from budwood.runs.run import open_run

    changed = bw.calibrate(
        open_run(run, out),
        coverage=coverage,
        threshold=threshold,
        costs=costs,
        refuse=refuse,
        unknown=unknown,
        progress=make_terminal_progress(),
    )
    show_calibration(changed, as_json)


def show_calibration(run: Run, as_json: bool) -> None:
    """Print how a run answers.

    Args:
        run: A run with a record of confidence.
        as_json: Whether to print JSON.
    """
    from budwood.reporting.confidence_section import describe_sets, describe_temperature

    record = run.record
    if as_json:
        print_json({"run": str(run.path), "confidence": record.table()["confidence"]})
        return
    confidence = record.confidence
    assert confidence is not None
    assert confidence.calibration is not None
    assert confidence.sets is not None
    calibration, sets = confidence.calibration, confidence.sets
    print(describe_temperature(calibration, run.classes))
    print(
        f"Validation calibration error  {format_metric(calibration.after)}; before {format_metric(calibration.before)}"
    )
    if calibration.test:
        test = calibration.test
        print(f"Test calibration error  {format_metric(test['after'])}; before {format_metric(test['before'])}")
    own = (
        f"; {sum(sets.per_class)} of {len(run.classes)} classes have a limit of their own"
        if any(sets.per_class)
        else ""
    )
    print(f"Prediction sets hold {describe_sets(sets, run.task.multilabel)}{own}.")
    if confidence.decisions:
        print(f"Answers are chosen by {confidence.decisions.rule}.")
    if confidence.novelty:
        show_novelty(confidence.novelty)
    print(f"Report: {run.path / 'report.html'}")


def show_novelty(novelty: NoveltyRecord) -> None:
    """Print how images are told that show none of the classes.

    Args:
        novelty: The record of it.
    """
    from budwood.reporting.novelty_section import METHOD_NAMES

    print(
        f"Refused as none of the classes: {100 * novelty.share:g} % of images like the known ones, by "
        f"{METHOD_NAMES[novelty.method]} above {novelty.threshold:.4g}."
    )
    for name, area in novelty.auroc.items():
        print(f"AUROC with classes left out in turn, {METHOD_NAMES[name]}  {format_metric(area)}")
    if strangers := novelty.strangers:
        print(f"Of the images in {show_unprintable(strangers.folder)}:")
        print(f"  refused  {format_metric(strangers.refused)}")
        print(f"  AUROC  {format_metric(strangers.auroc)}")
        print(f"  pass where 95 % of the known images pass (FPR95)  {format_metric(strangers.fpr95)}")
