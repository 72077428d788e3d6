"""The files of a run and their digests, which its record keeps: a file that was changed or damaged is never read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from budwood.errors import RunError
from budwood.networks.weights import digest_file
from budwood.runs.confidence_record import NOVELTY_FILE

DATASET: Final = "dataset.parquet"
SEALED_LABELS: Final = "sealed.parquet"
SHEET_FILE: Final = "augmented.jpg"
HISTORY: Final = "history.csv"
WEIGHTS: Final = "weights.safetensors"
GIVEN_FILES: Final = (DATASET, SEALED_LABELS, SHEET_FILE)  # there from the start, and never written again


def name_predictions(split: str) -> str:
    """Return the name of the file that holds the predictions for a split."""
    return f"predictions-{split}.parquet"


RUN_FILES: Final = (*GIVEN_FILES, HISTORY, WEIGHTS, name_predictions("val"), name_predictions("test"), NOVELTY_FILE)


def list_places(recorded: str, folder: Path) -> list[Path]:
    """List where a path that a run's record has may lead.

    Args:
        recorded: The path; one that is not absolute, as runs of earlier versions have, was relative to a working
            folder that is not known.
        folder: The run folder.

    Returns:
        The path itself if it is absolute; else the working folder, and each folder above the run, with the path.
    """
    path = Path(recorded).expanduser()
    if path.is_absolute():
        return [path]
    return list(dict.fromkeys(base / path for base in (Path.cwd(), *folder.absolute().parents)))


def find_place(recorded: str, folder: Path) -> Path:
    """Return the first of those places at which there is something, else the first of all."""
    places = list_places(recorded, folder)
    return next((place for place in places if place.exists()), places[0])


def digest_run_files(folder: Path, names: Iterable[str] = RUN_FILES) -> dict[str, str]:
    """Compute the digests of a run's files, for its record.

    Args:
        folder: The run folder.
        names: Names of files; those that the run does not have are left out.

    Returns:
        The BLAKE2b-128 digest of each file, 32 hex digits, by name.

    Raises:
        OSError: A file cannot be read.
    """
    return {name: digest_file(folder / name) for name in names if (folder / name).is_file()}


def keep_given_files(files: Mapping[str, str]) -> dict[str, str]:
    """Select the digests of the files that training does not write, which alone hold while it goes on."""
    return {name: digest for name, digest in files.items() if name in GIVEN_FILES}


def check_run_file(folder: Path, name: str, files: Mapping[str, str]) -> Path:
    """Check that a file of a run is what its record says.

    Args:
        folder: The run folder.
        name: Name of the file.
        files: Digests by name, as the record has them; a file that it does not name, as of a run of an earlier
            version, is not checked.

    Returns:
        The path of the file.

    Raises:
        RunError: The file has another content, or the record names it and it cannot be read.
    """
    file = folder / name
    expected = files.get(name)
    if expected is None:
        return file
    try:
        found = digest_file(file)
    except OSError as error:
        raise RunError(
            f"{file}: cannot be read ({error.strerror or error}).", "Restore the file, or train again."
        ) from error
    if found != expected:
        raise RunError(
            f"{file}: was changed or damaged since the run wrote it (expected the digest {expected} of run.json, "
            f"found {found}).",
            "Restore the file from a copy, or train again.",
        )
    return file
