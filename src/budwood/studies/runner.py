"""A study carried out: its rows in the order that shares most, whatever was finished left as it is, then compared.

Study -> rows of jobs -> queue -> executors -> results -> the trials of a search -> Comparison
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from budwood.comparison.document import Comparison
from budwood.comparison.text import Order
from budwood.data.dataset import Dataset
from budwood.data.given_rows import is_path
from budwood.data.leaks import Leaks
from budwood.data.scanning import read_dataset
from budwood.errors import BudwoodError, RunError, StorageError, StudyError
from budwood.evaluation.label_task import task_of
from budwood.progress import DistinctNotes
from budwood.runs.run import find_run, utc_now
from budwood.storage.atomic import cache_folder, raise_storage_errors, write_text
from budwood.storage.context import Context
from budwood.studies.ensemble_rows import list_ensembles, make_ensembles
from budwood.studies.executors import Executor, InProcessExecutor, WorkerDied, connect_ray, start_subprocesses
from budwood.studies.job_planning import JobPlanner
from budwood.studies.job_queue import TRIES, JobQueue
from budwood.studies.monitor import SilentMonitor, StudyMonitor
from budwood.studies.reports import collect_entries, read_metric, write_comparison
from budwood.studies.row_progress import RowJob, RowProgress
from budwood.studies.search_rows import SearchRows, open_search
from budwood.studies.study import Overrides, Study
from budwood.studies.study_file import load_study, make_tuning_study
from budwood.studies.study_state import (
    STATE_FILE,
    STUDY_FILE,
    StudyState,
    StudyStatus,
    lock_study,
    read_state,
    write_state,
)
from budwood.studies.study_tables import TRIALS
from budwood.studies.training_job import DatasetCache, JobContext, JobResult, list_known_ids
from budwood.training.history import Rows
from budwood.workflows.evaluate import test_together


@dataclass(frozen=True)
class ExecutionOptions:
    """The options of how a study is run.

    Attributes:
        jobs: Number of processes; above 1 also the number of workers on a Ray cluster.
        ray: Address of a Ray cluster, or `local`; None: processes of this machine.
        storage: URL where trials are stored, as Optuna takes it; None: a file in the study's folder.
        time: Seconds of the whole study, from its start: no job starts that would end later, and what is still
            trained then is stopped, to be resumed by the next call; None: no limit.
        order: Of the rows on the page: `given`, as in the file, or `metric`, the best first; None: the study's own.
        test: Whether the test split is opened at the end, for all finished runs at one look.
    """

    jobs: int = 1
    ray: str | None = None
    storage: str | None = None
    time: float | None = None
    test: bool = False
    order: Order | None = None


def study(
    file: str | Path | Study,
    data: Any = None,
    *,
    settings: Mapping[str, Any] | None = None,
    places: Mapping[str, str] | None = None,
    quick: bool = False,
    execution: ExecutionOptions | None = None,
    out: str | Path = "runs",
    leaks: Leaks = "drop",
    cache: Path | None = None,
    monitor: StudyMonitor | None = None,
) -> Comparison:
    """Run a study and compare its rows on the validation set; runs that are finished already are not repeated.

    The runs lie in `out`/<name> beside `study.toml`, `study.json`, `table.csv` and `report.html`. A row that fails
    is recorded with its message, and the others continue.

    Args:
        file: The study's file, or the study.
        data: Replaces the study's own images: a path, a name, a scanned `Dataset`, or what `scan` takes.
        settings: Recipe options that are set for every row.
        places: Paths of the data sets that the study names, by name.
        quick: Whether the file's `[quick]` table is applied to the rows.
        execution: How the study is run, such as the number of processes.
        out: The folder that contains the study's folder.
        leaks: What to do where images leak between given splits, as in `train`: drop, refuse or allow.
        cache: The cache folder; None: the usual one.
        monitor: Shows the progress of the study; None: nothing is shown.

    Returns:
        The comparison of the rows.

    Raises:
        StudyError: The file has mistakes, another process runs the study, or no row could be trained.
        DataError: No images can be used.
        RunError: Test splits are to be opened, and a data set has none.
        StorageError: A folder cannot be written.
    """
    started, monitor, cache = time.monotonic(), monitor or SilentMonitor(), cache or cache_folder()
    data = data if data is None else _read_unless_named(data, cache, monitor)
    scanned = {data.source: data} if isinstance(data, Dataset) else {}
    named = {"": data.source if isinstance(data, Dataset) else str(data)} if data is not None else {}
    if not isinstance(file, Study):
        file = load_study(file, Overrides(quick, settings or {}, {**(places or {}), **named}))
    context = JobContext(Path(out) / file.name, cache, leaks)
    with lock_study(context.folder), monitor.watching(file.title):
        datasets = DatasetCache(Context(cache, DistinctNotes(monitor)), scanned, leaks, context.folder)
        file = _choose_metric(file, datasets, context.folder)
        return _prepare(file, context, monitor, execution or ExecutionOptions(), datasets, started).run()


def tune(
    data: Any,
    options: Mapping[str, Any] | None = None,
    *,
    trials: int = TRIALS,
    sampler: str = "tpe",
    metric: str | None = None,
    seed: int = 0,
    execution: ExecutionOptions | None = None,
    out: str | Path = "runs",
    leaks: Leaks = "drop",
    cache: Path | None = None,
    monitor: StudyMonitor | None = None,
) -> Comparison:
    """Search for a better recipe than the given one.

    The search is over optimizer, learning rate, weight decay, dropout and batch size, also over momentum with sgd,
    and over the head where the trunk is frozen. Options that are given are not searched. It is a study of one row
    and a search, and continues where it was interrupted.

    Args:
        data: A path, a name, a scanned `Dataset`, or what `scan` takes.
        options: Recipe options of the given recipe; None: the defaults.
        trials: Number of recipes that are tried.
        sampler: How they are drawn: random or tpe.
        metric: The metric that is compared on the validation set; None: accuracy, or mean average precision where
            images have several labels.
        seed: Seed of the trials.
        execution: How the search is run, such as the number of processes.
        out: The folder that contains the study's folder.
        leaks: What to do where images leak between given splits, as in `train`: drop, refuse or allow.
        cache: The cache folder; None: the usual one.
        monitor: Shows the progress of the search; None: nothing is shown.

    Returns:
        The comparison of the given recipe and the trials.

    Raises:
        StudyError: An option is wrong, another process runs the search, or nothing could be trained.
        DataError: No images can be used.
        StorageError: A folder cannot be written.
    """
    data = _read_unless_named(data, cache, monitor or SilentMonitor())
    source = data.source if isinstance(data, Dataset) else str(data)
    search = make_tuning_study(source, options or {}, trials=trials, sampler=sampler, metric=metric, seed=seed)
    scanned = data if isinstance(data, Dataset) else None
    return study(search, scanned, execution=execution, out=out, leaks=leaks, cache=cache, monitor=monitor)


def _read_unless_named(data: Any, cache: Path | None, monitor: StudyMonitor) -> Any:
    """The name of a data set as it is; anything else as the data set that it makes."""
    return data if is_path(data) else read_dataset(data, cache, DistinctNotes(monitor))


def _choose_metric(study: Study, datasets: DatasetCache, folder: Path) -> Study:
    """The study with the metric that suits its labels where its file names none, or the one that it began with."""
    if study.metric_given:
        return study
    if (folder / STATE_FILE).is_file():
        return replace(study, metric=read_state(folder).metric)
    fold = None if study.folds is None else 0
    for images in (*(row.images for row in study.rows), *([study.searched] if study.search else [])):
        try:
            data = datasets.load(images, fold, study.folds).data
        except BudwoodError:  # which fails the row
            continue
        return replace(study, metric=task_of(data.label_sets, len(data.classes)).default_metric)
    return study


def _prepare(
    study: Study,
    context: JobContext,
    monitor: StudyMonitor,
    options: ExecutionOptions,
    datasets: DatasetCache,
    started: float,
) -> StudyRunner:
    """Plan the jobs of a study and open its search; jobs whose runs are finished have ended."""
    planner = JobPlanner(study, datasets, list_known_ids(context.folder))
    rows = planner.plan_rows()
    if options.test:
        _refuse_without_test(study, rows, datasets)
    for row in rows:
        for job in row.jobs:
            if context.is_done(job.id):
                row.end(job, JobResult("done"))
    search = open_search(study, planner, context, options.storage)
    return StudyRunner(study, context, monitor, options, datasets, rows, search, started)


def _refuse_without_test(study: Study, rows: Sequence[RowProgress], datasets: DatasetCache) -> None:
    """Raises `RunError` before anything is trained where there is no test split to open."""
    jobs = [(job.images, job.fold, job.folds) for row in rows for job in row.jobs]
    if study.search:
        jobs.append((study.searched, None if study.folds is None else 0, study.folds))
    for images, fold, folds in jobs:
        try:
            data = datasets.load(images, fold, folds).data
        except BudwoodError:  # which fails every trial
            continue
        if not len(data.samples("test")):
            raise RunError(
                f"{images.data}: has no test set, which --test opens.",
                "Leave --test out, or give data with a test set.",
            )


class StudyRunner:
    """The run of one study; threads share its state under one condition variable."""

    def __init__(
        self,
        study: Study,
        context: JobContext,
        monitor: StudyMonitor,
        options: ExecutionOptions,
        datasets: DatasetCache,
        rows: Sequence[RowProgress],
        search: SearchRows | None,
        started: float,
    ) -> None:
        """Prepare to run a study, with the jobs that have not ended in a queue.

        Args:
            study: The study.
            context: The folders in which jobs run.
            monitor: Shows the progress.
            options: How the study is run.
            datasets: The data sets of the study.
            rows: The rows with their jobs; jobs whose runs are finished have ended.
            search: The search; None where the study has none.
            started: When the study began, by `time.monotonic`.
        """
        self._study = study
        self._context = context
        self._monitor = monitor
        self._options = options
        self._datasets = datasets
        self._started = started
        self._cut_short = False
        self._values: dict[str, float] = {}
        self._changed = threading.Condition()
        self._stopped: BaseException | None = None
        self._rows = [*rows, *(search.list_ended(context) if search else ())]
        self._queue = JobQueue([job for row in rows for job in row.open_jobs()])
        self._search = search
        self._ensembles = list_ensembles(study)

    def run(self) -> Comparison:
        """Run the jobs that have not ended, open the test splits where that is asked for, and compare the rows.

        Returns:
            The comparison of the rows.

        Raises:
            StudyError: No row could be trained, or the Ray cluster cannot be reached.
            RunError: Test splits are to be opened, and a data set has none.
            StorageError: Nothing more can be saved.
        """
        with raise_storage_errors(self._context.folder):
            write_text(self._context.folder / STUDY_FILE, self._study.text)
        self._save("running")
        try:
            with self._executors() as executors:
                self._train(executors)
            make_ensembles(self._study, self._context.folder, self._rows, self._ensembles)
            self._show()
            if self._options.test:
                self._open_tests()
        except BaseException:
            with suppress(StorageError):  # which may be the reason
                self._save("stopped")
            raise
        self._save("done" if self._is_complete() else "stopped")
        return self._compare()

    @contextmanager
    def _executors(self) -> Iterator[Sequence[Executor]]:
        """Those who carry out the jobs; they are sent home when the block ends."""
        with ExitStack() as stack:
            executors: Sequence[Executor]
            if self._options.ray is not None:
                count = self._options.jobs if self._options.jobs > 1 else None
                executors, leave = connect_ray(self._context, self._options.ray, count)
                stack.callback(leave)
            elif self._options.jobs > 1:
                executors = start_subprocesses(self._context, self._options.jobs)
            else:
                executors = [InProcessExecutor(self._context, self._datasets, DistinctNotes(self._monitor))]
            for executor in executors:
                stack.callback(executor.close)
            yield executors

    def _train(self, executors: Sequence[Executor]) -> None:
        """Carry out the jobs; several executors each have a thread, which does nothing but wait for them."""
        if len(executors) == 1:
            self._work(executors[0])
            return
        threads = [threading.Thread(target=self._work_in_thread, args=(one,), daemon=True) for one in executors]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.2)
                time.sleep(0.05)
        except KeyboardInterrupt as interruption:
            self._stopped = interruption
        if self._stopped:
            raise self._stopped

    def _work_in_thread(self, executor: Executor) -> None:
        try:
            self._work(executor)
        except BaseException as error:
            with self._changed:
                self._stopped = self._stopped or error
                self._changed.notify_all()

    def _work(self, executor: Executor) -> None:
        """Carry out one job after another, until there is none left."""
        while (job := self._take()) is not None:
            try:
                limited = replace(job.job, seconds=self._seconds_left())
                result = executor.run(limited, partial(self._report_epoch, job.row))
            except WorkerDied as death:
                self._retry(job, death)
            else:
                self._end(job, result)

    def _take(self) -> RowJob | None:
        """Take the next job; wait while those that are left wait for what is just being computed."""
        with self._changed:
            while not self._stopped and not self._is_over():
                job = self._queue.take() or self._draw_trial()
                if job is not None:
                    job.row.status = "training"
                    self._show()
                    return job
                if not self._queue.running:
                    return None
                self._changed.wait(1.0)
            return None

    def _draw_trial(self) -> RowJob | None:
        """Draw the next trial of the search, once all rows are given out."""
        while self._search and not self._queue.waiting and (row := self._search.draw()):
            self._rows.append(row)
            if row.jobs:
                (job,) = row.open_jobs()
                self._queue.start(job)
                return job
        return None

    def _report_epoch(self, row: RowProgress, history: Rows) -> None:
        with self._changed:
            row.epoch = int(history[-1]["epoch"])
            self._show()

    def _retry(self, job: RowJob, death: WorkerDied) -> None:
        """Let a job whose worker died wait again, unless it has killed too many."""
        with self._changed:
            if self._queue.retry(job):
                self._changed.notify_all()
                return
        self._end(job, JobResult("failed", f"{death}, {TRIES} times"))

    def _end(self, job: RowJob, result: JobResult) -> None:
        with self._changed:
            if result.state == "stopped":
                self._cut_short = True
                self._queue.put_back(job)
                job.row.status, job.row.problem = "waiting", result.problem
            else:
                self._record(job, result)
            self._save("running")
            self._show()
            self._changed.notify_all()

    def _record(self, job: RowJob, result: JobResult) -> None:
        done = result.state == "done"
        self._queue.finish(job, result.seconds if done else None)
        job.row.end(job.job, result)
        if job.row.trial and self._search:
            self._search.tell(job.row.trial, result, self._value(job.id) if done else None)

    def _value(self, id: str) -> float:
        """The metric of a finished run on validation."""
        if id not in self._values:
            self._values[id] = read_metric(find_run(self._context.folder / id), self._study.metric)
        return self._values[id]

    def _is_over(self) -> bool:
        """Whether no time is left, or less than the next job is expected to take."""
        left = self._seconds_left()
        return self._cut_short or (left is not None and left < (self._queue.expect_seconds() or 0.0))

    def _seconds_left(self) -> float | None:
        """The seconds that are left to the whole study; None: as many as it takes."""
        limit = self._options.time
        return None if limit is None else limit - (time.monotonic() - self._started)

    def _is_complete(self) -> bool:
        return not self._queue.waiting and (self._search is None or self._search.count_left() == 0)

    def _open_tests(self) -> None:
        """Open the test splits of all finished runs that are still sealed, at one look, once every row has ended."""
        ids = dict.fromkeys(id for id in self._list_runs() if self._context.is_done(id))
        finished = [find_run(self._context.folder / id) for id in ids]
        sealed = [run for run in finished if run.record.test is None]
        notes = DistinctNotes(self._monitor)
        if not sealed:
            return
        if not self._is_complete():
            notes.note("The test set stays sealed, because not every row has ended: repeat the command to go on.")
            return
        for name, error in test_together(sealed, cache=self._context.cache, progress=notes).items():
            notes.note(f"{name} could not be tested: {error.message}")

    def _list_runs(self) -> Iterator[str]:
        """The names of the runs of all rows, ensembles last."""
        for row in self._rows:
            yield from (job.id for job in row.jobs)
        yield from (row.made for row in self._ensembles if row.made)

    def _all_rows(self) -> list[RowProgress]:
        return [*self._rows, *self._ensembles]

    def _show(self) -> None:
        seconds = self._queue.estimate_seconds(self._search.count_left() if self._search else 0)
        left = seconds / max(self._options.jobs, 1) if seconds is not None else None
        self._monitor.show([row.line(self._study.metric, self._value) for row in self._all_rows()], left)

    def _save(self, status: StudyStatus) -> None:
        """Write `study.json`."""
        state = StudyState(
            name=self._study.name,
            title=self._study.title,
            source=self._study.source,
            state=status,
            written=utc_now(),
            metric=self._study.metric,
            changed=self._study.changed,
            left_out=self._study.left_out,
            rows=tuple(row.state() for row in self._all_rows()),
        )
        write_state(self._context.folder, state)

    def _compare(self) -> Comparison:
        """Compare the rows; raises `StudyError` when none was trained."""
        name = self._study.name
        entries = collect_entries(self._study, self._context.folder, [row.state() for row in self._all_rows()])
        if not any(entry.runs for entry in entries):
            problems = "; ".join(dict.fromkeys(entry.problem.rstrip(".") for entry in entries if entry.problem))
            raise StudyError(
                f"{name}: no row could be trained: {problems}.", "Correct these, then run the command again."
            )
        return write_comparison(self._study, self._context.folder, entries, self._options.order)
