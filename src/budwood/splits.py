"""Which image trains, which validates, which is sealed: by content, so that adding files moves no old one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from budwood.listing import SPLITS


def assign_splits(
    ids: NDArray[np.str_],
    labels: NDArray[np.int32],
    groups: NDArray[np.str_],
    cluster: NDArray[np.int64],
    given: NDArray[np.int8],
    *,
    val: float,
    test: float,
) -> NDArray[np.int8]:
    """The split of each row, int8 [n]: as `given` where that is not -1, else by content.

    Every cluster gets a number in [0, 1) from its group's name or its smallest id; below `test` it is test, below
    `test + (1 - test) * val` it is validation. So a file's split depends on nothing but its own cluster, and adding
    files moves no old one, at the price of shares that are exact only on average. A class that chance leaves
    without an image in some split, though it has enough clusters, gets the nearest one.
    """
    made = not comes_with_split(given)
    val_made = made or not has_split(given, SPLITS.index("val"))
    test_below = test if made else 0.0
    val_below = test_below + (1 - test_below) * val if val_made else test_below
    place = _places(ids, groups, cluster)
    free = (given < 0) | ((given == 0) & val_made)
    drawn = np.where(place < test_below, 2, np.where(place < val_below, 1, 0)).astype(np.int8)
    drawn = _filled(drawn, labels, cluster, place, free, test=test_below > 0, val=val_below > test_below)
    split = np.where(free, drawn, given).astype(np.int8)
    return split if made else _follow_given(split, cluster, given)


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
    wanted = [0, *([1] if val else []), *([2] if test else [])]
    result = drawn.copy()
    for label in np.unique(labels[free]):
        rows = np.flatnonzero(free & (labels == label))
        if set(np.unique(result[rows]).tolist()) >= set(wanted):
            continue
        by_place = rows[np.argsort(place[rows], kind="stable")]
        order = list(dict.fromkeys(cluster[by_place].tolist()))
        for split in wanted:
            if split in result[rows] or len(order) < len(wanted):
                continue
            nearest = order[0] if split == 2 else order[-1] if split == 0 else _neighbour(order, result, cluster)
            result[free & (cluster == nearest)] = split
    return result


def _neighbour(order: Sequence[int], split: NDArray[np.int8], cluster: NDArray[np.int64]) -> int:
    """The training cluster whose place is the lowest, else the test cluster whose place is the highest."""
    now = [int(split[np.flatnonzero(cluster == name)[0]]) for name in order]
    training = [name for name, held in zip(order, now, strict=True) if held == 0]
    return training[0] if len(training) > 1 else [n for n, held in zip(order, now, strict=True) if held == 2][-1]


def _places(ids: NDArray[np.str_], groups: NDArray[np.str_], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    keys = np.where(groups != "", np.char.add("group ", groups), ids)
    order = np.lexsort((keys, cluster))
    first = np.ones(len(order), bool)
    first[1:] = cluster[order][1:] != cluster[order][:-1]
    heads = order[first]
    hashes = [hashlib.blake2b(str(keys[row]).encode(), digest_size=8).digest() for row in heads]
    numbers = np.frombuffer(b"".join(hashes), ">u8") / 2.0**64
    return np.asarray(numbers[np.searchsorted(cluster[heads], cluster)], np.float64)


def has_split(given: NDArray[np.int8], split: int) -> bool:
    """Whether any row's split was given as `split`."""
    return bool(np.any(given == split))


def comes_with_split(given: NDArray[np.int8]) -> bool:
    """Whether validation or test images were given; a train split alone is none."""
    return bool(np.any(given > 0))
