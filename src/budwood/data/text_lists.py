"""A folder with `train.txt` and `test.txt` that list an image a line, in its class folder or with its label."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from budwood.data.file_tree import check_regular, list_subfolders, show_path, walk
from budwood.data.listing import Listing, find_splits, make_listing
from budwood.errors import DataError

_LABELLED: Final = re.compile(r"(.+?\.\w{1,5})\s*[,;\t ]\s*(\S.*)")
_TRIED: Final = 20  # lines from which the form of a list is found


def list_by_text_files(root: Path, name: str) -> Listing:
    """List the images that `train.txt`, `val.txt` and `test.txt` name.

    Args:
        root: Folder of the lists.
        name: Short name of the data set.

    Returns:
        The files with their labels and splits.

    Raises:
        DataError: When a list is not UTF-8, or a line names no image or one outside the folder.
    """
    rows, missing, listed = [], [], set()
    base, labelled = _find_list_base(root)
    splits = find_splits(file.stem for file in root.glob("*.txt"))
    for file in sorted(file for file in root.glob("*.txt") if file.stem in splits):
        split = splits[file.stem]
        for number, line in enumerate(read_lines(file), 1):
            image, label = _parse_line(line, labelled, f"{file}, line {number}")
            path = resolve_within(base, image, f"{file}, line {number}")
            if path.is_file():
                rows.append((path, label, split))
                listed.add(path)
            else:
                missing.append((image, f"is listed in {file.name} but does not exist"))
    unlisted = [path for path in walk(base) if path not in listed and path.parent != root]
    missing += [(show_path(path, root), "is not in a list") for path in unlisted]
    return make_listing(root, name, rows, missing)


def _find_list_base(root: Path) -> tuple[Path, bool]:
    """The folder that listed paths are relative to, and whether a label follows each path."""
    bases = [root, *list_subfolders(root)]
    for line in read_lines(root / "train.txt")[:_TRIED]:
        match = _LABELLED.fullmatch(line)
        for base in bases:
            if (base / line).is_file():
                return base, False
            if match and (base / match[1]).is_file():
                return base, True
    return bases[1] if len(bases) == 2 else root, False


def _parse_line(line: str, labelled: bool, where: str) -> tuple[str, str]:
    """The path and the label of a line."""
    if labelled:
        match = _LABELLED.fullmatch(line)
        if match is None:
            raise DataError(f"{where}: expected <image>, <label>, found {line!r}.", "Give every image a label.")
        return match[1], match[2].strip("'\"")
    if "/" not in line:
        raise DataError(
            f"{where}: expected <class>/<image>, found {line!r}.",
            "Write one image per line, relative to the folder of class folders.",
        )
    return line, line.split("/")[-2]


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file that are not blank.

    Args:
        file: The file.

    Returns:
        The lines without surrounding spaces.

    Raises:
        DataError: When the file is a device or not UTF-8.
    """
    check_regular(file)
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error}).", "Save the list as UTF-8.") from error


def resolve_within(base: Path, name: str, where: str) -> Path:
    """Resolve a relative path that may not leave a folder.

    Args:
        base: The folder.
        name: The path.
        where: Where the path is written, for the message.

    Returns:
        The path in the folder.

    Raises:
        DataError: When the path is absolute or has `..` in it.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{where}: {name!r} is outside the folder {base}.",
            "Write image paths relative to the folder, without '..'.",
        )
    return base / name
