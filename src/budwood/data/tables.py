"""A CSV, TSV or Parquet table with a path and a label a row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.data.label_cells import is_blank, read_label_cells, remark_on_cells
from budwood.data.listing import SPLIT_NAMES, Listing, ReadOptions, Remark, find_splits, select_rows
from budwood.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

PATH_COLUMNS: Final = ("path", "file", "filename", "image")
LABEL_COLUMNS: Final = ("label", "class")
LABELS_COLUMN: Final = "labels"  # of images that have several labels each, or none
VALID_COLUMN: Final = "is_valid"
_VALID_WORDS: Final = {
    **dict.fromkeys(("true", "1", "1.0", "yes"), "val"),
    **dict.fromkeys(("false", "0", "0.0", "no", ""), "train"),
}
TABLES: Final = (".csv", ".tsv", ".parquet")


def lists_images(table: Path) -> bool:
    """Tell whether a file is a table with a column of paths and one of labels.

    Args:
        table: File with the suffix of a table.

    Returns:
        True for a table that `list_table` can read.
    """
    try:
        columns = _read_table(table).column_names
    except DataError:
        return False
    return bool(set(PATH_COLUMNS) & set(columns)) and bool({*LABEL_COLUMNS, LABELS_COLUMN} & set(columns))


def list_table(file: Path, options: ReadOptions) -> Listing:
    """List the images that a table names.

    Args:
        file: The table; paths are relative to its folder.
        options: How to read what could be read in two ways.

    Returns:
        The files with their labels, splits and groups.

    Raises:
        DataError: When the table cannot be read, lacks a column or has a row without a label or with an unknown split.
    """
    table = _read_table(file)
    path_column = _find_column(file, table.column_names, PATH_COLUMNS)
    plural = LABELS_COLUMN in table.column_names and not set(LABEL_COLUMNS) & set(table.column_names)
    label_column = LABELS_COLUMN if plural else _find_column(file, table.column_names, LABEL_COLUMNS)
    paths = [name.replace(os.sep, "/") for name in _read_text_column(table, path_column)]
    splits, remarks = _read_splits(file, table)
    cells = _read_text_column(table, label_column)
    read = read_label_cells(cells, plural=plural, separator=options.label_separator)
    remarks += remark_on_cells(read, label_column, paths)
    listing = Listing(
        "",
        file.resolve().parent,
        file.stem,
        paths,
        read.labels,
        splits,
        _read_text_column(table, "group"),
        multilabel=read.multilabel,
        remarks=remarks,
    )
    return _drop_blanks(file, listing, cells, label_column, plural, options)


def _drop_blanks(
    file: Path, listing: Listing, cells: Sequence[str], column: str, plural: bool, options: ReadOptions
) -> Listing:
    """The listing without the rows that have no label; in a column of labels these are images without any."""
    blank = {cell: is_blank(cell) if options.spelling == "join" else not cell for cell in set(cells)}
    rows = [row for row, cell in enumerate(cells) if blank[cell]]
    if not rows or (plural and not any(cells[row].strip() for row in rows)):
        return listing
    files = tuple(listing.paths[row] for row in rows)
    have = "1 row of the table has no label" if len(rows) == 1 else f"{len(rows):,} rows of the table have no label"
    what = "read as images without any" if plural else "left out"
    first = f"the first, row {rows[0] + 1}, holds {cells[rows[0]]!r}"
    advice = "Write the labels into the table; --spelling keep reads a word such as 'nan' as a class."
    remark = Remark("blank label", f"{have} and {'is' if len(rows) == 1 else 'are'} {what} ({first}).", advice, files)
    if plural:
        return replace(listing, remarks=[*listing.remarks, remark])
    if len(rows) == len(cells):
        raise DataError(f"{file}, row 1: the column {column!r} is empty.", "Give every image a label.")
    kept = select_rows(listing, [row for row, cell in enumerate(cells) if not blank[cell]])
    return replace(kept, remarks=[*listing.remarks, remark])


def _read_splits(file: Path, table: pa.Table) -> tuple[list[str], list[Remark]]:
    """The split of each row, by the column split or, as fastai writes it, is_valid."""
    if "split" not in table.column_names and VALID_COLUMN in table.column_names:
        cells = _read_text_column(table, VALID_COLUMN)
        wrong = next((row for row, cell in enumerate(cells) if cell.strip().lower() not in _VALID_WORDS), None)
        if wrong is not None:
            raise DataError(
                f"{file}, row {wrong + 1}: the column {VALID_COLUMN!r} holds {cells[wrong]!r}; expected True or False.",
                "Write True for validation images, False for training images.",
            )
        advice = "Rename the column where it says something else."
        remark = Remark("is_valid", f"The column {VALID_COLUMN!r} says which images validate.", advice)
        return [_VALID_WORDS[cell.strip().lower()] for cell in cells], [remark]
    cells = _read_text_column(table, "split")
    names = find_splits(set(cells))
    for row, cell in enumerate(cells, 1):
        if cell and cell not in names:
            raise DataError(f"{file}, row {row}: unknown split {cell!r}.", did_you_mean(cell.lower(), SPLIT_NAMES))
    return [names.get(cell, "") for cell in cells], []


def _read_table(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if file.suffix.lower() == ".parquet":
            return pyarrow.parquet.read_table(file)
        names = _read_header(file)
        types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        tabs = pyarrow.csv.ParseOptions(
            delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True
        )
        return pyarrow.csv.read_csv(file, convert_options=types, parse_options=tabs)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a table ({error}).", "Save it as UTF-8 CSV or Parquet.") from error


def _read_header(file: Path) -> list[str]:
    import csv

    with file.open(encoding="utf-8-sig", newline="") as handle:
        return next(csv.reader(handle, delimiter="\t" if file.suffix.lower() == ".tsv" else ","), [])


def _find_column(file: Path, columns: Sequence[str], accepted: Sequence[str]) -> str:
    for name in accepted:
        if name in columns:
            return name
    raise DataError(
        f"{file}: has no column {accepted[0]!r}; found {', '.join(columns) or 'no columns'}.",
        f"{did_you_mean(accepted[0], columns)} Accepted names: {', '.join(accepted)}.",
    )


def _read_text_column(table: pa.Table, column: str) -> list[str]:
    import pyarrow as pa

    if column not in table.column_names:
        return [""] * len(table)
    coded = table[column].cast(pa.string()).combine_chunks().dictionary_encode()
    words = [word or "" for word in coded.dictionary.to_pylist()]  # equal words are one object in memory
    return ["" if index is None else words[index] for index in coded.indices.to_pylist()]
