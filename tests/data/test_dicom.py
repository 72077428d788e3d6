"""DICOM: rescaled, windowed, large values white, with all of its bits; colours, frames and palettes, too."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

import budwood as bw
from budwood.data.images import BadImage, decode, read_image_metadata
from budwood.data.value_range import ValueRange
from conftest import fill

RAMP = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 20  # 0 to 3,820


def encode(pixels: NDArray[Any], **header: Any) -> bytes:
    """A file of one frame or several, as a scanner writes it."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = header.pop("syntax", ExplicitVRLittleEndian)
    frames, data.SamplesPerPixel = pixels[0] if "NumberOfFrames" in header else pixels, 1
    data.Rows, data.Columns = frames.shape[:2]
    if frames.ndim == 3:
        data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in header.items():
        setattr(data, name, value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = pixels.tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, data)
    content = out.getvalue()
    return content if content[128:132] == b"DICM" else bytes(128) + b"DICM" + content


def grey(data: bytes, scale: ValueRange | None = None) -> NDArray[np.uint8]:
    pixels = np.asarray(decode(data, scale))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def test_a_window_says_what_is_black_and_white() -> None:
    data = encode(RAMP, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 600], WindowWidth=400)
    hounsfield = RAMP.astype(float) - 1024
    expected = np.clip(((hounsfield - 39.5) / 399 + 0.5) * 255, 0, 255)  # PS3.3, C.11.2.1.2.1
    assert np.abs(grey(data) - expected).max() <= 0.5
    assert grey(data).min() == 0
    assert grey(data).max() == 255


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("LINEAR_EXACT", lambda x: np.clip((x - 2000) / 1000 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 1000))),
    ],
)
def test_other_windows_are_as_the_standard_has_them(how: str, expected: Any) -> None:
    data = encode(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=how)
    assert np.abs(grey(data) - 255 * expected(RAMP.astype(float))).max() <= 0.5


def test_a_table_of_values_is_looked_up_where_there_is_no_window() -> None:
    table = Dataset()
    values = (np.arange(256, dtype=np.uint16) * 7) % 1024
    table.LUTDescriptor, table.LUTData = [256, 0, 10], values.tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = encode(pixels, VOILUTSequence=[table])
    assert np.abs(grey(data).ravel() - values / 1023 * 255).max() <= 0.5


def test_small_values_of_monochrome1_are_white() -> None:
    plain = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
    inverted = grey(encode(RAMP, **plain, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(inverted.astype(int) + grey(encode(RAMP, **plain)) - 255).max() <= 1
    whole = ValueRange(0, 4095)
    deep = grey(encode(RAMP, BitsStored=12, PhotometricInterpretation="MONOCHROME1"), whole)
    assert np.abs(deep - (4095 - RAMP.astype(float)) / 4095 * 255).max() <= 0.5


def test_without_a_window_all_bits_are_kept_for_the_range_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(encode(RAMP, BitsStored=12))
    found = read_image_metadata(tmp_path / "a.dcm")
    assert found.values is not None
    assert (found.width, found.height, found.mode, found.values.high) == (16, 12, "I;16", 3820)
    assert "16-bit" in found.notes
    assert np.abs(grey(encode(RAMP, BitsStored=12), ValueRange(0, 4095)) - RAMP / 4095 * 255).max() <= 0.5
    signed = encode((RAMP.astype(np.int16) - 1000), BitsStored=16)
    assert np.abs(grey(signed, ValueRange(-1000, 2820)) - RAMP / 3820 * 255).max() <= 0.5


def test_pixels_outside_of_what_was_recorded_widen_no_range(tmp_path: Path) -> None:
    pixels = RAMP.astype(np.int16)
    pixels[0, :4] = -2000
    (tmp_path / "a.dcm").write_bytes(encode(pixels, PixelPaddingValue=-2000))
    found = read_image_metadata(tmp_path / "a.dcm").values
    assert found is not None
    assert (found.low, found.high) == (80, 3820)


def test_colours_and_the_first_of_several_frames_are_read(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode(encode(colours, PhotometricInterpretation="RGB"))), colours)
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 5), dtype=np.uint8)
    (tmp_path / "a.dcm").write_bytes(encode(frames, NumberOfFrames=3))
    assert np.array_equal(grey((tmp_path / "a.dcm").read_bytes()), frames[0])
    assert "animated" in read_image_metadata(tmp_path / "a.dcm").notes


def test_colours_of_a_palette_are_looked_up() -> None:
    reds, others = np.arange(256, dtype=np.uint16) * 257, np.zeros(256, np.uint16)
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in (("Red", reds), ("Green", others), ("Blue", others)):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]  # type: ignore[assignment]
        palette[f"{name}PaletteColorLookupTableData"] = values.tobytes()  # type: ignore[assignment]
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(np.asarray(decode(encode(pixels, **palette)))[..., 0], pixels)


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(BadImage, match="a DICOM file without an image"):
        decode(bytes(128) + b"DICM")
    data = pydicom.dcmread(io.BytesIO(encode(RAMP)))
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + bytes(20)])
    data["PixelData"].VR = "OB"
    out = io.BytesIO()
    pydicom.dcmwrite(out, data)
    content = out.getvalue()
    content = content if content[128:132] == b"DICM" else bytes(128) + b"DICM" + content
    with pytest.raises(BadImage, match=r"compressed by JPEG-LS Lossless.*, which is not read here"):
        decode(content)


def test_files_are_read_once_the_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a missing package could not read is not remembered as unreadable."""
    for hue, name in enumerate("ab"):
        fill(tmp_path / "d" / name, 4, hue=hue)
        file = tmp_path / "d" / name / "x.dcm"
        file.write_bytes(encode(RAMP + hue, BitsStored=12))
    for file in tmp_path.rglob("*.dcm"):
        os.utime(file, (1, 1))
    monkeypatch.setattr("budwood.data.metadata._SETTLED", 0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pydicom", None)
        lacking = bw.scan(tmp_path / "d")
    assert {item.detail for item in lacking.set_aside} == {
        "DICOM, which needs a package: `pip install 'budwood[dicom]'`"
    }
    assert not bw.scan(tmp_path / "d").set_aside
