"""Corrections lie over the data: labels change, images are left out, files stay; what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.cli.main import run as command
from budwood.data.checks import findings
from budwood.data.dataset import load
from budwood.progress import Silent
from budwood.storage.context import Context
from budwood.studies.study import Overrides
from budwood.studies.study_file import load_study, make_tuning_study
from budwood.studies.training_job import DatasetCache
from conftest import fill

HEADER = "path,label,suggested,p_label,p_suggested,split,correct\n"


def _table(place: Path, *rows: tuple[str, str, str], sep: str = ",") -> Path:
    lines = [sep.join((path, label, "", "", "", "", correct)) for path, label, correct in rows]
    place.write_text(HEADER.replace(",", sep) + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return place


def _label(data: bw.Dataset, path: str) -> str:
    row = data.table["path"].to_pylist().index(path)
    return data.classes[int(data.column("label")[row])]


def _digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(str(file).encode() + file.read_bytes() for file in files)).hexdigest()


def test_a_label_changes_an_image_is_left_out_and_no_file_is_touched(photos: Path, tmp_path: Path) -> None:
    before, plain = _digest(photos), bw.scan(photos)
    file = _table(
        tmp_path / "c.csv", ("leaf/003.png", "leaf", "sky"), ("sky/004.png", "sky", "-"), ("leaf/005.png", "leaf", "")
    )
    data = bw.scan(photos, corrections=file)
    assert _label(data, "leaf/003.png") == "sky"
    assert _label(data, "leaf/005.png") == "leaf"
    assert "sky/004.png" not in data.table["path"].to_pylist()
    assert data.corrected == 2
    assert [(one.path, one.problem, one.detail) for one in data.set_aside] == [
        ("sky/004.png", "left out", "is excluded by c.csv")
    ]
    assert "sky/004.png" in str([finding.record() for finding in findings(data)])
    assert data.fingerprint != plain.fingerprint
    assert _digest(photos) == before
    assert bw.scan(photos, corrections=_table(tmp_path / "e.csv")).fingerprint == plain.fingerprint


def test_splits_do_not_move(tmp_path: Path) -> None:
    for hue, name in enumerate(("leaf", "sky")):
        fill(tmp_path / "photos" / name, 40, hue=hue)
    plain = bw.scan(tmp_path / "photos")
    chosen = [path for path in plain.table["path"].to_pylist() if path.startswith("leaf/")][::4]
    file = _table(tmp_path / "c.csv", *((path, "leaf", "sky") for path in chosen))
    data = bw.scan(tmp_path / "photos", corrections=file)
    assert data.corrected == len(chosen) == 10
    assert data.table["path"].equals(plain.table["path"])
    assert np.array_equal(data.column("split"), plain.column("split"))


def test_the_data_set_remembers_and_a_run_trains_on_the_corrected_labels(photos: Path, tmp_path: Path) -> None:
    training = bw.scan(photos).samples("train").paths[0]
    own = training.split("/")[0]
    other = {"leaf": "sky", "sky": "leaf"}[own]
    data = bw.scan(photos, corrections=[_table(tmp_path / "c.csv", (training, own, other))])
    data.save(tmp_path / "data.parquet")
    assert load(tmp_path / "data.parquet").corrected == 1
    run = bw.train(data, bw.Recipe(size=32), out=tmp_path / "runs")
    assert _label(run.dataset(), training) == other
    assert run.dataset().corrected == 1


def test_a_later_table_sees_what_an_earlier_one_made(photos: Path, tmp_path: Path) -> None:
    first = _table(tmp_path / "a.csv", ("leaf/003.png", "leaf", "sky"))
    second = _table(tmp_path / "b.csv", ("leaf/003.png", "sky", "leaf"))
    data = bw.scan(photos, corrections=[first, second])
    assert _label(data, "leaf/003.png") == "leaf"
    with pytest.raises(bw.DataError, match="has the label 'leaf' in the data, but 'sky' in the table"):
        bw.scan(photos, corrections=second)


@pytest.mark.parametrize("sep", [";", "\t"])
def test_what_spreadsheets_make_of_a_table_is_read(photos: Path, tmp_path: Path, sep: str) -> None:
    file = _table(tmp_path / "c.csv", ("leaf/003.png", "leaf", "sky"), sep=sep)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert _label(bw.scan(photos, corrections=file), "leaf/003.png") == "sky"


def test_names_that_a_spreadsheet_would_compute_come_back(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "=leaf", 12, hue=0)
    fill(tmp_path / "photos" / "sky", 12, hue=1)
    file = _table(tmp_path / "c.csv", ("'=leaf/003.png", "'=leaf", "sky"), ("sky/003.png", "sky", "'=leaf"))
    data = bw.scan(tmp_path / "photos", corrections=file)
    assert _label(data, "=leaf/003.png") == "sky"
    assert _label(data, "sky/003.png") == "=leaf"


def test_all_mistakes_are_told_at_once(photos: Path, tmp_path: Path) -> None:
    file = _table(
        tmp_path / "c.csv",
        ("leaf/999.png", "leaf", "sky"),
        ("leaf/003.png", "leaf", "skye"),
        ("leaf/004.png", "sky", "leaf"),
        ("leaf/005.png", "leaf", "sky"),
        ("leaf/005.png", "leaf", "-"),
    )
    with pytest.raises(bw.DataError) as caught:
        bw.scan(photos, corrections=file)
    for part in (
        "has 4 mistakes",
        "line 2: leaf/999.png is not an image of the data set",
        "line 3: leaf/003.png cannot be 'skye': there is no such class. Did you mean 'sky'? Valid: leaf, sky",
        "line 4: leaf/004.png has the label 'leaf' in the data, but 'sky' in the table",
        "line 6: leaf/005.png is 'sky' in line 5 and '-' here",
    ):
        assert part in caught.value.message
    assert "leave their column 'correct' empty" in caught.value.hint


def test_a_file_that_is_no_table_of_corrections_is_refused(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    with pytest.raises(bw.DataError, match="cannot be read"):
        bw.scan(photos, corrections=file)
    file.write_text("path,class\n")
    with pytest.raises(bw.DataError, match="has no column 'label', 'correct'; found path, class"):
        bw.scan(photos, corrections=file)
    file.write_bytes(HEADER.encode() + b"L\xf6we.png,leaf,,,,,sky\n")
    with pytest.raises(bw.DataError, match="is not UTF-8 text"):
        bw.scan(photos, corrections=file)


def test_images_with_several_labels_are_refused(tmp_path: Path) -> None:
    paths = fill(tmp_path / "images", 12)
    rows = "".join(f"images/{path.name},{'a;b' if n % 2 else 'a'}\n" for n, path in enumerate(paths))
    (tmp_path / "data.csv").write_text(f"path,labels\n{rows}")
    with pytest.raises(bw.DataError, match="cannot be used with multi-label data"):
        bw.scan(tmp_path / "data.csv", corrections=_table(tmp_path / "c.csv"))


def test_commands_take_corrections(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _table(tmp_path / "c.csv", ("sky/004.png", "sky", "-"))
    assert command(["inspect", str(photos), "--corrections", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 59
    missing = ["--corrections", str(tmp_path / "no.csv")]
    for arguments in (["inspect", str(photos)], ["train", str(photos)], ["lr-find", str(photos)]):
        assert command([*arguments, *missing]) == 2
        assert "no.csv: cannot be read" in capsys.readouterr().err


def test_a_study_and_a_search_use_corrections_of_their_own_data(photos: Path, tmp_path: Path) -> None:
    file = _table(tmp_path / "c.csv", ("sky/004.png", "sky", "-"))
    text = f'name = "s"\ndata = "{photos}"\n[[rows]]\nlabel = "a"\n[[rows]]\nlabel = "b"\ndata = "elsewhere"\n'
    (tmp_path / "s.toml").write_text(text)
    study = load_study(tmp_path / "s.toml", Overrides(corrections=(str(file),)))
    assert [row.images.corrections for row in study.rows] == [(str(file),), ()]
    (tmp_path / "s.toml").write_text(text.replace("[[rows]]", f'[base]\ncorrections = ["{file}"]\n[[rows]]', 1))
    own = load_study(tmp_path / "s.toml").rows[0].images
    assert own.corrections == (str(file),)
    found = DatasetCache(Context(tmp_path / "cache", Silent())).load(own).data
    assert (len(found), found.corrected) == (59, 1)
    searched = make_tuning_study(str(photos), {"corrections": [str(file)]})
    assert searched.searched.corrections == searched.rows[0].images.corrections == (str(file),)
    assert searched.name != make_tuning_study(str(photos), {}).name
    (tmp_path / "s.toml").write_text(text.replace("[[rows]]", "[base]\ncorrections = 3\n[[rows]]", 1))
    with pytest.raises(bw.StudyError, match="corrections: expected a list of files, found 3"):
        load_study(tmp_path / "s.toml")


def test_files_that_are_not_in_the_data_are_added_to_training(photos: Path, tmp_path: Path) -> None:
    plain = bw.scan(photos)
    new = fill(tmp_path / "new", 3, first=500, hue=1)
    file = _table(
        tmp_path / "c.csv",
        (str(new[0]), "", "leaf"),
        ("new/501.png", "", "sky"),
        ("new/502.png", "", "-"),
        ("x", "", ""),
    )
    data = bw.scan(photos, corrections=file)
    assert len(data) == len(plain) + 2
    assert _label(data, str(new[1])) == "sky"
    splits = dict(zip(data.table["path"].to_pylist(), data.column("split").tolist(), strict=True))
    assert splits[str(new[0])] == splits[str(new[1])] == 0
    before = dict(zip(plain.table["path"].to_pylist(), plain.column("split").tolist(), strict=True))
    assert {path: splits[path] for path in before} == before
    assert data.corrected == 2
    again = _table(tmp_path / "d.csv", (str(photos / "leaf" / "003.png"), "", "sky"))
    assert _label(bw.scan(photos, corrections=[file, again]), "leaf/003.png") == "sky"


def test_a_copy_of_a_validation_image_that_is_added_validates(photos: Path, tmp_path: Path) -> None:
    plain = bw.scan(photos)
    split = plain.column("split")
    known = plain.table["path"].to_pylist()[int(np.flatnonzero(split == 1)[0])]
    copy = tmp_path / "copy.png"
    copy.write_bytes((photos / known).read_bytes())
    data = bw.scan(photos, corrections=_table(tmp_path / "c.csv", (str(copy), "", known.split("/")[0])))
    assert dict(zip(data.table["path"].to_pylist(), data.column("split").tolist(), strict=True))[str(copy)] == 1
    assert len(data.samples("train")) == len(plain.samples("train"))


def test_files_are_added_to_data_with_splits_of_their_own(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        for hue, name in ((1, "leaf"), (2, "sky")):
            fill(tmp_path / "given" / split / name, count, first=100 * len(split), hue=hue)
    (new,) = fill(tmp_path / "new", 1, first=900, hue=2)
    data = bw.scan(tmp_path / "given", corrections=_table(tmp_path / "c.csv", (str(new), "", "sky")))
    assert len(data.samples("train")) == 17
    assert len(data.samples("val")) == 8


def test_files_that_cannot_be_added_are_named(photos: Path, tmp_path: Path) -> None:
    (new,) = fill(tmp_path / "new", 1, first=700)
    file = _table(
        tmp_path / "c.csv",
        ("gone.png", "", "sky"),
        (str(new), "", "sea"),
        (str(new), "leaf", "sky"),
        ("new", "", "sky"),
    )
    with pytest.raises(bw.DataError) as caught:
        bw.scan(photos, corrections=file)
    assert "line 2: gone.png is not an image of the data set, nor a file beside the table" in caught.value.message
    assert "cannot be 'sea': there is no such class" in caught.value.message
    assert f"line 4: {new} is not an image of the data set" in caught.value.message
    assert "line 5: new is not an image of the data set, nor a file" in caught.value.message
    twice = _table(tmp_path / "d.csv", (str(new), "", "sky"), (str(new), "", "leaf"))
    with pytest.raises(bw.DataError, match="is 'sky' in line 2 and 'leaf' here"):
        bw.scan(photos, corrections=twice)


def test_a_class_in_the_wrong_column_is_told(photos: Path, tmp_path: Path) -> None:
    (new,) = fill(tmp_path / "new", 1, first=700)
    with pytest.raises(bw.DataError, match="has its class in the column 'label'; write it into 'correct'"):
        bw.scan(photos, corrections=_table(tmp_path / "c.csv", (str(new), "sky", "")))
    left = _table(tmp_path / "d.csv", ("gone.png", "sky", ""), (str(new), "", ""))
    assert bw.scan(photos, corrections=left).corrected == 0
