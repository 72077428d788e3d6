"""The members of an archive as files in a folder: none outside of it, and what cannot be taken is listed."""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from budwood.data.archive_members import ArchiveFaultError, Member
from budwood.errors import StorageError

MOST_FILES: Final = 5_000_000
MOST_HOPS: Final = 40  # links that a path may go through, as in Linux
ARCHIVES: Final = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
RESERVED: Final = ".budwood"  # first folder of paths that the cache keeps for itself
_REFUSED_NAME: Final = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_UNPACK: Final = "If you trust the archive, unpack it yourself and give the folder."


@dataclass(frozen=True)
class Limits:
    """What unpacking may take.

    Attributes:
        bytes: Most bytes of all files; more is taken for a decompression bomb.
        free: Bytes that are free on the disk.
    """

    bytes: int
    free: int


@dataclass(frozen=True)
class Unpacked:
    """What became of the members of an archive.

    Attributes:
        files: Size in bytes of each file, by its path in the folder.
        links: Path that each link to a folder names, relative to the link, by the link's path.
        skipped: Members that are not used, each with the reason, a clause.
    """

    files: Mapping[str, int]
    links: Mapping[str, str]
    skipped: tuple[tuple[str, str], ...]


@dataclass
class _State:
    """What is unpacked so far."""

    folder: Path
    limits: Limits
    ignores_case: bool
    written: int = 0
    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})
    folded: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Member] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """List a member that is not used, in a form that can be printed and written as UTF-8."""
        self.skipped.append((name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0"), reason))


def unpack(members: Iterable[Member], folder: Path, limits: Limits) -> Unpacked:
    """Write the members of an archive into a folder.

    Files are written, and links to members of the archive are followed: a link to a file becomes a file, one to a
    folder a link to it. Of members with one name the last one counts. Devices, links that lead elsewhere, names that
    the disk does not take and archives are not unpacked, but listed.

    Args:
        members: The members, in the order of the archive.
        folder: Empty folder that receives them.
        limits: How much may be written.

    Returns:
        The files, and the members that are not used.

    Raises:
        ArchiveFaultError: When a path leaves the folder, when the limits are exceeded, when there is no file, or when
            a member cannot be read.
        StorageError: When the files need more space than is free.
        OSError: When a file cannot be written.
    """
    state = _State(folder, limits, _ignores_case(folder))
    for count, member in enumerate(members, 1):
        if count > MOST_FILES:
            raise _make_limit_fault(limits)
        _take(member, state)
    for name, member in state.pending.items():
        _place_link(name, member, state)
    if not state.files:
        raise _make_empty_fault(state.skipped)
    return Unpacked(state.files, state.links, tuple(state.skipped))


def _ignores_case(folder: Path) -> bool:
    """Whether the disk takes names that differ in case only for the same."""
    probe = folder / ".budwood-case"
    probe.touch()
    try:
        return probe.with_name(".BUDWOOD-CASE").exists()
    finally:
        probe.unlink()


def _make_limit_fault(limits: Limits) -> ArchiveFaultError:
    return ArchiveFaultError(
        f"it unpacks to more than {limits.bytes / 2**20:,.0f} MiB or {MOST_FILES:,} files, "
        "the limit for an archive of images",
        _UNPACK,
    )


def _make_empty_fault(skipped: list[tuple[str, str]]) -> ArchiveFaultError:
    if not skipped:
        return ArchiveFaultError("it has no files in it", "Pack the folder of class folders, and give that archive.")
    name, reason = skipped[0]
    return ArchiveFaultError(f"it has no file that can be used: {name!r} {reason}", _UNPACK)


def _spend(count: int, state: _State) -> None:
    """Count bytes that are about to be written."""
    state.written += count
    if state.written > state.limits.bytes:
        raise _make_limit_fault(state.limits)
    if state.written > state.limits.free:
        raise StorageError(
            f"{state.folder.parent}: an archive unpacks to more than the {state.limits.free / 2**20:,.0f} MiB "
            "that are free on the disk.",
            "Free some space, or move the cache with BUDWOOD_CACHE=/other/disk.",
        )


def _take(member: Member, state: _State) -> None:
    """Write a file, remember a link for later, or list what is neither."""
    if member.kind == "folder" or _is_clutter(member.name):
        return None
    if "\0" in member.name:
        return state.skip(member.name, "has a NUL character in its name")
    if member.kind == "other":
        return state.skip(member.name, f"is {member.target}")
    path = _check_path(member.name)
    name = path.as_posix()
    if path.parts[0].startswith(RESERVED):
        return state.skip(member.name, "has a name that Budwood keeps for itself")
    if path.suffix.lower() in ARCHIVES:
        return state.skip(member.name, "is an archive inside the archive")
    if path.suffix.lower() in IMAGES and any(part.startswith(".") for part in path.parts):
        state.skip(member.name, "is hidden, as its name begins with a dot")
    if name in state.files or name in state.pending:
        state.skip(member.name, "comes more than once; the last one is used")
        state.pending.pop(name, None)
        if state.files.pop(name, None) is not None:
            (state.folder / path).unlink()
    if member.kind == "file":
        return _write_file(path, member, state)
    state.pending[name] = member
    return None


def _is_clutter(name: str) -> bool:
    """Whether macOS has added a member: what it keeps beside each file, no file of the user's."""
    parts = name.split("/")
    return "__MACOSX" in parts[:-1] or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


def _check_path(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]) or not path.parts:
        raise ArchiveFaultError(
            f"it contains the path {name!r}, which is outside the folder to unpack to",
            "Do not use this archive; ask for one with plain relative paths.",
        )
    return path


def _write_file(path: PurePosixPath, member: Member, state: _State) -> None:
    reason = _find_conflict(path, member, state)
    if reason:
        return state.skip(member.name, reason)
    if path.as_posix() in state.folders:  # an empty file of that name, which marks the folder
        return None
    _spend(member.size, state)
    target = state.folder / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno not in _REFUSED_NAME:
            raise
        return state.skip(member.name, "has a name that this disk does not take, such as one of over 255 bytes")
    with out:
        for chunk in member.read():
            out.write(chunk)
    state.files[path.as_posix()] = member.size
    state.folders.update(parent.as_posix() for parent in path.parents if parent.parts)
    return None


def _find_conflict(path: PurePosixPath, member: Member, state: _State) -> str:
    """Why a file cannot be written beside those that are there, or an empty text."""
    for parent in path.parents:
        name = parent.as_posix() if parent.parts else ""
        if name in state.links:
            return f"is in {name!r}, which is a link"
        if name in state.folders:
            break
        if name in state.files:
            if state.files[name]:
                return f"is in {name!r}, which is a file"
            (state.folder / parent).unlink()  # an empty file that marks the folder
            del state.files[name]
    if path.as_posix() in state.folders and member.size:
        return "has the name of a folder"
    if state.ignores_case:
        first = state.folded.setdefault(path.as_posix().casefold(), path.as_posix())
        if first != path.as_posix():
            return f"differs only in case from {first!r}, and this disk takes them for the same"
    return ""


def _place_link(name: str, member: Member, state: _State) -> None:
    """Make what a link names: the file itself, or a link to a folder, which cannot lead outside."""
    path = PurePosixPath(name)
    target = None
    if not member.target.startswith("/"):
        start = f"{path.parent}/" if member.kind == "symlink" else ""
        target = _resolve(start + member.target, state.pending)
    if target is None:
        return state.skip(member.name, f"is a link to {member.target!r}, outside the archive")
    if target not in state.files and target not in state.folders:
        return state.skip(member.name, f"is a link to {member.target!r}, which is not in the archive")
    if target in state.folders and member.kind == "hardlink":
        return state.skip(member.name, f"is a hard link to the folder {member.target!r}")
    reason = _find_conflict(path, member, state)
    if reason or name in state.folders:
        return state.skip(member.name, reason or "has the name of a folder")
    place = state.folder / path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if target in state.files:
            _spend(state.files[target], state)
            _link_or_copy(state.folder / target, place)
            state.files[name] = state.files[target]
            state.folders.update(parent.as_posix() for parent in path.parents if parent.parts)
        else:
            relative = os.path.relpath(state.folder / target, place.parent)
            place.symlink_to(relative, target_is_directory=True)
            state.links[name] = relative
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        return state.skip(member.name, "is a link that cannot be made on this disk")
    return None


def _link_or_copy(source: Path, place: Path) -> None:
    with suppress(OSError):
        return os.link(source, place)
    shutil.copyfile(source, place)
    return None


def _resolve(target: str, links: Mapping[str, Member]) -> str | None:
    """The path in the archive that a link leads to, through other links; None if it leads outside or in a circle."""
    here: list[str] = []
    pending, hops = deque([target]), MOST_HOPS
    while pending:
        text = pending.popleft()
        if text.startswith("/") or "\0" in text:
            return None
        part, _, rest = text.partition("/")
        rest = rest.lstrip("/")
        if rest:
            pending.appendleft(rest)
        if part == "..":
            if not here:
                return None
            here.pop()
        elif part not in ("", "."):
            here.append(part)
            link = links.get("/".join(here))
            if link is not None:
                hops -= 1
                if hops < 0:
                    return None
                here = here[:-1] if link.kind == "symlink" else []
                pending.appendleft(link.target)
    return "/".join(here)
