"""The same layer of a run, of other runs and of the network before training, beside each other."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import budwood as bw
from budwood.cli.main import run as command
from budwood.errors import DataError, RecipeError
from budwood.explain import side_by_side
from budwood.explain.convolutions import draw_channel_weights, draw_filters, filter_pictures, read_filters
from budwood.explain.feature_visualization import maximise
from budwood.explain.side_by_side import open_untrained
from budwood.networks.weights import find_imagenet, read_tensors
from budwood.runs.run import Run, open_run
from budwood.storage.context import open_context
from budwood.workflows.explain import explain_run
from conftest import fill
from subjects import SMALL, opened

RECIPE: dict[str, Any] = {
    "model": "cnn",
    "weights": "none",
    "widths": [8, 8],
    "pools": [1, 2],
    "fc": [16],
    "size": 32,
    "batch": 8,
    "optimizer": "adam",
    "epochs": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `base`, and `best`, which began with the weights of `base` and kept the first stage."""
    made = tmp_path_factory.mktemp("beside")
    fill(made / "photos" / "leaf", 12, hue=1)
    fill(made / "photos" / "sky", 12, hue=2)
    base = bw.train(bw.scan(made / "photos"), bw.Recipe(**RECIPE), out=made / "runs")
    recipe = bw.Recipe(**{**RECIPE, "weights": f"run:{base.path}", "freeze": "upto:conv1", "lr": 0.01})
    best = bw.train(bw.scan(made / "photos"), recipe, out=made / "runs", leaks="allow")
    (made / "names.json").write_text(json.dumps([base.path.name, best.path.name]))
    return made


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> tuple[Run, Run]:
    """Copies of both, of which everything may be changed."""
    shutil.copytree(folder / "runs", tmp_path / "runs")
    base, best = json.loads((folder / "names.json").read_text())
    return open_run(tmp_path / "runs" / base), open_run(tmp_path / "runs" / best)


def _files(run: Run, count: int = 2) -> list[Path]:
    return [run.root / path for path in run.predictions("val").paths[:count]]


@pytest.fixture(autouse=True)
def _draw_roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    """How well channels are drawn is not asked here."""
    monkeypatch.setattr(side_by_side, "maximise", partial(maximise, steps=2))


def test_maps_of_the_same_layer_and_channels(runs: tuple[Run, Run]) -> None:
    base, best = runs
    files = _files(best)
    own, before, other = bw.explain.maps_beside(best, ["start", base], files, "conv2.0")
    assert [one.network for one in (own, before, other)] == [best.path.name, "start", base.path.name]
    for one, run in ((own, best), (other, base)):
        expected = bw.explain.feature_maps(run, files, "conv2.0").values[:, list(own.channels)]
        np.testing.assert_array_equal(one.maps, expected)
    np.testing.assert_array_equal(before.maps, other.maps)  # it began with the weights of the other run
    assert own.channels == other.channels == before.channels
    varied = bw.explain.feature_maps(best, files, "conv2.0").varied
    assert own.channels[0] == int(varied.argmax())
    assert not other.same
    frozen = bw.explain.maps_beside(best, [base], files, "conv1", channels=[3, 1])
    assert frozen[1].same
    assert frozen[0].maps.shape[:2] == (2, 2)


def test_what_the_same_channels_look_for(runs: tuple[Run, Run]) -> None:
    base, best = runs
    own, other = bw.explain.maximised_beside(best, [base], _files(best), "conv2.0", channels=[4, 2])
    assert [one.target.channel for one in own.drawn] == [one.target.channel for one in other.drawn] == [4, 2]
    assert own.drawn[0].after != other.drawn[0].after
    chosen, same = bw.explain.maximised_beside(best, ["start"], _files(best), "fc1")
    assert [one.target.channel for one in chosen.drawn] == [one.target.channel for one in same.drawn]
    assert len(chosen.drawn) == 6


def test_the_page_shows_layers_side_by_side(runs: tuple[Run, Run]) -> None:
    base, best = runs
    found, page = explain_run(
        best, open_context(), parts=["maps", "units"], place=["conv1.0", "layer 3"], beside=["start", base]
    )
    table = found.record.table()
    assert [[layer["layer"] for layer in row] for row in table["maps"]["rows"]] == [["conv1.0"] * 3, ["conv2.0"] * 3]
    assert [layer["same"] for layer in table["maps"]["rows"][0]] == [False, True, True]
    assert len(table["maps"]["paths"]) == 2
    html = page.read_text()
    assert "<h2>Feature maps of layers</h2>" in html
    assert "<h2>What channels of layers look for</h2>" in html
    assert "<b>start</b> (before training): the same maps as the first" in html
    assert f"<b>{base.path.name}</b>" in html
    assert "Conv2d, layer 3; 8 × " in html
    assert len([name for name in found.pictures if name.startswith("maps-")]) == 2 * 2 * 3
    assert len([name for name in found.pictures if name.startswith("unit-")]) == 2 * 6 * 3
    explain_run(best, open_context(), parts=["filters"], place="last")
    kept = (best.path / "report.html").read_text()
    assert "<h2>Feature maps of layers</h2>" in kept
    assert "<h3>conv2.0</h3>" in kept


