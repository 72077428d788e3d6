"""A training that was killed goes on to the same bits, and a finished one can be trained for more epochs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import budwood as bw
from budwood.cli.main import run
from budwood.errors import RecipeError, RunError, StorageError
from budwood.runs.run import Run, find_run, lock_run, open_run
from budwood.storage.atomic import write_bytes
from budwood.training import checkpoints
from budwood.training import loop as fitting
from budwood.training.checkpoints import Checkpoints
from budwood.training.losses import make_loss
from budwood.workflows.continuation import continue_recipe
from conftest import Notes, fill
from killing import run_killer

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "batch": 8, "optimizer": "adam"}
STEADY: dict[str, Any] = {**SMALL, "dropout": 0.2, "conv_norm": True, "ema": 0.9, "flip": 0.5, "mixup": 0.2}

KILLER = """
import json, sys
from pathlib import Path
import budwood as bw
from budwood.workflows import train
from budwood.training import loop
from budwood.reporting import augmentation_sheet
from killing import killed_until_done

photos, out, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
data = bw.scan(photos)

def work(folder, recipe):
    known = list(folder.glob("*/run.json"))
    if known and json.loads(known[0].read_text())["state"] == "done":
        return  # it was killed between its last act and its end
    bw.resume(known[0].parent) if known else bw.train(data, bw.Recipe(**recipe), out=folder)

def is_resumed(folder):
    return any(json.loads(file.read_text()).get("resumed") for file in folder.glob("killed-*/*/run.json"))

for name, (kills, recipe) in cases.items():
    killed_until_done(lambda folder: work(folder, recipe), out / name, kills, is_enough=is_resumed)
"""


def _content(run: Run) -> tuple[bytes, bytes, bytes]:
    names = ("weights.safetensors", "history.csv", "predictions-val.parquet")
    weights, history, predictions = ((run.path / name).read_bytes() for name in names)
    return weights, history, predictions


KILLED: dict[str, tuple[int, dict[str, Any]]] = {
    "averaged": (2, {**STEADY, "epochs": 4, "lr": 0.01, "schedule": "onecycle", "rotation": 20, "patience": 4}),
    "phases": (
        3,
        {
            **{name: value for name, value in STEADY.items() if name != "ema"},
            "optimizer": "nadam",
            "accumulate": 2,
            "balanced_sampling": True,
            "phases": [{"freeze": "upto:conv1", "epochs": 2, "lr": 0.01}, {"freeze": "none", "epochs": 2, "lr": 0.005}],
        },
    ),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, with what nothing disturbed and what was killed: of one process, as it starts slowly."""
    if not hasattr(os, "fork"):
        pytest.skip("forks")
    out = tmp_path_factory.mktemp("killed")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(out / "photos" / name, 30, hue=hue)
    done = run_killer(KILLER, out / "photos", out, json.dumps(KILLED))
    assert done.returncode == 0, done.stderr
    assert all(
        int(line.split()[1]) >= kills
        for line, (kills, _) in zip(done.stdout.splitlines(), KILLED.values(), strict=True)
    )
    return out


@pytest.mark.parametrize("case", KILLED)
def test_killed_at_random_moments_it_ends_with_the_same_bits(killed: Path, case: str) -> None:
    folder = killed / case
    (whole,) = (open_run(path.parent) for path in folder.glob("whole/*/run.json"))
    others = [open_run(path.parent) for path in folder.glob("killed-*/*/run.json")]
    assert others
    assert any(other.record.resumed for other in others)
    for other in others:
        assert _content(other) == _content(whole)
        assert not list(other.path.rglob("*.part"))


@pytest.fixture
def trained(photos: Path, tmp_path: Path) -> Run:
    return bw.train(bw.scan(photos), bw.Recipe(**STEADY, epochs=3, lr=0.01), out=tmp_path / "runs")


