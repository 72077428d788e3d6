"""Whether what an attribution points at is what the network goes by: deletion and insertion.

The squares of an image get its mean colour, the most important first (deletion), or are revealed on an image of that
colour in that order (insertion); the probability of the class is followed (Petsiuk et al. 2018; squares as in Samek et
al. 2017). A map that is right makes it fall and rise sooner than chance does. Chance is the same map, mirrored and
moved round the edges at random: scattered squares harm a network more than any connected area, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.loading import Pixels
from budwood.display import Displayed
from budwood.errors import RecipeError
from budwood.evaluation.intervals import Metric, bounded_mean_interval
from budwood.evaluation.label_task import LabelTask, SingleLabel
from budwood.evaluation.significance import paired_permutation_test, permutation_intervals
from budwood.explain.heatmaps import Attribution, Maps, fill_mean_colour
from budwood.inference.engines import InferenceFn
from budwood.progress import Progress, choose_progress

STEPS: Final = 10
SQUARES: Final = 14  # a side

Curves = NDArray[np.float32]


@dataclass(frozen=True)
class Curve:
    """Probability of the explained class as ever more of the image changes.

    Attributes:
        values: float32 [n, steps + 1], probabilities by image and step.
        areas: float64 [n], the area under each curve, 0 to 1.
        mean: Mean of the areas with a 95 % interval over the images.
    """

    values: Curves
    areas: NDArray[np.float64]
    mean: Metric


@dataclass(frozen=True, eq=False)
class Gain(Metric):
    """How much better than chance a method is on the same images, with the two-sided p-value of its test."""

    p: float


@dataclass(frozen=True, repr=False)
class Faithfulness(Displayed):
    """Deletion and insertion scores of a method, and of its maps moved at random.

    Attributes:
        deletion: Curve of deletion; a small area is good.
        insertion: Curve of insertion; a large area is good.
        random_deletion: Curve of deletion by the maps moved at random.
        random_insertion: Curve of insertion by the maps moved at random.
        gains: How much better than the moved maps the method is on the same images, for `deletion` and `insertion`:
            `value`, `low`, `high`, `n` and the two-sided `p` of a paired permutation test, which the interval inverts;
            there is none of fewer than six images. More than 0 is better. Empty where there is no image.
    """

    deletion: Curve
    insertion: Curve
    random_deletion: Curve
    random_insertion: Curve
    gains: Mapping[str, Gain]

    def __repr__(self) -> str:
        return f"Faithfulness({', '.join(f'{name} {gain.value}' for name, gain in self.gains.items())})"


def measure_faithfulness(
    run: InferenceFn,
    pixels: Pixels,
    attribution: Attribution,
    steps: int = STEPS,
    *,
    task: LabelTask | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Faithfulness:
    """Measure how faithful the maps of images are to a network.

    Where a map is empty, or its squares are equal, the order of the squares is random.

    Args:
        run: From pixels uint8 [n, size, size, 3] to logits float32 [n, classes].
        pixels: The explained images, uint8 [n, size, size, 3].
        attribution: Attribution of these images, in the same order.
        steps: Number of steps in which the image changes, 2 or more.
        task: Whether images have one label or several, which decides how logits become probabilities; None for one.
        seed: Seed of the random order and of the moved maps.
        progress: Where progress is shown; None: below the cell of a notebook, else nowhere.

    Returns:
        The curves of the method and of the moved maps, and the gains.

    Raises:
        RecipeError: When `steps` is below 2.
    """
    if steps < 2:
        raise RecipeError(f"steps: found {steps}, expected 2 or more.", "10 steps replace a tenth of the image each.")
    random = np.random.default_rng(seed)
    orders = [rank_pixels(maps, random) for maps in (attribution.maps, shift_maps(attribution.maps, random))]
    without = fill_mean_colour(pixels)
    curves = np.zeros((len(pixels), 4, steps + 1), np.float32)
    with (progress or choose_progress()).bar("Deletion and insertion", len(pixels)) as step:
        for row, chosen in enumerate(attribution.classes.tolist()):
            ends = (pixels[row], without[row])
            between = [_interpolate_images(*pair, order[row], steps) for order in orders for pair in (ends, ends[::-1])]
            shown = np.concatenate([np.stack(ends), *between])
            logits = run(shown)
            found = (task or SingleLabel(logits.shape[1])).to_probabilities(logits)[:, chosen]
            curves[row, :, 0], curves[row, :, -1] = np.tile(found[:2], 2), np.tile(found[1::-1], 2)
            curves[row, :, 1:-1] = found[2:].reshape(4, -1)
            step(1)
    return _compare_curves(curves)


def shift_maps(maps: Maps, random: np.random.Generator) -> Maps:
    """Mirror maps and move them round the edges at random, as a control of the same shapes.

    Args:
        maps: float32 [n, size, size].
        random: Generator that draws the mirroring and the shift of each map.

    Returns:
        float32 [n, size, size].
    """
    found = np.empty_like(maps)
    for number, values in enumerate(maps):
        down, across = random.choice([-1, 1], 2)
        found[number] = np.roll(values[::down, ::across], random.integers(0, maps.shape[1], 2), (0, 1))
    return found


def rank_pixels(maps: Maps, random: np.random.Generator) -> NDArray[np.float64]:
    """Rank the square of each pixel by importance.

    Squares (14 a side) are ordered by the mean of the map in them; equal ones at random.

    Args:
        maps: float32 [n, size, size].
        random: Generator that orders equal squares.

    Returns:
        float64 [n, size, size], from 0 (most important) to below 1.
    """
    size = maps.shape[1]
    side = min(SQUARES, size)
    square = np.arange(size) * side // size
    rows, columns = np.meshgrid(square, square, indexing="ij")
    member = (rows * side + columns).ravel()
    counts = np.bincount(member)
    found = np.zeros(maps.shape)
    for number, values in enumerate(maps):
        means = np.bincount(member, values.ravel()) / counts
        order = np.lexsort((random.random(len(means)), -means))
        places = np.empty(len(means))
        places[order] = np.arange(len(means)) / len(means)
        found[number] = places[member].reshape(size, size)
    return found


def _interpolate_images(before: Pixels, after: Pixels, ranks: NDArray[np.float64], steps: int) -> Pixels:
    """An image on its way into another, the first squares first, without both: uint8 [steps - 1, size, size, 3]."""
    shares = np.arange(1, steps) / steps
    return np.where((ranks < shares[:, None, None])[..., None], after, before)


def _compare_curves(curves: Curves) -> Faithfulness:
    """Curves [n, 4, steps + 1] of deletion and insertion, then both by moved maps, with areas and what they gain."""
    areas = (curves[..., 1:] + curves[..., :-1]).mean(axis=2, dtype=np.float64) / 2
    n, means = len(areas), [bounded_mean_interval(areas[:, k], 0.0, 1.0) for k in range(4)]
    deletion, insertion, *others = [Curve(curves[:, k], areas[:, k], means[k]) for k in range(4)]
    gains: dict[str, Gain] = {}
    if n:
        p = paired_permutation_test(areas)
        low, high = permutation_intervals(areas, p)
        for name, better, worse in (("deletion", 2, 0), ("insertion", 1, 3)):
            value = float((areas[:, better] - areas[:, worse]).mean())
            ends = None if np.isnan(low[better, worse]) else (float(low[better, worse]), float(high[better, worse]))
            least, most = ends or (None, None)
            gains[name] = Gain(value, least, most, n, float(p[better, worse]))
    return Faithfulness(deletion, insertion, others[0], others[1], gains)
