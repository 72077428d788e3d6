"""Odd surroundings - terminals, disks, users - cost no more than they must, and are told in one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import budwood as bw
from budwood.cli.main import run as command
from budwood.errors import StorageError
from budwood.inference import bundle
from budwood.networks.local_trunks import LocalTrunk
from budwood.storage import atomic
from budwood.storage.atomic import cache_folder
from budwood.workflows import frozen_rung
from conftest import fill


def start(
    arguments: list[str], environment: Mapping[str, str], *, output: str = ""
) -> subprocess.CompletedProcess[str]:
    script = "import sys; from budwood.cli.main import main; sys.argv[0] = 'budwood'; main()"
    with Path(output or os.devnull).open("w") as stream:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment},
            stdout=stream if output else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            check=False,
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "{photos}"]])
def test_output_that_cannot_be_written_is_one_message(arguments: list[str], photos: Path, tmp_path: Path) -> None:
    arguments = [argument.format(photos=photos) for argument in arguments]
    done = start(arguments, {"BUDWOOD_CACHE": str(tmp_path)}, output="/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "budwood: The output cannot be written (No space left on device).\n  Send it to another place.\n"
    )


def test_a_reader_who_has_seen_enough_is_told_nothing(tmp_path: Path) -> None:
    script = "from budwood.cli.main import run; import sys; sys.exit(run(['train', '--help']))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, told = process.communicate()
    assert b"Traceback" not in told


def test_names_are_shown_where_the_terminal_knows_few_letters(tmp_path: Path) -> None:
    fill(tmp_path / "daten" / "größe", 3)
    fill(tmp_path / "daten" / "日本", 3)
    os.rename(  # noqa: PTH104 - a name of bytes that are no UTF-8
        os.fsencode(tmp_path / "daten" / "größe" / "000.png"), os.fsencode(tmp_path / "daten" / "größe") + b"/\xe9.png"
    )
    plain = {"PYTHONIOENCODING": "ascii", "BUDWOOD_CACHE": str(tmp_path / "cache")}
    told = start(["inspect", str(tmp_path / "daten")], plain)
    assert (told.returncode, "Traceback" in told.stderr) == (0, False)
    assert "gr\\xf6\\xdfe" in told.stdout
    made = start(["inspect", str(tmp_path / "daten"), "--json"], plain)
    assert made.returncode == 0
    assert "größe" in json.dumps(json.loads(made.stdout), ensure_ascii=False)


def test_a_user_without_home_and_name_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        raise KeyError(f"uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "BUDWOOD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", fail)
    assert cache_folder().is_absolute()
    assert cache_folder().name == f"budwood-{os.getuid()}"


def test_a_cache_of_an_unknown_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(StorageError, match="the home folder in '~nobody-of-this-name/cache' is not known"):
        cache_folder()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to, not even root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        disk.chmod(0o555)
        yield disk
        disk.chmod(0o755)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_cache_that_can_only_be_read_costs_time_alone(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "photos" / "leaf", 12, hue=1)
    fill(tmp_path / "photos" / "sky", 12, hue=2)
    monkeypatch.setenv("BUDWOOD_CACHE", str(read_only))
    data = bw.scan(tmp_path / "photos")
    recipe = bw.Recipe(model="mlp", size=8, epochs=1, optimizer="adam")
    run = bw.train(data, recipe, out=tmp_path / "runs")
    assert len(bw.predict(run, [tmp_path / "photos" / "sky"])) == 12
    assert bw.test(run).metrics["test"]["accuracy"]["n"]
    assert bw.Predictor.open(run).compute_probabilities(next(tmp_path.rglob("*.png"))).shape == (1, 2)
    assert list(read_only.iterdir()) == []


@pytest.mark.slow
def test_a_search_with_a_cache_that_can_only_be_read_finds_a_network(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "photos" / "leaf", 12, hue=1)
    fill(tmp_path / "photos" / "sky", 12, hue=2)
    monkeypatch.setenv("BUDWOOD_CACHE", str(read_only))
    small = LocalTrunk("tf_efficientnet_lite0", "timm", 64, 0.751, 31_000_000)
    monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (small,))
    best = bw.train(bw.scan(tmp_path / "photos"), quick=True, out=tmp_path / "runs")
    assert best.record.ladder is not None
    assert best.record.ladder.best == best.record.id
    assert list(read_only.iterdir()) == []


def test_a_bundle_of_a_cache_that_can_only_be_read_lies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "is_writable", lambda folder: False)
    prefix = bundle.Prefix(None, None, (2,), "key", tmp_path)  # type: ignore[arg-type]
    assert not prefix.bundle.is_relative_to(tmp_path)
    (tmp_path / "networks" / prefix.bundle.name).mkdir(parents=True)
    assert prefix.bundle.is_relative_to(tmp_path)


def test_a_folder_that_is_none_cannot_be_written(tmp_path: Path) -> None:
    assert atomic.is_writable(tmp_path / "new" / "deep")
    (tmp_path / "file").write_text("")
    assert not atomic.is_writable(tmp_path / "file" / "inside")


def test_a_file_that_fails_is_no_fault_of_budwood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))

    monkeypatch.setattr("budwood.cli.main.list_networks", fail)
    assert command(["models"]) == 2
    assert capsys.readouterr().err.startswith(f"budwood: {tmp_path / 'x'}: Permission denied.")
