"""Run records: a directory that is whole or absent, readable without Budwood."""

from __future__ import annotations

import csv
import datetime
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset, load
from budwood.data.value_range import ValueRange
from budwood.errors import RunError
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.label_task import LabelTask, MultiLabel, SingleLabel
from budwood.evaluation.novelty import ARRAYS, NoveltyScorer
from budwood.evaluation.predictions import PredictionOrigin, Predictions, load_predictions
from budwood.evaluation.split_metrics import SplitMetrics
from budwood.networks.plan import spec_of
from budwood.networks.weights import Weights
from budwood.runs.confidence_record import NOVELTY_FILE, STRANGER_SCORES, VALIDATION_SCORES, ConfidenceRecord
from budwood.runs.lookup import find_run_folder
from budwood.runs.run_display import RunDisplay
from budwood.runs.run_files import DATASET, HISTORY, WEIGHTS, check_run_file, find_place, name_predictions
from budwood.runs.run_record import RunRecord, TestRecord, read_record
from budwood.storage.atomic import cache_folder, raise_storage_errors, sweep_drafts, write_text
from budwood.text import quote_path
from budwood.training.history import History

if TYPE_CHECKING:
    import torch

CHECKPOINT: Final = "checkpoint"
VAL, TEST = "val", "test"
LOCK: Final = "lock"
RESULTS_LOCK: Final = ".results.lock"


