"""Images of two splits: what is measured stays whole, what learns gives way, and every file is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.data.checks import findings
from budwood.data.dataset import Dataset, LeftOut, load
from budwood.data.leaks import Leaks, drop_leaks
from budwood.data.selection import assign_fold
from budwood.storage.context import open_context
from budwood.studies.study_tables import DataSpec
from budwood.studies.training_job import DatasetCache
from conftest import fill


def _folders(root: Path) -> Path:
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        for hue, label in enumerate("ab"):
            fill(root / split / label, 14, hue=hue, first=first)
    return root


def _counts(data: Dataset) -> list[int]:
    return [len(data.samples(split)) for split in ("train", "val", "test")]


def test_training_gives_way_to_validation_and_both_to_test(tmp_path: Path) -> None:
    root = _folders(tmp_path / "d")
    shutil.copy(root / "test/a/060.png", root / "train/a/copy.png")
    shutil.copy(root / "test/a/061.png", root / "val/a/copy.png")
    shutil.copy(root / "val/b/040.png", root / "train/b/copy.png")
    for split in ("train", "val"):
        shutil.copy(root / "test/b/062.png", root / split / "b/both.png")
    scanned = bw.scan(root)
    data = drop_leaks(scanned)
    assert _counts(data) == [28, 28, 28]
    ids = dict(zip(scanned.table["path"].to_pylist(), scanned.table["id"].to_pylist(), strict=True))
    assert set(data.left_out) == {
        LeftOut("train/a/copy.png", ids["test/a/060.png"], "train", "test/a/060.png"),
        LeftOut("val/a/copy.png", ids["test/a/061.png"], "val", "test/a/061.png"),
        LeftOut("train/b/copy.png", ids["val/b/040.png"], "train", "val/b/040.png"),
        LeftOut("train/b/both.png", ids["test/b/062.png"], "train", "test/b/062.png"),
        LeftOut("val/b/both.png", ids["test/b/062.png"], "val", "test/b/062.png"),
    }
    assert data.fingerprint != scanned.fingerprint, "it is not the same data to compare by"
    assert drop_leaks(data) is data
    data.save(tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet").left_out == data.left_out
    told = next(finding for finding in findings(data) if finding.code == "D024")
    assert told.severity == "warning"
    assert told.message == (
        "3 training files and 2 validation files are left out, because a file of a later split (validation or test) "
        "is a copy or belongs to the same group."
    )
    assert ("test/b/062.png", "train/b/both.png", "val/b/both.png") in told.groups
    assert not {"D020", "D021", "D022"} & {finding.code for finding in findings(data)}


def test_groups_of_the_user_and_near_copies_give_way_too(tmp_path: Path) -> None:
    rows = ["path,label,split,group"]
    for hue, label in enumerate("ab"):
        fill(tmp_path / label, 24, hue=hue)
        for number in range(24):
            split = "test" if number >= 16 else "train"
            rows.append(f"{label}/{number:03}.png,{label},{split},{'cell' if number in (0, 1, 20) else ''}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = drop_leaks(bw.scan(tmp_path / "t.csv"))
    assert {item.path for item in data.left_out} == {"a/000.png", "a/001.png", "b/000.png", "b/001.png"}
    assert len(data.samples("test")) == 16


def test_folds_keep_copies_together_and_only_test_makes_them_give_way(tmp_path: Path) -> None:
    root = _folders(tmp_path / "d")
    shutil.copy(root / "val/a/040.png", root / "train/a/copy.png")
    shutil.copy(root / "test/b/060.png", root / "train/b/copy.png")
    folded = drop_leaks(assign_fold(bw.scan(root), 0, 3))
    assert [item.path for item in folded.left_out] == ["train/b/copy.png"]
    assert len(folded.samples("test")) == 28


def test_a_split_that_was_made_leaks_nothing(tmp_path: Path) -> None:
    for hue, label in enumerate("ab"):
        fill(tmp_path / "d" / label, 30, hue=hue)
        for number in range(8):
            shutil.copy(tmp_path / "d" / label / f"{number:03}.png", tmp_path / "d" / label / f"copy{number}.png")
    data = bw.scan(tmp_path / "d")
    assert drop_leaks(data) is data


def test_validation_made_of_given_training_images_has_its_share(tmp_path: Path) -> None:
    root = _folders(tmp_path / "d")
    shutil.rmtree(root / "val")
    data = bw.scan(root)
    assert _counts(data) == [22, 6, 28]
    assert "D062" not in {finding.code for finding in findings(data)}


@pytest.mark.parametrize(("groups", "missed"), [(20, False), (2, True)])
def test_a_share_that_groups_miss_is_told(groups: int, missed: bool, tmp_path: Path) -> None:
    rows = ["path,label,group"]
    for hue, label in enumerate("ab"):
        fill(tmp_path / label, 40, hue=hue)
        rows += [f"{label}/{number:03}.png,{label},{label}{number % groups}" for number in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = bw.scan(tmp_path / "t.csv")
    told = [finding.message for finding in findings(data) if finding.code == "D062"]
    assert bool(told) == missed
    if missed:
        assert told == [
            "Some classes miss their share of a split by more than one image: "
            "'a' has 20 validation images (6 wished), 'a' has 0 test images (8 wished), "
            "'b' has 20 validation images (6 wished), 'b' has 0 test images (8 wished)."
        ]
    else:
        assert np.bincount(data.column("split")).tolist() == [52, 12, 16]


@pytest.mark.parametrize(("leaks", "images"), [("drop", 27), ("allow", 28), ("refuse", 28)])
def test_the_rows_of_a_study_leave_out_what_a_run_does(leaks: Leaks, images: int, tmp_path: Path) -> None:
    root = _folders(tmp_path / "d")
    shutil.copy(root / "train/a/000.png", root / "test/a/copy.png")
    checked = DatasetCache(open_context(), leaks=leaks).load(DataSpec(data=str(root)))
    assert len(checked.data.samples("train")) == images
    codes = {finding.code for finding in checked.findings}
    assert ("D024" in codes, "D020" in codes) == (leaks == "drop", leaks != "drop")
