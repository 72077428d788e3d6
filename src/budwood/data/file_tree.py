"""Folders and the files in them: what is hidden is passed over, links are followed, each folder once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from budwood.errors import DataError

SYSTEM_FOLDERS: Final = frozenset(
    ("@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__macosx", "__pycache__")
)
_TEXTS: Final = (".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".tex", ".bib", ".log")
_DATA: Final = (
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".xml",
    ".yaml",
    ".yml",
    ".toml",
    ".ini",
    ".xls",
    ".xlsx",
    ".parquet",
)
_OTHERS: Final = (".py", ".pyc", ".ipynb", ".sh", ".bat", ".js", ".css", ".zip", ".tar", ".gz", ".7z", ".rar", ".npz")
_NO_IMAGES: Final = frozenset((*_TEXTS, *_DATA, *_OTHERS))


def find_image_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Find the files that are named, and all files in the folders that are named.

    Files in folders are sorted; what is hidden, and folders of the system, are passed over, as in training, and links
    to folders are followed. Nothing is opened.

    Args:
        paths: Files and folders.

    Yields:
        The files, in the order of `paths`.

    Raises:
        DataError: When a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(walk(path))
        elif path.exists() or path.is_symlink():
            yield path
        else:
            raise DataError(f"{path}: no such file or folder.", "Check the path, and quote it if it contains spaces.")


def list_subfolders(folder: Path, skipped: list[Path] | None = None) -> list[Path]:
    """List the folders in a folder, without hidden ones and those of the system.

    Args:
        folder: The folder.
        skipped: Receives the folders that are passed over.

    Returns:
        The folders, sorted.
    """
    folders = [path for path in folder.iterdir() if path.is_dir()]
    if skipped is not None:
        skipped += [path for path in folders if is_passed_over(path.name)]
    return sorted(path for path in folders if not is_passed_over(path.name))


def list_loose_files(folder: Path) -> list[Path]:
    """List the files directly in a folder, without hidden ones.

    Args:
        folder: The folder.

    Returns:
        The files, sorted.
    """
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))


def walk(folder: Path, skipped: list[Path] | None = None) -> Iterator[Path]:
    """Find every file below a folder that is neither hidden nor the system's; links are followed, each folder once.

    Args:
        folder: The folder.
        skipped: Receives the folders that are passed over.

    Yields:
        The files.
    """
    pending, visited = [folder], set()
    while pending:
        current = pending.pop()
        if (place := os.path.realpath(current)) in visited:
            continue
        visited.add(place)
        with os.scandir(current) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                is_folder = _is_folder(entry)
                if is_passed_over(entry.name, is_folder):
                    if is_folder and skipped is not None:
                        skipped.append(current / entry.name)
                elif is_folder:
                    pending.append(current / entry.name)
                else:
                    yield current / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: a file that cannot be read
        return False


def check_regular(file: Path) -> None:
    """Check that a file with names or labels is one on the disk: a pipe or a device would be read for ever.

    Args:
        file: The file, or a link to it.

    Raises:
        DataError: When it is a device, a pipe or a folder. A file that does not exist is left to who opens it.
    """
    if file.exists() and not file.is_file():
        raise DataError(f"{file}: is not a regular file.", "Give a file on the disk, not a device, pipe or folder.")


def is_passed_over(name: str, is_folder: bool = True) -> bool:
    """Tell whether a name is hidden or, as a folder's, one that systems and tools make.

    Args:
        name: Name of a file or folder, without its path.
        is_folder: Whether it is a folder.

    Returns:
        True for `.git` and `__MACOSX`, for example.
    """
    return name.startswith(".") or (is_folder and name.lower() in SYSTEM_FOLDERS)


def may_be_image(path: Path) -> bool:
    """Tell by its name whether a file may be an image.

    Args:
        path: The file; it is not opened.

    Returns:
        False for a name that ends like that of a text, a table, an archive or a program.
    """
    return path.suffix.lower() not in _NO_IMAGES


def holds_images(folder: Path) -> bool:
    """Tell by their names whether any file below a folder may be an image.

    Args:
        folder: The folder.

    Returns:
        True if one may be.
    """
    return any(map(may_be_image, walk(folder)))


def is_text(name: str) -> bool:
    """Tell whether a name is valid Unicode.

    Args:
        name: The name.

    Returns:
        False for bytes that Python could only escape.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def show_path(path: Path, root: Path) -> str:
    """Write a path below a folder with forward slashes.

    Args:
        path: The path.
        root: The folder.

    Returns:
        The relative path; bytes that are not Unicode are escaped.
    """
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode("utf-8")
