"""The wheel works where there is nothing else: in an environment of its own, used outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from conftest import fill

ROOT: Final = Path(__file__).parents[1]
UV: Final = Path(sys.executable).with_name("uv")
SMALL: Final = ("--model", "cnn", "--widths", "4", "--fc", "4", "--size", "16", "--epochs", "1")


def _index() -> dict[str, str]:
    """uv does not read pip's settings: the index that pip is set to, where one is set."""
    if "UV_DEFAULT_INDEX" in os.environ:
        return {}
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL", told)
    return {"UV_DEFAULT_INDEX": index} if index else {}


@pytest.mark.slow
def test_the_wheel_works_alone(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment = {**kept, **_index(), "BUDWOOD_CACHE": str(tmp_path / "cache")}
    pins = ROOT / "constraints.txt"

    def carry_out(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        return done.stdout

    carry_out(UV, "build", "--quiet", "--wheel", "--build-constraints", pins, "--out-dir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    carry_out(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "alone")
    python = tmp_path / "alone" / "bin" / "python"
    carry_out(UV, "pip", "install", "--quiet", "--python", python, "--constraint", pins, f"{wheel}[demo]")
    budwood = python.with_name("budwood")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(tmp_path / "photos" / name, 15, hue=hue)

    assert carry_out(budwood, "--version").startswith("budwood, version 0.")
    home = carry_out(python, "-c", "import budwood; print(budwood.__file__)")
    assert home.startswith(str(tmp_path / "alone"))
    assert json.loads(carry_out(budwood, "inspect", "elpv", "--json"))["n"] == 2624
    run = json.loads(carry_out(budwood, "train", "photos", *SMALL, "--json"))["run"]
    assert (tmp_path / run / "report.html").is_file()
    carry_out(budwood, "export", run, "--to", "page", "--format", "web")
    assert (tmp_path / "page" / "index.html").is_file()
    assert json.loads(carry_out(budwood, "predict", run, "photos", "--json"))
