"""What the user handed in, as a list of files with labels: nothing is decoded here.

Read are a folder of class folders, with or without train / val / test folders around them; the Caltech layout, a
folder with `train.txt` and `test.txt`; a CSV or Parquet table with path, label and optional split and group columns;
and an archive of any of these.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.data.archives import extract_listed, is_archive
from budwood.data.corrections import OMIT, match_corrections
from budwood.data.downloads import SOURCES, fetch, place_of
from budwood.errors import DataError, did_you_mean
from budwood.progress import Progress
from budwood.storage.context import Context

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS: Final = ("train", "val", "test")
SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
PATH_COLUMNS: Final = ("path", "file", "filename", "image")
LABEL_COLUMNS: Final = ("label", "class")
LABELS_COLUMN: Final = "labels"  # of images that have several labels each, or none
LABEL_SEPARATOR: Final = ";"
TABLES: Final = (".csv", ".tsv", ".parquet")


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
        corrected: Number of images whose label the user's corrections changed, or that they leave out.
        not_unpacked: Members of an archive that are not used, each with the reason.
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


def list_files(
    source: Path, context: Context, exclude: Sequence[str] = (), corrections: Sequence[Path] = ()
) -> Listing:
    """List the labelled files of a source, without decoding them.

    Args:
        source: Folder, table, archive, or the name of a data set.
        context: The cache folder, for archives and downloads, and where notes and steps go.
        exclude: Names of classes to leave out.
        corrections: CSV files of corrections, applied in order.

    Returns:
        The files with their labels, splits and groups, with corrections applied.

    Raises:
        DataError: When the source does not exist or cannot be read, has no known layout or no labelled image, has
            fewer than two classes in training, or has a class in validation or test that training lacks; when a
            class to exclude does not exist; when corrections do not fit.
        StorageError: When an archive or a download cannot be written to the cache.
    """
    try:
        listing = replace(_list(source, context), source=_name_source(source))
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
    for file in corrections:
        listing = _apply_corrections(listing, file)
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
    path = Path(source).expanduser()
    return path.exists() or source in BUILT_IN or (source in SOURCES and place_of(source, cache).is_dir())


def find_image_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Find the files that are named, and all files in the folders that are named.

    Files in folders are sorted, and those with a leading dot are skipped. Nothing is opened.

    Args:
        paths: Files and folders.

    Yields:
        The files, in the order of `paths`.

    Raises:
        DataError: When a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if not file.is_dir() and not file.name.startswith("."))
        elif path.exists() or path.is_symlink():
            yield path
        else:
            raise DataError(f"{path}: no such file or folder.", "Check the path, and quote it if it contains spaces.")


def _name_source(source: Path) -> str:
    return str(source.resolve()) if source.exists() else str(source)


def _list(source: Path, context: Context) -> Listing:
    if not source.exists():
        if str(source) in BUILT_IN:
            return BUILT_IN[str(source)]()
        if str(source) in SOURCES:
            return _list_folder(fetch(str(source), context), str(source))
        raise DataError(
            f"{source}: no such file or folder.",
            "Check the path, and quote it if it contains spaces. "
            f"Data sets that have a name: {', '.join(sorted({*BUILT_IN, *SOURCES}))}.",
        )
    if source.is_dir():
        return _list_folder(source, source.resolve().name)
    if source.suffix.lower() in TABLES:
        return _list_table(source)
    if source.is_file() and is_archive(source):
        found = extract_listed(source, context)
        listing = _list_extracted(found.folder, source, context.progress)
        return replace(listing, not_unpacked=found.skipped)
    raise DataError(
        f"{source}: is neither a folder, nor a CSV or Parquet table, nor a tar or zip archive.",
        "Give a folder with one subfolder of images per class.",
    )


def _list_extracted(root: Path, archive: Path, progress: Progress) -> Listing:
    """An archive's files: by the one table at the top that lists most of them, else as a folder."""
    name = archive.name.split(".")[0]
    top = root
    while not _list_loose_files(top) and len(folders := _list_subfolders(top)) == 1:
        top = folders[0]
    tables = [file for file in _list_loose_files(top) if file.suffix.lower() in TABLES and _lists_images(file)]
    if len(tables) != 1:
        return _list_folder(root, name)
    listing = _list_table(tables[0])
    named = set(listing.paths)
    unlisted = [path for file in _walk(top) if file != tables[0] and (path := _show_path(file, top)) not in named]
    if 2 * sum((top / path).is_file() for path in named) <= len(unlisted):
        return _list_folder(root, name)
    for row, path in enumerate(listing.paths, 1):
        _resolve_within(top, path, f"{archive}, {tables[0].name}, row {row}")
    progress.note(f"{archive.name}: labels are read from its table {tables[0].name}.")
    return replace(listing, name=name, left_out=[(path, f"is not in {tables[0].name}") for path in unlisted])


