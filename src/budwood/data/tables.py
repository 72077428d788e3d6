"""A CSV, TSV or Parquet table with a path and a label a row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.data.listing import LABEL_SEPARATOR, SPLIT_NAMES, Listing, split_label_names
from budwood.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

PATH_COLUMNS: Final = ("path", "file", "filename", "image")
LABEL_COLUMNS: Final = ("label", "class")
LABELS_COLUMN: Final = "labels"  # of images that have several labels each, or none
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


def list_table(file: Path) -> Listing:
    """List the images that a table names.

    Args:
        file: The table; paths are relative to its folder.

    Returns:
        The files with their labels, splits and groups.

    Raises:
        DataError: When the table cannot be read, lacks a column or has a row without a label or with an unknown split.
    """
    table = _read_table(file)
    path_column = _find_column(file, table.column_names, PATH_COLUMNS)
    multilabel = LABELS_COLUMN in table.column_names and not set(LABEL_COLUMNS) & set(table.column_names)
    label_column = LABELS_COLUMN if multilabel else _find_column(file, table.column_names, LABEL_COLUMNS)
    labels = _read_text_column(table, label_column)
    if multilabel:
        labels = [LABEL_SEPARATOR.join(sorted(set(split_label_names(text)))) for text in labels]
    blank = None if multilabel else next((row for row, label in enumerate(labels) if not label), None)
    if blank is not None:
        raise DataError(f"{file}, row {blank + 1}: the column {label_column!r} is empty.", "Give every image a label.")
    splits = [_parse_split_name(file, row, name) for row, name in enumerate(_read_text_column(table, "split"), 1)]
    paths = [name.replace(os.sep, "/") for name in _read_text_column(table, path_column)]
    groups = _read_text_column(table, "group")
    return Listing("", file.resolve().parent, file.stem, paths, labels, splits, groups, multilabel=multilabel)


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


def _parse_split_name(file: Path, row: int, name: str) -> str:
    if not name:
        return ""
    if name.lower() not in SPLIT_NAMES:
        raise DataError(f"{file}, row {row}: unknown split {name!r}.", did_you_mean(name.lower(), SPLIT_NAMES))
    return SPLIT_NAMES[name.lower()]
