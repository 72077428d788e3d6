"""Folders, lists and tables as people have them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from budwood.data import checks
from budwood.data.checks import Finding
from budwood.data.dataset import Dataset
from budwood.data.scanning import scan
from budwood.errors import DataError
from conftest import fill, picture


def _found(data: Dataset) -> dict[str, Finding]:
    return {finding.code: finding for finding in checks.findings(data)}


def _paths(data: Dataset) -> list[str]:
    return list(data.table["path"].to_pylist())


def test_one_folder_of_classes_beside_other_things(photos: Path) -> None:
    around = photos.parent / "around"
    around.mkdir()
    photos.rename(around / "photos")
    for name in ("__MACOSX", "__pycache__", "docs"):
        (around / name).mkdir()
        (around / name / "notes.txt").write_text("hello")
    (around / "README.txt").write_text("hello")
    data = scan(around)
    assert data.classes == ("leaf", "sky")
    assert _found(data)["D007"].files == ("docs/", "README.txt")
    assert set(_found(data)["D076"].files) == {"__MACOSX/", "__pycache__/"}


def test_two_folders_of_images_are_two_classes(photos: Path) -> None:
    (photos / "docs").mkdir()
    (photos / "docs" / "notes.txt").write_text("hello")
    assert scan(photos).classes == ("leaf", "sky")


@pytest.mark.parametrize("separator", [", ", ",", " ", "\t", ";"])
def test_lists_with_a_label_a_line(separator: str, tmp_path: Path) -> None:
    fill(tmp_path / "images", 6)
    lines = [f"images/{number:03}.png{separator}{'cat' if number % 2 else 'big dog'}" for number in range(6)]
    (tmp_path / "train.txt").write_text("\n".join(lines[:4]))
    (tmp_path / "val.txt").write_text("\n".join(lines[4:]))
    data = scan(tmp_path)
    assert data.classes == ("big dog", "cat")
    assert [len(data.samples(split)) for split in ("train", "val")] == [4, 2]


def test_a_list_of_names_with_spaces_has_no_labels(tmp_path: Path) -> None:
    fill(tmp_path / "my cat", 2)
    fill(tmp_path / "dog", 2, hue=1)
    (tmp_path / "train.txt").write_text("my cat/000.png\nmy cat/001.png\ndog/000.png\ndog/001.png")
    assert scan(tmp_path).classes == ("dog", "my cat")


def test_a_list_that_labels_some_lines_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "train.txt").write_text("images/000.png, cat\nimages/001.png\n")
    with pytest.raises(DataError, match=r"train.txt, line 2: expected <image>, <label>, found 'images/001.png'"):
        scan(tmp_path)


def _write(file: Path, names: Sequence[str], header: str = "path,label", separator: str = ",") -> Path:
    rows = [f"{name}{separator}{'ab'[number % 2]}" for number, name in enumerate(names)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "pattern",
    [
        "images\\{:03}.png",
        "C:\\Users\\me\\data\\images\\{:03}.png",
        "/home/me/data/images/{:03}.png",
        "other/base/images/{:03}.png",
        "{:03}.png",
        "{:03}",
        "images/{:03}",
    ],
)
def test_paths_from_elsewhere_are_found(pattern: str, tmp_path: Path) -> None:
    fill(tmp_path / "images", 4)
    names = [pattern.format(number) for number in range(4)]
    data = scan(_write(tmp_path / "t.csv", names))
    assert len(data) == 4
    assert _paths(data) == [f"images/{number:03}.png" for number in range(4)]
    assert f"the first, {names[0]!r}, as 'images/000.png'" in _found(data)["D079"].message


def test_another_image_of_the_same_name_is_not_taken(tmp_path: Path) -> None:
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 1, first=9, hue=1)
    names = ["a/000.png", "a/001.png", "a/002.png", "b/000.png", "b/009.png"]
    data = scan(_write(tmp_path / "t.csv", names))
    assert _paths(data) == ["a/000.png", "a/001.png", "a/002.png", "b/009.png"]
    found = _found(data)["D005"]
    assert found.files == ("b/000.png",)
    assert f"('b/000.png', looked for at {tmp_path / 'b/000.png'}: No such file or directory)" in found.message


def test_a_path_that_fits_two_images_is_not_guessed(tmp_path: Path) -> None:
    fill(tmp_path / "a", 2)
    fill(tmp_path / "b", 2, hue=1)
    with pytest.raises(DataError, match="fewer than two classes") as caught:
        scan(_write(tmp_path / "t.csv", ["000.png", "001.png"]))
    assert "the first, '000.png', was looked for at" in caught.value.message


def test_two_rows_never_become_one_image(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with pytest.raises(DataError, match="fewer than two classes"):
        scan(_write(tmp_path / "t.csv", ["x/000.png", "y/000.png"]))


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("path;label", ";"),
        ("path\tlabel", "\t"),
        ("Path,Label", ","),
        (" filename , class ", ","),
        ("image,target", ","),
        ("image_path,Category", ","),
    ],
)
def test_headers_and_delimiters(header: str, separator: str, tmp_path: Path) -> None:
    fill(tmp_path, 4)
    data = scan(_write(tmp_path / "t.csv", [f"{number:03}.png" for number in range(4)], header, separator))
    assert data.classes == ("a", "b")


def test_cells_of_a_padded_table_are_bare(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    (tmp_path / "t.csv").write_text("path , label\n" + "".join(f"{n:03}.png , {'ab'[n % 2]}\n" for n in range(4)))
    data = scan(tmp_path / "t.csv")
    assert data.classes == ("a", "b")


@pytest.mark.parametrize("header", ["path,label,label", "path,Label,LABEL"])
def test_a_doubled_column_is_one_message(header: str, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / "t.csv").write_text(f"{header}\n000.png,a,b\n001.png,b,a\n")
    with pytest.raises(DataError, match=r"t.csv: has the column 'label' 2 times \(.*\); expected it once"):
        scan(tmp_path / "t.csv")


def test_a_column_beside_another_spelling_of_it_is_taken_as_before(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / "t.csv").write_text("path,label,Label\n000.png,a,x\n001.png,b,y\n")
    assert scan(tmp_path / "t.csv").classes == ("a", "b")


def _png(seed: int) -> bytes:
    data = io.BytesIO()
    picture(seed).save(data, "png")
    return data.getvalue()


def _hugging_face(file: Path, labels: Sequence[object], feature: Mapping[str, Any], column: str) -> Path:
    """A table as the library of that name writes it, with the images in it."""
    images = [{"bytes": _png(number), "path": f"{number}.png"} for number in range(len(labels))]
    features = {"image": {"_type": "Image"}, column: feature}
    table = pa.table({"image": images, column: labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), file)
    return file


NAMES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def test_a_hugging_face_table_holds_its_images_and_names(tmp_path: Path) -> None:
    file = _hugging_face(tmp_path / "train.parquet", [0, 1, 0, 1, -1], NAMES, "label")
    data = scan(file)
    assert data.classes == ("cat", "dog")
    assert len(data) == 4
    assert _found(data)["D071"].message.startswith("1 row of the table has no label")
    again = scan(file)
    assert (again.root, again.fingerprint) == (data.root, data.fingerprint)


@pytest.mark.parametrize("feature", [{"feature": NAMES, "_type": "Sequence"}, [NAMES]])
def test_lists_of_labels_in_a_hugging_face_table(feature: Any, tmp_path: Path) -> None:
    data = scan(_hugging_face(tmp_path / "t.parquet", [[0], [1], [0, 1], []], feature, "labels"))
    assert data.classes == ("cat", "dog")
    assert len(data.label_sets) == 4


def test_a_hugging_face_table_that_names_files(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    images = [{"bytes": None, "path": f"{number:03}.png"} for number in range(4)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "a", "b"]}), tmp_path / "t.parquet")
    assert _paths(scan(tmp_path / "t.parquet")) == [f"{number:03}.png" for number in range(4)]


def _clone(root: Path, names: Sequence[str]) -> Path:
    """A data set as it is cloned from there: a table for each part of a split, under data/."""
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text("cats")
    picture(999).save(root / "data" / "sample.png")
    for number, name in enumerate(names):
        images = [{"bytes": _png(100 * number + row), "path": None} for row in range(8)]
        features = {"image": {"_type": "Image"}, "label": NAMES}
        table = pa.table({"image": images, "label": [0, 1] * 4})
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(meta), root / "data" / name)
    return root


def test_a_cloned_folder_of_hugging_face_tables(tmp_path: Path) -> None:
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001-0a1b.parquet"]
    data = scan(_clone(tmp_path / "cats", names))
    assert (data.name, data.classes, len(data)) == ("cats", ("cat", "dog"), 24)
    assert data.split_source == "given, val made"
    assert len(data.samples("test")) == 8
    assert {path.rpartition("-")[0] for path in _paths(data)} == {Path(name).stem for name in names}
    assert [item.path for item in data.set_aside] == ["data/sample.png"]
    assert len(scan(tmp_path / "cats").samples("train")) == len(data.samples("train"))


def test_a_cloned_folder_that_lacks_a_table_is_refused(tmp_path: Path) -> None:
    root = _clone(tmp_path / "cats", ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"])
    with pytest.raises(DataError, match=r"the table train-00001-of-00003\*.parquet is missing, one of the 3 tables"):
        scan(root)


def test_tables_of_a_folder_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    root = _clone(tmp_path / "cats", ["train.parquet"])
    _hugging_face(root / "data" / "validation.parquet", [[0], [0, 1]], {"feature": NAMES}, "labels")
    with pytest.raises(DataError, match=r"validation.parquet: its images have several labels each, unlike"):
        scan(root)
    pq.write_table(pa.table({"image": ["a.png"], "label": ["cat"]}), root / "data" / "validation.parquet")
    with pytest.raises(DataError, match=r"validation.parquet: holds paths of images, not the images"):
        scan(root)


def test_a_class_number_without_a_name_is_refused(tmp_path: Path) -> None:
    file = _hugging_face(tmp_path / "t.parquet", [0, 1, 2], NAMES, "label")
    with pytest.raises(DataError, match=r"row 3: the column 'label' holds the class number 2, but has names for 2"):
        scan(file)


def test_some_paths_without_an_extension_beside_whole_ones(tmp_path: Path) -> None:
    fill(tmp_path / "a", 4)
    data = scan(_write(tmp_path / "t.csv", ["a/000.png", "a\\001.png", "a/002", "a\\003"]))
    assert _paths(data) == [f"a/{number:03}.png" for number in range(4)]
