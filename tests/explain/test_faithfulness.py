"""Deletion and insertion tell a map that is right from a random one, and from one that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_attribution import looking_at_a_corner, noise

from budwood.errors import RecipeError
from budwood.evaluation.label_task import MultiLabel
from budwood.evaluation.logits import probabilities
from budwood.explain.deletion_insertion import measure_faithfulness, rank_pixels, shift_maps
from budwood.explain.heatmaps import METHODS, Attribution, fill_mean_colour
from budwood.explain.saliency import compute_attribution, make_eager_inference

Array = NDArray[Any]


@pytest.mark.parametrize("method", METHODS)
def test_a_right_map_is_better_than_a_random_order(method: str) -> None:
    corner, pixels = looking_at_a_corner(), noise(12)
    found = measure_faithfulness(
        make_eager_inference(corner), pixels, compute_attribution(corner, pixels, method, [0] * 12)
    )
    assert (found.insertion.areas >= found.random_insertion.areas).mean() > 0.9
    assert (found.deletion.areas <= found.random_deletion.areas).mean() > 0.9
    for name, better, worse in (
        ("insertion", found.insertion, found.random_insertion),
        ("deletion", found.random_deletion, found.deletion),
    ):
        gain = found.gains[name]
        assert gain["value"] == pytest.approx((better.areas - worse.areas).mean())
        assert gain["low"] > 0
        assert gain["p"] < 0.01
        assert gain["n"] == 12


def test_a_wrong_map_is_worse_than_a_random_order() -> None:
    corner, pixels = looking_at_a_corner(), noise(12)
    right = compute_attribution(corner, pixels, "layer-cam", [0] * 12)
    found = measure_faithfulness(make_eager_inference(corner), pixels, replace(right, maps=1 - right.maps))
    assert found.gains["insertion"]["high"] < 0
    assert found.gains["deletion"]["high"] < 0


def test_curves_begin_and_end_with_the_image_and_its_mean_colour() -> None:
    corner, pixels = looking_at_a_corner(), noise(3)
    found = measure_faithfulness(make_eager_inference(corner), pixels, compute_attribution(corner, pixels), steps=4)
    whole, without = (
        probabilities(make_eager_inference(corner)(images)) for images in (pixels, fill_mean_colour(pixels))
    )
    likeliest = whole.argmax(axis=1)
    for falling, rising in ((found.deletion, found.insertion), (found.random_deletion, found.random_insertion)):
        assert falling.values.shape == rising.values.shape == (3, 5)
        for first, last in ((falling.values[:, 0], falling.values[:, -1]), (rising.values[:, -1], rising.values[:, 0])):
            np.testing.assert_allclose(first, whole[np.arange(3), likeliest], rtol=1e-5)
            np.testing.assert_allclose(last, without[np.arange(3), likeliest], rtol=1e-5)


def test_areas_by_hand() -> None:
    """The logit is the share of the upper half that is white; the map names the upper half."""
    pixels = np.zeros((2, 28, 28, 3), np.uint8)
    pixels[:, :14] = 255
    maps = np.zeros((2, 28, 28), np.float32)
    maps[:, :14] = 1
    none = np.zeros(2, np.float32)
    known = Attribution("own", None, np.zeros(2, np.int64), none, maps, none + 1, none > 0)

    def run(images: Array) -> NDArray[np.float32]:
        same = (images[:, :14] == pixels[0, :14]).mean(axis=(1, 2, 3))
        return np.stack([np.log(same + 1e-9), np.log(1 - same + 1e-9)], axis=1).astype(np.float32)

    kept = 0.0
    found = measure_faithfulness(run, pixels, known, steps=2)
    np.testing.assert_allclose(found.deletion.values[0], [1, kept, kept], atol=1e-5)
    np.testing.assert_allclose(found.insertion.values[0], [kept, 1, 1], atol=1e-5)
    np.testing.assert_allclose(found.deletion.areas, (1 + 3 * kept) / 4, atol=1e-5)
    np.testing.assert_allclose(found.insertion.areas, (3 + kept) / 4, atol=1e-5)
    assert found.deletion.mean["value"] == pytest.approx((1 + 3 * kept) / 4, abs=1e-5)
    assert 0 <= found.deletion.mean["low"] < 0.25 < found.deletion.mean["high"] <= 1, "two images are not sure"
    assert found.gains["deletion"] == {**found.gains["deletion"], "low": None, "high": None, "n": 2}, "nor can be"


def test_equal_squares_are_in_random_order_and_others_are_not() -> None:
    maps = np.zeros((1, 28, 28), np.float32)
    maps[0, 4:6, 8:10] = 1
    first, second = (rank_pixels(maps, np.random.default_rng(seed))[0] for seed in (0, 1))
    assert (first[4:6, 8:10] == 0).all()
    assert (first == 0).sum() == 4
    assert not np.array_equal(first, second)
    assert sorted(np.unique(first)) == pytest.approx(np.arange(196) / 196)


def test_chance_has_the_same_shapes_elsewhere() -> None:
    maps = np.zeros((30, 28, 28), np.float32)
    maps[:, 2:6, 20:27] = 1
    maps[:, 3, 21] = 2
    found = shift_maps(maps, np.random.default_rng(0))
    assert np.array_equal(np.sort(found, axis=None), np.sort(maps, axis=None))
    assert len({tuple(np.argwhere(one == 2)[0]) for one in found}) > 25
    spectra = [np.abs(np.fft.fft2(one)) for one in (maps[0], maps[0, :, ::-1])]  # that of a map, wherever it lies
    for one in found:
        assert min(np.abs(np.abs(np.fft.fft2(one)) - spectrum).max() for spectrum in spectra) < 1e-3


def test_several_labels_and_no_image() -> None:
    corner, pixels, task = looking_at_a_corner(), noise(2), MultiLabel(2)
    found = measure_faithfulness(
        make_eager_inference(corner), pixels, compute_attribution(corner, pixels, task=task), task=task
    )
    logits = make_eager_inference(corner)(pixels)
    np.testing.assert_allclose(found.deletion.values[:, 0], 1 / (1 + np.exp(-logits.max(axis=1))), rtol=1e-5)
    nothing = measure_faithfulness(make_eager_inference(corner), noise(0), compute_attribution(corner, noise(0)))
    assert nothing.deletion.mean == {"value": None, "low": None, "high": None, "n": 0}
    assert nothing.gains == {}


def test_one_step_is_no_curve() -> None:
    corner, pixels = looking_at_a_corner(), noise(2)
    with pytest.raises(RecipeError, match="steps: found 1, expected 2 or more"):
        measure_faithfulness(make_eager_inference(corner), pixels, compute_attribution(corner, pixels), steps=1)
