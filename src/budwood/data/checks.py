"""Findings about a data set: numbered, one sentence each, with what to do and the files.

A finding's severity is `error` (training refuses), `warning` (the result may suffer) or `note` (good to know).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Dataset, SetAside, encode_values
from budwood.data.duplicates import link_equal_values
from budwood.data.listing import SPLITS

Severity = Literal["error", "warning", "note"]

TINY: Final = 16  # pixels of the shorter side
HUGE: Final = 50_000_000  # pixels in all
EXTREME: Final = 4.0  # longer side over shorter side
FEW: Final = 10  # training images of a class
IMBALANCE: Final = 10.0  # largest class over smallest
LEAKS: Final = ("D020", "D021", "D022", "D023")


@dataclass(frozen=True)
class Finding:
    """One remark. `files` are relative to the data set's root; `groups` are the sets of files that show the same."""

    code: str
    severity: Severity
    message: str
    advice: str
    files: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()

    def record(self) -> dict[str, Any]:
        """The finding as plain values for JSON."""
        return asdict(self)


def findings(data: Dataset) -> tuple[Finding, ...]:
    """Every finding about `data`, by code.

    Reads the labels of all splits, so call it before the test split is sealed; of sealed data it tells less.
    """
    checks: tuple[Callable[[Dataset], Sequence[Finding]], ...] = (
        _check_set_aside,
        _check_copies,
        _check_leaks,
        _check_odd_images,
        _check_conversions,
        _check_class_sizes,
        _check_splits,
    )
    return tuple(sorted((found for check in checks for found in check(data)), key=lambda finding: finding.code))


