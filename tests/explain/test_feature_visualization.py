"""What a class, a channel or a unit looks for is found where it was planted, and nothing is made up where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_stages import NETWORKS
from torch import nn

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.explain.feature_visualization import Maximisation, VisualizationTarget, maximise
from budwood.explain.probe import NetworkProbe, make_probe
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.plan import spec_of
from budwood.networks.registry import TRUNK
from budwood.networks.weights import describe_random
from budwood.progress import Silent
from subjects import SMALL, opened, unchanged

QUICK = ("resnet18", "timm:mobilenetv4_conv_small", "timm:vit_tiny_patch16_224")
SIDE = 16
LOGITS = [VisualizationTarget(None, number) for number in range(3)]


def _planted(cache: Path, channels: int = 3, classes: int = 3) -> NetworkProbe:
    """A network whose first logit is the correlation with a ring, whose second asks for red (or light) in the upper
    left corner and the opposite elsewhere, and whose third is always the same."""
    recipe = Recipe(model="cnn", weights="none", optimizer="adam", size=SIDE, channels=channels, **_identity(channels))
    names = tuple(f"class {number}" for number in range(classes))
    subject = make_probe(spec_of(recipe, classes, describe_random("default", 0), cache), names)
    convolution, head = subject.module.get_submodule("conv1.0"), subject.module.get_submodule("head")
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(channels).view(channels, channels, 1, 1))
        convolution.bias.fill_(5.0)  # type: ignore[union-attr]  # so that nothing is below zero
        head.weight.zero_()
        head.weight[0] = torch.from_numpy(np.stack([_ring()] * channels)).flatten()
        if classes > 1:
            head.weight[1] = torch.from_numpy(_corner(channels)).flatten()
    return subject


def _identity(channels: int) -> dict[str, Any]:
    one = {"kernels": [1], "strides": [1], "pools": [1], "padding": 0, "conv_norm": False, "activation": "relu"}
    return {"widths": [channels], "fc": [], **one}


def _ring() -> NDArray[np.float32]:
    up, across = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    distance = np.hypot(up, across)
    ring = np.where((distance > 3) & (distance < 6), 1.0, -1.0)
    centred: NDArray[np.float32] = (ring - ring.mean()).astype(np.float32)
    return centred


def _corner(channels: int) -> NDArray[np.float32]:
    corner = np.zeros((channels, SIDE, SIDE), np.float32)
    corner[0] = -1.0
    corner[0, : SIDE // 2, : SIDE // 2] = 3.0
    return corner


def _likeness(found: Maximisation, pattern: NDArray[np.float32]) -> float:
    return float(np.corrcoef(found.pixels.mean(axis=-1).ravel(), pattern.ravel())[0, 1])


@pytest.mark.parametrize("channels", [3, 1])
def test_a_planted_feature_is_found(cache: Path, channels: int) -> None:
    ring, corner, nothing = maximise(_planted(cache, channels), LOGITS)
    assert ring.pixels.shape == (SIDE, SIDE, 3)
    assert ring.pixels.dtype == np.uint8
    assert _likeness(ring, _ring()) > 0.7
    assert abs(_likeness(nothing, _ring())) < 0.2  # the noise that drawing begins with
    half = SIDE // 2
    first = corner.pixels[..., 0].astype(float)
    assert first[:half, :half].mean() > first[half:, half:].mean() + 60
    assert ring.after > 2 * abs(ring.noise) + 5
    assert corner.after > corner.before
    if channels == 1:
        assert (ring.pixels == ring.pixels[..., :1]).all()


def test_the_activations_are_those_of_the_picture(cache: Path) -> None:
    subject = _planted(cache)
    ring, _, nothing = maximise(subject, LOGITS, steps=8)
    with torch.no_grad():
        logits = subject.module(subject.images(np.stack([ring.pixels, nothing.pixels])))
    assert ring.after == pytest.approx(float(logits[0, 0]), rel=1e-4)
    assert ring.after > ring.before
    noise = np.random.default_rng(0).integers(0, 256, (400, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = subject.module(subject.images(noise))[:, 0]
    assert abs(ring.noise - float(expected.mean())) < 5 * float(expected.std()) / 4


def test_where_nothing_can_be_reached_the_record_says_so(cache: Path) -> None:
    ring, _, nothing = maximise(_planted(cache), LOGITS, steps=4)
    assert (ring.flat, nothing.flat) == (False, True)
    assert nothing.after == nothing.before == nothing.noise
    subject = opened(cache, **SMALL)
    norm = subject.module.get_submodule("conv2.1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.bias[4] = -1000.0
    live, dead = maximise(subject, [VisualizationTarget("conv2", 3), VisualizationTarget("conv2", 4)], steps=4)
    assert (live.flat, dead.flat) == (False, True)
    assert dead.after == 0


def test_a_target_is_drawn_alike_whatever_is_drawn_with_it(cache: Path) -> None:
    subject = opened(cache, **SMALL)
    several = maximise(
        subject,
        [
            VisualizationTarget(None, 2),
            VisualizationTarget("conv3", 5),
            VisualizationTarget(None, 0),
            VisualizationTarget(None, 2),
        ],
        steps=6,
    )
    assert [found.target for found in several] == [
        VisualizationTarget(None, 2),
        VisualizationTarget("conv3", 5),
        VisualizationTarget(None, 0),
        VisualizationTarget(None, 2),
    ]
    (alone,) = maximise(subject, [VisualizationTarget(None, 0)], steps=6)
    assert np.abs(several[2].pixels.astype(int) - alone.pixels).max() <= 1
    assert (several[0].pixels == several[3].pixels).all()
    (other,) = maximise(subject, [VisualizationTarget(None, 0)], steps=6, seed=1)
    assert (other.pixels != alone.pixels).any()


def test_channels_and_units_are_raised_at_any_place(cache: Path) -> None:
    subject = opened(cache, **SMALL)
    targets = [
        VisualizationTarget("conv1", 0),
        VisualizationTarget("conv3", 5),
        VisualizationTarget("fc1", 2),
        VisualizationTarget(TRUNK, 3),
    ]
    for found in maximise(subject, targets, steps=24):
        assert found.flat or found.after > max(found.before, found.noise)


def test_a_target_that_is_not_there(cache: Path) -> None:
    subject = opened(cache, **SMALL)
    with pytest.raises(RecipeError, match="target: there is no class 3") as raised:
        maximise(subject, [VisualizationTarget(None, 0), VisualizationTarget(None, 3)])
    assert raised.value.hint == "It has 3: choose from 0 to 2."
    with pytest.raises(RecipeError, match="conv3 of cnn has no channel 16"):
        maximise(subject, [VisualizationTarget("conv3", 16)])
    with pytest.raises(RecipeError, match="place: 'conv9' is not a layer of cnn"):
        maximise(subject, [VisualizationTarget("conv9", 0)])


def test_two_classes(cache: Path) -> None:
    ring, corner = maximise(_planted(cache, classes=2), LOGITS[:2], steps=32)
    assert _likeness(ring, _ring()) > 0.7 > _likeness(corner, _ring())


class _Counting(Silent):
    """Counts steps, and fails at one of them."""

    def __init__(self, failing: int = -1) -> None:
        self.total, self.steps, self.failing = 0, 0, failing

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Counts."""
        self.total = total

        def count(steps: int) -> None:
            self.steps += steps
            if self.steps == self.failing:
                raise KeyboardInterrupt

        yield count


