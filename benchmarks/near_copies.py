"""Precision and recall of near copies: made copies of photographs, shots of a made fixed camera, and solar cells.

    .venv/bin/python benchmarks/near_copies.py scenes8/ [--queries 200]

A copy is found if it is in one group with its original. Photographs are first compared with each other: what is found
among them is listed, to be looked at, and left out of what follows. Copies are then searched among 600 others. The
reference is a perceptual hash of 64 bits, much like imagededup's, at a Hamming distance of at most 10.

Of the solar cells of ELPV one module was photographed twice, the second time out of focus: cells 1735 to 1784 are cells
2277 to 2326 in the same order. Any other pair counts as wrong: neighbouring wafers of one block of silicon have almost
the same grain, and cells without a flaw all look alike.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from scipy.fft import dctn

from budwood.data.duplicates import find_near_pairs, label_components
from budwood.data.images import THUMBNAIL_SIDE
from budwood.data.sources import list_elpv
from budwood.hardware import count_processors
from budwood.runs.machine import describe_hardware

DISTANCE = 10  # bits of the reference hash, imagededup's own default
SHOTS = 180
SIDES = (320, 240)
TWICE = range(1735, 1785)  # cells of ELPV that were photographed again
LATER = 542  # by how much the numbers of the second photographs are larger
Transform = Callable[[Image.Image], Image.Image]


def main() -> None:
    """Print a table for photographs and one for the fixed camera, and the seconds, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args()
    photographs = [open_rgb(path) for path in sorted(given.photographs.rglob("*.jpg"))]
    start = time.perf_counter()
    cells = measure_cells()
    scenes = measure(photographs, given.queries, 600)
    camera = {kind: measure(make_shots(kind, 0.06), 30, SHOTS) for kind in ("parts", "flaws")}
    seconds = round(time.perf_counter() - start, 1)
    hardware = describe_hardware(count_processors()).model_dump()
    result = {"cells": cells, "scenes": scenes, "fixed camera": camera, "seconds": seconds, "hardware": hardware}
    print(json.dumps(result, indent=1))


def measure_cells() -> dict[str, object]:
    """Count what is found among the solar cells, and how much of it is one cell."""
    listing = list_elpv()
    thumbs = [make_thumbnail(open_rgb(Path(listing.root) / path)) for path in listing.paths]
    numbers = [int(Path(path).stem.removeprefix("cell")) for path in listing.paths]
    start = time.process_time()
    pairs = sorted((numbers[first], numbers[second]) for first, second in find_near_pairs(thumbs).tolist())
    seconds = round(time.process_time() - start, 1)
    right = [pair for pair in pairs if pair[0] in TWICE and pair[1] - pair[0] == LATER]
    wrong = [pair for pair in pairs if pair not in right]
    return {"one cell": len(right), "of": len(TWICE), "wrong": wrong, "CPU seconds": seconds, "images": len(thumbs)}


def measure(images: Sequence[Image.Image], queries: int, among: int) -> dict[str, object]:
    """Measure what is found among all images, and the recall of copies of some of them among so many of them."""
    thumbs = [make_thumbnail(image) for image in images]
    hashes = np.stack([hash_image(image) for image in images])
    start = time.process_time()
    known = find_near_pairs(thumbs)
    seconds = round(time.process_time() - start, 1)
    result: dict[str, object] = {"pairs as they are": known.tolist(), "CPU seconds": seconds}
    near = np.sum(hashes[:, None] != hashes, axis=2) <= DISTANCE if len(images) < 3000 else np.zeros((1, 1), bool)
    result["reference pairs as they are"] = int(np.triu(near, 1).sum())
    free = np.setdiff1d(np.arange(len(images)), known)
    drawn = np.random.default_rng(0).permutation(free)[:among]
    chosen = np.arange(min(queries, len(drawn)))
    images, thumbs, hashes = [images[row] for row in drawn], [thumbs[row] for row in drawn], hashes[drawn]
    for name, transform in TRANSFORMS.items():
        copies = [transform(images[row]) for row in chosen.tolist()]
        result[name] = score(thumbs, [make_thumbnail(copy) for copy in copies], chosen) | {
            "reference recall": float(
                np.mean(np.sum(np.stack([hash_image(copy) for copy in copies]) != hashes[chosen], axis=1) <= DISTANCE)
            )
        }
        print(name, result[name], flush=True, file=sys.stderr)
    return result


