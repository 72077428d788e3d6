"""How images become squares, and whether larger ones pay, is read off the training images' shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from budwood.data.dataset import Dataset, set_columns
from budwood.data.scanning import scan
from budwood.data.shapes import choose_larger_size, choose_resize
from conftest import picture


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Data of 40 training images."""
    return make_data(tmp_path_factory.mktemp("shapes"), [(16, 16)] * 20)


def reshape(data: Dataset, shapes: Sequence[tuple[int, int]]) -> Dataset:
    """The same data, as if its images had these shapes in turn."""
    sides = np.array([shapes[row % len(shapes)] for row in range(len(data))])
    return replace(data, table=set_columns(data.table, {"width": sides[:, 0], "height": sides[:, 1]}))


def make_data(folder: Path, shapes: Sequence[tuple[int, int]], other: tuple[int, int] = (64, 64)) -> Dataset:
    """Data whose training images have these shapes in each class, and whose validation and test images another."""
    for split, sides in (("train", shapes), ("val", [other] * 2), ("test", [other] * 2)):
        for number, name in enumerate(("leaf", "sky")):
            place = folder / "data" / split / name
            place.mkdir(parents=True)
            for index, side in enumerate(sides):
                seed = 1000 * number + 100 * len(split) + index
                picture(seed, number).resize(side).save(place / f"{index:03}.png")
    return scan(folder / "data")


@pytest.mark.parametrize(
    ("shapes", "candidates", "why"),
    [
        ([(64, 64)] * 4, ("crop",), "all training images are square, so nothing is cut off"),
        (
            [(64, 64), (70, 64), (64, 70), (70, 64)],
            ("crop",),
            "the typical training image is 1.09 times as long as it is wide, so cropping loses little of it",
        ),
        (
            [(80, 60), (60, 80), (80, 60)],
            ("crop", "squash"),
            "the typical training image is 1.33 times as long as it is wide: cropping it loses 25%, squashing distorts "
            "it",
        ),
        (
            [(64, 64)] * 3 + [(180, 60)],
            ("crop", "squash"),
            "25% of the training images are more than 2 times as long as wide",
        ),
        (
            [(60, 180)] * 3 + [(64, 64)],
            ("squash",),
            "the typical training image is 3.00 times as long as it is wide: cropping it loses 67%, squashing nothing",
        ),
    ],
)
def test_shapes_decide_how_images_become_squares(
    shapes: list[tuple[int, int]], candidates: tuple[str, ...], why: str, small: Dataset
) -> None:
    choice = choose_resize(reshape(small, shapes))
    assert choice.candidates == candidates
    assert choice.why == why


def test_one_long_image_among_many_changes_nothing(small: Dataset) -> None:
    assert choose_resize(reshape(small, [(64, 64)] * 19 + [(180, 60)])).candidates == ("crop",)


def test_only_training_images_decide(tmp_path: Path) -> None:
    data = make_data(tmp_path, [(40, 40)] * 4, other=(400, 100))
    assert choose_resize(data).candidates == ("crop",)
    assert choose_larger_size(64, data) is None


@pytest.mark.parametrize(
    ("own_size", "side", "larger"),
    [
        (224, (300, 300), 288),
        (224, (400, 245), 288),  # 0.85 times 288 is 244.8
        (224, (400, 244), None),
        (240, (300, 300), 288),
        (260, (300, 300), 320),  # solar cells of 300 pixels may be enlarged that little
        (224, (64, 64), None),
        (224, (28, 28), None),
        (64, (300, 300), None),  # no multiple of 32 is near 80
        (896, (1200, 1200), None),  # a recipe ends at 1,024
    ],
)
def test_a_larger_size_needs_images_with_the_pixels(
    own_size: int, side: tuple[int, int], larger: int | None, small: Dataset
) -> None:
    assert choose_larger_size(own_size, reshape(small, [side])) == larger
