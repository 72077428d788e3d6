"""The Caltech layout: a folder of class folders, with `train.txt` and `test.txt` that list an image a line."""

from __future__ import annotations

from pathlib import Path

from budwood.data.file_tree import list_subfolders, show_path, walk
from budwood.data.listing import Listing, find_splits, make_listing
from budwood.errors import DataError


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
    base, rows, missing, listed = _find_list_base(root), [], [], set()
    splits = find_splits(file.stem for file in root.glob("*.txt"))
    for file in sorted(file for file in root.glob("*.txt") if file.stem in splits):
        split = splits[file.stem]
        for number, line in enumerate(read_lines(file), 1):
            if "/" not in line:
                raise DataError(
                    f"{file}, line {number}: expected <class>/<image>, found {line!r}.",
                    "Write one image per line, relative to the folder of class folders.",
                )
            path = resolve_within(base, line, f"{file}, line {number}")
            if path.is_file():
                rows.append((path, line.split("/")[-2], split))
                listed.add(path)
            else:
                missing.append((line, f"is listed in {file.name} but does not exist"))
    unlisted = [path for path in walk(base) if path not in listed and path.parent != root]
    missing += [(show_path(path, root), "is not in a list") for path in unlisted]
    return make_listing(root, name, rows, missing)


def _find_list_base(root: Path) -> Path:
    first = next(iter(read_lines(root / "train.txt")), "")
    bases = [root, *list_subfolders(root)]
    return next((base for base in bases if first and (base / first).is_file()), bases[1] if len(bases) == 2 else root)


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file that are not blank.

    Args:
        file: The file.

    Returns:
        The lines without surrounding spaces.

    Raises:
        DataError: When the file is not UTF-8.
    """
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