def test_every_step_is_told(cache: Path) -> None:
    counting = _Counting()
    maximise(
        opened(cache, **SMALL),
        [VisualizationTarget(None, 0), VisualizationTarget(None, 1), VisualizationTarget("conv1", 0)],
        5,
        progress=counting,
    )
    assert counting.steps == counting.total == 10


@pytest.mark.parametrize("freeze", ["none", "trunk"])
@pytest.mark.parametrize("failing", [-1, 2])
def test_drawing_leaves_no_trace(cache: Path, freeze: str, failing: int) -> None:
    subject = opened(cache, **SMALL)
    set_modes(subject.module, find_frozen(subject.network.staged, freeze))  # as in the midst of training
    with unchanged(subject.module):
        state = torch.get_rng_state()
        try:
            maximise(
                subject, [VisualizationTarget(None, 0), VisualizationTarget("conv2", 1)], 3, progress=_Counting(failing)
            )
        except KeyboardInterrupt:
            assert failing == 2
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_any_network_says_what_it_looks_for(model: str, cache: Path) -> None:
    subject = opened(cache, model=model, size=NETWORKS[model])
    places = [place.name for place in subject.plan.stages]
    targets = [VisualizationTarget(None, 1), VisualizationTarget(places[len(places) // 2], 0)]
    for found in maximise(subject, targets, steps=3):
        assert found.pixels.shape == (NETWORKS[model], NETWORKS[model], 3)
        assert np.isfinite([found.before, found.after, found.noise]).all()
