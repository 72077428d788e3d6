"""A trained network in 8-bit whole numbers, for predicting: taken only where validation accuracy is shown not to fall.

Static quantisation by ONNX Runtime: the ranges of activations are those of training images.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from budwood.data.blocks import split_blocks
from budwood.data.dataset import Samples
from budwood.data.loading import decode_sample
from budwood.evaluation.predictions import Predictions
from budwood.inference.bundle import (
    GRAPH,
    Prefix,
    add_bundle_file,
    ensure_exported,
    read_added_file,
    read_bundle_file,
    remember,
)
from budwood.inference.engines import BATCH, ERRORS, has_cuda_device
from budwood.inference.feature_cache import compute_tta_features
from budwood.progress import Progress
from budwood.storage.atomic import is_full

INT8_GRAPH: Final = "int8.onnx"  # in the bundle
CALIBRATED: Final = 64  # training images, from all over the split, that the ranges are taken from
KINDS: Final = ["Conv", "Clip", "Relu", "Add", "Gemm", "MatMul"]  # of nodes; the others stay in full precision
_WARNINGS: Final = 2  # severity from which ONNX Runtime writes unless it is told otherwise


def quantize_int8(prefix: Prefix, training: Samples, validation: Predictions, progress: Progress) -> Prefix:
    """Quantise a network to 8 bits, unless fewer validation images are then correct.

    It is made and compared once for each network; notes give the result. It is only for networks that ONNX Runtime
    computes on a CPU. Where images have several labels, an image is correct if every class is.

    Args:
        prefix: The whole network, in full precision.
        training: Training images, from which the ranges of activations are taken.
        validation: Validation predictions in full precision.
        progress: Receives the notes.

    Returns:
        The prefix with the 8-bit graph, or `prefix` itself where that is better or 8 bits do not apply.

    Raises:
        DataError: An image file was changed since it was scanned.
        WeightsError: The weights cannot be read or do not fit.
    """
    eight = replace(prefix, graph=INT8_GRAPH)
    if has_cuda_device() or ensure_exported(prefix).no_graph:
        progress.note("int8 is not used: it needs a network that runs with ONNX Runtime on a CPU.")
        return prefix
    file = prefix.bundle / "int8.json"
    if read_added_file(prefix, eight.graph) is None:
        progress.note("Converting the network to 8-bit integers (once).")
        content = quantise(prefix, training)
        try:
            add_bundle_file(prefix, eight.graph, content)
        except OSError as error:
            reason = "the disk is full" if is_full(error) else str(error)
            progress.note(f"int8 is not used: {prefix.bundle} cannot be written ({reason}).")
            return prefix
        file.unlink(missing_ok=True)
    counts: dict[str, int] = remember(file, lambda: _compare_correct(eight, training, validation, progress))
    comparison = (
        f"{counts['int8']:,} of {counts['n']:,} validation images are correct with 8 bits, "
        f"{counts['full']:,} with 32 bits"
    )
    if counts["int8"] >= counts["full"]:
        progress.note(f"int8 is used: {comparison}.")
        return eight
    progress.note(f"int8 is not used: {comparison}.")
    return prefix


def quantise(prefix: Prefix, training: Samples) -> bytes:
    """Quantise the graph of a network; its first convolution, which sees the image, stays as it is.

    Args:
        prefix: Part of a network whose graph has been exported.
        training: Training images, from which the ranges of activations are taken.

    Returns:
        The ONNX graph in 8 bits.

    Raises:
        DataError: An image file was changed since it was scanned.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rows = np.unique(np.linspace(0, len(training) - 1, CALIBRATED).round().astype(int)).tolist()

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parts = iter([rows[block] for block in split_blocks(len(rows), BATCH)])

        def get_next(self) -> dict[str, Any] | None:
            part = next(self._parts, None)
            size, resizing = prefix.spec.plan.size, prefix.spec.recipe.resizing
            return part and {"pixels": np.stack([decode_sample(training, row, size, resizing) for row in part])}

    graph = onnx.load_from_string(read_bundle_file(prefix, GRAPH))
    first = [node.name for node in graph.graph.node if node.op_type == "Conv"][:1]
    with _only_errors(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            file,
            Images(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=KINDS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=first,
        )
        return file.read_bytes()


def _compare_correct(eight: Prefix, training: Samples, validation: Predictions, progress: Progress) -> dict[str, int]:
    """Count the validation images that are correct in 8 bits and in full precision."""
    samples = replace(validation.samples(training.root), value_range=training.value_range)
    logits = compute_tta_features(eight, samples, progress).values
    return {
        "int8": _count_correct(replace(validation, logits=logits)),
        "full": _count_correct(validation),
        "n": len(validation.labels),
    }


def _count_correct(predictions: Predictions) -> int:
    """Count correct images: by their likeliest class, or in every class where they have several."""
    return int(predictions.correct.sum())


@contextmanager
def _only_errors() -> Iterator[None]:
    """Keep ONNX Runtime's warnings and advice, of graphs that it makes itself, from the terminal."""
    import onnxruntime

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(ERRORS)
    try:
        yield
    finally:
        logger.setLevel(level)
        onnxruntime.set_default_logger_severity(_WARNINGS)
