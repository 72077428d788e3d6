"""The training loop makes the steps that plain PyTorch makes, on what is trained and on nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from budwood.errors import RecipeError
from budwood.fit import Held, Labelled, batches, fit
from budwood.networks import IMAGENET_MEAN, IMAGENET_STD
from budwood.progress import Silent
from budwood.recipe import Recipe
from budwood.stages import segment
from budwood.surgery import grafted, planned
from budwood.torch_engine import FromPixels, Part
from budwood.weights import random_weights

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "conv_norm": True, "pools": (1, 2)}


def _split(n: int, size: int = 16, seed: int = 0) -> Labelled:
    """Pictures of two kinds, told apart by brightness, with noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n).astype(np.int32)
    pixels = random.integers(0, 120, (n, size, size, 3)) + 100 * labels[:, None, None, None]
    return Labelled(Held(pixels.astype(np.uint8)), labels)


def _part(stop: str | None = None, **options: Any) -> Part:
    recipe = Recipe(**{**SMALL, **options})
    return Part(recipe, planned(recipe, 2), 2, random_weights("default", recipe.seed or 0), stop)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_steps_are_those_of_plain_pytorch(optimizer: str) -> None:
    part = _part(optimizer=optimizer, epochs=1, batch=8, lr=0.01, weight_decay=0.1, seed=4)
    train, val = _split(20), _split(9, seed=1)
    found = fit(part, train, val, Silent())

    plain = grafted(part.recipe, part.plan, 2)[0].module.train()
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    adam = torch.optim.Adam(plain.parameters(), **options)
    steps = adam if optimizer == "adam" else torch.optim.SGD(plain.parameters(), momentum=0.9, **options)
    order = np.random.default_rng(4).permutation(20)
    for rows in (order[:8], order[8:16], order[16:]):
        loss = nn.functional.cross_entropy(plain(_normal(train, rows)), torch.from_numpy(train.labels[rows]).long())
        steps.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
    expected = plain.eval()(_normal(val, np.arange(9))).detach().numpy()
    assert np.allclose(found.logits, expected, atol=1e-5)
    for name, tensor in plain.state_dict().items():
        assert np.allclose(found.state[name], tensor.numpy(), atol=1e-6), name


def _normal(split: Labelled, rows: np.ndarray) -> torch.Tensor:
    """Pixels of 0 to 1, less the mean of ImageNet and over its deviation."""
    images = torch.from_numpy(split.inputs.take(rows)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def test_a_frozen_prefix_cached_or_not_gives_the_same_losses() -> None:
    options: dict[str, Any] = {"freeze": "upto:conv1", "epochs": 3, "batch": 8, "seed": 2}
    whole = _part(**options)
    train, val = _split(24), _split(10, seed=1)
    uncached = fit(whole, train, val, Silent())
    made, _, _ = grafted(whole.recipe, whole.plan, 2)
    prefix = FromPixels(segment(made.staged, None, "conv1"), whole.plan).eval()
    cached = fit(_part("conv1", **options), _after(prefix, train), _after(prefix, val), Silent())
    losses = [row["train_loss"] for row in uncached.history]
    assert [row["train_loss"] for row in cached.history] == pytest.approx(losses, rel=1e-5)
    assert np.allclose(cached.logits, uncached.logits, atol=1e-5)
    start = made.module.state_dict()
    for result in (cached, uncached):
        assert all(np.array_equal(result.state[n], start[n].numpy()) for n in start if n.startswith("conv1."))
        assert not np.array_equal(result.state["conv2.1.running_mean"], start["conv2.1.running_mean"].numpy())


def _after(prefix: nn.Module, split: Labelled) -> Labelled:
    """The prefix's outputs in the place of pixels."""
    with torch.inference_mode():
        values = prefix(torch.from_numpy(split.inputs.take(np.arange(len(split.labels))))).numpy()
    return Labelled(Held(values), split.labels)


def test_the_epoch_with_the_lowest_validation_loss_is_kept() -> None:
    found = fit(_part(epochs=6, batch=4, lr=0.05, seed=1), _split(16), _split(12, seed=3), Silent())
    losses = [row["val_loss"] for row in found.history]
    assert found.selected == {"epoch": losses.index(min(losses)) + 1}
    chance = torch.from_numpy(found.logits)
    labels = torch.from_numpy(_split(12, seed=3).labels).long()
    assert float(nn.functional.cross_entropy(chance, labels)) == pytest.approx(min(losses), rel=1e-5)


def test_a_small_network_learns_and_a_seed_decides_everything() -> None:
    part = _part(epochs=8, batch=8, dropout=0.2, lr=0.01)
    first, again = (fit(part, _split(64), _split(40, seed=1), Silent()) for _ in range(2))
    assert first.history[-1]["val_accuracy"] > 0.9
    assert first.history == again.history
    other = fit(_part(epochs=8, batch=8, dropout=0.2, lr=0.01, seed=5), _split(64), _split(40, seed=1), Silent())
    assert other.history != first.history


def test_a_loss_that_is_no_number_is_said() -> None:
    with pytest.raises(RecipeError, match=r"no longer a number in epoch \d+, at a learning rate of 1e\+30"):
        fit(_part(optimizer="sgd", lr=1e30, epochs=3, batch=8), _split(24), _split(8, seed=1), Silent())


@pytest.mark.parametrize(("n", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (1, [1]), (3, [3])])
def test_no_batch_of_one_is_left_over(n: int, sizes: list[int]) -> None:
    found = list(batches(np.arange(n), 4))
    assert [len(rows) for rows in found] == sizes
    assert np.concatenate(found).tolist() == list(range(n))


def test_grey_pixels_are_what_pillow_makes_of_them() -> None:
    from PIL import Image

    plan = {"mean": [0.0], "std": [1.0], "channels": 1}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    grey = FromPixels(nn.Identity(), plan)(torch.from_numpy(pixels))[0, 0].numpy() * 255
    assert np.abs(grey - np.asarray(Image.fromarray(pixels[0]).convert("L"))).max() < 1
