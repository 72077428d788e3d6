"""Overlays can be read: on dark and on bright images, by everybody, with the image showing through."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from budwood.explain.overlays import (
    COLOURS,
    GAP,
    SIDE,
    colour_map,
    draw_gallery,
    draw_legend,
    draw_map_strip,
    draw_overlay,
)


def _lightness(picture: Image.Image) -> NDArray[np.float64]:
    """CIE lightness of every pixel, 0 to 100, by the definition of sRGB."""
    values = np.asarray(picture, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.asarray(np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y))


def _stripes(low: int, high: int) -> NDArray[np.uint8]:
    image = np.full((64, 64, 3), low, np.uint8)
    image[:, (np.arange(64) // 4) % 2 == 1] = high
    return image


def test_colours_are_ordered_by_lightness() -> None:
    ramp = colour_map(np.linspace(0, 1, 50, dtype=np.float32)[None])
    steps = np.diff(_lightness(Image.fromarray(ramp.astype(np.uint8)))[0])
    assert (steps < 0.3).all()
    assert steps.sum() < -60
    assert len(COLOURS) == 5


def test_where_nothing_speaks_the_image_is_in_plain_grey() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = np.asarray(draw_overlay(image, np.zeros((64, 64), np.float32)), np.int64)
    assert made.shape == (SIDE, SIDE, 3)
    assert (made.max(axis=2) == made.min(axis=2)).all()


def test_the_image_shows_through_at_every_value_dark_or_bright() -> None:
    for low, high in ((4, 24), (220, 250)):  # a dark solar cell, a bright photograph
        for value in (0.0, 0.3, 0.7, 1.0):
            values = np.full((64, 64), value, np.float32)
            values[:2] = 1
            picture = draw_overlay(_stripes(low, high), values, 64)
            inner = _lightness(picture)[8:-8, 8:-8]
            assert np.percentile(inner, 90) - np.percentile(inner, 10) > 10, (low, value)


def test_high_values_differ_from_low_ones() -> None:
    values = np.zeros((64, 64), np.float32)
    values[:, 32:] = 1
    made = np.asarray(draw_overlay(_stripes(100, 140), values, 64), np.float64)
    assert np.abs(made[:, :24].mean(axis=(0, 1)) - made[:, 40:].mean(axis=(0, 1))).max() > 60


def test_a_line_runs_at_half_of_the_largest_value() -> None:
    values = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (64, 64))
    flat = np.asarray(draw_overlay(_stripes(100, 140), values, 64), np.int64)
    dark = np.flatnonzero((flat == (40, 44, 48)).all(axis=(0, 2)))
    assert dark.tolist() == [32]


def test_a_few_cells_far_above_all_others_do_not_hide_them() -> None:
    values = np.zeros((64, 64), np.float32)
    values[:, 40:] = 0.05
    values[3, 3] = 1
    made = np.asarray(draw_overlay(_stripes(100, 140), values, 64), np.int64)
    tinted = made.max(axis=2) - made.min(axis=2) > 25
    assert tinted[:, 42:].all()
    values[:, 40:] = 0
    alone = np.asarray(draw_overlay(_stripes(100, 140), values, 64), np.int64)
    assert (alone[3, 3] != alone[20, 3]).any()
    assert (alone[8:] == alone[8]).all()


def test_a_coarse_map_is_enlarged_where_it_belongs() -> None:
    cells = np.zeros((4, 4), np.float32)
    cells[0, 3] = 1
    made = np.asarray(draw_overlay(_stripes(100, 140), cells, 64), np.int64)
    tinted = made.max(axis=2) - made.min(axis=2) > 25
    assert tinted[:16, 48:].mean() > 0.7
    assert not tinted[32:].any()
    assert not tinted[:, :32].any()


def test_pictures_side_by_side() -> None:
    images = np.stack([_stripes(0, 30), _stripes(0, 200)])
    maps = {"grad-cam": np.zeros((2, 64, 64), np.float32), "occlusion": np.ones((2, 64, 64), np.float32)}
    row = draw_map_strip(images[0], [maps["grad-cam"][0]], 50)
    assert row.size == (100 + GAP, 50)
    assert draw_gallery(images, maps, ["one", "two"], 50).size[0] == 3 * (50 + GAP) + GAP
    assert draw_gallery(images, maps, (), 50).size[1] < draw_gallery(images, maps, ["one", "two"], 50).size[1]
    assert draw_legend(100, 9).size == (100, 9)


def test_neither_torch_nor_matplotlib_is_needed() -> None:
    code = "import sys, budwood.explain.overlays as o; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
