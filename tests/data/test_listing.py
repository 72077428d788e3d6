"""Every layout that is promised becomes the same kind of listing, and every mistake one message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from budwood.data.listing import Listing
from budwood.data.sources import list_files
from budwood.errors import DataError
from budwood.progress import Silent
from budwood.storage.context import Context
from conftest import fill


def _list(source: Path, *exclude: str) -> Listing:
    return list_files(source, Context(source.parent / "cache", Silent()), exclude)


def test_class_folders(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "a" / "deeper", 2)
    fill(tmp_path / "d" / "b", 1)
    (tmp_path / "d" / ".hidden").mkdir()
    (tmp_path / "d" / "readme.txt").write_text("hello")
    listing = _list(tmp_path / "d")
    assert list(listing.paths) == ["a/deeper/000.png", "a/deeper/001.png", "b/000.png"]
    assert list(listing.labels) == ["a", "a", "b"]
    assert set(listing.splits) == {""}
    assert listing.left_out == [("readme.txt", "is outside of all class folders")]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_split_folders(name: str, tmp_path: Path) -> None:
    for split in ("train", name, "test"):
        for label in "ab":
            fill(tmp_path / "d" / split / label, 1)
    listing = _list(tmp_path / "d")
    assert sorted(listing.splits) == ["test", "test", "train", "train", "val", "val"]
    assert set(listing.labels) == {"a", "b"}


def test_a_single_folder_around_the_layout_is_looked_into(tmp_path: Path) -> None:
    for label in "ab":
        fill(tmp_path / "d" / "wrapped" / "train" / label, 1)
    assert list(_list(tmp_path / "d").splits) == ["train", "train"]


def test_linked_class_folders_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "far", 2)
    fill(tmp_path / "d" / "a", 1)
    (tmp_path / "d" / "b").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "far")
    assert list(_list(tmp_path / "d").labels) == ["a", "b", "b"]


def _caltech(root: Path) -> Path:
    for label in "ab":
        fill(root / "images" / label, 3)
    (root / "train.txt").write_text("a/000.png\nb/000.png\nb/009.png\n")
    (root / "test.txt").write_text("a/001.png\n\nb/001.png\n")
    return root


def test_lists_of_files(tmp_path: Path) -> None:
    listing = _list(_caltech(tmp_path / "d"))
    assert list(zip(listing.paths, listing.splits, strict=True)) == [
        ("images/a/000.png", "train"),
        ("images/a/001.png", "test"),
        ("images/b/000.png", "train"),
        ("images/b/001.png", "test"),
    ]
    assert ("b/009.png", "is listed in train.txt but does not exist") in listing.left_out
    assert listing.name == "d"
    assert ("images/a/002.png", "is not in a list") in listing.left_out


def test_a_listed_path_may_not_leave_the_folder(tmp_path: Path) -> None:
    _caltech(tmp_path / "d")
    (tmp_path / "d" / "test.txt").write_text("../a/001.png\n")
    with pytest.raises(DataError, match="is outside the folder"):
        _list(tmp_path / "d")


def test_a_listed_path_needs_a_class(tmp_path: Path) -> None:
    _caltech(tmp_path / "d")
    (tmp_path / "d" / "test.txt").write_text("001.png\n")
    with pytest.raises(DataError, match=r"test.txt, line 1: expected <class>/<image>, found '001.png'"):
        _list(tmp_path / "d")


def test_a_list_in_another_encoding_is_told(tmp_path: Path) -> None:
    _caltech(tmp_path / "d")
    (tmp_path / "d" / "train.txt").write_bytes("a/ü.png\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        _list(tmp_path / "d")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables(suffix: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    fill(tmp_path, 3)
    columns = {
        "filename": ["000.png", "001.png", "002.png"],
        "class": ["1", "2", "1"],
        "split": ["train", "training", "Test"],
        "group": ["g", "", "h"],
    }
    table, file = pa.table(columns), tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
    else:
        options = pyarrow.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
        pyarrow.csv.write_csv(table, file, options)
    listing = _list(file)
    assert list(listing.labels) == ["1", "2", "1"]
    assert list(listing.splits) == ["train", "train", "test"]
    assert list(listing.groups) == ["g", "", "h"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pth,label\na.png,x\n", r"has no column 'path'; found pth, label"),
        ("path,lable\na.png,x\n", r"has no column 'label'; found path, lable"),
        ("path,label\na.png,\n", r"row 1: the column 'label' is empty"),
        ("path,label,split\na.png,x,tset\n", r"row 1: unknown split 'tset'"),
        ("", "has no column 'path'; found no columns|cannot be read as a table"),
        ("path,label\na.png,x,y,z\n", "cannot be read as a table"),
    ],
)
def test_mistakes_in_a_table(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        _list(tmp_path / "t.csv")


def test_a_missing_column_comes_with_a_guess(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("pth,label\na.png,x\n")
    with pytest.raises(DataError) as caught:
        _list(tmp_path / "t.csv")
    assert "Did you mean 'pth'?" in caught.value.hint


def test_what_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("hello")
    fill(tmp_path / "one" / "a", 2)
    cases = {
        tmp_path / "nowhere": "no such file or folder",
        tmp_path / "empty": "contains no labelled image files",
        tmp_path / "notes.md": "is neither a folder, nor a CSV or Parquet table, nor a tar or zip archive",
        tmp_path / "one": "has only one class",
    }
    for source, message in cases.items():
        with pytest.raises(DataError, match=message):
            _list(source)


def test_a_test_class_that_training_lacks(tmp_path: Path) -> None:
    for split, labels in (("train", "ab"), ("test", "abc")):
        for label in labels:
            fill(tmp_path / "d" / split / f"class_{label}", 1)
    with pytest.raises(DataError, match="the test split has the class 'class_c', which the train split does not have"):
        _list(tmp_path / "d")


def test_split_folders_without_train(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "test" / "a", 1)
    fill(tmp_path / "d" / "val" / "a", 1)
    with pytest.raises(DataError, match="has test/, val/ but no train/ folder"):
        _list(tmp_path / "d")


def test_a_table_without_training_images(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,split\na.png,x,test\nb.png,y,test\n")
    with pytest.raises(DataError, match="the training set has no images"):
        _list(tmp_path / "t.csv")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "d" / "a", 1)
    fill(tmp_path / "d" / "b", 1)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(DataError, match=r"d/a: cannot be read \(Permission denied\)"):
        _list(tmp_path / "d")


def test_excluded_classes(tmp_path: Path) -> None:
    for label in "abc":
        fill(tmp_path / "d" / label, 2)
    assert set(_list(tmp_path / "d", "b").labels) == {"a", "c"}
    with pytest.raises(DataError, match="there is no such class"):
        _list(tmp_path / "d", "bb")
    with pytest.raises(DataError, match="leaves fewer than two classes"):
        _list(tmp_path / "d", "a", "b")


def test_a_name_that_is_no_unicode_is_told(tmp_path: Path) -> None:
    for label in "ab":
        fill(tmp_path / "d" / label, 1)
    try:
        shutil.copy(bytes(tmp_path / "d/a/000.png"), bytes(tmp_path / "d/a") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    listing = _list(tmp_path / "d")
    assert listing.left_out == [("a/\\udcff.png", "has a name that is not valid Unicode")]


def test_the_built_in_cells_keep_the_published_shares() -> None:
    listing = _list(Path("elpv"))
    assert len(listing.paths) == 2624
    assert list(listing.labels).count("defective") == 821
    assert list(listing.splits).count("test") == pytest.approx(2624 / 4, abs=2)
