"""A CSV, TSV or Parquet table with a path and a label a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.data.label_cells import is_blank, read_label_cells, remark_on_cells
from budwood.data.listing import SPLIT_NAMES, Listing, ReadOptions, Remark, find_splits, select_rows
from budwood.data.parquet_images import extract_images, holds_bytes
from budwood.data.table_file import TableFile, read_table
from budwood.data.table_paths import find_paths
from budwood.errors import DataError, did_you_mean
from budwood.storage.context import Context

if TYPE_CHECKING:
    import pyarrow as pa

PATH_COLUMNS: Final = (
    "path",
    "file",
    "filename",
    "image",
    "file_name",
    "filepath",
    "file_path",
    "image_path",
    "image_name",
    "image_id",
    "img",
)
LABEL_COLUMNS: Final = ("label", "class", "target", "category")
LABELS_COLUMNS: Final = ("labels", "tags")  # of images that have several labels each, or none
VALID_COLUMN: Final = "is_valid"
_VALID_WORDS: Final = {
    **dict.fromkeys(("true", "1", "1.0", "yes"), "val"),
    **dict.fromkeys(("false", "0", "0.0", "no", ""), "train"),
}


def lists_images(table: Path) -> bool:
    """Tell whether a file is a table with a column of paths and one of labels.

    Args:
        table: File with the suffix of a table.

    Returns:
        True for a table that `list_table` can read.
    """
    try:
        read = read_table(table)
        return read.find(PATH_COLUMNS) is not None and read.find((*LABEL_COLUMNS, *LABELS_COLUMNS)) is not None
    except DataError:
        return False


def list_table(file: Path, options: ReadOptions, context: Context) -> Listing:
    """List the images that a table names.

    Args:
        file: The table; paths are relative to its folder.
        options: How to read what could be read in two ways.
        context: The cache folder, for images that are inside the table, and where notes go.

    Returns:
        The files with their labels, splits and groups.

    Raises:
        DataError: When the table cannot be read, lacks a column or has a row without a label or with an unknown split.
        StorageError: When images cannot be written to the cache.
    """
    table = read_table(file)
    path_column, label_column = find_image_column(table, options), find_label_column(table, options)
    splits, remarks = read_splits(table)
    groups = table.read_text(table.find(("group",)))
    cells = TextCells(str(file), table.headers[label_column].strip(), table.read_text(label_column))
    root, paths, found = _read_paths(table, path_column, context)
    listing = Listing("", root, file.stem, paths, (), splits, groups, remarks=[*remarks, *found])
    return label_rows(listing, cells, options)


@dataclass(frozen=True)
class TextCells:
    """A column of labels as text.

    Attributes:
        where: What the column is in, for messages: the path of a file, or what a program gave.
        header: Header of the column.
        cells: Content of each cell.
    """

    where: str
    header: str
    cells: Sequence[str]


def find_image_column(table: TableFile, options: ReadOptions) -> int:
    """Find the column of paths or images.

    Args:
        table: The table.
        options: Has the header, or None for the usual ones.

    Returns:
        Number of the column from 0.

    Raises:
        DataError: When there is none, or several.
    """
    return table.require(PATH_COLUMNS) if options.image_column is None else table.require_exactly(options.image_column)


def find_label_column(table: TableFile, options: ReadOptions) -> int:
    """Find the column of labels.

    Args:
        table: The table.
        options: Has the header, or None for the usual ones.

    Returns:
        Number of the column from 0.

    Raises:
        DataError: When there is none, or several.
    """
    if options.label_column is not None:
        return table.require_exactly(options.label_column)
    for names in (LABEL_COLUMNS, LABELS_COLUMNS):
        if (found := table.find(names)) is not None:
            return found
    return table.require(LABEL_COLUMNS)


def label_rows(listing: Listing, column: TextCells, options: ReadOptions) -> Listing:
    """Label files by the cells of a table.

    Args:
        listing: Files without labels.
        column: The cells, one a file.
        options: How to read what could be read in two ways.

    Returns:
        The files with their labels, without those whose cell is blank, and remarks on how cells were read.

    Raises:
        DataError: When all cells are blank, or one of several labels has a semicolon in it.
    """
    plural, cells, paths = column.header.lower() in LABELS_COLUMNS, column.cells, listing.paths
    try:
        read = read_label_cells(cells, plural=plural, separator=options.label_separator)
    except DataError as error:
        raise DataError(f"{column.where}: {error.message}", error.hint) from error
    blank = _find_blanks(column, plural, options)
    remarks = [*remark_on_cells(read, column.header, paths), *_remark_on_blanks(cells, paths, blank, plural)]
    listing = replace(listing, labels=read.labels, multilabel=read.multilabel, remarks=[*listing.remarks, *remarks])
    return listing if plural or not blank else select_rows(listing, sorted(set(range(len(cells))) - set(blank)))


def _read_paths(table: TableFile, column: int, context: Context) -> tuple[Path, list[str], list[Remark]]:
    """The folder of the images, and the path of each in it; images inside the table are written to the cache."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values: pa.ChunkedArray = table.table.column(column)
    if holds_bytes(values):
        return *extract_images(table.file, values, context), []
    if pa.types.is_struct(values.type) and values.type.get_field_index("path") >= 0:
        fields = pa.table({table.headers[column]: pc.struct_field(values, "path")})
        written = TableFile(table.file, fields).read_text(0)
    else:
        written = table.read_text(column)
    root = table.file.resolve().parent
    return root, *find_paths(root, written)


