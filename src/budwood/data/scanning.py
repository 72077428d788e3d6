"""Files to Dataset: every image decoded once, copies found, splits made by content.

list_files -> read_metadata -> find copies -> assign_splits -> Dataset
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.data.copy_groups import group_copies
from budwood.data.dataset import Dataset, SetAside, Sets, compute_fingerprint, encode_values, select_used
from budwood.data.duplicates import label_components, link_equal_values
from budwood.data.given import list_given
from budwood.data.given_rows import are_paths
from budwood.data.images import BadImage, ImageMetadata
from budwood.data.listing import SPLITS, Listing, ReadOptions, Remark, select_rows, split_label_names
from budwood.data.metadata import read_metadata
from budwood.data.several import join_sources
from budwood.data.sources import finish_listing, list_files
from budwood.data.splits import assign_splits, find_free_rows
from budwood.data.value_range import choose_value_range
from budwood.errors import DataError
from budwood.progress import Progress
from budwood.storage.context import Context, open_context
from budwood.text import counted, listed

SHARE: Final = 0.2  # of the test split, and of validation in the rest
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


def scan(
    source: Any,
    *,
    labels: Any = None,
    classes: Sequence[str] = (),
    val: float | None = None,
    test: float | None = None,
    exclude: Sequence[str] = (),
    corrections: str | Path | Sequence[str | Path] = (),
    label_from: str = "top",
    label_separator: str | None = None,
    spelling: str = "join",
    split_folders: str = "auto",
    image_column: str | None = None,
    label_column: str | None = None,
    root: str | Path = ".",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read labelled images into a data set.

    Where no split is given, images are split by content and by their labels before corrections, so that a corrected
    image stays in its split.

    Images that are no files (arrays, PIL images, bytes) are kept as files in the cache, without loss and under names
    that depend on their pixels alone, with a table of their labels, which later commands read.

    Args:
        source: A folder of class folders (with or without train, val and test around them), a folder with
            `train.txt` and `test.txt`, a CSV or Parquet table, an archive, or the name of a data set, such as
            `elpv`. A list of these is one data set of all; folders without class folders are then classes. Or what a
            program has: images, with `labels`; a pair (images, labels); a list of (image, label); a frame of pandas or
            Polars, a table of PyArrow or a data set of Hugging Face; a data set of torchvision or torch; or a mapping
            from `train`, `val` and `test` to one of these. An image is a path, the bytes of a file, a PIL image, or an
            array or tensor: uint8, uint16, bool, or floating-point from 0 to 1, [height, width], [height, width, c] or
            [c, height, width] with c 1, 3 or 4. Images together may be one array.
        labels: The class of each image, where `source` has images only: names, numbers, or lists of them.
        classes: Name of each class number, where labels are numbers; those of a data set are known.
        val: Share of the images outside the test split that validate, between 0 and 1; None for 0.2.
        test: Share of all images that is sealed as the test split, between 0 and 1; None for 0.2.
        exclude: Names of classes to leave out.
        corrections: CSV file, or several in order, with the columns path, label and correct, which says which
            images belong to another class, or to none (`-`). Rows with an empty label add files to training. No file
            is moved or changed.
        label_from: Class of an image in a folder in a class folder: `top`, the class folder; `parent`, the folder that
            the image is in, whatever is above it; `path`, the path of all, such as `plant/rose`.
        label_separator: What parts several labels in a cell of a table, such as `,`; `space`; `none` where a cell is
            one label; None to find it out.
        spelling: `join` reads `cat`, `Cat` and `cat ` as one class, and `2` and `2.0`; `keep` reads labels as written.
        split_folders: `auto` reads folders called train, val and test as splits; `never` reads them as classes.
        image_column: Column of a table or frame that holds paths or images; None for `path`, `image` and others.
        label_column: Column of a table or frame that holds labels; None for `label`, `class` and others.
        root: Folder that relative paths in lists and frames start from.
        cache: The cache folder; None for `cache_folder()`.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        The data set; the labels of its test split are not sealed yet.

    Raises:
        DataError: When the images cannot be listed, fewer than two classes remain, corrections do not fit the data,
            a share is out of range, a word is unknown, or a share is set for a split that the data already have; when
            images or labels of a program have a wrong shape, type or number.
        StorageError: When an archive or a data set by name cannot be written to the cache.
    """
    context = open_context(cache, progress)
    tables = [corrections] if isinstance(corrections, str | Path) else corrections
    files = [Path(file).expanduser() for file in tables]
    options = ReadOptions(label_from, label_separator, spelling, split_folders, image_column, label_column)
    names = [str(name) for name in classes]
    if labels is None and are_paths(source):
        if names or Path(root) != Path():
            option = "classes" if names else "root"
            raise DataError(f"{option}: does not apply to folders, tables and archives.", "Leave it out.")
        name = join_sources([source] if isinstance(source, str | Path) else source)
        listing = list_files(name, context, exclude, files, options)
    else:
        listing = list_given(source, labels, names, Path(root).expanduser(), options, context)
        listing = finish_listing(listing, listing.name, context, exclude, files, options)
    _check_shares(listing, val, test)
    data = build_dataset(listing, read_metadata(listing, context), context, val=val, test=test)
    return replace(data, reading=_note_reading(val, test, exclude, files, options))


