"""What timm loads of a run answers as the run does; what timm cannot hold is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.images import resize_to_square
from budwood.errors import RunError
from budwood.exporting.timm_folder import write_timm_folder
from budwood.runs.run import Run
from conftest import fill

timm_data: Any = timm.data
BASE: dict[str, Any] = {"weights": "none", "optimizer": "sgd", "lr": 0.01, "epochs": 1, "batch": 8, "size": 64}


@dataclass(frozen=True)
class Photos:
    """Photographs of two classes, and the folder of the runs on them."""

    data: bw.Dataset
    out: Path

    def train(self, **options: Any) -> Run:
        return bw.train(self.data, Recipe(**{**BASE, **options}), out=self.out)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("timm")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 10, hue=hue)
    return Photos(bw.scan(folder / "photos"), folder / "runs")


def load(run: Run, folder: Path) -> Any:
    folder.mkdir()
    write_timm_folder(run, folder)
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize(
    "options",
    [
        {"model": "timm:test_resnet", "freeze": "none"},
        {"model": "timm:test_vit", "freeze": "none", "dropout": 0.2},
        {"model": "timm:test_efficientnet", "freeze": "none", "channels": 1, "resize": "squash"},
    ],
    ids=["convolutions", "transformer of another size, dropout", "grey"],
)
def test_timm_gives_the_runs_logits(options: dict[str, Any], photos: Photos, tmp_path: Path) -> None:
    run = photos.train(**options)
    model = load(run, tmp_path / "timm")
    images = torch.randn((3, run.record.network.channels, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model(images), run.network()(images))


def test_its_configuration_says_how_images_are_read(photos: Photos, tmp_path: Path) -> None:
    run = photos.train(model="timm:test_resnet", freeze="none", interpolation="bilinear")
    model = load(run, tmp_path / "timm")
    settings: Any = timm_data.resolve_data_config({}, model=model)
    network = run.record.network
    assert settings["input_size"] == (3, 64, 64)
    assert (tuple(settings["mean"]), tuple(settings["std"])) == (network.mean, network.std)
    assert (settings["crop_pct"], settings["crop_mode"], settings["interpolation"]) == (1.0, "center", "bilinear")
    transform: Any = timm_data.create_transform(**settings)
    image = Image.linear_gradient("L").convert("RGB").resize((90, 70))
    square = np.asarray(resize_to_square(image, 64, run.recipe.resizing), np.float32)
    expected = ((square / 255 - network.mean) / network.std).transpose(2, 0, 1)
    assert np.abs(transform(image).numpy() - expected).max() < 0.1
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("test_resnet", 2)
    assert config["label_names"] == ["leaf", "sky"]
    rule = run.decision_rule
    assert config["budwood"]["task"] == "single-label"
    assert config["budwood"]["temperature"] == rule.temperature.tolist()
    assert config["budwood"].get("set_limits") == (None if rule.set_limits is None else rule.set_limits.tolist())
    assert not config["pretrained_cfg"].keys() & {"tag", "license"}


@pytest.mark.slow
def test_torchvisions_networks_are_held_where_timm_has_the_same(photos: Photos, tmp_path: Path) -> None:
    run = photos.train(model="resnet18", freeze="none", size=32)
    assert run.record.network.source == "torchvision"
    images = torch.randn((2, 3, 32, 32))
    with torch.inference_mode():
        torch.testing.assert_close(load(run, tmp_path / "timm")(images), run.network()(images))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": "timm:test_resnet", "cut": "layer2"}, "its network is cut after layer2"),
        ({"model": "timm:test_resnet", "head": "mlp:8"}, r"its head is no single linear layer \(it is mlp:8\)"),
        ({"model": "cnn", "widths": (4,), "fc": (4,)}, "cnn is no network of timm's"),
        ({"model": "mobilenet_v3_small", "size": 32}, "mobilenet_v3_small is no network of timm's"),
    ],
    ids=["cut", "hidden layers", "Budwood's own", "torchvision's alone"],
)
def test_what_timm_cannot_hold_is_refused(options: dict[str, Any], why: str, photos: Photos, tmp_path: Path) -> None:
    run = photos.train(**{"freeze": "none", **options})
    with pytest.raises(RunError, match=f"cannot be exported to the format timm: {why}") as raised:
        write_timm_folder(run, tmp_path)
    assert raised.value.hint == "The formats onnx, openvino, torch and web hold every network."
    assert list(tmp_path.iterdir()) == []
