"""Each finding is raised by what it is about, names the files, and by nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from budwood.data.checks import Finding, findings, leaks
from budwood.data.scanning import scan
from conftest import fill, picture


def _found(folder: Path) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings(scan(folder))}


def test_clean_data_have_no_findings(photos: Path) -> None:
    assert findings(scan(photos)) == ()


def test_files_that_cannot_be_used(photos: Path) -> None:
    (photos / "sky" / "text.jpg").write_text("no")
    (photos / "sky" / "zero.jpg").write_bytes(b"")
    (photos / "sky" / "gone.jpg").symlink_to("nowhere")
    picture(900, side=300).save(photos / "sky" / "cut.jpg")
    whole = (photos / "sky" / "cut.jpg").read_bytes()
    (photos / "sky" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "readme.md").write_text("hello")
    found = _found(photos)
    assert {code: finding.files for code, finding in found.items()} == {
        "D001": ("sky/cut.jpg",),
        "D003": ("sky/text.jpg",),
        "D004": ("sky/zero.jpg",),
        "D005": ("sky/gone.jpg",),
        "D007": ("readme.md",),
    }


def test_damaged_and_enormous_files(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bytearray((photos / "sky" / "000.png").read_bytes())
    whole[60:120] = bytes(60)
    (photos / "sky" / "damaged.png").write_bytes(bytes(whole))
    picture(920, side=300).save(photos / "sky" / "vast.png")
    monkeypatch.setattr("budwood.data.images.MAX_PIXELS", 80_000)
    found = _found(photos)
    assert found["D002"].files == ("sky/damaged.png",)
    assert found["D006"].files == ("sky/vast.png",)


def test_copies_by_kind(photos: Path) -> None:
    shutil.copy(photos / "leaf/000.png", photos / "leaf/copy.png")
    shutil.copy(photos / "leaf/001.png", photos / "sky/same.png")
    Image.open(photos / "leaf/002.png").save(photos / "leaf/near.jpg", quality=90)
    Image.open(photos / "leaf/003.png").save(photos / "sky/near.jpg", quality=90)
    found = _found(photos)
    assert found["D010"].groups == (("leaf/000.png", "leaf/copy.png"),)
    assert found["D011"].groups == (("leaf/001.png", "sky/same.png"),)
    assert found["D012"].groups == (("leaf/002.png", "leaf/near.jpg"),)
    assert found["D013"].groups == (("leaf/003.png", "sky/near.jpg"),)
    assert leaks(tuple(found.values())) == ()


def _split(root: Path) -> Path:
    for split, first in (("train", 0), ("test", 50)):
        for hue, label in enumerate("ab"):
            fill(root / split / label, 14, hue=hue, first=first)
    return root


def test_leaks_across_a_given_split_are_found(tmp_path: Path) -> None:
    data = _split(tmp_path / "d")
    shutil.copy(data / "train/a/000.png", data / "test/a/copy.png")
    Image.open(data / "train/b/003.png").save(data / "test/b/near.jpg", quality=90)
    found = _found(data)
    assert found["D020"].groups == (("test/a/copy.png", "train/a/000.png"),)
    assert found["D021"].groups == (("test/b/near.jpg", "train/b/003.png"),)
    assert [finding.code for finding in leaks(tuple(found.values()))] == ["D020", "D021"]
    assert "Training leaves out the training file" in found["D020"].advice


def test_a_group_on_two_sides_of_a_given_split_is_found(tmp_path: Path) -> None:
    rows = ["path,label,split,group"]
    for hue, label in enumerate("ab"):
        fill(tmp_path / label, 24, hue=hue)
        for number in range(24):
            split = "test" if number >= 12 else "train"
            rows.append(f"{label}/{number:03}.png,{label},{split},{'cell' if number in (0, 20) else ''}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    found = _found(tmp_path / "t.csv")
    assert found["D022"].groups == (("a/000.png", "a/020.png", "b/000.png", "b/020.png"),)


def test_odd_images(photos: Path) -> None:
    picture(901).resize((8, 40)).save(photos / "sky" / "tiny.png")
    picture(902).resize((200, 40)).save(photos / "sky" / "wide.png")
    Image.new("RGB", (40, 40), "teal").save(photos / "sky" / "blank.png")
    found = _found(photos)
    assert found["D030"].files == ("sky/tiny.png",)
    assert found["D032"].files == ("sky/tiny.png", "sky/wide.png")
    assert found["D033"].files == ("sky/blank.png",)


def test_a_huge_image_is_noted(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.data.checks.HUGE", 5000)
    picture(903, side=90).save(photos / "sky" / "huge.png")
    assert _found(photos)["D031"].files == ("sky/huge.png",)


def test_conversions_are_told(photos: Path) -> None:
    import numpy as np

    sky = photos / "sky"
    frames = [picture(910), picture(911)]
    frames[0].save(sky / "anim.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.asarray(picture(912).convert("L"), np.uint16) * 257).save(sky / "deep.png")
    picture(913).convert("CMYK").save(sky / "print.jpg")
    glass = picture(914).convert("RGBA")
    glass.putalpha(120)
    glass.save(sky / "glass.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(915).save(sky / "phone.jpg", exif=exif)
    found = _found(photos)
    assert {code: finding.files for code, finding in found.items()} == {
        "D040": ("sky/anim.gif",),
        "D041": ("sky/deep.png",),
        "D042": ("sky/print.jpg",),
        "D043": ("sky/glass.png",),
        "D044": ("sky/phone.jpg",),
    }


def test_class_sizes_and_splits(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train" / "many", 60, hue=0)
    fill(tmp_path / "d" / "train" / "few", 5, hue=1)
    fill(tmp_path / "d" / "val" / "many", 5, hue=0, first=80)
    found = _found(tmp_path / "d")
    assert set(found) == {"D050", "D051", "D060", "D061"}
    assert "'many' has 60 training images, 'few' has 5" in found["D050"].message
    assert "'few' (5)" in found["D051"].message
    assert found["D060"].message == "The validation set has no images of 'few'."
    assert found["D061"].message.startswith("There is no test set, so the final score")
