"""Feature maps: what a network makes of an image on its way, and the image after single filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from budwood.display import Displayed
from budwood.errors import RecipeError
from budwood.explain.convolutions import find_convolution
from budwood.explain.image_grid import make_grid, stretch
from budwood.explain.layer_outputs import find_layers, make_layer_function
from budwood.explain.probe import (
    FEWEST,
    NetworkProbe,
    capture_outputs,
    compute_stage_outputs,
    eval_mode,
    list_map_sides,
    reshape_to_maps,
)
from budwood.networks.layers import Layer
from budwood.networks.registry import TRUNK

Floats = NDArray[np.float32]

CHANNELS: Final = 6  # of each stage in a strip
STAGES: Final = 8  # of a strip
MOST: Final = 24  # channels in a picture of maps
COLUMNS: Final = 6
SIDE: Final = 96  # pixels of a tile


@dataclass(frozen=True, repr=False)
class Maps(Displayed):
    """Feature maps that a place or a layer gives for images.

    Attributes:
        name: Full name of the place or layer.
        values: float32 [n, channels, height, width].
        active: float32 [channels], the mean absolute value of each channel over all cells of all images: how much
            there is of it.
        varied: float32 [channels], the standard deviation of the same values: how well it separates cells and
            images.
    """

    name: str
    values: Floats
    active: Floats
    varied: Floats

    def __repr__(self) -> str:
        return f"Maps({self.name}: {' x '.join(map(str, self.values.shape))})"


@dataclass(frozen=True)
class StageMaps:
    """Selected channels of a stage's map for one image.

    Attributes:
        name: Name of the stage.
        shape: Shape of the whole map: channels, height, width.
        channels: int64 [m], numbers of the channels, the largest variance first.
        values: float32 [m, height, width], each channel stretched to 0..1 by itself.
    """

    name: str
    shape: tuple[int, int, int]
    channels: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True, repr=False)
class Strip(Displayed):
    """Maps of one image along a network, from its first map to its last.

    Attributes:
        stages: The stages that are shown, in order.
        left_out: Names of the stages with maps in between that are not shown.
    """

    stages: tuple[StageMaps, ...]
    left_out: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Strip({', '.join(stage.name for stage in self.stages)})"


def list_mapped_stages(subject: NetworkProbe) -> list[str]:
    """List the stages that give a map of at least 2 x 2 cells.

    Args:
        subject: Opened network.

    Returns:
        Names of the stages in order, without the trunk.
    """
    return [name for name in list_map_sides(subject) if name != TRUNK]


def read_maps(subject: NetworkProbe, pixels: NDArray[np.uint8], name: str) -> Maps:
    """Compute the feature maps of any layer.

    Tokens are laid out as the square of patches that they come from.

    Args:
        subject: Opened network.
        pixels: Images, uint8 [n, size, size, 3].
        name: The layer, as `budwood.networks.layers.find_layer` finds it, or the trunk.

    Returns:
        The maps of all images, with two statistics of each channel.

    Raises:
        RecipeError: When the name is no layer that the network runs, or when its output is no map of at least 2 x 2
            cells an image.
    """
    (layer,) = find_layers(subject, [name], "layer")
    return read_layer_maps(subject, pixels, layer, "layer")


def read_layer_maps(subject: NetworkProbe, pixels: NDArray[np.uint8], layer: Layer, option: str = "place") -> Maps:
    """Compute the feature maps of a layer that was found.

    Args:
        subject: Opened network.
        pixels: Images, uint8 [n, size, size, 3].
        layer: A layer of the network.
        option: Name of the option that named it, for the error message.

    Returns:
        The maps of all images, with two statistics of each channel.

    Raises:
        RecipeError: When its output is no map of at least 2 x 2 cells of a square image.
    """
    refuse_without_map(subject, layer, option)
    with eval_mode(subject), torch.no_grad():
        maps = reshape_to_maps(make_layer_function(subject, layer)(subject.images(pixels)))
    assert maps is not None
    values: Floats = maps.float().cpu().numpy()
    return Maps(layer.label, values, np.abs(values).mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))


def refuse_without_map(subject: NetworkProbe, layer: Layer, option: str = "place") -> None:
    """Refuse a layer that gives no map of an image.

    Args:
        subject: Opened network.
        layer: A layer of the network.
        option: Name of the option that named it, for the error message.

    Raises:
        RecipeError: When its output is no map of at least 2 x 2 cells of a square image.
    """
    with torch.device("meta"):
        maps = None if layer.shape is None else reshape_to_maps(torch.empty(1, *layer.shape))
    if maps is not None and maps.shape[2] == maps.shape[3] >= FEWEST:
        return
    shape = " x ".join(map(str, layer.shape or ()))
    with_maps = ", ".join(list_mapped_stages(subject)) or "no stage has one"
    raise RecipeError(
        f"{option}: {layer.label} of {subject.plan.name} has no feature map; it gives {shape} values for an image.",
        f"Stages with feature maps: {with_maps}.",
    )


def filter_image(subject: NetworkProbe, pixels: NDArray[np.uint8], layer: str, filters: Sequence[int]) -> Floats:
    """Compute one image's output after chosen filters of a convolution (study 2).

    It is the output before any batch norm or activation.

    Args:
        subject: Opened network.
        pixels: One image, uint8 [size, size, 3].
        layer: The convolution, as `budwood.networks.layers.find_layer` finds it.
        filters: Numbers of the filters, from 0.

    Returns:
        float32 [len(filters), height, width], in the order of `filters`.

    Raises:
        RecipeError: When the layer is no convolution or has no filter of such a number.
    """
    layer, convolution = find_convolution(subject, layer)
    count = convolution.out_channels
    wrong = [number for number in filters if not 0 <= number < count]
    if wrong:
        raise RecipeError(
            f"filter: {layer} of {subject.plan.name} has no filter {wrong[0]}.",
            f"It has {count}: choose from 0 to {count - 1}.",
        )
    with capture_outputs(subject, [layer]) as told, torch.no_grad():
        subject.module(subject.images(pixels[None]))
    seen: Floats = told[layer][0, list(filters)].float().cpu().numpy()
    return seen


def make_strip(subject: NetworkProbe, pixels: NDArray[np.uint8], most: int = CHANNELS) -> Strip:
    """Collect one image's maps after the stages that give a map.

    Of many stages, 8 are chosen that are evenly spread over them, with the first and the last among them.

    Args:
        subject: Opened network.
        pixels: One image, uint8 [size, size, 3].
        most: Channels shown of each stage: those of the largest variance.

    Returns:
        The strip, with the names of the stages left out.

    Raises:
        RecipeError: When no stage gives a map.
    """
    names = list_mapped_stages(subject)
    if not names:
        raise RecipeError(
            f"{subject.plan.name}: no stage has a feature map, so there are no feature maps to show.",
            "Choose a network with convolutions; `budwood models` lists networks.",
        )
    spread = np.unique(np.linspace(0, len(names) - 1, STAGES).round().astype(int))
    chosen = [names[number] for number in spread]
    found = compute_stage_outputs(subject, subject.images(pixels[None]), chosen)
    stages = tuple(_select_channels(name, found[name], most) for name in chosen)
    return Strip(stages, tuple(name for name in names if name not in chosen))


def draw_maps(maps: Maps, image: int = 0, most: int = MOST) -> Image.Image:
    """Draw the most varied maps of one image as a grid, in rows of 6.

    Args:
        maps: Feature maps of one or more images.
        image: Row of the image in `maps.values`.
        most: Number of channels at most; those of the largest standard deviation come first.

    Returns:
        The grid, each map stretched by itself from black to white.
    """
    channels = np.argsort(-maps.varied, kind="stable")[:most]
    return make_grid(stretch(maps.values[image, channels]), COLUMNS, SIDE)


def draw_filtered(seen: Floats) -> Image.Image:
    """Draw an image after single filters as a grid, in rows of 6.

    Args:
        seen: float32 [n, height, width], as `filter_image` gives it.

    Returns:
        The grid, each filter's output stretched by itself from black to white.
    """
    return make_grid(stretch(seen), COLUMNS, SIDE)


def draw_strip(strip: Strip) -> tuple[Image.Image, ...]:
    """Draw each stage of a strip as one row of tiles.

    Args:
        strip: Maps of one image along the network.

    Returns:
        One picture for each stage, in order.
    """
    return tuple(make_grid(stage.values, len(stage.values), SIDE) for stage in strip.stages)


def _select_channels(name: str, outputs: Tensor, most: int) -> StageMaps:
    """The channels of the largest variance in one image's output at a stage."""
    maps = reshape_to_maps(outputs)
    assert maps is not None
    values: Floats = maps[0].float().cpu().numpy()
    channels = np.argsort(-values.var(axis=(1, 2)), kind="stable")[:most].astype(np.int64)
    count, height, width = values.shape
    return StageMaps(name, (count, height, width), channels, stretch(values[channels]))
