"""`budwood runs`: what it lists, what it leaves out, and what it removes after a yes alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import budwood as bw
from budwood.cli.runs_command import format_runs
from budwood.comparison.run_list import find_dependents, list_runs
from budwood.runs.run import find_run, lock_run
from budwood.runs.run_record import save_record
from budwood.text import count_columns
from conftest import answers, run_command, scored_run

TRUTH = (np.arange(60) % 3).astype(np.int32)


def make_run(
    folder: Path, day: int, data: str = "photos", model: str = "net", state: str = "done", **recipe: Any
) -> None:
    run = scored_run(folder, TRUTH, answers(TRUTH, 0.8, day), state=state, **recipe)
    update = {
        "created": f"2026-01-{day:02}T00:00:00+00:00",
        "dataset": run.record.dataset.model_copy(update={"name": data}),
        "network": run.record.network.model_copy(update={"name": model}),
    }
    save_record(folder, run.record.model_copy(update=update))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "runs"
    make_run(out / "first", 1, lr=0.01)
    make_run(out / "second", 3, data="cells", model="resnet18", lr=0.001)
    make_run(out / "cut", 2, state="stopped", lr=0.5)
    make_run(out / "grid" / "fast", 4, weights="run:first", freeze="trunk")
    (out / "broken").mkdir()
    (out / "broken" / "run.json").write_text("{}")
    return out


def test_the_newest_comes_first_with_data_recipe_score_and_state(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = run_command(capsys, "runs", out)
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["grid/fast", "second", "cut", "first", "broken"]
    second = " ".join(lines[3].split())
    assert second.startswith("second cells resnet18, adam accuracy 8")
    assert ", n = 60 finished sealed 2026-01-0" in second
    assert "weights run:first" in lines[2]
    assert " ".join(lines[4].split()).startswith("cut photos net, adam, lr 0.5 interrupted")
    assert lines[-1].startswith("broken: ")
    assert "cannot be read" in lines[-1]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--data", "CELL"], ["second"]),
        (["--state", "interrupted"], ["cut"]),
        (["--state", "damaged"], ["broken"]),
        (["--model", "*net"], ["grid/fast", "cut", "first"]),
        (["--model", "resnet18", "--state", "finished"], ["second"]),
        (["--data", "nothing"], []),
    ],
)
def test_filters_choose_among_them(
    options: list[str], names: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = json.loads(run_command(capsys, "runs", out, *options, "--json")[0])
    assert [one["name"] for one in listed] == names
    if not names:
        assert run_command(capsys, "runs", out, *options)[0] == f"There are no runs in {out}/ that fit.\n"


def test_json_has_what_the_table_has(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = next(one for one in json.loads(run_command(capsys, "runs", out, "--json")[0]) if one["name"] == "second")
    assert {"path", "name", "state", "began", "data", "model", "recipe", "metric", "score", "looks"} <= set(one)
    assert set(one["score"]) == {"value", "low", "high", "n"}
    assert (one["metric"], one["recipe"]["optimizer"], one["looks"]) == ("accuracy", "adam", 0)


def test_a_run_that_is_trained_now_is_told_from_one_that_was_interrupted(out: Path) -> None:
    with lock_run(out / "cut"):
        assert [one.name for one in list_runs(out, state="training")] == ["cut"]
    assert [one.name for one in bw.list_runs(out, state="interrupted")] == ["cut"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(width: int, out: Path) -> None:
    found = [one for one in list_runs(out) if not one.problem]
    assert max(map(count_columns, format_runs(found, width).splitlines())) <= width


def test_what_all_runs_share_is_said_once(out: Path) -> None:
    said = format_runs(list_runs(out, model="net", state="finished"), None)
    assert said.splitlines()[-1].startswith("The same in all rows: data photos; ")
    assert "state" not in said.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: is no folder of runs."),
        (["{out}", "--state", "done"], "state: there is no state 'done' of a run."),
        (["{out}", "--yes"], "--yes: needs --delete RUN."),
        (
            ["{out}", "--delete", "first", "--data", "x"],
            "--data: chooses what is listed; --delete takes the runs by name.",
        ),
        (["{out}", "--delete", "first"], "--delete: nobody can be asked here; --yes removes the runs without asking."),
        (["{out}", "--delete", "third", "--yes"], "third: is not a run folder"),
        (["{out}/grid", "--delete", "{out}/first", "--yes"], "is not a run of"),
    ],
)
def test_mistakes_have_one_message(
    arguments: list[str], message: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run_command(capsys, "runs", *(one.format(out=out) for one in arguments), code=2)
    assert message in err
    assert len(list_runs(out)) == 5


def test_runs_are_removed_without_a_question_where_that_is_said(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "first" / "mine.txt").write_text("mine")
    said, _ = run_command(capsys, "runs", out, "--delete", "first", "--delete", "second", "--yes")
    assert said.splitlines() == [
        f"Removed: {out / 'first'}",
        "  Its folder stays, with what is not the run's: mine.txt",
        f"Removed: {out / 'second'}",
    ]
    assert [one.name for one in list_runs(out)] == ["grid/fast", "cut", "broken"]
    removed = json.loads(run_command(capsys, "runs", out, "--delete", "cut", "--yes", "--json")[0])
    assert removed == {"removed": [str(out / "cut")], "left": []}


@pytest.mark.parametrize(
    ("answer", "told", "left"), [(True, "Removed: {out}/first", 4), (False, "Nothing was removed.", 5)]
)
def test_a_question_comes_first(
    answer: bool,
    told: str,
    left: int,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []

    def confirm(text: str, err: bool) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", confirm)
    said, err = run_command(capsys, "runs", out, "--delete", "first")
    assert said.strip() == told.format(out=out)
    assert asked == ["Remove 1 run?"]
    assert "first is what grid/fast began with" in err
    assert "accuracy" in err
    assert len(list_runs(out)) == left


def test_the_runs_that_began_with_another_are_known(out: Path) -> None:
    others = list_runs(out)
    assert find_dependents(find_run(out / "first"), others) == ["grid/fast"]
    assert find_dependents(find_run(out / "second"), others) == []
