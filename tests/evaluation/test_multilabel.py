"""Images with several labels each, or none: from the table to the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as reference
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

import budwood as bw
from budwood.cli.main import run
from budwood.config.label_rules import adapt_to_labels
from budwood.config.losses import BinaryCrossEntropy, Focal
from budwood.config.recipe import Recipe
from budwood.data.dataset import load, make_membership_matrix
from budwood.evaluation.label_task import MultiLabel
from budwood.evaluation.logits import binary_cross_entropy
from budwood.runs.run import Run, open_run
from budwood.training.losses import make_loss

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (32,), "size": 16, "batch": 8, "lr": 0.01}
NAMES = ("bright", "left", "top")


def _pictures(folder: Path, count: int) -> list[str]:
    """Noise, brighter throughout, on the left, at the top, or any of these together; the labels of each."""
    random = np.random.default_rng(0)
    told = []
    for number in range(count):
        has = random.random(3) < 0.5
        pixels = random.integers(0, 60, (24, 24, 3))
        pixels[..., 2] += 150 * int(has[0])
        pixels[:, :8, 0] += 150 * int(has[1])
        pixels[:8, :, 1] += 150 * int(has[2])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        told.append("; ".join(name for name, one in zip(NAMES, has, strict=True) if one))
    return told


def _table(folder: Path) -> Path:
    labels = _pictures(folder, 160)
    lines = [f'{number}.png,"{text}"' for number, text in enumerate(labels)]
    (folder / "photos.csv").write_text("path,labels\n" + "\n".join(lines) + "\n")
    return folder / "photos.csv"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file with the column `labels`."""
    return _table(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("several")
    return bw.train(bw.scan(_table(folder)), bw.Recipe(**SMALL, epochs=30), out=folder / "runs")


@pytest.fixture
def made(trained: Run, tmp_path: Path) -> Run:
    """A copy of it, which may be changed."""
    shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name)
    return open_run(tmp_path / "runs" / trained.path.name)


