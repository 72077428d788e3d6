"""The layers of a network in the order in which it runs them for an image, and how a layer is named.

A layer is one run of a module. Those that run no other module inside and change something when the network predicts
are numbered from 1: convolutions, norms, activations, pooling, linear layers. A module that is run twice, as the one
ReLU of a residual block, has two numbers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.networks.freezing import DROPS_PATHS
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.registry import TRUNK, is_inside
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import Staged, list_modules
from budwood.networks.surgery import build
from budwood.networks.weights import describe_random

LISTED: Final = 12  # names that a message lists
CALL: Final = "#"  # between the name of a module that is run several times and which of its runs is meant
_NUMBERED: Final = re.compile(r"layer\s+(\d+)", re.IGNORECASE)
_LISTS: Final = "`budwood models NAME --layers` lists all layers of a network"
_IDLE: Final = (nn.Identity, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True)
class Layer:
    """One run of a module, for one image.

    Attributes:
        name: Full name of the module; `trunk` for what the head receives.
        kind: Name of its class.
        number: Its number from 1 in the order in which the network runs its layers; None where it runs others
            inside, or is idle.
        call: Which of the runs of the module it is, from 1.
        calls: How often the network runs the module.
        shape: Shape of the output for one image, without the batch; None where the output is not one tensor with a
            row for each image.
        gives: What the output is, in words, where `shape` is None; else empty.
        convolution: Whether it is a convolution over images.
        idle: Whether it changes nothing when the network predicts, as dropout and identity.
    """

    name: str
    kind: str
    number: int | None
    call: int
    calls: int
    shape: tuple[int, ...] | None
    gives: str
    convolution: bool = False
    idle: bool = False

    @property
    def label(self) -> str:
        """Return the name, followed by `#` and the number of the run where the module is run several times."""
        return f"{self.name}{CALL}{self.call}" if self.calls > 1 else self.name


def list_layers(network: Staged, channels: int, size: int) -> tuple[Layer, ...]:
    """List all layers that a network runs for an image, in the order in which their outputs are there.

    The module is in its own modes again afterwards, and without hooks.

    Args:
        network: The network in stages.
        channels: Number of input channels.
        size: Side of the image in pixels.

    Returns:
        The layers, those that run others inside among them.
    """
    run = set(list_modules(network, network.node(None)))
    parts = {name: part for name, part in network.module.named_modules() if name in run}
    device = next(iter(network.module.parameters()), torch.empty(0)).device
    with _listen(network.module, parts) as heard, torch.no_grad():
        network.module(torch.zeros(1, channels, size, size, device=device))
    calls: dict[str, int] = {}
    layers: list[Layer] = []
    count = 0
    for layer, innermost in heard:
        calls[layer.name] = calls.get(layer.name, 0) + 1
        count += innermost
        layers.append(replace(layer, call=calls[layer.name], number=count if innermost else None))
    return tuple(replace(layer, calls=calls[layer.name]) for layer in layers)


def list_recipe_layers(recipe: Recipe, plan: NetworkPlan, classes: int) -> tuple[Layer, ...]:
    """List the layers of a recipe's network, without its weights.

    Args:
        recipe: Recipe that decides the network.
        plan: Its plan.
        classes: Number of logits.

    Returns:
        The layers in the order in which they are run.

    Raises:
        RecipeError: The network is unknown, or cannot be made.
    """
    spec = NetworkSpec(recipe, plan, classes, describe_random("default", 0))
    try:
        with torch.device("meta"):
            return list_layers(build(spec)[0].staged, plan.channels, plan.size)
    except RecipeError:
        raise
    except Exception:  # some networks compute with values while they are made or run
        return list_layers(build(spec)[0].staged, plan.channels, plan.size)


def find_layer(layers: Sequence[Layer], place: str, network: Staged, name: str, option: str = "place") -> Layer:
    """Find a layer by its name, the end of its name, its number, or as the first or last convolution.

    A full name goes first, then `first` and `last`, `layer N`, the end of a stage's name, a number alone, and the end
    of any layer's name. Of a module that is run several times, the last run is meant unless `#` and its number follow.

    Args:
        layers: The layers of the network.
        place: What is looked for: `features.denseblock3.denselayer5`, `layer 25`, `25`, `first`, `last`, `relu#1`.
        network: The network in stages.
        name: Name of the network, for messages.
        option: Name of the option, for messages.

    Returns:
        The layer; its output may be of any shape.

    Raises:
        RecipeError: No layer, or more than one, is so named; the hint has the nearest names.
    """
    found = _find_by_name(layers, _resolve_alias(network.module, place))
    found = found or _find_convolution(layers, place, name, option) or _find_by_number(layers, place, name, option)
    if found is not None:
        return found
    stages = [stage for stage in network.stages if stage.endswith(f".{place}")]
    if not stages and place.isdecimal():
        return _get_numbered(layers, int(place), place, name, option)
    names = stages or list(dict.fromkeys(layer.name for layer in layers if layer.name.endswith(f".{place}")))
    if len(names) > 1:
        raise RecipeError(
            f"{option}: {place!r} could be {' or '.join(names[:LISTED])}{' or ...' if len(names) > LISTED else ''}.",
            "Write the full name.",
        )
    found = _find_by_name(layers, names[0]) if names else None
    if found is None:
        raise _make_unknown_error(layers, place, network, name, option)
    return found


@contextmanager
def _listen(module: nn.Module, parts: dict[str, nn.Module]) -> Iterator[list[tuple[Layer, bool]]]:
    """What parts give while the module runs in the block, each with whether it runs nothing that counts inside."""
    heard: list[tuple[Layer, bool]] = []
    open_parts: list[bool] = []  # of those that are being run, the outermost first: whether one inside counts

    def enter(part: nn.Module, given: Any) -> None:
        open_parts.append(False)

    def make_note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(part: nn.Module, given: Any, output: Any) -> None:
            innermost = not open_parts.pop() and not _is_idle(part)
            if open_parts and not _is_idle(part):
                open_parts[-1] = True
            shape, gives = _describe_output(output)
            kind = type(part).__name__
            layer = Layer(name, kind, None, 1, 1, shape, gives, isinstance(part, nn.Conv2d), _is_idle(part))
            heard.append((layer, innermost))

        return note

    modes = {part: part.training for part in module.modules()}
    handles = [part.register_forward_pre_hook(enter) for part in parts.values()]
    handles += [part.register_forward_hook(make_note(name)) for name, part in parts.items()]
    module.eval()
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode


def _is_idle(part: nn.Module) -> bool:
    """Whether a part changes nothing when the network predicts."""
    empty = isinstance(part, nn.Sequential) and not len(part)
    return empty or isinstance(part, _IDLE) or type(part).__name__ in DROPS_PATHS


def _describe_output(output: Any) -> tuple[tuple[int, ...] | None, str]:
    """The shape of a part's output for the one image that it ran for; where it is none, what it is, in words."""
    if not isinstance(output, Tensor):
        values = f"{len(output)} values" if isinstance(output, tuple | list) else f"a {type(output).__name__}"
        return None, f"{values}, not one tensor"
    if output.ndim < 2 or len(output) != 1:
        rows = " x ".join(map(str, output.shape)) or "one number"
        return None, f"{rows} for one image, not a row for each image"
    return tuple(output.shape[1:]), ""


