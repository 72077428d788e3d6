"""Image files that change while they are worked on: one message that names the file, and no pixels of another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.cli import main
from budwood.config.options import Resizing
from budwood.data import metadata
from budwood.data.dataset import Dataset
from budwood.data.images import read_pixels
from budwood.data.loading import open_pixel_store
from budwood.runs.run import find_run
from conftest import fill, picture

SMALL: dict[str, Any] = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 1, "batch": 8, "lr": 0.01}
COUNT = 15


def _replace(file: Path) -> None:
    picture(4711).save(file)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "replaced": (_replace, "the file was changed after it was scanned"),
    "truncated": (_cut, "the file was changed after it was scanned"),
    "removed": (Path.unlink, "No such file or directory"),
    "a folder now": (_make_folder, "not a regular file"),
    "a pipe now": (_make_pipe, "not a regular file"),
}


Change = tuple[Callable[[Path], None], str]


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> Change:
    return CHANGES[request.param]


SOME = pytest.mark.parametrize("change", ["replaced", "removed"], indirect=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(tmp_path / "photos" / name, COUNT, hue=hue)
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _check_cache(cache: Path, originals: Path, data: Dataset) -> None:
    """Every image whose pixels are kept has those of its content."""
    store = open_pixel_store(16, Resizing("crop"), cache)
    kept = 0
    for path, id in zip(data.table["path"].to_pylist(), data.table["id"].to_pylist(), strict=True):
        pixels = store.row(id)
        if pixels is not None:
            kept += 1
            assert np.array_equal(pixels, read_pixels(originals / path, id, 16, Resizing("crop")))
    assert kept


def test_between_listing_and_scanning_a_file_is_taken_as_it_is_or_set_aside(
    photos: Path, cache: Path, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = photos / "leaf" / "003.png"

    def changed_first(*given: Any) -> list[Any]:
        change[0](file)
        return metadata.read_metadata(*given)

    monkeypatch.setattr("budwood.data.scanning.read_metadata", changed_first)
    data = bw.scan(photos, cache=cache)
    if file.is_file() and file.stat().st_size != 200:
        assert not data.set_aside
    else:
        assert [item.path for item in data.set_aside] == ["leaf/003.png"]
    assert len(data) + len(data.set_aside) == 2 * COUNT


def test_between_scanning_and_training_the_change_is_told(
    photos: Path, cache: Path, tmp_path: Path, change: Change
) -> None:
    originals = shutil.copytree(photos, tmp_path / "originals")
    data = bw.scan(photos, cache=cache)
    name = data.samples("train").paths[5]
    change[0](photos / name)
    with pytest.raises(bw.DataError, match=f"{name}: {change[1]}") as caught:
        bw.train(data, bw.Recipe(**SMALL), out=tmp_path / "runs", cache=cache)
    assert "where it is about a run, restore the file first" in caught.value.hint
    assert list((tmp_path / "runs").iterdir()) == []
    bw.train(bw.scan(originals, cache=cache), bw.Recipe(**SMALL), out=tmp_path / "runs", cache=cache)
    _check_cache(cache, originals, data)


@SOME
def test_during_training_the_change_is_told_and_the_run_goes_on_once_it_is_undone(
    photos: Path,
    cache: Path,
    tmp_path: Path,
    change: Change,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "1")  # so that files are read in each epoch
    monkeypatch.setattr("budwood.training.checkpoints.Checkpoints.due", property(lambda self: self.folder is not None))
    originals = shutil.copytree(photos, tmp_path / "originals")
    data = bw.scan(photos, cache=cache)
    recipe = bw.Recipe(**{**SMALL, "epochs": 3, "flip": 0.5})
    whole = bw.train(data, recipe, out=tmp_path / "runs", cache=cache, id="whole")
    name = data.samples("train").paths[5]

    def meddle(history: Any) -> None:
        if len(history) == 1:
            change[0](photos / name)

    with pytest.raises(bw.DataError, match=f"{name}: {change[1]}"):
        bw.train(data, recipe, out=tmp_path / "runs", cache=cache, id="one", on_epoch_end=meddle)
    stopped = find_run(tmp_path / "runs" / "one")
    assert stopped.record.state == "stopped"
    assert name in (stopped.record.problem or "")
    with pytest.raises(bw.DataError, match=f"{name}: {change[1]}"):
        bw.resume(stopped, cache=cache)
    shutil.rmtree(photos)
    shutil.copytree(originals, photos)
    done = bw.resume(stopped, cache=cache)
    assert done.file("weights.safetensors").read_bytes() == whole.file("weights.safetensors").read_bytes()


@SOME
@pytest.mark.parametrize("command", ["test", "explain", "report"])
def test_a_command_about_a_run_names_the_file_or_does_without_it(
    photos: Path,
    tmp_path: Path,
    cache: Path,
    change: Change,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE", str(cache))
    data = bw.scan(photos)
    run = bw.train(data, bw.Recipe(**SMALL), out=tmp_path / "runs", id="one")
    name = data.samples("test" if command == "test" else "val").paths[0]
    change[0](photos / name)
    more = ["--show", "images"] if command == "explain" else []
    code = main.run([command, str(run.path), *more])
    said = capsys.readouterr()
    if command == "test":
        assert code == 2
        assert said.err.count("budwood: ") == 1
        assert f"{name}: {change[1]}" in said.err
        assert not (tmp_path / "runs" / "test-looks.csv").exists(), "nothing was looked at"
    else:
        assert code == 0, said.err
    assert "Traceback" not in said.err
