"""Other tools are told of every epoch once, and their failures stop nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.cli.main import run
from budwood.runs.run import Run

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "batch": 8, "lr": 0.01}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow without runs: to make one takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def database(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it is where MLflow writes."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def _scalars(made: Run) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(made.path / "tensorboard"))
    read.Reload()
    return {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def _metrics(made: Run) -> dict[str, list[tuple[int, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("budwood")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == made.path.name
    assert found.info.status == "FINISHED"
    assert found.data.params["epochs"] == "3"
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }


@pytest.mark.usefixtures("database")
def test_every_epoch_is_told_once_also_when_training_goes_on(photos: Path, tmp_path: Path) -> None:
    short = bw.train(
        bw.scan(photos), bw.Recipe(**SMALL, epochs=3), out=tmp_path / "runs", track=["tensorboard", "mlflow"]
    )
    made = bw.resume(short, epochs=5)
    history = made.history
    for told in (_scalars(made), _metrics(made)):
        assert set(told) == set(history[0]) - {"epoch"}
        for name, values in told.items():
            assert [step for step, _ in values] == [1, 2, 3, 4, 5]
            assert [value for _, value in values] == pytest.approx([row[name] for row in history], rel=1e-6)


def test_a_tool_that_fails_is_noted_and_training_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    flags = ["--model", "cnn", "--widths", "8,8", "--fc", "16", "--size", "16", "--batch", "8", "--epochs", "2"]
    assert run(["train", str(photos), *flags, "--out", str(tmp_path / "runs"), "--track", "mlflow"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("mlflow could not log") == 1
    assert "continuing without it" in told


def test_a_head_alone_is_told_when_it_is_done(photos: Path, tmp_path: Path) -> None:
    made = bw.train(bw.scan(photos), bw.Recipe(size=32), out=tmp_path / "runs", track=["tensorboard"])
    assert len(_scalars(made)["val_loss"]) == len(made.history)


def test_unknown_and_missing_tools_are_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(bw.RecipeError, match="there is no tracker 'tensorbord'") as caught:
        bw.train(bw.scan(photos), out=tmp_path / "runs", track=["tensorbord"])
    assert "Did you mean 'tensorboard'?" in caught.value.hint
    monkeypatch.setattr("budwood.runs.trackers.find_spec", lambda name: None)
    with pytest.raises(bw.RecipeError, match="mlflow is not installed") as caught:
        bw.train(bw.scan(photos), out=tmp_path / "runs", track=["mlflow"])
    assert "budwood[track]" in caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_a_tool_that_cannot_be_ended_costs_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def dying(folder: Path, record: Any) -> Iterator[Any]:
        yield lambda history: None
        raise OSError("the server is gone")

    monkeypatch.setattr("budwood.runs.trackers.TRACKERS", {"mlflow": dying})
    flags = ["--size", "32", "--optimizer", "lbfgs", "--track", "mlflow"]
    assert run(["train", str(photos), *flags, "--out", str(tmp_path / "runs")]) == 0
    assert "mlflow could not be closed (OSError: the server is gone)." in " ".join(capsys.readouterr().err.split())
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 1


@pytest.mark.usefixtures("database")
def test_a_training_that_fails_ends_its_mlflow_run_as_failed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    told = []

    def stop(history: Any, *rest: Any) -> None:
        told.append(len(history))
        if len(history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("budwood.workflows.train.save_history", lambda folder, rows: stop(rows))
    with pytest.raises(KeyboardInterrupt):
        bw.train(bw.scan(photos), bw.Recipe(**SMALL, epochs=3), out=tmp_path / "runs", track=["mlflow"])
    experiment = MlflowClient().get_experiment_by_name("budwood")
    assert experiment
    (found,) = MlflowClient().search_runs([experiment.experiment_id])
    assert found.info.status == "FAILED"


@pytest.mark.slow
def test_mlflow_writes_beside_the_runs_where_no_place_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = bw.Recipe(model="mlp", size=8, optimizer="adam", epochs=1)
    bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", track=["mlflow"])
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    assert list((tmp_path / "here").iterdir()) == []
