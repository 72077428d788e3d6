"""What training tells other tools after every epoch, where that is asked for: TensorBoard, MLflow, the user's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

from budwood.config.own_objects import describe_place, name_object
from budwood.config.registry import check_call, is_entry_point, make_entry
from budwood.errors import RecipeError, did_you_mean
from budwood.progress import Progress
from budwood.runs.run_files import HISTORY
from budwood.runs.run_record import RunRecord
from budwood.storage.atomic import write_text
from budwood.storage.strict_json import decode_json, encode_json
from budwood.training.history import EpochCallback, Rows

Tool = Callable[[Path, RunRecord], AbstractContextManager[EpochCallback]]
EXPERIMENT: Final = "budwood"  # of MLflow
MLFLOW_RUN: Final = "mlflow.json"


def name_trackers(tools: Sequence[object]) -> tuple[str, ...]:
    """Name tracking tools, and check that all are known and installed.

    Args:
        tools: `tensorboard`, `mlflow`, or the user's own: `package.module:name`, or an object, class or function.

    Returns:
        The names of the tools.

    Raises:
        RecipeError: A tool is not known or not installed, or one of the user's own has no method `log`.
    """
    listed = tools if isinstance(tools, list | tuple) else (tools,)
    names = tuple(_name_tracker(tool) for tool in listed)
    for name in names:
        if name not in TRACKERS and is_entry_point(name):
            _find_log(make_entry(name, "track"), name)
            continue
        if name not in TRACKERS:
            hint = f"{did_you_mean(name, TRACKERS)} Your own: package.module:name."
            raise RecipeError(f"track: there is no tracker {name!r}.", hint)
        if find_spec(name) is None:
            raise RecipeError(f"track: {name} is not installed.", "Install it with: pip install 'budwood[track]'")
    return names


def _name_tracker(tool: object) -> str:
    """The name of a tool; raises `RecipeError` for what cannot be one."""
    name = name_object(tool)
    if not isinstance(name, str):
        raise RecipeError(f"track: expected the name of a tool, found {tool!r}.", "For example: track=['tensorboard']")
    return name


@contextmanager
def track_epochs(names: Sequence[str], folder: Path, record: RunRecord, progress: Progress) -> Iterator[EpochCallback]:
    """Send a run's history to tracking tools after every epoch.

    Rows that a tool already has, as of an interrupted training, are not sent twice. A tool that fails is noted once
    and left out from then on; training goes on.

    Args:
        names: Names of tools, as `name_trackers` returns them.
        folder: The run folder.
        record: The run's record.
        progress: Where notes go.

    Yields:
        A function that takes the whole history and sends what is new.
    """
    told = _count_told(folder)
    tools: dict[str, EpochCallback] = {}
    opened: dict[str, AbstractContextManager[EpochCallback]] = {}

    def track_epoch(history: Rows) -> None:
        for name in names:
            try:
                if name not in tools:
                    opened[name] = TRACKERS[name](folder, record) if name in TRACKERS else _track_own(name, told)
                    tools[name] = opened[name].__enter__()
                tools[name](history)
            except Exception as error:  # a server may be gone, a disk full, a version another
                tools[name] = _tell_nobody
                opened.pop(name, None)
                where = describe_place(error)
                progress.note(f"{name} could not log ({type(error).__name__}: {error}){where}; continuing without it.")

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


def _count_told(folder: Path) -> int:
    """The epochs in a run's history before it is trained on, which its tools were told when they ended."""
    file = folder / HISTORY
    return max(len(file.read_text(encoding="utf-8").splitlines()) - 1, 0) if file.is_file() else 0


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


@contextmanager
def _track_own(name: str, told: int) -> Iterator[EpochCallback]:
    """A tool of the user's own, which has `told` rows already; it is closed at the end, where it can be."""
    tool = make_entry(name, "track")
    log, logged = _find_log(tool, name), told

    def track_epoch(history: Rows) -> None:
        nonlocal logged
        for step, row in enumerate(history[logged:], logged + 1):
            log(step, {column: value for column, value in row.items() if column != "epoch"})
        logged = len(history)

    try:
        yield track_epoch
    finally:
        if callable(close := getattr(tool, "close", None)):
            close()


def _find_log(tool: object, name: str) -> Callable[[int, dict[str, float]], object]:
    """The method `log` of a tool, or the function that it is; raises `RecipeError` for what is neither."""
    log = getattr(tool, "log", tool)
    if not callable(log):
        raise RecipeError(
            f"track: {name} has no method log, found a {type(tool).__name__}.",
            "Write a function of an epoch and its figures by name, or a class with a method log(self, epoch, figures).",
        )
    check_call(log, name, "track", ("epoch", "figures"))
    return cast("Callable[[int, dict[str, float]], object]", log)


def _iterate_untold(history: Rows, logged: int) -> Iterator[tuple[int, str, float]]:
    """Step, name and value of every figure after the first `logged` rows."""
    for step, row in enumerate(history[logged:], logged + 1):
        yield from ((step, name, value) for name, value in row.items() if name != "epoch")


TRACKERS: Final[Mapping[str, Tool]] = {
    "mlflow": _track_mlflow,
    "tensorboard": _track_tensorboard,
}
