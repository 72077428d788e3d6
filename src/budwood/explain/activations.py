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

from budwood.errors import RecipeError
from budwood.explain.convolutions import find_convolution
from budwood.explain.image_grid import make_grid, stretch
from budwood.explain.probe import (
    FEWEST,
    NetworkProbe,
    capture_outputs,
    compute_stage_outputs,
    find_layer,
    find_place,
    list_map_sides,
    list_places,
    reshape_to_maps,
)
from budwood.networks.registry import TRUNK

Floats = NDArray[np.float32]

CHANNELS: Final = 6  # of each stage in a strip
STAGES: Final = 8  # of a strip
MOST: Final = 24  # channels in a picture of maps
COLUMNS: Final = 6
SIDE: Final = 96  # pixels of a tile


@dataclass(frozen=True)
class Maps:
    """What a place or a layer gives for images: `values` float32 [n, channels, height, width].

    Of each channel, over all cells of all images, float32 [channels]: `active`, the mean absolute value (how much there
    is of it), and `varied`, the standard deviation (how much it tells cells and images apart).
    """

    name: str
    values: Floats
    active: Floats
    varied: Floats


@dataclass(frozen=True)
class StageMaps:
    """Channels of a stage's map for one image: numbers int64 [m], the widest spread first, and values float32 [m,
    height, width], each stretched to 0..1. `shape` is that of the whole map: channels, height, width."""

    name: str
    shape: tuple[int, int, int]
    channels: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True)
class Strip:
    """One image on its way through a network, from its first map to its last; `left_out` names the stages between
    that are not shown."""

    stages: tuple[StageMaps, ...]
    left_out: tuple[str, ...]


def list_mapped_stages(subject: NetworkProbe) -> list[str]:
    """The stages that give a map of at least 2 x 2 cells."""
    return [name for name in list_map_sides(subject) if name != TRUNK]


def read_maps(subject: NetworkProbe, pixels: NDArray[np.uint8], name: str) -> Maps:
    """The maps after a stage, the trunk, or a layer of that full name, for pixels uint8 [n, size, size, 3].

    Of tokens, the square that they were cut from. Raises `RecipeError` for a name that is neither, and for an output
    that is no map of at least 2 x 2 cells an image.
    """
    found, outputs = _find_outputs(subject, subject.images(pixels), name)
    maps = None if outputs is None or len(outputs) != len(pixels) else reshape_to_maps(outputs)
    if maps is None or min(maps.shape[2:]) < FEWEST:
        with_maps = ", ".join(list_mapped_stages(subject)) or "no stage has one"
        raise RecipeError(
            f"layer: {found} of {subject.plan.name} has no feature map.", f"Stages with feature maps: {with_maps}."
        )
    values: Floats = maps.float().cpu().numpy()
    return Maps(found, values, np.abs(values).mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))


def filter_image(subject: NetworkProbe, pixels: NDArray[np.uint8], layer: str, filters: Sequence[int]) -> Floats:
    """One image, pixels uint8 [size, size, 3], after chosen filters of a convolution (study 2): float32 [len(filters),
    height, width], before any batch norm or activation.

    Raises `RecipeError` for a layer that is no convolution and for a filter that it has not.
    """
    count = find_convolution(subject, layer).out_channels
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
    """One image, pixels uint8 [size, size, 3], after the stages that give a map: of each, the `most` channels of the
    largest variance.

    Of many stages, 8 are chosen that are evenly spread over them, the first and the last among them. Raises
    `RecipeError` where no stage gives a map.
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
    """The maps of one of the images, of the `most` most varied channels, widest spread first, in rows of 6."""
    channels = np.argsort(-maps.varied, kind="stable")[:most]
    return make_grid(stretch(maps.values[image, channels]), COLUMNS, SIDE)


def draw_filtered(seen: Floats) -> Image.Image:
    """What `seen_through` gives, each filter's image stretched by itself from black to white, in rows of 6."""
    return make_grid(stretch(seen), COLUMNS, SIDE)


def draw_strip(strip: Strip) -> tuple[Image.Image, ...]:
    """One row of tiles for each stage of a strip."""
    return tuple(make_grid(stage.values, len(stage.values), SIDE) for stage in strip.stages)


def _find_outputs(subject: NetworkProbe, images: Tensor, name: str) -> tuple[str, Tensor | None]:
    """The full name and the output of the stage of that name, else of the layer, else of the stage that ends so."""
    places = [place.name for place in list_places(subject)]
    layers = {path for path, _ in subject.module.named_modules()}
    if name not in places and name in layers:
        find_layer(subject, name)
        with capture_outputs(subject, [name]) as told, torch.no_grad():
            subject.module(images)
        return name, told.get(name)
    place = find_place(subject, name, "layer")
    return place, compute_stage_outputs(subject, images, [place]).get(place)


def _select_channels(name: str, outputs: Tensor, most: int) -> StageMaps:
    """The channels of the largest variance in one image's output at a stage."""
    maps = reshape_to_maps(outputs)
    assert maps is not None
    values: Floats = maps[0].float().cpu().numpy()
    channels = np.argsort(-values.var(axis=(1, 2)), kind="stable")[:most].astype(np.int64)
    count, height, width = values.shape
    return StageMaps(name, (count, height, width), channels, stretch(values[channels]))
