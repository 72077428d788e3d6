"""Links, devices and hidden names: no one of them stops the others, and predicting passes over what training does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from budwood.data import checks
from budwood.data.checks import Finding
from budwood.data.dataset import Dataset
from budwood.data.file_tree import find_image_files
from budwood.data.scanning import scan
from budwood.errors import DataError
from conftest import fill


def _found(data: Dataset) -> dict[str, Finding]:
    return {finding.code: finding for finding in checks.findings(data)}


@pytest.mark.parametrize("place", ["sky/loop", "sky/loop.png", "sky/deep/loop"])
def test_a_link_to_itself_is_one_file_that_cannot_be_read(place: str, photos: Path) -> None:
    (photos / place).parent.mkdir(exist_ok=True)
    (photos / place).symlink_to(photos / place)
    data = scan(photos)
    assert len(data) == 60
    assert _found(data)["D005"].files == (place,)


def test_a_link_to_itself_beside_the_class_folders(photos: Path) -> None:
    (photos / "loop").symlink_to("loop")
    assert _found(scan(photos))["D007"].files == ("loop",)


def test_two_links_to_each_other(photos: Path) -> None:
    (photos / "sky" / "one").symlink_to("two")
    (photos / "sky" / "two").symlink_to("one")
    assert _found(scan(photos))["D005"].files == ("sky/one", "sky/two")


def test_a_device_among_the_images_is_not_read(photos: Path) -> None:
    (photos / "sky" / "zeros.png").symlink_to("/dev/zero")
    os.mkfifo(photos / "sky" / "pipe.png")
    found = _found(scan(photos))["D005"]
    assert found.files == ("sky/pipe.png", "sky/zeros.png")
    assert "not a regular file" in found.message


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_that_is_a_device_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"{name}: is not a regular file"):
        scan(tmp_path / name)


def test_a_list_that_is_a_device_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a", 1)
    (tmp_path / "train.txt").write_text("a/000.png\n")
    (tmp_path / "val.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"val.txt: is not a regular file"):
        scan(tmp_path)


def test_corrections_that_are_a_pipe_are_refused(photos: Path) -> None:
    os.mkfifo(photos.parent / "fixes.csv")
    with pytest.raises(DataError, match=r"fixes.csv: is not a regular file"):
        scan(photos, corrections=photos.parent / "fixes.csv")


def test_a_table_in_an_archive_folder_that_is_a_device_is_no_table(photos: Path) -> None:
    (photos / "labels.csv").symlink_to("/dev/zero")
    assert _found(scan(photos))["D007"].files == ("labels.csv",)


def test_predicting_finds_the_files_that_training_does(photos: Path) -> None:
    far = photos.parent / "far"
    fill(far, 2, first=70)
    (photos / "sky" / "linked").symlink_to(far)
    (far / "back").symlink_to(photos / "sky")
    (photos / "sky" / "loop.png").symlink_to("loop.png")
    for name in (".git", "__MACOSX", "@eaDir", ".ipynb_checkpoints"):
        fill(photos / "sky" / name, 1, first=80)
    (photos / "sky" / ".hidden.png").write_bytes(b"x")
    data = scan(photos)
    known = {*data.table["path"].to_pylist(), *(item.path for item in data.set_aside)}
    found = list(find_image_files([photos]))
    assert {path.relative_to(photos).as_posix() for path in found} == known
    assert found == sorted(found)


def test_a_hidden_file_or_folder_that_is_named_is_taken(photos: Path) -> None:
    hidden = fill(photos / ".hidden", 2)
    assert list(find_image_files([photos / ".hidden"])) == hidden
    assert list(find_image_files(hidden)) == hidden


def test_paths_outside_the_folder_of_a_table_are_read_and_named(tmp_path: Path) -> None:
    away = fill(tmp_path / "away", 2)
    inside = fill(tmp_path / "d" / "images", 4, hue=1)
    names = ["../away/000.png", str(away[1]), str(inside[0]), "images/001.png", "images/../images/002.png"]
    rows = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (tmp_path / "d" / "t.csv").write_text("\n".join(["path,label", *rows]))
    data = scan(tmp_path / "d" / "t.csv")
    assert len(data) == 5
    found = _found(data)["D078"]
    assert found.files == (names[0], names[1])
    assert found.message.startswith(f"2 paths of the table lead outside its folder {tmp_path / 'd'}")


def test_a_path_that_only_begins_like_the_folder_is_outside(tmp_path: Path) -> None:
    (image,) = fill(tmp_path / "data-2", 1)
    fill(tmp_path / "data", 1, hue=1)
    (tmp_path / "data" / "t.csv").write_text(f"path,label\n{image},a\n000.png,b\n")
    assert _found(scan(tmp_path / "data" / "t.csv"))["D078"].files == (str(image),)
