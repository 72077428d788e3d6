"""Findings about a data set: numbered, one sentence each, with what to do and the files.

A finding's severity is `error` (training refuses), `warning` (the result may suffer) or `note` (good to know).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from budwood.data.copy_groups import REACH
from budwood.data.dataset import SEALED, Dataset, SetAside, encode_values
from budwood.data.duplicates import link_equal_values
from budwood.data.formats import UNKNOWN
from budwood.data.listing import SPLITS
from budwood.data.scanning import read_dataset
from budwood.display import Displayed
from budwood.text import counted, listed

Severity = Literal["error", "warning", "note"]

TINY: Final = 16  # pixels of the shorter side
HUGE: Final = 50_000_000  # pixels in all
EXTREME: Final = 4.0  # longer side over shorter side
FEW: Final = 10  # training images of a class
IMBALANCE: Final = 10.0  # largest class over smallest
SET_NAMES: Final = ("training", "validation", "test")
LEAKS: Final = ("D020", "D021", "D022", "D023")
LEFT_OUT: Final = ("D023", "D024")


@dataclass(frozen=True)
class Finding(Displayed):
    """Remark about a data set.

    Attributes:
        code: Number of the finding, such as `D010`.
        severity: `error` (training refuses), `warning` (the result may suffer) or `note` (good to know).
        message: What was found, in one sentence.
        advice: What to do about it.
        files: Paths of the files, relative to the data set's root.
        groups: Sets of files that show the same image or belong together; empty for other findings.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    files: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()

    def record(self) -> dict[str, Any]:
        """Convert the finding to plain values for JSON.

        Returns:
            The attributes by name.
        """
        return asdict(self)


def findings(data: Any) -> tuple[Finding, ...]:
    """Run all checks of a data set.

    The checks read the labels of all splits, so run them before the test split is sealed; they find less in sealed
    data.

    Args:
        data: The data set, or what `scan` takes.

    Returns:
        All findings, sorted by code.
    """
    data = read_dataset(data)
    checks: tuple[Callable[[Dataset], Sequence[Finding]], ...] = (
        _check_set_aside,
        _check_readings,
        _check_copies,
        _check_leaks,
        _check_left_out,
        _check_odd_images,
        _check_conversions,
        _check_class_sizes,
        _check_splits,
    )
    return tuple(sorted((finding for check in checks for finding in check(data)), key=lambda finding: finding.code))


