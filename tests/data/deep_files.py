"""Files of more than 8 bits that Pillow cannot write: PNG of 16-bit colours, TIFF of every type of values."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # colour type by the number of channels
_FORMATS = {"u": 1, "i": 2, "f": 3}  # TIFF's name of a kind of number
_STRIP_OFFSET = 273


def encode_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG file of uint16 [height, width, channels], with rows filtered in three ways."""
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    above, step = np.zeros(rows.shape[1], np.uint8), 2 * channels
    lines = []
    for number, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        lines.append(bytes([number % 3]) + (row - [np.zeros_like(row), left, above][number % 3]).tobytes())
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def encode_tiff(
    values: NDArray[np.generic],
    *,
    order: Literal["<", ">"] = "<",
    packed: bool = False,
    white_is_small: bool = False,
    tags: Sequence[tuple[int, int]] = (),
) -> bytes:
    """A TIFF file of one strip: [height, width] or [height, width, channels] of any type, with more tags if wanted."""
    height, width, channels = (*values.shape, 1)[:3]
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    raw = zlib.compress(raw) if packed else raw
    photometric = 2 if channels == 3 else 0 if white_is_small else 1
    entries = [
        (256, [width]),
        (257, [height]),
        (258, [8 * values.dtype.itemsize] * channels),
        (259, [8 if packed else 1]),
        (262, [photometric]),
        (_STRIP_OFFSET, [0]),
        (277, [channels]),
        (278, [height]),
        (279, [len(raw)]),
        (339, [_FORMATS[values.dtype.kind]] * channels),
        *((tag, [value]) for tag, value in tags),
    ]
    beyond = 14 + 12 * len(entries)
    place = beyond + sum(4 * len(numbers) for _, numbers in entries if len(numbers) > 1)
    records, longer = b"", b""
    for tag, numbers in sorted(entries):
        content = struct.pack(f"{order}{len(numbers)}I", *([place] if tag == _STRIP_OFFSET else numbers))
        if len(content) > 4:
            content, longer = struct.pack(f"{order}I", beyond + len(longer)), longer + content
        records += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + content
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return start + records + b"\0\0\0\0" + longer + raw