@dataclass(frozen=True, repr=False)
class Run(RunDisplay):
    """A run: one recipe carried out, with its folder and its record.

    Attributes:
        path: The run folder.
        record: The contents of `run.json`.
    """

    path: Path
    record: RunRecord

    @property
    def recipe(self) -> Recipe:
        """Return the complete recipe of the run."""
        return self.record.recipe

    @property
    def metrics(self) -> Mapping[str, SplitMetrics]:
        """Return the metrics by split: `val`, and `test` once the test split has been opened.

        `metrics["val"]["accuracy"]` is one of them.
        """
        opened = self.record.test
        return {**self.record.metrics, **({"test": opened.metrics} if opened else {})}

    def opened(self) -> TestRecord:
        """Return the results on the opened test split.

        Returns:
            The number of looks, their times and the metrics.

        Raises:
            RunError: The test split is still sealed.
        """
        if self.record.test is None:
            raise RunError(
                f"{self.path}: the test split is sealed.", f"`budwood test {quote_path(self.path)}` opens it."
            )
        return self.record.test

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the logits."""
        return self.record.dataset.classes

    @property
    def task(self) -> LabelTask:
        """Return the kind of labels that the images have: one each, or several.

        The meaning of label numbers is kept with the data and the predictions.
        """
        count = len(self.classes)
        return MultiLabel(count) if self.record.dataset.several else SingleLabel(count)

    @property
    def decision_rule(self) -> DecisionRule:
        """Return how the run's logits become probabilities and answers; without calibration, as they are."""
        return (self.record.confidence or ConfidenceRecord()).make_rule(self.task)

    def novelty_scorer(self) -> NoveltyScorer | None:
        """Load what tells images that show none of the classes.

        Returns:
            The scorer; None where the run has none.

        Raises:
            RunError: Its file is missing, damaged or was changed.
        """
        novelty = self.record.confidence.novelty if self.record.confidence else None
        if novelty is None:
            return None
        kept = {} if novelty.method == "energy" else self._read_tensors(NOVELTY_FILE)
        arrays = {name: kept[name].astype(np.float32) for name in ARRAYS if name in kept}
        return NoveltyScorer(novelty.method, arrays, novelty.threshold, novelty.neighbour)

    def novelty_scores(self) -> dict[str, NDArray[np.float32]]:
        """Load how strange images were to the run.

        Returns:
            `validation`: of each image of the validation predictions, NaN where it was not scored; and `strangers`: of
            each image of the folder that was tried last, if any. Nothing where the run cannot tell strangers.

        Raises:
            RunError: Their file is missing, damaged or was changed.
        """
        if self.record.confidence is None or self.record.confidence.novelty is None:
            return {}
        kept = self._read_tensors(NOVELTY_FILE)
        return {name: kept[name] for name in (VALIDATION_SCORES, STRANGER_SCORES) if name in kept}

    @property
    def value_range(self) -> ValueRange | None:
        """Return the values of more than 8 bits that become black and white; None: the range of their type does."""
        return self.record.dataset.value_range

    def file(self, name: str) -> Path:
        """Find one of the run's files, and check that it is what the run wrote.

        Args:
            name: Name of the file, such as `weights.safetensors`.

        Returns:
            Its path.

        Raises:
            RunError: The file was changed or damaged, or it is missing although the record has its digest; or another
                process has trained the run since it was opened.
        """
        try:
            return check_run_file(self.path, name, self.record.files)
        except RunError:
            _refuse_trained_since(self, find_run(self.path))
            raise

    @property
    def root(self) -> Path:
        """Return the folder that the images' paths are relative to, found again where the record's is not absolute."""
        return find_place(self.record.root, self.path)

    @property
    def history(self) -> History:
        """Read `history.csv`: rows as a list has them, columns by name, `to_pandas()`.

        Returns:
            The history; that of an ensemble, which was not trained, is empty.

        Raises:
            RunError: The file is missing, damaged or was changed.
        """
        if self.record.ensemble:
            return History()
        file = self.file(HISTORY)
        try:
            with file.open(newline="", encoding="utf-8") as handle:
                rows = csv.DictReader(handle)
                return History([{name: float(value) for name, value in row.items() if value} for row in rows])
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise RunError(f"{file}: cannot be read ({error}).", "Restore the file, or train again.") from error

    def dataset(self) -> Dataset:
        """Load the data set of the run; the labels of its test split are sealed.

        Returns:
            The data set.

        Raises:
            RunError: The file is missing, damaged or was changed.
        """
        data = load(self.file(DATASET))
        return replace(data, root=find_place(str(data.root), self.path))

    def predictions(self, split: str) -> Predictions:
        """Load the predictions for a split.

        Args:
            split: `val`, or `test` once the test split has been opened.

        Returns:
            The predictions with the true labels; `wrong()` gives the mistakes among them.

        Raises:
            RunError: The test split is still sealed, there are no predictions for such a split, or their file is
                missing, damaged or was changed.
        """
        if split not in (VAL, TEST):
            why = "those for training images are not kept" if split == "train" else f"there is no split {split!r}"
            raise RunError(f"{self.path}: has predictions for val and test; {why}.", "Ask for `val`.")
        if split == TEST:
            self.opened()
        known = load_predictions(self.file(name_predictions(split)))
        about = PredictionOrigin(split, self.classes, self.root, self.decision_rule, self.value_range)
        return replace(known, origin=about)

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Load the trained linear head.

        Returns:
            Weight, float32 [classes, features], and bias, float32 [classes].

        Raises:
            RunError: The weights are missing, damaged or were changed, or the head is not a single linear layer; or the
                run is an ensemble, which has several heads.
        """
        self.refuse_ensemble("its linear head")
        tensors, name = self._read_tensors(WEIGHTS), self.record.network.head
        try:
            return tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        except KeyError as error:
            raise _make_unreadable_error(self.path / WEIGHTS, f"it has no layer {name}") from error

    def _read_tensors(self, name: str) -> dict[str, NDArray[np.float32]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        file = self.file(name)
        try:
            return dict(load_file(file))
        except (OSError, SafetensorError) as error:
            raise _make_unreadable_error(file, str(error)) from error

    @property
    def weight_files(self) -> tuple[str, ...]:
        """Return the names of the files with the run's weights: several of an ensemble."""
        made = self.record.ensemble
        return tuple(f"{one.folder}/{WEIGHTS}" for one in made.members) if made else (WEIGHTS,)

    def members(self) -> tuple[Run, ...]:
        """Open the networks of an ensemble, each of them a run of its own.

        Returns:
            The members in the order of the record, the one with the largest weight first; none of a run that was
            trained.

        Raises:
            RunError: A member is missing or damaged, or is another than when the ensemble was made.
        """
        made = self.record.ensemble
        folders = [self.path / one.folder for one in made.members] if made else []
        for folder in folders:
            if not (folder / "run.json").is_file():
                raise RunError(
                    f"{folder}: is missing or incomplete, one of the networks of the ensemble.",
                    "Restore the folder from a copy, or make the ensemble again.",
                )
        runs = [find_run(folder) for folder in folders]
        for run, file in zip(runs, self.weight_files, strict=False):
            if run.record.files.get(WEIGHTS) != self.record.files.get(file):
                raise RunError(
                    f"{run.path}: is not the network that the ensemble was made of.",
                    "Restore the folder from a copy, or make the ensemble again.",
                )
        return tuple(runs)

    def refuse_ensemble(self, what: str) -> None:
        """Refuse an ensemble where a single network is needed.

        Args:
            what: What was asked for, as it stands in the message.

        Raises:
            RunError: The run is an ensemble.
        """
        made = self.record.ensemble
        if made:
            raise RunError(
                f"{self.path}: is an ensemble of {len(made.members)} networks, so there is no one network to give "
                f"{what}.",
                f"Name one of its members, each a run of its own, such as {self.path / made.members[0].folder}.",
            )

    def network(self) -> torch.nn.Module:
        """Load the trained network as a plain PyTorch module in evaluation mode.

        Its input is described under `network` in `run.json`. That of an ensemble takes images of the largest input of
        its members, with values of 0 to 1, and makes each member's input of them.

        Returns:
            The module, from pixels to logits.

        Raises:
            RecipeError: The network of the recipe does not exist here.
            RunError: The weights are missing, damaged or were changed, or members of an ensemble make images square in
                different ways, so that no one input suits all.
            WeightsError: The weights do not fit the network.
        """
        if self.record.ensemble:
            from budwood.runs.ensemble_network import load_ensemble_network

            return load_ensemble_network(self)
        from budwood.networks.surgery import load_network

        own = Weights("trained", self.file(WEIGHTS), "")
        return load_network(spec_of(self.recipe, len(self.classes), own, cache_folder()))[0].module.eval()


