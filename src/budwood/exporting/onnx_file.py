"""One ONNX file that holds all of a run's answer: resize, normalisation, network, temperature, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.loading import TTA_FLIPS
from budwood.errors import RunError
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.novelty import BANK, MEANS, WHITENING, NoveltyScorer
from budwood.exporting.graph_builder import GraphBuilder, Name
from budwood.exporting.pillow_resize import add_resize
from budwood.inference.bundle import GRAPH, Prefix, add_bundle_file, ensure_exported, read_added_file, read_bundle_file
from budwood.inference.quantization import INT8_GRAPH, quantise
from budwood.runs.export_record import METADATA_KEY, ExportRecord
from budwood.runs.networks import make_trunk, make_whole_network
from budwood.runs.run import Run
from budwood.storage.context import Context

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE: Final = "image"
OLDEST_OPSET: Final = 18


@dataclass(frozen=True)
class NetworkGraph:
    """A run's network as a graph from pixels to features and logits.

    Attributes:
        run: The run.
        model: The graph, from `pixels` uint8 [n, size, size, 3].
        features: Name of the tensor that its head receives.
        logits: Name of the tensor of its logits; None where `head` makes them.
        head: Weight float32 [classes, features] and bias float32 [classes] of a linear head outside of the graph.
        size: Side of its input.
    """

    run: Run
    model: ModelProto
    features: Name
    logits: Name | None
    head: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    size: int


def read_network_graph(run: Run, context: Context, int8: bool) -> NetworkGraph:
    """Read the graph of a run's network, which is exported where it was not yet.

    Args:
        run: A finished run that is no ensemble.
        context: The cache folder, and where notes go.
        int8: Whether it is in 8-bit integers.

    Returns:
        The graph.

    Raises:
        RunError: The network cannot be exported.
        WeightsError: The weights cannot be read.
        DataError: A training image, for the ranges of 8 bits, is missing or was changed.
    """
    import onnx

    alone = run.record.trained == "head" and not int8
    part = make_trunk(run, context) if alone else make_whole_network(run, context.cache)
    refuse_unexportable(run, part)
    model = onnx.load_from_string(read_bundle_file(part, GRAPH))
    output = model.graph.output[0].name
    if alone:
        return NetworkGraph(run, model, output, None, run.head(), part.spec.plan.size)
    features = find_features(run, model)
    if int8:
        content = read_added_file(replace(part, graph=INT8_GRAPH), INT8_GRAPH)
        if content is None:
            context.progress.note("Converting the network to 8-bit integers (once).")
            content = quantise(part, run.dataset().samples("train"))
            with suppress(OSError):  # then it is converted again the next time
                add_bundle_file(part, INT8_GRAPH, content)
        model = onnx.load_from_string(content)
    return NetworkGraph(run, model, features, output, None, part.spec.plan.size)


def refuse_unexportable(run: Run, part: Prefix) -> None:
    """Refuse a network that has no ONNX graph; raises `RunError`."""
    reason = ensure_exported(part).no_graph
    if reason:
        raise RunError(
            f"{run.path}: {part.spec.plan.name} cannot be written as an ONNX graph ({reason}).",
            "Train it at its own input size (leave out `size`), or another network; `budwood predict` takes the run as "
            "it is.",
        )


def find_features(run: Run, model: ModelProto) -> Name:
    """Find the tensor that the head receives: the input of the first node with a weight of the head."""
    head = f"network.{run.record.network.head}."
    values = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if any(name in values and name.startswith(head) for name in node.input):
            return str(next(name for name in node.input if name not in values))
    raise RunError(
        f"{run.path}: what the head {run.record.network.head} of {run.record.network.name} receives cannot be told in "
        "its ONNX graph.",
        "Train a head alone (`--freeze trunk`), or use the run with `budwood predict`.",
    )


def build_model(
    members: Sequence[NetworkGraph],
    weights: Sequence[float],
    rule: DecisionRule,
    novelty: NoveltyScorer | None,
    record: ExportRecord,
) -> bytes:
    """Build the file of one or more networks.

    Args:
        members: The networks, the one with the largest weight first.
        weights: Weight of each in the mean of their probabilities.
        rule: Gives task and temperature.
        novelty: What tells images of none of the classes; None: nothing does.
        record: Goes into the metadata.

    Returns:
        The bytes of the ONNX file.
    """
    from onnx import TensorProto, helper

    graph = GraphBuilder()
    parts = [_add_network(graph, one, f"network{number}/") for number, one in enumerate(members)]
    features = parts[0][0]
    logits = _average(graph, [one for _, one in parts], weights, rule.task.multilabel)
    graph.add("Identity", logits, name="logits")
    graph.add("Identity", features, name="features")
    scaled = graph.add("Div", logits, graph.constant(np.asarray(rule.temperature, np.float32)[None], np.float32))
    squash = ("Sigmoid", {}) if rule.task.multilabel else ("Softmax", {"axis": 1})
    graph.add(squash[0], scaled, name="probabilities", **squash[1])
    if novelty:
        _add_reject_score(graph, features, logits, novelty)
    sizes = {
        "probabilities": [1, rule.task.classes],
        "logits": [1, rule.task.classes],
        "features": [1, record.features],
    }
    sizes |= {"reject_score": [1]} if novelty else {}
    made = helper.make_graph(
        graph.nodes,
        "budwood",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, "h", "w", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()],
        graph.tensors,
    )
    opset = max(entry.version for entry in members[0].model.opset_import if not entry.domain)
    ir_version = max(one.model.ir_version for one in members)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
        producer_name="budwood",
        producer_version=record.versions["budwood"],
    )
    return put_metadata(model, record)


def put_metadata(model: ModelProto, record: ExportRecord) -> bytes:
    """Return the file of a model with a record in its metadata, in place of what was there."""
    import json

    from onnx import helper

    labels = {str(number): name for number, name in enumerate(record.classes)}
    helper.set_model_props(
        model,
        {
            METADATA_KEY: record.to_json(),
            "classes": json.dumps(list(record.classes), ensure_ascii=False),
            "names": json.dumps(labels, ensure_ascii=False),
            "task": record.task,
            "temperature": json.dumps(list(record.temperature)),
        },
    )
    content: bytes = model.SerializeToString()
    return content


def _add_network(graph: GraphBuilder, one: NetworkGraph, prefix: str) -> tuple[Name, Name]:
    """Resize, mirror images and network; features and logits [1, ...], each the mean over the mirror images."""
    recipe = one.run.recipe
    pixels = add_resize(graph, IMAGE, one.size, recipe.resizing)
    pixels = graph.add("Identity", pixels, name=f"{prefix}input")
    flips = TTA_FLIPS[recipe.tta]
    backwards = list(range(one.size))[::-1]
    views = []
    for letters in flips:
        view = pixels
        for letter in letters:
            view = graph.add("Gather", view, graph.whole(backwards), axis={"h": 2, "v": 1}[letter])
        views.append(view)
    batch = graph.add("Concat", *views, axis=0) if len(views) > 1 else pixels
    wanted = [one.features] + ([one.logits] if one.logits else [])
    found = graph.insert(one.model, prefix, batch, wanted)
    features = found[0]
    if one.head:
        weight, bias = one.head
        found.append(
            graph.add("Gemm", features, graph.constant(weight, np.float32), graph.constant(bias, np.float32), transB=1)
        )
    if len(views) > 1:
        found = [graph.add("ReduceMean", each, graph.whole([0]), keepdims=1) for each in found]
    return found[0], found[1]


def _average(graph: GraphBuilder, logits: Sequence[Name], weights: Sequence[float], multilabel: bool) -> Name:
    """The logits of the weighted mean of the members' probabilities; those of a single one as they are."""
    if len(logits) == 1:
        return logits[0]
    shares = np.asarray(weights, np.float64) / np.sum(weights)
    signs = (1.0, -1.0) if multilabel else (1.0,)
    means = []
    for sign in signs:
        parts = []
        for one, share in zip(logits, shares.tolist(), strict=True):
            real = graph.add("Mul", graph.cast(one, np.float64), graph.real(sign))
            parts.append(graph.add("Add", _log_probability(graph, real, multilabel), graph.real(np.log(share))))
        stacked = graph.add("Concat", *(graph.add("Unsqueeze", part, graph.whole([0])) for part in parts), axis=0)
        means.append(_log_sum_exp(graph, stacked, 0))
    mean = graph.add("Sub", *means) if multilabel else means[0]
    return graph.cast(mean, np.float32)


