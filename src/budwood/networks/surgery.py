"""Surgery on any network by one grammar: what is cut off, what is put on, what is frozen, how new weights start.

    whole network -> stages -> cut -> pooling -> with the means of earlier stages, the taps -> head

Names stay: the tensors of a stage are called what the network's source calls them, and the head sits where the source's
own classifier sat, so that a trained network loads into the source's without Budwood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.fx import GraphModule, Node

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError, WeightsError
from budwood.networks.freezing import Frozen, find_frozen, find_stage, list_batch_norms, stages_hint
from budwood.networks.network_plan import NetworkPlan, ParameterCount, StagePlan, TrunkPlan
from budwood.networks.pooling import append_pooling, count_pooled_features, list_places
from budwood.networks.registry import TRUNK, Network, State, find_network, is_inside
from budwood.networks.small import make_dense
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import (
    Staged,
    StageFacts,
    keep_stages,
    name_later,
    profile_stages,
    slice_stages,
    split_graph,
    trace_stages,
)
from budwood.networks.taps import append_taps, plan_taps
from budwood.networks.weights import FitTarget, digest_file, fit_weights, read_tensors, refuse_bad_values

CLASS_TOKENS: Final = ("cls_token", "class_token")
INITIALIZERS: Final[Mapping[str, Callable[[torch.Tensor], Any]]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}


@dataclass(frozen=True)
class BuiltNetwork:
    """A network after surgery.

    Attributes:
        module: The network as a plain module.
        staged: The same network in stages.
        needed: Names of its trunk's tensors.
    """

    module: nn.Module
    staged: Staged
    needed: frozenset[str]


def plan_network(recipe: Recipe, classes: int) -> NetworkPlan:
    """Make the plan of a recipe's network, before any values are computed.

    Args:
        recipe: Recipe that decides the network.
        classes: Number of logits.

    Returns:
        Stages before and after surgery, shapes, numbers of parameters and cost.

    Raises:
        RecipeError: The network, a stage, the size or the pooling does not exist, or the network cannot be divided
            into stages.
    """
    net = find_network(recipe.model, recipe.own_options)
    size = recipe.size or net.size
    original_module = _make_on_meta(net, recipe.channels, size)
    original = trace_stages(original_module, net.head)
    before = _profile_or_refuse(original, net, recipe.channels, size)
    original = _with_some_stage(keep_stages(original, [row.name for row in before]), net)
    rows_before = tuple(_stage_row(row, dict(original_module.named_parameters()), set()) for row in before)
    trunk = _trunk_plan(recipe, original, before)
    with torch.device(_find_device(original_module)):
        built = replace_head(original, net, recipe, trunk, classes)
    rows = profile_stages(built.staged, recipe.channels, size)
    frozen = _find_frozen(keep_stages(built.staged, [row.name for row in rows]), recipe, net)
    trainable = {name for row in rows for name in row.parameters} - frozen.parameters
    shapes = {row.name: row.shape for row in rows}
    return NetworkPlan(
        name=net.name,
        source=net.source,
        size=size,
        channels=recipe.channels,
        mean=_repeat_per_channel(net.mean, recipe.channels),
        std=_repeat_per_channel(net.std, recipe.channels),
        head=net.head,
        origins=net.origins,
        accuracy=net.accuracy,
        before=rows_before,
        stages=tuple(_stage_row(row, dict(built.module.named_parameters()), trainable) for row in rows),
        cut=trunk.cut,
        pool=trunk.pool,
        features=trunk.features,
        shape=trunk.shape,
        prefix=frozen.prefix,
        prefix_shape=shapes[frozen.prefix] if frozen.prefix else None,
        parameters=_counted(built.module, trainable),
        macs=sum(row.macs for row in rows),
        code=net.code,
        taps=trunk.taps,
    )


def _find_frozen(staged: Staged, recipe: Recipe, net: Network) -> Frozen:
    """What is frozen; raises `RecipeError` where batch norm is to be in another mode that there is not."""
    if recipe.frozen_norm == "train" and not list_batch_norms(staged.module):
        raise RecipeError(f"frozen_norm: {net.name} has no batch norm.", "Leave out frozen_norm.")
    still = recipe.trained_norm == "eval"
    if still and not list_batch_norms(staged.module):
        raise RecipeError(f"trained_norm: {net.name} has no batch norm.", "Leave out trained_norm.")
    frozen = find_frozen(staged, recipe.freeze, recipe.frozen_norm or "eval", recipe.trained_norm or "train")
    if still and recipe.freeze != "trunk" and not frozen.still_norms:
        where = f"before the head that freeze = {recipe.freeze!r} leaves to be trained"
        raise RecipeError(f"trained_norm: there is no batch norm {where}.", "Freeze less, or leave out trained_norm.")
    if recipe.frozen_norm == "train" and recipe.freeze != "none" and not frozen.live_norms:
        where = f"in what freeze = {recipe.freeze!r} freezes"
        raise RecipeError(f"frozen_norm: there is no batch norm {where}.", "Freeze more, or leave out frozen_norm.")
    return frozen


def build(spec: NetworkSpec) -> tuple[BuiltNetwork, Network, State]:
    """Build a network with random weights by the recipe's seed; the random state of the caller stays.

    Args:
        spec: Network to build; its weights are not read.

    Returns:
        The network after surgery, the network as its source makes it, and its tensors before surgery.

    Raises:
        RecipeError: The network is unknown, or cannot be made or divided into stages.
    """
    recipe, plan = spec.recipe, spec.plan
    net = find_network(recipe.model, recipe.own_options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed or 0)
        module = net.make(plan.channels, plan.size)
        if recipe.weights == "none":
            initialize(module, recipe.init)
        before = dict(module.state_dict())
        original = keep_stages(trace_stages(module, net.head), [row.name for row in plan.before])
        return replace_head(original, net, recipe, plan.trunk, spec.classes), net, before


def load_network(spec: NetworkSpec) -> tuple[BuiltNetwork, str]:
    """Build a network and load its weights.

    Weights of the kind `trained` are a run's own, head included.

    Args:
        spec: Network to build.

    Returns:
        The network after surgery, and a sentence on which weights were left out; empty where none were.

    Raises:
        RecipeError: The network is unknown, or cannot be made or divided into stages.
        WeightsError: The weights cannot be read or do not fit.
    """
    network, net, before = build(spec)
    weights = spec.weights
    if weights.path is None:
        return network, ""
    tensors = read_tensors(weights.path)
    if weights.digest and digest_file(weights.path) != weights.digest:
        raise WeightsError(f"{weights.path}: was changed while this command was using it.", "Run the command again.")
    if weights.kind == "trained":
        _put_in(network.module, tensors, spec)
        return network, ""
    target = FitTarget(net, before, network.needed, spec.plan.channels, spec.plan.size)
    state, aside = fit_weights(weights, tensors, target)
    network.module.load_state_dict(state, strict=False)
    return network, aside


def _put_in(module: nn.Module, tensors: State, spec: NetworkSpec) -> None:
    """A run's own tensors into its network; raises `WeightsError` when they are of another one."""
    refuse_bad_values(spec.weights.path, tensors, module.state_dict())
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        plan = spec.plan
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{spec.weights.path}: does not fit {plan.name} of {plan.source}, whose code may have been changed since "
            f"the run was trained ({reason}).",
            "Bring back the code that the run was trained with, or train again.",
        ) from error


