"""Cells of a table that hold several labels, or none: which they are, and the labels in them.

A cell is a list (`['cat', 'dog']`, as Python, NumPy or JSON write it), or holds labels between semicolons, bars, commas
or spaces. Since all of these occur in the name of a class, too, the table has to show that they part labels.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from budwood.data.listing import LABEL_SEPARATOR, Remark
from budwood.errors import DataError
from budwood.text import counted

NO_SEPARATOR: Final = "none"
SPACE: Final = "space"
LIST: Final = "a list"
SEPARATORS: Final = (";", "|", ",", SPACE)
_BLANKS: Final = frozenset({"", "nan", "<na>", "null", "#n/a"})
_QUOTED: Final = re.compile(r"""\[\s*(?:(['"]).*?\1\s*)*\]""", re.DOTALL)


@dataclass(frozen=True)
class LabelCells:
    """Labels of a column.

    Attributes:
        labels: Label of each row; with `multilabel`, its labels in order, separated by semicolons.
        multilabel: Whether a row has any number of labels.
        how: What parts the labels of a cell, in words; empty where nothing was found to part them.
        unsure: Separator that may part the labels of a cell, but was not taken to; empty if there is none.
    """

    labels: Sequence[str]
    multilabel: bool
    how: str = ""
    unsure: str = ""


def is_blank(text: str) -> bool:
    """Tell whether a text is what tables hold in place of a label that is missing.

    Args:
        text: Content of a cell.

    Returns:
        True for nothing, spaces, `nan`, `<NA>`, `null` and `#N/A`; `none` is the name of a class.
    """
    return text.strip().lower() in _BLANKS


def read_label_cells(cells: Sequence[str], *, plural: bool, separator: str | None) -> LabelCells:
    """Find out whether the cells of a column hold several labels, and part them.

    Args:
        cells: Content of each cell.
        plural: Whether the header says that there are several labels.
        separator: What parts the labels of a cell: a text, `space`, or `none` where a cell is one label; None to
            find it out.

    Returns:
        The labels of the rows.

    Raises:
        DataError: When one of several labels has a semicolon in it.
    """
    names = sorted({cell for cell in cells if cell.strip()})
    if separator is not None:
        parts = {name: [name.strip()] if separator == NO_SEPARATOR else _split(name, separator) for name in names}
        return _join(cells, parts) if plural or separator != NO_SEPARATOR else LabelCells(cells, False)
    if plural and any(LABEL_SEPARATOR in name for name in names):
        return _join(cells, {name: _split(name, LABEL_SEPARATOR) for name in names})
    lists = {name: _parse_list(name) for name in names}
    if lists and not plural and all(found is not None and len(found) == 1 for found in lists.values()):
        return LabelCells([labels[0] if (labels := lists.get(cell)) else "" for cell in cells], False, LIST)
    if any(found is not None for found in lists.values()):
        return _join(cells, {name: [name] if found is None else found for name, found in lists.items()}, LIST)
    unsure = ""
    for candidate in SEPARATORS:
        parts = {name: _split(name, candidate) for name in names if not is_blank(name)}
        if _parts_labels(parts, candidate, plural):
            return _join(cells, parts, SPACE if candidate == SPACE else repr(candidate))
        if candidate != SPACE and not unsure and _shares_a_part(parts):
            unsure = candidate
    if plural:
        return _join(cells, {name: [name.strip()] for name in names}, unsure=unsure)
    return LabelCells(cells, False, unsure=unsure)


def remark_on_cells(read: LabelCells, column: str, paths: Sequence[str]) -> list[Remark]:
    """Say how the cells of a column were read, where another reading is plausible.

    Args:
        read: Labels of the rows.
        column: Header of the column.
        paths: Path of the image of each row.

    Returns:
        One remark or none.
    """
    if read.how and not read.multilabel:
        detail = f"Cells of the column {column!r} are lists of one label each, and are read as that label."
        return [Remark("several labels", detail, "Where the brackets belong to it, give --label-separator none.")]
    if read.how:
        files = tuple(path for path, label in zip(paths, read.labels, strict=True) if label.count(LABEL_SEPARATOR) > 0)
        have = f"{counted(len(files), 'image')} {'has' if len(files) == 1 else 'have'}"
        detail = f"{have} several labels in one cell of the column {column!r} ({read.how}); each is a class."
        advice = "Where a cell is one label, give --label-separator none."
        return [Remark("several labels", detail, advice, files)]
    if read.unsure:
        files = tuple(path for path, label in zip(paths, read.labels, strict=True) if read.unsure in label)
        detail = f"Cells of the column {column!r} hold {read.unsure!r} and are read as one label each."
        advice = f"Where they hold several labels, give --label-separator '{read.unsure}'."
        return [Remark("several labels", detail, advice, files)]
    return []


def _split(cell: str, separator: str) -> list[str]:
    parts = cell.split() if separator == SPACE else cell.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _join(cells: Sequence[str], parts: Mapping[str, Sequence[str]], how: str = "", unsure: str = "") -> LabelCells:
    """The labels of cells that hold any number of them."""
    joined = {}
    for cell, labels in parts.items():
        named = sorted({label for label in labels if not is_blank(label)})
        wrong = next((label for label in named if LABEL_SEPARATOR in label), None)
        if wrong is not None:
            raise DataError(
                f"the label {wrong!r} has a semicolon, which parts the labels of an image that has several.",
                "Rename the label in the table.",
            )
        joined[cell] = LABEL_SEPARATOR.join(named)
    return LabelCells([joined.get(cell, "") for cell in cells], True, how, unsure)


def _parse_list(cell: str) -> list[str] | None:
    """The labels in a cell that is written as a list; None for another cell."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    if "," not in text and _QUOTED.fullmatch(text):  # as NumPy writes it, without commas
        return [name for _, name in re.findall(r"""(['"])(.*?)\1""", text)]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return [str(name).strip() for name in found] if all(isinstance(x, str | int) for x in found) else None
    return [part.strip().strip("'\"") for part in text[1:-1].split(",")] if "," in text else None


def _parts_labels(parts: Mapping[str, Sequence[str]], separator: str, plural: bool) -> bool:
    """Whether a separator parts labels, by how the parts of the cells recur."""
    several = [labels for labels in parts.values() if len(labels) > 1]
    if not several:
        return False
    alone = {labels[0] for labels in parts.values() if len(labels) == 1}
    distinct = {part for labels in parts.values() for part in labels}
    if separator == SPACE:
        few = plural and 2 * len(distinct) <= len(parts)
        return few or all(part in alone for labels in several for part in labels)
    if plural:
        return _shares_a_part(parts)
    places: dict[str, set[int]] = {}
    for labels in several:
        for place, part in enumerate(labels):
            places.setdefault(part, set()).add(place)
    return all(any(part in alone or len(places[part]) > 1 for part in labels) for labels in several)


def _shares_a_part(parts: Mapping[str, Sequence[str]]) -> bool:
    """Whether a part of a cell that has several occurs in another cell, too."""
    counts = Counter(part for labels in parts.values() for part in set(labels))
    return any(counts[part] > 1 for labels in parts.values() if len(labels) > 1 for part in labels)
