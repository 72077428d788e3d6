"""Images one after another, wherever they lie: files, folders, patterns, lists and archives, never all at once.

Names come in a fixed order, so that who was interrupted can go on. Of a folder the names of its own entries are held,
of an archive one member.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from budwood.data.archive_members import ArchiveFaultError, Member
from budwood.data.archives import FREE_GROWTH, MOST_GROWTH, is_archive, iterate_members
from budwood.data.file_tree import is_passed_over
from budwood.errors import DataError
from budwood.text import show_unprintable

LIST: Final = "-"  # stands for the list of paths on the standard input
MOST_BYTES: Final = 2**30  # of a member of an archive, which is held in memory
_HEAD: Final = 8192  # bytes of a list, among which a path ends: twice the longest
PATTERN: Final = "*?["
_SUFFIXES: Final = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class StreamedImage:
    """An image that is to be read.

    Attributes:
        name: Its path; of a member of an archive, the archive's path and its own.
        content: The path of a file, or the bytes of a member.
        problem: Why a member cannot be read; empty if it can.
    """

    name: str
    content: Path | bytes
    problem: str = ""


def stream_images(
    sources: Iterable[str | Path], listed: BinaryIO | None = None, passed_over: Callable[[Path], bool] = lambda _: False
) -> Iterator[StreamedImage]:
    """Find images one after another.

    Args:
        sources: Files, folders, archives, patterns such as `photos/**/*.jpg`, and `-` for the paths in `listed`.
            What is hidden in a folder or archive is passed over, as in training.
        listed: Paths, one a line, or ended by NUL characters where it holds any.
        passed_over: Tells which files in folders are none of the images, such as those that this command writes.

    Yields:
        The images: those of each source in the order of their names, of an archive in its own.

    Raises:
        DataError: A path does not exist, nothing matches a pattern, or an archive is damaged.
    """
    for source in sources:
        if str(source) == LIST and listed is not None:
            for path in _read_list(listed):
                yield from _stream_listed(path, passed_over)
        else:
            yield from _stream_source(Path(source), passed_over)


def _stream_source(path: Path, passed_over: Callable[[Path], bool]) -> Iterator[StreamedImage]:
    if path.is_dir():
        yield from _stream_folder(path, passed_over)
    elif path.is_file() and is_archive(path):
        yield from _stream_archive(path)
    elif path.exists() or path.is_symlink():
        yield StreamedImage(str(path), path)
    elif any(letter in str(path) for letter in PATTERN):
        yield from _stream_matches(path, passed_over)
    else:
        raise DataError(f"{path}: no such file or folder.", "Check the path, and quote it if it contains spaces.")


def _stream_listed(path: Path, passed_over: Callable[[Path], bool]) -> Iterator[StreamedImage]:
    """What a line of a list names; a file that is missing is one image that cannot be read, as others follow."""
    if path.is_dir():
        yield from _stream_folder(path, passed_over)
    elif path.name.lower().endswith(_SUFFIXES) and path.is_file() and is_archive(path):
        yield from _stream_archive(path)
    else:
        yield StreamedImage(str(path), path)


def _stream_folder(folder: Path, passed_over: Callable[[Path], bool]) -> Iterator[StreamedImage]:
    """The files below a folder by their paths; links are followed, each folder once."""
    visited: set[str] = set()
    pending = [iter([folder.name])]
    parents = [folder.parent]
    while pending:
        name = next(pending[-1], None)
        if name is None:
            pending.pop(), parents.pop()
            continue
        path = folder if len(pending) == 1 else parents[-1] / name
        is_folder = path.is_dir()
        if len(pending) > 1 and is_passed_over(name, is_folder):
            continue
        if not is_folder:
            if not passed_over(path):
                yield StreamedImage(str(path), path)
        elif (place := os.path.realpath(path)) not in visited:
            visited.add(place)
            pending.append(iter(sorted(os.listdir(path))))  # noqa: PTH208 - names take a tenth of the room of paths
            parents.append(path)


def _stream_matches(pattern: Path, passed_over: Callable[[Path], bool]) -> Iterator[StreamedImage]:
    found = sorted(glob.iglob(str(pattern), recursive=True))  # noqa: PTH207 - pathlib finds what is hidden, too
    if not found:
        raise DataError(f"{pattern}: no file matches this pattern.", "Check the path and the pattern.")
    for match in map(Path, found):
        if not match.is_dir():
            yield StreamedImage(str(match), match)
        elif "**" not in str(pattern):  # whose folders are matched beside all that is in them
            yield from _stream_folder(match, passed_over)


def _read_list(stream: BinaryIO) -> Iterator[Path]:
    """The paths of a list as they come."""
    head = stream.read(_HEAD)
    end = b"\0" if b"\0" in head else b"\n"
    rest = head
    while rest:
        *whole, rest = rest.split(end)
        yield from map(_decode_path, filter(None, (line if end == b"\0" else line.rstrip(b"\r") for line in whole)))
        more = stream.read(_HEAD)
        if not more:
            break
        rest += more
    if last := rest.rstrip(b"\r\n\0"):
        yield _decode_path(last)


def _decode_path(line: bytes) -> Path:
    return Path(os.fsdecode(line))


def _stream_archive(archive: Path) -> Iterator[StreamedImage]:
    try:
        for member in iterate_members(archive, archive.stat().st_size * MOST_GROWTH + FREE_GROWTH):
            path = PurePosixPath(member.name.replace("\\", "/"))
            hidden = any(is_passed_over(part, part is not path.name) for part in path.parts)
            if member.kind != "folder" and not hidden:
                yield _read_member(archive, member)
    except ArchiveFaultError as fault:
        raise DataError(
            f"{archive}: the archive cannot be read further ({show_unprintable(fault.reason)}).", fault.hint
        ) from fault


def _read_member(archive: Path, member: Member) -> StreamedImage:
    name = f"{archive}/{member.name}"
    if member.kind != "file":
        return StreamedImage(name, b"", f"unreadable: a {member.kind} in an archive, no file")
    if member.size > MOST_BYTES:
        return StreamedImage(name, b"", f"too large: {member.size:,} bytes in an archive, more than {MOST_BYTES:,}")
    return StreamedImage(name, b"".join(member.read()))
