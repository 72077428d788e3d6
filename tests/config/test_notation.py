"""Durations are written as they are read."""

from __future__ import annotations

import pytest

from budwood.config.notation import parse_duration, write_duration


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(7200, "2h"), (5400, "90m"), (1200, "20m"), (90, "90s"), (61, "61s"), (29.6, "30s"), (0.2, "1s")],
)
def test_a_duration_is_read_back_to_the_second(seconds: float, written: str) -> None:
    assert write_duration(seconds) == written
    assert parse_duration(written) == max(1, round(seconds))
