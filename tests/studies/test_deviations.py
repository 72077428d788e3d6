"""What `--quick` and `-s` put over published rows is told where it changes the row, and nowhere else."""

from __future__ import annotations

import tomllib

import pytest

from budwood.config.recipe import parse_settings
from budwood.studies.deviations import describe_deviations
from budwood.studies.study import Overrides
from budwood.studies.study_file import parse_study

FILE = """
name = "s"
data = "photos"
[base]
model = "cnn"
widths = [4, 4]
fc = [4]
optimizer = "adam"
epochs = 3
[[rows]]
label = "one"
lr = 0.01
published = { val = 0.5 }
[[rows]]
label = "two"
lr = 0.02
published = { val = 0.5 }
[[rows]]
label = "untold"
lr = 0.03
[quick]
epochs = 2
images = 50
"""


@pytest.mark.parametrize(
    ("quick", "settings", "told"),
    [
        (False, ["widths=[4,4]", "fc=4", "epochs=3"], ({}, 3)),
        (False, ["lr=1e-2"], ({"two": "lr 0.01"}, 3)),
        (False, ["epochs=10", "widths=[8,8]"], (dict.fromkeys(("one", "two"), "widths [8, 8], epochs 10"), 10)),
        (True, [], (dict.fromkeys(("one", "two"), "epochs 2, 50 images at most"), 2)),
        (True, ["epochs=10"], (dict.fromkeys(("one", "two"), "epochs 2, 50 images at most"), 2)),
    ],
)
def test_what_changes_a_published_row_is_told(
    quick: bool, settings: list[str], told: tuple[dict[str, str], int]
) -> None:
    study = parse_study(tomllib.loads(FILE), "s", FILE, Overrides(quick, parse_settings(settings)))
    trained = {row.label: row.recipe for row in study.rows if row.recipe}
    assert (describe_deviations(study, trained), trained["one"].epochs) == told
    assert study.changed.get("epochs", 3) == told[1], "the title tells the number that was trained"
    assert describe_deviations(study, {}) == {}, "of a row that was not trained there are no figures"
