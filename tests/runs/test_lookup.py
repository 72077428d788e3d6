"""A run is found by whatever it is called, and never another in its place."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.explain.heatmaps import Attribution
from budwood.runs.bundle_predictor import is_bundle
from budwood.runs.lookup import find_run_folder
from budwood.runs.run import Run, find_run
from budwood.runs.run_record import save_record
from conftest import TINY, answers, scored_run
from made_ladders import make_frozen, make_ladder, make_tuned

TRUTH = (np.arange(20) % 2).astype(np.int32)


def make_run(folder: Path, created: str = "2026-01-01T00:00:00+00:00", **changes: Any) -> Run:
    made = scored_run(folder, TRUTH, answers(TRUTH, 0.8, 0, classes=2))
    record = made.record.model_copy(update={"created": created, **changes})
    save_record(folder, record)
    return Run(folder, record)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "runs"
    make_run(out / "20260101-090000-resnet18-1a2b", "2026-01-01T09:00:00+00:00")
    make_run(out / "20260102-090000-mlp-3c4d", "2026-01-02T09:00:00+00:00")
    make_run(out / "20260103-090000-mlp-5e6f", "2026-01-03T09:00:00+00:00", state="stopped")
    make_run(out / "grid" / "fast-77", "2026-01-01T10:00:00+00:00")
    (out / ".20260104-hidden.part").mkdir()
    shutil.copy(out / "20260102-090000-mlp-3c4d" / "run.json", out / ".20260104-hidden.part")
    return out


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("20260101-090000-resnet18-1a2b", "20260101-090000-resnet18-1a2b"),
        ("resnet", "20260101-090000-resnet18-1a2b"),
        ("RESNET18-1A2B", "20260101-090000-resnet18-1a2b"),
        ("5e6f", "20260103-090000-mlp-5e6f"),
        ("last", "20260102-090000-mlp-3c4d"),
        ("fast", "fast-77"),
        ("grid/fast-77", "fast-77"),
        ("{out}/20260101-090000-resnet18-1a2b", "20260101-090000-resnet18-1a2b"),
        ("{out}/20260101-090000-resnet18-1a2b/history.csv", "20260101-090000-resnet18-1a2b"),
        ("{out}/grid/fast-77/run.json", "fast-77"),
    ],
)
def test_every_way_to_name_a_run_leads_to_it(name: str, id: str, out: Path) -> None:
    assert find_run(name.format(out=out), out).path.name == id


def test_a_file_is_of_the_run_that_one_stands_in(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out / "20260101-090000-resnet18-1a2b")
    assert find_run("history.csv").record.id == "20260101-090000-resnet18-1a2b"
    assert not is_bundle("history.csv"), "it is no exported file"
    monkeypatch.chdir(out)
    (out / "notes.txt").write_text("")
    with pytest.raises(bw.RunError, match=r"^notes.txt: is not a run folder, nor a file in one"):
        find_run("notes.txt", out)


def test_what_fits_several_is_refused_with_their_names(out: Path) -> None:
    with pytest.raises(bw.RunError, match=r"^mlp: 2 runs in .*/ have this in their ids: ") as caught:
        find_run("mlp", out)
    assert "20260103-090000-mlp-5e6f, 20260102-090000-mlp-3c4d." in caught.value.message
    assert caught.value.hint == "Give more of the id."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("20260101-090000-resnet81-1a2b", "The closest in {out}/: 20260101-090000-resnet18-1a2b"),
        ("zzz", "The latest runs in {out}/: grid/fast-77, 20260103-090000-mlp-5e6f"),
        ("", "The latest runs in"),
    ],
)
def test_what_is_unknown_is_told_with_what_is_close(name: str, hint: str, out: Path) -> None:
    with pytest.raises(bw.RunError, match="is not a run folder, nor a file in one, and no run in") as caught:
        find_run_folder(name, out) if name else find_run_folder(" ", out)
    assert caught.value.hint.startswith(hint.format(out=out))


def test_where_there_is_nothing_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(bw.RunError, match="there is no finished run in"):
        find_run("last", tmp_path)
    with pytest.raises(bw.RunError) as caught:
        find_run("one", tmp_path / "nowhere")
    assert caught.value.hint == f"There are no runs in {tmp_path / 'nowhere'}/."


def test_of_a_search_the_chosen_run_is_meant(tmp_path: Path) -> None:
    ladder = make_ladder(rungs=(make_frozen(), make_tuned())).model_copy(update={"best": "try-1"})
    make_run(tmp_path / "try-1", "2026-01-01T00:00:00+00:00", ladder=ladder)
    make_run(tmp_path / "try-2", "2026-01-02T00:00:00+00:00")
    assert find_run("try", tmp_path).record.id == "try-1"
    assert find_run("last", tmp_path).record.id == "try-1"
    assert find_run("try-2", tmp_path).record.id == "try-2"


def test_a_damaged_record_hides_no_other_run(out: Path) -> None:
    (out / "20260101-090000-resnet18-1a2b" / "run.json").write_text("[]")
    assert find_run("last", out).path.name == "20260102-090000-mlp-3c4d"
    with pytest.raises(bw.RunError, match="cannot be read"):
        find_run("1a2b", out)


def test_a_trunk_is_recorded_by_its_whole_id(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "runs", tmp_path / "runs")
    data, options = bw.scan(tiny / "photos"), {**TINY, "freeze": "trunk", "optimizer": "adam"}
    made, _ = bw.estimate_cost(data, bw.Recipe(**{**options, "weights": "run:on"}), out=tmp_path / "runs")
    assert made.weights == "run:one"
    with pytest.raises(bw.RunError, match=r"^nobody: is not a run folder"):
        bw.estimate_cost(data, bw.Recipe(**{**options, "weights": "run:nobody"}), out=tmp_path / "runs")


OF_RUNS = (
    *("calibrate", "drift", "export", "features", "learning_curve"),
    *("predict", "publish", "report", "resume", "suggest", "test"),
)


@pytest.mark.parametrize("name", [*OF_RUNS, *(f"explain.{one}" for one in bw.explain.__all__)])
@pytest.mark.parametrize("named", ["nobody", Path("nobody")])
def test_every_function_of_a_run_takes_its_name(
    name: str, named: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function: Any = bw
    for part in name.split("."):
        function = getattr(function, part)
    wanted = [one for one in inspect.signature(function).parameters.values() if one.default is inspect.Parameter.empty]
    assert wanted[0].name == "run"
    stand_ins: dict[str, Any] = {"images": ["a.png"], "files": [], "image": "a.png", "numbers": [0], "beside": []}
    stand_ins |= {"some": np.zeros((1, 8, 8, 3), np.uint8), "found": object.__new__(Attribution)}
    others = {one.name: stand_ins.get(one.name, "x") for one in wanted[1:]}
    with pytest.raises(bw.RunError, match=r"^nobody: is not a run folder"):
        function(named, **others)


def test_every_public_function_of_a_run_is_tried() -> None:
    public = [name for name in bw.__all__ if inspect.isfunction(getattr(bw, name))]
    of_runs = {name for name in public if "run" in inspect.signature(getattr(bw, name)).parameters}
    assert of_runs == set(OF_RUNS)


def test_a_run_is_looked_at_by_its_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    layers = bw.explain.layers("last")
    assert layers == bw.explain.layers(tiny / "runs" / "one" / "report.html")
    assert bw.predict("one", [tiny / "photos" / "leaf"])[0].top
    assert bw.Predictor.open("on").classes == ("leaf", "sky")
