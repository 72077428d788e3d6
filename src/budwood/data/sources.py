"""What the user handed in, as a list of files with labels: nothing is decoded here.

Read are a folder of class folders, with or without train / val / test folders around them; the Caltech layout, a
folder with `train.txt` and `test.txt`; a CSV or Parquet table with path, label and optional split and group columns;
a folder of Parquet tables that hold their images; and an archive of any of these.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from budwood.data.archives import extract_listed, is_archive
from budwood.data.corrections import OMIT, match_corrections
from budwood.data.downloads import SOURCES, fetch, place_of
from budwood.data.file_tree import list_loose_files, list_subfolders, show_path, walk
from budwood.data.folders import list_folder
from budwood.data.listing import Listing, ReadOptions, select_rows, split_label_names
from budwood.data.parquet_shards import find_shards, list_shards
from budwood.data.several import join_listings, join_sources, list_class_folder, split_sources
from budwood.data.spellings import join_spellings
from budwood.data.table_file import TABLES
from budwood.data.tables import list_table, lists_images
from budwood.data.text_lists import read_lines, resolve_within
from budwood.errors import DataError, did_you_mean
from budwood.storage.context import Context
from budwood.text import counted


def list_files(
    source: str | Path,
    context: Context,
    exclude: Sequence[str] = (),
    corrections: Sequence[Path] = (),
    options: ReadOptions | None = None,
) -> Listing:
    """List the labelled files of a source, without decoding them.

    Args:
        source: Folder, table, archive, the name of a data set, or several of these as `join_sources` joins them.
        context: The cache folder, for archives and downloads, and where notes and steps go.
        exclude: Names of classes to leave out.
        corrections: CSV files of corrections, applied in order.
        options: How to read what could be read in two ways; None for the usual ways.

    Returns:
        The files with their labels, splits and groups, with corrections applied.

    Raises:
        DataError: When the source does not exist or cannot be read, has no known layout or no labelled image, has
            fewer than two classes in training, or has a class in validation or test that training lacks; when a
            class to exclude does not exist; when corrections do not fit.
        StorageError: When an archive or a download cannot be written to the cache.
    """
    options = options or ReadOptions()
    try:
        listing = replace(_list_sources(source, context, options), source=_name_sources(source))
    except OSError as error:
        raise DataError(
            f"{error.filename or source}: cannot be read ({error.strerror or error}).",
            "Check the permissions of the file or folder.",
        ) from error
    if not listing.paths:
        raise DataError(
            f"{source}: contains no labelled image files.",
            "Expected one folder per class with images in it, train/ and test/ folders of those, "
            "or a CSV file with the columns path and label.",
        )
    return finish_listing(listing, str(source), context, exclude, corrections, options)


def finish_listing(
    listing: Listing,
    source: str,
    context: Context,
    exclude: Sequence[str],
    corrections: Sequence[Path],
    options: ReadOptions,
) -> Listing:
    """Finish a listing: spellings are joined, corrections applied, classes checked and left out.

    Args:
        listing: Labelled files as they were read, at least one.
        source: What the user gave, for messages.
        context: Where notes go.
        exclude: Names of classes to leave out.
        corrections: CSV files of corrections, applied in order.
        options: How to read what could be read in two ways.

    Returns:
        The files that are used.

    Raises:
        DataError: When corrections do not fit, a class to exclude does not exist, training has fewer than two
            classes, or validation or test has a class that training lacks.
    """
    if options.spelling == "join":
        listing = join_spellings(listing)
    for file in corrections:
        listing = _apply_corrections(listing, file, context)
    _check_classes(source, listing)
    return _exclude_classes(listing, exclude) if exclude else listing


def source_exists(source: str, cache: Path) -> bool:
    """Tell whether images can be read without downloading them first.

    Args:
        source: Path or name of a data set.
        cache: The cache folder.

    Returns:
        True for an existing path, a built-in data set, or a data set that was downloaded already.
    """
    return all(
        Path(part).exists() or part in BUILT_IN or (part in SOURCES and place_of(part, cache).is_dir())
        for part in split_sources(source)
    )


def _name_sources(source: str | Path) -> str:
    parts = split_sources(str(source))
    return join_sources([str(Path(part).resolve()) if Path(part).exists() else part for part in parts])


def _list_sources(source: str | Path, context: Context, options: ReadOptions) -> Listing:
    """The files of one source, or of several together."""
    parts = [Path(part) for part in split_sources(str(source))]
    if len(parts) == 1:
        return _list(parts[0], context, options)
    return join_listings([_list_one_of_several(part, context, options) for part in parts])


def _list_one_of_several(source: Path, context: Context, options: ReadOptions) -> Listing:
    own = list_class_folder(source) if source.is_dir() and not find_shards(source) else None
    return _list(source, context, options) if own is None else own


def _list(source: Path, context: Context, options: ReadOptions) -> Listing:
    if not source.exists():
        if str(source) in BUILT_IN:
            return BUILT_IN[str(source)]()
        if str(source) in SOURCES:
            return list_folder(fetch(str(source), context), str(source), options)
        raise DataError(
            f"{source}: no such file or folder.",
            "Check the path, and quote it if it contains spaces. "
            f"Data sets that have a name: {', '.join(sorted({*BUILT_IN, *SOURCES}))}.",
        )
    if options.image_column or options.label_column:
        _refuse_columns(source, options)
    if source.is_dir():
        if shards := find_shards(source):
            return list_shards(source, shards, options, context)
        return list_folder(source, source.resolve().name, options)
    if source.suffix.lower() in TABLES:
        return list_table(source, options, context)
    if source.is_file() and is_archive(source):
        found = extract_listed(source, context)
        listing = _list_extracted(found.folder, source, context, options)
        return replace(listing, not_unpacked=found.skipped)
    raise DataError(
        f"{source}: is neither a folder, nor a CSV or Parquet table, nor a tar or zip archive.",
        "Give a folder with one subfolder of images per class.",
    )


def _refuse_columns(source: Path, options: ReadOptions) -> None:
    """Raises `DataError` where columns are named of what is no table."""
    if source.suffix.lower() not in TABLES and not (source.is_dir() and find_shards(source)):
        option = f"--image-column {options.image_column}" if options.image_column else ""
        option = option or f"--label-column {options.label_column}"
        raise DataError(f"{option} does not apply: {source} is no table.", "Leave it out, or give the table itself.")


def _list_extracted(root: Path, archive: Path, context: Context, options: ReadOptions) -> Listing:
    """An archive's files: by the one table at the top that lists most of them, else as a folder."""
    name = archive.name.split(".")[0]
    top = root
    while not list_loose_files(top) and len(folders := list_subfolders(top)) == 1:
        top = folders[0]
    tables = [file for file in list_loose_files(top) if file.suffix.lower() in TABLES and lists_images(file)]
    if len(tables) != 1:
        return list_folder(root, name, options)
    listing = list_table(tables[0], options, context)
    named = set(listing.paths)
    unlisted = [path for file in walk(top) if file != tables[0] and (path := show_path(file, top)) not in named]
    if 2 * sum((top / path).is_file() for path in named) <= len(unlisted):
        return list_folder(root, name, options)
    for row, path in enumerate(listing.paths, 1):
        resolve_within(top, path, f"{archive}, {tables[0].name}, row {row}")
    context.progress.note(f"{archive.name}: labels are read from its table {tables[0].name}.")
    return replace(listing, name=name, left_out=[(path, f"is not in {tables[0].name}") for path in unlisted])


