"""Decoding has a budget: a large image takes a few bytes a pixel, and large ones wait their turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from deep_files import encode_png
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from budwood.config.options import Interpolation, Resize, Resizing
from budwood.data import decoding_budget
from budwood.data.decoding_budget import LEAST, DecodingBudget, reserve_memory, share_budget
from budwood.data.formats import open_image
from budwood.data.images import (
    BadImage,
    compute_content_id,
    convert_to_rgb,
    decode,
    read_bytes,
    read_pixels,
    read_thumbnail,
)
from budwood.data.metadata import compute_content_ids
from budwood.progress import Silent
from conftest import picture

SIDE = 3000
MOST = {"L": 2, "I;16": 4, "RGBA": 10}  # bytes a pixel, from the least on, as a peak never falls
MEASURED = """
import resource, sys
from pathlib import Path
from budwood.config.options import Resizing
from budwood.data.images import read_image_metadata, read_pixels
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
read = lambda path: read_pixels(path, read_image_metadata(path).id, 32, Resizing("crop"))
small, *large = map(Path, sys.argv[1:])
read(small)
before = peak()
for path in large:
    read(path)
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_large_images_take_a_few_bytes_a_pixel(tmp_path: Path) -> None:
    Image.new("I;16", (8, 8)).save(tmp_path / "small.png")
    files = [tmp_path / "small.png"]
    for number, mode in enumerate(MOST):
        files.append(tmp_path / f"{number}.png")
        Image.new(mode, (SIDE, SIDE)).save(files[-1], compress_level=1)
    done = subprocess.run([sys.executable, "-c", MEASURED, *files], capture_output=True, text=True, check=True)
    spare = 16 * 2**20  # strips, and the file
    for peak, bytes_a_pixel in zip(map(int, done.stdout.split()), MOST.values(), strict=True):
        assert peak < SIDE**2 * bytes_a_pixel + spare


def test_what_does_not_fit_waits() -> None:
    budget, log, inside = DecodingBudget(10), [], threading.Event()

    def decode_large() -> None:
        with budget.reserve(8):
            log.append("large")

    with budget.reserve(6):
        large = threading.Thread(target=decode_large)
        large.start()
        assert not inside.wait(0.05)
        assert log == []
    large.join(5)
    assert log == ["large"]


def test_what_is_larger_than_all_runs_alone() -> None:
    budget = DecodingBudget(10)
    with budget.reserve(1000):
        pass
    with budget.reserve(5), budget.reserve(5):
        pass


def test_small_ones_do_not_overtake_a_large_one() -> None:
    budget, order = DecodingBudget(10), []

    def decode_one(size: int) -> None:
        with budget.reserve(size):
            order.append(size)

    with budget.reserve(5):
        threads = []
        for size in (9, 1):
            threads.append(threading.Thread(target=decode_one, args=(size,)))
            threads[-1].start()
            while len(budget._waiting) < len(threads):
                pass
    for thread in threads:
        thread.join(5)
    assert order == [9, 1]


def test_an_error_gives_the_memory_back() -> None:
    budget = DecodingBudget(10)
    with pytest.raises(OSError, match="gone"), budget.reserve(10):
        raise OSError("gone")
    with budget.reserve(10):
        pass


def test_images_decoded_at_a_time_stay_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    budget, used = DecodingBudget(40 * 40 * decoding_budget.BYTES_A_PIXEL), []
    load = PngImageFile.load

    def count(image: PngImageFile) -> object:
        used.append(budget._used)
        return load(image)

    monkeypatch.setattr(decoding_budget, "share_budget", lambda: budget)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", count)
    monkeypatch.setattr("budwood.data.metadata.count_processors", lambda: 4)
    assert len(compute_content_ids(paths, Silent())) == 6
    assert set(used) == {40 * 40 * decoding_budget.BYTES_A_PIXEL}


def test_colours_of_16_bits_count_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = DecodingBudget(1)
    monkeypatch.setattr(decoding_budget, "share_budget", lambda: budget)
    deep = open_image(encode_png(np.zeros((3, 2, 3), np.uint16)))
    for image, each in ((deep, 20), (Image.new("RGB", (2, 3)), 12)):
        with reserve_memory(image):
            assert budget._used == 6 * each


def test_the_budget_is_one_and_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert share_budget() is share_budget()
    assert share_budget()._limit >= LEAST
    (tmp_path / "max").write_text("max\n")
    monkeypatch.setattr(decoding_budget, "_CGROUP_LIMIT", tmp_path / "max")
    machine = decoding_budget._count_memory()
    (tmp_path / "max").write_text("1048576\n")
    assert decoding_budget._count_memory() == 1048576 < machine


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("how", get_args(Resize))
def test_grey_images_have_the_pixels_of_colour_images(
    how: Resize, interpolation: Interpolation, tmp_path: Path
) -> None:
    """They are resized as grey, in a quarter of the memory."""
    grey = picture(1, side=120).convert("L").crop((0, 0, 120, 77))
    pixels = []
    for name, image in (("grey", grey), ("colour", grey.convert("RGB"))):
        image.save(tmp_path / f"{name}.png")
        id = compute_content_id(read_bytes(tmp_path / f"{name}.png"))
        pixels.append(read_pixels(tmp_path / f"{name}.png", id, 32, Resizing(how, interpolation)))
    assert np.array_equal(pixels[0], pixels[1])
    assert decode((tmp_path / "grey.png").read_bytes()).mode == "RGB"
    assert convert_to_rgb(grey).mode == "RGB"


def test_transparency_is_the_same_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(2, side=60).convert("RGBA")
    image.putalpha(picture(3, side=60).convert("L"))
    whole = np.asarray(convert_to_rgb(image))
    monkeypatch.setattr("budwood.data.deep_images._STRIP", 60 * 7)
    assert np.array_equal(np.asarray(convert_to_rgb(image)), whole)
    white = Image.new("RGBA", image.size, "white")
    assert np.array_equal(whole, np.asarray(Image.alpha_composite(white, image).convert("RGB")))


def test_a_thumbnail_of_a_large_jpeg_is_drafted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(4, side=800).save(tmp_path / "a.jpg", quality=95)
    id = compute_content_id((tmp_path / "a.jpg").read_bytes())
    whole = np.asarray(read_thumbnail(tmp_path / "a.jpg", 60, id), np.int64)
    assert whole.shape == (60, 60, 3)
    monkeypatch.setattr("budwood.data.images.DRAFTED", 100)
    sizes: list[tuple[int, int]] = []

    def note_size(image: Image.Image) -> AbstractContextManager[None]:
        sizes.append(image.size)
        return nullcontext()

    monkeypatch.setattr("budwood.data.images.reserve_memory", note_size)
    drafted = np.asarray(read_thumbnail(tmp_path / "a.jpg", 60, id), np.int64)
    assert sizes == [(200, 200)]
    assert np.abs(drafted - whole).max() < 16


def test_a_link_to_a_device_or_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, target in (("zero.png", "/dev/zero"), ("tty.png", "/dev/null"), ("pipe.png", tmp_path / "pipe")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(BadImage, match="not a regular file"):
            read_bytes(tmp_path / name)
