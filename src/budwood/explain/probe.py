"""A network opened to be looked at: its outputs at any place, and its answers from there on.

A place is a stage or the trunk (`TRUNK`). No hook is needed to see it, because a network is its part up to a place
followed by the part from there on. The outputs of layers inside stages are captured by hooks. Whatever is done to a
probe inside `eval_mode` or `capture_outputs`, it is afterwards what it was: its mode, its tensors, its hooks; also when
an error ends the block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule

from budwood.errors import RecipeError
from budwood.hardware import find_best_device
from budwood.inference.pytorch_backend import WithPreprocessing
from budwood.networks.freezing import find_stage
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.registry import TRUNK, is_channels_last
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import keep_stages, list_modules, slice_stages
from budwood.networks.surgery import BuiltNetwork, load_network

ENOUGH: Final = 4  # cells a side with which a map says well where in an image something is
FEWEST: Final = 2


@dataclass(frozen=True)
class NetworkProbe:
    """A recipe's network opened for inspection, in evaluation mode.

    Attributes:
        network: The built network with its weights, on `device`.
        plan: Plan of the network.
        classes: Names of the classes.
        device: Name of the device.
    """

    network: BuiltNetwork
    plan: NetworkPlan
    classes: tuple[str, ...]
    device: str

    @property
    def module(self) -> nn.Module:
        """Return the whole network as one module.

        It maps normalised images float32 [n, channels, size, size] to logits float32 [n, classes].
        """
        return self.network.module

    def images(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Normalise pixels as the network receives them.

        Args:
            pixels: uint8 [n, size, size, 3].

        Returns:
            float32 [n, channels, size, size], on the network's device.
        """
        seen = WithPreprocessing(self.module, self.plan).to(self.device)
        return seen.normalised(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))


@dataclass(frozen=True)
class Place:
    """A stage of a network, or its trunk, with the shape of its output.

    Attributes:
        name: Full name of the stage, or `TRUNK`.
        shape: Shape of one image's output there.
        side: Side of its map in cells; None where it is no map.
    """

    name: str
    shape: tuple[int, ...]
    side: int | None


def make_probe(spec: NetworkSpec, classes: Sequence[str]) -> NetworkProbe:
    """Build a recipe's network with given weights, ready for inspection.

    Args:
        spec: The network's recipe, plan and weights.
        classes: Names of the classes.

    Returns:
        The network on the best device, in evaluation mode.

    Raises:
        RecipeError: When the network is unknown or cannot be built.
        WeightsError: When the weights cannot be read or do not fit.
    """
    device = find_best_device()
    made, _ = load_network(spec)
    rows = [row.name for row in spec.plan.stages]
    made.module.to(device).eval()
    grafted = BuiltNetwork(made.module, keep_stages(made.staged, rows), made.needed)
    return NetworkProbe(grafted, spec.plan, tuple(classes), device)


def list_places(subject: NetworkProbe) -> tuple[Place, ...]:
    """List the stages in order, and the trunk.

    Args:
        subject: Opened network.

    Returns:
        The places with the shapes of their outputs.
    """
    return tuple(Place(row.name, row.shape, find_map_side(row.shape)) for row in subject.plan.places)


def list_map_sides(subject: NetworkProbe) -> dict[str, int]:
    """List the places that give a map of at least 2 x 2 cells.

    Args:
        subject: Opened network.

    Returns:
        Side of the map in cells by name of the place, in order.
    """
    return {place.name: place.side for place in list_places(subject) if place.side and place.side >= FEWEST}


def find_place(subject: NetworkProbe, name: str, option: str = "place") -> str:
    """Find a place by its name or the end of its name.

    Args:
        subject: Opened network.
        name: Full name of a stage, its ending after a dot, or `TRUNK`.
        option: Name of the option, for the error message.

    Returns:
        The full name.

    Raises:
        RecipeError: When no stage or more than one fits; the hint lists the stages.
    """
    return TRUNK if name == TRUNK else find_stage(subject.network.staged, name, option)


def default_place(subject: NetworkProbe) -> str:
    """Choose the place that attribution looks at.

    It is the last place that is still a map and on whose cells the logits depend: a map of 4 x 4 cells if there is
    one, of 2 x 2 if not. After the last block of a transformer the logits may depend on the class token alone; then
    the place before it is taken.

    Args:
        subject: Opened network.

    Returns:
        The full name of the place.

    Raises:
        RecipeError: When no stage gives a map, as in a network of fully connected layers.
    """
    maps = list_map_sides(subject)
    if not maps:
        raise RecipeError(
            f"{subject.plan.name}: no stage has a feature map, which this method needs.",
            "Choose integrated-gradients or occlusion, which need no feature map.",
        )
    large = [name for name, side in maps.items() if side >= ENOUGH]
    ordered = [*reversed(large or maps)]
    return next((name for name in ordered if _depends_on(subject, name)), ordered[0])


