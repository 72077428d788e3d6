"""Images that a program has in memory as the bytes of files, which depend on the pixels alone.

An array or a PIL image becomes a PNG file without compression, made here, so that the same pixels have the same bytes,
and with them the same content id, with every version of every library and on every machine.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from budwood.errors import DataError

CHANNELS: Final = (1, 3, 4)
_COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}
_BLOCK: Final = 65_535  # bytes of a stored block
_KEPT_MODES: Final = ("L", "RGB", "RGBA")
_EXPECTED: Final = (
    "expected a path, the bytes of a file, a PIL image, or an array or tensor of [height, width] or "
    "[height, width, 1, 3 or 4]"
)


def read_given(image: object, where: str) -> Path | bytes:
    """Read an image as a program has it.

    Args:
        image: A path; the bytes of a file; a PIL image; an array or a tensor, uint8, uint16, bool, or floating-point
            from 0 to 1, [height, width], [height, width, c] or [c, height, width] with c 1, 3 or 4; or a mapping with
            `bytes` or `path`, as Hugging Face's library keeps images.
        where: Which image it is, for messages.

    Returns:
        A path as it is, or the bytes of a file.

    Raises:
        DataError: When it is none of these.
    """
    if isinstance(image, Mapping) and {"bytes", "path"} & set(image):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, (str, Path)):
        return Path(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, Image.Image):
        return encode_png(_read_picture(image, where))
    values = _read_array(image)
    if values is None:
        raise DataError(
            f"{where}: {_EXPECTED}; found {type(image).__name__}.", "Give every image in one of these forms."
        )
    return encode_png(_to_whole_numbers(_put_channels_last(values, where), where))


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Encode pixels as a PNG file without compression.

    Args:
        pixels: uint8 or uint16 [height, width] or [height, width, 1, 3 or 4], at least one pixel.

    Returns:
        The file. Source: W3C, Portable Network Graphics, second edition; RFC 1950 and 1951.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # each row: no filter, its bytes
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _store(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _store(raw: bytes) -> bytes:
    """Bytes in the form of zlib, in blocks that are not compressed."""
    starts = range(0, len(raw), _BLOCK)
    blocks = [raw[start : start + _BLOCK] for start in starts]
    stored = [struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks]
    return b"\x78\x01" + b"".join(stored) + struct.pack(">I", zlib.adler32(raw))


def _read_picture(image: Image.Image, where: str) -> NDArray[Any]:
    """The pixels of a PIL image, upright."""
    if 0 in image.size:
        raise DataError(f"{where}: the image has no pixels ({image.width} x {image.height}).", "Leave it out.")
    try:
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's readers raise errors of many kinds
        raise DataError(f"{where}: the image cannot be decoded ({error}).", "Leave it out.") from error
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        whole = image.mode != "F" and values.min() >= 0 and values.max() <= 65_535
        return values.astype(np.uint16) if whole else _to_whole_numbers(values, where)
    if image.mode in _KEPT_MODES and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    clear = image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if clear else "RGB"))


def _read_array(image: object) -> NDArray[Any] | None:
    """An array, or a tensor of any library that can be made one; None for anything else."""
    if isinstance(image, np.ndarray):
        return image
    detach = getattr(image, "detach", None)
    if detach is not None:
        return np.asarray(detach().cpu().numpy())
    return np.asarray(image) if hasattr(image, "__array__") else None


def _put_channels_last(values: NDArray[Any], where: str) -> NDArray[Any]:
    shape = list(values.shape)
    if values.ndim == 3 and shape[2] not in CHANNELS and shape[0] in CHANNELS:
        values = np.moveaxis(values, 0, 2)
    fits = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in CHANNELS)
    if not fits or 0 in shape:
        raise DataError(
            f"{where}: {_EXPECTED}; found {values.dtype} {shape}.",
            "Give grey images, or the channels red, green and blue, and opacity if there is one.",
        )
    return values


def _to_whole_numbers(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Pixels as uint8 or uint16."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f" and bool(((values >= 0) & (values <= 1)).all()):
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    found = str(values.dtype)
    if values.dtype.kind in "iuf":
        found += f" from {values.min():g} to {values.max():g}"
    raise DataError(
        f"{where}: expected uint8, uint16, bool, or floating-point numbers from 0 to 1; found {found}.",
        "Convert it, for example with `.astype('uint8')` for values from 0 to 255; leave out what normalizes it.",
    )
