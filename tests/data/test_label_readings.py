"""Labels as people write them are read one way, which a numbered finding names, and another way on request."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from budwood.data import checks
from budwood.data.checks import Finding
from budwood.data.dataset import Dataset, load
from budwood.data.scanning import scan
from budwood.errors import DataError
from conftest import fill


def _table(folder: Path, labels: Sequence[str], header: str = "path,label", extra: Sequence[str] = ()) -> Path:
    """A table of a picture for each label; each is written in quotes."""
    fill(folder, len(labels))
    ends = extra or [""] * len(labels)
    rows = [f'{number:03}.png,"{label}"{end}' for number, (label, end) in enumerate(zip(labels, ends, strict=True))]
    (folder / "t.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder / "t.csv"


def _found(data: Dataset) -> dict[str, Finding]:
    return {finding.code: finding for finding in checks.findings(data)}


@pytest.mark.parametrize(
    "both",
    ["cat,dog", "cat, dog", "dog|cat", "cat;dog", "cat dog", "['cat', 'dog']", "['cat' 'dog']", "[cat, dog]"],
)
def test_several_labels_in_a_cell_are_several_labels(both: str, tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["cat", "dog", both, "cat", "dog", both]))
    assert data.classes == ("cat", "dog")
    assert data.label_sets == ((0,), (0, 1), (1,))
    found = _found(data)["D070"]
    assert found.severity == "warning"
    assert found.message.startswith("2 images have several labels in one cell of the column 'label'")
    assert found.files == ("002.png", "005.png")
    assert "--label-separator none" in found.advice


def test_lists_in_json_are_several_labels(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ['[""cat"", ""dog""]', '[""cat""]', "[]", '[""dog""]']))
    assert data.classes == ("cat", "dog")
    assert () in data.label_sets


def test_lists_of_one_label_each_are_that_label(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["['cat']", "['dog']"] * 3))
    assert data.classes == ("cat", "dog")
    assert data.label_sets == ()
    assert "lists of one label each" in _found(data)["D070"].message


def test_a_cell_stays_one_label_on_request(tmp_path: Path) -> None:
    file = _table(tmp_path, ["cat", "dog", "cat,dog", "cat", "dog", "cat,dog"])
    data = scan(file, label_separator="none")
    assert data.classes == ("cat", "cat,dog", "dog")
    assert "D070" not in _found(data)


def test_a_separator_is_used_on_request(tmp_path: Path) -> None:
    file = _table(tmp_path, ["animal|cat", "animal|dog"] * 3)
    data = scan(file)
    assert data.classes == ("animal|cat", "animal|dog")
    found = _found(data)["D070"]
    assert found.severity == "warning"
    assert "hold '|' and are read as one label each" in found.message
    assert "--label-separator '|'" in found.advice
    assert scan(file, label_separator="|").classes == ("animal", "cat", "dog")


@pytest.mark.parametrize(
    "names", [["New York", "Los Angeles"], ["golden retriever", "labrador retriever"], ["Pepper, bell", "Tomato, red"]]
)
def test_names_of_several_words_stay_one_label(names: list[str], tmp_path: Path) -> None:
    data = scan(_table(tmp_path, names * 4))
    assert data.classes == tuple(sorted(names))
    assert "D070" not in _found(data)


def test_tags_in_a_column_of_labels_are_parted_at_spaces_only_where_they_mix(tmp_path: Path) -> None:
    mixed = scan(_table(tmp_path / "a", ["clear water", "clear", "water", "haze water", "haze"], "path,labels"))
    assert mixed.classes == ("clear", "haze", "water")
    named = scan(_table(tmp_path / "b", ["red panda", "red fox", "giant panda"], "path,labels"))
    assert named.classes == ("giant panda", "red fox", "red panda")


def test_a_class_with_a_semicolon_cannot_be_one_of_several(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the label 'a;b' has a semicolon"):
        scan(_table(tmp_path, ["['a;b', 'c']", "['c']"]))


@pytest.mark.parametrize("blank", ["nan", "NaN", "", "  ", "<NA>", "null"])
def test_rows_without_a_label_are_left_out(blank: str, tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["cat", "dog", blank, "cat", "dog"]))
    assert data.classes == ("cat", "dog")
    assert len(data) == 4
    found = _found(data)["D071"]
    assert found.message.startswith("1 row of the table has no label")
    assert found.files == ("002.png",)


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["none", "scratch"] * 3))
    assert data.classes == ("none", "scratch")
    assert "D071" not in _found(data)


def test_a_label_that_is_not_a_number_is_no_label_among_several(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["cat; dog", "nan", "dog"], "path,labels"))
    assert data.classes == ("cat", "dog")
    assert () in data.label_sets
    assert _found(data)["D071"].files == ("001.png",)


def test_spellings_of_one_class_are_joined(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    data = scan(_table(tmp_path, ["cat", "cat", "Cat", "cat ", "café", "café", decomposed]))
    assert data.classes == ("café", "cat")
    found = _found(data)["D072"]
    assert found.severity == "warning"
    assert "'Cat' and 'cat ' as 'cat'" in found.message
    assert set(found.files) == {"002.png", "003.png", "006.png"}
    assert "--spelling keep" in found.advice


def test_spellings_are_kept_on_request(tmp_path: Path) -> None:
    file = _table(tmp_path, ["cat", "Cat", "2", "2.0", "nan"])
    data = scan(file, spelling="keep")
    assert data.classes == ("2", "2.0", "Cat", "cat", "nan")
    assert not {"D071", "D072", "D073"} & set(_found(data))


def test_folders_that_differ_in_case_are_one_class_across_splits(tmp_path: Path) -> None:
    for split, names in (("train", ("cat", "dog")), ("test", ("Cat", "dog"))):
        for hue, name in enumerate(names):
            fill(tmp_path / "d" / split / name, 3, first=0 if split == "train" else 10, hue=hue)
    data = scan(tmp_path / "d")
    assert data.classes == ("cat", "dog")
    assert _found(data)["D072"].files[0] == "test/Cat/010.png"


def test_letters_in_both_cases_are_classes_of_their_own(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["a", "A", "b", "B"]))
    assert data.classes == ("A", "B", "a", "b")
    assert "D072" not in _found(data)


def test_one_number_written_in_two_ways_is_one_class(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["2", "2.0", "3", "3.0", "02"]))
    assert data.classes == ("02", "2", "3")
    found = _found(data)["D073"]
    assert "'2.0' as '2'" in found.message
    assert found.files == ("001.png", "003.png")


def test_numbers_that_are_all_written_alike_stay(tmp_path: Path) -> None:
    data = scan(_table(tmp_path, ["1.0", "2.0"] * 3))
    assert data.classes == ("1.0", "2.0")
    assert "D073" not in _found(data)


def test_the_column_is_valid_makes_the_splits(tmp_path: Path) -> None:
    ends = [",False", ",True", ",0", ",1", ",false", ","]
    data = scan(_table(tmp_path, ["a", "a", "b", "b", "a", "b"], "path,label,is_valid", ends))
    assert [len(data.samples(split)) for split in ("train", "val")] == [4, 2]
    assert "is_valid" in _found(data)["D077"].message


def test_a_column_of_splits_comes_before_is_valid(tmp_path: Path) -> None:
    ends = [",True,train", ",True,train", ",False,val", ",False,val"]
    data = scan(_table(tmp_path, ["a", "b", "a", "b"], "path,label,is_valid,split", ends))
    assert [len(data.samples(split)) for split in ("train", "val")] == [2, 2]
    assert "D077" not in _found(data)


def test_another_word_in_is_valid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: the column 'is_valid' holds 'maybe'; expected True or False"):
        scan(_table(tmp_path, ["a", "b"], "path,label,is_valid", [",True", ",maybe"]))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for hue, name in enumerate(("train", "car", "bus")):
        fill(tmp_path / "d" / name, 4, hue=hue)
    data = scan(tmp_path / "d")
    assert data.classes == ("bus", "car", "train")
    found = _found(data)["D075"]
    assert "'train/' is read as a class, not as a split" in found.message


def _train_beside_others(root: Path) -> Path:
    for hue, name in enumerate(("train/steam", "train/diesel", "car")):
        fill(root / name, 4, hue=hue)
    return root


def test_a_train_folder_of_class_folders_is_the_training_split(tmp_path: Path) -> None:
    data = scan(_train_beside_others(tmp_path / "d"))
    assert data.classes == ("diesel", "steam")
    found = _found(data)["D075"]
    assert found.severity == "warning"
    assert "'train/' is read as the training split; 'car/' is not used" in found.message
    assert "--split-folders never" in found.advice


def test_a_train_folder_is_a_class_on_request(tmp_path: Path) -> None:
    data = scan(_train_beside_others(tmp_path / "d"), split_folders="never")
    assert data.classes == ("car", "train")


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (("train", "dev"), [4, 4, 0]),
        (("Train", "EVAL"), [4, 4, 0]),
        (("training", "dev", "eval"), [4, 4, 4]),
        (("train", "Valid", "Testing"), [4, 4, 4]),
        (("train", "eval", "test"), [4, 4, 4]),
    ],
)
def test_names_of_split_folders(names: tuple[str, ...], counts: list[int], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        for hue in (0, 1):
            fill(tmp_path / "d" / name / "ab"[hue], 2, first=10 * number, hue=hue)
    data = scan(tmp_path / "d")
    assert [len(data.samples(split)) for split in ("train", "val", "test")] == counts
    unusual = {"dev", "eval"} & {name.lower() for name in names}
    assert ("D075" in _found(data)) == bool(unusual)


def test_dev_in_a_column_of_splits_is_validation(tmp_path: Path) -> None:
    ends = [",train", ",train", ",Dev", ",Dev"]
    data = scan(_table(tmp_path, ["a", "b", "a", "b"], "path,label,split", ends))
    assert len(data.samples("val")) == 2


def _nested(root: Path) -> Path:
    for hue, name in enumerate(("plant/daisy", "plant/rose", "animal")):
        fill(root / name, 4, hue=hue)
    return root


def test_nested_class_folders_are_named(tmp_path: Path) -> None:
    data = scan(_nested(tmp_path / "d"))
    assert data.classes == ("animal", "plant")
    found = _found(data)["D074"]
    assert "'plant/' (2)" in found.message
    assert found.files == ("plant/daisy/", "plant/rose/")
    assert "--label-from path" in found.advice


@pytest.mark.parametrize("around", ["d", "d/train"])
def test_nested_class_folders_are_classes_on_request(around: str, tmp_path: Path) -> None:
    _nested(tmp_path / around)
    data = scan(tmp_path / "d", label_from="path")
    assert data.classes == ("animal", "plant/daisy", "plant/rose")
    assert "D074" not in _found(data)


@pytest.mark.parametrize(
    "name", ["@eaDir", "$RECYCLE.BIN", ".ipynb_checkpoints", "__MACOSX", "__pycache__", ".git", ".hidden"]
)
def test_folders_of_the_system_are_passed_over(name: str, photos: Path) -> None:
    fill(photos / name, 2, first=50)
    shutil.copytree(photos / name, photos / "sky" / name)
    data = scan(photos)
    assert data.classes == ("leaf", "sky")
    assert len(data) == 60
    assert _found(data)["D076"].files == (f"{name}/", f"sky/{name}/")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_from": "deep"}, "label_from: expected 'top', 'parent' or 'path', found 'deep'"),
        ({"spelling": "loose"}, "spelling: expected 'join' or 'keep', found 'loose'"),
        ({"split_folders": "no"}, "split_folders: expected 'auto' or 'never', found 'no'"),
        ({"label_separator": ""}, "label_separator: expected a separator"),
    ],
)
def test_other_words_for_a_reading_are_refused(options: dict[str, str], message: str, photos: Path) -> None:
    with pytest.raises(DataError, match=message):
        scan(photos, **options)  # type: ignore[arg-type]


def test_what_was_read_how_is_kept_with_the_data(tmp_path: Path) -> None:
    data = scan(_nested(tmp_path / "d"))
    data.save(tmp_path / "data.parquet")
    assert load(tmp_path / "data.parquet").remarks == data.remarks
