"""Which job of a study is next: those that share what is computed once come together, and the first computes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

TRIES: Final = 3  # times that a job is given out when those who carry it out die


class Schedulable(Protocol):
    """What a queue knows of a job: `id` names what it makes, `group` names what it shares with others, and `repeat` is
    its place, from 0, among the seeds or folds of its row."""

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def repeat(self) -> int: ...


Job = TypeVar("Job", bound=Schedulable)


class JobQueue(Generic[Job]):
    """The jobs that wait and those that run. It is not locked: who asks from several threads does so under a lock.

    Jobs of one group come together, groups in the order in which they were first named, and of each group the first
    repeats of all rows come before the second ones.
    """

    def __init__(self, jobs: Iterable[Job] = (), tries: int = TRIES) -> None:
        given = list(jobs)
        groups = list(dict.fromkeys(job.group for job in given))
        self._waiting = sorted(given, key=lambda job: (groups.index(job.group), job.repeat))
        self._running: list[Job] = []
        self._warm: set[str] = set()
        self._deaths: dict[str, int] = {}
        self._seconds: dict[str, list[float]] = {}
        self._tries = tries

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs that wait, in their order."""
        return tuple(self._waiting)

    @property
    def running(self) -> tuple[Job, ...]:
        """The jobs that were given out and have not ended."""
        return tuple(self._running)

    def take(self) -> Job | None:
        """Give out the next job that may begin.

        Returns:
            The job; None where none waits, or where each one that waits has to wait on: its twin is being carried out,
            or another job computes what its group shares.
        """
        job = next((job for job in self._waiting if self._may_begin(job)), None)
        if job is not None:
            self._waiting.remove(job)
            self._running.append(job)
        return job

    def start(self, job: Job) -> None:
        """Give out a job that never waited."""
        self._running.append(job)

    def finish(self, job: Job, seconds: float | None = None) -> None:
        """Note that a job has ended.

        Args:
            job: A job that was given out.
            seconds: What it took; None where it was not done.
        """
        self._running.remove(job)
        if seconds is not None:
            self._warm.add(job.group)
            self._seconds.setdefault(job.group, []).append(seconds)

    def retry(self, job: Job) -> bool:
        """Note that whoever carried out a job died: it waits again, at the front.

        Args:
            job: A job that was given out.

        Returns:
            False where it was given out often enough; then it has yet to be finished.
        """
        self._deaths[job.id] = self._deaths.get(job.id, 0) + 1
        if self._deaths[job.id] >= self._tries:
            return False
        self._running.remove(job)
        self._waiting.insert(0, job)
        return True

    def estimate_seconds(self, more: int = 0) -> float | None:
        """Estimate the seconds of all jobs that have not ended, one after another.

        Args:
            more: How many jobs there will be that the queue does not know yet.

        Returns:
            The seconds, by what jobs of the same group took, else by what all took; None where nothing is known.
        """
        every = [seconds for group in self._seconds.values() for seconds in group]
        if not every:
            return None
        known = [self._seconds.get(job.group, every) for job in (*self._waiting, *self._running)]
        return sum(_mean(seconds) for seconds in known) + more * _mean(every)

    def _may_begin(self, job: Job) -> bool:
        """Whether neither its twin is under way nor what its group shares."""
        warming = job.group not in self._warm and any(other.group == job.group for other in self._running)
        return not warming and all(other.id != job.id for other in self._running)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
