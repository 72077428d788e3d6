"""Tables that a program has - of pandas, Polars, PyArrow or Hugging Face's library - as rows of images and labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budwood.data.given_rows import GivenRows
from budwood.data.listing import ReadOptions
from budwood.data.table_file import TableFile
from budwood.data.tables import VALID_COLUMN, find_image_column, find_label_column, read_splits
from budwood.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME: Final = "the data frame"
_BESIDE: Final = ("split", VALID_COLUMN, "group")


@dataclass(frozen=True)
class _Columns:
    """A table of any library.

    Attributes:
        headers: Names of the columns.
        count: Number of rows.
        read: The values of a column, by its number.
        class_names: Names of the classes of a column of class numbers, by its header.
        name: What it is called in messages.
    """

    headers: Sequence[str]
    count: int
    read: Callable[[int], Sequence[Any]]
    class_names: Mapping[str, Sequence[str]]
    name: str = _NAME


def is_frame(source: object) -> bool:
    """Tell whether a value is a table of images and labels.

    Args:
        source: Anything.

    Returns:
        True for a frame of pandas or Polars, a table of PyArrow, and a data set of Hugging Face's library.
    """
    # What no other kind has comes first: a lazy frame that is asked for its columns computes them, with a warning.
    return any(
        all(hasattr(source, name) for name in names)
        for names in (
            ("iloc", "columns"),
            ("to_arrow", "columns"),
            ("collect", "collect_schema"),
            ("schema", "column_names"),
        )
    ) or _is_hugging_face(source)


def read_frame(source: Any, options: ReadOptions) -> GivenRows:
    """Read the rows of a table.

    Args:
        source: A value for which `is_frame`.
        options: How to read it, with the names of its columns where they are not the usual ones.

    Returns:
        The rows; labels are the text of their cells.

    Raises:
        DataError: When a column is missing, or a cell names no split.
    """
    columns, options = _open(source, options)
    names = TableFile(Path(columns.name), _make_arrow(columns, ()))
    image, label = find_image_column(names, options), find_label_column(names, options)
    beside = [number for name in _BESIDE if (number := names.find((name,))) is not None]
    table = TableFile(names.file, _make_arrow(columns, [label, *beside]))
    splits, remarks = read_splits(table)
    images, cells = columns.read(image), table.read_text(label)
    return GivenRows(
        name=columns.name,
        count=columns.count,
        take=lambda row: (images[row], cells[row]),
        splits=splits,
        groups=table.read_text(table.find(("group",))),
        header=columns.headers[label].strip(),
        remarks=remarks,
    )


def read_frame_images(source: Any) -> tuple[int, Callable[[int], object]]:
    """Read the column of images of a table, which needs no labels.

    Args:
        source: A value for which `is_frame`.

    Returns:
        The number of images, and what gives one by its number.

    Raises:
        DataError: When there is no such column, or several.
    """
    columns, options = _open(source, ReadOptions())
    images = columns.read(find_image_column(TableFile(Path(columns.name), _make_arrow(columns, ())), options))
    return columns.count, lambda row: images[row]


def _open(source: Any, options: ReadOptions) -> tuple[_Columns, ReadOptions]:
    if hasattr(source, "collect") and not hasattr(source, "iloc") and not hasattr(source, "__len__"):
        source = source.collect()  # a lazy frame of Polars
    return _open_hugging_face(source, options) if _is_hugging_face(source) else (_open_columns(source), options)


def _open_columns(source: Any) -> _Columns:
    if hasattr(source, "iloc"):
        headers = [str(name) for name in source.columns]
        return _Columns(headers, len(source), lambda number: source.iloc[:, number].tolist(), {})
    if hasattr(source, "to_arrow"):
        return _Columns(list(source.columns), len(source), lambda number: source[:, number].to_list(), {})
    return _Columns(list(source.column_names), len(source), lambda number: source.column(number).to_pylist(), {})


def _is_hugging_face(source: object) -> bool:
    return hasattr(source, "features") and hasattr(source, "cast_column")


def _open_hugging_face(source: Any, options: ReadOptions) -> tuple[_Columns, ReadOptions]:
    """A data set of Hugging Face's library, whose features say which columns hold images and classes."""
    if not hasattr(source, "__len__"):
        raise DataError(
            "the data set: is streamed, so that its images cannot be split.",
            "Load it without streaming=True.",
        )
    features: Mapping[str, Any] = source.features
    kinds = {header: type(_inner(feature)).__name__ for header, feature in features.items()}
    image, label = ([header for header, kind in kinds.items() if kind == name] for name in ("Image", "ClassLabel"))
    if options.image_column is None and len(image) == 1:
        options = replace(options, image_column=image[0])
    if options.label_column is None and len(label) == 1:
        options = replace(options, label_column=label[0])
    for header in image:  # the bytes of the files, as they are
        source = source.cast_column(header, type(features[header])(decode=False))
    names = {header: list(_inner(features[header]).names) for header in label}
    headers = list(source.column_names)
    return _Columns(
        headers, len(source), lambda number: _StoredColumn(source, headers[number]), names, "the data set"
    ), options


@dataclass(frozen=True)
class _StoredColumn(Sequence[Any]):
    """A column of a data set of Hugging Face's library, of which a row at a time is read."""

    source: Any
    header: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: Any) -> Any:
        return self.source[row][self.header]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source[self.header])


def _inner(feature: Any) -> Any:
    """What a list of a feature is a list of."""
    while not hasattr(feature, "names") and hasattr(feature, "feature"):
        feature = feature.feature
    return feature[0] if isinstance(feature, list) and feature else feature


def _make_arrow(columns: _Columns, used: Sequence[int]) -> pa.Table:
    """A table with all headers, and the values of some columns."""
    import pyarrow as pa

    arrays = [
        _to_arrow(list(columns.read(number))) if number in used else pa.nulls(columns.count)
        for number in range(len(columns.headers))
    ]
    features = {header: {"names": list(names)} for header, names in columns.class_names.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    return pa.table(
        arrays,
        schema=pa.schema(
            [(header, array.type) for header, array in zip(columns.headers, arrays, strict=True)], metadata=metadata
        ),
    )


def _to_arrow(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types
        return pa.array([None if value is None or value != value else str(value) for value in values], pa.string())
