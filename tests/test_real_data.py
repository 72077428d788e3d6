"""Real images and real weights: the figures that the README promises, and the same on a part of the images.

The whole is slow. A part has a few images of each class, among them the copies that are known.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import budwood as bw
from budwood.data import sources
from budwood.data.checks import findings
from budwood.data.listing import select_rows
from budwood.explain.label_errors import find_suspects
from budwood.progress import Silent
from budwood.storage.context import open_context
from budwood.workflows.demo import PUBLISHED, run_demo

MOST: Final = {"train": 32, "test": 12}  # of a class in the part
SAME: Final = ("train/mountain/sclos4.jpg", "train/mountain/sharp59.jpg")
NEAR: Final = ("train/inside_city/urb992.jpg", "train/tallbuilding/urb992.jpg")


@dataclass(frozen=True)
class Scenes:
    """Where the scenes are, and whether they are all there."""

    source: Path
    whole: bool


@pytest.fixture(scope="module", params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def scenes(
    request: pytest.FixtureRequest, real: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Scenes:
    """Photographs of eight kinds of scenes."""
    archive = real("scenes8.tar")
    if request.param == "whole":
        return Scenes(archive, True)
    folder, taken = tmp_path_factory.mktemp("real") / "scenes", Counter[str]()
    with tarfile.open(archive) as tar:
        for member in sorted((one for one in tar if one.isfile()), key=lambda one: one.name):
            kind = str(Path(member.name).parent)
            taken[kind] += member.name not in SAME + NEAR
            if member.name in SAME + NEAR or taken[kind] <= MOST[kind.partition("/")[0]]:
                tar.extract(member, folder, filter="data")
    return Scenes(folder, False)


def test_scenes(scenes: Scenes, tmp_path: Path) -> None:
    data = bw.scan(scenes.source)
    found = {finding.code: finding for finding in findings(data)}
    assert found["D010"].groups == (SAME,)
    assert found["D011"].groups == (NEAR,)
    tested = bw.test(bw.train(data, bw.Recipe(), out=tmp_path))
    accuracy = tested.metrics["test"]["accuracy"]
    assert accuracy["value"] >= (0.95 if scenes.whole else 0.85)
    assert accuracy["n"] == (807 if scenes.whole else 96)


def test_label_errors_planted_in_scenes_are_found(scenes: Scenes, tmp_path: Path) -> None:
    plain = bw.scan(scenes.source)
    random = np.random.default_rng(0)
    paths, labels = plain.table["path"].to_pylist(), plain.column("label")
    free = np.flatnonzero(plain.column("split") != 2)
    flipped = random.choice(free, round(len(free) / 20), replace=False).tolist()
    rows = ["path,label,correct"]
    for row in flipped:
        other = (int(labels[row]) + random.integers(1, len(plain.classes))) % len(plain.classes)
        rows.append(f"{paths[row]},{plain.classes[labels[row]]},{plain.classes[other]}")
    (tmp_path / "flips.csv").write_text("\n".join(rows))
    data = bw.scan(scenes.source, corrections=tmp_path / "flips.csv")
    found = find_suspects(bw.train(data, bw.Recipe(), out=tmp_path / "runs"), open_context())
    named, planted = {one.path for one in found.rows}, {paths[row] for row in flipped}
    assert found.n == pytest.approx(1878 if scenes.whole else len(free), abs=3)
    assert len(named & planted) / len(named) >= 0.7
    assert len(named & planted) / len(planted) >= 0.7


def test_a_probe_on_a_cut_squeezenet_from_a_file(scenes: Scenes, real: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = bw.Recipe(model="squeezenet1_1", weights=str(real("squeezenet1_1_features.pth")), cut="features.11")
    run = bw.train(bw.scan(scenes.source), recipe, out=tmp_path)
    assert "classifier.1.weight [256, 512, 1, 1]" in run.record.network.weights.set_aside
    assert bw.test(run).metrics["test"]["accuracy"]["value"] >= (0.93 if scenes.whole else 0.8)


def test_the_caltech_layout_and_its_leak(real: Callable[[str], Path]) -> None:
    data = bw.scan(real("caltech101_mini.tar"), exclude=["BACKGROUND_Google"])
    assert len(data.classes) == 11
    assert data.split_source == "given, val made"
    leak = next(finding for finding in findings(data) if finding.code == "D021")
    assert leak.groups == (
        ("101_ObjectCategories/anchor/image_0005.jpg", "101_ObjectCategories/anchor/image_0016.jpg"),
    )


@pytest.mark.slow  # .ci/run carries out the whole of it by its command
@pytest.mark.parametrize("every", [8, 1])
def test_the_demo(every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = sources.list_elpv()
    monkeypatch.setitem(sources.BUILT_IN, "elpv", lambda: select_rows(listed, [*range(0, len(listed.paths), every)]))
    said: list[str] = []
    result = run_demo(tmp_path, Silent(), said.append)
    accuracy = result["metrics"]["test"]["accuracy"]
    assert accuracy["n"] == pytest.approx(656 / every, abs=2 if every == 1 else 12)
    assert accuracy["value"] >= (PUBLISHED["support vector machine"] - 0.02 if every == 1 else 0.65)
    assert result["looks"] == 1
    text = "\n".join(said)
    assert all(
        words in text
        for words in ("CC BY-NC-SA 4.0", "82.42 %", "88.42 %", "95 % confidence interval", result["report"])
    )
    assert Path(result["report"]).is_file()
