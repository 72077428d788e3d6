"""How much the cache holds, and its limit: when it is reached, what was used least recently goes first.

Decoded pixels, features of frozen layers and unpacked archives are limited; the rest is small, or was downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.errors import StorageError
from budwood.storage.context import Context
from budwood.storage.folder_manifest import MANIFEST, read_total

LIMIT: Final = 20 * 2**30  # bytes, unless $BUDWOOD_CACHE_LIMIT says otherwise
KINDS: Final = {
    "pixels": "images decoded to the size that a network needs",
    "outputs": "features of frozen layers",
    "networks": "networks exported to ONNX",
    "facts": "properties of image files",
    "plans": "network plans of recipes",
    "archives": "unpacked archives",
    "sources": "downloaded data sets",
    "weights": "downloaded weights",
}
SHARDED: Final = ("pixels", "outputs")
ARCHIVES: Final = "archives"
LIMITED: Final = (*SHARDED, ARCHIVES)
DOWNLOADS: Final = ("sources", "weights")
OLD: Final = 3600.0  # seconds after which what no process has finished is taken for abandoned
IN_USE: Final = 7 * 86400.0  # seconds after its last use until an unpacked archive may be removed
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?) *([kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True)
class CacheUsage:
    """Space that one kind of content takes in the cache.

    Attributes:
        kind: Name of the kind, a key of `KINDS`.
        bytes: Total size in bytes.
        files: Number of files.
        used: Time of last use in seconds since 1970; 0 if there is nothing.
    """

    kind: str
    bytes: int
    files: int
    used: float


@dataclass(frozen=True)
class _Shard:
    """The files of one shard, or what was left of one, or an archive's folder, and when it was last used."""

    files: tuple[Path, ...]
    bytes: int
    used: float


def limit() -> int:
    """Return the most bytes that decoded pixels, outputs of frozen layers and archives may take in the cache.

    The limit is 20 GiB unless `$BUDWOOD_CACHE_LIMIT` gives another amount, such as `20GB` or `500MB`; all units are
    powers of 1,024.

    Returns:
        The limit in bytes.

    Raises:
        StorageError: When `$BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    text = os.environ.get("BUDWOOD_CACHE_LIMIT")
    if not text:
        return LIMIT
    amount = _AMOUNT.fullmatch(text.strip())
    if not amount:
        raise StorageError(f"BUDWOOD_CACHE_LIMIT: {text!r} is not a size.", "Use for example 20GB or 500MB.")
    return int(float(amount[1]) * 1024 ** " kmgt".index(amount[2].lower() or " "))


def measure_cache(cache: Path) -> list[CacheUsage]:
    """Measure how much space each kind of content takes in the cache.

    Args:
        cache: The cache folder.

    Returns:
        One entry for each kind in `KINDS`, in that order, also for those without files.
    """
    return [_measure_kind(kind, cache / kind) for kind in KINDS]


def evict_for(needed: int, promised: int, label: str, context: Context) -> bool:
    """Make room in the cache for a number of bytes and return whether they may be written.

    Where the limit would be exceeded, the least recently used shards of pixels and outputs and unpacked archives are
    removed, and a note says so; an archive that was used in the last week stays, and such archives count for half of
    the limit at most. Nothing is removed, and a note gives the reason, when the new bytes cannot be kept: when
    `needed` and `promised` together exceed the limit or take half or more of the free disk space.

    Args:
        needed: Bytes that are about to be written.
        promised: Bytes that others are going to write beside them and that are not on disk yet.
        label: Name of the content for the note, in the plural.
        context: The cache folder, which may not exist yet, and where the notes go.

    Returns:
        True if `needed` bytes may be written; always True for 0.

    Raises:
        StorageError: When `$BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    if needed == 0:
        return True
    cache, allowed = context.cache, limit()
    place = next(parent for parent in (cache, *cache.parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed + promised > allowed or needed + promised >= free // 2:
        room = f"the cache limit is {format_gib(allowed)}, and {format_gib(free)} of the disk is free"
        context.progress.note(f"{label} are not kept in the cache {cache}: they need {format_gib(needed)}; {room}.")
        return False
    _remove_oldest(needed + promised, allowed, context)
    return True


def trim(context: Context) -> None:
    """Remove what was used least recently until the cache is within its limit, with a note.

    Args:
        context: The cache folder, which may not exist yet, and where the note goes.

    Raises:
        StorageError: When `$BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    _remove_oldest(0, limit(), context)


def _remove_oldest(coming: int, most: int, context: Context) -> None:
    archives = list(_iterate_archives(context.cache))
    idle = [one for one in archives if abs(time.time() - one.used) > IN_USE]  # also if the clock was set back
    held = min(sum(one.bytes for one in archives) - sum(one.bytes for one in idle), most // 2)
    shards = sorted([*_iterate_shards(context.cache), *idle], key=lambda shard: shard.used)
    over = sum(shard.bytes for shard in shards) + held + coming - most
    removed = 0
    for shard in shards:
        if removed >= over:
            break
        for file in shard.files:
            with suppress(PermissionError):  # another process has it open, on Windows
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink(missing_ok=True)
        removed += shard.bytes
    if removed:
        context.progress.note(f"The cache was full: the least recently used {format_gib(removed)} were removed.")


def clear(cache: Path) -> int:
    """Remove everything from the cache that can be computed again.

    Downloads are kept.

    Args:
        cache: The cache folder.

    Returns:
        The number of bytes that the removed kinds took.
    """
    kinds = [kind for kind in KINDS if kind not in DOWNLOADS]
    removed = sum(_measure_kind(kind, cache / kind).bytes for kind in kinds)
    for kind in kinds:
        shutil.rmtree(cache / kind, ignore_errors=True)
    return removed


def _measure_kind(kind: str, folder: Path) -> CacheUsage:
    stats = [file.lstat() for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    used = max((stat.st_mtime for stat in stats), default=0.0)
    return CacheUsage(kind, sum(stat.st_size for stat in stats), len(stats), used)


def _iterate_shards(cache: Path) -> Iterator[_Shard]:
    """Every shard, the file that commits it first, so that a kill leaves no shard that is half there."""
    for kind in SHARDED:
        for store in (cache / kind).glob("*"):
            markers = {file.name.removesuffix(".ids.npy"): file for file in store.glob("*.ids.npy")}
            for file in store.glob("*"):
                if file.name.endswith(".ids.npy"):
                    continue
                marker = markers.get(file.name.removesuffix(".npy"))
                files = (marker, file) if marker else (file,)
                try:
                    used, size = files[0].stat().st_mtime, sum(part.stat().st_size for part in files)
                except FileNotFoundError:  # another process removed it
                    continue
                since = time.time() - used
                if marker or abs(since) > OLD:  # as one of the future is where the clock was set back
                    yield _Shard(files, size, used if marker and since > -OLD else 0.0)


def _iterate_archives(cache: Path) -> Iterator[_Shard]:
    """Every unpacked archive, its list of files first, so that a kill leaves no folder that counts as whole."""
    for folder in (cache / ARCHIVES).glob("[!.]*"):
        manifest = folder / MANIFEST
        total = read_total(folder)
        try:
            used = (folder if total is None else manifest).stat().st_mtime
        except FileNotFoundError:  # another process removed it
            continue
        size = _measure_kind(ARCHIVES, folder).bytes if total is None else total
        yield _Shard((manifest, folder), size, used)


def format_gib(count: int) -> str:
    """Write a number of bytes in GiB, or in MiB below half a GiB.

    Args:
        count: Number of bytes.

    Returns:
        The amount with one decimal and its unit.
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
