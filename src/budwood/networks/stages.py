"""A network as named stages in order, for any module: by its graph, not by hand.

The forward pass is traced with `torch.fx`, with the network's parts kept whole. A part is a stage when everything that
follows it depends on the image through its output alone, so that a network can be cut, frozen or continued there. What
lies between two stages (an activation, a flatten, adding position embeddings) belongs to the later one.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import torch
from torch import Tensor, fx, nn
from torch.fx import Graph, GraphModule, Node, Tracer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from budwood.errors import RecipeError
from budwood.networks.registry import TRUNK

LISTS: Final = frozenset(  # parts of this name hold stages and are opened; all others are stages
    {"backbone", "blocks", "body", "classifier", "encoder", "features", "head", "heads", "layers", "levels", "network"}
    | {"stages", "transformer", "transformers", "trunk"}
)
FEWEST: Final = 3  # a network with fewer stages is opened further
NORMS: Final = (torch.ops.aten.native_batch_norm.default, torch.ops.aten.native_layer_norm.default)


@dataclass(frozen=True)
class Staged:
    """A module with its traced graph and its stages in order.

    Attributes:
        module: The network.
        graph: Its forward pass as a graph.
        stages: The node at which each stage ends, by name, in order.
        head: Name of the part that gives the logits.
        trunk: Node that is the head's input; None where the head is not the only way from there to the logits.
        later: Nodes by name, in order, of parts that would be stages if the head did not see an earlier stage, too:
            the logits do not depend on one of them alone.
    """

    module: nn.Module
    graph: Graph
    stages: dict[str, Node]
    head: str
    trunk: Node | None
    later: dict[str, Node] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Node]:
        """Return the nodes of all parts that have a name, by name: the stages, and those of `later`."""
        return {**self.stages, **self.later}

    def node(self, place: str | None) -> Node:
        """Return the node at which a place ends.

        Args:
            place: A stage or one of `later`, `TRUNK`, or None for the logits.

        Returns:
            The node of the graph.

        Raises:
            KeyError: There is none of that name.
            AssertionError: The place is `TRUNK` and the network has no trunk.
        """
        if place == TRUNK:
            assert self.trunk is not None
            return self.trunk
        return _find_output(self.graph) if place is None else self.named[place]


@dataclass(frozen=True)
class StageFacts:
    """Measured facts about one stage.

    Attributes:
        name: Name of the stage, the trunk or the head.
        shape: Shape of its output for one image, without the batch.
        parameters: Names of its parameters that no earlier stage uses.
        macs: Multiply-adds for one image.
    """

    name: str
    shape: tuple[int, ...]
    parameters: tuple[str, ...]
    macs: int


class _StageTracer(Tracer):
    """Keeps every part whole except those that it is told to open."""

    def __init__(self, opened: frozenset[str], wrapped: tuple[Any, ...]) -> None:
        super().__init__(autowrap_functions=wrapped)
        self._opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a part is kept whole."""
        return module_qualified_name not in self._opened


def trace_stages(module: nn.Module, head: str) -> Staged:
    """Trace a module and divide it into stages.

    Args:
        module: The network.
        head: Name of the part that is its classifier.

    Returns:
        The network in stages.

    Raises:
        RecipeError: The forward pass cannot be traced.
    """
    opened = _find_containers(module, head)
    traced = _trace_opened(module, head, opened) or _trace_opened(module, head, frozenset(_list_ancestors(head)))
    while traced is not None and len(traced.stages) < FEWEST:
        largest = max(
            _list_kept_whole(traced), key=lambda name: _count_parameters(module.get_submodule(name)), default=None
        )
        further = _trace_opened(module, head, opened := opened | {largest}) if largest else None
        if further is None or len(further.stages) <= len(traced.stages):
            break
        traced = further
    if traced is None:
        raise RecipeError(
            "model: this network cannot be divided into stages, because its computation depends on the image.",
            "Choose a network that `budwood models NAME` can show.",
        )
    return traced


def split_graph(module: GraphModule, head: str) -> Staged:
    """Divide a module that is already a traced graph into stages.

    Args:
        module: The graph module, which must return one tensor of logits.
        head: Name of the part that is its classifier.

    Returns:
        The network in stages.
    """
    staged = _find_stages(module, module.graph, head)
    assert staged is not None
    return staged