def _lists_images(table: Path) -> bool:
    """Whether a file is a table with a column of paths and one of labels."""
    try:
        columns = _read_table(table).column_names
    except DataError:
        return False
    return bool(set(PATH_COLUMNS) & set(columns)) and bool({*LABEL_COLUMNS, LABELS_COLUMN} & set(columns))


def _list_folder(root: Path, name: str) -> Listing:
    folders = _list_subfolders(root)
    if (root / "train.txt").is_file():
        return _list_by_text_files(root, name)
    splits = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if "train" in splits.values():
        return _list_split_folders(root, name, splits, [folder for folder in folders if folder not in splits])
    if splits and len(splits) == len(folders):
        names = ", ".join(f"{folder.name}/" for folder in folders)
        raise DataError(
            f"{root}: has {names} but no train/ folder.", "Add train/<class>/, or give the folder of class folders."
        )
    if len(folders) == 1 and _list_subfolders(folders[0]) and not _list_loose_files(root):
        return _list_folder(folders[0], name)
    return _list_class_folders(root, name, folders)


def _list_class_folders(root: Path, name: str, folders: Sequence[Path]) -> Listing:
    rows = [(path, folder.name, "") for folder in folders for path in _walk(folder)]
    loose = [(_show_path(path, root), "is outside of all class folders") for path in _list_loose_files(root)]
    return _make_listing(root, name, rows, loose)


def _list_split_folders(root: Path, name: str, splits: dict[Path, str], others: Sequence[Path]) -> Listing:
    rows = []
    loose = [(_show_path(path, root), "is outside of all class folders") for path in _list_loose_files(root)]
    for folder, split in splits.items():
        rows += [(path, label.name, split) for label in _list_subfolders(folder) for path in _walk(label)]
        loose += [(_show_path(path, root), "is outside of all class folders") for path in _list_loose_files(folder)]
    loose += [(f"{folder.name}/", "is not a train, val or test folder") for folder in others]
    return _make_listing(root, name, rows, loose)


def _list_by_text_files(root: Path, name: str) -> Listing:
    base, rows, missing, listed = _find_list_base(root), [], [], set()
    for file in sorted(root.glob("*.txt")):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split is None:
            continue
        for number, line in enumerate(_read_lines(file), 1):
            if "/" not in line:
                raise DataError(
                    f"{file}, line {number}: expected <class>/<image>, found {line!r}.",
                    "Write one image per line, relative to the folder of class folders.",
                )
            path = _resolve_within(base, line, f"{file}, line {number}")
            if path.is_file():
                rows.append((path, line.split("/")[-2], split))
                listed.add(path)
            else:
                missing.append((line, f"is listed in {file.name} but does not exist"))
    unlisted = [path for path in _walk(base) if path not in listed and path.parent != root]
    missing += [(_show_path(path, root), "is not in a list") for path in unlisted]
    return _make_listing(root, name, rows, missing)


def _find_list_base(root: Path) -> Path:
    first = next(iter(_read_lines(root / "train.txt")), "")
    bases = [root, *_list_subfolders(root)]
    return next((base for base in bases if first and (base / first).is_file()), bases[1] if len(bases) == 2 else root)


def _read_lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error}).", "Save the list as UTF-8.") from error


def _resolve_within(base: Path, name: str, where: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{where}: {name!r} is outside the folder {base}.",
            "Write image paths relative to the folder, without '..'.",
        )
    return base / name


def _list_table(file: Path) -> Listing:
    table = _read_table(file)
    path_column = _find_column(file, table.column_names, PATH_COLUMNS)
    multilabel = LABELS_COLUMN in table.column_names and not set(LABEL_COLUMNS) & set(table.column_names)
    label_column = LABELS_COLUMN if multilabel else _find_column(file, table.column_names, LABEL_COLUMNS)
    labels = _read_text_column(table, label_column)
    if multilabel:
        labels = [LABEL_SEPARATOR.join(sorted(set(split_label_names(text)))) for text in labels]
    blank = None if multilabel else next((row for row, label in enumerate(labels) if not label), None)
    if blank is not None:
        raise DataError(f"{file}, row {blank + 1}: the column {label_column!r} is empty.", "Give every image a label.")
    splits = [_parse_split_name(file, row, name) for row, name in enumerate(_read_text_column(table, "split"), 1)]
    paths = [name.replace(os.sep, "/") for name in _read_text_column(table, path_column)]
    groups = _read_text_column(table, "group")
    return Listing("", file.resolve().parent, file.stem, paths, labels, splits, groups, multilabel=multilabel)


