"""The image sets of benchmarks/defaults.py, each as train/, val/ and test/ with class folders of links, for all alike.

Archives are unpacked once. Validation is a fifth of the training images of each class, drawn by seed.
"""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.data.sources import list_elpv
from budwood.errors import DataError
from elpv_splits import draw_test_cells

VAL: Final = 0.2
TEST: Final = 0.25
CHECK_CLASSES: Final = 2
CHECK_IMAGES: Final = 24  # of each class


class AbsentImagesError(Exception):
    """The images of a set are not on this machine; the message names what is missing."""


@dataclass(frozen=True)
class Picture:
    """An image of a set.

    Attributes:
        file: Where it lies.
        label: Its class.
        held_out: Whether it is in the test split.
    """

    file: Path
    label: str
    held_out: bool


@dataclass(frozen=True)
class Folders:
    """Where images lie.

    Attributes:
        shared: The archives.
        work: Where they are unpacked, and where the sets are made.
    """

    shared: Path
    work: Path


Lister = Callable[[Folders, int], list[Picture]]


def draw_each(pictures: Sequence[Picture], count: Callable[[int], int], seed: int) -> set[Path]:
    """Draw images of each class by seed.

    Args:
        pictures: Images to draw from, in any order.
        count: How many to draw of a class of so many.
        seed: Seed.

    Returns:
        The files drawn.
    """
    drawn = random.Random(seed)
    classes: dict[str, list[Path]] = {}
    for picture in pictures:
        classes.setdefault(picture.label, []).append(picture.file)
    return {file for _, files in sorted(classes.items()) for file in drawn.sample(sorted(files), count(len(files)))}


def make_set(name: str, folders: Folders, seed: int) -> Path:
    """Make the folder of a set, unless it is there.

    Args:
        name: A name of `SETS`.
        folders: Where the archives are, and where to work.
        seed: Seed of what is drawn.

    Returns:
        The folder, with train/, val/ and test/, complete.

    Raises:
        AbsentImagesError: The images are not on this machine.
    """
    target = folders.work / "sets" / name / f"seed{seed}"
    if target.is_dir():
        return target
    pictures = SETS[name](folders, seed)
    started = target.with_name(target.name + ".part")
    shutil.rmtree(started, ignore_errors=True)
    link_splits(pictures, started, seed)
    started.rename(target)
    return target


def link_splits(pictures: Sequence[Picture], target: Path, seed: int) -> None:
    """Link images into train/, val/ and test/: hard links, or symbolic ones to another file system.

    Args:
        pictures: The images.
        target: The folder that is made.
        seed: Seed of the validation split.
    """
    learned = [picture for picture in pictures if not picture.held_out]
    val = draw_each(learned, lambda n: max(1, round(VAL * n)), seed)
    for picture in pictures:
        split = "test" if picture.held_out else "val" if picture.file in val else "train"
        place = target / split / picture.label / picture.file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(picture.file.resolve(), place)
        except OSError:
            place.symlink_to(picture.file.resolve())


def unpack(folders: Folders, archive: str) -> Path:
    """Unpack an archive, unless it is unpacked.

    Args:
        folders: Where it is, and where to work.
        archive: Its name.

    Returns:
        The folder of what was in it.

    Raises:
        AbsentImagesError: There is no such archive.
    """
    target = folders.work / "unpacked" / archive.split(".")[0]
    if target.is_dir():
        return target
    if not (folders.shared / archive).is_file():
        raise AbsentImagesError(f"{folders.shared / archive} is absent")
    started = target.with_name(target.name + ".part")
    shutil.rmtree(started, ignore_errors=True)
    with tarfile.open(folders.shared / archive) as file:
        file.extractall(started, filter="data")
    started.rename(target)
    return target


def _list_split(root: Path) -> list[Picture]:
    """Images of train/<class>/ and test/<class>/."""
    return [
        Picture(file, file.parent.name, split == "test")
        for split in ("train", "test")
        for file in sorted((root / split).glob("*/*"))
    ]


