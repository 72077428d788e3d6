"""`budwood explain`: what a run has learned is found out, kept with it and shown, and nothing else is changed."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_stages import NETWORKS

import budwood as bw
from budwood.cli.main import run as command
from budwood.errors import DataError, RecipeError, RunError
from budwood.explain import feature_visualization
from budwood.explain.explain_request import USUAL
from budwood.runs.explanation_record import EXPLANATION_FILE, load_explanation
from budwood.runs.run import Run, open_run
from budwood.storage.context import open_context
from budwood.workflows.explain import explain_run
from conftest import fill

SMALL: dict[str, Any] = {
    "model": "cnn",
    "weights": "none",
    "widths": [8, 8],
    "pools": [1, 2],
    "fc": [16],
    "size": 32,
    "batch": 8,
    "optimizer": "adam",
    "epochs": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small network that was trained on two classes."""
    folder = tmp_path_factory.mktemp("explained")
    fill(folder / "photos" / "leaf", 20, hue=1)
    fill(folder / "photos" / "sky", 20, hue=2)
    return bw.train(bw.scan(folder / "photos"), bw.Recipe(**SMALL), out=folder / "runs")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy of it, of which everything may be changed."""
    folder = tmp_path / "runs" / trained.path.name
    shutil.copytree(trained.path, folder)
    return open_run(folder)


def _draw_roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw in few steps what a class or channel looks for: how well it is drawn is not asked here."""
    monkeypatch.setattr(feature_visualization, "maximise", partial(feature_visualization.maximise, steps=4))


def _content(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}


def test_a_run_is_explained_in_its_report_and_else_stays_as_it_was(run: Run) -> None:
    before = _content(run.path)
    found, page = explain_run(run, open_context())
    assert found.record.parts == USUAL
    assert page == run.path / "report.html"
    html = page.read_text()
    headings = (
        "Where the network looks",
        "From the first stage to the last",
        "Filters",
        "Map of the images",
        "Subsets of images (slices)",
    )
    for heading in (*headings, "Possible label errors"):
        assert f"<h2>{heading}</h2>" in html
    assert html.count('class="pair of-') == len(found.record.table()["images"]["rows"])
    after = _content(run.path)
    new = {EXPLANATION_FILE, "label-suspects.csv"}
    assert set(after) == set(before) | new
    assert {name for name in before if before[name] != after[name]} == {"report.html", "model_card.md"}


def test_what_is_shown_of_an_image_is_what_was_predicted(run: Run) -> None:
    found, _ = explain_run(run, open_context(), parts=["images"])
    predictions = run.predictions("val")
    shown = {row["path"]: row for row in found.record.table()["images"]["rows"]}
    assert found.record.table()["images"]["chosen"]
    assert set(shown) <= set(predictions.paths)
    for path, row in shown.items():
        at = predictions.paths.index(path)
        shares = np.exp(predictions.logits[at]) / np.exp(predictions.logits[at]).sum()
        assert row["label"] == run.classes[predictions.labels[at]]
        assert row["called"] == row["explained"] == run.classes[int(shares.argmax())]
        assert row["probability"] == pytest.approx(shares.max(), abs=1e-4)
        assert [one["likeness"] for one in row["near"]] == sorted((o["likeness"] for o in row["near"]), reverse=True)
    method = found.record.table()["images"]["methods"]["layer-cam"]
    assert method["deletion"]["n"] == len(shown)


def test_parts_that_are_asked_for_later_are_added(run: Run) -> None:
    explain_run(run, open_context(), parts=["filters"])
    explain_run(run, open_context(), parts=["mistakes"])
    kept = load_explanation(run.path)
    assert kept is not None
    assert kept.record.parts == ("filters", "mistakes")
    html = (run.path / "report.html").read_text()
    assert "<h2>Filters</h2>" in html
    assert "<h2>Subsets of images (slices)</h2>" in html


def test_classes_are_drawn_when_they_are_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _draw_roughly(monkeypatch)
    found, page = explain_run(run, open_context(), parts=["classes"])
    assert [row["name"] for row in found.record.table()["classes"]["rows"]] == ["leaf", "sky"]
    assert "<h2>What each class looks for</h2>" in page.read_text()


def test_images_have_a_page_of_their_own_and_the_run_stays_as_it_was(run: Run, tmp_path: Path) -> None:
    before = _content(run.path)
    files = fill(tmp_path / "new", 3, first=900, hue=1)
    found, page = explain_run(
        run, open_context(), [tmp_path / "new"], methods=["grad-cam", "occlusion"], page=tmp_path / "page.html"
    )
    assert [row["path"] for row in found.record.table()["images"]["rows"]] == [str(file) for file in files]
    assert {row["label"] for row in found.record.table()["images"]["rows"]} == {None}
    assert page.read_text().count("data:image/jpeg") >= 3 * 3
    assert _content(run.path) == before
    _, usual = explain_run(run, open_context(), files[:1])
    assert usual == run.path / "explained.html"


