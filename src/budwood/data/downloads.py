"""Data sets that are fetched by name, checked, through torchvision: the images of the studies that can be had freely.

They are written as folders of images into the cache, once.
"""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from budwood.errors import DataError
from budwood.progress import Progress
from budwood.storage.atomic import draft_folder, is_full, raise_storage_errors
from budwood.storage.context import Context

DAMAGED: Final = (tarfile.TarError, zipfile.BadZipFile, EOFError)
_DISK: Final = (errno.EROFS, errno.EIO, errno.EMFILE)


@dataclass(frozen=True)
class Source:
    """Data set that can be downloaded by name.

    Attributes:
        classes: Number of classes.
        fetch: Function that downloads into its first folder, writes class folders into its second and reports to
            the progress in its third argument.
    """

    classes: int
    fetch: Callable[[Path, Path, Progress], None]


def fetch(name: str, context: Context) -> Path:
    """Download a data set into the cache, unless it is there already.

    Args:
        name: Name of the data set, a key of `SOURCES`.
        context: The cache folder, and where notes and steps go.

    Returns:
        The folder of the data set's images.

    Raises:
        DataError: When the data set cannot be downloaded or fails its checksum.
        StorageError: When the folder cannot be written, or the disk is full.
    """
    from http.client import HTTPException

    folder = place_of(name, context.cache)
    if folder.is_dir():
        return folder
    context.progress.note(f"Downloading {name} with torchvision; its checksums are verified.")
    raw = context.cache / "sources" / f"{name}-download"
    with raise_storage_errors(context.cache), draft_folder(folder) as draft:
        raw.mkdir(parents=True, exist_ok=True)
        try:
            SOURCES[name].fetch(raw, draft, context.progress)
        except (OSError, HTTPException, RuntimeError, ValueError, *DAMAGED) as error:  # torchvision raises any of these
            if isinstance(error, OSError) and _is_of_disk(error):
                raise
            raise _make_download_error(name, error) from error
    shutil.rmtree(raw, ignore_errors=True)
    return folder


def _is_of_disk(error: OSError) -> bool:
    """Whether an error comes from the disk: those of the network have types, and numbers, of their own."""
    return isinstance(error, PermissionError) or (type(error) is OSError and (is_full(error) or error.errno in _DISK))


def _make_download_error(name: str, error: Exception) -> DataError:
    """The error for a data set that cannot be downloaded, or that was and is not what was expected."""
    elsewhere = f"give a folder that contains it: budwood study FILE {name}=FOLDER"
    if isinstance(error, (RuntimeError, *DAMAGED)):  # torchvision's word for a checksum that is wrong
        return DataError(
            f"{name}: what was downloaded is damaged or incomplete ({error}).", f"Run the command again, or {elsewhere}"
        )
    return DataError(f"{name}: cannot be downloaded ({error}).", f"Connect to the internet, or {elsewhere}")


def place_of(name: str, cache: Path) -> Path:
    """Return the folder of a downloaded data set's images.

    Args:
        name: Name of the data set.
        cache: The cache folder.

    Returns:
        The folder, which exists only once the data set was downloaded.
    """
    return cache / "sources" / name


def known_class_count(name: str) -> int | None:
    """Return the number of classes of a data set that can be downloaded by name.

    Args:
        name: Name of the data set.

    Returns:
        The number of classes, or None for a name that is not in `SOURCES`.
    """
    return SOURCES[name].classes if name in SOURCES else None


def _make_cifar(name: str) -> Callable[[Path, Path, Progress], None]:
    """CIFAR (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 x 32 pixels, as PNG."""

    def fetch(raw: Path, draft: Path, progress: Progress) -> None:
        from PIL import Image

        for split, training in (("train", True), ("test", False)):
            images: Any = _import_dataset(name)(str(raw), train=training, download=True)
            with progress.bar(f"Writing {split}", len(images.data)) as step:
                for number, (pixels, label) in enumerate(zip(images.data, images.targets, strict=True)):
                    folder = draft / split / images.classes[label]
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(folder / f"{number:05}.png")
                    step(1)

    return fetch


def _make_folders(name: str, inside: str) -> Callable[[Path, Path, Progress], None]:
    """A data set that is an archive of class folders already (Fei-Fei et al. 2004, Griffin et al. 2007)."""

    def fetch(raw: Path, draft: Path, progress: Progress) -> None:
        _import_dataset(name)(str(raw), download=True)
        for folder in sorted((raw / inside).iterdir()):
            folder.rename(draft / folder.name)

    return fetch


def _import_dataset(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)


SOURCES: Final[dict[str, Source]] = {
    "caltech101": Source(102, _make_folders("Caltech101", "caltech101/101_ObjectCategories")),
    "caltech256": Source(257, _make_folders("Caltech256", "caltech256/256_ObjectCategories")),
    "cifar10": Source(10, _make_cifar("CIFAR10")),
    "cifar100": Source(100, _make_cifar("CIFAR100")),
}
