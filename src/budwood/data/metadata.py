"""What decoding each file tells, remembered: a file that has not changed since is not read again."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa

from budwood.data.images import (
    BadImage,
    ImageMetadata,
    compute_content_id,
    decode,
    read_bytes,
    read_image_metadata,
)
from budwood.data.listing import Listing
from budwood.data.value_range import StoredValues, ValueRange
from budwood.errors import StorageError
from budwood.hardware import count_processors
from budwood.progress import Progress
from budwood.storage.atomic import encode_parquet, raise_storage_errors, read_parquet
from budwood.storage.checked_files import read_checked_bytes, write_checked_bytes
from budwood.storage.context import Context

_Read = TypeVar("_Read")

_VERSION: Final = 3  # of what is told of a file; another number forgets what was remembered
_SETTLED: Final = 2_000_000_000  # ns: a file changed more recently than this may change again unseen
_FACTS: Final = pa.schema(
    [
        ("path", pa.string()),
        ("stat", pa.string()),
        ("id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("notes", pa.string()),
        ("thumb", pa.binary()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("floating", pa.bool_()),
        ("problem", pa.string()),
        ("detail", pa.string()),
    ]
)


def read_metadata(listing: Listing, context: Context) -> list[ImageMetadata | BadImage]:
    """Read the metadata of listed files, and remember them in the cache.

    Files that have not changed since an earlier scan are not read again.

    Args:
        listing: The labelled files.
        context: The cache folder, and where steps go, and a note if the metadata cannot be stored.

    Returns:
        The metadata of each file, or the problem with it, in the order of `listing`.
    """
    store = _metadata_file(listing.root, context.cache)
    stats, facts, new = _look_up(store, listing.root, listing.paths, context.progress)
    if new:
        _write_store(store, listing.paths, stats, facts, context.progress)
    return facts


def read_cached_metadata(root: Path, paths: Sequence[str], context: Context) -> list[ImageMetadata | BadImage]:
    """Read the metadata of some files of a scanned folder, from the cache where they are there.

    Other files are decoded again; nothing new is stored.

    Args:
        root: Folder that the paths are relative to.
        paths: Paths of the files.
        context: The cache folder, and where steps go.

    Returns:
        The metadata of each file, or the problem with it, in the order of `paths`.
    """
    return _look_up(_metadata_file(root, context.cache), root, paths, context.progress)[1]


def _metadata_file(root: Path, cache: Path) -> Path:
    """Where the facts of a folder's files are remembered."""
    place = hashlib.blake2b(f"{_VERSION} {root.resolve()}".encode(), digest_size=12).hexdigest()
    return cache / "facts" / f"{place}.parquet"


def _look_up(
    store: Path, root: Path, paths: Sequence[str], progress: Progress
) -> tuple[list[str], list[ImageMetadata | BadImage], list[int]]:
    """What changes with each file, what decoding it tells, and the rows of files that had to be read."""
    stored = _read_store(store)
    stats = [_stat_file(root / path) for path in paths]
    facts = [stored.get((path, stat)) for path, stat in zip(paths, stats, strict=True)]
    new = [row for row, fact in enumerate(facts) if fact is None]
    for row, fact in zip(
        new, _read_all([root / paths[row] for row in new], read_image_metadata, progress), strict=True
    ):
        facts[row] = fact
    return stats, [fact for fact in facts if fact is not None], new


def compute_content_ids(
    paths: Sequence[Path], progress: Progress, scale: ValueRange | None = None
) -> list[str | BadImage]:
    """Compute the content id of each file, decoding it whole; nothing is stored.

    Args:
        paths: The files.
        progress: Receives steps.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        The content id of each file, or the problem with it, in the order of `paths`.
    """

    def compute_id(path: Path) -> str:
        data = read_bytes(path)
        decode(data, scale)
        return compute_content_id(data)

    return _read_all(paths, compute_id, progress)


def _read_all(paths: Sequence[Path], read: Callable[[Path], _Read], progress: Progress) -> list[_Read | BadImage]:
    if not paths:
        return []

    def read_one(path: Path) -> _Read | BadImage:
        try:
            return read(path)
        except BadImage as problem:
            return problem

    results = []
    with warnings.catch_warnings(), ThreadPoolExecutor(count_processors()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; both become findings
        with progress.bar("Reading images", len(paths)) as step:
            try:
                for result in pool.map(read_one, paths, chunksize=1):
                    results.append(result)
                    step(1)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    return results


def _stat_file(path: Path) -> str:
    """What changes whenever a file's content does; empty when it cannot be told."""
    try:
        facts = path.stat()
    except OSError:
        return ""
    if time.time_ns() - max(facts.st_mtime_ns, facts.st_ctime_ns) < _SETTLED:
        return ""
    return f"{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}:{facts.st_ino}"


def _read_store(store: Path) -> dict[tuple[str, str], ImageMetadata | BadImage]:
    content = read_checked_bytes(store)
    if content is None:
        return {}
    try:
        rows = read_parquet(content).select(_FACTS.names).to_pydict()
    except (pa.ArrowException, KeyError):  # another version's
        return {}
    names = [field.name for field in _FACTS]
    return {(row[0], row[1]): _make_metadata(*row[2:]) for row in zip(*(rows[name] for name in names), strict=True)}


def _make_metadata(
    id: str,
    width: int,
    height: int,
    mode: str,
    notes: str,
    thumb: bytes,
    low: float | None,
    high: float | None,
    floating: bool | None,
    problem: str,
    detail: str,
) -> ImageMetadata | BadImage:
    if problem:
        return BadImage(problem, detail)  # type: ignore[arg-type]
    values = None if low is None or high is None else StoredValues(low, high, bool(floating))
    return ImageMetadata(id, width, height, mode, tuple(notes.split(",")) if notes else (), thumb, values)


def _list_facts(fact: ImageMetadata | BadImage) -> tuple[object, ...]:
    """The columns of `_FACTS` from the id on."""
    if isinstance(fact, BadImage):
        return "", 0, 0, "", "", b"", None, None, None, fact.problem, fact.detail
    values = (fact.values.low, fact.values.high, fact.values.floating) if fact.values else (None, None, None)
    return fact.id, fact.width, fact.height, fact.mode, ",".join(fact.notes), fact.thumb, *values, "", ""


def _write_store(
    store: Path,
    paths: Sequence[str],
    stats: Sequence[str],
    facts: Sequence[ImageMetadata | BadImage],
    progress: Progress,
) -> None:
    rows = [
        (path, stat, *_list_facts(fact))
        for path, stat, fact in zip(paths, stats, facts, strict=True)
        if stat and not (isinstance(fact, BadImage) and _may_pass(fact))
    ]
    table = pa.Table.from_pylist([dict(zip(_FACTS.names, row, strict=True)) for row in rows], schema=_FACTS)
    try:
        with raise_storage_errors(store):
            write_checked_bytes(store, encode_parquet(table))
    except StorageError as error:
        progress.note(f"The results of the scan could not be saved in the cache: {error}")


def _may_pass(problem: BadImage) -> bool:
    """Whether a file may be read the next time although it has not changed: when a disk or a package is there."""
    return problem.problem == "unreadable" or "install" in problem.detail
