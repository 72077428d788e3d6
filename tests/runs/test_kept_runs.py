"""Runs that version 0.1 has made are opened, tested, asked, compared, resumed and reported; see `kept/README.md`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.data.dataset import load
from budwood.evaluation import logits
from budwood.runs.run import Run, find_run
from budwood.runs.run_record import SCHEMA_VERSION, parse_record, read_record
from kept_images import write_labelled, write_photos

KEPT = Path(__file__).parents[1] / "kept"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A copy of the kept runs, beside the images that they are of."""
    photos, table = write_photos(tmp_path / "photos"), write_labelled(tmp_path / "labelled")
    shutil.copytree(KEPT, tmp_path / "runs", ignore=shutil.ignore_patterns("*.md"))
    for file in (tmp_path / "runs").glob("*/run.json"):
        source = table if file.parent.name == "several" else photos
        root = source if source.is_dir() else source.parent
        record = {**json.loads(file.read_text()), "source": str(source), "root": str(root)}
        file.write_text(json.dumps(record))
        data = load(file.parent / "dataset.parquet")
        replace(data, source=str(source), root=root).save(file.parent / "dataset.parquet")
    return tmp_path / "runs"


def _logits(run: Run) -> np.ndarray:
    """The logits of a run's plain network for its validation images, float32 [n, classes]."""
    import torch
    from PIL import Image

    predictions, network = run.predictions("val"), run.record.network
    images = np.stack([np.asarray(Image.open(run.dataset().root / path)) for path in predictions.paths])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.mean, network.std))
    with torch.inference_mode():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
        return np.asarray(run.network()(pixels))


@pytest.mark.parametrize("name", ["single", "several", "solved", "stopped"])
def test_a_record_is_what_its_file_says(name: str) -> None:
    table = json.loads((KEPT / name / "run.json").read_text())
    record = read_record(KEPT / name)
    assert json.loads(json.dumps(record.table())) == table, "and it is written as it was read"
    assert (record.id, record.schema_version) == (name, 1)
    assert record.recipe.table() == json.loads(json.dumps(table["recipe"])) | {
        name: value for name, value in record.recipe.table().items() if isinstance(value, tuple)
    }
    assert record.dataset.classes == (("bright", "left") if name == "several" else ("leaf", "sky"))
    assert record.network.parameters.total == sum(stage.parameters for stage in record.network.stages)


@pytest.mark.parametrize(("name", "trained"), [("single", "network"), ("several", "network"), ("solved", "head")])
def test_a_network_says_what_it_said(name: str, trained: str, runs: Path) -> None:
    run = bw.open_run(name, runs)
    assert run.record.trained == trained
    predictions = run.predictions("val")
    assert np.allclose(_logits(run), predictions.logits, atol=1e-4)
    answers = bw.predict(run, [run.dataset().root / path for path in predictions.paths])
    chance = logits.sigmoid if name == "several" else logits.probabilities
    expected = chance(predictions.logits).max(axis=1)
    assert [answer.top[0][1] for answer in answers] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_kept_split_is_opened_and_its_looks_go_on(runs: Path) -> None:
    before = bw.open_run("single", runs)
    assert before.opened().looks == 1
    again = bw.test(before)
    assert again.opened().looks == 2
    assert len(again.opened().opened) == 2
    now, then = again.metrics["test"]["accuracy"], before.metrics["test"]["accuracy"]
    assert (now.value, now.n) == (then.value, then.n)
    assert now.low == pytest.approx(then.low, abs=0.05), "that of version 0.1 was another interval"
    assert bw.test(bw.open_run("solved", runs)).opened().looks == 3, "it is the same test split"
    assert bw.test(bw.open_run("several", runs)).opened().looks == 1
    with pytest.raises(bw.RunError, match="the test split is sealed"):
        find_run("stopped", runs).opened()


