"""The table of benchmarks/defaults.py: pure functions from the lines of its file to Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric, clopper_pearson
from budwood.evaluation.significance import ALPHA, mcnemar_test, paired_permutation_test
from default_sets import TOGETHER

OWN: Final = "budwood"
LATE: Final = 1.1  # of its time, beyond which an answer came too late
Occasion = tuple[str, int]  # a set and a seed
Images = dict[Occasion, list[str]]  # the test images of each


@dataclass(frozen=True)
class Cell:
    """One trained network and what it said of the test images.

    Attributes:
        images: Set of images.
        seed: Seed.
        peer: Who trained it.
        time: Seconds that it was given; None where it takes what it takes.
        seconds: Seconds that training took, the whole process.
        right: Whether each test image was called rightly, bool [n], in the order of the names; None: not finished.
        problem: Why there is no answer.
    """

    images: str
    seed: int
    peer: str
    time: int | None
    seconds: float
    right: NDArray[np.bool_] | None
    problem: str = ""

    @property
    def key(self) -> tuple[str, int, str, int | None]:
        """What no two cells share."""
        return self.images, self.seed, self.peer, self.time


@dataclass(frozen=True)
class Score:
    """What one who trains reached on a set, over its seeds and splits.

    Attributes:
        accuracy: Share of right answers; each image counts once in its interval, however often it was asked.
        answers: Number of answers.
        seconds: Mean seconds of training.
    """

    accuracy: Metric
    answers: int
    seconds: float


def pack_right(right: Iterable[bool]) -> str:
    """Write right and wrong answers as a text of 1 and 0."""
    return "".join("1" if one else "0" for one in right)


def read_lines(lines: Iterable[dict[str, Any]]) -> tuple[Images, list[Cell]]:
    """Read the names of images, and cells.

    Args:
        lines: The documents of the file; others than images and cells are left out.

    Returns:
        The names of the test images of each set and seed, and the cells, each once: the last that was written.
    """
    names: Images = {}
    cells: dict[tuple[str, int, str, int | None], Cell] = {}
    for line in lines:
        if line["kind"] == "images":
            names[line["set"], line["seed"]] = line["names"]
        elif line["kind"] == "cell":
            right = None if line["right"] is None else np.array([one == "1" for one in line["right"]])
            cell = Cell(line["set"], line["seed"], line["peer"], line["time"], line["seconds"], right, line["problem"])
            cells[cell.key] = cell
    return names, list(cells.values())


def pair_answers(first: Sequence[Cell], second: Sequence[Cell], names: Images) -> NDArray[np.float64]:
    """Count the right answers of two to the same images, over the sets and seeds that both have.

    Args:
        first: Cells of one, at most one for each set and seed.
        second: Cells of the other.
        names: Test images of each set and seed.

    Returns:
        Right answers, float64 [images, 2]; an image of several splits is one image.
    """
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    others = {(cell.images, cell.seed): cell.right for cell in second}
    for cell in first:
        occasion = (cell.images, cell.seed)
        other = others.get(occasion)
        if cell.right is None or other is None:
            continue
        for name, one, two in zip(names[occasion], cell.right, other, strict=True):
            counts[name][0] += one
            counts[name][1] += two
    return np.array([*counts.values()], dtype=np.float64).reshape(-1, 2)


def compare_pair(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Compare two by the images that they were asked: McNemar's exact test, or, asked repeatedly, a permutation test.

    Args:
        counts: Right answers, float64 [images, 2].

    Returns:
        The difference in right answers, first minus second, and the two-sided p-value.
    """
    test = mcnemar_test if counts.max(initial=0) <= 1 else paired_permutation_test
    return float(counts[:, 0].sum() - counts[:, 1].sum()), float(test(counts)[0, 1])


def score_cells(cells: Sequence[Cell], names: Images) -> Score | None:
    """Score the cells of one who trains: None where there is no answer."""
    done = [cell for cell in cells if cell.right is not None]
    answers = sum(len(names[cell.images, cell.seed]) for cell in done)
    if not answers:
        return None
    images = len({name for cell in done for name in names[cell.images, cell.seed]})
    share = sum(int(cell.right.sum()) for cell in done if cell.right is not None) / answers
    low, high = clopper_pearson(np.float64(share * images), np.float64(images))
    accuracy = Metric(share, float(low), float(high), images)
    return Score(accuracy, answers, sum(cell.seconds for cell in done) / len(done))