def open_run(path: str | Path | Run, out: Path = Path("runs")) -> Run:
    """Open a finished run.

    Args:
        path: A run folder, or a file in one; of a run under `out` its name, its id or a part of it; or `last`. A run
            is read again.
        out: The folder of runs.

    Returns:
        The run.

    Raises:
        RunError: There is no such run, its record cannot be read, or it is not finished.
    """
    run = find_run(path, out)
    if run.record.state == "done":
        return run
    if is_locked(run.path):
        raise RunError(f"{run.path}: is not a finished run; it is still being trained.", "Wait until it has finished.")
    raise RunError(
        f"{run.path}: is not a finished run; its training was interrupted.",
        f"Continue it with `budwood resume {quote_path(run.path)}`.",
    )


def find_run(path: str | Path | Run, out: Path = Path("runs")) -> Run:
    """Find a run in whatever state it is.

    Args:
        path: A run folder, or a file in one; of a run under `out` its name, its id or a part of it; or `last`. A run
            is read again.
        out: The folder of runs.

    Returns:
        The run.

    Raises:
        RunError: There is no such run, or several that may be meant, or its record cannot be read; the message names
            the closest.
    """
    if not isinstance(path, str | Path | Run):
        raise RunError(f"run: expected a run, its path or its name, found {type(path).__name__}.", "See `bw.open_run`.")
    folder = path.path if isinstance(path, Run) else find_run_folder(path, out)
    return Run(folder, read_record(folder))


