"""Features and logits of a whole network from one pass: what its head receives, beside what the head makes of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from budwood.data.loading import Pixels
from budwood.inference.bundle import STATE, Prefix, make_prefix, read_bundle_file, remember, slice_network
from budwood.inference.engines import Floats, InferenceEngine, Sessions, choose_engine, has_cuda_device, read_graph
from budwood.networks.registry import TRUNK
from budwood.progress import Progress

OutputsFn = Callable[[Pixels], tuple[Floats, Floats]]


def make_outputs_inference(
    prefix: Prefix, engine: InferenceEngine, sample: Callable[[], Pixels], progress: Progress
) -> OutputsFn:
    """Make the function that computes features and logits of pixels.

    ONNX Runtime is asked for one more tensor of the same graph, so that the logits stay what they are. Where the graph
    does not tell which that is, the trunk runs a second time by itself.

    Args:
        prefix: The whole network.
        engine: The engine that was chosen for it.
        sample: Returns real images, uint8 [n, size, size, 3], for the check of the trunk's engine where that is needed.
        progress: Receives the notes of that engine.

    Returns:
        Function from uint8 pixels [n, size, size, 3] to features float32 [n, features] and logits float32 [n, classes].

    Raises:
        WeightsError: The weights cannot be read or do not fit.
    """
    if engine.threads is None:
        from budwood.inference import pytorch_backend

        half = has_cuda_device()
        return pytorch_backend.run_with_features(slice_network(prefix), read_bundle_file(prefix, STATE), half)
    note = prefix.bundle / f"{prefix.graph}.features.json"
    name = remember(note, lambda: {"name": _find_head_input(prefix)})["name"]
    if name:
        return _make_onnx_outputs(prefix, engine.threads, name)
    trunk = make_prefix(prefix.spec, TRUNK, prefix.cache)
    apart = choose_engine(trunk, sample, len(sample()), progress)
    return lambda pixels: (apart.run(pixels), engine.run(pixels))


def _find_head_input(prefix: Prefix) -> str:
    """The tensor that the first layer of the head receives, by the names that the exporter gives; empty if unknown."""
    import onnx

    graph, head = onnx.load_from_string(read_graph(prefix)).graph, prefix.spec.plan.head
    values = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type not in ("Constant", "Identity")]
    first = next((node for node in nodes if node.name.startswith(f"/network/{head}/")), None)
    inputs = [name for name in first.input if name not in values] if first else []
    return inputs[0] if inputs and any(inputs[0] in node.output for node in graph.node) else ""


def _make_onnx_outputs(prefix: Prefix, threads: int, name: str) -> OutputsFn:
    sessions = Sessions(prefix, threads, _encode_output(name))

    def run(batch: Pixels) -> tuple[Floats, Floats]:
        logits, features = sessions.find(len(batch)).run(None, {"pixels": batch})
        return np.asarray(features, np.float32), np.asarray(logits, np.float32)

    return run


def _encode_output(name: str) -> bytes:
    """What makes a tensor an output of a model when it is appended to the model's bytes.

    Protocol buffers are merged so: https://protobuf.dev/programming-guides/encoding/#last-one-wins. The numbers are
    those of ModelProto.graph (7), GraphProto.output (12) and ValueInfoProto.name (1).
    """
    encoded = name.encode()
    for field in (1, 12, 7):
        encoded = bytes([field << 3 | 2]) + _encode_length(len(encoded)) + encoded
    return encoded


def _encode_length(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _encode_length(number >> 7)
