"""One training of a study, whoever carries it out: a record that can be sent to another process, and its result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import own_parts
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.data.leaks import Leaks, drop_leaks
from budwood.data.scanning import scan
from budwood.data.selection import adopt_splits, assign_fold, limit, select_per_class
from budwood.errors import BudwoodError, DataError, RunError, StorageError
from budwood.networks.plan import hash_json
from budwood.networks.registry import code_of
from budwood.progress import Progress
from budwood.runs.run import CHECKPOINT, Run, find_run
from budwood.storage.context import Context
from budwood.studies.optuna_search import Pruned, TrialPlace, make_reporter
from budwood.studies.study_tables import DataSpec
from budwood.studies.time_limit import TimedProgress, TimeIsOver
from budwood.training.history import EpochCallback, Rows
from budwood.workflows.train import resume, train_recipe

JobState = Literal["done", "failed", "pruned", "stopped"]


@dataclass(frozen=True)
class TrainingJob:
    """One training of a study, in a form that can be sent to another process.

    Attributes:
        id: Name of its run. It is the same for the same recipe, seed, images and split, so that a finished run is
            recognised even when the label of its row has changed.
        label: Label of its row.
        recipe: The recipe, with the seed.
        images: The images.
        fingerprint: Fingerprint of the data set when the job was planned.
        fold: The fold that validates, from 0; None: no folds.
        folds: Number of folds; None: no folds.
        group: Digest that is the same for jobs that share what is computed once per image.
        trial: The trial of a search that the job is; None for a row.
        seconds: Seconds after which it is stopped, to be resumed another time; None: never.
    """

    id: str
    label: str
    recipe: Recipe
    images: DataSpec
    fingerprint: str
    fold: int | None = None
    folds: int | None = None
    group: str = ""
    trial: TrialPlace | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    Attributes:
        state: done, failed, pruned, or stopped by the time limit.
        problem: Why it is not done; empty where it is.
        seconds: The seconds that it took.
    """

    state: JobState
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class JobContext:
    """The folders and the rule under which jobs run.

    Attributes:
        folder: The study's folder, which contains the runs.
        cache: The cache folder.
        leaks: What to do where images leak between given splits, as in `train`.
    """

    folder: Path
    cache: Path
    leaks: Leaks = "drop"

    def is_done(self, id: str) -> bool:
        """Return whether the run of a job is finished.

        Args:
            id: The name of the run in the study's folder.

        Returns:
            True for a run that was trained to its end.

        Raises:
            RunError: The record of the run cannot be read.
        """
        folder = self.folder / id
        return (folder / "run.json").is_file() and find_run(folder).record.state == "done"


@dataclass(frozen=True)
class CheckedDataset:
    """A data set as a job uses it.

    Attributes:
        data: The data set.
        findings: The findings about it.
    """

    data: Dataset
    findings: tuple[checks.Finding, ...]


def with_absolute_paths(job: TrainingJob) -> TrainingJob:
    """Return a job that another process, with another working folder, understands as this one does.

    Args:
        job: The job; its id stays.

    Returns:
        The same job with absolute paths of images, corrections and weights; names of data sets stay.
    """
    images, weights = job.images, Path(job.recipe.weights).expanduser()
    places = {
        "data": str(Path(images.data).absolute()) if Path(images.data).exists() else images.data,
        "corrections": tuple(str(Path(file).absolute()) for file in images.corrections),
    }
    recipe = job.recipe.model_copy(update={"weights": str(weights.absolute())}) if weights.is_file() else job.recipe
    return replace(job, images=images.model_copy(update=places), recipe=recipe)


