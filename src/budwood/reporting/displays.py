"""What a notebook shows of a run, a data set, a recipe, predictions and comparisons: one function a kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from budwood.comparison.document import Comparison
from budwood.comparison.text import MARK, find_present_columns, format_rows, join_cell
from budwood.config.metric_registry import describe_metric
from budwood.config.recipe import Recipe, find_default_valued
from budwood.data.checks import Finding
from budwood.data.dataset import Dataset
from budwood.evaluation.confusion import Confusion
from budwood.evaluation.intervals import describe_share_of, proportion_interval
from budwood.evaluation.prediction_list import PredictionList
from budwood.evaluation.predictions import Predictions
from budwood.reporting.display_card import (
    ROWS_SHOWN,
    Card,
    CardTable,
    PictureGroup,
    render_card,
    tell_more,
)
from budwood.reporting.display_pictures import list_pictures
from budwood.reporting.run_page import MATRIX_MOST, make_matrix
from budwood.runs.run import Run
from budwood.text import SPLITS, counted, format_seconds, quote_path
from budwood.training.history import History, drop_stage_columns

CLASSES_LISTED: Final = 40
PAIRS_SHOWN: Final = 12


def draw_run(run: Run) -> str:
    """Draw what a notebook shows of a run."""
    record = run.record
    scores = [(name, _describe_split(run, name)) for name in record.metrics]
    scores.append(("test", _describe_split(run, "test") if record.test else "sealed"))
    facts = [
        ("data", f"{record.dataset.name}, {counted(len(run.classes), 'class', 'classes')}"),
        ("network", f"{record.network.name}, {_describe_training(run)}"),
        *((f"{SPLITS[name]} accuracy", said) for name, said in scores),
        *([("time", format_seconds(record.timings.total))] if record.timings.total else []),
        *([("state", record.state)] if record.state != "done" else []),
        ("folder", str(run.path)),
    ]
    path = quote_path(str(run.path))
    notes = ["`run.plot()`, `run.confusion`, `run.show_mistakes()`, `run.history` and `run.network()` show more."]
    if record.state == "done" and not record.test:
        notes.append(f"`bw.test(run)` opens the sealed test split and counts the look; `budwood report {path}`.")
    return render_card(Card("Run", record.id, facts, notes=notes))


def _describe_split(run: Run, split: str) -> str:
    said = describe_share_of(run.metrics[split].accuracy)
    looks = run.record.test.looks if split == "test" and run.record.test else 0
    return f"{said}, {counted(looks, 'look')}" if looks else said


def _describe_training(run: Run) -> str:
    made = run.record.ensemble
    if made:
        return f"an ensemble of {counted(len(made.members), 'network')}"
    return "a head on a frozen trunk" if run.record.trained == "head" else f"freeze = {run.recipe.freeze}"


def draw_dataset(data: Dataset) -> str:
    """Draw what a notebook shows of a data set; labels of test images are not counted."""
    counts = data.counts()
    facts = [
        ("images", f"{len(data):,} that can be decoded"),
        ("splits", ", ".join(f"{SPLITS[name]} {len(data.samples(name)):,}" for name in SPLITS) + ", test sealed"),
        ("split", data.split_source),
        ("set aside", counted(len(data.set_aside), "file")),
        ("folder", str(data.root)),
    ]
    listed = data.classes[:CLASSES_LISTED]
    rows = [(name, f"{counts['train'][name]:,}", f"{counts['val'][name]:,}") for name in listed]
    more = f"{len(listed):,} of {len(data.classes):,} classes" if len(listed) < len(data.classes) else ""
    table = CardTable(("class", "training", "validation"), rows, (1, 2), more)
    notes = ["`data.show()` shows pictures; `bw.findings(data)` says what is wrong with the data."]
    return render_card(Card("Data set", data.name, facts, [table], notes=notes))


def draw_recipe(recipe: Recipe) -> str:
    """Draw what a notebook shows of a recipe: the options that differ from what stands in for them."""
    table = recipe.table()
    plain = find_default_valued(table)
    rows = [(name, _write(value)) for name, value in table.items() if name not in plain]
    note = f"{counted(len(plain), 'more option')} with the usual value; `recipe.table()` has all, `recipe.toml()` too."
    return render_card(Card("Recipe", recipe.model, tables=[CardTable(("option", "value"), rows)], notes=[note]))


def _write(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_write, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def draw_history(history: History) -> str:
    """Draw what a notebook shows of a history: its last rows."""
    rows = drop_stage_columns(list(history))
    names = list(dict.fromkeys(name for row in rows for name in row))
    last = rows[-ROWS_SHOWN:]
    cells = [[_write_number(row[name]) if name in row else "" for name in names] for row in last]
    table = CardTable(names, cells, range(len(names)), tell_more(len(last), len(rows)))
    return render_card(Card("History", tables=[table], notes=["`history.to_pandas()` makes a frame of all columns."]))


def _write_number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def draw_confusion(confusion: Confusion) -> str:
    """Draw what a notebook shows of a confusion matrix."""
    return render_card(make_confusion_card(confusion))


def make_confusion_card(confusion: Confusion) -> Card:
    """Make the card of a confusion matrix; of many classes, its most frequent mistakes.

    Args:
        confusion: The counts.

    Returns:
        The card.
    """
    total, right = int(confusion.counts.sum()), int(confusion.counts.trace())
    split = f"{SPLITS[confusion.split]} " if confusion.split else ""
    facts = [(f"{split}accuracy", describe_share_of(proportion_interval(right, total)))]
    pairs, tables, matrix = confusion.list_pairs(), [], []
    if len(confusion.labels) <= MATRIX_MOST:
        matrix = make_matrix(confusion.counts.tolist(), confusion.labels)
    else:
        rows = [(true, called, f"{count:,}", f"{of:,}") for true, called, count, of in pairs[:PAIRS_SHOWN]]
        more = tell_more(len(rows), len(pairs))
        tables = [CardTable(("true class", "predicted class", "times", "of"), rows, (2, 3), more)]
    return Card("Confusion matrix", facts=facts, tables=tables, matrix=matrix)


def draw_predictions(predictions: Predictions) -> str:
    """Draw what a notebook shows of predictions: the first ones, with their pictures."""
    about = predictions.origin
    facts = []
    if about is None or about.chosen_from is None:
        share = proportion_interval(int(predictions.correct.sum()), len(predictions))
        facts = [("accuracy", describe_share_of(share))]
    of = f" of {about.chosen_from:,}" if about and about.chosen_from is not None else ""
    title = f"{len(predictions):,}{of} {SPLITS[about.split] if about else ''} images".replace("  ", " ")
    pictures = list_pictures(predictions, min(len(predictions), ROWS_SHOWN))
    notes = [f"The first {len(pictures)}."] if len(pictures) < len(predictions) else []
    notes.append("`.to_pandas()` has all of them, `.wrong()` the mistakes.")
    return render_card(Card("Predictions", title, facts, pictures=[PictureGroup("", pictures)], notes=notes))


def draw_prediction_list(answers: PredictionList) -> str:
    """Draw what a notebook shows of what `bw.predict` says of images."""
    shown = answers[:ROWS_SHOWN]
    rows = [(one.path, one.problem or one.answer, _write_top(one.top)) for one in shown]
    table = CardTable(("image", "answer", "likeliest classes"), rows, (), tell_more(len(shown), len(answers)))
    return render_card(Card("Predictions", counted(len(answers), "image"), tables=[table]))


def _write_top(top: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {100 * chance:.1f}\u00a0%" for name, chance in top)


def draw_comparison(made: Comparison) -> str:
    """Draw what a notebook shows of a comparison: its table, the best first."""
    cells = format_rows(made)
    metric = f"{SPLITS[made.split]} {describe_metric(made.metric)}"
    sizes = sorted({row.value.n for row in made.rows if row.value})
    rows = [
        (
            f"{MARK if one.row.tied else ' '} {one.row.label}",
            one.differs,
            one.row.problem or join_cell(one.value),
            join_cell(one.from_best),
            join_cell(one.p),
            join_cell(one.test),
        )
        for one in cells
    ]
    header = ("row", "differs in", metric, "from the best", "p", "test")
    kept = [n for n in range(len(header)) if n != 1 or find_present_columns(made).differs]
    table = CardTable([header[n] for n in kept], [[row[n] for n in kept] for row in rows])
    n = ", ".join(f"{size:,}" for size in sizes)
    notes = [
        f"{MARK} not distinguishable from the best. In brackets: 95 % intervals, n = {n} images; p corrected (Holm).",
        "`comparison.table()` has the figures, `comparison.csv()` writes them.",
    ]
    title = made.data.name if made.data else ""
    return render_card(Card("Comparison", title, tables=[table], notes=notes if np.any(sizes) else notes[1:]))


def draw_finding(finding: Finding) -> str:
    """Draw what a notebook shows of a finding about a data set."""
    files = finding.files[:ROWS_SHOWN]
    tables = [CardTable(("file",), [(path,) for path in files], (), tell_more(len(files), len(finding.files)))]
    title = f"{finding.code}: {finding.message}"
    return render_card(Card(finding.severity, title, tables=tables if files else [], notes=[finding.advice]))
