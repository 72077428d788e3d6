"""Augmented versions of training images that are made once, so that a frozen prefix can be computed once for each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from budwood.config.augmentations import Augmentation
from budwood.config.registry import import_entry, part_digest
from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.data.loading import Pixels
from budwood.inference.feature_cache import Transform
from budwood.networks.plan import hash_json
from budwood.training.augmentation import AugmentationParameters, augment, sample_parameters


def make_augmentation_transform(recipe: ResolvedRecipe, number: int) -> Transform:
    """Make the transform that gives one fixed augmented version of each image.

    What happens to an image depends only on its content, the recipe's seed and ranges, the source of a user's own
    augmentations, and the number. So it is the same in every run and in any batch. Pixels are rounded to whole values.

    Args:
        recipe: The recipe with the seed, the image size and the ranges.
        number: Number of the version, from 0.

    Returns:
        The transform, with a key by which the outputs of the frozen prefix are cached.

    Raises:
        RecipeError: A user's own augmentation cannot be imported, or has no source to read.
    """
    ranges, size = recipe.augmentation, recipe.network.size
    sources = [part_digest(import_entry(own.name, "transform"), own.name, "transform") for own in ranges.own]
    key = hash_json([ranges.describe(), sources, recipe.seed, number])

    def change(pixels: Pixels, ids: Sequence[str]) -> Pixels:
        images = torch.from_numpy(pixels).float()
        each = [sample_parameters(ranges, 1, size, _make_generator(key, id)) for id in ids]
        return _changed(images, each, ranges).round().clamp(0, 255).to(torch.uint8).numpy()

    return Transform(key, change)


def _changed(images: Tensor, each: Sequence[AugmentationParameters], ranges: Augmentation) -> Tensor:
    """The images of a batch; one by one where a user's own change might look at their company."""
    if not ranges.own:
        return augment(images, _join_parameters(each), ranges)
    return torch.cat([augment(images[row : row + 1], what, ranges) for row, what in enumerate(each)])


def _make_generator(key: str, id: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{key} {id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _join_parameters(parts: Sequence[AugmentationParameters]) -> AugmentationParameters:
    """What was drawn for each image, for their batch."""
    drawn = {name: np.concatenate([part.drawn[name] for part in parts]) for name in parts[0].drawn}
    return AugmentationParameters(drawn, np.concatenate([part.seeds for part in parts]))
