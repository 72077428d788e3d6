"""The studies on real images: each is carried out, and docs/studies.md and its pages are written from the results.

    scripts/studies [NAME...]

A study that is cut off goes on where it stopped. The pictures of the pages need Chromium.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budwood.comparison.claims import ALTERED, format_margin
from budwood.comparison.text import format_figure, format_gap, format_p_value, join_cell
from budwood.config.metric_registry import is_loss
from budwood.evaluation.intervals import Metric
from budwood.text import Unit

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGES = ROOT / "docs" / "studies"
RUNS = ROOT / "runs" / "studies"
SCRATCH = ("--quick", "-s", "weights=none")
TEST = ("--test",)


@dataclass(frozen=True)
class RealRun:
    """A study that is carried out here.

    Attributes:
        name: Its name, and that of its file.
        data: The data as the command takes them: files of `DATA`, with a name before them where there are several.
        flags: Further arguments.
        remark: What is not as published.
    """

    name: str
    data: tuple[str, ...]
    flags: tuple[str, ...] = ()
    remark: str = ""


REAL_RUNS = (
    RealRun(
        "study1_caltech101",
        ("caltech101_mini.tar",),
        (*SCRATCH, *TEST),
        "The whole table in small: 11 of 101 classes, few epochs, no ImageNet weights of AlexNet or ResNet-34 here.",
    ),
    RealRun("study1_caltech101_lite0", ("caltech101_mini.tar",), TEST, "11 of 101 classes."),
    RealRun(
        "study2_cifar10_vgg",
        ("cifar10=cifar10.tar.xz",),
        SCRATCH,
        "The whole table in small: 2,000 images, 4 epochs. Caltech-256 cannot be had here, so its rows are not run.",
    ),
    RealRun("study2_scenes_lite0", ("scenes8.tar",), TEST, "Eight scenes in the place of Caltech-256."),
    RealRun(
        "study3_cifar100",
        ("tiny100.tar.xz",),
        (*SCRATCH, *TEST),
        "A stand-in for CIFAR-100: 100 classes of Tiny ImageNet at 32 x 32 pixels. 1,000 images, 3 epochs.",
    ),
    RealRun(
        "study3_tiny100_lite0",
        ("tiny100.tar.xz",),
        TEST,
        "A stand-in for CIFAR-100, whose classes the ImageNet weights have seen.",
    ),
    RealRun(
        "study4_cifar10_resnet18",
        ("cifar10.tar.xz",),
        SCRATCH,
        "The whole table in small: 2,000 images, 4 epochs, 32 x 32 pixels, no ImageNet weights of ResNet-18 here.",
    ),
    RealRun("study4_cifar10_lite0", ("cifar10.tar.xz",), (), "2,000 images, 64 x 64 pixels."),
    RealRun(
        "study5_scenes",
        ("scenes8.tar",),
        (*SCRATCH, *TEST),
        "The whole table in small: 104 images, 3 epochs, 64 x 64 pixels, no ImageNet weights of DenseNet-121 here.",
    ),
    RealRun("study5_scenes_lite0", ("scenes8.tar",), TEST, "The trunk is frozen, the small set is of 96 x 96 pixels."),
)


def main() -> int:
    """Carry out the named studies, or all of them, and write the pages.

    Returns:
        The exit code: 0, or 2 where the images are absent or a name is unknown.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies; all of them where none is named")
    parser.add_argument("--time", metavar="LIMIT", help="of each study, such as 10m; the next call goes on")
    arguments = parser.parse_args()
    names = arguments.names or [run.name for run in REAL_RUNS]
    unknown = set(names) - {run.name for run in REAL_RUNS}
    if unknown or not DATA.is_dir():
        known = ", ".join(run.name for run in REAL_RUNS)
        print(f"Expected names of {known}, and images in {DATA}; found {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for run in REAL_RUNS:
        if run.name in names:
            carry_out(run, ["--time", arguments.time] if arguments.time else [])
    write_overview()
    return 0


def carry_out(run: RealRun, limit: Sequence[str]) -> None:
    """Carry out a study with the command line, and keep its page, table, picture and result.

    Args:
        run: The study.
        limit: Arguments that limit its time; none for no limit.
    """
    command = [".venv/bin/budwood", "study", f"studies/{run.name}.toml", *_place_data(run), *run.flags, *limit]
    print(" ".join(command), file=sys.stderr)
    out = RUNS.relative_to(ROOT)  # so that no page names a folder of this machine
    done = subprocess.run([*command, "--out", str(out), "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    result = json.loads(done.stdout)[0]
    folder = PAGES / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "table.csv"):
        shutil.copyfile(Path(ROOT, result["folder"], name), folder / name)
    draw_page(folder / "report.html", folder / "report.png")
    kept = {name: result[name] for name in ("title", "source", "metric", "best", "hardware")} | {
        "claims": result.get("claims", []),
        "rows": [
            {name: row[name] for name in ("label", "value", "test", "seeds", "problem")} for row in result["rows"]
        ],
        "seconds": round(sum(row["seconds"] or 0 for row in result["rows"])),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    (folder / "result.json").write_text(json.dumps(kept, indent=1) + "\n")


def _place_data(run: RealRun) -> list[str]:
    """The data as arguments."""
    return [f"{name}{mark}{DATA / file}" for name, mark, file in (_part(one) for one in run.data)]


def _part(argument: str) -> tuple[str, str, str]:
    name, mark, file = argument.rpartition("=")
    return name, mark, file


def draw_page(page: Path, picture: Path) -> None:
    """Draw the beginning of a page.

    Args:
        page: The HTML file.
        picture: The PNG file that is written.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print(f"{picture}: not drawn, as there is no Chromium", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as profile:
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}")
        size = ("--window-size=1200,1500", f"--screenshot={picture}")
        subprocess.run([browser, *options, *size, page.as_uri()], check=True, capture_output=True)


def write_overview() -> None:
    """Write docs/studies.md from the results that are kept beside the pages."""
    known = [(run, PAGES / run.name / "result.json") for run in REAL_RUNS]
    results = [(run, json.loads(path.read_text())) for run, path in known if path.is_file()]
    hardware = sorted({machine for _, result in results for machine in result["hardware"]})
    lines = [
        "# Real runs of the studies",
        "",
        "Each of the five studies in small as its file has it, and its questions once more with a network whose",
        "ImageNet weights are at hand. `scripts/studies` carries them out and writes this page.",
        "",
        f"On {'; '.join(hardware)}.",
        "",
        "| study | date | rows trained | best on validation | the same row on test | minutes |",
        "|---|---|---|---|---|---|",
        *(_summarize(run, result) for run, result in results),
        "",
        "Statements of the sources, tested here by paired tests on the same validation images: **confirmed** or",
        "**denied** at p below 0.05 (Holm correction over the statements of a study), or by an interval that lies on",
        "one side of what is said to be little; *not distinguishable* where these few images do not decide.",
    ]
    for run, result in results:
        lines += ["", *_describe(run, result)]
    (ROOT / "docs" / "studies.md").write_text("\n".join(lines) + "\n")


def _summarize(run: RealRun, result: dict[str, Any]) -> str:
    rows = [row for row in result["rows"] if row["seeds"]]
    unit = Unit(is_loss(result["metric"]))
    best = max(rows, key=lambda row: -row["value"]["value"] if unit.loss else row["value"]["value"])
    cells = [f"{len(rows)} of {len(result['rows'])}", _figure(best["value"], unit), _figure(best["test"], unit)]
    return f"| [{run.name}](#{run.name}) | {result['date']} | {' | '.join(cells)} | {result['seconds'] / 60:.0f} |"


def _figure(metric: dict[str, Any] | None, unit: Unit) -> str:
    if not metric or metric["value"] is None:
        return "–"
    return f"{join_cell(format_figure(Metric(**metric), unit))}, n = {metric['n']:,}"


def _describe(run: RealRun, result: dict[str, Any]) -> list[str]:
    """A study's part of the page."""
    command = " ".join(["budwood study", f"studies/{run.name}.toml", *run.data, *run.flags])
    failed = [row for row in result["rows"] if not row["seeds"]]
    lines = [f"## {run.name}", "", f"{result['title']}. {run.remark}".rstrip(), "", f"    {command}", ""]
    lines += [f"[Page](studies/{run.name}/report.html), [table](studies/{run.name}/table.csv)."]
    lines += [f"{len(failed)} of {len(result['rows'])} rows were not trained; the page says why."] if failed else []
    lines += ["", f"![The beginning of the page](studies/{run.name}/report.png)", ""]
    unit = Unit(is_loss(result["metric"]))
    if result["claims"]:
        lines += [f"| statement | verdict | difference{'' if unit.loss else ', points'} | p |", "|---|---|---|---|"]
        lines += [_tell_claim(claim, unit) for claim in result["claims"]]
        lines += ["", ALTERED] if run.flags[: len(SCRATCH)] == SCRATCH else []
    return lines


def _tell_claim(claim: dict[str, Any], unit: Unit) -> str:
    says = claim["says"]
    if claim["margin"]:
        says += f", worse by at most {format_margin(claim['margin'], unit)}"
    verdict, gap = claim["verdict"], claim["difference"]
    told = join_cell(format_gap(Metric(**gap), unit)) if gap else claim["reason"]
    p = "" if claim["p"] is None else format_p_value(claim["p"])
    return f"| {says} | {f'**{verdict}**' if verdict in ('confirmed', 'denied') else verdict} | {told} | {p} |"


if __name__ == "__main__":
    sys.exit(main())
