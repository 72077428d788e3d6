"""The cache stays under its limit, says what it removes, and can be looked at and cleared."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.cli.main import run
from budwood.errors import StorageError
from budwood.progress import Silent
from budwood.storage.context import Context
from budwood.storage.eviction import clear, evict_for, limit, measure_cache, trim
from budwood.storage.folder_manifest import MANIFEST, write_manifest
from budwood.storage.shards import ShardStore

ROW = 4000  # bytes


class Said(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def _store(cache: Path, name: str) -> ShardStore:
    return ShardStore(cache / "outputs" / name, (ROW // 4,), np.float32)


def _add(cache: Path, name: str, ids: list[str], used: float) -> None:
    """A shard of ten rows, used last at some second."""
    store = _store(cache, name)
    before = set((cache / "outputs" / name).glob("*.ids.npy"))
    store.add(ids, np.ones((len(ids), ROW // 4), np.float32))
    for marker in set((cache / "outputs" / name).glob("*.ids.npy")) - before:
        os.utime(marker, (used, used))


def _ids(first: int) -> list[str]:
    return [f"{number:032x}" for number in range(first, first + 10)]


def test_what_was_used_least_recently_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, used in enumerate((3000.0, 1000.0, 2000.0)):
        _add(tmp_path, "a" if place < 2 else "b", _ids(10 * place), used)
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", str(4 * 10 * ROW))
    said = Said()
    assert evict_for(5 * ROW, 0, "Outputs", Context(tmp_path, said))
    assert not said.notes, "there is room"
    _store(tmp_path, "a").use(_ids(10)[:1])
    assert evict_for(15 * ROW, 0, "Outputs", Context(tmp_path, said))
    assert said.notes == ["The cache was full: the least recently used 0.0 MiB were removed."]
    assert _store(tmp_path, "b").row(_ids(20)[0]) is None
    assert _store(tmp_path, "a").row(_ids(10)[0]) is not None, "it was used just now"
    assert _store(tmp_path, "a").row(_ids(0)[0]) is not None


def test_more_than_the_limit_is_not_kept_and_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _add(tmp_path, "a", _ids(0), 1000.0)
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", str(20 * ROW))
    said = Said()
    assert not evict_for(21 * ROW, 0, "Outputs of trunk", Context(tmp_path, said))
    assert len(said.notes) == 1
    assert said.notes[0].startswith(
        f"Outputs of trunk are not kept in the cache {tmp_path}: they need 0.1 MiB; the cache limit is 0.1 MiB"
    )
    assert _store(tmp_path, "a").row(_ids(0)[0]) is not None


def test_what_a_killed_writer_left_is_removed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _add(tmp_path, "a", _ids(0), 1000.0)
    left = tmp_path / "outputs" / "a" / "left.npy"
    left.write_bytes(b"x" * 10 * ROW)
    fresh = tmp_path / "outputs" / "a" / ".being-written.npy.abc.part"
    fresh.write_bytes(b"x" * ROW)
    os.utime(left, (500.0, 500.0))
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", str(25 * ROW))
    assert evict_for(10 * ROW, 0, "Outputs", Context(tmp_path, Said()))
    assert not left.exists()
    assert fresh.exists(), "another process may be writing it"
    assert _store(tmp_path, "a").row(_ids(0)[0]) is not None


def test_what_was_used_before_the_clock_was_set_back_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    _add(tmp_path, "a", _ids(0), now + 1e8)
    _add(tmp_path, "b", _ids(10), now)
    left = tmp_path / "outputs" / "a" / "left.npy"
    left.write_bytes(b"x" * 10 * ROW)
    os.utime(left, (now + 1e8, now + 1e8))
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", str(25 * ROW))
    assert evict_for(10 * ROW, 0, "Outputs", Context(tmp_path, Said()))
    assert not left.exists(), "nobody writes it any more"
    assert _store(tmp_path, "a").row(_ids(0)[0]) is None
    assert _store(tmp_path, "b").row(_ids(10)[0]) is not None, "what is used now stays"


def _unpack_to(cache: Path, name: str, used: float) -> Path:
    """The folder of an archive of 20,000 bytes, used last at some second."""
    folder = cache / "archives" / name
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "1.png").write_bytes(b"x" * 20_000)
    write_manifest(folder, ["x/1.png"], {}, [])
    os.utime(folder / MANIFEST, (used, used))
    return folder


def test_archives_count_and_go_when_they_were_not_used_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    old, older = _unpack_to(tmp_path, "old", 2000.0), _unpack_to(tmp_path, "older", 1000.0)
    fresh, ahead = _unpack_to(tmp_path, "fresh", now), _unpack_to(tmp_path, "ahead", now + 1e8)
    _add(tmp_path, "a", _ids(0), 1500.0)
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "150000")
    said = Said()
    trim(Context(tmp_path, said))
    assert not said.notes, "there is room"
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "100000")
    trim(Context(tmp_path, said))
    assert said.notes == ["The cache was full: the least recently used 0.1 MiB were removed."]
    assert not older.exists()
    assert _store(tmp_path, "a").row(_ids(0)[0]) is None
    assert old.exists()
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "10000")
    trim(Context(tmp_path, said))
    assert not old.exists()
    assert not ahead.exists(), "the clock was set back since"
    assert fresh.exists(), "a training may read it"


def test_archives_in_use_leave_half_of_the_limit_to_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        _unpack_to(tmp_path, str(number), time.time())
    _add(tmp_path, "a", _ids(0), 1500.0)
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", str(20 * ROW + 4000))
    trim(Context(tmp_path, Said()))
    assert _store(tmp_path, "a").row(_ids(0)[0]) is not None


def test_a_folder_that_an_earlier_version_unpacked_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _unpack_to(tmp_path, "old", 1000.0)
    (folder / MANIFEST).unlink()
    os.utime(folder, (1000.0, 1000.0))
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "10000")
    trim(Context(tmp_path, Said()))
    assert not folder.exists()


def test_downloaded_data_sets_are_shown_and_kept(tmp_path: Path) -> None:
    (tmp_path / "sources" / "cifar10").mkdir(parents=True)
    (tmp_path / "sources" / "cifar10" / "1.png").write_bytes(b"downloaded")
    assert {one.kind: one.bytes for one in measure_cache(tmp_path)}["sources"] == 10
    assert clear(tmp_path) == 0
    assert (tmp_path / "sources" / "cifar10" / "1.png").exists()


def _fresh(folder: Path, cache: Path) -> Path:
    """A cache that holds no more than exported networks, which are not limited and take seconds to make."""
    folder.mkdir()
    (cache / "networks").mkdir(exist_ok=True)
    (folder / "networks").symlink_to(cache / "networks", target_is_directory=True)
    return folder


def test_a_run_under_a_small_limit_gives_the_same_and_stays_under_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    data = bw.scan(photos)
    free = bw.train(data, bw.Recipe(size=32), out=tmp_path / "runs", cache=_fresh(tmp_path / "free", cache))
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "200KB")  # pixels or outputs of 48 images, not both
    tight = bw.train(data, bw.Recipe(size=32), out=tmp_path / "runs", cache=_fresh(tmp_path / "tight", cache))
    assert all(np.array_equal(a, b) for a, b in zip(free.head(), tight.head(), strict=True))
    taken = {one.kind: one.bytes for one in measure_cache(tmp_path / "tight")}
    assert taken["pixels"] + taken["outputs"] <= 200 * 1024
    assert sum(one.bytes for one in measure_cache(tmp_path / "free") if one.kind in ("pixels", "outputs")) > 200 * 1024


def test_pixels_and_outputs_together_stay_under_the_limit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    data = bw.scan(photos)
    bw.train(data, bw.Recipe(size=32), out=tmp_path / "runs", cache=_fresh(tmp_path / "free", cache))
    sizes = {one.kind: one.bytes for one in measure_cache(tmp_path / "free")}
    most = max(sizes["pixels"], sizes["outputs"]) + 4096  # either, not both
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", str(most))
    bw.train(data, bw.Recipe(size=32), out=tmp_path / "runs", cache=_fresh(tmp_path / "tight", cache))
    taken = {one.kind: one.bytes for one in measure_cache(tmp_path / "tight")}
    assert taken["pixels"] + taken["outputs"] <= most


@pytest.mark.parametrize(
    ("text", "count"), [("20GB", 20 * 2**30), ("500 MiB", 500 * 2**20), ("1.5g", 3 * 2**29), ("2048", 2048)]
)
def test_the_limit_is_read_in_its_units(text: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", text)
    assert limit() == count


def test_a_limit_that_is_no_amount_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "plenty")
    with pytest.raises(StorageError, match="'plenty' is not a size"):
        limit()


def test_the_command_shows_and_clears(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "big.pth").write_bytes(b"downloaded")
    _add(tmp_path / "cache", "a", _ids(0), 1000.0)
    assert run(["cache"]) == 0
    told = capsys.readouterr().out
    assert "features of frozen layers" in told
    assert "Pixels, outputs and archives use 0.00 of" in told
    assert str(tmp_path / "cache") in told.replace("\n", "")
    assert run(["cache", "--clear", "--json"], as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["removed_bytes"] > 10 * ROW
    assert shown["kinds"]["outputs"] == {"bytes": 0, "files": 0, "used": None}
    assert shown["kinds"]["weights"]["bytes"] == 10
    assert clear(tmp_path / "cache") == 0