def leaks(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that make a score worthless: the same picture or group on two sides of a split."""
    return tuple(finding for finding in found if finding.code in LEAKS)


_PROBLEMS: Final[dict[str, tuple[str, Severity, str, str]]] = {
    "truncated": ("D001", "warning", "cut short: they open, but do not decode to their end", "Copy or download again."),
    "broken": ("D002", "warning", "damaged and do not decode", "Copy or download again."),
    "not an image": ("D003", "warning", "no images, whatever their names say", "Move them out of the class folders."),
    "empty": ("D004", "warning", "empty files", "Copy or download again."),
    "unreadable": ("D005", "warning", "not readable", "Check permissions, links and the disk."),
    "too large": ("D006", "warning", "too large to decode safely", "Store them at fewer pixels."),
    "left out": ("D007", "note", "outside the layout and left out", "Move them, list them or ignore this."),
}


def check_trunk_overlap(data: Dataset, earlier: Dataset, run: str) -> tuple[Finding, ...]:
    """The finding that images which are held out here trained, or chose, the run that the trunk comes from."""
    theirs = {split: set(earlier.samples(split).ids) for split in ("train", "val")}
    known = {"val": theirs["train"], "test": theirs["train"] | theirs["val"]}
    files = tuple(
        path
        for split, ids in known.items()
        for id, path in zip(*_list_ids_and_paths(data, split), strict=True)
        if id in ids
    )
    if not files:
        return ()
    message = f"{_count_files(len(files))} of validation or test {_is_or_are(len(files))} known to run {run}, whose trunk is used."
    advice = "Start from another run, or give both data sets one split; --allow-leaks trains all the same and says so."
    return (Finding("D023", "error", message, advice, files, tuple((path,) for path in files)),)


def _list_ids_and_paths(data: Dataset, split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    samples = data.samples(split)
    return samples.ids, samples.paths


def _check_set_aside(data: Dataset) -> list[Finding]:
    found = []
    for problem, (code, severity, what, advice) in _PROBLEMS.items():
        items = [item for item in data.set_aside if item.problem == problem]
        if items:
            first = _describe_detail(items[0])
            message = f"{_count_files(len(items))} {_is_or_are(len(items))} {what}{first}; set aside."
            found.append(Finding(code, severity, message, advice, tuple(item.path for item in items)))
    return found


def _describe_detail(item: SetAside) -> str:
    return f" ({item.path!r} {item.detail})" if item.problem == "left out" else f" ({item.detail})"


def _check_copies(data: Dataset) -> list[Finding]:
    exact, near = _group_exact_copies(data), _group_near_copies(data)
    label = data.column("label")
    return [
        *_make_duplicate_finding(
            data,
            "D010",
            "warning",
            [g for g in exact if _all_equal(label, g)],
            "exact copies of one another",
            "Each content is used once in a split, so that n counts different images; delete the copies.",
        ),
        *_make_duplicate_finding(
            data,
            "D011",
            "warning",
            [g for g in exact if not _all_equal(label, g)],
            "exact copies under two labels",
            "No label can be trusted, so all are set aside: keep the right one and delete the others.",
        ),
        *_make_duplicate_finding(
            data,
            "D012",
            "note",
            [g for g in near if _all_equal(label, g)],
            "near copies of one another",
            "They are kept on one side of every split that Budwood makes; delete what adds nothing.",
        ),
        *_make_duplicate_finding(
            data,
            "D013",
            "warning",
            [g for g in near if not _all_equal(label, g)],
            "near copies under different labels",
            "Look at each pair and correct the wrong label.",
        ),
    ]


def _make_duplicate_finding(
    data: Dataset, code: str, severity: Severity, groups: Sequence[NDArray[np.int64]], what: str, advice: str
) -> list[Finding]:
    if not groups:
        return []
    named = _name_files(data, groups)
    count = sum(map(len, named))
    message = f"{count} files in {len(named)} {'group' if len(named) == 1 else 'groups'} are {what}."
    return [Finding(code, severity, message, advice, tuple(path for group in named for path in group), named)]


def _check_leaks(data: Dataset) -> list[Finding]:
    split = data.column("split")
    exact = [g for g in _group_exact_copies(data) if not _all_equal(split, g)]
    near = [g for g in _group_near_copies(data) if not _all_equal(split, g)]
    grouped = [g for g in _group_by_user(data) if not _all_equal(split, g)]
    advice = "Move all of each group to one split; --allow-leaks trains all the same and says so in every report."
    return [
        *_make_duplicate_finding(data, "D020", "error", exact, "exact copies on two sides of the given split", advice),
        *_make_duplicate_finding(data, "D021", "error", near, "near copies on two sides of the given split", advice),
        *_make_duplicate_finding(
            data, "D022", "error", grouped, "of one group but on two sides of the given split", advice
        ),
    ]


def _check_odd_images(data: Dataset) -> list[Finding]:
    width, height = data.column("width").astype(np.int64), data.column("height").astype(np.int64)
    short, long = np.minimum(width, height), np.maximum(width, height)
    return [
        *_make_rows_finding(
            data, "D030", "note", short < TINY, f"under {TINY} pixels high or wide", "Check that they are no icons."
        ),
        *_make_rows_finding(
            data,
            "D031",
            "note",
            width * height > HUGE,
            f"over {HUGE // 10**6} megapixels",
            "Smaller copies load faster.",
        ),
        *_make_rows_finding(
            data,
            "D032",
            "note",
            long > EXTREME * short,
            f"more than {EXTREME:g} times as long as wide",
            "`--resize pad` keeps what `crop` would cut away.",
        ),
        *_make_rows_finding(
            data,
            "D033",
            "warning",
            _find_noted(data, "blank"),
            "of one colour throughout",
            "Delete them if they are failures.",
        ),
    ]


def _check_conversions(data: Dataset) -> list[Finding]:
    table = (
        ("D040", "animated", "animated or have several pages", "The first frame is used."),
        ("D041", "16-bit", "grey with more than 8 bits", "Their full range is scaled to 8 bits, not clipped."),
        ("D042", "cmyk", "CMYK", "They are converted to RGB."),
        ("D043", "alpha", "partly transparent", "They are laid on white."),
        ("D044", "rotated", "stored turned or mirrored", "They are set upright by their EXIF orientation."),
    )
    return [
        found
        for code, note, what, how in table
        for found in _make_rows_finding(data, code, "note", _find_noted(data, note), what, how)
    ]


def _make_rows_finding(
    data: Dataset, code: str, severity: Severity, rows: NDArray[np.bool_], what: str, advice: str
) -> list[Finding]:
    count = int(rows.sum())
    if not count:
        return []
    paths = tuple(data.table["path"].filter(pa.array(rows)).to_pylist())
    return [Finding(code, severity, f"{_count_files(count)} {_is_or_are(count)} {what}.", advice, paths)]


def _check_class_sizes(data: Dataset) -> list[Finding]:
    training = data.class_counts((data.column("split") == 0) & data.column("used"))
    found = []
    if training.min() and training.max() > IMBALANCE * training.min():
        large, small = data.classes[int(training.argmax())], data.classes[int(training.argmin())]
        message = (
            f"Classes are imbalanced: {large!r} has {training.max()} training images, {small!r} has {training.min()}."
        )
        advice = "Read macro F1 and the per-class table, not accuracy alone; collect more of the small classes."
        found.append(Finding("D050", "warning", message, advice, ()))
    few = [f"{data.classes[c]!r} ({training[c]})" for c in np.flatnonzero(training < FEW)]
    if few:
        have = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
        message = f"{have} under {FEW} training images: {', '.join(few[:10])}."
        found.append(Finding("D051", "warning", message, "Collect more images, or merge classes.", ()))
    return found


def _check_splits(data: Dataset) -> list[Finding]:
    split, label, used = data.column("split"), data.column("label"), data.column("used")
    found = []
    for index in (1, 2):
        rows = (split == index) & used
        if not rows.any():
            if index == SPLITS.index("test"):
                message = "There is no test split: the final score cannot be had."
                found.append(Finding("D061", "note", message, "Add a test/ folder, or give no split at all.", ()))
            continue
        if (label[rows] == SEALED).any():
            continue
        lacking = [data.classes[c] for c in np.flatnonzero(data.class_counts(rows) == 0)]
        if lacking:
            message = f"The {SPLITS[index]} split has no image of {', '.join(map(repr, lacking[:10]))}."
            found.append(Finding("D060", "warning", message, "Nothing will be known about these classes.", ()))
    return found


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


def _count_files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"
