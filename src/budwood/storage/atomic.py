"""Where Budwood writes, and how: a file or folder appears whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from budwood.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_folder() -> Path:
    """The folder of everything that can be computed again: `$BUDWOOD_CACHE`, else the user's cache folder."""
    named = os.environ.get("BUDWOOD_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("budwood"))


def is_full(error: OSError) -> bool:
    """Whether the disk (or the user's quota) is full."""
    return error.errno in FULL


def make_storage_error(error: OSError, place: Path) -> StorageError:
    """The one message for a write that failed.

    The hint differs for a full disk and for a folder that cannot be written.
    """
    if is_full(error):
        return StorageError(
            f"{place}: no space left on the disk. No incomplete files were left behind.",
            "Free some space, choose another folder with --out, or move the cache with BUDWOOD_CACHE=/other/disk.",
        )
    return StorageError(
        f"{place}: cannot be written ({error.strerror or error}).",
        "Choose a folder that you may write to, with --out for runs or BUDWOOD_CACHE for the cache.",
    )


@contextmanager
def raise_storage_errors(place: Path) -> Iterator[None]:
    """Turn an operating-system error of the block into a `StorageError` that names `place`."""
    try:
        yield
    except OSError as error:
        raise make_storage_error(error, place) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a hidden neighbour of `path`, flush it to disk and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        write(draft)
        with draft.open("rb+") as handle:
            os.fsync(handle.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically. Libraries that write files themselves hide why they failed, so they fill memory first."""
    write_atomically(path, lambda draft: draft.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def encode_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


@contextmanager
def draft_folder(final: Path) -> Iterator[Path]:
    """A hidden folder beside `final` that is renamed to it when the block ends well, and removed when it does not.

    Where another process made `final` meanwhile, its folder stays. Drafts of processes that were killed are swept away
    by the next draft in the same place on the same machine.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(final.parent)
    draft = final.parent / f".{final.name}.{_machine_name()}-{os.getpid()}.part"
    draft.mkdir()
    try:
        yield draft
        try:
            draft.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sweep_drafts(folder: Path) -> None:
    """Remove the folder drafts in `folder` whose process, of this machine, no longer runs."""
    for draft in folder.glob(f".*.{_machine_name()}-*.part"):
        owner = draft.name.split("-")[-1].removesuffix(".part")
        if draft.is_dir() and owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(draft, ignore_errors=True)


def _machine_name() -> str:
    """The name of this machine, without dots."""
    return platform.node().replace(".", "-") or "here"


def _is_running(process: int) -> bool:
    if os.name == "nt":  # os.kill(pid, 0) would end the process there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
