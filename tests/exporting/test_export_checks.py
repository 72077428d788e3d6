"""No output of an exported file is left unchecked, and no file of the user's is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.errors import RunError
from budwood.exporting import onnx_file
from budwood.workflows import export as export_workflow
from conftest import TINY, fill


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bw.Run:
    folder = tmp_path_factory.mktemp("checks")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    return bw.train(bw.scan(folder / "photos"), Recipe(**TINY), out=folder / "runs")


def scale_output(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Change one output alone; what the graph computes from it stays as it was."""
    before = f"{name}/before"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, one in enumerate(names):
                if one == name:
                    names[place] = before
    model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), f"{name}/factor"))
    model.graph.node.append(helper.make_node("Mul", [before, f"{name}/factor"], [name]))


def tamper(monkeypatch: pytest.MonkeyPatch, name: str, factor: float) -> None:
    build = onnx_file.build_model

    def tampered(*arguments: Any) -> bytes:
        model = onnx.load_from_string(build(*arguments))
        scale_output(model, name, factor)
        return bytes(model.SerializeToString())

    monkeypatch.setattr(export_workflow, "build_model", tampered)


@pytest.mark.parametrize(("name", "factor"), [("logits", -1.0), ("logits", 0.5), ("features", 2.0)])
def test_an_output_beside_the_probabilities_is_checked_too(
    run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, factor: float
) -> None:
    tamper(monkeypatch, name, factor)
    with pytest.raises(RunError, match="answers otherwise than the run, and was not kept") as refusal:
        bw.export(run, tmp_path / "model.onnx")
    assert f"It begins with the {name}" in refusal.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_8_bits_does_not_contradict_itself(
    run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch, "logits", -1.0)
    with pytest.raises(RunError, match="contradicts itself, and was not kept: its logits give other probabilities"):
        bw.export(run, tmp_path / "model.onnx", int8=True)
    assert list(tmp_path.iterdir()) == []


def test_notes_of_the_users_beside_an_export_are_kept(run: bw.Run, tmp_path: Path) -> None:
    bw.export(run, tmp_path / "model.onnx")
    notes = tmp_path / "model.md"
    notes.write_bytes("mine \xe9".encode("latin-1"))
    with pytest.raises(RunError, match=r"model\.md: exists and is no export of Budwood"):
        bw.export(run, tmp_path / "model.onnx")
    assert notes.read_bytes() == "mine \xe9".encode("latin-1")
    bw.export(run, tmp_path / "model.onnx", force=True)
    assert "library_name: budwood" in notes.read_text(encoding="utf-8")
    bw.export(run, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("to", "reason"), [("model.md", "ends in .md, as the model card beside it will"), ("", "is no name of a file")]
)
def test_a_place_without_room_for_model_and_card_is_refused(
    run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=reason):
        bw.export(run, to)
    assert list(tmp_path.iterdir()) == []
