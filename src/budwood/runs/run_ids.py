"""The names of runs, and the folder that a new run is given under its name."""

from __future__ import annotations

import datetime
import errno
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from budwood.errors import RunError
from budwood.runs.lookup import LAST
from budwood.storage.atomic import draft_folder
from budwood.text import show_unprintable

RESERVED: Final = '<>:"/\\|?*'  # in no name of a folder on Windows; some nowhere
DEVICE: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
LONGEST_ID: Final = 200  # bytes, which leaves room for the name of a draft


def make_run_id(model: str) -> str:
    """Make a name for a run that sorts by time, that no other run has, and that every system takes for a folder.

    Args:
        model: The name of the model, which becomes part of the id; what suits no file name, as the colon of
            `timm:NAME`, becomes a hyphen.

    Returns:
        Local time, model and four random hexadecimal digits, joined by hyphens.
    """
    plain = re.sub(r"[^\w.+-]", "-", model)[:100]
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{plain}-{secrets.token_hex(2)}"


def refuse_bad_id(id: str, out: Path, option: str = "id", *, search: bool = False) -> None:
    """Refuse the name of a new run, or of a search, that is taken or is no plain file name on every system.

    Args:
        id: The name.
        out: The folder of runs.
        option: What the name was given as, for the message.
        search: Whether it is that of a search, whose runs have it with a number behind it.

    Raises:
        RunError: There is such a run already, or a folder cannot be named so.
    """
    problem = _find_id_problem(id)
    if problem:
        raise RunError(
            f"{option}: {show_unprintable(repr(id))} is not a plain file name ({problem}).",
            f"Use letters, digits, '-', '_' and '.', as in 'first-try', or leave the {option} out.",
        )
    for folder in (out / id, *([out / f"{id}-1"] if search else [])):
        if folder.exists() or folder.is_symlink():
            raise make_taken_error(folder, option)


@contextmanager
def draft_run(folder: Path) -> Iterator[Path]:
    """Draft a new run folder, which appears with all that the block writes, or not at all.

    Args:
        folder: The run folder.

    Yields:
        The draft of the folder, to be filled by the block.

    Raises:
        RunError: Another process has made the folder in the meantime.
        OSError: The draft cannot be written.
    """
    try:
        with draft_folder(folder, exclusive=True) as draft:
            yield draft
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.exists():
            raise make_taken_error(folder) from error
        raise


def make_taken_error(folder: Path, option: str = "id") -> RunError:
    """Make the error for a new run, named by that option, whose folder is there already."""
    return RunError(
        f"{folder}: is there already, and a new run would destroy it.",
        f"Choose another {option}, leave the {option} out, or continue that run with `budwood resume`.",
    )


def _find_id_problem(id: str) -> str:
    """Why a run cannot have a name; empty where it can."""
    if not id:
        return "it is empty"
    if len(id.encode("utf-8", "replace")) > LONGEST_ID:
        return f"it is longer than {LONGEST_ID} bytes"
    bad = next((char for char in id if char in RESERVED or not char.isprintable()), None)
    if bad is not None:
        return f"it contains {bad!r}"
    if id == LAST:
        return "it stands for the newest run"
    if id.startswith("-"):
        return "it begins with '-', as an option does"
    if id.startswith(".") or id.endswith((".", " ")):
        return "it begins with '.', or ends with '.' or a space"
    return "Windows keeps that name for a device" if DEVICE.fullmatch(id) else ""
