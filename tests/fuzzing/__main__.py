"""The whole job: damage many files, judge what Budwood makes of each, and say what was found.

Every kind is judged in a process of its own, whose memory is measured. With `--judge KIND` this is that process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from budwood.text import format_table
from fuzzing.outcomes import JOB, Outcome

MOST_MEMORY: Final = 2 * 2**30  # bytes
STEP: Final = 100  # outcomes from one line of progress to the next


@dataclass
class Tally:
    """What came of the files of one kind."""

    kind: str
    wanted: int
    results: Counter[str] = field(default_factory=Counter)
    broken: list[Outcome] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0
    status: int = 0

    @property
    def number(self) -> int:
        """How many files were judged."""
        return self.results.total() - self.results[JOB]

    @property
    def problems(self) -> list[str]:
        """What was promised of this kind and is not so."""
        found = [f"{one.what}: {one.broken}" for one in self.broken]
        if self.status or self.number < self.wanted:
            found.append(f"{self.kind}: the process ended with {self.status} after {self.number} files")
        if self.peak > MOST_MEMORY:
            found.append(f"{self.kind}: {self.peak / 2**20:,.0f} MiB, more than {MOST_MEMORY / 2**20:,.0f}")
        return found


def main(arguments: Sequence[str]) -> int:
    """Run the job, and return its exit status: 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    for kind, count in (("images", 2000), ("archives", 300), ("state", 200)):
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="N", help=f"damaged {kind} ({count})")
    parser.add_argument("--seed", type=int, default=0, help="another seed damages other bytes (0)")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder of broken promises (runs/fuzz)")
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.judge:
        return _judge(options.judge, getattr(options, options.judge), options.seed, options.keep)
    tallies = [
        _run(kind, getattr(options, kind), options.seed, options.keep.absolute())
        for kind in ("images", "archives", "state")
        if getattr(options, kind)
    ]
    return _show(tallies, options.seed, options.keep)


def _judge(kind: str, count: int, seed: int, kept: Path) -> int:
    """Judge files of one kind, and print each outcome as a line of JSON."""
    from fuzzing.work import JUDGES

    warnings.simplefilter("ignore")  # of Pillow, about the damage
    for outcome in JUDGES[kind](count, seed, kept):
        print(json.dumps(asdict(outcome)), flush=True)
    return 0


def _run(kind: str, count: int, seed: int, kept: Path) -> Tally:
    """Judge files of one kind in a process of its own."""
    tally, started = Tally(kind, count), time.monotonic()
    command = [sys.executable, "-m", "fuzzing", "--judge", kind, f"--{kind}", str(count), "--seed", str(seed)]
    process = subprocess.Popen([*command, "--keep", str(kept)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        outcome = Outcome(**json.loads(line))
        tally.results[outcome.result] += 1
        if outcome.broken:
            tally.broken.append(outcome)
            print(f"BROKEN {outcome.what}: {outcome.broken}", file=sys.stderr)
        if tally.number % STEP == 0:
            print(f"{kind}: {tally.number:,} of {count:,}", file=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = tally.status = os.waitstatus_to_exitcode(status)
    tally.peak, tally.seconds = usage.ru_maxrss * 1024, time.monotonic() - started
    return tally


def _show(tallies: Sequence[Tally], seed: int, kept: Path) -> int:
    """Print the closing table and what was broken."""
    rows: list[tuple[str, ...]] = [("kind", "number", "broken", "peak MiB", "seconds", "outcomes")]
    for tally in tallies:
        results = ", ".join(f"{result} {count:,}" for result, count in tally.results.most_common())
        figures = (tally.number, len(tally.broken), tally.peak / 2**20, tally.seconds)
        rows.append((tally.kind, *(f"{figure:,.0f}" for figure in figures), results))
    print(format_table(rows, right=(1, 2, 3, 4)))
    problems = [problem for tally in tallies for problem in tally.problems]
    for problem in problems:
        print(f"\nseed {seed}: {problem}")
    if problems:
        print(f"\n{len(problems)} promises are broken; their files are in {kept}.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
