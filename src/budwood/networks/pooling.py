"""How an output of a network becomes a vector: a mean or a maximum over its places, its class token, or all values."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import Graph, Node

from budwood.networks.registry import is_channels_last


def count_pooled_features(shape: Sequence[int], pool: str) -> int:
    """Count the features that pooling makes of an output.

    Args:
        shape: Shape of the output for one image: a vector, tokens [n, width], or a map with channels first or last.
        pool: How it is pooled; only `flatten` keeps all values.

    Returns:
        Number of features.
    """
    if len(shape) == 1:
        return int(shape[0])
    if pool == "flatten":
        return int(torch.Size(shape).numel())
    return int(shape[0] if len(shape) == 3 and not is_channels_last(shape) else shape[-1])


def list_places(shape: Sequence[int]) -> tuple[int, ...]:
    """List the dimensions of an output that are places in the image.

    Args:
        shape: Shape of the output for one image: a vector, tokens [n, width], or a map with channels first or last.

    Returns:
        Numbers of dimensions, where 0 is the batch; none for a vector.
    """
    if len(shape) < 3:
        return (1,) * (len(shape) - 1)
    return (1, 2) if is_channels_last(shape) else (2, 3)


def append_pooling(graph: Graph, node: Node, pool: str, places: tuple[int, ...]) -> Node:
    """Append the node that makes one vector of an output.

    Args:
        graph: Graph of the network, with the point at which nodes are inserted.
        node: Node of the output.
        pool: `avg`, `max`, `avgmax`, `token` or `flatten`.
        places: The dimensions that are places in the image, at least one.

    Returns:
        The node of the vector.
    """
    if pool == "flatten":
        return graph.call_method("flatten", (node, 1))
    if pool == "token":
        return graph.call_function(operator.getitem, (node, (slice(None), 0)))
    if pool == "max":
        return graph.call_method("amax", (node, places))
    mean = graph.call_method("mean", (node, places))
    if pool != "avgmax":
        return mean
    both = graph.call_function(operator.add, (mean, graph.call_method("amax", (node, places))))
    return graph.call_function(operator.truediv, (both, 2))
