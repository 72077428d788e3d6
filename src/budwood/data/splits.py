"""Which image trains, which validates, which is sealed: by content, so that adding files moves few old ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def assign_splits(
    ids: Sequence[str],
    strata: NDArray[np.int32],
    groups: Sequence[str],
    cluster: NDArray[np.int64],
    given: NDArray[np.int8],
    counted: NDArray[np.bool_],
    *,
    val: float,
    test: float,
) -> NDArray[np.int8]:
    """Assign each image to training, validation or test by its content, with the same shares in every class.

    The clusters of a class are ordered by a hash of their group's name or smallest id: the first are test, the next
    validate, the rest train. Where every cluster is one image, the splits of a class have the wished number of images
    to within one; a cluster that is too large for what a split still lacks is passed over. Adding k single images to a
    class moves at most k of its old images over each of the two borders, and none of another class.

    A class of three clusters or more has an image in every split; one of two trains and validates, one of one
    trains.

    Args:
        ids: Content id of each row.
        strata: Class of each row, int32 [n], from 0; of an image with several labels, its rarest class.
        groups: The user's group of each row, empty for none.
        cluster: Cluster of each row, int64 [n]; rows of one cluster belong in one split.
        given: Split that the user gave, int8 [n], -1 for none. Rows of a given training split may become validation
            or test.
        counted: Which rows count for the shares, bool [n]: one of each content.
        val: Share of the rows outside test that validate; 0 for none, where splits are given.
        test: Share of all rows for the test split; 0 for none, where splits are given.

    Returns:
        The split of each row, int8 [n]: 0 for training, 1 for validation, 2 for test. Rows without a given split
        follow their cluster's given validation or test.
    """
    split = np.maximum(given, 0).astype(np.int8)
    free = find_free_rows(cluster, given)
    if (val > 0 or test > 0) and free.any():
        rows = np.flatnonzero(free)
        place = _place_rows([ids[row] for row in rows.tolist()], [groups[row] for row in rows.tolist()], cluster[rows])
        clusters = _summarise_clusters(place, strata[rows], cluster[rows], counted[rows])
        split[rows] = _draw_splits(clusters, val, test)[clusters.of_row]
    return _follow_given(split, cluster, given)


def find_free_rows(cluster: NDArray[np.int64], given: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Find the rows whose split may be made: those of clusters without a given validation or test row.

    Args:
        cluster: Cluster of each row, int64 [n].
        given: Split that the user gave, int8 [n], -1 for none.

    Returns:
        Which rows they are, bool [n].
    """
    return np.asarray(~np.isin(cluster, cluster[given > 0]))


def count_wished(images: int, clusters: int, val: float, test: float) -> tuple[int, int]:
    """Count the images of a class that are to validate and to be test images.

    Args:
        images: Images of the class.
        clusters: Its clusters: what cannot be parted.
        val: Share of the images outside test that validate.
        test: Share of all images for the test split.

    Returns:
        Wished validation images and wished test images.
    """
    parts = 1 + (val > 0) + (test > 0)
    of_test = _bound(test * images, int(clusters >= parts), images - parts + 1) if test > 0 else 0
    of_val = _bound(val * (images - of_test), int(clusters >= 2), images - of_test - 1) if val > 0 else 0
    return of_val, of_test


def _bound(wished: float, least: int, most: int) -> int:
    """The nearest whole number, half rounded up, from `least` to `most` (0 where there is none)."""
    return max(0, min(max(int(wished + 0.5), least), most))


@dataclass(frozen=True)
class _Clusters:
    """Clusters in the order of strata and places.

    Attributes:
        stratum: int32 [clusters].
        size: Rows that count, int64 [clusters].
        of_row: The cluster of each row, int64 [n].
    """

    stratum: NDArray[np.int32]
    size: NDArray[np.int64]
    of_row: NDArray[np.int64]


