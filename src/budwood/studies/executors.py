"""Who carries out the works of a study: this process, others on this machine, or workers of a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, Protocol

from budwood.errors import BudwoodError, StorageError, StudyError
from budwood.hardware import count_processors
from budwood.progress import Progress, Silent
from budwood.studies.training_job import DatasetCache, EpochCallback, JobContext, JobResult, TrainingJob, run_job


class WorkerDied(Exception):  # noqa: N818 - it is an event
    """The process or machine that carried out a work is gone; the work can be given to another."""


class Executor(Protocol):
    """Carries out one work after another."""

    def do(self, work: TrainingJob, told: EpochCallback | None = None) -> JobResult:
        """Carry out a work; raises `WorkerDied` when nobody is there any more, after which another is."""

    def close(self) -> None:
        """Send the worker home."""


class InProcessExecutor:
    """This process."""

    def __init__(self, bench: JobContext, shelf: DatasetCache, progress: Progress) -> None:
        self._bench = bench
        self._shelf = shelf
        self._progress = progress

    def do(self, work: TrainingJob, told: EpochCallback | None = None) -> JobResult:
        """Carry out a work here."""
        return run_job(work, self._bench, self._shelf, self._progress, told)

    def close(self) -> None:
        """Nothing is to be done."""


class SubprocessExecutor:
    """Another process on this machine, with a share of the processors; it is started again when it dies."""

    def __init__(self, bench: JobContext, number: int, of: int) -> None:
        self._bench = bench
        self._share = (number, of)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._ends: Connection | None = None

    def do(self, work: TrainingJob, told: EpochCallback | None = None) -> JobResult:
        """Carry out a work there."""
        ends = self._ends or self._started()
        try:
            ends.send(work)
            answer = ends.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise WorkerDied(f"the process that trained {work.label!r} is gone") from error
        if isinstance(answer, StorageError):
            raise answer
        outcome: JobResult = answer
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._ends is not None:
            self._ends.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join()
        self._process, self._ends = None, None

    def _started(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._bench, *self._share), daemon=True)
        self._process.start()
        theirs.close()
        self._ends = ours
        return ours


class RayExecutor:
    """A worker of a Ray cluster, which sees the same folders; another is asked for when it is gone."""

    def __init__(self, ray: Any, bench: JobContext, settings: Mapping[str, str]) -> None:
        self._ray = ray
        self._bench = bench
        self._settings = dict(settings)
        self._actor: Any = None

    def do(self, work: TrainingJob, told: EpochCallback | None = None) -> JobResult:
        """Carry out a work there."""
        if self._actor is None:
            remote = self._ray.remote(num_cpus=1, max_restarts=0)(_Worker)
            self._actor = remote.options(runtime_env={"env_vars": self._settings}).remote(self._bench)
        try:
            answer = self._ray.get(self._actor.do.remote(work))
        except self._ray.exceptions.RayActorError as error:
            self._actor = None
            raise WorkerDied(f"the worker that trained {work.label!r} is gone") from error
        if isinstance(answer, StorageError):
            raise answer
        outcome: JobResult = answer
        return outcome

    def close(self) -> None:
        """Let the worker go."""
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None


class _Worker:
    """What a Ray worker does; it answers with a `StorageError` instead of raising it, so that it arrives as one."""

    def __init__(self, bench: JobContext) -> None:
        self._hand = InProcessExecutor(bench, DatasetCache(bench.cache, Silent()), Silent())

    def do(self, work: TrainingJob) -> JobResult | BudwoodError:
        """Carry out a work."""
        return _run_or_catch(self._hand, work)


def start_processes(bench: JobContext, count: int) -> list[Executor]:
    """So many processes on this machine."""
    return [SubprocessExecutor(bench, number, count) for number in range(count)]


def start_ray_workers(bench: JobContext, address: str, count: int | None) -> tuple[list[Executor], Callable[[], None]]:
    """The workers of a Ray cluster, one a processor unless `count` says otherwise, and what leaves the cluster.

    `local` starts a cluster on this machine, with two workers unless `count` says otherwise. Raises `StudyError` when
    Ray is not installed or no cluster answers.
    """
    if find_spec("ray") is None:
        raise StudyError("--ray: Ray is not installed.", "Install it with: pip install 'budwood[ray]'")
    ray: Any = importlib.import_module("ray")
    bench = JobContext(bench.folder.resolve(), bench.cache.resolve(), bench.allow_leaks)
    try:
        if address == "local":
            ray.init(num_cpus=count or 2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        else:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises plain ones, too
        raise StudyError(
            f"--ray {address}: no cluster can be reached there ({error}).",
            "Start one with `ray start --head`, or write --ray local.",
        ) from error
    workers = count or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    threads = str(max(count_processors() // workers, 1)) if address == "local" else ""
    settings = {"OMP_NUM_THREADS": threads} if threads else {}
    settings |= {name: os.environ[name] for name in ("PYTHONPATH", "BUDWOOD_CACHE_LIMIT") if name in os.environ}
    return [RayExecutor(ray, bench, settings) for _ in range(workers)], ray.shutdown


def _serve(ends: Connection, bench: JobContext, number: int, of: int) -> None:
    """What another process does until it is sent home."""
    _take_share(number, of)
    hand = InProcessExecutor(bench, DatasetCache(bench.cache, Silent()), Silent())
    while True:
        try:
            work = ends.recv()
        except (EOFError, KeyboardInterrupt):
            return
        ends.send(_run_or_catch(hand, work))


def _run_or_catch(hand: InProcessExecutor, work: TrainingJob) -> JobResult | BudwoodError:
    try:
        return hand.do(work)
    except StorageError as error:
        return StorageError(error.message, error.hint)


def _take_share(number: int, of: int) -> None:
    """Keep to a share of the processors, where the system can be told so, so that processes do not get in each other's
    way; `processors` then counts these."""
    if hasattr(os, "sched_setaffinity"):
        every = sorted(os.sched_getaffinity(0))
        own = every[number::of] or [every[number % len(every)]]
        os.sched_setaffinity(0, own)
