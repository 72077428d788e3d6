"""The command line: every mistake gives its one message and exit code, and JSON is what was promised."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from budwood.cli.main import main, run
from budwood.cli.options import make_recipe_flags
from budwood.cli.output import format_looks, format_metric
from budwood.evaluation.intervals import Metric
from conftest import fill, picture

FAST = ["--size", "32", "--optimizer", "lbfgs"]


def _said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """What a command printed on stdout; checks its exit code and that no traceback was shown."""
    found = run([str(argument) for argument in arguments], as_json="--json" in arguments)
    out, err = capsys.readouterr()
    assert found == code, err
    assert "Traceback" not in err + out
    return out if code == 0 or "--json" in arguments else err


def _json(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    return json.loads(_said(capsys, *arguments, "--json", code=code))


def test_the_whole_job_in_json(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out: list[str | Path] = ["--out", tmp_path / "runs"]
    trained = _json(capsys, "train", photos, *FAST, *out)
    assert set(trained) == {"run", "state", "recipe", "metrics", "timings"}
    assert set(trained["metrics"]["val"]["accuracy"]) == {"value", "low", "high", "n"}
    tested = _json(capsys, "test", trained["run"])
    assert (tested["run"], tested["split"], tested["looks"]) == (trained["run"], "test", 1)
    assert set(tested["metrics"]["accuracy"]) == {"value", "low", "high", "n"}
    answers = _json(capsys, "predict", trained["run"], photos / "sky" / "000.png")
    assert answers[0]["top"][0]["class"] == "sky"
    assert Path(_json(capsys, "report", trained["run"])["report"]).is_file()
    looked = _json(capsys, "inspect", photos)
    assert (looked["n"], looked["classes"], looked["findings"]) == (60, ["leaf", "sky"], [])


def test_the_whole_job_in_words(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(photos / "leaf/000.png", photos / "leaf/copy.png")
    said = _said(capsys, "inspect", photos, "--html", tmp_path / "findings.html")
    assert "D010 warning: 2 files in 1 group are exact duplicates" in said
    assert "leaf/000.png  =  leaf/copy.png" in said
    assert "data:image/jpeg;base64," in (tmp_path / "findings.html").read_text()
    said = _said(
        capsys, "train", photos, *FAST, "--out", tmp_path / "runs", "--optimizer", "adam", "-s", "epochs=9", "--lr=0.02"
    )
    assert "95 % confidence interval" in said
    assert "The test set is sealed (not used yet)" in said
    folder = next((tmp_path / "runs").iterdir())
    assert 'optimizer = "adam"\nepochs = 9' in (folder / "recipe.toml").read_text()
    assert "first use of this test set" in _said(capsys, "test", folder.name, "--out", tmp_path / "runs")
    assert "first use of this test set" in _said(capsys, "test", folder), "the same score is no new look"
    said = _said(capsys, "predict", folder, photos / "sky", "--csv", tmp_path / "a.csv")
    assert "000.png: sky" in said
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 31
    (tmp_path / "bad.png").write_text("no image")
    assert run(["predict", str(folder), str(photos / "sky"), str(tmp_path / "bad.png")]) == 3
    assert "1 of 31 images cannot be read.\n  " in capsys.readouterr().err
    said = _said(capsys, "predict", folder, tmp_path / "bad.png", code=2)
    assert "1 of 1 image cannot be read.\n  " in said
    (tmp_path / "nothing").mkdir()
    assert "There are no images in what was named." in _said(capsys, "predict", folder, tmp_path / "nothing", code=2)


def test_a_recipe_file_is_overridden_by_settings_and_those_by_flags(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.toml").write_text('optimizer = "adam"\nepochs = 1\nlr = 0.1\nsize = 32\n')
    options: list[str | Path] = ["--recipe", tmp_path / "r.toml", "-s", "epochs=2", "-s", "lr=0.2", "--lr", "0.3"]
    recipe = _json(capsys, "train", photos, *options, "--out", tmp_path / "runs")["recipe"]
    assert (recipe["optimizer"], recipe["epochs"], recipe["lr"]) == ("adam", 2, 0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "nowhere: no such file or folder"),
        (["train", "elpv", "--lr", "0.1", "--optimizer", "lbfgs"], "lr: optimizer 'lbfgs' does not use it"),
        (["train", "elpv", "--model", "resnet"], "there is no network 'resnet'"),
        (["train", "elpv", "-s", "oops"], "expected KEY=VALUE"),
        (["train", "elpv", "--epocs", "3"], "No such option '--epocs'"),
        (["train", "elpv", "--epochs", "many"], "'many' is not a valid integer"),
        (["train", "elpv", "--val", "2"], "2.0 is not in the range"),
        (["train", "elpv", "--test", "0.3"], "--test 0.3 does not apply"),
        (["train"], "Missing argument 'DATA...'"),
        (["test", "nowhere"], "nowhere: is not a run folder"),
        (["grow"], "No such command 'grow'"),
    ],
)
def test_mistakes_have_one_message_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _said(capsys, *arguments, code=2)
    error = _json(capsys, *arguments, code=2)["error"]
    assert set(error) == {"code", "message", "hint"}
    assert message in error["message"]
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


def test_data_mistakes_have_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "one" / "a", 3)
    (tmp_path / "t.csv").write_text("path,lable\na.png,x\n")
    for split, labels in (("train", "ab"), ("test", "abc")):
        for label in labels:
            fill(tmp_path / "unknown" / split / f"class_{label}", 1)
    for name, message in {
        "empty": "contains no labelled image files",
        "one": "has only one class",
        "t.csv": "has no column 'label'",
        "unknown": "the test split has the class 'class_c'",
    }.items():
        said = _said(capsys, "train", tmp_path / name, "--out", tmp_path / "runs", code=2)
        assert message in said
        assert len(said.strip().splitlines()) == 2, "one message and what to do"
    assert not (tmp_path / "runs").exists()


def test_a_mistake_of_budwoods_own_is_exit_code_1(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("budwood.data.scanning.scan", broken)
    assert "ZeroDivisionError: oops" in _said(capsys, "inspect", photos, code=1)
    assert _json(capsys, "inspect", photos, code=1)["error"]["code"] == "internal"
    with pytest.raises(ZeroDivisionError):
        run(["inspect", str(photos), "--debug"], debug=True)


def test_debug_shows_the_traceback_of_a_users_mistake() -> None:
    from budwood.errors import DataError

    with pytest.raises(DataError):
        run(["inspect", "nowhere", "--debug"], debug=True)


def test_without_arguments_there_is_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["budwood"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "Commands:" in capsys.readouterr().out


def test_interruption_is_exit_code_130(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("budwood.training.frozen_features.compute_features", interrupted)
    out = photos.parent / "runs"
    said = _said(capsys, "train", photos, *FAST, "--out", out, code=130)
    assert "Interrupted. No incomplete files were left behind." in said
    assert list(out.iterdir()) == []


def _heed_interrupts() -> None:
    """Tests that a shell runs in the background ignore Ctrl-C, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_in_a_real_process(photos: Path, tmp_path: Path) -> None:
    fill(photos / "sky", 600, first=100, hue=2)
    environment = {**os.environ, "BUDWOOD_CACHE": str(tmp_path / "cache")}
    start = "from budwood.cli.main import main; main()"
    command = [sys.executable, "-c", start, "train", str(photos), "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        preexec_fn=_heed_interrupts,
    )
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted." in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


