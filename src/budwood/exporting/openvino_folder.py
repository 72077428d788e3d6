"""The folder of `--format openvino`: an intermediate representation (IR), for processors, graphics and NPUs of Intel's.

It is converted from the ONNX file, without the resize: OpenVINO computes in 16 bits where a device does so by itself,
which a network stands, but not the places of pixels. Its input is `image` uint8 [1, size, size, 3], RGB; its outputs
are those of the ONNX file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budwood.errors import RunError
from budwood.storage.atomic import raise_storage_errors

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL: Final = "model.xml"
WEIGHTS: Final = "model.bin"
IMAGE: Final = "image"
RESIZED: Final = re.compile(r"network\d+/input")  # tensors of the ONNX file: what each network sees, after its resize
FULL_PRECISION: Final = {"INFERENCE_PRECISION_HINT": "f32"}


def write_openvino(model: bytes, size: int, metadata: str, folder: Path) -> list[Path]:
    """Write an ONNX file as OpenVINO's `model.xml` and `model.bin`, without its resize.

    Args:
        model: The ONNX file.
        size: Side of the input of its network, or of all its networks.
        metadata: What `rt_info/budwood` of the XML file is to say: the export's record, JSON.
        folder: The folder.

    Returns:
        The two files, the XML first.

    Raises:
        RunError: OpenVINO is not installed, or cannot convert the network.
        StorageError: The folder cannot be written.
    """
    openvino = import_openvino()
    try:
        converted = openvino.Core().read_model(drop_resize(model, size), b"")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RunError(f"OpenVINO cannot convert the network ({reason}).", "Use the format onnx.") from error
    converted.set_rt_info(metadata, ["budwood"])
    with raise_storage_errors(folder):
        openvino.save_model(converted, str(folder / MODEL), compress_to_fp16=False)
    return [folder / MODEL, folder / WEIGHTS]


def drop_resize(model: bytes, size: int) -> bytes:
    """Take the resize out of an exported ONNX file.

    Args:
        model: The file.
        size: Side of the input of its networks.

    Returns:
        A file with the input `image` uint8 [1, size, size, 3], and the same outputs.
    """
    import onnx

    made = onnx.load_from_string(model)
    for node in made.graph.node:
        if node.op_type == "Identity" and RESIZED.fullmatch(node.output[0]):
            node.input[0] = IMAGE
    _keep_needed(made)
    shape = made.graph.input[0].type.tensor_type.shape
    for dimension, length in zip(shape.dim, (1, size, size, 3), strict=True):
        dimension.dim_value = length
    content: bytes = made.SerializeToString()
    return content


def _keep_needed(model: ModelProto) -> None:
    """Remove the nodes and constants that no output depends on."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(tensors)


def import_openvino() -> Any:
    """Import OpenVINO.

    Returns:
        The package, a module.

    Raises:
        RunError: It is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise RunError(
            "The format openvino needs the package openvino, which is not installed.",
            "Install it with `pip install 'budwood[openvino]'`.",
        ) from error
    return openvino


def load_openvino(folder: Path) -> Any:
    """Load what `write_openvino` has written, for an ordinary processor and in full precision.

    Args:
        folder: The folder.

    Returns:
        OpenVINO's compiled model: called with an image uint8 [1, size, size, 3], it gives its outputs by name.
    """
    return import_openvino().Core().compile_model(str(folder / MODEL), "CPU", FULL_PRECISION)