def test_kept_runs_are_compared(runs: Path) -> None:
    made = bw.compare([runs / "single", runs / "solved"])
    assert [row.value for row in made.rows] == [
        bw.open_run(name, runs).record.val.accuracy for name in ("single", "solved")
    ]
    assert made.pairs[0].test == "McNemar's exact test"
    with pytest.raises(bw.RunError, match="has other classes"):
        bw.compare([runs / "single", runs / "several"])


def test_a_killed_training_goes_on(runs: Path) -> None:
    with pytest.raises(bw.RunError, match="its training was interrupted"):
        bw.open_run("stopped", runs)
    before = find_run("stopped", runs).history
    assert len(before) == 2
    done = bw.resume(find_run("stopped", runs))
    assert done.record.state == "done"
    assert len(done.record.resumed) == 1
    assert done.history[:2] == before
    assert len(done.history) == done.recipe.epochs == 4
    assert np.allclose(_logits(done), done.predictions("val").logits, atol=1e-4)


def test_a_finished_training_can_be_longer(runs: Path) -> None:
    before = bw.open_run("single", runs).history
    longer = bw.resume(runs / "single", epochs=3)
    assert longer.history[:2] == before
    assert longer.recipe.epochs == 3
    assert "test" not in longer.metrics


@pytest.mark.parametrize("name", ["single", "several", "solved"])
def test_a_kept_run_is_reported(name: str, runs: Path) -> None:
    html = (bw.report(bw.open_run(name, runs)).path / "report.html").read_text()
    assert f"<code>{name}</code>" in html
    assert ("This was the first use of this test set (look 1)" in html) == (name == "single")
    assert ("mean average precision" in html) == (name == "several")
    assert ("the strength of its L2 penalty is" in html) == (name == "solved")


def _table(**changes: Any) -> dict[str, Any]:
    return {**json.loads((KEPT / "single" / "run.json").read_text()), **changes}


def test_a_run_of_a_later_version_is_refused_with_one_message() -> None:
    network = _table()["network"]
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"schema_version": SCHEMA_VERSION + 1},
            rf"it has schema version {SCHEMA_VERSION + 1}, .* up to {SCHEMA_VERSION}",
        ),
        ({"owner": "me"}, "does not know owner"),
        (
            {"network": {**network, "depth": 3}, "owner": "me"},
            "does not know (network.depth, owner|owner, network.depth)",
        ),
        ({"recipe": {**_table()["recipe"], "magic": 1}}, "does not know its recipe: .*magic"),
    ]
    for changes, told in cases:
        with pytest.raises(bw.RunError, match=f"was made by a later version of Budwood .*{told}") as caught:
            parse_record(_table(**changes))
        assert "Update Budwood" in caught.value.hint


def test_a_damaged_record_says_where(tmp_path: Path) -> None:
    table = _table()
    table["network"]["size"] = "large"
    (tmp_path / "run.json").write_text(json.dumps(table))
    with pytest.raises(
        bw.RunError, match=r"run\.json: cannot be read \(network\.size: Input should be a valid integer"
    ):
        find_run(tmp_path)
    del table["dataset"]
    (tmp_path / "run.json").write_text(json.dumps(table))
    with pytest.raises(bw.RunError, match=r"cannot be read \(dataset: Field required\)"):
        find_run(tmp_path)


def test_a_figure_is_read_by_name_or_by_key_and_prints_plainly() -> None:
    accuracy = read_record(KEPT / "single").metrics["val"]["accuracy"]
    assert (accuracy.value, accuracy.low, accuracy.high, accuracy.n) == tuple(accuracy.values())
    assert dict(accuracy) == {name: accuracy[name] for name in ("value", "low", "high", "n")}
    assert str(accuracy).startswith(f"Metric(value={accuracy.value}, low=")
    scores = read_record(KEPT / "several").val
    assert "balanced_accuracy" not in scores
    assert scores.figures["macro_f1"] == scores["macro_f1"]
    with pytest.raises(KeyError):
        scores["balanced_accuracy"]
