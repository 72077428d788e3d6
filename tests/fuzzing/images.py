"""Damaged images: each is used, and then decoded alike wherever it is decoded, or it is told with a reason."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, get_args

import numpy as np

import budwood as bw
from budwood.config.options import Resize, Resizing
from budwood.data.checks import Finding
from budwood.data.dataset import Dataset, Samples
from budwood.data.image_inputs import read_input
from budwood.data.images import BadImage, Problem, compute_content_id, decode, read_thumbnail
from budwood.data.loading import decode_sample
from budwood.data.metadata import compute_content_ids
from budwood.errors import BudwoodError
from budwood.progress import Silent
from budwood.workflows.report import report_findings
from budwood.workflows.train import train_recipe
from fuzzing.bytes import Mutant, mutate
from fuzzing.outcomes import JOB, Outcome
from fuzzing.pictures import iterate_valid, make_pictures

FOLDER: Final = 40  # damaged images that are scanned together
VALID: Final = 12  # images of each class beside them
CLASSES: Final = ("leaf", "sky")
SIZE: Final = 16  # pixels of a network's input


def iterate_mutants(count: int, seed: int) -> Iterator[Mutant]:
    """So many damaged images, of each kind in turn."""
    originals = list(make_pictures().items())
    for number in range(count):
        draw = random.Random(f"image {seed} {number}")
        name, whole = originals[number % len(originals)]
        yield mutate(name, whole, originals, draw)


def write_folder(folder: Path, mutants: Sequence[Mutant], seed: int) -> dict[str, Mutant]:
    """Write damaged and valid images of two classes; the damaged ones by path."""
    paths = {}
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    for number, (name, data) in enumerate(iterate_valid(2 * VALID, seed)):
        (folder / CLASSES[number % 2] / name).write_bytes(data)
    for number, mutant in enumerate(mutants):
        path = f"{CLASSES[number % 2]}/{number:03}-{mutant.name}"
        (folder / path).write_bytes(mutant.data)
        paths[path] = mutant
    return paths


def judge_folder(folder: Path, mutants: Sequence[Mutant], seed: int, *, whole_job: bool = False) -> list[Outcome]:
    """Scan damaged images and decode each of them in every way; with `whole_job`, train and predict, too.

    Args:
        folder: Empty folder for the images and the cache.
        mutants: The damaged images.
        seed: Decides what the valid ones show.
        whole_job: Whether a network is trained on them, tested, and asked about all of them.

    Returns:
        What came of each, in order.
    """
    paths = write_folder(folder / "photos", mutants, seed)
    data = bw.scan(folder / "photos", cache=folder / "cache")
    findings = bw.findings(data)
    report_findings(data, findings, folder / "findings.html")
    told = {file for finding in findings if finding.code < "D010" for file in finding.files}
    outcomes = [_judge(path, mutant, data, told) for path, mutant in paths.items()]
    broken = _judge_job(folder, data, findings) if whole_job else ""
    return [*outcomes, Outcome("image", f"the job of seed {seed}", JOB, broken)] if whole_job else outcomes


def _judge(path: str, mutant: Mutant, data: Dataset, told: set[str]) -> Outcome:
    """Whether one damaged image is used as it decodes, or told."""
    used = path in set(data.table["path"].to_pylist())
    aside = [item for item in data.set_aside if item.path == path]
    if used == bool(aside):
        return Outcome("image", mutant.what, "lost", f"{path} is neither used nor told, or both")
    found = compute_content_ids([data.root / path], Silent(), data.value_range)[0]
    if isinstance(found, BadImage) == used:
        return Outcome(
            "image", mutant.what, "lost", f"{path} is {'used' if used else 'told'}, but predict says {found}"
        )
    if not used:
        spoken = aside[0].problem in get_args(Problem) and aside[0].detail.strip() and path in told
        return Outcome(
            "image", mutant.what, aside[0].problem, "" if spoken else f"{path} is told without words: {aside}"
        )
    return Outcome("image", mutant.what, "used", _compare_decoding(path, mutant, data))


def _compare_decoding(path: str, mutant: Mutant, data: Dataset) -> str:
    """What differs between the ways to decode a file that is used; empty where nothing does."""
    id = compute_content_id(mutant.data)
    for resizing in map(Resizing, get_args(Resize)):
        samples = Samples(data.root, (id,), (path,), np.zeros(1, np.int32), value_range=data.value_range)
        trained = decode_sample(samples, 0, SIZE, resizing)
        predicted = read_input(data.root / path, [(SIZE, resizing)], data.value_range)[0][0]
        if not np.array_equal(trained, predicted):
            return f"{path}: training and predict see other pixels ({resizing.how})"
    read_thumbnail(data.root / path, 32, id, data.value_range)
    if mutant.cut_of and decode(mutant.data).tobytes() != decode(mutant.cut_of).tobytes():
        return f"{path}: is used although its end is missing"
    return ""


def _judge_job(folder: Path, data: Dataset, findings: Sequence[Finding]) -> str:
    """What goes wrong in training on the images and predicting all of them; empty where nothing does."""
    cache = folder / "cache"
    recipe = bw.Recipe(model="mlp", fc=(4,), size=8, epochs=1, optimizer="adam", seed=0)
    try:
        run = train_recipe(data, recipe, out=folder / "runs", cache=cache, findings=tuple(findings), leaks="allow")
        bw.test(run, cache=cache)
    except BudwoodError as error:
        return f"images of a scan cannot be trained on: {error.message}"
    used = {str(data.root / path) for path in data.table["path"].to_pylist()}
    predictions = bw.predict(run, [data.root], cache=cache)
    wrong = [one.path for one in predictions if bool(one.problem) == (one.path in used)]
    return f"predicted otherwise than scanned: {', '.join(wrong)}" if wrong else ""
