"""Train and resume: scan -> findings -> seal -> plan -> training -> predictions -> metrics -> run -> report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import recorded_parts, resolve
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.data.leaks import Leaks
from budwood.data.scanning import read_dataset
from budwood.errors import DivergedError, RunError
from budwood.evaluation.novelty_fitting import limit_bytes
from budwood.evaluation.predictions import make_predictions
from budwood.hardware import Runtime, count_processors
from budwood.networks.plan import load_plan
from budwood.networks.spec import NetworkSpec
from budwood.progress import Progress
from budwood.reporting.thumbnails import make_augmentation_sheet
from budwood.runs.confidence_record import NOVELTY_FILE
from budwood.runs.contents import (
    describe_dataset,
    describe_network,
    evaluate_predictions,
    save_sealed,
    save_weights,
)
from budwood.runs.explanation_record import EXPLANATION_FILE as EXPLANATION
from budwood.runs.machine import describe_hardware, library_versions
from budwood.runs.networks import find_training_weights
from budwood.runs.own_objects import keep_objects, tell_changed_code, tell_own_code
from budwood.runs.preflight import Preflight, check_and_plan
from budwood.runs.run import (
    CHECKPOINT,
    LOCK,
    Run,
    find_run,
    lock_results,
    lock_run,
    save_history,
    utc_now,
)
from budwood.runs.run_files import (
    DATASET,
    GIVEN_FILES,
    HISTORY,
    SEALED_LABELS,
    SHEET_FILE,
    WEIGHTS,
    digest_run_files,
    keep_given_files,
    name_predictions,
)
from budwood.runs.run_ids import draft_run, make_run_id, refuse_bad_id
from budwood.runs.run_record import (
    SCHEMA_VERSION,
    NetworkRecord,
    RunRecord,
    Timings,
    save_record,
)
from budwood.runs.trackers import name_trackers, track_epochs
from budwood.storage.atomic import raise_storage_errors, write_bytes, write_text
from budwood.storage.context import Context, open_context
from budwood.text import quote_path
from budwood.training.clock import SAVING_SECONDS, WRITING
from budwood.training.cost_estimate import CostEstimate, measure_cost
from budwood.training.history import EpochCallback
from budwood.training.task import TrainingResult, TrainingTask, has_checkpoint
from budwood.training.trainer import search_rate, train_network
from budwood.workflows.confidence import measure_confidence, read_settings
from budwood.workflows.continuation import continue_recipe, refuse_nothing_to_do
from budwood.workflows.novelty import add_novelty, estimate_seconds, read_share
from budwood.workflows.report import write_reports

if TYPE_CHECKING:
    from budwood.training.lr_finder import RateCurve

STATE_FILES: Final = (
    HISTORY,
    "recipe.toml",
    "run.json",
)  # files that say what a run is, the one that counts last


class _Clock:
    """Seconds by step of a job."""

    def __init__(self, spent: float = 0.0) -> None:
        self._last = time.perf_counter()
        self.start = self._last - spent
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        here = time.perf_counter()
        self.seconds[name] = round(here - self._last, 3)
        self._last = here

    def so_far(self) -> float:
        return time.perf_counter() - self.start

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": round(self.so_far(), 3)}


def train_recipe(
    data: Dataset,
    recipe: Recipe,
    *,
    out: str | Path = "runs",
    leaks: Leaks = "drop",
    cache: Path | None = None,
    progress: Progress | None = None,
    track: Sequence[object] = (),
    spent: float = 0.0,
    id: str | None = None,
    findings: tuple[checks.Finding, ...] | None = None,
    on_epoch_end: EpochCallback | None = None,
    novelty: bool = True,
    limit: float | None = None,
) -> Run:
    """Train a classifier by a recipe and keep it, with its evidence, as a new run.

    A run that fails leaves nothing behind, unless it came far enough to be resumed.

    Args:
        data: The data set.
        recipe: The recipe.
        out: Folder of runs.
        leaks: What to do where images leak between given splits: `drop` leaves out those of the training side (and
            validation images with a copy in the test set), which a finding says; `refuse` raises; `allow` trains with
            them, and every report says so.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.
        track: Tools that receive every epoch: tensorboard, mlflow, or your own as `package.module:name` or object.
        spent: Seconds of the recipe's `time` that have gone already, in scanning.
        id: Name of the run, which must be new and a plain file name; None: a new name.
        findings: The findings about the data where they are known already; None: they are computed.
        on_epoch_end: Is called with the whole history after every epoch; what it raises ends the training.
        novelty: Whether to measure at the end how images of none of the classes are told; `calibrate` can do it later.
        limit: Seconds that the training may take, beside a limit of the recipe; None: no other.

    Returns:
        The finished run.

    Raises:
        DataError: The given split leaks and `leaks` is `refuse`, or a split is empty.
        DivergedError: The loss is no longer a number.
        RecipeError: A tracking tool or an option does not apply, or memory is too small.
        RunError: A launcher started several processes, or there is a run of that id, or it is not a file name.
        WeightsError: The weights are missing or do not fit.
        StorageError: `out` or the cache cannot be written.
    """
    context, clock = open_context(cache, progress), _Clock(spent)
    tools = name_trackers(track)
    _refuse_several_processes(context.runtime)
    id = id if id is not None else make_run_id(recipe.model)
    refuse_bad_id(id, Path(out))
    preflight = check_and_plan(data, recipe, Path(out), leaks, context, findings)
    clock.lap("check")

    run = _begin(preflight, Path(out), id, tools)
    with lock_run(run.path), _removing_failed(run.path):
        tell_own_code(run.record.parts, context.progress)
        return _carry_out(run, _Job(preflight.spec, context, clock, on_epoch_end, novelty, limit, tools))


@contextmanager
def _removing_failed(folder: Path) -> Iterator[None]:
    """Remove a new run where the block fails before there is anything to go on with."""
    try:
        yield
    except BaseException:
        if not has_checkpoint(folder / CHECKPOINT) and find_run(folder).record.state != "done":
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _refuse_several_processes(runtime: Runtime) -> None:
    """Raises `RunError` where a launcher started several processes, each of which would train a run of its own."""
    if runtime.world_size > 1:
        raise RunError(
            f"train: was started as {runtime.world_size} processes (WORLD_SIZE), but a run is trained in one.",
            "Start it without the launcher; PyTorch uses every processor of the machine, and one GPU.",
        )


def _begin(preflight: Preflight, out: Path, id: str, track: Sequence[str]) -> Run:
    """A new run under `out`, with what was asked and decided in it, and the labels of its test split sealed."""
    data, versions = preflight.data, library_versions()
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        budwood=versions["budwood"],
        id=id,
        state="running",
        created=utc_now(),
        resumed=(),
        source=data.source,
        root=str(data.root.absolute()),
        recipe=preflight.spec.recipe,
        parts=recorded_parts(preflight.spec.recipe, track),
        dataset=describe_dataset(data, preflight.leaking),
        findings=preflight.findings,
        network=describe_network(preflight.spec, ""),
        environment=versions,
        hardware=describe_hardware(count_processors()),
        track=tuple(track),
        metrics={},
        test=None,
    )
    with raise_storage_errors(out), draft_run(out / id) as draft:
        (draft / "recipe.toml").write_text(preflight.spec.recipe.toml(), encoding="utf-8")
        replace(data.sealed(), root=data.root.absolute()).save(draft / DATASET)
        save_sealed(draft / SEALED_LABELS, data.samples("test"))
        if preflight.spec.recipe.augments:
            resolved = resolve(preflight.spec.recipe, bool(data.label_sets), preflight.spec.plan.size)
            write_bytes(draft / SHEET_FILE, make_augmentation_sheet(resolved, preflight.training))
        read = {"reading": dict(data.reading)} if data.reading else {}  # nothing is not written
        record = record.model_copy(update={"files": digest_run_files(draft, GIVEN_FILES), **read})
        save_record(draft, record)
    return Run(out / id, record)


def resume(
    run: Run | str | Path,
    *,
    epochs: int | None = None,
    patience: int | None = None,
    lr: float | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    on_epoch_end: EpochCallback | None = None,
    novelty: bool = True,
) -> Run:
    """Resume a run whose training was interrupted, or train a finished one for more epochs.

    On a CPU the result has the same bits as that of a training that was never interrupted.

    Args:
        run: The run, or its path or name.
        epochs: Epochs in all, those that are done included (of the last phase, where there are phases); schedules
            that depend on their number are computed anew over all. None: as in the recipe.
        patience: Epochs without a better one after which training stops; None: as in the recipe.
        lr: Learning rate from here on; None: as in the recipe.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.
        on_epoch_end: Is called with the whole history after every epoch; what it raises ends the training.
        novelty: Whether to measure at the end how images are told that show none of the classes.

    Returns:
        The finished run.

    Raises:
        RunError: There is nothing to go on with, an option cannot be changed any more, the weights are others, or
            another process trains the run.
        DivergedError: The loss is no longer a number.
        StorageError: The run folder or the cache cannot be written.
    """
    given, run = run, find_run(run.path if isinstance(run, Run) else run)
    run.refuse_ensemble("more training")
    context, clock = open_context(cache, progress), _Clock()
    changes = {name: value for name, value in (("epochs", epochs), ("patience", patience), ("lr", lr)) if value}
    refuse_nothing_to_do(run, continue_recipe(run, changes), changes)  # before anything is written
    with lock_run(run.path):
        return _go_on(keep_objects(find_run(run.path), given), changes, context, clock, on_epoch_end, novelty)


def _go_on(
    run: Run,
    changes: Mapping[str, Any],
    context: Context,
    clock: _Clock,
    on_epoch_end: EpochCallback | None,
    novelty: bool,
) -> Run:
    """Train a run further that no other process trains; a finished one stays as it was where that fails."""
    recipe = continue_recipe(run, changes)
    refuse_nothing_to_do(run, recipe, changes)
    plan = load_plan(recipe, len(run.classes), context.cache)
    weights = find_training_weights(run, recipe, plan, context)
    spec = NetworkSpec(recipe, plan, len(run.classes), weights)
    clock.lap("check")
    with lock_results(run.path), raise_storage_errors(run.path):
        run = find_run(run.path)  # which may have been tested meanwhile
        files = {name: (run.path / name).read_bytes() for name in STATE_FILES if (run.path / name).is_file()}
        weights_time = _read_weights_time(run)
        reopened = _reopen(run, recipe, context.progress)
    try:
        return _carry_out(reopened, _Job(spec, context, clock, on_epoch_end, novelty, track=run.record.track))
    except BaseException:
        if run.record.state == "done" and _read_weights_time(run) == weights_time:
            with raise_storage_errors(run.path):  # what was finished stays so
                for name, content in files.items():
                    write_bytes(run.path / name, content)
        raise


def _reopen(run: Run, recipe: Recipe, progress: Progress) -> Run:
    """The run as one that is being trained again, by a recipe, which its folder says from here on."""
    resumed, parts = (*run.record.resumed, utc_now()), recorded_parts(recipe)
    parts |= {option: part for option, part in run.record.parts.items() if option.startswith("track")}
    tell_own_code(parts, progress)
    tell_changed_code(run.record.parts, parts, progress)
    files = keep_given_files(run.record.files)
    update = {"state": "running", "recipe": recipe, "parts": parts, "resumed": resumed, "files": files}
    record = run.record.model_copy(update=update)
    save_record(run.path, record)
    write_text(run.path / "recipe.toml", recipe.toml())
    return Run(run.path, record)


@dataclass(frozen=True)
class _Job:
    """What carrying a run out needs beside the run; `on_epoch_end` gets the history after every epoch.

    `novelty` is whether to measure at the end how images are told that show none of the classes, `limit` the seconds
    that the training may take beside a limit of the recipe, `track` the tools that receive every epoch.
    """

    spec: NetworkSpec
    context: Context
    clock: _Clock
    on_epoch_end: EpochCallback | None = None
    novelty: bool = True
    limit: float | None = None
    track: tuple[str, ...] = ()


def _carry_out(run: Run, job: _Job) -> Run:
    """The run trained to its end, with its evidence; what stops it is noted where there is something to go on with."""
    data = run.dataset()
    with track_epochs(job.track, run.path, run.record, job.context.progress) as track:

        def save_epoch(history: Sequence[Mapping[str, float]]) -> None:
            with raise_storage_errors(run.path):
                save_history(run.path, history)
            track(history)

        def note_epoch(history: Sequence[Mapping[str, float]]) -> None:
            save_epoch(history)
            if job.on_epoch_end:
                job.on_epoch_end(history)

        try:
            with raise_storage_errors(job.context.cache):
                result = train_network(_make_task(run, job, data, note_epoch), job.clock.lap)
        except BaseException as error:
            _note_stop(run, error, job.context.progress)
            raise
        with raise_storage_errors(run.path):
            save_epoch(result.history)
        finished = _finish(run, job, result, data)
    if not has_checkpoint(finished.path / CHECKPOINT):
        for left in (finished.path / CHECKPOINT).glob("*"):
            if left.name != LOCK:  # which this process still holds
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return finished


def _make_task(run: Run, job: _Job, data: Dataset, on_epoch_end: EpochCallback) -> TrainingTask:
    """The training that a run asks for."""
    limits = [each for each in (run.recipe.time, job.limit) if each is not None]
    limit = min(limits, default=None)
    kept_back = 0.0 if limit is None else _measure_ending(run, job, data)
    return TrainingTask(
        job.spec,
        data.samples("train").in_content_order(),
        data.samples("val"),
        job.context,
        checkpoint=run.path / CHECKPOINT,
        on_epoch_end=on_epoch_end,
        left=lambda: None if limit is None else limit - job.clock.so_far() - kept_back,
    )


def _measure_ending(run: Run, job: _Job, data: Dataset) -> float:
    """Seconds that follow training: scoring, measured on random logits, telling strangers, and writing."""
    val, started = data.samples("val"), time.perf_counter()
    logits = np.random.default_rng(0).normal(size=(len(val), len(data.classes))).astype(np.float32)
    evaluate_predictions(make_predictions(val, logits), data.classes, run.recipe)
    scoring = time.perf_counter() - started
    weights, strangers = 4 * sum(stage.parameters for stage in job.spec.plan.stages), 0.0
    if job.novelty:
        training = len(data.samples("train"))
        strangers = estimate_seconds(job.spec.plan.features, training, len(val), len(data.classes))
    return SAVING_SECONDS + scoring + strangers + weights / WRITING


def _finish(run: Run, job: _Job, result: TrainingResult, data: Dataset) -> Run:
    """The run with what training gave: scored on validation, saved, reported. What an earlier training left goes."""
    predictions = make_predictions(data.samples("val"), result.logits)
    scores = evaluate_predictions(predictions, data.classes, run.recipe)
    job.clock.lap("evaluate")
    results = {
        "state": "done",
        "network": _describe_trained(run, job.spec, result.aside),
        "trained": result.trained,
        "choices": result.choices,
        "selected": result.selected,
        "metrics": {"val": scores},
        "prefix": result.prefix,
        "confidence": measure_confidence(predictions, read_settings(run.record)),
        "test": None,  # an earlier look was at another network
        "problem": None,
    }
    with lock_results(run.path), raise_storage_errors(run.path):
        for stale in (name_predictions("test"), EXPLANATION):
            (run.path / stale).unlink(missing_ok=True)
        save_weights(run.path / WEIGHTS, result.state)
        predictions.save(run.path / name_predictions("val"))
        (run.path / NOVELTY_FILE).unlink(missing_ok=True)
        results["files"] = digest_run_files(run.path)
        finished = Run(run.path, run.record.model_copy(update=results))
        job.clock.lap("save")
        if job.novelty:
            finished = add_novelty(finished, job.context, read_share(run))
            job.clock.lap("novelty")
        record = finished.record.model_copy(update={"timings": Timings(**job.clock.total())})
        write_reports(Run(run.path, record))
        save_record(run.path, record)
    return Run(run.path, record)


def _describe_trained(run: Run, spec: NetworkSpec, aside: str) -> NetworkRecord:
    """The record of a trained network; the weights that it started from stay the same, though others were used."""
    network, first = describe_network(spec, aside), run.record.network.weights
    return network if network.weights.digest == first.digest else network.model_copy(update={"weights": first})


def _note_stop(run: Run, error: BaseException, progress: Progress) -> None:
    """Note in a run's record why it stopped, and say how to go on, where there is a checkpoint."""
    if not has_checkpoint(run.path / CHECKPOINT):
        return
    with suppress(OSError):  # a full disk may be the reason
        files = {**run.record.files, **digest_run_files(run.path, [HISTORY])}
        stopped = {"state": "stopped", "problem": str(error) or type(error).__name__, "files": files}
        save_record(run.path, run.record.model_copy(update=stopped))
    further = " --lr RATE" if isinstance(error, DivergedError) else ""
    progress.note(
        f"The last good checkpoint was kept. Continue from it with `budwood resume {quote_path(run.path)}{further}`."
    )


