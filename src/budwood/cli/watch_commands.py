"""`budwood drift` and `budwood suggest`: a model in use, and what to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_run
from budwood.cli.device_option import add_device_option
from budwood.cli.exit_codes import DRIFTED
from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress, print_json
from budwood.cli.output import find_width
from budwood.text import counted, fit_table, listed, show_unprintable

if TYPE_CHECKING:
    from budwood.evaluation.intervals import Metric
    from budwood.workflows.drift import Drift
    from budwood.workflows.learning_curve import CurveReport
    from budwood.workflows.suggest import Suggestions


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("images", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Chance of a false alarm, of all three tests together.",
)
@click.option(
    "--size",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Size from which on a change counts: 0 is none, 1 means nothing in common.",
)
@click.option(
    "--n",
    type=click.IntRange(10),
    default=500,
    show_default=True,
    help="Images that are compared at most, of the new ones and of validation.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with the strangest images.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Random seed of the draw of images and of the tests. [0]",
)
@add_out_option
@add_device_option
@add_common_options
def drift(
    run: str,
    images: tuple[Path, ...],
    alpha: float,
    size: float,
    n: int,
    html: Path | None,
    seed: int,
    out: Path,
    as_json: bool,
    debug: bool,
) -> int:
    """Test whether new images are like those that a run was validated on."""
    import budwood as bw
    from budwood.runs.run import open_run
    from budwood.workflows.watch_pages import write_drift_page

    opened = open_run(run, out)
    progress = make_terminal_progress()
    found = bw.drift(opened, images, alpha=alpha, least_size=size, n=n, seed=seed, progress=progress)
    if html:
        write_drift_page(html, opened, found)
    if as_json:
        print_json({**found.table(), "page": str(html) if html else None})
    else:
        _show_drift(found, html)
    return DRIFTED if found.found else 0


def _show_drift(found: Drift, html: Path | None) -> None:
    from budwood.workflows.drift import QUESTIONS

    print(found.sentence)
    print(f"Compared: {counted(found.n, 'new image')}, {counted(found.reference, 'validation image')}.")
    if found.tests:
        rows = [
            (
                QUESTIONS[test.name],
                "–" if test.size != test.size else f"{test.size:.2f} ({test.low:.2f} to {test.high:.2f})",
                "–" if test.p != test.p else f"{test.p:.4f}",
                "changed" if test.found else "",
            )
            for test in found.tests
        ]
        print(fit_table([("what is compared", "size of the change", "p", ""), *rows], (1, 2), find_width(), join=False))
        print(
            f"A change counts if p is below {found.alpha:g} and its size is {found.least_size:g} or more. Size: 0 "
            "none, 1 nothing in common; in brackets its 95 % interval."
        )
    for note in found.notes:
        print(f"Note: {show_unprintable(note)}")
    if found.strangest:
        print("The strangest new images:")
    for one in found.strangest:
        print(
            f"  {show_unprintable(one.path)}: called {one.called} ({one.probability:.1%}); farther from training "
            f"images than {one.beyond:.0%} of validation"
        )
    if html:
        print(f"Page: {html}")


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("images", metavar="[DIR...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--n", type=click.IntRange(1), help="Number of images to suggest. [50]")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a table to fill in for --corrections.")
@click.option(
    "--target",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Without DIR: accuracy for which images are counted. [half of the present error away]",
)
@click.option("--html", type=click.Path(path_type=Path), help="Without DIR: also write the curve to a page.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, metavar="N", help="Random seed of what is drawn by chance. [0]"
)
@add_out_option
@add_device_option
@add_common_options
def suggest(
    run: str,
    images: tuple[Path, ...],
    n: int | None,
    table: Path | None,
    target: float | None,
    html: Path | None,
    seed: int,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Suggest which images of DIR to label next; without DIR, tell whether more images would help.

    Fill in the column `correct` of the table, then train again with --corrections TABLE, which adds the images.
    """
    import budwood as bw
    from budwood.runs.run import open_run
    from budwood.workflows.suggest import COUNT, refuse_filled, save_suggestions

    _refuse_unused(bool(images), {"--n": n, "--csv": table}, {"--target": target, "--html": html})
    opened, progress = open_run(run, out), make_terminal_progress()
    if not images:
        _show_learning_curve(bw.learning_curve(opened, target=target, seed=seed, progress=progress), html, as_json)
        return
    if table:
        refuse_filled(table)
    found = bw.suggest(opened, images, n=n or COUNT, seed=seed, progress=progress)
    if table:
        save_suggestions(table, found, opened.task.multilabel)
    if as_json:
        print_json({**found.table(), "table": str(table) if table else None})
        return
    _show_suggestions(found, table)


def _refuse_unused(with_images: bool, of_images: dict[str, object], of_curve: dict[str, object]) -> None:
    """Raises `UsageError` for an option that does not apply."""
    for name, value in (of_curve if with_images else of_images).items():
        if value is not None:
            need = "is for the learning curve: leave DIR out" if with_images else "needs DIR, the images to choose from"
            raise click.UsageError(f"{name}: {need}.")


def _show_suggestions(found: Suggestions, table: Path | None) -> None:
    print(f"{counted(len(found.images), 'image')} to label next, of {found.n:,} that are not labelled:")
    for one in found.images:
        copies = f"; {counted(len(one.copies), 'near copy', 'near copies')} left out" if one.copies else ""
        print(f"  {show_unprintable(one.path)}: {one.called} ({one.probability:.1%}) or {one.second}{copies}")
    if found.new.known:
        print(f"{counted(len(found.new.known), 'file')} left out, being in the data set already.")
    if found.new.unreadable:
        names = listed([show_unprintable(path) for path, _ in found.new.unreadable], 3)
        print(f"{counted(len(found.new.unreadable), 'file')} cannot be decoded: {names}")
    if table:
        print(f"Table: {table}. Fill in the column `correct`, then: budwood train DATA --corrections {table}")


def _show_learning_curve(report: CurveReport, html: Path | None, as_json: bool) -> None:
    from budwood.workflows.watch_pages import write_curve_page

    if html:
        write_curve_page(html, report)
    if as_json:
        print_json({**report.table(), "page": str(html) if html else None})
        return
    print(report.about)
    sizes = zip(report.curve.sizes, report.curve.wrong, strict=True)
    rows = [(f"{size:,.0f}", f"{1 - part.mean():.1%}", "", "") for size, part in sizes]
    rows[-1] = (rows[-1][0], *_format_metric(report.accuracy), "now")
    rows += [(f"{images:,}", *_format_metric(metric), "forecast") for images, metric in report.forecasts]
    print(fit_table([("images", "accuracy", "95 % interval", ""), *rows], (0, 1, 2), find_width(), join=False))
    print(f"Accuracy on {counted(report.accuracy.n, 'validation image')}. Beyond the last row nothing is forecast.")
    print(f"{report.verdict}\n{report.needed_sentence}\n{report.class_verdict}")
    if html:
        print(f"Page: {html}")


def _format_metric(metric: Metric) -> tuple[str, str]:
    assert metric.value is not None
    if metric.low is None or metric.high is None:
        return f"{metric.value:.1%}", ""
    return f"{metric.value:.1%}", f"{metric.low:.1%} to {metric.high:.1%}"
