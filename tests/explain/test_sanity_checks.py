"""Maps that do not depend on what was learned are found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from budwood.data.loading import Pixels
from budwood.errors import RecipeError
from budwood.explain.heatmaps import Maps
from budwood.explain.probe import NetworkProbe
from budwood.explain.saliency import Classes
from budwood.explain.sanity_checks import LIKE, check_sanity, list_cascade_places, randomise_from, rank_correlations
from subjects import opened, unchanged

NET = {"model": "cnn", "widths": [12, 16, 16], "kernels": [3, 3, 3], "strides": [1, 1, 1], "pools": [2, 2, 1], "fc": []}


def _spots(count: int, seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Images of noise with a spot somewhere, whose colour is the class, and grey distractors."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 140, (count, 32, 32, 3)).astype(np.uint8)
    labels = random.integers(0, 3, count)
    for image, label in zip(pixels, labels, strict=True):
        for _ in range(3):
            top, left = random.integers(0, 24, 2)
            image[top : top + 8, left : left + 8] = random.integers(0, 256)
        top, left = random.integers(0, 26, 2)
        image[top : top + 6, left : left + 6] = 30
        image[top : top + 6, left : left + 6, label] = 230
    return pixels, labels


@pytest.fixture(scope="module")
def trained(cache: Path) -> NetworkProbe:
    """A small network that has learned to tell the colour of spots."""
    subject = opened(cache, **NET, size=32)
    pixels, labels = _spots(400, 0)
    images, targets = subject.images(pixels), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(subject.module.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(100):
        rows = torch.randint(0, len(images), (50,), generator=random)
        loss = torch.nn.functional.cross_entropy(subject.module(images[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    subject.module.zero_grad()
    unseen, answers = _spots(100, 1)
    with torch.no_grad():
        right = (subject.module(subject.images(unseen)).argmax(dim=1).numpy() == answers).mean()
    assert right > 0.9
    return subject


def _edges(subject: NetworkProbe, pixels: Pixels, classes: Classes) -> Maps:
    """A map that looks convincing and knows nothing of the network."""
    grey = pixels.astype(np.float32).mean(axis=3)
    down, across = np.gradient(grey, axis=(1, 2))
    return np.asarray(np.hypot(down, across), np.float32)


def test_maps_of_a_trained_network_depend_on_its_weights(trained: NetworkProbe) -> None:
    pixels, _ = _spots(12, 2)
    with unchanged(trained.module):
        found = check_sanity(trained, pixels, "grad-cam", "conv2")
        assert found.depends
        assert found.places == ("head", "conv3", "conv2", "conv1")
        assert found.likeness[-1]["n"] == 12
        assert found.likeness[-1]["value"] < LIKE


def test_maps_that_know_nothing_of_the_network_are_flagged(trained: NetworkProbe) -> None:
    found = check_sanity(trained, _spots(12, 2)[0], _edges)
    assert not found.depends
    assert found.method == "_edges"
    assert [row["value"] for row in found.likeness] == pytest.approx([1.0] * len(found.places))
    assert found.unrelated["value"] < LIKE


def test_maps_that_are_empty_prove_nothing(trained: NetworkProbe) -> None:
    def nothing(subject: NetworkProbe, pixels: Pixels, classes: Classes) -> Maps:
        return np.zeros(pixels.shape[:3], np.float32)

    found = check_sanity(trained, _spots(2, 2)[0], nothing)
    assert not found.depends
    assert found.likeness[-1] == {"value": None, "low": None, "high": None, "n": 0}


def test_the_cascade_goes_from_the_head_to_everything(trained: NetworkProbe) -> None:
    steps = list_cascade_places(trained)
    assert steps[0] == trained.plan.head
    changed = []
    before = trained.module.state_dict()
    for start in steps:
        after = randomise_from(trained, start, 0).module.state_dict()
        changed.append({name.split(".")[0] for name in before if not torch.equal(before[name], after[name])})
        for name, tensor in before.items():
            assert torch.equal(tensor.flatten().sort().values, after[name].flatten().sort().values)
    assert changed == [
        {"head"},
        {"head", "conv3"},
        {"head", "conv3", "conv2"},
        {"head", "conv3", "conv2", "conv1"},
    ]


def test_correlations_are_scipys() -> None:
    random = np.random.default_rng(0)
    one = random.integers(0, 5, (4, 6, 6)).astype(np.float32)
    other = (one + random.integers(0, 5, one.shape)).astype(np.float32)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlations(one, other), expected, atol=1e-12)
    assert rank_correlations(one, np.zeros_like(one)).tolist() == [0.0] * 4


def test_mistakes(trained: NetworkProbe) -> None:
    pixels, _ = _spots(2, 2)
    with pytest.raises(RecipeError, match="no method 'gradcam'"):
        check_sanity(trained, pixels, "gradcam")
    with pytest.raises(RecipeError, match="'flatten' of cnn gives no map"):
        check_sanity(trained, pixels, "layer-cam", "flatten")
