"""Two checkouts of Budwood, side by side in one run: is anything slower than before?

    git worktree add /tmp/before COMMIT
    .venv/bin/python benchmarks/two_checkouts.py /tmp/before . [--rounds 3]

Whole processes, started in turns (before, after, before, after ...), each checkout with a cache of its own: `--help`, a
frozen trunk on ELPV with an empty cache and with a warm one, one epoch of a small network from scratch, and a study
of 24 heads with a warm cache. The table gives the least seconds of each and their ratio.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STUDY = """\
name = "heads"
data = "elpv"
[base]
optimizer = "adam"
epochs = 10
[grid]
lr = [0.0003, 0.001, 0.003, 0.01]
dropout = [0.0, 0.5]
weight_decay = [0.0, 0.0001, 0.001]
"""


SMALL = ("--model", "vgg-small", "--weights", "none", "--freeze", "none", "--size", "64", "--optimizer", "adam")


@dataclass(frozen=True)
class Job:
    """A command of Budwood: `cold` empties the cache before it; `rounds` (None: as many as asked for)."""

    name: str
    arguments: tuple[str, ...]
    cold: bool = False
    rounds: int | None = None


JOBS = (
    Job("budwood --help", ("--help",)),
    Job("frozen trunk, empty cache", ("train", "elpv", "--optimizer", "adam", "--epochs", "10"), cold=True, rounds=2),
    Job("frozen trunk, warm cache", ("train", "elpv", "--optimizer", "adam", "--epochs", "10")),
    Job("one epoch of a small network from scratch", ("train", "elpv", *SMALL, "--epochs", "1"), rounds=2),
    Job("study of 24 heads, warm cache", ("study", "heads.toml"), rounds=2),
)


def run_job(source: Path, job: Job, place: Path) -> float:
    """Run a command with the sources of a checkout.

    Args:
        source: The checkout.
        job: The command.
        place: A folder for its cache and its runs.

    Returns:
        Seconds from start to exit.
    """
    shutil.rmtree(place / "runs", ignore_errors=True)
    if job.cold:
        shutil.rmtree(place / "cache", ignore_errors=True)
    (place / "heads.toml").write_text(STUDY, encoding="utf-8")
    main = "budwood.cli.main" if (source / "src/budwood/cli").is_dir() else "budwood.cli"
    code = f"import sys; from {main} import main; sys.argv[0] = 'budwood'; main()"
    settings = {**os.environ, "PYTHONPATH": str(source / "src"), "BUDWOOD_CACHE": str(place / "cache")}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling the sources anew in each process is nobody's use
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *job.arguments], cwd=place, env=settings, check=True, capture_output=True
    )
    return time.perf_counter() - started


def measure(sources: Sequence[Path], rounds: int, places: Sequence[Path]) -> None:
    """Print one row a job: the least seconds of each checkout, and their ratio."""
    print("| | before, s | after, s | after / before |\n|---|---|---|---|")
    for job in JOBS:
        seconds: list[list[float]] = [[], []]
        for _ in range(job.rounds or rounds):
            for source, place, found in zip(sources, places, seconds, strict=True):
                found.append(run_job(source, job, place))
        before, after = (min(found) for found in seconds)
        print(f"| {job.name} | {before:.2f} | {after:.2f} | {after / before:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        measure((asked.before.resolve(), asked.after.resolve()), asked.rounds, (Path(one), Path(other)))
