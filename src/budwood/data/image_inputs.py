"""Images as a program has them - a path, the bytes of a file, a PIL image, an array - to what a network receives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from budwood.data.file_tree import find_image_files
from budwood.data.images import BadImage, ImageShape, Square, convert_squares, decode_squares, read_bytes
from budwood.data.value_range import ValueRange, scale_to_8_bits
from budwood.errors import DataError

ImageInput = str | Path | bytes | Image.Image | NDArray[np.number]
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def list_inputs(images: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    """List the images of an argument that may be one image or several.

    Args:
        images: The path of a file or of a folder of images, the bytes of a file, a PIL image, an array [height, width]
            or [height, width, channels]; or a sequence of these; or an array [n, height, width, channels].

    Returns:
        The images, one an entry.
    """
    if isinstance(images, (str, Path)):
        return list(find_image_files([images])) if _is_folder(images) else [images]
    if isinstance(images, (bytes, Image.Image)):
        return [images]
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if not isinstance(images, Iterable) or isinstance(images, Mapping):
        raise DataError(
            f"images: expected one image or a sequence of images, found {type(images).__name__}.",
            "Give paths, the bytes of files, PIL images or arrays.",
        )
    return [one for image in images for one in (list_inputs(image) if _is_folder(image) else [image])]


def _is_folder(image: ImageInput) -> bool:
    return isinstance(image, (str, Path)) and Path(image).is_dir()


def name_input(image: ImageInput, number: int) -> str:
    """Name an image in messages and tables.

    Args:
        image: The image.
        number: Its place among the images given, from 0.

    Returns:
        The path of a file, else `image` with the number.
    """
    return str(image) if isinstance(image, (str, Path)) else f"image {number}"


def read_input(
    image: ImageInput, squares: Sequence[Square | None], scale: ValueRange | None = None
) -> tuple[list[NDArray[np.uint8]], ImageShape]:
    """Read one image as the pixels that one or more networks receive; it is decoded once.

    Files and their bytes are decoded whole, and turned by their EXIF orientation; so are PIL images.

    Args:
        image: A path, the bytes of a file, a PIL image, or an array of uint8 [height, width] (grey),
            [height, width, 1], [height, width, 3] (RGB) or [height, width, 4] (RGBA). With `scale`, also an array of
            other integers or of floating-point numbers, of the first three shapes.
        squares: For each network the side of its input in pixels, and how the image becomes a square; None for the
            whole image.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        RGB pixels for each network, uint8 [size, size, 3], and what the image was like.

    Raises:
        BadImage: The file cannot be read, or does not decode to its end.
        DataError: The array has another type or shape, or the value is no image at all.
    """
    if isinstance(image, (str, Path)):
        return decode_squares(read_bytes(Path(image)), squares, scale)
    if isinstance(image, bytes):
        if not image:
            raise BadImage("empty", "there are no bytes")
        return decode_squares(image, squares, scale)
    if isinstance(image, Image.Image):
        return convert_squares(image, squares, scale)
    if isinstance(image, np.ndarray):
        pixels, shape = convert_squares(_open_array(image, scale), squares)
        return pixels, replace(shape, deep=image.dtype != np.uint8)
    raise DataError(
        f"images: expected a path, bytes, a PIL image or an array, found {type(image).__name__}.",
        "Give each image in one of these forms.",
    )


def _open_array(values: NDArray[np.number], scale: ValueRange | None) -> Image.Image:
    shape = values.shape
    if scale and _is_deep(values):
        if not np.isfinite(values).all():
            raise BadImage("broken", "values that are not finite (NaN or infinite)")
        values = scale_to_8_bits(values, scale)
    fits = values.ndim == 2 or (values.ndim == 3 and shape[2] in CHANNELS)
    if values.dtype != np.uint8 or not fits or 0 in shape:
        raise DataError(
            f"images: expected an array uint8 [height, width] or [height, width, 1, 3 or 4], "
            f"found {values.dtype} {list(shape)}.",
            "Convert it to uint8 of 0 to 255, with the channels last and in the order red, green, blue."
            + (f" Without opacity, other numbers are taken too; {scale} become black to white." if scale else ""),
        )
    mode = "L" if values.ndim == 2 else CHANNELS[shape[2]]
    plane = values[..., 0] if mode == "L" and values.ndim == 3 else values
    return Image.fromarray(np.ascontiguousarray(plane), mode)


def _is_deep(values: NDArray[np.number]) -> bool:
    """Whether an array holds numbers of another type than uint8, in a shape without opacity."""
    fits = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3))
    return values.dtype != np.uint8 and values.dtype.kind in "uif" and fits and 0 not in values.shape
