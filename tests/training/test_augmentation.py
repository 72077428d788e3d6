"""Every augmentation against torchvision or by hand, and that a batch is as random as its images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from budwood.config.augmentations import Augmentation
from budwood.config.options import UNCHANGED
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.training.augmentation import augment, sample_parameters

SIZE = 32


def _recipe(**options: Any) -> Augmentation:
    return resolve(Recipe(freeze="none", **options), False, SIZE).augmentation


def _images(n: int = 4) -> torch.Tensor:
    """Smooth pictures, so that interpolation may differ a little: float32 [n, 32, 32, 3], 0 to 255."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(3)) * 255
    smooth = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=False)
    return smooth.clamp(0, 255).permute(0, 2, 3, 1).contiguous()


def _one(seed: int = 0, **options: Any) -> tuple[torch.Tensor, Any]:
    """The first image after one augmentation, [3, 32, 32], and what was drawn."""
    recipe = _recipe(**options)
    what = sample_parameters(recipe, 4, SIZE, np.random.default_rng(seed))
    return augment(_images(), what, recipe)[0].permute(2, 0, 1), what


PICTURE = _images()[0].permute(2, 0, 1)
BILINEAR = InterpolationMode.BILINEAR


def _angle(what: Any) -> float:
    """Degrees of the first image's rotation, counter-clockwise as torchvision's `rotate` has it."""
    turn = what.maps[0, :, :2]
    return float(np.rad2deg(np.arctan2(turn[1, 0], turn[0, 0])))


