"""Networks of the user's own: modules made by a factory that is no network library's, and where they give the logits.

A factory takes the number of classes, under the name `num_classes` or `classes` or as its first argument, and gives an
`nn.Module` that takes images [n, channels, size, size] and gives logits [n, classes]. It may also take `channels` (or
`in_chans`) and `size`; the default of its `size` is then the network's own. Importing this module loads no torch.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from budwood.config.own_objects import describe_place
from budwood.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., Any]
SIZES: Final = (224, 32, 64, 28, 48, 96, 128, 160, 192, 256, 299, 384, 512)  # pixels, at which a network is tried
USUAL_SIZE: Final = 224  # pixels, where a factory does not say its own
CLASSES: Final = 1000
TRIED: Final = (7, 11)  # numbers of classes that tell the part that depends on them
CLASS_NAMES: Final = ("num_classes", "classes")
CHANNEL_NAMES: Final = ("channels", "in_chans")


def own_size(factory: Factory) -> int:
    """Return the side of the input that a factory's network is made for.

    Args:
        factory: The user's function or class.

    Returns:
        The default of its argument `size` where that is a whole number, else 224, in pixels.
    """
    size = _parameters(factory).get("size")
    return size.default if size is not None and isinstance(size.default, int) else USUAL_SIZE


def takes_channels(factory: Factory) -> bool:
    """Tell whether a factory has an argument for the number of channels.

    Args:
        factory: The user's function or class.

    Returns:
        True if it has an argument `channels` or `in_chans`.
    """
    return bool(_parameters(factory).keys() & set(CHANNEL_NAMES))


def make_module(factory: Factory, name: str, channels: int, size: int, classes: int = CLASSES) -> nn.Module:
    """Make a new module with a factory.

    Args:
        factory: The user's function or class.
        name: What the recipe calls it, for messages.
        channels: Number of input channels; passed on where the factory accepts it.
        size: Side of the input in pixels; passed on where the factory accepts it.
        classes: Number of logits, passed as `num_classes` or `classes`, else as the first argument.

    Returns:
        The module, with the values that the factory gives it.

    Raises:
        RecipeError: The factory fails, or returns something other than a module.
    """
    from torch import nn

    accepted = _parameters(factory)
    options = {option: channels for option in CHANNEL_NAMES if option in accepted}
    options |= {"size": size} if "size" in accepted else {}
    counted = next((option for option in CLASS_NAMES if option in accepted), None)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    counted = counted or ("num_classes" if takes_any else None)
    try:
        module = factory(**options, **{counted: classes}) if counted else factory(classes, **options)
    except Exception as error:  # a user's code can fail in any way
        raise RecipeError(
            f"model: {name} could not be made for {classes} classes ({type(error).__name__}: {error})"
            f"{describe_place(error)}.",
            "It is called with the number of classes, as num_classes where it has an argument of that name.",
        ) from error
    if not isinstance(module, nn.Module):
        raise RecipeError(
            f"model: {name} gives a {type(module).__name__}, expected a torch.nn.Module.",
            "Name a function, or class, that takes the number of classes and gives the network.",
        )
    return module


def is_network(entry: object) -> bool:
    """Return whether something is a module of PyTorch.

    Args:
        entry: What a user's own name stands for.

    Returns:
        Whether it is.
    """
    from torch import nn

    return isinstance(entry, nn.Module)


def find_own_head(module: nn.Module, name: str) -> tuple[int, str]:
    """Find the size that a network of the user's is made for, and the layer that gives its logits.

    Args:
        module: The network; it stays as it is.
        name: What the recipe calls it, for messages.

    Returns:
        The side of its input in pixels, the first of its own attribute `size`, 224 and some others at which it runs;
        and the name of its last layer.

    Raises:
        RecipeError: It runs at none of them, or its output is not that of a linear layer.
    """
    own = getattr(module, "size", None)
    copied, said = copy.deepcopy(module).cpu().eval(), ""
    for size in (*((own,) if isinstance(own, int) else ()), *SIZES):
        try:
            head = _run_to_head(copied, size)
        except Exception as error:  # a network refuses a size in any way
            said = said or f"{type(error).__name__}: {error}{describe_place(error)}"
            continue
        if head:
            return size, head
        raise RecipeError(
            f"model: {name}: its output is not that of a linear layer, which a new head could replace.",
            "End it in one layer, as self.head = nn.Linear(features, classes).",
        )
    tried = ", ".join(map(str, SIZES))
    raise RecipeError(
        f"model: {name} cannot process images [1, 3, size, size] of {tried} pixels ({said}).",
        "Give it an attribute size, of the side of its images in pixels.",
    )


def _run_to_head(module: nn.Module, size: int) -> str:
    """The name of the linear layer whose output is that of the network; empty where there is none."""
    import torch

    made: dict[int, str] = {}
    kept = []  # so that no other output gets the identity of one that is gone

    def note(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: object, output: Any) -> None:
            made[id(output)] = name
            kept.append(output)

        return hook

    linear = [(path, part) for path, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
    hooks = [part.register_forward_hook(note(path)) for path, part in linear]
    try:
        with torch.no_grad():
            return made.get(id(module(torch.zeros(1, 3, size, size))), "")
    finally:
        for hook in hooks:
            hook.remove()


def find_head(make: Callable[[int], nn.Module], name: str) -> str:
    """Find the layer that gives a network's logits: its tensors change with the number of classes.

    The network is made twice, with 7 and with 11 classes, on the meta device where that is possible.

    Args:
        make: Makes the network with a given number of classes.
        name: What the recipe calls it, for messages.

    Returns:
        Name of the layer within the module, such as `head` or `classifier.1`.

    Raises:
        RecipeError: No layer, or more than one, depends on the number of classes; or the factory fails.
    """
    few, more = (_without_values(make, count).state_dict() for count in TRIED)
    changed = {key for key in few.keys() | more.keys() if _shape(few, key) != _shape(more, key)}
    owners = sorted({key.rpartition(".")[0] for key in changed})
    if len(owners) != 1 or not owners[0]:
        layers = f"differ {', '.join(sorted(changed))}" if changed else "nothing differs"
        raise RecipeError(
            f"model: {name}: expected one layer that gives the logits; with {TRIED[0]} and {TRIED[1]} classes "
            f"{layers}.",
            "End it in one layer, as self.head = nn.Linear(features, classes).",
        )
    return owners[0]


def _without_values(make: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """The network on the meta device, or with values where it cannot be made there."""
    import torch

    try:
        with torch.device("meta"):
            return make(classes)
    except Exception:  # some networks compute with values while they are made
        return make(classes)


def _parameters(factory: Factory) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # what is not written in Python has no signature
        return {}


def _shape(state: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if key in state else None
