"""How one thumbnail is best laid over another: turned, mirrored, cropped, at another brightness and contrast.

The position (one of eight) is chosen by the low frequencies. Crop and shift along each axis, gain and offset of the
grey levels are then fitted together by Gauss-Newton steps from coarse to fine (Lucas and Kanade 1981; Baker and
Matthews 2004). Pixels that lie outside the other image do not count, nor do those that are burnt out in one of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

TURNS: Final = 8  # positions of a square: four turns, each as it is or mirrored
COARSE: Final = 16  # side of the thumbnails that are aligned coarsely
_LEVELS: Final = ((COARSE, 8), (32, 3), (64, 1))  # side in pixels, and steps
_BRIGHT: Final = 235.0  # grey levels from which a pixel may be burnt out
_DARK: Final = 3.0
_LARGEST: Final = 0.25  # change of scale or shift, in half sides, that is followed

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """Thumbnails laid over others.

    Attributes:
        moved: The first thumbnails seen through their windows, float32 [n, side, side].
        target: The second thumbnails, float32 [n, side, side].
        predicted: What the second should be if the first show the same picture, not clipped, float32 [n, side, side].
        inside: Whether each pixel lies within both, bool [n, side, side].
        gain: Factor of the grey levels, float32 [n].
        warp: Shift and change of scale along x, then along y, in half sides, float32 [n, 4].
    """

    moved: Floats
    target: Floats
    predicted: Floats
    inside: NDArray[np.bool_]
    gain: Floats
    warp: Floats


def turn_images(images: NDArray[np.uint8], turns: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Bring square images into other positions.

    Args:
        images: uint8 [n, side, side].
        turns: Position of each, int64 [n]: 1 mirrors top and bottom, 2 left and right, 4 exchanges the axes first.

    Returns:
        The images in the new positions, uint8 [n, side, side].
    """
    turned = images.copy()
    for turn in range(1, TURNS):
        rows = np.flatnonzero(turns == turn)
        chosen = images[rows]
        chosen = chosen.transpose(0, 2, 1) if turn & 4 else chosen
        chosen = chosen[:, ::-1] if turn & 1 else chosen
        turned[rows] = chosen[:, :, ::-1] if turn & 2 else chosen
    return turned


def score_turns(first: NDArray[np.floating], second: NDArray[np.floating]) -> Floats:
    """Score how well the low frequencies of two images agree in each of the eight positions of the first.

    Args:
        first: Spectra as `compute_spectra` gives them, floating [n, frequencies, frequencies].
        second: Spectra of the other images, of the same shape.

    Returns:
        Correlations, float32 [n, 8].
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    sign = np.where(np.arange(first.shape[1]) % 2, -1, 1).astype(np.float32)
    scores = np.empty((len(first), TURNS), np.float32)
    for turn in range(TURNS):
        turned = first.transpose(0, 2, 1) if turn & 4 else first
        signs = np.outer(sign if turn & 1 else np.ones_like(sign), sign if turn & 2 else np.ones_like(sign))
        scores[:, turn] = np.einsum("nij,nij,ij->n", turned, second, signs, optimize=True)
    return scores


def align_coarsely(first: NDArray[np.uint8], second: NDArray[np.uint8], warp: Floats) -> Alignment:
    """Lay thumbnails over others, shrunk to `COARSE` pixels a side.

    Args:
        first: Thumbnails that are moved, uint8 [n, side, side], already in the right position.
        second: Thumbnails that stay, uint8 [n, side, side].
        warp: Warps to begin with, float32 [n, 4].

    Returns:
        The alignments of the small thumbnails.
    """
    return _align(first.astype(np.float32), second.astype(np.float32), warp, _LEVELS[:1])


def align_finely(first: NDArray[np.uint8], second: NDArray[np.uint8], warp: Floats) -> Alignment:
    """Lay thumbnails over others, from about the right place.

    Args:
        first: Thumbnails that are moved, uint8 [n, side, side], already in the right position.
        second: Thumbnails that stay, uint8 [n, side, side].
        warp: Warps that a coarse alignment has found, float32 [n, 4].

    Returns:
        The alignments.
    """
    return _align(first.astype(np.float32), second.astype(np.float32), warp, _LEVELS[1:])


def _align(first: Floats, second: Floats, warp: Floats, levels: Sequence[tuple[int, int]]) -> Alignment:
    for side, steps in levels:
        small, goal = _shrink(first, side), _shrink(second, side)
        for _ in range(steps):
            warp = _step(small, goal, warp)
    moved, inside = _warp(small, warp)
    gain, offset = _fit_levels(moved, goal, inside)
    return Alignment(moved, goal, gain[:, None, None] * moved + offset[:, None, None], inside, gain, warp)


def _shrink(images: Floats, side: int) -> Floats:
    factor = images.shape[1] // side
    if factor == 1:
        return images
    n = len(images)
    return np.asarray(images.reshape(n, side, factor, side, factor).mean(axis=(2, 4)), np.float32)


def _warp(images: Floats, warp: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Images seen through shifted and scaled windows, and which pixels lie within them."""
    side = images.shape[1]
    across, in_x = _interpolate(side, warp[:, 0], warp[:, 1])
    down, in_y = _interpolate(side, warp[:, 2], warp[:, 3])
    moved = np.asarray(down @ images @ across.transpose(0, 2, 1), np.float32)
    return moved, in_y[:, :, None] & in_x[:, None, :]


