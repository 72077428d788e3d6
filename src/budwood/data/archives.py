"""A single-file archive (tar, tar.gz, tar.xz, tar.bz2, zip) to a folder, safely.

Only plain files are taken, none may leave the folder, and neither the count nor the size may explode.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from budwood.errors import DataError
from budwood.progress import Progress
from budwood.storage.atomic import draft_folder, raise_storage_errors

MOST_FILES: Final = 5_000_000
MOST_GROWTH: Final = 100  # images hardly compress; a real archive of small files stays far below
FREE_GROWTH: Final = 256 * 2**20  # bytes that any archive may hold, whatever its own size
DAMAGED: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,  # a zip file with a password
    NotImplementedError,  # a zip file with an unknown compression
)


def is_archive(path: Path) -> bool:
    """Tell whether a file is an archive that `extract` can read.

    Args:
        path: File to look into; its name does not matter.

    Returns:
        True for a zip archive and for a tar archive, compressed or not.
    """
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def extract(archive: Path, cache: Path, progress: Progress) -> Path:
    """Extract an archive to a folder in the cache, once, and return the folder.

    The folder is reused as long as the archive's path, size and times stay the same.

    Args:
        archive: Archive file: tar, tar.gz, tar.xz, tar.bz2 or zip.
        cache: The cache folder; the result lies under `archives` in it.
        progress: Receives a note when the archive is extracted.

    Returns:
        The folder with the archive's plain files.

    Raises:
        DataError: When a path leaves the folder, when the files are too many or too large for the archive's size (a
            decompression bomb), or when the archive is damaged.
        StorageError: When the files cannot be written to the cache.
    """
    facts = archive.stat()
    key = f"{archive.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}"
    folder = cache / "archives" / hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    if folder.is_dir():
        return folder
    limit = facts.st_size * MOST_GROWTH + FREE_GROWTH
    progress.note(f"Unpacking {archive.name}")
    with raise_storage_errors(folder), draft_folder(folder) as draft:
        _unpack(archive, draft, limit)
    return folder


def _unpack(archive: Path, folder: Path, limit: int) -> None:
    written = 0
    try:
        for count, (name, size, source) in enumerate(_iterate_members(archive), 1):
            written += size
            if written > limit or count > MOST_FILES:
                raise DataError(
                    f"{archive}: unpacks to more than {limit / 2**20:,.0f} MiB or {MOST_FILES:,} files, "
                    "the limit for an archive of images.",
                    "If you trust the archive, unpack it yourself and give the folder.",
                )
            target = folder / _safe_path(archive, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(source, out, 2**20)
    except DAMAGED as error:
        raise DataError(
            f"{archive}: the archive cannot be read completely ({error}).", "Download or pack it again."
        ) from error


def _iterate_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as unzipped:
            for info in unzipped.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if not info.is_dir() and kind in (0, stat.S_IFREG):
                    with unzipped.open(info) as source:
                        yield info.filename, info.file_size, source
        return
    with tarfile.open(archive, "r|*") as packed:
        for member in packed:
            if member.isfile() and (opened := packed.extractfile(member)):
                with opened as source:
                    yield member.name, member.size, source


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]) or not path.parts:
        raise DataError(
            f"{archive}: contains the path {name!r}, which is outside the folder to unpack to.",
            "Do not use this archive; ask for one with plain relative paths.",
        )
    return path
