"""The list of a cached folder's files, written last and verified whenever the folder is used again.

It is a hidden file in the folder: one JSON line about the whole, one for each file (path, size in bytes, time of the
last change in ns), and the digest of all lines before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.storage.atomic import write_bytes
from budwood.storage.checked_files import digest_bytes

MANIFEST: Final = ".budwood-manifest.jsonl"
_VERSION: Final = 1


@dataclass(frozen=True)
class FolderManifest:
    """What is written about a folder.

    Attributes:
        bytes: Size of all files in bytes.
        links: Path that each link to a folder names, by the link's path.
        skipped: Names of what the folder lacks on purpose, each with the reason.
    """

    bytes: int
    links: Mapping[str, str]
    skipped: tuple[tuple[str, str], ...]


def write_manifest(
    folder: Path, files: Iterable[str], links: Mapping[str, str], skipped: Sequence[tuple[str, str]]
) -> None:
    """Write the list of a folder's files, flushed to disk.

    Args:
        folder: The folder, complete.
        files: Path of each file, relative to the folder.
        links: Path that each link to a folder names, by the link's path.
        skipped: Names of what the folder lacks on purpose, each with the reason.

    Raises:
        OSError: When a file is missing, or the list cannot be written.
    """
    stats = {name: (folder / name).stat() for name in sorted(files)}
    head = {
        "version": _VERSION,
        "bytes": sum(stat.st_size for stat in stats.values()),
        "links": dict(links),
        "skipped": list(skipped),
    }
    lines = [head, *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items())]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    write_bytes(folder / MANIFEST, text + digest_bytes(text).encode())


def verify_folder(folder: Path) -> FolderManifest | None:
    """Compare a folder with its list.

    Files that were added at the top of the folder do not count: they are in none of its folders.

    Args:
        folder: The folder; it may not exist.

    Returns:
        What is written about the folder, or None if the list is missing or damaged, or if a file is missing, was
        changed or was added.
    """
    try:
        text, _, digest = (folder / MANIFEST).read_bytes().rpartition(b"\n")
        text += b"\n"
        if digest != digest_bytes(text).encode():
            return None
        head, *rows = map(json.loads, text.splitlines())
        if head["version"] != _VERSION:
            return None
        found = _list_folder(folder)
    except (OSError, ValueError, KeyError):
        return None
    expected: dict[str, tuple[int, int] | str] = {name: (size, changed) for name, size, changed in rows}
    expected |= head["links"]
    added = found.keys() - expected.keys()
    if any("/" in name for name in added) or any(found.get(name) != value for name, value in expected.items()):
        return None
    return FolderManifest(head["bytes"], head["links"], tuple((name, reason) for name, reason in head["skipped"]))


def read_total(folder: Path) -> int | None:
    """Read the size of a folder's files from its list, which is not compared with them.

    Args:
        folder: The folder.

    Returns:
        The number of bytes, or None without a list.
    """
    try:
        with (folder / MANIFEST).open("rb") as handle:
            return int(json.loads(handle.readline())["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _list_folder(folder: Path) -> dict[str, tuple[int, int] | str]:
    """Size and time of each file below a folder, and what each link names, by path."""
    found: dict[str, tuple[int, int] | str] = {}
    pending = [""]
    while pending:
        here = pending.pop()
        with os.scandir(folder / here) as entries:
            for entry in entries:
                name = f"{here}{entry.name}"
                if entry.is_symlink():
                    found[name] = os.readlink(entry.path)  # noqa: PTH115
                elif entry.is_dir():
                    pending.append(f"{name}/")
                else:
                    stat = entry.stat()
                    found[name] = (stat.st_size, stat.st_mtime_ns)
    return found
