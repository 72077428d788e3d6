"""What a notebook shows of explanations: pictures and figures with their intervals, small and self-contained."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.explain.deletion_insertion import Curve, Faithfulness, Gain
from budwood.explain.embeddings import Embedding
from budwood.explain.heatmaps import Attribution
from budwood.explain.label_errors import Suspect, Suspects
from budwood.explain.sanity_checks import SanityCheck

HOSTILE = "<b>&"


def _embedding() -> Embedding:
    points, labels = np.random.default_rng(0).normal(size=(9, 2)), np.arange(9, dtype=np.int32) % 2
    names = tuple(map(str, range(9)))
    correct = np.arange(9) != 4
    return Embedding("pca", "val", points, (0.6, 0.3), names, names, labels, labels, correct, 9)


def _attribution() -> Attribution:
    maps = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    chances, empty = np.array([0.9, 0.4], np.float32), np.array([False, True])
    found = Attribution("layer-cam", HOSTILE, np.array([0, 1]), chances, maps, chances, empty)
    return replace(found, pixels=pixels, names=(HOSTILE, "sky"))


def _suspects() -> Suspects:
    rows = tuple(Suspect(f"{HOSTILE}/{n}", str(n), "val", HOSTILE, "sky", 0.01, 0.9) for n in range(14))
    return Suspects(rows, 0.5, 0.5, "", 13, 40, 0, 5, proportion_interval(30, 40), "ImageNet")


SHARE = Metric(0.31, 0.2, 0.4, 12)
CURVE = Curve(np.zeros((1, 2), np.float32), np.zeros(1), SHARE)
GAINS = {"deletion": Gain(0.31, 0.2, 0.4, 12, p=0.01), "insertion": Gain(0.1, None, None, 5, p=0.5)}
SHOWN: dict[str, tuple[Any, str, int]] = {
    "Attribution": (_attribution(), "Attribution(layer-cam at <b>&: 2 images)", 2),
    "Suspects": (_suspects(), "Suspects(14 of 40 images, about 13 expected)", 0),
    "Embedding": (_embedding(), "Embedding(pca of 9 val images, 1 mistake)", 0),
    "SanityCheck": (
        SanityCheck("layer-cam", None, ("head",), (SHARE,), SHARE, True),
        "SanityCheck(layer-cam: depends on the learned weights)",
        0,
    ),
    "Faithfulness": (
        Faithfulness(CURVE, CURVE, CURVE, CURVE, GAINS),
        "Faithfulness(deletion 0.31, insertion 0.1)",
        0,
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_it_is_a_line_and_html_with_everything_escaped(name: str) -> None:
    value, line, pictures = SHOWN[name]
    assert repr(value) == line
    html = value._repr_html_()
    assert "<b>" not in html
    assert "http" not in html
    assert html.count("<img ") == pictures
    assert len(html) < 40_000


def test_figures_have_their_intervals_and_n() -> None:
    assert "0.31 (0.20 to 0.40, n = 12)" in SHOWN["SanityCheck"][0]._repr_html_()
    assert "0.31 (0.20 to 0.40, n = 12)" in SHOWN["Faithfulness"][0]._repr_html_()
    assert "0.10 (n = 5)" in SHOWN["Faithfulness"][0]._repr_html_()
    html = _suspects()._repr_html_()
    assert re.search(r"75\.0 % \(\d+\.\d to \d+\.\d %, n = 40\)", html)
    assert "12 of 14 rows" in html


def test_a_mistake_is_a_triangle_above_the_dots() -> None:
    html = _embedding()._repr_html_()
    assert html.count("<circle") == 8
    assert html.count("<polygon") == 1
    assert html.rindex("<circle") < html.index("<polygon")


def test_a_map_without_its_image_is_still_shown() -> None:
    assert replace(_attribution(), pixels=None, names=())._repr_html_().count("<img ") == 2


def test_those_of_a_real_run_are_drawn(tiny: Path) -> None:
    run, file = bw.open_run(tiny / "runs" / "one"), tiny / "photos" / "leaf" / "000.png"
    found = bw.explain.attribution(run, file, "occlusion")
    assert found.pixels is not None
    assert found.pixels.shape == (1, 16, 16, 3)
    assert found.names == run.classes
    shown: list[Any] = [
        found,
        bw.explain.filters(run),
        bw.explain.strip(run, file),
        bw.explain.feature_maps(run, file, "first"),
    ]
    for one in (*shown, *bw.explain.maximised(run, classes="sky")):
        assert 'src="data:image/' in one._repr_html_()
        assert len(repr(one)) < 120
