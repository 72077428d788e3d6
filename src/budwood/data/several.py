"""Several folders, tables or archives as one data set.

They have one name, their paths with the separator of the system's path lists between them (`a/:b/`), so that it fits
wherever one path does: in a run, a study file, or a command that a report prints.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from budwood.data.file_tree import holds_images, list_loose_files, list_subfolders, may_be_image
from budwood.data.listing import Listing, Remark, make_listing
from budwood.errors import DataError
from budwood.text import listed


def join_sources(sources: Sequence[str | Path]) -> str:
    """Join the paths of several sources to one name.

    Args:
        sources: At least one path or name of a data set.

    Returns:
        The name; of one source, the source itself.

    Raises:
        DataError: When one of several paths is empty, or has the separator in it.
    """
    names = [str(source) for source in sources]
    for name in names if len(names) > 1 else ():
        if not name or os.pathsep in name:
            raise DataError(
                f"{name!r}: cannot be one of several folders; expected a path without {os.pathsep!r}, which parts "
                "them.",
                "Rename it, or give a link to it under another name.",
            )
    return os.pathsep.join(names)


def split_sources(name: str) -> list[str]:
    """Split the name of several sources.

    Args:
        name: What `join_sources` made, or one path or name of a data set.

    Returns:
        The sources, one where the name is that of a file or folder that is there; `~` is the home folder.
    """
    whole = str(Path(name).expanduser())
    if os.pathsep not in name or os.path.lexists(whole):
        return [whole]
    return [str(Path(part).expanduser()) for part in name.split(os.pathsep) if part]


def list_class_folder(folder: Path) -> Listing | None:
    """List one of several folders as a class of its own, where its images are in no class folders.

    Args:
        folder: The folder.

    Returns:
        Its images with its name as their label; None where it has folders with images, a table or a list.
    """
    loose = list_loose_files(folder)
    if (folder / "train.txt").is_file() or any(map(holds_images, list_subfolders(folder))):
        return None
    images = [path for path in loose if may_be_image(path)]
    name = folder.resolve().name
    return make_listing(folder, name, [(path, name, "") for path in images], []) if images else None


def join_listings(listings: Sequence[Listing]) -> Listing:
    """Join the files of several sources.

    Args:
        listings: The listing of each source, at least two. Classes of one name are one class.

    Returns:
        All files, in order; their paths are relative to the folder that all have in common.

    Raises:
        DataError: When a file is in two of them, or images have several labels in some only.
    """
    roots = [listing.root.resolve() for listing in listings]
    try:
        common = Path(os.path.commonpath(roots))
    except ValueError:  # on two drives
        common = roots[0]
    if len({listing.multilabel for listing in listings}) > 1:
        plural = next(listing.name for listing in listings if listing.multilabel)
        raise DataError(
            f"{plural}: its images have several labels each, those of the others have one.",
            "Train on one kind at a time, or write one table of all images.",
        )
    parts = [_move(listing, root, common) for listing, root in zip(listings, roots, strict=True)]
    paths = [path for part in parts for path in part.paths]
    twice = next((path for path, count in Counter(paths).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{common / twice}: is in two of the folders that were given.", "Give every folder once.")
    return replace(
        parts[0],
        root=common,
        name="+".join(dict.fromkeys(part.name for part in parts)),
        paths=paths,
        labels=[label for part in parts for label in part.labels],
        splits=[split for part in parts for split in part.splits],
        groups=[group for part in parts for group in part.groups],
        left_out=[item for part in parts for item in part.left_out],
        not_unpacked=[item for part in parts for item in part.not_unpacked],
        remarks=[*(remark for part in parts for remark in part.remarks), *_remark_on_splits(parts)],
    )


def _move(listing: Listing, root: Path, common: Path) -> Listing:
    """A listing with its paths relative to another folder."""
    start = "" if root == common else Path(os.path.relpath(root, common)).as_posix() + "/"

    def name(path: str) -> str:
        return path if Path(path).is_absolute() else f"{start}{path}"

    remarks = [
        replace(remark, detail=f"{listing.name}: {remark.detail}", files=tuple(map(name, remark.files)))
        for remark in listing.remarks
    ]
    left_out = [(name(path), reason) for path, reason in listing.left_out]
    return replace(listing, paths=[name(path) for path in listing.paths], left_out=left_out, remarks=remarks)


def _remark_on_splits(parts: Sequence[Listing]) -> list[Remark]:
    """What to say where some sources have a split, so that all of the others train."""
    without = [part.name for part in parts if not any(part.splits)]
    if not without or len(without) == len(parts):
        return []
    verb = (
        "has no split, so that its images train" if len(without) == 1 else "have no split, so that their images train"
    )
    detail = f"{listed(list(map(repr, without)), 5)} {verb}: the split of the others is used."
    return [Remark("split name", detail, "To draw a new split from all images, give tables without the column split.")]