def test_more_epochs_are_the_same_as_having_asked_for_them_at_once(trained: Run, photos: Path, tmp_path: Path) -> None:
    bw.test(trained)
    longer = bw.resume(trained.path, epochs=5)
    at_once = bw.train(bw.scan(photos), bw.Recipe(**STEADY, epochs=5, lr=0.01), out=tmp_path / "runs")
    assert _content(longer) == _content(at_once)
    assert (longer.record.recipe, longer.record.state) == (at_once.record.recipe, "done")
    assert len(longer.record.resumed) == 1
    assert "test" not in longer.metrics, "the look was at another network"
    assert not (longer.path / "predictions-test.parquet").exists()
    assert bw.test(longer).opened().looks == 2
    assert "then continued, once" in (longer.path / "report.html").read_text()


def test_the_last_phase_and_a_head_alone_can_be_longer_too(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    phases = [{"freeze": "upto:conv1", "epochs": 2, "lr": 0.01}, {"freeze": "none", "epochs": 2, "lr": 0.01}]
    longer = [*phases[:1], {**phases[1], "epochs": 3}]
    alone: dict[str, Any] = {"size": 32, "optimizer": "sgd"}
    for first, then, epochs in (
        ({**SMALL, "phases": phases}, {**SMALL, "phases": longer}, 3),
        ({**alone, "epochs": 2}, {**alone, "epochs": 4}, 4),
    ):
        short = bw.train(data, bw.Recipe(**first), out=tmp_path / "runs")
        resumed = bw.resume(short, epochs=epochs)
        assert _content(resumed) == _content(bw.train(data, bw.Recipe(**then), out=tmp_path / "runs"))


def test_the_last_epoch_is_that_of_the_longer_training_and_cannot_be_stopped_by_patience(
    photos: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {**STEADY, "lr": 0.01, "select": "last"}
    first = bw.train(bw.scan(photos), bw.Recipe(**options, epochs=2), out=tmp_path / "runs")
    with pytest.raises(RecipeError, match="patience: cannot be used with select = last"):
        bw.resume(first, patience=2)
    longer = bw.resume(first, epochs=4)
    assert (first.record.selected.epoch, longer.record.selected.epoch) == (2, 4)
    assert _content(longer) == _content(
        bw.train(bw.scan(photos), bw.Recipe(**options, epochs=4), out=tmp_path / "runs")
    )
    report = (longer.path / "report.html").read_text()
    assert "epoch 4 was kept, the last epoch, as the recipe says, whatever validation says of it" in report
    assert "marks the model that was kept: last epoch.</p>" in report
    assert "selected by it" not in report


def test_the_statistics_of_frozen_batch_norm_go_on_from_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "conv_norm": True, "freeze": "upto:conv2", "frozen_norm": "train", "lr": 0.01}
    recipe, notes = bw.Recipe(**options, epochs=1), Notes()
    first = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", progress=notes)
    assert any("Frozen layers are computed in every step from their first batch norm on" in each for each in notes.kept)
    before = load_file(first.path / "weights.safetensors")["conv1.1.running_mean"]
    longer = bw.resume(first, epochs=3)
    at_once = bw.train(bw.scan(photos), bw.Recipe(**options, epochs=3), out=tmp_path / "runs")
    assert _content(longer) == _content(at_once)
    assert not np.allclose(load_file(longer.path / "weights.safetensors")["conv1.1.running_mean"], before)
    told = "batch norm of the frozen layers used the statistics of each batch and went on averaging them."
    report = (longer.path / "report.html").read_text()
    assert told in report
    assert "Frozen stages are not changed by training, but for the averages of their batch norm.</p>" in report


def test_a_run_that_stopped_early_goes_on_with_more_patience(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "lr": 0.5, "epochs": 30}
    first = bw.train(bw.scan(photos), bw.Recipe(**options, patience=1), out=tmp_path / "runs")
    done = len(first.history)
    assert done < 30
    longer = bw.resume(first, patience=3)
    assert len(longer.history) > done
    again = bw.train(bw.scan(photos), bw.Recipe(**options, patience=3), out=tmp_path / "runs")
    assert _content(longer) == _content(again)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"

    def breaking(*arguments: Any) -> Any:
        loss, calls = make_loss(*arguments), []

        def late(*batch: Any) -> Any:
            calls.append(1)
            return loss(*batch) * (float("nan") if len(calls) == 12 else 1.0)

        return late

    monkeypatch.setattr(fitting, "make_loss", breaking)  # 38 images in batches of 8: the second step of the third epoch
    flags = ["--model", "cnn", "--widths", "8,8", "--fc", "16", "--size", "16", "--batch", "8", "--epochs", "4"]
    assert run(["train", str(photos), "--out", str(out), *flags, "--lr", "0.02"]) == 2
    told = capsys.readouterr().err.replace("\n", "")
    (folder,) = (path.parent for path in out.glob("*/run.json"))
    assert "The loss is no longer a number in epoch 3, step 2, at a learning rate of 0.02." in told
    assert "The last good checkpoint was kept" in told
    assert "The last good checkpoint was kept. Continue from it with" in told
    stopped = json.loads((folder / "run.json").read_text())
    assert stopped["state"] == "stopped"
    assert "no longer a number in epoch 3" in stopped["problem"]
    with pytest.raises(RunError, match="is not a finished run; its training was interrupted") as refused:
        bw.test(folder)
    assert "budwood resume" in refused.value.hint
    monkeypatch.undo()
    assert run(["resume", folder.name, "--out", str(out), "--lr", "0.01", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["recipe"]["lr"]) == ("done", 0.01)
    finished = open_run(folder)
    assert "problem" not in finished.record.table()
    assert [row["lr"] for row in finished.history] == [0.02, 0.01, 0.01, 0.01]


def test_a_full_disk_keeps_the_checkpoint_before_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    def filling(path: Path, data: bytes) -> None:
        writes.append(path)
        if len(writes) == 5:  # the best and the last after two epochs, then the disk is full
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, data)

    monkeypatch.setattr(checkpoints, "write_bytes", filling)
    monkeypatch.setattr(Checkpoints, "due", True)
    recipe = bw.Recipe(**{**SMALL, "batch": 64}, lr=0.001, epochs=6)
    with pytest.raises(StorageError, match=r"checkpoint: no space left on the disk"):
        bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    monkeypatch.undo()
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    resumed = bw.resume(folder)
    assert _content(resumed) == _content(bw.train(bw.scan(photos), recipe, out=tmp_path / "other"))


def test_a_run_whose_time_was_over_can_be_trained_for_more_epochs(photos: Path, tmp_path: Path) -> None:
    first = bw.train(bw.scan(photos), bw.Recipe(**SMALL, lr=0.01, time="4s"), out=tmp_path / "runs")
    done = len(first.history)
    longer = bw.resume(first, epochs=done + 2)
    assert len(longer.history) == done + 2
    assert "time" not in longer.recipe.table()


def test_what_fails_before_a_checkpoint_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no longer a number"):
        bw.train(bw.scan(photos), bw.Recipe(**{**SMALL, "optimizer": "sgd"}, lr=1e30), out=tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_what_cannot_be_resumed_says_why(trained: Run) -> None:
    with pytest.raises(RunError, match="is already finished") as caught:
        bw.resume(trained)
    assert "--epochs N" in caught.value.hint
    with pytest.raises(RunError, match="already has 3 epochs, which is not less than 3"):
        bw.resume(trained, epochs=3)
    with lock_run(trained.path), pytest.raises(RunError, match="is being trained by another process"):
        bw.resume(trained, epochs=4)
    (trained.path / "run.json").write_text(json.dumps({**trained.record.table(), "state": "running"}))
    with lock_run(trained.path), pytest.raises(RunError, match="it is still being trained"):
        open_run(trained.path)
    last = trained.path / "checkpoint" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(RunError, match=r"last\.safetensors: the checkpoint cannot be read"):
        bw.resume(find_run(trained.path))
    assert last.is_file(), "nothing of a run is lost by a failed resume"


def test_what_would_change_nothing_is_refused_and_costs_nothing(trained: Run, photos: Path, tmp_path: Path) -> None:
    bw.test(trained)
    for options in ({"lr": 0.001}, {"patience": 2}):
        with pytest.raises(RunError, match="is already finished"):
            bw.resume(trained.path, **options)
    tested = open_run(trained.path)
    assert tested.metrics["test"]
    assert tested.predictions("test")
    recipe = bw.Recipe(**{**SMALL, "lr": 0.5, "epochs": 30}, patience=1)
    stopped = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    with pytest.raises(RunError, match="stopped after 1 epoch without improvement") as caught:
        bw.resume(stopped, epochs=40)
    assert "--patience larger than 1" in caught.value.hint
    alone = bw.train(bw.scan(photos), bw.Recipe(size=32, optimizer="sgd", epochs=2), out=tmp_path / "runs")
    with pytest.raises(RunError, match="--lr does not apply to a run that trains only the head"):
        bw.resume(alone, lr=0.1)


def test_a_finished_run_stays_so_when_going_on_fails(trained: Run, photos: Path) -> None:
    tested = bw.test(trained)
    before = {file.name: file.read_bytes() for file in tested.path.iterdir() if file.is_file()}
    last = trained.path / "checkpoint" / "last.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[:100])
    with pytest.raises(RunError, match="the checkpoint cannot be read"):
        bw.resume(tested, epochs=5)
    assert {file.name: file.read_bytes() for file in tested.path.iterdir() if file.is_file()} == before
    last.write_bytes(whole)
    assert len(bw.resume(tested, epochs=5).history) == 5


def test_a_head_that_time_limited_goes_on_and_does_not_start_over(photos: Path, tmp_path: Path) -> None:
    first = bw.train(bw.scan(photos), bw.Recipe(size=32, optimizer="adam", time="6s"), out=tmp_path / "runs")
    history = first.history
    longer = bw.resume(first, epochs=len(history) + 1)
    assert longer.history[:-1] == history


def test_another_rate_is_for_the_phase_that_is_not_finished(photos: Path, tmp_path: Path) -> None:
    phases = [{"freeze": "upto:conv1", "epochs": 3, "lr": 1e30}, {"freeze": "none", "epochs": 1, "lr": 0.01}]
    options = {**SMALL, "optimizer": "sgd"}
    run_ = bw.train(bw.scan(photos), bw.Recipe(**options, phases=[{**phases[0], "lr": 0.01}, phases[1]]), out=tmp_path)
    (run_.path / "history.csv").write_text("\n".join((run_.path / "history.csv").read_text().split("\n")[:3]) + "\n")
    half = Run(run_.path, run_.record.model_copy(update={"state": "stopped", "files": {}}))
    assert [phase.lr for phase in continue_recipe(half, {"lr": 0.1}).phases or ()] == [0.1, 0.01]
    assert [phase.epochs for phase in continue_recipe(half, {"epochs": 7}).phases or ()] == [3, 7]
    with pytest.raises(RunError, match="--patience does not apply to a training in phases"):
        continue_recipe(half, {"patience": 3})


def test_a_solved_head_has_no_epochs_to_add(photos: Path, tmp_path: Path) -> None:
    solved = bw.train(bw.scan(photos), bw.Recipe(size=32), out=tmp_path / "runs")
    assert not (solved.path / "checkpoint").exists()
    for epochs in (None, 20):
        with pytest.raises(RunError, match="its head was solved, not trained in epochs") as caught:
            bw.resume(solved, epochs=epochs)
        assert "--epochs" not in caught.value.hint


def test_a_checkpoint_holds_only_what_moves_and_only_numbers(trained: Run, tmp_path: Path) -> None:
    folder = trained.path / "checkpoint"
    held = load_file(folder / "last.safetensors")
    assert {name.split("/")[0] for name in held} == {"network", "optimizer", "average", ""}
    assert {path.name for path in folder.iterdir()} - {"lock"} == {
        "last.safetensors",
        f"best-{trained.record.selected.epoch:.0f}.safetensors",
    }
    keep = Checkpoints(tmp_path / "kept", often=0)
    standing, _ = Checkpoints(folder).load(np.random.default_rng()) or pytest.fail("nothing was found")
    import torch

    keep.save(standing, {"network/a": torch.tensor([1.0, float("nan")])}, np.random.default_rng())
    assert not (tmp_path / "kept").exists(), "what is not a number is not kept"
