"""The page and the terminal show every row of a comparison, whatever is missing of it, and fit a phone."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from test_run_page import MEASURE, _luminance, _Resources, _styles

import budwood as bw
from budwood.comparison.compare import compare
from budwood.comparison.document import Comparison
from budwood.comparison.text import format_comparison, format_count, format_duration, format_p_value
from budwood.evaluation.intervals import Metric
from budwood.reporting.comparison_page import About, render_comparison
from budwood.text import Unit, format_difference
from conftest import answers, scored_run

TRUTH = (np.arange(150) % 3).astype(np.int32)
HOSTILE = '<script>alert("x")</script>\n🌳'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A table of 24 rows and one that failed, with seeds, curves, published figures and opened test splits."""
    folder = tmp_path_factory.mktemp("runs")
    entries = []
    for number in range(24):
        rate, optimizer = 10.0 ** -(1 + number // 4), ("adam", "sgd", "adamw", "rmsprop")[number % 4]
        accuracy = 0.6 + number / 80
        history = [
            {
                "epoch": e,
                "train_loss": 1 / e,
                "train_accuracy": 0.9,
                "val_loss": 1 / e,
                "val_accuracy": accuracy - 0.1 / e,
            }
            for e in (1.0, 2.0, 3.0)
        ]
        runs = tuple(
            scored_run(
                folder / f"{number}-{seed}",
                TRUTH,
                answers(TRUTH, accuracy, 10 * number + seed),
                lr=rate,
                optimizer=optimizer,
                seed=seed,
                seconds=float(number + 1),
                history=history,
                test=(TRUTH, answers(TRUTH, accuracy, 99 + number), 1) if number % 5 == 0 else None,
            )
            for seed in range(2 if number % 3 == 0 else 1)
        )
        published = bw.Published(test=0.8) if number % 2 else bw.Published(val=0.8)
        label = HOSTILE if number == 7 else f"row {number} with a name that is rather long"
        entries.append(bw.RowSpec(label, runs, published if number % 4 == 0 or number == 7 else None))
    entries.append(bw.RowSpec("failed", (), bw.Published(test=0.1), "The loss is no longer a number."))
    return compare(entries, base={"optimizer": "adam", "lr": 0.001})


def test_every_section_and_every_row_is_there(made: Comparison) -> None:
    html = render_comparison(made, "A study")
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Findings",
        "Table",
        "Scores with confidence intervals",
        "Score and cost",
        "Learning curves",
        "One option at a time",
        "Which options matter",
        "What was compared",
    ]
    assert len(re.findall(r'<th scope="row"><span class="rank">', html)) == 25
    assert "A study" in html
    assert "failed: The loss is no longer a number. Published: 10 % test." in html
    assert re.search(r'<td class="number">sealed +<small class="told">◆ 80 %</small>', html), "shown, not compared"
    assert re.search(r'<small class="told">◆ 80 %, ours [+−]\d', html)
    assert "A published test score is not compared while our test split is sealed" in html
    assert "with Holm correction for all 276 pairs" in html
    assert "sealed" in html
    assert "look 1" in html
    table = html.split("<h2>Table</h2>")[1]
    assert table.index("Scroll the table sideways") < table.index('tabindex="0" role="region"') < table.index("<table")
    best = next(row for row in made.rows if row.best)
    assert html.index('<p class="figure">') < html.index(best.label) < html.index("<h2>Findings</h2>")


def test_rows_keep_their_order_on_request(made: Comparison) -> None:
    html = render_comparison(made, order="given")
    table = html.split("<h2>Table</h2>")[1].split("</table>")[0]
    numbers = [int(label) for label in re.findall(r"</span> row (\d+) ", table)]
    assert numbers == [number for number in range(24) if number != 7]
    assert "25 rows, in the order given, compared by validation accuracy" in html
    lines = format_comparison(made, "given").splitlines()
    assert [re.sub(r"^\W+", "", line).split(" with")[0] for line in lines[2:5]] == ["row 0", "row 1", "row 2"]


def test_a_page_tells_where_its_rows_come_from(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path / f"{n}", TRUTH, answers(TRUTH, 0.7, n), lr=n / 10) for n in (1, 2)]
    given = bw.Published(
        train=0.9706, val=0.8064, test=(0.28, 0.3), val_loss=0.0033, seconds=364, machine="a GPU", parameters=5_000_000
    )
    entries = [
        bw.RowSpec("one", (runs[0],), replace(given, note="the best of three"), stand_in="ResNet-18 for VGG-16"),
        bw.RowSpec("two", (runs[1],)),
        bw.RowSpec("wild", (), bw.Published(train_loss=0.5), "momentum: expected under 1", "refused"),
        bw.RowSpec("trial 3", (), None, "pruned after epoch 3", "pruned"),
    ]
    made = compare(entries)
    about = About("A report of 2019", [HOSTILE], {"momentum": "0.9", "step": "20", "decay": "0", "batch": "128 <b>"})
    html = render_comparison(made, "A study", "given", about)
    head = html.split("<h2>Findings</h2>")[0]
    assert "Source: A report of 2019" in head
    assert "&lt;script&gt;" in head
    assert "<details><summary>What the source does not tell, and what was chosen (4)</summary>" in head, "long: closed"
    assert '<th scope="row">batch</th><td>128 &lt;b&gt;</td>' in head
    assert "Set for every row" not in head
    about = About(caveats=["The source froze by `requires_grad`."], assumed={"momentum": "0.9"}, changed="epochs = 1")
    short = render_comparison(made, about=about)
    assert "<details open>" in short
    assert "<li>The source froze by <code>requires_grad</code>.</li>" in short
    assert "<p>Set for every row: epochs = 1</p>" in short
    table = html.split("<h2>Table</h2>")[1].split("</section>")[0]
    for part in (
        '<small class="told">stand-in: ResNet-18 for VGG-16</small>',
        '<small class="told">◆ the best of three</small>',
        '<small class="told">◆ 28 to 30 %</small>',
        '<small class="told">◆ loss 0.0033, other scale</small>',
        '<small class="told">◆ 6 min 4 s</small>',
        '<small class="told">◆ 5.00 M</small>',
        "Published times were measured on a GPU; they are not compared.",
        "refused: momentum: expected under 1 Published: loss 0.5 training.",
        "<span>pruned after epoch 3</span>",
    ):
        assert part in table, part
    assert "failed" not in table
    assert 'class="about"' not in render_comparison(made, about=About())
    text = format_comparison(made, "given")
    for part in (
        "28 to 30 % (ours sealed)",
        "(published 6 min 4 s)",
        "ResNet-18 for VGG-16",
        "Published times on a GPU.",
    ):
        assert part in text, part
    assert "Published losses beside scores: on the page, in table.csv and with --json." in text
    assert "Not trained: trial 3: pruned after epoch 3" in text


