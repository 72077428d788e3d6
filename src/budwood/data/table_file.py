"""A CSV, TSV or Parquet file as columns of text, whatever its delimiter and however its headers are written."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.data.file_tree import check_regular
from budwood.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

TABLES: Final = (".csv", ".tsv", ".parquet")
_DELIMITERS: Final = (",", ";", "\t", "|")


@dataclass(frozen=True)
class TableFile:
    """Table that was read.

    Attributes:
        file: The file.
        table: Its columns, under the headers as they are written.
    """

    file: Path
    table: pa.Table

    @property
    def headers(self) -> list[str]:
        """The headers as they are written."""
        return list(self.table.column_names)

    def find(self, accepted: Sequence[str]) -> int | None:
        """Find a column by its header; case and spaces around it do not count.

        Args:
            accepted: Names of the header, the preferred one first.

        Returns:
            Number of the column from 0; None if there is none.

        Raises:
            DataError: When several columns have that name.
        """
        for name in accepted:
            exact = [number for number, header in enumerate(self.headers) if header == name]
            alike = [number for number, header in enumerate(self.headers) if header.strip().lower() == name]
            found = exact or alike
            if len(found) > 1:
                written = ", ".join(repr(self.headers[number]) for number in found)
                raise DataError(
                    f"{self.file}: has the column {name!r} {len(found)} times ({written}); expected it once.",
                    "Rename or remove the others.",
                )
            if found:
                return found[0]
        return None

    def require(self, accepted: Sequence[str]) -> int:
        """Find a column that a table must have.

        Args:
            accepted: Names of the header, the preferred one first.

        Returns:
            Number of the column from 0.

        Raises:
            DataError: When there is none, or several.
        """
        found = self.find(accepted)
        if found is None:
            raise DataError(
                f"{self.file}: has no column {accepted[0]!r}; found {', '.join(self.headers) or 'no columns'}.",
                f"{did_you_mean(accepted[0], self.headers)} Accepted names: {', '.join(accepted)}.",
            )
        return found

    def require_exactly(self, name: str) -> int:
        """Find a column that the user has named.

        Args:
            name: Its header.

        Returns:
            Number of the column from 0.

        Raises:
            DataError: When there is none, or several.
        """
        found = self.find((name, name.strip().lower()))
        if found is None:
            raise DataError(f"{self.file}: has no column {name!r}.", did_you_mean(name, self.headers))
        return found

    def read_text(self, column: int | None) -> list[str]:
        """Read a column as text.

        Args:
            column: Number of the column; None for one that the table lacks.

        Returns:
            A text for each row, empty where there is none. Lists are written as JSON; class numbers as the names
            that a Hugging Face table has for them.

        Raises:
            DataError: When a class number has no name, or the column holds neither text, numbers nor lists of them.
        """
        import pyarrow as pa

        if column is None:
            return [""] * len(self.table)
        values, header = self.table.column(column), self.headers[column]
        names = _read_class_names(self.table, header)
        try:
            if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or names:
                return [self._write(value, names, row, header) for row, value in enumerate(values.to_pylist(), 1)]
            coded = values.cast(pa.string()).combine_chunks().dictionary_encode()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{self.file}: the column {header!r} holds {values.type}; expected text or numbers.",
                "Write the column as text.",
            ) from error
        words = [word or "" for word in coded.dictionary.to_pylist()]  # equal words are one object in memory
        if header != header.strip():
            words = [word.strip() for word in words]
        return ["" if index is None else words[index] for index in coded.indices.to_pylist()]

    def _write(self, value: object, names: Sequence[str], row: int, header: str) -> str:
        if isinstance(value, list):
            return json.dumps([self._write(one, names, row, header) for one in value], ensure_ascii=False)
        if value is None or (names and value == -1):
            return ""
        if not names or not isinstance(value, int):
            return str(value)
        if not 0 <= value < len(names):
            raise DataError(
                f"{self.file}, row {row}: the column {header!r} holds the class number {value}, "
                f"but has names for {len(names)} classes.",
                "Write the table again, with the names of all classes.",
            )
        return names[value]


def read_table(file: Path) -> TableFile:
    """Read a table.

    Args:
        file: File in UTF-8 CSV or TSV, with any of the delimiters `,`, `;`, tab and `|`, or Parquet.

    Returns:
        Its columns; those of a CSV or TSV file hold text.

    Raises:
        DataError: When the file cannot be read as a table.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    check_regular(file)
    try:
        if file.suffix.lower() == ".parquet":
            return TableFile(file, pyarrow.parquet.read_table(file))
        names, delimiter = _read_header(file)
        types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        options = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        return TableFile(file, pyarrow.csv.read_csv(file, convert_options=types, parse_options=options))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a table ({error}).", "Save it as UTF-8 CSV or Parquet.") from error


def _read_header(file: Path) -> tuple[list[str], str]:
    """The headers of a file of text, and its delimiter: the usual one where the first line has it."""
    usual = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as handle:
        first = handle.readline()
        delimiter = usual if usual in first else max((usual, *_DELIMITERS), key=first.count)
        handle.seek(0)
        return next(csv.reader(handle, delimiter=delimiter), []), delimiter


def _read_class_names(table: pa.Table, header: str) -> list[str]:
    """The names of the classes of a column that holds their numbers, as Hugging Face's library keeps them."""
    try:
        feature = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"][header]
        while "names" not in feature:
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        return [str(name) for name in feature["names"]]
    except (KeyError, ValueError, TypeError, IndexError):
        return []
