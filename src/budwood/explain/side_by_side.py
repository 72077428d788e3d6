"""The same layer of several networks beside each other: a run's, other runs', and the network before its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from budwood.data.loading import Pixels
from budwood.errors import RecipeError, RunError, did_you_mean
from budwood.explain import api
from budwood.explain.activations import Floats, read_layer_maps
from budwood.explain.feature_visualization import (
    Maximisation,
    VisualizationTarget,
    average_by_channel,
    count_channels,
    maximise,
)
from budwood.explain.layer_outputs import find_layers, make_layer_function
from budwood.explain.probe import NetworkProbe, eval_mode, make_probe, reshape_to_maps
from budwood.networks.layers import Layer
from budwood.networks.plan import load_plan
from budwood.networks.registry import is_inside
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import find_imagenet
from budwood.progress import Progress
from budwood.runs.lookup import find_run_folder
from budwood.runs.preflight import relocate_weights
from budwood.runs.run import AnyRun, Run, open_any_run
from budwood.storage.context import Context

START: Final = "start"  # a run's network with the weights that its training began with
IMAGENET: Final = "imagenet"  # a run's network with ImageNet weights
UNTRAINED: Final = (START, IMAGENET)


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that is shown beside others.

    Attributes:
        name: What it is called: the name of a run, `start` or `imagenet`.
        probe: The opened network.
        pixels: The images as it sees them, uint8 [n, size, size, 3].
        trained: Whether its head was trained.
    """

    name: str
    probe: NetworkProbe
    pixels: Pixels
    trained: bool = True


@dataclass(frozen=True)
class LayerMaps:
    """Chosen feature maps of one layer of one network.

    Attributes:
        network: Name of the network.
        layer: The layer.
        channels: Numbers of the channels.
        maps: float32 [n, len(channels), height, width].
        same: Whether all maps of the layer are those of the first network, as in layers that stayed frozen.
    """

    network: str
    layer: Layer
    channels: tuple[int, ...]
    maps: Floats
    same: bool


@dataclass(frozen=True)
class LayerUnits:
    """What chosen channels of one layer of one network look for.

    Attributes:
        network: Name of the network.
        layer: The layer.
        drawn: A picture for each channel.
    """

    network: str
    layer: Layer
    drawn: tuple[Maximisation, ...]


def open_untrained(run: Run, word: str, context: Context) -> NetworkProbe:
    """Open a run's network as it was before training.

    Args:
        run: The run.
        word: `start` for the weights that its training began with, `imagenet` for ImageNet weights.
        context: The cache folder, and where notes go, for example of a download.

    Returns:
        The network, whose new head has its initial values.

    Raises:
        RecipeError: The word is another, or the network does not exist here.
        WeightsError: The weights cannot be found.
        RunError: The weights on this machine are not those that the run started from.
    """
    if word not in UNTRAINED:
        raise RecipeError(f"beside: {word!r} is neither a run nor a start.", did_you_mean(word, UNTRAINED))
    plan = load_plan(run.recipe, len(run.classes), context.cache)
    if word == START:
        spec = NetworkSpec(run.recipe, plan, len(run.classes), relocate_weights(run, run.recipe, plan, context))
    else:
        weights = find_imagenet(plan.name, plan.origins, context)
        spec = NetworkSpec(run.recipe, plan, len(run.classes), weights).with_recipe(weights=IMAGENET)
    return make_probe(spec, run.classes)


def open_beside(
    run: Run,
    beside: Sequence[AnyRun],
    images: Sequence[str | Path],
    context: Context,
    opened: NetworkProbe | None = None,
) -> tuple[OpenedNetwork, ...]:
    """Open the run's network and those that are to be shown beside it.

    Args:
        run: The run.
        beside: Other runs or their names; `start` for the run's network with the weights that its training began
            with; `imagenet` for it with ImageNet weights.
        images: Image files.
        context: The cache folder, and where progress is shown.
        opened: The run's network where it is open.

    Returns:
        The networks, that of the run first, each with the images as it sees them.

    Raises:
        DataError: When there is no image or a file cannot be read.
        RecipeError: When a text is neither `start` nor `imagenet`, nor names a run.
        WeightsError: When the weights before training cannot be found.
    """
    own = api.pixels(run, images, progress=context.progress)
    networks = [OpenedNetwork(run.path.name, opened or api.subject(run, cache=context.cache), own)]
    for one in beside:
        if isinstance(one, str) and one in UNTRAINED:
            networks.append(OpenedNetwork(one, open_untrained(run, one, context), own, trained=False))
            continue
        other = _open_other(one)
        theirs = api.pixels(other, images, progress=context.progress)
        networks.append(OpenedNetwork(other.path.name, api.subject(other, cache=context.cache), theirs))
    return tuple(networks)


def _open_other(one: AnyRun) -> Run:
    """The run that is to be shown beside; raises `RecipeError` for a text that names none."""
    if isinstance(one, str):
        try:
            find_run_folder(one)
        except RunError as error:
            hint = f"{did_you_mean(one, UNTRAINED)} As a run: {error.message}"
            raise RecipeError(f"beside: {one!r} is neither a run nor a start.", hint) from error
    return open_any_run(one)


