"""Where Budwood writes, and how: a file or folder appears whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from budwood.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

FULL = (errno.ENOSPC, errno.EDQUOT)
NAMED: Final = 120  # bytes of the name of a file that are in the name of its draft
FLUSHED: Final = 64  # files that are flushed one by one; more take ten times as long as to flush all that is unwritten


def cache_folder() -> Path:
    """Return the folder of everything that can be computed again.

    Returns:
        The folder in `$BUDWOOD_CACHE` if that is set, else the user's cache folder for Budwood; where the user has no
        home folder, one in the folder for temporary files. It may not exist yet.

    Raises:
        StorageError: `$BUDWOOD_CACHE` names the home folder of a user that there is not.
    """
    named = os.environ.get("BUDWOOD_CACHE")
    if named:
        try:
            return Path(named).expanduser()
        except RuntimeError as error:
            raise StorageError(
                f"BUDWOOD_CACHE: the home folder in {named!r} is not known.", "Give the whole path of a folder."
            ) from error
    with suppress(RuntimeError):  # no home folder is known
        usual = Path(platformdirs.user_cache_dir("budwood"))
        if usual.is_absolute():
            return usual
    return Path(tempfile.gettempdir()) / f"budwood-{os.getuid()}"


def is_writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, which may not exist yet.

    Args:
        folder: The folder.

    Returns:
        True if this user may write to it, or may make it.
    """
    place = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def is_full(error: OSError) -> bool:
    """Tell whether an error means that the disk or the user's quota is full.

    Args:
        error: Error of a write.

    Returns:
        True for `ENOSPC` and `EDQUOT`.
    """
    return error.errno in FULL


def make_storage_error(error: OSError, place: Path) -> StorageError:
    """Make the error for a failed write.

    The hint differs for a full disk and for a folder that cannot be written.

    Args:
        error: What the operating system reported.
        place: File or folder that was to be written, for the message.

    Returns:
        The error, for the caller to raise.
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
    """Turn an operating-system error in the block into a `StorageError`.

    Args:
        place: File or folder that the block writes, for the message.

    Raises:
        StorageError: When the block raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise make_storage_error(error, place) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears whole or not at all.

    `write` fills a hidden file beside `path`, which is flushed to disk and then renamed. The hidden file is removed
    when anything fails; one that a killed process left is removed by the next write to the same folder on the same
    machine. Missing parent folders are made.

    Args:
        path: File to make or replace.
        write: Function that makes the file at the path that it receives.

    Raises:
        OSError: When the file cannot be written; wrap the call in `raise_storage_errors` to get a `StorageError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(path.parent)
    draft = _name_draft(path)
    try:
        write(draft)
        _flush(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes to a file atomically.

    Libraries that write files themselves hide why a write failed, so let them write to memory and pass the bytes
    here.

    Args:
        path: File to make or replace.
        data: The whole content.

    Raises:
        OSError: When the file cannot be written.
    """
    write_atomically(path, lambda draft: draft.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8.

    Args:
        path: File to make or replace.
        text: The whole content.

    Raises:
        OSError: When the file cannot be written.
    """
    write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def encode_parquet(table: pa.Table) -> bytes:
    """Encode a table as the bytes of a Parquet file.

    Args:
        table: The table, with its schema metadata.

    Returns:
        The content of the file.
    """
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def read_parquet(source: Path | bytes) -> pa.Table:
    """Read a Parquet file that Budwood wrote.

    `pyarrow.parquet.read_table` would import what reads folders of such files, which takes 0.15 s.

    Args:
        source: The file, or its content.

    Returns:
        The table, with its schema metadata.

    Raises:
        OSError: The file cannot be read.
        ArrowException: It is no Parquet file, or damaged.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        return file.read()


@contextmanager
def draft_folder(final: Path, exclusive: bool = False) -> Iterator[Path]:
    """Make a hidden folder that is flushed to disk and renamed to `final` when the block ends without an error.

    When the block fails, the hidden folder is removed. If another process has made `final` in the meantime, its
    folder is kept. Drafts of processes that were killed are removed by the next draft in the same place on the same
    machine.

    Args:
        final: Folder that is to appear whole or not at all.
        exclusive: Whether it is an error that another process has made `final` in the meantime.

    Yields:
        The hidden folder beside `final`, empty, to be filled by the block.

    Raises:
        OSError: When the draft cannot be made or renamed; of the number `ENOTEMPTY` or `EEXIST` where `final` is
            another's.
    """
    with scratch_folder(final) as draft:
        yield draft
        _flush_folder(draft)
        try:
            draft.rename(final)
        except OSError:
            if exclusive or not final.is_dir():
                raise


@contextmanager
def scratch_folder(final: Path) -> Iterator[Path]:
    """Make a hidden folder for files that take their places by the caller's hand, and remove it in the end.

    One that a killed process left is removed by the next in the same place on the same machine.

    Args:
        final: File or folder beside which it is made, on the same disk.

    Yields:
        The hidden folder, empty.

    Raises:
        OSError: It cannot be made.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(final.parent)
    draft = _name_draft(final)
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sweep_drafts(folder: Path) -> None:
    """Remove drafts of files and folders that killed processes left behind.

    Only drafts of processes of this machine, and of the same container, that no longer run are removed, whatever their
    age.

    Args:
        folder: Folder that holds the drafts.
    """
    machine, space = re.escape(_machine_name()), _name_processes()
    named = re.compile(rf"\..*\.{machine}-(\d+)(-r[0-9a-f]{{8}}({space})?)?\.part", re.DOTALL)
    names: list[str] = []
    with suppress(OSError):  # a folder that cannot be listed may still be written
        names = os.listdir(folder)  # noqa: PTH208 - paths of all the files beside them would be made for nothing
    for name in names:
        owner = named.fullmatch(name)
        if owner and not _is_running(int(owner[1])):
            shutil.rmtree(folder / name, ignore_errors=True)
            with suppress(OSError):  # it was a folder, or it is another's
                (folder / name).unlink()


def _name_draft(final: Path) -> Path:
    """The path of a draft, whose name says which process writes it and fits where that of `final` does."""
    owner = f"{_machine_name()}-{os.getpid()}-r{uuid.uuid4().hex[:8]}{_name_processes()}"
    return final.with_name(f".{os.fsencode(final.name)[:NAMED].decode(errors='ignore')}.{owner}.part")


def _flush(file: Path) -> None:
    handle = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    if len(files) > FLUSHED and hasattr(os, "sync"):
        os.sync()
        return
    for file in files:
        _flush(file)


def _machine_name() -> str:
    """The name of this machine, without dots."""
    return platform.node().replace(".", "-") or "here"


@cache
def _name_processes() -> str:
    """What tells the processes of a container from those of others on the machine; empty where nothing does."""
    with suppress(OSError):
        return f"-n{Path('/proc/self/ns/pid').stat().st_ino}"
    return ""


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
