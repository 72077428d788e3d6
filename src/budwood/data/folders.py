"""A folder of class folders, with or without train, val and test folders around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from budwood.data.file_tree import list_loose_files, list_subfolders, show_path, walk
from budwood.data.listing import SPLIT_NAMES, Listing, make_listing
from budwood.data.text_lists import list_by_text_files
from budwood.errors import DataError


def list_folder(root: Path, name: str) -> Listing:
    """List the images of a folder by the folders that they are in, or by its `train.txt`.

    Args:
        root: The folder.
        name: Short name of the data set.

    Returns:
        The files with their labels and splits.

    Raises:
        DataError: When there are split folders, but none for training, or a list is wrong.
    """
    folders = list_subfolders(root)
    if (root / "train.txt").is_file():
        return list_by_text_files(root, name)
    splits = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if "train" in splits.values():
        return _list_split_folders(root, name, splits, [folder for folder in folders if folder not in splits])
    if splits and len(splits) == len(folders):
        names = ", ".join(f"{folder.name}/" for folder in folders)
        raise DataError(
            f"{root}: has {names} but no train/ folder.", "Add train/<class>/, or give the folder of class folders."
        )
    if len(folders) == 1 and list_subfolders(folders[0]) and not list_loose_files(root):
        return list_folder(folders[0], name)
    return _list_class_folders(root, name, folders)


def _list_class_folders(root: Path, name: str, folders: Sequence[Path]) -> Listing:
    rows = [(path, folder.name, "") for folder in folders for path in walk(folder)]
    loose = [(show_path(path, root), "is outside of all class folders") for path in list_loose_files(root)]
    return make_listing(root, name, rows, loose)


def _list_split_folders(root: Path, name: str, splits: dict[Path, str], others: Sequence[Path]) -> Listing:
    rows = []
    loose = [(show_path(path, root), "is outside of all class folders") for path in list_loose_files(root)]
    for folder, split in splits.items():
        rows += [(path, label.name, split) for label in list_subfolders(folder) for path in walk(label)]
        loose += [(show_path(path, root), "is outside of all class folders") for path in list_loose_files(folder)]
    loose += [(f"{folder.name}/", "is not a train, val or test folder") for folder in others]
    return make_listing(root, name, rows, loose)