def split_label_names(labels: str) -> list[str]:
    """Split a text of several labels at its semicolons.

    Args:
        labels: Names separated by semicolons.

    Returns:
        The names without surrounding spaces; empty ones are dropped.
    """
    return [name.strip() for name in labels.split(LABEL_SEPARATOR) if name.strip()]


def _read_table(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if file.suffix.lower() == ".parquet":
            return pyarrow.parquet.read_table(file)
        names = _read_header(file)
        types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        tabs = pyarrow.csv.ParseOptions(
            delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True
        )
        return pyarrow.csv.read_csv(file, convert_options=types, parse_options=tabs)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a table ({error}).", "Save it as UTF-8 CSV or Parquet.") from error


def _read_header(file: Path) -> list[str]:
    import csv

    with file.open(encoding="utf-8-sig", newline="") as handle:
        return next(csv.reader(handle, delimiter="\t" if file.suffix.lower() == ".tsv" else ","), [])


def _find_column(file: Path, columns: Sequence[str], accepted: Sequence[str]) -> str:
    for name in accepted:
        if name in columns:
            return name
    raise DataError(
        f"{file}: has no column {accepted[0]!r}; found {', '.join(columns) or 'no columns'}.",
        f"{did_you_mean(accepted[0], columns)} Accepted names: {', '.join(accepted)}.",
    )


def _read_text_column(table: pa.Table, column: str) -> list[str]:
    import pyarrow as pa

    if column not in table.column_names:
        return [""] * len(table)
    coded = table[column].cast(pa.string()).combine_chunks().dictionary_encode()
    words = [word or "" for word in coded.dictionary.to_pylist()]  # equal words are one object in memory
    return ["" if index is None else words[index] for index in coded.indices.to_pylist()]


def _parse_split_name(file: Path, row: int, name: str) -> str:
    if not name:
        return ""
    if name.lower() not in SPLIT_NAMES:
        raise DataError(f"{file}, row {row}: unknown split {name!r}.", did_you_mean(name.lower(), SPLIT_NAMES))
    return SPLIT_NAMES[name.lower()]


def _make_listing(
    root: Path, name: str, rows: Sequence[tuple[Path, str, str]], left_out: Sequence[tuple[str, str]]
) -> Listing:
    good, bad = [], list(left_out)
    for path, label, split in rows:
        relative = path.relative_to(root).as_posix()
        if _is_text(relative):
            good.append((relative, label, split))
        else:
            bad.append((_show_path(path, root), "has a name that is not valid Unicode"))
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


def _check_classes(source: Path, listing: Listing) -> None:
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


def _apply_corrections(listing: Listing, file: Path) -> Listing:
    """The listing with the labels of a table of corrections, without the images that it leaves out."""
    if listing.multilabel:
        raise DataError(
            f"{file}: corrections cannot be used with multi-label data (images with several labels).",
            "Correct the labels in the table itself.",
        )
    answers = match_corrections(listing.paths, listing.labels, file)
    labels = list(listing.labels)
    for row, label in answers.items():
        labels[row] = label
    out = {row for row, label in answers.items() if label == OMIT}
    corrected = select_rows(replace(listing, labels=labels), [row for row in range(len(labels)) if row not in out])
    reasons = [(listing.paths[row], f"is excluded by {file.name}") for row in sorted(out)]
    changed = sum(label != listing.labels[row] for row, label in answers.items())
    return replace(corrected, left_out=[*listing.left_out, *reasons], corrected=listing.corrected + changed)


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
    )


def _list_subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_loose_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below `folder` that is not hidden; links are followed, each folder once."""
    pending, visited = [folder], set()
    while pending:
        current = pending.pop()
        if (place := os.path.realpath(current)) in visited:
            continue
        visited.add(place)
        with os.scandir(current) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(current / entry.name)
                else:
                    yield current / entry.name


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _show_path(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


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
    rows = [line.split() for line in _read_lines(root / "labels.csv")]
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
