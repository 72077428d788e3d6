"""Which job of a study is next: those that share what is computed once come together, and the first computes it."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Final, Generic, Protocol, TypeVar

TRIES: Final = 3  # times that a job is given out when those who carry it out die


class Schedulable(Protocol):
    """The interface of a job that a queue can hold."""

    @property
    def id(self) -> str:
        """Return the name of what the job makes."""

    @property
    def group(self) -> str:
        """Return the name of what the job shares with others."""

    @property
    def repeat(self) -> int:
        """Return the job's position, from 0, among the seeds or folds of its row."""


Job = TypeVar("Job", bound=Schedulable)


class JobQueue(Generic[Job]):
    """A queue of the jobs that wait and those that run; jobs that share a computation come together.

    Groups come in the order in which they first occur, and within a group the first repeats of all rows come before
    the second ones. The queue has no lock of its own: several threads must use it under one.
    """

    def __init__(self, jobs: Iterable[Job] = (), tries: int = TRIES) -> None:
        """Make a queue.

        Args:
            jobs: The jobs that wait.
            tries: How many times a job is given out when its workers die.
        """
        waiting = list(jobs)
        groups = list(dict.fromkeys(job.group for job in waiting))
        self._waiting = sorted(waiting, key=lambda job: (groups.index(job.group), job.repeat))
        self._running: list[Job] = []
        self._warm: set[str] = set()
        self._deaths: dict[str, int] = {}
        self._seconds: dict[str, list[float]] = {}
        self._tries = tries

    @property
    def waiting(self) -> tuple[Job, ...]:
        """Return the jobs that wait, in order."""
        return tuple(self._waiting)

    @property
    def running(self) -> tuple[Job, ...]:
        """Return the jobs that were given out and have not ended."""
        return tuple(self._running)

    def take(self) -> Job | None:
        """Give out the next job that may start.

        Returns:
            The job; None where no job waits, or where each has to wait longer: a job with the same id is running, or
            another job is computing what its group shares.
        """
        job = next((job for job in self._waiting if self._may_begin(job)), None)
        if job is not None:
            self._waiting.remove(job)
            self._running.append(job)
        return job

    def start(self, job: Job) -> None:
        """Give out a job that never waited.

        Args:
            job: The job.
        """
        self._running.append(job)

    def finish(self, job: Job, seconds: float | None = None) -> None:
        """Record that a job has ended.

        Args:
            job: A job that was given out.
            seconds: The seconds that it took; None where it did not succeed.
        """
        self._running.remove(job)
        if seconds is not None:
            self._warm.add(job.group)
            self._seconds.setdefault(job.group, []).append(seconds)

    def retry(self, job: Job) -> bool:
        """Put a job back to the front of the queue, as its worker died.

        Args:
            job: A job that was given out.

        Returns:
            False where it was given out too often; it then still runs and has to be finished.
        """
        self._deaths[job.id] = self._deaths.get(job.id, 0) + 1
        if self._deaths[job.id] >= self._tries:
            return False
        self.put_back(job)
        return True

    def put_back(self, job: Job) -> None:
        """Put a job that did not end back to the front of the queue.

        Args:
            job: A job that was given out.
        """
        self._running.remove(job)
        self._waiting.insert(0, job)

    def expect_seconds(self) -> float | None:
        """Estimate the seconds that the next job takes.

        Returns:
            The median of the jobs that succeeded; None while there is none.
        """
        measured = [seconds for group in self._seconds.values() for seconds in group]
        return median(measured) if measured else None

    def estimate_seconds(self, further: int = 0) -> float | None:
        """Estimate the seconds of all jobs that have not ended, one after another.

        The estimate uses the times of jobs of the same group, else of all jobs.

        Args:
            further: Number of further jobs that the queue does not know yet.

        Returns:
            Seconds; None while no job has succeeded.
        """
        measured = [seconds for group in self._seconds.values() for seconds in group]
        if not measured:
            return None
        by_job = [self._seconds.get(job.group, measured) for job in (*self._waiting, *self._running)]
        return sum(_mean(seconds) for seconds in by_job) + further * _mean(measured)

    def _may_begin(self, job: Job) -> bool:
        """Whether neither its twin is under way nor what its group shares."""
        warming = job.group not in self._warm and any(other.group == job.group for other in self._running)
        return not warming and all(other.id != job.id for other in self._running)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
