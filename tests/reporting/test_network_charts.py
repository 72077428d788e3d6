"""A stage's row says what surgery made of it and how it moved."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from budwood.networks.network_plan import StagePlan
from budwood.reporting.network_charts import draw_network, draw_norms
from budwood.training.history import split_by_stage

HOSTILE = '<b>&"\n\x07🌳'


def _row(name: str, shape: list[int], parameters: int, trainable: int) -> StagePlan:
    return StagePlan(name=name, shape=tuple(shape), parameters=parameters, trainable=trainable, macs=0)


STAGES = [
    _row("conv1", [16, 16, 16], 448, 0),
    _row("pool", [16, 8, 8], 0, 0),
    _row("layer1", [32, 8, 8], 4640, 4640),
    _row(HOSTILE, [64, 32], 900, 300),
    _row("fc", [3], 99, 99),
]
REMOVED = [_row("layer2", [64, 4, 4], 18496, 0)]


def _diagram() -> ElementTree.Element:
    return ElementTree.fromstring(draw_network(HOSTILE, (3, 32, 32), STAGES, REMOVED, "fc"))


def test_the_diagram_says_of_every_stage_what_it_is() -> None:
    said = _diagram().findtext("desc")
    assert said is not None
    assert "image 3 x 32 x 32 no parameters; conv1 16 x 16 x 16 frozen; pool 16 x 8 x 8 no parameters" in said
    assert "layer1 32 x 8 x 8 trained" in said
    assert "64 x 32 partly trained" in said
    assert "layer2 64 x 4 x 4 cut off; fc (head) 3 new head" in said


def test_bars_are_as_wide_as_maps_are_large_and_as_thick_as_they_have_channels() -> None:
    bars = {
        (rect.findtext("title") or "").partition(":")[0]: (float(rect.get("width", 0)), float(rect.get("height", 0)))
        for rect in _diagram().iter("rect")
        if rect.find("title") is not None
    }
    widths, heights = ({name: bar[axis] for name, bar in bars.items()} for axis in (0, 1))
    assert (
        widths["image"] > widths["conv1"] > widths["layer1"] == widths["pool"] > widths["layer2"] > widths["fc (head)"]
    )
    assert heights["layer2"] > heights["layer1"] > heights["conv1"] > heights["image"]


def test_a_long_name_keeps_its_end() -> None:
    row = _row("encoder.layers.encoder_layer_11", [1024, 112, 112], 1, 1)
    tree = ElementTree.fromstring(draw_network("t", (3, 224, 224), [row, _row("head", [3], 9, 9)], [], "head"))
    (text,) = (element.text or "" for element in tree.iter("text") if (element.text or "").endswith("er_11"))
    assert text.startswith("…")
    assert len(text) < 20


def test_a_figure_draws_only_in_the_colours_of_the_page() -> None:
    chart = draw_norms("t", {"a": [1.0, 2.0]}, {"a": [0.1, 0.01]})
    for tree in (_diagram(), ElementTree.fromstring(chart)):
        for element in tree.iter():
            for attribute in ("fill", "stroke"):
                assert element.get(attribute, "none") == "none" or element.get(attribute, "").startswith("var(--")


def test_norms_tell_how_far_weights_moved_and_how_large_gradients_were() -> None:
    weights = {"conv1": [2.0, 2.0, 2.0], "layer1": [math.nan, 4.0, 5.0], HOSTILE: [1.0, 0.9, 0.8]}
    gradients = {"conv1": [0.0, 0.0, 0.0], "layer1": [math.nan, 0.5, 0.02], HOSTILE: [1.0, 1.0, 3.0]}
    tree = ElementTree.fromstring(draw_norms("t", weights, gradients))
    said = tree.findtext("desc")
    assert said is not None
    assert "conv1 frozen; layer1 weights +25.00 %, gradients 0.02" in said
    assert "weights -20.00 %, gradients 3" in said
    assert len(list(tree.iter("polyline"))) == 4


@pytest.mark.parametrize("values", [[0.0, 0.0], [math.nan, math.nan], [0.0, 1.0]])
def test_norms_that_tell_nothing_are_drawn_all_the_same(values: list[float]) -> None:
    assert ElementTree.fromstring(draw_norms("t", {"a": values}, {"a": [0.0, 1.0]})).findtext("title") == "t"


def test_a_stage_that_a_phase_did_not_tell_of_is_no_number_there() -> None:
    rows = [{"epoch": 1.0, "weight/head": 1.0}, {"epoch": 2.0, "weight/head": 2.0, "weight/layer4": 3.0}]
    found = split_by_stage(rows, "weight/")
    assert found["head"] == [1.0, 2.0]
    assert math.isnan(found["layer4"][0])
    assert found["layer4"][1] == 3.0
    assert split_by_stage(rows, "gradient/") == split_by_stage([], "weight/") == {}


def test_a_change_that_is_no_number_is_a_dash() -> None:
    for values in ([0.0, 1.0], [math.nan, math.nan]):
        drawn = draw_norms("t", {"a": values}, {"a": [0.1, 0.2]})
        assert "nan" not in drawn
        texts = ["".join(text.itertext()) for text in ElementTree.fromstring(drawn).iter("text")]
        assert "–" in texts
        assert "0.2" in texts
        assert ElementTree.fromstring(drawn).findtext("desc") == "a weights –, gradients 0.2"
