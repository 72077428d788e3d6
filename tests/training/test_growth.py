"""Training on small images first: which size when, what the smaller images are, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from budwood.config.recipe import Recipe, load_recipe
from budwood.config.resolved_recipe import Network, resolve
from budwood.errors import RecipeError
from budwood.inference.input_sources import ArraySource, Labelled
from budwood.inference.pytorch_backend import NetworkSlice, WithPreprocessing
from budwood.progress import Silent
from budwood.training.growth import estimate_work, find_side, list_sides, shrink
from budwood.training.loop import LoopResult, fit
from subjects import untrained

OPTIONS: dict[str, Any] = {"model": "resnet18", "weights": "none", "size": 96, "size_start": 32, "optimizer": "sgd"}
OPTIONS |= {"lr": 0.01, "batch": 4, "epochs": 3, "seed": 1}


def make_network(size: int, start: int | None) -> Network:
    """What a network sees that is trained from one size to another."""
    options = {"size": size, "size_start": start, "freeze": "none"}
    return resolve(Recipe(**options), False, size).network


def make_split(n: int, size: int) -> Labelled:
    """Pictures of noise."""
    random = np.random.default_rng(n)
    pixels = random.integers(0, 255, (n, size, size, 3)).astype(np.uint8)
    return Labelled(ArraySource(pixels), np.arange(n, dtype=np.int32) % 2)


def train(**options: Any) -> LoopResult:
    """A short training of two steps an epoch."""
    recipe = Recipe(**{**OPTIONS, **options})
    part = NetworkSlice(untrained(recipe, 2), None)
    size = part.spec.plan.size
    return fit(part, resolve(recipe, False, size), make_split(8, size), make_split(4, size), Silent())


@pytest.mark.parametrize(
    ("size", "start", "sides"),
    [(224, 128, [128, 160, 192, 224]), (224, 150, [150, 182, 214, 224]), (32, 16, [16, 32]), (224, None, [224])],
)
def test_each_size_has_an_equal_share(size: int, start: int | None, sides: list[int]) -> None:
    network = make_network(size, start)
    assert list_sides(network) == sides
    found = [find_side(network, done / 100) for done in range(100)]
    shares = [found.count(side) for side in sides]
    assert sum(shares) == 100
    assert max(shares) - min(shares) <= 1
    assert found == sorted(found)
    assert find_side(network, 1.0) == size
    assert estimate_work(network) == pytest.approx(np.mean([(side / size) ** 2 for side in sides]))


def test_smaller_images_are_those_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    found = shrink(torch.from_numpy(pixels), 40).numpy()
    for image, small in zip(pixels, found, strict=True):
        expected = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(small - expected).max() <= 1.5  # Pillow rounds twice
    assert shrink(torch.from_numpy(pixels), 64).dtype == torch.uint8


def test_training_sees_growing_images_and_validation_full_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []
    plain = WithPreprocessing.normalised

    def normalised(self: WithPreprocessing, pixels: Tensor) -> Tensor:
        if len(pixels) > 1:  # not the check of a single image before
            seen.append((torch.is_grad_enabled(), pixels.shape[1]))
        return plain(self, pixels)

    monkeypatch.setattr(WithPreprocessing, "normalised", normalised)
    train()
    assert [side for training, side in seen if training] == [32, 32, 64, 64, 96, 96]
    assert {side for training, side in seen if not training} == {96}


def test_the_first_steps_are_those_of_a_training_on_images_made_smaller() -> None:
    grown = train(epochs=2, size=64, select="last")
    recipe = Recipe(**{**OPTIONS, "epochs": 1, "size": 64, "size_start": None, "select": "last"})
    part, full = NetworkSlice(untrained(recipe, 2), None), make_split(8, 64)
    small = Labelled(Shrunk(full), full.labels)
    plain = fit(part, resolve(recipe, False, 64), small, make_split(4, 64), Silent())
    assert grown.history[0]["train_loss"] == plain.history[0]["train_loss"]
    assert grown.history[0]["val_loss"] == plain.history[0]["val_loss"]


class Shrunk:
    """A split's images at 32 pixels."""

    def __init__(self, split: Labelled) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split.labels)

    def take(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Some rows."""
        return shrink(torch.from_numpy(np.asarray(self._split.inputs.take(rows))), 32)


def test_nothing_changes_for_recipes_without_it(tmp_path: Path) -> None:
    assert "size_start" not in Recipe(freeze="none").toml()
    grown = Recipe(freeze="none", size_start=128)
    (tmp_path / "recipe.toml").write_text(grown.toml())
    assert Recipe(**load_recipe(tmp_path / "recipe.toml")) == grown


def test_a_start_that_is_no_smaller_is_refused() -> None:
    with pytest.raises(RecipeError, match="size_start: expected under the size of the network, 96, found 96"):
        make_network(96, 96)


def test_a_network_of_one_size_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"size_start: cnn takes images of 96 x 96 pixels only, found 32"):
        train(model="cnn", widths=(4,), fc=(8,))


def test_phases_grow_where_nothing_is_frozen() -> None:
    phases = [{"freeze": "trunk", "epochs": 1, "lr": 0.1}, {"freeze": "none", "epochs": 2, "lr": 0.1}]
    starts = [resolve(each, False, 224).network.size_start for each in Recipe(phases=phases, size_start=96).in_phases()]
    assert starts == [224, 96]
