"""Any image file to RGB, correctly, or a reason why not.

Pillow's `open` and `verify` pass truncated files and its `convert("RGB")` clips 16-bit grey to white,
so every file is decoded whole once and every mode is handled by name. Values of more than 8 bits are scaled by the
range that was chosen for a data set; where none was, as in the runs of earlier versions, by the range of their type.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from budwood.config.options import Interpolation, Resizing
from budwood.data.decoding_budget import reserve_memory
from budwood.data.deep_images import (
    DeepImage,
    find_deep_colours,
    is_deep_grey,
    read_deep_colours,
    read_deep_grey,
    split_strips,
)
from budwood.data.formats import EPS, name_format, open_image
from budwood.data.value_range import StoredValues, ValueRange, round_outwards
from budwood.storage.checked_files import digest_bytes

Square = tuple[int, Resizing]  # the side in pixels, and how an image becomes it
Problem = Literal["empty", "unreadable", "not an image", "truncated", "broken", "too large"]

THUMBNAIL_SIDE: Final = 64  # side of the grey thumbnail that near duplicates are compared by
MAX_PIXELS: Final = 178_956_970  # Pillow's own bound against decompression bombs
DRAFTED: Final = 4_000_000  # pixels of a JPEG above which a thumbnail is made of less than all of it
INTERPOLATIONS: Final[Mapping[Interpolation, Image.Resampling]] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
}
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
        values: Stored values, where they have more than 8 bits; the thumbnail is scaled by them.
    """

    id: str
    width: int
    height: int
    mode: str
    notes: tuple[str, ...]
    thumb: bytes
    values: StoredValues | None = None


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What an image was like before it became the pixels of a network.

    Attributes:
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        mode: Pillow's name of the stored mode.
        deep: Whether its values had more than 8 bits.
    """

    width: int
    height: int
    mode: str
    deep: bool


def compute_content_id(data: bytes) -> str:
    """Compute the content id of a file.

    Args:
        data: The file's bytes.

    Returns:
        The BLAKE2b-128 hash in hex, 32 characters.
    """
    return digest_bytes(data)


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


def find_inside(root: Path, path: str) -> Path | None:
    """Find a file of a data set, unless its path leads out of the folder of the data set.

    Args:
        root: Folder of the data set.
        path: Path relative to it, as a file from elsewhere may have it.

    Returns:
        The resolved path; None for an absolute path, one with `..`, and one whose links lead out of `root`.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts:
        return None
    try:
        place = (root / path).resolve()
        return place if place.is_relative_to(root.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle, or a name that no file can have
        return None


def read_known_bytes(path: Path, id: str) -> bytes:
    """Read the bytes of an image file whose content is known.

    Args:
        path: The file.
        id: Content id that it must have.

    Returns:
        The content.

    Raises:
        BadImage: When the file cannot be read, or has another content.
    """
    data = read_bytes(path)
    if compute_content_id(data) != id:
        raise BadImage("unreadable", "the file was changed after it was scanned")
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
    file = _open(data)
    with reserve_memory(file):
        opened = _load(file, data)
        values = _measure(opened.deep) if opened.deep else None
        image, notes = _turn_upright(opened, round_outwards(values) if values else None)
        notes = ("animated", *notes) if opened.animated else notes
        # Bilinear rather than box: it changes least when the same picture comes at another size.
        grey = image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
        if image.getcolors(1):
            notes = (*notes, "blank")
    return ImageMetadata(compute_content_id(data), *image.size, file.mode, notes, grey.tobytes(), values)


def decode(data: bytes, scale: ValueRange | None = None) -> Image.Image:
    """Decode an image file to an upright RGB image.

    Args:
        data: The file's bytes.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        The image in mode RGB, turned by its EXIF orientation; the first frame of an animation.

    Raises:
        BadImage: When the bytes do not decode to their end, are not an image, or have more than `MAX_PIXELS`
            pixels.
    """
    file = _open(data)
    with reserve_memory(file):
        image = _turn_upright(_load(file, data), scale)[0]
        return image if image.mode == "RGB" else image.convert("RGB")


def read_thumbnail(path: Path, side: int, id: str, scale: ValueRange | None = None) -> Image.Image:
    """Read an image file as a small picture for a page.

    Args:
        path: The image file.
        side: Most pixels of a side. Of a JPEG that is much larger, only as much is decoded as that takes.
        id: Content id that the file must have.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        The image in mode RGB, turned by its EXIF orientation.

    Raises:
        BadImage: When the file cannot be read or decoded, or has another content.
    """
    data = read_known_bytes(path, id)
    file = _open(data)
    if file.width * file.height > DRAFTED:
        file.draft(None, (2 * side, 2 * side))
    with reserve_memory(file):
        image = _turn_upright(_load(file, data), scale)[0]
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image.convert("RGB")


def decode_squares(
    data: bytes, squares: Sequence[Square | None], scale: ValueRange | None = None
) -> tuple[list[NDArray[np.uint8]], ImageShape]:
    """Decode an image file once to the pixels that one or more networks receive.

    Args:
        data: The file's bytes.
        squares: The side of each square in pixels, and how the image becomes one; None for the whole image.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        RGB pixels of each square, uint8 [size, size, 3], or of the whole image, and what the image was like.

    Raises:
        BadImage: As `decode`.
    """
    file = _open(data)
    with reserve_memory(file):
        opened = _load(file, data)
        image = _turn_upright(opened, scale)[0]
        shape = ImageShape(*image.size, file.mode, opened.deep is not None)
        return [_make_pixels(image, square) for square in squares], shape


def convert_squares(
    image: Image.Image, squares: Sequence[Square | None], scale: ValueRange | None = None
) -> tuple[list[NDArray[np.uint8]], ImageShape]:
    """Convert an opened image to the pixels that networks receive, as `decode_squares` does with a file.

    Args:
        image: An image of any mode that `decode` accepts; it is not changed.
        squares: As for `decode_squares`.
        scale: As for `decode_squares`.

    Returns:
        RGB pixels of each square, uint8 [size, size, 3], or of the whole image, and what the image was like.

    Raises:
        BadImage: The image has a side of no pixels, its file does not decode to its end, or its values are out of
            range.
    """
    opened = _load_opened(image)
    upright = _turn_upright(opened, scale)[0]
    shape = ImageShape(*upright.size, image.mode, opened.deep is not None)
    return [_make_pixels(upright, square) for square in squares], shape


def convert_to_rgb(image: Image.Image, scale: ValueRange | None = None) -> Image.Image:
    """Convert an opened image to an upright RGB image, as `decode` does with a file.

    Args:
        image: An image of any mode that `decode` accepts; it is not changed.
        scale: As for `decode`.

    Returns:
        The image in mode RGB, turned by its EXIF orientation.

    Raises:
        BadImage: As `convert_squares`.
    """
    return _turn_upright(_load_opened(image), scale)[0].convert("RGB")


def _load_opened(image: Image.Image) -> _Opened:
    """An image that the user has opened, decoded to its end."""
    if 0 in image.size:
        raise BadImage("empty", "the image has no pixels")
    if image.format == "EPS":  # to load it would start Ghostscript
        raise BadImage("not an image", EPS)
    try:
        image.load()
    except Exception as error:
        raise _describe_decoding_error(error) from error
    return _Opened(image, read_deep_grey(image) if is_deep_grey(image) else None)


def _make_pixels(image: Image.Image, square: Square | None) -> NDArray[np.uint8]:
    """The pixels of a square, or of the whole image."""
    return make_square_pixels(image, *square) if square else np.asarray(image.convert("RGB"))


def make_square_pixels(image: Image.Image, size: int, resizing: Resizing) -> NDArray[np.uint8]:
    """Resize an upright image in mode L or RGB to the pixels of a network, uint8 [size, size, 3]."""
    if image.mode != "RGB" and resizing.how == "pad":
        image = image.convert("RGB")  # the borders are made in colour
    return np.asarray(resize_to_square(image, size, resizing).convert("RGB"))


def resize_to_square(image: Image.Image, size: int, resizing: Resizing) -> Image.Image:
    """Resize an image to a square.

    Args:
        image: Image in mode RGB or L.
        size: Side of the square in pixels.
        resizing: How it becomes a square, and by which interpolation.

    Returns:
        The image of `size` x `size` pixels.
    """
    method = INTERPOLATIONS[resizing.interpolation]
    gap = 3.0 if resizing.interpolation == "bicubic" else None  # faster by far; the others are Pillow's to the bit
    width, height = image.size
    if resizing.how == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), method, box=box, reducing_gap=gap)
    if resizing.how == "squash":
        return image.resize((size, size), method, reducing_gap=gap)
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (size, size))
    small = image.resize(inner, method, reducing_gap=gap)
    canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return canvas


