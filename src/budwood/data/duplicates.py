"""Which files show the same picture: exact copies by content, near copies by what they look like.

    thumbnails -> candidates -> comparison -> judgement -> groups around a middle

Candidates are nearest neighbours under a coarse description; each pair is laid over each other and compared in detail.
What counts as a copy depends on the other images of the data set: where many show one view, as from a fixed camera, or
things of one build, a pair has to stand out from its neighbours (Lowe 2004), and what is left between both has to be
noise alone. Groups are not chains: every member is a copy of the group's middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
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
from budwood.data.copy_verification import Comparison, compare, measure_noise, measure_shared_detail
from budwood.progress import Progress, Silent

DETAIL: Final = 0.8  # correlation of fine structure that copies have at least
DISTINCT: Final = 0.5  # of what the next image differs by, that copies differ by at most
SHARP: Final = 0.8  # largest local difference above which images of one view differ somewhere
EQUAL: Final = 0.93  # detail of copies where many images share a view, if nothing was cropped
NEARLY: Final = 1.5  # largest local difference of copies where many images share a view, if the pair stands out
EXACT: Final = 0.3  # the same if it does not
CROPPED: Final = 1.0  # the same if it stands out and was cropped
OVERLAID: Final = 15.0  # largest local difference where few images share a view: a line of text
CROPPED_ALONE: Final = 2.5  # the same if a copy was cropped
CROWD: Final = 4  # images that share a view but differ in places, from which the camera may be fixed
FEW: Final = 3  # copies of an image that are believed where many images share a view, if some noise is left
UNSEEN: Final = 1.5  # grey levels of local residual that are nothing, however many images share a view
FAINT: Final = 3.0  # the same if the pair stands out
NOISE: Final = 3.3  # kurtosis of residuals up to which they are noise alone: 3, and twice the error of its estimate
COMMON: Final = 0.4  # correlation of fine structure that things of one build have, and unrelated photographs have not
_ASKED: Final = 60  # images that tell whether the images of a data set have detail in common
_DRAWN: Final = 6  # others that each of them is held against
_FIRST: Final = 4  # neighbours that are compared at first; the others if there is a copy among these
_FLAT: Final = 2.0  # grey levels of deviation under which a thumbnail shows nothing to compare
_CHUNK: Final = 4096


@dataclass(frozen=True)
class Surroundings:
    """What images share with others that are no copies of them.

    Attributes:
        crowded: Whether an image is one of several that share a view and differ from each other somewhere, bool [n].
        peak: Largest local difference of copies that stand out from the rest, float32 [n].
        detail: What may be left of the detail of a copy, 1 less its correlation, float32 [n].
    """

    crowded: NDArray[np.bool_]
    peak: NDArray[np.float32]
    detail: NDArray[np.float32]

    @classmethod
    def of_none(cls, n: int) -> Surroundings:
        """Surroundings of images that share nothing with others."""
        return cls(np.zeros(n, bool), *np.full((2, n), np.inf, np.float32))


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
        copied = np.unique(compared.pairs[_is_copy(chosen, compared, _find_surroundings(compared, len(chosen)))])
        later = (rank >= _FIRST) & np.isin(pairs, copied).any(axis=1)
        compared = _join(compared, compare(chosen, spectra, pairs[later], step))
        step(int(np.sum((rank >= _FIRST) & ~later)))
    around = _look_around(chosen, spectra, compared)

    def judge_again(more: Pairs) -> Pairs:
        again = compare(chosen, spectra, more, lambda count: None)
        return again.pairs[_is_copy(chosen, again, around)]

    links = _link_to_middles(compared.pairs[_is_copy(chosen, compared, around)], judge_again)
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
        *(np.concatenate([getattr(first, field.name), getattr(second, field.name)]) for field in fields(Comparison))
    )


def _look_around(thumbs: Sequence[bytes], spectra: Spectra, compared: Comparison) -> Surroundings:
    """The surroundings of images that may be copies, compared with what looks most like them as a whole, too."""
    maybe = _is_copy(thumbs, compared, Surroundings.of_none(len(thumbs)))
    doubtful = np.unique(compared.pairs[maybe & ~(compared.in_place & (compared.peak <= EXACT))])
    if _is_uniform(thumbs, doubtful):
        return replace(_find_surroundings(compared, len(thumbs)), crowded=np.ones(len(thumbs), bool))
    views = find_views(spectra, doubtful)
    known = set(map(tuple, compared.pairs.tolist()))
    new = np.array([pair for pair in views.tolist() if tuple(pair) not in known], np.int64).reshape(-1, 2)
    return _find_surroundings(_join(compared, compare(thumbs, spectra, new, lambda count: None)), len(thumbs))


def _is_uniform(thumbs: Sequence[bytes], doubtful: NDArray[np.int64]) -> bool:
    """Whether most of the images that may be copies have much detail in common with one of a few drawn by chance."""
    random = np.random.default_rng(0)
    asking = random.permutation(doubtful)[:_ASKED]
    drawn = random.integers(0, len(thumbs), (len(asking), _DRAWN))
    pairs = np.stack([np.repeat(asking, _DRAWN), drawn.ravel()], axis=1)
    common = (measure_shared_detail(thumbs, pairs) >= COMMON) & (pairs[:, 0] != pairs[:, 1])
    return len(asking) > 0 and bool(common.reshape(-1, _DRAWN).any(axis=1).mean() > 0.5)


def _find_surroundings(compared: Comparison, n: int) -> Surroundings:
    """What the images of pairs share with the others of these pairs."""
    differ = compared.in_place & (compared.peak > SHARP)
    view = label_components(n, compared.pairs[differ])
    return Surroundings(
        np.asarray(np.bincount(view, minlength=n)[view] >= CROWD),
        _find_gaps(compared, n),
        _find_rivals(compared, n),
    )


def _find_rivals(compared: Comparison, n: int) -> NDArray[np.float32]:
    """What may be left of the detail of copies, next to the most similar image that is none: float32 [n]."""
    other = compared.detail < DETAIL
    bound = np.full(n, np.inf, np.float32)
    np.minimum.at(bound, compared.pairs[other].ravel(), np.repeat(DISTINCT * (1 - compared.detail[other]), 2))
    return bound


def _find_gaps(compared: Comparison, n: int) -> NDArray[np.float32]:
    """The largest local difference up to which a few other images stand out from the rest: float32 [n].

    Lowe's test (2004), for one other or up to `FEW`: they differ by at most `DISTINCT` of what the next one does.
    """
    rows, values = compared.pairs.ravel(), np.repeat(compared.peak, 2)
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    after = np.append(values[1:], np.inf)
    after[:-1][rows[1:] != rows[:-1]] = np.inf
    apart = (values <= DISTINCT * after) & (rank < FEW)
    bound = np.full(n, -np.inf, np.float32)
    np.maximum.at(bound, rows[apart], values[apart])
    return bound


def _is_copy(thumbs: Sequence[bytes], compared: Comparison, around: Surroundings) -> NDArray[np.bool_]:
    """Whether each pair is one of copies, given what its images share with others: bool [pairs]."""
    detail, peak, pairs, moved = compared.detail, compared.peak, compared.pairs, ~compared.in_place
    strict = around.crowded[pairs].any(axis=1)
    distinct = peak <= around.peak[pairs].min(axis=1, initial=np.inf)
    most = np.where(moved, CROPPED, np.where(distinct, NEARLY, EXACT))
    among_many = strict & (detail >= np.where(moved, DETAIL, EQUAL)) & (distinct | ~moved) & (peak <= most)
    left = among_many & ~moved
    residual, kurtosis = measure_noise(thumbs, compared.select(left))
    among_many[left] = np.where(distinct[left], (residual <= FAINT) | (kurtosis <= NOISE), residual <= UNSEEN)
    alone = ~strict & (detail >= DETAIL) & (peak <= np.where(moved, CROPPED_ALONE, OVERLAID))
    alone &= 1 - detail <= around.detail[pairs].min(axis=1, initial=np.inf)
    return np.asarray(among_many | alone)


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
