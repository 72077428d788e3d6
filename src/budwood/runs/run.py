"""Run records: a directory that is whole or absent, readable without Budwood."""

from __future__ import annotations

import csv
import datetime
import io
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset, load
from budwood.errors import RunError
from budwood.evaluation.label_task import LabelTask, MultiLabel, SingleLabel
from budwood.evaluation.metrics import SplitMetrics
from budwood.evaluation.predictions import Predictions, load_predictions
from budwood.networks.plan import spec_of
from budwood.networks.weights import Weights
from budwood.runs.run_record import RunRecord, TestRecord, read_record
from budwood.storage.atomic import cache_folder, raise_storage_errors, write_text

if TYPE_CHECKING:
    import torch

LEDGER: Final = "test-looks.csv"
CHECKPOINT: Final = "checkpoint"
LOCK: Final = "lock"


@dataclass(frozen=True)
class Run:
    """A recipe carried out: its directory and its record, `run.json`."""

    path: Path
    record: RunRecord

    @property
    def recipe(self) -> Recipe:
        """The recipe that was carried out, whole."""
        return self.record.recipe

    @property
    def metrics(self) -> Mapping[str, SplitMetrics]:
        """Metrics by split: `val`, and `test` once it has been opened; `metrics["val"]["accuracy"]` is one."""
        opened = self.record.test
        return {**self.record.metrics, **({"test": opened.metrics} if opened else {})}

    def opened(self) -> TestRecord:
        """What came of opening the test split; raises `RunError` while it is sealed."""
        if self.record.test is None:
            raise RunError(f"{self.path}: the test split is sealed.", f"`budwood test {self.path}` opens it.")
        return self.record.test

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.record.dataset.classes

    @property
    def task(self) -> LabelTask:
        """What the images are labelled with; what label numbers stand for is with the data and the predictions."""
        count = len(self.classes)
        return MultiLabel(count) if self.record.dataset.several else SingleLabel(count)

    def history(self) -> list[dict[str, float]]:
        """The rows of `history.csv`."""
        with (self.path / "history.csv").open(newline="") as handle:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(handle)]

    def dataset(self) -> Dataset:
        """The data set of the run; the labels of its test split are sealed."""
        return load(self.path / "dataset.parquet")

    def predictions(self, split: str) -> Predictions:
        """The predictions for `val`, or for `test` once it has been opened."""
        return load_predictions(self.path / f"predictions-{split}.parquet")

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The trained head: weight float32 [classes, features] and bias float32 [classes]."""
        from safetensors.numpy import load_file

        tensors = load_file(self.path / "weights.safetensors")
        name = self.record.network.head
        return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def network(self) -> torch.nn.Module:
        """The trained network, a plain module in evaluation mode; input as `run.json` says under `network`."""
        from budwood.networks.surgery import load_network

        own = Weights("trained", self.path / "weights.safetensors", "")
        return load_network(spec_of(self.recipe, len(self.classes), own, cache_folder()))[0].module.eval()


def open_run(path: str | Path, out: Path = Path("runs")) -> Run:
    """The finished run in a directory, or of that id under `out`; raises `RunError`."""
    run = find_run(path, out)
    if run.record.state == "done":
        return run
    if is_locked(run.path):
        raise RunError(f"{run.path}: is not a finished run; it is still being trained.", "Wait until it has finished.")
    raise RunError(
        f"{run.path}: is not a finished run; its training was interrupted.",
        f"Continue it with `budwood resume {run.path}`.",
    )


def find_run(path: str | Path, out: Path = Path("runs")) -> Run:
    """The run in a directory, or of that id under `out`, in whatever state; raises `RunError`."""
    folder = next((place for place in (Path(path), out / path) if (place / "run.json").is_file()), None)
    if folder is None:
        known = sorted((file.parent.name for file in out.glob("*/run.json")), reverse=True) if out.is_dir() else []
        latest = f"The latest runs in {out}/: {', '.join(known[:5])}." if known else f"There are no runs in {out}/."
        raise RunError(f"{path}: is not a run folder (it contains no run.json).", latest)
    return Run(folder, read_record(folder))


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """One process at a time trains a run; raises `RunError` when another does. A killed one holds nothing."""
    with raise_storage_errors(folder):
        (folder / CHECKPOINT).mkdir(exist_ok=True)
        lock = FileLock(folder / CHECKPOINT / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(f"{folder}: is being trained by another process.", "Wait until it has finished.") from error
    try:
        for draft in folder.rglob(".*.part"):  # of a process that was killed
            draft.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process is training a run."""
    try:
        with lock_run(folder):
            return False
    except RunError:
        return True


def make_run_id(model: str) -> str:
    """A name that sorts by time and that no other run has."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{model}-{secrets.token_hex(2)}"


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def save_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write `history.csv`; what a row does not tell stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "history.csv", text.getvalue())


def count_look(runs: Path, run: str, test_split: str) -> int:
    """Note one look at a test split in the folder's ledger and say which look it is, over all runs of the folder."""
    ledger = runs / LEDGER
    with raise_storage_errors(ledger), ledger.open("a+", encoding="utf-8") as handle:
        handle.write(f"{utc_now()},{run},{test_split}\n")
        handle.flush()
        handle.seek(0)
        return sum(line.rstrip("\n").endswith(f",{test_split}") for line in handle)


def open_any_run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else open_run(run)
