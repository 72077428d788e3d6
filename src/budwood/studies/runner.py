"""A study carried out: its rows in the order that shares most, whatever was finished left as it is, then compared.

Study -> scan -> works, grouped by what they share -> outcomes -> the trials of a search -> Comparison
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from budwood.comparison.compare import Comparison
from budwood.comparison.rows import Published
from budwood.config.metric_registry import is_loss
from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset
from budwood.errors import BudwoodError, RecipeError, StudyError
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.plan import hash_json, load_plan
from budwood.progress import Progress
from budwood.runs.run import find_run, utc_now
from budwood.storage.atomic import cache_folder, raise_storage_errors, write_text
from budwood.studies.executors import Executor, InProcessExecutor, WorkerDied, start_processes, start_ray_workers
from budwood.studies.monitor import Line, Unwatched, Watcher
from budwood.studies.optuna_search import Trial, TrialStore
from budwood.studies.reports import RECORD, FinishedRow, compare_study, make_row_specs, read_metric
from budwood.studies.study_file import TRIALS, DataSpec, Overrides, Study, load_study, make_tuning_study, with_seed
from budwood.studies.training_job import (
    DatasetCache,
    JobContext,
    JobResult,
    TrainingJob,
    choose_job_id,
    compute_job_digest,
    read_known_ids,
)
from budwood.workflows.evaluate import test

TRIES: Final = 3  # times that a work is given out when those who carry it out die
LOCK: Final = "lock"


@dataclass
class StudyTask:
    """A row or a trial: its works, one a seed or fold, and how those ended that have ended."""

    label: str
    works: tuple[TrainingJob, ...]
    published: Published | None = None
    problem: str = ""
    state: str = "waiting"
    epoch: int = 0
    outcomes: dict[str, JobResult] = field(default_factory=dict)
    trial: Trial | None = None


@dataclass(frozen=True)
class ExecutionOptions:
    """How a study is carried out: in how many processes, on which Ray cluster, where trials are kept, how many seconds
    there are, and whether test splits are opened."""

    jobs: int = 1
    ray: str | None = None
    storage: str | None = None
    time: float | None = None
    test: bool = False


def study(
    file: str | Path | Study,
    data: str | Path | Dataset | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    places: Mapping[str, str] | None = None,
    quick: bool = False,
    ways: ExecutionOptions | None = None,
    out: str | Path = "runs",
    allow_leaks: bool = False,
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> Comparison:
    """Carry out a study and compare its rows on validation; what was finished before is not repeated.

    `data` takes the place of the study's own images (a path, a name or a scanned `Dataset`), `places` those of others
    that it names. `settings` are recipe options that are put over every row, and `quick` puts the file's `[quick]`
    table over them. The runs lie in `out`/<name> beside `study.toml`, `study.json`, `table.csv` and `report.html`.
    A row that fails is recorded with its message, and the others go on.

    Raises `StudyError` for mistakes in the file, where another process carries the study out, and where nothing could
    be trained; `DataError` where no images can be used.
    """
    watcher, cache = watcher or Unwatched(), cache or cache_folder()
    given = {data.source: data} if isinstance(data, Dataset) else {}
    named = {"": data.source if isinstance(data, Dataset) else str(data)} if data is not None else {}
    if not isinstance(file, Study):
        file = load_study(file, Overrides(quick, settings or {}, {**(places or {}), **named}))
    bench = JobContext(Path(out) / file.name, cache, allow_leaks)
    with _lock_study(bench.folder), watcher.watching(file.title):
        return StudyRunner(
            file, bench, watcher, ways or ExecutionOptions(), DatasetCache(cache, _Once(watcher), given)
        ).carried_out()


def tune(
    data: str | Path | Dataset,
    options: Mapping[str, Any] | None = None,
    *,
    trials: int = TRIALS,
    sampler: str = "tpe",
    metric: str = "accuracy",
    seed: int = 0,
    ways: ExecutionOptions | None = None,
    out: str | Path = "runs",
    allow_leaks: bool = False,
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> Comparison:
    """Search for a better recipe than `options` make, over optimizer, rate, weight decay, dropout and batch, or the
    head where the trunk is frozen; what is given in `options` is not searched.

    It is a study of one row and a search, and goes on where it was interrupted. Raises what `study` raises.
    """
    source = data.source if isinstance(data, Dataset) else str(data)
    made = make_tuning_study(source, options or {}, trials=trials, sampler=sampler, metric=metric, seed=seed)
    given = data if isinstance(data, Dataset) else None
    return study(made, given, ways=ways, out=out, allow_leaks=allow_leaks, cache=cache, watcher=watcher)


class _Once:
    """Progress that says a note once, however many rows it is about."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def note(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._progress.note(sentence)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        with self._progress.bar(label, total) as step:
            yield step


