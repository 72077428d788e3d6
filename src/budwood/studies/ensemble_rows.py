"""Ensembles of a study: which of its finished runs they are made of, and its rows that are ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from budwood.config.metric_registry import is_loss
from budwood.errors import BudwoodError, StorageError, StudyError, did_you_mean
from budwood.networks.plan import hash_json
from budwood.runs.run import Run, find_run
from budwood.runs.run_files import WEIGHTS
from budwood.studies.ensemble_table import EnsembleRow
from budwood.studies.monitor import RowLine
from budwood.studies.row_progress import RowProgress
from budwood.studies.study import Study
from budwood.studies.study_state import RowState, RowStatus, read_state
from budwood.studies.training_job import name_job
from budwood.text import listed
from budwood.workflows.ensemble import Rule, ensemble
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
    if found and not runs:
        raise StudyError(f"{folder}: these rows are ensembles themselves.", "Name the rows that were trained.")
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


@dataclass
class EnsembleProgress(RowProgress):
    """The progress of a row that is an ensemble: it is made once all rows that it is of have ended.

    Attributes:
        made: The name of its run; empty while there is none.
    """

    made: str = ""

    def state(self) -> RowState:
        """Return the row in the form in which it is saved, with the name of its run."""
        return super().state().model_copy(update={"runs": (self.made,) if self.made else ()})

    def line(self, metric: str, value_of: Callable[[str], float]) -> RowLine:
        """Return the row in the form in which the live table shows it."""
        if self.status != "done":
            return RowLine(self.label, self.status, self.problem)
        value = value_of(self.made)
        told = f"{value:.4f}" if is_loss(metric) else f"{100 * value:.2f} %"
        return RowLine(self.label, self.status, f"{metric} {told}")


def list_ensembles(study: Study) -> list[EnsembleProgress]:
    """List the ensembles of a study, none of them made yet.

    Args:
        study: The study.

    Returns:
        Their progress, in the order of the file.
    """
    return [EnsembleProgress(row.label, ()) for row in study.ensembles]


def make_ensembles(
    study: Study, folder: Path, rows: Sequence[RowProgress], ensembles: Sequence[EnsembleProgress]
) -> None:
    """Make the ensembles of a study whose members have ended; one that was made of the same runs before stays.

    What goes wrong is recorded in the row, so that the others are made.

    Args:
        study: The study.
        folder: The study's folder.
        rows: Its other rows, trials included.
        ensembles: Their progress, which is brought up to date.

    Raises:
        StorageError: Nothing more can be saved.
    """
    for row, progress in zip(study.ensembles, ensembles, strict=True):
        able = [one for one in rows if study.folds is None or one.trial is None]  # a trial is of one fold alone
        members = [one for one in able if not row.of or one.label in row.of]
        progress.status, progress.problem = _find_hindrance(row, members)
        if progress.status != "done":
            continue
        try:
            progress.made = _make(row, folder, [job.id for one in members if one.status == "done" for job in one.jobs])
        except StorageError:
            raise
        except BudwoodError as error:
            progress.status, progress.problem = "failed", error.message


def _find_hindrance(row: EnsembleRow, members: Sequence[RowProgress]) -> tuple[RowStatus, str]:
    """The state that the rows of an ensemble bring it into: done where it can be made, and else why it cannot."""
    unended = [one.label for one in members if one.status in ("waiting", "training")]
    if unended:
        return "waiting", f"waits for {listed(unended, 3)}"
    failed = [one.label for one in members if row.of and one.status != "done"]
    if failed:
        return "failed", f"is made of {listed(failed, 3)}, which failed"
    return "done", ""


def _make(row: EnsembleRow, folder: Path, names: Sequence[str]) -> str:
    """Make an ensemble of runs, unless there is one of them already, and return its name."""
    runs = [find_run(folder / name) for name in dict.fromkeys(names)]
    digests = [[run.path.name, run.record.files.get(WEIGHTS, "")] for run in runs]
    id = name_job(row.label, hash_json([row.rule, digests])[:10], {})
    if _find_finished(folder, id) is None:
        ensemble(runs, row.rule, out=folder, id=id)
    return id
