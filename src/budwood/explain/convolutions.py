"""The filters of a convolution: what they look like, which are dead, and which say the same thing twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from budwood.display import Displayed
from budwood.errors import RecipeError
from budwood.explain.image_grid import make_grid
from budwood.explain.layer_outputs import find_layers
from budwood.explain.probe import NetworkProbe, capture_outputs, eval_mode
from budwood.networks.stages import list_modules

Floats = NDArray[np.float32]

DEAD: Final = 0.01  # share of the layer's median up to which a norm, or the spread of an output, counts as none
DUPLICATE: Final = 0.98  # |cosine| above which two filters are the same up to a factor
MOST: Final = 64
COLUMNS: Final = 8
SIDE: Final = 44  # pixels of a tile
LISTED: Final = 12
_BATCH: Final = 32


@dataclass(frozen=True, repr=False)
class Filters(Displayed):
    """Filters of a convolution, with those that are dead or duplicate.

    Attributes:
        layer: Full name of the convolution.
        weights: float32 [out, in, height, width], where `in` counts the input channels of a group. Those of the
            first convolution weigh pixels of 0 to 1, before they are normalised.
        norms: float32 [out], Euclidean norms of the filters.
        order: int64 [out], the order in which to show them: from the strongest on, the one most similar to the last
            (by cosine) of those left comes next, so that similar filters stand together; dead ones come last.
        dead: Filters whose norm is at most `DEAD` of the median norm. With images, also those whose output hardly
            varies: its range from lowest to highest, over every cell of every image, is at most `DEAD` of the
            median range. It is the output after the batch norm and the activation that follow as layers of their
            own; an activation that is a function in a network's code is not seen, and then the output before it
            counts.
        duplicates: Pairs, the lower number first, of living filters on the same inputs with an absolute cosine
            above `DUPLICATE`.
        colour: Whether the three input channels are those of an image.
        groups: Number of groups of the convolution.
    """

    layer: str
    weights: Floats
    norms: Floats
    order: NDArray[np.int64]
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]
    colour: bool
    groups: int

    def __repr__(self) -> str:
        return f"Filters({self.layer}: {' x '.join(map(str, self.weights.shape))}, {len(self.dead)} dead)"


def list_convolutions(subject: NetworkProbe) -> tuple[str, ...]:
    """List the convolutions that the network runs for an image.

    Args:
        subject: Opened network.

    Returns:
        Full names, in the order in which they are run.
    """
    run = set(list_modules(subject.network.staged, subject.network.staged.node(None)))
    names = [name for name, part in subject.module.named_modules() if isinstance(part, nn.Conv2d) and name in run]
    plan = subject.plan
    with capture_outputs(subject, names) as told, torch.no_grad():
        subject.module(torch.zeros(1, plan.channels, plan.size, plan.size, device=subject.device))
    return tuple(told)


def find_convolution(subject: NetworkProbe, layer: str) -> tuple[str, nn.Conv2d]:
    """Find a convolution by its name.

    Args:
        subject: Opened network.
        layer: The convolution, as `budwood.networks.layers.find_layer` finds it.

    Returns:
        Its full name, and the module.

    Raises:
        RecipeError: When the network has no convolution, or the layer is none; the hint lists some.
    """
    name = _choose_layer(subject, list_convolutions(subject), layer)
    return name, _get_convolution(subject, name)


def read_filters(subject: NetworkProbe, layer: str | None = None, images: NDArray[np.uint8] | None = None) -> Filters:
    """Read the filters of a convolution, and find those that are dead or duplicate.

    Args:
        subject: Opened network.
        layer: The convolution, as `budwood.networks.layers.find_layer` finds it; None for the first one.
        images: Pixels uint8 [n, size, size, 3]; filters whose output hardly varies on them count as dead too. None
            to judge by the weights alone.

    Returns:
        The filters.

    Raises:
        RecipeError: When the network has no convolution, or the layer is none.
    """
    names = list_convolutions(subject)
    name = _choose_layer(subject, names, layer)
    convolution = _get_convolution(subject, name)
    weights = convolution.weight.detach().float().cpu().numpy()
    sees_images = name == names[0] and weights.shape[1] == subject.plan.channels
    if sees_images:
        weights = weights * _measure_slopes(subject, convolution)[:, None, None]
    norms = np.linalg.norm(weights.reshape(len(weights), -1), axis=1)
    dead = norms <= DEAD * np.median(norms)
    if images is not None:
        spreads = _measure_spreads(subject, convolution, images)
        dead |= spreads <= DEAD * np.median(spreads)
    cosines = _compute_cosines(weights, norms)
    return Filters(
        name,
        weights.copy(),
        norms,
        _chain_similar(cosines, norms, dead),
        tuple(np.flatnonzero(dead).tolist()),
        _find_duplicates(cosines, dead, convolution.groups),
        sees_images and weights.shape[1] == 3,
        convolution.groups,
    )


def filter_pictures(filters: Filters) -> Floats:
    """Scale the weights of every filter to 0..1 for display.

    Zero becomes 0.5 (grey); the weight of largest size of each filter, by itself, becomes 0 or 1.

    Args:
        filters: Filters of a convolution.

    Returns:
        float32 [out, height, width, 3] where the filters see colours, else [out, in, height, width].
    """
    largest = np.abs(filters.weights).max(axis=(1, 2, 3), keepdims=True)
    scaled: Floats = (0.5 + 0.5 * filters.weights / np.where(largest > 0, largest, 1)).astype(np.float32)
    return scaled.transpose(0, 2, 3, 1) if filters.colour else scaled


def choose_filters(filters: Filters, most: int = MOST) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the filters and input channels that `draw_filters` shows.

    Filters of one tile (coloured, or on a single channel): the strongest `most`, in `order`, and channel 0. Others:
    as many of the strongest filters, in `order`, and of the strongest input channels, strongest first, as make a
    square of tiles. The input channels of a grouped convolution are numbered within their group.

    Args:
        filters: Filters of a convolution.
        most: Number of tiles at most.

    Returns:
        Numbers of the filters int64 [rows] and of the input channels int64 [columns].
    """
    one_tile = filters.colour or filters.weights.shape[1] == 1
    count = most if one_tile else isqrt(most)
    strongest = np.argsort(-filters.norms, kind="stable")[:count]
    rows = filters.order[np.isin(filters.order, strongest)]
    if one_tile:
        return rows, np.zeros(1, np.int64)
    weight = (filters.weights**2).sum(axis=(0, 2, 3))
    return rows, np.argsort(-weight, kind="stable")[:count]


