"""Tar archives, read to their end marker or refused: every header's checksum is verified.

The standard library takes a damaged header for the end of the archive. Read are the formats of POSIX (ustar, pax), GNU
and Unix V7. A tar archive has no checksum of its files' content, nor of names longer than 100 bytes; that of a
compressed one is verified when it is read to its end.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from budwood.data.archive_members import CHUNK, ArchiveFaultError, Member, Read, raise_archive_faults

BLOCK: Final = 512
COMPRESSIONS: Final = ("gzip", "bzip2", "xz")
MOST_HEADER: Final = 2**20  # bytes of an extended header or a long name
_CHECKSUM: Final = slice(148, 156)
_FILES: Final = (b"0", b"\0", b"7")
_WITHOUT_DATA: Final = {b"1": "hardlink", b"2": "symlink", b"3": "a device", b"4": "a device", b"6": "a named pipe"}
_FOLDER: Final = b"5"
_LONG_NAMES: Final = {b"L": "path", b"K": "linkpath"}  # of GNU
_EXTENDED: Final = (b"x", b"X")
_GLOBAL: Final = b"g"
_SPARSE: Final = b"S"
_CONTINUED: Final = b"M"
_RECORD: Final = re.compile(rb"(\d{1,7}) ([^=\n]+)=")
_KEYS: Final = ("path", "linkpath", "size")


@dataclass(frozen=True)
class _Header:
    """One header block: what it says of the member that follows."""

    name: str
    type: bytes
    size: int
    target: str
    extended: bool


class _Stream:
    """Decompressed bytes in order, with their position, and faults for those that cannot be had."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self._source = source
        self._most = most
        self.position = 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer only at the end."""
        with raise_archive_faults():
            data = self._source.read(count)
        self.position += len(data)
        if self.position > self._most:
            raise ArchiveFaultError(
                f"it unpacks to more than {self._most / 2**20:,.0f} MiB, the limit for an archive of images",
                "If you trust the archive, unpack it yourself and give the folder.",
            )
        return data

    def read_exactly(self, count: int, what: str) -> bytes:
        """`count` bytes of something that is named if they end too early."""
        data = self.read(count)
        if len(data) < count:
            raise ArchiveFaultError(f"it ends at byte {self.position:,}, within {what}: it is cut off")
        return data


def is_tar_header(block: bytes) -> bool:
    """Tell whether some bytes are a header of a tar archive.

    Args:
        block: The first 512 bytes of a file.

    Returns:
        True if the checksum in them is right.
    """
    try:
        return len(block) == BLOCK and any(block) and _verify_checksum(block)
    except ValueError:
        return False


def open_decompressed(path: Path, compression: str) -> IO[bytes]:
    """Open a file and decompress it while it is read.

    Args:
        path: The file.
        compression: One of `COMPRESSIONS`, or empty for none.

    Returns:
        The decompressed bytes, for the caller to close.

    Raises:
        OSError: When the file cannot be opened.
    """
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(path))
    if compression == "bzip2":
        return bz2.open(path)
    return lzma.open(path) if compression == "xz" else path.open("rb")


def iterate_tar(path: Path, compression: str, most: int) -> Iterator[Member]:
    """Iterate over the members of a tar archive, to its end marker.

    Args:
        path: Archive file.
        compression: One of `COMPRESSIONS`, or empty for none.
        most: Most bytes that it may have when it is decompressed.

    Yields:
        The members, in the order of the archive. Content that is not read is skipped.

    Raises:
        ArchiveFaultError: When the archive is damaged or cut off, goes on after its end marker, or is part of one in
            several volumes.
    """
    with raise_archive_faults():
        source = open_decompressed(path, compression)
    with source:
        stream = _Stream(source, most)
        shared: dict[str, str] = {}
        extra: dict[str, str] = {}
        while (header := _read_header(stream)) is not None:
            if header.type in (*_EXTENDED, _GLOBAL):
                found = _read_extended(stream, header.size)
                (shared if header.type == _GLOBAL else extra).update(found)
            elif header.type in _LONG_NAMES:
                extra[_LONG_NAMES[header.type]] = _read_long_name(stream, header.size)
            else:
                yield from _iterate_member(stream, header, {**shared, **extra})
                extra = {}
        if extra:
            raise ArchiveFaultError(f"it ends at byte {stream.position:,}, before the file of its last header")
        _read_to_end(stream)


def _read_header(stream: _Stream) -> _Header | None:
    """The next header, or None at the end marker."""
    start = stream.position
    block = stream.read(BLOCK)
    if not block:
        raise ArchiveFaultError(f"it ends at byte {start:,} without an end marker: it is cut off")
    if len(block) < BLOCK:
        raise ArchiveFaultError(f"it ends at byte {stream.position:,}, within a header: it is cut off")
    if not any(block):
        return None
    try:
        if not _verify_checksum(block):
            raise ValueError("checksum")
        header = _parse_header(block)
    except ValueError as error:
        where = f"the header at byte {start:,}" if start else "its beginning is not that of a tar archive: its header"
        raise ArchiveFaultError(f"{where} is damaged") from error
    while header.type == _SPARSE and header.extended:  # the map of its holes goes on in blocks of its own
        more = stream.read_exactly(BLOCK, f"{header.name!r}")
        header = _Header(header.name, header.type, header.size, header.target, bool(more[504]))
    return header


def _verify_checksum(block: bytes) -> bool:
    """Whether the bytes of a header add up; some writers took them for signed numbers."""
    stored = _parse_number(block[_CHECKSUM])
    rest = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    total = sum(rest)
    return stored in (total, total - 256 * sum(byte > 127 for byte in rest))


def _parse_header(block: bytes) -> _Header:
    name = _decode(_cut_at_nul(block[:100]))
    prefix = _decode(_cut_at_nul(block[345:500])) if block[257:263] == b"ustar\0" else ""
    type = block[156:157]
    size = _parse_number(block[124:136])
    if type in _FILES and name.endswith("/"):  # as Unix V7 wrote folders
        type = _FOLDER
    if type in _WITHOUT_DATA or type == _FOLDER:
        size = 0
    full = f"{prefix}/{name}" if prefix else name
    return _Header(full, type, size, _decode(_cut_at_nul(block[157:257])), bool(block[482]))


def _parse_number(field: bytes) -> int:
    """A number of a header, in octal digits or, where those do not suffice, in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.replace(b"\0", b" ").strip()
    if not re.fullmatch(rb"[0-7]*", text):
        raise ValueError(field)
    return int(text or b"0", 8)