def test_an_empty_folder_is_not_the_whole_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: contains no files to explain"):
        explain_run(run, open_context(), [tmp_path / "empty"])


def test_a_class_that_is_named_is_explained_in_every_image(run: Run) -> None:
    found, _ = explain_run(run, open_context(), parts=["images"], called="sky")
    assert {row["explained"] for row in found.record.table()["images"]["rows"]} == {"sky"}


def test_further_training_makes_an_explanation_stale(run: Run) -> None:
    explain_run(run, open_context(), parts=["filters"])
    bw.resume(run, epochs=3)
    assert load_explanation(run.path) is None
    assert "budwood explain" in (run.path / "report.html").read_text()


def test_a_network_without_maps_is_explained_by_occlusion(tmp_path: Path, photos: Path) -> None:
    recipe = bw.Recipe(model="mlp", weights="none", fc=[16], size=16, epochs=1, optimizer="adam", batch=8)
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    found, page = explain_run(run, open_context())
    assert list(found.record.table()["images"]["methods"]) == ["occlusion"]
    assert found.record.table()["filters"]["rows"] == ()
    assert found.record.table()["stages"]["rows"] == ()
    assert "The network has no convolution." in page.read_text()


def test_grey_images_and_a_frozen_trunk_are_explained(tmp_path: Path, photos: Path) -> None:
    grey = bw.Recipe(**{**SMALL, "channels": 1, "epochs": 1})
    first = bw.train(bw.scan(photos), grey, out=tmp_path / "runs")
    frozen = bw.Recipe(**{**SMALL, "channels": 1, "weights": f"run:{first.path}", "freeze": "trunk", "lr": 0.01})
    for run in (first, bw.train(bw.scan(photos), frozen, out=tmp_path / "runs", leaks="allow")):
        found, _ = explain_run(run, open_context())
        assert found.record.table()["filters"]["rows"][0]["colour"] is False
        assert found.record.table()["labels"]["n"] > 0


def test_images_with_several_labels_have_no_suspects(tmp_path: Path) -> None:
    for name, hue in (("a", 0), ("b", 1), ("c", 2)):
        fill(tmp_path / "photos" / name, 12, hue=hue)
    with (tmp_path / "photos" / "labels.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["path", "labels"])
        for name, labels in (("a", "x"), ("b", "x;y"), ("c", "y")):
            table.writerows([f"{name}/{file.name}", labels] for file in sorted((tmp_path / "photos" / name).iterdir()))
    recipe = bw.Recipe(**{**SMALL, "epochs": 1})
    run = bw.train(bw.scan(tmp_path / "photos" / "labels.csv"), recipe, out=tmp_path / "runs")
    found, page = explain_run(run, open_context())
    assert found.record.table()["labels"] == {"reason": "the images have several labels each"}
    assert found.record.table()["mistakes"]["pairs"] == ()
    assert "Not looked for: the images have several labels each." in page.read_text()


def test_a_table_that_somebody_has_filled_in_is_kept(run: Run) -> None:
    first = run.path / "label-suspects.csv"
    explain_run(run, open_context(), parts=["labels"])
    explain_run(run, open_context(), parts=["labels"])
    filled = "path,label,correct\nleaf/001.png,leaf,sky\n"
    first.write_text(filled)
    (run.path / "label-suspects-2.csv").write_text("not a table of corrections")
    found, _ = explain_run(run, open_context(), parts=["labels"])
    assert found.record.table()["labels"]["file"] == str(run.path / "label-suspects-3.csv")
    assert first.read_text() == filled
    assert (run.path / "label-suspects-2.csv").read_text() == "not a table of corrections"


def test_too_few_images_for_folds_are_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    for number, place in enumerate(("train/leaf", "train/sky", "val/leaf", "val/sky")):
        fill(tmp_path / "photos" / place, 1, first=number, hue=1 + number % 2)
    run = bw.train(bw.scan(tmp_path / "photos"), bw.Recipe(**{**SMALL, "epochs": 1}), out=tmp_path / "runs")
    found, page = explain_run(run, open_context())
    assert "has too few different images for 5 folds" in found.record.table()["labels"]["reason"]
    assert "Not looked for: " in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_is_explained(model: str, tmp_path: Path, photos: Path) -> None:
    recipe = bw.Recipe(model=model, weights="none", size=NETWORKS[model], freeze="trunk")
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    found, page = explain_run(run, open_context())
    assert list(found.record.table()["images"]["methods"]) == ["layer-cam", "grad-cam"]
    assert found.record.table()["stages"]["rows"]
    assert found.record.table()["filters"]["rows"][0]["colour"]
    assert "<h2>Possible label errors</h2>" in page.read_text()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"parts": ["filter"]}, "show: there is no part 'filter'"),
        ({"methods": ["gradcam"]}, "method: there is no method 'gradcam'"),
        ({"called": "ski"}, "class: there is no class 'ski'"),
        ({"place": "layer9", "parts": ["images"]}, "place: 'layer9' is not a stage of this network"),
        ({"place": "conv2", "methods": ["occlusion"]}, "place: not used by occlusion, found 'conv2'"),
        ({"called": "sky", "parts": ["filters"]}, "class: is only used by the part `images`"),
    ],
)
def test_what_does_not_exist_cannot_be_asked_for(run: Run, asked: dict[str, Any], message: str) -> None:
    before = _content(run.path)
    with pytest.raises(RecipeError, match=message):
        explain_run(run, open_context(), **asked)
    assert _content(run.path) == before


