"""Whether two images that may show the same picture do: what is left once one is laid over the other.

Three things are measured. *Detail* is the correlation of the fine structure: unrelated images have none in common,
however alike their light and dark areas are. *Peak* is the largest difference in any small place, relative to the noise
of the whole pair and to the texture there: shots of a fixed camera share all detail, but for the place where they
differ. Of the few pairs that are left, *residuals* tell two pictures of one thing from pictures of two of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.copy_alignment import TURNS, Alignment, align_coarsely, align_finely, score_turns, turn_images
from budwood.data.copy_candidates import BORDER, Pairs, Spectra, stack_thumbnails
from budwood.data.copy_residuals import measure_residuals, smooth
from budwood.data.images import THUMBNAIL_SIDE
from budwood.hardware import count_processors

AGREE: Final = 0.9  # correlation of low frequencies in the best position
ALIKE: Final = 0.6  # detail from which two images are of the same view
_COARSELY: Final = 0.65  # detail of coarse thumbnails from which a pair is laid over each other finely
_GAIN: Final = 3.0  # largest change of contrast, either way
_PLAIN: Final = 1.5  # grey levels of fine structure under which there is none to compare
_IN_PLACE: Final = 0.03  # half sides of shift or scale that a fixed camera may tremble
_NOISE: Final = 1.5  # grey levels of noise that recompression can explain
_BURNT: Final = 225.0  # grey levels from which a pixel may be partly burnt out
_DARK: Final = 20.0  # grey levels up to which a pixel may be partly black
_CHUNK: Final = 64
_SCORED: Final = 20_000

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """Pairs of images of the same view, with how they differ.

    Attributes:
        pairs: Row numbers, int64 [n, 2].
        detail: Correlation of the fine structure, float32 [n].
        peak: Largest local difference relative to noise and texture, float32 [n].
        in_place: Whether nothing was cropped or shifted, bool [n].
        turn: Position of the first image, as in `turn_images`, int64 [n].
        warp: How the first image was laid over the second, as in `Alignment`, float32 [n, 4].
    """

    pairs: Pairs
    detail: Floats
    peak: Floats
    in_place: NDArray[np.bool_]
    turn: NDArray[np.int64]
    warp: Floats

    def select(self, rows: NDArray[np.bool_]) -> Comparison:
        """The pairs in some rows."""
        return Comparison(*(getattr(self, field.name)[rows] for field in fields(self)))


def compare(thumbs: Sequence[bytes], spectra: Spectra, pairs: Pairs, step: Callable[[int], None]) -> Comparison:
    """Compare pairs of images, in bounded memory.

    Args:
        thumbs: Grey thumbnails of all images.
        spectra: Their low frequencies.
        pairs: Row numbers, int64 [m, 2].
        step: Called with the number of pairs that were compared since its last call.

    Returns:
        Those pairs that show the same view, in their order.
    """
    rows, turns, warps = _choose_turns(spectra, pairs)
    step(len(pairs) - len(rows))

    def compare_chunk(start: int) -> Comparison:
        chunk = slice(start, start + _CHUNK)
        return _compare_chunk(thumbs, pairs[rows[chunk]], turns[chunk], warps[chunk])

    parts = [_compare_chunk(thumbs, pairs[:0], turns[:0], warps[:0])]
    with ThreadPoolExecutor(count_processors()) as pool:
        for start, part in zip(starts := range(0, len(rows), _CHUNK), pool.map(compare_chunk, starts), strict=True):
            parts.append(part)
            step(min(_CHUNK, len(rows) - start))
    return Comparison(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Comparison)))


def measure_noise(thumbs: Sequence[bytes], compared: Comparison) -> tuple[Floats, Floats]:
    """Measure what is left between images that were compared, once light and sharpness have been fitted, too.

    Args:
        thumbs: Grey thumbnails of all images.
        compared: The pairs, [n].

    Returns:
        Largest local residuals in grey levels and kurtosis of the residuals, float32 [n] each.
    """
    parts = [(np.empty(0, np.float32), np.empty(0, np.float32))]
    for start in range(0, len(compared.pairs), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        first, second = _stack_pairs(thumbs, compared.pairs[chunk])
        pair = align_finely(turn_images(first, compared.turn[chunk]), second, compared.warp[chunk])
        parts.append(measure_residuals(pair))
    residual, kurtosis = (np.concatenate(part) for part in zip(*parts, strict=True))
    return residual, kurtosis


def measure_shared_detail(thumbs: Sequence[bytes], pairs: Pairs) -> Floats:
    """Measure how much detail any two images share as they are, whether or not they look alike.

    Args:
        thumbs: Grey thumbnails of all images.
        pairs: Row numbers, int64 [m, 2].

    Returns:
        Correlations of the fine structure once one image is laid over the other, float32 [m].
    """
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _CHUNK):
        first, second = _stack_pairs(thumbs, pairs[start : start + _CHUNK])
        coarse = align_coarsely(first, second, np.zeros((len(first), 4), np.float32))
        parts.append(_measure_detail(align_finely(first, second, coarse.warp), 7))
    return np.concatenate(parts)


def _stack_pairs(thumbs: Sequence[bytes], pairs: Pairs) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    first, second = (stack_thumbnails([thumbs[row] for row in pairs[:, side].tolist()]) for side in (0, 1))
    return first, second


def _choose_turns(spectra: Spectra, pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The pairs whose low frequencies agree in some position of the first, that position, and a warp to begin with."""
    cut = 2 * BORDER / THUMBNAIL_SIDE
    rows, turns, warps = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty((0, 4), np.float32)]
    for start in range(0, len(pairs), _SCORED):
        first, second = pairs[start : start + _SCORED].T
        choices = (
            (spectra.whole, spectra.whole, 0.0),
            (spectra.inner, spectra.whole, -cut),
            (spectra.whole, spectra.inner, cut),
        )
        scores = np.stack([score_turns(a[first], b[second]) for a, b, _ in choices], axis=1)
        best = scores.reshape(len(first), -1).argmax(axis=1)
        good = np.flatnonzero(scores.max(axis=(1, 2)) >= AGREE)
        scale = np.array([scale for _, _, scale in choices], np.float32)[best[good] // TURNS]
        rows.append(start + good)
        turns.append(best[good] % TURNS)
        warps.append(np.stack([0 * scale, scale, 0 * scale, scale], axis=1))
    return np.concatenate(rows), np.concatenate(turns), np.concatenate(warps)


def _compare_chunk(thumbs: Sequence[bytes], pairs: Pairs, turns: NDArray[np.int64], warps: Floats) -> Comparison:
    first, second = _stack_pairs(thumbs, pairs)
    first = turn_images(first, turns)
    coarse = align_coarsely(first, second, warps)
    good = _measure_detail(coarse, 5) >= _COARSELY
    fine = align_finely(first[good], second[good], coarse.warp[good])
    detail, peak = _measure_detail(fine, 7), _measure_peak(fine)
    in_place = np.abs(fine.warp).max(axis=1, initial=0) < _IN_PLACE
    same = (detail >= ALIKE) & (fine.gain < _GAIN) & (fine.gain > 1 / _GAIN)
    return Comparison(pairs[good], detail, peak, in_place, turns[good], fine.warp).select(same)


def _measure_detail(pair: Alignment, width: int) -> Floats:
    """The correlation of what smoothing takes from both images; where that is nothing, whether they are equal."""
    rest = [(image - smooth(image, width)) * pair.inside for image in (np.clip(pair.predicted, 0, 255), pair.target)]
    count = np.maximum(pair.inside.sum(axis=(1, 2)), 1)
    power = [np.einsum("nij,nij->n", image, image) / count for image in rest]
    plain = np.minimum(*power) < _PLAIN**2
    together = np.einsum("nij,nij->n", *rest) / count + _PLAIN**2  # so that noise alone does not decide
    together /= np.sqrt(power[0] * power[1]) + _PLAIN**2
    apart = np.abs(pair.target - pair.predicted) * pair.inside
    equal = (apart.mean(axis=(1, 2)) < 1) & (np.abs(pair.warp).max(axis=1, initial=0) < _IN_PLACE)
    return np.where(plain, np.where(equal & (np.abs(pair.gain - 1) < 0.1), 1, 0), together).astype(np.float32)


def _measure_peak(pair: Alignment) -> Floats:
    """The largest local difference, relative to the noise of the pair and the texture that both have there."""
    apart = pair.target - np.clip(pair.predicted, 0, 255)
    apart = np.where(pair.moved >= _BURNT, np.minimum(apart, 0), apart)  # a burnt pixel hides how bright it was
    apart = np.where(pair.moved <= _DARK / 4, np.maximum(apart, 0), apart)  # nor a black one how dark
    apart *= pair.inside
    pixels = THUMBNAIL_SIDE * THUMBNAIL_SIDE
    middle = np.partition(np.abs(apart).reshape(len(apart), pixels), pixels // 2, axis=1)[:, pixels // 2]
    noise = np.minimum(middle, _NOISE)[:, None, None]
    grey = np.stack([pair.predicted, pair.moved, pair.target])
    burnt = (grey.max(axis=0) >= _BURNT) | (grey.min(axis=0) <= _DARK)
    texture = np.minimum(*(smooth(image * image, 5) - smooth(image, 5) ** 2 for image in (pair.predicted, pair.target)))
    tolerance = 1 + 3 * noise + 15 * burnt + np.sqrt(np.maximum(texture, 0))
    return np.asarray((np.sqrt(smooth(apart * apart, 3)) / tolerance).max(axis=(1, 2), initial=0), np.float32)