def _read_weights_time(run: Run) -> int | None:
    """When a run's weights were written last (nanoseconds); None where there are none."""
    file = run.path / WEIGHTS
    return file.stat().st_mtime_ns if file.is_file() else None


def estimate_cost(
    data: Any,
    recipe: Recipe | None = None,
    *,
    out: str | Path = "runs",
    leaks: Leaks = "drop",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Recipe, CostEstimate]:
    """Estimate what a recipe will cost, measured on a sample; no run is made.

    Args:
        data: The data set, or what `scan` takes.
        recipe: The recipe; None: the default one.
        out: Folder of runs, in which the recipe's weights may be.
        leaks: What to do where images leak between given splits, as in `train`.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        The recipe as it would be carried out, and its cost.

    Raises:
        DataError: The given split leaks and `leaks` is `refuse`, or a split is empty.
        RecipeError: An option does not apply, or memory is too small.
        WeightsError: The weights are missing or do not fit.
        StorageError: The cache cannot be written.
    """
    read = read_dataset(data, cache, progress)
    return measure_recipe_cost(read, recipe or Recipe(), Path(out), leaks, open_context(cache, progress))


def measure_recipe_cost(
    data: Dataset,
    recipe: Recipe,
    out: Path,
    leaks: Leaks,
    context: Context,
    findings: tuple[checks.Finding, ...] | None = None,
) -> tuple[Recipe, CostEstimate]:
    """Estimate what a recipe will cost, as `estimate_cost` does, where the findings about the data may be known."""
    preflight = check_and_plan(data, recipe, out, leaks, context, findings)
    with raise_storage_errors(context.cache):
        cost = measure_cost(_make_unrecorded_task(preflight, context))
    spec = preflight.spec
    strangers = limit_bytes(spec.plan.features, len(preflight.training), spec.classes)
    return spec.recipe, replace(cost, disk={**cost.disk, "run": cost.disk["run"] + strangers})


def find_learning_rate(data: Dataset, recipe: Recipe, context: Context) -> RateCurve:
    """Measure the loss of a recipe's network while its learning rate grows; nothing is kept of what it learns.

    Splits that leak are allowed.

    Args:
        data: The data set.
        recipe: A recipe whose optimizer takes steps.
        context: The cache folder, and where bars and notes go.

    Returns:
        The curve of the loss over the rate, with a suggestion.

    Raises:
        DataError: A split is empty.
        RecipeError: An option does not apply, or memory is too small.
        WeightsError: The weights are missing or do not fit.
        StorageError: The cache cannot be written.
    """
    preflight = check_and_plan(data, recipe, Path("runs"), "allow", context)
    with raise_storage_errors(context.cache):
        return search_rate(_make_unrecorded_task(preflight, context))


def _make_unrecorded_task(preflight: Preflight, context: Context) -> TrainingTask:
    return TrainingTask(preflight.spec, preflight.training, preflight.validation, context)
