"""Augmented versions of training images that are made once, so that a frozen prefix can be computed once for each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

import numpy as np
import torch

from budwood.config.recipe import AUGMENTATIONS, Recipe
from budwood.data.loading import Pixels
from budwood.inference.feature_cache import View
from budwood.networks.plan import hash_of
from budwood.training.augmentation import Drawn, augmented, drawn

DECIDING: Final = (*AUGMENTATIONS, "fill", "seed")


def augmented_view(recipe: Recipe, size: int, number: int) -> View:
    """Images changed at random as the recipe says, version `number` of each.

    What happens to an image depends on its content, the recipe's seed and ranges, and the number alone, so that it is
    the same in every run and in whatever company the image comes. Pixels are rounded to whole values.
    """
    key = hash_of([[getattr(recipe, name) for name in DECIDING], number])

    def change(pixels: Pixels, ids: Sequence[str]) -> Pixels:
        images = torch.from_numpy(pixels).float()
        what = _joined([drawn(recipe, 1, size, _random(key, id)) for id in ids])
        return augmented(images, what, recipe).round().clamp(0, 255).to(torch.uint8).numpy()

    return View(key, change)


def _random(key: str, id: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{key} {id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _joined(parts: Sequence[Drawn]) -> Drawn:
    """What was drawn for each image, for their batch."""
    return Drawn(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Drawn)))
