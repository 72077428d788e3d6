"""The pages of drift and of learning curves, written from their findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from budwood.evaluation.learning_curve import FAR
from budwood.reporting.thumbnails import make_thumbnail
from budwood.reporting.watch_page import render_curve, render_drift
from budwood.runs.run import Run
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.workflows.drift import Drift
from budwood.workflows.learning_curve import CurveReport


def write_drift_page(path: Path, run: Run, drift: Drift) -> None:
    """Write the page about drift.

    Args:
        path: File to make or replace.
        run: The run.
        drift: What was found.

    Raises:
        StorageError: The file cannot be written.
    """
    id_of_new = dict(zip(drift.new.samples.paths, drift.new.samples.ids, strict=True))
    id_of_old = dict(zip(drift.training.paths, drift.training.ids, strict=True))
    pictures: dict[str, str | None] = {}
    for one in drift.strangest:
        place = Path(one.path).absolute()
        pictures[one.path] = make_thumbnail(place.parent, place.name, id_of_new[one.path], run.value_range)
        for near in one.nearest:
            pictures[near] = make_thumbnail(drift.training.root, near, id_of_old[near], run.value_range)
    with raise_storage_errors(path):
        write_text(path, render_drift(run.record.id, drift.table(), pictures))


def write_curve_page(path: Path, report: CurveReport) -> None:
    """Write the page of a learning curve.

    Args:
        path: File to make or replace.
        report: The curve with its forecasts.

    Raises:
        StorageError: The file cannot be written.
    """
    law, sizes = report.curve.fit(), report.curve.sizes
    steps = sorted({*np.geomspace(sizes[0], FAR * sizes[-1], 40).tolist(), float(sizes[-1])})
    line = [(n, 1 - float(law.predict(n)[0])) for n in steps]
    with raise_storage_errors(path):
        write_text(path, render_curve(report.run.name, report.table(), line, report.forecasts))
