"""Which files of a data set are copies of each other: found once for the same contents, and trusted within reason.

Many images that look the same but have different labels are rather one view of a fixed camera, whose differences are
too small to be seen in a thumbnail, than copies with wrong labels, so they are not taken for copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.data.copy_candidates import Pairs
from budwood.data.duplicates import find_near_pairs, label_components, link_equal_values
from budwood.data.images import ImageMetadata
from budwood.errors import StorageError
from budwood.progress import Progress
from budwood.storage.atomic import encode_parquet, raise_storage_errors, read_parquet
from budwood.storage.checked_files import read_checked_bytes, write_checked_bytes
from budwood.storage.context import Context

REACH: Final = (
    "Measured on photographs of scenes, this check finds at least 97 % of the copies that are resized, compressed, "
    "mirrored, turned by 90 degrees, cropped by up to 5 % on each side, or changed in brightness or contrast; it "
    "misses many that are cropped by more or turned by other angles. Where most images show one view or things of one "
    "build, it also misses many that are cropped, written on, or changed in brightness."
)
LARGE: Final = 10  # near copies above which a group is distrusted if its labels differ
AGREEING: Final = 0.9  # share of a large group that has the same label, if it is trusted
_VERSION: Final = 2  # of how near copies are found; another number forgets what was remembered


@dataclass(frozen=True)
class CopyGroups:
    """Files that are copies of each other.

    Attributes:
        look: Equal for exact and near copies, int64 [n].
        distrusted: Rows of each group that was not taken for copies, as it is large and has different labels.
    """

    look: NDArray[np.int64]
    distrusted: tuple[tuple[int, ...], ...]


def group_copies(
    content: NDArray[np.int32],
    facts: Sequence[ImageMetadata],
    labels: NDArray[np.int32],
    context: Context,
) -> CopyGroups:
    """Group exact and near copies.

    Args:
        content: A number for each row, equal where the contents are equal, int32 [n].
        facts: Metadata of each row.
        labels: Label of each row, int32 [n].
        context: The cache folder, where near copies are remembered, and where steps go, and a note if they cannot be.

    Returns:
        The groups.
    """
    near = _find_near_copies(facts, context)
    exact = link_equal_values(content)
    look = label_components(len(facts), np.concatenate([exact, near]))
    distrusted = _find_distrusted(look, content, labels)
    if not distrusted:
        return CopyGroups(look, ())
    kept = near[~np.isin(near[:, 0], np.concatenate(distrusted))]
    groups = tuple(tuple(rows.tolist()) for rows in distrusted)
    return CopyGroups(label_components(len(facts), np.concatenate([exact, kept])), groups)


def _find_near_copies(facts: Sequence[ImageMetadata], context: Context) -> Pairs:
    """Pairs of rows of different content that show the same picture, whatever the order and names of the files."""
    first = {fact.id: row for row, fact in reversed(list(enumerate(facts)))}
    rows = np.array([first[id] for id in sorted(first)], np.int64)
    key = hashlib.blake2b(f"{_VERSION} {' '.join(sorted(first))}".encode(), digest_size=12).hexdigest()
    store = context.cache / "facts" / f"copies-{key}.parquet"
    pairs = _read_pairs(store, len(rows))
    if pairs is None:
        pairs = find_near_pairs([facts[row].thumb for row in rows.tolist()], context.progress)
        _write_pairs(store, pairs, context.progress)
    return rows[pairs]


def _read_pairs(store: Path, count: int) -> Pairs | None:
    content = read_checked_bytes(store)
    if content is None:
        return None
    try:
        table = read_parquet(content)
        pairs = np.stack([table["first"].to_numpy(), table["second"].to_numpy()], axis=1).astype(np.int64)
    except (pa.ArrowException, KeyError, ValueError):  # another version's
        return None
    return pairs if pairs.min(initial=0) >= 0 and pairs.max(initial=0) < count else None


def _write_pairs(store: Path, pairs: Pairs, progress: Progress) -> None:
    table = pa.table({"first": pairs[:, 0], "second": pairs[:, 1]})
    try:
        with raise_storage_errors(store):
            write_checked_bytes(store, encode_parquet(table))
    except StorageError as error:
        progress.note(f"The near copies that were found could not be saved in the cache: {error}")


def _find_distrusted(
    look: NDArray[np.int64], content: NDArray[np.int32], labels: NDArray[np.int32]
) -> list[NDArray[np.int64]]:
    """Rows of each group of many different contents in which no label has nearly all."""
    order = np.argsort(look, kind="stable")
    cuts = np.flatnonzero(np.diff(look[order])) + 1
    distrusted = []
    for rows in np.split(order, cuts):
        if len(rows) > LARGE and len(np.unique(content[rows])) > LARGE:
            _, counts = np.unique(labels[rows], return_counts=True)
            if counts.max() < AGREEING * len(rows):
                distrusted.append(np.sort(rows))
    return distrusted
