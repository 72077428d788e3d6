"""A transform of any kind gets what it asks for, follows the seed, and is told what it may not give."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.training.augmentation import augment, sample_parameters

PICTURES = torch.arange(2 * 6 * 4 * 3).reshape(2, 6, 4, 3).float()


def changed(*transforms: object, seed: int = 0) -> torch.Tensor:
    """Two pictures [2, 6, 4, 3], changed by transforms of a recipe."""
    ranges = resolve(Recipe(freeze="none", transform=list(transforms)), False, 16).augmentation
    return augment(PICTURES, sample_parameters(ranges, 2, 16, np.random.default_rng(seed)), ranges)


class Brighten:
    """A transform of PIL with an option."""

    def __init__(self, by: int = 1) -> None:
        self.by = by

    def __call__(self, image: Image.Image) -> Image.Image:
        return Image.eval(image, lambda value: min(value + self.by, 255))


def named(*, image: np.ndarray[Any, Any]) -> dict[str, Any]:
    """A transform as Albumentations calls its own."""
    assert image.dtype == np.uint8
    return {"image": image[:, ::-1]}


def whole(images: torch.Tensor) -> torch.Tensor:
    """A transform of a batch in whole numbers."""
    assert images.dtype == torch.uint8
    return 255 - images


def noisy(image: Image.Image) -> Image.Image:
    """Random numbers of all three libraries."""
    shift = random.randrange(100) + np.random.randint(100) + int(torch.randint(100, ()))
    return Image.eval(image, lambda value: (value + shift) % 256)


def with_options(image: Image.Image, *, by: int) -> Image.Image:
    """A function of an image with an option."""
    return Brighten(by)(image)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (ImageOps.mirror, PICTURES.flip(2)),
        (v2.RandomHorizontalFlip(1.0), PICTURES.flip(2)),
        ({"name": "torchvision.transforms.v2:RandomVerticalFlip", "p": 1.0}, PICTURES.flip(1)),
        (named, PICTURES.flip(2)),
        (whole, 255 - PICTURES),
        (lambda images, generator: images + 0.5, PICTURES + 0.5),
        (Brighten, PICTURES + 1),
        ({"name": Brighten, "by": 7}, PICTURES + 7),
        ({"name": with_options, "by": 5}, PICTURES + 5),
        (Brighten(9), PICTURES + 9),
    ],
)
def test_every_kind_gets_what_it_takes(transform: object, expected: torch.Tensor) -> None:
    assert torch.equal(changed(transform), expected.clamp(0, 255))


def test_random_numbers_follow_the_seed_an_image_apart_and_stay_out_of_others() -> None:
    random.seed(5)
    np.random.seed(5)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    first, again, other = changed(noisy), changed(noisy), changed(noisy, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shifts = (first - PICTURES) % 256
    assert len(set(shifts[0].flatten().tolist())) == 1
    assert shifts[0, 0, 0, 0] != shifts[1, 0, 0, 0]
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    assert after == before


def test_random_numbers_that_a_transform_keeps_are_seeded_as_well() -> None:
    class Own:
        """A transform with a generator of its own, as Albumentations has."""

        drawn: list[int]

        def set_random_seed(self, seed: int) -> None:
            self.random = random.Random(seed)

        def __call__(self, image: Image.Image) -> Image.Image:
            shift = self.random.randrange(250)
            return Image.eval(image, lambda value: (value + shift) % 256)

    own = Own()
    assert torch.equal(changed(own), changed(own))


def _fail(image: Image.Image) -> Image.Image:
    raise KeyError("colour")


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (_fail, r"_fail failed \(KeyError: 'colour'\) in .*test_own_transforms\.py, line \d+\."),
        (v2.ToDtype(torch.float32, scale=True), r"gave a tensor of the shape \[3, 6, 4\], float32, expected an image"),
        (v2.Resize((8, 8)), r"gave a tensor of the shape \[3, 8, 8\], uint8, expected an image of 4 x 6 pixels"),
        (lambda image: image.resize((2, 2)), "gave an image of 2 x 2 pixels, expected an image of 4 x 6 pixels"),
        (lambda image: None, "gave a NoneType, expected an image"),
        (lambda images: images.float(), r"gave values of type float32, expected a tensor of the shape .*uint8"),
        (lambda images: images[:1], r"gave the shape \[1, 3, 6, 4\]"),
        ({"name": Brighten, "to": 7}, r"Brighten failed \(TypeError: .*unexpected keyword argument 'to'"),
    ],
)
def test_what_it_may_not_do_is_said(transform: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=f"transform: .*{message}"):
        changed(transform)


def test_memory_that_has_run_out_is_no_mistake_of_the_user() -> None:
    def hungry(image: Image.Image) -> Image.Image:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        changed(hungry)


def test_a_greyscale_result_is_read_in_colour() -> None:
    grey: Callable[[Image.Image], Image.Image] = ImageOps.grayscale
    result = changed(grey)
    assert torch.equal(result[..., 0], result[..., 2])
