"""Feature maps are the network's own outputs, the most telling channels first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_stages import NETWORKS
from torch import Tensor, nn

from budwood.errors import RecipeError
from budwood.explain.activations import (
    SIDE,
    STAGES,
    draw_filtered,
    draw_maps,
    draw_strip,
    filter_image,
    make_strip,
    read_maps,
)
from budwood.explain.image_grid import GAP
from budwood.explain.probe import FEWEST, NetworkProbe, list_places, reshape_to_maps
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.registry import TRUNK
from subjects import SMALL, opened, unchanged

QUICK = ("resnet18", "timm:mobilenetv4_conv_small", "timm:vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def subject(cache: Path) -> NetworkProbe:
    """A small convolutional network with batch norms."""
    return opened(cache, **SMALL, kernels=[3, 3, 3])


def _pixels(size: int = 32, count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _forward(subject: NetworkProbe, pixels: NDArray[np.uint8]) -> dict[str, Tensor]:
    """The outputs of the parts of a plain sequence, computed one after the other."""
    found, values = {}, subject.images(pixels)
    with torch.no_grad():
        for name, part in subject.module.named_children():
            values = part(values)
            found[name] = values.clone()
    return found


def test_the_maps_are_the_outputs_of_the_network(subject: NetworkProbe) -> None:
    pixels = _pixels()
    expected = _forward(subject, pixels)
    for stage in ("conv1", "conv2", "conv3"):
        maps = read_maps(subject, pixels, stage)
        assert maps.name == stage
        np.testing.assert_allclose(maps.values, expected[stage].numpy(), atol=1e-6)
    with torch.no_grad():
        plain = subject.module.get_submodule("conv2.0")(expected["conv1"]).numpy()
    np.testing.assert_allclose(read_maps(subject, pixels, "conv2.0").values, plain, atol=1e-6)


def test_how_active_and_how_varied_channels_are(cache: Path) -> None:
    subject = opened(cache, **SMALL, kernels=[3, 3, 3])
    norm = subject.module.get_submodule("conv1.1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.bias[2] = -1000.0  # never above zero
        norm.weight[5], norm.bias[5] = 0.0, 3.0  # always 3
    maps = read_maps(subject, _pixels(), "conv1")
    values = maps.values.transpose(1, 0, 2, 3).reshape(8, -1)
    assert maps.active.tolist() == pytest.approx([np.mean(np.abs(channel)) for channel in values], rel=1e-4)
    assert maps.varied.tolist() == pytest.approx([np.std(channel) for channel in values], rel=1e-3, abs=1e-6)
    assert (maps.active[2], maps.varied[2]) == (0, 0)
    assert (maps.active[5], maps.varied[5]) == (3, 0)


def test_a_name_is_a_stage_or_a_layer(subject: NetworkProbe, cache: Path) -> None:
    with pytest.raises(RecipeError, match="layer: 'conv9' is not a layer of cnn") as raised:
        read_maps(subject, _pixels(), "conv9")
    assert "conv1, conv2, conv3" in raised.value.hint
    with pytest.raises(RecipeError, match="layer: fc1 of cnn has no feature map") as raised:
        read_maps(subject, _pixels(), "fc1")
    assert raised.value.hint == "Stages with feature maps: conv1, conv2, conv3."
    with pytest.raises(RecipeError, match=r"layer: fc1\.0 of cnn has no feature map"):
        read_maps(subject, _pixels(), "fc1.0")
    with pytest.raises(RecipeError, match=f"layer: {TRUNK} of cnn has no feature map"):
        read_maps(subject, _pixels(), TRUNK)
    with pytest.raises(RecipeError, match="layer: fc1 of mlp has no feature map") as raised:
        read_maps(opened(cache, model="mlp", fc=[16, 16], size=32), _pixels(), "fc1")
    assert raised.value.hint == "Stages with feature maps: no stage has one."


def test_the_last_map_of_a_network_that_was_cut(cache: Path) -> None:
    cut = opened(cache, model="resnet18", size=64, cut="layer2")
    assert read_maps(cut, _pixels(64), "layer2").values.shape == (3, 128, 8, 8)
    assert make_strip(cut, _pixels(64)[0]).stages[-1].name == "layer2"


def test_the_image_after_chosen_filters(subject: NetworkProbe) -> None:
    pixels = _pixels()
    seen = filter_image(subject, pixels[0], "conv2.0", [5, 0])
    expected = read_maps(subject, pixels[:1], "conv2.0").values[0]
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, expected[[5, 0]], atol=1e-6)
    with pytest.raises(RecipeError, match=r"filter: conv2\.0 of cnn has no filter 8") as raised:
        filter_image(subject, pixels[0], "conv2.0", [0, 8])
    assert raised.value.hint == "It has 8: choose from 0 to 7."
    with pytest.raises(RecipeError, match=r"layer: 'fc1\.0' is not a convolution of cnn"):
        filter_image(subject, pixels[0], "fc1.0", [0])


def test_a_strip_shows_the_channels_of_the_largest_variance(subject: NetworkProbe) -> None:
    pixels = _pixels()
    strip = make_strip(subject, pixels[0], 4)
    mapped = [(place.name, place.shape) for place in list_places(subject) if place.side]
    assert [(stage.name, stage.shape) for stage in strip.stages] == mapped
    assert [name for name, _ in mapped] == ["conv1", "conv2", "conv3"]
    assert strip.left_out == ()
    for stage in strip.stages:
        values = read_maps(subject, pixels[:1], stage.name).values[0]
        variance = values.var(axis=(1, 2))
        assert variance[stage.channels].tolist() == sorted(variance.tolist(), reverse=True)[:4]
        first = values[stage.channels[0]]
        np.testing.assert_allclose(
            stage.values[0], (first - first.min()) / (first.max() - first.min()), rtol=1e-5, atol=1e-6
        )


def test_a_strip_of_many_stages_is_spread_over_them(cache: Path) -> None:
    subject = opened(cache, model="densenet121", size=64)
    maps = [place.name for place in list_places(subject) if (place.side or 0) >= FEWEST and place.name != TRUNK]
    strip = make_strip(subject, _pixels(64)[0])
    names = [stage.name for stage in strip.stages]
    assert len(maps) > len(names) == STAGES
    assert (names[0], names[-1]) == (maps[0], maps[-1])
    places = [maps.index(name) for name in names]
    assert max(np.diff(places)) - min(np.diff(places)) <= 1
    assert set(names) | set(strip.left_out) == set(maps)


def test_a_network_without_maps_has_no_strip(cache: Path) -> None:
    with pytest.raises(RecipeError, match="mlp: no stage has a feature map, so there are no feature maps to show"):
        make_strip(opened(cache, model="mlp", fc=[16, 16], size=32), _pixels()[0])


def test_pictures_have_a_tile_for_each_channel(subject: NetworkProbe) -> None:
    pixels = _pixels()
    strip = make_strip(subject, pixels[0])
    row = (6 * (SIDE + GAP) - GAP, SIDE)
    assert [picture.size for picture in draw_strip(strip)] == [row] * 3
    maps = read_maps(subject, pixels, "conv3")
    assert draw_maps(maps, 2, 8).size == (row[0], 2 * (SIDE + GAP) - GAP)
    assert draw_filtered(filter_image(subject, pixels[0], "conv1.0", [3])).size == (SIDE, SIDE)


def test_maps_of_a_network_that_sees_grey(cache: Path) -> None:
    grey = opened(cache, **SMALL, kernels=[3, 3, 3], channels=1)
    expected = _forward(grey, _pixels())
    np.testing.assert_allclose(read_maps(grey, _pixels(), "conv1").values, expected["conv1"].numpy(), atol=1e-6)
    assert len(make_strip(grey, _pixels()[0]).stages) == 3


@pytest.mark.parametrize("freeze", ["none", "trunk"])
def test_looking_at_maps_leaves_no_trace(subject: NetworkProbe, freeze: str) -> None:
    def fail(look: Callable[[], Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            look()

    looks: list[Callable[[], Any]] = [
        lambda: read_maps(subject, _pixels(), "conv2"),
        lambda: read_maps(subject, _pixels(), "conv2.0"),
        lambda: filter_image(subject, _pixels()[0], "conv2.0", [0]),
        lambda: make_strip(subject, _pixels()[0]),
        lambda: fail(lambda: read_maps(subject, _pixels(), "fc1.0"), RecipeError),
        lambda: fail(lambda: read_maps(subject, _pixels(1), "conv3.0"), RuntimeError),
        lambda: fail(lambda: filter_image(subject, _pixels(20)[0], "conv2.0", [0]), RuntimeError),
    ]
    set_modes(subject.module, find_frozen(subject.network.staged, freeze))  # as in the midst of training
    for look in looks:
        with unchanged(subject.module):
            look()


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_the_maps_of_any_network_are_its_own(model: str, cache: Path) -> None:
    subject = opened(cache, model=model, size=NETWORKS[model])
    pixels = _pixels(NETWORKS[model], 2)
    strip = make_strip(subject, pixels[0])
    assert 1 <= len(strip.stages) <= STAGES
    for name in (strip.stages[0].name, strip.stages[-1].name):
        told: list[Tensor] = []
        part = subject.module.get_submodule(name)
        handle = part.register_forward_hook(lambda part, given, output, told=told: told.append(output.clone()))
        with torch.no_grad():
            subject.module(subject.images(pixels))
        handle.remove()
        expected = reshape_to_maps(told[0])
        assert expected is not None
        values = read_maps(subject, pixels, name).values
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-4 * max(1.0, float(expected.abs().max())))
