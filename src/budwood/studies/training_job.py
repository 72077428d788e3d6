"""One training of a study, whoever carries it out: a record that can be sent to another process, and its outcome."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budwood.config.recipe import Recipe
from budwood.data import checks
from budwood.data.dataset import Dataset, assign_fold, limit, scan
from budwood.errors import BudwoodError, DataError, StorageError
from budwood.networks.plan import hash_json
from budwood.networks.registry import code_of
from budwood.progress import Progress
from budwood.runs.run import CHECKPOINT, find_run
from budwood.studies.optuna_search import Pruned, TrialPlace, make_reporter
from budwood.studies.study_file import DataSpec
from budwood.workflows.train import resume, train

EpochCallback = Callable[[Sequence[Mapping[str, float]]], None]


@dataclass(frozen=True)
class TrainingJob:
    """A recipe, the images it is about, the fold (from 0) that validates, and the trial of a search that it is.

    `id` is the name of its run: the same for the same recipe, seed, images and split, so that what is finished is known
    again, whatever its row is called by now. Works of one `group` share what is computed once per image.
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


@dataclass(frozen=True)
class JobResult:
    """How a work ended: `state` is done, failed or pruned; `problem` says why it was not done."""

    state: str
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class JobContext:
    """Where works are carried out: the study's folder, the cache, and whether given splits may leak."""

    folder: Path
    cache: Path
    allow_leaks: bool = False


@dataclass(frozen=True)
class CheckedDataset:
    """A data set as a work uses it, with its findings."""

    data: Dataset
    found: tuple[checks.Finding, ...]


class DatasetCache:
    """The data sets of a study: each scanned once, and checked once for every way in which it is used."""

    def __init__(self, cache: Path, progress: Progress, given: Mapping[str, Dataset] | None = None) -> None:
        self.cache = cache
        self._progress = progress
        self._scanned = {_scan_key(DataSpec(source)): data for source, data in (given or {}).items()}
        self._stocks: dict[str, CheckedDataset] = {}

    def stock(self, images: DataSpec, fold: int | None = None, folds: int | None = None) -> CheckedDataset:
        """The images of a row, of which one fold validates where there are folds; raises `DataError`."""
        key = hash_json([images.record(), fold, folds])
        if key not in self._stocks:
            data = self._whole(images)
            if fold is not None and folds is not None:
                data = assign_fold(data, fold, folds)
            data = limit(data, images.images, images.held_out)
            self._stocks[key] = CheckedDataset(data, checks.findings(data))
        return self._stocks[key]

    def _whole(self, images: DataSpec) -> Dataset:
        key = _scan_key(images)
        if key not in self._scanned:
            self._scanned[key] = scan(
                images.data,
                val=images.val,
                test=images.test,
                exclude=images.exclude,
                corrections=images.corrections,
                cache=self.cache,
                progress=self._progress,
            )
        return self._scanned[key]


def _scan_key(images: DataSpec) -> str:
    """What decides a scan."""
    return hash_json([images.data, images.val, images.test, images.exclude, images.corrections])


def compute_job_digest(recipe: Recipe, images: DataSpec, fingerprint: str, fold: int | None, folds: int | None) -> str:
    """What decides a work, in ten letters: its recipe with the seed, its images and their split, and the code of a
    network of the user's own."""
    about = {name: value for name, value in images.record().items() if name not in ("data", "corrections")}
    table: dict[str, Any] = recipe.table()
    code = code_of(recipe.model)
    return hash_json([sorted(table.items()), about, fingerprint, fold, folds, *([code] if code else [])])[:10]


def read_known_ids(folder: Path) -> dict[str, str]:
    """The names of the runs in a study's folder by their digests."""
    names = [file.parent.name for file in folder.glob("*/run.json")]
    return {name.rpartition("-")[2]: name for name in names}


def choose_job_id(label: str, digest: str, known: dict[str, str]) -> str:
    """The name of a work's run: that which it has already, else its label, in letters that a folder may have, and its
    digest."""
    plain = "".join(char if char.isascii() and char.isalnum() else "-" for char in label.lower())
    words = "-".join(word for word in plain.split("-") if word)[:40].strip("-")
    return known.setdefault(digest, f"{words or 'row'}-{digest}")


def run_job(
    work: TrainingJob, bench: JobContext, shelf: DatasetCache, progress: Progress, told: EpochCallback | None = None
) -> JobResult:
    """Train what a work asks for, or go on with it where it was interrupted; what is finished is not repeated.

    A failure is an outcome, so that the rest of a study goes on. Raises `StorageError`, as nothing more can be kept.
    """
    started = time.perf_counter()
    try:
        _train_job(work, bench, shelf, progress, told)
        return JobResult("done", seconds=time.perf_counter() - started)
    except Pruned as pruned:
        shutil.rmtree(bench.folder / work.id / CHECKPOINT, ignore_errors=True)  # nobody goes on with it
        return JobResult("pruned", str(pruned), time.perf_counter() - started)
    except StorageError:
        raise
    except BudwoodError as error:
        return JobResult("failed", error.message, time.perf_counter() - started)
    except Exception as error:  # a mistake of a library's, or of Budwood's, is recorded like any other
        return JobResult("failed", f"{type(error).__name__}: {error}", time.perf_counter() - started)


def _train_job(
    work: TrainingJob, bench: JobContext, shelf: DatasetCache, progress: Progress, told: EpochCallback | None
) -> None:
    folder = bench.folder / work.id
    listener = _make_listener(work, told)
    if (folder / "run.json").is_file():
        run = find_run(folder)
        if run.record["state"] != "done":
            resume(run, cache=bench.cache, progress=progress, told=listener)
        return
    stock = shelf.stock(work.images, work.fold, work.folds)
    if stock.data.fingerprint != work.fingerprint:
        raise DataError(
            f"{work.images.data}: holds other images or splits than when the study began.",
            "Start the study again; what is finished of the earlier images stays.",
        )
    train(
        stock.data,
        work.recipe,
        out=bench.folder,
        allow_leaks=bench.allow_leaks,
        cache=bench.cache,
        progress=progress,
        id=work.id,
        found=stock.found,
        told=listener,
    )


def _make_listener(work: TrainingJob, told: EpochCallback | None) -> EpochCallback | None:
    """Who is told of every epoch: whoever watches, and the search that the work is a trial of."""
    report = make_reporter(work.trial) if work.trial else None

    def tell(history: Sequence[Mapping[str, float]]) -> None:
        if told:
            told(history)
        if report:
            report(history)

    return tell if told or report else None
