"""How far a row of a study is while the study is carried out: its jobs, and how those ended that have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from budwood.comparison.published import Published
from budwood.config.metric_registry import is_loss
from budwood.studies.monitor import RowLine
from budwood.studies.optuna_search import Trial
from budwood.studies.study_state import RowState, RowStatus
from budwood.studies.training_job import JobResult, TrainingJob


@dataclass
class RowProgress:
    """The progress of a row or a trial while its study runs.

    Attributes:
        label: The row's label.
        jobs: Its jobs, one for each seed or fold; empty where it cannot be trained.
        published: What the source reports for the row; None: nothing.
        problem: Why it failed or was refused or pruned; empty for none.
        status: waiting, training, done, failed, refused or pruned.
        epoch: The last epoch that has ended; 0 for none.
        results: How jobs ended, by their ids.
        trial: The trial that the row is; None for a row of the file.
    """

    label: str
    jobs: tuple[TrainingJob, ...]
    published: Published | None = None
    problem: str = ""
    status: RowStatus = "waiting"
    epoch: int = 0
    results: dict[str, JobResult] = field(default_factory=dict)
    trial: Trial | None = None

    def open_jobs(self) -> list[RowJob]:
        """List the jobs that have not ended.

        Returns:
            The jobs, as a queue takes them.
        """
        return [RowJob(self, job, place) for place, job in enumerate(self.jobs) if job.id not in self.results]

    def end(self, job: TrainingJob, result: JobResult) -> None:
        """Record how a job ended; the row ends with its last job, and the jobs' problems become its own.

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
        """Return the row in the form in which it is saved.

        Returns:
            The state of the row, with the names of its runs.
        """
        return RowState(
            label=self.label,
            state=self.status,
            problem=self.problem,
            runs=tuple(job.id for job in self.jobs),
            published=self.published,
        )

    def line(self, metric: str, value_of: Callable[[str], float]) -> RowLine:
        """Return the row in the form in which the live table shows it.

        Args:
            metric: The metric that the study compares.
            value_of: Returns the metric of a finished run, by the run's name.

        Returns:
            The line, with the mean of the metric over the row's jobs once it is done.
        """
        done = [job.id for job in self.jobs if job.id in self.results and self.results[job.id].state == "done"]
        if self.status == "training":
            count = f"{len(done)} of {len(self.jobs)} done" if len(self.jobs) > 1 else ""
            epoch = f"epoch {self.epoch}" if self.epoch else ""
            return RowLine(self.label, self.status, ", ".join(filter(None, (count, epoch))))
        if self.status != "done" or not done:
            return RowLine(self.label, self.status, self.problem)
        mean = sum(map(value_of, done)) / len(done)
        value = f"{mean:.4f}" if is_loss(metric) else f"{100 * mean:.2f} %"
        return RowLine(self.label, self.status, f"{metric} {value}")


@dataclass(frozen=True, eq=False)
class RowJob:
    """A job of a row, as a queue gives it out.

    Attributes:
        row: The row.
        job: The job.
        repeat: Its position, from 0, among the jobs of the row.
    """

    row: RowProgress
    job: TrainingJob
    repeat: int = 0

    @property
    def id(self) -> str:
        """Return the name of the job's run."""
        return self.job.id

    @property
    def group(self) -> str:
        """Return the digest of what the job shares with others."""
        return self.job.group
