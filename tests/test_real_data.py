"""Real images and real weights: the figures that the README promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.data.checks import findings
from budwood.explain.label_errors import find_suspects
from budwood.progress import Silent
from budwood.storage.context import open_context
from budwood.workflows.demo import PUBLISHED, run_demo


def test_scenes(real: Callable[[str], Path], tmp_path: Path) -> None:
    data = bw.scan(real("scenes8.tar"))
    found = {finding.code: finding for finding in findings(data)}
    assert found["D010"].groups == (("train/mountain/sclos4.jpg", "train/mountain/sharp59.jpg"),)
    assert found["D011"].groups == (("train/inside_city/urb992.jpg", "train/tallbuilding/urb992.jpg"),)
    tested = bw.test(bw.train(data, out=tmp_path))
    assert tested.metrics["test"]["accuracy"]["value"] >= 0.95
    assert tested.metrics["test"]["accuracy"]["n"] == 807


def test_label_errors_planted_in_scenes_are_found(real: Callable[[str], Path], tmp_path: Path) -> None:
    plain = bw.scan(real("scenes8.tar"))
    random = np.random.default_rng(0)
    paths, labels = plain.table["path"].to_pylist(), plain.column("label")
    flipped = random.choice(np.flatnonzero(plain.column("split") != 2), 94, replace=False).tolist()
    rows = ["path,label,correct"]
    for row in flipped:
        other = (int(labels[row]) + random.integers(1, len(plain.classes))) % len(plain.classes)
        rows.append(f"{paths[row]},{plain.classes[labels[row]]},{plain.classes[other]}")
    (tmp_path / "flips.csv").write_text("\n".join(rows))
    data = bw.scan(real("scenes8.tar"), corrections=tmp_path / "flips.csv")
    found = find_suspects(bw.train(data, out=tmp_path / "runs"), open_context())
    named, planted = {one.path for one in found.rows}, {paths[row] for row in flipped}
    assert found.n == pytest.approx(1878, abs=2)
    assert len(named & planted) / len(named) >= 0.7
    assert len(named & planted) / len(planted) >= 0.7


def test_a_probe_on_a_cut_squeezenet_from_a_file(real: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = bw.Recipe(model="squeezenet1_1", weights=str(real("squeezenet1_1_features.pth")), cut="features.11")
    run = bw.train(bw.scan(real("scenes8.tar")), recipe, out=tmp_path)
    assert "classifier.1.weight [256, 512, 1, 1]" in run.record.network.weights.set_aside
    assert bw.test(run).metrics["test"]["accuracy"]["value"] >= 0.93


def test_the_caltech_layout_and_its_leak(real: Callable[[str], Path]) -> None:
    data = bw.scan(real("caltech101_mini.tar"), exclude=["BACKGROUND_Google"])
    assert len(data.classes) == 11
    assert data.split_source == "given, val made"
    leak = next(finding for finding in findings(data) if finding.code == "D021")
    assert leak.groups == (
        ("101_ObjectCategories/anchor/image_0005.jpg", "101_ObjectCategories/anchor/image_0016.jpg"),
    )


def test_the_demo(tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(tmp_path, Silent(), said.append)
    accuracy = result["metrics"]["test"]["accuracy"]
    assert accuracy["n"] == pytest.approx(656, abs=2)
    assert accuracy["value"] >= PUBLISHED["support vector machine"] - 0.02
    assert result["looks"] == 1
    text = "\n".join(said)
    assert all(
        words in text
        for words in ("CC BY-NC-SA 4.0", "82.42 %", "88.42 %", "95 % confidence interval", result["report"])
    )
    assert Path(result["report"]).is_file()
