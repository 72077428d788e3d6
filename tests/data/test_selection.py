"""Exactly so many images of each class: drawn by content, nested, within their split, and told."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.cli import main
from budwood.data.dataset import load
from budwood.data.leaks import drop_leaks
from budwood.data.selection import assign_fold, limit
from budwood.runs.run import find_run
from conftest import TINY, fill, picture


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> bw.Dataset:
    """Classes of 40, 25 and 20 pictures, with a split by content: 8, 5 and 4 of each are sealed."""
    folder = tmp_path_factory.mktemp("selection") / "photos"
    for hue, (name, count) in enumerate({"leaf": 40, "sky": 25, "sea": 20}.items()):
        fill(folder / name, count, hue=hue)
    return bw.scan(folder)


def _counts(data: bw.Dataset) -> dict[str, list[int]]:
    """Used images of each split by class, those of the test split included."""
    split, used = data.column("split"), data.column("used")
    return {name: data.class_counts((split == s) & used).tolist() for s, name in enumerate(("train", "val", "test"))}


def test_every_class_has_exactly_so_many_images(photos: bw.Dataset) -> None:
    made = bw.select_per_class(photos, images_per_class=10, val_images_per_class=3, test_images_per_class=4)
    assert _counts(made) == {"train": [10] * 3, "val": [3] * 3, "test": [4] * 3}
    assert len(made) == len(photos)
    assert made.fingerprint == photos.fingerprint, "the splits are the same"
    assert len(made.sealed().samples("test")) == 12
    only = bw.select_per_class(photos, images_per_class=10)
    assert _counts(only) == {**_counts(photos), "train": [10] * 3}
    assert bw.select_per_class(photos) is photos


def test_a_smaller_selection_is_part_of_a_larger_one_and_follows_contents(photos: bw.Dataset) -> None:
    small, large = (set(bw.select_per_class(photos, images_per_class=count).samples("train").ids) for count in (4, 12))
    assert len(small) == 12
    assert small < large
    order = np.random.default_rng(0).permutation(len(photos))
    turned = replace(photos, table=photos.table.take(order))
    assert set(bw.select_per_class(turned, images_per_class=4).samples("train").ids) == small
    total = set(limit(bw.select_per_class(photos, images_per_class=12), 12, None).samples("train").ids)
    assert total == small, "a limit of the whole goes on in the same order"


def test_groups_and_copies_stay_on_their_side(tmp_path: Path) -> None:
    folder, lines = tmp_path / "photos", ["path,label,group"]
    for hue, name in enumerate(("leaf", "sky")):
        paths = fill(folder / name, 40, hue=hue)
        picture(1000 * hue, hue).save(folder / name / "copy.png")
        lines += [f"{name}/{path.name},{name},{name}{number // 4}" for number, path in enumerate(paths)]
        lines += [f"{name}/copy.png,{name},"]
    (folder / "table.csv").write_text("\n".join(lines))
    data = bw.scan(folder / "table.csv")
    made = bw.select_per_class(data, images_per_class=6, val_images_per_class=4, test_images_per_class=4)
    groups = {split: {made.table["group"][row].as_py() for row in _rows(made, split)} for split in (0, 1, 2)}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
    ids = [id for split in ("train", "val", "test") for id in made.samples(split).ids]
    assert len(ids) == len(set(ids)) == 28


def _rows(data: bw.Dataset, split: int) -> list[int]:
    return np.flatnonzero((data.column("split") == split) & data.column("used")).tolist()


def test_a_class_with_too_few_images_is_one_error_with_both_numbers(photos: bw.Dataset) -> None:
    with pytest.raises(bw.DataError) as refused:
        bw.select_per_class(photos, images_per_class=14, val_images_per_class=2, test_images_per_class=6)
    assert refused.value.message == (
        "photos: images_per_class: expected 14 training images of each class, 'sea' has 13; "
        "test_images_per_class: expected 6 test images of each class, 'sea' has 4, 'sky' has 5."
    )
    with pytest.raises(bw.DataError, match="images_per_class: expected a whole number from 1, found 0"):
        bw.select_per_class(photos, images_per_class=0)
    with pytest.raises(bw.DataError, match="the labels of the test split are sealed"):
        bw.select_per_class(photos.sealed(), test_images_per_class=2)


def test_images_with_several_labels_have_no_exact_number(tmp_path: Path) -> None:
    fill(tmp_path, 12)
    lines = ["path,label", *(f"{n:03}.png,{'red;round' if n % 2 else 'red'}" for n in range(12))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    data = bw.scan(tmp_path / "table.csv", label_separator=";")
    with pytest.raises(bw.DataError, match="images_per_class: table has images with several labels, of which no exact"):
        bw.select_per_class(data, images_per_class=2)


def test_what_is_not_selected_is_told_and_kept(photos: bw.Dataset, tmp_path: Path) -> None:
    made = bw.select_per_class(photos, images_per_class=10, test_images_per_class=4)
    told = [finding for finding in bw.findings(made) if finding.code == "D063"]
    assert [finding.message for finding in told] == [
        "30 of 55 training images were drawn, 10 of each class; the others were not selected.",
        "12 of 17 test images were drawn, 4 of each class; the others were not selected.",
    ]
    assert told[0].advice == "Leave images_per_class out to use all."
    made.sealed().save(tmp_path / "dataset.parquet")
    again = load(tmp_path / "dataset.parquet")
    assert again.samples("train").ids == made.samples("train").ids
    assert again.counts()["test"] == 12


def test_folds_are_drawn_from_too(photos: bw.Dataset) -> None:
    made = bw.select_per_class(assign_fold(photos, 1, 3), images_per_class=8, val_images_per_class=5)
    assert _counts(made) == {**_counts(photos), "train": [8] * 3, "val": [5] * 3}


def test_a_share_of_nine_tenths_leaves_a_tenth_of_each_class_to_train_where_the_test_set_is_a_folder(
    tmp_path: Path,
) -> None:
    """As 5,000 images train and 45,000 validate of the 50,000 of CIFAR-10."""
    for hue, name in enumerate(("leaf", "sky")):
        fill(tmp_path / "photos" / "train" / name, 50, hue=hue)
        fill(tmp_path / "photos" / "test" / name, 10, hue=hue, first=500)
    data = bw.scan(tmp_path / "photos", val=0.9)
    assert _counts(data) == {"train": [5, 5], "val": [45, 45], "test": [10, 10]}
    shutil.copy(tmp_path / "photos/train/sky/000.png", tmp_path / "photos/test/sky/copy.png")
    leaking = bw.scan(tmp_path / "photos", val=0.9)
    exact = bw.select_per_class(leaking, images_per_class=4, val_images_per_class=44)
    assert _counts(exact) == {"train": [4, 4], "val": [44, 44], "test": [10, 11]}
    assert [item.path for item in exact.left_out] == ["train/sky/000.png"], "which training leaves out, too"
    assert drop_leaks(exact) is exact
    assert not bw.select_per_class(leaking, images_per_class=4, leaks="allow").left_out


def test_the_command_line_trains_on_so_many(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in TINY.items()]
    numbers = ["--images-per-class", "5", "--val-images-per-class", "2", "--test-images-per-class", "3"]
    command = ["train", str(tiny / "photos"), *(part for one in settings for part in ("-s", one)), *numbers]
    assert main.run([*command, "--out", str(tmp_path / "runs")]) == 0
    (run,) = (find_run(path.parent).record.dataset.counts for path in tmp_path.glob("runs/*/run.json"))
    assert (run.train, run.val, run.test) == ({"leaf": 5, "sky": 5}, {"leaf": 2, "sky": 2}, 6)
    capsys.readouterr()
    assert main.run(["train", str(tiny / "photos"), "--images-per-class", "500"]) == 2
    assert "images_per_class: expected 500 training images of each class" in capsys.readouterr().err
