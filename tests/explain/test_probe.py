"""A network is looked at wherever one wants, and is afterwards what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from budwood.errors import RecipeError
from budwood.explain.probe import (
    NetworkProbe,
    capture_outputs,
    compute_stage_outputs,
    default_place,
    eval_mode,
    find_map_side,
    find_place,
    list_places,
    reshape_to_maps,
    slice_probe,
)
from budwood.inference.pytorch_backend import WithPreprocessing
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.registry import TRUNK
from subjects import SMALL, opened, unchanged


@pytest.fixture(scope="module")
def subject(cache: Path) -> NetworkProbe:
    """A small convolutional network with batch norms."""
    return opened(cache, **SMALL)


def _pixels(size: int, count: int = 2) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _looks(subject: NetworkProbe) -> dict[str, Callable[[], Any]]:
    images = subject.images(_pixels(32))
    first = next(name for name, part in subject.module.named_modules() if isinstance(part, nn.Conv2d))

    def hear() -> None:
        with capture_outputs(subject, [first]) as told:
            subject.module(images)
        assert told[first].shape[0] == 2

    def fail() -> None:
        with pytest.raises(RuntimeError, match="channels"), capture_outputs(subject, [first]):
            subject.module(images[:, :1])

    def miss() -> None:
        with pytest.raises(RecipeError), capture_outputs(subject, [first, "nothing"]):
            pass

    return {
        "outputs": lambda: compute_stage_outputs(subject, images, [place.name for place in list_places(subject)]),
        "heard": hear,
        "failed": fail,
        "missed": miss,
    }


@pytest.mark.parametrize("look", ["outputs", "heard", "failed", "missed"])
@pytest.mark.parametrize("freeze", [None, "none", "trunk"])
def test_a_look_leaves_no_trace(subject: NetworkProbe, look: str, freeze: str | None) -> None:
    subject.module.eval()
    if freeze:
        set_modes(subject.module, find_frozen(subject.network.staged, freeze))  # as in the midst of training
    with unchanged(subject.module):
        _looks(subject)[look]()


def test_a_subject_sees_what_the_engine_sees(subject: NetworkProbe) -> None:
    pixels = _pixels(32)
    with eval_mode(subject) as module, torch.no_grad():
        expected = WithPreprocessing(module, subject.plan)(torch.from_numpy(pixels))
        assert torch.equal(module(subject.images(pixels)), expected)


def test_outputs_at_places_are_those_of_the_network(subject: NetworkProbe) -> None:
    images = subject.images(_pixels(32))
    found = compute_stage_outputs(subject, images, [place.name for place in list_places(subject)])
    for place in list_places(subject):
        assert found[place.name].shape[1:] == place.shape
    with eval_mode(subject) as module, torch.no_grad():
        for name, values in found.items():
            assert torch.allclose(slice_probe(subject, name, None)(values.clone()), module(images), atol=1e-5)


def test_the_target_is_the_last_map(subject: NetworkProbe) -> None:
    sides = {place.name: place.side for place in list_places(subject) if place.side}
    assert sides[default_place(subject)] == 5
    assert list(sides)[-1] == default_place(subject)


def test_the_target_of_a_transformer_is_before_its_class_token_is_all_that_counts(cache: Path) -> None:
    vit = opened(cache, model="timm:vit_tiny_patch16_224", size=64)
    assert [place.name for place in list_places(vit) if place.side][-2:] == ["blocks.11", "norm"]
    assert default_place(vit) == "blocks.10"


def test_a_network_without_maps_has_no_target(cache: Path) -> None:
    with pytest.raises(RecipeError, match="mlp: no stage has a feature map"):
        default_place(opened(cache, model="mlp", fc=[16, 16], size=32))


def test_places_by_name(subject: NetworkProbe) -> None:
    name = list_places(subject)[0].name
    assert find_place(subject, name) == name
    assert find_place(subject, TRUNK) == TRUNK
    with pytest.raises(RecipeError, match="stage: 'layer9' is not a stage of this network"):
        find_place(subject, "layer9", "stage")
    with (
        pytest.raises(RecipeError, match="layer: 'layer9' is not a layer of cnn"),
        capture_outputs(subject, ["layer9"]),
    ):
        pass


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ((16, 7, 7), 7),
        ((7, 7, 16), 7),
        ((49, 16), 7),
        ((50, 16), 7),
        ((198, 16), 14),
        ((16, 1, 1), 1),
        ((16,), None),
        ((23, 16), None),
    ],
)
def test_maps_of_every_layout(shape: tuple[int, ...], side: int | None) -> None:
    assert find_map_side(shape) == side


def test_tokens_lie_where_they_were_cut_from() -> None:
    maps = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    tokens = torch.cat([torch.zeros(2, 1, 3), maps.flatten(2).transpose(1, 2)], dim=1)
    found = reshape_to_maps(tokens)
    assert found is not None
    assert torch.equal(found, maps)
    last = reshape_to_maps(maps.permute(0, 2, 3, 1))
    assert last is not None
    assert torch.equal(last, maps)