def find_layer_in_each(
    networks: Sequence[OpenedNetwork], place: str, channels: Sequence[int] = ()
) -> tuple[Layer, ...]:
    """Find a layer of the same name in each of several networks.

    Args:
        networks: The networks.
        place: The layer, as `budwood.networks.layers.find_layer` finds it.
        channels: Numbers of channels, from 0, which each must have.

    Returns:
        The layer of each network, in order.

    Raises:
        RecipeError: A network has no such layer or channel, or it lies in a head that was not trained.
    """
    found = tuple(find_layers(network.probe, [place])[0] for network in networks)
    for network, layer in zip(networks, found, strict=True):
        if not network.trained and is_inside(layer.name, network.probe.plan.head):
            raise RecipeError(
                f"place: {layer.label} lies in the head of {network.probe.plan.name}, which {network.name!r} has not "
                "trained.",
                f"Choose a layer before {network.probe.plan.head}, or leave out --beside {network.name}.",
            )
    _refuse_channels(networks, found, channels)
    return found


def compare_maps(
    networks: Sequence[OpenedNetwork], place: str, channels: Sequence[int] = (), most: int = 12
) -> tuple[LayerMaps, ...]:
    """Compute the maps of one layer in each of several networks.

    Networks of the same layer show the same channels: those that vary most over the images in the first one.

    Args:
        networks: The networks, one at least, with the same images.
        place: The layer, as `budwood.networks.layers.find_layer` finds it.
        channels: Numbers of the channels, from 0; none to choose them.
        most: Number of channels that are chosen at most.

    Returns:
        The maps of each network, in order.

    Raises:
        RecipeError: A network has no such layer, channel or map there.
    """
    layers = find_layer_in_each(networks, place, channels)
    found = [read_layer_maps(one.probe, one.pixels, layer) for one, layer in zip(networks, layers, strict=True)]
    rows: list[LayerMaps] = []
    for network, layer, maps in zip(networks, layers, found, strict=True):
        varied = found[0].varied if _is_same_layer(layer, layers[0]) else maps.varied
        chosen = tuple(channels) or _choose_most_varied(varied, most)
        same = bool(rows) and np.array_equal(maps.values, found[0].values)
        rows.append(LayerMaps(network.name, layer, chosen, maps.values[:, list(chosen)], same))
    return tuple(rows)


def compare_units(
    networks: Sequence[OpenedNetwork],
    place: str,
    channels: Sequence[int] = (),
    most: int = 6,
    progress: Progress | None = None,
) -> tuple[LayerUnits, ...]:
    """Draw what channels of one layer look for in each of several networks.

    Networks of the same layer show the same channels: those that vary most over the images in the first one.

    Args:
        networks: The networks, one at least, with the same images.
        place: The layer, as `budwood.networks.layers.find_layer` finds it.
        channels: Numbers of the channels, from 0; none to choose them.
        most: Number of channels that are chosen at most.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The pictures of each network, in order.

    Raises:
        RecipeError: A network has no such layer or channel.
    """
    layers = find_layer_in_each(networks, place, channels)
    rows: list[LayerUnits] = []
    for network, layer in zip(networks, layers, strict=True):
        if rows and _is_same_layer(layer, layers[0]):
            chosen = tuple(one.target.channel for one in rows[0].drawn)
        else:
            chosen = tuple(channels) or _choose_most_varied(_measure_variation(network, layer), most)
        targets = [VisualizationTarget(layer.label, channel) for channel in chosen]
        rows.append(LayerUnits(network.name, layer, maximise(network.probe, targets, progress=progress)))
    return tuple(rows)


def _is_same_layer(one: Layer, other: Layer) -> bool:
    """Whether the channels of two layers can be told apart by the same numbers."""
    return (one.label, one.kind, count_channels(one)) == (other.label, other.kind, count_channels(other))


def _refuse_channels(networks: Sequence[OpenedNetwork], layers: Sequence[Layer], channels: Sequence[int]) -> None:
    """Raises `RecipeError` for a channel that one of the layers does not have."""
    for network, layer in zip(networks, layers, strict=True):
        count = count_channels(layer)
        wrong = next((channel for channel in channels if not 0 <= channel < count), None)
        if wrong is not None:
            raise RecipeError(
                f"channel: {layer.label} of {network.probe.plan.name} has no channel {wrong}.",
                f"It has {count}: choose from 0 to {count - 1}.",
            )


def _choose_most_varied(varied: NDArray[np.float32], most: int) -> tuple[int, ...]:
    return tuple(np.argsort(-varied, kind="stable")[:most].tolist())


def _measure_variation(network: OpenedNetwork, layer: Layer) -> NDArray[np.float32]:
    """How much each channel varies over the cells of its map and the images, float32 [channels]."""
    with eval_mode(network.probe), torch.no_grad():
        outputs = make_layer_function(network.probe, layer)(network.probe.images(network.pixels))
    maps = reshape_to_maps(outputs)
    dims = (0,) if maps is None else (0, 2, 3)
    values = average_by_channel(outputs) if maps is None else maps
    found: NDArray[np.float32] = values.std(dim=dims, correction=0).float().cpu().numpy()
    return found
