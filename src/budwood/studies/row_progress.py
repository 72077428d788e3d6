"""How far a row of a study is while the study is carried out: its jobs, and how those ended that have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from budwood.comparison.rows import Published
from budwood.config.metric_registry import is_loss
from budwood.studies.monitor import RowLine
from budwood.studies.optuna_search import Trial
from budwood.studies.study_state import RowState, RowStatus
from budwood.studies.training_job import JobResult, TrainingJob


@dataclass
class RowProgress:
    """A row or a trial: its jobs, one a seed or fold, and their results by the jobs' names."""

    label: str
    jobs: tuple[TrainingJob, ...]
    published: Published | None = None
    problem: str = ""
    status: RowStatus = "waiting"
    epoch: int = 0
    results: dict[str, JobResult] = field(default_factory=dict)
    trial: Trial | None = None

    def open_jobs(self) -> list[RowJob]:
        """List the jobs that have not ended."""
        return [RowJob(self, job, place) for place, job in enumerate(self.jobs) if job.id not in self.results]

    def end(self, job: TrainingJob, result: JobResult) -> None:
        """Note how a job ended; with the last one the row has ended, and what kept jobs from being done is its problem.

        Args:
            job: One of the row's jobs.
            result: How it ended.
        """
        self.results[job.id] = result
        if len(self.results) < len({one.id for one in self.jobs}):
            self.status = "waiting" if self.status == "training" else self.status
            return
        states = [one.state for one in self.results.values()]
        self.status = "failed" if "failed" in states else "pruned" if "pruned" in states else "done"
        self.problem = " ".join(dict.fromkeys(one.problem for one in self.results.values() if one.problem))

    def state(self) -> RowState:
        """Return what is written of the row."""
        return RowState(
            label=self.label,
            state=self.status,
            problem=self.problem,
            runs=tuple(job.id for job in self.jobs),
            published=self.published,
        )

    def line(self, metric: str, value_of: Callable[[str], float]) -> RowLine:
        """Return what is shown of the row.

        Args:
            metric: What the study compares.
            value_of: The metric of a finished run, by its name.

        Returns:
            The line of the live table.
        """
        done = [job.id for job in self.jobs if job.id in self.results and self.results[job.id].state == "done"]
        if self.status == "training":
            count = f"{len(done)} of {len(self.jobs)} done" if len(self.jobs) > 1 else ""
            epoch = f"epoch {self.epoch}" if self.epoch else ""
            return RowLine(self.label, self.status, ", ".join(filter(None, (count, epoch))))
        if self.status != "done" or not done:
            return RowLine(self.label, self.status, self.problem)
        mean = sum(map(value_of, done)) / len(done)
        shown = f"{mean:.4f}" if is_loss(metric) else f"{100 * mean:.2f} %"
        return RowLine(self.label, self.status, f"{metric} {shown}")


@dataclass(frozen=True, eq=False)
class RowJob:
    """A job of a row, as a queue gives it out; `repeat` is its place, from 0, among those of its row."""

    row: RowProgress
    job: TrainingJob
    repeat: int = 0

    @property
    def id(self) -> str:
        """The name of the job's run."""
        return self.job.id

    @property
    def group(self) -> str:
        """What the job shares with others."""
        return self.job.group