def _list_whole(root: Path, seed: int) -> list[Picture]:
    """Images of class folders, a quarter of each class held out."""
    found = [Picture(file, file.parent.name, False) for file in sorted(root.glob("*/*"))]
    held_out = draw_each(found, lambda n: round(TEST * n), seed)
    return [Picture(picture.file, picture.label, picture.file in held_out) for picture in found]


def _take_few(pictures: Sequence[Picture], count: int, seed: int) -> list[Picture]:
    """All test images, and so many of the others of each class."""
    kept = draw_each([picture for picture in pictures if not picture.held_out], lambda n: min(n, count), seed)
    return [picture for picture in pictures if picture.held_out or picture.file in kept]


def _list_scenes(folders: Folders, seed: int) -> list[Picture]:
    return _list_split(unpack(folders, "scenes8.tar"))


def _list_few_scenes(folders: Folders, seed: int) -> list[Picture]:
    return _take_few(_list_scenes(folders, seed), 50, seed)


def _list_cifar(folders: Folders, seed: int) -> list[Picture]:
    return _list_split(unpack(folders, "cifar10.tar.xz"))


def _list_few_cifar(folders: Folders, seed: int) -> list[Picture]:
    return _take_few(_list_cifar(folders, seed), 500, seed)


def _list_signs(folders: Folders, seed: int) -> list[Picture]:
    return _list_whole(unpack(folders, "signs.tar") / "signs", seed)


def _list_eurosat(folders: Folders, seed: int) -> list[Picture]:
    return _list_whole(unpack(folders, "eurosat10.tar") / "eurosat10", seed)


def _list_caltech(folders: Folders, seed: int) -> list[Picture]:
    root = unpack(folders, "caltech101_mini.tar")

    def read(split: str) -> Iterable[Path]:
        lines = (root / f"{split}.txt").read_text().split()
        return (root / "101_ObjectCategories" / line for line in lines if not line.startswith("BACKGROUND_Google"))

    return [Picture(file, file.parent.name, split == "test") for split in ("train", "test") for file in read(split)]


def _list_cells(split: int) -> Lister:
    """ELPV, its test split drawn by another seed than that of validation."""

    def list_cells(folders: Folders, seed: int) -> list[Picture]:
        try:
            listing = list_elpv()
        except DataError as error:
            raise AbsentImagesError(str(error)) from error
        held_out = draw_test_cells(listing, split)
        pairs = zip(listing.paths, listing.labels, strict=True)
        return [Picture(listing.root / path, label, path in held_out) for path, label in pairs]

    return list_cells


def _draw_check(folders: Folders, seed: int) -> list[Picture]:
    """Small pictures of noise, brighter in one class than in the other."""
    import numpy as np
    from PIL import Image

    random_pixels = np.random.default_rng(seed)
    root = folders.work / "unpacked" / f"check{seed}"
    for kind in range(CHECK_CLASSES):
        (root / f"class{kind}").mkdir(parents=True, exist_ok=True)
        for number in range(CHECK_IMAGES):
            pixels = random_pixels.integers(0, 120, (32, 32, 3), np.uint8) + np.uint8(100 * kind)
            Image.fromarray(pixels).save(root / f"class{kind}" / f"{number}.png")
    return _list_whole(root, seed)


SETS: Final[dict[str, Lister]] = {
    "scenes8": _list_scenes,
    "scenes8-50": _list_few_scenes,
    "elpv-1": _list_cells(1),
    "elpv-2": _list_cells(2),
    "elpv-3": _list_cells(3),
    "caltech": _list_caltech,
    "signs": _list_signs,
    "eurosat10": _list_eurosat,
    "cifar10-5000": _list_few_cifar,
    "cifar10-50000": _list_cifar,
    "check": _draw_check,
}
TOGETHER: Final = {"elpv-1": "elpv", "elpv-2": "elpv", "elpv-3": "elpv"}  # sets that have one table
