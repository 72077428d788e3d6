"""Images whose files have the same bytes everywhere: the runs under `kept/` know them by their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16
LABELS = ("bright", "left")


def write_photos(folder: Path, count: int = 30) -> Path:
    """Write two classes of so many images, told apart by their tint, and return their folder."""
    for hue, label in enumerate(("leaf", "sky"), 1):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = _noise(f"{label} {number}", 110)
            pixels[..., hue] += 140
            _save(pixels, folder / label / f"{number:03}.bmp")
    return folder


def write_labelled(folder: Path, count: int = 60) -> Path:
    """Write images that are bright, bright on the left, both or neither, and return the table of their labels."""
    folder.mkdir(parents=True)
    lines = ["path,labels"]
    for number in range(count):
        has = number % 2 == 0, number % 3 == 0
        pixels = _noise(f"labelled {number}", 60)
        pixels[..., 2] += 150 * has[0]
        pixels[:, : SIDE // 2, 0] += 150 * has[1]
        _save(pixels, folder / f"{number:03}.bmp")
        lines.append(f'{number:03}.bmp,"{"; ".join(name for name, one in zip(LABELS, has, strict=True) if one)}"')
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def _noise(name: str, below: int) -> np.ndarray:
    """Blocks of 4 x 4 pixels of values under a bound, of the digest of a name: int64 [SIDE, SIDE, 3]."""
    drawn = np.frombuffer(hashlib.shake_128(name.encode()).digest(SIDE * SIDE * 3 // 16), np.uint8).astype(np.int64)
    return np.kron(drawn.reshape(SIDE // 4, SIDE // 4, 3) % below, np.ones((4, 4, 1), np.int64))


def _save(pixels: np.ndarray, file: Path) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(file, "BMP")
