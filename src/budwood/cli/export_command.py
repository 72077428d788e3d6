"""`budwood export`: a run as one file that answers as the run does."""

from __future__ import annotations

from pathlib import Path

import click

from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress, print_json


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="FILE|DIR", help="Where the export goes.")
@click.option("--format", "name", default="onnx", show_default=True, help="Its format.")
@click.option("--int8", is_flag=True, help="Use 8-bit integers, unless that is significantly worse on validation.")
@click.option("--force", is_flag=True, help="Replace a file that is no export.")
@add_out_option
@add_common_options
def export(run: str, to: Path, name: str, int8: bool, force: bool, out: Path, as_json: bool, debug: bool) -> None:
    """Export a run as one file that answers as the run does, without Budwood; refused if it answers otherwise."""
    import budwood as bw
    from budwood.runs.run import open_run

    made = bw.export(open_run(run, out), to, name, int8=int8, force=force, progress=make_terminal_progress())
    if as_json:
        print_json(
            {
                "path": str(made.path),
                "format": made.format,
                "bytes": made.bytes,
                "seconds": round(made.seconds, 2),
                "record": made.record.model_dump(),
            }
        )
        return
    print(f"Exported to {made.path} ({made.bytes / 2**20:.1f} MiB, {made.seconds:.1f} s).")
