"""A Dataset is a value: the same files give the same one, changed files another, and its test labels can be sealed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from budwood.data.dataset import SEALED, load
from budwood.data.images import ImageMetadata, read_image_metadata
from budwood.data.scanning import scan
from budwood.errors import DataError, RunError
from conftest import fill, picture


def test_scanning_twice_gives_equal_data(photos: Path) -> None:
    first, second = scan(photos), scan(photos)
    assert first.fingerprint == second.fingerprint
    assert first.table.equals(second.table)
    assert first.classes == ("leaf", "sky")
    assert len(first) == 60
    assert first.split_source == "made"


def test_the_fingerprint_tells_content_split_and_classes_apart(photos: Path) -> None:
    before = scan(photos).fingerprint
    assert scan(photos, test=0.5).fingerprint != before
    picture(77).save(photos / "leaf" / "000.png")
    changed = scan(photos).fingerprint
    assert changed != before
    (photos / "leaf").rename(photos / "blade")
    assert scan(photos).fingerprint not in (before, changed)


def test_moving_the_folder_changes_nothing(photos: Path) -> None:
    before = scan(photos).fingerprint
    shutil.copytree(photos, photos.parent / "elsewhere")
    assert scan(photos.parent / "elsewhere").fingerprint == before


def test_an_image_replaced_by_another_of_the_same_name_is_seen(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.data.metadata._SETTLED", 0)
    before = {path: id for id, path in zip(*(scan(photos).table[c].to_pylist() for c in ("id", "path")), strict=True)}
    old = (photos / "sky/001.png").stat()
    shutil.copy(photos / "leaf/001.png", photos / "sky/001.png")
    os.utime(photos / "sky/001.png", ns=(old.st_atime_ns, old.st_mtime_ns))
    after = {path: id for id, path in zip(*(scan(photos).table[c].to_pylist() for c in ("id", "path")), strict=True)}
    assert after["sky/001.png"] == after["leaf/001.png"] != before["sky/001.png"]


def test_unchanged_files_are_not_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.data.metadata._SETTLED", 0)
    first = scan(photos)
    picture(500).save(photos / "sky" / "new.png")
    read: list[str] = []

    def reading(path: Path) -> ImageMetadata:
        read.append(path.name)
        return read_image_metadata(path)

    monkeypatch.setattr("budwood.data.metadata.read_image_metadata", reading)
    second = scan(photos)
    assert read == ["new.png"]
    assert len(second) == len(first) + 1


def test_what_is_remembered_of_files_is_read_again_where_it_was_damaged(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budwood.data.metadata._SETTLED", 0)
    first = scan(photos, cache=tmp_path / "cache")
    files = list((tmp_path / "cache" / "facts").iterdir())
    assert len(files) == 2, "what decoding found, and which images look alike"
    for kept in files:
        whole = kept.read_bytes()
        for place in range(0, len(whole), len(whole) // 15):
            kept.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            assert scan(photos, cache=tmp_path / "cache").table == first.table
            assert kept.read_bytes() == whole, f"byte {place} was damaged, and it is found out again"


def test_exact_copies_count_once_and_doubtful_labels_not_at_all(photos: Path) -> None:
    shutil.copy(photos / "leaf/000.png", photos / "leaf/copy.png")
    shutil.copy(photos / "leaf/001.png", photos / "sky/other.png")
    data = scan(photos)
    ids = [id for split in ("train", "val", "test") for id in data.samples(split).ids]
    assert len(data) == 62
    assert len(ids) == len(set(ids)) == 59


def test_sealing_takes_the_test_labels_away(photos: Path) -> None:
    data = scan(photos)
    sealed = data.sealed()
    assert set(sealed.samples("test").labels.tolist()) == {SEALED}
    assert set(data.samples("test").labels.tolist()) == {0, 1}
    assert np.array_equal(sealed.samples("train").labels, data.samples("train").labels)
    assert sealed.fingerprint == data.fingerprint


def test_a_saved_data_set_comes_back_equal_and_a_changed_one_is_refused(photos: Path, tmp_path: Path) -> None:
    data = scan(photos)
    data.save(tmp_path / "d.parquet")
    again = load(tmp_path / "d.parquet")
    assert again.table.equals(data.table)
    assert (again.classes, again.root, again.fingerprint) == (data.classes, data.root, data.fingerprint)
    table = pq.read_table(tmp_path / "d.parquet")
    pq.write_table(table.slice(1), tmp_path / "d.parquet")
    with pytest.raises(RunError, match="does not match its fingerprint"):
        load(tmp_path / "d.parquet")
    (tmp_path / "d.parquet").write_text("hello")
    with pytest.raises(RunError, match="is not a data set written by Budwood"):
        load(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("share", "message"), [({"val": 0.0}, "--val 0.0: expected"), ({"test": 1.5}, "--test 1.5: exp")]
)
def test_shares_are_checked(photos: Path, share: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scan(photos, val=share.get("val"), test=share.get("test"))


def test_a_share_of_a_given_split_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for hue, label in enumerate("ab"):
            fill(tmp_path / "d" / split / label, 8, hue=hue, first=0 if split == "train" else 50)
    assert scan(tmp_path / "d", val=0.3).split_source == "given, val made"
    with pytest.raises(DataError, match=r"--test 0\.2 does not apply"):
        scan(tmp_path / "d", test=0.2)


def test_classes_whose_files_are_all_broken_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "a", 3)
    (tmp_path / "d" / "b").mkdir()
    (tmp_path / "d" / "b" / "x.png").write_text("no")
    with pytest.raises(DataError, match="fewer than two classes have an image that can be decoded"):
        scan(tmp_path / "d")


def test_a_scan_that_cannot_be_remembered_is_still_a_scan(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the cache should be")
    assert len(scan(photos, cache=tmp_path / "blocked")) == 60


def test_samples_are_selected_and_joined_by_row(photos: Path) -> None:
    data = scan(photos)
    train, val = data.samples("train"), data.samples("val")
    few = train.subset([2, 0, 2])
    assert few.ids == (train.ids[2], train.ids[0], train.ids[2])
    assert few.paths == (train.paths[2], train.paths[0], train.paths[2])
    assert few.labels.tolist() == train.labels[[2, 0, 2]].tolist()
    assert few.labels.dtype == np.int32
    assert (few.root, few.label_sets, len(train.subset([]))) == (train.root, train.label_sets, 0)
    both = train.join(val)
    assert both.ids == train.ids + val.ids
    assert both.paths == train.paths + val.paths
    assert both.labels.tolist() == [*train.labels, *val.labels]


def test_rows_of_the_table_are_taken_in_the_order_asked_for(photos: Path) -> None:
    data = scan(photos)
    taken = data.take(np.array([5, 1], np.int64))
    ids = data.table["id"].to_pylist()
    assert taken.ids == (ids[5], ids[1])
    assert taken.labels.tolist() == data.column("label")[[5, 1]].tolist()