def slice_stages(network: Staged, start: str | None, stop: str | None) -> GraphModule:
    """Cut out the part of a network between two places.

    Args:
        network: The network in stages.
        start: Place after which the part starts; None for the image.
        stop: Place with which the part ends; None for the logits.

    Returns:
        A plain module that shares its parts, and their names, with the whole network.
    """
    graph = Graph()
    first = _find_placeholder(network.graph) if start is None else network.node(start)
    copied = {first: graph.placeholder("inputs")}
    last = network.node(stop)
    for node in _nodes_between(network.graph, first, last):
        copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.output(copied[last])
    return GraphModule(network.module, graph, "Segment")


def profile_stages(network: Staged, channels: int, size: int) -> list[StageFacts]:
    """Measure each stage, the trunk, and the head (under its own name) for one image.

    A stage whose output is not a single tensor is left out. Nothing is computed if the module is on the meta
    device. The module runs in evaluation mode and has its own modes again afterwards. For a size that it cannot
    process, it raises its own errors.

    Args:
        network: The network in stages.
        channels: Number of input channels.
        size: Side of the image in pixels.

    Returns:
        Facts of the stages in order, the trunk and the head last.
    """
    meter = _Meter(network, channels, size)
    ends = [(name, node) for name, node in network.named.items()]
    ends += [(TRUNK, network.trunk)] if network.trunk is not None else []
    facts: list[StageFacts] = []
    counted: set[str] = set()
    before = 0
    for name, node in [*ends, (network.head, _find_output(network.graph))]:
        if node not in meter.readings:
            continue
        shape, total = meter.readings[node]
        used = [p for p in list_parameters(network, node) if p not in counted]
        counted.update(used)
        facts.append(StageFacts(name, shape, tuple(used), total - before))
        before = total
    return facts


def keep_stages(network: Staged, names: Collection[str]) -> Staged:
    """Return the same network with only some of its stages.

    It serves to leave out stages whose output is not a tensor.

    Args:
        network: The network in stages.
        names: Names of the stages to keep.

    Returns:
        The network with the same module and graph.
    """
    stages, later = (
        {name: node for name, node in nodes.items() if name in names} for nodes in (network.stages, network.later)
    )
    return replace(network, stages=stages, later=later)


def name_later(network: Staged, original: Staged) -> Staged:
    """Return the same network with the names of what was a stage before surgery and is none any more.

    Args:
        network: The network after surgery.
        original: The network before.

    Returns:
        The network with the same module, graph and stages.
    """
    runs = {str(node.target): node for node in network.graph.nodes if node.op == "call_module"}
    later = {name: runs[name] for name in original.stages if name in runs and name not in network.stages}
    return replace(network, later=later)


def list_parameters(network: Staged, last: Node) -> list[str]:
    """List the parameters that an output depends on.

    Args:
        network: The network in stages.
        last: Node of the output.

    Returns:
        Names of the parameters in the module's order.
    """
    owned = {*_list_run(network, last, "call_module", "get_attr")}
    return [name for name, _ in network.module.named_parameters() if not owned.isdisjoint(_list_owners(name))]


def list_modules(network: Staged, last: Node) -> list[str]:
    """List the modules that are run to compute an output, with all that they contain.

    Args:
        network: The network in stages.
        last: Node of the output.

    Returns:
        Names of the modules in the network's order.
    """
    owned = {*_list_run(network, last, "call_module")}
    return [name for name, _ in network.module.named_modules() if not owned.isdisjoint(_list_owners(name))]


