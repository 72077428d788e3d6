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
    """A file that is not used, and why. `problem` is a kind of `images.Problem` or `left out`."""

    path: str
    problem: str
    detail: str


@dataclass(frozen=True)
class Samples:
    """The images of one split in a fixed order: ids, paths relative to `root`, labels int32 [n] (-1 when sealed).

    Where images have several labels each, a label is the number of a set of classes in `label_sets`.
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
    """A manifest of labelled images; `source` is what was handed in, paths are relative to `root`.

    `table` has one row per decodable file: id, path, label (index into `classes`, -1 when sealed), split (0 train,
    1 val, 2 test), given (the split was given), group, look (equal for exact and near copies), cluster (equal for
    those and for one group), used, width, height, mode, notes. `split_source` is `made`, `given` or `given, val made`.
    Where images have several labels each, `label` is the number of a set of classes in `label_sets`, else that is
    empty. `corrected` counts the images whose label corrections changed, or that these leave out.
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
        """One column as a NumPy array."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    def samples(self, split: str) -> Samples:
        """The usable images of `split`: every content once, none whose label is in doubt."""
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
        """How many of some rows, whose labels are known, are of each class: int64 [classes]."""
        labels = self.column("label")[rows]
        if not self.label_sets:
            return np.bincount(labels, minlength=len(self.classes))
        return np.asarray(make_membership_matrix(self.label_sets, len(self.classes))[labels].sum(axis=0), np.int64)

    def counts(self) -> dict[str, Any]:
        """Images by split and class; the test split has one number, since its labels are sealed."""
        split, used = self.column("split"), self.column("used")
        by_class = {
            SPLITS[s]: dict(zip(self.classes, self.class_counts((split == s) & used).tolist(), strict=True))
            for s in (0, 1)
        }
        return {**by_class, "test": int(np.sum((split == 2) & used))}

    def sealed(self) -> Dataset:
        """The same data without the labels of the test split."""
        label = np.where(self.column("split") == SPLITS.index("test"), SEALED, self.column("label"))
        column = self.table.schema.get_field_index("label")
        return replace(self, table=self.table.set_column(column, "label", pa.array(label, pa.int32())))

    def save(self, path: Path) -> None:
        """Write the data set as one Parquet file whose metadata hold the rest of the record."""
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
    """The data set that `Dataset.save` wrote; raises `RunError` when the file is another's or was changed."""
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
    """Read labelled images into a Dataset.

    `source` is a folder of class folders (with or without train / val / test around them), a folder with `train.txt`
    and `test.txt`, a CSV or Parquet table, an archive, or the name of a built-in data set (`elpv`). Where no split is
    given, `test` (default 0.2) is the share of all images that is sealed and `val` (default 0.2) the share of the rest
    that validates. `corrections` is a CSV file, or several in order, whose columns path, label and correct say which
    images belong to another class, or to none (`-`); no file is moved or changed, and as splits are made by content, a
    corrected image stays in its split unless its class would lack one. Raises `DataError`, also for a share of a split
    that is given, and for corrections that do not fit the data.
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
    """The Dataset of listed files and what decoding each of them told, in the same order."""
    with_val, with_test = "val" in listing.splits, "test" in listing.splits
    val_share = 0.0 if with_val else SHARE if val is None else val
    test_share = 0.0 if with_val or with_test else SHARE if test is None else test
    good = [row for row, fact in enumerate(facts) if isinstance(fact, ImageMetadata)]
    bad = [SetAside(listing.paths[row], fact.problem, fact.detail) for row, fact in _list_broken(facts)]
    left_out = [SetAside(path, "left out", reason) for path, reason in listing.left_out]
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
    """The data set of which at most so many images train and validate; each class keeps its share.

    The others stay in the table, unused, so that the fingerprint, which names contents and splits, is the same.
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
    """The data set whose fold number `fold`, from 0, validates, while the others train; the test split stays.

    Copies and the user's groups are in one fold, and classes are spread evenly. Raises `DataError` where there are
    fewer clusters of images than folds.
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
    """Which classes are in each set: bool [label_sets, classes]."""
    table = np.zeros((len(label_sets), classes), bool)
    for row, chosen in enumerate(label_sets):
        table[row, list(chosen)] = True
    return table


def encode_values(values: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    """A number for each value, equal where the values are: int32 [n]."""
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