def _find_blanks(column: TextCells, plural: bool, options: ReadOptions) -> list[int]:
    """The rows that have no label, or a word that says so."""
    cells = column.cells
    blank = {cell: is_blank(cell) if options.spelling == "join" else not cell for cell in set(cells)}
    rows = [row for row, cell in enumerate(cells) if blank[cell]]
    if rows and len(rows) == len(cells) and not plural:
        raise DataError(f"{column.where}, row 1: the column {column.header!r} is empty.", "Give every image a label.")
    return rows


def _remark_on_blanks(cells: Sequence[str], paths: Sequence[str], rows: Sequence[int], plural: bool) -> list[Remark]:
    """What to say of rows without a label; in a column of labels, empty ones are images without any."""
    if not rows or (plural and not any(cells[row].strip() for row in rows)):
        return []
    have = "1 row of the table has no label" if len(rows) == 1 else f"{len(rows):,} rows of the table have no label"
    verb = "is" if len(rows) == 1 else "are"
    what = f"{verb} read as {'an image' if len(rows) == 1 else 'images'} without any" if plural else f"{verb} left out"
    detail = f"{have} and {what} (the first, row {rows[0] + 1}, holds {cells[rows[0]]!r})."
    advice = "Write the labels into the table; --spelling keep reads a word such as 'nan' as a class."
    return [Remark("blank label", detail, advice, tuple(paths[row] for row in rows))]


def read_splits(table: TableFile) -> tuple[list[str], list[Remark]]:
    """Read the split of each row, by the column split or, as fastai writes it, is_valid.

    Args:
        table: The table.

    Returns:
        `train`, `val`, `test` or, where none is given, an empty text for each row; and remarks.

    Raises:
        DataError: When a cell names no split.
    """
    split, valid = table.find(("split",)), table.find((VALID_COLUMN,))
    if split is None and valid is not None:
        cells = [cell.strip().lower() for cell in table.read_text(valid)]
        wrong = next((row for row, cell in enumerate(cells) if cell not in _VALID_WORDS), None)
        if wrong is not None:
            raise DataError(
                f"{table.file}, row {wrong + 1}: the column {VALID_COLUMN!r} holds {cells[wrong]!r}; "
                "expected True or False.",
                "Write True for validation images, False for training images.",
            )
        advice = "Rename the column where it says something else."
        remark = Remark("is_valid", f"The column {VALID_COLUMN!r} says which images validate.", advice)
        return [_VALID_WORDS[cell] for cell in cells], [remark]
    cells = table.read_text(split)
    names = find_splits(set(cells))
    for row, cell in enumerate(cells, 1):
        if cell and cell not in names:
            raise DataError(
                f"{table.file}, row {row}: unknown split {cell!r}.", did_you_mean(cell.lower(), SPLIT_NAMES)
            )
    return [names.get(cell, "") for cell in cells], []
