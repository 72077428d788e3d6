"""Folders and the files in them: what is hidden is passed over, links are followed, each folder once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from budwood.errors import DataError


def find_image_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Find the files that are named, and all files in the folders that are named.

    Files in folders are sorted, and those with a leading dot are skipped. Nothing is opened.

    Args:
        paths: Files and folders.

    Yields:
        The files, in the order of `paths`.

    Raises:
        DataError: When a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if not file.is_dir() and not file.name.startswith("."))
        elif path.exists() or path.is_symlink():
            yield path
        else:
            raise DataError(f"{path}: no such file or folder.", "Check the path, and quote it if it contains spaces.")


def list_subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, without hidden ones.

    Args:
        folder: The folder.

    Returns:
        The folders, sorted.
    """
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_loose_files(folder: Path) -> list[Path]:
    """List the files directly in a folder, without hidden ones.

    Args:
        folder: The folder.

    Returns:
        The files, sorted.
    """
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))


def walk(folder: Path) -> Iterator[Path]:
    """Find every file below a folder that is not hidden; links are followed, each folder once.

    Args:
        folder: The folder.

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
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(current / entry.name)
                else:
                    yield current / entry.name


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