def replace_head(original: Staged, net: Network, recipe: Recipe, plan: TrunkPlan, classes: int) -> BuiltNetwork:
    """Make a network from its stages up to the cut, the pooling and a new head of the recipe.

    It is made of the parts of `original`, which must not be used afterwards: where nothing is cut, the classifier
    of `original` itself is replaced.

    Args:
        original: The network in stages, as its source makes it.
        net: The network's source facts; the new head gets the name of its classifier.
        recipe: Recipe that decides the head.
        plan: Cut, pooling, taps and number of features.
        classes: Number of logits.

    Returns:
        The network after surgery.
    """
    head = make_head(plan.features, classes, recipe)
    trunk = slice_stages(original, None, _end_stage(original, plan.cut))
    needed = frozenset(trunk.state_dict())
    if plan.cut is None and plan.pool == "own" and not plan.taps and original.trunk is not None:
        own = {name for name in original.module.state_dict() if not is_inside(name, net.head)}
        if own == needed:
            original.module.set_submodule(net.head, head)
            return BuiltNetwork(original.module, original, needed)
        module = slice_stages(original, None, None)
        module.set_submodule(net.head, head)
        return BuiltNetwork(module, split_graph(module, net.head), needed)
    _append_head(trunk, net.head, head, plan)
    return BuiltNetwork(trunk, name_later(keep_stages(split_graph(trunk, net.head), original.stages), original), needed)


def make_head(features: int, classes: int, recipe: Recipe) -> nn.Module:
    """Make the recipe's head, with initial values by its option `init`.

    Args:
        features: Number of inputs.
        classes: Number of logits.
        recipe: Gives hidden layers, activation, batch norm, dropout and `init`.

    Returns:
        A plain `nn.Linear`, or a sequence that ends in one.
    """
    layers: list[nn.Module] = []
    width = features
    for hidden in recipe.hidden:
        layers.append(make_dense(width, hidden, recipe.activation or "relu", recipe.batch_norm, recipe.dropout))
        width = hidden
    if recipe.batch_norm and not recipe.hidden:
        layers.append(nn.BatchNorm1d(width))
    if recipe.dropout and not recipe.hidden:
        layers.append(nn.Dropout(recipe.dropout))
    last = nn.Linear(width, classes)
    head = nn.Sequential(*layers, last) if layers else last
    initialize(head, recipe.init)
    return head


