"""A cache on a full disk costs the cache only: every job goes on, with a note that names the folder."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.progress import Silent
from budwood.storage.context import Context
from budwood.workflows.explain import explain_run
from conftest import fill

SMALL = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 1, "batch": 8, "seed": 0}
RECIPES = {"head": {**SMALL, "freeze": "trunk"}, "whole": {**SMALL, "lr": 0.01}}
STUDY = """
name = "small"
data = "photos"
[base]
model = "cnn"
widths = [4]
fc = [4]
size = 16
epochs = 1
[[rows]]
label = "slow"
lr = 0.001
[[rows]]
label = "fast"
lr = 0.01
"""


@dataclass
class _Noted(Silent):
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@dataclass(frozen=True)
class _Place:
    """Where a job works: its folder has photos and runs of its own, and its cache may be full."""

    folder: Path
    cache: Path
    said: _Noted = field(default_factory=_Noted)

    @property
    def surroundings(self) -> dict[str, Any]:
        return {"cache": self.cache, "progress": self.said}


def _train(name: str, place: _Place) -> Any:
    data = bw.scan(place.folder / "photos", **place.surroundings)
    run = bw.train(data, bw.Recipe(**RECIPES[name]), out=place.folder / "new", **place.surroundings)
    return [run.metrics["val"]["accuracy"]["value"], round(run.metrics["val"]["log_loss"]["value"], 4)]


def _predict(place: _Place) -> Any:
    found = bw.predict(place.folder / "runs" / "whole", [place.folder / "photos"], **place.surroundings)
    return [(one.top[0][0], round(one.top[0][1], 4)) for one in found]


def _test(place: _Place) -> Any:
    return bw.test(place.folder / "runs" / "whole", **place.surroundings).metrics["test"]["accuracy"]["value"]


def _explain(place: _Place) -> Any:
    run = bw.open_run(place.folder / "runs" / "head")
    found, _ = explain_run(run, Context(place.cache, place.said), parts=["embedding"])
    return found.record.parts


def _report(place: _Place) -> Any:
    return bw.report(place.folder / "runs" / "head").metrics["val"]["accuracy"]["value"]


def _study(place: _Place) -> Any:
    (place.folder / "small.toml").write_text(STUDY)
    photos = place.folder / "photos"
    compared = bw.study(place.folder / "small.toml", photos, out=place.folder / "studies", cache=place.cache)
    return sorted(row.label for row in compared.rows)


JOBS: dict[str, tuple[Callable[[_Place], Any], bool]] = {  # and whether it has something to keep in the cache
    "inspect": (lambda place: bw.scan(place.folder / "photos", **place.surroundings).fingerprint, True),
    "train a head": (lambda place: _train("head", place), True),
    "train all": (lambda place: _train("whole", place), True),
    "predict": (_predict, True),
    "test": (_test, True),
    "explain": (_explain, True),
    "report": (_report, False),
    "study": (_study, False),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, two runs that are trained on them, and the cache."""
    folder = tmp_path_factory.mktemp("kept")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 12, hue=hue)
    data = bw.scan(folder / "photos", cache=folder / "cache")
    for name, recipe in RECIPES.items():
        bw.train(data, bw.Recipe(**recipe), out=folder / "runs", id=name, cache=folder / "cache")
    return folder


def _copy(kept: Path, folder: Path) -> _Place:
    folder.mkdir()
    shutil.copytree(kept / "runs", folder / "runs")
    (folder / "photos").symlink_to(kept / "photos")
    return _Place(folder, folder / "cache")


def _fill_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write below a folder fail as on a full disk."""
    real = Path.open

    def open_unless_full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and self.is_relative_to(cache):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", open_unless_full)


@pytest.mark.parametrize("job", JOBS)
def test_a_full_cache_costs_time_alone(job: str, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do, keeps = JOBS[job]
    place = _copy(kept, tmp_path / "full")
    expected = do(_Place(_copy(kept, tmp_path / "free").folder, kept / "cache"))
    _fill_disk(place.cache, monkeypatch)
    assert do(place) == expected
    assert not [path for path in place.cache.rglob("*") if path.is_file()]
    if keeps:
        assert any(str(place.cache) in note for note in place.said.notes), place.said.notes


def test_each_note_says_what_is_done_again(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = _copy(kept, tmp_path / "full")
    _fill_disk(place.cache, monkeypatch)
    _train("head", place)
    said, cache = "\n".join(place.said.notes), re.escape(str(place.cache))
    assert re.search(rf"^{cache}/outputs/\S+: the cache cannot be written \(the disk is full\); continuing", said, re.M)
    assert re.search(
        rf"^{cache}: the cache is full or cannot be written, so cnn is exported again the next", said, re.M
    )


def test_a_graph_in_8_bits_that_cannot_be_kept_is_not_used(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _copy(kept, tmp_path / "full")
    expected = _predict(place)
    _fill_disk(place.cache, monkeypatch)
    run, photos = place.folder / "runs" / "whole", [place.folder / "photos"]
    found = bw.predict(run, photos, int8=True, **place.surroundings)
    assert [(one.top[0][0], round(one.top[0][1], 4)) for one in found] == expected
    note = rf"int8 is not used: {re.escape(str(place.cache))}/\S+ cannot be written \(the disk is full\)\."
    assert any(re.fullmatch(note, one) for one in place.said.notes)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk without room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_cache_on_a_disk_that_is_really_full(kept: Path, full_disk: Path, tmp_path: Path) -> None:
    place = _Place(_copy(kept, tmp_path / "full").folder, full_disk)
    free = _Place(_copy(kept, tmp_path / "free").folder, kept / "cache")
    for job in ("train a head", "test"):
        do, _ = JOBS[job]
        assert do(place) == do(free)
    assert any(str(full_disk) in note for note in place.said.notes)
    assert [path.name for path in full_disk.rglob("*") if path.is_file()] == ["ballast"]