def read_pixels(
    path: Path, expected_id: str, size: int, resizing: Resizing, scale: ValueRange | None = None
) -> NDArray[np.uint8]:
    """Read an image file as the pixels that a network receives.

    Args:
        path: The image file.
        expected_id: Content id that the file had when it was scanned.
        size: Side of the square in pixels.
        resizing: How it becomes a square, and by which interpolation.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        RGB pixels, uint8 [size, size, 3].

    Raises:
        BadImage: When the file cannot be read or decoded, or its content no longer matches `expected_id`.
    """
    data = read_known_bytes(path, expected_id)
    file = _open(data)
    with reserve_memory(file):
        return make_square_pixels(_turn_upright(_load(file, data), scale)[0], size, resizing)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A loaded image, and its values where they have more than 8 bits."""

    image: Image.Image
    deep: DeepImage | None
    animated: bool = False


@contextmanager
def _refuse_undecodable() -> Iterator[None]:
    """Raise `BadImage` for whatever goes wrong in decoding."""
    try:
        yield
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too large", f"more than {MAX_PIXELS:,} pixels") from error
    except MemoryError as error:
        raise BadImage("too large", "does not fit in memory") from error
    except Exception as error:
        raise _describe_decoding_error(error) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """Open an image without decoding it."""
    with _refuse_undecodable():
        try:
            image = open_image(data)
        except UnidentifiedImageError as error:
            raise BadImage("not an image", name_format(data)) from error
        if image.width * image.height > MAX_PIXELS:
            raise BadImage("too large", f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        return image


def _load(image: Image.Image, data: bytes) -> _Opened:
    """Decode an opened image to its end."""
    with _refuse_undecodable():
        colours = find_deep_colours(image)
        image.load()
        deep = read_deep_colours(image, data, colours) if colours else None
        if deep is None and is_deep_grey(image):
            deep = read_deep_grey(image)
        return _Opened(image, deep, bool(getattr(image, "is_animated", False)))


def _describe_decoding_error(error: Exception) -> BadImage:
    """What went wrong in decoding: each of Pillow's format readers raises errors of its own kinds."""
    detail = " ".join(str(error).split()) or type(error).__name__
    cut_short = "truncated" in detail.lower() or isinstance(error, EOFError)
    return BadImage("truncated" if cut_short else "broken", detail)


