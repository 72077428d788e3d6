"""Selections of a data set: at most so many images, or one fold of a cross-validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from budwood.data.dataset import Dataset, compute_fingerprint, encode_values, select_used, set_columns
from budwood.data.listing import SPLITS
from budwood.data.splits import assign_folds, stratified_sample
from budwood.errors import DataError


def limit(data: Dataset, training: int | None, validation: int | None) -> Dataset:
    """Limit the number of images that train and validate, with each class keeping its share.

    The other images stay in the table, unused. The fingerprint, which covers contents and splits, stays the same.

    Args:
        data: The data set.
        training: Largest number of training images; None for all.
        validation: Largest number of validation images; None for all.

    Returns:
        The data set with fewer used images.
    """
    used, split = data.column("used").copy(), data.column("split")
    ids, labels = data.table["id"].to_pylist(), data.column("label")
    for name, count in (("train", training), ("val", validation)):
        if count is not None:
            rows = np.flatnonzero((split == SPLITS.index(name)) & used)
            used[rows] = stratified_sample([ids[row] for row in rows.tolist()], labels[rows], count)
    return replace(data, table=set_columns(data.table, {"used": used}))


def adopt_splits(data: Dataset, earlier: Dataset) -> Dataset | None:
    """Take the splits of an earlier scan of the same images, which another version may have drawn otherwise.

    Args:
        data: The data set.
        earlier: The data set of a run.

    Returns:
        The data set in the earlier splits; None where it has other images, labels or given splits.
    """
    row_of_path = {path: row for row, path in enumerate(earlier.table["path"].to_pylist())}
    paths = data.table["path"].to_pylist()
    if earlier.split_source != data.split_source or len(paths) != len(row_of_path):
        return None
    if not all(path in row_of_path for path in paths):
        return None
    rows = [row_of_path[path] for path in paths]
    split, cluster = earlier.column("split")[rows], earlier.column("cluster")[rows]
    used = select_used(encode_values(data.table["id"]), data.column("label"), split)
    table = set_columns(data.table, {"split": split, "cluster": cluster, "used": used})
    fingerprint = compute_fingerprint(data.classes, data.label_sets, table)
    return replace(data, table=table, fingerprint=fingerprint) if fingerprint == earlier.fingerprint else None


def assign_fold(data: Dataset, fold: int, folds: int) -> Dataset:
    """Make one fold the validation set and the other folds the training set; the test split stays.

    Copies and the user's groups are kept in one fold, and classes are spread evenly over the folds.

    Args:
        data: The data set.
        fold: Number of the fold that validates, from 0.
        folds: Number of folds.

    Returns:
        The data set with new splits, a new fingerprint and the fold as `split_source`.

    Raises:
        DataError: When there are fewer clusters of images than folds.
    """
    split = data.column("split").copy()
    free = np.flatnonzero(split != SPLITS.index("test"))
    ids, groups = data.table["id"].to_pylist(), data.table["group"].to_pylist()
    cluster, labels = data.column("cluster"), data.column("label")
    if len(np.unique(cluster[free])) < folds:
        raise DataError(f"{data.root}: has too few different images for {folds} folds.", "Use fewer folds.")
    folds_of_images = assign_folds(
        [ids[row] for row in free.tolist()],
        labels[free],
        [groups[row] for row in free.tolist()],
        cluster[free],
        folds,
    )
    split[free] = np.where(folds_of_images == fold, SPLITS.index("val"), SPLITS.index("train"))
    given = data.column("given") & (split == SPLITS.index("test"))
    used = select_used(encode_values(data.table["id"]), labels, split)
    table = set_columns(data.table, {"split": split, "given": given, "used": used})
    return replace(
        data,
        table=table,
        split_source=f"fold {fold + 1} of {folds}",
        fingerprint=compute_fingerprint(data.classes, data.label_sets, table),
    )