def _interpolate(side: int, shift: Floats, scale: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Matrices of linear interpolation along one axis, float32 [n, side, side], and which positions are inside."""
    place = _axis(side)
    wanted = ((1 + scale[:, None]) * place + shift[:, None] + 1) * (side / 2) - 0.5
    inside = (wanted >= -0.5) & (wanted <= side - 0.5)
    wanted = np.clip(wanted, 0, side - 1)
    away = np.abs(wanted[:, :, None] - np.arange(side, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - away), np.float32), inside


def _axis(side: int) -> Floats:
    """The centres of pixels, from -1 to 1."""
    return ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)


def _weigh(moved: Floats, target: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Which pixels count: all inside that are burnt out in neither image, or all inside if few are left."""
    clear = inside & (target < _BRIGHT) & (target > _DARK) & (moved < _BRIGHT) & (moved > _DARK)
    few = clear.sum(axis=(1, 2)) < 0.15 * inside.sum(axis=(1, 2))
    clear[few] = inside[few]
    return clear.astype(np.float32)


def _step(images: Floats, target: Floats, warp: Floats) -> Floats:
    """One Gauss-Newton step of shift, scale, gain and offset together."""
    side = images.shape[1]
    moved, inside = _warp(images, warp)
    weight = _weigh(moved, target, inside)
    down, across = np.gradient(moved, 2 / side, axis=(1, 2))
    place = _axis(side)
    columns = np.stack([moved, np.ones_like(moved), across, across * place, down, down * place[:, None]], axis=1)
    flat = columns.reshape(len(images), 6, side * side)
    weighted = flat * weight.reshape(len(images), 1, side * side)
    normal = weighted @ flat.transpose(0, 2, 1)
    diagonal = np.arange(6)
    normal[:, diagonal, diagonal] *= 1.001
    normal[:, diagonal, diagonal] += 1e-3
    apart = (target - moved).reshape(len(images), side * side, 1)  # so that equal images stay where they are
    solved = np.linalg.solve(normal, weighted @ apart)[:, :, 0]
    gain = np.maximum(solved[:, :1] + 1, 0.1)
    return np.asarray(np.clip(warp + np.clip(solved[:, 2:] / gain, -0.1, 0.1), -_LARGEST, _LARGEST), np.float32)


def _fit_levels(moved: Floats, target: Floats, inside: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Gain and offset from the first image to the second: least squares, repeated without the largest residuals."""
    weight = _weigh(moved, target, inside)
    for _ in range(3):
        total = np.maximum(weight.sum(axis=(1, 2)), 1)
        mean_x, mean_y = (np.einsum("nij,nij->n", weight, image) / total for image in (moved, target))
        x, y = moved - mean_x[:, None, None], target - mean_y[:, None, None]
        gain = np.einsum("nij,nij,nij->n", weight, x, y) / (np.einsum("nij,nij,nij->n", weight, x, x) + 1)
        residual = y - gain[:, None, None] * x
        spread = np.sqrt(np.einsum("nij,nij,nij->n", weight, residual, residual) / total)[:, None, None]
        weight = weight * (np.abs(residual) <= 2.5 * spread + 1)
    return gain.astype(np.float32), (mean_y - gain * mean_x).astype(np.float32)