def draw_filters(filters: Filters, most: int = MOST) -> Image.Image:
    """Draw the filters that `choose_filters` selects as a grid.

    Filters of one tile stand in rows of 8, in colours where they see colours. Of others every row is a filter and
    every column an input channel (study 2).

    Args:
        filters: Filters of a convolution.
        most: Number of tiles at most.

    Returns:
        The grid; every weight is a square of one colour, and grey is zero.
    """
    rows, columns = choose_filters(filters, most)
    drawn = filter_pictures(filters)[rows]
    if filters.colour:
        return make_grid(drawn, COLUMNS, SIDE, crisp=True)
    tiles = drawn[:, columns]
    across = COLUMNS if len(columns) == 1 else len(columns)
    return make_grid(tiles.reshape(-1, *tiles.shape[2:]), across, SIDE, crisp=True)


def draw_channel_weights(filters: Filters, most: int = MOST) -> dict[str, Image.Image]:
    """Draw the weights that the filters of the first convolution give to red, green and blue, each as a grid.

    A filter stands where `draw_filters` has it in colours, and is drawn around grey by its own largest weight of the
    three channels.

    Args:
        filters: Filters of a convolution.
        most: Number of filters at most.

    Returns:
        A grid for `red`, `green` and `blue`; empty where the filters do not see colours.
    """
    if not filters.colour:
        return {}
    drawn = filter_pictures(filters)[choose_filters(filters, most)[0]]
    return {
        name: make_grid(drawn[..., channel], COLUMNS, SIDE, crisp=True)
        for channel, name in enumerate(("red", "green", "blue"))
    }


def _choose_layer(subject: NetworkProbe, names: Sequence[str], layer: str | None) -> str:
    """The convolution of that name, or the first."""
    if not names:
        raise RecipeError(
            f"layer: {subject.plan.name} has no convolution, and so no filters.",
            "Choose a network with convolutions; `budwood models` lists networks.",
        )
    if layer is None or layer in names:
        return layer or names[0]
    found = find_layers(subject, [layer], "layer")[0].name
    if found not in names:
        listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else ".")
        raise RecipeError(
            f"layer: {layer!r} is not a convolution of {subject.plan.name}.", f"Its convolutions: {listed}"
        )
    return found


