"""What the user gives stays as it is in a search; what does not go with one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import torchvision

import budwood as bw
from budwood.config.ladder_options import NARROWING
from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.networks.local_trunks import OWN_COST, LocalTrunk
from budwood.runs.run import open_run
from budwood.workflows import frozen_rung, ladder
from conftest import fill, run_command

NAME: Final = "tf_efficientnet_lite0"
LITE0: Final = LocalTrunk(NAME, "timm", OWN_COST[NAME][0], 0.751, OWN_COST[NAME][1])


@pytest.fixture(autouse=True)
def one_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network is at hand."""
    monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (LITE0,))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of a ResNet-18."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    return file


def find_best(out: Path) -> Recipe:
    """The recipe of the run that a search has chosen."""
    runs = [open_run(file.parent) for file in out.glob("*/run.json")]
    return next(run for run in runs if run.record.ladder).recipe


FIRST: Final[dict[str, Any]] = {
    "model": NAME,
    "weights": "imagenet",
    "size": 64,
    "resize": "squash",
    "interpolation": "bilinear",
    "tta": "flip",
    "time": 60.0,
    "class_weights": True,
    "label_smoothing": 0.05,
    "select": "macro_f1",
    "seed": 7,
    "metrics": ("ladder_parts:share_right",),
}
SECOND: Final[dict[str, Any]] = {
    "model": "resnet18",
    "taps": ("layer2",),
    "channels": 1,
    "size": 32,
    "time": 60.0,
    "balanced_sampling": True,
    "logit_adjustment": 0.5,
}
THIRD: Final[dict[str, Any]] = {"model": "resnet18", "cut": "layer3", "pool": "max", "size": 32, "time": 60.0}


def write_flags(given: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in given.items():
        written = ",".join(value) if isinstance(value, tuple) else str(value).lower() if value is True else str(value)
        flags += [f"--{name.replace('_', '-')}", written]
    return flags


def test_every_option_that_narrows_the_search_is_given_here() -> None:
    assert {*FIRST, *SECOND, *THIRD} == set(NARROWING)


@pytest.mark.parametrize("given", [FIRST, SECOND, THIRD])
def test_what_is_given_stays_in_the_recipe_that_is_found(
    given: dict[str, Any],
    photos: Path,
    resnet: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = "def share_right(labels, logits):\n    return float((logits.argmax(1) == labels).mean())\n"
    (tmp_path / "ladder_parts.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    given = {**given, **({} if "weights" in given else {"weights": str(resnet)})}
    run_command(capsys, "train", photos, "--quick", "--out", tmp_path / "runs", *write_flags(given))
    recipe = find_best(tmp_path / "runs")
    for name, value in given.items():
        if name != "time":
            assert getattr(recipe, name) == value, name
    assert recipe.time is None, "which limits the search, not what it found"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--quick", "--epochs", "3"],
            "--quick: nothing is searched for. --epochs says how to train, so this one recipe is trained. Without it, "
            "several are tried.",
        ),
        (
            ["--time", "nonsense"],
            "time: expected seconds, or a duration such as 90s, 10m or 1.5h",
        ),
        (["--time", "-3"], "time: input should be greater than 0, found '-3'"),
    ],
)
def test_what_cannot_be_is_refused(
    flags: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run_command(capsys, "train", photos, "--out", tmp_path / "runs", *flags, code=2)
    assert message in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


def test_one_option_that_says_how_to_train_is_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", "none", "--model", "mlp", "--size", "8", "--epochs", "1", "--dry-run"]
    _, err = run_command(capsys, "train", photos, "--out", tmp_path / "runs", *flags)
    told = " ".join(err.split())
    assert "--epochs, --model, --weights say how to train, so this one recipe is trained." in told


def test_a_recipe_file_asks_for_one_recipe(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.toml"
    file.write_text("size = 32\n")
    flags: list[str | Path] = ["--recipe", file, "--out", tmp_path / "runs"]
    _, err = run_command(capsys, "train", photos, *flags, "--quick", code=2)
    assert "--quick: nothing is searched for. --recipe says how to train" in " ".join(err.split())
    out, err = run_command(capsys, "train", photos, *flags, "--dry-run")
    assert "Estimated from" in out, "the cost of one recipe, not the plan of a search"
    assert "how to train" not in err, "who gives a file knows that"


def test_one_class_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "photos" / "leaf", 20)
    _, err = run_command(capsys, "train", tmp_path / "photos", "--out", tmp_path / "runs", code=2)
    assert "only one class" in err or "expected two or more classes" in err
    assert not list((tmp_path).glob("runs/*/run.json"))


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    _, err = run_command(capsys, "train", tmp_path / "photos", "--out", tmp_path / "runs", code=2)
    assert str(tmp_path / "photos") in err


class TestDryRun:
    def test_shows_the_ladder_and_trains_nothing(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, _ = run_command(capsys, "train", photos, "--dry-run", "--size", "64", "--out", tmp_path / "runs")
        rows = {line.split()[0] for line in out.splitlines() if line}
        assert {"frozen", "fine-tuned", "together"} <= rows
        assert "tf_efficientnet_lite0, 64 pixels" in out
        assert "The time for all of it is 5 min. Nothing was trained." in out
        assert not list((tmp_path).glob("runs/*/run.json"))

    def test_quick_has_one_rung(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--dry-run", "--quick", "--time", "30s", "--size", "64", "--json", "--out", str(tmp_path / "runs")]
        document = json.loads(run_command(capsys, "train", photos, *flags)[0])
        assert document["budget"] == 30.0
        assert {row["rung"] for row in document["rows"]} == {"frozen"}
        assert document["rows"][0]["fits"], "the first is always tried"
        assert document["notes"] == []


def test_epochs_are_tracked(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--quick", "--size", "64", "--track", "tensorboard", "--out", str(tmp_path / "runs")]
    run_command(capsys, "train", photos, *flags)
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


class TestPython:
    def test_train_without_a_recipe_searches(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ladder, "STEPS", ladder.STEPS[:1])
        monkeypatch.setattr(
            frozen_rung, "list_local_trunks", lambda _: (LocalTrunk(NAME, "timm", 64, 0.751, 31_000_000),)
        )
        data = bw.scan(photos)
        best = bw.train(data, time="50s", out=tmp_path, id="mine", novelty=False)
        record = best.record.ladder
        assert record is not None
        assert record.budget == 50.0
        names = sorted(file.parent.name for file in tmp_path.glob("*/run.json"))
        assert names == [f"mine-{number}" for number in range(1, len(names) + 1)]
        assert best.record.id in names

    def test_train_with_a_recipe_trains_it(self, photos: Path, tmp_path: Path) -> None:
        recipe = Recipe(model=NAME, size=64)
        run = bw.train(bw.scan(photos), recipe, out=tmp_path, id="one", novelty=False)
        assert (run.record.id, run.record.ladder) == ("one", None)
        assert run.recipe == recipe

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"quick": True}, "quick: a recipe is given, so nothing is searched for."),
            ({"time": 60}, "time: a recipe is given, which has its own time limit."),
            ({"time": "10m"}, "time: a recipe is given, which has its own time limit."),
        ],
    )
    def test_options_of_the_search_beside_a_recipe_are_refused(
        self, given: dict[str, Any], message: str, photos: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(RecipeError, match=message):
            bw.train(bw.scan(photos), Recipe(), out=tmp_path, **given)

    def test_a_time_that_is_none_is_refused(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="time"):
            bw.train(bw.scan(photos), time="soon", out=tmp_path)
