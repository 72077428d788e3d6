"""Images that stand in two splits: the side that is measured keeps them, the side that learns leaves them out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.data.dataset import Dataset, LeftOut, compute_fingerprint
from budwood.data.listing import SPLITS

Leaks = Literal["drop", "refuse", "allow"]  # what is done where images leak between splits
LEAKS: Final[tuple[Leaks, ...]] = get_args(Leaks)


def drop_leaks(data: Dataset) -> Dataset:
    """Leave out the images of a split that have a copy, or belong with an image, in a later split.

    Training gives way to validation, and both give way to test, so that a given test set stays whole and every image
    that is measured is new to the network.

    Args:
        data: The data set.

    Returns:
        The data set without these images, which it names in `left_out`; the same object where there are none.
    """
    split, cluster = data.column("split"), data.column("cluster")
    order = np.lexsort((np.arange(len(split)), -split, cluster))  # the last split of a cluster first
    first = np.ones(len(order), bool)
    first[1:] = cluster[order][1:] != cluster[order][:-1]
    beside = np.empty(len(order), np.int64)
    beside[order] = order[first][np.cumsum(first) - 1]
    leaking = np.flatnonzero(split < split[beside])
    if not len(leaking):
        return data
    ids, paths = data.table["id"].to_pylist(), data.table["path"].to_pylist()
    left_out = [LeftOut(paths[row], ids[row], SPLITS[split[row]], paths[beside[row]]) for row in leaking.tolist()]
    return _leave_out(data, leaking, left_out)


def drop_known(data: Dataset, rows: NDArray[np.int64], run: str) -> Dataset:
    """Leave out held-out images that a run has learned from whose trunk is used.

    Args:
        data: The data set.
        rows: Row numbers of the images, int64 [m].
        run: Name of that run.

    Returns:
        The data set without these images, which it names in `left_out`.
    """
    known = data.table.take(pa.array(rows)).select(["path", "id", "split"]).to_pylist()
    left_out = [LeftOut(image["path"], image["id"], SPLITS[image["split"]], run=run) for image in known]
    return _leave_out(data, rows, left_out)


def _leave_out(data: Dataset, rows: NDArray[np.int64], left_out: list[LeftOut]) -> Dataset:
    stays = np.ones(len(data), bool)
    stays[rows] = False
    table = data.table.filter(pa.array(stays))
    fingerprint = compute_fingerprint(data.classes, data.label_sets, table)
    return replace(data, table=table, left_out=(*data.left_out, *left_out), fingerprint=fingerprint)
