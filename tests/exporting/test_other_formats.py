"""Every other format of `budwood export` answers as the run does, is checked, and is there whole or not at all."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.images import resize_to_square
from budwood.errors import BudwoodError, RunError
from budwood.exporting import form_answers, other_formats
from budwood.exporting.form_usage import write_square_code
from budwood.exporting.openvino_folder import load_openvino
from budwood.runs.export_record import parse_export_record
from budwood.runs.run import Run
from budwood.workflows import export as workflow
from budwood.workflows.export import export
from conftest import TINY, Notes, picture, run_command

IMAGE = picture(5, 1, 90)


@pytest.fixture(scope="module")
def run(tiny: Path) -> Run:
    return bw.open_run(tiny / "runs" / "one")


@pytest.fixture(scope="module")
def timm_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = Recipe(model="timm:test_resnet", weights="none", freeze="none", size=32, epochs=1, batch=8, lr=0.01)
    return bw.train(bw.scan(tiny / "photos"), recipe, out=tmp_path_factory.mktemp("timm"), id="timm")


@pytest.fixture(autouse=True)
def checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ONNX file is not checked here: `test_parity` and others do that."""
    monkeypatch.setattr(workflow, "check_model", lambda *_: (None, None))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms answer in this process, as another takes seconds to import PyTorch."""
    monkeypatch.setattr(other_formats, "compute_answers", lambda form, *rest: form_answers.FORMS[form](*rest))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["timm", "torch"])
def test_forms_of_pytorch_answer_in_a_process_of_their_own(format: str, timm_run: Run, tmp_path: Path) -> None:
    export(timm_run, tmp_path / "made", format)


def test_openvino_answers_as_the_run(run: Run, tmp_path: Path) -> None:
    notes = Notes()
    export(run, tmp_path / "ir", "openvino", progress=notes)
    assert any(note.startswith("Checked in a process of its own on") for note in notes.kept)
    square = resize_to_square(IMAGE, 16, run.recipe.resizing)
    found = load_openvino(tmp_path / "ir")(np.asarray(square)[None])["probabilities"]
    np.testing.assert_allclose(found, bw.Predictor.open(run).compute_probabilities(IMAGE), atol=1e-5)
    import openvino

    model: Any = openvino.Core().read_model(tmp_path / "ir" / "model.xml")
    record = parse_export_record(model.get_rt_info(["budwood"]).value, "model.xml")
    assert record.classes == run.classes
    assert "openvino.Core().compile_model" in (tmp_path / "ir" / "README.md").read_text()


@pytest.mark.usefixtures("here")
def test_torch_is_a_file_with_its_card(run: Run, tmp_path: Path) -> None:
    made = export(run, tmp_path / "net", "torch")
    assert made.path == tmp_path / "net.pt2"
    assert {path.name for path in tmp_path.iterdir()} == {"net.pt2", "net.md"}
    assert "torch.export.load" in (tmp_path / "net.md").read_text()
    assert export(run, tmp_path / "net", "torch").path == made.path  # an export may be replaced by another


@pytest.mark.usefixtures("here")
def test_timm_is_a_folder_with_its_card(timm_run: Run, tmp_path: Path) -> None:
    export(timm_run, tmp_path / "timm", "timm")
    assert {"README.md", "config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "timm").iterdir()}
    assert "timm.create_model(" in (tmp_path / "timm" / "README.md").read_text()


def test_what_a_format_refuses_leaves_nothing(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = run_command(capsys, "export", run.path, "--to", tmp_path / "timm", "--format", "timm", code=2)
    assert "cannot be exported to the format timm: cnn is no network of timm's" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["openvino", "torch"])
def test_other_answers_are_refused(format: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(form: Any, place: Path, pixels: Any) -> Any:
        return np.tile(np.array([0.5, 0.5], np.float32), (len(pixels), 1))

    monkeypatch.setattr(other_formats, "compute_answers", answer)
    with pytest.raises(RunError, match=f"the exported {format} model answers otherwise than the run: probabilities"):
        export(run, tmp_path / "made", format)
    assert list(tmp_path.iterdir()) == []


def test_answers_of_another_number_are_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_formats, "compute_answers", lambda *_: np.zeros((1, 7), np.float32))
    with pytest.raises(RunError, match="differ in their number"):
        export(run, tmp_path / "made", "torch")


def test_a_form_that_does_not_load_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="The exported openvino model cannot be used"):
        form_answers.compute_answers("openvino", tmp_path, np.zeros((1, 4, 4, 3), np.uint8))


def test_without_openvino_the_message_names_the_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RunError, match="needs the package openvino") as raised:
        export(run, tmp_path / "ir", "openvino")
    assert raised.value.hint == "Install it with `pip install 'budwood[openvino]'`."


def test_a_network_that_openvino_cannot_convert_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from budwood.exporting import openvino_folder

    monkeypatch.setattr(openvino_folder, "drop_resize", lambda *_: b"no model")
    with pytest.raises(RunError, match="OpenVINO cannot convert the network"):
        export(run, tmp_path / "ir", "openvino")


@pytest.mark.parametrize("format", ["openvino", "torch", "timm"])
def test_eight_bits_are_refused_where_there_are_none(format: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"int8: the format {format} has no 8 bits") as raised:
        export(run, tmp_path / "made", format, int8=True)
    assert "onnx, web" in raised.value.hint


@pytest.mark.usefixtures("here")
def test_ensembles_go_into_one_program_and_one_graph(tiny: Path, tmp_path: Path) -> None:
    data = bw.scan(tiny / "photos")
    for seed in (1, 2):
        bw.train(data, Recipe(**{**TINY, "seed": seed}), out=tmp_path / "runs", id=f"r{seed}")
    mean = bw.ensemble(tmp_path / "runs", out=tmp_path / "runs", id="mean")
    for format in ("openvino", "torch"):
        export(mean, tmp_path / format, format)
    with pytest.raises(RunError, match="it is an ensemble of 2 networks"):
        export(mean, tmp_path / "timm", "timm")


def test_networks_of_different_inputs_are_refused_by_openvino(tiny: Path, tmp_path: Path) -> None:
    data = bw.scan(tiny / "photos")
    for size in (16, 24):
        bw.train(data, Recipe(**{**TINY, "size": size}), out=tmp_path / "runs", id=f"r{size}")
    mean = bw.ensemble(tmp_path / "runs", out=tmp_path / "runs", id="mean")
    with pytest.raises(RunError, match="its networks see images of different sizes"):
        export(mean, tmp_path / "ir", "openvino")


@pytest.mark.usefixtures("here")
def test_mirror_images_are_in_the_program_and_the_graph(tiny: Path, tmp_path: Path) -> None:
    run = bw.train(bw.scan(tiny / "photos"), Recipe(**{**TINY, "tta": "flips"}), out=tmp_path / "runs")
    for format in ("openvino", "torch"):
        export(run, tmp_path / format, format)


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "area"])
def test_the_code_of_a_card_makes_the_runs_squares(resize: Any, interpolation: Any, run: Run) -> None:
    recipe = run.recipe.model_copy(update={"resize": resize, "interpolation": interpolation})
    other = replace(run, record=run.record.model_copy(update={"recipe": recipe}))
    for size in ((90, 61), (20, 200), (16, 16)):
        image = IMAGE.resize(size)
        names: dict[str, Any] = {"Image": Image, "image": image}
        builtins.exec(write_square_code(other), names)
        expected = resize_to_square(image, 16, recipe.resizing)
        np.testing.assert_array_equal(np.asarray(names["image"]), np.asarray(expected))


@pytest.mark.slow
def test_the_code_of_a_card_runs(timm_run: Run, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "photo.jpg", quality=100)
    for format in ("openvino", "timm", "torch"):
        made = export(timm_run, tmp_path / format, format)
        card = made.path.with_suffix(".md") if format == "torch" else made.path / "README.md"
        code = card.read_text().partition("```python\n")[2].partition("```")[0]
        code = code.replace("THIS_FOLDER", str(made.path)).replace("THIS_FILE.pt2", str(made.path))
        code = code.replace('"model.xml"', f'"{made.path}/model.xml"')
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_web_folder_tells_of_the_run(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path / "web", "web")
    text = (tmp_path / "web" / "about.js").read_text()
    about = json.loads(text.partition("about: ")[2].rpartition("};")[0])
    assert (about["name"], about["classes"], about["size"]) == ("photos", ["leaf", "sky"], 16)
    assert any(term == "Accuracy, validation images" and "n = " in told for term, told in about["facts"])
    assert {"LICENSE.txt", "ThirdPartyNotices.txt", "index.html"} <= {one.name for one in (tmp_path / "web").iterdir()}


def test_deep_images_are_told_in_the_page(run: Run) -> None:
    from budwood.data.value_range import ValueRange

    data = run.record.dataset.model_copy(update={"value_range": ValueRange(0, 4095)})
    other = replace(run, record=run.record.model_copy(update={"dataset": data}))
    assert any("more than 8 bits" in told for _, told in other_formats.list_facts(other))


def test_an_unknown_format_lists_the_known_ones(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BudwoodError, match="there is no format 'tflite'") as raised:
        export(run, tmp_path / "x", "tflite")
    assert "onnx, openvino, timm, torch, web" in raised.value.hint
