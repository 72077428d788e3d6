"""A data set as a value: a table with one row per usable file, a class list and a fingerprint. It loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from budwood.data.dataset_display import DatasetDisplay
from budwood.data.listing import SPLITS, Remark
from budwood.data.value_range import ValueRange
from budwood.errors import DataError, RunError, did_you_mean
from budwood.storage.atomic import encode_parquet, read_parquet, write_bytes
from budwood.storage.strict_json import decode_json, encode_json

if TYPE_CHECKING:
    from budwood.data.torch_split import TorchSplit

Sets = tuple[tuple[int, ...], ...]  # of classes, by their number; none where an image has one label

SEALED: Final = -1  # the label of an image whose split is sealed


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
class LeftOut:
    """Usable image that its split leaves out, as it would make a score too good.

    Attributes:
        path: Path relative to the data set's root.
        id: Its content id.
        split: The split that it was in: `train`, `val` or `test`.
        beside: Path of the image in another split that shows the same or belongs with it; empty if there is none.
        run: Name of the run that has learned from it and whose trunk is used; empty if there is none.
    """

    path: str
    id: str
    split: str
    beside: str = ""
    run: str = ""


@dataclass(frozen=True)
class Samples:
    """Images of one split in a fixed order.

    Attributes:
        root: Folder that the paths are relative to.
        ids: Content id of each image.
        paths: Path of each image.
        labels: Class numbers, int32 [n], -1 if sealed; where images have several labels, numbers of sets.
        label_sets: Sets of classes, each a tuple of class numbers; empty where each image has one label.
        value_range: Values of more than 8 bits that become black and white; None for the range of their type.
    """

    root: Path
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    label_sets: Sets = ()
    value_range: ValueRange | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, rows: Sequence[int] | NDArray[np.int64]) -> Samples:
        """Select some of the images.

        Args:
            rows: Numbers of the images from 0, in any order; one may occur several times.

        Returns:
            The images in the order of `rows`.
        """
        numbers = np.asarray(rows, np.int64)
        ids, paths = (tuple(values[row] for row in numbers.tolist()) for values in (self.ids, self.paths))
        return replace(self, ids=ids, paths=paths, labels=self.labels[numbers])

    def in_content_order(self) -> Samples:
        """Sort the images by their contents, so that nothing depends on the names of files.

        Returns:
            The images in the order of their ids.
        """
        return self.subset(sorted(range(len(self)), key=lambda row: (self.ids[row], self.paths[row])))

    def join(self, other: Samples) -> Samples:
        """Append the images of another split of the same data set.

        Args:
            other: The other split.

        Returns:
            The images of both, one split after the other.
        """
        labels = np.concatenate([self.labels, other.labels])
        return replace(self, ids=self.ids + other.ids, paths=self.paths + other.paths, labels=labels)


@dataclass(frozen=True, repr=False)
class Dataset(DatasetDisplay):
    """Manifest of labelled images with their splits.

    `table` has one row for each file that can be decoded, with these columns:

    - id, path: content id, and path relative to `root`
    - label: index into `classes`, or into `label_sets` where images have several labels; -1 when sealed
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
        label_sets: Sets of classes, each a tuple of class numbers; empty where each image has one label.
        corrected: Number of images whose label corrections changed, or that they leave out or add.
        value_range: Values of more than 8 bits that become black and white, in all splits and folds; None where no
            image has more than 8 bits, and in data sets of earlier versions, whose images have the range of their type.
        remarks: How something was read that could be read otherwise.
        left_out: Usable images that their split leaves out.
        lookalikes: Paths of images that look the same but were not taken for copies, in groups.
        reading: What was asked of `scan` and `select_per_class` beside their defaults, as plain values by name; it is
            not saved with the data set.
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
    value_range: ValueRange | None = None
    remarks: tuple[Remark, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    lookalikes: tuple[tuple[str, ...], ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table as a NumPy array.

        Args:
            name: Name of the column.

        Returns:
            The values, [rows].

        Raises:
            DataError: There is no such column.
        """
        if name not in self.table.column_names:
            raise DataError(f"column: there is no column {name!r}.", did_you_mean(str(name), self.table.column_names))
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    def samples(self, split: str) -> Samples:
        """Select the usable images of a split.

        Every content is used once, and no image whose label is in doubt.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            The images, in the order of the table.

        Raises:
            DataError: There is no such split.
        """
        if split not in SPLITS:
            raise DataError(f"split: there is no split {split!r}.", f"Valid: {', '.join(SPLITS)}.")
        return self.take(np.flatnonzero((self.column("split") == SPLITS.index(split)) & self.column("used")))

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """Take some rows of the table.

        Args:
            rows: Row numbers from 0, int64 [n].

        Returns:
            The images in the order of `rows`.
        """
        table = self.table.take(pa.array(rows))
        return Samples(
            self.root,
            tuple(table["id"].to_pylist()),
            tuple(table["path"].to_pylist()),
            table["label"].to_numpy().astype(np.int32),
            self.label_sets,
            self.value_range,
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

    def to_torch(
        self,
        split: str,
        transform: Callable[[Any], Any] | None = None,
        *,
        size: int | None = None,
        unseal: bool = False,
    ) -> TorchSplit:
        """Make a `torch.utils.data.Dataset` of a split, for a training loop of one's own.

        Args:
            split: `train`, `val` or `test`.
            transform: Function that changes each image, such as one of torchvision; None for none.
            size: Side of the square that images become, cropped in the middle, as tensors uint8 [3, size, size]; None
                for PIL images in RGB, upright, of their own size.
            unseal: Whether the test split may be read. What is chosen by its score is no longer tested by it.

        Returns:
            A data set of (image, class number), or of (image, float32 [classes]) where images have several labels, in
            the order of `samples(split)`.

        Raises:
            DataError: The split is unknown or empty, `size` is below 1, or the test split is not to be unsealed or its
                labels are kept elsewhere, by a run.
        """
        if split not in SPLITS:
            raise DataError(f"{split!r}: is no split.", did_you_mean(str(split), SPLITS))
        if split == "test" and not unseal:
            raise DataError(
                f"{self.name}: the test split is sealed, so that a score on it stays one of unseen images.",
                "Use 'val' while you decide anything; `unseal=True` opens the test split.",
            )
        samples = self.samples(split)
        if not len(samples):
            raise DataError(f"{self.name}: the {split} split has no images.", "Choose another split.")
        if (samples.labels == SEALED).any():
            raise DataError(
                f"{self.name}: the labels of the {split} split are sealed by the run that these data are of.",
                "`bw.test(run)` scores the run on them; `bw.scan(...)` reads the data again.",
            )
        if size is not None and size < 1:
            raise DataError(f"size: expected a number of pixels from 1, found {size}.", "For example size=224.")
        from budwood.data.torch_split import TorchSplit

        return TorchSplit(samples, self.classes, transform, size)

    def sealed(self) -> Dataset:
        """Return the same data without the labels of the test split.

        Returns:
            A data set in which test images have the label -1.
        """
        label = np.where(self.column("split") == SPLITS.index("test"), SEALED, self.column("label"))
        return replace(self, table=set_columns(self.table, {"label": label}))

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
            "lookalikes": self.lookalikes,
            **({"value_range": [self.value_range.low, self.value_range.high]} if self.value_range else {}),
        }
        if self.remarks:
            meta["remarks"] = [(item.kind, item.detail, item.advice, item.files) for item in self.remarks]
        if self.left_out:
            meta["left_out"] = [(item.path, item.id, item.split, item.beside, item.run) for item in self.left_out]
        table = self.table.replace_schema_metadata({"budwood": encode_json(meta, ensure_ascii=True)})
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
        table = read_parquet(path)
        meta = decode_json((table.schema.metadata or {})[b"budwood"])
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
        ValueRange(*meta["value_range"]) if "value_range" in meta else None,
        tuple(Remark(kind, detail, advice, tuple(files)) for kind, detail, advice, files in meta.get("remarks", ())),
        tuple(LeftOut(*item) for item in meta.get("left_out", ())),
        tuple(tuple(paths) for paths in meta.get("lookalikes", ())),
    )
    if compute_fingerprint(data.classes, data.label_sets, data.table) != data.fingerprint:
        raise RunError(f"{path}: the split does not match its fingerprint.", "Restore the file, or train again.")
    return data


def set_columns(table: pa.Table, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Replace columns of a table; their names, types and places stay.

    Args:
        table: The table of images.
        columns: Values by name, [rows] each.

    Returns:
        The table with these values.
    """
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table


def make_membership_matrix(label_sets: Sets, classes: int) -> NDArray[np.bool_]:
    """Convert sets of classes to a matrix of which classes are in each set.

    Args:
        label_sets: Class numbers of each set.
        classes: Number of classes.

    Returns:
        The matrix, bool [sets, classes].
    """
    table = np.zeros((len(label_sets), classes), bool)
    for row, members in enumerate(label_sets):
        table[row, list(members)] = True
    return table


def encode_values(values: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    """Assign a number to each distinct value of a column.

    Args:
        values: Arrow array of length n.

    Returns:
        A number for each value, equal where the values are equal, int32 [n].
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return np.asarray(array.dictionary_encode().indices.to_numpy())


def compute_fingerprint(classes: Sequence[str], label_sets: Sets, table: pa.Table) -> str:
    """Compute what makes two runs comparable: the SHA-256 of classes, contents and splits.

    Labels of the test split are excluded.

    Args:
        classes: Names of the classes.
        label_sets: Sets of classes; empty where each image has one label.
        table: The table of images.

    Returns:
        The digest in hex.
    """
    order = pc.sort_indices(table, sort_keys=[("id", "ascending"), ("path", "ascending")])
    rows = table.take(order)
    split = rows["split"].to_numpy()
    label = np.where(split == SPLITS.index("test"), SEALED, rows["label"].to_numpy()).astype(np.int32)
    digest = hashlib.sha256(json.dumps([list(classes), label_sets] if label_sets else list(classes)).encode())
    digest.update("".join(rows["id"].to_pylist()).encode())
    digest.update(split.tobytes())
    digest.update(label.tobytes())
    return digest.hexdigest()


def select_used(content: NDArray[np.int32], labels: NDArray[np.int32], split: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Select one row of each content in each split, and no row of a content that has two labels.

    Args:
        content: Number of each row's content, int32 [n].
        labels: int32 [n].
        split: Number of each row's split, int8 [n].

    Returns:
        Which rows are part of their split, bool [n].
    """
    order = np.lexsort((np.arange(len(content)), split, content))
    same = content[order][1:] == content[order][:-1]
    repeated = np.zeros(len(content), bool)
    repeated[order[1:]] = same & (split[order][1:] == split[order][:-1])
    by_label = np.lexsort((labels, content))
    clash = (content[by_label][1:] == content[by_label][:-1]) & (labels[by_label][1:] != labels[by_label][:-1])
    doubted = np.unique(content[by_label][1:][clash])
    return np.asarray(~repeated & ~np.isin(content, doubted))
