"""The drawn embedding: every mistake, a picture for each dot, words that are safe, and no script."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

import budwood
from budwood.data.images import compute_content_id
from budwood.explain.embeddings import Embedding
from budwood.explain.scatter import MOST, describe_sample, draw_scatter, make_small_pictures, sample_dots
from conftest import fill

CLASSES = tuple("abcdefghij")


def _embedding(n: int, wrong: int, classes: int = 3, method: str = "pca") -> Embedding:
    random = np.random.default_rng(0)
    labels = np.arange(n) % classes
    predicted = labels.copy()
    predicted[:wrong] = (labels[:wrong] + 1) % classes
    ids = tuple(f"{number:032x}" for number in random.permutation(n))
    return Embedding(
        method,
        "val",
        random.normal(size=(n, 2)),
        (0.4, 0.1) if method == "pca" else None,
        ids,
        tuple(f"{id}.png" for id in ids),
        labels.astype(np.int32),
        predicted.astype(np.int32),
        labels == predicted,
        n,
    )


class _Dots(HTMLParser):
    """The dots of a fragment, and whether its elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.dots: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "img":
            self.open.append(tag)
        if (dict(attrs).get("class") or "").startswith("point"):
            self.dots.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_dot_for_each_image_within_the_plane_mistakes_last_and_reachable() -> None:
    shown = _embedding(60, 7)
    found = _Dots(draw_scatter(shown, CLASSES[:3], dict.fromkeys(shown.paths, "data:image/jpeg;base64,AA")))
    assert found.open == []
    assert "script" not in found.tags
    assert len(found.dots) == 60
    for dot in found.dots:
        left, top = (float(part) for part in re.findall(r"([\d.]+)%", dot["style"] or ""))
        assert 0 <= left <= 100
        assert 0 <= top <= 100
        assert ("east" in str(dot["class"])) == (left < 50), "the picture opens towards the middle"
        assert ("south" in str(dot["class"])) == (top < 50)
    assert ["missed" in str(dot["class"]) for dot in found.dots] == [False] * 53 + [True] * 7
    assert [dot["tabindex"] for dot in found.dots] == ["-1"] * 53 + ["0"] * 7
    assert found.dots[-1]["aria-label"] == f"{shown.paths[6]}: a, predicted as b"


def test_the_upper_right_point_is_drawn_there() -> None:
    shown = _embedding(2, 0)
    points = Embedding(**{**vars(shown), "points": np.array([[0.0, 0.0], [5.0, 9.0]])})
    assert [dot["style"] for dot in _Dots(draw_scatter(points, CLASSES[:3], {})).dots] == [
        "left:4.00%;top:96.00%",
        "left:96.00%;top:4.00%",
    ]
    same = Embedding(**{**vars(shown), "points": np.ones((2, 2))})
    assert {dot["style"] for dot in _Dots(draw_scatter(same, CLASSES[:3], {})).dots} == {"left:50.00%;top:50.00%"}


def test_colours_tell_few_classes_apart_and_of_many_the_mistakes() -> None:
    few = _Dots(draw_scatter(_embedding(40, 4, 8), CLASSES[:8], {}))
    assert {str(dot["class"]).split()[1] for dot in few.dots} == {f"k{number}" for number in range(8)}
    css = (Path(budwood.__file__).parent / "reporting" / "templates" / "scatter.css").read_text()
    assert all(f".k{number} " in css for number in range(8))
    many = _Dots(draw_scatter(_embedding(40, 4, 9), CLASSES[:9], {}))
    assert [str(dot["class"]).split()[1] for dot in many.dots] == ["rest"] * 36 + ["wrong"] * 4


def test_a_sample_keeps_all_mistakes_and_every_class() -> None:
    shown = sample_dots(_embedding(3000, 90))
    assert (len(shown), int((~shown.correct).sum()), shown.of) == (MOST, 90, 3000)
    assert np.bincount(shown.labels[shown.correct]).tolist() == [137, 137, 136]
    assert sample_dots(shown) is shown
    many = sample_dots(_embedding(3000, 2000))
    assert (len(many), int((~many.correct).sum())) == (MOST, 300)
    assert len(_Dots(draw_scatter(_embedding(3000, 90), CLASSES[:3], {})).dots) == MOST


def test_words_say_how_many_of_how_many() -> None:
    assert describe_sample(_embedding(60, 7)) == (
        "60 validation images; 7 mistakes. The axes are the first two principal components of the features; "
        "they explain 40.0 % (horizontal) and 10.0 % (vertical) of the variance."
    )
    assert describe_sample(sample_dots(_embedding(3000, 1))).startswith("500 of 3,000 validation images; 1 mistake.")
    trained = Embedding(**{**vars(_embedding(60, 7)), "split": "train"})
    assert describe_sample(trained).startswith("60 training images; 7 mistakes.")
    assert "no mistakes. UMAP places" in describe_sample(_embedding(5, 0, method="umap"))


def test_names_are_escaped() -> None:
    html = draw_scatter(_embedding(3, 1), ("<b>&", '"x"', "c\n"), {})
    assert "<b>&<" not in html
    assert "&lt;b&gt;&amp;" in html
    assert "c\\n" in html
    assert _Dots(html).open == []


def test_several_labels_are_named_together() -> None:
    plain = _embedding(2, 0, 2)
    several = Embedding(**{**vars(plain), "label_sets": ((), (0, 2))})
    html = draw_scatter(several, CLASSES[:3], {})
    assert "<b>none of them</b>" in html
    assert "<b>a, c</b>" in html


def test_pictures_are_small_and_missing_ones_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "leaf", 2)
    (tmp_path / "no.png").write_bytes(b"no")
    paths = ("leaf/000.png", "no.png", "leaf/001.png")
    ids = [compute_content_id((tmp_path / path).read_bytes()) for path in paths]
    found = make_small_pictures(tmp_path, paths, ids)
    assert list(found) == ["leaf/000.png", "leaf/001.png"]
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in found.values())
    assert all(len(uri) < 4000 for uri in found.values())
