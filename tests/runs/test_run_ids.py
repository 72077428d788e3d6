"""A run gets a folder of its own: never another's, and none outside the folder of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import budwood as bw
from budwood.runs.run_ids import make_run_id, refuse_bad_id
from budwood.storage.atomic import draft_folder
from conftest import run_command

SMALL = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 1, "batch": 8, "lr": 0.01}

BAD = {
    "": "it is empty",
    ".": "it begins with '.'",
    "..": "it begins with '.'",
    ".hidden": "it begins with '.'",
    "../escaped": "it contains '/'",
    "a/b": "it contains '/'",
    "/tmp/a": "it contains '/'",
    "a\\b": r"it contains '\\\\'",
    "a:b": "it contains ':'",
    "what?": r"it contains '\?'",
    "a\0b": r"it contains '\\x00'",
    "a\nb": r"it contains '\\n'",
    "a ": "ends with '.' or a space",
    "nul": "Windows keeps that name",
    "last": "it stands for the newest run",
    "-x": "it begins with '-', as an option does",
    "COM1.txt": "Windows keeps that name",
    "x" * 201: "it is longer than 200 bytes",
}


@pytest.mark.parametrize("id", BAD)
def test_a_name_that_is_no_plain_file_name_is_refused(id: str, tmp_path: Path) -> None:
    with pytest.raises(bw.RunError, match=rf"^id: .* is not a plain file name \(.*{BAD[id]}") as caught:
        refuse_bad_id(id, tmp_path)
    assert "leave the id out" in caught.value.hint


def test_plain_names_are_taken(tmp_path: Path) -> None:
    for id in ("first-try", "größer_2", "a b", "v1.0", "x" * 200, "console"):
        refuse_bad_id(id, tmp_path)


def test_a_run_is_not_trained_over_another(photos: Path, tmp_path: Path) -> None:
    data, recipe, out = bw.scan(photos), bw.Recipe(**SMALL), tmp_path / "runs"
    first = bw.train(data, recipe, out=out, id="mine")
    before = {file: file.read_bytes() for file in first.path.rglob("*") if file.is_file()}
    with pytest.raises(bw.RunError, match="mine: is there already, and a new run would destroy it") as caught:
        bw.train(data, recipe, out=out, id="mine")
    assert "Choose another id" in caught.value.hint
    assert {file: file.read_bytes() for file in first.path.rglob("*") if file.is_file()} == before
    for id in ("../escaped", ""):
        with pytest.raises(bw.RunError, match="is not a plain file name"):
            bw.train(data, recipe, out=out, id=id)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "runs"]
    (out / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(bw.RunError, match="dangling: is there already"):
        bw.train(data, recipe, out=out, id="dangling")


def test_of_two_processes_with_one_name_the_second_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = bw.scan(photos), tmp_path / "runs"

    def begun_meanwhile(id: str, out: Path) -> None:
        (out / id).mkdir(parents=True)
        (out / id / "run.json").write_text("another's")

    monkeypatch.setattr("budwood.workflows.train.refuse_bad_id", begun_meanwhile)
    with pytest.raises(bw.RunError, match="mine: is there already"):
        bw.train(data, bw.Recipe(**SMALL), out=out, id="mine")
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert (out / "mine" / "run.json").read_text() == "another's"


def test_a_folder_that_need_not_be_ones_own_is_kept(tmp_path: Path) -> None:
    with draft_folder(tmp_path / "a") as draft:
        (draft / "x").write_text("ours")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "x").write_text("theirs")
    assert (tmp_path / "a" / "x").read_text() == "theirs"


@pytest.mark.parametrize("model", ["package.module:name", "timm:resnet18", "a/b c"])
def test_the_name_that_is_made_is_a_plain_one(model: str, tmp_path: Path) -> None:
    id = make_run_id(model)
    refuse_bad_id(id, tmp_path)
    assert not set(id) & set(" :/\\")
    assert model.replace(":", "-").replace("/", "-").replace(" ", "-") in id


def test_a_search_needs_free_names_for_its_runs(tmp_path: Path) -> None:
    (tmp_path / "best-1").mkdir()
    refuse_bad_id("best", tmp_path)
    with pytest.raises(bw.RunError, match="best-1: is there already") as caught:
        refuse_bad_id("best", tmp_path, "--name", search=True)
    assert caught.value.hint.startswith("Choose another --name, leave the --name out")


def test_a_name_is_refused_before_the_data_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").mkdir()
    out: list[str | Path] = ["--out", tmp_path]
    _, err = run_command(capsys, "train", tmp_path / "nowhere", "--name", "a/b", *out, code=2)
    assert "--name: 'a/b' is not a plain file name" in err
    recipes: list[list[str]] = [[], ["--optimizer", "adam"]]
    for options in recipes:
        _, err = run_command(capsys, "train", tmp_path / "nowhere", "--name", "taken", *options, *out, code=2)
        assert "taken: is there already" in err