def _cut_at_nul(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _read_extended(stream: _Stream, size: int) -> dict[str, str]:
    """The records of a pax header that matter here, and a mark if the file is sparse."""
    start, data = stream.position, _read_padded(stream, size)
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        record = _RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ArchiveFaultError(f"the extended header at byte {start:,} is damaged")
        key = _decode(record[2])
        if key in _KEYS or key.startswith("GNU.sparse."):
            found[key] = _decode(data[record.end() : end - 1])
        at = end
    if not found.get("size", "0").isdecimal():
        raise ArchiveFaultError(f"the extended header at byte {start:,} is damaged")
    return found


def _read_long_name(stream: _Stream, size: int) -> str:
    return _decode(_cut_at_nul(_read_padded(stream, size)))


def _read_padded(stream: _Stream, size: int) -> bytes:
    if size > MOST_HEADER:
        raise ArchiveFaultError(f"the extended header at byte {stream.position:,} is damaged")
    return stream.read_exactly(size + -size % BLOCK, "an extended header")[:size]


def _iterate_member(stream: _Stream, header: _Header, extra: dict[str, str]) -> Iterator[Member]:
    """The member of a header, if it is one, and then the bytes of its content that nobody has read."""
    if header.type == _CONTINUED:
        raise ArchiveFaultError("it is one of several volumes", "Unpack all volumes with tar -M, and give the folder.")
    name = extra.get("path", header.name)
    has_data = header.type not in _WITHOUT_DATA and header.type != _FOLDER
    size = int(extra.get("size", header.size)) if has_data else 0
    end = stream.position + size + -size % BLOCK
    where = repr(name)

    def read() -> Iterator[bytes]:
        left = size
        while left:
            data = stream.read_exactly(min(left, CHUNK), where)
            left -= len(data)
            yield data

    if header.type != b"V":  # the name of the whole archive
        yield _make_member(name, header, size, extra, read)
    while stream.position < end:
        stream.read_exactly(min(end - stream.position, CHUNK), where)


def _make_member(name: str, header: _Header, size: int, extra: dict[str, str], read: Read) -> Member:
    if header.type == _SPARSE or any(key.startswith("GNU.sparse.") for key in extra):
        return Member(extra.get("GNU.sparse.name", name), "other", target="a sparse file")
    if header.type in _FILES:
        return Member(name, "file", size, read=read)
    if header.type == _FOLDER:
        return Member(name, "folder")
    target = extra.get("linkpath", header.target)
    if header.type == b"1":
        return Member(name, "hardlink", target=target)
    if header.type == b"2":
        return Member(name, "symlink", target=target)
    return Member(name, "other", target=_WITHOUT_DATA.get(header.type, "of an unknown type"))


def _read_to_end(stream: _Stream) -> None:
    """Read what follows the end marker, which has to be zeros, so that the checksums of the compression are seen."""
    while data := stream.read(CHUNK):
        if any(data):
            raise ArchiveFaultError(
                f"it goes on after the end marker before byte {stream.position:,}: "
                "it is damaged, or several archives were joined",
                "Unpack it with tar --ignore-zeros, look at what is there, and give the folder.",
            )
