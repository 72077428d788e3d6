"""Work that is killed at random moments and started again until it has gone through.

Every attempt is a fork of one process, as importing PyTorch 30 times would take minutes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from budwood.training import checkpoints


def killed_until_done(
    work: Callable[[Path], object],
    out: Path,
    kills: int,
    seed: int = 0,
    is_enough: Callable[[Path], bool] = lambda _: True,
) -> None:
    """Do some work in `out`/whole undisturbed, then in `out`/killed-1 and so on until it was killed so many times.

    Kills go on until `is_enough` of `out`, ten times as many at most: a busy machine moves them all before the part
    that is to be disturbed. Training keeps a checkpoint after every step. Prints how many folders there are and how
    often work was killed.
    """
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # loads what is slow to load, once for all
    checkpoints.Checkpoints.due = property(lambda self: self.folder is not None)  # type: ignore[method-assign,assignment]
    whole = _attempt(work, out / "whole", None)
    assert whole is not None
    moments, killed, number = random.Random(seed), 0, 0
    while killed < kills or (killed < 10 * kills and not is_enough(out)):
        number, until = number + 1, max(kills, killed + 1)
        while killed < until and _attempt(work, out / f"killed-{number}", moments.uniform(0, whole)) is None:
            killed += 1
        else:
            _attempt(work, out / f"killed-{number}", None)
    print(number, killed)


def _attempt(work: Callable[[Path], object], folder: Path, seconds: float | None) -> float | None:
    """The seconds that some work took in a fork of this process, or None where it was killed before its end."""
    child = os.fork()
    if child == 0:
        try:
            work(folder)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    started = time.monotonic()
    while seconds is None or time.monotonic() - started < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                sys.exit(f"an attempt failed: {status}")
            return time.monotonic() - started
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_killer(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script that calls `killed_until_done`, in a process of its own."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