def test_a_table_with_labels_becomes_sets_of_classes(table: Path, tmp_path: Path) -> None:
    data = bw.scan(table)
    assert data.classes == NAMES
    assert () in data.label_sets, "an image may have none of the labels"
    rows = [line.split(",", 1) for line in table.read_text().splitlines()[1:]]
    wanted = {path: {name.strip() for name in text.strip('"').split(";") if name.strip()} for path, text in rows}
    labels = dict(zip(data.column("path").tolist(), data.column("label").tolist(), strict=True))
    for path, names in wanted.items():
        assert {NAMES[c] for c in data.label_sets[labels[path]]} == names
    counts = data.counts()
    training = data.samples("train")
    assert (
        list(counts["train"].values())
        == make_membership_matrix(training.label_sets, 3)[training.labels].sum(axis=0).tolist()
    )
    data.sealed().save(tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet").label_sets == data.label_sets
    table.write_text(table.read_text().replace("bright", "dark"))
    assert bw.scan(table).fingerprint != data.fingerprint


def test_it_learns_them_and_keeps_the_evidence(made: Run) -> None:
    scores = made.metrics["val"]
    assert set(scores) == {"accuracy", "macro_f1", "mean_average_precision", "log_loss", "per_class"}
    assert scores["macro_f1"]["value"] > 0.9
    assert scores["mean_average_precision"]["value"] > 0.95
    assert made.record.recipe.loss == "binary_cross_entropy"
    predictions = made.predictions("val")
    assert predictions.targets.shape == predictions.logits.shape
    history = made.history[(made.record.selected.epoch or 0) - 1]
    assert history["val_accuracy"] == pytest.approx(scores["accuracy"]["value"])
    assert history["val_loss"] == pytest.approx(scores["log_loss"]["value"], rel=1e-5)
    tested = bw.test(made)
    assert tested.metrics["test"]["mean_average_precision"]["n"] == made.record.dataset.counts.test
    html = (made.path / "report.html").read_text()
    assert "all labels of an image correct" in html
    assert "mean average precision" in html
    assert "Confusion matrix" not in html
    assert "all labels</td>" in html
    answers = bw.predict(made, [made.dataset().root / path for path in predictions.paths[:5]])
    assert tested.record.confidence
    assert tested.record.confidence.calibration
    temperature = np.array(tested.record.confidence.calibration.temperature)
    for answer, logits in zip(answers, predictions.logits, strict=False):
        expected = 1 / (1 + np.exp(-logits / temperature))
        assert answer.probabilities == pytest.approx(expected, abs=1e-3)
        assert dict(answer.top)[NAMES[int(expected.argmax())]] == pytest.approx(expected.max(), abs=1e-3)


def test_a_frozen_trunk_and_the_command_line(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(table), "--size", "32", "--out", str(table.parent / "runs")]
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert "several labels (multi-label), so the head is trained in steps (adam)" in " ".join(said.err.split())
    assert "all labels of an image correct" in said.out
    assert "Validation mean average precision" in said.out
    assert run([*arguments, "--json", "--dry-run"]) == 0
    assert [row["rung"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["frozen", "fine-tuned", "together"]
    assert run([*arguments, "--optimizer", "adam", "--json", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["loss"] == "binary_cross_entropy"
    assert run(["inspect", str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == list(NAMES)


def test_the_loss_is_pytorchs() -> None:
    logits, targets = torch.randn(7, 4), (torch.rand(7, 4) < 0.4).float()
    loss = make_loss(BinaryCrossEntropy(), np.zeros(3, np.int32), 4, "cpu")
    expected = torch.nn.BCEWithLogitsLoss()(logits, targets)
    assert torch.allclose(loss(logits, targets), expected)
    found = binary_cross_entropy(targets.numpy() > 0, logits.numpy())
    assert found.mean() == pytest.approx(float(expected), rel=1e-6)


SETS = ((), (0,), (0, 2), (1,))
NUMBERS = np.array([0, 1, 1, 2, 2, 3, 1, 0], np.int32)  # labels 0, 1, 2 and 3 are of 5, 1, 2 and 0 of 8 images


def _losses_and_slopes(*losses: Callable[[Tensor, Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The values of losses, and their gradients by the same logits."""
    torch.manual_seed(4)
    logits, targets = torch.randn(7, 4, requires_grad=True), (torch.rand(7, 4) < 0.4).float()
    values = [loss(logits, targets) for loss in losses]
    return [(value.detach(), torch.autograd.grad(value, logits)[0]) for value in values]


def test_class_weights_are_pytorchs_positive_weights() -> None:
    weight = torch.tensor([3 / 5, 7.0, 6 / 2, 8.0])
    ours = make_loss(BinaryCrossEntropy(class_weights=True), NUMBERS, 4, "cpu", SETS)
    found, expected = _losses_and_slopes(ours, torch.nn.BCEWithLogitsLoss(pos_weight=weight))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_loss_is_torchvisions(gamma: float) -> None:
    ours = make_loss(Focal(gamma=gamma), NUMBERS, 4, "cpu", SETS)
    theirs = partial(sigmoid_focal_loss, alpha=-1, gamma=gamma, reduction="mean")
    found, expected = _losses_and_slopes(ours, theirs)
    torch.testing.assert_close(found, expected)


def test_focal_loss_with_class_weights_at_gamma_0_is_the_weighted_binary_cross_entropy() -> None:
    weighed = [
        make_loss(each, NUMBERS, 4, "cpu", SETS)
        for each in (Focal(gamma=0.0, class_weights=True), BinaryCrossEntropy(class_weights=True))
    ]
    found, expected = _losses_and_slopes(*weighed)
    torch.testing.assert_close(found, expected)


def test_several_labels_have_class_weights_and_focal_loss_of_which_the_head_is_trained_in_steps() -> None:
    weighed = adapt_to_labels(Recipe(class_weights=True), True)
    assert (weighed.loss, weighed.class_weights, weighed.optimizer) == ("binary_cross_entropy", True, "adam")
    assert adapt_to_labels(Recipe(loss="focal", focal_gamma=1.5), True).loss == "focal"
    assert adapt_to_labels(Recipe(select="mean_average_precision"), True).select == "mean_average_precision"


def test_rare_labels_are_found_more_often_with_class_weights(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().replace("bright; ", "", 60).splitlines()
    table.write_text("\n".join(lines) + "\n")
    plain, weighed, focal = (
        bw.train(bw.scan(table), bw.Recipe(**SMALL, epochs=2, **more), out=tmp_path)
        for more in ({}, {"class_weights": True}, {"loss": "focal"})
    )
    assert focal.recipe.loss == "focal"
    assert {"val_accuracy", "val_mean_average_precision"} <= weighed.history[0].keys()
    rarest = min(NAMES, key=lambda name: plain.record.dataset.counts.train[name])
    before, after = (
        run.task.to_probabilities(run.predictions("val").logits)[:, NAMES.index(rarest)].mean()
        for run in (plain, weighed)
    )
    assert after > before


def test_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(3)
    targets = random.random((120, 4)) < [0.5, 0.3, 0.1, 0.7]
    logits = (random.normal(size=(120, 4)) + targets).astype(np.float32)
    found = MultiLabel(4).evaluate(targets, logits, ("a", "b", "c", "d"))
    called = logits > 0
    assert found["accuracy"]["value"] == pytest.approx(reference.accuracy_score(targets, called))
    assert found["macro_f1"]["value"] == pytest.approx(reference.f1_score(targets, called, average="macro"))
    assert found["mean_average_precision"]["value"] == pytest.approx(
        reference.average_precision_score(targets, logits, average="macro")
    )
    for c, name in enumerate("abcd"):
        of_class = found["per_class"][name]
        assert of_class["recall"]["value"] == pytest.approx(reference.recall_score(targets[:, c], called[:, c]))
        assert of_class["average_precision"]["value"] == pytest.approx(
            reference.average_precision_score(targets[:, c], logits[:, c])
        )
    assert MultiLabel(4).score("auroc", targets, logits) == pytest.approx(reference.roc_auc_score(targets, logits))
    assert MultiLabel(4).score("macro_f1", targets, logits) == found["macro_f1"]["value"]
    assert MultiLabel(4).score("accuracy", targets, logits) == found["accuracy"]["value"]
    for name in ("macro_f1", "mean_average_precision", "accuracy"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_intervals_of_the_mean_average_precision_cover_at_about_their_rate() -> None:
    random = np.random.default_rng(5)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        targets = random.random((n, 2)) < 0.4
        return targets, (random.normal(size=(n, 2)) + 1.2 * targets).astype(np.float32)

    truth = MultiLabel(2).score("mean_average_precision", *drawn(40_000))
    hits = 0
    for _ in range(40):
        found = MultiLabel(2).evaluate(*drawn(80), ("a", "b"))["mean_average_precision"]
        hits += found["low"] <= truth <= found["high"]
    assert hits >= 34


@pytest.mark.parametrize(
    ("options", "multilabel", "message"),
    [
        ({"loss": "binary_cross_entropy"}, False, "is for multi-label data; these images have one label each"),
        ({"regularisation": 5.0}, True, "regularisation: not used for multi-label data"),
        ({"loss": "demo:own", "class_weights": True}, True, "class_weights: for multi-label data not used by a loss"),
        ({"select": "mean_average_precision"}, False, "select: mean_average_precision is for multi-label data"),
        ({"label_smoothing": 0.1}, True, "label_smoothing: not used for multi-label data"),
        ({"balanced_sampling": True}, True, "balanced_sampling: not used for multi-label data"),
        ({"logit_adjustment": 1.0}, True, "logit_adjustment: not used for multi-label data"),
        ({"select": "balanced_accuracy"}, True, "select: balanced_accuracy is not defined"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], multilabel: bool, message: str) -> None:
    with pytest.raises(bw.RecipeError, match=message):
        adapt_to_labels(Recipe(**options), multilabel)


def test_the_recipe_of_a_run_makes_it_again(made: Run) -> None:
    from budwood.config.recipe import load_recipe

    recipe = Recipe(**load_recipe(made.path / "recipe.toml"))
    assert adapt_to_labels(recipe, True) == recipe
    longer = bw.resume(made, epochs=31)
    assert longer.metrics["val"]["macro_f1"]["value"] > 0.9


def test_leaving_a_class_out_is_refused(table: Path) -> None:
    with pytest.raises(bw.DataError, match="--exclude cannot be used with multi-label data"):
        bw.scan(table, exclude=["left"])
