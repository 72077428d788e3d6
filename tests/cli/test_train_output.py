"""What `budwood train` says: a line an epoch, then what was trained on what, its scores, and what comes next."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from budwood.cli.main import run
from budwood.runs.run import find_run
from conftest import TINY, run_command

FLAGS = [part for name, value in {**TINY, "widths": "[4]", "fc": "[4]"}.items() for part in ("-s", f"{name}={value}")]
Said = tuple[Path, str, str]


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[pytest.CaptureFixture[str]], Said]:
    """Trains once by the command line, into a folder whose name must be quoted; gives it, stdout and stderr."""
    folder = tmp_path_factory.mktemp("my place")
    shutil.copytree(tiny / "photos", folder / "my photos")
    said: list[Said] = []

    def train(capsys: pytest.CaptureFixture[str]) -> Said:
        if not said:
            options: list[str | Path] = [
                "--val",
                "0.3",
                "--test",
                "0.1",
                "--epochs",
                "2",
                "--out",
                folder / "my runs",
                "--name",
                "first",
            ]
            said.append((folder, *run_command(capsys, "train", folder / "my photos", *FLAGS, *options)))
        return said[0]

    return train


Trained = Callable[[pytest.CaptureFixture[str]], Said]


def test_every_epoch_is_a_line_also_where_nobody_looks(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = trained(capsys)
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for line in lines:
        assert re.search(r"  loss \d+\.\d{3}, validation \d+\.\d{3}  accuracy \d+\.\d %  rate 0\.01", line)
    assert re.search(r"  at most [\d.]+ s left$", lines[0])
    assert lines[1].endswith("  0.0 s left")


def test_the_end_says_what_was_trained_on_what(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, _ = trained(capsys)
    lines = out.splitlines()
    assert re.fullmatch(
        r"Trained: cnn, [\d,]+ of [\d,]+ parameters, on my photos \(\d+ training images, 2 classes\)", lines[0]
    )
    assert re.fullmatch(r"Kept: epoch [12] \(lowest validation loss\)", lines[1])
    shown = r"accuracy  [\d.]+ % \(95 % confidence interval [\d.]+ to [\d.]+\), n = \d+"
    assert re.fullmatch(f"Training {shown}", lines[2])
    assert re.fullmatch(f"Validation {shown}", lines[3])
    place = shlex.quote(str(folder / "my runs" / "first"))
    assert f"Report: {folder / 'my runs' / 'first' / 'report.html'}" in lines
    assert f"To use it: budwood predict {place} IMAGES..." in lines
    assert lines[-1].endswith(f"When you have chosen your run: budwood test {place}")


def test_the_command_of_the_report_repeats_it_from_any_folder(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = trained(capsys)
    first = find_run("first", folder / "my runs")
    page = (first.path / "report.html").read_text(encoding="utf-8")
    command = unescape(re.search(r"<h2>Repeat this run</h2>\s*<pre><code>(.*?)</code>", page)[1])  # type: ignore[index]
    assert "--val 0.3 --test 0.1 --out" in command
    monkeypatch.chdir(tmp_path)
    assert run(shlex.split(command)[1:]) == 0
    capsys.readouterr()
    again = find_run("last", folder / "my runs")
    assert again.record.id != "first"
    assert again.record.dataset.fingerprint == first.record.dataset.fingerprint
    assert again.recipe == first.recipe


def test_a_run_that_was_read_as_usual_says_nothing_of_it(tiny: Path) -> None:
    assert '"reading"' not in (tiny / "runs" / "one" / "run.json").read_text(encoding="utf-8")
