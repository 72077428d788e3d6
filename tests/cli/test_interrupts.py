"""Ctrl-C is heeded once: what is pressed while a command tidies up does not stop it, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import budwood as bw
from budwood.cli.interrupts import heed_interrupts
from budwood.runs.run import find_run, lock_run

STUDY = """
name = "small"
title = "Small networks"
[base]
model = "cnn"
widths = [4]
fc = [4]
size = 16
batch = 8
optimizer = "adam"
epochs = {epochs}
[[rows]]
label = "slow"
lr = 0.001
[[rows]]
label = "fast"
lr = 0.01
"""
START = "from budwood.cli.main import main; main()"


@pytest.fixture
def default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_heeded_and_the_next_only_after_a_while(default_handler: None) -> None:
    heed_interrupts(patience=0.2)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    for _ in range(3):
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.3)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_process_that_ignores_interrupts_goes_on_doing_so(default_handler: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _heed_interrupts() -> None:
    """Tests that a shell runs in the background ignore Ctrl-C, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _list_workers(group: int) -> list[int]:
    """The processes of a group that carry out jobs."""
    workers = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(place.name)) == group and b"spawn_main" in (place / "cmdline").read_bytes():
                workers.append(int(place.name))
    return workers


def _wait_until_gone(group: int) -> None:
    for _ in range(1200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process goes on")


@pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="looks for processes")
@pytest.mark.parametrize(
    ("moment", "signals"),
    [
        ("starting", [signal.SIGINT, signal.SIGINT]),
        ("training", [signal.SIGKILL]),
    ],
    ids=["interrupted-twice-while-processes-start", "killed-in-training"],
)
def test_a_study_of_two_processes_ends_whole(
    photos: Path, tmp_path: Path, moment: str, signals: list[signal.Signals]
) -> None:
    file, out = tmp_path / "small.toml", tmp_path / "runs"
    file.write_text(STUDY.format(epochs=100_000))
    command = [sys.executable, "-c", START, "study", str(file), str(photos), "--jobs", "2", "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,
        start_new_session=True,
    )
    while process.poll() is None:
        if _list_workers(process.pid) if moment == "starting" else list(out.glob("*/*/history.csv")):
            break
        time.sleep(0.02)
    for number in signals:
        if number == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, number)
        time.sleep(0.05)
    _, said = process.communicate(timeout=120)
    _wait_until_gone(process.pid)
    if signal.SIGKILL not in signals:
        assert process.returncode == 130, said
        assert said.count("Interrupted. No incomplete files were left behind.") == 1
    assert "Traceback" not in said
    assert "Error" not in said
    for record in out.glob("*/*/run.json"):
        with lock_run(record.parent):
            assert find_run(record.parent).record.state == "running", "it can be resumed"
    file.write_text(STUDY.format(epochs=1))
    comparison = bw.study(file, photos, out=out)
    assert all(row.runs for row in comparison.rows)
    assert not list(out.rglob(".*"))
