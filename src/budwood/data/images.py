"""Any image file to RGB, correctly, or a reason why not.

Pillow's `open` and `verify` pass truncated files and its `convert("RGB")` clips 16-bit grey to white,
so every file is decoded whole once and every mode is handled by name.
"""

from __future__ import annotations

import hashlib
import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from budwood.config.options import Resize

Problem = Literal["empty", "unreadable", "not an image", "truncated", "broken", "too large"]

THUMBNAIL_SIDE: Final = 64  # side of the grey thumbnail that near duplicates are compared by
MAX_PIXELS: Final = 178_956_970  # Pillow's own bound against decompression bombs
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):  # noqa: N818 - it is what was found, not a failure of the program
    """File that cannot be decoded whole.

    Attributes:
        problem: Kind of problem, one of `Problem`.
        detail: Explanation, one clause.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        """Store the kind of problem and its explanation.

        Args:
            problem: Kind of problem.
            detail: Explanation, one clause.
        """
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """Facts about an image file that one full decode gives.

    Attributes:
        id: BLAKE2b-128 hash of the file's bytes, in hex.
        width: Width in pixels, after EXIF orientation.
        height: Height in pixels, after EXIF orientation.
        mode: Pillow's name of the stored mode.
        notes: What was seen or done to reach RGB: `rotated`, `animated`, `alpha`, `16-bit`, `cmyk`, `blank`.
        thumb: Grey thumbnail of THUMBNAIL_SIDE x THUMBNAIL_SIDE pixels, uint8, row by row.
    """

    id: str
    width: int
    height: int
    mode: str
    notes: tuple[str, ...]
    thumb: bytes


def compute_content_id(data: bytes) -> str:
    """Compute the content id of a file.

    Args:
        data: The file's bytes.

    Returns:
        The BLAKE2b-128 hash in hex, 32 characters.
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a regular file.

    Args:
        path: The file. Pipes and devices are refused, as opening a pipe would wait for ever.

    Returns:
        The content, at least one byte.

    Raises:
        BadImage: When the file cannot be read, is not a regular file or is empty.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise BadImage("unreadable", "not a regular file")
        data = path.read_bytes()
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error
    if not data:
        raise BadImage("empty", "the file has no bytes")
    return data


def read_image_metadata(path: Path) -> ImageMetadata:
    """Decode an image file whole and describe it.

    Args:
        path: The image file.

    Returns:
        The content id, size, mode, notes and thumbnail.

    Raises:
        BadImage: When the file cannot be read or does not decode to its end.
    """
    data = read_bytes(path)
    image, mode, notes = _decode(data)
    # Bilinear rather than box: it changes least when the same picture comes at another size.
    grey = image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    if image.getcolors(1):
        notes = (*notes, "blank")
    return ImageMetadata(compute_content_id(data), image.width, image.height, mode, notes, grey.tobytes())


def decode(data: bytes) -> Image.Image:
    """Decode an image file to an upright RGB image.

    Args:
        data: The file's bytes.

    Returns:
        The image in mode RGB, turned by its EXIF orientation; the first frame of an animation.

    Raises:
        BadImage: When the bytes do not decode to their end, are not an image, or have more than `MAX_PIXELS`
            pixels.
    """
    return _decode(data)[0]


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to an upright RGB image, as `decode` does with a file.

    Args:
        image: An image of any mode that `decode` accepts; it is not changed.

    Returns:
        The image in mode RGB, turned by its EXIF orientation.

    Raises:
        BadImage: The image has a side of no pixels, its file does not decode to its end, or its values are out of
            range.
    """
    if 0 in image.size:
        raise BadImage("empty", "the image has no pixels")
    try:
        image.load()
    except Exception as error:
        raise _describe_decoding_error(error) from error
    return _turn_upright(image)[0]


def resize_to_square(image: Image.Image, size: int, how: Resize) -> Image.Image:
    """Resize an RGB image to a square, with bicubic interpolation.

    Args:
        image: Image in mode RGB.
        size: Side of the square in pixels.
        how: `crop` keeps the middle square, `pad` adds black borders, `squash` ignores the aspect ratio.

    Returns:
        The image of `size` x `size` pixels.
    """
    width, height = image.size
    if how == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if how == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (size, size))
    small = image.resize(inner, Image.Resampling.BICUBIC, reducing_gap=3.0)
    canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return canvas


def read_pixels(path: Path, expected_id: str, size: int, how: Resize) -> NDArray[np.uint8]:
    """Read an image file as the pixels that a network receives.

    Args:
        path: The image file.
        expected_id: Content id that the file had when it was scanned.
        size: Side of the square in pixels.
        how: `crop`, `pad` or `squash`, as in `resize_to_square`.

    Returns:
        RGB pixels, uint8 [size, size, 3].

    Raises:
        BadImage: When the file cannot be read or decoded, or its content no longer matches `expected_id`.
    """
    data = read_bytes(path)
    if compute_content_id(data) != expected_id:
        raise BadImage("unreadable", "the file was changed after it was scanned")
    return np.asarray(resize_to_square(decode(data), size, how))


def _decode(data: bytes) -> tuple[Image.Image, str, tuple[str, ...]]:
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise BadImage("too large", f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        image.load()
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not an image", "unknown image format") from error
    except Image.DecompressionBombError as error:
        raise BadImage("too large", f"more than {MAX_PIXELS:,} pixels") from error
    except MemoryError as error:
        raise BadImage("too large", "does not fit in memory") from error
    except Exception as error:
        raise _describe_decoding_error(error) from error
    rgb, notes = _turn_upright(image)
    if getattr(image, "is_animated", False):
        notes = ("animated", *notes)
    return rgb, image.mode, notes


def _describe_decoding_error(error: Exception) -> BadImage:
    """What went wrong in decoding: each of Pillow's format readers raises errors of its own kinds."""
    detail = " ".join(str(error).split()) or type(error).__name__
    cut_short = "truncated" in detail.lower() or isinstance(error, EOFError)
    return BadImage("truncated" if cut_short else "broken", detail)


def _turn_upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    turn = _TURNS.get(_read_orientation(image))
    rgb, notes = _to_rgb(image)
    return (rgb, notes) if turn is None else (rgb.transpose(turn), ("rotated", *notes))


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if image.mode.startswith("I;16"):
        return _make_grey(np.asarray(image, np.float32) / 257), ("16-bit",)
    if image.mode == "I":
        values = np.asarray(image, np.float64)
        top = 65535 if values.max() <= 65535 else 2**31 - 1
        return _make_grey(values * (255 / top)), ("16-bit",)
    if image.mode == "F":
        return _make_float_grey(np.asarray(image, np.float64)), ("16-bit",)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _lay_on_white(image.convert("RGBA"))
    return image.convert("RGB"), (("cmyk",) if image.mode == "CMYK" else ())


def _make_grey(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


def _make_float_grey(values: NDArray[np.float64]) -> Image.Image:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 255:
        raise BadImage("broken", f"floating-point pixels from {low:g} to {high:g}; expected 0 to 1 or 0 to 255")
    return _make_grey(values * 255 if high <= 1 else values)


def _lay_on_white(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    low, _ = image.getchannel("A").getextrema()
    white = Image.new("RGBA", image.size, "white")
    rgb = Image.alpha_composite(white, image).convert("RGB")
    return rgb, (("alpha",) if isinstance(low, int) and low < 255 else ())
