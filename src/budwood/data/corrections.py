"""Corrections of labels, kept in a table beside the images, which are never moved or changed.

A table has the columns path, label and correct: `correct` holds the class that an image belongs to, `-` to leave the
image out, or nothing where it is as it should be. `label` is what the data said when the table was written, so that a
table that no longer fits is noticed. Further columns are for the reader.

A row with an empty `label` and the path of a file that is not in the data, absolute or relative to the table, adds that
file to the training images.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from budwood.data.user_csv import read_user_csv
from budwood.errors import DataError, did_you_mean
from budwood.text import FORMULA, TEXT

COLUMNS: Final = ("path", "label", "correct")
OMIT: Final = "-"
SHOWN: Final = 8  # mistakes that a message names


@dataclass(frozen=True)
class Correction:
    """Filled row of a table of corrections.

    Attributes:
        line: Line number in the file, from 1.
        path: Path of the image, relative to the root of the data.
        label: Label of the image when the table was written.
        correct: Class that the image belongs to, or `OMIT` to leave it out.
    """

    line: int
    path: str
    label: str
    correct: str


@dataclass(frozen=True)
class MatchedCorrections:
    """What a table of corrections says of a data set.

    Attributes:
        answers: The right class, or `OMIT`, by row number of the image.
        added: Path of each file that is added to training, absolute, with its class.
    """

    answers: dict[int, str]
    added: dict[str, str]


def match_corrections(
    paths: Sequence[str], labels: Sequence[str], file: Path, root: Path | None = None
) -> MatchedCorrections:
    """Match a table of corrections with the images of a data set.

    Args:
        paths: Paths of the images, relative to the root of the data.
        labels: Present label of each image, in the same order.
        file: CSV file of the corrections.
        root: Root of the data, in which a file that is named by its whole path may lie; None: the paths are all.

    Returns:
        The corrections of images of the data, and the files that are added.

    Raises:
        DataError: When the file cannot be read or lacks a column, or when rows do not fit: unknown paths, classes
            that do not exist, labels that differ from those of the data, two different answers for one image. The
            message counts the mistakes and shows the first `SHOWN` of them.
    """
    rows = {path: row for row, path in enumerate(paths)}
    classes = set(labels)
    answers: dict[int, Correction] = {}
    added: dict[str, Correction] = {}
    wrong: list[str] = []
    for correction in _read_rows(file):
        row = rows.get(correction.path, rows.get(_unescape_cell(correction.path)))
        place = _find_added(correction, file)
        if row is None and place and root is not None:
            row = rows.get(os.path.relpath(place, root.resolve()).replace(os.sep, "/"))
            correction = correction if row is None else replace(correction, label=labels[row])
        problem = "is not an image of the data set"
        if not correction.correct:
            problem = (
                "has its class in the column 'label'; write it into 'correct'"
                if _is_misplaced(correction, file, row)
                else ""
            )
        elif row is not None:
            problem = _explain_problem(correction, labels[row], classes, answers.get(row))
            answers.setdefault(row, correction)
        elif place:
            problem = _explain_problem(correction, "", classes, added.get(place))
            added.setdefault(place, correction)
        elif not correction.label:
            problem = "is not an image of the data set, nor a file beside the table that could be added"
        if problem:
            wrong.append(f"line {correction.line}: {correction.path} {problem}")
    if wrong:
        raise _make_data_error(file, wrong)
    return MatchedCorrections(
        {row: correction.correct for row, correction in answers.items()},
        {place: correction.correct for place, correction in added.items() if correction.correct != OMIT},
    )


def _find_added(correction: Correction, file: Path) -> str:
    """The absolute path of a file that a row adds; empty where it names none."""
    if correction.label:
        return ""
    for path in (correction.path, _unescape_cell(correction.path)):
        place = file.parent.resolve() / Path(path).expanduser()
        if path.strip() and place.is_file():
            return str(place)
    return ""


def _is_misplaced(correction: Correction, file: Path, row: int | None) -> bool:
    """Whether a row without an answer has the class of a file that could be added in the wrong column."""
    return row is None and bool(correction.label) and bool(_find_added(replace(correction, label=""), file))


def read_corrections(file: Path) -> list[Correction]:
    """Read the filled rows of a table of corrections.

    Cells may be separated by commas, semicolons or tabs. Rows with an empty column `correct` are skipped.

    Args:
        file: CSV file in UTF-8, with the columns path, label and correct.

    Returns:
        The filled rows, in the order of the file.

    Raises:
        DataError: When the file cannot be read, is a device, is not UTF-8 or lacks a column.
    """
    return [correction for correction in _read_rows(file) if correction.correct]


def is_filled(table: Path) -> bool:
    """Tell whether somebody has filled in a table of corrections.

    Args:
        table: CSV file.

    Returns:
        True where it has a correction, or is no such table, so that it is somebody's all the same.
    """
    try:
        return bool(read_corrections(table))
    except DataError:
        return True


def _read_rows(file: Path) -> list[Correction]:
    """All rows; `correct` is empty where nothing is to be corrected."""
    text, mark = read_user_csv(file)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=mark)
    names = [name.strip() for name in rows.fieldnames or ()]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{file}: has no column {', '.join(map(repr, missing))}; found {', '.join(names) or 'no columns'}.",
            f"A table of corrections has the columns {', '.join(COLUMNS)}.",
        )
    rows.fieldnames = names
    return [
        Correction(rows.line_num, row["path"] or "", _unescape_cell(row["label"]), _unescape_cell(row["correct"]))
        for row in rows
    ]


def _unescape_cell(text: str | None) -> str:
    """What a cell says, without the sign that it is text."""
    bare = (text or "").strip()
    return bare[1:] if bare.startswith(TEXT) and bare[1:].startswith(FORMULA) else bare


def _explain_problem(correction: Correction, label: str, classes: set[str], other: Correction | None) -> str:
    """What is wrong with a correction of an image that the data have, in words; empty when it can be applied."""
    if correction.label != label:
        return f"has the label {label!r} in the data, but {correction.label!r} in the table"
    if correction.correct != OMIT and correction.correct not in classes:
        return f"cannot be {correction.correct!r}: there is no such class. {did_you_mean(correction.correct, classes)}"
    if other is not None and other.correct != correction.correct:
        return f"is {other.correct!r} in line {other.line} and {correction.correct!r} here"
    return ""


def _make_data_error(file: Path, lines: Sequence[str]) -> DataError:
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    problems = "; ".join(line.rstrip(".") for line in lines[:SHOWN])
    return DataError(
        f"{file} has {count}: {problems}{more}.", "Correct these lines, or leave their column 'correct' empty."
    )
