"""One class that is written in several ways: another case, spaces around it, another form of Unicode, `2` and `2.0`."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from budwood.data.listing import LABEL_SEPARATOR, Listing, Remark, split_label_names
from budwood.text import listed

_WHOLE: Final = re.compile(r"([+-]?\d+)\.0+")
_SHOWN: Final = 5  # classes that a message names
_KEEP: Final = "Where these are different classes, give --spelling keep."


def join_spellings(listing: Listing) -> Listing:
    """Join the classes of a listing that are one class in several spellings.

    A class of a single letter stays apart from the same letter in the other case. A name that is spelled in one way
    only stays as it is.

    Args:
        listing: The labelled files.

    Returns:
        The files, where each such class has the spelling that most of its images have, with remarks that say so.
    """
    for kind, find in (("spelling", _find_spellings), ("numeral", _find_numerals)):
        renamed = find(_count_names(listing))
        if renamed:
            listing = _rename(listing, renamed, kind)
    return listing


def _count_names(listing: Listing) -> Counter[str]:
    counts = Counter(listing.labels)
    if not listing.multilabel:
        return counts
    names: Counter[str] = Counter()
    for label, count in counts.items():
        for name in split_label_names(label):
            names[name] += count
    return names


def _find_spellings(counts: Counter[str]) -> dict[str, str]:
    """The name to use for each name that is a rarer spelling of it."""
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        plain = _normalise(name)
        groups.setdefault(plain if len(plain) == 1 else _normalise(plain.lower()), []).append(name)
    renamed = {}
    for names in groups.values():
        usual = _normalise(max(names, key=lambda name: (counts[name], name == _normalise(name), name.islower())))
        renamed.update({name: usual for name in names if len(names) > 1 and name != usual})
    return renamed


def _normalise(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _find_numerals(counts: Counter[str]) -> dict[str, str]:
    """The whole number to use for each name that is the same number with zeros after the point."""
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        match = _WHOLE.fullmatch(name)
        groups.setdefault(match[1] if match else name, []).append(name)
    return {name: number for number, names in groups.items() if len(names) > 1 for name in names if name != number}


def _rename(listing: Listing, renamed: Mapping[str, str], kind: str) -> Listing:
    labels = {label: _rename_label(label, renamed, listing.multilabel) for label in set(listing.labels)}
    files = tuple(path for path, label in zip(listing.paths, listing.labels, strict=True) if labels[label] != label)
    by_name: dict[str, list[str]] = {}
    for name, usual in renamed.items():
        by_name.setdefault(usual, []).append(repr(name))
    pairs = [f"{' and '.join(names)} as {usual!r}" for usual, names in sorted(by_name.items())]
    what = "written in several ways" if kind == "spelling" else "the same number in two forms"
    detail = f"Labels that are {what} are read as one class: {listed(pairs, _SHOWN, '; ')}."
    remarks = [*listing.remarks, Remark(kind, detail, _KEEP, files)]
    return replace(listing, labels=[labels[label] for label in listing.labels], remarks=remarks)


def _rename_label(label: str, renamed: Mapping[str, str], multilabel: bool) -> str:
    if not multilabel:
        return renamed.get(label, label)
    return LABEL_SEPARATOR.join(sorted({renamed.get(name, name) for name in split_label_names(label)}))