def _check_classes(source: str, listing: Listing) -> None:
    training = _collect_classes(listing, ("train", ""))
    if not training:
        raise DataError(f"{source}: the training set has no images.", "Add images to the training set.")
    for split in ("val", "test"):
        unknown = sorted(_collect_classes(listing, (split,)) - training)
        if unknown:
            raise DataError(
                f"{source}: the {split} split has the class {unknown[0]!r}, which the train split does not have.",
                f"{did_you_mean(unknown[0], training)} Rename or remove the class in {split}.",
            )
    if len(training) < 2:
        raise DataError(
            f"{source}: has only one class ({next(iter(training))!r}); a classifier needs two or more.",
            "Add a folder with images of another class.",
        )


def _collect_classes(listing: Listing, splits: Sequence[str]) -> set[str]:
    labels = {label for label, split in zip(listing.labels, listing.splits, strict=True) if split in splits}
    return {name for label in labels for name in split_label_names(label)} if listing.multilabel else labels


def _exclude_classes(listing: Listing, exclude: Sequence[str]) -> Listing:
    if listing.multilabel:
        raise DataError(
            "--exclude cannot be used with multi-label data (images with several labels).",
            "Remove the label from the table instead.",
        )
    counts = Counter(listing.labels)
    for name in exclude:
        if name not in counts:
            raise DataError(f"--exclude {name}: there is no such class.", did_you_mean(name, counts))
    if len(counts) - len(set(exclude)) < 2:
        raise DataError("--exclude leaves fewer than two classes.", "Exclude fewer classes.")
    return select_rows(listing, [row for row, label in enumerate(listing.labels) if label not in exclude])