def _log_probability(graph: GraphBuilder, logits: Name, multilabel: bool) -> Name:
    """Logarithms of softmax or sigmoid of logits, float64 [1, classes]."""
    if multilabel:  # log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
        small = graph.add("Exp", graph.add("Neg", graph.add("Abs", logits)))
        rest = graph.add("Log", graph.add("Add", graph.real(1), small))
        return graph.add("Sub", graph.add("Min", logits, graph.real(0)), rest)
    total = _log_sum_exp(graph, logits, 1)
    return graph.add("Sub", logits, graph.add("Unsqueeze", total, graph.whole([1])))


def _log_sum_exp(graph: GraphBuilder, values: Name, axis: int) -> Name:
    """The logarithm of the sum of exponentials along an axis, float64."""
    along = graph.whole([axis])
    largest = graph.add("ReduceMax", values, along, keepdims=1)
    total = graph.add("ReduceSum", graph.add("Exp", graph.add("Sub", values, largest)), along, keepdims=0)
    return graph.add("Add", graph.add("Log", total), graph.add("Squeeze", largest, along))


def _add_reject_score(graph: GraphBuilder, features: Name, logits: Name, novelty: NoveltyScorer) -> None:
    """How strange the image is, by the run's method; see `evaluation.novelty`."""
    if novelty.method == "energy":
        score = graph.add("Neg", _log_sum_exp(graph, graph.cast(logits, np.float64), 1))
    elif novelty.method == "knn":
        row = _normalise(graph, features)
        bank = graph.constant(novelty.arrays[BANK], np.float32)
        similarity = graph.add("MatMul", row, graph.add("Transpose", bank, perm=[1, 0]))
        best = f"{similarity}/best"
        graph.add_many("TopK", (similarity, graph.whole([novelty.neighbour])), (best, f"{best}/place"), axis=1)
        kth = graph.cast(graph.add("Gather", best, graph.whole(novelty.neighbour - 1), axis=1), np.float64)
        square = graph.add("Sub", graph.real(2), graph.add("Mul", graph.real(2), kth))
        score = graph.add("Sqrt", graph.add("Max", square, graph.real(0)))
    else:
        score = _measure_mahalanobis(graph, features, novelty)
    graph.add("Cast", score, name="reject_score", to=1)


def _normalise(graph: GraphBuilder, features: Name) -> Name:
    """Features divided by their length, float32 [1, d]."""
    length = graph.add("ReduceL2", features, graph.whole([1]), keepdims=1)
    return graph.add("Div", features, graph.add("Max", length, graph.constant(1e-12, np.float32)))


def _measure_mahalanobis(graph: GraphBuilder, features: Name, novelty: NoveltyScorer) -> Name:
    means = novelty.arrays[MEANS].astype(np.float64)
    real, whitening = graph.cast(features, np.float64), graph.constant(novelty.arrays[WHITENING], np.float32)
    length = graph.add("Sqrt", graph.add("ReduceSumSquare", real, graph.whole([1]), keepdims=1))
    row = graph.add("Div", real, graph.add("Max", length, graph.real(1e-12)))
    white = graph.add("MatMul", row, graph.cast(whitening, np.float64))
    apart = graph.add("Sub", white, graph.constant(means, np.float64))
    squares = graph.add("ReduceSumSquare", apart, graph.whole([1]), keepdims=0)
    return graph.add("Sqrt", graph.add("ReduceMin", squares, graph.whole([0]), keepdims=1))
