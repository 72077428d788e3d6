"""HEIC, as phones write it: upright, once turned and not twice."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from budwood.data.images import BadImage, decode


def encode(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95, exif=exif.tobytes())
    return out.getvalue()


def corners(image: Image.Image) -> list[str]:
    """The colour of each corner, clockwise from the top left, by its strongest channel; dark ones have none."""
    pixels = np.asarray(image).astype(int)
    found = [pixels[8, 8], pixels[8, -9], pixels[-9, -9], pixels[-9, 8]]
    return ["rgb"[int(one.argmax())] if one.max() > 100 else "-" for one in found]


def marked() -> Image.Image:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:24, :24, 0], pixels[:24, -24:, 1], pixels[-24:, -24:, 2] = 255, 255, 255
    return Image.fromarray(pixels)


def test_a_plain_file_is_as_it_was_made() -> None:
    image = decode(encode(marked()))
    assert (image.size, image.mode, corners(image)) == ((96, 64), "RGB", ["r", "g", "b", "-"])
    assert np.abs(np.asarray(image).astype(int) - np.asarray(marked())).mean() < 5


@pytest.mark.parametrize(
    ("orientation", "size", "expected"),
    [
        (3, (96, 64), ["b", "-", "r", "g"]),
        (6, (64, 96), ["-", "r", "g", "b"]),
        (8, (64, 96), ["g", "b", "-", "r"]),
        (2, (96, 64), ["g", "r", "-", "b"]),
    ],
)
def test_a_turned_file_is_upright(orientation: int, size: tuple[int, int], expected: list[str]) -> None:
    image = decode(encode(marked(), orientation))
    assert (image.size, corners(image)) == (size, expected)


def test_a_damaged_file_is_told() -> None:
    with pytest.raises(BadImage):
        decode(encode(marked())[:200])
