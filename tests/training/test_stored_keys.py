"""Recipes are written, and their caches named, as in earlier versions: what was kept is found again."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import ResolvedRecipe, own_parts, resolve
from budwood.networks.plan import hash_json
from budwood.training.augmentation import augment, sample_parameters
from budwood.training.cached_augmentation import make_augmentation_transform

EVERY: dict[str, Any] = {
    "flip": 0.5,
    "flip_vertical": 0.2,
    "rotation": 15,
    "shift_x": 0.1,
    "shift_y": 0.05,
    "shear": 5,
    "zoom": 0.2,
    "crop_padding": 2,
    "crop_scale": 0.6,
    "brightness": 0.2,
    "contrast": 0.3,
    "saturation": 0.4,
    "hue": 0.1,
    "erase": 0.5,
}
OWN = """
def darker(images, generator):
    return images * 0.5


def squares(logits, shares):
    return ((logits.softmax(1) - shares) ** 2).sum(1)
"""
# Options, and the digests of the TOML and of the plain values, as version 0.1 had them.
WRITTEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "defaults": ({}, "41052dcbeca54b7b", "a08733b9b8c23337"),
    "adam": ({"optimizer": "adam"}, "e8fe5d01425222b9", "a06f3f99e346ee36"),
    "augmentation": ({"freeze": "none", **EVERY}, "534ce784bf6a5ccd", "ab60386043737469"),
    "mixup": ({"freeze": "none", "mixup": 0.2, "cutmix": 1.0}, "10fb3e74b3a8eb6a", "937b32df36debeb1"),
    "focal": ({"loss": "focal", "focal_gamma": 1.5, "label_smoothing": 0.1}, "78ee5cd0735e256c", "d2f411021c20bb15"),
    "step": ({"schedule": "step", "schedule_every": 3}, "4eb08d5d3ce3a4b6", "861eff03a857ed04"),
    "multistep": ({"schedule": "multistep", "schedule_at": [2, 5]}, "d6dce74f81614fc0", "7f1e561335b18497"),
    "cosine": (
        {"optimizer": "sgd", "schedule": "cosine", "schedule_by": "epoch"},
        "08ba1d473d637c57",
        "eb051d1fd9378b12",
    ),
    "own": ({"transform": "kept_own:darker", "loss": "kept_own:squares"}, "9cf0acc6d102fbaf", "236ab869b0f8344d"),
}
# Options, and the name of the second version of each image, which is in the key of its cached features.
CACHED: dict[str, tuple[dict[str, Any], str]] = {
    "every": ({"views": 2, **EVERY}, "594d48b23dd9ccf651e24ebd"),
    "flip": ({"views": 2, "flip": 1, "seed": 3}, "6a1a21c3d70eb618e983873e"),
    "fill": ({"views": 2, "rotation": 30, "fill": "black"}, "a1bd56aded2f3e9ee2824fd5"),
    "policy": ({"views": 2, "policy": "trivialaugment"}, "cb6abfc54de783e44b76f7f9"),
    "own": ({"views": 2, "flip": 0.5, "transform": "kept_own:darker"}, "110e84dd88a2ccd019e65fbb"),
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a user's in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "kept_own", raising=False)
    (tmp_path / "kept_own.py").write_text(OWN)


def _resolved(options: dict[str, Any]) -> ResolvedRecipe:
    return resolve(Recipe(**options), False, 32)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", WRITTEN)
def test_a_recipe_is_written_as_ever(name: str) -> None:
    options, toml, values = WRITTEN[name]
    recipe = Recipe(**options)
    assert hashlib.blake2b(recipe.toml().encode(), digest_size=8).hexdigest() == toml, recipe.toml()
    assert hash_json([sorted(recipe.table().items()), own_parts(recipe)])[:16] == values


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", CACHED)
def test_augmented_versions_are_found_as_ever(name: str) -> None:
    options, key = CACHED[name]
    assert make_augmentation_transform(_resolved(options), 1).name == key


def test_a_seed_draws_the_images_that_it_ever_drew() -> None:
    ranges = _resolved({"freeze": "none", **EVERY}).augmentation
    random = np.random.default_rng(5)
    images = torch.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3) % 256
    found = augment(images.float(), sample_parameters(ranges, 2, 8, random), ranges)
    means = [round(value, 2) for value in found.mean(dim=(1, 2)).flatten().tolist()]
    assert means == pytest.approx([148.47, 149.06, 150.8, 109.26, 107.04, 109.07], abs=0.05)
    assert random.random() == pytest.approx(0.319784654), "what is drawn next is as ever"
