"""DICOM files as images: the first frame, rescaled, windowed and turned so that large values are white.

With a window, the file says which values are black and white, and 8 bits are made of them. Without one the values stay
as they are, with up to 16 bits or as floating-point numbers, and one range is chosen for the whole data set, as for
other files of more than 8 bits. Needs the package pydicom. Source: DICOM PS3.3, C.7.6.3.1.2 (photometric
interpretation), C.11.1 (modality) and C.11.2 (values of interest).
"""

from __future__ import annotations

import importlib
import io
import warnings
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

BEGINNING: Final = b"DICM"  # at byte 128
_INVERTED: Final = "MONOCHROME1"
_PALETTE: Final = "PALETTE COLOR"
_NO_PIXELS: Final = "a DICOM file without an image"


def is_dicom(data: bytes) -> bool:
    """Tell whether a file is DICOM.

    Args:
        data: The file's bytes.

    Returns:
        True where it begins as PS3.10 has it.
    """
    return data[128:132] == BEGINNING


def has_reader() -> bool:
    """Tell whether DICOM can be read.

    Returns:
        True where the package pydicom is installed.
    """
    try:
        importlib.import_module("pydicom")
    except ImportError:
        return False
    return True


class DicomFile(ImageFile.ImageFile):
    """A DICOM file that is not decoded yet."""

    format = "DICOM"
    format_description = "DICOM"

    def _open(self) -> None:
        header = _read(self.fp, stop_before_pixels=True)
        if "Rows" not in header or "Columns" not in header:
            raise ValueError(_NO_PIXELS)
        self._size = (int(header.Columns), int(header.Rows))
        self._mode = "RGB" if int(header.get("SamplesPerPixel", 1)) > 1 else "F"
        self.is_animated = int(header.get("NumberOfFrames", 1) or 1) > 1

    def load(self) -> Any:
        """Decode the first frame; the object becomes the image.

        Returns:
            Access to the pixels, as of any image.

        Raises:
            ValueError: When the file has no image, or one that cannot be decoded here.
        """
        assert self.fp is not None
        self.fp.seek(0)
        image, animated = _make_image(_read(self.fp)), self.is_animated
        image.format, image.is_animated = self.format, animated  # type: ignore[attr-defined]
        self.__class__ = image.__class__  # type: ignore[assignment]
        self.__dict__ = image.__dict__
        return image.load()


def open_dicom(data: bytes) -> DicomFile:
    """Open a DICOM file; `has_reader` must be true.

    Args:
        data: The file's bytes.

    Returns:
        The image, which is not loaded yet: in mode L or RGB, or I;16, I or F where it has more than 8 bits and no
        window.

    Raises:
        SyntaxError: When the file is no DICOM, or holds no image.
    """
    return DicomFile(io.BytesIO(data))


def _read(file: IO[bytes] | None, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break a rule of the standard are read all the same
        return importlib.import_module("pydicom").dcmread(file, **options)


def _make_image(header: Any) -> Image.Image:
    pixels = _read_frame(header)
    if pixels.ndim == 3:
        return Image.fromarray(_to_bytes(pixels, int(header.BitsStored)))
    if header.get("PhotometricInterpretation") == _PALETTE:
        colours = importlib.import_module("pydicom.pixels").apply_color_lut(pixels, header)
        return Image.fromarray(_to_bytes(colours[..., :3], 8 * colours.itemsize))
    inverted = header.get("PhotometricInterpretation") == _INVERTED
    pixels = _fill_padding(pixels, header, inverted)
    if (shown := _apply_window(pixels, header)) is not None:
        grey = np.rint(255 * np.clip(1 - shown if inverted else shown, 0, 1))
        return Image.fromarray(grey.astype(np.uint8))
    return _keep_values(_rescale(_reflect(pixels, header) if inverted else pixels, header))


def _read_frame(header: Any) -> NDArray[Any]:
    """The first frame as it is stored, [height, width], or in RGB, [height, width, 3]."""
    if "PixelData" not in header and "FloatPixelData" not in header and "DoubleFloatPixelData" not in header:
        raise ValueError(_NO_PIXELS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = importlib.import_module("pydicom.pixels").pixel_array(header, index=0)
    except (RuntimeError, NotImplementedError) as error:
        name = getattr(header.file_meta.TransferSyntaxUID, "name", "an unknown way")
        raise ValueError(
            f"its pixels are compressed by {name}, which is not read here: install pylibjpeg with its plugins "
            "or GDCM, or save it uncompressed"
        ) from error
    return np.asarray(frames)


def _to_bytes(pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Colours in 8 bits: the high ones."""
    return np.ascontiguousarray(pixels >> max(0, bits - 8)).astype(np.uint8)


def _fill_padding(pixels: NDArray[Any], header: Any, inverted: bool) -> NDArray[Any]:
    """The pixels with those outside of what was recorded made black, as they would widen the range of values."""
    padding = header.get("PixelPaddingValue")
    if padding is None:
        return pixels
    outside = pixels == int(padding)
    if not outside.any() or outside.all():
        return pixels
    inside = pixels[~outside]
    return np.where(outside, inside.max() if inverted else inside.min(), pixels)


def _rescale(pixels: NDArray[Any], header: Any) -> NDArray[np.float64]:
    """Stored values in the units of the modality, such as Hounsfield."""
    lut = importlib.import_module("pydicom.pixels").apply_modality_lut
    return np.asarray(lut(pixels, header), np.float64)


def _apply_window(pixels: NDArray[Any], header: Any) -> NDArray[np.float64] | None:
    """What the file's first window or table makes of stored values, 0 (black) to 1 (white); None without either."""
    values = _rescale(pixels, header)
    centre, width = _read_first(header.get("WindowCenter")), _read_first(header.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        return _window(values, centre, width, str(header.get("VOILUTFunction") or "LINEAR"))
    if not header.get("VOILUTSequence"):
        return None
    table = header.VOILUTSequence[0]
    shown = importlib.import_module("pydicom.pixels").apply_voi(values.astype(np.int64), header, 0)
    white: int = 2 ** int(table.LUTDescriptor[2]) - 1
    return np.asarray(shown, np.float64) / white


def _window(values: NDArray[np.float64], centre: float, width: float, how: str) -> NDArray[np.float64]:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    if how == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if how == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _reflect(pixels: NDArray[Any], header: Any) -> NDArray[Any]:
    """Stored values of which the smallest is white, reflected within the range of their type, equal for all files."""
    bits = int(header.BitsStored)
    total = -1 if int(header.get("PixelRepresentation", 0)) else 2**bits - 1
    return total - pixels.astype(np.int64)


def _keep_values(values: NDArray[np.float64]) -> Image.Image:
    whole, low, high = bool((values == np.rint(values)).all()), values.min(), values.max()
    if whole and low >= 0 and high <= 255:
        return Image.fromarray(values.astype(np.uint8))
    if whole and low >= 0 and high <= 65535:
        return Image.fromarray(values.astype(np.uint16))
    if whole and max(-low, high) < 2**31:
        return Image.fromarray(values.astype(np.int32))
    return Image.fromarray(values.astype(np.float32))


def _read_first(value: Any) -> float | None:
    """A value of a header, or the first of several."""
    if value is None or value == "":
        return None
    return float(value[0]) if hasattr(value, "__getitem__") and not isinstance(value, str) else float(value)
