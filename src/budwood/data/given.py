"""A data set from what a program has in memory: images are kept as files, and labels as a table, in the cache.

From there on they are like any others: split by content, checked for copies, read again by later commands and other
processes. The names of the folder and of the table depend on the contents alone, so that the same images are kept once,
and a program that gives them again restores what a full cache has lost.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from PIL import Image

from budwood.data.frames import is_frame, read_frame, read_frame_images
from budwood.data.given_rows import FORMS, GivenRows, join_splits, pair, read_rows, write_label
from budwood.data.listing import Listing, ReadOptions, Remark, find_splits
from budwood.data.pixel_files import read_given
from budwood.data.table_paths import find_paths
from budwood.data.tables import TextCells, label_rows
from budwood.errors import DataError
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.storage.checked_files import digest_bytes
from budwood.storage.context import Context
from budwood.storage.folder_manifest import write_manifest
from budwood.storage.unpacked import ensure_unpacked
from budwood.text import counted

_FOLDER: Final = "images"
_SUFFIXES: Final = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"))


@dataclass(frozen=True)
class _Image:
    """An image as it was given.

    Attributes:
        path: Path of a file; empty for an image in memory.
        digest: Content id of an image in memory.
        suffix: Suffix of its file.
    """

    path: str = ""
    digest: str = ""
    suffix: str = ""


def list_given(
    source: Any, labels: Any, classes: Sequence[str], root: Path, options: ReadOptions, context: Context
) -> Listing:
    """List images that a program has, and keep those that are no files.

    Args:
        source: Images with labels, in a form that `scan` takes.
        labels: The label of each image, where `source` has none; None otherwise.
        classes: Name of each class number; empty for none.
        root: Folder that relative paths start from.
        options: How to read what could be read in two ways.
        context: The cache folder, and where notes and steps go.

    Returns:
        The files with their labels and splits.

    Raises:
        DataError: When a form, a shape, a type, a number of labels or a label is wrong.
        StorageError: When images cannot be written to the cache.
    """
    rows = read_source(source, labels, options)
    if not rows.count:
        raise DataError(f"{rows.name}: there are none.", FORMS)
    if rows.header and classes:
        raise DataError(
            "classes: does not apply to a table.", "Write the names of the classes into the column of labels."
        )
    rows = replace(rows, classes=classes or rows.classes)
    images, answers = _read_all(rows, context)
    column = _write_cells(rows, answers)
    folder = _keep_images(rows, images, context)
    inside = {row: f"{_FOLDER}/{row:07}{image.suffix}" for row, image in enumerate(images) if image.digest}
    written, found = find_paths(root.resolve(), [image.path for image in images if image.path])
    places = iter(str(root.resolve() / path) for path in written)
    paths = [inside[row] if row in inside else next(places) for row in range(len(images))]
    table = _keep_table(folder, _format_table(rows, paths, column))
    listing = Listing(str(table), folder, rows.name.removeprefix("the "), paths, (), rows.splits, rows.groups)
    moved = [remark for remark in found if remark.kind != "outside"]  # a list has no folder to lie in
    remarks = [_remark_on_memory(len(inside), len(images), table), *rows.remarks, *moved]
    listing = replace(listing if inside else _start_at_files(listing), remarks=remarks)
    return label_rows(listing, column, options)


def read_source(source: Any, labels: Any = None, options: ReadOptions | None = None) -> GivenRows:
    """Read the rows of anything that is no path; no image is kept.

    Args:
        source: Images with labels, in a form that `scan` takes.
        labels: The label of each image, where `source` has none; None otherwise.
        options: How to read a table; None for the usual ways.

    Returns:
        The rows.

    Raises:
        DataError: When it has another form, or there are not as many labels as images.
    """
    options = options or ReadOptions()
    if labels is None and isinstance(source, Mapping):
        splits = find_splits(str(name) for name in source)
        unknown = [str(name) for name in source if str(name) not in splits]
        if unknown or not source:
            raise DataError(
                f"the images: expected a mapping from train, val and test, found the key {unknown[0]!r}."
                if unknown
                else "the images: the mapping is empty.",
                FORMS,
            )
        return join_splits({splits[str(name)]: read_source(part, None, options) for name, part in source.items()})
    if labels is not None:
        rows = pair(source, labels)
    else:
        rows = read_frame(source, options) if is_frame(source) else read_rows(source)
    if not rows.header and (options.image_column or options.label_column):
        raise DataError("image_column, label_column: do not apply to what is no table.", "Leave them out.")
    return rows


def list_given_images(source: Any) -> tuple[int, Callable[[int], object]]:
    """List the images of anything, with labels or without; no image is kept.

    Args:
        source: One image: the bytes of a file, a PIL image, or an array or tensor of three dimensions or two. Or
            several: a list, an array or tensor of four dimensions, a frame, or a data set of images or of (image,
            label).

    Returns:
        The number of images, and what gives one by its number.

    Raises:
        DataError: When it has another form.
    """
    if is_frame(source):
        return read_frame_images(source)
    if isinstance(source, (bytes, bytearray, Image.Image)) or len(getattr(source, "shape", (0,) * 4)) in (2, 3):
        return 1, lambda row: source
    if isinstance(source, Mapping) or not (isinstance(source, Iterable) or hasattr(source, "__getitem__")):
        raise DataError(
            f"images: expected paths or images, found {type(source).__name__}.",
            "Give paths, the bytes of files, PIL images, arrays, a data frame or a data set.",
        )
    is_listed = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "to_list")
    items = source if is_listed else list(source)

    def take(row: int) -> object:
        item = items[row]
        return item[0] if isinstance(item, (tuple, list)) and len(item) == 2 else item

    return len(items), take


def _read_all(rows: GivenRows, context: Context) -> tuple[list[_Image], list[object]]:
    """What identifies each image, and its label."""
    images, answers = [], []
    with context.progress.bar("Reading images", rows.count) as step:
        for row in range(rows.count):
            image, label = rows.take(row)
            content = read_given(image, f"image {row}")
            answers.append(label)
            images.append(
                _Image(path=str(content.expanduser()))
                if isinstance(content, Path)
                else _Image(digest=digest_bytes(content), suffix=_find_suffix(content))
            )
            step(1)
    return images, answers


def _find_suffix(content: bytes) -> str:
    return next((suffix for beginning, suffix in _SUFFIXES if content.startswith(beginning)), "")


def _keep_images(rows: GivenRows, images: Sequence[_Image], context: Context) -> Path:
    """The folder of the cache with the images that are no files, written where it is not there."""
    key = hashlib.blake2b(json.dumps([image.digest or image.path for image in images]).encode(), digest_size=12)
    folder = context.cache / "archives" / f"given-{key.hexdigest()}"

    def fill(draft: Path) -> tuple[tuple[str, str], ...]:
        names = []
        (draft / _FOLDER).mkdir()
        for row, image in enumerate(images):
            if image.digest:
                names.append(f"{_FOLDER}/{row:07}{image.suffix}")
                (draft / names[-1]).write_bytes(_read_again(rows, row, image))
        write_manifest(draft, names, {}, ())
        return ()

    ensure_unpacked(folder, "the images of the program", context, fill)
    return folder


def _read_again(rows: GivenRows, row: int, image: _Image) -> bytes:
    content = read_given(rows.take(row)[0], f"image {row}")
    if isinstance(content, Path) or digest_bytes(content) != image.digest:
        raise DataError(
            f"{rows.name}: image {row} is another each time that it is read.",
            "Give the data set without random transforms; Budwood augments while it trains.",
        )
    return content


def _write_cells(rows: GivenRows, answers: Sequence[object]) -> TextCells:
    """The labels as the cells of a table."""
    if rows.header:
        return TextCells(rows.name, rows.header, [str(answer) for answer in answers])
    names = [write_label(answer, rows.classes, f"image {row}") for row, answer in enumerate(answers)]
    if not any(isinstance(name, list) for name in names):
        return TextCells(rows.name, "label", [str(name) for name in names])
    lists = [name if isinstance(name, list) else [name] for name in names]
    return TextCells(rows.name, "labels", [json.dumps(name, ensure_ascii=False) for name in lists])


def _keep_table(folder: Path, text: str) -> Path:
    """The table of labels in a folder, under a name that its text decides; written where it is not there."""
    table = folder / f"labels-{digest_bytes(text.encode())[:12]}.csv"
    if not table.is_file():
        with raise_storage_errors(table):
            write_text(table, text)
    return table


def _format_table(rows: GivenRows, paths: Sequence[str], column: TextCells) -> str:
    """A table that gives the same data set when it is read."""
    plural = column.header.lower() in ("labels", "tags")
    columns = {"path": paths, "labels" if plural else "label": column.cells}
    columns |= {name: cells for name, cells in (("split", rows.splits), ("group", rows.groups)) if any(cells)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def _start_at_files(listing: Listing) -> Listing:
    """A listing of files with their paths relative to the folder that all have in common."""
    try:
        common = Path(os.path.commonpath([Path(path).parent for path in listing.paths]))
    except ValueError:  # on two drives
        return listing
    return replace(
        listing,
        root=common,
        name=common.name or listing.name,
        paths=[Path(path).relative_to(common).as_posix() for path in listing.paths],
    )


def _remark_on_memory(kept: int, count: int, table: Path) -> Remark:
    what = f"{counted(kept, 'image')} of {count:,} and the labels" if kept else "The labels"
    detail = f"{what} were given by a program, not as files; they are kept in {table.parent}."
    advice = (
        f"The command line reads them from {table}. On another machine, or where the cache was emptied, run the "
        "program again: the same images have the same names."
    )
    return Remark("in memory", detail, advice)
