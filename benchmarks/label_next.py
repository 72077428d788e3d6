"""Whether suggested images teach a head more than images drawn by chance, and how often drift is a false alarm.

    .venv/bin/python benchmarks/label_next.py RUN [--seeds 20] [--start 40] [--added 50] [--splits 100]

RUN is a run of a linear head. For each seed, a head is solved on a few training images of each class; then on those and
as many more, suggested or drawn by chance. Half of the run's validation images choose the penalty, the other half
score. Drift is looked for between halves of the validation images, where there is none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

import budwood as bw
from budwood.evaluation.acquisition import measure_uncertainty, select_images
from budwood.evaluation.learning_curve import draw_nested_subsets
from budwood.evaluation.logits import probabilities
from budwood.evaluation.novelty import normalise
from budwood.evaluation.shift import compare_features, compare_mix, compare_scores
from budwood.evaluation.significance import correct_holm
from budwood.inference.feature_cache import compute_features
from budwood.progress import Silent
from budwood.runs.networks import make_trunk
from budwood.storage.context import open_context
from budwood.training.linear_head import HeadSplit, compute_head_logits
from budwood.workflows.learning_curve import Head, solve_plain_head


def main() -> None:
    """Print what suggestions gain, and the share of false alarms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--start", type=int, default=40)
    parser.add_argument("--added", type=int, default=50)
    parser.add_argument("--splits", type=int, default=100)
    asked = parser.parse_args()
    run = bw.open_run(asked.run)
    prefix, data = make_trunk(run, open_context()), run.dataset()
    train, val = (
        HeadSplit(compute_features(prefix, samples, Silent()).values, samples.labels)
        for samples in (data.samples("train"), data.samples("val"))
    )
    found = np.array(
        [_compare(train, val, len(run.classes), asked.start, asked.added, seed) for seed in range(asked.seeds)]
    )
    start, chance, suggested = found.T
    gain = suggested - chance
    print(
        f"accuracy: {start.mean():.3f} with {asked.start}; {asked.added} more by chance {chance.mean():.3f}, ", end=""
    )
    print(f"suggested {suggested.mean():.3f}: {100 * gain.mean():+.2f} points (standard error ", end="")
    error = gain.std(ddof=1) / len(gain) ** 0.5
    print(
        f"{100 * error:.2f}), better in {np.sum(gain > 0)}, worse in {np.sum(gain < 0)} of {len(gain)} seeds, ", end=""
    )
    print(f"Wilcoxon p = {wilcoxon(gain).pvalue:.3f}")
    head = solve_plain_head(train, val, len(run.classes), Silent())
    p = np.array([_split_evenly(val, head, seed) for seed in range(asked.splits)])
    for alpha in (0.05, 0.01):
        print(
            f"false alarms between halves at alpha = {alpha}: {np.sum(p < alpha)} of {len(p)}, without a bound of size"
        )


def _compare(
    train: HeadSplit, val: HeadSplit, classes: int, start: int, added: int, seed: int
) -> tuple[float, float, float]:
    """Accuracy at the start, and with images added by chance and as suggested."""
    random = np.random.default_rng(seed)
    half = random.permutation(len(val.labels)) % 2 == 0
    choose, score = (HeadSplit(val.outputs[part], val.labels[part]) for part in (half, ~half))

    def learn(rows: NDArray[np.int64]) -> tuple[Head, float]:
        head = solve_plain_head(HeadSplit(train.outputs[rows], train.labels[rows]), choose, classes, Silent())
        return head, float((compute_head_logits(score.outputs, *head).argmax(axis=1) == score.labels).mean())

    (rows,) = draw_nested_subsets(train.labels, [start], random)
    pool = np.setdiff1d(np.arange(len(train.labels)), rows)
    head, before = learn(rows)
    unsure = measure_uncertainty(probabilities(compute_head_logits(train.outputs[pool], *head)))
    values = normalise(train.outputs).astype(np.float64)
    taken = select_images(values[pool], unsure, values[rows], np.arange(len(pool)), added)
    drawn = random.permutation(len(pool))[:added]
    chance, suggested = (learn(np.concatenate([rows, pool[more]]))[1] for more in (drawn, taken))
    return before, chance, suggested


def _split_evenly(val: HeadSplit, head: Head, seed: int) -> float:
    """The smallest corrected p-value of the three tests between two random halves."""
    chances = probabilities(compute_head_logits(val.outputs, *head))
    is_new = np.random.default_rng(seed).permutation(len(chances)) % 2 == 0
    called = chances.argmax(axis=1)
    tests = (
        compare_features(val.outputs.astype(np.float64), is_new, called, seed),
        compare_scores(chances.max(axis=1), is_new, called, seed),
        compare_mix(is_new, called, seed),
    )
    return float(correct_holm(np.array([test.p for test in tests])).min())


if __name__ == "__main__":
    main()
