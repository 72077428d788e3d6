"""The filters of a convolution are shown as pixels meet them; dead and doubled ones are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_stages import NETWORKS
from torch import nn

from budwood.errors import RecipeError
from budwood.explain.convolutions import (
    COLUMNS,
    SIDE,
    Filters,
    choose_filters,
    draw_filters,
    filter_pictures,
    list_convolutions,
    read_filters,
)
from budwood.explain.image_grid import GAP
from budwood.explain.probe import NetworkProbe, capture_outputs
from budwood.networks.freezing import find_frozen, set_modes
from subjects import SMALL, opened, unchanged

QUICK = ("resnet18", "timm:mobilenetv4_conv_small", "timm:vit_tiny_patch16_224")


@pytest.fixture
def subject(cache: Path) -> NetworkProbe:
    """A small convolutional network with batch norms, for a test to plant something in."""
    return opened(cache, **SMALL, kernels=[3, 3, 3])


def _pixels(size: int = 32, count: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _layer(subject: NetworkProbe, name: str) -> Any:
    return subject.module.get_submodule(name)


def _plant(subject: NetworkProbe, name: str, values: NDArray[np.float64] | torch.Tensor) -> None:
    with torch.no_grad():
        _layer(subject, name).weight.copy_(torch.as_tensor(values))


def test_the_convolutions_are_those_that_run_in_their_order(subject: NetworkProbe, cache: Path) -> None:
    assert list_convolutions(subject) == ("conv1.0", "conv2.0", "conv3.0")
    names = list_convolutions(opened(cache, model="resnet18", size=64))
    assert len(names) == 20
    assert names[:2] == ("conv1", "layer1.0.conv1")
    assert names.index("layer2.0.conv2") < names.index("layer2.0.downsample.0") < names.index("layer2.1.conv1")


def test_a_dead_and_a_doubled_filter_are_named(subject: NetworkProbe) -> None:
    weight = _layer(subject, "conv2.0").weight.detach().clone()
    weight[3] *= 0.001
    weight[6] = -2 * weight[1]
    _plant(subject, "conv2.0", weight)
    found = read_filters(subject, "conv2.0")
    assert found.dead == (3,)
    assert found.duplicates == ((1, 6),)
    assert found.order[-1] == 3
    assert sorted(found.order.tolist()) == list(range(8))


def test_dead_filters_are_no_doubles_and_a_layer_of_zeros_is_dead(subject: NetworkProbe) -> None:
    _plant(subject, "conv1.0", torch.zeros(8, 3, 3, 3))
    found = read_filters(subject)
    assert found.dead == tuple(range(8))
    assert found.duplicates == ()
    assert (filter_pictures(found) == 0.5).all()


def test_a_filter_that_never_answers_is_dead_once_images_are_seen(subject: NetworkProbe) -> None:
    with torch.no_grad():
        _layer(subject, "conv2.1").bias[4] = -1000.0  # its batch norm: the activation that follows gives zeros
        _layer(subject, "conv2.1").weight[5] = 0.0
    assert read_filters(subject, "conv2.0").dead == ()
    found = read_filters(subject, "conv2.0", _pixels())
    assert found.dead == (4, 5)
    assert set(found.order[-2:].tolist()) == {4, 5}


def test_the_weights_are_those_that_pixels_meet(subject: NetworkProbe) -> None:
    found = read_filters(subject)
    own = _layer(subject, "conv1.0").weight.detach().numpy()
    std = np.array(subject.plan.std)
    assert found.layer == "conv1.0"
    assert found.colour
    for channel in range(3):
        np.testing.assert_allclose(found.weights[:, channel], own[:, channel] / std[channel], rtol=1e-5)
    np.testing.assert_allclose(found.norms, np.sqrt((found.weights**2).sum(axis=(1, 2, 3))), rtol=1e-6)
    later = read_filters(subject, "conv2.0")
    assert not later.colour
    assert (later.weights == _layer(subject, "conv2.0").weight.detach().numpy()).all()


def test_the_order_goes_from_the_strongest_to_what_is_most_like_it(subject: NetworkProbe) -> None:
    angles = np.radians([0, 100, 20, 130, 45, 260, 15, 80])
    strength = np.array([1, 1, 1, 1, 3, 1, 1, 1])
    weight = np.zeros((8, 8, 3, 3))
    weight[:, 0, 0, 0], weight[:, 5, 2, 1] = strength * np.cos(angles), strength * np.sin(angles)
    _plant(subject, "conv2.0", weight)
    # from 45 degrees: 20 is nearest, then 15, 0, then 80 (80 away), 100, 130, and 260 last
    assert read_filters(subject, "conv2.0").order.tolist() == [4, 2, 6, 0, 7, 1, 3, 5]


def test_a_filter_is_drawn_around_grey_by_its_own_largest_weight() -> None:
    weights = np.array([[[[2.0, -1.0]]], [[[0.0, 0.01]]], [[[0.0, 0.0]]]], np.float32)
    filters = _filters(weights)
    assert filter_pictures(filters).tolist() == [[[[1, 0.25]]], [[[0.5, 1]]], [[[0.5, 0.5]]]]
    coloured = filter_pictures(_filters(np.array([[[[4.0]], [[-2.0]], [[0.0]]]], np.float32), colour=True))
    assert coloured.tolist() == [[[[1, 0.25, 0.5]]]]


def _filters(weights: NDArray[np.float32], colour: bool = False) -> Filters:
    norms = np.linalg.norm(weights.reshape(len(weights), -1), axis=1)
    return Filters("layer", weights, norms, np.argsort(-norms), (), (), colour, 1)


def test_the_first_layer_is_drawn_in_colours(subject: NetworkProbe) -> None:
    found = read_filters(subject)
    pixels = np.asarray(draw_filters(found))
    assert pixels.shape[1] == 8 * (45 + GAP) - GAP  # 3 cells of 15 pixels: the nearest to SIDE
    expected = np.rint(filter_pictures(found)[found.order[1], 2, 0] * 255)
    assert pixels[44, 45 + GAP, :3].tolist() == expected.tolist()
    assert len(choose_filters(found, 5)[0]) == 5
    assert set(choose_filters(found, 5)[0].tolist()) == set(np.argsort(-found.norms)[:5].tolist())


def test_later_layers_are_drawn_by_filter_and_input_channel(subject: NetworkProbe) -> None:
    weight = torch.full((16, 8, 3, 3), 0.1)
    weight[9] = 0.5
    weight[:, 6] = 0.4
    weight[9, 6, 1, 1] = -0.5
    _plant(subject, "conv3.0", weight)
    found = read_filters(subject, "conv3.0")
    rows, columns = choose_filters(found, 16)
    assert rows[0] == found.order[0] == 9
    assert (len(rows), len(columns), columns[0]) == (4, 4, 6)
    pixels = np.asarray(draw_filters(found, 16).convert("RGBA"))
    side = 3 * round(SIDE / 3)
    assert pixels.shape[:2] == (4 * (side + GAP) - GAP, 4 * (side + GAP) - GAP)
    assert pixels[side // 2, side // 2].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("groups", [8, 2])
def test_grouped_filters_are_doubles_only_on_the_same_inputs(subject: NetworkProbe, groups: int) -> None:
    convolution = nn.Conv2d(8, 8, 3, groups=groups)
    nn.init.normal_(convolution.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        convolution.weight[1] = 3 * convolution.weight[0]
        convolution.weight[7] = convolution.weight[0]
    subject.module.set_submodule("conv2.0", convolution)
    found = read_filters(subject, "conv2.0", _pixels())
    assert found.duplicates == (() if groups == 8 else ((0, 1),))
    assert found.weights.shape == (8, 8 // groups, 3, 3)
    assert draw_filters(found).width == (COLUMNS if groups == 8 else 4) * (45 + GAP) - GAP


def test_the_filters_of_a_network_that_sees_grey(cache: Path) -> None:
    grey = opened(cache, **SMALL, kernels=[3, 3, 3], channels=1)
    found = read_filters(grey, None, _pixels())
    assert not found.colour
    assert found.weights.shape == (8, 1, 3, 3)
    own = _layer(grey, "conv1.0").weight.detach().numpy()
    np.testing.assert_allclose(found.weights, own / grey.plan.std[0], rtol=1e-5)
    assert draw_filters(found).width == 8 * (45 + GAP) - GAP


def test_what_has_no_filters_says_so(subject: NetworkProbe, cache: Path) -> None:
    with pytest.raises(RecipeError, match="layer: 'conv2' is not a convolution of cnn") as raised:
        read_filters(subject, "conv2")
    assert raised.value.hint == "Its convolutions: conv1.0, conv2.0, conv3.0."
    with pytest.raises(RecipeError, match="layer: mlp has no convolution, and so no filters"):
        read_filters(opened(cache, model="mlp", fc=[16], size=32))


@pytest.mark.parametrize("freeze", ["none", "trunk"])
def test_looking_at_filters_leaves_no_trace(subject: NetworkProbe, freeze: str) -> None:
    def fail() -> None:
        with pytest.raises(RuntimeError):
            read_filters(subject, "conv1.0", _pixels(20))

    looks: list[Callable[[], Any]] = [lambda: read_filters(subject, None, _pixels()), fail]
    set_modes(subject.module, find_frozen(subject.network.staged, freeze))  # as in the midst of training
    for look in looks:
        with unchanged(subject.module):
            look()


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_the_filters_of_any_network_give_its_output_from_plain_pixels(model: str, cache: Path) -> None:
    subject = opened(cache, model=model, size=NETWORKS[model])
    pixels = _pixels(NETWORKS[model], 2)
    found = read_filters(subject, None, pixels)
    assert found.colour
    with capture_outputs(subject, [found.layer]) as told, torch.no_grad():
        subject.module(subject.images(pixels))
    layer = _layer(subject, found.layer)
    first, second = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    given = torch.stack([first - second, torch.zeros_like(first)])  # the second for what a bias adds
    answers = torch.func.functional_call(layer, {"weight": torch.from_numpy(found.weights)}, (given,))
    expected = told[found.layer][0] - told[found.layer][1]
    assert torch.allclose(answers[0] - answers[1], expected, atol=1e-3 * float(expected.abs().max()))
    names = list_convolutions(subject)
    for name in (names[len(names) // 2], names[-1]):
        later = read_filters(subject, name, pixels)
        assert later.weights.shape == _layer(subject, name).weight.shape
        assert draw_filters(later).mode == ("RGBA" if later.colour else "LA")
