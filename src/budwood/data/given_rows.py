"""Images with their labels as a program has them: which forms there are, and what is wrong with others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from budwood.data.listing import Remark
from budwood.errors import DataError, did_you_mean

FORMS: Final = (
    "Give paths; images and labels; a list of (image, label); a data frame; a data set of torchvision, torch or "
    "Hugging Face; or a mapping from train, val and test to one of these."
)
_NO_LABELS: Final = "Give them by labels=..., or give a list of (image, label)."


@dataclass(frozen=True)
class GivenRows:
    """Images with their labels as a program has them.

    Attributes:
        name: What they are called in messages.
        count: Number of images.
        take: The image and the label of a row, by its number; it may decode a file.
        splits: `train`, `val`, `test` or an empty text for each image.
        groups: Group of each image; an empty text where none is given.
        classes: Name of each class number; empty where labels are names, or numbers without names.
        header: Header of the column that labels are in, where they are text in a table; empty where they are objects.
        remarks: How something was read that could be read otherwise.
    """

    name: str
    count: int
    take: Callable[[int], tuple[object, object]]
    splits: Sequence[str]
    groups: Sequence[str]
    classes: Sequence[str] = ()
    header: str = ""
    remarks: Sequence[Remark] = ()


def is_path(source: object) -> bool:
    """Tell whether a value is a path or the name of a data set.

    Args:
        source: Anything.

    Returns:
        True for a text or a path.
    """
    return isinstance(source, (str, Path))


def are_paths(source: object) -> bool:
    """Tell whether a value is one path, or several.

    Args:
        source: Anything.

    Returns:
        True for a path, and for a list or tuple of paths, at least one.
    """
    return is_path(source) or (isinstance(source, (list, tuple)) and bool(source) and all(map(is_path, source)))


def pair(images: Any, labels: Any) -> GivenRows:
    """Pair images with labels.

    Args:
        images: A sequence of images, or an array or tensor of [n, height, width], [n, height, width, c] or
            [n, c, height, width].
        labels: The label of each image: names or numbers, or lists of them where images have several.

    Returns:
        The rows.

    Raises:
        DataError: When there are not as many labels as images, or one of both has another form.
    """
    shape = _read_shape(images)
    if shape is not None and len(shape) not in (1, 3, 4):
        raise DataError(
            f"images: expected an array [n, height, width] or [n, height, width, channels], found {list(shape)}.",
            "Reshape it, so that every image has a height and a width.",
        )
    listed = images if shape is not None and len(shape) > 1 else _to_list(images, "images")
    answers = _to_list(labels, "labels")
    if len(answers) != len(listed):
        raise DataError(
            f"labels: expected one for each of {len(listed):,} images, found {len(answers):,}.",
            "Give a label for every image, in the same order.",
        )
    return _make_rows("images", len(answers), lambda row: (listed[row], answers[row]))


def read_pairs(items: Sequence[Any], classes: Sequence[str], name: str) -> GivenRows:
    """Read a sequence of which every item is an image with its label.

    Args:
        items: A list, or a data set of torch or torchvision, whose items may be decoded when they are taken.
        classes: Name of each class number; empty for none.
        name: What the items are called in messages.

    Returns:
        The rows; of an `ImageFolder` its files.
    """
    items = _find_files(items)

    def take(row: int) -> tuple[object, object]:
        item = items[row]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            found = f"{len(item)} values" if isinstance(item, (tuple, list)) else type(item).__name__
            raise DataError(f"{name}, item {row}: expected (image, label), found {found}.", _NO_LABELS)
        return item[0], item[1]

    return _make_rows(name, len(items), take, classes)


def read_rows(source: Any) -> GivenRows:
    """Read images with their labels, of any form but tables and mappings.

    Args:
        source: What a program gave.

    Returns:
        The rows.

    Raises:
        DataError: When it has no labels, or is of another form.
    """
    if isinstance(source, tuple) and len(source) == 2 and not _is_pair(source[0]):
        return pair(*source)
    if _read_shape(source) is not None:
        raise DataError(f"labels: none are given with the array {list(_read_shape(source) or ())}.", _NO_LABELS)
    if isinstance(source, (list, tuple)):
        return read_pairs(source, (), "images")
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, (bytes, Mapping)):
        return read_pairs(source, _find_classes(source), f"the data set {type(source).__name__}")
    if isinstance(source, Iterable) and not isinstance(source, (bytes, Mapping)):
        return read_pairs(list(source), (), "images")
    raise DataError(f"the images: expected what a data set is made from, found {type(source).__name__}.", FORMS)


def join_splits(parts: Mapping[str, GivenRows]) -> GivenRows:
    """Join the rows of several splits.

    Args:
        parts: The rows of each split: `train`, `val` or `test`.

    Returns:
        The rows of all, in order, each in its split.

    Raises:
        DataError: When some are tables and others are not, or their columns of labels have other names.
    """
    first = next(iter(parts.values()))
    for split, part in parts.items():
        if (part.header, list(part.classes)) != (first.header, list(first.classes)):
            raise DataError(
                f"{split}: its labels are given otherwise than those of {next(iter(parts))} (another column, or other "
                "classes).",
                "Give all splits in the same form.",
            )
    places = [(part, row) for part in parts.values() for row in range(part.count)]
    return GivenRows(
        name=first.name,
        count=len(places),
        take=lambda place: places[place][0].take(places[place][1]),
        splits=[split for split, part in parts.items() for _ in range(part.count)],
        groups=[group for part in parts.values() for group in part.groups],
        classes=first.classes,
        header=first.header,
        remarks=[remark for part in parts.values() for remark in part.remarks],
    )


def write_label(label: object, classes: Sequence[str], where: str) -> str | list[str]:
    """Write a label as text.

    Args:
        label: A name or a number, or a collection of them.
        classes: Name of each class number; empty for none.
        where: Which image it is of, for messages.

    Returns:
        The name; of a collection, the names.

    Raises:
        DataError: When the label is missing, is no name or whole number, or is none of the classes.
    """
    label = _to_plain(label)
    if isinstance(label, (list, tuple, set, frozenset)):
        names = [write_label(one, classes, where) for one in label]
        return sorted(name for name in names if isinstance(name, str))
    if label is None or label == "" or (isinstance(label, float) and math.isnan(label)):
        raise DataError(f"{where}: has no label ({label!r}).", "Give every image a label, or leave the image out.")
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, str):
        if classes and label not in classes:
            raise DataError(f"{where}: the label {label!r} is none of classes.", did_you_mean(label, classes))
        return label
    if not isinstance(label, int):
        raise DataError(
            f"{where}: expected the name or the number of a class, found {label!r} ({type(label).__name__}).",
            "Give one class an image, or a list of classes where images have several.",
        )
    if not classes or isinstance(label, bool):
        return str(label)
    if not 0 <= label < len(classes):
        raise DataError(
            f"{where}: the label {label} is none of the {len(classes)} classes (0 to {len(classes) - 1}).",
            "Give the names of all classes, in the order of their numbers.",
        )
    return classes[label]


def _make_rows(
    name: str, count: int, take: Callable[[int], tuple[object, object]], classes: Sequence[str] = ()
) -> GivenRows:
    return GivenRows(name, count, take, [""] * count, [""] * count, classes)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _read_shape(value: object) -> tuple[int, ...] | None:
    """The shape of an array or tensor; None for anything else, series of data frames included."""
    shape = getattr(value, "shape", None)
    is_array = isinstance(value, np.ndarray) or hasattr(value, "detach") or hasattr(value, "__dlpack__")
    return tuple(shape) if shape is not None and is_array else None


def _to_list(values: Any, what: str) -> list[Any]:
    shape = _read_shape(values)
    if shape is not None and len(shape) == 2 and shape[1] == 1:
        values, shape = values.reshape(-1), (shape[0],)
    if shape is not None and len(shape) != 1:
        raise DataError(
            f"{what}: expected one value an image, found an array of {list(shape)}.",
            "For one row of ones and zeros an image, give `labels.argmax(1)`, or lists where images have several.",
        )
    for name in ("tolist", "to_list"):
        if hasattr(values, name):
            return list(getattr(values, name)())
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise DataError(f"{what}: expected a sequence, found {type(values).__name__}.", "Give a list or an array.")
    return list(values)


def _to_plain(label: Any) -> object:
    """A label of NumPy or torch as a value of Python."""
    if isinstance(label, (np.generic, np.ndarray)) or hasattr(label, "detach"):
        return label.tolist()
    return label


def _find_classes(source: Any) -> list[str]:
    """The names of the classes of a data set of torchvision, or of the one that it is a part of."""
    for _ in range(10):
        classes = getattr(source, "classes", None)
        if isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes):
            return list(classes)
        if (source := getattr(source, "dataset", None)) is None:
            break
    return []


def _find_files(items: Any) -> Sequence[Any]:
    """The files of an `ImageFolder` with their labels, in place of decoded images; other items as they are."""
    samples = getattr(items, "samples", None)
    if not isinstance(samples, list) or len(samples) != len(items) or getattr(items, "target_transform", None):
        return items  # type: ignore[no-any-return]
    return samples if all(_is_pair(one) and is_path(one[0]) for one in samples) else items
