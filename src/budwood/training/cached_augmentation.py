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
from budwood.inference.feature_cache import Transform
from budwood.networks.plan import hash_json
from budwood.training.augmentation import AugmentationParameters, augment, sample_parameters

DECIDING: Final = (*AUGMENTATIONS, "fill", "seed")


def make_augmentation_transform(recipe: Recipe, size: int, number: int) -> Transform:
    """Images changed at random as the recipe says, version `number` of each.

    What happens to an image depends on its content, the recipe's seed and ranges, and the number alone, so that it is
    the same in every run and in whatever company the image comes. Pixels are rounded to whole values.
    """
    key = hash_json([[getattr(recipe, name) for name in DECIDING], number])

    def change(pixels: Pixels, ids: Sequence[str]) -> Pixels:
        images = torch.from_numpy(pixels).float()
        what = _join_parameters([sample_parameters(recipe, 1, size, _make_generator(key, id)) for id in ids])
        return augment(images, what, recipe).round().clamp(0, 255).to(torch.uint8).numpy()

    return Transform(key, change)


def _make_generator(key: str, id: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{key} {id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _join_parameters(parts: Sequence[AugmentationParameters]) -> AugmentationParameters:
    """What was drawn for each image, for their batch."""
    return AugmentationParameters(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(AugmentationParameters))
    )
