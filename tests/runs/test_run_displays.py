"""What runs, data sets, recipes, predictions and comparisons show of themselves, in a line, as HTML and as frames."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

import budwood as bw
from budwood.display import _DRAWN_BY, Displayed
from budwood.runs.run import Run
from budwood.storage import tabular
from budwood.storage.figure import Figure
from budwood.training.history import History
from conftest import answers, fill, scored_run

HOSTILE = '<img src=x onerror=alert(1)> & "co"'
ROWS = [
    {"epoch": 1.0, "lr": 0.1, "train_loss": 0.9, "val_loss": 0.8, "val_accuracy": 0.6, "weight/stem": 1.0},
    {"epoch": 2.0, "lr": 0.1, "train_loss": 0.5, "val_accuracy": 0.7},
]


class Page(HTMLParser):
    """The tags of a page with their attributes, and whether every one is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.opened: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br"):
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def _check(html: str, most: int = 40_000) -> Page:
    """A page that needs nothing from outside, is small, for light and dark, and in which nothing of a name is a tag."""
    page = Page(html)
    assert page.opened == []
    assert not {"script", "iframe", "link"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert "http" not in html
    assert "currentColor" in html, "the text has the colour of the notebook"
    assert len(html) < most
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three classes, one of a hostile name, whose images are gone."""
    truth = np.arange(60, dtype=np.int32) % 3
    made = scored_run(tmp_path_factory.mktemp("runs") / "one", truth, answers(truth, 0.8, 1), history=ROWS)
    data = made.record.dataset
    renamed = data.model_copy(update={"classes": (HOSTILE, *data.classes[1:])})
    return Run(made.path, made.record.model_copy(update={"dataset": renamed}))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> bw.Comparison:
    truth, folder = np.arange(60, dtype=np.int32) % 3, tmp_path_factory.mktemp("compared")
    return bw.compare([scored_run(folder / f"r{n}", truth, answers(truth, 0.6, n), seed=n, lr=n + 1) for n in range(2)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bw.Dataset:
    folder = tmp_path_factory.mktemp("data") / "photos"
    fill(folder / "leaf & <b>", 12, hue=1)
    fill(folder / "sky", 12, hue=2)
    return bw.scan(folder)


class TestLines:
    def test_a_run_says_its_scores_with_intervals_and_that_the_test_is_sealed(self, run: Run) -> None:
        value = run.metrics["val"]["accuracy"]
        told = f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f} %, n = 60)"
        assert repr(run) == f"Run({str(run.path)!r}: net on photos; validation accuracy {told}; test sealed)"

    def test_what_is_not_done_says_so(self, tmp_path: Path) -> None:
        truth = np.zeros(4, np.int32)
        stopped = scored_run(tmp_path / "s", truth, answers(truth, 1, 1), state="stopped")
        assert repr(stopped).endswith("; stopped)")

    def test_the_others_are_one_short_line_too(self, run: Run, data: bw.Dataset, compared: bw.Comparison) -> None:
        assert repr(data) == "Dataset('photos': 24 images, 2 classes; train 16, val 4, test 4, test sealed)"
        recipe = bw.Recipe(optimizer="adam", epochs=3, lr=0.01)
        assert repr(recipe) == str(recipe)
        assert repr(recipe).startswith("Recipe(model='tf_efficientnet_lite0', ")
        assert "epochs=3" in repr(recipe)
        assert "mixup" not in repr(recipe)
        assert eval(repr(recipe), {"Recipe": bw.Recipe}) == recipe
        assert repr(run.history) == "History(2 rows: epoch, lr, train_loss, val_loss, val_accuracy)"
        wrong = len(run.predictions("val").wrong())
        assert re.fullmatch(
            r"Predictions\(60 validation images: accuracy .* %, n = 60\)\)", repr(run.predictions("val"))
        )
        assert repr(run.predictions("val").wrong()) == f"Predictions({wrong} of 60 validation images)"
        assert repr(run.confusion) == f"Confusion(3 classes, 60 validation images, {wrong} mistakes)"
        assert repr(run.plot()) == "Figure(Training of one; a notebook shows it, .save('figure.html') writes it)"
        assert repr(compared).startswith("Comparison('photos': 2 rows by val ")


class TestHistory:
    def test_it_is_read_by_rows_and_by_columns(self, run: Run) -> None:
        history = run.history
        assert len(history) == 2
        assert history.columns == ("epoch", "lr", "train_loss", "val_loss", "val_accuracy", "weight/stem")
        assert [row["train_loss"] for row in history] == [0.9, 0.5]
        assert history[-1] == ROWS[1]
        assert history[:1] == [ROWS[0]]
        np.testing.assert_array_equal(history["val_loss"], [0.8, np.nan])
        assert history == ROWS
        assert history != ROWS[:1]
        assert History() == []
        with pytest.raises(bw.RunError, match=r"history: there is no column 'val_los'\.") as told:
            history["val_los"]
        assert "Did you mean 'val_loss'?" in told.value.hint

    def test_it_becomes_a_frame(self, run: Run) -> None:
        frame = run.history.to_pandas()
        pd.testing.assert_frame_equal(frame, pd.DataFrame(ROWS), check_dtype=False)
        assert run.history.to_arrow().column_names == list(run.history.columns)

    def test_without_pandas_it_says_what_to_install(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tabular, "find_spec", lambda name: None)
        for ask in (run.history.to_pandas, run.confusion.to_pandas):
            with pytest.raises(bw.StorageError, match=r"to_pandas: pandas is not installed\."):
                ask()


class TestPredictions:
    def test_the_wrong_ones_are_those_that_accuracy_counts_the_surest_first(self, run: Run) -> None:
        known = run.predictions("val")
        wrong = known.wrong()
        assert len(wrong) == round(60 * (1 - run.metrics["val"]["accuracy"].value))
        assert not wrong.correct.any()
        assert list(wrong.losses) == sorted(known.losses[~known.correct], reverse=True)

    def test_as_a_frame(self, run: Run) -> None:
        known = run.predictions("val")
        frame = known.to_pandas()
        shares = np.exp(known.logits.astype(float))
        shares /= shares.sum(axis=1, keepdims=True)
        assert list(frame["path"]) == list(known.paths)
        assert list(frame["label"]) == [run.classes[label] for label in known.labels]
        assert list(frame["predicted"]) == [run.classes[best] for best in known.logits.argmax(axis=1)]
        np.testing.assert_allclose(frame["probability"], shares.max(axis=1), rtol=1e-5)
        np.testing.assert_allclose(frame[f"p: {HOSTILE}"], shares[:, 0], rtol=1e-5)
        np.testing.assert_allclose(frame["loss"], -np.log(shares[np.arange(60), known.labels]), rtol=1e-4)

    def test_the_confusion_matrix_is_scikit_learns(self, run: Run) -> None:
        known, made = run.predictions("val"), run.confusion
        expected = confusion_matrix(known.labels, known.logits.argmax(axis=1))
        np.testing.assert_array_equal(made.counts, expected)
        assert made.labels == run.classes
        frame = made.to_pandas()
        assert (list(frame.index), list(frame.columns)) == (list(run.classes), list(run.classes))
        assert (frame.index.name, frame.columns.name) == ("true", "predicted")
        np.testing.assert_array_equal(frame.to_numpy(), expected)
        pairs = made.list_pairs()
        assert sum(count for *_, count, _ in pairs) == expected.sum() - np.trace(expected)
        assert [pair[2] for pair in pairs] == sorted((pair[2] for pair in pairs), reverse=True)

    def test_several_labels_have_no_confusion_matrix(self, tmp_path: Path) -> None:
        labels = np.array([0, 1, 1, 0], np.int32)
        logits = np.array([[2, -1], [1, 1], [-1, 2], [3, -3]], np.float32)
        several = scored_run(tmp_path / "s", labels, logits, label_sets=((0,), (0, 1)))
        with pytest.raises(bw.RunError, match="confusion: images have several labels each"):
            _ = several.confusion
        assert len(several.predictions("val").wrong()) == 1
        assert list(several.predictions("val").to_pandas()["label"])[:2] == ["class 0", "class 0, class 1"]
        _check(several.show_mistakes()._repr_html_())

    def test_the_test_split_stays_sealed(self, run: Run, tmp_path: Path) -> None:
        for ask in (lambda: run.predictions("test"), lambda: run.show_mistakes(split="test")):
            with pytest.raises(bw.RunError, match="the test split is sealed"):
                ask()
        truth = np.arange(12, dtype=np.int32) % 3
        opened = scored_run(tmp_path / "o", truth, answers(truth, 1, 1), test=(truth, answers(truth, 0.5, 2), 1))
        assert len(opened.predictions("test")) == 12
        assert "test accuracy" in repr(opened)


class TestHtml:
    def test_everything_is_self_contained_small_and_escaped(
        self, run: Run, data: bw.Dataset, compared: bw.Comparison
    ) -> None:
        known = run.predictions("val")
        shown: list[Any] = [run, run.recipe, run.history, run.confusion, known, known.wrong(), compared]
        shown += [run.plot(), run.show_mistakes(), run.confusion.plot(), data, data.show(), *bw.findings(data)]
        for one in shown:
            html = one._repr_html_()
            _check(html)
            assert "<b>" not in html
            assert "onerror=alert(1)>" not in html

    def test_accuracy_always_has_its_interval_and_n(self, run: Run) -> None:
        said = r"\d+\.\d % \(\d+\.\d to \d+\.\d %, n = 60\)"
        shown: list[Any] = [run, run.confusion, run.predictions("val"), run.plot()]
        for one in shown:
            assert re.search(rf"accuracy.*?{said}", one._repr_html_(), re.DOTALL), one
        assert "accuracy" not in run.predictions("val").wrong()._repr_html_(), "0 % would be untrue of the run"

    def test_a_run_says_what_to_do_next(self, run: Run) -> None:
        assert "<code>bw.test(run)</code> opens the sealed test split" in run._repr_html_()

    def test_mistakes_have_their_pictures(self, tiny: Path) -> None:
        trained = bw.open_run(tiny / "runs" / "one")
        known = trained.predictions("val")
        page = _check(known._repr_html_())
        assert sum(tag == "img" for tag, _ in page.tags) == len(known)
        shown = trained.show_mistakes(1)
        assert f"{len(known.wrong())} mistake" in shown.title

    def test_pictures_of_a_data_set_are_by_class_and_those_of_the_test_split_without(self, data: bw.Dataset) -> None:
        page = _check(data.show(per_class=3)._repr_html_())
        assert sum(tag == "img" for tag, _ in page.tags) == 6
        hidden = data.show("test")._repr_html_()
        assert "sealed" in hidden
        assert "sky (" not in hidden

    def test_many_classes_are_pairs_not_a_matrix(self, tmp_path: Path) -> None:
        truth = np.arange(120, dtype=np.int32) % 30
        html = scored_run(tmp_path / "m", truth, answers(truth, 0.5, 1, 30)).confusion._repr_html_()
        assert "predicted class" in html
        assert re.search(r"12 of \d+ rows", html)

    def test_predict_gives_a_list_that_is_a_table(self, tiny: Path) -> None:
        said = bw.predict(tiny / "runs" / "one", tiny / "photos")
        assert isinstance(said, list)
        assert len(said) == 30
        _check(said._repr_html_())
        assert "12 of 30 rows" in said._repr_html_()
        frame = said.to_pandas()
        assert list(frame["path"]) == [one.path for one in said]
        assert {"label", "p: leaf", "p: sky"} <= {*frame.columns}
        assert repr(said).count("\n") == 4
        assert re.fullmatch(r"ImagePrediction\('.*': \w+ \d+\.\d %, \w+ \d+\.\d %\)", repr(said[0]))

    def test_every_kind_in_the_table_can_be_drawn(self) -> None:
        for place in _DRAWN_BY.values():
            module, _, name = place.partition(":")
            assert callable(getattr(importlib.import_module(module), name))
        for name in ("activations", "convolutions", "deletion_insertion", "feature_visualization", "sanity_checks"):
            importlib.import_module(f"budwood.explain.{name}")
        known = {kind.__name__ for kind in _list_subclasses(Displayed)}
        assert set(_DRAWN_BY) <= known
        assert known - set(_DRAWN_BY) == {"RunDisplay", "DatasetDisplay"}


def _list_subclasses(kind: type[Any]) -> list[type[Any]]:
    known: list[type[Any]] = kind.__subclasses__()
    return known + [each for one in known for each in _list_subclasses(one)]


class TestFigures:
    def test_a_saved_figure_is_a_whole_page(self, run: Run, tmp_path: Path) -> None:
        file = run.plot().save(tmp_path / "plot.html")
        page = file.read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>")
        assert "color-scheme: light dark" in page
        assert page.count("<svg") == 3, "loss, accuracy and the classes"

    def test_another_ending_is_refused(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(bw.StorageError, match=r"expected a name that ends in \.html, found '\.png'") as told:
            run.plot().save(tmp_path / "plot.png")
        assert "plot.html" in told.value.hint
        with pytest.raises(bw.StorageError, match="found 'no ending'"):
            run.plot().save(str(tmp_path / "plot"))

    def test_a_run_without_a_score_has_nothing_to_draw(self, run: Run) -> None:
        bare = Run(run.path, run.record.model_copy(update={"metrics": {}, "state": "running"}))
        assert isinstance(bare.plot(), Figure)
        assert "sealed" in bare._repr_html_()


def test_showing_a_value_loads_no_torch_and_importing_the_package_no_pandas(run: Run) -> None:
    code = (
        "import sys, budwood as bw; assert not {'torch', 'pandas', 'scipy'} & {*sys.modules}; "
        f"run = bw.open_run({str(run.path)!r}); run._repr_html_(); run.show_mistakes(); "
        "run.plot(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