def _turn_upright(opened: _Opened, scale: ValueRange | None) -> tuple[Image.Image, tuple[str, ...]]:
    """The image in mode L or RGB, upright; grey stays L, as that takes a quarter of the memory."""
    turn = _TURNS.get(_read_orientation(opened.image))
    image, notes = _to_8_bits(opened, scale)
    return (image, notes) if turn is None else (image.transpose(turn), ("rotated", *notes))


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _to_8_bits(opened: _Opened, scale: ValueRange | None) -> tuple[Image.Image, tuple[str, ...]]:
    image, deep = opened.image, opened.deep
    if deep and scale:
        return _scale_deep(deep, scale)
    if is_deep_grey(image):
        plain = DeepImage(image)
        values = plain.measure()
        return plain.scale(_range_of_type(image.mode, values.low, values.high)), ("16-bit",)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _lay_on_white(image)
    if image.mode in ("L", "RGB"):
        return image, ()
    return image.convert("RGB"), (("cmyk",) if image.mode == "CMYK" else ())


def _scale_deep(deep: DeepImage, scale: ValueRange) -> tuple[Image.Image, tuple[str, ...]]:
    _measure(deep)
    image, opacity = deep.scale(scale), deep.take_opacity()
    if opacity is None:
        return image, ("16-bit",)
    image = image.convert("RGB")
    image.putalpha(opacity)
    rgb, notes = _lay_on_white(image)
    return rgb, ("16-bit", *notes)


def _measure(deep: DeepImage) -> StoredValues:
    found = deep.measure()
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        raise BadImage("broken", f"floating-point pixels from {found.low:g} to {found.high:g}; expected finite ones")
    return found


def _range_of_type(mode: str, low: float, high: float) -> ValueRange:
    """The range by which images are scaled where none was chosen."""
    if mode.startswith("I;16"):
        return ValueRange(0, 65535)
    if mode == "I":
        return ValueRange(0, 65535 if high <= 65535 else 2**31 - 1)
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 255:
        raise BadImage("broken", f"floating-point pixels from {low:g} to {high:g}; expected 0 to 1 or 0 to 255")
    return ValueRange(0, 1 if high <= 1 else 255)


def _lay_on_white(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    rgb, clearest = Image.new("RGB", image.size), 255
    for top, strip in split_strips(image):
        strip = strip.convert("RGBA")
        low, _ = strip.getchannel("A").getextrema()
        clearest = min(clearest, low) if isinstance(low, int) else clearest
        white = Image.new("RGBA", strip.size, "white")
        rgb.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return rgb, (("alpha",) if clearest < 255 else ())
