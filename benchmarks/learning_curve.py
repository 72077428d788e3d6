"""Whether a learning curve of 40 % of the training images foretells what all of them reach.

    .venv/bin/python benchmarks/learning_curve.py RUN [--test FOLDER] [--seeds 20] [--share 0.4]

RUN is a run of a linear head. For each seed, 40 % of its training images are drawn; the curve is made of parts of them
alone, and the forecast for all training images is held against the head that was solved on all: on the run's
validation images, and, where --test (a folder of class folders) is given, on images that neither has seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import budwood as bw
from budwood.data.dataset import Samples
from budwood.data.file_tree import find_image_files
from budwood.data.images import BadImage
from budwood.data.metadata import compute_content_ids
from budwood.evaluation.learning_curve import FRACTIONS, LearningCurve, draw_nested_subsets
from budwood.inference.feature_cache import compute_features
from budwood.progress import Silent
from budwood.runs.networks import make_trunk
from budwood.storage.context import open_context
from budwood.training.linear_head import HeadSplit, compute_head_logits
from budwood.workflows.learning_curve import DRAWS, Head, choose_sizes, measure_curve, solve_plain_head


def main() -> None:
    """Print coverage and width of the intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--test", type=Path, help="folder of class folders that the run has not seen")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.4)
    asked = parser.parse_args()
    run = bw.open_run(asked.run)
    prefix, context, data = make_trunk(run, open_context()), open_context(), run.dataset()
    parts = {
        name: HeadSplit(compute_features(prefix, samples, Silent()).values, samples.labels)
        for name in ("train", "val")
        for samples in (data.samples(name),)
    }
    train, val, classes = parts["train"], parts["val"], len(run.classes)
    full = solve_plain_head(train, val, classes, context.progress)
    truth = {"validation": _score(full, val)}
    if asked.test:
        samples = _label_by_folder(asked.test, run)
        truth["test"] = _score(full, HeadSplit(compute_features(prefix, samples, Silent()).values, samples.labels))
    held = dict.fromkeys(truth, 0)
    widths, misses = [], []
    for seed in range(asked.seeds):
        (rows,) = draw_nested_subsets(
            train.labels, [round(asked.share * len(train.labels))], np.random.default_rng(seed)
        )
        part = HeadSplit(train.outputs[rows], train.labels[rows])
        curve: LearningCurve = measure_curve(part, val, classes, choose_sizes(len(rows), classes), DRAWS, context, seed)
        told = curve.forecast(len(train.labels), seed)
        assert told.value is not None
        assert told.low is not None
        assert told.high is not None
        for name, error in truth.items():
            held[name] += told.low <= error <= told.high
        widths.append(told.high - told.low)
        misses.append(told.value - truth["validation"])
        print(f"seed {seed}: now {curve.errors[-1]:.3f}, forecast {told.value:.3f} ({told.low:.3f} to {told.high:.3f})")
    print(f"{len(train.labels)} training images, curves of {asked.share:.0%} of them in parts {FRACTIONS}")
    for name, error in truth.items():
        print(f"error with all on {name} images {error:.3f}: within the interval in {held[name]} of {asked.seeds}")
    print(f"mean width {np.mean(widths):.3f}, mean forecast minus validation error {np.mean(misses):+.3f}")


def _score(head: Head, split: HeadSplit) -> float:
    return float((compute_head_logits(split.outputs, *head).argmax(axis=1) != split.labels).mean())


def _label_by_folder(folder: Path, run: bw.Run) -> Samples:
    paths = list(find_image_files([folder]))
    ids = compute_content_ids(paths, Silent(), run.value_range)
    good = [row for row, id in enumerate(ids) if not isinstance(id, BadImage)]
    labels = [run.classes.index(paths[row].parent.name) for row in good]
    return Samples(
        Path(),
        tuple(str(ids[row]) for row in good),
        tuple(str(paths[row]) for row in good),
        np.array(labels, np.int32),
        value_range=run.value_range,
    )


if __name__ == "__main__":
    main()
