"""What mistakes cost, read from a table of the user's: true classes by row, called classes by column."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.data.user_csv import read_user_csv
from budwood.errors import DataError

FORM = (
    "A first row with the classes that an image may be called, then a row for each true class: its name and the costs."
)


def read_costs(file: Path, classes: Sequence[str]) -> NDArray[np.float64]:
    """Read a table of costs.

    The first row names the classes that an image may be called, the first column the classes that it may be of, in
    any order; the first cell is free. Cells may be separated by commas, semicolons or tabs.

    Args:
        file: CSV file in UTF-8.
        classes: The classes.

    Returns:
        The cost of calling an image of class i (row) class j (column), float64 [classes, classes].

    Raises:
        DataError: The file cannot be read, a class is missing, unknown or there twice, or a cost is no finite number.
    """
    rows = _read_rows(file)
    called = [name.strip() for name in rows[0][1:]] if rows else []
    true = [row[0].strip() for row in rows[1:]]
    for names, where in ((called, "first row"), (true, "first column")):
        _check_names(file, names, classes, where)
    costs = np.empty((len(classes), len(classes)))
    for name, row in zip(true, rows[1:], strict=True):
        if len(row) != len(classes) + 1:
            raise DataError(f"{file}: expected {len(classes)} costs for {name!r}, found {len(row) - 1}.", FORM)
        for other, cell in zip(called, row[1:], strict=True):
            costs[classes.index(name), classes.index(other)] = _read_cost(file, name, other, cell)
    return costs


def _read_rows(file: Path) -> list[list[str]]:
    text, mark = read_user_csv(file)
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if any(row)]
    except csv.Error as error:
        raise DataError(f"{file}: is no table of costs ({error}).", FORM) from error


def _check_names(file: Path, names: Sequence[str], classes: Sequence[str], where: str) -> None:
    missing = [name for name in classes if name not in names]
    unknown = [name for name in names if name not in classes]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    for what, found in (("lacks", missing), ("has the unknown class", unknown), ("has more than once", twice)):
        if found:
            raise DataError(f"{file}: the {where} {what} {found[0]!r}.", FORM)


def _read_cost(file: Path, name: str, other: str, cell: str) -> float:
    try:
        cost = float(cell)
    except ValueError:
        cost = math.nan
    if not math.isfinite(cost):
        raise DataError(
            f"{file}: expected a number as the cost of calling {name!r} {other!r}, found {cell.strip()!r}.", FORM
        )
    return cost
