"""Which file formats are opened, and the names of those that are not.

The list is fixed, as Pillow knows formats that it hands to other programs (EPS to Ghostscript), that it cannot decode
itself, or that hold a file of any other format.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import logging
from contextlib import suppress
from functools import cache
from typing import Any, Final

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from budwood.data.dicom import has_reader, is_dicom, open_dicom

# In the order in which Pillow tries them: those with a clear beginning first.
FORMATS: Final = (
    *("BMP", "DIB", "GIF", "JPEG", "PPM", "PNG", "AVIF", "BLP", "CUR", "PCX", "DCX", "DDS", "FITS", "FLI", "FTEX"),
    *("GBR", "JPEG2000", "ICNS", "ICO", "IM", "MCIDAS", "TIFF", "MSP", "PCD", "PIXAR", "PSD", "QOI", "SGI"),
    *("SPIDER", "SUN", "TGA", "WEBP", "XBM", "XPM"),
)
UNKNOWN: Final = "unknown image format"
EPS: Final = "EPS, a program that draws, which is not run: save it as PNG"
_BEGINNINGS: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the image itself: `git lfs pull` fetches it"),
    (b"%!PS", EPS),
    (b"\xc5\xd0\xd3\xc6", EPS),
    (b"%PDF", "PDF: save its pictures as PNG"),
    (b"\x93NUMPY", "a NumPy array: save it as PNG or TIFF"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"PK\3\4", "a zip archive: unpack it"),
)
_HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF_BEGINNINGS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLES: Final = 277
_BITS: Final = 258
_GEO_KEYS: Final = 34735
_TEXT: Final = 4096  # bytes in which the root of an XML text is looked for


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Open a file in one of the formats of `FORMATS`, or HEIC or DICOM where pillow-heif or pydicom is installed.

    Args:
        data: The file's bytes.

    Returns:
        The image, which is not loaded yet.

    Raises:
        UnidentifiedImageError: When the file has another format.
    """
    if data.startswith(_TIFF_BEGINNINGS):
        _silence_tiff_errors()
    if is_dicom(data) and has_reader():
        return open_dicom(data)
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if not (_is_heic(data) and _register_heif()):
            raise
        return Image.open(io.BytesIO(data), formats=("HEIF",))


def name_format(data: bytes) -> str:
    """Name the format of a file that `open_image` does not open, with what can be done.

    Args:
        data: The file's bytes.

    Returns:
        One clause; `UNKNOWN` where the format is not known.
    """
    for beginning, name in _BEGINNINGS:
        if data.startswith(beginning):
            return name
    if is_dicom(data):
        return "DICOM, which needs a package: `pip install 'budwood[dicom]'`"
    if _is_heic(data):
        if _register_heif():
            return "HEIC that is damaged, or of a kind that pillow-heif does not read"
        return "HEIC, which needs a package: `pip install 'budwood[heic]'`"
    if data[4:8] == b"ftyp" and not data[8:12].startswith(b"avi"):
        return "a video: save its frames as JPEG or PNG"
    if data.startswith(_TIFF_BEGINNINGS):
        return _name_tiff(data)
    return _name_text(data[:_TEXT].lower())


def _name_text(text: bytes) -> str:
    start = text.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, as a failed download leaves it: download it again"
    if start.startswith(b"<") and b"<svg" in start:
        return "SVG, a drawing without pixels: save it as PNG"
    return UNKNOWN


def _name_tiff(data: bytes) -> str:
    tags = _read_tags(data)
    kind = "GeoTIFF" if _GEO_KEYS in tags else "TIFF"
    bands, bits = tags.get(_SAMPLES), tags.get(_BITS)
    if not isinstance(bands, int) or not isinstance(bits, tuple) or not bits:
        return f"{kind} of a kind that is not read: save it as RGB"
    what = f"{kind} of {bands} band{'' if bands == 1 else 's'} of {bits[0]} bits, a kind that is not read"
    return f"{what}: save {'three of them as RGB' if bands > 3 else 'it as 16-bit grey or RGB'}"


def _read_tags(data: bytes) -> dict[int, Any]:
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return {tag: directory[tag] for tag in directory}
    except Exception:  # a damaged directory tells nothing
        return {}


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


@cache
def _silence_tiff_errors() -> None:
    """Keep libtiff and Pillow from writing errors to the terminal that Pillow raises besides; libtiff is its own."""
    logging.getLogger(TiffImagePlugin.__name__).addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # where it lies elsewhere, it goes on writing
        handle = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__).TIFFSetErrorHandler
        handle.argtypes, handle.restype = [ctypes.c_void_p], ctypes.c_void_p
        handle(None)


def _register_heif() -> bool:
    """Whether HEIC can be opened: pillow-heif, where it is installed, is made known to Pillow."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True
