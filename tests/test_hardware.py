"""The machine: no more processors are used than this process may use."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from budwood.data import metadata
from budwood.hardware import count_processors
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
