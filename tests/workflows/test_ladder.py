"""A search for the best network leaves a usable run, whatever the data, the time and what goes wrong on its way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset
from budwood.errors import DataError, RecipeError, StorageError, WeightsError
from budwood.networks.local_trunks import OWN_COST, LocalTrunk
from budwood.runs.ladder_record import LadderRecord
from budwood.runs.look_ledger import LEDGER
from budwood.runs.run import Run, open_run
from budwood.storage.context import open_context
from budwood.workflows import flips, frozen_rung, joint_rung, ladder, ladder_rules, ladder_state, tuned_rung
from budwood.workflows.ladder import plan_search, search
from conftest import Notes, fill, picture, run_command

NAME: Final = "tf_efficientnet_lite0"
LITE0: Final = LocalTrunk(NAME, "timm", OWN_COST[NAME][0], 0.751, OWN_COST[NAME][1])
OTHER: Final = LocalTrunk("tf_efficientnet_lite1", "timm", 240, 0.766, OWN_COST["tf_efficientnet_lite1"][1])
SMALL: Final[dict[str, Any]] = {"size": 64}


@pytest.fixture(autouse=True)
def one_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network is at hand."""
    monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (LITE0,))


def shorten_tuning(patch: pytest.MonkeyPatch) -> None:
    """Fine-tuning takes an epoch or two, and is tried however short the time."""
    patch.setattr(tuned_rung, "MEASURING", 0.0)
    patch.setattr(tuned_rung, "SURE", 1.0)
    patch.setattr(ladder_rules, "WRITING", 0.0)
    patch.setattr(ladder_rules, "WORTHWHILE", 0.0)
    patch.setattr(ladder_rules, "EPOCHS", (1, 1))
    patch.setattr(ladder_rules, "VIEWS", (1, 1, 1))


def climb(data: Dataset, out: Path, quick: bool = True, notes: Notes | None = None, **given: Any) -> Run:
    """The best run of a search that is called `x`."""
    options = {**SMALL, "time": 60.0, **given}
    return search(data, options, quick, out, "drop", open_context(None, notes), id="x", novelty=False)


def read_record(run: Run) -> LadderRecord:
    record = run.record.ladder
    assert record is not None
    return record


def make_photos(folder: Path, each: int, classes: int = 2, side: int = 40) -> Path:
    """Classes of pictures with a bright mark at a place of their own, and noise that hides it somewhat."""
    for label in range(classes):
        place = folder / f"class{label:02}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(each):
            random = np.random.default_rng(1000 * label + number)
            pixels = random.integers(0, 150, (side, side, 3), dtype=np.uint8)
            start = 2 + (label * 7) % (side - 14)
            pixels[start : start + 12, 10:30, label % 3] += 80
            Image.fromarray(pixels).save(place / f"{number:03}.png")
    return folder


def make_twenty(folder: Path) -> Path:
    return make_photos(folder, 10)


def make_imbalanced(folder: Path) -> Path:
    """Of one class a single image outside of the test split."""
    fill(folder / "train" / "often", 100, hue=1)
    fill(folder / "train" / "rare", 1, hue=2)
    fill(folder / "test" / "often", 10, first=200, hue=1)
    fill(folder / "test" / "rare", 2, first=200, hue=2)
    return folder


def make_many_classes(folder: Path) -> Path:
    for label in range(60):
        fill(folder / f"class{label:02}", 3, first=10 * label, hue=label % 3)
    return folder


def make_grey(folder: Path) -> Path:
    for hue, name in enumerate(("leaf", "sky")):
        for file in fill(folder / name, 20, hue=hue):
            Image.open(file).convert("L").save(file)
    return folder


def make_sizes(folder: Path) -> Path:
    for hue, name in enumerate(("leaf", "sky")):
        for number, file in enumerate(fill(folder / name, 20, hue=hue)):
            picture(100 * hue + number, hue, 28).save(file)
    picture(999, 0, 3000).save(folder / "leaf" / "large.png")
    return folder


def make_table(folder: Path) -> Path:
    """A table of images with several labels, or none."""
    rows = ["path,labels"]
    for hue, labels in enumerate(("cat", "dog", "cat; dog")):
        rows += [f"{file},{labels}" for file in fill(folder / f"{hue}", 14, hue=hue)]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


def make_without_val(folder: Path) -> Path:
    for split, first in (("train", 0), ("test", 50)):
        for hue, name in enumerate(("leaf", "sky")):
            fill(folder / split / name, 20, first=first, hue=hue)
    return folder


def make_leaking(folder: Path) -> Path:
    """Copies of training images in the test split."""
    make_without_val(folder)
    for number in range(5):
        picture(number, 0).save(folder / "test" / "leaf" / f"copy{number}.png")
    return folder


KINDS: Final[dict[str, Callable[[Path], Path]]] = {
    "twenty images": make_twenty,
    "one image of a class": make_imbalanced,
    "60 classes of 3": make_many_classes,
    "grey": make_grey,
    "28 and 3,000 pixels": make_sizes,
    "several labels": make_table,
    "no val split": make_without_val,
    "copies in the test split": make_leaking,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gets_a_run_that_its_recipe_makes_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = KINDS[kind](tmp_path / "photos")
    data = bw.scan(source)
    best = climb(data, tmp_path / "runs")
    record = read_record(best)
    assert best.record.state == "done"
    assert (record.best, record.budget) == (best.record.id, 60.0)
    assert record.seconds < 60
    assert record.images == record.of == len(best.dataset().samples("train"))
    assert {rung.name for rung in record.rungs} == {"frozen"}
    rung = record.find_best()
    assert rung is not None
    assert rung.chosen is not None
    assert rung.kept
    chosen, made = Recipe(**rung.candidates[rung.chosen].recipe).table(), best.recipe.table()
    assert all(made[name] == chosen[name] for name in rung.candidates[rung.chosen].recipe)
    assert record.longer == 60.0
    assert "Without --quick the network would be fine-tuned, too." in record.advice
    assert "No option said how to train, so Budwood searched for the best network" in (best.path / "report.html").read_text()
    assert best.record.test is None
    assert not (tmp_path / "runs" / LEDGER).exists(), "the test split is sealed"

    recipe = best.path / "recipe.toml"
    run_command(capsys, "train", source, "--recipe", recipe, "--out", tmp_path / "again")
    again = bw.open_run(next((tmp_path / "again").glob("*/run.json")).parent)
    assert again.record.ladder is None
    assert np.array_equal(again.predictions("val").logits, best.predictions("val").logits)
