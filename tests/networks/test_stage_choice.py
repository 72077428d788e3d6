"""Stages to pool beside the trunk and to end what is frozen, of networks of many kinds, by rule."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Final

import pytest

from budwood.config.recipe import Recipe
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.registry import TRUNK
from budwood.networks.stage_choice import choose_freeze_stage, choose_taps
from budwood.networks.surgery import plan_network

LITE_TAPS: Final = ("blocks.3", "blocks.4", "blocks.5", "blocks.6")
VIT: Final = "encoder.layers.encoder_layer_"
CHOSEN: Final[dict[str, tuple[tuple[str, ...], str | None]]] = {
    "tf_efficientnet_lite0": (LITE_TAPS, "blocks.4"),
    "tf_efficientnet_lite1": (LITE_TAPS, "blocks.4"),
    "tf_efficientnet_lite2": (LITE_TAPS, "blocks.4"),
    "resnet18": (("layer2", "layer3"), "layer3"),
    "resnet50": (("layer2", "layer3"), None),  # its map of 14 x 14 has 1,024 channels
    "convnext_tiny": (("features.3", "features.5"), "features.5"),
    "swin_t": (("features.3", "features.5"), "features.5"),  # maps with the channels last
    "mobilenet_v3_small": (("features.6", "features.8", "features.11", "features.12"), "features.8"),
    "densenet121": (("features.denseblock2", "features.denseblock3"), "features.transition2"),
    "vgg11": (("features.14", "features.19"), None),
    "vit_b_16": ((f"{VIT}8", f"{VIT}9", f"{VIT}10"), None),  # as many values as the image after each block
    "timm:vit_tiny_patch16_224": (("blocks.8", "blocks.9", "blocks.10"), "blocks.7"),
    "timm:mixer_s32_224": (("blocks.4", "blocks.5", "blocks.6"), "blocks.4"),
    "mlp": ((), None),
}


@cache
def plan_of(name: str, freeze: str = "trunk", size: int | None = None) -> NetworkPlan:
    own: dict[str, Any] = {"fc": (8,), "weights": "none", "epochs": 1} if name == "mlp" else {}
    return plan_network(Recipe(model=name, freeze=freeze, size=size, **own), 2)


@pytest.mark.parametrize("name", CHOSEN)
def test_the_rule_chooses(name: str) -> None:
    plan = plan_of(name)
    assert (choose_taps(plan), choose_freeze_stage(plan)) == CHOSEN[name]


@pytest.mark.parametrize("name", CHOSEN)
def test_taps_are_stages_in_order_before_what_the_trunk_pools(name: str) -> None:
    plan = plan_of(name)
    taps = choose_taps(plan)
    order = [row.name for row in plan.stages if row.name not in (TRUNK, plan.head)]
    places = [order.index(tap) for tap in taps]
    assert places == sorted(set(places))
    assert len(taps) <= 4
    assert all(sum(row.macs for row in plan.places[place + 1 :]) > 0 for place in places)


@pytest.mark.parametrize("name", [name for name, (_, stage) in CHOSEN.items() if stage])
def test_a_freeze_stage_has_a_small_map_and_leaves_a_third(name: str) -> None:
    stage = choose_freeze_stage(plan_of(name))
    plan = plan_of(name, f"upto:{stage}")
    assert plan.prefix is not None
    assert plan.prefix == stage
    assert plan.prefix_shape is not None
    assert 2 * math.prod(plan.prefix_shape) <= 3 * plan.size**2
    names = [row.name for row in plan.stages]
    trained = sum(row.macs for row in plan.stages[names.index(plan.prefix) + 1 :])
    assert 0.1 <= trained / plan.macs <= 0.4
    assert any(row.trainable for row in plan.places)


def test_the_size_of_the_images_does_not_change_the_stages_of_a_convolutional_network() -> None:
    for size in (160, 288):
        plan = plan_of("tf_efficientnet_lite0", size=size)
        assert (choose_taps(plan), choose_freeze_stage(plan)) == CHOSEN["tf_efficientnet_lite0"]


def test_after_a_cut_the_stages_are_chosen_from_what_is_left() -> None:
    plan = plan_network(Recipe(model="tf_efficientnet_lite0", cut="blocks.5"), 2)
    assert choose_taps(plan) == ("blocks.2", "blocks.3", "blocks.4")
