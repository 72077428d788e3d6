"""Zip archives, read whole or refused: every file's CRC, its size and the number of files are verified."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from budwood.data.archive_members import CHUNK, ArchiveFaultError, Member, raise_archive_faults
from budwood.text import counted

MOST_TARGET: Final = 4096  # bytes of the path that a symbolic link names
_FILE_MAGIC: Final = b"PK\3\4"
_END_MAGIC: Final = b"PK\5\6"
_METHODS: Final = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES encryption"}
_READABLE: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED: Final = 1
_UTF8: Final = 0x800
_DOS_FOLDER: Final = 0x10
_END: Final = struct.Struct("<4s4H2LH")  # of the central directory
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64: Final = struct.Struct("<4sLQL")
_UNPACK: Final = "Unpack it yourself, and give the folder."


def iterate_zip(path: Path) -> Iterator[Member]:
    """Iterate over the members of a zip archive.

    Args:
        path: Archive file.

    Yields:
        The members, in the order of the archive's directory.

    Raises:
        ArchiveFaultError: When the archive is damaged, cut off or encrypted, or uses a method of compression that
            cannot be read.
    """
    with _raise_zip_faults():
        if not zipfile.is_zipfile(path):
            raise ArchiveFaultError("the directory at its end is missing: it is cut off, or no zip archive")
        archive = zipfile.ZipFile(path)
    with archive:
        infos = archive.infolist()
        with _raise_zip_faults():
            _verify_end(path, infos)
        _refuse_unreadable(infos)
        for info in infos:
            yield _make_member(archive, info)


@contextmanager
def _raise_zip_faults() -> Iterator[None]:
    try:
        with raise_archive_faults():
            yield
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error, IndexError) as error:
        raise ArchiveFaultError(str(error)) from error


def _verify_end(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Compare the end of the archive with its directory and its beginning, which the standard library does not do.

    An archive that lost its end may hold another one, whose end would be taken for its own.
    """
    with path.open("rb") as handle:
        begins_with_file = handle.read(4) == _FILE_MAGIC
        size = handle.seek(0, 2)
        start = max(0, size - _END.size - 2**16 - _LOCATOR_64.size)
        handle.seek(start)
        tail = handle.read()
        at = tail.rfind(_END_MAGIC)
        told, comment = _END.unpack_from(tail, at)[4], _END.unpack_from(tail, at)[7]
        locator = at - _LOCATOR_64.size
        if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
            handle.seek(start + locator - _END_64.size)
            end = handle.read(_END_64.size)
            if end[:4] == b"PK\6\6":
                told = _END_64.unpack(end)[7]
    if told not in (len(infos), len(infos) % 2**16):  # some writers have 16 bits for the number
        raise ArchiveFaultError(f"its directory lists {len(infos):,} files, and its end says {told:,}")
    if any(tail[at + _END.size + comment :]):
        raise ArchiveFaultError("it goes on after the end of its directory")
    if begins_with_file and infos and min(info.header_offset for info in infos) > 0:
        raise ArchiveFaultError("its directory lacks the file that it begins with: it is cut off")


def _refuse_unreadable(infos: list[zipfile.ZipInfo]) -> None:
    locked = [info for info in infos if info.flag_bits & _ENCRYPTED]
    if locked:
        raise ArchiveFaultError(
            f"{locked[0].filename!r} is encrypted", "Unpack it with its password, and give the folder."
        )
    other = next((info for info in infos if info.compress_type not in _READABLE), None)
    if other is not None:
        method = _METHODS.get(other.compress_type, f"method {other.compress_type}")
        raise ArchiveFaultError(f"{other.filename!r} is compressed by {method}, which Budwood cannot read", _UNPACK)


def _make_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = _decode_name(info)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.endswith("/") or kind == stat.S_IFDIR or (info.external_attr & _DOS_FOLDER and not info.file_size):
        if info.file_size:
            raise ArchiveFaultError(f"{name!r} is marked as a folder, and has {counted(info.file_size, 'byte')}")
        return Member(name, "folder")
    if kind == stat.S_IFLNK:
        if info.file_size > MOST_TARGET:
            return Member(name, "other", target="a link with a damaged target")
        target = b"".join(_read(archive, info)).decode("utf-8", "surrogateescape")
        return Member(name, "symlink", target=target)
    if kind not in (0, stat.S_IFREG):
        return Member(name, "other", target="a device or named pipe")
    return Member(name, "file", info.file_size, read=lambda: _read(archive, info))


def _decode_name(info: zipfile.ZipInfo) -> str:
    """The name; where it is not marked as UTF-8, it is taken for that if it can be, as macOS does not mark it."""
    name = info.orig_filename
    if info.flag_bits & _UTF8 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    size = 0
    with _raise_zip_faults():
        source = archive.open(info)
    with source:
        while True:
            with _raise_zip_faults():
                data = source.read(CHUNK)
            if not data:
                break
            size += len(data)
            yield data
    if size != info.file_size:
        raise ArchiveFaultError(f"{info.filename!r} has {size:,} bytes instead of {info.file_size:,}")
