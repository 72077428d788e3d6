"""Any layer is found by its name or number, and what it gives is what the network computes there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from budwood.errors import RecipeError
from budwood.explain.activations import read_maps
from budwood.explain.convolutions import read_filters
from budwood.explain.feature_visualization import VisualizationTarget, maximise
from budwood.explain.layer_outputs import describe_layer, find_layers, list_probe_layers, make_layer_function
from budwood.explain.probe import NetworkProbe, eval_mode
from budwood.networks.stages import trace_stages
from budwood.networks.surgery import BuiltNetwork
from subjects import SMALL, opened, plan_with, unchanged


class _Two(nn.Module):
    """Gives two values, not one."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, -images


class _Windows(nn.Module):
    """Gives four rows for each image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(4 * len(images), -1)


class _Block(nn.Module):
    """Runs one activation twice, under two names, in place, with a dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.act = self.relu
        self.two = _Two()
        self.windows = _Windows()
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.conv(self.drop(self.relu(images + 0.5)))
        same, _ = self.two(inner)
        self.windows(inner)
        seen: Tensor = self.act(same)
        return seen


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = _Block()
        self.flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flat(self.block(self.stem(images))))
        return logits


@pytest.fixture
def odd() -> NetworkProbe:
    torch.manual_seed(0)
    module = _Odd().eval()
    plan = plan_with(name="odd", size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    return NetworkProbe(BuiltNetwork(module, trace_stages(module, "head"), frozenset()), plan, ("a", "b"), "cpu")


def _pixels(size: int = 8, count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_layers_are_numbered_in_the_order_in_which_they_run(odd: NetworkProbe) -> None:
    with unchanged(odd.module):
        layers = list_probe_layers(odd)
    assert [(layer.number, layer.label) for layer in layers if layer.number] == [
        (1, "stem"),
        (2, "block.relu#1"),
        (3, "block.conv"),
        (4, "block.two"),
        (5, "block.windows"),
        (6, "block.relu#2"),
        (7, "flat.0"),
        (8, "flat.1"),
        (9, "head"),
    ]
    assert {layer.label for layer in layers if not layer.number} == {"block.drop", "block", "flat"}
    assert [layer.label for layer in layers if layer.idle] == ["block.drop"]
    assert describe_layer(layers[1]) == "ReLU, layer 2, run 1 of 2"


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("block.conv", "block.conv"),
        ("conv", "block.conv"),
        ("first", "stem"),
        ("last", "block.conv"),
        ("layer 6", "block.relu#2"),
        ("2", "block.relu#1"),
        ("block.relu", "block.relu#2"),
        ("block.relu#1", "block.relu#1"),
        ("block.act#1", "block.relu#1"),
        ("block", "block"),
    ],
)
def test_a_layer_has_a_name_and_a_number(odd: NetworkProbe, place: str, label: str) -> None:
    assert [layer.label for layer in find_layers(odd, [place])] == [label]


def test_the_25th_layer_of_a_residual_network(cache: Path) -> None:
    resnet = opened(cache, model="resnet18", size=32)
    (layer,) = find_layers(resnet, ["layer 25"])
    assert (layer.name, layer.kind) == ("layer2.1.conv1", "Conv2d")
    assert find_layers(resnet, ["layer1"])[0].kind == "Sequential"  # a name goes before a number


def test_each_run_of_a_module_gives_its_own_maps(odd: NetworkProbe) -> None:
    images = odd.images(_pixels())
    block = odd.module.get_submodule("block")
    assert isinstance(block, _Block)
    with torch.no_grad():
        first = torch.relu(odd.module.get_submodule("stem")(images) + 0.5)
        second = torch.relu(block.conv(first))
        before = block.conv(first)
    for place, expected in {"block.relu#1": first, "block.relu#2": second, "block.conv": before}.items():
        with unchanged(odd.module):
            maps = read_maps(odd, _pixels(), place)
        assert maps.name == place
        np.testing.assert_allclose(maps.values, expected.numpy(), atol=1e-6)


