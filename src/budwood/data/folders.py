"""A folder of class folders, with or without train, val and test folders around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from budwood.data.file_tree import holds_images, list_loose_files, list_subfolders, may_be_image, show_path, walk
from budwood.data.listing import SPLIT_NAMES, Listing, ReadOptions, Remark, find_splits, make_listing
from budwood.data.text_lists import list_by_text_files
from budwood.errors import DataError
from budwood.text import counted, listed

_SHOWN: Final = 5  # folders that a message names


@dataclass
class _Tree:
    """What is found below a folder on the way."""

    root: Path
    label_from: str
    rows: list[tuple[Path, str, str]] = field(default_factory=list)
    loose: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    inner: dict[str, set[str]] = field(default_factory=dict)  # folders with images in it, by class folder


def list_folder(root: Path, name: str, options: ReadOptions) -> Listing:
    """List the images of a folder by the folders that they are in, or by its `train.txt`.

    Args:
        root: The folder.
        name: Short name of the data set.
        options: How to read what could be read in two ways.

    Returns:
        The files with their labels and splits.

    Raises:
        DataError: When there are split folders, but none for training, or a list is wrong.
    """
    if (root / "train.txt").is_file():
        return list_by_text_files(root, name)
    tree = _Tree(root, options.label_from)
    folders = list_subfolders(root, tree.skipped)
    names = find_splits(folder.name for folder in folders) if options.split_folders == "auto" else {}
    splits = {folder: names[folder.name] for folder in folders if folder.name in names}
    others = [folder for folder in folders if folder not in splits]
    if "train" in splits.values():
        used = [other for other in others if holds_images(other)] if set(splits.values()) == {"train"} else []
        remarks = _remark_on_splits(splits, used)
        if not used or not all(map(_is_class, splits)):
            return _list_split_folders(tree, name, splits, others, remarks)
        return _list_class_folders(tree, name, folders, [_remark_on_class_called_train(list(splits))])
    if splits and len(splits) == len(folders) and all(folder.name.lower() in SPLIT_NAMES for folder in folders):
        raise DataError(
            f"{root}: has {', '.join(f'{folder.name}/' for folder in folders)} but no train/ folder.",
            "Add train/<class>/, or give the folder of class folders.",
        )
    loose = list_loose_files(root)
    filled = folders if len(folders) == 1 else [folder for folder in folders if holds_images(folder)]
    if len(filled) == 1 and list_subfolders(filled[0]) and not any(map(may_be_image, loose)):
        listing = list_folder(filled[0], name, options)
        beside = [(f"{folder.name}/", "holds no images") for folder in folders if folder not in filled]
        beside += [(show_path(path, root), f"lies beside the folder {filled[0].name}/") for path in loose]
        return _with_skipped(replace(listing, left_out=[*listing.left_out, *beside]), tree)
    return _list_class_folders(tree, name, folders, [])


def _is_class(folder: Path) -> bool:
    """Whether a folder called train is a class: its images are not in class folders."""
    inner = [inside for inside in list_subfolders(folder) if holds_images(inside)]
    loose = sum(map(may_be_image, list_loose_files(folder)))
    return len(inner) < 2 or loose > sum(1 for inside in inner for _ in walk(inside))


def _list_class_folders(tree: _Tree, name: str, folders: Sequence[Path], remarks: Sequence[Remark]) -> Listing:
    for folder in folders:
        _add_class(tree, folder, "")
    _add_loose(tree, tree.root)
    return _finish(tree, name, remarks)


def _list_split_folders(
    tree: _Tree, name: str, splits: Mapping[Path, str], others: Sequence[Path], remarks: Sequence[Remark]
) -> Listing:
    _add_loose(tree, tree.root)
    for folder, split in splits.items():
        for label in list_subfolders(folder, tree.skipped):
            _add_class(tree, label, split)
        _add_loose(tree, folder)
    tree.loose += [(f"{folder.name}/", "is not a train, val or test folder") for folder in others]
    return _finish(tree, name, remarks)


def _add_class(tree: _Tree, folder: Path, split: str) -> None:
    for path in walk(folder, tree.skipped):
        inside = path.parent.relative_to(folder)
        names = {"top": folder.name, "parent": path.parent.name, "path": (folder.name / inside).as_posix()}
        label = names[tree.label_from]
        tree.rows.append((path, label, split))
        if inside.parts and may_be_image(path):
            place = show_path(folder, tree.root)
            tree.inner.setdefault(f"{place}/", set()).add(f"{place}/{show_path(folder / inside.parts[0], folder)}/")


def _add_loose(tree: _Tree, folder: Path) -> None:
    tree.loose += [(show_path(path, tree.root), "is outside of all class folders") for path in list_loose_files(folder)]


def _finish(tree: _Tree, name: str, remarks: Sequence[Remark]) -> Listing:
    listing = make_listing(tree.root, name, tree.rows, tree.loose)
    return _with_skipped(replace(listing, remarks=[*remarks, *_remark_on_nesting(tree)]), tree)


def _with_skipped(listing: Listing, tree: _Tree) -> Listing:
    if not tree.skipped:
        return listing
    files = tuple(sorted({f"{show_path(folder, tree.root)}/" for folder in tree.skipped}))
    what = "a folder that is" if len(files) == 1 else f"{len(files):,} folders that are"
    detail = f"Passed over {what} hidden or the system's own: {listed(list(map(repr, files)), _SHOWN)}."
    advice = "Rename a folder that holds images of yours."
    return replace(listing, remarks=[*listing.remarks, Remark("system folder", detail, advice, files)])


def _remark_on_nesting(tree: _Tree) -> list[Remark]:
    inner = {folder: inside for folder, inside in sorted(tree.inner.items()) if len(inside) > 1}
    if tree.label_from != "top" or not inner:
        return []
    count = counted(len(inner), "class folder holds", "class folders hold")
    names = listed([f"{folder!r} ({len(inside)})" for folder, inside in inner.items()], _SHOWN)
    detail = f"{count} images in folders of its own, and is read as one class: {names}."
    if len(inner) > 1:
        detail = f"{count} images in folders of their own, and each is read as one class: {names}."
    files = tuple(path for inside in inner.values() for path in sorted(inside))
    return [
        Remark("nested", detail, "Where the inner folders are the classes, give --label-from path, or parent.", files)
    ]


def _remark_on_splits(splits: Mapping[Path, str], unused: Sequence[Path]) -> list[Remark]:
    """What to say of split folders: unusual names, and folders beside them that may be classes."""
    words = {"train": "training", "val": "validation", "test": "test"}
    usual = [name for name in SPLIT_NAMES if name != "dev"]
    said = [
        f"{folder.name + '/'!r} is read as the {words[split]} split"
        for folder, split in splits.items()
        if unused or folder.name.lower() not in usual
    ]
    if not said:
        return []
    files = tuple(f"{folder.name}/" for folder in unused)
    rest = f"; {listed(list(map(repr, files)), _SHOWN)} {'is' if len(files) == 1 else 'are'} not used" if files else ""
    advice = "Where these folders are classes, give --split-folders never."
    return [Remark("split folder" if files else "split name", f"{', '.join(said)}{rest}.", advice, files)]


def _remark_on_class_called_train(folders: Sequence[Path]) -> Remark:
    names = tuple(f"{folder.name}/" for folder in folders)
    detail = f"{', '.join(map(repr, names))} is read as a class, not as a split: there is no class folder in it."
    return Remark("split name", detail, "For splits, put class folders into train/, val/ and test/.", names)