def leaks(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Select the findings that make a score worthless if training goes on: the same image or group in two splits.

    Args:
        findings: Findings about a data set.

    Returns:
        Those whose code is in `LEAKS`, in the same order.
    """
    return tuple(finding for finding in findings if finding.code in LEAKS)


_PROBLEMS: Final[dict[str, tuple[str, Severity, str, str]]] = {
    "truncated": ("D001", "warning", "truncated and cannot be decoded to the end", "Copy or download again."),
    "broken": ("D002", "warning", "damaged and cannot be decoded", "Copy or download again."),
    "not an image": ("D003", "warning", "not in a known image format", "Move them out of the class folders."),
    "empty": ("D004", "warning", "empty", "Copy or download again."),
    "unreadable": ("D005", "warning", "not readable", "Check the permissions, links and the disk."),
    "too large": ("D006", "warning", "too large to decode safely", "Save them with fewer pixels."),
    "left out": ("D007", "note", "outside the expected folder layout", "Move them, list them, or ignore this note."),
    "not unpacked": ("D008", "warning", "members of the archive that are not used", "Look at them in the archive."),
}


# How labels, folders and splits came about that could be otherwise
_READINGS: Final[dict[str, tuple[str, Severity]]] = {
    "several labels": ("D070", "warning"),
    "blank label": ("D071", "warning"),
    "spelling": ("D072", "warning"),
    "numeral": ("D073", "warning"),
    "nested": ("D074", "note"),
    "split folder": ("D075", "warning"),
    "split name": ("D075", "note"),
    "system folder": ("D076", "note"),
    "is_valid": ("D077", "note"),
    "outside": ("D078", "note"),
    "found elsewhere": ("D079", "note"),
    "in memory": ("D080", "note"),
    "missed share": ("D062", "note"),
    "not selected": ("D063", "note"),
}


def check_trunk_overlap(data: Dataset, earlier: Dataset, run: str) -> tuple[Finding, ...]:
    """Check that the run from which the frozen layers come has not seen images that are held out here.

    Validation images must not have been in the earlier training set; test images must not have been in the earlier
    training or validation set, since those trained the run or chose among its epochs.

    Args:
        data: The data set to be trained on.
        earlier: The data set of the run that the trunk comes from.
        run: Name of that run, for the message.

    Returns:
        One finding, D023 (an error), with all such images, or none.
    """
    theirs = {split: set(earlier.samples(split).ids) for split in ("train", "val")}
    trained_on = {"val": theirs["train"], "test": theirs["train"] | theirs["val"]}
    files = tuple(
        path
        for split, ids in trained_on.items()
        for id, path in zip(*_list_ids_and_paths(data, split), strict=True)
        if id in ids
    )
    if not files:
        return ()
    count = counted(len(files), "validation or test file")
    message = (
        f"{count} {_is_or_are(len(files))} known to run {run}, whose trunk (all layers before the head) is used here."
    )
    advice = "Start from another run, or use one split for both; `--leaks allow` trains anyway, and reports say so."
    return (Finding("D023", "error", message, advice, files, tuple((path,) for path in files)),)


def tell_left_out(finding: Finding) -> Finding:
    """Say of a finding of `check_trunk_overlap` that its files are left out.

    Args:
        finding: The finding, D023.

    Returns:
        The finding as a warning.
    """
    message = f"{finding.message.removesuffix('.')}: left out of validation and test."
    advice = "The scores are of images that the run has not seen; `--leaks refuse` stops instead."
    return replace(finding, severity="warning", message=message, advice=advice)


def _list_ids_and_paths(data: Dataset, split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    samples = data.samples(split)
    return samples.ids, samples.paths


def _check_set_aside(data: Dataset) -> list[Finding]:
    findings = []
    for problem, (code, severity, problem_text, advice) in _PROBLEMS.items():
        items = [item for item in data.set_aside if item.problem == problem]
        if items:
            detail = _describe_detail(data.root, items[0], len(items) > 1)
            message = f"{counted(len(items), 'file')} {_is_or_are(len(items))} {problem_text}{detail}; excluded."
            if problem == "not an image":
                message, advice = _describe_formats(items)
            if problem == "not unpacked":
                message = f"{counted(len(items), 'member')} of the archive {_is_or_are(len(items))} not used{detail}."
            findings.append(Finding(code, severity, message, advice, tuple(item.path for item in items)))
    return findings


def _describe_formats(items: Sequence[SetAside]) -> tuple[str, str]:
    """What the files are that are no images, the most frequent first, and what to do."""
    kinds = Counter(item.detail for item in items).most_common()
    text = kinds[0][0] if len(kinds) == 1 else "; ".join(f"{counted(n, 'file')}: {detail}" for detail, n in kinds)
    message = f"{counted(len(items), 'file')} {_is_or_are(len(items))} not in a known image format ({text}); excluded."
    if kinds == [(UNKNOWN, len(items))]:
        return message, "Move them out of the class folders."
    return message, "Do what is said of them, or move them out of the class folders."


def _check_readings(data: Dataset) -> list[Finding]:
    readings = [(*_READINGS[remark.kind], remark) for remark in data.remarks]
    return [Finding(code, severity, item.detail, item.advice, item.files) for code, severity, item in readings]


def _describe_detail(root: Path, item: SetAside, first: bool) -> str:
    detail = f"{item.path!r} {item.detail}" if item.problem in ("left out", "not unpacked") else item.detail
    if item.problem == "unreadable":
        detail = f"{item.path!r}, looked for at {root / item.path}: {item.detail}"
    return f" (the first: {detail})" if first else f" ({detail})"


def _check_copies(data: Dataset) -> list[Finding]:
    exact, near = _group_exact_copies(data), _group_near_copies(data)
    label = data.column("label")
    return [
        *_make_duplicate_finding(
            data,
            "D010",
            "warning",
            [g for g in exact if _all_equal(label, g)],
            "are exact duplicates",
            "Only one file of each group is used in a split, so that n counts different images; delete the duplicates.",
        ),
        *_make_duplicate_finding(
            data,
            "D011",
            "warning",
            [g for g in exact if not _all_equal(label, g)],
            "are exact duplicates with different labels",
            "All are excluded, because no label can be trusted: keep the correct file and delete the others.",
        ),
        *_make_duplicate_finding(
            data,
            "D012",
            "note",
            [g for g in near if _all_equal(label, g)],
            "are near duplicates (they look almost the same)",
            f"Budwood keeps near duplicates in the same split; delete files that add nothing. {REACH}",
        ),
        *_make_duplicate_finding(
            data,
            "D013",
            "warning",
            [g for g in near if not _all_equal(label, g)],
            "are near duplicates with different labels",
            f"Look at each group and correct the wrong label. {REACH}",
        ),
        *_check_lookalikes(data),
    ]


def _check_lookalikes(data: Dataset) -> list[Finding]:
    if not data.lookalikes:
        return []
    files = tuple(path for group in data.lookalikes for path in group)
    message = (
        f"{counted(len(files), 'file')} in {counted(len(data.lookalikes), 'group')} look the same but have different "
        f"labels. Groups of so many are not treated as near duplicates: a fixed camera makes such images, and what "
        f"differs may be too small for this check."
    )
    advice = "If some of them belong together, say so with a group column in a table."
    return [Finding("D014", "warning", message, advice, files, data.lookalikes)]


def _make_duplicate_finding(
    data: Dataset, code: str, severity: Severity, groups: Sequence[NDArray[np.int64]], statement: str, advice: str
) -> list[Finding]:
    if not groups:
        return []
    named = _name_files(data, groups)
    count = sum(map(len, named))
    message = f"{counted(count, 'file')} in {counted(len(named), 'group')} {statement}."
    return [Finding(code, severity, message, advice, tuple(path for group in named for path in group), named)]


def _check_leaks(data: Dataset) -> list[Finding]:
    split = data.column("split")
    exact = [g for g in _group_exact_copies(data) if not _all_equal(split, g)]
    near = [g for g in _group_near_copies(data) if not _all_equal(split, g)]
    grouped = [g for g in _group_by_user(data) if not _all_equal(split, g)]
    advice = (
        "Training leaves out the training file, and the validation file where a test file is the same "
        "(`--leaks drop`). Better: move all files of a group to one split."
    )
    table = (
        ("D020", exact, "are exact duplicates in different splits", advice),
        ("D021", near, "are near duplicates in different splits", f"{advice} {REACH}"),
        ("D022", grouped, "belong together but are in different splits", advice),
    )
    return [
        finding
        for code, groups, statement, what_to_do in table
        for finding in _make_duplicate_finding(data, code, "warning", groups, statement, what_to_do)
    ]


def _check_left_out(data: Dataset) -> list[Finding]:
    """What was left out of a split because of another split; what a run had learned from is told by D023."""
    items = [item for item in data.left_out if item.beside]
    if not items:
        return []
    beside: dict[str, list[str]] = {}
    for item in items:
        beside.setdefault(item.beside, []).append(item.path)
    counts = Counter(item.split for item in items)
    names = dict(zip(SPLITS, SET_NAMES, strict=True))
    named = [counted(counts[split], f"{name} file") for split, name in names.items() if split in counts]
    message = (
        f"{' and '.join(named)} {_is_or_are(len(items))} left out, because a file of a later split "
        "(validation or test) is a copy or belongs to the same group."
    )
    advice = (
        "The scores are of images that are new to the network. `--leaks refuse` stops instead, `--leaks allow` trains "
        "with these images."
    )
    groups = tuple((kept, *paths) for kept, paths in beside.items())
    return [Finding("D024", "warning", message, advice, tuple(item.path for item in items), groups)]


def _check_odd_images(data: Dataset) -> list[Finding]:
    width, height = data.column("width").astype(np.int64), data.column("height").astype(np.int64)
    short, long = np.minimum(width, height), np.maximum(width, height)
    return [
        *_make_rows_finding(
            data,
            "D030",
            "note",
            short < TINY,
            f"less than {TINY} pixels high or wide",
            "Check that they are not icons.",
        ),
        *_make_rows_finding(
            data,
            "D031",
            "note",
            width * height > HUGE,
            f"larger than {HUGE // 10**6} megapixels",
            "Smaller copies load faster.",
        ),
        *_make_rows_finding(
            data,
            "D032",
            "note",
            long > EXTREME * short,
            f"very long and narrow (one side more than {EXTREME:g} times the other)",
            "Use `--resize pad` to keep what `crop` would cut off.",
        ),
        *_make_rows_finding(
            data,
            "D033",
            "warning",
            _find_noted(data, "blank"),
            "blank (a single colour)",
            "Delete them if they are failed recordings.",
        ),
    ]


def _check_conversions(data: Dataset) -> list[Finding]:
    table = (
        ("D040", "animated", "animated or multi-page", "Only the first frame is used."),
        ("D041", "16-bit", "stored with more than 8 bits a value", _describe_scale(data)),
        ("D042", "cmyk", "in CMYK colours", "Converted to RGB."),
        ("D043", "alpha", "partly transparent", "Placed on a white background."),
        ("D044", "rotated", "stored rotated or mirrored", "Turned upright by the EXIF orientation."),
    )
    return [
        finding
        for code, note, statement, how in table
        for finding in _make_rows_finding(data, code, "note", _find_noted(data, note), statement, how)
    ]


def _describe_scale(data: Dataset) -> str:
    if data.value_range is None:
        return "The full range of the type is scaled to 8 bits."
    return (
        f"All are scaled alike to 8 bits: {data.value_range} become black to white; what lies outside is clipped. "
        "The range comes from the training images, rounded outwards."
    )


def _make_rows_finding(
    data: Dataset, code: str, severity: Severity, rows: NDArray[np.bool_], statement: str, advice: str
) -> list[Finding]:
    count = int(rows.sum())
    if not count:
        return []
    paths = tuple(data.table["path"].filter(pa.array(rows)).to_pylist())
    return [Finding(code, severity, f"{counted(count, 'file')} {_is_or_are(count)} {statement}.", advice, paths)]


def _check_class_sizes(data: Dataset) -> list[Finding]:
    training = data.class_counts((data.column("split") == 0) & data.column("used"))
    findings = []
    if training.min() and training.max() > IMBALANCE * training.min():
        large, small = data.classes[int(training.argmax())], data.classes[int(training.argmin())]
        message = (
            f"Classes are imbalanced: {large!r} has {training.max()} training images, {small!r} has {training.min()}."
        )
        advice = "Use macro F1 and the scores by class, not only accuracy; collect images of small classes."
        findings.append(Finding("D050", "warning", message, advice, ()))
    small_classes = [f"{data.classes[c]!r} ({training[c]})" for c in np.flatnonzero(training < FEW)]
    if small_classes:
        have = f"{counted(len(small_classes), 'class', 'classes')} {'has' if len(small_classes) == 1 else 'have'}"
        message = f"{have} fewer than {FEW} training images: {listed(small_classes, 10)}."
        findings.append(Finding("D051", "warning", message, "Collect more images, or merge classes.", ()))
    return findings


def _check_splits(data: Dataset) -> list[Finding]:
    split, label, used = data.column("split"), data.column("label"), data.column("used")
    findings = []
    for index in (1, 2):
        rows = (split == index) & used
        if not rows.any():
            if index == SPLITS.index("test"):
                message = "There is no test set, so the final score cannot be measured."
                findings.append(
                    Finding(
                        "D061",
                        "note",
                        message,
                        "Add a test/ folder, or give the images without a split and Budwood makes one.",
                        (),
                    )
                )
            continue
        if (label[rows] == SEALED).any():
            continue
        lacking = [data.classes[c] for c in np.flatnonzero(data.class_counts(rows) == 0)]
        if lacking:
            message = f"The {SET_NAMES[index]} set has no images of {listed([repr(name) for name in lacking], 10)}."
            findings.append(Finding("D060", "warning", message, "These classes cannot be evaluated.", ()))
    return findings


def _group_exact_copies(data: Dataset) -> list[NDArray[np.int64]]:
    content = encode_values(data.table["id"])
    return _group_rows(content, np.unique(link_equal_values(content)))


def _group_near_copies(data: Dataset) -> list[NDArray[np.int64]]:
    """Sets of files that look alike, with one file of each content."""
    _, first = np.unique(encode_values(data.table["id"]), return_index=True)
    rows = np.sort(first)
    look = data.column("look")[rows]
    return [rows[g] for g in _group_rows(look, np.unique(link_equal_values(look)))]


def _group_by_user(data: Dataset) -> list[NDArray[np.int64]]:
    named = np.flatnonzero(pc.not_equal(data.table["group"], "").to_numpy())
    groups = encode_values(data.table["group"])[named]
    return [named[g] for g in _group_rows(groups, np.unique(link_equal_values(groups)))]


def _group_rows(values: NDArray[Any], members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows among `members` with equal values, in row order."""
    if not len(members):
        return []
    order = members[np.argsort(values[members], kind="stable")]
    cuts = np.flatnonzero(values[order][1:] != values[order][:-1]) + 1
    return sorted((np.sort(group) for group in np.split(order, cuts)), key=lambda group: int(group[0]))


def _name_files(data: Dataset, groups: Sequence[NDArray[np.int64]]) -> tuple[tuple[str, ...], ...]:
    paths = data.table["path"]
    return tuple(tuple(paths[int(row)].as_py() for row in group) for group in groups)


def _all_equal(values: NDArray[Any], rows: NDArray[np.int64]) -> bool:
    return bool((values[rows] == values[rows[0]]).all())


def _find_noted(data: Dataset, note: str) -> NDArray[np.bool_]:
    return np.asarray(pc.match_substring(data.table["notes"], note).to_numpy(zero_copy_only=False), bool)


def _is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"