def tell_reached(scores: dict[int, Score], goal: Score) -> str:
    """Tell the shortest time at which Budwood is at least as accurate as a peer at the end.

    Args:
        scores: What Budwood reached, by the time that it was given.
        goal: What the peer reached.

    Returns:
        Its seconds, and the part of the peer's; `not reached` where no time suffices.
    """
    for _, score in sorted(scores.items()):
        if (score.accuracy.value or 0) >= (goal.accuracy.value or 0):
            return f"{score.seconds:.0f} s, {score.seconds / goal.seconds:.2f} of its time"
    return "not reached"


def tell_set(name: str, cells: Sequence[Cell], names: Images, verdicts: dict[tuple[str, int], list[str]]) -> list[str]:
    """Tell one set as a Markdown table.

    Args:
        name: The set, or the name of several together.
        cells: Its cells.
        names: Test images of each set and seed.
        verdicts: What each comparison says is added here, by peer and time.

    Returns:
        The lines.
    """
    times = sorted({cell.time for cell in cells if cell.time is not None})
    peers = sorted({cell.peer for cell in cells} - {OWN})
    own = {time: [cell for cell in cells if cell.peer == OWN and cell.time == time] for time in times}
    scores = {time: score for time in times if (score := score_cells(own[time], names))}
    lines = [
        f"### {name}",
        "",
        "| time | | accuracy, % (95 %) | n | seconds | Budwood minus it, points | p | Budwood is as accurate after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for time in times:
        if time in scores:
            lines.append(f"| {time} s | **Budwood** | {_tell_score(scores[time], time)} | | | |")
        for peer in peers:
            theirs = [cell for cell in cells if cell.peer == peer and cell.time in (time, None)]
            score = score_cells(theirs, names)
            if score is None:
                lines += [f"| {time} s | {peer} | {problem} | | | | | |" for problem in {one.problem for one in theirs}]
                continue
            counts = pair_answers(own[time], theirs, names)
            told, verdict = _tell_pair(counts, _count_pairs(own[time], theirs, names))
            reached = tell_reached(scores, score) if time == times[-1] else ""
            lines.append(f"| {time} s | {peer} | {_tell_score(score, time)} | {told} | {reached} |")
            if verdict:
                verdicts.setdefault((peer, time), []).append(verdict)
    return lines


def _count_pairs(first: Sequence[Cell], second: Sequence[Cell], names: Images) -> int:
    """Answers that both have."""
    shared = {(cell.images, cell.seed) for cell in first if cell.right is not None}
    shared &= {(cell.images, cell.seed) for cell in second if cell.right is not None}
    return sum(len(names[occasion]) for occasion in shared)


def _tell_score(score: Score, time: int) -> str:
    """Cells of accuracy, n and seconds."""
    accuracy = score.accuracy
    assert accuracy.value is not None
    assert accuracy.low is not None
    assert accuracy.high is not None
    shown = f"{100 * accuracy.value:.1f} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
    n = f"{score.answers:,}" + (f", {accuracy.n:,} images" if score.answers != accuracy.n else "")
    late = ", late" if score.seconds > LATE * time else ""
    return f"{shown} | {n} | {score.seconds:.0f}{late}"


def _tell_pair(counts: NDArray[np.float64], answers: int) -> tuple[str, str]:
    """Cells of difference and p, and the verdict: better, worse, alike; empty where nothing can be compared."""
    if not answers:
        return "– | –", ""
    difference, p = compare_pair(counts)
    verdict = "alike" if p >= ALPHA else "better" if difference > 0 else "worse"
    shown = "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
    return f"{100 * difference / answers:+.1f} | {shown}", verdict


def make_table(lines: Iterable[dict[str, Any]]) -> str:
    """Make the Markdown of a whole file: a table a set, and one of how often Budwood is better.

    Args:
        lines: The documents of the file.

    Returns:
        Markdown.
    """
    names, cells = read_lines(lines)
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(TOGETHER.get(cell.images, cell.images), []).append(cell)
    verdicts: dict[tuple[str, int], list[str]] = {}
    told = [line for name, group in groups.items() for line in [*tell_set(name, group, names, verdicts), ""]]
    told += ["### All sets", "", "| time | peer | Budwood better, p < 0.05 | not distinguishable | worse, p < 0.05 |"]
    told.append("|---|---|---|---|---|")
    for (peer, time), found in sorted(verdicts.items(), key=lambda one: (one[0][1], one[0][0])):
        counts = " | ".join(str(found.count(verdict)) for verdict in ("better", "alike", "worse"))
        told.append(f"| {time} s | {peer} | {counts} |")
    return "\n".join(told)
