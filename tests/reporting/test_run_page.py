"""The report shows what the record says, survives hostile names, and asks nothing of the network."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from budwood.config.recipe import Recipe
from budwood.evaluation.calibration import ReliabilityBin
from budwood.evaluation.intervals import Metric
from budwood.evaluation.label_task import SingleLabel
from budwood.evaluation.result_checks import ResultFinding
from budwood.evaluation.split_metrics import SplitMetrics
from budwood.reporting import recipe_text
from budwood.reporting import run_page as pages
from budwood.reporting.charts import Series, draw_intervals, draw_lines, draw_reliability
from budwood.reporting.run_page import DataCheck, Evidence, Pictures, ShownImage, render_findings
from budwood.runs.run_record import parse_record

HOSTILE = '<script>alert("x")</script>\n🌳&amp;.png'
NETWORK: dict[str, Any] = {
    "name": "tf_efficientnet_lite0",
    "source": "timm",
    "size": 224,
    "channels": 3,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "head": "classifier",
    "cut": None,
    "pool": "own",
    "shape": [1280],
    "features": 1280,
    "parameters": {"trainable": 2562, "frozen": 3371008},
    "macs": 384_000_000,
    "stages": [
        {"name": "conv_stem", "shape": [32, 112, 112], "parameters": 3371008, "trainable": 0, "macs": 383_997_438},
        {"name": "classifier", "shape": [2], "parameters": 2562, "trainable": 2562, "macs": 2562},
    ],
    "weights": {"kind": "imagenet", "file": "lite0.pth", "digest": "d", "about": "", "set_aside": ""},
    "trunk_trained": False,
}
HISTORY = [
    {"regularisation": s, "train_loss": s, "val_loss": s + 0.1, "train_accuracy": 0.9, "val_accuracy": 0.8}
    for s in (1.0, 0.1, 0.01)
]


def render_run(record: dict[str, Any], evidence: Evidence) -> str:
    return pages.render_run(parse_record(record), evidence)


def recipe_in_words(record: dict[str, Any]) -> str:
    return recipe_text.describe_recipe(parse_record(record))


def _evaluated(classes: tuple[str, ...]) -> tuple[SplitMetrics, list[list[int]]]:
    import numpy as np

    from budwood.evaluation.logits import confusion

    random = np.random.default_rng(0)
    labels = random.integers(0, len(classes) - 1, 120).astype(np.int32)
    logits = random.normal(0, 1, (120, len(classes))).astype(np.float32)
    logits[np.arange(120), labels] += 2
    return SingleLabel(len(classes)).evaluate(labels, logits, classes), confusion(labels, logits).tolist()


def _record(classes: tuple[str, ...] = ("leaf", "sky", "none"), **changes: Any) -> tuple[dict[str, Any], Evidence]:
    scores, matrix = _evaluated(classes)
    counts = {"train": dict.fromkeys(classes, 10), "val": dict.fromkeys(classes, 4), "test": 20}
    record = {
        "budwood": "0.1.0",
        "id": "20260101-000000-net-abcd",
        "state": "done",
        "created": "2026-01-01T00:00:00+00:00",
        "source": "/photos",
        "root": "/photos",
        "recipe": {
            "model": "tf_efficientnet_lite0",
            "resize": "crop",
            "size": 224,
            "optimizer": "lbfgs",
            "regularisation": "auto",
            "channels": 3,
            "head": "linear",
        },
        "dataset": {
            "fingerprint": "f" * 64,
            "name": "photos",
            "split": "made",
            "classes": list(classes),
            "several": False,
            "counts": counts,
            "set_aside": 1,
            "leaks_allowed": False,
        },
        "findings": [
            {
                "code": "D010",
                "severity": "warning",
                "message": "2 files are copies.",
                "advice": "Delete one.",
                "files": [HOSTILE, "b.png"],
                "groups": [[HOSTILE, "b.png"]],
            }
        ],
        "network": NETWORK,
        "trained": "head",
        "choices": {"device": "cpu", "engine": "ONNX Runtime", "engine_check": "agrees", "threads": 2},
        "selected": {"regularisation": 0.1},
        "metrics": {"val": scores},
        "timings": {"prefix": 3.0, "head": 1.0, "total": 4.0},
        "prefix": {"stage": "trunk", "computed": 100, "reused": 20},
        "environment": {"python": "3.11"},
        "hardware": {"cpu": "a cpu", "cores": 2, "memory_gib": 24.0, "accelerator": "none", "system": "Linux"},
        "test": None,
        **changes,
    }
    shown = ShownImage(HOSTILE, classes[0], classes[1], 0.93, None, ((classes[1], 0.93), (classes[0], 0.07)))
    bins = [ReliabilityBin(0.8, Metric(0.7, 0.5, 0.85, 30))]
    return record, Evidence(HISTORY, Pictures({}, (shown,), (shown,)), matrix, bins)


def _check(record: dict[str, Any]) -> DataCheck:
    made = parse_record(record)
    return DataCheck("/photos", 60, made.dataset, made.findings)


class _Resources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_corrected_labels_are_told() -> None:
    record, evidence = _record()
    assert "corrected" not in render_run(record, evidence)
    html = render_run({**record, "dataset": {**record["dataset"], "corrected": 3}}, evidence)
    assert "3 labels were corrected or added by a table." in html
    assert "--corrections FILE" in html


def test_every_section_is_there() -> None:
    html = render_run(*_record())
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Scores",
        "Recipe",
        "Network",
        "Data",
        "Curves",
        "Scores by class",
        "Confusion matrix",
        "Worst mistakes",
        "Most confident correct predictions",
        "What it has learned",
        "Calibration: can the confidence be trusted?",
        "Time and hardware",
        "Repeat this run",
    ]
    assert "D010 warning" in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_nothing_is_asked_of_the_network() -> None:
    html = render_run(*_record())
    page = _Resources()
    page.feed(html)
    assert all(value.startswith(("data:", "#")) for value in page.found)
    assert "http" not in html
    assert "@import" not in html
    assert not {"script", "link", "iframe"} & page.tags


def test_a_report_shows_findings_about_its_result() -> None:
    record, evidence = _record()
    assert "Findings about the results" not in render_run(record, evidence)
    finding = ResultFinding("R001", "warning", "Far <above>.", "Do `less <b>`, `--more`.")
    shown = Evidence(evidence.history, Pictures(), evidence.confusion, evidence.reliability, [finding])
    html = render_run(record, shown)
    assert "Findings about the results" in html
    assert "Far &lt;above&gt;." in html
    assert "Do <code>less &lt;b&gt;</code>, <code>--more</code>." in html


def test_hostile_names_are_text() -> None:
    html = render_run(*_record())
    assert "<script>" not in html
    assert "&lt;script&gt;alert" in html
    assert "\\n🌳&amp;amp;.png" in html


def test_the_seal_the_test_score_and_its_looks() -> None:
    record, evidence = _record()
    assert "budwood test runs/20260101-000000-net-abcd" in render_run(record, evidence)
    opened = {"looks": 3, "opened": ["2026"], "metrics": record["metrics"]["val"]}
    html = render_run({**record, "test": opened}, evidence)
    assert "This test set has been used 3 times (looks)." in html
    assert "first use of this test set" not in html
    none = {**record["dataset"], "counts": {**record["dataset"]["counts"], "test": 0}}
    assert "The data have no test set" in render_run({**record, "dataset": none}, evidence)


def test_leaks_that_were_allowed_are_a_banner() -> None:
    record, evidence = _record()
    assert "cannot be trusted" not in render_run(record, evidence)
    assert "cannot be trusted" in render_run(
        {**record, "dataset": {**record["dataset"], "leaks_allowed": True}}, evidence
    )


@pytest.mark.parametrize("count", [2, 25, 40])
def test_few_and_many_classes(count: int) -> None:
    html = render_run(*_record(tuple(f"class {number}" for number in range(count))))
    matrix = html.split('<table class="matrix">')[1].split("</table>")[0]
    assert "predicted class</th>" in matrix
    assert "true class</span>" in matrix
    assert matrix.count('<th scope="row"') == (count if count <= 25 else 12)
    assert ("most frequent mistakes as a table" in html) == (count > 25)


def test_undefined_figures_are_a_dash() -> None:
    record, evidence = _record()
    assert record["metrics"]["val"]["per_class"]["none"]["recall"]["value"] is None
    assert '<td class="number">–</td>' in render_run(record, evidence)


def test_the_recipe_in_words() -> None:
    record, _ = _record()
    words = recipe_in_words(record)
    assert "The network is tf_efficientnet_lite0 (timm); it started from ImageNet weights (lite0.pth)." in words
    assert "3,371,008 parameters were frozen (not changed by training) and 2,562 were trained; " in words
    assert "the strength of its L2 penalty is 0.1, chosen on the validation set" in words
    sgd = {**record["recipe"], "optimizer": "sgd", "regularisation": None, "epochs": 7, "batch": 32, "lr": 0.1}
    words = recipe_in_words({**record, "recipe": sgd, "selected": {"epoch": 3}})
    assert (
        "for 7 epochs with a batch size of 32 and a learning rate of 0.1; epoch 3 was kept, because it has the lowest "
        "validation loss" in words
    )


def test_decoupled_weight_decay_and_the_last_epoch_in_words() -> None:
    record, _ = _record()
    recipe = Recipe(optimizer="adamax", weight_decay=0.3, decay="decoupled", epochs=2, select="last", size=224)
    words = recipe_in_words({**record, "recipe": recipe.table(), "selected": {"epoch": 2}})
    assert "a learning rate of 0.002, with a decoupled weight decay of 0.3 (taken off the weights, not put" in words
    assert "epoch 2 was kept, the last epoch, as the recipe says, whatever validation says of it" in words


def test_surgery_in_words() -> None:
    aside = "The file's own classifier was not used (fc.weight [7, 512])."
    weights = {"kind": "run", "file": "w", "digest": "d", "about": "run 7, trained on birds", "set_aside": aside}
    network = {**NETWORK, "cut": "blocks.4", "pool": "avg", "shape": [112, 14, 14], "features": 112}
    network |= {"weights": weights, "trunk_trained": True, "parameters": {"trainable": 9, "frozen": 0}}
    record, evidence = _record(network=network, prefix={"stage": None, "computed": 0, "reused": 0})
    recipe = {
        **record["recipe"],
        "channels": 1,
        "head": "mlp:64",
        "optimizer": "adam",
        "regularisation": None,
        "epochs": 1,
        "batch": 8,
        "lr": 0.1,
    }
    record |= {"recipe": recipe, "selected": {"epoch": 1}, "trained": "network"}
    words = recipe_in_words(record)
    assert "scaled to 224 x 224 pixels and converted to greyscale." in words
    assert "cut off after blocks.4 (112 x 14 x 14, pooled by avg); it started from the weights of run 7" in words
    assert f"trained on birds. {aside} All 9 parameters were trained." in words
    assert "A head of mlp:64 on 112 features was trained by gradient descent (Adam) for 1 epoch" in words
    assert (
        "together with the layers of the network that were not frozen; epoch 1 was kept, because it has the lowest"
        in words
    )
    history = [{"epoch": 1.0, "train_loss": 1, "val_loss": 1, "train_accuracy": 0.5, "val_accuracy": 0.5}]
    html = render_run(record, Evidence(history, evidence.pictures, evidence.confusion, evidence.reliability))
    assert "Frozen layers are not changed" not in html
    for kind, told in (("file", "from the weights in w"), ("none", "from random weights")):
        changed = {**weights, "kind": kind, "about": "random", "set_aside": ""}
        assert told in recipe_in_words({**record, "network": {**network, "weights": changed}})


def test_the_stages_of_the_network_are_a_table() -> None:
    html = render_run(*_record())
    assert "32 × 112 × 112" in html
    assert ">frozen<" in html
    assert "classifier (head)" in html
    assert "All 2 stages as a table" in html
    assert "stage by stage</title>" in html


def test_a_run_is_shown_by_the_metrics_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("accuracy", "balanced_accuracy", "auroc", "log_loss")
    monkeypatch.setattr(SingleLabel, "metric_names", property(lambda _: names))
    record, evidence = _record()
    scores, _ = _evaluated(("leaf", "sky", "none"))
    without = {**scores, "per_class": scores.per_class}
    del without["auroc"]
    html = render_run({**record, "metrics": {"val": without}}, evidence)
    assert ">balanced accuracy</button>" in html
    assert "<dt>AUROC</dt>" not in html
    tested = {"looks": 1, "opened": ["2026"], "metrics": scores}
    html = render_run({**record, "metrics": {"val": without}, "test": tested}, evidence)
    assert html.count("<dt>AUROC</dt>") == 1


def test_findings_alone() -> None:
    record, _ = _record()
    check = _check(record)
    html = render_findings(check, Pictures({"b.png": "data:image/jpeg;base64,AA"}))
    assert 'src="data:image/jpeg;base64,AA"' in html
    assert "D010 warning" in html
    assert "No findings" in render_findings(replace(check, findings=()), Pictures())


def test_figures_are_well_formed_and_hold_every_point() -> None:
    lines = draw_lines("t<", [Series("a", [(1, 0.5), (2, 0.25)]), Series("b", [(1, 1), (2, 3)])], "x", "y", chosen=2)
    tree = ElementTree.fromstring(lines)
    assert tree.findtext("title") == "t<"
    assert len(tree.findall("polyline")) == 2
    assert len(tree.findall("circle")) == 4
    assert len([line for line in tree.findall("line") if line.get("class") == "chosen"]) == 1
    metric = Metric(0.5, 0.4, 0.6, 9)
    rows = [("a&b", metric), ("none", Metric(None, None, None, 0))]
    assert len(ElementTree.fromstring(draw_intervals("t", rows, "x")).findall("circle")) == 1
    bins = [ReliabilityBin(0.9, metric)]
    assert len(ElementTree.fromstring(draw_reliability("t", bins)).findall("circle")) == 1


def test_a_line_chart_places_points_by_value() -> None:
    def places(**options: Any) -> list[list[float]]:
        svg = draw_lines("t", [Series("a", [(0.01, 0), (0.1, 1), (1, 2)])], "x", "y", **options)
        points = ElementTree.fromstring(svg).find("polyline").get("points").split()  # type: ignore[union-attr]
        return [[float(value) for value in point.split(",")] for point in points]

    (x0, y0), (x1, y1), (x2, y2) = places(log_x=True)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    (x0, _), (x1, _), (x2, _) = places()
    assert (x1 - x0) * 10 == pytest.approx(x2 - x1, rel=0.1)


def _styles(html: str) -> dict[str, dict[str, str]]:
    """The colour variables of each theme."""
    themes = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    return {
        name: dict(re.findall(r"--([a-z]+): ([^;]+);", theme))
        for name, theme in zip(("light", "dark", "print"), themes, strict=True)
    }


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as the accessibility guidelines (WCAG 2) define it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _mixed(over: str, under: str, share: float) -> str:
    """The colour `r, g, b` laid over `#rrggbb` with an opacity."""
    below = [int(under[at : at + 2], 16) for at in (1, 3, 5)]
    mixed = [share * int(top) + (1 - share) * low for top, low in zip(over.split(","), below, strict=True)]
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def test_every_theme_defines_every_colour() -> None:
    html = render_run(*_record())
    themes = _styles(html)
    used = set(re.findall(r"var\(--([a-z]+)\)", html)) - {"share"}
    assert all(used == theme.keys() for theme in themes.values())


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_can_be_read_in_every_theme(theme: str) -> None:
    colours = _styles(render_run(*_record()))[theme]
    for text in ("ink", "soft", "accent", "second", "error", "warning", "note"):
        assert _contrast(colours[text], colours["card"]) >= 4.5, text
    for under in ("page", "well", "rule"):
        assert _contrast(colours["soft"], colours[under]) >= 4.5, under
    for cell, share in (("right", 0.65), ("wrong", 0.74)):
        assert _contrast(colours["ink"], _mixed(colours[cell], colours["card"], share)) >= 4.5, cell


def test_a_score_is_called_too_good_only_when_something_was_chosen_by_it() -> None:
    record, evidence = _record()
    assert "slightly too optimistic, because the network was selected by it" in render_run(record, evidence)
    given = {**record["recipe"], "regularisation": 0.1}
    one = Evidence(HISTORY[1:2], evidence.pictures, evidence.confusion, evidence.reliability)
    html = render_run({**record, "recipe": given}, one)
    assert "slightly too optimistic, because the network was selected by it" not in html
    assert "slightly too optimistic" not in html
    assert "<h2>Curves</h2>" not in html


def test_an_opened_test_split_is_shown_by_class() -> None:
    record, evidence = _record()
    assert "F1 on test" not in render_run(record, evidence)
    opened = {"looks": 1, "opened": ["2026"], "metrics": record["metrics"]["val"]}
    html = render_run({**record, "test": opened}, evidence)
    assert "F1 on test" in html
    assert "This was the first use of this test set (look 1)" in html
    assert "sealed</p>" not in html


def test_a_split_without_images_is_all_dashes() -> None:
    record, _ = _record()
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    of_class = {"precision": nothing, "recall": nothing, "f1": nothing, "support": 0}
    classes = record["dataset"]["classes"]
    scores = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "log_loss"), nothing)
    val = {**scores, "per_class": dict.fromkeys(classes, of_class)}
    empty = Evidence(HISTORY, Pictures(), [[0] * len(classes)] * len(classes), [])
    html = render_run({**record, "metrics": {"val": val}}, empty)
    assert '<p class="figure">–</p>' in html
    assert "None" not in html


def test_the_weakest_classes_come_first() -> None:
    record, evidence = _record()
    html = render_run(record, evidence)
    rows = re.findall(r"<tr><td>(\w+)</td><td class=\"number\">.*?</tr>", html.split("<h2>Scores by class</h2>")[1])
    of_class = record["metrics"]["val"]["per_class"]
    assert rows[:2] == sorted(("leaf", "sky"), key=lambda name: of_class[name]["f1"]["value"])
    assert rows[2] == "none"


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("/photos", "budwood train /photos --recipe"),
        ("/my photos", "budwood train &#39;/my photos&#39; --recipe"),
        ("/a\nb'c", "budwood train $&#39;/a\\nb\\&#39;c&#39; --recipe"),
    ],
)
def test_the_command_that_makes_it_again(source: str, written: str) -> None:
    record, evidence = _record()
    html = render_run({**record, "source": source}, evidence)
    assert written in html
    assert "recipe.toml --leaks allow" not in html
    leaking = {**record["dataset"], "leaks_allowed": True}
    assert "recipe.toml --leaks allow" in render_run({**record, "dataset": leaking}, evidence)


def test_commands_of_a_page_work_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    record, evidence = _record()
    html = unescape(render_run(record, replace(evidence, folder=Path("my runs/one"))))
    assert f"budwood test '{tmp_path}/my runs/one'" in html
    assert f"budwood explain '{tmp_path}/my runs/one'" in html
    assert f"--recipe '{tmp_path}/my runs/one/recipe.toml' --out '{tmp_path}/my runs'" in html
    read = {**record, "reading": {"val": 0.3, "test": 0.1, "exclude": ["a b"], "corrections": ["/c.csv"]}}
    html = unescape(render_run(read, evidence))
    assert "recipe.toml --val 0.3 --test 0.1 --exclude 'a b' --corrections /c.csv" in html


def test_long_lists_of_files_say_how_many_more() -> None:
    record, _ = _record()
    files = [f"{number}.png" for number in range(30)]
    finding = {**record["findings"][0], "files": files, "groups": []}
    assert "and 18 more" in render_findings(_check({**record, "findings": [finding]}), Pictures())
    grouped = {**finding, "groups": [files] * 10}
    html = render_findings(_check({**record, "findings": [grouped]}), Pictures())
    assert "and 18 more" in html
    assert "and 2 more groups" in html


def test_figures_on_the_page_are_well_formed() -> None:
    for count in (2, 40):
        html = render_run(*_record(("<&>", *(f"class {number}" for number in range(count - 1)))))
        figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
        assert len(figures) >= 4
        assert all(ElementTree.fromstring(figure).findtext("title") for figure in figures)


MEASURE = """<!doctype html><title>wait</title>
<iframe src="page.html" style="border:0;height:900px;width:{width}px"></iframe>
<script>onload = () => {{ const root = document.querySelector("iframe").contentDocument.documentElement;
document.title = root.scrollWidth <= root.clientWidth ? "fits" : "too wide: " + root.scrollWidth }}</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(width: int, browser: str, tmp_path: Path) -> None:
    names = tuple(f"a class with a rather long name {number}" for number in range(12))
    (tmp_path / "page.html").write_text(render_run(*_record(names)))
    (tmp_path / "measure.html").write_text(MEASURE.format(width=width))
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        f"file://{tmp_path / 'measure.html'}",
    ]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "<title>fits</title>" in dom, dom[:200]