class DatasetCache:
    """The data sets of a study, each scanned once and checked once for every way in which it is used."""

    def __init__(
        self,
        context: Context,
        scanned: Mapping[str, Dataset] | None = None,
        leaks: Leaks = "drop",
        folder: Path | None = None,
    ) -> None:
        """Make a cache of data sets.

        Args:
            context: The cache folder, and where notes and the steps of scans go.
            scanned: Data sets that were scanned already, by source; None: none.
            leaks: What to do where images leak between given splits, as in `train`.
            folder: The study's folder, whose runs say in which splits it began; None: they are drawn anew.
        """
        self.context, self.leaks, self.folder = context, leaks, folder
        self._scanned = {_hash_scan(DataSpec(data=source)): data for source, data in (scanned or {}).items()}
        self._checked: dict[str, CheckedDataset] = {}

    def load(self, images: DataSpec, fold: int | None = None, folds: int | None = None) -> CheckedDataset:
        """Load the images of a row, which are scanned and checked where that was not done before.

        Args:
            images: The images.
            fold: The fold that validates, from 0; None: no folds.
            folds: Number of folds; None: no folds.

        Returns:
            The data set with its findings.

        Raises:
            DataError: No images can be used, or a class has too few.
        """
        key = hash_json([images.record(), fold, folds])
        if key not in self._checked:
            data = self._scan(images)
            if fold is not None and folds is not None:
                data = assign_fold(data, fold, folds)
            if self.leaks == "drop":
                data = drop_leaks(data)
            data = select_per_class(self._keep_splits(data), **images.per_class(), leaks=self.leaks)
            data = limit(data, images.images, images.held_out)
            self._checked[key] = CheckedDataset(data, checks.findings(data))
        return self._checked[key]

    def _keep_splits(self, data: Dataset) -> Dataset:
        """The data set in the splits in which the study began, where its runs are of the same images.

        A study of another version thus goes on, whose splits were drawn by another rule.
        """
        if data.fingerprint in self._earlier:
            return data
        for run in self._earlier.values():
            with suppress(RunError):
                if kept := adopt_splits(data, run.dataset()):
                    return kept
        return data

    @cached_property
    def _earlier(self) -> Mapping[str, Run]:
        """A run of the study's folder for each data set, by its fingerprint; read once, as there may be many."""
        runs: dict[str, Run] = {}
        for file in sorted(self.folder.glob("*/run.json")) if self.folder else ():
            with suppress(RunError):  # it is told where the run is used
                run = find_run(file.parent)
                if not run.record.ensemble:  # one of folds has splits of its own
                    runs.setdefault(run.record.dataset.fingerprint, run)
        return runs

    def _scan(self, images: DataSpec) -> Dataset:
        key = _hash_scan(images)
        if key not in self._scanned:
            self._scanned[key] = scan(
                images.data,
                val=images.val,
                test=images.test,
                exclude=images.exclude,
                corrections=images.corrections,
                **images.reading(),
                cache=self.context.cache,
                progress=self.context.progress,
            )
        return self._scanned[key]


def _hash_scan(images: DataSpec) -> str:
    """Hash what decides a scan."""
    return hash_json([images.data, images.val, images.test, images.exclude, images.corrections, images.reading()])


def digest_job(recipe: Recipe, images: DataSpec, fingerprint: str, fold: int | None, folds: int | None) -> str:
    """Hash what decides a job: recipe with seed, images, split, and the user's own code that the recipe names.

    Args:
        recipe: The recipe, with the seed.
        images: The images.
        fingerprint: Fingerprint of the data set.
        fold: The fold that validates, from 0; None: no folds.
        folds: Number of folds; None: no folds.

    Returns:
        A digest of ten characters.

    Raises:
        RecipeError: The user's own code does not exist.
    """
    selection = {name: value for name, value in images.record().items() if name not in ("data", "corrections")}
    code = [digest for digest in (code_of(recipe.model), own_parts(recipe)) if digest]
    return hash_json([sorted(recipe.table().items()), selection, fingerprint, fold, folds, *code])[:10]


