"""What is unpacked into the cache once, and verified at each use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from budwood.storage.atomic import draft_folder, raise_storage_errors
from budwood.storage.context import Context
from budwood.storage.eviction import trim
from budwood.storage.folder_manifest import MANIFEST, verify_folder


def ensure_unpacked(
    folder: Path, what: str, context: Context, fill: Callable[[Path], tuple[tuple[str, str], ...]]
) -> tuple[tuple[str, str], ...]:
    """Unpack something to a folder of the cache, unless the folder is there already, whole and unchanged.

    Args:
        folder: The folder, under `archives` of the cache.
        what: What is unpacked, for the note.
        context: The cache folder, and where the note goes.
        fill: Writes the files and their list into an empty folder, and returns the names that it lacks on purpose,
            each with the reason; what it raises leaves nothing behind.

    Returns:
        These names.

    Raises:
        StorageError: When the folder cannot be written.
    """
    manifest = verify_folder(folder)
    if manifest is not None:
        with suppress(OSError):  # a cache that may only be read
            os.utime(folder / MANIFEST)  # the time of its last use
        return manifest.skipped
    context.progress.note(f"Unpacking {what}")
    with raise_storage_errors(folder), draft_folder(folder) as draft:
        skipped = fill(draft)
        if folder.is_dir() and verify_folder(folder) is None:
            shutil.rmtree(folder)
    trim(context)
    return skipped
