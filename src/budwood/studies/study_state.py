"""`study.json`: how far a study is, for whoever wants to know and for its report; and who may write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from budwood.comparison.published import Published, read_published
from budwood.errors import StudyError
from budwood.storage.atomic import raise_storage_errors, sweep_drafts, write_text
from budwood.storage.strict_json import decode_json, encode_json

STATE_FILE: Final = "study.json"
STUDY_FILE: Final = "study.toml"
LOCK: Final = "lock"
SCHEMA_VERSION: Final = 1  # what version 0.1 wrote without saying so

StudyStatus = Literal["running", "stopped", "done"]
RowStatus = Literal["waiting", "training", "done", "failed", "refused", "pruned"]


def find_study_folder(name: str | Path, out: Path) -> Path | None:
    """Find the folder of a study by what it is called.

    Args:
        name: Its path, or its name in `out`; or one of the files in it, such as its report.
        out: The folder that holds the folders of studies.

    Returns:
        The folder; None where no study is called so.
    """
    path = Path(name)
    places = (path, out / name, *([path.parent] if path.is_file() else []))
    return next((place for place in places if (place / STATE_FILE).is_file()), None)


class RowState(BaseModel):
    """The state of a row.

    Attributes:
        label: The row's label.
        state: waiting, training, done, failed, refused or pruned.
        problem: What went wrong; empty for nothing.
        runs: The names of its runs, unfinished ones included.
        published: What the source reports for the row; None: nothing.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    state: RowStatus
    problem: str
    runs: tuple[str, ...]
    published: Annotated[Published | None, BeforeValidator(read_published)]


class StudyState(BaseModel):
    """The state of a study, as `study.json` contains it.

    Attributes:
        schema_version: Version of the file's form; 1 where a file has none.
        name: Name of the study.
        title: Its title.
        source: Where the experiments were published.
        state: running, stopped or done.
        written: When the state was saved, UTC, ISO 8601.
        metric: The metric that rows are compared by.
        changed: What was set for every row.
        rows: The state of each row.
        left_out: What the limits of `[quick]`, or options that were set for every row, left out of the study.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    name: str
    title: str
    source: str
    state: StudyStatus
    written: str
    metric: str
    changed: Mapping[str, Any]
    rows: tuple[RowState, ...]
    left_out: tuple[str, ...] = ()


def read_state(folder: Path) -> StudyState:
    """Read the state of a study.

    Args:
        folder: The study's folder.

    Returns:
        The state, from this or an earlier version of Budwood.

    Raises:
        StudyError: The state is missing, cannot be read, or is from a later version of Budwood.
    """
    file = folder / STATE_FILE
    try:
        content = decode_json(file.read_text(encoding="utf-8"))
        version = content.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise StudyError(
                f"{file}: has the schema version {version}, expected {SCHEMA_VERSION} at most.", "Update Budwood."
            )
        return StudyState.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _unreadable(file, f"{place}: {first['msg']}") from error
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(file, f"{type(error).__name__}: {error}") from error


def write_state(folder: Path, state: StudyState) -> None:
    """Write the state of a study, atomically.

    Args:
        folder: The study's folder.
        state: The state.

    Raises:
        StorageError: The folder cannot be written.
    """
    content = {**dict(state), "changed": dict(state.changed), "rows": [_plain(row) for row in state.rows]}
    if not state.left_out:
        del content["left_out"]
    with raise_storage_errors(folder):
        write_text(folder / STATE_FILE, encode_json(content, indent=1) + "\n")


@contextmanager
def lock_study(folder: Path) -> Iterator[None]:
    """Keep other processes from running a study while the block runs.

    A killed process holds no lock. Files and folders that it left half-written are removed.

    Args:
        folder: The study's folder, which is made where it is missing.

    Raises:
        StudyError: Another process runs the study.
        StorageError: The folder cannot be written.
    """
    with raise_storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StudyError(f"{folder}: is already running in another process.", "Wait until it has finished.") from error
    try:
        sweep_drafts(folder)
        yield
    finally:
        lock.release()


def _plain(row: RowState) -> dict[str, Any]:
    """A row as it is written; the order of the keys is that of version 0.1."""
    return {**dict(row), "published": row.published.record() if row.published else None}


def _unreadable(file: Path, reason: str) -> StudyError:
    return StudyError(f"{file}: cannot be read ({reason}).", "Run the study again.")