class StudyRunner:
    """A study that is being carried out. What is asked of several threads at once is done under its condition."""

    def __init__(
        self, study: Study, bench: JobContext, watcher: Watcher, ways: ExecutionOptions, shelf: DatasetCache
    ) -> None:
        self.study = study
        self.bench = bench
        self.watcher = watcher
        self.ways = ways
        self.shelf = shelf
        self.started = time.monotonic()
        self.tasks: list[StudyTask] = []
        self.waiting: list[tuple[StudyTask, TrainingJob]] = []
        self.under_way: list[TrainingJob] = []
        self.warming: set[str] = set()  # groups of which the first work computes what all share
        self.warm: set[str] = set()
        self.tries: dict[str, int] = {}
        self.seconds: dict[str, list[float]] = {}
        self.values: dict[str, float] = {}
        self.known = read_known_ids(bench.folder)
        self.trials: TrialStore | None = None
        self.changed = threading.Condition()
        self.stopped: BaseException | None = None

    def carried_out(self) -> Comparison:
        """All works done that were not, the tests opened where that is asked for, and the rows compared."""
        self.tasks = _make_tasks(self.study, self.shelf, self.known)
        self._know_finished()
        self._open_search()
        with raise_storage_errors(self.bench.folder):
            write_text(self.bench.folder / "study.toml", self.study.text)
        self._note("running")
        with ExitStack() as stack:
            hands = self._hands(stack)
            if len(hands) == 1:
                self._work(hands[0])
            else:
                self._work_together(hands)
        if self.ways.test:
            self._open_tests()
        self._note("done" if self._all_ended() else "stopped")
        return self._compared()

    def _know_finished(self) -> None:
        """Works whose runs are finished are done; the others wait, those that share a prefix together."""
        for task in self.tasks:
            for work in task.works:
                if _is_done(self.bench, work):
                    task.outcomes[work.id] = JobResult("done")
            _settle(task)
        open_ = [
            (task, number, work)
            for task in self.tasks
            for number, work in enumerate(task.works)
            if work.id not in task.outcomes
        ]
        groups = list(dict.fromkeys(work.group for _, _, work in open_))
        open_.sort(key=lambda item: (groups.index(item[2].group), item[1]))
        self.waiting = [(task, work) for task, _, work in open_]

    def _open_search(self) -> None:
        search = self.study.search
        if search is None:
            return
        self.bench.folder.mkdir(parents=True, exist_ok=True)
        storage = self.ways.storage or f"sqlite:///{(self.bench.folder / 'trials.db').resolve()}"
        owner = str(self.bench.folder.resolve())
        self.trials = TrialStore(search, storage, self.study.name, self.study.metric, owner)
        for trial in self.trials.all():
            if trial.state != "running":
                self.tasks.append(self._ended_trial(trial))

    def _ended_trial(self, trial: Trial) -> StudyTask:
        """A trial that was told already."""
        task = _make_trial_task(trial, self.study, self.shelf, self.trials, self.known)
        task.state, task.problem = trial.state, task.problem or trial.problem
        if task.works and _is_done(self.bench, task.works[0]):
            task.outcomes[task.works[0].id] = JobResult("done")
        elif trial.state == "done":
            task.problem = "was carried out elsewhere; its run is not here"
        return task

    def _hands(self, stack: ExitStack) -> list[Executor]:
        """Those who carry out the works; they are sent home when the stack closes."""
        hands: list[Executor] = [InProcessExecutor(self.bench, self.shelf, _Once(self.watcher))]
        if self.ways.ray is not None:
            count = self.ways.jobs if self.ways.jobs > 1 else None
            hands, leave = start_ray_workers(self.bench, self.ways.ray, count)
            stack.callback(leave)
        elif self.ways.jobs > 1:
            hands = start_processes(self.bench, self.ways.jobs)
        for hand in hands:
            stack.callback(hand.close)
        return hands

    def _work_together(self, hands: Sequence[Executor]) -> None:
        """Each hand works in a thread of its own, which does nothing but wait for it."""
        threads = [threading.Thread(target=self._guarded_work, args=(hand,), daemon=True) for hand in hands]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.2)
                time.sleep(0.05)
        except KeyboardInterrupt as interruption:
            self.stopped = interruption
        if self.stopped:
            raise self.stopped

    def _guarded_work(self, hand: Executor) -> None:
        try:
            self._work(hand)
        except BaseException as error:
            with self.changed:
                self.stopped = self.stopped or error
                self.changed.notify_all()

    def _work(self, hand: Executor) -> None:
        """One work after another, until there is none left."""
        while (taken := self._taken()) is not None:
            task, work = taken
            try:
                outcome = hand.do(work, lambda history, task=task: self._tell(task, history))  # type: ignore[misc]
            except WorkerDied as death:
                self._give_back(task, work, death)
            else:
                self._end(task, work, outcome)

    def _taken(self) -> tuple[StudyTask, TrainingJob] | None:
        """The next work; waits while the only ones left are of groups whose shared part is just being computed."""
        with self.changed:
            while not self.stopped and not self._is_over():
                place = next((n for n, (_, work) in enumerate(self.waiting) if self._is_free(work)), None)
                taken = self.waiting.pop(place) if place is not None else self._next_trial()
                if taken is not None:
                    task, work = taken
                    if work.group not in self.warm:
                        self.warming.add(work.group)
                    self.under_way.append(work)
                    task.state = "training"
                    self._show()
                    return taken
                if not self.under_way:
                    return None
                self.changed.wait(1.0)
            return None

    def _is_free(self, work: TrainingJob) -> bool:
        """Whether a work can be begun: neither its twin is under way nor what its group shares."""
        return work.group not in self.warming and all(work.id != other.id for other in self.under_way)

    def _next_trial(self) -> tuple[StudyTask, TrainingJob] | None:
        """The next trial of the search, once all rows are given out."""
        while self.trials is not None and not self.waiting:
            trial = self.trials.ask()
            if trial is None:
                return None
            task = _make_trial_task(trial, self.study, self.shelf, self.trials, self.known)
            self.tasks.append(task)
            if task.works:
                return task, task.works[0]
            task.state = "failed"
            self.trials.tell(trial, "failed", None, task.problem)
        return None

    def _tell(self, task: StudyTask, history: Sequence[Mapping[str, float]]) -> None:
        task.epoch = int(history[-1]["epoch"])
        self._show()

    def _give_back(self, task: StudyTask, work: TrainingJob, death: WorkerDied) -> None:
        """A work whose worker died waits again, at the front, unless it has killed too many."""
        with self.changed:
            self.tries[work.id] = self.tries.get(work.id, 0) + 1
            if self.tries[work.id] < TRIES:
                self.under_way.remove(work)
                self.warming.discard(work.group)
                self.waiting.insert(0, (task, work))
                self.changed.notify_all()
                return
        self._end(task, work, JobResult("failed", f"{death}, {TRIES} times"))

    def _end(self, task: StudyTask, work: TrainingJob, outcome: JobResult) -> None:
        with self.changed:
            task.outcomes[work.id] = outcome
            self.under_way.remove(work)
            self.warming.discard(work.group)
            if outcome.state == "done":
                self.warm.add(work.group)
                self.seconds.setdefault(work.group, []).append(outcome.seconds)
            _settle(task)
            if task.trial is not None and self.trials is not None:
                value = self._value(work.id) if outcome.state == "done" else None
                self.trials.tell(task.trial, outcome.state, value, outcome.problem)
            self._note("running")
            self._show()
            self.changed.notify_all()

    def _value(self, id: str) -> float:
        """The metric of a finished run on validation."""
        if id not in self.values:
            self.values[id] = read_metric(find_run(self.bench.folder / id), self.study.metric)
        return self.values[id]

    def _is_over(self) -> bool:
        return self.ways.time is not None and time.monotonic() - self.started > self.ways.time

    def _all_ended(self) -> bool:
        return not self.waiting and (self.trials is None or len(self.trials.all()) >= self.trials.most)

    def _open_tests(self) -> None:
        """Open the test split of every finished run that is still sealed."""
        for task in self.tasks:
            for work in task.works:
                if _is_done(self.bench, work):
                    run = find_run(self.bench.folder / work.id)
                    if run.record["test"] is None:
                        test(run, cache=self.bench.cache, progress=_Once(self.watcher))

    def _left(self) -> float | None:
        """About how many seconds are left, from those that works of the same group took, else from all."""
        every = [seconds for group in self.seconds.values() for seconds in group]
        if not every:
            return None
        trials = max(self.trials.most - len(self.trials.all()), 0) if self.trials else 0
        mean = sum(every) / len(every)
        waiting = [*(work for _, work in self.waiting), *self.under_way]
        known = [self.seconds.get(work.group, every) for work in waiting]
        whole = sum(sum(group) / len(group) for group in known) + trials * mean
        return whole / max(self.ways.jobs, 1)

    def _show(self) -> None:
        self.watcher.show([self._line(task) for task in self.tasks], self._left())

    def _line(self, task: StudyTask) -> Line:
        done = [work for work in task.works if task.outcomes.get(work.id, JobResult("")).state == "done"]
        if task.state == "training":
            count = f"{len(done)} of {len(task.works)} done" if len(task.works) > 1 else ""
            epoch = f"epoch {task.epoch}" if task.epoch else ""
            return Line(task.label, task.state, ", ".join(filter(None, (count, epoch))))
        if task.state != "done" or not done:
            return Line(task.label, task.state, task.problem)
        values = [self._value(work.id) for work in done]
        shown = f"{sum(values) / len(values):.4f}" if is_loss(self.study.metric) else _format_percent(values)
        return Line(task.label, "done", f"{self.study.metric} {shown}")

    def _note(self, state: str) -> None:
        """Write `study.json`: what there is, so that anybody can see how far the study is."""
        record = {
            "name": self.study.name,
            "title": self.study.title,
            "source": self.study.source,
            "state": state,
            "written": utc_now(),
            "metric": self.study.metric,
            "changed": dict(self.study.changed),
            "rows": [_make_task_record(task) for task in self.tasks],
        }
        with raise_storage_errors(self.bench.folder):
            write_text(self.bench.folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _compared(self) -> Comparison:
        """The rows side by side. Raises `StudyError` when none was trained."""
        rows = [
            FinishedRow(task.label, tuple(work.id for work in task.works), task.published, task.state, task.problem)
            for task in self.tasks
        ]
        entries, name = make_row_specs(self.study, self.bench.folder, rows), self.study.name
        if not any(entry.runs for entry in entries):
            told = "; ".join(dict.fromkeys(entry.problem for entry in entries if entry.problem))
            raise StudyError(f"{name}: no row could be trained: {told}.", "Mend what is said, and repeat the command.")
        return compare_study(self.study, self.bench.folder, entries)


def _make_tasks(study: Study, shelf: DatasetCache, known: dict[str, str]) -> list[StudyTask]:
    """The rows of a study as tasks. Raises `StudyError` that names every row whose network cannot be made, and
    `DataError` when the images of no row can be used."""
    tasks, wrong = [], []
    first: BudwoodError | None = None
    for row in study.rows:
        if row.recipe is None:
            tasks.append(StudyTask(row.label, (), row.published, row.refused, "refused"))
            continue
        try:
            works = tuple(
                _make_job(row.label, with_seed(row.recipe, seed), row.images, fold, study.folds, shelf, known)
                for seed, fold in list_repeats(study, row.recipe)
            )
            tasks.append(StudyTask(row.label, works, row.published))
        except RecipeError as error:
            wrong.append(f"{row.label}: {error.message}")
        except BudwoodError as error:
            first = first or error
            tasks.append(StudyTask(row.label, (), row.published, error.message, "failed"))
    refuse_without_network(study, wrong)
    if first is not None and study.search is None and not any(task.works for task in tasks):
        raise first
    return tasks


def refuse_without_network(study: Study, wrong: Sequence[str]) -> None:
    """Refuse a study some of whose rows make no network.

    Args:
        study: The study.
        wrong: What is wrong with each of these rows, with its label.

    Raises:
        StudyError: There is one; all are named.
    """
    if not wrong:
        return
    count = "1 row that makes" if len(wrong) == 1 else f"{len(wrong)} rows that make"
    raise StudyError(
        f"{study.name} has {count} no network: {' '.join(wrong)}", "`budwood models NAME` shows its stages."
    )


def list_repeats(study: Study, recipe: Recipe) -> list[tuple[int, int | None]]:
    """The seed and the fold of each work of a row; a recipe that leaves nothing to chance is trained once a split."""
    if study.folds is not None:
        return [(recipe.seed or 0, fold) for fold in range(study.folds)]
    seeds = study.seeds if recipe.seed is not None else study.seeds[:1]
    return [(seed, None) for seed in seeds]


def _make_job(
    label: str,
    recipe: Recipe,
    images: DataSpec,
    fold: int | None,
    folds: int | None,
    shelf: DatasetCache,
    known: dict[str, str],
) -> TrainingJob:
    stock = shelf.stock(images, fold, folds)
    plan = load_plan(recipe, len(stock.data.classes), shelf.cache)
    fingerprint = stock.data.fingerprint
    return TrainingJob(
        choose_job_id(label, compute_job_digest(recipe, images, fingerprint, fold, folds), known),
        label,
        recipe,
        images,
        fingerprint,
        fold,
        folds if fold is not None else None,
        group_key(recipe, plan, images),
    )


def group_key(recipe: Recipe, plan: NetworkPlan, images: DataSpec) -> str:
    """What works share that is computed once per image: the outputs of what is frozen, else the decoded pixels."""
    pixels = [images.data, plan.size, recipe.resize]
    if not plan.prefix or recipe.augments:
        return hash_json(pixels)
    start = recipe.seed if recipe.weights == "none" else None
    parts = [plan.source, plan.name, plan.channels, plan.cut, plan.pool, plan.prefix, *plan.versions]
    return hash_json([pixels, parts, recipe.weights, recipe.own_options, recipe.init, start])


def _make_trial_task(
    trial: Trial, study: Study, shelf: DatasetCache, trials: TrialStore | None, known: dict[str, str]
) -> StudyTask:
    """A trial as a task of one work, or of none where its options make no recipe."""
    label = f"trial {trial.number}"
    try:
        recipe = Recipe(**trial.options)
        fold = 0 if study.folds is not None else None
        work = _make_job(label, recipe, study.searched, fold, study.folds, shelf, known)
    except BudwoodError as error:
        return StudyTask(label, (), problem=error.message, trial=trial)
    place = trials.place(trial) if trials is not None else None
    return StudyTask(label, (replace(work, trial=place),), trial=trial)


def _settle(task: StudyTask) -> None:
    """The state of a task whose works have all ended; what kept them from being done is its problem."""
    if not task.works or len(task.outcomes) < len({work.id for work in task.works}):
        task.state = "waiting" if task.works and task.state == "training" else task.state
        return
    states = [outcome.state for outcome in task.outcomes.values()]
    task.state = next((state for state in ("failed", "pruned") if state in states), "done")
    problems = dict.fromkeys(outcome.problem for outcome in task.outcomes.values() if outcome.problem)
    task.problem = " ".join(problems)


def _is_done(bench: JobContext, work: TrainingJob) -> bool:
    """Whether the run of a work is finished."""
    folder = bench.folder / work.id
    return (folder / "run.json").is_file() and find_run(folder).record["state"] == "done"


def _make_task_record(task: StudyTask) -> dict[str, Any]:
    return {
        "label": task.label,
        "state": task.state,
        "problem": task.problem,
        "runs": [work.id for work in task.works],
        "published": asdict(task.published) if task.published else None,
    }


def _format_percent(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.2f} %"


@contextmanager
def _lock_study(folder: Path) -> Iterator[None]:
    """One process at a time carries out a study; a killed one holds nothing. What it left half-written is removed."""
    with raise_storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StudyError(f"{folder}: is being carried out by another process.", "Wait until it is done.") from error
    try:
        for draft in folder.glob(".*.part"):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