def _note_reading(
    val: float | None, test: float | None, exclude: Sequence[str], corrections: Sequence[Path], options: ReadOptions
) -> dict[str, Any]:
    """What was asked of a scan beside its defaults, as plain values by the names of its arguments."""
    asked = {
        "val": val,
        "test": test,
        "exclude": list(exclude) or None,
        "corrections": [str(file.absolute()) for file in corrections] or None,
        **{name: value for name, value in asdict(options).items() if value != getattr(ReadOptions(), name)},
    }
    return {name: value for name, value in asked.items() if value is not None}


def read_dataset(data: Any, cache: Path | None = None, progress: Progress | None = None) -> Dataset:
    """Read a data set from whatever holds one, in the usual way.

    Args:
        data: A data set, or what `scan` takes as its source.
        cache: The cache folder; None for `cache_folder()`.
        progress: Receives notes and steps; None to show nothing.

    Returns:
        The data set itself, or what `scan` makes of the source.

    Raises:
        DataError: As of `scan`.
        StorageError: As of `scan`.
    """
    return data if isinstance(data, Dataset) else scan(data, cache=cache, progress=progress)


def build_dataset(
    listing: Listing,
    facts: Sequence[ImageMetadata | BadImage],
    context: Context,
    *,
    val: float | None = None,
    test: float | None = None,
) -> Dataset:
    """Build the data set of listed files from what decoding each of them found.

    Args:
        listing: The labelled files.
        facts: Metadata or problem of each file, in the order of `listing`.
        context: The cache folder, where near copies are remembered, and where steps go.
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
    usable = select_rows(listing, [row for row, fact in enumerate(facts) if isinstance(fact, ImageMetadata)])
    metadata = [fact for fact in facts if isinstance(fact, ImageMetadata)]
    bad = [SetAside(listing.paths[row], problem.problem, problem.detail) for row, problem in _list_broken(facts)]
    classes, label_sets, labels = _encode_labels(usable.labels, listing.multilabel)
    if len(classes) < 2:
        raise _make_undecodable_error(listing.root, bad)
    content = encode_values(pa.array([image.id for image in metadata], pa.string()))
    copies = group_copies(content, metadata, labels, context)
    given = np.array([_split_index(name) for name in usable.splits], np.int8)
    names, sets, drawn = _encode_labels(usable.uncorrected or usable.labels, listing.multilabel)
    counting = select_used(content, drawn, np.zeros(len(content), np.int8))
    own = ~np.array(usable.added or [False] * len(content), bool)
    drawing = _Drawing(_choose_strata(drawn, sets), given, counting, val_share, test_share, own)
    table = _build_table(usable, metadata, labels, content, copies.look, drawing)
    missed = [] if label_sets else _remark_missed_shares(table, names, drawing)
    return Dataset(
        source=listing.source,
        root=listing.root,
        name=listing.name,
        classes=classes,
        table=table,
        set_aside=(*bad, *_list_unused(listing)),
        split_source="given" if with_val else "given, val made" if with_test else "made",
        fingerprint=compute_fingerprint(classes, label_sets, table),
        label_sets=label_sets,
        corrected=listing.corrected,
        value_range=choose_value_range(
            [image.values for image in metadata], table["split"].to_numpy() == SPLITS.index("train")
        ),
        remarks=(*listing.remarks, *missed),
        lookalikes=tuple(tuple(usable.paths[row] for row in rows) for rows in copies.distrusted),
    )


def _list_unused(listing: Listing) -> list[SetAside]:
    left_out = [SetAside(path, "left out", reason) for path, reason in listing.left_out]
    return left_out + [SetAside(name, "not unpacked", reason) for name, reason in listing.not_unpacked]


def _make_undecodable_error(root: Path, bad: Sequence[SetAside]) -> DataError:
    first = f": the first, {bad[0].path!r}, was looked for at {root / bad[0].path} ({bad[0].detail})" if bad else ""
    count = f"; {counted(len(bad), 'file')} cannot{first}" if bad else ""
    return DataError(
        f"{root}: fewer than two classes have an image that can be decoded{count}.",
        "`budwood inspect` lists the files that cannot be decoded.",
        [(item.path, f"{item.problem}: {item.detail}") for item in bad],
    )


@dataclass(frozen=True)
class _Drawing:
    """What splits are drawn by.

    Attributes:
        strata: Class of each row before corrections; the rarest where it has several, int32 [n].
        given: Split that the user gave, int8 [n], -1 for none.
        counting: Whether each row counts for the shares, bool [n].
        val: Share of the rows outside test that validate; 0 for none.
        test: Share of all rows for the test split; 0 for none.
        own: Whether each row is of the data, not added by the user's corrections, bool [n].
    """

    strata: NDArray[np.int32]
    given: NDArray[np.int8]
    counting: NDArray[np.bool_]
    val: float
    test: float
    own: NDArray[np.bool_]


def _build_table(
    listing: Listing,
    metadata: Sequence[ImageMetadata],
    labels: NDArray[np.int32],
    content: NDArray[np.int32],
    look: NDArray[np.int64],
    drawing: _Drawing,
) -> pa.Table:
    """The table of a data set: groups made, and every image in its split."""
    ids = [image.id for image in metadata]
    cluster = _cluster_rows(look, listing.groups)
    split = _assign_splits(ids, listing, cluster, drawing)
    columns = {
        "id": ids,
        "path": listing.paths,
        "label": labels,
        "split": split,
        "given": drawing.given >= 0,
        "group": listing.groups,
        "look": look,
        "cluster": cluster,
        "used": select_used(content, labels, split),
        "width": [image.width for image in metadata],
        "height": [image.height for image in metadata],
        "mode": [image.mode for image in metadata],
        "notes": [",".join(image.notes) for image in metadata],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in _SCHEMA], schema=_SCHEMA)


def _assign_splits(
    ids: Sequence[str], listing: Listing, cluster: NDArray[np.int64], drawing: _Drawing
) -> NDArray[np.int8]:
    """The split of each row. Rows that the user's corrections add train and move no other row.

    Those that are copies of validation or test images follow them.
    """
    rows, added = np.flatnonzero(drawing.own), ~drawing.own
    split = np.zeros(len(ids), np.int8)
    split[rows] = assign_splits(
        [ids[row] for row in rows.tolist()],
        drawing.strata[rows],
        [listing.groups[row] for row in rows.tolist()],
        cluster[rows],
        drawing.given[rows],
        drawing.counting[rows],
        val=drawing.val,
        test=drawing.test,
    )
    split_of_cluster = dict(zip(cluster[rows].tolist(), split[rows].tolist(), strict=True))
    split[added] = [split_of_cluster.get(one, 0) for one in cluster[added].tolist()]
    return split


def _remark_missed_shares(table: pa.Table, classes: Sequence[str], drawing: _Drawing) -> list[Remark]:
    """The remark that a made split differs from its shares by more than one image in some class, or none."""
    val, test = drawing.val, drawing.test
    if val == 0 and test == 0:
        return []
    split, cluster = (np.asarray(table[name].to_numpy()) for name in ("split", "cluster"))
    free = find_free_rows(cluster, drawing.given) & drawing.counting & drawing.own
    counts = np.stack(
        [np.bincount(drawing.strata[free & (split == s)], minlength=len(classes)) for s in range(len(SPLITS))]
    )
    wished = np.outer([(1 - test) * (1 - val), (1 - test) * val, test], counts.sum(axis=0))
    missed = [
        f"{classes[c]!r} has {counted(counts[s, c], f'{name} image')} ({wished[s, c]:.0f} wished)"
        for c in range(len(classes))
        for s, name, share in ((1, "validation", val), (2, "test", test))
        if share and abs(counts[s, c] - wished[s, c]) > 1
    ]
    if not missed:
        return []
    detail = f"Some classes miss their share of a split by more than one image: {listed(missed, 6)}."
    advice = "Images that belong together (copies, or one group) stay in one split; smaller groups come nearer to it."
    return [Remark("missed share", detail, advice)]


def _choose_strata(labels: NDArray[np.int32], label_sets: Sets) -> NDArray[np.int32]:
    """The class of each row by which shares are kept: its label, or of several labels the rarest class."""
    if not label_sets:
        return labels
    sizes: Counter[int] = Counter()
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        sizes.update(dict.fromkeys(label_sets[label], int(count)))
    none = len(sizes)
    rarest = [min(members, key=lambda c: (sizes[c], c), default=none) for members in label_sets]
    return np.array(rarest, np.int32)[labels]


def _cluster_rows(look: NDArray[np.int64], groups: Sequence[str]) -> NDArray[np.int64]:
    named = np.fromiter((row for row, group in enumerate(groups) if group), np.int64)
    same_group = link_equal_values(encode_values(pa.array([groups[row] for row in named.tolist()], pa.string())))
    return label_components(len(look), np.concatenate([link_equal_values(look), named[same_group]]))


def _check_shares(listing: Listing, val: float | None, test: float | None) -> None:
    has_split = {"val": "val" in listing.splits, "test": bool({"val", "test"} & set(listing.splits))}
    for split, share in (("val", val), ("test", test)):
        if share is not None and not 0 < share < 1:
            raise DataError(f"--{split} {share}: expected a share between 0 and 1.", f"For example --{split} 0.2")
        if share is not None and has_split[split]:
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


def _split_index(name: str) -> int:
    return SPLITS.index(name) if name else -1


def _list_broken(facts: Sequence[ImageMetadata | BadImage]) -> Iterable[tuple[int, BadImage]]:
    return ((row, fact) for row, fact in enumerate(facts) if isinstance(fact, BadImage))
