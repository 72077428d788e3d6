"""The machine: no more processors are used than this process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import budwood as bw
from budwood.data import metadata
from budwood.hardware import Runtime, count_processors, count_threads, find_runtime
from budwood.progress import Silent
from conftest import fill


def test_processors_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert count_processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert count_processors() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_processors() == 1


@pytest.mark.parametrize(
    ("limit", "threads"),
    [(None, 4), ("", 4), ("1", 1), ("3", 3), ("8", 4), ("2,1", 2), ("0", 4), ("-1", 4), ("many", 4)],
)
def test_a_network_computes_in_no_more_threads_than_openmp_may(
    limit: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budwood.hardware.count_processors", lambda: 4)
    if limit is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert count_threads() == threads


def test_files_are_examined_on_no_more_processors_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int | None = None) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(metadata, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert len(metadata.compute_content_ids(fill(tmp_path, 2), Silent())) == 2
    assert asked == [1]


def test_one_process_decides_for_itself() -> None:
    alone = Runtime()
    assert alone.is_main
    assert alone.broadcast("x") == "x"
    assert alone.all_reduce(np.array([1.5, 2])).tolist() == [1.5, 2]
    assert alone.device in {"cpu", "cuda", "mps"}


def test_what_the_first_process_decides_holds_for_all(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from torch import distributed
from budwood.hardware import Runtime
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
here = Runtime(rank, 2)
print(here.is_main, here.broadcast(f"decided by {rank}"), here.all_reduce(np.array([1.0, rank])).tolist())
distributed.destroy_process_group()
"""
    command = [sys.executable, "-c", script]
    both = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    told = [process.communicate(timeout=120)[0].strip() for process in both]
    assert told == ["True decided by 0 [2.0, 1.0]", "False decided by 0 [2.0, 1.0]"]


def test_the_launcher_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert find_runtime() == Runtime(3, 4)
    monkeypatch.setenv("RANK", "three")
    assert find_runtime() == Runtime()
    monkeypatch.delenv("WORLD_SIZE")
    assert find_runtime() == Runtime()


def test_training_is_refused_where_a_launcher_started_several_processes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(bw.RunError, match=r"2 processes .* trained in one"):
        bw.train(bw.scan(photos), bw.Recipe(size=32), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
