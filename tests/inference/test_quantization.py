"""A network in 8 bits answers like the network, and is not used where it answers worse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_feature_cache import Noted

import budwood as bw
from budwood.cli.main import run as command
from budwood.inference import quantization
from budwood.runs.run import Run


@pytest.fixture
def small(photos: Path, tmp_path: Path) -> Run:
    """A small network that tells the two classes apart."""
    recipe = bw.Recipe(model="cnn", widths=[8, 16], fc=[16], size=32, epochs=3, lr=0.01, batch=8)
    return bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")


def _answers(run: Run, photos: Path, cache: Path, said: Noted | None = None, int8: bool = True) -> np.ndarray:
    answers = bw.predict(run, [photos], cache=cache, int8=int8, progress=said or Noted())
    return np.array([dict(answer.top)[run.classes[0]] for answer in answers])


def test_eight_bits_answer_nearly_alike(small: Run, photos: Path, tmp_path: Path) -> None:
    said = Noted()
    eight, full = (
        _answers(small, photos, tmp_path / "cache", said),
        _answers(small, photos, tmp_path / "cache", int8=False),
    )
    assert 0 < np.abs(eight - full).max() < 0.05
    n = len(small.predictions("val").labels)
    assert said.notes[-1] == f"int8 is used: {n} of {n} validation images are correct with 8 bits, {n} with 32 bits."
    graph = next((tmp_path / "cache").rglob("int8.onnx"))
    assert b"QuantizeLinear" in graph.read_bytes()
    before = graph.stat().st_mtime_ns
    assert np.array_equal(_answers(small, photos, tmp_path / "cache"), eight)
    assert graph.stat().st_mtime_ns == before


def test_eight_bits_that_answer_worse_are_not_used(
    small: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = _answers(small, photos, tmp_path / "cache", int8=False)
    real = quantization._count_correct
    counts = iter([3, 4])
    monkeypatch.setattr(quantization, "_count_correct", lambda predictions: min(real(predictions), next(counts)))
    said = Noted()
    assert np.array_equal(_answers(small, photos, tmp_path / "cache", said), full)
    n = len(small.predictions("val").labels)
    assert said.notes[-1] == (f"int8 is not used: 3 of {n} validation images are correct with 8 bits, 4 with 32 bits.")


class Clipped(torch.nn.Sequential):
    """A network with bounded activations, whose bounds ONNX Runtime warns that it removes."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            torch.nn.Conv2d(3, 4, 3),
            torch.nn.ReLU6(),
            torch.nn.Conv2d(4, 4, 3),
            torch.nn.ReLU6(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, classes),
        )


def test_the_runtime_says_nothing_of_its_own(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = bw.Recipe(model="test_quantization:Clipped", weights="none", size=32, epochs=1, lr=0.01, freeze="none")
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    capfd.readouterr()
    _answers(run, photos, tmp_path / "cache")
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_eight_bits_need_a_graph(small: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "has_cuda_device", lambda: True)
    said = Noted()
    _answers(small, photos, tmp_path / "cache", said)
    assert said.notes[-1] == "int8 is not used: it needs a network that runs with ONNX Runtime on a CPU."


def test_the_command_predicts_in_eight_bits(small: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["predict", str(small.path), str(photos / "sky"), "--int8", "--json"]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 30
    assert "int8 is " in told.err
