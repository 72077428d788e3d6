"""Figures are well-formed XML with a title and a description, whatever the values and the names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from budwood.evaluation.calibration import ReliabilityBin
from budwood.evaluation.intervals import Metric
from budwood.reporting.charts import (
    Series,
    draw_counts,
    draw_interval_strip,
    draw_intervals,
    draw_lines,
    draw_reliability,
)
from budwood.reporting.svg import format_numbers, make_even_ticks, round_range
from budwood.text import show_unprintable

HOSTILE = '<b>&"\n\x07🌳'
METRIC = Metric(0.9, 0.85, 0.95, 90)
UNDEFINED = Metric(None, None, None, 0)


def _texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def _figures() -> dict[str, str]:
    line = Series(HOSTILE, [(1e-3, 0.5), (1, float("nan")), (10, 2)])
    return {
        "lines": draw_lines(HOSTILE, [line], HOSTILE, HOSTILE, log_x=True, chosen=10),
        "no line": draw_lines("t", [Series("a", [])], "x", "y"),
        "one point": draw_lines("t", [Series("a", [(3, 0.0)])], "x", "y", log_x=True, chosen=3),
        "intervals": draw_intervals(HOSTILE, [(HOSTILE, METRIC), ("b", UNDEFINED)], "x"),
        "no row": draw_intervals("t", [], "x"),
        "no interval": draw_intervals("t", [("a", replace(METRIC, high=None, low=None))], "x"),
        "value alone": draw_interval_strip("t", replace(METRIC, low=None, high=None)),
        "strip": draw_interval_strip(HOSTILE, METRIC),
        "undefined strip": draw_interval_strip("t", UNDEFINED),
        "reliability": draw_reliability(HOSTILE, [ReliabilityBin(0.8, METRIC)]),
        "no bin": draw_reliability("t", []),
        "counts": draw_counts(HOSTILE, [(HOSTILE, (10, 2)), ("none", (0, 0))], ("train", HOSTILE)),
        "no image": draw_counts("t", [("a", (0, 0))], ("train", "val")),
    }


@pytest.mark.parametrize("name", list(_figures()))
def test_every_figure_is_xml_with_a_title_and_a_description(name: str) -> None:
    tree = ElementTree.fromstring(_figures()[name])
    assert tree.get("role") == "img"
    assert tree.findtext("title")
    assert tree.find("desc") is not None


@pytest.mark.parametrize("name", list(_figures()))
def test_colours_come_from_the_page(name: str) -> None:
    for element in ElementTree.fromstring(_figures()[name]).iter():
        for attribute in ("fill", "stroke"):
            assert element.get(attribute, "none") == "none" or element.get(attribute, "").startswith("var(--")


def test_the_description_says_the_values() -> None:
    tree = ElementTree.fromstring(draw_intervals("t", [("leaf", METRIC), ("sky", UNDEFINED)], "x"))
    assert tree.findtext("desc") == "leaf 90.0 % (85.0 to 95.0 %); sky undefined"
    lines = draw_lines("t", [Series("a", [(1, 0.5), (2, 0.25)])], "epoch", "loss", chosen=2)
    assert ElementTree.fromstring(lines).findtext("desc") == "By epoch. a: 0.5 at 1, 0.25 at 2. Chosen: 2"


def test_the_chosen_point_stands_out() -> None:
    tree = ElementTree.fromstring(draw_lines("t", [Series("a", [(1, 0.5), (2, 0.25)])], "x", "y", chosen=2))
    first, second = (float(circle.get("r", "0")) for circle in tree.findall("circle"))
    assert second > first
    assert "chosen" in [text.text for text in tree.findall("text")]


@pytest.mark.parametrize(
    ("points", "options", "ticks"),
    [
        ([(1, 0), (10, 1)], {}, ["2", "4", "6", "8", "10"]),
        ([(1, 0), (3, 1)], {}, ["1", "2", "3"]),
        ([(1e-5, 0), (100, 1)], {"log_x": True}, ["10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1", "10", "100"]),
        ([(0.02, 0), (0.05, 1)], {"log_x": True}, ["0.02"]),
        ([(0, 0.8), (1, 0.95)], {}, ["0.80", "0.85", "0.90", "0.95"]),
    ],
)
def test_ticks_are_round_and_alike(
    points: list[tuple[float, float]], options: dict[str, Any], ticks: list[str]
) -> None:
    texts = _texts(draw_lines("t", [Series("a", points)], "x", "y", **options))
    assert any(texts[start : start + len(ticks)] == ticks for start in range(len(texts)))


def test_an_axis_that_does_not_begin_at_zero_says_so() -> None:
    assert "F1; the axis starts at 80 %" in _texts(draw_intervals("t", [("a", METRIC)], "F1"))
    assert "F1" in _texts(draw_intervals("t", [("a", replace(METRIC, low=0.0))], "F1"))


def test_bars_are_as_long_as_their_counts() -> None:
    tree = ElementTree.fromstring(draw_counts("t", [("a", (30, 10)), ("b", (15, 5))], ("train", "validation")))
    bars = [float(bar.get("width", "0")) for bar in tree.findall("rect")][2:]
    assert bars[0] == pytest.approx(3 * bars[1], rel=0.01)
    assert bars[0] == pytest.approx(2 * bars[2], rel=0.01)
    assert "30 + 10" in _texts(draw_counts("t", [("a", (30, 10))], ("train", "validation")))


def test_a_larger_bin_has_a_larger_dot() -> None:
    bins = [ReliabilityBin(c, replace(METRIC, n=n)) for c, n in ((0.5, 10), (0.9, 1000))]
    small, large = ElementTree.fromstring(draw_reliability("t", bins)).findall("circle")
    assert float(small.get("r", "0")) < float(large.get("r", "0"))


def test_long_names_are_cut_and_kept_whole_beside() -> None:
    name = "a very long name of a class that fits no margin"
    tree = ElementTree.fromstring(draw_intervals("t", [(name, METRIC)], "x"))
    label = next(text for text in tree.findall("text") if text.find("title") is not None)
    assert (label.text or "").endswith("…")
    assert label.findtext("title") == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("a\u202eb", "a\\u202eb"),
        ("\udcff", "\\udcff"),
        ("🌳 é 木", "🌳 é 木"),
        ("👩\u200d🌾", "👩\u200d🌾"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(name: str, shown: str) -> None:
    assert show_unprintable(name) == shown


@pytest.mark.parametrize("low", [1e-7, 3.3e-5, 0.00098, 0.5, 812.0, 3e6])
@pytest.mark.parametrize("share", [1e-4, 0.02, 1.0, 30.0])
def test_labels_of_an_axis_never_repeat(low: float, share: float) -> None:
    ticks = make_even_ticks(*round_range(low, low * (1 + share)))
    assert len(set(format_numbers(ticks))) == len(ticks) > 1


def test_a_narrow_range_of_rates_has_several_ticks() -> None:
    rates = Series("rate", [(0.0011, 1.0), (0.0015, 2.0), (0.0019, 1.0)])
    figure = ElementTree.fromstring(draw_lines("rates", [rates], "rate", "loss", log_x=True))
    labels = [one.text for one in figure.iter("text") if one.get("text-anchor") == "middle" and one.text != "rate"]
    assert len(labels) == len(set(labels)) > 2
