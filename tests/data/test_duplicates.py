"""Near copies are found whatever their size and compression; other pictures are not taken for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from budwood.data import copy_candidates
from budwood.data.duplicates import find_near_pairs, label_components, link_equal_values
from budwood.data.images import THUMBNAIL_SIDE, read_image_metadata
from conftest import picture


def _thumb(image: Image.Image, folder: Path) -> bytes:
    image.save(folder / "t.png")
    return read_image_metadata(folder / "t.png").thumb


def _recompressed(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def test_changed_copies_are_found_among_others(tmp_path: Path) -> None:
    original = picture(0, side=160)
    copies = [
        original.resize((97, 97), Image.Resampling.LANCZOS),
        _recompressed(original, 40),
        ImageEnhance.Brightness(original).enhance(0.8),
    ]
    others = [picture(seed, side=160) for seed in range(1, 120)]
    thumbs = [_thumb(image, tmp_path) for image in [original, *copies, *others]]
    groups = label_components(len(thumbs), find_near_pairs(thumbs))
    assert groups[:4].tolist() == [0, 0, 0, 0]
    assert len(set(groups[3:].tolist())) == 1 + len(others)


def test_flat_pictures_are_compared_with_nothing() -> None:
    assert len(find_near_pairs([bytes([7]) * THUMBNAIL_SIDE**2] * 5)) == 0
    assert len(find_near_pairs([])) == 0


def test_planted_pairs_are_found_in_ten_thousand_that_all_look_alike() -> None:
    random = np.random.default_rng(0)
    shape = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    common = random.normal(128, 40, shape).astype(np.float32)
    images = common + 12 * random.standard_normal((10_000, *shape), dtype=np.float32)
    planted = images[:200] + 0.5 * random.standard_normal((200, *shape), dtype=np.float32)
    thumbs = [np.clip(one, 0, 255).astype(np.uint8).tobytes() for part in (images, planted) for one in part]
    pairs = find_near_pairs(thumbs)
    expected = {(row, 10_000 + row) for row in range(200)}
    found = set(map(tuple, pairs.tolist()))
    assert len(found & expected) >= 198
    assert found <= expected


def test_the_work_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = copy_candidates._compare

    def counting(described: np.ndarray, whole: np.ndarray, queries: np.ndarray, members: np.ndarray) -> object:
        compared.append(len(queries) * len(members))
        return compare(described, whole, queries, members)

    monkeypatch.setattr(copy_candidates, "_compare", counting)
    monkeypatch.setattr(copy_candidates, "_CELL", 50)
    random = np.random.default_rng(0)
    spectra = copy_candidates.Spectra(*(random.standard_normal((2_000, 8, 8)).astype(np.float16) for _ in range(2)))
    copy_candidates.find_candidates(spectra)
    assert sum(compared) <= 0.25 * 2 * 2_000**2


def test_components_agree_with_scipy() -> None:
    random = np.random.default_rng(1)
    pairs = random.integers(0, 500, (300, 2))
    graph = coo_matrix((np.ones(300), (pairs[:, 0], pairs[:, 1])), (500, 500))
    _, expected = connected_components(graph, directed=False)
    groups = label_components(500, pairs)
    assert all(group == np.flatnonzero(expected == expected[row])[0] for row, group in enumerate(groups.tolist()))


def test_equal_values_are_linked() -> None:
    links = link_equal_values(np.array(["b", "a", "b", "c", "b"]))
    assert label_components(5, links).tolist() == [0, 1, 0, 3, 0]
