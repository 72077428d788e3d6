"""Which image trains, which validates, which is sealed: by content, so that adding files moves no old one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def assign_splits(
    ids: Sequence[str],
    labels: NDArray[np.int32],
    groups: Sequence[str],
    cluster: NDArray[np.int64],
    given: NDArray[np.int8],
    *,
    val: float,
    test: float,
) -> NDArray[np.int8]:
    """The split of each row, int8 [n]: as `given` where that is not -1, else by content.

    `test` is the share of all rows that becomes the test split and `val` the share of the rest that validates; 0 makes
    none of it, for splits that are given. Rows of a given train split may become either.

    Every cluster gets a number in [0, 1) from its group's name or its smallest id; below `test` it is test, below
    `test + (1 - test) * val` it is validation. So a file's split depends on nothing but its own cluster, and adding
    files moves no old one, at the price of shares that are exact only on average. A class that chance leaves
    without an image in some split, though it has enough clusters, gets the nearest one.
    """
    val_below = test + (1 - test) * val
    place = _places(ids, groups, cluster)
    free = (given < 0) | ((given == 0) & (val_below > 0))
    drawn = np.where(place < test, 2, np.where(place < val_below, 1, 0)).astype(np.int8)
    drawn = _filled(drawn, labels, cluster, place, free, test=test > 0, val=val > 0)
    return _follow_given(np.where(free, drawn, given).astype(np.int8), cluster, given)


def _follow_given(split: NDArray[np.int8], cluster: NDArray[np.int64], given: NDArray[np.int8]) -> NDArray[np.int8]:
    """Rows without a given split, and rows drawn for validation, stay beside their cluster's given val or test."""
    fixed = np.flatnonzero(given > 0)
    held = dict(zip(cluster[fixed].tolist(), given[fixed].tolist(), strict=True))
    follow = [row for row in np.flatnonzero(given < 0).tolist() if int(cluster[row]) in held]
    result = split.copy()
    result[follow] = [held[int(cluster[row])] for row in follow]
    return result


def _filled(
    drawn: NDArray[np.int8],
    labels: NDArray[np.int32],
    cluster: NDArray[np.int64],
    place: NDArray[np.float64],
    free: NDArray[np.bool_],
    *,
    test: bool,
    val: bool,
) -> NDArray[np.int8]:
    wanted = [*([2] if test else []), *([1] if val else []), 0]  # in the order of their places
    result = drawn.copy()
    for label in np.unique(labels[free]):
        rows = np.flatnonzero(free & (labels == label))
        by_place = rows[np.argsort(place[rows], kind="stable")]
        _, first = np.unique(cluster[by_place], return_index=True)
        members = by_place[np.sort(first)]  # one row of each cluster
        sizes = [int(np.sum(result[members] == split)) for split in wanted]
        if min(sizes) > 0 or len(members) < len(wanted):
            continue
        while 0 in sizes:
            sizes[sizes.index(0)] += 1
            sizes[sizes.index(max(sizes))] -= 1
        for name, split in zip(cluster[members].tolist(), np.repeat(wanted, sizes).tolist(), strict=True):
            result[free & (cluster == name)] = split
    return result


def _places(ids: Sequence[str], groups: Sequence[str], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, from the first of its cluster's keys: group names before ids."""
    keys = [f"group {group}" if group else id for id, group in zip(ids, groups, strict=True)]
    rank = np.asarray(pc.rank(pa.array(keys, pa.string()), tiebreaker="dense").to_numpy())
    named = np.fromiter((not group for group in groups), bool, len(keys))
    order = np.lexsort((rank, named, cluster))
    first = np.ones(len(order), bool)
    first[1:] = cluster[order][1:] != cluster[order][:-1]
    heads = order[first]
    hashes = b"".join(hashlib.blake2b(keys[row].encode(), digest_size=8).digest() for row in heads.tolist())
    numbers = np.frombuffer(hashes, ">u8") / 2.0**64
    return np.asarray(numbers[np.searchsorted(cluster[heads], cluster)], np.float64)
