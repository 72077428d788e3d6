"""Several folders as one data set; classes by the folder that an image is in; columns that are named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.data.several import join_sources, split_sources
from budwood.data.sources import source_exists
from conftest import fill, run_command


def _folder(root: Path, first: int, names: str = "ab") -> Path:
    for hue, name in enumerate(names):
        fill(root / name, 6, hue=hue, first=first)
    return root


def test_several_folders_are_one_data_set(tmp_path: Path) -> None:
    one, two = _folder(tmp_path / "x y", 0), _folder(tmp_path / "z", 10)
    data = bw.scan([one, str(two)])
    assert (data.classes, len(data), data.name) == (("a", "b"), 24, "x y+z")
    assert data.root == tmp_path
    assert {"x y/a/000.png", "z/b/010.png"} <= set(data.table["path"].to_pylist())
    assert data.source == f"{one}{os.pathsep}{two}"
    assert bw.scan(data.source).fingerprint == data.fingerprint


def test_the_command_line_takes_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_command(capsys, "inspect", _folder(tmp_path / "x", 0), _folder(tmp_path / "y", 10))
    assert "24" in out
    assert bw.scan([tmp_path / "x", tmp_path / "y"]).fingerprint[:8] in out or "x+y" in out


def test_folders_without_class_folders_are_classes(tmp_path: Path) -> None:
    root = _folder(tmp_path / "d", 0)
    assert bw.scan([root / "a", root / "b"]).fingerprint == bw.scan(root).fingerprint


def test_copies_across_folders_are_found(tmp_path: Path) -> None:
    data = bw.scan([_folder(tmp_path / "x", 0), _folder(tmp_path / "y", 0)])
    assert len(data) == 24
    assert sum(len(data.samples(split)) for split in ("train", "val", "test")) == 12


def test_a_folder_without_a_split_trains_beside_one_with_a_split(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 20)):
        _folder(tmp_path / "x" / split, first)
    data = bw.scan([tmp_path / "x", _folder(tmp_path / "y", 40)])
    test = set(data.samples("test").paths)
    assert all(path.startswith("x/test/") for path in test)
    assert len(test) == 12
    (found,) = (one for one in bw.findings(data) if one.code == "D075")
    assert "'y' has no split, so that its images train" in found.message


def test_a_table_and_a_folder_are_joined(tmp_path: Path) -> None:
    one, two = _folder(tmp_path / "x", 0), _folder(tmp_path / "y", 10)
    rows = [f"{path.relative_to(one)},{path.parent.name}" for path in sorted(one.rglob("*.png"))]
    (one / "t.csv").write_text("\n".join(["path,label", *rows]))
    assert bw.scan([one / "t.csv", two]).fingerprint == bw.scan([one, two]).fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x", "x"), r"a/000\.png: is in two of the folders that were given"),
        (("x", "none"), "none: no such file or folder"),
        (("x", "x" + os.pathsep), "cannot be one of several folders"),
    ],
)
def test_what_cannot_be_joined_is_told(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    _folder(tmp_path / "x", 0)
    with pytest.raises(bw.DataError, match=message):
        bw.scan([f"{tmp_path}/{name}" for name in names])


def test_one_and_several_labels_are_not_joined(tmp_path: Path) -> None:
    one = _folder(tmp_path / "x", 0)
    (one / "t.csv").write_text("path,labels\na/000.png,a\nb/000.png,a;b\n")
    with pytest.raises(bw.DataError, match="t: its images have several labels each, those of the others have one"):
        bw.scan([one / "t.csv", _folder(tmp_path / "y", 10)])


def test_a_name_with_the_separator_is_one_path_where_it_is_there(tmp_path: Path) -> None:
    odd = tmp_path / f"a{os.pathsep}b"
    odd.mkdir()
    assert split_sources(str(odd)) == [str(odd)]
    assert split_sources(join_sources(["a", "b"])) == ["a", "b"]
    assert join_sources([odd]) == str(odd)
    assert source_exists(join_sources([tmp_path, tmp_path]), tmp_path)
    assert not source_exists(join_sources([tmp_path, "none"]), tmp_path)


@pytest.mark.parametrize(
    ("label_from", "classes"),
    [("top", ("2023", "2024")), ("parent", ("cat", "dog")), ("path", ("2023/cat", "2023/dog", "2024/cat"))],
)
def test_the_class_is_the_folder_that_is_asked_for(label_from: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    for first, name in enumerate(("2023/cat", "2023/dog", "2024/cat")):
        fill(tmp_path / "d" / name, 4, first=10 * first)
    assert bw.scan(tmp_path / "d", label_from=label_from).classes == classes


def test_columns_are_named_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _folder(tmp_path / "d", 0)
    rows = [f"{path.relative_to(root)},{path.parent.name},x" for path in sorted(root.rglob("*.png"))]
    (root / "t.csv").write_text("\n".join(["where,what,label", *rows]))
    options: list[Any] = ["--image-column", "where", "--label-column", "What"]
    run_command(capsys, "inspect", root / "t.csv", *options)
    _, err = run_command(capsys, "inspect", root / "t.csv", "--image-column", "were", code=2)
    assert "has no column 'were'" in err
    assert "Did you mean 'where'?" in err
    _, err = run_command(capsys, "inspect", root, *options, code=2)
    assert f"--image-column where does not apply: {root} is no table" in err
