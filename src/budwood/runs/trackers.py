"""What training tells other tools after every epoch, where that is asked for: TensorBoard, MLflow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from budwood.errors import RecipeError, did_you_mean
from budwood.progress import Progress
from budwood.runs.run_record import RunRecord
from budwood.storage.atomic import write_text
from budwood.storage.strict_json import decode_json, encode_json
from budwood.training.history import EpochCallback, Rows

Tool = Callable[[Path, RunRecord], AbstractContextManager[EpochCallback]]
EXPERIMENT: Final = "budwood"  # of MLflow
MLFLOW_RUN: Final = "mlflow.json"


def refuse_unknown_trackers(names: Sequence[str]) -> None:
    """Check that all named tracking tools are known and installed.

    Args:
        names: Names of tools: `tensorboard`, `mlflow`.

    Raises:
        RecipeError: A tool is not known or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise RecipeError(f"track: there is no tracker {name!r}.", did_you_mean(name, TRACKERS))
        if find_spec(name) is None:
            raise RecipeError(f"track: {name} is not installed.", "Install it with: pip install 'budwood[track]'")


@contextmanager
def track_epochs(names: Sequence[str], folder: Path, record: RunRecord, progress: Progress) -> Iterator[EpochCallback]:
    """Send a run's history to tracking tools after every epoch.

    Rows that a tool already has, as of an interrupted training, are not sent twice. A tool that fails is noted once
    and left out from then on; training goes on.

    Args:
        names: Names of tools, which `refuse_unknown_trackers` has passed.
        folder: The run folder.
        record: The run's record.
        progress: Where notes go.

    Yields:
        A function that takes the whole history and sends what is new.
    """
    tools: dict[str, EpochCallback] = {}
    opened: dict[str, AbstractContextManager[EpochCallback]] = {}

    def track_epoch(history: Rows) -> None:
        for name in names:
            try:
                if name not in tools:
                    opened[name] = TRACKERS[name](folder, record)
                    tools[name] = opened[name].__enter__()
                tools[name](history)
            except Exception as error:  # a server may be gone, a disk full, a version another
                tools[name] = _tell_nobody
                opened.pop(name, None)
                progress.note(f"{name} could not log ({type(error).__name__}: {error}); continuing without it.")

    try:
        yield track_epoch
    finally:
        reason = sys.exc_info()
        for name, tool in opened.items():
            try:
                tool.__exit__(*reason)
            except Exception as error:
                if error is not reason[1]:
                    progress.note(f"{name} could not be closed ({type(error).__name__}: {error}).")


def _tell_nobody(history: Rows) -> None:
    """Tells nobody."""


@contextmanager
def _track_tensorboard(folder: Path, record: RunRecord) -> Iterator[EpochCallback]:
    """Scalars in `tensorboard/` of the run; what an interrupted training wrote is replaced."""
    from torch.utils.tensorboard import SummaryWriter

    logged = 0
    with SummaryWriter(folder / "tensorboard", purge_step=1) as writer:

        def track_epoch(history: Rows) -> None:
            nonlocal logged
            for step, name, value in _iterate_untold(history, logged):
                writer.add_scalar(name, value, step)
            writer.flush()
            logged = len(history)

        yield track_epoch


@contextmanager
def _track_mlflow(folder: Path, record: RunRecord) -> Iterator[EpochCallback]:
    """A run of the experiment `budwood`; a resumed run goes on in it.

    It lies where MLFLOW_TRACKING_URI says, else in `mlflow.db` in the folder of runs.
    """
    from mlflow import MlflowClient

    own = f"sqlite:///{folder.parent.absolute() / 'mlflow.db'}"
    client = MlflowClient(None if os.environ.get("MLFLOW_TRACKING_URI") else own)
    file = folder / MLFLOW_RUN
    if file.is_file():
        run = decode_json(file.read_text(encoding="utf-8"))["run"]
    else:
        existing = client.get_experiment_by_name(EXPERIMENT)
        experiment = existing.experiment_id if existing else client.create_experiment(EXPERIMENT)
        run = client.create_run(experiment, run_name=record.id, tags={"source": record.source}).info.run_id
        for name, value in record.recipe.table().items():
            client.log_param(run, name, value)
        write_text(file, encode_json({"run": run}))
    logged = max((metric.step for metric in client.get_metric_history(run, "val_loss")), default=0)

    def track_epoch(history: Rows) -> None:
        nonlocal logged
        for step, name, value in _iterate_untold(history, logged):
            client.log_metric(run, name, value, step=step)
        logged = len(history)

    status = "FAILED"
    try:
        yield track_epoch
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)


def _iterate_untold(history: Rows, logged: int) -> Iterator[tuple[int, str, float]]:
    """Step, name and value of every figure after the first `logged` rows."""
    for step, row in enumerate(history[logged:], logged + 1):
        yield from ((step, name, value) for name, value in row.items() if name != "epoch")


TRACKERS: Final[Mapping[str, Tool]] = {
    "mlflow": _track_mlflow,
    "tensorboard": _track_tensorboard,
}
