"""A run holds all that it needs: it works from any folder, and without the file that its trunk came from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

import budwood as bw
from budwood.runs.run import Run, find_run, open_run
from budwood.runs.run_files import find_place, list_places
from budwood.storage.context import open_context
from budwood.studies.study_tables import DataSpec
from budwood.studies.training_job import TrainingJob, with_absolute_paths
from budwood.workflows.explain import explain_run
from conftest import fill

SMALL = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 2, "batch": 8, "lr": 0.01, "seed": 1}
FROZEN = {**SMALL, "weights": "trunk.safetensors"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs that were trained by relative paths: of a head, of all from the second stage on, and of everything."""
    folder, before = tmp_path_factory.mktemp("kept"), Path.cwd()
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    os.chdir(folder)
    try:
        data = bw.scan("photos")
        first = bw.train(data, bw.Recipe(**SMALL, freeze="none"), out="runs", id="first")
        shutil.copy(first.path / "weights.safetensors", "trunk.safetensors")
        bw.train(data, bw.Recipe(**FROZEN, freeze="trunk", optimizer="adam"), out="runs", id="head")
        bw.train(data, bw.Recipe(**FROZEN, freeze="conv1.*", optimizer="adam"), out="runs", id="part")
        bw.train(data, bw.Recipe(**FROZEN, freeze="none"), out="runs", id="whole")
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def away(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copies of the runs, seen from another working folder; the trunk's file is gone."""
    shutil.copytree(kept / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    (kept / "trunk.safetensors").rename(kept / "moved")
    monkeypatch.setattr("budwood.runs.networks.is_local", lambda *_: False)
    yield tmp_path / "runs"
    (kept / "moved").rename(kept / "trunk.safetensors")


def test_paths_are_recorded_absolute(kept: Path) -> None:
    run = open_run(kept / "runs" / "head")
    assert run.record.root == str(kept / "photos") == str(run.dataset().root) == str(run.root)
    assert run.record.source == str(kept / "photos")
    assert run.recipe.weights == str(kept / "trunk.safetensors")
    assert run.recipe.weights in (run.path / "recipe.toml").read_text()


@pytest.mark.parametrize("name", ["head", "part", "whole"])
def test_a_run_answers_without_the_file_of_its_trunk(name: str, away: Path, kept: Path) -> None:
    run = open_run(away / name)
    assert len(bw.predict(run, [kept / "photos"])) == 30
    html = (bw.test(run).path / "report.html").read_text()
    assert "left out of this report" not in html
    explanation, _ = explain_run(open_run(away / name), open_context(), parts=["images", "labels"])
    assert explanation.record.labels is not None
    judged = name == "head"
    reason = explanation.record.labels.reason if explanation.record.labels else pytest.fail("no labels were judged")
    assert (reason == "") == judged
    assert judged or "the weights that it started from are missing (looked for " in reason


@pytest.mark.parametrize("name", ["head", "part", "whole"])
def test_a_finished_run_is_trained_for_longer_without_it(name: str, away: Path, kept: Path) -> None:
    longer = bw.resume(away / name, epochs=3)
    (kept / "moved").rename(kept / "trunk.safetensors")
    expected = bw.resume(shutil.copytree(kept / "runs" / name, away / f"{name}-2"), epochs=3)
    (kept / "trunk.safetensors").rename(kept / "moved")
    assert longer.record.network == expected.record.network
    assert [row["val_loss"] for row in longer.history] == pytest.approx([r["val_loss"] for r in expected.history])
    ours, theirs = (load_file(one.path / "weights.safetensors") for one in (longer, expected))
    assert all(ours[key].allclose(theirs[key], atol=1e-5) for key in theirs)


def _interrupt(run: Run) -> Path:
    (run.path / "run.json").write_text(json.dumps({**run.record.table(), "state": "running"}))
    (run.path / "weights.safetensors").unlink()
    return run.path


def test_an_interrupted_run_goes_on_where_its_checkpoint_is_enough_and_else_says_what_it_needs(away: Path) -> None:
    assert len(bw.resume(_interrupt(open_run(away / "whole")), epochs=3).history) == 3
    with pytest.raises(bw.RunError, match=r"cannot go on without the weights .*missing \(looked for .*trunk") as caught:
        bw.resume(_interrupt(open_run(away / "part")), epochs=3)
    assert "Put the file back there" in caught.value.hint


def test_relative_paths_of_earlier_versions_are_found_from_the_run(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((kept / "runs" / "head" / "run.json").read_text())
    del record["digest"]
    record["root"], record["recipe"]["weights"] = "photos", "trunk.safetensors"
    old = shutil.copytree(kept / "runs" / "head", kept / "runs" / "old")
    (old / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    run = find_run(old)
    assert run.root == kept / "photos"
    assert "left out of this report" not in (bw.report(run).path / "report.html").read_text()
    assert len(bw.resume(run, epochs=3).history) == 3
    assert list_places("photos", old)[:3] == [tmp_path / "photos", kept / "runs" / "photos", kept / "photos"]
    assert find_place("nowhere", old) == tmp_path / "nowhere"
    assert list_places("/data", old) == [Path("/data")]


def test_a_job_that_is_sent_away_has_absolute_paths(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept)
    images = DataSpec(data="photos", corrections=("fixed.csv",))
    job = TrainingJob("a", "A", bw.Recipe(**FROZEN), images, "f")
    sent = with_absolute_paths(job)
    assert (sent.images.data, sent.images.corrections) == (str(kept / "photos"), (str(kept / "fixed.csv"),))
    assert sent.recipe.weights == str(kept / "trunk.safetensors")
    named = TrainingJob("a", "A", bw.Recipe(), DataSpec(data="elpv"), "f")
    assert with_absolute_paths(named) == named
