"""What any layer of an opened network gives: one inside a stage, one run of a module that is run several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from budwood.errors import RecipeError
from budwood.explain.probe import NetworkProbe, list_places, slice_probe
from budwood.networks.layers import Layer, find_layer, list_layers
from budwood.networks.registry import TRUNK, is_inside


def list_probe_layers(subject: NetworkProbe) -> tuple[Layer, ...]:
    """List the layers that an opened network runs for an image.

    Args:
        subject: Opened network.

    Returns:
        The layers in the order in which they are run, those that run others inside among them.
    """
    return list_layers(subject.network.staged, subject.plan.channels, subject.plan.size)


def find_layers(subject: NetworkProbe, places: Sequence[str], option: str = "place") -> tuple[Layer, ...]:
    """Find layers by name, number, or as the first or last convolution.

    Args:
        subject: Opened network.
        places: What is looked for, as `budwood.networks.layers.find_layer` has it; also `trunk`, which is what the
            head receives.
        option: Name of the option, for messages.

    Returns:
        The layers, in order.

    Raises:
        RecipeError: No layer, or more than one, is so named, or its output is not one tensor.
    """
    if not places:
        return ()
    shapes = {place.name: place.shape for place in list_places(subject)}
    layers = list_probe_layers(subject)
    if TRUNK in shapes:
        layers = (*layers, Layer(TRUNK, "what the head receives", None, 1, 1, shapes[TRUNK], ""))
    name = subject.plan.name
    found = tuple(find_layer(layers, place, subject.network.staged, name, option) for place in places)
    for layer in found:
        if layer.shape is None:
            raise RecipeError(
                f"{option}: {layer.label} of {name} gives {layer.gives}.", "Choose the layer that holds it, or follows."
            )
    return found


def make_layer_function(subject: NetworkProbe, layer: Layer) -> Callable[[Tensor], Tensor]:
    """Make the function from images to a layer's output, with gradients where these are enabled.

    Only what is needed for the output is run. Call it in evaluation mode.

    Args:
        subject: Opened network.
        layer: A layer of it, or its trunk.

    Returns:
        A function from normalised images, float32 [n, channels, size, size], to a copy of the output, [n, *shape].
    """
    stages = subject.network.staged.stages
    if layer.name == TRUNK or layer.name in stages:
        part = slice_probe(subject, None, layer.name)
        return lambda images: cast(Tensor, part(images.clone()))
    around = next((stage for stage in stages if is_inside(layer.name, stage)), None) if layer.calls == 1 else None
    whole = slice_probe(subject, None, around)
    module = subject.module.get_submodule(layer.name)

    def run(images: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def note(part: nn.Module, given: Any, output: Tensor) -> None:
            outputs.append(output.clone())  # what follows may work in place

        handle = module.register_forward_hook(note)
        try:
            whole(images.clone())
        finally:
            handle.remove()
        return outputs[layer.call - 1]

    return run


def describe_layer(layer: Layer) -> str:
    """Describe a layer in words: its kind, its number, and which run of it is meant.

    Args:
        layer: The layer.

    Returns:
        Such as `ReLU, layer 7, run 1 of 2`.
    """
    parts = [layer.kind]
    parts += [f"layer {layer.number}"] if layer.number is not None else []
    parts += [f"run {layer.call} of {layer.calls}"] if layer.calls > 1 else []
    return ", ".join(parts)
