"""A name finds one network, with what its source says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from budwood.config.options import SMALL_NETWORK_OPTIONS
from budwood.errors import RecipeError
from budwood.networks.catalogue import list_models
from budwood.networks.registry import PACKAGED, find_network, list_networks


def test_names_are_looked_up_in_order_and_a_source_can_be_asked() -> None:
    assert find_network("resnet18").source == "torchvision"
    assert find_network("timm:resnet18").source == "timm"
    assert find_network("tf_efficientnet_lite0").source == "timm"
    assert find_network("cnn", {"widths": ()}).source == "budwood"


def test_an_unknown_name_or_source_is_told_what_is_like_it() -> None:
    with pytest.raises(RecipeError, match="no network 'resnet19'") as caught:
        find_network("resnet19")
    assert "Did you mean 'resnet1" in caught.value.hint
    assert "`budwood models '*resnet*'` searches" in caught.value.hint
    with pytest.raises(RecipeError, match="unknown source of networks 'keras'") as caught:
        find_network("keras:resnet18")
    assert caught.value.hint == "Valid before the colon: budwood, torchvision, timm."


HEADS = (
    "alexnet vgg16_bn resnet50 densenet121 mobilenet_v2 mobilenet_v3_large efficientnet_v2_s convnext_tiny swin_t "
    "vit_b_16 googlenet mnasnet0_5 shufflenet_v2_x1_0"
)


@pytest.mark.parametrize("name", HEADS.split())
def test_the_head_is_the_layer_that_gives_the_logits(name: str) -> None:
    net = find_network(name)
    with torch.device("meta"):
        module = net.make(3, net.size)
    head = module.get_submodule(net.head)
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == 1000
    assert sum(p.numel() for n, p in module.named_parameters() if not n.startswith("aux")) == net.parameters


def test_every_network_of_torchvision_has_its_published_facts() -> None:
    for name in list_networks()["torchvision"]:
        net = find_network(f"torchvision:{name}")
        assert 0.5 < (net.accuracy or 0) < 0.9
        assert (net.parameters or 0) > 5e5
        assert net.origins[0].url.endswith(net.origins[0].file)


def test_packaged_weights_name_networks_that_exist() -> None:
    for name, (package, accuracy) in PACKAGED.items():
        net = find_network(name)
        assert net.origins[0].package == package
        assert net.accuracy == accuracy


def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    found, others = list_models(None, tmp_path)
    by_name = {entry.name: entry for entry in found}
    assert all(by_name[name].local for name in PACKAGED)
    assert set(SMALL_NETWORK_OPTIONS) <= set(by_name)
    assert by_name["resnet18"].parameters == 11_689_512
    assert others > 1000
    matches, rest = list_models("*lite0", tmp_path)
    assert {entry.name for entry in matches} == {"efficientnet_lite0", "tf_efficientnet_lite0"}
    assert {entry.parameters for entry in matches} == {4_652_008}
    assert rest == 0
