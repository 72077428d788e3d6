"""A folder of Parquet tables that hold their images, each a part of a split, as cloned from Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from budwood.data.file_tree import holds_images, list_loose_files, list_subfolders, may_be_image, show_path
from budwood.data.listing import Listing, ReadOptions, Remark, find_splits
from budwood.data.tables import list_table
from budwood.errors import DataError
from budwood.storage.context import Context

_NAME: Final = re.compile(
    r"(?P<split>\w+?)(-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?)?\.parquet", re.IGNORECASE
)
_PLACES: Final = ("", "data")


def find_shards(root: Path) -> dict[Path, str]:
    """Find the tables of a folder that are named after splits, such as `data/train-00000-of-00002.parquet`.

    Args:
        root: The folder.

    Returns:
        The split of each table, in the order of their names; none where the folder holds images or no such table.

    Raises:
        DataError: When a part of a split is missing.
    """
    for place in _PLACES:
        if not (root / place).is_dir():
            continue
        if any(holds_images(folder) for folder in list_subfolders(root / place) if folder.name not in _PLACES):
            return {}
        named = {file: _NAME.fullmatch(file.name) for file in sorted(list_loose_files(root / place))}
        parts = {file: match for file, match in named.items() if match}
        splits = find_splits(match["split"] for match in parts.values())
        found = {file: splits[match["split"]] for file, match in parts.items() if match["split"] in splits}
        if found:
            _refuse_missing_parts({file: parts[file] for file in found})
            return found
    return {}


def list_shards(root: Path, shards: Mapping[Path, str], options: ReadOptions, context: Context) -> Listing:
    """List the images of all tables of a folder.

    Args:
        root: The folder.
        shards: Split of each table.
        options: How to read what could be read in two ways.
        context: The cache folder, to which the images are written, and where notes go.

    Returns:
        The files with their labels and splits; paths begin with the name of the table.

    Raises:
        DataError: When a table cannot be read, does not hold its images, or has other columns than the others.
        StorageError: When images cannot be written to the cache.
    """
    listings = {file: list_table(file, options, context) for file in shards}
    archives = next(iter(listings.values())).root.parent
    first = next(iter(listings))
    for file, listing in listings.items():
        if listing.root.parent != archives or listing.root == file.resolve().parent:
            raise DataError(
                f"{file}: holds paths of images, not the images.",
                "Give one table that names all images, or tables that hold them.",
            )
        if listing.multilabel != listings[first].multilabel:
            raise DataError(
                f"{file}: its images have {'several labels' if listing.multilabel else 'one label'} each, "
                f"unlike those of {first.name}.",
                "Give --label-separator, or tables with the same columns.",
            )
    places = {file.parent for file in shards} | {root}
    others = {file for place in places for file in list_loose_files(place)} - set(shards)
    odd = sorted(file for file in others if may_be_image(file) or file.suffix.lower() == ".parquet")
    return replace(
        listings[first],
        root=archives,
        name=root.resolve().name,
        paths=[f"{listing.root.name}/{path}" for listing in listings.values() for path in listing.paths],
        labels=[label for listing in listings.values() for label in listing.labels],
        splits=[own or shards[file] for file, listing in listings.items() for own in listing.splits],
        groups=[group for listing in listings.values() for group in listing.groups],
        left_out=[(show_path(file, root), "is in none of the tables of a split") for file in odd],
        remarks=[
            _name_table(remark, file, listing.root.name)
            for file, listing in listings.items()
            for remark in listing.remarks
        ],
    )


def _name_table(remark: Remark, file: Path, folder: str) -> Remark:
    files = tuple(f"{folder}/{path}" for path in remark.files)
    return replace(remark, detail=f"{file.name}: {remark.detail}", files=files)


def _refuse_missing_parts(parts: Mapping[Path, re.Match[str]]) -> None:
    """Raises `DataError` when a split says of how many tables it is, and one of them is not there."""
    there = {(match["split"], match["count"], match["number"]) for match in parts.values()}
    for file, match in parts.items():
        for number in range(int(match["count"] or 0)):
            if (match["split"], match["count"], f"{number:05}") not in there:
                missing = f"{match['split']}-{number:05}-of-{match['count']}"
                raise DataError(
                    f"{file.parent}: the table {missing}*.parquet is missing, one of the {int(match['count'])} tables "
                    f"of {match['split']}.",
                    "Download the data set again (`git lfs pull`), or remove the other tables of that split.",
                )
