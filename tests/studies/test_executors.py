"""Jobs are carried out in this process, in others and on Ray alike: their epochs arrive, and a death is noticed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
import test_runner

import budwood as bw
from budwood.data.scanning import scan
from budwood.errors import StorageError
from budwood.progress import Silent
from budwood.runs.run import find_run
from budwood.storage.context import Context
from budwood.studies import executors, optuna_search, training_job
from budwood.studies.executors import (
    Executor,
    InProcessExecutor,
    RayExecutor,
    SubprocessExecutor,
    WorkerDied,
    connect_ray,
)
from budwood.studies.optuna_search import TrialStore, make_reporter
from budwood.studies.runner import ExecutionOptions
from budwood.studies.study_file import parse_study
from budwood.studies.study_tables import DataSpec
from budwood.studies.training_job import DatasetCache, JobContext, JobResult, TrainingJob
from budwood.training.history import Rows
from conftest import fill

SMALL: dict[str, Any] = {
    "model": "cnn",
    "widths": (8, 8),
    "fc": (16,),
    "size": 16,
    "batch": 8,
    "optimizer": "adam",
    "lr": 0.001,
}
LONG = 100_000  # epochs: nothing waits for their end


@dataclass(frozen=True)
class Place:
    """DataSpec, the fingerprint of their scan, and where runs are kept."""

    photos: Path
    fingerprint: str
    context: JobContext

    def job(self, id: str, epochs: int = 3, **options: Any) -> TrainingJob:
        """A job of a small network."""
        recipe = bw.Recipe(**{**SMALL, "epochs": epochs, **options})
        return TrainingJob(id, id, recipe, DataSpec(data=str(self.photos)), self.fingerprint)


@pytest.fixture(scope="class")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    fill(folder / "photos" / "leaf", 30, hue=1)
    fill(folder / "photos" / "sky", 30, hue=2)
    context = JobContext(folder / "runs", Path(os.environ["BUDWOOD_CACHE"]))
    return Place(folder / "photos", scan(folder / "photos").fingerprint, context)


class ExecutorContract:
    """What every executor promises."""

    def test_a_job_is_carried_out_once(self, executor: Executor, place: Place) -> None:
        job = place.job("once")
        assert executor.run(job).state == "done"
        written = (place.context.folder / "once/run.json").stat().st_mtime_ns
        assert executor.run(job).state == "done"
        assert (place.context.folder / "once/run.json").stat().st_mtime_ns == written

    def test_a_failure_is_a_result(self, executor: Executor, place: Place) -> None:
        other = replace(place.job("other"), fingerprint="another fingerprint")
        result = executor.run(other)
        assert result.state == "failed"
        assert "contains other images or splits" in result.problem

    def test_every_epoch_arrives_with_the_whole_history(self, executor: Executor, place: Place) -> None:
        histories: list[Rows] = []
        assert executor.run(place.job("told"), lambda history: histories.append(list(history))).state == "done"
        assert [[row["epoch"] for row in history] for history in histories] == [[1], [1, 2], [1, 2, 3]]
        kept = find_run(place.context.folder / "told").history
        assert [row["val_loss"] for row in histories[-1]] == pytest.approx([row["val_loss"] for row in kept])

    def test_an_interruption_while_epochs_arrive_ends_the_job_and_not_the_executor(
        self, executor: Executor, place: Place
    ) -> None:
        def interrupt(history: Rows) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            executor.run(place.job("stopped", LONG), interrupt)
        assert executor.run(place.job("after")).state == "done"

    def test_closing_twice_is_closing_once(self, executor: Executor, place: Place) -> None:
        executor.close()
        executor.close()


class WorkerContract(ExecutorContract):
    """What an executor promises whose work is done elsewhere."""

    def kill(self, executor: Any) -> None:
        raise NotImplementedError

    def test_a_death_is_noticed_while_epochs_arrive_and_the_next_job_finds_another_worker(
        self, executor: Executor, place: Place
    ) -> None:
        seen: list[float] = []

        def kill(history: Rows) -> None:
            if not seen:
                self.kill(executor)
            seen.append(history[-1]["epoch"])

        with pytest.raises(WorkerDied, match="that trained 'long' ended unexpectedly"):
            executor.run(place.job("long", LONG), kill)
        assert seen[0] >= 1, "epochs arrive while the job is trained: it never ended"
        assert executor.run(place.job("next")).state == "done"


class TestInProcess(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, place: Place) -> Executor:
        return InProcessExecutor(place.context, DatasetCache(Context(place.context.cache, Silent())), Silent())


class TestSubprocess(WorkerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, place: Place, quick_processes: BaseContext) -> Iterator[Executor]:
        made = SubprocessExecutor(place.context, 0, 1)
        yield made
        made.close()

    def kill(self, executor: SubprocessExecutor) -> None:
        assert executor._process
        assert executor._process.pid
        os.kill(executor._process.pid, signal.SIGKILL)

    def test_a_trial_is_pruned_there_too(self, executor: Executor, place: Place, tmp_path: Path) -> None:
        table = {"name": "s", "search": {"space": {"lr": {"low": 1e-9, "high": 1e-8}}}}
        search = parse_study(table, "s", "").search
        assert search
        trials = TrialStore(search, f"sqlite:///{tmp_path / 'trials.db'}", "s", "accuracy", "here")
        for _ in range(optuna_search.STARTUP):
            good = trials.ask()
            assert good
            report = make_reporter(trials.place(good))
            for epoch in range(1, 7):
                report([{"epoch": epoch, "val_loss": 0.0, "val_accuracy": 1.1}])
            trials.tell(good, "done", 1.1, "")
        bad = trials.ask()
        assert bad
        epochs: list[float] = []
        job = replace(place.job("pruned", 6), trial=trials.place(bad))
        result = executor.run(job, lambda history: epochs.append(history[-1]["epoch"]))
        assert (result.state, epochs) == ("pruned", [1, 2, 3])
        assert result.problem.startswith("pruned after epoch 3")


class _GoneError(Exception):
    """What Ray raises when an actor is gone."""


class _Cluster:
    """What of Ray is used, in threads of this process."""

    class exceptions:  # noqa: N801 - as Ray calls it
        RayActorError = _GoneError

    def __init__(self) -> None:
        self.actors = 0

    def remote(self, **options: Any) -> Any:
        assert options["max_concurrency"] >= 2, "an actor that trains is asked for its epochs"
        cluster = self

        class Remote:
            def __init__(self, kind: Any) -> None:
                self.kind = kind

            def options(self, **options: Any) -> Any:
                return self

            def remote(self, context: JobContext) -> Any:
                cluster.actors += 1
                return _Handle(self.kind(context))

        return Remote

    def wait(self, pending: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        done, rest = futures.wait(pending, timeout)
        return list(done), list(rest)

    def get(self, answer: futures.Future[Any]) -> Any:
        return answer.result()

    def kill(self, actor: Any) -> None:
        self.actors -= 1
        actor.die()


class _Handle:
    """An actor: each method runs in a thread; once it is dead, none answers any more."""

    def __init__(self, worker: Any) -> None:
        self._dead = False
        self._training: futures.Future[Any] | None = None
        self._pool = futures.ThreadPoolExecutor(2)
        keep = worker._keep

        def keep_alive(rows: Rows) -> None:
            if self._dead:
                raise SystemExit
            keep(rows)

        worker._keep = keep_alive
        self.run, self.take_epochs = _Method(self, worker.run), _Method(self, worker.take_epochs)

    def call(self, method: Any, *arguments: Any) -> futures.Future[Any]:
        if self._dead:
            failed: futures.Future[Any] = futures.Future()
            failed.set_exception(_GoneError())
            return failed
        future = self._pool.submit(method, *arguments)
        if arguments:
            self._training = future
        return future

    def die(self) -> None:
        self._dead = True
        if self._training:
            futures.wait([self._training])
        self._pool.shutdown()


class _Method:
    def __init__(self, handle: _Handle, method: Any) -> None:
        self._handle = handle
        self._method = method

    def remote(self, *arguments: Any) -> futures.Future[Any]:
        return self._handle.call(self._method, *arguments)


class TestStandInForRay(WorkerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, place: Place) -> Iterator[Executor]:
        patch = pytest.MonkeyPatch()
        patch.setattr(executors, "POLL", 0.01)
        made = RayExecutor(_Cluster(), place.context, {})
        yield made
        made.close()
        patch.undo()

    def kill(self, executor: RayExecutor) -> None:
        executor._actor.die()

    def test_an_actor_is_made_once_and_let_go(self, place: Place) -> None:
        cluster = _Cluster()
        executor = RayExecutor(cluster, place.context, {})
        for name in ("first", "second"):
            assert executor.run(place.job(name)).state == "done"
        assert cluster.actors == 1
        executor.close()
        assert cluster.actors == 0

    def test_an_actor_that_is_gone_is_replaced(self, place: Place) -> None:
        cluster = _Cluster()
        executor = RayExecutor(cluster, place.context, {})
        assert executor.run(place.job("before")).state == "done"
        self.kill(executor)
        with pytest.raises(WorkerDied, match="the worker that trained 'slow' ended unexpectedly"):
            executor.run(place.job("slow"))
        assert executor.run(place.job("slow")).state == "done"
        assert cluster.actors == 2
        executor.close()


class TestRay(WorkerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, place: Place) -> Iterator[Executor]:
        patch = pytest.MonkeyPatch()
        patch.setenv("RAY_worker_niceness", "0")  # 15 by default: the tests beside these would come first
        patch.setenv("RAY_prestart_worker_first_driver", "0")  # none of these would have our environment
        (made, _), leave = connect_ray(place.context, "local", 2)
        yield made
        made.close()
        leave()
        patch.undo()

    def kill(self, executor: Executor) -> None:
        for worker in _ray_workers():  # one that was let go may linger
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    @pytest.mark.slow  # the contract holds with what stands in for Ray, and here a worker is killed below
    def test_a_job_is_carried_out_once(self, executor: Executor, place: Place) -> None:
        super().test_a_job_is_carried_out_once(executor, place)

    @pytest.mark.slow
    def test_an_interruption_while_epochs_arrive_ends_the_job_and_not_the_executor(
        self, executor: Executor, place: Place
    ) -> None:
        super().test_an_interruption_while_epochs_arrive_ends_the_job_and_not_the_executor(executor, place)

    @pytest.mark.slow
    def test_a_death_is_noticed_while_epochs_arrive_and_the_next_job_finds_another_worker(
        self, executor: Executor, place: Place
    ) -> None:
        super().test_a_death_is_noticed_while_epochs_arrive_and_the_next_job_finds_another_worker(executor, place)

    @pytest.mark.slow
    def test_a_study_on_a_cluster_has_the_table_of_one_here(
        self, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import ray

        executor.close()  # its processor is the study's
        fill(tmp_path / "photos" / "leaf", 30, hue=1)
        fill(tmp_path / "photos" / "sky", 30, hue=2)
        monkeypatch.chdir(tmp_path)
        Path("small.toml").write_text(test_runner.SMALL + test_runner.ROWS)
        bw.study("small.toml", tmp_path / "photos", out="alone", execution=ExecutionOptions(test=True))
        monkeypatch.setattr(ray, "init", lambda **options: None)  # it joins the cluster that is there
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        bw.study("small.toml", tmp_path / "photos", out="cluster", execution=ExecutionOptions(ray="local", test=True))
        assert test_runner._table(tmp_path / "cluster/small") == test_runner._table(tmp_path / "alone/small")

    def test_a_killed_training_goes_on_with_another_worker(self, executor: Executor, place: Place) -> None:
        long = place.job("killed", 100)
        with futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(executor.run, long)
            while not (place.context.folder / "killed").exists():
                assert not answer.done(), answer.result()
                time.sleep(0.05)
            self.kill(executor)
            with pytest.raises(WorkerDied, match="the worker that trained 'killed' ended unexpectedly"):
                answer.result(timeout=60)
        assert executor.run(long).state == "done"


def test_a_process_that_dies_before_its_job_is_replaced(place: Place) -> None:
    executor = SubprocessExecutor(place.context, 0, 1)
    executor._start()
    assert executor._process
    assert executor._process.pid
    os.kill(executor._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="the process that trained 'slow' ended unexpectedly"):
        executor.run(place.job("slow"))
    assert executor.run(place.job("slow")).state == "done"
    executor.close()


def test_epochs_that_arrive_together_are_told_one_by_one() -> None:
    told: list[list[float]] = []
    relay = executors._Relay(lambda history: told.append([row["epoch"] for row in history]))
    for rows in ([], [{"epoch": 1.0}, {"epoch": 2.0}], [], [{"epoch": 3.0}]):
        relay.hand_on(rows)
    assert told == [[1], [1, 2], [1, 2, 3]]


def test_a_full_disk_elsewhere_is_one_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> JobResult:
        raise StorageError("no space left on the disk", "Free some space.")

    monkeypatch.setattr(training_job, "train_recipe", full)
    executor = RayExecutor(_Cluster(), place.context, {})
    with pytest.raises(StorageError, match="no space left"):
        executor.run(place.job("full"))
    executor.close()


def _ray_workers() -> list[int]:
    """The processes that carry out jobs for Ray and that this process has brought about, through Ray's own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Worker") and os.getpid() in _ancestors(folder.name):
                found.append(int(folder.name))
    return found


def _ancestors(process: str) -> Iterator[int]:
    while int(process):
        status = (Path("/proc") / process / "status").read_text()
        process = status.split("PPid:\t")[1].split("\n")[0]
        yield int(process)