def test_the_command_takes_several_layers(runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    base, best = runs
    image = str(_files(best)[0])
    asked = ["explain", best.path.name, image, "--out", str(best.path.parent), "--show", "maps"]
    assert (
        command([*asked, "--place", "first", "--place", "layer 2", "--place", "first", "--beside", base.path.name]) == 0
    )
    said = capsys.readouterr().out
    assert said.count("conv1.0 (Conv2d, layer 1): maps of 8 channels in 2 networks.") == 1, "named twice, shown once"
    assert "conv1.1 (ReLU, layer 2): maps of 8 channels in 2 networks." in said
    assert f"Page: {best.path / 'explained.html'}" in said
    assert command([*asked[:2], *asked[3:], "--channel", "5", "--json"], as_json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row[0]["layer"] for row in answer["maps"]["rows"]] == ["conv1.0", "conv2.0"]  # the first and the last
    assert answer["maps"]["rows"][0][0]["channels"] == [5]
    assert command([*asked, "--place", "conv2.9"]) == 2
    said = capsys.readouterr().err
    assert "place: 'conv2.9' is not a layer of cnn." in said
    assert "Did you mean 'conv2." in said
    assert command([*asked, "--beside", "nothing"]) == 2
    assert "nothing: is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"parts": ["maps"], "place": "fc1"}, "place: fc1 of cnn has no feature map; it gives 16 values for an image"),
        ({"parts": ["maps", "filters"], "place": "conv1"}, "layer: 'conv1' is not a convolution of cnn"),
        ({"parts": ["units"], "channels": [8]}, r"channel: conv1\.0 of cnn has no channel 8"),
        (
            {"parts": ["units"], "place": "head", "beside": ["start"]},
            "place: head lies in the head of cnn, which 'start'",
        ),
        ({"parts": ["maps"], "beside": ["strat"]}, "beside: 'strat' is neither a run nor a start"),
        ({"parts": ["filters"], "beside": ["start"]}, "beside: is only used by the parts `maps` and `units`"),
        ({"parts": ["images"], "channels": [1]}, "channel: is only used by the parts `maps` and `units`"),
        (
            {"parts": ["stages"], "place": "conv1"},
            "place: is only used by the parts `images`, `filters`, `maps` and `units`",
        ),
        ({"parts": ["images", "maps"], "place": "conv1"}, "place: is the stage of `images`, or the layers of `maps`"),
        ({"place": ["conv1", "conv2"]}, "place: the part `images` uses one stage, found 2"),
    ],
)
def test_what_layers_cannot_show(runs: tuple[Run, Run], asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        explain_run(runs[1], open_context(), **asked)
    assert not (runs[1].path / "explanation.json").exists()


def test_too_many_images_for_maps(runs: tuple[Run, Run]) -> None:
    with pytest.raises(DataError, match="13 images are too many for the parts maps and units"):
        explain_run(runs[0], open_context(), _files(runs[0], 1) * 13, parts=["maps"])


def test_the_network_with_imagenet_weights(cache: Path) -> None:
    recipe = bw.Recipe(model="timm:tf_efficientnet_lite0", weights="none", size=32)
    run = cast(Run, SimpleNamespace(recipe=recipe, classes=("a", "b")))
    probe = open_untrained(run, "imagenet", open_context(cache))
    weights = find_imagenet(probe.plan.name, probe.plan.origins, open_context(cache))
    assert weights.path is not None
    first = next(tensor for tensor in read_tensors(weights.path).values() if tensor.ndim == 4)
    np.testing.assert_array_equal(probe.module.state_dict()["conv_stem.weight"].numpy(), first.numpy())


def test_filters_by_input_channel(cache: Path, runs: tuple[Run, Run]) -> None:
    filters = read_filters(opened(cache, **SMALL))
    drawn = draw_channel_weights(filters)
    assert list(drawn) == ["red", "green", "blue"]
    assert {picture.size for picture in drawn.values()} == {draw_filters(filters).size}
    strongest = filter_pictures(filters)[filters.order[0]]
    for channel, picture in enumerate(drawn.values()):
        assert abs(picture.getpixel((0, 0))[0] - 255 * strongest[0, 0, channel]) < 1  # type: ignore[index]
    assert draw_channel_weights(read_filters(opened(cache, **SMALL), "last")) == {}
    found, page = explain_run(runs[0], open_context(), parts=["filters"])
    assert {f"filters-conv1.0-{colour}" for colour in drawn} <= set(found.pictures)
    assert "what they weigh red, green and blue with" in page.read_text()
