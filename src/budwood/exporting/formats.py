"""The formats of an export, by name: each makes its files of the ONNX file that was checked against the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.exporting.other_formats import write_openvino_folder, write_timm, write_torch, write_web
from budwood.runs.export_record import ExportRecord
from budwood.runs.run import Run
from budwood.storage.context import Context


@dataclass(frozen=True)
class ExportRequest:
    """What a format is given.

    Attributes:
        run: The run.
        model: The ONNX file, checked against the run, with its metadata.
        record: Its record, as in the metadata.
        card: The model card, Markdown.
        to: Where to write: a file with the name that it will have, alone in a folder, or an empty folder. What is
            written there is put in its place when all of it is done.
        context: The cache folder, and where notes go.
    """

    run: Run
    model: bytes
    record: ExportRecord
    card: str
    to: Path
    context: Context


@dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        write: Writes it to `to`; of a file also what belongs beside it. A `BudwoodError` refuses.
        folder: Whether it is a folder, else a file.
        about: What it is, in a few words.
        suffix: How the name of its file ends; empty of a folder.
        holds_int8: Whether it is made of the ONNX file, and so is in 8 bits where that is.
    """

    write: Callable[[ExportRequest], object]
    folder: bool
    about: str
    suffix: str = ""
    holds_int8: bool = False


def write_onnx(request: ExportRequest) -> None:
    """Write the ONNX file, and the model card beside it.

    Args:
        request: What to write, and where.

    Raises:
        OSError: A file cannot be written.
    """
    request.to.with_suffix(".md").write_text(request.card, encoding="utf-8")
    request.to.write_bytes(request.model)


FORMATS: Final[Mapping[str, ExportFormat]] = {
    "onnx": ExportFormat(write_onnx, False, "one file for ONNX Runtime", ".onnx", holds_int8=True),
    "openvino": ExportFormat(write_openvino_folder, True, "a folder for OpenVINO, on devices of Intel's"),
    "timm": ExportFormat(write_timm, True, "a folder that timm and the Hugging Face Hub load"),
    "torch": ExportFormat(write_torch, False, "a torch.export program, for PyTorch alone", ".pt2"),
    "web": ExportFormat(write_web, True, "a page that classifies in any browser, offline", holds_int8=True),
}
