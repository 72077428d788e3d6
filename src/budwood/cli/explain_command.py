"""The command that explains a run."""

from __future__ import annotations

from pathlib import Path

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_path, complete_run
from budwood.cli.device_option import add_device_option
from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress, print_json
from budwood.cli.output import show_explanation


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("images", metavar="[IMAGES...]", nargs=-1, shell_complete=complete_path)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="layer-cam, grad-cam, integrated-gradients or occlusion; may be repeated. [the first two]",
)
@click.option(
    "--place",
    "places",
    multiple=True,
    metavar="LAYER",
    help="Layer that maps, units and filters show, by name, as 'layer 25', first or last; may be repeated. With "
    "images: the stage whose output layer-cam and grad-cam use. [chosen by the network]",
)
@click.option(
    "--channel",
    "channels",
    type=int,
    multiple=True,
    metavar="N",
    help="Channel that maps and units show, from 0; may be repeated. [those that vary most]",
)
@click.option(
    "--beside",
    multiple=True,
    metavar="RUN",
    help="Show maps and units beside those of another run, of start (the network before training) or of imagenet "
    "(with ImageNet weights); may be repeated.",
)
@click.option("--class", "called", metavar="NAME", help="Class to explain. [the predicted class of each image]")
@click.option(
    "--show",
    "parts",
    multiple=True,
    metavar="PART",
    help="images, stages, filters, embedding, mistakes, labels, classes, maps (what a layer gives) or units (what its "
    "channels look for); may be repeated. [all but classes, maps and units]",
)
@click.option(
    "--html", type=click.Path(path_type=Path), help="HTML file for the page about IMAGES. [explained.html in RUN]"
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    help="Random seed: of the checks of maps, and of the noise that pictures of classes and units begin with. [0]",
)
@add_out_option
@add_device_option
@add_common_options
def explain(
    run: str,
    images: tuple[str, ...],
    methods: tuple[str, ...],
    places: tuple[str, ...],
    channels: tuple[int, ...],
    beside: tuple[str, ...],
    called: str | None,
    parts: tuple[str, ...],
    html: Path | None,
    seed: int | None,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Show what a run's network has learned: of the run, in its report; of IMAGES, on a page of their own."""
    from budwood.explain.side_by_side import UNTRAINED
    from budwood.runs.run import open_run
    from budwood.storage.context import open_context
    from budwood.workflows.explain import explain_run

    if html and not images:
        raise click.UsageError("--html: needs IMAGES. Without them, the results go into the report of the run.")
    explanation, page = explain_run(
        open_run(run, out),
        open_context(progress=make_terminal_progress()),
        images,
        methods=methods,
        place=places,
        called=called,
        parts=parts,
        channels=channels,
        beside=[one if one in UNTRAINED else open_run(one, out) for one in dict.fromkeys(beside)],
        page=html,
        seed=seed,
    )
    if as_json:
        print_json({"run": run, "page": str(page), **explanation.record.table()})
        return
    show_explanation(explanation.record)
    print(f"Page: {page}")