def _apply_corrections(listing: Listing, file: Path, context: Context) -> Listing:
    """The listing with the labels of a table of corrections, without what it leaves out, with what it adds."""
    if listing.multilabel:
        raise DataError(
            f"{file}: corrections cannot be used with multi-label data (images with several labels).",
            "Correct the labels in the table itself.",
        )
    matched = match_corrections(listing.paths, listing.labels, file, listing.root)
    answers = matched.answers
    labels = list(listing.labels)
    for row, label in answers.items():
        labels[row] = label
    out = {row for row, label in answers.items() if label == OMIT}
    first = listing.uncorrected or listing.labels
    corrected = select_rows(
        replace(listing, labels=labels, uncorrected=first), [row for row in range(len(labels)) if row not in out]
    )
    reasons = [(listing.paths[row], f"is excluded by {file.name}") for row in sorted(out)]
    changed = sum(label != listing.labels[row] for row, label in answers.items())
    corrected = replace(corrected, left_out=[*listing.left_out, *reasons], corrected=listing.corrected + changed)
    if not matched.added:
        return corrected
    context.progress.note(f"{file.name} adds {counted(len(matched.added), 'image')} to training.")
    added = _add_files(corrected, matched.added)
    return replace(added, corrected=added.corrected + len(matched.added))


def _add_files(listing: Listing, added: Mapping[str, str]) -> Listing:
    """The listing with files that train, wherever they lie."""
    labels, count = list(added.values()), len(added)
    return replace(
        listing,
        paths=[*listing.paths, *(_name_added(Path(place), listing.root) for place in added)],
        labels=[*listing.labels, *labels],
        splits=[*listing.splits, *["train" if "train" in listing.splits else ""] * count],
        groups=[*listing.groups, *[""] * count],
        uncorrected=[*listing.uncorrected, *labels],
        added=[*(listing.added or [False] * len(listing.paths)), *[True] * count],
    )


def _name_added(place: Path, root: Path) -> str:
    """The path of an added file: relative where it lies in the data's folder, else absolute."""
    inside = place.is_relative_to(root.resolve())
    return place.relative_to(root.resolve()).as_posix() if inside else place.as_posix()


def list_elpv() -> Listing:
    """List the solar cells of the package elpv-dataset as functional or defective.

    A cell is defective if its probability is over 0.5. A quarter is the test split, stratified by label and cell
    type as in Deitsch et al. (2019) and drawn by a hash of the file name.

    Returns:
        The images with their labels and splits.

    Raises:
        DataError: When the package elpv-dataset is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("elpv: the package elpv-dataset is not installed.", "Install it with: pip install elpv-dataset")
    root = Path(spec.submodule_search_locations[0]) / "data"
    rows = [line.split() for line in read_lines(root / "labels.csv")]
    paths = [path for path, _, _ in rows]
    labels = ["defective" if float(probability) > 0.5 else "functional" for _, probability, _ in rows]
    strata = [f"{label} {kind}" for label, (_, _, kind) in zip(labels, rows, strict=True)]
    held_out = {path for stratum in set(strata) for path in _pick_quarter(paths, strata, stratum)}
    splits = ["test" if path in held_out else "train" for path in paths]
    return Listing("elpv", root, "elpv", paths, labels, splits, [""] * len(paths))


def _pick_quarter(paths: Sequence[str], strata: Sequence[str], stratum: str) -> list[str]:
    members = [path for path, name in zip(paths, strata, strict=True) if name == stratum]
    members.sort(key=lambda path: hashlib.blake2b(path.encode()).digest())
    return members[: round(len(members) / 4)]


BUILT_IN: Final[dict[str, Callable[[], Listing]]] = {"elpv": list_elpv}