def _list_owners(name: str) -> list[str]:
    """The names of a part or tensor and of all parts in which it lies."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _list_run(network: Staged, last: Node, *kinds: str) -> list[str]:
    """The names of what is run, or read, for an output: targets of the nodes of these kinds, in order."""
    nodes = _nodes_between(network.graph, _find_placeholder(network.graph), last)
    return [str(node.target) for node in nodes if node.op in kinds]


class _MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of convolutions, matrix products and attention, by PyTorch's own formulas."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        if func in NORMS and args[0].is_meta:  # deriving what is known would take most of the time
            nothing = args[0].new_empty(0)
            return torch.empty_like(args[0]), nothing, nothing
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.count += formula(*args, **(kwargs or {}), out_val=out) // 2
        return out


class _Meter(fx.Interpreter):
    """Runs a network once in evaluation mode and reads shape and multiply-adds at every node that gives a tensor."""

    def __init__(self, network: Staged, channels: int, size: int) -> None:
        super().__init__(GraphModule(network.module, network.graph))
        self.readings: dict[Node, tuple[tuple[int, ...], int]] = {}
        device = next(iter(network.module.parameters()), torch.empty(0)).device
        image = torch.zeros(1, channels, size, size, device=device)
        with _evaluation_mode(network.module), torch.no_grad(), _MultiplyAdds() as self._counter:
            self.run(image)

    def run_node(self, n: Node) -> Any:
        """Run one node and note its output's shape and the multiply-adds so far."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.readings[n] = (tuple(result.shape[1:]), self._counter.count)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a part; it may change the lists that it is given, as it may in the network's own forward pass."""
        return super().call_module(target, tuple([*a] if isinstance(a, list) else a for a in args), kwargs)


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; every part has its own mode again afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _trace_opened(module: nn.Module, head: str, opened: frozenset[str]) -> Staged | None:
    """The stages as they are with these parts opened, or None when the forward pass cannot be traced so.

    In evaluation mode, so that what is written for training only, such as auxiliary classifiers, is left out.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    with _evaluation_mode(module):
        try:
            graph = _StageTracer(opened, _list_leaf_functions(module)).trace(module, concrete_args=defaults or None)
        except Exception:  # a traced forward pass can fail in any way
            return None
    return _find_stages(module, graph, head)


def _find_stages(module: nn.Module, graph: Graph, head: str) -> Staged | None:
    """The stages in a graph, or None when it does not give one tensor of logits."""
    if not isinstance(_find_output(graph), Node):
        return None
    calls = [node for node in graph.nodes if node.op == "call_module"]
    heads = [node for node in calls if node.target == head]
    trunk = heads[0].args[0] if len(heads) == 1 and _is_gate(graph, heads[0]) else None
    assert trunk is None or isinstance(trunk, Node)
    before = _nodes_between(graph, _find_placeholder(graph), trunk or _find_output(graph))
    named = [str(node.target) for node in calls]
    stages = {
        str(node.target): node
        for node in before
        if node.op == "call_module"
        and named.count(str(node.target)) == 1
        and not isinstance(module.get_submodule(str(node.target)), nn.Identity)
        and _is_gate(graph, node)
    }
    return Staged(module, graph, stages, head, trunk)


def _is_gate(graph: Graph, gate: Node) -> bool:
    """Whether the logits depend on the image only through one node."""
    return _find_placeholder(graph) not in _collect_needed(graph, gate, _find_output(graph))


def _nodes_between(graph: Graph, first: Node, last: Node) -> list[Node]:
    """The nodes in order that `last` needs once `first` is known, `last` included and `first` not."""
    needed = _collect_needed(graph, first, last)
    return [node for node in graph.nodes if node in needed and node is not first]


def _collect_needed(graph: Graph, known: Node, last: Node) -> set[Node]:
    needed: set[Node] = set()
    open_ends = [last]
    while open_ends:
        node = open_ends.pop()
        if node in needed or node is known:
            continue
        needed.add(node)
        open_ends += node.all_input_nodes
    return needed


def _find_placeholder(graph: Graph) -> Node:
    return cast("Node", next(node for node in graph.nodes if node.op == "placeholder"))


def _find_output(graph: Graph) -> Node:
    """The node of the logits."""
    end = next(node for node in graph.nodes if node.op == "output")
    return cast("Node", end.args[0])


def _find_containers(module: nn.Module, head: str) -> frozenset[str]:
    """The parts that hold stages: the head's ancestors, and lists of parts inside other lists or at the top."""
    opened = _list_ancestors(head)
    for name, part in module.named_modules():
        parent, _, last = name.rpartition(".")
        if last in LISTS and name != head and any(part.children()) and (not parent or parent in opened):
            opened.add(name)
    return frozenset(opened)


def _list_ancestors(head: str) -> set[str]:
    parts = head.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def _list_kept_whole(network: Staged) -> Iterable[str]:
    """The parts that were kept whole and could be opened."""
    last = network.trunk or _find_output(network.graph)
    return [
        name for name in _list_run(network, last, "call_module") if any(network.module.get_submodule(name).children())
    ]


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _list_leaf_functions(module: nn.Module) -> tuple[Any, ...]:
    """Functions that timm marks as not to be traced through."""
    if not type(module).__module__.startswith("timm."):
        return ()
    import timm.layers

    functions: Any = timm.layers
    return tuple(functions.get_notrace_functions())
