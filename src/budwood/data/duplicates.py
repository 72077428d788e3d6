"""Which files show the same picture: exact copies by content, near copies by what they look like.

    thumbnails -> candidates -> comparison -> judgement -> groups around a middle

Candidates are nearest neighbours under a coarse description; each pair is laid over each other and compared in detail.
What counts as a copy depends on the other images of the data set: where a view is seen in many images that differ in
some place, as by a fixed camera, only what differs nowhere is a copy. Groups are not chains: every member is a copy of
the group's middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.copy_candidates import (
    Pairs,
    Spectra,
    compute_all_spectra,
    find_candidates,
    find_views,
    stack_thumbnails,
)
from budwood.data.copy_verification import Comparison, compare
from budwood.progress import Progress, Silent

DETAIL: Final = 0.8  # correlation of fine structure that copies have at least
EQUAL: Final = 0.93  # the same where many images share a view
SHARP: Final = 0.8  # largest local difference of copies where many images share a view, if nothing was cropped
CROPPED: Final = 1.0  # the same if a copy was cropped, which leaves differences at edges
OVERLAID: Final = 15.0  # largest local difference where few images share a view: a line of text
CROPPED_ALONE: Final = 2.5  # the same if a copy was cropped
CROWD: Final = 4  # images that share a view but differ in places, from which the camera may be fixed
_FIRST: Final = 6  # neighbours that are compared at first; the others if there is a copy among these
_FLAT: Final = 2.0  # grey levels of deviation under which a thumbnail shows nothing to compare
_CHUNK: Final = 4096


def find_near_pairs(thumbs: Sequence[bytes], progress: Progress | None = None) -> Pairs:
    """Find the pairs of images that show the same picture.

    Thumbnails with hardly any contrast are not compared with anything.

    Args:
        thumbs: Grey thumbnails of different files, as in `ImageMetadata`.
        progress: Receives steps; None to show nothing.

    Returns:
        Row numbers, int64 [pairs, 2], sorted, with the smaller number first in each pair. In groups of more than two
        only the pairs with the group's middle are named.
    """
    rows = np.flatnonzero(_measure_contrast(thumbs) >= _FLAT)
    if len(rows) < 2:
        return np.empty((0, 2), np.int64)
    chosen = [thumbs[row] for row in rows.tolist()]
    spectra = compute_all_spectra(chosen)
    pairs, rank = find_candidates(spectra)
    with (progress or Silent()).bar("Comparing look-alikes", len(pairs)) as step:
        compared = compare(chosen, spectra, pairs[rank < _FIRST], step)
        copied = np.unique(compared.pairs[_judge(compared, len(chosen))])
        later = (rank >= _FIRST) & np.isin(pairs, copied).any(axis=1)
        compared = _join(compared, compare(chosen, spectra, pairs[later], step))
        step(int(np.sum((rank >= _FIRST) & ~later)))
    crowded = _find_crowded(_join(compared, _look_around(chosen, spectra, compared)), len(chosen))

    def judge_again(more: Pairs) -> Pairs:
        again = compare(chosen, spectra, more, lambda count: None)
        return again.pairs[_is_copy(again, crowded)]

    links = _link_to_middles(compared.pairs[_is_copy(compared, crowded)], judge_again)
    return np.unique(np.sort(rows[links], axis=1), axis=0)


def label_components(n: int, pairs: Pairs) -> NDArray[np.int64]:
    """Label the connected components of rows that pairs link.

    Args:
        n: Number of rows.
        pairs: Linked rows, int64 [pairs, 2].

    Returns:
        The component of each row, int64 [n], named by the smallest row number in it.
    """
    parent: dict[int, int] = {}  # of the rows that are not the smallest of their group

    def root(row: int) -> int:
        while (above := parent.get(row, row)) != row:
            parent[row] = parent.get(above, above)
            row = above
        return row

    for first, second in pairs.tolist():
        a, b = root(first), root(second)
        if a != b:
            parent[max(a, b)] = min(a, b)
    touched = np.unique(pairs)
    groups = np.arange(n, dtype=np.int64)
    groups[touched] = [root(row) for row in touched.tolist()]
    return groups


def link_equal_values(values: NDArray[np.generic]) -> Pairs:
    """Link rows of equal value, each to the next row of the same value.

    Args:
        values: Values to compare, [n].

    Returns:
        Row numbers, int64 [links, 2].
    """
    order = np.argsort(values, kind="stable")
    equal = values[order[1:]] == values[order[:-1]]
    return np.stack([order[:-1][equal], order[1:][equal]], axis=1).astype(np.int64)


def _measure_contrast(thumbs: Sequence[bytes]) -> NDArray[np.float32]:
    """The standard deviation of each thumbnail in grey levels, a chunk at a time: float32 [n]."""
    contrast = np.empty(len(thumbs), np.float32)
    for start in range(0, len(thumbs), _CHUNK):
        chunk = stack_thumbnails(thumbs[start : start + _CHUNK])
        contrast[start : start + _CHUNK] = chunk.std(axis=(1, 2), dtype=np.float32)
    return contrast


def _join(first: Comparison, second: Comparison) -> Comparison:
    return Comparison(
        np.concatenate([first.pairs, second.pairs]),
        np.concatenate([first.detail, second.detail]),
        np.concatenate([first.peak, second.peak]),
        np.concatenate([first.in_place, second.in_place]),
    )


def _look_around(thumbs: Sequence[bytes], spectra: Spectra, compared: Comparison) -> Comparison:
    """Images of pairs that would be copies if few images shared their view, compared with what looks most like them."""
    alone = _is_copy(compared, np.zeros(len(thumbs), bool))
    doubtful = np.unique(compared.pairs[alone & ~(compared.in_place & _is_equal(compared))])
    return compare(thumbs, spectra, find_views(spectra, doubtful), lambda count: None)


def _find_crowded(compared: Comparison, n: int) -> NDArray[np.bool_]:
    """Whether each image is one of several that share a view and differ from each other somewhere: bool [n]."""
    differ = compared.in_place & ~_is_equal(compared)
    view = label_components(n, compared.pairs[differ])
    return np.asarray(np.bincount(view, minlength=n)[view] >= CROWD)


def _is_copy(compared: Comparison, crowded: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each pair is one of copies, given which images share a view with many: bool [pairs].

    Cropped copies of such images cannot be told by their differences alone: they have to be each other's best.
    """
    strict = crowded[compared.pairs].any(axis=1)
    peak, moved = compared.peak, ~compared.in_place
    best = np.full(len(crowded), np.inf, np.float32)
    np.minimum.at(best, compared.pairs[moved].ravel(), np.repeat(peak[moved], 2))
    mutual = peak <= best[compared.pairs].min(axis=1, initial=np.inf)
    alone = peak <= np.where(moved, CROPPED_ALONE, OVERLAID)
    among_many = np.where(moved, (peak <= CROPPED) & mutual, _is_equal(compared))
    return np.asarray((compared.detail >= DETAIL) & np.where(strict, among_many, alone))


