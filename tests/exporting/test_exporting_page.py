"""What docs/exporting.md shows works, where neither Budwood nor PyTorch is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.config.recipe import Recipe
from conftest import TINY, fill, picture

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"
NEEDED = ("numpy", "numpy.libs", "onnxruntime", "PIL", "pillow.libs", "flatbuffers", "google", "packaging")


def read_code(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.onnx`, what the command says of it, a photo, and what the run says of that."""
    folder = tmp_path_factory.mktemp("page")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    run = bw.train(bw.scan(folder / "photos"), Recipe(**TINY), out=folder / "runs")
    made = bw.export(run, folder / "model.onnx")
    (folder / "model.json").write_text(json.dumps({"record": {"classes": made.record.classes}}), encoding="utf-8")
    picture(5, hue=2, side=64).resize((90, 64)).save(folder / "photo.jpg", quality=95)
    (answer,) = bw.Predictor.open(run).predict(folder / "photo.jpg")
    (folder / "expected.json").write_text(json.dumps(answer.top[0]), encoding="utf-8")
    return folder


def check_said(folder: Path, said: str, tolerance: float) -> None:
    name, _, share = said.strip().rpartition(" ")
    expected_name, expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert name == expected_name
    assert float(share) == pytest.approx(expected, abs=tolerance)


def test_ten_lines_of_python_answer_as_the_run(folder: Path, tmp_path: Path) -> None:
    installed = Path(np.__file__).parents[1]
    for name in NEEDED:
        if (installed / name).exists():
            (tmp_path / name).symlink_to(installed / name)
    code = f"import sys\nsys.path.append({str(tmp_path)!r})\n{read_code('python')}\nimport importlib.util as u\n"
    code += "assert not u.find_spec('budwood') and not u.find_spec('torch')\n"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_said(folder, done.stdout, 1e-6)


def test_javascript_answers_as_the_run(folder: Path) -> None:
    node, modules = shutil.which("node"), Path(os.environ.get("NODE_PATH", "none"))
    if node is None or not (modules / "onnxruntime-web").is_dir() or not (modules / "sharp").is_dir():
        pytest.skip("needs node, and onnxruntime-web and sharp in the folder NODE_PATH")
    (folder / "answer.cjs").write_text(read_code("javascript"), encoding="utf-8")
    done = subprocess.run([node, "answer.cjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_said(folder, done.stdout, 0.01)  # sharp decodes JPEG files slightly otherwise than Pillow
