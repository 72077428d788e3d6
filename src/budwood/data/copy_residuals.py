"""What two thumbnails of one view still differ by once light, sharpness and place have been fitted.

Between two pictures of one thing only noise is left, and noise has the same strength everywhere. Two things of the same
build differ in places, so a few residuals are far larger than the others: their kurtosis, 3 for noise, is high.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.copy_alignment import Alignment

_FINE: Final = 15  # pixels: light that changes more slowly than this does not count
_SHARPNESS: Final = (3, 5, 7)  # pixels of the means that make up for another sharpness
_MARGIN: Final = 3  # pixels at the edges that are left out
_BURNT: Final = 220.0  # grey levels from which a pixel may be partly burnt out
_DARK: Final = 20.0  # grey levels up to which a pixel may be partly black
_RIDGE: Final = 0.1

Floats = NDArray[np.float32]


def measure_residuals(pair: Alignment) -> tuple[Floats, Floats]:
    """Measure what is left between thumbnails that were laid over each other.

    Args:
        pair: The alignments, [n].

    Returns:
        The largest local residual in grey levels, float32 [n], and the kurtosis of the residuals, float32 [n].
    """
    weight = _choose_pixels(pair)
    total = np.maximum(weight.sum(axis=(1, 2)), 1)
    residual = _fit(pair, weight)
    power = np.einsum("nij,nij->n", residual, residual) / total
    kurtosis = np.einsum("nij,nij->n", residual**2, residual**2) / total / np.maximum(power, 1e-6) ** 2
    largest = np.sqrt(smooth(residual * residual, 3)).max(axis=(1, 2), initial=0)
    return largest.astype(np.float32), kurtosis.astype(np.float32)


def smooth(images: Floats, width: int) -> Floats:
    """Average over a square around each pixel.

    Args:
        images: float32 [n, side, side].
        width: Side of the square in pixels, odd.

    Returns:
        The means, float32 [n, side, side].
    """
    place = np.arange(images.shape[1])
    near = (np.abs(place[:, None] - place) <= width // 2).astype(np.float32)
    near /= near.sum(axis=1, keepdims=True)
    return np.asarray(near @ images @ near.T, np.float32)


def _choose_pixels(pair: Alignment) -> Floats:
    """Which pixels count: those inside, away from the edges, that are not burnt out; all inside if few are left."""
    inner = pair.inside.copy()
    inner[:, :_MARGIN] = inner[:, -_MARGIN:] = inner[:, :, :_MARGIN] = inner[:, :, -_MARGIN:] = False
    brighter, darker = np.maximum(pair.predicted, pair.moved), np.minimum(pair.predicted, pair.moved)
    clear = inner & (brighter < _BURNT) & (darker > _DARK)
    few = clear.sum(axis=(1, 2)) < 0.3 * inner.sum(axis=(1, 2))
    clear[few] = inner[few]
    return clear.astype(np.float32)


def _fit(pair: Alignment, weight: Floats) -> Floats:
    """The residuals of a linear fit of contrast, sharpness, uneven light, shift and scale; 0 where no pixel counts."""
    n, side = len(weight), weight.shape[1]
    inside = pair.inside.astype(np.float32)
    share = np.maximum(smooth(inside, _FINE), 1e-3)

    def flatten(images: Floats) -> Floats:
        return np.asarray((images - smooth(images * inside, _FINE) / share) * weight, np.float32)

    image, target = _order_by_sharpness(np.clip(pair.predicted, 0, 255), pair.target, weight)
    down, across = (np.asarray(slope, np.float32) for slope in np.gradient(image, axis=(1, 2)))
    place = np.linspace(-1, 1, side, dtype=np.float32)
    parts = [image, *(smooth(image, width) for width in _SHARPNESS), image * place, image * place[:, None]]
    parts += [across, across * place, down, down * place[:, None]]
    columns = np.stack([flatten(part) for part in parts], axis=1).reshape(n, len(parts), side * side)
    goal = flatten(target).reshape(n, side * side, 1)
    normal = columns @ columns.transpose(0, 2, 1) + _RIDGE * np.eye(len(parts), dtype=np.float32)
    factors = np.linalg.solve(normal, columns @ goal)
    return np.asarray((goal - columns.transpose(0, 2, 1) @ factors).reshape(n, side, side), np.float32)


def _order_by_sharpness(first: Floats, second: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Of each pair the sharper image, and the other: a sharp image can be blurred to fit, not the other way round."""
    rough = [np.einsum("nij,nij,nij->n", weight, *[image - smooth(image, 3)] * 2) for image in (first, second)]
    swap = (rough[0] < rough[1])[:, None, None]
    return np.where(swap, second, first), np.where(swap, first, second)
