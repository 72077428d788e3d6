"""The first rung: frozen trunks with solved heads, compared by cross-validation on training and validation images.

trunk -> pooled outputs of its stages, from the cache -> held-out losses of a head on the last alone, and on several
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budwood.config.ladder_options import lay_over
from budwood.config.losses import OneLabel
from budwood.config.options import Options
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.data.leaks import Leaks
from budwood.evaluation.intervals import mean_proportion_interval
from budwood.inference.bundle import make_prefix
from budwood.inference.engines import Floats
from budwood.inference.feature_cache import compute_features, keep_features
from budwood.networks.local_trunks import choose_taps
from budwood.networks.registry import TRUNK
from budwood.runs.ladder_record import CandidateRecord, Figure
from budwood.runs.preflight import Preflight, check_and_plan
from budwood.storage.context import Context
from budwood.training.head_selection import Assignment, CandidateScore, cross_validate_head
from budwood.training.head_solver import Objective
from budwood.workflows.ladder_rules import FrozenCandidate


@dataclass(frozen=True)
class FrozenSearch:
    """What the candidates of the first rung have in common.

    Attributes:
        data: The data set, without what leaks.
        given: The options that the user gave.
        out: The folder of runs.
        leaks: What is done where images leak between given splits.
        context: The cache folder, and where bars and notes go.
        findings: Findings about the data.
        assignments: The folds, over training and validation images, or the one split.
    """

    data: Dataset
    given: Options
    out: Path
    leaks: Leaks
    context: Context
    findings: tuple[checks.Finding, ...]
    assignments: Sequence[Assignment]

    def plan(self, options: Mapping[str, Any]) -> Preflight:
        """Check and plan the recipe of a candidate.

        Args:
            options: The options that the ladder chose.

        Returns:
            Its network, and the images.
        """
        recipe = Recipe(**lay_over(options, self.given))
        return check_and_plan(self.data, recipe, self.out, self.leaks, self.context, self.findings)


@dataclass(frozen=True, eq=False)
class TriedHead:
    """A head that was scored on held-out images.

    Attributes:
        name: Some words that tell it from others.
        options: The options of its recipe, as the ladder chose them.
        score: What its heads said of held-out images.
        cost: What an answer costs, relative to others.
        seconds: What it took.
    """

    name: str
    options: Mapping[str, Any]
    score: CandidateScore
    cost: float
    seconds: float

    def record(self, chosen: TriedHead) -> CandidateRecord:
        """Return what the record of the ladder says of it.

        Args:
            chosen: The head that was chosen.

        Returns:
            Its figures, and its paired difference to the chosen one.
        """
        seen = ~np.isnan(self.score.losses)
        correct, losses = self.score.correct[seen], self.score.losses[seen]
        metric = mean_proportion_interval(correct, 1)
        difference = losses - chosen.score.losses[seen]
        error = 1.96 * float(difference.std() / np.sqrt(len(difference)))
        mean, n = float(difference.mean()), len(difference)
        return CandidateRecord(
            name=self.name,
            recipe=self.options,
            accuracy=Figure(value=float(correct.mean()), low=metric.low, high=metric.high, n=n),
            loss=float(losses.mean()),
            difference=None if self is chosen else Figure(value=mean, low=mean - error, high=mean + error, n=n),
            seconds=round(self.seconds, 1),
        )


def try_trunk(
    search: FrozenSearch, candidate: FrozenCandidate, left: Callable[[], float | None]
) -> tuple[TriedHead, ...]:
    """Score the heads of a trunk: on its last stage alone, and on several stages pooled, of one pass over the images.

    Args:
        search: What all candidates have in common.
        candidate: The trunk.
        left: Returns the seconds that are left to the rung; None: as many as it takes.

    Returns:
        The heads, the cheaper first.

    Raises:
        BudwoodError: The network, its weights or the images cannot be used.
    """
    started = time.perf_counter()
    plain = search.plan(candidate.options)
    taps = () if "taps" in search.given else choose_taps(plain.spec.plan)
    options = {**candidate.options, **({"taps": taps} if taps else {})}
    flight = search.plan(options) if taps else plain
    features = read_features(flight, search.context)
    made = time.perf_counter() - started
    last = plain.spec.plan.features
    heads = []
    for name, chosen, part in (
        (candidate.name, candidate.options, features[:, features.shape[1] - last :]),
        (f"{candidate.name}, {len(taps) + 1} stages", options, features),
    )[: 2 if taps else 1]:
        blocks = flight.spec.plan.blocks if chosen is options else plain.spec.plan.blocks
        began = time.perf_counter()
        score = score_head(search, flight, np.ascontiguousarray(part), blocks, left)
        spent = time.perf_counter() - began
        heads.append(TriedHead(name, chosen, score, flight.spec.plan.macs, made + spent))
    if taps:
        samples = flight.training.join(flight.validation)
        keep_features(
            make_prefix(plain.spec, TRUNK, search.context.cache),
            samples,
            features[:, features.shape[1] - last :],
            search.context.progress,
        )
    return tuple(heads)


def read_features(flight: Preflight, context: Context) -> Floats:
    """Read or compute the features of training and validation images.

    Args:
        flight: The planned network, and the images.
        context: The cache folder, and where bars and notes go.

    Returns:
        float32 [training + validation, features].
    """
    samples = flight.training.join(flight.validation)
    return compute_features(make_prefix(flight.spec, TRUNK, context.cache), samples, context.progress).values


def score_head(
    search: FrozenSearch,
    flight: Preflight,
    features: Floats,
    blocks: Sequence[int],
    left: Callable[[], float | None],
) -> CandidateScore:
    """Score a head on images that it has not seen.

    Args:
        search: What all candidates have in common.
        flight: The planned network, and the images.
        features: float32 [training + validation, features].
        blocks: Widths of the features of each stage.
        left: Returns the seconds that are left; None: as many as it takes.

    Returns:
        The score.
    """
    recipe = resolve(flight.spec.recipe, False, flight.spec.plan.size)
    assert isinstance(recipe.loss, OneLabel)
    objective = Objective(recipe.loss, recipe.sampling.balanced, recipe.select)
    labels = np.concatenate([flight.training.labels, flight.validation.labels])
    return cross_validate_head(features, blocks, labels, search.assignments, flight.spec.classes, objective, left)


def find_groups(data: Dataset, paths: Sequence[str]) -> NDArray[np.int64]:
    """Find which images are near copies of each other, or belong together.

    Args:
        data: The data set.
        paths: Paths of images in it.

    Returns:
        A number for each image, equal for those of a group: int64 [n].
    """
    group_of_path = dict(zip(data.table["path"].to_pylist(), data.column("cluster").tolist(), strict=True))
    return np.array([group_of_path[path] for path in paths], np.int64)
