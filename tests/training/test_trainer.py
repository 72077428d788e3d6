"""Phases, augmentation and learning rates through the whole job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import budwood as bw
from budwood.cli.main import run
from budwood.config.recipe import Recipe, load_recipe
from budwood.errors import RecipeError
from budwood.runs.run import Run
from budwood.training.training_record import PrefixRecord, Selected

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "batch": 8}
PHASES = [{"freeze": "trunk", "epochs": 2, "lr": 0.01}, {"freeze": "upto:conv1", "epochs": 3, "lr": 0.002}]


@pytest.fixture
def phased(photos: Path, tmp_path: Path) -> Run:
    """A run of the head alone for two epochs, then of all but the first convolution for three."""
    first = bw.train(bw.scan(photos), bw.Recipe(**SMALL, epochs=1), out=tmp_path / "runs")
    recipe = bw.Recipe(**SMALL, weights=f"run:{first.path.name}", phases=PHASES)
    return bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")


def test_phases_follow_one_another_with_their_own_rates(phased: Run, tmp_path: Path) -> None:
    history = phased.history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["phase"] for row in history] == [1, 1, 2, 2, 2]
    assert [row["lr"] for row in history] == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.002])
    losses = [row["val_loss"] for row in history]
    assert phased.record.selected == Selected(epoch=losses.index(min(losses)) + 1)
    start = next(path for path in (tmp_path / "runs").iterdir() if path.is_dir() and path != phased.path)
    before, after = (load_file(place / "weights.safetensors") for place in (start, phased.path))
    assert np.array_equal(before["conv1.0.weight"], after["conv1.0.weight"])
    assert phased.record.network.parameters.frozen == before["conv1.0.weight"].size + 8
    if (phased.record.selected.epoch or 0) > 2:
        assert not np.array_equal(before["conv2.0.weight"], after["conv2.0.weight"])
    told = (
        "in 2 phases with a batch size of 8: trunk frozen for 2 epochs with a learning rate of 0.01, "
        "then upto:conv1 frozen for 3 epochs"
    )
    assert told in (phased.path / "report.html").read_text()


def test_the_first_phase_uses_the_frozen_prefix_and_predictions_agree(phased: Run) -> None:
    predictions = phased.predictions("val")
    answers = bw.predict(phased, [phased.dataset().root / path for path in predictions.paths])
    assert [a.top[0][0] for a in answers] == [phased.classes[c] for c in predictions.logits.argmax(axis=1)]


def test_a_recipe_with_phases_survives_its_file(tmp_path: Path) -> None:
    recipe = Recipe(**SMALL, phases=PHASES)
    assert recipe.freeze == "upto:conv1"
    (tmp_path / "r.toml").write_text(recipe.toml())
    assert Recipe(**load_recipe(tmp_path / "r.toml")) == recipe
    text = '[{freeze="trunk",epochs=2,lr=0.01},{freeze="upto:conv1",epochs=3,lr=0.002}]'
    assert Recipe(**SMALL, phases=text) == recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": PHASES, "epochs": 3}, "epochs: every phase has its own"),
        (
            {"phases": PHASES, "freeze": "none", "lr": 1.0},
            "freeze: every phase has its own; lr: every phase has its own",
        ),
        ({"phases": PHASES[:1]}, "phases: tuple should have at least 2 items"),
        (
            {"phases": [*PHASES, {"freeze": "none", "epochs": 0, "lr": 1}]},
            "1 mistake: phases: epochs of phase 3: input should be greater than or equal to 1, found 0",
        ),
        (
            {"phases": [{"freeze": "trunk", "epochs": 1}, {**PHASES[0], "frozen_norm": "train"}]},
            "2 mistakes: phases: phase 1 has no lr; "
            "phases: phase 2 has no option frozen_norm; its options are freeze, epochs, lr",
        ),
        (
            {"phases": [{**PHASES[0], "freeze": "none"}] * 2, "frozen_norm": "train"},
            "frozen_norm: expected something frozen",
        ),
        (
            {"phases": PHASES, "optimizer": "lbfgs"},
            "lbfgs solves a linear head on a frozen trunk, not a training in phases",
        ),
    ],
)
def test_phases_asked_wrongly(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**{"model": "cnn", **options})


def test_augmented_training_shows_its_images(photos: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(**SMALL, epochs=2, flip=0.5, rotation=20, zoom=0.2, mixup=0.2)
    made = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    sheet = Image.open(made.path / "augmented.jpg")
    assert sheet.width > sheet.height > 400
    html = (made.path / "report.html").read_text()
    assert "<h2>Augmentation</h2>" in html
    assert "First column: the image as used for validation and test" in html
    assert "<h2>Augmentation</h2>" in (bw.test(made).path / "report.html").read_text()


def test_a_frozen_trunk_is_not_cached_when_images_change(photos: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(size=32, epochs=1, batch=16, flip=0.5)
    made = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    assert made.record.prefix == PrefixRecord(stage=None, computed=0, reused=0)
    assert made.record.network.parameters.trainable == 2 * 1280 + 2


def test_inspect_shows_an_augmentation(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "look.html"
    arguments = ["inspect", str(photos), "--html", str(page), "--augment", "rotation=30", "--augment", "hue=0.2"]
    assert run(arguments) == 0
    assert "<h2>Augmentation</h2>" in page.read_text()
    assert run(["inspect", str(photos), "--augment", "flip=0.5"]) == 2
    assert "needs --html FILE" in capsys.readouterr().err
    assert run([*arguments, "--augment", "flap=1"]) == 2
    assert "flap: there is no such option" in capsys.readouterr().err
    assert run(["inspect", str(photos), "--html", str(page)]) == 0
    assert "<h2>Augmentation</h2>" not in page.read_text()


def test_phases_on_the_command_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phases = '[{freeze="none",epochs=1,lr=0.01},{freeze="upto:conv1",epochs=1,lr=0.001}]'
    arguments = ["train", str(photos), "--out", str(tmp_path / "runs"), "--json", "--model", "cnn", "--size", "16"]
    assert run([*arguments, "--widths", "8", "--fc", "8", "--phases", phases], as_json=True) == 0
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert [phase["epochs"] for phase in recipe["phases"]] == [1, 1]
    assert "lr" not in recipe


def _probabilities(network: Any, run: Run, images: list[np.ndarray]) -> np.ndarray:
    """The mean logits of a plain network over images of one kind, as probabilities [n, classes]."""
    import torch

    mean, std = (torch.tensor(getattr(run.record.network, name)).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        answers = [
            network((torch.from_numpy(np.ascontiguousarray(view)).permute(0, 3, 1, 2) / 255 - mean) / std)
            for view in images
        ]
    return np.asarray(torch.softmax(torch.stack(answers).mean(dim=0), dim=1))


@pytest.mark.parametrize("tta", ["flip", "flips"])
@pytest.mark.parametrize(
    "options",
    [
        {**SMALL, "epochs": 2},
        {**SMALL, "epochs": 2, "freeze": "upto:conv1"},
        {"size": 32},
        {"size": 32, "optimizer": "adam", "epochs": 2},
    ],
    ids=["pixels", "outputs of a prefix", "solved", "descended"],
)
def test_answers_are_means_over_the_views(options: dict[str, Any], tta: str, photos: Path, tmp_path: Path) -> None:
    made = bw.train(bw.scan(photos), bw.Recipe(**options, tta=tta), out=tmp_path / "runs")
    assert "Predictions average the logits of an image and its" in (made.path / "report.html").read_text()
    predictions = made.predictions("val")
    files = [made.dataset().root / path for path in predictions.paths]
    side = made.record.network.size
    plain = np.stack([np.asarray(Image.open(file).convert("RGB").resize((side, side), 3)) for file in files])
    views = [plain, plain[:, :, ::-1], plain[:, ::-1], plain[:, ::-1, ::-1]][: 2 if tta == "flip" else 4]
    expected = _probabilities(made.network(), made, views)
    logits = predictions.logits.astype(np.float64)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(found, expected, atol=2e-3)
    assert not np.allclose(found, _probabilities(made.network(), made, [plain]), atol=1e-6)
    for answer, row in zip(bw.predict(made, files), found, strict=True):
        assert dict(answer.top)[made.classes[int(row.argmax())]] == pytest.approx(float(row.max()), abs=2e-3)
