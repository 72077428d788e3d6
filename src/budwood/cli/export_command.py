"""`budwood export`: a run as one file that answers as the run does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_run
from budwood.cli.device_option import add_device_option
from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress, print_json

if TYPE_CHECKING:
    from budwood.runs.export_record import ExportRecord

FORMS: Final = (  # no list of their names, as a mistake is told by `bw.export`
    "onnx: one file; web: a page for any browser; openvino, which needs budwood[openvino]; timm: a folder for timm and "
    "the Hugging Face Hub; torch: a program of torch.export."
)


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="FILE|DIR", help="Where the export goes.")
@click.option("--format", "name", default="onnx", show_default=True, metavar="FORM", help=FORMS)
@click.option("--int8", is_flag=True, help="Use 8-bit integers, unless that is significantly worse on validation.")
@click.option("--force", is_flag=True, help="Replace a file that is no export.")
@add_out_option
@add_device_option
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
    show_parity(made.record)


def show_parity(record: ExportRecord) -> None:
    """Print how an exported file was checked against its run."""
    from budwood.reporting.model_card import format_score

    parity, eight = record.parity, record.int8
    assert parity
    print(
        f"Checked on {parity.images:,} images of the run's data and {parity.made} made ones, in a process without "
        f"Budwood ({parity.engine}):"
    )
    print(
        f"  largest difference of a probability {parity.largest_difference:.2g}"
        + (f" (allowed: {parity.tolerance:g})" if parity.tolerance is not None else "")
    )
    print(f"  called the same {format_score('accuracy', parity.agreement)}")
    if parity.same_refusals is not None:
        print(f"  refused alike {parity.same_refusals:,} of {parity.n:,}")
    print(f"  validation accuracy of the file {format_score('accuracy', parity.accuracy)}")
    print(f"  of the run {format_score('accuracy', parity.run_accuracy)}")
    if eight:
        print(
            f"8 bits: {eight.int8_correct:,} of {eight.n:,} validation images are correct, {eight.run_correct:,} with "
            f"32 bits (p = {eight.p:.2g}, exact McNemar test)."
        )