def list_known_ids(folder: Path) -> dict[str, str]:
    """List the names of the runs in a study's folder.

    Args:
        folder: The study's folder.

    Returns:
        Names by digest.
    """
    names = [file.parent.name for file in folder.glob("*/run.json")]
    return {name.rpartition("-")[2]: name for name in names}


def name_job(label: str, digest: str, id_of_digest: dict[str, str]) -> str:
    """Name the run of a job by its existing name, else by label and digest in characters that suit a folder.

    Args:
        label: The label of the job's row.
        digest: The job's digest, as `digest_job` returns it.
        id_of_digest: Names by digest; a new name is added.

    Returns:
        The name of the run folder.
    """
    plain = "".join(char if char.isascii() and char.isalnum() else "-" for char in label.lower())
    words = "-".join(word for word in plain.split("-") if word)[:40].strip("-")
    return id_of_digest.setdefault(digest, f"{words or 'row'}-{digest}")


def run_job(
    job: TrainingJob,
    context: JobContext,
    datasets: DatasetCache,
    progress: Progress,
    on_epoch_end: EpochCallback | None = None,
) -> JobResult:
    """Train what a job asks for, or continue it where it was interrupted; a finished run is not repeated.

    A failure is returned as a result, so that the rest of a study continues.

    Args:
        job: The job.
        context: The folders in which it runs.
        datasets: The data sets of the study.
        progress: Receives notes and the steps of the work.
        on_epoch_end: Called after every epoch with all rows of history so far; None: nothing is called.

    Returns:
        How the job ended.

    Raises:
        StorageError: Nothing more can be saved.
    """
    started = time.perf_counter()
    if job.seconds is not None:
        progress = TimedProgress(progress, job.seconds)
    try:
        _train(job, context, datasets, progress, on_epoch_end)
        return JobResult("done", seconds=time.perf_counter() - started)
    except Pruned as pruned:
        shutil.rmtree(context.folder / job.id / CHECKPOINT, ignore_errors=True)  # nobody goes on with it
        return JobResult("pruned", str(pruned), time.perf_counter() - started)
    except TimeIsOver as over:
        return JobResult("stopped", str(over), time.perf_counter() - started)
    except StorageError:
        raise
    except BudwoodError as error:
        return JobResult("failed", error.message, time.perf_counter() - started)
    except Exception as error:  # a mistake of a library's, or of Budwood's, is recorded like any other
        return JobResult("failed", f"{type(error).__name__}: {error}", time.perf_counter() - started)


def _train(
    job: TrainingJob,
    context: JobContext,
    datasets: DatasetCache,
    progress: Progress,
    on_epoch_end: EpochCallback | None,
) -> None:
    folder = context.folder / job.id
    callback = _with_trial(job, on_epoch_end)
    if (folder / "run.json").is_file():
        if not context.is_done(job.id):
            resume(find_run(folder), cache=context.cache, progress=progress, on_epoch_end=callback, novelty=False)
        return
    checked = datasets.load(job.images, job.fold, job.folds)
    if checked.data.fingerprint != job.fingerprint:
        raise DataError(
            f"{job.images.data}: contains other images or splits than when the study started.",
            "Start the study again; finished runs on the earlier images are kept.",
        )
    train_recipe(
        checked.data,
        job.recipe,
        out=context.folder,
        leaks=context.leaks,
        cache=context.cache,
        progress=progress,
        id=job.id,
        findings=checked.findings,
        on_epoch_end=callback,
        novelty=False,  # of many rows most are never used on other images; `budwood calibrate` measures it
    )


def _with_trial(job: TrainingJob, on_epoch_end: EpochCallback | None) -> EpochCallback | None:
    """Join whoever watches and the search that the job is a trial of."""
    report = make_reporter(job.trial) if job.trial else None

    def report_epoch(history: Rows) -> None:
        if on_epoch_end:
            on_epoch_end(history)
        if report:
            report(history)

    return report_epoch if on_epoch_end or report else None
