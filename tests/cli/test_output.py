"""What commands print."""

from __future__ import annotations

import pytest

from budwood.cli.output import show_cost
from budwood.config.recipe import Recipe
from budwood.training.cost_estimate import CostEstimate


@pytest.mark.parametrize(
    ("options", "steps", "epochs", "words"),
    [
        ({"time": 60}, 0, 0.0, "one head on fixed features"),
        ({"time": 60, "optimizer": "adam"}, 99999, 22449.8, "until the time limit: about 22,000 epochs fit into it"),
        ({"time": 60, "optimizer": "adam"}, 12, 1.26, "until the time limit: about 1.3 epochs fit into it"),
        ({"epochs": 22400}, 99999, 22400.0, "99,999 optimizer steps in 22,400 epochs"),
        ({"epochs": 1}, 1, 1.0, "1 optimizer step in 1 epoch\n"),
    ],
)
def test_a_dry_run_promises_no_more_than_is_known(
    options: dict[str, object], steps: int, epochs: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_cost(Recipe(**options), CostEstimate(steps, epochs, {"training": 1.0}, 0, {"cache": 0, "run": 0}, "-"), False)
    assert f"Training    {words}" in capsys.readouterr().out