def test_gradients_reach_the_image_from_a_layer_inside_a_block(odd: NetworkProbe) -> None:
    (layer,) = find_layers(odd, ["block.conv"])
    images = odd.images(_pixels()).requires_grad_()
    with eval_mode(odd):
        make_layer_function(odd, layer)(images)[:, 1].mean().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert bool(images.grad.abs().sum() > 0)


def test_what_a_layer_inside_a_block_looks_for(odd: NetworkProbe) -> None:
    with unchanged(odd.module):
        inside, again = maximise(odd, [VisualizationTarget("layer 3", 1), VisualizationTarget("conv", 1)], steps=8)
        (run,) = maximise(odd, [VisualizationTarget("block.relu#1", 0)], steps=2)
    assert inside.target == again.target == VisualizationTarget("block.conv", 1)
    assert inside.after > inside.before
    shown = read_maps(odd, inside.pixels[None], "block.conv").values[0, 1].mean()
    assert inside.after == pytest.approx(float(shown), abs=1e-4)
    assert run.target.place == "block.relu#1"


@pytest.mark.parametrize(
    ("place", "message", "hint"),
    [
        ("block.con", "place: 'block.con' is not a layer of odd", "Did you mean 'block.conv'"),
        ("block.unused", "place: 'block.unused' of odd is not run as a layer of its own", "--layers` lists all layers"),
        ("block.relu#3", "place: 'block.relu#3' is not a layer of odd, which runs block.relu 2 times", "block.relu#2"),
        ("layer 10", "place: 'layer 10' is not a layer of odd, which has 9 numbered layers", "Choose from 1 to 9"),
        ("99", "place: '99' is not a layer of odd, which has 9 numbered layers", "Choose from 1 to 9"),
        ("block.two", "place: block.two of odd gives 2 values, not one tensor", "Choose the layer that holds it"),
        (
            "block.windows",
            "place: block.windows of odd gives 4 x 64 for one image, not a row for each",
            "that holds it",
        ),
    ],
)
def test_a_layer_that_is_not_there_or_gives_no_tensor(odd: NetworkProbe, place: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as raised:
        find_layers(odd, [place])
    assert hint in raised.value.hint


def test_an_ending_that_several_layers_have(cache: Path) -> None:
    with pytest.raises(RecipeError, match=r"place: '0\.relu' could be layer1\.0\.relu or layer2\.0\.relu") as raised:
        find_layers(opened(cache, model="resnet18", size=32), ["0.relu"])
    assert raised.value.hint == "Write the full name."


def test_a_network_without_convolutions_has_no_first(cache: Path) -> None:
    with pytest.raises(RecipeError, match="place: mlp has no convolution, of which 'first' could be one") as raised:
        find_layers(opened(cache, model="mlp", fc=[16], size=16), ["first"])
    assert raised.value.hint.startswith("Name a layer; ")


def test_vectors_have_no_map_but_units(odd: NetworkProbe) -> None:
    with pytest.raises(RecipeError, match="layer: flat of odd has no feature map; it gives 4 values for an image"):
        read_maps(odd, _pixels(), "flat")
    (unit,) = maximise(odd, [VisualizationTarget("flat", 3)], steps=2)
    assert unit.target.channel == 3


def test_tokens_are_maps_and_heads_of_attention_are_not(cache: Path) -> None:
    vit = opened(cache, model="timm:vit_tiny_patch16_224", size=64)
    assert read_maps(vit, _pixels(64, 1), "blocks.3.mlp.fc1").values.shape == (1, 768, 4, 4)
    with pytest.raises(RecipeError, match=r"blocks\.3\.attn\.q_norm of \S+ has no feature map; it gives 3 x 17 x 64"):
        read_maps(vit, _pixels(64, 1), "blocks.3.attn.q_norm")


def test_filters_are_found_like_other_layers(cache: Path) -> None:
    subject = opened(cache, **SMALL)
    assert read_filters(subject, "last").layer == "conv3.0"
    assert read_filters(subject, "layer 1").layer == "conv1.0"
    with pytest.raises(RecipeError, match=r"layer: 'layer 2' is not a convolution of cnn"):
        read_filters(subject, "layer 2")
