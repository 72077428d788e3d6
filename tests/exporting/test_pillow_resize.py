"""The resize inside an exported file gives the pixels of Pillow's, to the bit."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from budwood.config.options import Interpolation, Resize, Resizing
from budwood.data.images import resize_to_square
from budwood.exporting.graph_builder import GraphBuilder
from budwood.exporting.pillow_resize import add_resize

SHAPES = [(1, 1), (1, 4000), (4000, 300), (2, 3), (5, 7), (16, 16), (17, 16), (333, 517), (640, 481), (1200, 95)]


def make_session(size: int, resizing: Resizing) -> Any:
    graph = GraphBuilder()
    pixels = add_resize(graph, "image", size, resizing)
    made = helper.make_graph(
        graph.nodes,
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])],
        [helper.make_tensor_value_info(pixels, TensorProto.UINT8, [1, size, size, 3])],
        graph.tensors,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def make_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise, which shows every rounding, over a slope."""
    random = np.random.default_rng(seed)
    slope = np.linspace(0, 155, width)[None, :, None]
    return (random.integers(0, 101, (height, width, 3)) + slope).astype(np.uint8)


@pytest.mark.parametrize("how", get_args(Resize))
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_pixels_are_those_of_pillow(how: Resize, interpolation: Interpolation) -> None:
    resizing = Resizing(how, interpolation)
    for size in (16, 65):
        session = make_session(size, resizing)
        for height, width in SHAPES:
            image = make_image(height, width)
            expected = np.asarray(resize_to_square(Image.fromarray(image), size, resizing))
            (found,) = session.run(None, {"image": image[None]})
            assert np.array_equal(found[0], expected), (size, height, width)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "interpolation"), list(product(get_args(Resize), get_args(Interpolation))))
def test_pixels_are_those_of_pillow_for_any_size(how: Resize, interpolation: Interpolation) -> None:
    random, resizing = np.random.default_rng(1), Resizing(how, interpolation)
    for size in (8, 32, 64, 224, 299):
        session = make_session(size, resizing)
        for number in range(60):
            height, width = np.exp(random.uniform(0, np.log(2500), 2)).astype(int) + 1
            image = make_image(height, width, number)
            expected = np.asarray(resize_to_square(Image.fromarray(image), size, resizing))
            (found,) = session.run(None, {"image": image[None]})
            assert np.array_equal(found[0], expected), (size, height, width)
