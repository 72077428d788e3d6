"""Removing a run takes what the run wrote, and nothing else: no link is followed, no other file is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import budwood as bw
from budwood.runs.removal import remove_run
from budwood.runs.run import Run, find_run, lock_run, open_run

KEPT = Path(__file__).parents[1] / "kept"


@pytest.fixture
def made(tiny: Path, tmp_path: Path) -> Run:
    """A copy of a trained run, beside which something else lies."""
    shutil.copytree(tiny / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "test-looks.csv").write_text("kept")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine.txt").write_text("mine")
    return open_run(tmp_path / "runs" / "one")


def test_nothing_is_left_of_a_run(made: Run) -> None:
    assert remove_run(made) == []
    assert [path.name for path in made.path.parent.iterdir()] == ["test-looks.csv"], "looks stay counted"


@pytest.mark.parametrize("name", ["single", "stopped", "solved"])
def test_runs_of_earlier_versions_go_whole(name: str, tmp_path: Path) -> None:
    shutil.copytree(KEPT / name, tmp_path / name)
    assert remove_run(find_run(tmp_path / name)) == []
    assert not (tmp_path / name).exists()


def test_an_ensemble_goes_with_its_members(made: Run, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "runs" / "two")
    shutil.copytree(made.path, made.path / "members" / "0")
    (made.path / "members" / "1").mkdir()
    (made.path / "members" / "1" / "mine.txt").write_text("mine")
    member = find_run(made.path / "members" / "0")
    with pytest.raises(bw.RunError, match="is one of the networks of an ensemble") as caught:
        remove_run(member)
    assert str(made.path) in caught.value.hint
    assert [path.name for path in remove_run(made)] == ["members"]
    assert [path.name for path in (made.path / "members").rglob("*")] == ["1", "mine.txt"]


def test_what_is_not_the_runs_stays(made: Run, tmp_path: Path) -> None:
    for name in ("notes.txt", "checkpoint/mine.bin", "tensorboard/mine.txt"):
        (made.path / name).parent.mkdir(exist_ok=True)
        (made.path / name).write_text("mine")
    (made.path / "label-suspects.csv").write_text("path,label,correct\na.png,leaf,sky\n")
    (made.path / "label-suspects-2.csv").write_text("path,label,correct\na.png,leaf,\n")
    left = remove_run(made)
    assert [path.name for path in left] == ["checkpoint", "label-suspects.csv", "notes.txt", "tensorboard"]
    assert not (made.path / "run.json").exists()
    assert (made.path / "checkpoint" / "mine.bin").read_text() == "mine"


def test_no_link_is_followed(made: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "last.safetensors").write_text("mine")
    shutil.rmtree(made.path / "checkpoint", ignore_errors=True)
    (made.path / "tensorboard").symlink_to(outside)
    (made.path / "members").symlink_to(outside)
    (made.path / "explained.html").symlink_to(outside / "mine.txt")
    assert [path.name for path in remove_run(made)] == ["members", "tensorboard"]
    assert sorted(path.name for path in outside.iterdir()) == ["last.safetensors", "mine.txt"]


def test_a_link_to_a_run_is_refused(made: Run, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(made.path)
    with pytest.raises(bw.RunError, match="is a link to a run elsewhere"):
        remove_run(find_run(tmp_path / "linked"))
    assert (made.path / "weights.safetensors").is_file()


def test_a_run_that_is_trained_is_refused(made: Run) -> None:
    with lock_run(made.path), pytest.raises(bw.RunError, match="is being trained by another process"):
        remove_run(made)
    assert (made.path / "run.json").is_file()
