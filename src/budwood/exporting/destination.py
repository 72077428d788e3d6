"""Where an export goes: whole or not at all, and never over what is no export."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Final

from budwood.errors import RunError
from budwood.runs.export_record import METADATA_KEY
from budwood.storage.atomic import draft_folder, raise_storage_errors, scratch_folder

PROGRAM_NOTE: Final = "budwood.json"  # in a program of PyTorch
CARD: Final = ".md"  # how the model card beside a file ends
CARD_MARK: Final = "\nlibrary_name: budwood\n"  # in the first lines of every model card
HEAD: Final = 2000  # characters of a card in which that is looked for
MARK: Final = ".budwood-export"  # a file in every exported folder: it may be replaced by another export


def refuse_taken(to: Path, folder: bool, force: bool) -> None:
    """Refuse a place at which there is something other than an export.

    Args:
        to: The place.
        folder: Whether the export is a folder, else a file.
        force: Whether a file may be replaced whatever it is. A folder that is no export never is.

    Raises:
        RunError: There is something else, or the place has no name, or that of the model card.
    """
    if not to.name or (not folder and to.suffix.lower() == CARD):
        reason = f"ends in {CARD}, as the model card beside it will" if to.name else "is no name of a file or folder"
        raise RunError(f"--to {str(to)!r}: {reason}.", "Name a file such as model.onnx.")
    if folder and to.is_dir():
        if any(to.iterdir()) and not (to / MARK).is_file():
            raise RunError(f"{to}: is a folder with other files, and nothing was written.", "Name a new folder.")
        return
    if to.is_dir() or (folder and to.exists()):
        found, wanted = ("a folder", "a file") if to.is_dir() else ("a file", "a folder")
        raise RunError(f"{to}: is {found}, and this format is {wanted}.", "Name another place with --to.")
    if folder or force:
        return
    for file, is_ours in ((to, is_export), (to.with_suffix(CARD), is_card)):
        if file.exists() and not is_ours(file):
            raise RunError(f"{file}: exists and is no export of Budwood.", "Name another file, or add --force.")


def is_card(file: Path) -> bool:
    """Tell whether a file is a model card that Budwood wrote."""
    try:
        with file.open(encoding="utf-8") as text:
            return CARD_MARK in text.read(HEAD)
    except (OSError, UnicodeDecodeError):
        return False


def is_export(file: Path) -> bool:
    """Tell whether a file is an ONNX file or a program of PyTorch that Budwood exported."""
    import onnx

    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                return any(PurePath(name).name == PROGRAM_NOTE for name in archive.namelist())
        model = onnx.load(file, load_external_data=False)
        return any(entry.key == METADATA_KEY for entry in model.metadata_props)
    except Exception:  # any file may be there
        return False


@contextmanager
def draft_export(to: Path, folder: bool) -> Iterator[Path]:
    """Make a place for the files of an export, which take theirs when the block ends without an error.

    Args:
        to: The folder or the file of the export.
        folder: Which of both it is.

    Yields:
        The empty folder, or the path of the file in an empty folder, to be filled by the block.

    Raises:
        StorageError: A file cannot be written.
    """
    with raise_storage_errors(to.parent):
        if folder:
            if to.is_dir():
                retired = to.with_name(f".{to.name}.old-{os.getpid()}")
                with scratch_folder(to) as draft:
                    yield draft
                    (draft / MARK).write_text("Made by `budwood export`; replaced by the next one.\n", encoding="utf-8")
                    to.rename(retired)
                    try:
                        draft.rename(to)
                    except OSError:
                        retired.rename(to)
                        raise
                    shutil.rmtree(retired, ignore_errors=True)
                return
            with draft_folder(to, exclusive=True) as draft:
                yield draft
                (draft / MARK).write_text("Made by `budwood export`; replaced by the next one.\n", encoding="utf-8")
            return
        with scratch_folder(to) as draft:
            yield draft / to.name
            files = sorted(draft.iterdir(), key=lambda file: file.name == to.name)  # the main file last
            for file in files:
                file.replace(to.parent / file.name)
