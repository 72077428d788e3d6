"""Labelled files, before any of them is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from budwood.data.file_tree import is_text, show_path
from budwood.errors import DataError

SPLITS: Final = ("train", "val", "test")
SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "dev": "val",
}
EVAL_NAMES: Final = ("eval", "evaluation")  # of validation; of the test split where validation has another name
READINGS: Final = {
    "label_from": ("top", "parent", "path"),
    "spelling": ("join", "keep"),
    "split_folders": ("auto", "never"),
}
LABEL_SEPARATOR: Final = ";"


@dataclass(frozen=True)
class ReadOptions:
    """How data are read that could be read in two ways.

    Attributes:
        label_from: Class of an image in a folder in a class folder: `top`, the class folder; `parent`, the folder that
            the image is in; `path`, the path of all, such as `plant/rose`.
        label_separator: What parts the labels in a cell of a table; `space`; `none` where a cell is one label; None
            to find it out.
        spelling: Whether names that differ in case, spaces or the form of Unicode are one class: `join` or `keep`.
        split_folders: Whether folders called train, val or test are splits: `auto` or `never`.
        image_column: Header of a table's column of paths or images; None for the usual ones.
        label_column: Header of a table's column of labels; None for the usual ones.
    """

    label_from: str = "top"
    label_separator: str | None = None
    spelling: str = "join"
    split_folders: str = "auto"
    image_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        """Check the words.

        Raises:
            DataError: When a word is unknown.
        """
        for name, words in READINGS.items():
            if (found := getattr(self, name)) not in words:
                expected = f"{', '.join(map(repr, words[:-1]))} or {words[-1]!r}"
                raise DataError(f"{name}: expected {expected}, found {found!r}.", "Give one of these words.")
        if self.label_separator == "":
            raise DataError("label_separator: expected a separator, found nothing.", "For example ',' or 'space'.")


@dataclass(frozen=True)
class Remark:
    """How something was read that could be read otherwise; it becomes a finding.

    Attributes:
        kind: Key of the finding in `checks`.
        detail: What was read how, in one sentence.
        advice: How to have it read otherwise.
        files: What it is about: paths of files, or of folders with a slash at the end.
    """

    kind: str
    detail: str
    advice: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Labelled files, and names that could not become one.

    Attributes:
        source: What the user gave: an absolute path or the name of a data set.
        root: Folder that the paths are relative to.
        name: Short name of the data set.
        paths: Path of each file, with forward slashes.
        labels: Class name of each file; with `several`, its class names in order, separated by semicolons.
        splits: `train`, `val`, `test` or, where none is given, an empty string, for each file.
        groups: Group of each file; an empty string where none is given.
        left_out: Names that are not used, each with the reason.
        several: Whether an image has any number of labels.
        corrected: Number of images whose label the user's corrections changed, or that they leave out or add.
        not_unpacked: Members of an archive that are not used, each with the reason.
        remarks: How something was read that could be read otherwise.
        uncorrected: Label of each file before the user's corrections, by which splits are drawn, so that a corrected
            file stays in its split; empty where nothing was corrected.
        added: Whether each file was added to training by the user's corrections; empty where none was.
    """

    source: str
    root: Path
    name: str
    paths: Sequence[str]
    labels: Sequence[str]
    splits: Sequence[str]
    groups: Sequence[str]
    left_out: Sequence[tuple[str, str]] = field(default=())
    multilabel: bool = False
    corrected: int = 0
    not_unpacked: Sequence[tuple[str, str]] = field(default=())
    remarks: Sequence[Remark] = field(default=())
    uncorrected: Sequence[str] = field(default=())
    added: Sequence[bool] = field(default=())


def split_label_names(labels: str) -> list[str]:
    """Split a text of several labels at its semicolons.

    Args:
        labels: Names separated by semicolons.

    Returns:
        The names without surrounding spaces; empty ones are dropped.
    """
    return [name.strip() for name in labels.split(LABEL_SEPARATOR) if name.strip()]


def find_splits(names: Iterable[str]) -> dict[str, str]:
    """Find the splits that names of folders, files or cells stand for.

    Args:
        names: The names, in any case.

    Returns:
        `train`, `val` or `test` by name, without the names that stand for none.
    """
    words = {name: name.strip().lower() for name in names}
    found = {name: SPLIT_NAMES[word] for name, word in words.items() if word in SPLIT_NAMES}
    rest = "test" if "val" in found.values() and "test" not in found.values() else "val"
    return {**found, **{name: rest for name, word in words.items() if word in EVAL_NAMES}}


def select_rows(listing: Listing, rows: Sequence[int]) -> Listing:
    """Select some files of a listing.

    Args:
        listing: The listing.
        rows: Numbers of the files from 0.

    Returns:
        The listing with these files only, in the order of `rows`.
    """
    return replace(
        listing,
        paths=[listing.paths[row] for row in rows],
        labels=[listing.labels[row] for row in rows],
        splits=[listing.splits[row] for row in rows],
        groups=[listing.groups[row] for row in rows],
        uncorrected=[listing.uncorrected[row] for row in rows] if listing.uncorrected else (),
        added=[listing.added[row] for row in rows] if listing.added else (),
    )


def make_listing(
    root: Path, name: str, rows: Sequence[tuple[Path, str, str]], left_out: Sequence[tuple[str, str]]
) -> Listing:
    """Make the listing of files in folders, sorted by path.

    Args:
        root: Folder that the paths are relative to.
        name: Short name of the data set.
        rows: Each file with its label and split.
        left_out: Names that are not used, each with the reason.

    Returns:
        The files; those whose name is not valid Unicode are left out.
    """
    good, bad = [], list(left_out)
    for path, label, split in rows:
        relative = path.relative_to(root).as_posix()
        if is_text(relative):
            good.append((relative, label, split))
        else:
            bad.append((show_path(path, root), "has a name that is not valid Unicode"))
    good.sort()
    return Listing(
        "",
        root,
        name,
        [path for path, _, _ in good],
        [label for _, label, _ in good],
        [split for _, _, split in good],
        [""] * len(good),
        bad,
    )
