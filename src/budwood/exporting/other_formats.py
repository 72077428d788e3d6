"""Formats other than the ONNX file: each is made for one use, and checked against the run before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from budwood.errors import RunError
from budwood.exporting.form_answers import Form, compute_answers
from budwood.exporting.form_usage import add_usage
from budwood.reporting.model_card import CARD_FILE, format_score
from budwood.runs.predictor import make_predictor, take_check_images
from budwood.runs.run import Run
from budwood.text import counted

if TYPE_CHECKING:
    from budwood.exporting.formats import ExportRequest

TOLERANCE: Final = 1e-3  # of a probability
CARD: Final = "README.md"

Floats = NDArray[np.float64]


def write_web(request: ExportRequest) -> None:
    """Write the folder of a page that classifies in a browser.

    Args:
        request: What to write, and where.

    Raises:
        OSError: A file cannot be written.
    """
    from budwood.exporting.web_page import write_web_folder

    run, record = request.run, request.record
    name, size = run.record.dataset.name, run.record.network.size
    metadata = record.model_dump() | {"name": name, "size": size}
    write_web_folder(request.to, request.model, metadata, list_facts(run))
    (request.to / CARD_FILE).write_text(request.card, encoding="utf-8")


def list_facts(run: Run) -> list[tuple[str, str]]:
    """List what a page tells of a model: terms, with their texts.

    Args:
        run: The run.

    Returns:
        Its network, its scores with their intervals, the run, and what is to be known of its images.
    """
    network, made = run.record.network, run.record.ensemble
    name = f"{len(made.members)} networks, the first of them {network.name}" if made else network.name
    facts = [("Network", f"{name}, {network.size} × {network.size} pixels")]
    for split, word in (("val", "validation"), ("test", "test")):
        if split in run.metrics:
            facts.append((f"Accuracy, {word} images", format_score("accuracy", run.metrics[split].accuracy)))
    if run.value_range is not None:
        facts.append(
            ("Images", "It learned from images of more than 8 bits. Browsers show 8 of them, so answers may differ.")
        )
    return [*facts, ("Run", run.record.id)]


def write_openvino_folder(request: ExportRequest) -> None:
    """Write OpenVINO's folder, and check it.

    Args:
        request: What to write, and where.

    Raises:
        RunError: OpenVINO is not installed or cannot convert the network, the networks of an ensemble see different
            pixels, or the answers are others than the run's.
        StorageError: A file cannot be written.
    """
    from budwood.exporting.openvino_folder import write_openvino

    run = request.run
    if len({(one.record.network.size, one.recipe.resizing) for one in run.members() or [run]}) > 1:
        raise RunError(
            f"{run.path}: cannot be exported to the format openvino: its networks see images of different sizes.",
            "Use the format onnx, or export its members, each a run of its own.",
        )
    write_openvino(request.model, run.record.network.size, request.record.to_json(), request.to)
    (request.to / CARD).write_text(add_usage(request.card, "openvino", run), encoding="utf-8")
    check_probabilities("openvino", request, request.to)


def write_torch(request: ExportRequest) -> None:
    """Write a program of PyTorch, with the model card beside it, and check it.

    Args:
        request: What to write, and where.

    Raises:
        RunError: The answers are others than the run's.
        OSError: A file cannot be written.
    """
    from budwood.exporting.torch_program import write_torch_program

    write_torch_program(request.run, request.to, request.record.model_dump())
    request.to.with_suffix(".md").write_text(add_usage(request.card, "torch", request.run), encoding="utf-8")
    check_probabilities("torch", request, request.to)


def write_timm(request: ExportRequest) -> None:
    """Write a folder in the form of timm and the Hugging Face Hub, and check it.

    Args:
        request: What to write, and where.

    Raises:
        RunError: timm cannot hold the network, or the logits are others than the run's.
        OSError: A file cannot be written.
    """
    from budwood.exporting.timm_folder import write_timm_folder

    run = request.run
    write_timm_folder(run, request.to)
    (request.to / CARD).write_text(add_usage(request.card, "timm", run), encoding="utf-8")
    pixels, rule = take_check_images(run, run.record.network.size), run.decision_rule
    expected = rule.to_probabilities(make_predictor(run, request.context).compute_logits(pixels))
    found = rule.to_probabilities(compute_answers("timm", request.to, pixels))
    compare_answers("timm", request, expected, found)


def check_probabilities(form: Form, request: ExportRequest, place: Path) -> None:
    """Check a form against the ONNX file, which was checked against the run, in a process of its own.

    Args:
        form: Which form.
        request: What was written.
        place: Where it was.

    Raises:
        RunError: A probability differs by more than `TOLERANCE`.
    """
    import onnxruntime

    pixels = take_check_images(request.run, request.run.record.network.size)
    session = onnxruntime.InferenceSession(request.model, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(["probabilities"], {"image": image[None]})[0] for image in pixels])
    compare_answers(form, request, expected, compute_answers(form, place, pixels).astype(np.float64))


def compare_answers(form: Form, request: ExportRequest, expected: Floats, found: Floats) -> None:
    """Compare probabilities, [n, classes] each, and say how they differ.

    Raises:
        RunError: One differs by more than `TOLERANCE`.
    """
    if found.shape != expected.shape or not np.abs(found - expected).max() <= TOLERANCE:
        difference = f"by {np.abs(found - expected).max():.2g}" if found.shape == expected.shape else "in their number"
        raise RunError(
            f"{request.run.path}: the exported {form} model answers otherwise than the run: probabilities differ "
            f"{difference}, expected at most {TOLERANCE:g}. Nothing was written.",
            "Use the format onnx.",
        )
    largest = np.abs(found - expected).max()
    request.context.progress.note(
        f"Checked in a process of its own on {counted(len(found), 'image')}: the largest difference of a probability "
        f"is {largest:.1e}."
    )
