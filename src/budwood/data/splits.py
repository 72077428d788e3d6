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
    """Assign each image to training, validation or test by its content.

    Every cluster has a number in [0, 1), computed from its group's name or its smallest id. Below `test` it is
    test, below `test + (1 - test) * val` it is validation. A file's split thus depends on its own cluster only, and
    adding files moves no old one; in return, the shares are exact only on average. A class that by chance has no
    image in some split, although it has enough clusters, gets the nearest cluster there.

    Args:
        ids: Content id of each row.
        labels: Class of each row, int32 [n].
        groups: The user's group of each row, empty for none.
        cluster: Cluster of each row, int64 [n]; rows of one cluster belong in one split.
        given: Split that the user gave, int8 [n], -1 for none. Rows of a given training split may become validation
            or test.
        val: Share of the rows outside test that validate; 0 for none, where splits are given.
        test: Share of all rows for the test split; 0 for none, where splits are given.

    Returns:
        The split of each row, int8 [n]: 0 for training, 1 for validation, 2 for test.
    """
    val_below = test + (1 - test) * val
    place = _place_rows(ids, groups, cluster)
    free = (given < 0) | ((given == 0) & (val_below > 0))
    drawn = np.where(place < test, 2, np.where(place < val_below, 1, 0)).astype(np.int8)
    drawn = _fill_missing(drawn, labels, cluster, place, free, test=test > 0, val=val > 0)
    return _follow_given(np.where(free, drawn, given).astype(np.int8), cluster, given)


def assign_folds(
    ids: Sequence[str], labels: NDArray[np.int32], groups: Sequence[str], cluster: NDArray[np.int64], folds: int
) -> NDArray[np.int8]:
    """Assign each image to a fold, with folds of similar size in every class.

    Each cluster is in one fold and counts for the class of most of its rows. It goes to the fold with the fewest
    rows of that class, and among these to the smallest fold. Large clusters come first; equal ones are in the order
    of their hash.

    Args:
        ids: Content id of each row.
        labels: Class of each row, int32 [n].
        groups: The user's group of each row, empty for none.
        cluster: Cluster of each row, int64 [n].
        folds: Number of folds, at most 127.

    Returns:
        The fold of each row, int8 [n], from 0.
    """
    place = _place_rows(ids, groups, cluster)
    heads, inverse, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    votes = np.zeros((len(heads), int(labels.max()) + 1), np.int64)
    np.add.at(votes, (inverse, labels), 1)
    first = np.full(len(heads), 2.0)
    np.minimum.at(first, inverse, place)
    of_class = np.zeros((votes.shape[1], folds), np.int64)
    fold_sizes = np.zeros(folds, np.int64)
    fold_of_head = np.empty(len(heads), np.int8)
    for head in np.lexsort((first, -sizes)).tolist():
        label = int(votes[head].argmax())
        fold = int(np.lexsort((fold_sizes, of_class[label]))[0])
        fold_of_head[head] = fold
        of_class[:, fold] += votes[head]
        fold_sizes[fold] += sizes[head]
    return np.asarray(fold_of_head[inverse], np.int8)


def stratified_sample(ids: Sequence[str], labels: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Draw a sample of rows by content, in which each class keeps its share.

    Rows that are left over by rounding go to the classes with the largest remainders. No class is left without an
    image as long as there are as many images as classes. Up to rounding, a smaller sample is part of a larger one.

    Args:
        ids: Content id of each row.
        labels: Class of each row, int32 [n].
        count: Size of the sample.

    Returns:
        Whether each row is in the sample, bool [n]; all are if there are no more than `count`.
    """
    if len(ids) <= count:
        return np.ones(len(ids), bool)
    classes, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    shares = sizes * (count / len(ids))
    least = 1 if count >= len(classes) else 0
    quotas = np.maximum(np.floor(shares).astype(np.int64), least)
    for label in np.argsort(quotas - shares, kind="stable").tolist():
        quotas[label] += quotas.sum() < count
    while quotas.sum() > count:
        quotas[int(quotas.argmax())] -= 1
    order = np.lexsort((np.asarray(ids), inverse))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids)) - np.repeat(starts, sizes)
    return np.asarray(rank < quotas[inverse])


def _follow_given(split: NDArray[np.int8], cluster: NDArray[np.int64], given: NDArray[np.int8]) -> NDArray[np.int8]:
    """Rows without a given split, and rows drawn for validation, stay beside their cluster's given val or test."""
    fixed = np.flatnonzero(given > 0)
    split_of_cluster = dict(zip(cluster[fixed].tolist(), given[fixed].tolist(), strict=True))
    follow = [row for row in np.flatnonzero(given < 0).tolist() if int(cluster[row]) in split_of_cluster]
    result = split.copy()
    result[follow] = [split_of_cluster[int(cluster[row])] for row in follow]
    return result


def _fill_missing(
    drawn: NDArray[np.int8],
    labels: NDArray[np.int32],
    cluster: NDArray[np.int64],
    place: NDArray[np.float64],
    free: NDArray[np.bool_],
    *,
    test: bool,
    val: bool,
) -> NDArray[np.int8]:
    splits = [*([2] if test else []), *([1] if val else []), 0]  # in the order of their places
    result = drawn.copy()
    for label in np.unique(labels[free]):
        rows = np.flatnonzero(free & (labels == label))
        by_place = rows[np.argsort(place[rows], kind="stable")]
        _, first = np.unique(cluster[by_place], return_index=True)
        members = by_place[np.sort(first)]  # one row of each cluster
        sizes = [int(np.sum(result[members] == split)) for split in splits]
        if min(sizes) > 0 or len(members) < len(splits):
            continue
        while 0 in sizes:
            sizes[sizes.index(0)] += 1
            sizes[sizes.index(max(sizes))] -= 1
        for name, split in zip(cluster[members].tolist(), np.repeat(splits, sizes).tolist(), strict=True):
            result[free & (cluster == name)] = split
    return result


def _place_rows(ids: Sequence[str], groups: Sequence[str], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
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
