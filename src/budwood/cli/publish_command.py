"""`budwood publish`: a run on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_run
from budwood.cli.device_option import add_device_option
from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress, print_json


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("name", metavar="NAME")
@click.option("--dry-run", is_flag=True, help="List the files and show the head of the card; send nothing.")
@click.option("--private", is_flag=True, help="Make the repository private, if it is a new one.")
@add_out_option
@add_device_option
@add_common_options
def publish(run: str, name: str, dry_run: bool, private: bool, out: Path, as_json: bool, debug: bool) -> None:
    """Publish a run on the Hugging Face Hub as NAME (owner/name), with its model card.

    It is published as timm loads it, or as an ONNX file where timm cannot hold the network. No images are sent, but
    the card tells what it knows of the data.
    """
    from budwood.runs.run import open_run
    from budwood.text import show_unprintable
    from budwood.workflows.publish import publish as publish_run

    progress = make_terminal_progress()
    made = publish_run(open_run(run, out), name, private=private, dry_run=dry_run, progress=progress)
    if as_json:
        print_json(
            {
                "repository": made.repository,
                "form": made.form,
                "sent": made.sent,
                "files": [{"path": file.path, "bytes": file.bytes} for file in made.files],
                "head": made.head,
            }
        )
        return
    for file in made.files:
        print(f"{file.bytes:>13,} bytes  {file.path}")
    if not dry_run:
        print(f"Published as {made.repository}, for {made.form}.")
        return
    print("Head of the card:")
    for line in made.head.splitlines():
        print(f"  {show_unprintable(line)}")
    print(f"Nothing was sent. Without --dry-run, this would be {made.repository}, for {made.form}.")
