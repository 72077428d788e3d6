"""Paths of a table that was written elsewhere: with backslashes, another folder before them, or no extension.

A path that is there is taken as it is. For the others a way is found from the first of them: what to drop before it,
and the folder to look in. It is taken only where it leads to one file, and no two rows to the same.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.data.file_tree import list_subfolders
from budwood.data.listing import Remark

EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".JPG", ".JPEG", ".PNG")
_TRIED: Final = 20  # rows from which ways are found
_DRIVE: Final = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class _Way:
    """How a written path becomes one that is there: what is dropped before it, and the folder to look in."""

    dropped: tuple[str, ...]
    base: str


def find_paths(root: Path, written: Sequence[str]) -> tuple[list[str], list[Remark]]:
    """Find the files that the paths of a table mean.

    Args:
        root: Folder of the table.
        written: Paths as the table has them.

    Returns:
        The paths, relative to `root` or absolute; one that cannot be found stays as it is, with forward slashes. And
        remarks: on paths that were found elsewhere, and on those that lie outside `root`.
    """
    paths = [name.replace(os.sep, "/") for name in written]
    missing = [row for row, path in enumerate(paths) if not os.path.lexists(root / path)]
    is_right_folder = len(missing) < len(paths)
    found = _find_elsewhere(root, [paths[row] for row in missing], is_right_folder) if missing else []
    there = Counter(paths) + Counter(found)
    moved = [(row, path) for row, path in zip(missing, found, strict=True) if path and there[path] == 1]
    for row, path in moved:
        paths[row] = path
    return paths, [*_remark_on_moved(root, written, moved), *_remark_on_outside(root, paths)]


def _find_elsewhere(root: Path, names: Sequence[str], is_right_folder: bool) -> list[str]:
    """The path of each name that is not where it says; empty where it is nowhere, or in doubt.

    Where other names are there as written, the folder is right: then no other is looked in.
    """
    parts = [tuple(part for part in _DRIVE.sub("", name).replace("\\", "/").split("/") if part) for name in names]
    bases = ["", *(f"{folder.name}/" for folder in list_subfolders(root))]
    ways = [_Way((), "")]
    for one in parts[: 0 if is_right_folder else _TRIED]:
        if not any(_follow(root, one, way) for way in ways) and (way := _find_way(root, one, bases)):
            ways.append(way)
    return [next((path for way in ways if (path := _follow(root, one, way))), "") for one in parts]


def _find_way(root: Path, parts: tuple[str, ...], bases: Sequence[str]) -> _Way | None:
    for count in range(len(parts)):
        ways = [way for base in bases if _follow(root, parts, way := _Way(parts[:count], base))]
        if ways:
            return ways[0] if len(ways) == 1 else None
    return None


def _follow(root: Path, parts: tuple[str, ...], way: _Way) -> str:
    """The one file that a way leads to; empty where there is none or several."""
    count = len(way.dropped)
    rest = parts[count:]
    if parts[:count] != way.dropped or not rest or ".." in rest:
        return ""
    plain = way.base + "/".join(rest)
    if _is_file(root / plain):
        return plain
    ends = [plain + end for end in EXTENSIONS if _is_file(root / (plain + end))]
    return ends[0] if len(ends) == 1 else ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _remark_on_moved(root: Path, written: Sequence[str], moved: Sequence[tuple[int, str]]) -> list[Remark]:
    if not moved:
        return []
    row, path = moved[0]
    count = "1 path of the table is" if len(moved) == 1 else f"{len(moved):,} paths of the table are"
    detail = f"{count} not there as written, and found elsewhere in {root}: the first, {written[row]!r}, as {path!r}."
    advice = "Write paths relative to the table's folder, with their extension."
    return [Remark("found elsewhere", detail, advice, tuple(path for _, path in moved))]


def _remark_on_outside(root: Path, paths: Sequence[str]) -> list[Remark]:
    files = tuple(path for path in paths if _leads_outside(root, path))
    if not files:
        return []
    count = "1 path of the table leads" if len(files) == 1 else f"{len(files):,} paths of the table lead"
    detail = f"{count} outside its folder {root}: {files[0]!r}{' and others' if len(files) > 1 else ''}."
    return [Remark("outside", detail, "They are read; keep them where they are, or move them into the folder.", files)]


def _leads_outside(root: Path, path: str) -> bool:
    """Whether a path leads out of a folder, by its words alone; links are not followed."""
    if ".." not in path and not path.startswith("/"):
        return False
    return not Path(os.path.normpath(root / path)).is_relative_to(root)