def initialize(module: nn.Module, init: str) -> None:
    """Set new values of every convolution and linear layer of a module, in place.

    The methods are those of Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming) and Saxe et al. 2014
    (orthogonal). Biases become 0.

    Args:
        module: Module to initialise.
        init: Name in `INITIALIZERS`, or `default` to keep the values that the source set.
    """
    if init == "default":
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            INITIALIZERS[init](part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _append_head(trunk: GraphModule, path: str, head: nn.Module, plan: TrunkPlan) -> None:
    """Put pooling, what the taps see, and a head behind a trunk, as nodes of its graph."""
    graph = trunk.graph
    end = next(node for node in graph.nodes if node.op == "output")
    node: Node = end.args[0]
    trunk.add_submodule(path, head)
    tapped = append_taps(graph, plan.taps)
    with graph.inserting_before(end):
        if len(plan.shape) > 1:
            node = append_pooling(graph, node, plan.pool, list_places(plan.shape))
        if tapped:
            node = graph.call_function(torch.cat, ([*tapped, node], 1))
        end.args = (graph.call_module(path, (node,)),)
    trunk.recompile()


def _choose_pooling(recipe: Recipe, original: Staged, shape: Sequence[int], cut: str | None) -> str:
    """The pooling that is used; raises `RecipeError` where the asked one has no meaning."""
    vector = len(shape) == 1
    if recipe.pool == "own":
        return "own" if vector else "avg"
    if vector:
        place = f"the stage {cut}" if cut else "this network"
        raise RecipeError(
            f"pool: {place} gives a vector of {shape[0]} already, so it cannot be pooled by {recipe.pool}.",
            f"Leave out pool, or cut earlier. {stages_hint(original)}",
        )
    tokens = len(shape) == 2 and any(hasattr(part, n) for part in original.module.modules() for n in CLASS_TOKENS)
    if recipe.pool == "token" and not tokens:
        raise RecipeError("pool: this network has no class token at this stage.", "Choose avg, max, avgmax or flatten.")
    return recipe.pool


def _with_some_stage(original: Staged, net: Network) -> Staged:
    """The network as it is; raises `RecipeError` where nothing of it is a stage."""
    if original.trunk is None and not original.stages:
        raise RecipeError(
            f"model: {net.name} has no stages, because every part passes several outputs on to several heads.",
            "Choose a network that `budwood models NAME` can show.",
        )
    return original


def _trunk_plan(recipe: Recipe, original: Staged, before: Sequence[StageFacts]) -> TrunkPlan:
    """How the trunk ends by the recipe; raises `RecipeError` for a cut, a pooling or a tap that does not exist."""
    cut = find_stage(original, recipe.cut, "cut") if recipe.cut else None
    shapes, end = {row.name: row.shape for row in before}, _end_stage(original, cut)
    pool = _choose_pooling(recipe, original, shapes[end], cut)
    taps = plan_taps(recipe.taps or (), original, shapes, end, pool)
    features = count_pooled_features(shapes[end], pool) + sum(tap.features for tap in taps)
    return TrunkPlan(cut, pool, features, shapes[end], taps)


def _end_stage(original: Staged, cut: str | None) -> str:
    """The place where the trunk ends: the cut, else before the head, else the last stage before several heads."""
    return cut or (TRUNK if original.trunk is not None else list(original.stages)[-1])


def _make_on_meta(net: Network, channels: int, size: int) -> nn.Module:
    """The network without values, or with them where its source cannot make it so."""
    try:
        with torch.device("meta"):
            return _make(net, channels, size)
    except RecipeError:
        raise
    except Exception:  # some networks compute with values while they are made
        return _make(net, channels, size)


def _make(net: Network, channels: int, size: int) -> nn.Module:
    try:
        return net.make(channels, size)
    except (AssertionError, ValueError) as error:
        raise _make_size_error(net, size, channels, error) from error


def _profile_or_refuse(original: Staged, net: Network, channels: int, size: int) -> list[StageFacts]:
    try:
        return profile_stages(original, channels, size)
    except Exception as error:  # a network refuses a size in any way
        raise _make_size_error(net, size, channels, error) from error


def _make_size_error(net: Network, size: int, channels: int, error: Exception) -> RecipeError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RecipeError(
        f"size: {net.name} cannot process {size} x {size} pixels with {channels} channels ({reason}).",
        f"Its own size is {net.size}.",
    )


def _find_device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _stage_row(row: StageFacts, named: Mapping[str, nn.Parameter], trainable: set[str]) -> StagePlan:
    return StagePlan(
        name=row.name,
        shape=row.shape,
        parameters=sum(named[name].numel() for name in row.parameters),
        trainable=sum(named[name].numel() for name in row.parameters if name in trainable),
        macs=row.macs,
    )


def _counted(module: nn.Module, trainable: set[str]) -> ParameterCount:
    counts = {name: parameter.numel() for name, parameter in module.named_parameters()}
    trained = sum(counts[name] for name in trainable)
    return ParameterCount(trained, sum(counts.values()) - trained)


def _repeat_per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Means or deviations for each channel; for one channel, their average."""
    return tuple(values) if channels == len(values) else (sum(values) / len(values),) * channels
