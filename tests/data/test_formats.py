"""A file that is no readable image is named by what it is, with what to do, and never handed to another program."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from deep_files import encode_tiff
from PIL import EpsImagePlugin, Image

import budwood as bw
from budwood.data.formats import FORMATS, name_format
from budwood.data.images import BadImage, convert_to_rgb, decode
from conftest import fill, picture

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
SVG = b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!-- made by hand -->\n<svg xmlns='http://www.w3.org/2000/svg'/>"
NAMED = {
    "lfs": (LFS, "a pointer of Git LFS, not the image itself: `git lfs pull` fetches it"),
    "heic": (HEIC, "HEIC, which needs a package: `pip install 'budwood[heic]'`"),
    "svg": (SVG, "SVG, a drawing without pixels: save it as PNG"),
    "svgz": (gzip.compress(SVG), "compressed by gzip: unpack it"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\n", "PDF: save its pictures as PNG"),
    "dicom": (bytes(128) + b"DICM\2\0\0\0", "DICOM, which needs a package: `pip install 'budwood[dicom]'`"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "a web page, as a failed download leaves it: download it again"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0", "a video: save its frames as JPEG or PNG"),
    "numpy": (b"\x93NUMPY\1\0", "a NumPy array: save it as PNG or TIFF"),
    "nonsense": (b"not a picture", "unknown image format"),
}


READ = """
import sys
from pathlib import Path
from budwood.data.images import BadImage, read_image_metadata
try:
    read_image_metadata(Path(sys.argv[1]))
except BadImage as problem:
    print(problem.problem)
"""


def encode_eps() -> bytes:
    out = io.BytesIO()
    picture(1).save(out, "EPS")
    return out.getvalue()


@pytest.mark.parametrize("name", NAMED)
def test_a_file_is_named_by_what_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pillow_heif", "pydicom"):
        monkeypatch.setitem(sys.modules, package, None)
    data, expected = NAMED[name]
    with pytest.raises(BadImage) as caught:
        decode(data)
    assert (caught.value.problem, caught.value.detail) == ("not an image", expected)


def test_eps_is_never_handed_to_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: started.append(args))
    data = encode_eps()
    windows = b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + len(data).to_bytes(4, "little") + bytes(20) + data
    for eps in (data, windows):
        with pytest.raises(BadImage, match=r"^EPS, a program that draws, which is not run: save it as PNG$"):
            decode(eps)
        with pytest.raises(BadImage, match=r"^EPS, a program"):
            convert_to_rgb(Image.open(io.BytesIO(eps)))
    assert not started


@pytest.mark.parametrize("geographic", [False, True])
def test_a_tiff_of_many_bands_is_named(geographic: bool) -> None:
    tags = ((34735, 1),) if geographic else ()
    data = encode_tiff(np.zeros((4, 4, 7), np.uint16), tags=tags)
    kind = "GeoTIFF" if geographic else "TIFF"
    assert name_format(data) == f"{kind} of 7 bands of 16 bits, a kind that is not read: save three of them as RGB"


def test_a_geotiff_of_three_bands_is_read() -> None:
    data = encode_tiff(np.full((4, 4, 3), 7, np.uint8), tags=((34735, 1),))
    assert np.asarray(decode(data)).tolist() == np.full((4, 4, 3), 7).tolist()


def test_a_cut_tiff_is_named_as_well_as_can_be() -> None:
    assert name_format(b"II*\0\x08\0\0\0") == "TIFF of a kind that is not read: save it as RGB"
    assert name_format(b"II+\0\x08\0\0\0").startswith("TIFF of a kind")


def test_heic_is_read_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class HeifFile(Image.Image):
        pass

    def register() -> None:
        monkeypatch.setitem(Image.OPEN, "HEIF", (lambda *_: picture(3), lambda prefix: prefix[4:8] == b"ftyp"))

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    assert np.array_equal(np.asarray(decode(HEIC)), np.asarray(picture(3)))


def test_every_format_is_known_to_pillow_and_starts_no_program() -> None:
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    assert not {"EPS", "WMF", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG"} & set(FORMATS)


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP"])
def test_common_formats_are_read(kind: str) -> None:
    out = io.BytesIO()
    picture(2).save(out, kind)
    assert decode(out.getvalue()).size == (40, 40)


def test_the_finding_counts_what_the_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    fill(tmp_path / "leaf", 3)
    fill(tmp_path / "rock", 3, hue=1)
    for number in range(3):
        (tmp_path / "leaf" / f"lfs{number}.jpg").write_bytes(LFS)
    (tmp_path / "rock" / "phone.jpg").write_bytes(HEIC)
    (found,) = (one for one in bw.findings(bw.scan(tmp_path)) if one.code == "D003")
    lfs, heic = NAMED["lfs"][1], NAMED["heic"][1]
    assert found.message == f"4 files are not in a known image format (3 files: {lfs}; 1 file: {heic}); excluded."
    assert found.advice == "Do what is said of them, or move them out of the class folders."


def test_libtiff_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    whole = encode_tiff(np.arange(4096, dtype=np.uint16).reshape(64, 64), packed=True)
    for damaged in (whole[:-40], whole.replace(b"x\x9c", b"zz")):
        with pytest.raises(BadImage, match="decoder error"):
            decode(damaged)
    assert capfd.readouterr() == ("", "")


def test_pillow_logs_nothing_to_the_terminal(tmp_path: Path) -> None:
    """In a process of its own, as pytest takes what is logged."""
    damaged = bytearray(encode_tiff(np.zeros((4, 4), np.uint8)))
    at = damaged.index(b"\x15\x01\x04\x00")  # the number of samples a pixel
    damaged[at + 8 : at + 10] = b"\x01\x02"
    (tmp_path / "odd.tif").write_bytes(damaged)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "odd.tif")], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("not an image\n", "")
