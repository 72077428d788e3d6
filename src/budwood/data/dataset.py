"""Files to Dataset: every image decoded once, copies found, splits made by content, the whole a value.

    list_files -> examine -> cluster -> assign splits -> Dataset

A Dataset is a table with one row per usable file, a class list and a fingerprint. It loads no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budwood.data.duplicates import find_near_pairs, label_components, link_equal_values
from budwood.data.images import THUMBNAIL_SIDE, BadImage, ImageMetadata
from budwood.data.listing import SPLITS, Listing, list_files, split_label_names
from budwood.data.metadata import read_metadata
from budwood.data.splits import assign_folds, assign_splits, stratified_sample
from budwood.errors import DataError, RunError
from budwood.progress import Progress, Silent
from budwood.storage.atomic import cache_folder, encode_parquet, write_bytes

Sets = tuple[tuple[int, ...], ...]  # of classes, by their number; none where an image has one label

SHARE: Final = 0.2  # of the test split, and of validation in the rest
SEALED: Final = -1  # the label of an image whose split is sealed
_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int32()),
        ("split", pa.int8()),
        ("given", pa.bool_()),
        ("group", pa.string()),
        ("look", pa.int64()),
        ("cluster", pa.int64()),
        ("used", pa.bool_()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("notes", pa.string()),
    ]
)


@dataclass(frozen=True)
class SetAside:
    """File that is not used, with the reason.

    Attributes:
        path: Path relative to the data set's root.
        problem: Kind of problem: one of `images.Problem`, `left out`, or `not unpacked` of an archive's member.
        detail: Explanation, one clause.
    """

    path: str
    problem: str
    detail: str


@dataclass(frozen=True)
class Samples:
    """Images of one split in a fixed order.

    Attributes:
        root: Folder that the paths are relative to.
        ids: Content id of each image.
        paths: Path of each image.
        labels: Class numbers, int32 [n], -1 if sealed; where images have several labels, numbers of sets in `sets`.
        sets: Sets of classes, each a tuple of class numbers; empty where each image has one label.
    """

    root: Path
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    label_sets: Sets = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """Manifest of labelled images with their splits.

    `table` has one row for each file that can be decoded, with these columns:

    - id, path: content id, and path relative to `root`
    - label: index into `classes`, or into `sets` where images have several labels; -1 when sealed
    - split: 0 for training, 1 for validation, 2 for test
    - given: whether the split was given rather than made
    - group: the user's group, empty if there is none
    - look: equal for exact and near copies
    - cluster: equal for copies and for images of one group
    - used: whether the image is part of its split
    - width, height, mode, notes: what decoding found, as in `ImageMetadata`

    Attributes:
        source: What the user gave: a path or the name of a data set.
        root: Folder that the paths are relative to.
        name: Short name of the data set.
        classes: Names of the classes, in the order of their numbers.
        table: The table of images.
        set_aside: Files that are not used, with reasons.
        split_source: `made`, `given`, `given, val made`, or which fold of how many.
        fingerprint: SHA-256 in hex over classes, contents, splits and the labels outside the test split.
        sets: Sets of classes, each a tuple of class numbers; empty where each image has one label.
        corrected: Number of images whose label corrections changed, or that they leave out.
    """

    source: str
    root: Path
    name: str
    classes: tuple[str, ...]
    table: pa.Table
    set_aside: tuple[SetAside, ...]
    split_source: str
    fingerprint: str
    label_sets: Sets = ()
    corrected: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table as a NumPy array.

        Args:
            name: Name of the column.

        Returns:
            The values, [rows].
        """
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    def samples(self, split: str) -> Samples:
        """Select the usable images of a split.

        Every content is used once, and no image whose label is in doubt.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            The images, in the order of the table.
        """
        rows = (self.column("split") == SPLITS.index(split)) & self.column("used")
        chosen = self.table.filter(pa.array(rows))
        return Samples(
            self.root,
            tuple(chosen["id"].to_pylist()),
            tuple(chosen["path"].to_pylist()),
            chosen["label"].to_numpy().astype(np.int32),
            self.label_sets,
        )

    def class_counts(self, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count the images of each class among some rows.

        Args:
            rows: Which rows to count, bool [rows]; their labels must not be sealed.

        Returns:
            The counts, int64 [classes]. An image with several labels counts for each of them.
        """
        labels = self.column("label")[rows]
        if not self.label_sets:
            return np.bincount(labels, minlength=len(self.classes))
        return np.asarray(make_membership_matrix(self.label_sets, len(self.classes))[labels].sum(axis=0), np.int64)

    def counts(self) -> dict[str, Any]:
        """Count the usable images by split and class.

        Returns:
            The counts by class for `train` and `val`; one number for `test`, since its labels are sealed.
        """
        split, used = self.column("split"), self.column("used")
        by_class = {
            SPLITS[s]: dict(zip(self.classes, self.class_counts((split == s) & used).tolist(), strict=True))
            for s in (0, 1)
        }
        return {**by_class, "test": int(np.sum((split == 2) & used))}

    def sealed(self) -> Dataset:
        """Return the same data without the labels of the test split.

        Returns:
            A data set in which test images have the label -1.
        """
        label = np.where(self.column("split") == SPLITS.index("test"), SEALED, self.column("label"))
        column = self.table.schema.get_field_index("label")
        return replace(self, table=self.table.set_column(column, "label", pa.array(label, pa.int32())))

    def save(self, path: Path) -> None:
        """Write the data set as one Parquet file, with everything beside the table in the file's metadata.

        Args:
            path: File to make or replace.

        Raises:
            OSError: When the file cannot be written.
        """
        meta = {
            "source": self.source,
            "root": str(self.root),
            "name": self.name,
            "classes": self.classes,
            "set_aside": [(item.path, item.problem, item.detail) for item in self.set_aside],
            "split_source": self.split_source,
            "fingerprint": self.fingerprint,
            "sets": self.label_sets,
            "corrected": self.corrected,
        }
        table = self.table.replace_schema_metadata({"budwood": json.dumps(meta)})
        write_bytes(path, encode_parquet(table))


def load(path: Path) -> Dataset:
    """Load a data set that `Dataset.save` wrote.

    Args:
        path: The Parquet file.

    Returns:
        The data set.

    Raises:
        RunError: When the file was not written by Budwood, or its content does not match its fingerprint.
    """
    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[b"budwood"])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise RunError(f"{path}: is not a data set written by Budwood ({error}).", "Scan the images again.") from error
    data = Dataset(
        meta["source"],
        Path(meta["root"]),
        meta["name"],
        tuple(meta["classes"]),
        table.replace_schema_metadata(),
        tuple(SetAside(*item) for item in meta["set_aside"]),
        meta["split_source"],
        meta["fingerprint"],
        tuple(tuple(members) for members in meta.get("sets", ())),
        meta.get("corrected", 0),
    )
    if _compute_fingerprint(data.classes, data.label_sets, data.table) != data.fingerprint:
        raise RunError(f"{path}: the split does not match its fingerprint.", "Restore the file, or train again.")
    return data


def scan(
    source: str | Path,
    *,
    val: float | None = None,
    test: float | None = None,
    exclude: Sequence[str] = (),
    corrections: str | Path | Sequence[str | Path] = (),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read labelled images into a data set.

    Where no split is given, images are split by content, so that a corrected image stays in its split unless its
    class would lack one.

    Args:
        source: A folder of class folders (with or without train, val and test around them), a folder with
            `train.txt` and `test.txt`, a CSV or Parquet table, an archive, or the name of a data set, such as
            `elpv`.
        val: Share of the images outside the test split that validate, between 0 and 1; None for 0.2.
        test: Share of all images that is sealed as the test split, between 0 and 1; None for 0.2.
        exclude: Names of classes to leave out.
        corrections: CSV file, or several in order, with the columns path, label and correct, which says which
            images belong to another class, or to none (`-`). No file is moved or changed.
        cache: The cache folder; None for `cache_folder()`.
        progress: Receives notes and steps; None to show nothing.

    Returns:
        The data set; the labels of its test split are not sealed yet.

    Raises:
        DataError: When the images cannot be listed, fewer than two classes remain, corrections do not fit the data,
            a share is out of range, or a share is set for a split that the data already have.
        StorageError: When an archive or a data set by name cannot be written to the cache.
    """
    cache, progress = cache or cache_folder(), progress or Silent()
    tables = [corrections] if isinstance(corrections, str | Path) else corrections
    files = [Path(file).expanduser() for file in tables]
    listing = list_files(Path(source).expanduser(), cache, progress, exclude, files)
    _check_shares(listing, val, test)
    return build_dataset(listing, read_metadata(listing, cache, progress), val=val, test=test)


def build_dataset(
    listing: Listing, facts: Sequence[ImageMetadata | BadImage], *, val: float | None = None, test: float | None = None
) -> Dataset:
    """Build the data set of listed files from what decoding each of them found.

    Args:
        listing: The labelled files.
        facts: Metadata or problem of each file, in the order of `listing`.
        val: Share of the images outside the test split that validate; None for 0.2; ignored if a validation split
            is given.
        test: Share of all images for the test split; None for 0.2; ignored if a validation or test split is given.

    Returns:
        The data set, with files that cannot be decoded set aside.

    Raises:
        DataError: When fewer than two classes have an image that can be decoded.
    """
    with_val, with_test = "val" in listing.splits, "test" in listing.splits
    val_share = 0.0 if with_val else SHARE if val is None else val
    test_share = 0.0 if with_val or with_test else SHARE if test is None else test
    good = [row for row, fact in enumerate(facts) if isinstance(fact, ImageMetadata)]
    bad = [SetAside(listing.paths[row], fact.problem, fact.detail) for row, fact in _list_broken(facts)]
    left_out = [SetAside(path, "left out", reason) for path, reason in listing.left_out]
    left_out += [SetAside(name, "not unpacked", reason) for name, reason in listing.not_unpacked]
    classes, label_sets, labels = _encode_labels([listing.labels[row] for row in good], listing.multilabel)
    if len(classes) < 2:
        raise DataError(
            f"{listing.root}: fewer than two classes have an image that can be decoded.",
            "`budwood inspect` lists the files that cannot be decoded.",
        )
    known = [fact for fact in facts if isinstance(fact, ImageMetadata)]
    ids = [fact.id for fact in known]
    groups = [listing.groups[row] for row in good]
    content = encode_values(pa.array(ids, pa.string()))
    look = _group_near_copies(content, known)
    cluster = _cluster_rows(look, groups)
    given = np.array([_split_index(listing.splits[row]) for row in good], np.int8)
    split = assign_splits(ids, labels, groups, cluster, given, val=val_share, test=test_share)
    columns = [
        ids,
        [listing.paths[row] for row in good],
        labels,
        split,
        given >= 0,
        groups,
        look,
        cluster,
        _select_used(content, labels, split),
        [fact.width for fact in known],
        [fact.height for fact in known],
        [fact.mode for fact in known],
        [",".join(fact.notes) for fact in known],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    table = pa.table(arrays, schema=_SCHEMA)
    split_source = "given" if with_val else "given, val made" if with_test else "made"
    return Dataset(
        listing.source,
        listing.root,
        listing.name,
        classes,
        table,
        tuple(bad + left_out),
        split_source,
        _compute_fingerprint(classes, label_sets, table),
        label_sets,
        listing.corrected,
    )


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
    column = data.table.schema.get_field_index("used")
    return replace(data, table=data.table.set_column(column, "used", pa.array(used, pa.bool_())))


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
    chosen = assign_folds(
        [ids[row] for row in free.tolist()],
        labels[free],
        [groups[row] for row in free.tolist()],
        cluster[free],
        folds,
    )
    split[free] = np.where(chosen == fold, SPLITS.index("val"), SPLITS.index("train"))
    columns = {
        "split": pa.array(split, pa.int8()),
        "given": pa.array(data.column("given") & (split == SPLITS.index("test")), pa.bool_()),
        "used": pa.array(_select_used(encode_values(data.table["id"]), labels, split), pa.bool_()),
    }
    table = data.table
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return replace(
        data,
        table=table,
        split_source=f"fold {fold + 1} of {folds}",
        fingerprint=_compute_fingerprint(data.classes, data.label_sets, table),
    )


def make_membership_matrix(label_sets: Sets, classes: int) -> NDArray[np.bool_]:
    """Convert sets of classes to a matrix of which classes are in each set.

    Args:
        label_sets: Class numbers of each set.
        classes: Number of classes.

    Returns:
        The matrix, bool [sets, classes].
    """
    table = np.zeros((len(label_sets), classes), bool)
    for row, chosen in enumerate(label_sets):
        table[row, list(chosen)] = True
    return table


def encode_values(values: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    """Assign a number to each distinct value of a column.

    Args:
        values: Arrow array of length n.

    Returns:
        A number for each value, equal where the values are equal, int32 [n].
    """
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return np.asarray(whole.dictionary_encode().indices.to_numpy())


def _group_near_copies(content: NDArray[np.int32], facts: Sequence[ImageMetadata]) -> NDArray[np.int64]:
    thumbs = np.empty((len(facts), THUMBNAIL_SIDE * THUMBNAIL_SIDE), np.uint8)
    for row, fact in enumerate(facts):
        thumbs[row] = np.frombuffer(fact.thumb, np.uint8)
    return label_components(len(facts), np.concatenate([link_equal_values(content), find_near_pairs(thumbs)]))


def _cluster_rows(look: NDArray[np.int64], groups: Sequence[str]) -> NDArray[np.int64]:
    named = np.fromiter((row for row, group in enumerate(groups) if group), np.int64)
    same_group = link_equal_values(encode_values(pa.array([groups[row] for row in named.tolist()], pa.string())))
    return label_components(len(look), np.concatenate([link_equal_values(look), named[same_group]]))


def _select_used(content: NDArray[np.int32], labels: NDArray[np.int32], split: NDArray[np.int8]) -> NDArray[np.bool_]:
    """One row of each content in each split, and no row of a content that has two labels."""
    order = np.lexsort((np.arange(len(content)), split, content))
    same = content[order][1:] == content[order][:-1]
    repeated = np.zeros(len(content), bool)
    repeated[order[1:]] = same & (split[order][1:] == split[order][:-1])
    by_label = np.lexsort((labels, content))
    clash = (content[by_label][1:] == content[by_label][:-1]) & (labels[by_label][1:] != labels[by_label][:-1])
    doubted = np.unique(content[by_label][1:][clash])
    return np.asarray(~repeated & ~np.isin(content, doubted))


def _check_shares(listing: Listing, val: float | None, test: float | None) -> None:
    given = {"val": "val" in listing.splits, "test": bool({"val", "test"} & set(listing.splits))}
    for split, share in (("val", val), ("test", test)):
        if share is not None and not 0 < share < 1:
            raise DataError(f"--{split} {share}: expected a share between 0 and 1.", f"For example --{split} 0.2")
        if share is not None and given[split]:
            raise DataError(
                f"--{split} {share} does not apply: {listing.name} has its own split, which is used.",
                f"Leave --{split} out, or give the images without split folders.",
            )


def _encode_labels(names: Sequence[str], multilabel: bool) -> tuple[tuple[str, ...], Sets, NDArray[np.int32]]:
    """The classes, the sets of classes that occur (none where an image has one label), and the label of each name."""
    distinct = sorted(set(names))
    index = {name: position for position, name in enumerate(distinct)}
    labels = np.array([index[name] for name in names], np.int32)
    if not multilabel:
        return tuple(distinct), (), labels
    classes = tuple(sorted({part for name in distinct for part in split_label_names(name)}))
    place = {name: position for position, name in enumerate(classes)}
    return classes, tuple(tuple(place[part] for part in split_label_names(name)) for name in distinct), labels


def _compute_fingerprint(classes: Sequence[str], label_sets: Sets, table: pa.Table) -> str:
    """SHA-256 over classes, contents and splits: what makes two runs comparable. Labels of the test split excluded."""
    order = pc.sort_indices(table, sort_keys=[("id", "ascending"), ("path", "ascending")])
    rows = table.take(order)
    split = rows["split"].to_numpy()
    label = np.where(split == SPLITS.index("test"), SEALED, rows["label"].to_numpy()).astype(np.int32)
    digest = hashlib.sha256(json.dumps([list(classes), label_sets] if label_sets else list(classes)).encode())
    digest.update("".join(rows["id"].to_pylist()).encode())
    digest.update(split.tobytes())
    digest.update(label.tobytes())
    return digest.hexdigest()


def _split_index(name: str) -> int:
    return SPLITS.index(name) if name else -1


def _list_broken(facts: Sequence[ImageMetadata | BadImage]) -> Iterable[tuple[int, BadImage]]:
    return ((row, fact) for row, fact in enumerate(facts) if isinstance(fact, BadImage))
