"""The time of a study or a search is that of the whole command; what it stops goes on with the next call."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import pytest

import budwood as bw
from budwood.cli.main import run
from budwood.cli.study_commands import tune
from budwood.progress import Silent
from budwood.studies import runner, training_job
from budwood.studies.executors import InProcessExecutor
from budwood.studies.runner import ExecutionOptions
from budwood.studies.time_limit import TimedProgress, TimeIsOver
from budwood.studies.training_job import JobResult, TrainingJob
from budwood.workflows.train import train_recipe

SMALL = {"model": "cnn", "widths": [8], "fc": [8], "size": 16, "batch": 8, "epochs": 2, "seed": None}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of studies, in a list of one; nothing but the test moves it."""
    now = [1000.0]
    monkeypatch.setattr("budwood.studies.runner.time.monotonic", lambda: now[0])
    return now


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in {**SMALL, **options}.items() if value is not None}


def test_the_time_flags_of_a_search_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag for each in tune.get_params(click.Context(tune)) for flag in each.opts]
    assert len(flags) == len(set(flags)), "each flag is registered once"
    assert {"--time", "--trial-time"} <= set(flags)
    assert run(["tune", "--help-all"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Time limit of the whole command" in told
    assert "Of each trial: time limit" in told


def test_the_time_of_a_search_is_no_option_of_its_recipes(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    asked: list[tuple[Any, Any]] = []
    read: list[dict[str, str]] = []

    def note(search: Any, *, execution: ExecutionOptions, **others: Any) -> Any:
        asked.append((dict(search.base), execution.time))
        read.append(search.searched.reading())
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "study", note)
    assert run(["tune", str(photos), "--time", "10m", "--epochs", "1"]) == 130
    assert run(["tune", str(photos), "--trial-time", "20s", "--epochs", "1"]) == 130
    assert run(["tune", str(photos), "--label-from", "path", "--spelling", "join", "--epochs", "1"]) == 130
    assert asked == [({"epochs": 1}, 600), ({"epochs": 1, "time": "20s"}, None), ({"epochs": 1}, None)]
    assert read == [{}, {}, {"label_from": "path"}]


def test_no_trial_begins_that_would_end_after_the_time(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    given: list[float | None] = []

    def take_four_seconds(self: Any, job: TrainingJob, on_epoch_end: Any = None) -> JobResult:
        given.append(job.seconds)
        clock[0] += 4
        return JobResult("failed") if len(given) > 1 else JobResult("done", seconds=4.0)

    monkeypatch.setattr(InProcessExecutor, "run", take_four_seconds)
    monkeypatch.setattr(runner, "read_metric", lambda run, name: 0.5)
    monkeypatch.setattr(runner, "find_run", lambda path: None)
    with pytest.raises(bw.errors.StudyError, match="no row could be trained"):
        bw.tune(photos, _given(), trials=9, execution=ExecutionOptions(time=10), out=tmp_path)
    assert given == [10, 6], "the third would end after 12 seconds"


def test_a_trial_that_is_trained_when_the_time_is_over_is_stopped_and_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def stop_second(*arguments: Any, **options: Any) -> Any:
        trained.append(options["id"])
        if len(trained) == 2:
            with options["progress"].bar("epochs", 1) as step:
                time.sleep(0.02)
                monkeypatch.setattr(options["progress"], "_end", 0.0)
                step(1)
        return train_recipe(*arguments, **options)

    monkeypatch.setattr(training_job, "train_recipe", stop_second)
    first = bw.tune(photos, _given(), trials=1, execution=ExecutionOptions(time=600), out=tmp_path)
    assert [(row.label, row.problem) for row in first.rows] == [
        ("as given", ""),
        ("trial 0", "stopped by the time limit; the same command goes on with it"),
    ]
    (folder,) = tmp_path.glob("tune-*")
    assert json.loads((folder / "study.json").read_text())["state"] == "stopped"
    again = bw.tune(photos, _given(), trials=1, out=tmp_path)
    assert [(row.label, row.problem) for row in again.rows] == [("as given", ""), ("trial 0", "")]
    assert trained[1:] == [trained[1]] * 2, "only what was stopped is trained again"
    assert json.loads((folder / "study.json").read_text())["state"] == "done"


def test_the_first_step_after_the_time_ends_the_work() -> None:
    with TimedProgress(Silent(), 60).bar("steps", 2) as step:
        step(1)
    with pytest.raises(TimeIsOver, match="stopped by the time limit"), TimedProgress(Silent(), 0).bar("", 1) as step:
        step(1)