def _is_equal(compared: Comparison) -> NDArray[np.bool_]:
    return np.asarray((compared.detail >= EQUAL) & (compared.peak <= SHARP))


def _judge(compared: Comparison, n: int) -> NDArray[np.bool_]:
    return _is_copy(compared, _find_crowded(compared, n))


def _link_to_middles(pairs: Pairs, judge: Callable[[Pairs], Pairs]) -> Pairs:
    """Divide copies of copies into groups around the image with the most copies; that image with each other one."""
    near: dict[int, set[int]] = {}
    for first, second in pairs.tolist():
        near.setdefault(first, set()).add(second)
        near.setdefault(second, set()).add(first)
    component = label_components(max(near, default=-1) + 1, pairs)
    members: dict[int, list[int]] = {}
    for row in sorted(near):
        members.setdefault(int(component[row]), []).append(row)
    links = [link for rows in members.values() for link in _link_component(rows, near, judge)]
    return np.array(links, np.int64).reshape(-1, 2)


def _link_component(
    rows: Sequence[int], near: dict[int, set[int]], judge: Callable[[Pairs], Pairs]
) -> list[tuple[int, int]]:
    """The links of one component; images two steps from a middle are compared with it, as the search may miss some."""
    left, links = set(rows), []
    while left:
        middle = max(left, key=lambda row: (len(near[row] & left), -row))
        group = near[middle] & left
        beyond = sorted(set().union(*(near[row] for row in group)) & left - group - {middle})
        if beyond:
            judged = judge(np.array([(middle, row) for row in beyond], np.int64))
            group |= set(judged[:, 1].tolist())
        links += [(middle, row) for row in sorted(group)]
        left -= {middle, *group}
    return links
