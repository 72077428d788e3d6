"""Grids of small pictures: every tile at its place, as crisp as asked for, on nothing."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from budwood.explain.image_grid import GAP, encode_png, make_grid, make_png_uri, stretch


def test_crisp_tiles_are_squares_of_their_values_and_gaps_are_transparent() -> None:
    tiles = np.array([[[0, 1], [0.5, 0]], [[1, 1], [1, 1]], [[0.2, 0.2], [0.2, 0.2]]], np.float32)
    pixels = np.asarray(make_grid(tiles, 2, 7, crisp=True).convert("RGBA"))
    side = 8  # twice 4, the nearest to 7
    assert pixels.shape == (2 * side + GAP, 2 * side + GAP, 4)
    assert (pixels[:4, :4] == [0, 0, 0, 255]).all()
    assert (pixels[:4, 4:8] == 255).all()
    assert (pixels[4:8, :4] == [128, 128, 128, 255]).all()
    assert (pixels[:side, side + GAP :] == 255).all()
    assert (pixels[side + GAP :, :side] == [51, 51, 51, 255]).all()
    assert (pixels[:, side : side + GAP] == 0).all()
    assert (pixels[side + GAP :, side + GAP :] == 0).all()  # no fourth tile


def test_other_tiles_are_smooth_and_as_large_as_asked_for() -> None:
    tiles = np.array([[[0, 1], [0, 1]]], np.float32)
    pixels = np.asarray(make_grid(tiles, 6, 50))[..., 0]
    assert pixels.shape == (50, 50)
    assert len(np.unique(pixels)) > 10
    assert (np.diff(pixels[25].astype(int)) >= 0).all()


def test_large_tiles_are_not_cut_and_oblong_ones_keep_their_shape() -> None:
    assert make_grid(np.zeros((1, 32, 32, 3), np.uint8), 1, 20, crisp=True).size == (32, 32)
    assert make_grid(np.zeros((1, 10, 20), np.uint8), 1, 40).size == (40, 20)


def test_colours_are_kept_and_values_beyond_are_cut_off() -> None:
    tiles = np.array([[[[-1, 0.5, 2]]]], np.float32)
    assert np.asarray(make_grid(tiles, 1, 1, crisp=True)).tolist() == [[[0, 128, 255, 255]]]


def test_maps_are_stretched_each_by_itself() -> None:
    maps = np.array([[[-2, 0], [2, 1]], [[5, 5], [5, 5]]], np.float32)
    assert stretch(maps).tolist() == [[[0, 0.5], [1, 0.75]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("crisp", [True, False])
def test_a_png_is_what_was_drawn(crisp: bool) -> None:
    picture = make_grid(np.random.default_rng(0).random((5, 3, 3, 3), np.float32), 3, 12, crisp=crisp)
    header, _, body = make_png_uri(picture).partition(",")
    assert header == "data:image/png;base64"
    assert base64.b64decode(body) == encode_png(picture)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(picture)))) == np.asarray(picture)).all()