def test_flips_are_exact() -> None:
    assert torch.allclose(_one(flip=1)[0], reference.hflip(PICTURE), atol=1e-3)
    assert torch.allclose(_one(flip_vertical=1)[0], reference.vflip(PICTURE), atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_rotation_is_torchvisions(seed: int) -> None:
    found, what = _one(seed, rotation=30, fill="black")
    angle = _angle(what)
    assert 0.1 < abs(angle) <= 30
    options = [reference.rotate(PICTURE, sign * angle, BILINEAR) for sign in (1, -1)]
    assert min(float((found - turned)[:, 4:-4, 4:-4].abs().max()) for turned in options) < 2


def test_shear_and_zoom_are_torchvisions() -> None:
    found, what = _one(zoom=0.3, fill="black")
    zoomed = reference.affine(PICTURE, 0, [0, 0], float(1 / what.maps[0, 0, 0]), [0, 0], BILINEAR)
    assert 0.7 <= 1 / what.maps[0, 0, 0] <= 1.3
    assert (found - zoomed)[:, 6:-6, 6:-6].abs().max() < 2
    found, what = _one(shear=20, fill="black")
    degrees = float(np.rad2deg(np.arctan(what.maps[0, 0, 1])))
    assert 0.1 < abs(degrees) <= 20
    options = [reference.affine(PICTURE, 0, [0, 0], 1, [sign * degrees, 0], BILINEAR) for sign in (1, -1)]
    assert min(float((found - sheared)[:, 4:-4, 8:-8].abs().max()) for sheared in options) < 2


def test_zoom_apart_is_keras_zoom_range() -> None:
    """Keras: zx, zy = uniform(1 - z, 1 + z), and a pixel of the result is that at (zx, zy) times its place."""
    recipe = _recipe(zoom_x=0.3, zoom_y=0.1, fill="border")
    maps = sample_parameters(recipe, 4000, SIZE, np.random.default_rng(2)).maps
    seen = maps[:, [0, 1], [0, 1]]
    assert (maps[:, 0, 1] == 0).all()
    assert (maps[:, 1, 0] == 0).all()
    assert (maps[:, :, 2] == 0).all(), "about the middle"
    for factors, most in zip(seen.T, (0.3, 0.1), strict=True):
        shares = np.quantile((factors - 1) / most, [0, 0.25, 0.5, 0.75, 1])
        assert np.allclose(shares, [-1, -0.5, 0, 0.5, 1], atol=0.05), "uniform"
    assert abs(np.asarray(np.corrcoef(seen.T))[0, 1]) < 0.05, "one tells nothing of the other"
    found, what = _one(zoom_x=0.3, zoom_y=0.1, fill="black")
    wide, high = np.diagonal(what.maps[0, :, :2])
    places = (np.arange(SIZE) + 0.5) - SIZE / 2
    grid = torch.from_numpy(np.stack(np.meshgrid(places * wide, places * high), axis=-1) * 2 / SIZE).float()
    expected = torch.nn.functional.grid_sample(PICTURE[None], grid[None], align_corners=False)[0]
    assert torch.allclose(found, expected, atol=1e-2)


def test_zoom_apart_draws_nothing_of_what_others_draw_and_none_at_zero() -> None:
    both = sample_parameters(_recipe(rotation=20, zoom_x=0.2), 3, SIZE, np.random.default_rng(1))
    alone = sample_parameters(_recipe(rotation=20), 3, SIZE, np.random.default_rng(1))
    assert np.array_equal(both.compose(["rotation"]), alone.maps)
    assert (both.compose(["zoom_apart"])[:, 1] == [0, 1, 0]).all(), "zoom_y is not asked for"
    assert not Recipe(freeze="none", zoom_x=0.0, zoom_y=0).augments, "a grid may begin with none"
    assert _recipe(zoom_x=0.0) == _recipe()


@pytest.mark.parametrize(("option", "axis"), [("shift_x", 2), ("shift_y", 1)])
def test_shifts_move_by_a_share_of_the_side(option: str, axis: int) -> None:
    for seed in range(5):
        found, what = _one(seed, **{option: 0.25}, fill="border")
        pixels = -what.maps[0, 2 - axis, 2] * SIZE / 2
        assert abs(pixels) <= 8
        low, high = int(np.floor(pixels)), int(np.ceil(pixels))
        share = pixels - low
        expected = torch.roll(PICTURE, low, axis) * (1 - share) + torch.roll(PICTURE, high, axis) * share
        inner = [slice(9, -9)] * 3
        inner[0] = slice(None)
        assert torch.allclose(found[tuple(inner)], expected[tuple(inner)], atol=0.05)


def test_a_random_crop_with_padding_moves_by_whole_pixels() -> None:
    seen = set()
    for seed in range(20):
        found, what = _one(seed, crop_padding=4, fill="black")
        x, y = (what.maps[0, :, 2] * SIZE / 2).round().astype(int).tolist()
        padded = torch.nn.functional.pad(PICTURE, (4, 4, 4, 4))
        assert torch.allclose(found, padded[:, 4 + y : 4 + y + SIZE, 4 + x : 4 + x + SIZE], atol=0.05)
        seen.add((x, y))
    assert len(seen) > 10
    assert all(abs(step) <= 4 for place in seen for step in place)


def test_a_random_resized_crop_is_a_box_of_the_picture() -> None:
    for seed in range(5):
        found, what = _one(seed, crop_scale=0.3)
        (width, _, x), (_, height, y) = what.maps[0]
        assert 0.3 - 1e-9 <= width * height <= 1
        assert abs(x) + width <= 1 + 1e-9
        assert abs(y) + height <= 1 + 1e-9
        assert 0.7 <= width / height <= 1.34 or max(width, height) == 1
        left, top = (1 + x - width) / 2 * SIZE, (1 + y - height) / 2 * SIZE
        middle = PICTURE[:, round(top + height * SIZE / 2), round(left + width * SIZE / 2)]
        assert torch.allclose(found[:, SIZE // 2, SIZE // 2], middle, atol=25)


@pytest.mark.parametrize(
    ("option", "limit", "change"),
    [
        ("brightness", 0.6, reference.adjust_brightness),
        ("contrast", 0.6, reference.adjust_contrast),
        ("saturation", 0.9, reference.adjust_saturation),
        ("hue", 0.5, reference.adjust_hue),
    ],
)
def test_colours_change_as_in_torchvision(option: str, limit: float, change: Any) -> None:
    recipe = _recipe(**{option: limit})
    what = sample_parameters(recipe, 4, SIZE, np.random.default_rng(1))
    found = augment(_images(), what, recipe).permute(0, 3, 1, 2)
    factors = what.drawn[option]
    assert len(set(factors.tolist())) == 4
    for picture, image, factor in zip(found, _images().permute(0, 3, 1, 2), factors.tolist(), strict=True):
        assert torch.allclose(picture / 255, change(image / 255, factor), atol=2e-3)


def test_erasing_fills_one_box_with_the_mean_colour() -> None:
    found, what = _one(erase=1)
    top, bottom, left, right = what.drawn["erase"][0].tolist()
    assert 0.01 < (bottom - top) * (right - left) / SIZE**2 < 0.36
    expected = PICTURE.clone()
    expected[:, top:bottom, left:right] = PICTURE.mean(dim=(1, 2), keepdim=True)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_policies_are_torchvisions_drawn_for_each_image(policy: str) -> None:
    from torchvision.transforms import v2

    recipe = _recipe(policy=policy)
    what = sample_parameters(recipe, 4, SIZE, np.random.default_rng(5))
    torch.manual_seed(1)
    expected_next = torch.rand(1)
    torch.manual_seed(1)
    found = augment(_images(), what, recipe)
    assert torch.equal(torch.rand(1), expected_next), "the global random state is left alone"
    made = v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()
    for row, seed in enumerate(what.seeds.tolist()):
        torch.manual_seed(seed)
        expected = made(_images()[row].permute(2, 0, 1).round().to(torch.uint8))
        assert torch.equal(found[row].permute(2, 0, 1), expected.float())


def test_chances_and_ranges_are_those_that_are_asked_for() -> None:
    recipe = _recipe(flip=0.3, rotation=20, erase=0.25, brightness=0.5)
    what = sample_parameters(recipe, 4000, SIZE, np.random.default_rng(0))
    assert (np.linalg.det(what.maps[:, :, :2]) < 0).mean() == pytest.approx(0.3, abs=0.03)
    assert (what.drawn["erase"][:, 1] > what.drawn["erase"][:, 0]).mean() == pytest.approx(0.25, abs=0.03)
    assert (what.drawn["brightness"].min(), what.drawn["brightness"].max()) == pytest.approx((0.5, 1.5), abs=0.01)


def test_nothing_asked_changes_nothing_and_pixels_stay_in_range() -> None:
    recipe = _recipe()
    images = _images()
    assert torch.equal(augment(images, sample_parameters(recipe, 4, SIZE, np.random.default_rng(0)), recipe), images)
    everything = {
        **dict.fromkeys(set(UNCHANGED) - {"transform"}, 0.5),
        "rotation": 40,
        "shear": 20,
        "crop_padding": 3,
    }
    recipe = _recipe(**{**everything, "policy": "trivialaugment"})
    found = augment(images, sample_parameters(recipe, 4, SIZE, np.random.default_rng(0)), recipe)
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip: input should be less than or equal to 1, found 1.5"),
        ({"rotation": -3}, "rotation: input should be greater than or equal to 0"),
        ({"hue": 0.7}, "hue: input should be less than or equal to 0.5"),
        ({"fill": "black"}, "fill: expected one of rotation, shift_x"),
        ({"policy": "autoaugment"}, "policy: input should be 'none', 'randaugment' or 'trivialaugment'"),
        ({"flip": 0.5, "optimizer": "lbfgs", "freeze": "trunk"}, "flip: optimizer 'lbfgs' does not use it"),
    ],
)
def test_what_is_asked_wrongly_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**{"freeze": "none", **options})
