"""A run whose head sees earlier stages does all that a run does, and answers the same everywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import budwood as bw
from budwood.errors import RunError
from budwood.explain import label_errors
from budwood.storage.context import open_context
from budwood.training import head_solver
from budwood.training.linear_head import HeadSplit
from budwood.workflows import learning_curve
from conftest import fill, picture, run_command

NETWORKS: dict[str, dict[str, Any]] = {
    "convolutions": {"model": "resnet18", "size": 32, "taps": ("layer1", "layer2")},
    "transformer": {"model": "timm:test_vit", "size": 32, "taps": ("blocks.1", "norm")},
}


@dataclass(frozen=True)
class Trained:
    """A run of a frozen network with random weights, and the folder of its images."""

    run: bw.Run
    photos: Path


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("tapped")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    recipe = bw.Recipe(**NETWORKS[request.param], weights="none", freeze="trunk")
    run = bw.train(bw.scan(folder / "photos"), recipe, out=folder / "runs", id="tapped")
    return Trained(run, folder / "photos")


def test_its_record_says_what_the_head_sees(trained: Trained) -> None:
    network = trained.run.record.network
    widths = {"resnet18": [64, 128], "test_vit": [64, 64]}[network.name]
    trunk = {"resnet18": 512, "test_vit": 64}[network.name]
    assert [tap.features for tap in network.taps] == widths
    assert network.blocks == (*widths, trunk)
    assert network.features == sum(network.blocks)
    assert not network.trunk_trained
    record = json.loads((trained.run.path / "run.json").read_text())
    assert [tap["name"] for tap in record["network"]["taps"]] == list(trained.run.recipe.taps or ())
    assert bw.open_run(trained.run.path).record.network == network


def test_wherever_heads_are_solved_each_block_counts_by_itself(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[HeadSplit] = []
    solve = head_solver.solve

    def note(train: HeadSplit, *rest: Any) -> Any:
        seen.append(train)
        return solve(train, *rest)

    for place in (head_solver, label_errors, learning_curve):
        monkeypatch.setattr(place, "solve", note)
    run = trained.run
    bw.train(bw.scan(trained.photos), run.recipe, out=run.path.parent)
    assert [split.blocks for split in seen] == [run.record.network.blocks]
    label_errors.find_suspects(run, open_context(None), folds=2)
    assert [split.blocks for split in seen] == [run.record.network.blocks] * 3
    monkeypatch.setattr(learning_curve, "LEAST_IMAGES", 2)
    bw.learning_curve(run)
    assert len(seen) > 3
    assert {split.blocks for split in seen} == {run.record.network.blocks}


def test_network_predictor_and_exported_file_answer_the_same(trained: Trained, tmp_path: Path) -> None:
    run, image = trained.run, np.asarray(picture(77, 1))
    answer = bw.Predictor.open(run).predict(image, features=True)[0]
    assert answer.features is not None
    assert answer.probabilities is not None
    assert len(answer.features) == run.record.network.features
    head = run.network().get_submodule(run.record.network.head)
    logits = head(torch.from_numpy(answer.features)[None])
    scaled = torch.softmax(logits / float(run.decision_rule.temperature.reshape(-1)[0]), dim=1)[0].detach().numpy()
    np.testing.assert_allclose(answer.probabilities, scaled, atol=1e-4)
    file = bw.export(run, tmp_path / "model.onnx").path
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"image": image[None]}), strict=True))
    np.testing.assert_allclose(found["probabilities"][0], answer.probabilities, atol=1e-5)
    np.testing.assert_allclose(found["features"][0], answer.features, rtol=1e-3, atol=1e-4)


def test_timms_form_is_refused_with_the_forms_that_hold_it(trained: Trained, tmp_path: Path) -> None:
    names = ", ".join(trained.run.recipe.taps or ())
    with pytest.raises(RunError, match=rf"to the format timm: its head sees earlier stages, too \({names}\)") as caught:
        bw.export(trained.run, tmp_path / "folder", "timm")
    assert caught.value.hint == "The formats onnx, openvino, torch and web hold every network."


def test_report_card_and_explanation_name_the_taps(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained.run
    first = (run.recipe.taps or ())[0]
    bw.report(run)
    page, card = ((run.path / name).read_text() for name in ("report.html", "model_card.md"))
    assert f"{first} (tap)" in page
    assert "The head sees the mean of each stage marked (tap)" in page
    assert "whose head sees the means of" in page
    assert "whose head sees the means of" in card.replace("\\", "")
    out, _ = run_command(capsys, "explain", run.path, "--method", "grad-cam")
    assert f"The maps of grad-cam after {first} " in out
    files = sorted((trained.photos / "leaf").glob("*.png"))[:2]
    assert bw.explain.attribution(run, files, "grad-cam").place == first
    assert np.isfinite(bw.explain.attribution(run, files, "occlusion").maps).all()
    assert bw.explain.attribution(run, files, "integrated-gradients").maps.max() > 0


@pytest.mark.parametrize(
    ("freeze", "kept"), [("upto:blocks.2", "blocks.2"), ("upto:blocks.3", "blocks.2"), ("none", None)]
)
def test_what_is_trained_past_the_taps_answers_as_its_own_network(
    freeze: str, kept: str | None, photos: Path, tmp_path: Path
) -> None:
    recipe = bw.Recipe(
        **{"model": "timm:test_efficientnet", "size": 64, "taps": "blocks.2,blocks.3", "weights": "none"},
        **{"freeze": freeze, "optimizer": "sgd", "lr": 0.01, "epochs": 1, "batch": 8},
    )
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    assert run.record.prefix.stage == kept
    again = bw.resume(run, epochs=2)
    assert len(again.history) == 2
    image = np.asarray(picture(78, 2, side=64))
    answer = bw.Predictor.open(again).predict(image)[0]
    network = again.record.network
    pixels = ((image / 255 - network.mean) / network.std).transpose(2, 0, 1)[None].astype(np.float32)
    logits = again.network().eval()(torch.from_numpy(pixels)).detach()
    expected = torch.softmax(logits / float(again.decision_rule.temperature.reshape(-1)[0]), dim=1)[0].numpy()
    assert answer.probabilities is not None
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
