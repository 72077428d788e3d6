"""A single-file archive (tar, also compressed by gzip, bzip2 or xz; zip) to a folder in the cache, safely.

An archive is read to its end or refused with what is wrong. Nothing leaves the folder, neither the count nor the size
may explode, and what is not unpacked is listed. A folder that is used again is compared with the list of its files.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.data.archive_members import AGAIN, ArchiveFaultError, Member, raise_archive_faults
from budwood.data.tar_reader import BLOCK, COMPRESSIONS, is_tar_header, iterate_tar, open_decompressed
from budwood.data.unpacking import Limits, unpack
from budwood.data.zip_reader import iterate_zip
from budwood.errors import DataError
from budwood.storage.context import Context
from budwood.storage.folder_manifest import write_manifest
from budwood.storage.unpacked import ensure_unpacked
from budwood.text import counted, listed, show_unprintable

MOST_GROWTH: Final = 100  # images hardly compress; a real archive of small files stays far below
FREE_GROWTH: Final = 256 * 2**20  # bytes that any archive may hold, whatever its own size
MOST_SHOWN: Final = 3  # members that a note names
_MAGIC: Final = {
    b"PK\3\4": "zip",
    b"PK\5\6": "zip",
    b"PK\7\10": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\7": "RAR",
    b"LZIP": "lzip",
    b"\x04\x22\x4d\x18": "LZ4",
    b"\x1f\x9d": "compress (.Z)",
}
_SUFFIXES: Final = {".zip": "zip", ".7z": "7z", ".rar": "RAR", ".zst": "Zstandard", ".tzst": "Zstandard"}
_TAR_SUFFIXES: Final = (".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Extracted:
    """Archive as a folder.

    Attributes:
        folder: Folder with the archive's files.
        skipped: Members that are not used, each with the reason, a clause.
    """

    folder: Path
    skipped: tuple[tuple[str, str], ...]


def is_archive(path: Path) -> bool:
    """Tell whether a file is an archive, of a format that `extract` reads or one that it refuses by name.

    Args:
        path: File to look into; its name matters only where its beginning is damaged.

    Returns:
        True for a file that begins, ends or is named like an archive.
    """
    return bool(_detect_format(path))


def extract(archive: Path, context: Context) -> Path:
    """Extract an archive to a folder in the cache, once, and return the folder.

    Args:
        archive: Archive file, as for `extract_listed`.
        context: The cache folder, and where notes go.

    Returns:
        The folder with the archive's files.

    Raises:
        DataError: When the archive cannot be used.
        StorageError: When the files cannot be written to the cache.
    """
    return extract_listed(archive, context).folder


def extract_listed(archive: Path, context: Context) -> Extracted:
    """Extract an archive to a folder in the cache, once, with the members that are not used.

    The folder is used again as long as the archive's path, size and times stay the same, and the files are those that
    were written; else the archive is extracted anew.

    Args:
        archive: Archive file: tar, tar.gz, tar.xz, tar.bz2 or zip.
        context: The cache folder, under whose `archives` the result lies, and where notes go: when the archive is
            extracted, and of members that are not used.

    Returns:
        The folder, and what is not used.

    Raises:
        DataError: When a path leaves the folder, when the files are too many or too large for the archive's size (a
            decompression bomb), or when the archive is damaged, empty, encrypted, changing or of another format.
        StorageError: When the files cannot be written to the cache.
    """
    key = _make_key(archive)
    folder = context.cache / "archives" / hashlib.blake2b(key.encode(), digest_size=12).hexdigest()

    def fill(draft: Path) -> tuple[tuple[str, str], ...]:
        skipped = _extract_to(archive, draft)
        if _make_key(archive) != key:
            raise DataError(f"{archive}: was changed while it was read.", "Wait until it is complete, then repeat.")
        return skipped

    skipped = ensure_unpacked(folder, archive.name, context, fill)
    if skipped:
        named = [f"{show_unprintable(name)!r} {reason}" for name, reason in skipped]
        note = f"{archive.name}: {counted(len(skipped), 'member')} not used: {listed(named, MOST_SHOWN, '; ')}."
        context.progress.note(note)
    return Extracted(folder, skipped)


def _make_key(archive: Path) -> str:
    """What changes when an archive does."""
    facts = archive.stat()
    return f"{archive.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}"


def _extract_to(archive: Path, draft: Path) -> tuple[tuple[str, str], ...]:
    limits = Limits(archive.stat().st_size * MOST_GROWTH + FREE_GROWTH, shutil.disk_usage(draft).free)
    try:
        found = unpack(iterate_members(archive, limits.bytes), draft, limits)
    except ArchiveFaultError as fault:
        what = "read completely" if fault.hint == AGAIN else "used"
        raise DataError(
            f"{archive}: the archive cannot be {what} ({show_unprintable(fault.reason)}).", fault.hint
        ) from fault
    write_manifest(draft, found.files, found.links, found.skipped)
    return found.skipped


def iterate_members(archive: Path, most: int) -> Iterator[Member]:
    """Iterate over the members of an archive of any format that can be read.

    Args:
        archive: Archive file.
        most: Most bytes that a tar archive may have when it is decompressed.

    Returns:
        The members, in the order of the archive.

    Raises:
        ArchiveFaultError: When the archive is damaged, or of a format that cannot be read.
    """
    format = _detect_format(archive)
    if not archive.stat().st_size:
        raise ArchiveFaultError("the file has 0 bytes")
    if format == "zip":
        return iterate_zip(archive)
    if format in COMPRESSIONS:
        _refuse_single_file(archive, format)
        return iterate_tar(archive, format, most)
    if format == "tar":
        return iterate_tar(archive, "", most)
    raise ArchiveFaultError(f"its format is {format}, which Budwood does not read", "Unpack it, and give the folder.")


def _detect_format(path: Path) -> str:
    """The format of an archive by its first bytes, else by its name or its end; empty for another file."""
    with path.open("rb") as handle:
        head = handle.read(BLOCK)
    by_magic = next((format for magic, format in _MAGIC.items() if head.startswith(magic)), "")
    if by_magic:
        return by_magic
    if is_tar_header(head) or head[257:262] == b"ustar":
        return "tar"
    name = path.name.lower()
    if name.endswith(_TAR_SUFFIXES):
        return "tar"
    return _SUFFIXES.get(path.suffix.lower(), "zip" if zipfile.is_zipfile(path) else "")


def _refuse_single_file(archive: Path, format: str) -> None:
    with raise_archive_faults(), open_decompressed(archive, format) as source:
        head = source.read(BLOCK)
    is_tar = is_tar_header(head) or head[257:262] == b"ustar" or not any(head)
    if not is_tar and not archive.name.lower().endswith(_TAR_SUFFIXES):
        raise ArchiveFaultError(
            f"it is a single file compressed by {format}, not an archive of images",
            "Unpack it, and give what was in it.",
        )
