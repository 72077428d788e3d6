"""A network opened to be looked at: its outputs at any place, and its answers from there on.

A place is a stage or the trunk (`TRUNK`). No hook is needed to see it, because a network is its part up to a place
followed by the part from there on. Layers inside stages are heard through hooks. Whatever is done to a subject inside
`studied` or `heard`, it is afterwards what it was: its mode, its tensors, its hooks; also when an error ends the block.
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
from budwood.inference.pytorch_backend import WithPreprocessing
from budwood.networks.freezing import find_stage
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.registry import TRUNK, is_channels_last
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import keep_stages, list_modules, slice_stages
from budwood.networks.surgery import BuiltNetwork, load_network
from budwood.training.device import find_best_device

ENOUGH: Final = 4  # cells a side with which a map says well where in an image something is
FEWEST: Final = 2


@dataclass(frozen=True)
class NetworkProbe:
    """A recipe's network with its weights on a device, in evaluation mode, and the names of its classes."""

    network: BuiltNetwork
    plan: NetworkPlan
    classes: tuple[str, ...]
    device: str

    @property
    def module(self) -> nn.Module:
        """The whole network: images float32 [n, channels, size, size], normalised, to logits float32 [n, classes]."""
        return self.network.module

    def images(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels uint8 [n, size, size, 3] as the network sees them: float32 [n, channels, size, size]."""
        seen = WithPreprocessing(self.module, self.plan).to(self.device)
        return seen.normalised(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))


@dataclass(frozen=True)
class Place:
    """A place of a network, the shape of one image's output there, and the side of its map in cells (None: no map)."""

    name: str
    shape: tuple[int, ...]
    side: int | None


def make_probe(spec: NetworkSpec, classes: Sequence[str]) -> NetworkProbe:
    """A network with its weights and the names of its classes, ready to be looked at; raises what loading it raises."""
    device = find_best_device()
    made, _ = load_network(spec)
    rows = [row.name for row in spec.plan.stages]
    made.module.to(device).eval()
    grafted = BuiltNetwork(made.module, keep_stages(made.staged, rows), made.needed)
    return NetworkProbe(grafted, spec.plan, tuple(classes), device)


def list_places(subject: NetworkProbe) -> tuple[Place, ...]:
    """The stages in order, and the trunk."""
    return tuple(Place(row.name, row.shape, find_map_side(row.shape)) for row in subject.plan.places)


def list_map_sides(subject: NetworkProbe) -> dict[str, int]:
    """The places that give a map of at least 2 x 2 cells, in order, with its side in cells."""
    return {place.name: place.side for place in list_places(subject) if place.side and place.side >= FEWEST}


def find_place(subject: NetworkProbe, name: str, option: str = "place") -> str:
    """The place of that name, or whose name ends so; raises `RecipeError` that lists the stages."""
    return TRUNK if name == TRUNK else find_stage(subject.network.staged, name, option)


def default_place(subject: NetworkProbe) -> str:
    """The place that attribution looks at: the last one that is still a map, of 4 x 4 cells if there is one and of
    2 x 2 if not, and on whose cells the logits depend.

    After the last block of a transformer they may depend on its class token alone; then the place before it is taken.
    Raises `RecipeError` for a network without any, such as one of fully connected layers.
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
    """The side in cells of one image's output as a map; None where it is none."""
    with torch.device("meta"):
        found = reshape_to_maps(torch.empty(1, *shape))
    return None if found is None else int(found.shape[-1])


def reshape_to_maps(outputs: Tensor) -> Tensor | None:
    """Outputs [n, ...] as maps [n, channels, side, side]; None where they are none.

    Maps may have their channels last; tokens [n, tokens, channels] are laid out as the square that they were cut from,
    class tokens left out.
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
    """The whole network in evaluation mode for a block, of which no trace is left."""
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
    """What the named layers give for whatever the network is shown in the block: their latest outputs by name.

    Raises `RecipeError` for a layer that the network has not, or does not run.
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


def find_layer(subject: NetworkProbe, name: str) -> nn.Module:
    """The layer of that full name; raises `RecipeError` that names some."""
    return _find_layers(subject, [name])[name]


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
    """The part from the end of one place (None: the image) to the end of a later one (None: the logits).

    It shares its layers with the network, so it is in the same mode. Some layers work in place on what they are given.
    """
    return slice_stages(subject.network.staged, start, stop)


def compute_stage_outputs(subject: NetworkProbe, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """The outputs of places for images [n, channels, size, size]: [n, *shape] by name, each computed from the one
    before."""
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
