"""`budwood demo`: the whole job on real data, offline, beside what was published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from budwood.data.scanning import scan
from budwood.evaluation.intervals import Metric
from budwood.progress import Progress
from budwood.reporting.known_scores import KNOWN_SCORES
from budwood.text import quote_path
from budwood.workflows.evaluate import test
from budwood.workflows.ladder import train

PUBLISHED: Final = KNOWN_SCORES["elpv"]

INTRODUCTION: Final = """\
Budwood demo: is a solar cell functional or defective?
Data: ELPV, 2,624 electroluminescence images (Buerhop-Lutz et al. 2018; Deitsch et al. 2019), CC BY-NC-SA 4.0:
  you may not use them commercially. A cell counts as defective when its recorded probability is over 0.5.
Networks: EfficientNet-Lite0, 1 and 2 with ImageNet weights (Apache-2.0). The best is searched for, for two and a half
  minutes: frozen ones are compared, the best is fine-tuned, several are joined where that is better.
"""
SECONDS: Final = 150.0  # of the search


def run_demo(out: Path, progress: Progress, say: Callable[[str], Any]) -> dict[str, Any]:
    """Scan, train, test and report on the bundled ELPV images, and print the result.

    Args:
        out: Folder of runs.
        progress: Where bars and notes go.
        say: Is called with each part of the text.

    Returns:
        The run, its report, metrics, looks, the published accuracies (0 to 1) and the timings, as plain values.

    Raises:
        StorageError: `out` or the cache cannot be written.
        WeightsError: The weights are missing.
    """
    say(INTRODUCTION)
    run = train(scan("elpv", progress=progress), time=SECONDS, out=out, progress=progress)
    tested = test(run, progress=progress)
    opened = tested.opened()
    say(_format_scores(tested.record.val.accuracy, opened.metrics.accuracy))
    say(f"\nReport (one file, works offline): {tested.path / 'report.html'}\n\nNext steps:")
    for title, command in _list_next_steps(tested.path):
        say(f"  {title}:\n    {command}")
    return {
        "run": str(tested.path),
        "report": str(tested.path / "report.html"),
        "metrics": tested.metrics,
        "looks": opened.looks,
        "published": PUBLISHED,
        "timings": tested.record.timings.model_dump(exclude_unset=True),
    }


def _format_scores(val: Metric, test: Metric) -> str:
    rows = [
        f"  {'Validation accuracy':<36} {_in_percent(val)}",
        f"  {'Test accuracy':<36} {_in_percent(test)}",
        *(f"  {'Published, ' + name:<36} {100 * value:5.2f} %" for name, value in PUBLISHED.items()),
    ]
    return "\n".join(rows)


def _in_percent(metric: Metric) -> str:
    value, low, high = (100 * (part or 0.0) for part in (metric.value, metric.low, metric.high))
    return f"{value:5.2f} %   95 % confidence interval {low:.1f} to {high:.1f}, n = {metric.n:,}"


def _list_next_steps(run: Path) -> list[tuple[str, str]]:
    return [
        ("check your own images", "budwood inspect PHOTOS/"),
        ("train on your own images (one folder per class)", "budwood train PHOTOS/"),
        ("search for longer", "budwood train elpv --time 20m"),
        ("train one recipe of your own", "budwood train elpv --model resnet18 --freeze upto:layer3 --epochs 10"),
        ("predict with this network", f"budwood predict {quote_path(run)} IMAGE.png"),
    ]
