"""A `torch.export` program answers as the run does, for any number of images, and loads without Budwood."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import budwood as bw
from budwood.evaluation.decisions import DecisionRule
from budwood.exporting.destination import PROGRAM_NOTE
from budwood.exporting.torch_program import PixelsToProbabilities, export_program, write_torch_program
from budwood.runs.run import Run
from conftest import TINY, picture

PIXELS = np.stack([np.asarray(picture(seed, seed % 3, 16)) for seed in range(5)])
ALONE = """\
import json, sys, torch
extra = {"budwood.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
answers = program(torch.tensor(json.load(sys.stdin), dtype=torch.uint8))
assert not [name for name in sys.modules if name.startswith(("budwood", "timm", "torchvision"))]
print(json.dumps([answers["probabilities"].tolist(), json.loads(extra["budwood.json"])]))
"""


@pytest.fixture(scope="module")
def run(tiny: Path) -> Run:
    return bw.open_run(tiny / "runs" / "one")


@pytest.mark.slow
def test_another_process_gets_the_runs_answers_with_torch_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    write_torch_program(run, file, {"classes": list(run.classes)})
    code = subprocess.run(
        [sys.executable, "-c", ALONE, str(file)],
        input=json.dumps(PIXELS.tolist()),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={},
    )
    shares, note = json.loads(code.stdout)
    expected = bw.Predictor.open(run).compute_probabilities([Image.fromarray(pixels) for pixels in PIXELS])
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    assert note == {"classes": ["leaf", "sky"]}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"channels": 1}, id="grey"),
        pytest.param(
            {"model": "timm:test_vit", "weights": "none", "size": 32, "widths": (), "fc": ()},
            id="transformer",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_inputs(options: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    recipe = {name: value for name, value in {**TINY, **options}.items() if value != ()}
    run = bw.train(bw.scan(tiny / "photos"), bw.Recipe(**recipe), out=tmp_path)
    size = run.record.network.size
    images = [Image.fromarray(pixels).resize((size, size)) for pixels in PIXELS]
    program: Any = export_program(PixelsToProbabilities(run).eval(), size).module()
    answers = program(torch.from_numpy(np.stack([np.asarray(image) for image in images])))
    expected = bw.Predictor.open(run).compute_probabilities(images)
    np.testing.assert_allclose(answers["probabilities"].detach(), expected, atol=1e-5)


def test_a_program_that_is_loaded_answers_as_the_run(run: Run, tmp_path: Path) -> None:
    write_torch_program(run, tmp_path / "net.pt2", {})
    program: Any = torch.export.load(tmp_path / "net.pt2").module()
    expected = bw.Predictor.open(run).compute_probabilities([Image.fromarray(pixels) for pixels in PIXELS])
    np.testing.assert_allclose(program(torch.from_numpy(PIXELS))["probabilities"].detach(), expected, atol=1e-5)


def test_temperatures_are_in_the_probabilities(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PixelsToProbabilities(run).eval()(torch.from_numpy(PIXELS))
    rule = replace(run.decision_rule, temperature=np.array([2.5]))
    monkeypatch.setattr(Run, "decision_rule", property(lambda self: rule))
    warm = PixelsToProbabilities(run).eval()(torch.from_numpy(PIXELS))
    torch.testing.assert_close(warm["logits"], plain["logits"])
    assert isinstance(rule, DecisionRule)
    np.testing.assert_allclose(
        warm["probabilities"].detach(), rule.to_probabilities(plain["logits"].detach().numpy()), atol=1e-6
    )


def test_a_network_for_a_fixed_number_of_images_is_exported_for_one() -> None:
    class Fixed(nn.Module):
        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            if pixels.shape[0] == 1:
                return {"logits": pixels.float().mean(dim=(1, 2))}
            raise ValueError("one image at a time")

    program: Any = export_program(Fixed(), 4).module()
    assert program(torch.ones((1, 4, 4, 3), dtype=torch.uint8))["logits"].tolist() == [[1.0, 1.0, 1.0]]


def test_the_note_is_found_by_its_name(run: Run, tmp_path: Path) -> None:
    write_torch_program(run, tmp_path / "net.pt2", {"task": "single-label"})
    extra = {PROGRAM_NOTE: ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    assert json.loads(extra[PROGRAM_NOTE]) == {"task": "single-label"}
