"""The parts of an explanation that show layers: filters, feature maps, and what channels look for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from budwood.explain.activations import COLUMNS, SIDE, draw_filtered, filter_image, refuse_without_map
from budwood.explain.convolutions import (
    draw_channel_weights,
    draw_filters,
    find_convolution,
    list_convolutions,
    read_filters,
)
from budwood.explain.image_grid import make_grid, make_png_uri, stretch
from budwood.explain.layer_outputs import describe_layer
from budwood.explain.probe import NetworkProbe
from budwood.explain.side_by_side import OpenedNetwork, compare_maps, compare_units, find_layer_in_each
from budwood.networks.layers import Layer
from budwood.progress import Progress
from budwood.reporting.thumbnails import encode_jpeg, make_data_uri
from budwood.runs.explanation_record import (
    DrawnLayer,
    DrawnUnit,
    FilterLayer,
    FiltersPart,
    MappedLayer,
    MapsPart,
    UnitsPart,
)

SEEN: Final = 12  # filters that an image is seen through


def refuse_places(
    networks: Sequence[OpenedNetwork], parts: Collection[str], places: Sequence[str], channels: Sequence[int]
) -> None:
    """Refuse layers that a part cannot show, before anything that takes long is computed.

    Args:
        networks: The networks, that of the run first.
        parts: The parts that are asked for.
        places: The layers.
        channels: Numbers of the channels; none to choose them.

    Raises:
        RecipeError: A network has no such layer or channel, it is no convolution for `filters`, or gives no map for
            `maps`.
    """
    for place in places:
        if "filters" in parts:
            find_convolution(networks[0].probe, place)
        if "maps" in parts or "units" in parts:
            layers = find_layer_in_each(networks, place, channels)
            for network, layer in zip(networks, layers, strict=True):
                if "maps" in parts:
                    refuse_without_map(network.probe, layer)


def explain_filters(
    subject: NetworkProbe, image: NDArray[np.uint8], path: str, places: Sequence[str], prefix: str = ""
) -> tuple[FiltersPart, dict[str, str]]:
    """Show filters of convolutions, and an image after them.

    Args:
        subject: Opened network.
        image: The image, uint8 [size, size, 3].
        path: Its path, as it is shown.
        places: Convolutions; none for the first one and the one in the middle of those that see all channels before
            them.
        prefix: What stands before the names of layers, as those of an ensemble's member.

    Returns:
        The part, and its pictures.

    Raises:
        RecipeError: A place is no convolution.
    """
    rows: list[FilterLayer] = []
    pictures: dict[str, str] = {}
    for name in _choose_convolutions(subject, places):
        found, shown = read_filters(subject, name), f"{prefix}{name}"
        pictures[f"filters-{shown}"] = make_png_uri(draw_filters(found))
        for colour, drawn in draw_channel_weights(found).items():
            pictures[f"filters-{shown}-{colour}"] = make_png_uri(drawn)
        seen = filter_image(subject, image, name, found.order[:SEEN].tolist())
        pictures[f"seen-{shown}"] = make_png_uri(draw_filtered(seen))
        out, channels, height, width = found.weights.shape
        rows.append(
            FilterLayer(
                layer=shown,
                filters=out,
                channels=channels,
                size=(height, width),
                colour=found.colour,
                dead=tuple(found.dead),
                duplicates=tuple(found.duplicates),
            )
        )
    return FiltersPart(rows=tuple(rows), path=path), pictures


def explain_maps(
    networks: Sequence[OpenedNetwork], paths: Sequence[str], places: Sequence[str], channels: Sequence[int]
) -> tuple[MapsPart, dict[str, str]]:
    """Show feature maps of layers, of each network beside the others.

    Args:
        networks: The networks, with the images as each sees them.
        paths: Paths of the images, as they are shown.
        places: The layers.
        channels: Numbers of the channels; none for those that vary most.

    Returns:
        The part, and its pictures: `maps-<layer>-<image>-<network>` by their numbers.

    Raises:
        RecipeError: A network has no such layer, channel or map there.
    """
    rows: list[tuple[MappedLayer, ...]] = []
    images = enumerate(networks[0].pixels)
    pictures = {f"mapped-{number}": make_data_uri(encode_jpeg(Image.fromarray(image))) for number, image in images}
    for place, name in enumerate(places):
        found = compare_maps(networks, name, channels)
        rows.append(
            tuple(
                MappedLayer(**_describe(one.network, one.layer), channels=one.channels, same=one.same) for one in found
            )
        )
        for network, one in enumerate(found):
            for image, maps in enumerate(one.maps):
                drawn = make_grid(stretch(maps), COLUMNS, SIDE)
                pictures[f"maps-{place}-{image}-{network}"] = make_png_uri(drawn)
    return MapsPart(paths=tuple(paths), rows=tuple(rows)), pictures


def explain_units(
    networks: Sequence[OpenedNetwork],
    places: Sequence[str],
    channels: Sequence[int],
    progress: Progress,
    seed: int = 0,
) -> tuple[UnitsPart, dict[str, str]]:
    """Show what channels of layers look for, of each network beside the others.

    Args:
        networks: The networks, with images by which the channels are chosen.
        places: The layers.
        channels: Numbers of the channels; none for those that vary most.
        progress: Where progress is shown.
        seed: Seed of the noise that the pictures begin with.

    Returns:
        The part, and its pictures: `unit-<layer>-<unit>-<network>` by their numbers.

    Raises:
        RecipeError: A network has no such layer or channel.
    """
    rows: list[tuple[DrawnLayer, ...]] = []
    pictures: dict[str, str] = {}
    for place, name in enumerate(places):
        layers: list[DrawnLayer] = []
        for network, found in enumerate(compare_units(networks, name, channels, progress=progress, seed=seed)):
            units = tuple(
                DrawnUnit(channel=o.target.channel, before=o.before, after=o.after, noise=o.noise, flat=o.flat)
                for o in found.drawn
            )
            shown = tuple(unit.channel for unit in units)
            layers.append(DrawnLayer(**_describe(found.network, found.layer), channels=shown, units=units))
            for unit, one in enumerate(found.drawn):
                drawn = make_data_uri(encode_jpeg(Image.fromarray(one.pixels)))
                pictures[f"unit-{place}-{unit}-{network}"] = drawn
        rows.append(tuple(layers))
    return UnitsPart(rows=tuple(rows)), pictures


def _choose_convolutions(subject: NetworkProbe, places: Sequence[str]) -> list[str]:
    if places:
        return list(dict.fromkeys(find_convolution(subject, place)[0] for place in places))
    names = list_convolutions(subject)
    layers = {name: part for name, part in subject.module.named_modules() if isinstance(part, nn.Conv2d)}
    later = [name for name in names[1:] if layers[name].groups == 1 and max(layers[name].kernel_size) > 1]
    return [*names[:1], *later[len(later) // 2 :][:1]]


def _describe(network: str, layer: Layer) -> dict[str, Any]:
    return {"network": network, "layer": layer.label, "kind": describe_layer(layer), "shape": layer.shape}