def test_rows_are_ranked(made: Comparison) -> None:
    html = render_comparison(made).split("<h2>Table</h2>")[1].split("</table>")[0]
    values = [float(value) for value in re.findall(r'</th>\s*<td class="number">([\d.]+) %', html)]
    assert len(values) == 24
    assert values == sorted(values, reverse=True)
    assert html.rstrip().index("failed:") > html.index(f"{values[-1]:.1f} %")


def test_nothing_is_asked_of_the_network_and_names_are_text(made: Comparison) -> None:
    html = render_comparison(made)
    page = _Resources()
    page.feed(html)
    assert all(value.startswith(("data:", "#")) for value in page.found)
    assert "http" not in html
    assert not {"script", "link", "iframe"} & page.tags
    assert "&lt;script&gt;" in html
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) >= 6
    assert all(ElementTree.fromstring(figure).findtext("title") for figure in figures)


def test_colours_of_curves_can_be_told_from_the_card(made: Comparison) -> None:
    for theme in _styles(render_comparison(made)).values():
        for name in ("accent", "second", "green", "violet", "rose"):
            low, high = sorted((_luminance(theme[name]), _luminance(theme["card"])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_two_plain_rows_have_a_small_page(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path / f"{n}", TRUTH, answers(TRUTH, 0.7, n), lr=n / 10) for n in (1, 2)]
    html = render_comparison(compare(runs))
    assert "Which options matter" not in html, "two rows cannot tell"
    assert "All 1 pairs" not in html
    assert "McNemar&#39;s exact test" in html
    assert "None" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    for metric in ("macro_f1", "log_loss"):
        assert "<svg" in render_comparison(compare(runs, metric=metric))


def test_rows_on_other_images_are_lettered(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path / f"{n}", TRUTH, answers(TRUTH, 0.7, n), lr=n / 10) for n in (1, 2)]
    other = scored_run(tmp_path / "3", TRUTH[:90], answers(TRUTH[:90], 0.7, 3), lr=0.3, fingerprint="e" * 64)
    made = compare([*runs, other], apart=True)
    html = render_comparison(made)
    assert "Rows with different letters were evaluated on different images" in html
    assert html.count('<p class="name">Best') == 2
    assert "only rows with the same images are compared" in format_comparison(made)


def test_a_table_without_a_single_result(tmp_path: Path) -> None:
    nothing = compare([bw.RowSpec("a", (), problem="x"), bw.RowSpec("b", (), problem="y")])
    assert "failed: x" in render_comparison(nothing)
    assert "Failed: b: y" in format_comparison(nothing)


def test_a_row_whose_metric_is_undefined_is_left_out_of_figures(made: Comparison) -> None:
    first, *rest = made.rows
    undefined = replace(first, value=Metric(None, None, None, 150), tied=False, best=False)
    html = render_comparison(replace(made, rows=(undefined, *rest)))
    assert "Which options matter" in html
    assert "undefined" in html, "the row is there all the same"


def test_the_table_for_a_terminal(made: Comparison) -> None:
    text = format_comparison(made)
    lines = text.splitlines()
    assert lines[0].split()[0] == "row"
    assert sum(line.startswith(("* row", "  row", "* <", "  <")) for line in lines) == 24
    assert "\\n🌳" in text, "a name with a line break stays in its line"
    assert "Failed: failed: The loss is no longer a number." in text
    assert "95 % confidence intervals, n = 150 images; for several runs: lowest to highest score, " in text
    assert "standard deviation (sd)." in text


def test_numbers_in_words() -> None:
    assert [format_count(n) for n in (None, 0, 9_999, 12_345, 123_456, 3_373_570, 138_000_000, 4_100_000_000)] == [
        "–",
        "0",
        "9,999",
        "12.3 k",
        "123 k",
        "3.37 M",
        "138 M",
        "4.10 G",
    ]
    assert [format_duration(s) for s in (0.123, 12.3, 150, 7200)] == ["0.12 s", "12 s", "2 min", "2.0 h"]
    assert [format_p_value(p) for p in (None, 1e-9, 0.0123, 0.5)] == ["–", "< 0.001", "0.012", "0.50"]
    assert [format_difference(v, Unit()) for v in (0.012, -0.034, -0.0001)] == ["+1.2", "−3.4", "0.0"]
    assert format_difference(-0.0123, Unit(loss=True)) == "−0.012"


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(width: int, made: Comparison, browser: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render_comparison(made))
    (tmp_path / "measure.html").write_text(MEASURE.format(width=width))
    command: list[Any] = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--no-first-run", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'measure.html'}"]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "<title>fits</title>" in dom, dom[:200]
