"""Small valid images of every format and mode that Budwood reads."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import numpy as np
from deep_files import encode_png, encode_tiff
from PIL import Image

WIDTH: Final = 24
HEIGHT: Final = 18
_PILLOW: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {  # name: format, mode, options
    "baseline.jpg": ("JPEG", "RGB", {"quality": 80}),
    "progressive.jpg": ("JPEG", "RGB", {"progressive": True}),
    "cmyk.jpg": ("JPEG", "CMYK", {}),
    "grey.jpg": ("JPEG", "L", {}),
    "restart.jpg": ("JPEG", "RGB", {"restart_marker_blocks": 1}),
    "rgb.png": ("PNG", "RGB", {}),
    "rgba.png": ("PNG", "RGBA", {}),
    "one-bit.png": ("PNG", "1", {}),
    "palette.png": ("PNG", "P", {}),
    "clear-palette.png": ("PNG", "P", {"transparency": 3}),
    "four-bit.png": ("PNG", "P", {"bits": 4}),
    "grey-alpha.png": ("PNG", "LA", {}),
    "16-bit.png": ("PNG", "I;16", {}),
    "plain.gif": ("GIF", "P", {}),
    "rgb.bmp": ("BMP", "RGB", {}),
    "palette.bmp": ("BMP", "P", {}),
    "one-bit.bmp": ("BMP", "1", {}),
    "raw.tif": ("TIFF", "RGB", {}),
    "lzw.tif": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "deflate.tif": ("TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
    "packbits.tif": ("TIFF", "L", {"compression": "packbits"}),
    "jpeg.tif": ("TIFF", "RGB", {"compression": "jpeg"}),
    "fax.tif": ("TIFF", "1", {"compression": "group4"}),
    "16-bit.tif": ("TIFF", "I;16", {}),
    "32-bit.tif": ("TIFF", "I", {"compression": "tiff_lzw"}),
    "float.tif": ("TIFF", "F", {}),
    "lossy.webp": ("WEBP", "RGB", {"quality": 70}),
    "lossless.webp": ("WEBP", "RGBA", {"lossless": True}),
    "colour.ppm": ("PPM", "RGB", {}),
    "grey.pgm": ("PPM", "L", {}),
    "deep.pgm": ("PPM", "I;16", {}),
    "one-bit.pbm": ("PPM", "1", {}),
    "small.ico": ("ICO", "RGBA", {"sizes": [(16, 16)]}),
    "bitmap.ico": ("ICO", "RGBA", {"sizes": [(16, 16)], "bitmap_format": "bmp"}),
    "rgb.jp2": ("JPEG2000", "RGB", {}),
    "rgb.avif": ("AVIF", "RGB", {}),
    "rle.tga": ("TGA", "RGB", {"compression": "tga_rle"}),
    "raw.tga": ("TGA", "RGBA", {}),
    "rgb.pcx": ("PCX", "RGB", {}),
    "rgb.sgi": ("SGI", "RGB", {}),
    "rgb.dds": ("DDS", "RGBA", {}),
    "rgb.qoi": ("QOI", "RGB", {}),
    "grey.im": ("IM", "L", {}),
    "one-bit.msp": ("MSP", "1", {}),
    "one-bit.xbm": ("XBM", "1", {}),
    "float.spider": ("SPIDER", "F", {}),
}


def _draw_values(seed: int, channels: int, most: int = 255) -> np.ndarray:
    """Smooth values of 0 to `most`: float64 [height, width, channels]."""
    coarse = np.random.default_rng(seed).random((5, 6, channels))
    rows, columns = np.linspace(0, 3.999, HEIGHT), np.linspace(0, 4.999, WIDTH)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
    lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
    return np.asarray((upper * (1 - down) + lower * down) * most)


def make_picture(seed: int, mode: str) -> Image.Image:
    """A smooth picture of any mode, unlike that of another seed."""
    if mode == "F":
        return Image.fromarray(_draw_values(seed, 1, 1)[..., 0].astype(np.float32))
    if mode == "I":
        return Image.fromarray(_draw_values(seed, 1, 2**31 - 1)[..., 0].astype(np.int32))
    if mode == "I;16":
        return Image.fromarray(_draw_values(seed, 1, 65535)[..., 0].astype(np.uint16))
    rgba = Image.fromarray(_draw_values(seed, 4).astype(np.uint8), "RGBA")
    if mode in ("RGBA", "LA"):
        return rgba.convert(mode)
    return rgba.convert("RGB").convert(mode)


def _save(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def _save_rotated(seed: int) -> bytes:
    picture = make_picture(seed, "RGB")
    exif = picture.getexif()
    exif[0x0112] = 6
    return _save(picture, "JPEG", exif=exif)


def _save_frames(seed: int, format: str, mode: str) -> bytes:
    first, *rest = (make_picture(seed + number, mode) for number in range(3))
    return _save(first, format, save_all=True, append_images=rest)


def _save_icns(seed: int) -> bytes:
    """An icon of one size; Pillow itself writes it in ten."""
    small = _save(make_picture(seed, "RGBA").resize((16, 16)), "PNG")
    return b"icns" + struct.pack(">I", len(small) + 16) + b"icp4" + struct.pack(">I", len(small) + 8) + small


def _save_interlaced(seed: int) -> bytes:
    """A PNG file in the seven passes of Adam7, which Pillow does not write."""
    values = _draw_values(seed, 3).astype(np.uint8)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row for y, x, down, right in passes for row in values[y::down, x::right]]
    lines = b"".join(b"\0" + row.tobytes() for row in rows if row.size)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)), (b"IDAT", zlib.compress(lines)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (*chunks, (b"IEND", b""))
    )


_MADE: Final[dict[str, Callable[[int], bytes]]] = {
    "rotated.jpg": _save_rotated,
    "icon.icns": _save_icns,
    "interlaced.png": _save_interlaced,
    "animated.gif": lambda seed: _save_frames(seed, "GIF", "P"),
    "animated.webp": lambda seed: _save_frames(seed, "WEBP", "RGB"),
    "animated.png": lambda seed: _save_frames(seed, "PNG", "RGB"),
    "pages.tif": lambda seed: _save_frames(seed, "TIFF", "RGB"),
    "deep-rgb.png": lambda seed: encode_png(_draw_values(seed, 3, 4095).astype(np.uint16)),
    "deep-rgba.png": lambda seed: encode_png(_draw_values(seed, 4, 65535).astype(np.uint16)),
    "deep-grey-alpha.png": lambda seed: encode_png(_draw_values(seed, 2, 65535).astype(np.uint16)),
    "deep-rgb.tif": lambda seed: encode_tiff(_draw_values(seed, 3, 65535).astype(np.uint16), packed=True),
    "big-endian.tif": lambda seed: encode_tiff(_draw_values(seed, 1, 4095)[..., 0].astype(np.uint16), order=">"),
    "unsigned.tif": lambda seed: encode_tiff(_draw_values(seed, 1, 2**32 - 1)[..., 0].astype(np.uint32)),
    "inverted.tif": lambda seed: encode_tiff(
        _draw_values(seed, 1, 4095)[..., 0].astype(np.uint16), white_is_small=True
    ),
}


@cache
def make_pictures(seed: int = 0) -> dict[str, bytes]:
    """Make one small file of each format and mode.

    Args:
        seed: Decides what they show.

    Returns:
        Their bytes by name.
    """
    made = {
        name: _save(make_picture(seed * 1000 + number, mode), format, **options)
        for number, (name, (format, mode, options)) in enumerate(_PILLOW.items())
    }
    return {**made, **{name: make(seed * 1000 + 500 + number) for number, (name, make) in enumerate(_MADE.items())}}


def iterate_valid(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of so many valid images, all different."""
    for number in range(count):
        yield f"valid-{number}.png", _save(make_picture(seed * 1_000_000 + 900_000 + number, "RGB"), "PNG")