def test_images_that_are_not_there_or_cannot_be_read(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        explain_run(run, open_context(), [tmp_path / "nothing.png"])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as images"):
        explain_run(run, open_context(), [tmp_path / "broken.png"])
    moved = Run(run.path, run.record.model_copy(update={"root": str(tmp_path / "elsewhere")}))
    with pytest.raises(RunError, match="the validation images are missing from"):
        explain_run(moved, open_context(), parts=["images"])
    with pytest.raises(DataError, match="No images were given"):
        bw.explain.pixels(run, [])
    with pytest.raises(DataError, match="201 images are too many for one page"):
        explain_run(run, open_context(), [Path(run.record.root) / run.predictions("val").paths[0]] * 201)


def test_a_damaged_explanation_says_so(run: Run) -> None:
    (run.path / EXPLANATION_FILE).write_text("{")
    with pytest.raises(RunError, match=r"explanation.json: cannot be read"):
        bw.report(run)


def test_the_command_tells_and_answers_in_json(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(file) for file in fill(tmp_path / "new", 2, first=800, hue=2)]
    assert command(["explain", str(run.path), *files]) == 0
    told = capsys.readouterr().out
    assert f"{files[0]}: " in told
    assert f"Page: {run.path / 'explained.html'}" in told
    assert command(["explain", str(run.path), "--show", "filters", "--json"], as_json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["filters"]["rows"][0]["filters"] == 8
    assert answer["page"] == str(run.path / "report.html")
    assert command(["explain", str(run.path), "--html", "x.html"]) == 2
    assert "--html: needs IMAGES. Without them, the results go into the report of the run." in capsys.readouterr().err


def test_the_functions_answer_for_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _draw_roughly(monkeypatch)
    root = Path(run.record.root)
    files = [root / path for path in run.predictions("val").paths[:3]]
    found = bw.explain.attribution(run, files, "grad-cam")
    assert found.maps.shape == (3, 32, 32)
    assert bw.explain.faithfulness(run, files, found).deletion.mean["n"] == 3
    assert bw.explain.sanity(run, files).places
    assert bw.explain.filters(run).weights.shape[:2] == (8, 3)
    name = bw.explain.filters(run).layer
    assert bw.explain.feature_maps(run, files, name).values.shape[:2] == (3, 8)
    assert bw.explain.seen_through(run, files[0], name, [0, 2]).shape[0] == 2
    assert bw.explain.strip(run, files[0]).stages
    assert [len(one.ids) for one in bw.explain.neighbours(run, files, 2)] == [2, 2, 2]
    assert len(bw.explain.embedding(run)) == len(run.predictions("val").ids)
    assert bw.explain.maximised(run, ["sky"])[0].target.channel == 1
    with pytest.raises(RecipeError, match="classes: there is no class 'sea'"):
        bw.explain.maximised(run, ["sea"])
    with pytest.raises(RecipeError, match="channels: expected numbers of channels of 'first', found none"):
        bw.explain.maximised(run, place="first")
    with pytest.raises(RecipeError, match="channels: expected the layer that they are of"):
        bw.explain.maximised(run, channels=[1])
    with pytest.raises(RecipeError, match="classes: cannot be drawn beside the channels of a layer"):
        bw.explain.maximised(run, ["sky"], place="first", channels=[1])
    with pytest.raises(RecipeError, match=r"channel: \S+ of cnn has no channel -1"):
        bw.explain.maximised(run, place="first", channels=[-1])