def score(thumbs: Sequence[bytes], copies: Sequence[bytes], rows: NDArray[np.int64]) -> dict[str, float]:
    """Recall of copies, and the share of right ones among the pairs that come with them."""
    pairs = find_near_pairs([*thumbs, *copies])
    group = label_components(len(thumbs) + len(copies), pairs)
    right = int(np.sum(group[len(thumbs) :] == group[rows]))
    wrong = max(0, len(pairs) - right)
    return {"recall": right / len(rows), "precision": right / max(1, right + wrong)}


def make_thumbnail(image: Image.Image) -> bytes:
    """The thumbnail that a scan makes."""
    return image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR).tobytes()


def hash_image(image: Image.Image) -> NDArray[np.bool_]:
    """The perceptual hash: signs of the 8 x 8 lowest cosine frequencies of 32 x 32 pixels about their median."""
    small = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = dctn(small)[:8, :8]
    return np.asarray(low > np.median(low[1:, 1:]), bool).ravel()


def open_rgb(path: Path) -> Image.Image:
    """An image in memory."""
    with Image.open(path) as image:
        return image.convert("RGB")


def recompress(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG compression."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(image: Image.Image, share: float) -> Image.Image:
    """The image without a share of its width and height on each side."""
    width, height = image.size
    left, top = round(share * width), round(share * height)
    return image.crop((left, top, width - left, height - top))


def write_text(image: Image.Image) -> Image.Image:
    """The image with a small line of text."""
    marked = image.copy()
    ImageDraw.Draw(marked).text((0.05 * image.width, 0.88 * image.height), "(c) 2024 sample", fill="white")
    return marked


TRANSFORMS: dict[str, Transform] = {
    "same pixels": lambda image: image,
    "resized to 60 %": lambda image: image.resize((image.width * 6 // 10, image.height * 6 // 10)),
    "JPEG quality 20": lambda image: recompress(image, 20),
    "brightness x 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast x 1.4": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
    "contrast x 0.7": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cropped by 2 %": lambda image: crop(image, 0.02),
    "cropped by 5 %": lambda image: crop(image, 0.05),
    "cropped by 10 %": lambda image: crop(image, 0.10),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "small text": write_text,
    "mirrored and cropped by 5 %": lambda image: crop(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.05),
}


def make_shots(kind: str, size: float, count: int = SHOTS, seed: int = 0) -> list[Image.Image]:
    """Shots of a fixed camera, no two alike: one small round, square or long thing in each, in a place of its own.

    Args:
        kind: `parts` lie about on the background, `flaws` on a plate that trembles by a pixel.
        size: Width of a thing, as a share of the width of the shot.
        count: Number of shots, at most 180.
        seed: Of the background and of the things.

    Returns:
        Images of 320 x 240 pixels with noise and slightly different brightness, after JPEG compression at quality 90.
    """
    random = np.random.default_rng(seed)
    background = _make_background(random)
    places = random.permutation(180)[:count].tolist()
    return [
        _make_shot(background, random, kind, size * SIDES[0] / 2, number, place) for number, place in enumerate(places)
    ]


def _make_background(random: np.random.Generator) -> Image.Image:
    coarse = random.integers(40, 200, (12, 16, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize(SIDES, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = (int(random.integers(low, high)) for low, high in ((0, SIDES[0]), (0, SIDES[1]), (10, 60)))
        draw.rectangle((x, y, x + side, y + side // 2), outline=tuple(random.integers(0, 255, 3).tolist()), width=2)
    return image


def _make_shot(
    background: Image.Image, random: np.random.Generator, kind: str, half: float, number: int, place: int
) -> Image.Image:
    image = background.copy()
    draw = ImageDraw.Draw(image)
    column, row = place % 15 + 0.5, place // 15 + 0.5
    x, y = half + column * (SIDES[0] - 2 * half) / 15, half + row * (SIDES[1] - 2 * half) / 12
    if kind == "flaws":
        left, top = random.uniform(49, 51), random.uniform(29, 31)
        draw.rectangle((left, top, left + 220, top + 180), fill=(150, 150, 160), outline=(60, 60, 60), width=3)
        x, y = left + 10 + column * 200 / 15, top + 10 + row * 160 / 12
    low, high = ((0, 70), (190, 255))[int(random.integers(2))]
    colour = tuple(random.integers(low, high, 3).tolist())
    if number % 3 == 2:
        draw.line((x - 1.5 * half, y - half, x + 1.5 * half, y + half), fill=colour, width=max(2, round(0.4 * half)))
    else:
        shape = draw.ellipse if number % 3 else draw.rectangle
        shape((x - half, y - half, x + half, y + half), fill=colour)
    pixels = np.asarray(image, np.float32) * random.uniform(0.97, 1.03) + random.normal(0, 4, (SIDES[1], SIDES[0], 3))
    return recompress(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), 90)


if __name__ == "__main__":
    main()
