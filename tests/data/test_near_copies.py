"""Near copies are found through crops, turns and light; shots of a fixed camera are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from budwood.data import copy_groups
from budwood.data.checks import findings
from budwood.data.copy_groups import group_copies
from budwood.data.dataset import load
from budwood.data.duplicates import find_near_pairs, label_components
from budwood.data.images import THUMBNAIL_SIDE, ImageMetadata
from budwood.data.scanning import scan
from budwood.progress import Silent
from budwood.storage.context import Context

ORIGINALS, OTHERS = 20, 60
TRANSFORMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop 5 %": lambda image: image.crop((7, 7, 121, 121)),
    "mirror": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turn": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "compression": lambda image: _recompress(image, 20),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
}


def _recompress(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _photograph(seed: int) -> Image.Image:
    """Structure at every scale, as in photographs: power falls with the square of the frequency."""
    random = np.random.default_rng(seed)
    side = 128
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(random.standard_normal((side, side))) / frequency**1.2)
    return Image.fromarray(np.clip(120 + 45 * noise / noise.std(), 0, 255).astype(np.uint8)).convert("RGB")


def _thumb(image: Image.Image) -> bytes:
    return image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR).tobytes()


def _shot(number: int) -> Image.Image:
    """A shot of one static view: each has one thing of one of three shapes in a place of its own."""
    image = _photograph(999).resize((160, 120))
    x, y, draw = 12 + 9 * (number % 15), 8 + 8 * (number // 15), ImageDraw.Draw(image)
    if number % 3 == 0:
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill="white")
    elif number % 3 == 1:
        draw.rectangle((x - 6, y - 6, x + 6, y + 6), fill="black")
    else:
        draw.line((x - 9, y - 5, x + 9, y + 5), fill="yellow", width=3)
    random = np.random.default_rng(number)
    pixels = np.asarray(image, np.float32) * random.uniform(0.97, 1.03) + random.normal(0, 3, (120, 160, 3))
    return _recompress(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), 90)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_nearly_all_changed_copies_are_found_and_nothing_else(name: str) -> None:
    images = [_photograph(seed) for seed in range(ORIGINALS + OTHERS)]
    copies = [TRANSFORMS[name](image) for image in images[:ORIGINALS]]
    pairs = find_near_pairs([_thumb(image) for image in [*images, *copies]])
    expected = {(row, ORIGINALS + OTHERS + row) for row in range(ORIGINALS)}
    found = set(map(tuple, pairs.tolist()))
    assert len(found & expected) >= 0.95 * len(expected)
    assert len(found & expected) >= 0.98 * len(found)


def test_shots_of_a_fixed_camera_are_no_copies_but_copies_of_them_are_found() -> None:
    shots = [_shot(number) for number in range(60)]
    copied = range(0, 60, 6)
    copies = [_recompress(shots[row], 40) for row in copied]
    turned = [shots[row].transpose(Image.Transpose.FLIP_LEFT_RIGHT) for row in copied]
    thumbs = [_thumb(image) for image in [*shots, *copies, *turned]]
    group = label_components(len(thumbs), find_near_pairs(thumbs))
    for place, row in enumerate(copied):
        assert group[[row, 60 + place, 70 + place]].tolist() == [row] * 3
    assert len(set(group.tolist())) == 60


def _cell(number: int, *, grain: float = 9, shot: int = 0, flaws: int = 0) -> Image.Image:
    """A solar cell: frame and bars as in all others, its grain, flaws; with noise, and blurred in a later shot."""
    random = np.random.default_rng([number, shot, flaws])
    pattern = np.asarray(_photograph(number).convert("L"), np.float32)
    image = Image.fromarray(np.clip(150 + grain * (pattern - 120) / 45, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(flaws):
        x, y = random.uniform(12, 116, 2)
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=110)
    for bar in (22, 64, 106):
        draw.line((6, bar, 122, bar), fill=30, width=3)
    draw.rectangle((0, 0, 127, 127), outline=20, width=3)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8 * shot)), np.float32) * (1 + 0.1 * shot)
    return Image.fromarray(np.clip(pixels + random.normal(0, 3, (128, 128)), 0, 255).astype(np.uint8))


def test_of_things_of_one_build_only_second_pictures_of_one_are_copies() -> None:
    cells = [_cell(number) for number in range(30)]
    plain = [_cell(number, grain=0) for number in range(100, 130)]
    same_grain = [_cell(number, flaws=4) for number in range(10, 18)]
    again = [_cell(number, shot=1) for number in range(6)]
    thumbs = [_thumb(image) for image in [*cells, *plain, *same_grain, *again]]
    pairs = find_near_pairs(thumbs)
    assert set(map(tuple, pairs.tolist())) == {(number, 68 + number) for number in range(6)}


def test_equal_faint_pictures_are_found() -> None:
    for seed in range(20):
        pixels = np.asarray(_photograph(seed).convert("L"), np.float32)
        thumb = _thumb(Image.fromarray((60 + 3 * (pixels - 120) / 45).astype(np.uint8)))
        assert find_near_pairs([thumb, thumb]).tolist() == [[0, 1]]


def test_a_chain_of_crops_is_not_one_group() -> None:
    wide = _photograph(3).resize((400, 128))
    frames = [_thumb(wide.crop((left, 0, left + 128, 128))) for left in range(0, 240, 6)]
    others = [_thumb(_photograph(seed)) for seed in range(10, 40)]
    group = label_components(len(frames) + len(others), find_near_pairs([*frames, *others]))
    sizes = np.bincount(group[: len(frames)])
    assert 2 <= sizes.max() <= 8


def _facts(thumbs: list[bytes]) -> list[ImageMetadata]:
    return [ImageMetadata(f"{row:032x}", 64, 64, "RGB", (), thumb) for row, thumb in enumerate(thumbs)]


def test_large_groups_with_mixed_labels_are_not_trusted(tmp_path: Path) -> None:
    thumbs = [_thumb(_recompress(_photograph(1), 60 + row)) for row in range(30)]
    content = np.arange(30, dtype=np.int32)
    mixed = group_copies(content, _facts(thumbs), (content % 3).astype(np.int32), Context(tmp_path, Silent()))
    assert mixed.look.tolist() == content.tolist()
    assert mixed.distrusted == (tuple(range(30)),)
    one_label_wrong = (content == 4).astype(np.int32)
    trusted = group_copies(content, _facts(thumbs), one_label_wrong, Context(tmp_path, Silent()))
    assert set(trusted.look.tolist()) == {0}
    assert trusted.distrusted == ()


def test_near_copies_are_searched_once_whatever_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _facts([_thumb(image) for image in (_photograph(1), _photograph(2), _recompress(_photograph(1), 50))])
    content, labels = np.arange(3, dtype=np.int32), np.zeros(3, np.int32)
    assert group_copies(content, facts, labels, Context(tmp_path, Silent())).look.tolist() == [0, 1, 0]
    monkeypatch.setattr(copy_groups, "find_near_pairs", None)
    assert group_copies(content, facts[::-1], labels, Context(tmp_path, Silent())).look.tolist() == [0, 1, 0]
    assert group_copies(content, [facts[1], facts[0], facts[2]], labels, Context(tmp_path, Silent())).look.tolist() == [
        0,
        1,
        1,
    ]


def test_copies_that_cannot_be_remembered_are_found_and_told(tmp_path: Path) -> None:
    said: list[str] = []

    class Noting(Silent):
        def note(self, sentence: str) -> None:
            said.append(sentence)

    (tmp_path / "blocked").write_text("a file where the cache should be")
    facts = _facts([_thumb(_photograph(1)), _thumb(_recompress(_photograph(1), 50))])
    look = group_copies(
        np.arange(2, dtype=np.int32), facts, np.zeros(2, np.int32), Context(tmp_path / "blocked", Noting())
    ).look
    assert look.tolist() == [0, 0]
    assert said[0].startswith("The near copies that were found could not be saved in the cache: ")


def test_what_was_not_trusted_is_a_finding_and_is_saved(tmp_path: Path) -> None:
    for label in "abc":
        (tmp_path / "d" / label).mkdir(parents=True)
    for row in range(15):
        _photograph(1).save(tmp_path / "d" / "abc"[row % 3] / f"{row}.jpg", quality=60 + row)
    data = scan(tmp_path / "d")
    found = {finding.code: finding for finding in findings(data)}
    assert "D012" not in found
    assert found["D014"].severity == "warning"
    assert found["D014"].message.startswith("15 files in 1 group look the same but have different labels.")
    assert "group column" in found["D014"].advice
    data.save(tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet").lookalikes == data.lookalikes == found["D014"].groups


def test_findings_about_near_copies_tell_the_measured_reach(photos: Path) -> None:
    Image.open(photos / "leaf/002.png").save(photos / "leaf/near.jpg", quality=90)
    Image.open(photos / "leaf/003.png").save(photos / "sky/near.jpg", quality=90)
    found = {finding.code: finding for finding in findings(scan(photos))}
    for code in ("D012", "D013"):
        assert "finds at least 97 % of the copies" in found[code].advice
