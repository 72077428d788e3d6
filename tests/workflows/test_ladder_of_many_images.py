"""A million images are planned for in seconds and little memory, and cut down to what the time allows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pytest

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset
from budwood.networks.local_trunks import OWN_COST, LocalTrunk
from budwood.networks.plan import load_plan
from budwood.storage.context import open_context
from budwood.workflows import frozen_rung
from budwood.workflows.ladder import plan_search
from budwood.workflows.ladder_rules import FEWEST_SAMPLED, FrozenCandidate, Speed
from budwood.workflows.ladder_state import Ladder, begin_ladder
from conftest import Notes, fill

NAME: Final = "tf_efficientnet_lite0"
LITE0: Final = LocalTrunk(NAME, "timm", OWN_COST[NAME][0], 0.751, OWN_COST[NAME][1])
MILLION: Final = 10**6


def make_rows(folder: Path, count: int, classes: int) -> Dataset:
    """A data set of so many rows without files: 64 % train, 16 % validate, 20 % test; classes get rarer and rarer."""
    fill(folder / "photos" / "leaf", 12, hue=1)
    fill(folder / "photos" / "sky", 12, hue=2)
    data = bw.scan(folder / "photos")
    table = data.table.take(pa.array(np.zeros(count, np.int64)))
    numbers = np.arange(count)
    columns = {
        "id": pa.array([f"{number:032x}" for number in numbers]),
        "path": pa.array([f"photos/{number:07}.png" for number in numbers]),
        "label": numbers.astype(np.int64) % classes,
        "split": np.array([0, 0, 1, 2, 0], np.int64)[numbers // classes % 5],
        "look": numbers,
        "cluster": numbers,
        "width": np.full(count, 64),
        "height": np.full(count, 64),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values).cast(table.schema.field(name).type))
    return replace(data, classes=tuple(f"class{number}" for number in range(classes)), table=table)


def read_peak() -> int:
    """The most bytes that this program has held; what `resource` says is at least what its parent did."""
    told = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(told.partition("VmHWM:")[2].split()[0])


def plan_a_million(folder: Path) -> None:
    """Plan a search of a million images on a machine that does 26 images a second at 224 pixels."""
    data = make_rows(folder, MILLION, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_rung, "list_local_trunks", lambda _: (LITE0,))
        patch.setattr(frozen_rung, "guess_or_measure", lambda *_: Speed(1e10, 0.001))
        started = time.process_time()
        rows, budget, notes = plan_search(
            data, {"time": 300.0}, False, folder / "runs", "drop", open_context(folder / "cache", Notes())
        )
    print(time.process_time() - started, read_peak())
    assert budget == 300
    assert [row.rung for row in rows] == ["frozen", "fine-tuned", "together"]
    assert rows[0].fits
    assert rows[0].seconds < 120, "the share of the first rung"
    first, second = notes
    assert first == "tf_efficientnet_lite0 sees 160 pixels, not 224, so that all images fit the time."
    told = re.match(r"([\d,]+) of ([\d,]+) training images are used, each class with its share: ", second)
    assert told
    used, of = told.groups()
    assert of == "600,000"
    assert 2000 < int(used.replace(",", "")) < 5000


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not say what a program holds")
def test_a_million_images_are_planned_for_in_little_time_and_memory(tmp_path: Path) -> None:
    load_plan(Recipe(model=NAME), 10, tmp_path / "cache")  # so that no library is loaded there
    command = [sys.executable, __file__, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env)
    assert not done.returncode, done.stderr
    seconds, peak = (float(word) for word in done.stdout.split())
    assert peak < 2**30
    assert seconds < 60, "of the processor; some seconds on an idle machine"


def begin(data: Dataset, folder: Path, **given: object) -> Ladder:
    context = open_context(None, Notes())
    return begin_ladder(data, given, 300.0, True, folder / "runs", "x", "drop", context, (), 0.0, {})


def test_each_class_keeps_its_share_of_the_images_that_are_used(tmp_path: Path) -> None:
    data = make_rows(tmp_path, 20_000, 10)
    ladder = begin(data, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_rung, "list_local_trunks", lambda _: (LITE0,))
        patch.setattr(frozen_rung, "guess_or_measure", lambda *_: Speed(1e10, 0.001))
        plan = frozen_rung.plan_frozen(ladder)
    assert len(plan.candidates) == 1, "others would take as long"
    assert (ladder.images, ladder.of) == (len(ladder.data.samples("train")), 12_000)
    counts = np.bincount(ladder.data.samples("train").labels, minlength=10)
    assert counts.min() >= 0.9 * counts.max()
    assert len(ladder.data.samples("val")) == pytest.approx(ladder.images / 3, rel=0.02)
    assert ladder.images + len(ladder.data.samples("val")) >= FEWEST_SAMPLED
    assert len(ladder.data.samples("test")) == 4000, "the test split stays whole"


def test_with_a_thousand_classes_heads_are_not_compared(tmp_path: Path) -> None:
    candidate = FrozenCandidate(LITE0, 64, "crop", 10.0)
    data = make_rows(tmp_path, 20_000, 1000)
    assert frozen_rung._explain_no_comparison(begin(data, tmp_path), candidate) == (
        "Heads were not compared: with 1,000 classes that takes about 67 s a head, too much of the time. "
        "The one that is usually best was taken."
    )
    longer = begin(data, tmp_path)
    longer.budget = 3600.0
    assert not frozen_rung._explain_no_comparison(longer, candidate)
    assert not frozen_rung._explain_no_comparison(begin(make_rows(tmp_path, 20_000, 10), tmp_path), candidate)


if __name__ == "__main__":
    plan_a_million(Path(sys.argv[1]))
