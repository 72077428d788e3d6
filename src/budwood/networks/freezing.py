"""Which parameters and modules are frozen, and what that means for modes and the optimizer."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from budwood.errors import RecipeError
from budwood.networks.registry import HEAD, TRUNK
from budwood.networks.stages import Staged, list_modules, list_parameters

NORMS: Final = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


ACTIVE: Final = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


DROPS_PATHS: Final = ("DropPath", "StochasticDepth")  # of timm, of torchvision


@dataclass(frozen=True)
class Frozen:
    """What is not trained: names of parameters, names of modules that stay in evaluation mode, and the last place up to
    which everything is frozen (None: the first stage is trained already)."""

    parameters: frozenset[str]
    modules: frozenset[str]
    prefix: str | None


def find_frozen(network: Staged, freeze: str | Sequence[str]) -> Frozen:
    """What `freeze` means for a network: `none`, `trunk`, `upto:STAGE`, a stage, or patterns of parameter names.

    Raises `RecipeError` for a stage that does not exist, a pattern that matches nothing, and when nothing is left.
    """
    every = [name for name, _ in network.module.named_parameters()]
    place, patterns = _freeze_target(network, freeze)
    if place:
        node = network.node(place)
        parameters, modules = set(list_parameters(network, node)), set(list_modules(network, node))
    else:
        parameters = {name for name in every if _matches_any(name, patterns)}
        modules = {name for name, _ in network.module.named_modules() if _matches_any(name, patterns)}
    missed = [pattern for pattern in patterns if not fnmatch.filter(every, pattern)]
    if missed:
        raise RecipeError(
            f"freeze: {missed[0]!r} is neither a stage nor a pattern of parameter names of this network.",
            stages_hint(network),
        )
    modules |= {
        name
        for name, part in network.module.named_modules()
        if (own := [n for n, _ in part.named_parameters(prefix=name)]) and all(n in parameters for n in own)
    }
    if parameters.issuperset(every):
        raise RecipeError(
            f"freeze: {freeze!r} leaves nothing to train.", "Freeze less: freeze = trunk still trains the head."
        )
    return Frozen(frozenset(parameters), frozenset(modules), _find_last_frozen(network, parameters, modules))


def set_modes(module: nn.Module, frozen: Frozen) -> None:
    """Training mode for what is trained; evaluation mode and no gradient for what is frozen."""
    module.train()
    for name, part in module.named_modules():
        if name in frozen.modules:
            part.train(False)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen.parameters)


def map_parameters_to_stages(network: Staged) -> dict[str, list[str]]:
    """The names of parameters by the stage that first uses them, the head's last under `HEAD`; stages without any are
    left out."""
    groups: dict[str, list[str]] = {}
    seen: set[str] = set()
    for place in (*network.stages, TRUNK, None):
        names = [name for name in list_parameters(network, network.node(place)) if name not in seen]
        seen.update(names)
        groups |= {place or HEAD: names} if names else {}
    return groups


def find_stage(network: Staged, name: str, option: str) -> str:
    """The stage of that name, or whose name ends so; raises `RecipeError` that lists the stages."""
    found = [stage for stage in network.stages if stage == name] or [
        stage for stage in network.stages if stage.endswith(f".{name}")
    ]
    if len(found) != 1:
        problem = f"could be {' or '.join(found)}" if found else "is not a stage of this network"
        raise RecipeError(f"{option}: {name!r} {problem}.", stages_hint(network))
    return found[0]


def _freeze_target(network: Staged, freeze: str | Sequence[str]) -> tuple[str | None, list[str]]:
    """A place up to which everything is frozen, or patterns."""
    if freeze == "none":
        return None, []
    if freeze == "trunk":
        return TRUNK, []
    words = freeze.split(",") if isinstance(freeze, str) else list(freeze)
    first = words[0].strip()
    if len(words) == 1 and not set(first) & set("*?["):
        return find_stage(network, first.removeprefix("upto:"), "freeze"), []
    return None, [word.strip() for word in words]


def _matches_any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _find_last_frozen(network: Staged, parameters: set[str], modules: set[str]) -> str | None:
    """The last place up to which nothing changes from step to step; None when that is so of no parameter.

    Every parameter is frozen there, and so is whatever acts otherwise in training: dropout, statistics of a batch.
    """
    found = None
    active = {name for name, part in network.module.named_modules() if is_active(part)} - modules
    for place in (*network.stages, TRUNK):
        node = network.node(place)
        used = set(list_parameters(network, node))
        if not used <= parameters or active & set(list_modules(network, node)):
            break
        found = place if used else found
    return found


def is_active(part: nn.Module) -> bool:
    """Whether a module gives other outputs in training than in evaluation."""
    return isinstance(part, ACTIVE) or type(part).__name__ in DROPS_PATHS


def stages_hint(network: Staged) -> str:
    return f"Its stages: {', '.join(network.stages)}."
