"""Every kind of image file becomes the right RGB, and every bad one is told by its kind."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from budwood.config.options import Resizing
from budwood.data.images import BadImage, decode, read_image_metadata, read_pixels, resize_to_square
from conftest import picture


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _rgb(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))


def test_a_16_bit_ramp_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    expected = np.rint(ramp / 257).astype(np.uint8)
    assert np.array_equal(_rgb(_saved(Image.fromarray(ramp), "PNG"))[..., 0], expected)


def test_a_32_bit_grey_file_of_16_bit_values_is_scaled() -> None:
    values = np.array([[0, 257], [32896, 65535]], np.int32)
    assert _rgb(_saved(Image.fromarray(values), "TIFF"))[..., 2].tolist() == [[0, 1], [128, 255]]


@pytest.mark.parametrize(("top", "scale"), [(1.0, 255.0), (200.0, 1.0)])
def test_a_float_file_is_read_as_0_to_1_or_0_to_255(top: float, scale: float) -> None:
    values = np.linspace(0, top, 16, dtype=np.float32).reshape(4, 4)
    assert np.array_equal(_rgb(_saved(Image.fromarray(values), "TIFF"))[..., 1], np.rint(values * scale))


def test_a_float_file_of_another_range_is_refused() -> None:
    with pytest.raises(BadImage, match="expected 0 to 1 or 0 to 255"):
        decode(_saved(Image.fromarray(np.full((2, 2), -3.0, np.float32)), "TIFF"))


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(_rgb(_saved(red, "JPEG")).reshape(-1, 3).mean(0) - [255, 0, 0]).max() < 8


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (10, 20, 30, 255))
    rgb = _rgb(_saved(image, "PNG"))
    assert rgb[0, 0].tolist() == [10, 20, 30]
    assert rgb[3, 3].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 1), 1)
    rgb = _rgb(_saved(image, "PNG", transparency=0))
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[1, 1].tolist() == [0, 0, 255]


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (4, 4), 0)
    image.putpixel((2, 1), 1)
    assert _rgb(_saved(image, "PNG"))[1, 2].tolist() == [255, 255, 255]
    assert _rgb(_saved(image, "PNG")).sum() == 3 * 255


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    data = _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "a.gif").write_bytes(data)
    assert _rgb(data)[0, 0].tolist() == [255, 0, 0]
    assert read_image_metadata(tmp_path / "a.gif").notes[:1] == ("animated",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    image = picture(1).resize((40, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _saved(image, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(_rgb(data), np.asarray(expected))
    (tmp_path / "a.png").write_bytes(data)
    facts = read_image_metadata(tmp_path / "a.png")
    assert (facts.width, facts.height) == expected.size
    assert ("rotated" in facts.notes) == (orientation > 1)


def test_a_truncated_jpeg_opens_but_is_found(tmp_path: Path) -> None:
    data = _saved(picture(2, side=200), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    Image.open(tmp_path / "a.jpg").verify()
    with pytest.raises(BadImage) as caught:
        read_image_metadata(tmp_path / "a.jpg")
    assert caught.value.problem == "truncated"


def test_every_bad_file_is_told_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    damaged = bytearray(_saved(picture(3), "PNG"))
    damaged[60:120] = bytes(60)
    (tmp_path / "damaged.png").write_bytes(bytes(damaged))
    kinds = {}
    for path in tmp_path.iterdir():
        with pytest.raises(BadImage) as caught:
            read_image_metadata(path)
        kinds[path.name] = caught.value.problem
    assert kinds == {
        "text.jpg": "not an image",
        "zero.png": "empty",
        "gone.png": "unreadable",
        "pipe.png": "unreadable",
        "damaged.png": "broken",
    }


def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.data.images.MAX_PIXELS", 100)
    picture(1).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="40 x 40 pixels, more than 100") as caught:
        read_image_metadata(tmp_path / "a.png")
    assert caught.value.problem == "too large"


def test_a_picture_of_one_colour_is_noted(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "teal").save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.png")
    assert "blank" in read_image_metadata(tmp_path / "a.png").notes
    assert "blank" not in read_image_metadata(tmp_path / "b.png").notes


def test_crop_is_the_middle_square() -> None:
    image = picture(4, side=96).crop((0, 0, 96, 64))
    expected = image.crop((16, 0, 80, 64)).resize((32, 32), Image.Resampling.BICUBIC)
    apart = np.abs(np.asarray(resize_to_square(image, 32, Resizing("crop")), int) - np.asarray(expected, int))
    assert apart[:, 2:-2].max() == 0
    assert apart.max() <= 3, "at the sides the filter sees what was cut away"


def _noise(side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8)


def _resized(values: NDArray[np.uint8], size: int, interpolation: Any, how: Any = "squash") -> NDArray[np.int64]:
    return np.asarray(resize_to_square(Image.fromarray(values), size, Resizing(how, interpolation))).astype(int)


def test_area_is_the_mean_of_what_a_pixel_covers_and_nearest_one_pixel_of_it() -> None:
    values = _noise(24)
    means = values.reshape(8, 3, 8, 3, 3).mean(axis=(1, 3))
    assert np.abs(_resized(values, 8, "area") - means).max() <= 1, "rounded after each direction"
    for size in (8, 10, 40):
        places = ((np.arange(size) + 0.5) * 24 / size).astype(int)  # the pixel under the middle
        assert np.array_equal(_resized(values, size, "nearest"), values[places][:, places])


@pytest.mark.parametrize("size", [9, 16, 40])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_bilinear_and_bicubic_are_torchs_with_antialiasing(interpolation: str, size: int) -> None:
    import torch

    values = _noise(24) // 2 + 64  # Pillow clips between the two directions, torch after both
    planes = torch.from_numpy(values).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(planes, (size, size), mode=interpolation, antialias=True)[0]
    found = _resized(values, size, interpolation)
    assert np.abs(found - expected.clamp(0, 255).permute(1, 2, 0).numpy()).max() <= 1.1


def test_an_interpolation_is_that_of_torchvision_for_pictures() -> None:
    from torchvision.transforms import InterpolationMode, Resize

    modes = {
        "bilinear": InterpolationMode.BILINEAR,
        "nearest": InterpolationMode.NEAREST,
        "area": InterpolationMode.BOX,
    }
    values = np.asarray(picture(3, side=301))
    for name, mode in modes.items():
        assert np.array_equal(_resized(values, 20, name), np.asarray(Resize((20, 20), mode)(Image.fromarray(values))))


def test_an_interpolation_is_used_however_an_image_becomes_a_square() -> None:
    values = np.concatenate([_noise(24), _noise(24)[:, :8]], axis=1)  # 24 high, 32 wide
    places = ((np.arange(8) + 0.5) * 3).astype(int)
    assert np.array_equal(_resized(values, 8, "nearest", "crop"), values[places][:, 4 + places])
    padded = _resized(values, 8, "nearest", "pad")
    rows, columns = ((np.arange(6) + 0.5) * 4).astype(int), ((np.arange(8) + 0.5) * 4).astype(int)
    assert np.array_equal(padded[1:7], values[rows][:, columns])
    assert padded[[0, 7]].max() == 0


def test_pad_keeps_everything_and_squash_distorts() -> None:
    image = Image.new("RGB", (80, 40), "white")
    padded = np.asarray(resize_to_square(image, 32, Resizing("pad")))
    assert padded[:8].max() == 0
    assert padded[8:24].min() == 255
    assert padded[24:].max() == 0
    assert np.asarray(resize_to_square(image, 32, Resizing("squash"))).min() == 255


def test_pixels_refuse_a_file_that_was_changed(tmp_path: Path) -> None:
    picture(5).save(tmp_path / "a.png")
    facts = read_image_metadata(tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png", facts.id, 32, Resizing("crop")).shape == (32, 32, 3)
    picture(6).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="changed after it was scanned"):
        read_pixels(tmp_path / "a.png", facts.id, 32, Resizing("crop"))