def _get_convolution(subject: NetworkProbe, name: str) -> nn.Conv2d:
    found = subject.module.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    return found


def _compute_cosines(weights: Floats, norms: Floats) -> Floats:
    """The cosine of every filter with every other, [out, out]; 0 for a filter that is zero."""
    flat = weights.reshape(len(weights), -1) / np.where(norms > 0, norms, np.float32(1))[:, None]
    found: Floats = (flat @ flat.T).astype(np.float32)
    return found


def _chain_similar(cosines: Floats, norms: Floats, dead: NDArray[np.bool_]) -> NDArray[np.int64]:
    """From the strongest filter on, always the most similar one of those left; the dead ones last."""
    left = ~dead
    chain: list[int] = []
    while left.any():
        likeness = cosines[chain[-1]] if chain else norms
        chain.append(int(np.where(left, likeness, -np.inf).argmax()))
        left[chain[-1]] = False
    return np.array([*chain, *np.flatnonzero(dead)], np.int64)


def _find_duplicates(cosines: Floats, dead: NDArray[np.bool_], groups: int) -> tuple[tuple[int, int], ...]:
    """Pairs of living filters of the same group that are the same up to a factor."""
    group = np.arange(len(cosines)) // (len(cosines) // groups)
    alike = (np.abs(cosines) > DUPLICATE) & (group[:, None] == group) & ~dead[:, None] & ~dead
    return tuple((int(one), int(other)) for one, other in np.argwhere(np.triu(alike, 1)))


def _measure_spreads(subject: NetworkProbe, convolution: nn.Conv2d, pixels: NDArray[np.uint8]) -> Floats:
    """From the lowest to the highest output of every filter over all places of all images, float32 [out]."""
    lows, highs = [], []
    for start in range(0, len(pixels), _BATCH):
        answers = _run_convolution(subject, convolution, subject.images(pixels[start : start + _BATCH]))
        lows.append(answers.amin(dim=(0, 2, 3)))
        highs.append(answers.amax(dim=(0, 2, 3)))
    spread = torch.stack(highs).amax(dim=0) - torch.stack(lows).amin(dim=0)
    found: Floats = spread.float().cpu().numpy()
    return found


def _measure_slopes(subject: NetworkProbe, convolution: nn.Conv2d) -> Floats:
    """Measure how much each input of the first convolution changes as a pixel goes from 0 to 1: float32 [channels].

    It is 1 divided by the deviation of the channel, unless the network scales its images once more, as GoogLeNet does.
    """
    given: list[Tensor] = []
    ends = np.zeros((2, subject.plan.size, subject.plan.size, 3), np.uint8)
    ends[1] = 255
    with eval_mode(subject) as module, torch.no_grad():
        handle = convolution.register_forward_pre_hook(lambda part, inputs: given.append(inputs[0].clone()))
        try:
            module(subject.images(ends))
        finally:
            handle.remove()
    slopes: Floats = (given[0][1] - given[0][0]).mean(dim=(1, 2)).float().cpu().numpy()
    return slopes


def _run_convolution(subject: NetworkProbe, convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """What a convolution gives [n, out, height, width] after the batch norm and activation that follow it.

    They are told by their being given the very tensor that came before.
    """
    handed: list[Tensor] = []  # the latest tensor itself, and as it was: what follows may work in place

    def follow(part: nn.Module, given: Sequence[Any], output: Any) -> None:
        follows = handed and len(given) == 1 and given[0] is handed[0] and _is_pointwise(part)
        if part is convolution or (follows and output.shape == handed[0].shape):
            handed[:] = [output, output.clone()]

    with eval_mode(subject) as module, torch.no_grad():
        handles = [part.register_forward_hook(follow) for part in module.modules()]
        try:
            module(images)
        finally:
            for handle in handles:
                handle.remove()
    return handed[1]


def _is_pointwise(part: nn.Module) -> bool:
    """Whether a layer treats every value by itself: a batch norm, or one without parameters, such as an activation."""
    return isinstance(part, _BatchNorm) or not any(True for _ in part.parameters())