def _depends_on(subject: NetworkProbe, place: str) -> bool:
    """Whether the logits depend on the cells of the map at a place."""
    size, channels = subject.plan.size, subject.plan.channels
    image = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0)).to(subject.device)
    with eval_mode(subject):
        values = slice_probe(subject, None, place)(image).detach().requires_grad_()
        logits = slice_probe(subject, place, None)(values.clone())
        (gradient,) = torch.autograd.grad(logits[0, 0], values)
    cells = reshape_to_maps(gradient)
    return cells is not None and bool(cells.abs().sum() > 0)


def find_map_side(shape: Sequence[int]) -> int | None:
    """Find the side in cells of one image's output as a map.

    Args:
        shape: Shape of one image's output, without the batch.

    Returns:
        Cells a side; None where the output is no map.
    """
    with torch.device("meta"):
        found = reshape_to_maps(torch.empty(1, *shape))
    return None if found is None else int(found.shape[-1])


def reshape_to_maps(outputs: Tensor) -> Tensor | None:
    """Reshape outputs to maps with channels first.

    Maps may have their channels last. Tokens [n, tokens, channels] are laid out as the square of patches that they
    come from, without class tokens.

    Args:
        outputs: Tensor [n, ...] of any shape.

    Returns:
        [n, channels, side, side]; None where the outputs are no maps.
    """
    shape = tuple(outputs.shape[1:])
    if len(shape) == 3:
        return outputs.permute(0, 3, 1, 2) if is_channels_last(shape) else outputs
    if len(shape) != 2:
        return None
    side = int(shape[0] ** 0.5)
    extra = shape[0] - side**2
    if side < 2 or extra > side:
        return None
    return outputs[:, extra:].transpose(1, 2).reshape(len(outputs), shape[1], side, side)


@contextmanager
def eval_mode(subject: NetworkProbe) -> Iterator[nn.Module]:
    """Put the whole network in evaluation mode without gradients of its weights for a block.

    Modes, `requires_grad` flags and gradients are restored afterwards, also after an error.

    Args:
        subject: Opened network.

    Yields:
        The whole network.
    """
    module = subject.module
    modes = {part: part.training for part in module.modules()}
    needs = {parameter: parameter.requires_grad for parameter in module.parameters()}
    gradients = {parameter: parameter.grad for parameter in module.parameters()}
    module.eval().requires_grad_(False)
    try:
        yield module
    finally:
        for part, mode in modes.items():
            part.training = mode
        for parameter, need in needs.items():
            parameter.requires_grad_(need)
            parameter.grad = gradients[parameter]


@contextmanager
def capture_outputs(subject: NetworkProbe, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Capture the outputs of named layers while the network runs in the block.

    The network is in evaluation mode within the block; hooks are removed afterwards, also after an error.

    Args:
        subject: Opened network.
        layers: Full names of the layers.

    Yields:
        A dictionary with a copy of the latest output of each layer by name, filled when the network runs.

    Raises:
        RecipeError: When the network does not have a layer, or does not run it.
    """
    told: dict[str, Tensor] = {}
    with eval_mode(subject):
        parts = _find_layers(subject, layers)
        handles = [part.register_forward_hook(_make_hook(told, name)) for name, part in parts.items()]
        try:
            yield told
        finally:
            for handle in handles:
                handle.remove()


def _find_layers(subject: NetworkProbe, names: Sequence[str]) -> dict[str, nn.Module]:
    """The layers of these full names, all of which the network runs."""
    run = set(list_modules(subject.network.staged, subject.network.staged.node(None)))
    named = {path: part for path, part in subject.module.named_modules() if path in run}
    missing = next((name for name in names if name not in named), None)
    if missing is not None:
        raise RecipeError(
            f"layer: {missing!r} is not a layer of {subject.plan.name}.",
            f"Its layers: {', '.join(list(named)[:12])}, ...: `run.network()` shows them all.",
        )
    return {name: named[name] for name in names}


def slice_probe(subject: NetworkProbe, start: str | None, stop: str | None) -> GraphModule:
    """Cut out the part of the network between two places.

    The part shares its layers with the network, so it is in the same mode. Some layers change their input in place.

    Args:
        subject: Opened network.
        start: Place after which the part begins; None for the image.
        stop: Later place at whose output the part ends; None for the logits.

    Returns:
        The part as a module.
    """
    return slice_stages(subject.network.staged, start, stop)


def compute_stage_outputs(subject: NetworkProbe, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """Compute the outputs of places for images, each from the one before.

    Args:
        subject: Opened network.
        images: Normalised images, float32 [n, channels, size, size].
        names: Full names of the places.

    Returns:
        Outputs [n, *shape] by name, in the order of the network.
    """
    found: dict[str, Tensor] = {}
    start, values = None, images
    with eval_mode(subject), torch.no_grad():
        for place in list_places(subject):
            if place.name in names:
                values = slice_probe(subject, start, place.name)(values.clone())
                found[place.name], start = values, place.name
    return found


def _make_hook(told: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
    """A hook that notes a layer's output."""

    def note(layer: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            told[name] = output.clone()  # what follows may work in place

    return note
