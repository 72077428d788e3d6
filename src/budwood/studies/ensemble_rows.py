"""Ensembles of a study: which of its finished runs they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from budwood.errors import StudyError, did_you_mean
from budwood.runs.run import Run, find_run
from budwood.studies.study_state import read_state
from budwood.workflows.ensemble import Rule
from budwood.workflows.ensemble_candidates import FOLD


def list_study_runs(folder: Path, labels: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """List the finished runs of a study, or of some of its rows, each once; ensembles among its rows are left out.

    Args:
        folder: The study's folder.
        labels: Labels of rows; none for all rows.

    Returns:
        The runs in the order of the rows, and the label and state of each row that has an unfinished run.

    Raises:
        StudyError: The study's state cannot be read, there is no such row, or none of the rows has a finished run.
    """
    rows = read_state(folder).rows
    known = [row.label for row in rows]
    for label in labels:
        if label not in known:
            raise StudyError(f"{folder}: the study has no row {label!r}.", did_you_mean(label, known))
    chosen = [row for row in rows if not labels or row.label in labels]
    found = {name: run for row in chosen for name in row.runs if (run := _find_finished(folder, name))}
    open_rows = [row for row in chosen if not row.runs or any(name not in found for name in row.runs)]
    runs = [run for run in found.values() if not run.record.ensemble]
    if not runs:
        raise StudyError(f"{folder}: none of these rows has a finished run.", "Run the study: `budwood study FILE`.")
    return runs, [f"{row.label} ({row.state})" for row in open_rows]


def choose_rule(runs: Sequence[Run]) -> Rule:
    """Choose how the runs of a study are weighted where that is not said.

    Args:
        runs: The runs.

    Returns:
        `validation`, as a study has runs of very different worth; `equal` for folds, which have no images in common.
    """
    return "equal" if any(run.record.dataset.split.startswith(FOLD) for run in runs) else "validation"


def _find_finished(folder: Path, name: str) -> Run | None:
    if not (folder / name / "run.json").is_file():
        return None
    run = find_run(folder / name)
    return run if run.record.state == "done" else None
