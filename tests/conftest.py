"""Small images that the tests make, a cache of their own, and the real data where it is present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SIDE = 40


def picture(seed: int, hue: int = 0, side: int = SIDE) -> Image.Image:
    """A smooth random picture, unlike that of any other seed, tinted by `hue` (0 red, 1 green, 2 blue)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 110, (6, 6, 3), dtype=np.uint8)
    coarse[..., hue] += 140
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int, *, first: int = 0, hue: int = 0) -> list[Path]:
    """Write `count` different PNG pictures into a folder, with names that count from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        picture(1000 * hue + number, hue).save(path)
    return paths


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that the trunk is exported once."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["BUDWOOD_CACHE"] = str(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 30 pictures, told apart by tint, without a split."""
    fill(tmp_path / "photos" / "leaf", 30, hue=1)
    fill(tmp_path / "photos" / "sky", 30, hue=2)
    return tmp_path / "photos"


@pytest.fixture
def real() -> Callable[[str], Path]:
    """The path of a file of real data; skips the test where it is absent."""

    def find(name: str) -> Path:
        if not (REAL / name).exists():
            pytest.skip(f"real data not present: {name}")
        return REAL / name

    return find
