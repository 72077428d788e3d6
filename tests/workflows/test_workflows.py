"""The whole job on small images: what a run holds, what stays sealed, and that nothing half-written is left."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import budwood as bw
from budwood.data.dataset import SEALED
from budwood.evaluation.logits import probabilities
from budwood.evaluation.predictions import Predictions, load_predictions
from budwood.runs.machine import describe_hardware
from budwood.runs.run import Run
from conftest import Notes, fill

RECIPE = {"size": 32}
FILES = {
    "recipe.toml",
    "run.json",
    "history.csv",
    "weights.safetensors",
    "dataset.parquet",
    "sealed.parquet",
    "predictions-val.parquet",
    "model_card.md",
    "novelty.safetensors",
    "report.html",
}


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Run:
    return bw.train(bw.scan(photos), bw.Recipe(**RECIPE), out=tmp_path / "runs")


def test_a_run_holds_what_is_promised(run: Run, photos: Path) -> None:
    assert {path.name for path in run.path.iterdir()} == FILES
    record = json.loads((run.path / "run.json").read_text())
    assert record.pop("digest")
    assert record == json.loads(json.dumps(run.record.table()))
    assert record["state"] == "done"
    assert record["schema_version"] == 1
    assert record["source"] == str(photos)
    assert record["dataset"]["fingerprint"] == bw.scan(photos).fingerprint
    assert record["network"]["parameters"]["trainable"] == 2 * 1280 + 2
    assert set(record["timings"]) >= {"prefix", "head", "total"}
    assert record["test"] is None
    accuracy = record["metrics"]["val"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["n"] == sum(record["dataset"]["counts"]["val"].values())
    assert accuracy["value"] > 0.9, "tint is easy to tell"


def test_the_network_is_a_plain_module_that_gives_the_predicted_logits(run: Run) -> None:
    import timm

    predictions = run.predictions("val")
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    plain.load_state_dict(load_file(run.path / "weights.safetensors"))
    images = [Image.open(run.dataset().root / path).convert("RGB").resize((32, 32), 3) for path in predictions.paths]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = plain.eval()(pixels / 127.5 - 1)
        assert torch.allclose(run.network()(pixels / 127.5 - 1), expected)
    assert np.allclose(predictions.logits, expected.numpy(), atol=1e-3 * float(expected.abs().max()))


def test_nothing_of_a_run_but_the_sealed_file_knows_test_labels(run: Run) -> None:
    data = run.dataset()
    assert set(data.samples("test").labels.tolist()) == {SEALED}
    table = pq.read_table(run.path / "dataset.parquet").to_pylist()
    assert {row["label"] for row in table if row["split"] == 2} == {SEALED}
    with pytest.raises(bw.RunError, match="the test split is sealed"):
        run.predictions("test")


def test_training_does_not_depend_on_test_labels(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    before = bw.train(data, bw.Recipe(**RECIPE), out=tmp_path / "one")
    after = bw.train(data.sealed(), bw.Recipe(**RECIPE), out=tmp_path / "two")
    assert all(np.array_equal(a, b) for a, b in zip(before.head(), after.head(), strict=True))


def test_opening_the_test_split_counts_every_look(run: Run, photos: Path) -> None:
    first = bw.test(run)
    assert first.opened().looks == 1
    assert first.metrics["test"]["accuracy"]["n"] == len(bw.scan(photos).samples("test"))
    other = bw.train(bw.scan(photos), bw.Recipe(**RECIPE, resize="squash"), out=run.path.parent)
    assert bw.test(other).opened().looks == 2, "a look through another run is a look at the same split"
    again = bw.test(run.path)
    assert again.opened() == first.opened(), "the same score of the same network is no further look"
    assert len((run.path.parent / "test-looks.csv").read_text().splitlines()) == 2
    assert json.loads((run.path / "run.json").read_text())["test"]["looks"] == 1
    labels = again.predictions("test").labels
    assert np.array_equal(labels, bw.scan(photos).samples("test").labels)


def test_the_second_run_reuses_every_output(run: Run, photos: Path) -> None:
    again = bw.train(bw.scan(photos), bw.Recipe(**RECIPE, optimizer="adam", epochs=3), out=run.path.parent)
    assert again.record.prefix.computed == 0
    assert [row["epoch"] for row in again.history] == [1, 2, 3]


def test_a_run_can_be_made_again_from_its_recipe(run: Run, photos: Path) -> None:
    import tomllib

    recipe = bw.Recipe(**tomllib.loads((run.path / "recipe.toml").read_text()))
    again = bw.train(bw.scan(photos), recipe, out=run.path.parent)
    assert np.array_equal(again.head()[0], run.head()[0])


def test_predicting_files_and_folders(run: Run, photos: Path, tmp_path: Path) -> None:
    new = fill(tmp_path / "new", 3, first=700, hue=1)
    (tmp_path / "new" / "bad.jpg").write_text("no")
    answers = bw.predict(run, [tmp_path / "new", photos / "sky" / "000.png"])
    names = ["700.png", "701.png", "702.png", "bad.jpg", "000.png"]
    assert [Path(answer.path).name for answer in answers] == names
    assert [answer.top[0][0] for answer in answers if answer.top] == ["leaf", "leaf", "leaf", "sky"]
    assert answers[3].problem.startswith("not an image")
    assert all(sum(share for _, share in answer.top) == pytest.approx(1) for answer in answers if answer.top)
    assert len(new) == 3
    with pytest.raises(bw.DataError, match="no such file or folder"):
        bw.predict(run, ["nowhere.jpg"])


def test_predictions_agree_with_the_validation_file(run: Run) -> None:
    predictions = run.predictions("val")
    answers = bw.predict(run, [run.dataset().root / path for path in predictions.paths])
    expected = probabilities(predictions.logits).max(axis=1)
    assert [answer.top[0][1] for answer in answers] == pytest.approx(expected.tolist(), abs=1e-6)


def _leaking(root: Path) -> Path:
    for split, first in (("train", 0), ("test", 50)):
        for hue, label in enumerate("ab"):
            fill(root / split / label, 16, hue=hue, first=first)
    shutil.copy(root / "train/a/000.png", root / "test/a/copy.png")
    return root


def test_a_leak_is_left_out_refused_or_said_in_every_report(tmp_path: Path) -> None:
    data = bw.scan(_leaking(tmp_path / "d"))
    with pytest.raises(bw.DataError, match="D020: 2 files in 1 group are exact duplicates in different splits"):
        bw.train(data, bw.Recipe(**RECIPE), out=tmp_path / "runs", leaks="refuse")
    with pytest.raises(bw.DataError, match="leaks: expected 'drop', 'refuse' or 'allow', found 'keep'"):
        bw.train(data, bw.Recipe(**RECIPE), out=tmp_path / "runs", leaks="keep")  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()
    said = Notes()
    run = bw.train(data, bw.Recipe(**RECIPE), out=tmp_path / "runs", progress=said)
    assert any(note.startswith("D024: 1 training file is left out, because a file of a later") for note in said.kept)
    assert run.record.dataset.left_out == 1
    assert not run.record.dataset.leaks_allowed
    assert "train/a/000.png" not in run.dataset().table["path"].to_pylist()
    html = (run.path / "report.html").read_text()
    assert "1 image was left out of a split because of another split (see D024 below)." in html
    assert "This score cannot be trusted" not in html
    assert "no picture" not in html
    run = bw.train(data, bw.Recipe(**RECIPE), out=tmp_path / "runs", leaks="allow")
    assert "This score cannot be trusted" in (run.path / "report.html").read_text()
    assert "This score cannot be trusted" in (bw.test(run).path / "report.html").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_a_job_that_ends_early_leaves_no_run(
    error: BaseException, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise error

    monkeypatch.setattr("budwood.workflows.train.save_record", ended)
    with pytest.raises(type(error)):
        bw.train(bw.scan(photos), bw.Recipe(**RECIPE), out=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_full_disk_is_one_message_and_leaves_no_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("budwood.workflows.train.save_history", full)
    with pytest.raises(bw.StorageError, match="no space left on the disk"):
        bw.train(bw.scan(photos), bw.Recipe(**RECIPE), out=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_message(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(bw.StorageError, match="cannot be written"):
        bw.train(bw.scan(photos), bw.Recipe(**RECIPE), out=tmp_path / "runs")


def test_splits_without_images_are_told(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for hue, label in enumerate("ab"):
            fill(tmp_path / "d" / split / label, 4, hue=hue, first=0 if split == "train" else 50)
    data = bw.scan(tmp_path / "d")
    run = bw.train(data, bw.Recipe(**RECIPE), out=tmp_path / "runs")
    with pytest.raises(bw.RunError, match="the data set has no test set"):
        bw.test(run)
    for path in (tmp_path / "d" / "val").rglob("*.png"):
        path.write_text("broken")
    with pytest.raises(bw.DataError, match="the val split has no usable images"):
        bw.train(bw.scan(tmp_path / "d"), bw.Recipe(**RECIPE), out=tmp_path / "runs")


def test_runs_that_are_none(run: Run, tmp_path: Path) -> None:
    with pytest.raises(bw.RunError, match="is not a run folder") as caught:
        bw.open_run("nowhere", run.path.parent)
    assert run.path.name in caught.value.hint
    assert bw.open_run(run.path.name, run.path.parent).path == run.path
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{")
    with pytest.raises(bw.RunError, match="cannot be read"):
        bw.open_run(tmp_path / "x")
    (tmp_path / "x" / "run.json").write_text("{}")
    with pytest.raises(bw.RunError, match="KeyError: 'state'"):
        bw.open_run(tmp_path / "x")
    (tmp_path / "x" / "run.json").write_text('{"state": "odd"}')
    with pytest.raises(bw.RunError, match="state 'odd'"):
        bw.open_run(tmp_path / "x")


def test_other_weights_than_the_runs_are_refused_where_only_they_would_do(run: Run, photos: Path) -> None:
    weights = run.record.network.weights.model_copy(update={"digest": "other"})
    network = run.record.network.model_copy(update={"weights": weights})
    stranded = Run(run.path, run.record.model_copy(update={"network": network}))
    with pytest.raises(bw.RunError, match="was trained from other weights"):
        bw.explain.suspects(stranded)
    own, shared = ([dict(one.top) for one in bw.predict(each, [photos])] for each in (stranded, run))
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(own, shared, strict=True))


def test_a_lost_seal_is_told(run: Run) -> None:
    (run.path / "sealed.parquet").unlink()
    with pytest.raises(bw.RunError, match=r"sealed.parquet: cannot be read"):
        bw.test(run)


def test_predictions_refuse_one_image_twice_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(bw.RunError, match="contain an image twice"):
        Predictions(("a", "a"), ("x", "y"), np.zeros(2, np.int32), np.zeros((2, 2), np.float32))
    (tmp_path / "p.parquet").write_text("no")
    with pytest.raises(bw.RunError, match="cannot be read"):
        load_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("script", "name"),
    [("echo NVIDIA H200; echo NVIDIA H200", "NVIDIA H200, NVIDIA H200"), ("exit 9", "none"), (None, "none")],
)
def test_the_accelerator_is_what_the_driver_says(
    script: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_hardware(2).accelerator == name


def test_a_report_can_be_written_again_when_images_are_gone(run: Run, photos: Path) -> None:
    shutil.rmtree(photos)
    (run.path / "report.html").unlink()
    assert "no picture" in (bw.report(run).path / "report.html").read_text()


SMALL = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "epochs": 3, "batch": 8, "lr": 0.01}


@pytest.fixture
def small(photos: Path, tmp_path: Path) -> Run:
    """A run of a small network of which everything was trained."""
    return bw.train(bw.scan(photos), bw.Recipe(**SMALL), out=tmp_path / "runs")


def test_a_network_trained_from_scratch_is_a_whole_run(small: Run, photos: Path, tmp_path: Path) -> None:
    assert {path.name for path in small.path.iterdir()} == {*FILES, "checkpoint"}
    assert small.metrics["val"]["accuracy"]["value"] > 0.9
    assert [row["epoch"] for row in small.history] == [1, 2, 3]
    network = small.record.network
    assert network.parameters.frozen == 0
    assert network.parameters.trainable == sum(p.numel() for p in small.network().parameters())
    opened = bw.test(small)
    assert opened.metrics["test"]["accuracy"]["n"] == small.record.dataset.counts.test
    answers = bw.predict(small, [photos / "sky"])
    assert sum(answer.top[0][0] == "sky" for answer in answers) > 25


def test_its_predictions_are_those_of_its_plain_network(small: Run) -> None:
    predictions = small.predictions("val")
    images = [Image.open(small.dataset().root / path).convert("RGB").resize((16, 16), 3) for path in predictions.paths]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(getattr(small.record.network, name)).view(1, 3, 1, 1) for name in ("mean", "std"))
    module = small.network()
    assert type(module) is torch.nn.Sequential
    with torch.inference_mode():
        assert np.allclose(module((pixels - mean) / std).numpy(), predictions.logits, atol=1e-4)


@pytest.mark.parametrize("model", ["resnet18", "timm:resnet18"])
def test_what_was_trained_loads_without_budwood(model: str, photos: Path, tmp_path: Path) -> None:
    import timm
    import torchvision

    recipe = bw.Recipe(model=model, weights="none", size=32, epochs=1, batch=16)
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    makers = {"resnet18": torchvision.models.resnet18, "timm:resnet18": lambda **k: timm.create_model("resnet18", **k)}
    plain = makers[model](num_classes=2)
    plain.load_state_dict(load_file(run.path / "weights.safetensors"))
    image = torch.rand(2, 3, 32, 32)
    assert type(run.network()) is type(plain)
    assert torch.equal(run.network()(image), plain.eval()(image))


def test_a_cut_network_keeps_the_names_of_its_tensors(photos: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(cut="blocks.2", freeze="upto:blocks.1", size=32, epochs=1, batch=16)
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    assert run.record.prefix.stage == "blocks.1"
    names = set(load_file(run.path / "weights.safetensors"))
    assert {"conv_stem.weight", "blocks.2.0.conv_pw.weight", "classifier.weight"} <= names
    assert not any(name.startswith("blocks.3") for name in names)
    predictions = run.predictions("val")
    first = bw.predict(run, [run.dataset().root / predictions.paths[0]])[0]
    chance = probabilities(predictions.logits[:1])[0]
    assert first.top[0][1] == pytest.approx(float(chance.max()), abs=1e-4)


def test_a_run_is_the_trunk_of_another_and_the_report_says_so(small: Run, tmp_path: Path) -> None:
    for name, first in (("one", 500), ("two", 540), ("three", 580)):
        fill(tmp_path / "others" / name, 20, first=first)
    recipe = bw.Recipe(**{**SMALL, "weights": f"run:{small.path.name}", "freeze": "trunk", "epochs": 2})
    run = bw.train(bw.scan(tmp_path / "others"), recipe, out=tmp_path / "runs")
    weights = run.record.network.weights
    assert (weights.kind, weights.about) == ("run", f"run {small.path.name}, trained on photos")
    theirs, mine = (load_file(place.path / "weights.safetensors") for place in (small, run))
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs if not name.startswith("head"))
    assert mine["head.weight"].shape == (3, 16)
    html = (run.path / "report.html").read_text()
    assert f"it started from the weights of run {small.path.name}, trained on photos" in html
    assert bw.test(run).metrics["test"]["accuracy"]["n"] > 0


def test_what_a_trunk_has_seen_is_left_out_or_refused(small: Run, photos: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(**{**SMALL, "weights": f"run:{small.path.name}", "epochs": 1})
    same = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    assert not any(finding.code == "D023" for finding in same.record.findings)
    for split, keep in (("train", 0), ("val", 1)):
        for name in ("leaf", "sky"):
            (tmp_path / "other" / split / name).mkdir(parents=True)
            for number, file in enumerate(sorted((photos / name).iterdir())):
                if number % 2 == keep:
                    shutil.copy(file, tmp_path / "other" / split / name)
    data = bw.scan(tmp_path / "other")
    with pytest.raises(bw.DataError, match=r"D023: \d+ validation or test files are known to run"):
        bw.train(data, recipe, out=tmp_path / "runs", leaks="refuse")
    run = bw.train(data, recipe, out=tmp_path / "runs", leaks="allow")
    assert "This score cannot be trusted" in (run.path / "report.html").read_text()
    known = set(small.dataset().samples("train").ids)
    run = bw.train(data, recipe, out=tmp_path / "runs")
    assert not known & set(run.dataset().samples("val").ids)
    assert run.record.dataset.left_out == len(known & set(data.samples("val").ids)) > 0
    told = next(finding for finding in run.record.findings if finding.code == "D023")
    assert told.severity == "warning"
    assert told.message.endswith("is used here: left out of validation and test.")
    (tmp_path / "other" / "val").rename(tmp_path / "other" / "test")
    with pytest.raises(bw.DataError, match=r"D023: \d+ validation or test files are known to run"):  # it stays whole
        bw.train(bw.scan(tmp_path / "other"), recipe, out=tmp_path / "runs")


def test_what_a_trunk_has_seen_is_known_over_several_runs(small: Run, photos: Path, tmp_path: Path) -> None:
    fill(tmp_path / "others" / "one", 20, first=500)
    fill(tmp_path / "others" / "two", 20, first=540)
    between = bw.Recipe(**{**SMALL, "weights": f"run:{small.path.name}", "freeze": "trunk", "epochs": 1})
    middle = bw.train(bw.scan(tmp_path / "others"), between, out=tmp_path / "runs")
    last = bw.Recipe(**{**SMALL, "weights": f"run:{middle.path.name}", "epochs": 1})
    data = bw.scan(photos, val=0.5, test=0.3)
    told = rf"known to run {small.path.name}, whose trunk \(all layers before the head\) is used here"
    with pytest.raises(bw.DataError, match=told):
        bw.train(data, last, out=tmp_path / "runs", leaks="refuse")
    shutil.rmtree(small.path)
    assert bw.train(data, last, out=tmp_path / "runs").record.state == "done", "a run that is gone cannot be asked"


def test_a_run_of_another_network_is_no_trunk(small: Run, photos: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(model="resnet18", weights=f"run:{small.path.name}", size=32)
    with pytest.raises(bw.WeightsError, match="holds a cnn of budwood, but the recipe needs resnet18 of torchvision"):
        bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    with pytest.raises(bw.RunError, match="is not a run folder"):
        bw.train(bw.scan(photos), bw.Recipe(model="cnn", weights="run:nothing", epochs=1), out=tmp_path / "runs")
