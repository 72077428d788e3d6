"""Small images that the tests make, a cache of their own, and the real data where it is present."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import budwood as bw
from budwood.cli.main import run
from budwood.config.recipe import Recipe
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.split_metrics import SplitMetrics
from budwood.progress import Silent
from budwood.runs.run import Run, save_history
from budwood.runs.run_record import parse_record, save_record

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SIDE = 40
SLOW_TO_IMPORT: Final = ["budwood.studies.executors", "budwood.training.loop", "timm", "torch._dynamo"]
CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
# A study without rows, of one small network.
SMALL_STUDY: Final = """\
name = "small"
data = "photos"
[base]
model = "cnn"
widths = [4]
fc = [4]
size = 16
epochs = 1
batch = 8
"""

# The longest tests, begun first: the processes share the rest, so that none works alone at the end, and none of a
# class is handed to the other, which would start a second cluster.
LONGEST: Final = ("::TestRay::", "::test_the_demo", "::test_killed_at_random_moments")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first; all others stay in order."""
    items.sort(key=lambda item: [name not in item.nodeid for name in LONGEST])


class Notes(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def note(self, sentence: str) -> None:
        self.kept.append(sentence)


def picture(seed: int, hue: int = 0, side: int = SIDE) -> Image.Image:
    """A smooth random picture, unlike that of any other seed, tinted by `hue` (0 red, 1 green, 2 blue)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 110, (6, 6, 3), dtype=np.uint8)
    coarse[..., hue] += 140
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int, *, first: int = 0, hue: int = 0) -> list[Path]:
    """Write `count` different PNG pictures into a folder, with names that count from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        picture(1000 * hue + number, hue).save(path)
    return paths


def scored_run(
    folder: Path,
    labels: NDArray[np.int32],
    logits: NDArray[np.float32],
    *,
    history: Sequence[Mapping[str, float]] = (),
    ids: Sequence[str] = (),
    test: tuple[NDArray[np.int32], NDArray[np.float32], int] | None = None,
    label_sets: tuple[tuple[int, ...], ...] = (),
    fingerprint: str = "f" * 64,
    state: str = "done",
    seconds: float = 1.0,
    **recipe: Any,
) -> Run:
    """A run that was not trained: it has answered as `logits` say, and `test` holds labels, logits and looks."""
    classes = tuple(f"class {number}" for number in range(logits.shape[1]))

    def scored(split: str, truth: NDArray[np.int32], said: NDArray[np.float32], names: Sequence[str]) -> SplitMetrics:
        ids = tuple(names or (f"{split}{number:05}" for number in range(len(truth))))
        predictions = Predictions(ids, ids, truth.astype(np.int32), said.astype(np.float32), label_sets)
        predictions.save(folder / f"predictions-{split}.parquet")
        return predictions.task.evaluate(predictions.truth, predictions.logits, classes)

    folder.mkdir(parents=True)
    rows = history or [{"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.9, "val_loss": 0.5, "val_accuracy": 0.9}]
    save_history(folder, rows)
    counts = {split: dict.fromkeys(classes, 100) for split in ("train", "val")}
    record: dict[str, Any] = {
        "budwood": "0.1.0",
        "id": folder.name,
        "state": state,
        "created": "2026-01-01T00:00:00+00:00",
        "source": "/photos",
        "root": "/photos",
        "recipe": Recipe(**{"optimizer": "adam", **recipe}).table(),
        "dataset": {
            "name": "photos",
            "fingerprint": fingerprint,
            "classes": list(classes),
            "several": bool(label_sets),
            "split": "made",
            "counts": {**counts, "test": 100},
        },
        "network": {
            "name": "net",
            "source": "timm",
            "size": 224,
            "channels": 3,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "head": "head",
            "stages": [],
            "pool": "own",
            "features": 1280,
            "shape": [1280],
            "parameters": {"trainable": 2_562, "frozen": 3_371_008},
            "macs": 384_000_000,
            "weights": {"kind": "imagenet", "digest": "d"},
            "trunk_trained": False,
        },
        "findings": [],
        "environment": {},
        "choices": {"device": "cpu", "steps": 1000},
        "hardware": {"cpu": "a cpu", "cores": 2, "accelerator": "none", "system": "Linux"},
        "selected": {"epoch": float(rows[-1]["epoch"])},
        "timings": {"check": 0.5, "train": seconds, "total": seconds + 0.5},
        "metrics": {"val": scored("val", labels, logits, ids)},
        "test": None,
    }
    if test:
        record["test"] = {"looks": test[2], "opened": ["2026"], "metrics": scored("test", test[0], test[1], ())}
    made = parse_record(record)
    save_record(folder, made)
    return Run(folder, made)


def answers(
    truth: NDArray[np.int32], accuracy: float, seed: int, classes: int = 3, hard: float = 0.0
) -> NDArray[np.float32]:
    """Logits that call so many images rightly; `hard` of the images are hard for every seed alike."""
    random = np.random.default_rng(seed)
    difficulty = np.random.default_rng(0).random(len(truth)) < hard
    right = (random.random(len(truth)) < accuracy) & ~difficulty
    called = np.where(right, truth, (truth + random.integers(1, classes, len(truth))) % classes)
    logits = random.normal(0, 0.3, (len(truth), classes))
    logits[np.arange(len(truth)), called] += 3
    return logits.astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def piped() -> None:
    """Tables are as wide as in a pipe: processes of pytest that share the tests are given the width of a terminal."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that the trunk is exported once."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["BUDWOOD_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="class")
def quick_processes() -> Iterator[BaseContext]:
    """Processes of studies begin as forks of one that has imported PyTorch once, not by importing it themselves."""
    quick = multiprocessing.get_context("forkserver")
    quick.set_forkserver_preload(SLOW_TO_IMPORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda _: quick)
        yield quick


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 30 pictures, told apart by tint, without a split."""
    fill(tmp_path / "photos" / "leaf", 30, hue=1)
    fill(tmp_path / "photos" / "sky", 30, hue=2)
    return tmp_path / "photos"


TINY: Final[dict[str, Any]] = {
    "model": "cnn",
    "widths": (4,),
    "fc": (4,),
    "size": 16,
    "epochs": 1,
    "batch": 8,
    "lr": 0.01,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` of two classes and the run `one` of a tiny network under `runs`, for tests to copy."""
    folder = tmp_path_factory.mktemp("tiny")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    bw.train(bw.scan(folder / "photos"), Recipe(**TINY), out=folder / "runs", id="one")
    return folder


def absent(what: str) -> NoReturn:
    """End a test for which this machine lacks something: it is skipped, but fails where `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and CI skips no test for want of it")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="session")
def browser() -> str:
    """The path of a headless Chromium."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    return found or absent("Chromium")


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The path of a file of real data; skips the test where it is absent."""

    def find(name: str) -> Path:
        if not (REAL / name).exists():
            pytest.skip(f"real data not present: {name}")
        return REAL / name

    return find


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """What a command, run in this process, says on stdout and on stderr; its exit code must be `code`."""
    found = run([str(argument) for argument in arguments], as_json="--json" in arguments)
    out, err = capsys.readouterr()
    assert found == code, err
    assert "Traceback" not in out + err
    return out, err