@pytest.mark.skipif(
    os.name == "nt" or shutil.which("mount") is None or os.geteuid() != 0, reason="needs to mount a disk"
)
def test_a_disk_that_is_really_full(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        said = _said(capsys, "train", photos, *FAST, "--out", disk / "runs", code=2)
        assert "no space left on the disk" in said
        assert list((disk / "runs").iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


NASTY = "new\nline \U0001f333.png"


def _nasty(root: Path) -> Path:
    """A folder with every kind of file that breaks other tools."""
    fill(root / "a", 14, hue=0)
    fill(root / "b", 14, hue=1)
    picture(9001, side=300).save(root / "a" / "truncated.jpg")
    whole = (root / "a" / "truncated.jpg").read_bytes()
    (root / "a" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "text.jpg").write_text("hello")
    Image.fromarray(np.asarray(picture(9002).convert("L"), np.uint16) * 257).save(root / "a" / "deep.png")
    picture(9003).convert("CMYK").save(root / "a" / "print.jpg")
    frames = [picture(9004, 1), picture(9005, 1)]
    frames[0].save(root / "b" / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(9006, 1).save(root / "b" / "phone.jpg", exif=exif)
    (root / "b" / "zero.png").write_bytes(b"")
    (root / "b" / "gone.png").symlink_to(root / "nowhere")
    picture(9007, 1).save(root / "b" / NASTY)
    return root


def test_a_nasty_folder_trains_and_every_file_is_accounted_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _nasty(tmp_path / "d")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    trained = _json(capsys, "train", data, *FAST, "--out", tmp_path / "runs")
    record = json.loads((Path(trained["run"]) / "run.json").read_text())
    told = {Path(file).name: finding["code"] for finding in record["findings"] for file in finding["files"]}
    assert told == {
        "truncated.jpg": "D001",
        "text.jpg": "D003",
        "zero.png": "D004",
        "gone.png": "D005",
        "moving.gif": "D040",
        "deep.png": "D041",
        "print.jpg": "D042",
        "phone.jpg": "D044",
    }
    import pyarrow.parquet as pq

    used = {Path(path).name for path in pq.read_table(Path(trained["run"]) / "dataset.parquet")["path"].to_pylist()}
    assert {NASTY, "moving.gif", "deep.png", "print.jpg", "phone.jpg"} <= used
    assert not {"truncated.jpg", "text.jpg", "zero.png", "gone.png"} & used
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    said = _said(capsys, "predict", trained["run"], data / "b" / NASTY)
    assert "new\\nline 🌳.png: b" in said


def test_words_for_figures() -> None:
    metric = Metric(0.5, 0.25, 0.75, 1200)
    assert format_metric(metric) == "50.0 % (95 % confidence interval 25.0 to 75.0), n = 1,200"
    assert format_metric(Metric(None, None, None, 0)) == "undefined (n = 0)"
    assert "first" in format_looks(1)
    assert "used 3 times (looks)" in format_looks(3)


def test_models_lists_searches_and_shows_surgery(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"tf_efficientnet_lite0 +timm +224 +4,652,008 +75\.1 % +on disk", said)
    assert re.search(r"resnet18 +torchvision +224 +11,689,512 +69\.8 %", said)
    assert "more from timm: `budwood models '*vit*'` searches" in said
    assert run(["models", "mobilenet_v3*", "--json"], as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"mobilenet_v3_small", "mobilenet_v3_large"} <= {entry["name"] for entry in found}

    assert run(["models", "resnet18", "--freeze", "upto:layer2", "--cut", "layer3", "--classes", "8"]) == 0
    said = capsys.readouterr().out
    before, after = said.split("After changes: freeze upto:layer2, cut layer3")
    assert re.search(r"layer4 +512 x 7 x 7 +8,393,728 +411,041,792", before)
    assert re.search(r"total +11,689,512 +1,814,073,344", before)
    assert "layer4" not in after
    assert re.search(r"layer2 +128 x 28 x 28 +525,568 +0 +525,568", after)
    assert re.search(r"fc +8 +2,056 +2,056 +0 +2,048", after)
    assert "Computed once per image (frozen): all up to layer2." in after
    assert run(["models", "resnet18", "--taps", "layer1,layer3", "--classes", "8"]) == 0
    said = capsys.readouterr().out
    assert "After changes: taps layer1,layer3" in said
    assert "The head's 832 inputs: 64 of layer1, 256 of layer3, 512 of the trunk." in said
    assert run(["models", "resnet18", "--freeze", "none", "--json"], as_json=True) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == {"trainable": 11_689_512, "frozen": 0}
    assert plan["prefix"] is None


def test_models_asked_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "resnet18", "--cut", "layer9"]) == 2
    assert "Its stages: conv1, bn1, relu, maxpool, layer1" in capsys.readouterr().err
    assert run(["models", "resnet81"]) == 2
    assert "there is no network 'resnet81'" in capsys.readouterr().err
    assert run(["models", "*vit*", "--cut", "blocks.3"]) == 2
    assert "cut: this option needs the name of one network." in capsys.readouterr().err
    assert run(["models", "resnet18", "--epochs", "3"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_flags_of_every_kind_reach_the_recipe(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(photos), "--out", str(photos.parent / "runs"), "--json", "--model", "vgg-small"]
    arguments += ["--blocks", "[8],[8]", "--fc", "16", "--conv-norm", "false", "--size", "16", "--channels", "1"]
    arguments += ["--dropout", "0.1", "--batch-norm", "true", "--epochs", "1", "--batch", "16", "--momentum", "0.5"]
    assert run(arguments, as_json=True) == 0
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert (recipe["blocks"], recipe["fc"], recipe["conv_norm"]) == ([[8], [8]], [16], False)
    assert (recipe["channels"], recipe["size"], recipe["dropout"], recipe["batch_norm"]) == (1, 16, 0.1, True)
    assert (recipe["optimizer"], recipe["momentum"]) == ("sgd", 0.5)


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("optimizer", "lbfgs, sgd, adam, adamw"),
        ("schedule", "constant, step, multistep"),
        ("loss", "cross_entropy, focal, binary_cross_entropy"),
        ("transform", "Your own"),
    ],
)
def test_help_lists_the_names_of_parts_and_how_a_users_own_is_named(option: str, known: str) -> None:
    flags = {flag.name: flag for flag in make_recipe_flags() if isinstance(flag, click.Option)}
    said = flags[option].help or ""
    assert known in said
    assert "package.module:name" in said


def test_how_data_are_read_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hue, name in enumerate(("plant/daisy", "plant/rose", "Plant", "train")):
        fill(tmp_path / "d" / name, 3, hue=hue % 3, first=10 * hue)
    plain = _json(capsys, "inspect", tmp_path / "d")
    assert plain["classes"] == ["plant", "train"]
    assert {"D072", "D074", "D075"} <= {finding["code"] for finding in plain["findings"]}
    options = ["--label-from", "path", "--spelling", "keep", "--split-folders", "never", "--label-separator", "none"]
    read = _json(capsys, "inspect", tmp_path / "d", *options, "--html", tmp_path / "page.html")
    assert read["classes"] == ["Plant", "plant/daisy", "plant/rose", "train"]
    assert (tmp_path / "page.html").is_file()
    _said(capsys, "inspect", tmp_path / "d", "--html", tmp_path / "page.html")
    assert "--label-from path" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_inspect_lists_the_files_that_cannot_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(14)))
    said = _said(capsys, "inspect", tmp_path / "t.csv", "--csv", tmp_path / "files.csv", code=2)
    assert f"the first, '0.png', was looked for at {tmp_path / '0.png'}" in said
    assert "9.png: " in said
    assert "10.png: " not in said
    assert "and 4 more (all with --json or --csv)" in said
    assert len((tmp_path / "files.csv").read_text().splitlines()) == 15
    assert len(_json(capsys, "inspect", tmp_path / "t.csv", code=2)["error"]["files"]) == 14
    assert "`budwood inspect` lists" in _said(capsys, "train", tmp_path / "t.csv", code=2)


def test_inspect_writes_a_table_of_all_files(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (photos / "sky" / f"{number}.jpg").write_text(f"no image {number}")
    said = _said(capsys, "inspect", photos, "--csv", photos.parent / "found.csv")
    assert "and 2 more (all with --json or --csv)" in said
    rows = (photos.parent / "found.csv").read_text().splitlines()
    assert rows[0] == "code,severity,path,detail,message"
    assert sum(row.startswith("D003,warning,sky/") for row in rows) == 12


def test_models_lists_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "resnet18", "--layers"]) == 0
    said = capsys.readouterr().out
    assert re.search(r" 7 +layer1\.0\.relu#1 +ReLU +64 x 56 x 56", said)
    assert re.search(r"\n +25 +layer2\.1\.conv1 +Conv2d +128 x 28 x 28", said)
    assert re.search(r"\n +layer2\.1 +BasicBlock +128 x 28 x 28", said)
    assert run(["models", "cnn", "--layers", "--json"], as_json=True) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert layers[0] == {"number": 1, "label": "conv1.0", "kind": "Conv2d", "shape": layers[0]["shape"]}
    assert run(["models", "*vit*", "--layers"]) == 2
    assert "layers: this option needs the name of one network." in capsys.readouterr().err
