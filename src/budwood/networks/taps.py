"""Taps: earlier stages whose outputs the head sees beside that of the trunk, each as its mean over the image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch.fx import Graph, Node

from budwood.errors import RecipeError
from budwood.networks.freezing import find_stage, stages_hint
from budwood.networks.network_plan import Tap
from budwood.networks.pooling import append_pooling, count_pooled_features, list_places
from budwood.networks.registry import TRUNK
from budwood.networks.stages import Staged, slice_stages

POOLED: Final = (1, 2, 3)  # numbers of dimensions, for one image, of what a tap can be: a vector, tokens, a map


def plan_taps(
    names: Sequence[str], original: Staged, shapes: Mapping[str, tuple[int, ...]], end: str, pool: str
) -> tuple[Tap, ...]:
    """Plan the taps of a network.

    Args:
        names: Stages by their names, or the last parts of their names.
        original: The network in stages, as its source makes it.
        shapes: Shape of each place's output for one image.
        end: Where the trunk ends: a stage, or `TRUNK`.
        pool: How the trunk's output is pooled.

    Returns:
        The taps in the order of the network.

    Raises:
        RecipeError: A stage does not exist, is ambiguous, is named twice, comes after the cut, gives no map, tokens or
            vector, or is what the head sees anyway.
    """
    order = list(original.stages)
    found: list[str] = []
    for name in names:
        stage = find_stage(original, name, "taps")
        if stage in found:
            raise RecipeError(f"taps: {stage} is named twice.", "Name each stage once.")
        if end != TRUNK and order.index(stage) > order.index(end):
            earlier = ", ".join(order[: order.index(end)]) or "none"
            raise RecipeError(f"taps: {stage} comes after the cut, {end}.", f"Stages before it: {earlier}.")
        if len(shapes[stage]) not in POOLED:
            told = " x ".join(map(str, shapes[stage])) or "one number"
            raise RecipeError(
                f"taps: {stage} gives {told} for an image: no map, tokens or vector.",
                f"Name another stage. {stages_hint(original)}",
            )
        if _is_seen_anyway(original, stage, shapes[stage], end, pool):
            raise RecipeError(
                f"taps: {stage} gives what the head sees anyway.", f"Name earlier stages. {stages_hint(original)}"
            )
        found.append(stage)
    found.sort(key=order.index)
    return tuple(Tap(stage, shapes[stage], count_pooled_features(shapes[stage], "avg")) for stage in found)


def append_taps(graph: Graph, taps: Sequence[Tap]) -> list[Node]:
    """Append to the stages of a graph the nodes that pool what the taps see.

    They stand right behind their stages, as what follows may change an output in place.

    Args:
        graph: Graph of the network.
        taps: The taps.

    Returns:
        For each tap the node of its vector, [n, features].
    """
    ends = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    pooled = []
    for tap in taps:
        places = list_places(tap.shape)
        with graph.inserting_after(ends[tap.name]):
            node = ends[tap.name]
            pooled.append(append_pooling(graph, node, "avg", places) if places else graph.call_method("clone", (node,)))
    return pooled


def _is_seen_anyway(original: Staged, stage: str, shape: tuple[int, ...], end: str, pool: str) -> bool:
    """Whether the mean of a stage over the image is what the trunk gives already, as of the last map of a ResNet."""
    tail = slice_stages(original, stage, end)
    if pool not in ("own", "avg") or tail.state_dict():
        return False
    values = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    places = list_places(shape)
    mean = values.mean(places) if places else values
    try:
        with torch.no_grad():
            seen = copy.deepcopy(tail).eval()(values.clone())
    except Exception:  # what computes with more than it is given can fail in any way, and gives something else
        return False
    seen = seen.mean(list_places(tuple(seen.shape[1:]))) if pool == "avg" else seen
    return seen.shape == mean.shape and torch.allclose(seen, mean, atol=1e-5)
