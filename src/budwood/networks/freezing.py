"""Which parameters and modules are frozen, and what that means for modes and the optimizer."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from budwood.config.options import FrozenNorm, TrainedNorm
from budwood.errors import RecipeError
from budwood.networks.registry import HEAD, TRUNK
from budwood.networks.stages import Staged, list_modules, list_parameters

NORMS: Final = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


ACTIVE: Final = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


DROPS_PATHS: Final = ("DropPath", "StochasticDepth")  # of timm, of torchvision


@dataclass(frozen=True)
class Frozen:
    """The frozen part of a network.

    Attributes:
        parameters: Names of the parameters that are not trained.
        modules: Names of the modules that stay in evaluation mode.
        live_norms: Names of the batch norms inside of these that are in training mode all the same.
        still_norms: Names of the batch norms outside of these that are in evaluation mode all the same.
        prefix: The last stage (or the trunk) up to which everything is frozen; None where the first stage is
            trained.
    """

    parameters: frozenset[str]
    modules: frozenset[str]
    prefix: str | None
    live_norms: frozenset[str] = frozenset()
    still_norms: frozenset[str] = frozenset()


def find_frozen(
    network: Staged,
    freeze: str | Sequence[str],
    frozen_norm: FrozenNorm = "eval",
    trained_norm: TrainedNorm = "train",
) -> Frozen:
    """Find which parameters and modules of a network the option `freeze` selects.

    Modules whose parameters are all frozen stay in evaluation mode; batch norm does not where `frozen_norm` is `train`.

    Args:
        network: The network after surgery.
        freeze: `none`, `trunk`, `upto:STAGE`, a stage, or shell patterns of parameter names (a list, or separated
            by commas).
        frozen_norm: The mode of frozen batch norm.
        trained_norm: The mode of batch norm that is not frozen; that of the head, which is new, is in training mode
            all the same.

    Returns:
        The frozen parameters and modules, and where the frozen prefix ends.

    Raises:
        RecipeError: A stage does not exist or is ambiguous, a pattern matches no parameter, or nothing is left to
            train.
    """
    names = [name for name, _ in network.module.named_parameters()]
    place, patterns = _freeze_target(network, freeze)
    if place:
        node = network.node(place)
        parameters, modules = set(list_parameters(network, node)), set(list_modules(network, node))
    else:
        parameters = {name for name in names if _matches_any(name, patterns)}
        modules = {name for name, _ in network.module.named_modules() if _matches_any(name, patterns)}
    missed = [pattern for pattern in patterns if not fnmatch.filter(names, pattern)]
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
    norms = {name for name in list_batch_norms(network.module) if name in modules and frozen_norm == "train"}
    modules -= norms
    new = set(list_modules(network, network.node(None))) - set(list_modules(network, network.node(TRUNK)))
    others = {name for name in list_batch_norms(network.module) if name not in modules | norms | new}
    still = others if trained_norm == "eval" else set()
    if parameters.issuperset(names):
        raise RecipeError(
            f"freeze: {freeze!r} leaves nothing to train.", "Freeze less: freeze = trunk still trains the head."
        )
    prefix = _find_last_frozen(network, parameters, modules)
    return Frozen(frozenset(parameters), frozenset(modules), prefix, frozenset(norms), frozenset(still))


def list_batch_norms(module: nn.Module) -> list[str]:
    """List the batch norms of a network.

    Args:
        module: The network.

    Returns:
        Their names, in order.
    """
    return [name for name, part in module.named_modules() if isinstance(part, nn.modules.batchnorm._NormBase)]


def set_modes(module: nn.Module, frozen: Frozen) -> None:
    """Put trained parts and live norms in training mode, frozen ones and still norms in evaluation mode.

    What is frozen has no gradients.

    Args:
        module: The network, changed in place.
        frozen: Its frozen parameters and modules.
    """
    module.train()
    for name, part in module.named_modules():
        if name in frozen.modules:
            part.train(False)  # and all that it contains
    for name in frozen.live_norms:
        module.get_submodule(name).train()
    for name in frozen.still_norms:
        module.get_submodule(name).eval()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen.parameters)


def map_parameters_to_stages(network: Staged) -> dict[str, list[str]]:
    """Assign each parameter to the stage that first uses it.

    Args:
        network: The network after surgery.

    Returns:
        Names of parameters by stage, in order; those of the trunk after the last stage under `TRUNK`, those of the
        head last, under `HEAD`. Stages without parameters of their own are left out.
    """
    groups: dict[str, list[str]] = {}
    assigned: set[str] = set()
    for place in (*network.named, TRUNK, None):
        names = [name for name in list_parameters(network, network.node(place)) if name not in assigned]
        assigned.update(names)
        groups |= {place or HEAD: names} if names else {}
    return groups


def find_stage(network: Staged, name: str, option: str, later: bool = False) -> str:
    """Find a stage by its name, or by the last parts of its name.

    Args:
        network: The network in stages.
        name: Name of the stage, such as `features.4`, or its end after a dot.
        option: Option of the recipe that names the stage, for messages.
        later: Whether it may be a part after the first tap.

    Returns:
        Full name of the stage.

    Raises:
        RecipeError: No stage, or more than one, has that name, or it comes after the first tap; the hint lists the
            stages.
    """
    matches = [stage for stage in network.named if stage == name] or [
        stage for stage in network.named if stage.endswith(f".{name}")
    ]
    if len(matches) != 1:
        problem = f"could be {' or '.join(matches)}" if matches else "is not a stage of this network"
        raise RecipeError(f"{option}: {name!r} {problem}.", stages_hint(network))
    if matches[0] in network.later and not later:
        raise RecipeError(
            f"{option}: {matches[0]} comes after the first tap, {[*network.stages][-1]}, from which on the head does "
            "not see the image through one stage alone.",
            f"Choose from {', '.join(network.stages)}.",
        )
    return matches[0]


def _freeze_target(network: Staged, freeze: str | Sequence[str]) -> tuple[str | None, list[str]]:
    """A place up to which everything is frozen, or patterns."""
    if freeze == "none":
        return None, []
    if freeze == "trunk":
        return TRUNK, []
    words = freeze.split(",") if isinstance(freeze, str) else list(freeze)
    first = words[0].strip()
    if len(words) == 1 and not set(first) & set("*?["):
        return find_stage(network, first.removeprefix("upto:"), "freeze", later=True), []
    return None, [word.strip() for word in words]


def _matches_any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _find_last_frozen(network: Staged, parameters: set[str], modules: set[str]) -> str | None:
    """The last place up to which nothing changes from step to step; None when that is so of no parameter.

    Every parameter is frozen there, and so is whatever acts otherwise in training: dropout, statistics of a batch.
    """
    last = None
    active = {name for name, part in network.module.named_modules() if is_active(part)} - modules
    for place in (*network.stages, TRUNK):
        node = network.node(place)
        used = set(list_parameters(network, node))
        if not used <= parameters or active & set(list_modules(network, node)):
            break
        last = place if used else last
    return last


def is_active(part: nn.Module) -> bool:
    """Tell whether a module computes other outputs in training than in evaluation.

    Args:
        part: One module, without the modules that it contains.

    Returns:
        True for dropout, stochastic depth, and norms with batch statistics.
    """
    return isinstance(part, ACTIVE) or type(part).__name__ in DROPS_PATHS


def stages_hint(network: Staged) -> str:
    """Write the sentence that lists a network's stages.

    Args:
        network: The network in stages.

    Returns:
        The sentence, for the hint of an error.
    """
    return f"Its stages: {', '.join(network.named)}."
