"""Images into folders by what they are called: links to them, or copies; no file is moved or overwritten."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from budwood.data.image_streams import StreamedImage
from budwood.errors import StorageError
from budwood.evaluation.label_task import NO_LABEL
from budwood.evaluation.prediction_table import NONE_OF_THESE, ImagePrediction
from budwood.storage.atomic import raise_storage_errors

UNREADABLE: Final = "unreadable"
_FORBIDDEN: Final = '<>:"/\\|?*'
_DEVICES: Final = frozenset(
    ("con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10)))
)


class SortedFolders:
    """Folders by class below one folder.

    An image that is refused goes to `none of these`, one that cannot be read to `unreadable`; where images have several
    labels, one goes into the folder of each of its labels, or to `none of them`.
    """

    def __init__(self, folder: Path, classes: Sequence[str], copies: bool) -> None:
        """Name the folders; each is made when the first image goes there.

        Args:
            folder: The folder.
            classes: Names of the classes; one that is no name of a file is changed.
            copies: Whether images are copied, not linked.
        """
        self._folder, self._copies = folder, copies
        self._refused, self._unreadable, self._unlabelled, *names = name_folders(
            [NONE_OF_THESE, UNREADABLE, NO_LABEL, *classes]
        )
        self._names = dict(zip(classes, names, strict=True))

    def put(self, image: StreamedImage, answer: ImagePrediction) -> None:
        """Put an image where it belongs.

        Args:
            image: The image.
            answer: What it is called.

        Raises:
            StorageError: The folder cannot be written, or its disk has no links.
        """
        if answer.problem:
            names = [self._unreadable]
        elif answer.refused:
            names = [self._refused]
        else:
            names = [self._names[label] for label in answer.labels] or [self._unlabelled]
        for name in names:
            folder = self._folder / name
            with raise_storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._place(image, folder)

    def _place(self, image: StreamedImage, folder: Path) -> None:
        """Under its own name; where another image has that, with a digest of its path."""
        own = PurePosixPath(image.name.replace("\\", "/"))
        where = str(Path(image.name).absolute()).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(where, digest_size=6).hexdigest()
        for place in (folder / own.name, folder / f"{own.stem}-{digest}{own.suffix}"):
            if self._put_at(image, place):
                return

    def _put_at(self, image: StreamedImage, place: Path) -> bool:
        """Whether the image is there, now or from before."""
        if isinstance(image.content, bytes) or self._copies:
            return _copy(image.content, place)
        source = image.content.absolute()
        try:
            place.symlink_to(source)
        except FileExistsError:
            return place.is_symlink() and place.readlink() == source
        except (NotImplementedError, PermissionError) as error:
            raise StorageError(f"{place}: a link cannot be made here ({error}).", "Use --copy.") from error
        return True


def _copy(content: Path | bytes, place: Path) -> bool:
    """A copy that appears whole; one that is there with the same content counts."""
    if os.path.lexists(place):
        same = place.read_bytes() == content if isinstance(content, bytes) else _is_same(content, place)
        return place.is_file() and same
    draft = place.with_name(f".{place.name}.part")
    try:
        if isinstance(content, bytes):
            draft.write_bytes(content)
        elif content.is_file():
            shutil.copy2(content, draft)
        else:  # there is nothing to copy of a file that is missing or no file
            return True
        draft.rename(place)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _is_same(content: Path, place: Path) -> bool:
    return content.is_file() and place.is_file() and filecmp.cmp(content, place, shallow=False)


def name_folders(labels: Sequence[str]) -> list[str]:
    """Name a folder for each label, which every system takes and no other label has.

    Args:
        labels: The labels.

    Returns:
        The names in order: the label itself where that is a name of a file.
    """
    names: list[str] = []
    taken = set[str]()
    for label in labels:
        plain = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in label)
        plain = plain.encode("utf-8", "replace")[:120].decode(errors="ignore").rstrip(". ")
        if not plain or plain.startswith(".") or plain.split(".")[0].lower() in _DEVICES:
            plain = f"_{plain}"
        number, name = 1, plain
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
