"""Removing a run: the files that runs are made of, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from budwood.data.corrections import is_filled
from budwood.errors import RunError
from budwood.runs.explanation_record import EXPLANATION_FILE
from budwood.runs.run import CHECKPOINT, RESULTS_LOCK, Run, lock_run
from budwood.runs.run_files import RUN_FILES
from budwood.runs.run_record import FILE
from budwood.storage.atomic import raise_storage_errors

OWN: Final = frozenset(
    {*RUN_FILES, FILE, EXPLANATION_FILE, RESULTS_LOCK}
    | {"recipe.toml", "report.html", "model_card.md", "explained.html", "mlflow.json"}
)
FOLDERS: Final = {  # of a run, and what it keeps in them
    CHECKPOINT: re.compile(r"last\.safetensors|best-\d+\.safetensors|chosen\.json"),
    "tensorboard": re.compile(r"events\.out\.tfevents\..+"),
}
SUSPECTS: Final = re.compile(r"label-suspects(-\d+)?\.csv")
MEMBERS: Final = "members"
MEMBER: Final = re.compile(r"\d+")


def remove_run(run: Run) -> list[Path]:
    """Remove a run: the files that it has written, and its folder where nothing else is left in it.

    Links are never followed. What another has put into the folder stays where it is, and so does a table of suspects
    that somebody has filled in. The ledger of looks, which lies beside runs, still counts those of the run.

    Args:
        run: The run.

    Returns:
        What was left in the folder, as it is not the run's; nothing where the folder is gone.

    Raises:
        RunError: The folder is a link, or belongs to an ensemble, or another process is training the run.
        StorageError: A file cannot be removed.
    """
    if run.path.is_symlink():
        raise RunError(
            f"{run.path}: is a link to a run elsewhere, so it is not removed.",
            f"Name the folder itself, {run.path.resolve()}, or remove the link.",
        )
    if run.path.absolute().parent.name == MEMBERS and (run.path.absolute().parents[1] / FILE).is_file():
        raise RunError(
            f"{run.path}: is one of the networks of an ensemble, which cannot answer without it.",
            f"Remove the whole ensemble, {run.path.absolute().parents[1]}.",
        )
    with raise_storage_errors(run.path):
        with lock_run(run.path):
            _remove_own(run.path)
        with suppress(OSError):  # another's files are left in it
            run.path.rmdir()
        return sorted(run.path.iterdir()) if run.path.is_dir() else []


def _remove_own(folder: Path) -> None:
    """Remove a run's files, its record last, so that what an interruption leaves can still be removed."""
    for file in _list_own(folder):
        file.unlink(missing_ok=True)
    for name in (*FOLDERS, MEMBERS):
        with suppress(OSError):  # not there, another's, or with a lock that is given back later
            if not (folder / name).is_symlink():
                (folder / name).rmdir()
    (folder / FILE).unlink(missing_ok=True)


def _list_own(folder: Path) -> Iterator[Path]:
    """The files of a run without its record; members of an ensemble are removed on the way."""
    yield from (folder / name for name in sorted(OWN - {FILE}) if _is_file(folder / name))
    for name, known in FOLDERS.items():
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            inside = sorted((folder / name).iterdir())
            yield from (file for file in inside if known.fullmatch(file.name) and _is_file(file))
    yield from (file for file in sorted(folder.iterdir()) if SUSPECTS.fullmatch(file.name) and not is_filled(file))
    members = folder / MEMBERS
    if members.is_dir() and not members.is_symlink():
        for member in sorted(members.iterdir()):
            if MEMBER.fullmatch(member.name) and (member / FILE).is_file() and not member.is_symlink():
                _remove_own(member)
                with suppress(OSError):  # another's files are left in it
                    member.rmdir()


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()