def _summarise_clusters(
    place: NDArray[np.float64], strata: NDArray[np.int32], cluster: NDArray[np.int64], counted: NDArray[np.bool_]
) -> _Clusters:
    """The clusters of some rows; a cluster is of the stratum of most of its rows."""
    heads, inverse = np.unique(cluster, return_inverse=True)
    size = np.bincount(inverse, weights=counted, minlength=len(heads)).astype(np.int64)
    width = int(strata.max()) + 1
    pairs, votes = np.unique(inverse * width + strata, return_counts=True)
    order = np.lexsort((pairs, -votes, pairs // width))
    first = np.unique(pairs[order] // width, return_index=True)[1]
    stratum = (pairs[order][first] % width).astype(np.int32)
    where = np.empty(len(heads))
    where[inverse] = place
    order = np.lexsort((where, stratum))
    rank = np.empty(len(heads), np.int64)
    rank[order] = np.arange(len(heads))
    return _Clusters(stratum[order], size[order], rank[inverse])


def _draw_splits(clusters: _Clusters, val: float, test: float) -> NDArray[np.int8]:
    """The split of each cluster, int8 [clusters]."""
    split = np.zeros(len(clusters.size), np.int8)
    for members in np.split(np.arange(len(split)), np.flatnonzero(np.diff(clusters.stratum)) + 1):
        rest = members[clusters.size[members] > 0]
        sizes = clusters.size[rest]
        of_val, of_test = count_wished(int(sizes.sum()), len(rest), val, test)
        for number, wished, later in ((2, of_test, 1 + (val > 0)), (1, of_val, 1)):
            taken = _take_first(clusters.size[rest], wished, len(rest) - later)
            split[rest[taken]] = number
            rest = rest[~taken]
    return split


def _take_first(sizes: NDArray[np.int64], wished: int, most: int) -> NDArray[np.bool_]:
    """The first clusters, at most `most`, that together have the wished size or come near it: bool [clusters].

    Where no further one fits, the smallest is taken too if that brings the sum nearer, or if there is none yet.
    """
    taken = np.zeros(len(sizes), bool)
    if wished <= 0 or most <= 0:
        return taken
    if sizes.max() == 1:
        taken[: min(wished, most)] = True
        return taken
    left = wished
    for number, size in enumerate(sizes.tolist()):
        if size <= left and most > 0:
            taken[number], left, most = True, left - size, most - 1
    if left and most > 0:
        least = int(np.argmin(np.where(taken, sizes.max() + 1, sizes)))
        taken[least] = taken[least] or not taken.any() or sizes[least] < 2 * left
    return taken


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
    return np.asarray(_rank_in_class(ids, inverse, sizes) < quotas[inverse])


def draw_per_class(ids: Sequence[str], labels: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Draw so many rows of each class by content, in the order of `stratified_sample`.

    A smaller sample is part of a larger one.

    Args:
        ids: Content id of each row.
        labels: Class of each row, int32 [n].
        count: Rows of each class, 1 or more.

    Returns:
        Whether each row is in the sample, bool [n]; all rows of a class that has no more than `count`.
    """
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(_rank_in_class(ids, inverse, sizes) < count)


def _rank_in_class(ids: Sequence[str], inverse: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each row, from 0, among the rows of its class by content: int64 [n]."""
    order = np.lexsort((np.asarray(ids), inverse))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids)) - np.repeat(starts, sizes)
    return rank


def _follow_given(split: NDArray[np.int8], cluster: NDArray[np.int64], given: NDArray[np.int8]) -> NDArray[np.int8]:
    """Rows without a given split go where their cluster's given validation or test row is."""
    fixed = np.flatnonzero(given > 0)
    split_of_cluster = dict(zip(cluster[fixed].tolist(), given[fixed].tolist(), strict=True))
    follow = [row for row in np.flatnonzero(given < 0).tolist() if int(cluster[row]) in split_of_cluster]
    result = split.copy()
    result[follow] = [split_of_cluster[int(cluster[row])] for row in follow]
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
