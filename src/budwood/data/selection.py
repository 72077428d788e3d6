"""Selections of a data set: at most so many images, so many of each class, or one fold of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Dataset, compute_fingerprint, encode_values, select_used, set_columns
from budwood.data.leaks import Leaks, drop_leaks
from budwood.data.listing import SPLITS, Remark
from budwood.data.scanning import read_dataset
from budwood.data.splits import assign_folds, draw_per_class, stratified_sample
from budwood.errors import DataError
from budwood.text import listed

_OPTIONS: Final = (  # a split, its option and its name in messages
    ("train", "images_per_class", "training"),
    ("val", "val_images_per_class", "validation"),
    ("test", "test_images_per_class", "test"),
)
_NAMED: Final = 6  # classes that a message names


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


def select_per_class(
    data: Any,
    *,
    images_per_class: int | None = None,
    val_images_per_class: int | None = None,
    test_images_per_class: int | None = None,
    leaks: Leaks = "drop",
) -> Dataset:
    """Select exactly so many images of each class in the training, validation or test split.

    The images are drawn by content, so that a smaller selection is part of a larger one, and stay in their split, so
    that copies and groups stay on one side. The others stay in the table, unused, and a remark tells their number. The
    fingerprint, which covers contents and splits, stays the same where nothing leaks.

    Args:
        data: The data set, or what `scan` takes; the labels of its test split are not sealed where test images are
            selected.
        images_per_class: Training images of each class, 1 or more; None: all.
        val_images_per_class: Validation images of each class; None: all.
        test_images_per_class: Test images of each class; None: all.
        leaks: What training will do where images leak between given splits; those that `drop` leaves out are not drawn.

    Returns:
        The data set with fewer used images; the same object where nothing is selected.

    Raises:
        DataError: A class has fewer images in a split, images have several labels, or a number is below 1.
    """
    read: Dataset = read_dataset(data)
    numbers = (images_per_class, val_images_per_class, test_images_per_class)
    wished = [(*option, count) for option, count in zip(_OPTIONS, numbers, strict=True) if count is not None]
    if not wished:
        return read
    _refuse_number(read, [(option, count) for _, option, _, count in wished])
    return _select(read, wished, leaks)


def _select(data: Dataset, wished: Sequence[tuple[str, str, str, int]], leaks: Leaks) -> Dataset:
    """The data set with so many images of each class; `wished` are splits, options, words and numbers."""
    data = drop_leaks(data) if leaks == "drop" else data
    used, split = data.column("used").copy(), data.column("split")
    ids, labels = data.table["id"].to_pylist(), data.column("label")
    remarks, problems = [], list[str]()
    for name, option, words, count in wished:
        rows = np.flatnonzero((split == SPLITS.index(name)) & used)
        if (labels[rows] == SEALED).any():
            raise DataError(f"{option}: the labels of the {words} split are sealed.", "Select before training.")
        found = np.bincount(labels[rows], minlength=len(data.classes))
        few = [f"{data.classes[number]!r} has {found[number]:,}" for number in np.flatnonzero(found < count)]
        if few:
            problems.append(f"{option}: expected {count:,} {words} images of each class, {listed(few, _NAMED)}")
            continue
        used[rows] = draw_per_class([ids[row] for row in rows.tolist()], labels[rows], count)
        remarks += _remark_not_selected(option, words, count, used[rows])
    if problems:
        raise DataError(
            f"{data.name}: {'; '.join(problems)}.",
            "Use a smaller number, other shares for val and test, or more images; copies of one image count once.",
        )
    table, reading = set_columns(data.table, {"used": used}), {**data.reading, **{one[1]: one[3] for one in wished}}
    return replace(data, table=table, remarks=(*data.remarks, *remarks), reading=reading)


def _refuse_number(data: Dataset, wished: Sequence[tuple[str, int]]) -> None:
    """Raises `DataError` for numbers below 1, and where an image has several labels, so that no number is exact."""
    for option, count in wished:
        if count < 1:
            raise DataError(f"{option}: expected a whole number from 1, found {count}.", f"For example {option} = 50")
        if data.label_sets:
            raise DataError(
                f"{option}: {data.name} has images with several labels, of which no exact number a class can be drawn.",
                "Use `images`, the number of all training images.",
            )


def _remark_not_selected(option: str, words: str, count: int, drawn: NDArray[np.bool_]) -> list[Remark]:
    """How many images of a split were drawn; nothing where all were."""
    if drawn.all():
        return []
    detail = (
        f"{drawn.sum():,} of {len(drawn):,} {words} images were drawn, {count:,} of each class; the others were not "
        "selected."
    )
    return [Remark("not selected", detail, f"Leave {option} out to use all.")]


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
