"""A run in, one file out that answers as the run does; or nothing, and the reason why."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.errors import RunError, did_you_mean
from budwood.evaluation.novelty import NoveltyScorer
from budwood.exporting.destination import draft_export, refuse_taken
from budwood.exporting.formats import FORMATS, ExportRequest
from budwood.exporting.onnx_file import NetworkGraph, build_model, put_metadata, read_network_graph
from budwood.exporting.parity import check_model
from budwood.progress import Progress
from budwood.reporting.model_card import render_model_card
from budwood.runs.export_record import ExportRecord
from budwood.runs.machine import library_versions
from budwood.runs.predictor import make_predictor, read_training_images
from budwood.runs.run import Run, open_any_run, utc_now
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context, open_context
from budwood.text import quote_path

FORMAT: Final = "onnx"


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        path: The file or folder.
        format: Its format.
        record: What the file tells of itself, with how it was checked.
        bytes: Size of the ONNX file.
        seconds: How long it took, the check included.
    """

    path: Path
    format: str
    record: ExportRecord
    bytes: int
    seconds: float


def export(
    run: Run | str | Path,
    to: str | Path,
    format: str = FORMAT,
    *,
    int8: bool = False,
    force: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export a run to a file that holds all of its answer, and that needs neither Budwood nor PyTorch.

    The file receives decoded images of any size. Resize, normalisation, network, temperature and the score of "none of
    these" are inside. It is checked on images of the run's data in a process of its own, and refused where it answers
    otherwise than the run.

    Args:
        run: A finished run, or its path or id.
        to: The file, or the folder of a format that is one.
        format: Name of a format.
        int8: Whether the network is in 8-bit integers, unless that is significantly worse on validation.
        force: Whether a file is replaced that is no export.
        cache: The cache folder; None: the usual one.
        progress: Where notes go; None: nowhere.

    Returns:
        What was exported.

    Raises:
        RunError: There is no such run or format, the place is taken, the network cannot be exported, or the file
            answers otherwise than the run.
        WeightsError: The run's weights cannot be read.
        StorageError: The file cannot be written.
    """
    started, to, context = time.perf_counter(), Path(to), open_context(cache, progress)
    if format not in FORMATS:
        raise RunError(f"format: there is no format {format!r}.", did_you_mean(format, FORMATS))
    chosen = FORMATS[format]
    if int8 and not chosen.holds_int8:
        held = ", ".join(name for name, one in FORMATS.items() if one.holds_int8)
        raise RunError(f"int8: the format {format} has no 8 bits.", f"Leave it out, or choose a format of: {held}.")
    run = open_any_run(run)
    if to.name and not chosen.folder and not to.suffix:
        to = to.with_name(to.name + chosen.suffix)
    refuse_taken(to, chosen.folder, force)
    model, record = make_checked_model(run, context, int8)
    card = render_model_card(run, record.parity)
    with draft_export(to, chosen.folder) as place:
        chosen.write(ExportRequest(run, model, record, card, place, context))
    return Export(to, format, record, len(model), time.perf_counter() - started)


def make_checked_model(run: Run, context: Context, int8: bool) -> tuple[bytes, ExportRecord]:
    """Build the ONNX file of a run and check it.

    Args:
        run: A finished run.
        context: The cache folder, and where notes go.
        int8: Whether the network is in 8-bit integers.

    Returns:
        The file, and the record in its metadata.

    Raises:
        RunError: The network cannot be exported, or the file answers otherwise than the run.
        WeightsError: The weights cannot be read.
        StorageError: The cache cannot be written.
    """
    import onnx

    with raise_storage_errors(context.cache):
        members = read_members(run, context, int8)
    weights = [one.weight for one in run.record.ensemble.members] if run.record.ensemble else [1.0]
    novelty = run.novelty_scorer()
    record = describe_export(run, members, novelty)
    model = build_model(members, weights, run.decision_rule, novelty, record)
    if not (run.record.confidence and run.record.confidence.calibration):
        context.progress.note(
            "The run has no temperature, so probabilities are exported as they are; "
            f"`budwood calibrate {quote_path(run.path)}` finds one."
        )
    parity, eight = check_model(model, make_predictor(run, context), int8)
    record = record.model_copy(update={"parity": parity, "int8": eight})
    return put_metadata(onnx.load_from_string(model), record), record


def read_members(run: Run, context: Context, int8: bool) -> list[NetworkGraph]:
    """The graphs of a run's networks, several of an ensemble."""
    return [read_network_graph(one, context, int8) for one in (run.members() if run.record.ensemble else [run])]


def describe_export(run: Run, members: list[NetworkGraph], novelty: NoveltyScorer | None) -> ExportRecord:
    """The record of a run's export, before it is checked."""
    rule, known = run.decision_rule, run.record.confidence
    sets = known.sets if known else None
    return ExportRecord(
        run=run.record.id,
        created=utc_now(),
        classes=run.classes,
        task="multi-label" if run.task.multilabel else "single-label",
        temperature=tuple(rule.temperature.tolist()),
        thresholds=None if rule.thresholds is None else tuple(rule.thresholds.tolist()),
        costs=None if rule.costs is None else tuple(map(tuple, rule.costs.tolist())),
        set_limits=None if rule.set_limits is None else tuple(rule.set_limits.tolist()),
        coverage=sets.coverage if sets else None,
        reject_method=novelty.method if novelty else None,
        reject_threshold=novelty.threshold if novelty else None,
        value_range=run.value_range,
        training=read_training_images(run),
        features=members[0].run.record.network.features,
        recipe=run.recipe.toml(),
        data=run.record.dataset.fingerprint,
        weights={name: run.record.files.get(name, "") for name in run.weight_files},
        versions=library_versions(),
    )