def _resolve_alias(module: nn.Module, place: str) -> str:
    """The name under which a module is listed that a network holds under several names."""
    name, mark, call = place.partition(CALL)
    owners = {part: listed for listed, part in module.named_modules()}
    alias = next((p for known, p in module.named_modules(remove_duplicate=False) if known == name), None)
    return f"{owners[alias]}{mark}{call}" if name and alias is not None else place


def _find_by_name(layers: Sequence[Layer], place: str) -> Layer | None:
    """The layer of that full name, or of that name and run; the last run where none is named."""
    exact = [layer for layer in layers if place in (layer.name, f"{layer.name}{CALL}{layer.call}")]
    return exact[-1] if exact else None


def _find_convolution(layers: Sequence[Layer], place: str, name: str, option: str) -> Layer | None:
    if place not in ("first", "last"):
        return None
    convolutions = [layer for layer in layers if layer.convolution]
    if not convolutions:
        raise RecipeError(
            f"{option}: {name} has no convolution, of which {place!r} could be one.",
            f"Name a layer; {_LISTS}.",
        )
    return convolutions[0 if place == "first" else -1]


def _find_by_number(layers: Sequence[Layer], place: str, name: str, option: str) -> Layer | None:
    match = _NUMBERED.fullmatch(place.strip())
    return _get_numbered(layers, int(match[1]), place, name, option) if match else None


def _get_numbered(layers: Sequence[Layer], number: int, place: str, name: str, option: str) -> Layer:
    numbered = [layer for layer in layers if layer.number is not None]
    if not 1 <= number <= len(numbered):
        raise RecipeError(
            f"{option}: {place!r} is not a layer of {name}, which has {len(numbered)} numbered layers.",
            f"Choose from 1 to {len(numbered)}; {_LISTS}.",
        )
    return numbered[number - 1]


def _make_unknown_error(layers: Sequence[Layer], place: str, network: Staged, name: str, option: str) -> RecipeError:
    """The error for a name that no layer has: what is nearest to it, and where all are listed."""
    known = [layer.name for layer in layers]
    base = place.partition(CALL)[0]
    runs = [layer for layer in layers if layer.name == base]
    if runs:
        return RecipeError(
            f"{option}: {place!r} is not a layer of {name}, which runs {base} {runs[0].calls} time"
            f"{'s' if runs[0].calls > 1 else ''}.",
            f"Choose {' or '.join(dict.fromkeys(layer.label for layer in runs))}.",
        )
    if place and any(place == part for part, _ in network.module.named_modules()):
        held = dict.fromkeys(layer.name for layer in layers if is_inside(layer.name, place) and not layer.idle)
        inside = sorted(held, key=lambda held_one: held_one.count("."))[:LISTED]
        return RecipeError(
            f"{option}: {place!r} of {name} is not run as a layer of its own.",
            f"Choose {'one inside it: ' + ', '.join(inside) if inside else 'the layer that holds it'}; {_LISTS}.",
        )
    close = difflib.get_close_matches(place, list(dict.fromkeys([*known, TRUNK])), n=3)
    stages = list(network.stages)
    lead = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    listed = ", ".join(stages[:LISTED]) + (", ..." if len(stages) > LISTED else "")
    return RecipeError(
        f"{option}: {place!r} is not a layer of {name}.",
        f"{lead}Write first, last, 'layer 1' or a name. Stages: {listed}; {_LISTS}.",
    )
