"""The search of a study as rows: trials that have ended, and the next one whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from budwood.studies.job_planning import JobPlanner
from budwood.studies.optuna_search import Trial, TrialStore
from budwood.studies.row_progress import RowProgress
from budwood.studies.study import Study
from budwood.studies.study_state import RowStatus
from budwood.studies.training_job import JobContext, JobResult


@dataclass(frozen=True)
class SearchRows:
    """The search of a study in the form of rows.

    Attributes:
        trials: The trials in their storage.
        planner: Makes the jobs of trials.
    """

    trials: TrialStore
    planner: JobPlanner

    def list_ended(self, context: JobContext) -> list[RowProgress]:
        """List the trials that have ended, here or on another machine.

        Args:
            context: The folders in which jobs run; a run that is not there was trained elsewhere.

        Returns:
            One row a trial.
        """
        return [self._end_row(trial, trial.state, context) for trial in self.trials.all() if trial.state != "running"]

    def draw(self) -> RowProgress | None:
        """Draw the next trial.

        Returns:
            A row of one job; without a job, and recorded as failed, where the trial's options do not make a valid job.
            None where there are enough trials.
        """
        trial = self.trials.ask()
        if trial is None:
            return None
        row = self._plan(trial)
        if not row.jobs:
            row.status = "failed"
            self.trials.tell(trial, "failed", None, row.problem)
        return row

    def tell(self, trial: Trial, result: JobResult, value: float | None) -> None:
        """Record in the search how a trial ended.

        Args:
            trial: A trial that was drawn.
            result: How its job ended.
            value: The metric on the validation set; None unless it is done.
        """
        self.trials.tell(trial, result.state, value, result.problem)

    def count_left(self) -> int:
        """Count the trials that are still to be drawn.

        Returns:
            Their number, 0 or more.
        """
        return max(self.trials.most - len(self.trials.all()), 0)

    def _plan(self, trial: Trial) -> RowProgress:
        return self.planner.plan_trial(trial, self.trials.place(trial))

    def _end_row(self, trial: Trial, status: RowStatus, context: JobContext) -> RowProgress:
        row = self._plan(trial)
        row.status, row.problem = status, row.problem or trial.problem
        if row.jobs and context.is_done(row.jobs[0].id):
            row.results[row.jobs[0].id] = JobResult("done")
        elif trial.state == "done":
            row.problem = "was trained elsewhere; its run folder is not here"
        return row


def open_search(study: Study, planner: JobPlanner, context: JobContext, storage: str | None) -> SearchRows | None:
    """Open the search of a study; the study's folder is made where it is missing.

    Args:
        study: The study.
        planner: Makes the jobs of its trials.
        context: The folders in which jobs run.
        storage: URL where trials are stored; None: a file in the study's folder.

    Returns:
        The search as rows; None where the study has none.

    Raises:
        StudyError: The storage cannot be opened.
    """
    if study.search is None:
        return None
    context.folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(context.folder / 'trials.db').resolve()}"
    return SearchRows(TrialStore(study.search, url, study.name, study.metric, str(context.folder.resolve())), planner)