def reopen_run(run: Run) -> Run:
    """Read a finished run again, in a block under `lock_results`, before what was found out about it is written.

    Args:
        run: The run, as it was opened.

    Returns:
        The run as it is now.

    Raises:
        RunError: It is being trained, or has been trained since it was opened.
    """
    latest = open_run(run.path)
    _refuse_trained_since(run, latest)
    return latest


def _make_unreadable_error(file: Path, why: str) -> RunError:
    return RunError(f"{file}: cannot be read as the run's tensors ({why}).", "Restore the file, or train again.")


def _refuse_trained_since(run: Run, latest: Run) -> None:
    """Raises `RunError` where a run has other weights than when it was opened, or is getting them."""
    if any(latest.record.files.get(name) != run.record.files.get(name) for name in run.weight_files):
        raise RunError(
            f"{run.path}: was trained further by another process while this command was using it.",
            "Run the command again.",
        )


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keep other processes from training a run while the block runs.

    A killed process holds no lock. Files that it left half-written are removed.

    Args:
        folder: The run folder; its checkpoint folder is made where it is missing, and removed where it stays empty.

    Raises:
        RunError: Another process is training the run.
        StorageError: The folder cannot be written.
    """
    checkpoint = folder / CHECKPOINT
    with raise_storage_errors(folder):
        checkpoint.mkdir(exist_ok=True)
    taken = RunError(f"{folder}: is being trained by another process.", "Wait until it has finished.")
    try:
        with _hold(checkpoint / LOCK, taken):
            for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                sweep_drafts(place)
            yield
    finally:
        with suppress(OSError):  # it holds a checkpoint, or another's lock
            checkpoint.rmdir()


@contextmanager
def lock_results(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a run's results and report while the block runs; they wait.

    Args:
        folder: The run folder.

    Raises:
        StorageError: The folder cannot be written.
    """
    with _hold(folder / RESULTS_LOCK):
        yield


@contextmanager
def _hold(file: Path, taken: RunError | None = None) -> Iterator[None]:
    """Hold a lock while the block runs, and remove its file at the end; where another has it, wait or raise `taken`."""
    lock = FileLock(file, timeout=0 if taken else -1)
    with raise_storage_errors(file.parent):
        try:
            lock.acquire()
        except Timeout as error:
            raise taken or error from error
    try:
        yield
    finally:
        with suppress(OSError):  # who has opened it meanwhile finds it gone, and makes another
            file.unlink()
        lock.release()


def is_locked(folder: Path) -> bool:
    """Return whether a process is training a run; nothing is written.

    Args:
        folder: The run folder.

    Returns:
        True while another process holds the lock; False where it cannot be told, as of a file that cannot be read.
    """
    try:
        with (folder / CHECKPOINT / LOCK).open("rb") as handle:
            return _is_held(handle)
    except OSError:
        return False


def _is_held(handle: BinaryIO) -> bool:
    """Whether another holds the lock of an open file; a lock that is taken to find out is given back by closing."""
    if sys.platform == "win32":  # where a locked byte cannot be read
        try:
            handle.read(1)
        except PermissionError:
            return True
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def utc_now() -> str:
    """Return the current time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def save_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write `history.csv`; cells without a value stay empty.

    Args:
        folder: The run folder.
        rows: Values by column, one mapping a row; columns are in the order in which they first occur.

    Raises:
        OSError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / HISTORY, text.getvalue())


AnyRun = Run | str | Path  # a run, or what it is called


def open_any_run(run: AnyRun) -> Run:
    """Return a run, opened where only its path or id is given.

    Args:
        run: A run, which is returned as it is, or what a finished run is called, as in `open_run`.

    Returns:
        The run.

    Raises:
        RunError: There is no such run, or it is not finished.
    """
    return run if isinstance(run, Run) else open_run(run)
