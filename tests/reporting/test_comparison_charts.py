"""Figures of many rows are well-formed, hold every row, mark the front, and no label covers another."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from budwood.evaluation.intervals import Metric
from budwood.reporting.comparison_charts import Curves, Dot, draw_curves, draw_dots
from budwood.reporting.cost_charts import Point, draw_pareto, find_pareto_front
from budwood.reporting.option_charts import draw_importance, draw_slice
from budwood.reporting.svg import LETTER, LINE, format_power
from budwood.reporting.sweep_charts import SweepPoint, draw_sweep
from budwood.text import Unit

HOSTILE = '<b>&"\n\x07🌳'
METRIC = Metric(0.9, 0.85, 0.95, 90)
UNDEFINED = Metric(None, None, None, 0)


def _points(count: int, seed: int = 0) -> list[Point]:
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        value = float(random.uniform(0.6, 0.95))
        metric = Metric(value, value - 0.03, value + 0.03, 200)
        made.append(Point(f"{number} a row with a long name", float(10 ** random.uniform(-1, 3)), metric, str(number)))
    return made


def _figures() -> dict[str, str]:
    bare = replace(METRIC, low=None, high=None)
    curves = [Curves(HOSTILE, [[(1, 0.5), (2, 0.6)], [(1, 0.6), (2, 0.8)]]), Curves("one", [[(1, 0.4)]])]
    return {
        "pareto": draw_pareto(HOSTILE, [Point(HOSTILE, 1.0, METRIC), Point("b", 100.0, bare)], "s", HOSTILE, Unit()),
        "pareto of losses": draw_pareto("t", _points(24), "s", "loss", Unit(loss=True)),
        "one point": draw_pareto("t", [Point("a", 0.0, METRIC)], "s", "m", Unit()),
        "no point": draw_pareto("t", [Point("a", 1.0, UNDEFINED)], "s", "m", Unit()),
        "curves": draw_curves(HOSTILE, curves, "accuracy", Unit()),
        "no curve": draw_curves("t", [Curves("a", [[]]), Curves("b", [[(1, float("nan"))]])], "loss", Unit(loss=True)),
        "dots": draw_dots(HOSTILE, [Dot(HOSTILE, METRIC, (0.88, 0.91), (0.93, 0.95), True)], HOSTILE, Unit()),
        "losses": draw_dots("t", [Dot("a", METRIC), Dot("b", bare), Dot("c", UNDEFINED)], "x", Unit(loss=True)),
        "failed": draw_dots("t", [Dot("a", METRIC), Dot("d", None)], "x", Unit()),
        "no row": draw_dots("t", [], "x", Unit()),
        "importance": draw_importance(HOSTILE, [(HOSTILE, 0.6), ("b", 0.0)]),
        "no option": draw_importance("t", []),
        "numbers": draw_slice("lr", [(0.001, 0.8, True), (1.0, 0.7, False)], "accuracy", Unit()),
        "near numbers": draw_slice("dropout", [(0, 0.8, True), (0.5, 0.7, False)], "accuracy", Unit()),
        "words": draw_slice(HOSTILE, [(HOSTILE, 0.8, True), (None, 0.7, False), (True, 0.7, False)], "m", Unit()),
    }


@pytest.mark.parametrize("name", list(_figures()))
def test_every_figure_is_xml_in_the_colours_of_the_page(name: str) -> None:
    tree = ElementTree.fromstring(_figures()[name])
    assert tree.get("role") == "img"
    assert tree.findtext("title")
    assert tree.findtext("desc")
    for element in tree.iter():
        for attribute in ("fill", "stroke"):
            assert element.get(attribute, "none") == "none" or element.get(attribute, "").startswith("var(--")
        for attribute in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
            assert float(element.get(attribute, "0")) == pytest.approx(float(element.get(attribute, "0")))


def test_the_front_is_what_nothing_beats_in_both() -> None:
    def point(name: str, cost: float, value: float) -> Point:
        return Point(name, cost, replace(METRIC, value=value))

    points = [point("dear", 9, 0.95), point("cheap", 1, 0.8), point("bad", 5, 0.7), point("mid", 4, 0.9)]
    points += [point("equal", 9, 0.95), point("tie", 1, 0.7)]
    assert [one.label for one in find_pareto_front(points, Unit())] == ["cheap", "mid", "dear"]
    assert [one.label for one in find_pareto_front(points, Unit(loss=True))] == ["tie"]


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (9, 1), (24, 2), (24, 3), (60, 4)])
def test_no_name_covers_another_or_a_dot(count: int, seed: int) -> None:
    points = _points(count, seed)
    tree = ElementTree.fromstring(draw_pareto("t", points, "seconds", "accuracy", Unit()))
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in tree.iter("circle")]
    assert len(dots) == count
    boxes = []
    for name in tree.iter("text"):
        text, x, y = name.text or "", float(name.get("x", "")), float(name.get("y", ""))
        if not re.match(r"\d+( a row|$)", text) or x < 52 or y > 340:
            continue  # a tick or a title
        width = LETTER * len(text)
        left = {"start": x, "end": x - width, "middle": x - width / 2}[name.get("text-anchor", "start")]
        boxes.append((left, y - LINE + 3, left + width, y + 3))
    assert len(boxes) >= min(count, len(find_pareto_front(points, Unit())))
    for one, other in combinations(boxes, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    for left, top, right, bottom in boxes:
        assert not any(left < x < right and top < y < bottom for x, y in dots)


def test_the_front_has_names_and_filled_dots() -> None:
    points = _points(24)
    tree = ElementTree.fromstring(draw_pareto("t", points, "seconds", "accuracy", Unit()))
    best = find_pareto_front(points, Unit())
    assert len([dot for dot in tree.iter("circle") if dot.get("class") == "dot"]) == len(best)
    said = tree.findtext("desc") or ""
    assert all(point.label in said for point in best)
    assert len(tree.findall("polyline")) == 1


def test_curves_are_means_over_seeds_and_the_best_have_names() -> None:
    rows = [Curves(f"row {n}", [[(1, 0.1), (2, n / 10)], [(1, 0.3), (2, n / 10)]]) for n in range(10)]
    tree = ElementTree.fromstring(draw_curves("t", rows, "accuracy", Unit()))
    lines = tree.findall("polyline")
    assert len(lines) == 10
    starts = {(line.get("points") or "").split()[0] for line in lines}
    assert len(starts) == 1, "the mean of 0.1 and 0.3"
    named = [text.text for text in tree.iter("text") if (text.get("class") or "").startswith("tick name-")]
    assert sorted(map(str, named)) == ["row 0", "row 5", "row 6", "row 7", "row 8", "row 9"]
    heights = sorted(float(t.get("y", "")) for t in tree.iter("text") if "name-" in (t.get("class") or ""))
    assert all(low + LINE <= high for low, high in pairwise(heights))
    losses = ElementTree.fromstring(draw_curves("t", rows, "loss", Unit(loss=True)))
    first = next(text.text for text in losses.iter("text") if text.get("class") == "tick name-0")
    assert first == "row 0", "the lowest loss is the best"


def test_a_published_value_is_one_diamond_and_a_range_two() -> None:
    rows = [Dot("a", METRIC, published=(0.8, 0.8)), Dot("b", METRIC, published=(0.7, 0.75)), Dot("c", METRIC)]
    tree = ElementTree.fromstring(draw_dots("t", rows, "x", Unit()))
    titles = [mark.findtext("title") for mark in tree.findall("polygon")]
    assert titles == ["published: 80.0 %", *["published: 70.0 % to 75.0 %"] * 2]
    legend = " ".join("".join(text.itertext()) for text in tree.findall("text"))
    assert "published" in legend
    assert "runs of a row" not in legend, "only what is there is explained"


def test_a_swept_option_has_a_line_for_each_split_and_published_points() -> None:
    rates = (1e-4, 1e-3, 1e-2, 1e-1)
    points = [SweepPoint(rate, {"train": METRIC, "val": METRIC}) for rate in rates]
    points[2] = SweepPoint(1e-2, {"train": UNDEFINED, "val": METRIC}, {"val": (0.8, 0.8), "test": (0.7, 0.75)})
    tree = ElementTree.fromstring(draw_sweep("lr", points, "accuracy", Unit()))
    lines = [len(line.get("points", "").split()) for line in tree.findall("polyline")]
    assert lines == [3, 4, 0], "an undefined value is left out"
    titles = [mark.findtext("title") for mark in tree.findall("polygon")]
    assert titles == ["published, validation: 80.0 %", "published, test: 70.0 %", "published, test: 75.0 %"]
    bars = [line for line in tree.findall("line") if line.get("opacity")]
    assert len(bars) == 7, "an interval for each value"
    texts = ["".join(text.itertext()) for text in tree.findall("text")]
    assert {"● training", "● validation", "◆ test", "◆ published, in the same colours"} <= set(texts)
    assert {"10⁻⁴", "10⁻³", "0.01", "0.1"} <= set(texts), "powers of ten on a logarithmic axis"
    assert "0.01: validation 90.0 %, published validation 80.0 %" in (tree.findtext("desc") or "")
    plain = draw_sweep("dropout", [SweepPoint(n / 10, {"val": METRIC}) for n in (1, 2, 3)], "accuracy", Unit())
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(plain).findall("text")]
    assert {"0.1", "0.2", "0.3"} <= set(texts)
    assert not any("published" in text for text in texts)
    places = [float(circle.get("cx", "")) for circle in ElementTree.fromstring(plain).findall("circle")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (1e-4, "10⁻⁴"),
        (2e5, "2·10⁵"),
        (1000.0, "10³"),
        (500.0, "500"),
        (5e-3, "5·10⁻³"),
        (1e-3, "10⁻³"),
    ],
)
def test_ticks_of_logarithmic_axes(value: float, text: str) -> None:
    assert format_power(value) == text


def test_a_curve_says_how_many_epochs_it_has() -> None:
    drawn = draw_curves("t", [Curves("a", [[(1, 0.5)]]), Curves("b", [[(1, 0.4), (2, 0.6)]])], "m", Unit())
    said = [title.text for title in ElementTree.fromstring(drawn).iter("title")]
    assert "a: 50.0 % after 1 epoch" in said
    assert "b: 60.0 % after 2 epochs" in said
