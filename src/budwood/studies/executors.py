"""Who carries out the jobs of a study: this process, others on this machine, or workers of a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from budwood.errors import StorageError, StudyError
from budwood.hardware import count_processors, count_threads
from budwood.progress import Progress, Silent
from budwood.storage.context import Context
from budwood.studies.training_job import DatasetCache, JobContext, JobResult, TrainingJob, run_job, with_absolute_paths
from budwood.training.history import EpochCallback, Rows

POLL: Final = 0.25  # seconds between two looks at the epochs of a Ray worker


class WorkerDied(Exception):  # noqa: N818 - it is an event
    """The end of the process or machine that ran a job; the job can be given to another."""


class Executor(Protocol):
    """The interface of what runs jobs, one after another."""

    def run(self, job: TrainingJob, on_epoch_end: EpochCallback | None = None) -> JobResult:
        """Run a job.

        Args:
            job: The job.
            on_epoch_end: Called in this process, in the calling thread, after every epoch, with all rows of history so
                far. An exception that it raises ends the job.

        Returns:
            How the job ended.

        Raises:
            WorkerDied: The worker is gone; the next call starts another.
            StorageError: Nothing more can be saved.
        """

    def close(self) -> None:
        """Release the worker."""


@dataclass(frozen=True)
class EpochsEnded:
    """The message of a worker that epochs have ended.

    Attributes:
        rows: The rows of history since its last message.
    """

    rows: Rows


Answer = JobResult | StorageError


class InProcessExecutor:
    """An executor that runs jobs in this process."""

    def __init__(self, context: JobContext, datasets: DatasetCache, progress: Progress) -> None:
        """Make an executor for a study.

        Args:
            context: The folders in which jobs run.
            datasets: The data sets of the study.
            progress: Receives notes and the steps of the work.
        """
        self._context = context
        self._datasets = datasets
        self._progress = progress

    def run(self, job: TrainingJob, on_epoch_end: EpochCallback | None = None) -> JobResult:
        """Run a job in this process.

        Args:
            job: The job.
            on_epoch_end: Called after every epoch with all rows of history so far.

        Returns:
            How the job ended.

        Raises:
            StorageError: Nothing more can be saved.
        """
        return run_job(job, self._context, self._datasets, self._progress, on_epoch_end)

    def close(self) -> None:
        """Do nothing, as there is no worker to release."""


class RemoteExecutor(ABC):
    """An executor that runs jobs in a worker elsewhere, which starts with its first job, and again after its death."""

    def run(self, job: TrainingJob, on_epoch_end: EpochCallback | None = None) -> JobResult:
        """Run a job in the worker, which is started where there is none.

        Args:
            job: The job.
            on_epoch_end: Called in this process after every epoch with all rows of history so far.

        Returns:
            How the job ended.

        Raises:
            WorkerDied: The worker is gone.
            StorageError: Nothing more can be saved.
        """
        try:
            answer = self._answer(job, _Relay(on_epoch_end))
        except BaseException:
            self.close()  # what the worker still says is about a job that nobody waits for
            raise
        if isinstance(answer, StorageError):
            raise answer
        return answer

    @abstractmethod
    def close(self) -> None:
        """Release the worker."""

    @abstractmethod
    def _answer(self, job: TrainingJob, relay: _Relay) -> Answer:
        """Send a job, hand on its epochs while it is trained, and return how it ended; raises `WorkerDied`."""


class SubprocessExecutor(RemoteExecutor):
    """An executor that runs jobs in another process on this machine, with a share of the processors.

    The process starts with its first job, and again after it has died.
    """

    def __init__(self, context: JobContext, number: int, of: int) -> None:
        """Make an executor; its process is not started yet.

        Args:
            context: The folders in which jobs run.
            number: Which share of the processors the process uses, from 0.
            of: How many shares there are.
        """
        self._context = context
        self._share = (number, of)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def _answer(self, job: TrainingJob, relay: _Relay) -> Answer:
        """Send a job to the process, hand on its epochs while it is trained, and return how it ended."""
        pipe = self._pipe or self._start()
        with _noticing_death(job):
            pipe.send(with_absolute_paths(job))
        while True:
            with _noticing_death(job):
                message: EpochsEnded | Answer = pipe.recv()
            if not isinstance(message, EpochsEnded):
                return message
            relay.hand_on(message.rows)

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join()
        self._process, self._pipe = None, None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._context, *self._share), daemon=True)
        with _ignoring_interrupts():
            process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        return ours


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Let processes that start in the block ignore Ctrl-C, which a terminal sends to all: theirs ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # to start it later would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _noticing_death(job: TrainingJob) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise WorkerDied(f"the process that trained {job.label!r} ended unexpectedly") from error


class RayExecutor(RemoteExecutor):
    """An executor that runs jobs in a worker of a Ray cluster, whose machines see the same folders.

    The worker starts with its first job; another is started after it has died.
    """

    def __init__(self, ray: Any, context: JobContext, environment: Mapping[str, str]) -> None:
        """Make an executor; its worker is not started yet.

        Args:
            ray: The `ray` module, connected to a cluster.
            context: The folders in which jobs run, with absolute paths.
            environment: Environment variables of the worker.
        """
        self._ray = ray
        self._context = context
        self._environment = dict(environment)
        self._actor: Any = None

    def _answer(self, job: TrainingJob, relay: _Relay) -> Answer:
        """Send a job to the worker, ask for its epochs while it is trained, and return how it ended."""
        actor = self._actor or self._start()
        try:
            pending = actor.run.remote(with_absolute_paths(job))
            ended: Sequence[Any] = ()
            while not ended:
                ended, _ = self._ray.wait([pending], timeout=POLL)
                relay.hand_on(self._ray.get(actor.take_epochs.remote()))
            answer: Answer = self._ray.get(pending)
        except self._ray.exceptions.RayActorError as error:
            self._actor = None
            raise WorkerDied(f"the worker that trained {job.label!r} ended unexpectedly") from error
        return answer

    def close(self) -> None:
        """End the worker."""
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    def _start(self) -> Any:
        remote = self._ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2)(_Worker)  # one trains, one tells
        self._actor = remote.options(runtime_env={"env_vars": self._environment}).remote(self._context)
        return self._actor


class _Worker:
    """What carries out jobs elsewhere: a Ray worker is one, and a process has one."""

    def __init__(self, context: JobContext) -> None:
        self._executor = InProcessExecutor(
            context,
            DatasetCache(Context(context.cache, Silent()), leaks=context.leaks, folder=context.folder),
            Silent(),
        )
        self._lock = threading.Lock()
        self._unsent: list[Mapping[str, float]] = []

    def run(self, job: TrainingJob) -> Answer:
        """Carry out a job; its epochs wait for `take_epochs`."""
        return self.answer(job, self._keep)

    def take_epochs(self) -> Rows:
        """Return the rows of history that are new since the last call."""
        with self._lock:
            rows, self._unsent = self._unsent, []
        return rows

    def answer(self, job: TrainingJob, on_new_rows: Callable[[Rows], None]) -> Answer:
        """Carry out a job; a `StorageError` is returned, not raised, so that it arrives as one."""
        sent = 0

        def report(history: Rows) -> None:
            nonlocal sent
            on_new_rows(list(history[sent:]))
            sent = len(history)

        try:
            return self._executor.run(job, report)
        except StorageError as error:
            return StorageError(error.message, error.hint)

    def _keep(self, rows: Rows) -> None:
        with self._lock:
            self._unsent += rows


class _Relay:
    """Puts rows that arrive bit by bit together, and calls back with the whole history, as training does here."""

    def __init__(self, on_epoch_end: EpochCallback | None) -> None:
        self._on_epoch_end = on_epoch_end
        self._history: list[Mapping[str, float]] = []

    def hand_on(self, rows: Rows) -> None:
        """Add new rows and call back after each, as several may arrive together."""
        if self._on_epoch_end:
            for row in rows:
                self._history.append(row)
                self._on_epoch_end(tuple(self._history))


def start_subprocesses(context: JobContext, count: int) -> list[Executor]:
    """Make executors on this machine, each with its own process, which starts with its first job.

    Args:
        context: The folders in which jobs run.
        count: Number of executors; each uses an equal share of the processors.

    Returns:
        The executors.
    """
    context = _with_absolute_folders(context)
    return [SubprocessExecutor(context, number, count) for number in range(count)]


def _with_absolute_folders(context: JobContext) -> JobContext:
    return JobContext(context.folder.resolve(), context.cache.resolve(), context.leaks)


def connect_ray(context: JobContext, address: str, count: int | None) -> tuple[list[Executor], Callable[[], None]]:
    """Connect to a Ray cluster, or start one on this machine.

    Args:
        context: The folders in which jobs run; every machine of the cluster sees them.
        address: The cluster's address; `local` starts a cluster on this machine.
        count: Number of workers; None: one a processor, or two on a cluster that is started here.

    Returns:
        The executors, and a function that leaves the cluster.

    Raises:
        StudyError: Ray is not installed, or no cluster answers.
    """
    if find_spec("ray") is None:
        raise StudyError("--ray: Ray is not installed.", "Install it with: pip install 'budwood[ray]'")
    ray: Any = importlib.import_module("ray")
    context = _with_absolute_folders(context)
    try:
        if address == "local":
            ray.init(num_cpus=count or 2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        else:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises plain ones, too
        raise StudyError(
            f"--ray {address}: no cluster can be reached at this address ({error}).",
            "Start one with `ray start --head`, or use --ray local.",
        ) from error
    workers = count or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    threads = str(max(min(count_threads(), count_processors() // workers), 1)) if address == "local" else ""
    environment = {"OMP_NUM_THREADS": threads} if threads else {}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH", "BUDWOOD_CACHE_LIMIT") if name in os.environ}
    return [RayExecutor(ray, context, environment) for _ in range(workers)], ray.shutdown


def _serve(pipe: Connection, context: JobContext, number: int, of: int) -> None:
    """Carry out jobs in another process until it is sent home, or the process that gives them is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _take_share(number, of)
    worker = _Worker(context)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send(worker.answer(pipe.recv(), lambda rows: pipe.send(EpochsEnded(rows))))


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, even if it was killed: nobody waits for its job."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _take_share(number: int, of: int) -> None:
    """Keep to a share of the processors, where the system allows it, so that processes do not compete for them.

    `processors` then counts these.
    """
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        share = processors[number::of] or [processors[number % len(processors)]]
        os.sched_setaffinity(0, share)
