"""The first rung: frozen trunks with solved heads, compared by cross-validation on training and validation images.

trunk -> pooled outputs of its stages, from the cache -> held-out losses of heads on the last and on several -> run
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.losses import OneLabel
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.data.dataset import Dataset
from budwood.data.selection import limit
from budwood.data.shapes import choose_larger_size, choose_resize, choose_smallest_size
from budwood.data.splits import stratified_sample
from budwood.errors import BudwoodError
from budwood.evaluation.intervals import mean_proportion_interval
from budwood.hardware import count_processors
from budwood.inference.bundle import make_prefix
from budwood.inference.engines import Floats
from budwood.inference.feature_cache import (
    IDENTITY,
    Transform,
    compute_features,
    find_missing_features,
    flip_transform,
    keep_features,
)
from budwood.networks.local_trunks import LocalTrunk, list_local_trunks
from budwood.networks.registry import TRUNK
from budwood.networks.stage_choice import choose_taps
from budwood.runs.ladder_record import CandidateRecord, Figure, PlannedRow
from budwood.runs.preflight import Preflight, check_and_plan
from budwood.text import counted, format_seconds
from budwood.training.candidate_choice import CandidateChoice, choose_candidate
from budwood.training.head_selection import (
    Assignment,
    CandidateScore,
    choose_plan,
    cross_validate_head,
    hold_out,
    make_folds,
)
from budwood.training.head_solver import Objective
from budwood.workflows import ladder_rules as rules
from budwood.workflows.flips import MOST, find_harmless_flips
from budwood.workflows.ladder_rules import FrozenCandidate, Speed
from budwood.workflows.ladder_state import Ladder, TriedHead

WARM: Final = 16  # images on which an engine is made and checked before it is timed
TIMED: Final = 48  # images on which it is timed
RULE: Final = (
    "Chosen: one of the cheapest that are not worse than the best by a standard error of the difference or more."
)
COMPARING: Final = 0.1  # of the budget, that comparing the heads of one trunk may take
TOO_LONG: Final = 0.15  # of the budget: where one head takes so much at the least, none are compared
SOLVING: Final = 60.0  # seconds that solving a head may take, however short the time
BALANCED: Final = ("macro_f1", "balanced_accuracy")  # metrics to which each class counts the same, rare ones too
MIRROR: Final = flip_transform("h")
AGAINST_BALANCE: Final = ("class_weights", "balanced_sampling", "logit_adjustment")  # options that see to that already


@dataclass(frozen=True)
class FrozenPlan:
    """What the first rung will try.

    Attributes:
        candidates: The trunks, the first fitted to the time.
        deadline: Seconds since the start at which the rung should end.
        notes: What there is to say of it.
    """

    candidates: tuple[FrozenCandidate, ...]
    deadline: float
    notes: tuple[str, ...]


def climb_frozen(ladder: Ladder, plan: FrozenPlan) -> None:
    """Compare the heads of the first frozen trunk, and leave a run of the best.

    Args:
        ladder: The search; it has a run afterwards.
        plan: What will be tried.

    Raises:
        BudwoodError: The first trunk, or the data, cannot be used.
    """
    if ladder.multilabel:
        candidate = plan.candidates[0]
        ladder.carry_out(candidate.options)
        record = CandidateRecord(name=candidate.name, recipe=candidate.options)
        ladder.close_rung("frozen", (record,), 0, note="One network is tried, as images have several labels.")
        return
    if why := _explain_no_comparison(ladder, plan.candidates[0]):
        _train_uncompared(ladder, plan, why)
        return
    _compare(ladder, plan)


def climb_other_frozen(ladder: Ladder) -> None:
    """Compare other frozen trunks while the first rung has time, then the best head in other forms.

    Args:
        ladder: The search, which has a run; where another head is better, it has a run of that one afterwards.

    Raises:
        BudwoodError: The data cannot be used, or a run cannot be written.
    """
    if ladder.heads:
        deadline = rules.share_for_frozen(ladder.budget, ladder.quick and "time" in ladder.given)
        _try_trunks(ladder, deadline)
        _try_variants(ladder, deadline)


def list_planned_frozen(ladder: Ladder, plan: FrozenPlan) -> list[PlannedRow]:
    """List what the first rung would try, with the time that it would take.

    Args:
        ladder: The search.
        plan: The plan of its first rung.

    Returns:
        A row for each candidate.
    """
    rows, spent = [], ladder.spent()
    for number, candidate in enumerate(plan.candidates[: 1 if ladder.multilabel else None]):
        fits = not number or spent + candidate.seconds <= plan.deadline
        spent += candidate.seconds if fits else 0.0
        rows.append(PlannedRow("frozen", candidate.name, candidate.seconds, "" if number else "most of it", fits))
    return rows


def plan_frozen(ladder: Ladder) -> FrozenPlan:
    """Plan the first rung by the speed of this machine; the data are cut down where the time is too short for all.

    Args:
        ladder: The search.

    Returns:
        The candidates.

    Raises:
        BudwoodError: The first trunk, or the data, cannot be used.
    """
    trunks = _list_trunks(ladder)
    shapes = choose_resize(ladder.data)
    resizes = (str(ladder.given["resize"]),) if "resize" in ladder.given else shapes.candidates
    size = int(str(ladder.given["size"])) if "size" in ladder.given else None
    images = _count_images(ladder.data)
    larger = {trunk.name: choose_larger_size(trunk.size, ladder.data) for trunk in trunks}
    speed = guess_or_measure(ladder, rules.list_frozen(trunks, resizes, larger, images, Speed(1, 1), size)[0])
    candidates = rules.list_frozen(trunks, resizes, larger, images, speed, size)
    ladder.seconds_an_image = candidates[0].seconds_an_image
    deadline = rules.share_for_frozen(ladder.budget, ladder.quick and "time" in ladder.given)
    allowed = max(deadline - ladder.spent(), 0.0) * rules.MOST_SPENT
    own = candidates[0].size
    smallest = choose_smallest_size(own, ladder.data) if size is None else own
    first, used = rules.shrink(candidates[0], smallest, images, speed, allowed)
    notes = []
    if first.size != candidates[0].size:
        notes.append(
            f"{first.trunk.name} sees {first.size} pixels, not {candidates[0].size}, so that all images fit the time."
        )
    if used < images:
        _cut_down(ladder, used / images)
        notes.append(
            f"{ladder.images:,} of {ladder.of:,} training images are used, each class with its share: more do not fit "
            "the time. A longer --time uses more."
        )
        return FrozenPlan((first,), deadline, tuple(notes))
    return FrozenPlan((first, *candidates[1:]), deadline, tuple(notes))


def _list_trunks(ladder: Ladder) -> tuple[LocalTrunk, ...]:
    """The trunks to compare: the one that was given, else those whose weights are at hand, else the usual one."""
    local = list_local_trunks(ladder.context.cache)
    if local and not {"model", "weights"} & ladder.given.keys():
        return local
    recipe = Recipe(**{name: value for name, value in ladder.given.items() if name not in ("time", "size")})
    plan = check_and_plan(ladder.data, recipe, ladder.out, ladder.leaks, ladder.context, ladder.findings).spec.plan
    return (LocalTrunk(recipe.model, plan.source, plan.size, plan.accuracy, plan.macs),)


def _count_images(data: Dataset) -> int:
    return sum(len(data.samples(split)) for split in ("train", "val"))


def _cut_down(ladder: Ladder, share: float) -> None:
    """Use only a share of the training and validation images, in which each class keeps its own."""
    counts = [max(1, round(len(ladder.data.samples(split)) * share)) for split in ("train", "val")]
    ladder.data = limit(ladder.data, *counts)
    ladder.images = len(ladder.data.samples("train"))


def guess_or_measure(ladder: Ladder, candidate: FrozenCandidate) -> Speed:
    """Measure how fast a trunk runs here, on a few images whose features are not in the cache; else guess.

    Args:
        ladder: The search.
        candidate: The trunk; the features that are computed stay in the cache.

    Returns:
        The speed.

    Raises:
        BudwoodError: The trunk, or the data, cannot be used.
    """
    flight = _plan_heads(ladder, candidate)[-1][2]
    prefix, samples = make_prefix(flight.spec, TRUNK, ladder.context.cache), flight.training
    missing = find_missing_features(prefix, samples)
    if len(missing) < WARM + TIMED:
        return rules.guess_speed(count_processors())
    compute_features(prefix, samples.subset(missing[:WARM]), ladder.context.progress)
    started = time.perf_counter()
    compute_features(prefix, samples.subset(missing[WARM : WARM + TIMED]), ladder.context.progress)
    each = (time.perf_counter() - started) / TIMED
    return Speed(flight.spec.plan.macs / each, rules.DECODING / count_processors())


def _plan_heads(ladder: Ladder, candidate: FrozenCandidate) -> list[tuple[str, Mapping[str, Any], Preflight]]:
    """The heads of a trunk, the cheaper first: on its last stage alone, and on several."""
    plain = ladder.plan(candidate.options)
    taps = () if "taps" in ladder.given or ladder.multilabel else choose_taps(plain.spec.plan)
    heads: list[tuple[str, Mapping[str, Any], Preflight]] = [(candidate.name, candidate.options, plain)]
    if taps:
        options = {**candidate.options, "taps": taps}
        heads.append((f"{candidate.name}, {len(taps) + 1} stages", options, ladder.plan(options)))
    return heads


def climb_frozen_further(ladder: Ladder) -> None:
    """Compare the frozen trunks for which there was no time before, where some is left.

    Args:
        ladder: The search, whose first rung is done.

    Raises:
        BudwoodError: The data cannot be used.
    """
    if ladder.pending:
        _try_trunks(ladder, ladder.budget - 2 * rules.WRITING)


def _explain_no_comparison(ladder: Ladder, candidate: FrozenCandidate) -> str:
    """Why no heads are compared: with very many classes even the quickest comparison takes too long; else empty."""
    features = _plan_heads(ladder, candidate)[-1][2].spec.plan.features
    classes = len(ladder.data.classes)
    plan = choose_plan(_count_images(ladder.data), features, classes, COMPARING * ladder.budget)
    if plan.cross or plan.seconds <= TOO_LONG * ladder.budget:
        return ""
    return (
        f"Heads were not compared: with {classes:,} classes that takes about {format_seconds(plan.seconds)} a head, "
        "too much of the time. The one that is usually best was taken."
    )


def _train_uncompared(ladder: Ladder, plan: FrozenPlan, why: str) -> None:
    """Train the head on the most stages of the first trunk, of which nothing else was scored."""
    ladder.compared = why
    ladder.context.progress.note(why)
    name, options, _ = _plan_heads(ladder, plan.candidates[0])[-1]
    started = ladder.spent()
    _train(ladder, options)
    record = CandidateRecord(name=name, recipe=options, seconds=round(ladder.spent() - started, 1))
    late = map(_describe_late, plan.candidates[1:])
    ladder.close_rung("frozen", (record, *late), 0, note="It was not compared with others.")


def _compare(ladder: Ladder, plan: FrozenPlan) -> None:
    """Score the heads of the first trunk and train the best."""
    comparison = _Comparison(ladder)
    first, ladder.pending = plan.candidates[0], plan.candidates[1:]
    ladder.heads = tuple(comparison.try_trunk(first))
    choice = comparison.choose()
    _train_head(ladder, ladder.heads[choice.chosen])
    records = (*_describe(ladder.heads, choice), *map(_describe_late, ladder.pending))
    ladder.close_rung("frozen", records, choice.chosen, note=RULE)


def _try_trunks(ladder: Ladder, deadline: float) -> None:
    """Score the heads of the trunks that are left while there is time, and train the best where it is another."""
    comparison = _Comparison(ladder)
    before = comparison.find_best()
    failed, late = [], []
    for candidate in ladder.pending:
        if ladder.spent() + candidate.seconds > deadline:
            late.append(candidate)
            continue
        try:
            ladder.heads += tuple(comparison.try_trunk(candidate))
        except BudwoodError as error:
            record = CandidateRecord(name=candidate.name, recipe=candidate.options)
            failed.append(record.model_copy(update={"state": "failed", "note": error.message}))
    if len(late) < len(ladder.pending):
        ladder.pending = tuple(late)
        _settle(ladder, comparison, before, failed)


def _try_variants(ladder: Ladder, deadline: float) -> None:
    """Score the best head with rare classes in mind, where the metric asks for it, and with mirror images."""
    comparison = _Comparison(ladder)
    before, tried = comparison.find_best(), len(ladder.heads)
    if ladder.select in BALANCED and not set(AGAINST_BALANCE) & ladder.given.keys() and ladder.spent() < deadline:
        ladder.heads += (comparison.try_variant(before, "rare classes raised", {"logit_adjustment": 1.0}),)
    best = comparison.find_best()
    if "tta" not in ladder.given and comparison.may_mirror(best, deadline):
        ladder.heads += (comparison.try_variant(best, "with mirror image", {"tta": "flip"}),)
    if len(ladder.heads) > tried:
        _settle(ladder, comparison, before, ())


def _settle(ladder: Ladder, comparison: _Comparison, before: TriedHead, failed: Sequence[CandidateRecord]) -> None:
    """Note what was tried since there was a run of the best head, and train the best now where it is another."""
    place = max(number for number, rung in enumerate(ladder.rungs) if rung.name == "frozen" and rung.run)
    known = [one for one in ladder.rungs[place].candidates if one.state == "failed"]
    choice = comparison.choose()
    records = (*_describe(ladder.heads, choice), *known, *failed, *map(_describe_late, ladder.pending))
    if ladder.heads[choice.chosen] is before:
        update = {"candidates": records, "chosen": choice.chosen}
        ladder.rungs[place] = ladder.rungs[place].model_copy(update=update)
        return
    _train_head(ladder, ladder.heads[choice.chosen])
    replaces = all(rung.name == "frozen" for rung in ladder.rungs)
    ladder.close_rung("frozen", records, choice.chosen, replaces=replaces, note=RULE)


def _describe_late(candidate: FrozenCandidate) -> CandidateRecord:
    seconds = round(candidate.seconds, 1)
    return CandidateRecord(name=candidate.name, recipe=candidate.options, state="no time", seconds=seconds)


def _train_head(ladder: Ladder, head: TriedHead) -> None:
    """Train the run of a head that was chosen."""
    _train(ladder, head.options)
    right = float(np.nanmean(head.score.correct))
    ladder.context.progress.note(f"Best frozen network so far: {head.name}; {right:.1%} of held-out images right.")


def _train(ladder: Ladder, options: Mapping[str, Any]) -> None:
    """Train a run; a head that takes very long ends with the time."""
    ladder.carry_out(options, limit=max(ladder.left() - rules.WRITING, SOLVING))


def _describe(heads: Sequence[TriedHead], choice: CandidateChoice) -> list[CandidateRecord]:
    """What the record of the search says of each head."""
    rows = []
    for place, (head, difference) in enumerate(zip(heads, choice.differences, strict=True)):
        seen = ~np.isnan(head.score.losses)
        correct, n = head.score.correct[seen], int(seen.sum())
        metric = mean_proportion_interval(correct, 1)
        to_chosen = Figure(value=difference.value, low=difference.low, high=difference.high, n=n)
        rows.append(
            CandidateRecord(
                name=head.name,
                recipe=head.options,
                accuracy=Figure(value=float(correct.mean()), low=metric.low, high=metric.high, n=n),
                loss=float(head.score.losses[seen].mean()),
                difference=None if place == choice.chosen else to_chosen,
                seconds=round(head.seconds, 1),
            )
        )
    return rows


class _Comparison:
    """How the heads of a search are scored: the folds, drawn once, and the groups of near copies."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        training, validation = ladder.data.samples("train").in_content_order(), ladder.data.samples("val")
        self.labels = np.concatenate([training.labels, validation.labels])
        self._validating = np.arange(len(self.labels)) >= len(training)
        self._ids = [*training.ids, *validation.ids]
        self._groups = find_groups(ladder.data, [*training.paths, *validation.paths])

    def try_trunk(self, candidate: FrozenCandidate) -> list[TriedHead]:
        """Score the heads of a trunk, of one pass over the images."""
        ladder, started = self._ladder, time.perf_counter()
        planned = _plan_heads(ladder, candidate)
        flight = planned[-1][2]
        features = _read_features(ladder, flight)
        heads, made = [], time.perf_counter() - started
        for name, options, plan in planned:
            part = _take_last(features, plan)
            began = time.perf_counter()
            score = self._score(plan, part)
            seconds = made + time.perf_counter() - began
            heads.append(TriedHead(name, options, score, plan.spec.plan.macs, seconds, candidate))
            self._tell(heads[-1])
            if plan is not flight:
                _keep(ladder, plan, part)
        return heads

    def try_variant(self, head: TriedHead, words: str, changes: Mapping[str, Any]) -> TriedHead:
        """Score a head on the same features with some options more, such as one to answer mirrored images, too."""
        ladder, started = self._ladder, time.perf_counter()
        options = {**head.options, **changes}
        plan = ladder.plan(options)
        mirrored, views = (_read_features(ladder, plan, MIRROR), 2) if options.get("tta") == "flip" else (None, 1)
        score = self._score(plan, _read_features(ladder, plan), mirrored)
        seconds = time.perf_counter() - started
        cost = views * plan.spec.plan.macs
        tried = TriedHead(f"{head.name}, {words}", options, score, cost, seconds, head.candidate)
        self._tell(tried)
        return tried

    def _tell(self, head: TriedHead) -> None:
        """Say in a line how good a head is."""
        n = int((~np.isnan(head.score.correct)).sum())
        right = f"{np.nanmean(head.score.correct):.1%} of {counted(n, 'held-out image')} right"
        left = format_seconds(max(self._ladder.left(), 0.0))
        self._ladder.context.progress.note(f"  {head.name}: {right}, {format_seconds(head.seconds)}; {left} left.")

    def may_mirror(self, head: TriedHead, deadline: float) -> bool:
        """Whether there is time to see all images mirrored, too, and classes stay as they are."""
        ladder = self._ladder
        plan = ladder.plan(head.options)
        prefix, samples = make_prefix(plan.spec, TRUNK, ladder.context.cache), plan.training.join(plan.validation)
        missing = len(find_missing_features(prefix, samples, MIRROR)) / len(samples)
        looking = 0.0 if ladder.flips else 2 * min(MOST, len(plan.validation)) / len(samples)
        seconds = (missing + looking) * (head.candidate.seconds - rules.STARTING) + rules.WRITING
        return ladder.spent() + seconds < deadline and "h" in find_harmless_flips(ladder).harmless

    def find_best(self) -> TriedHead:
        """The head that is chosen among all that were scored."""
        return self._ladder.heads[self.choose().chosen]

    def choose(self) -> CandidateChoice:
        """Choose among all that were scored by the one-standard-error rule; resampling a metric takes seconds."""
        ladder = self._ladder
        count = len(ladder.heads)
        if count not in ladder.choices:
            scores, costs = (
                [head.score for head in ladder.heads],
                rules.rank_costs([head.cost for head in ladder.heads]),
            )
            ladder.choices[count] = choose_candidate(scores, costs, ladder.select, self.labels, self._groups)
        return ladder.choices[count]

    def _score(self, flight: Preflight, features: Floats, mirrored: Floats | None = None) -> CandidateScore:
        """What heads on these features say of images that they have not seen."""
        recipe = resolve(flight.spec.recipe, False, flight.spec.plan.size)
        assert isinstance(recipe.loss, OneLabel)
        objective = Objective(recipe.loss, recipe.sampling.balanced, recipe.select)
        folds, blocks = self._draw_folds(features.shape[1]), flight.spec.plan.blocks or (features.shape[1],)
        classes, left = flight.spec.classes, self._ladder.left
        return cross_validate_head(features, blocks, self.labels, folds, classes, objective, left, mirrored)

    def _draw_folds(self, features: int) -> tuple[Assignment, ...]:
        """The folds, which all candidates share."""
        ladder = self._ladder
        if not ladder.folds:
            plan = choose_plan(len(self.labels), features, len(ladder.data.classes), COMPARING * ladder.budget)
            ladder.compared = plan.reason
            if plan.cross and len(np.unique(self._groups)) >= 2:
                split = plan.cross
                folds = make_folds(self.labels, self._groups, split.folds, split.repeats, split.seed)
            else:
                sampled = stratified_sample(self._ids, self.labels, plan.images)
                folds = hold_out(self._validating, sampled | self._validating)
            ladder.folds = tuple(folds)
        return ladder.folds


def share_features(ladder: Ladder, wide: Preflight, narrow: Preflight) -> None:
    """Keep the features of a head on fewer stages, which are the last of those of a head on more.

    Args:
        ladder: The search.
        wide: The network with more stages.
        narrow: The same network with fewer, which are the last of these.

    Raises:
        BudwoodError: The features must be computed, and the network cannot be used.
    """
    _keep(ladder, narrow, _take_last(_read_features(ladder, wide), narrow))


def _take_last(features: Floats, flight: Preflight) -> Floats:
    """The features that a head on fewer stages sees, which stand last."""
    return np.ascontiguousarray(features[:, features.shape[1] - flight.spec.plan.features :])


def _read_features(ladder: Ladder, flight: Preflight, transform: Transform = IDENTITY) -> Floats:
    """The features of training and validation images, from the cache or computed: float32 [n, features]."""
    prefix, samples = make_prefix(flight.spec, TRUNK, ladder.context.cache), flight.training.join(flight.validation)
    return compute_features(prefix, samples, ladder.context.progress, transform).values


def _keep(ladder: Ladder, flight: Preflight, features: Floats) -> None:
    """Keep features of training and validation images in the cache."""
    prefix, samples = make_prefix(flight.spec, TRUNK, ladder.context.cache), flight.training.join(flight.validation)
    keep_features(prefix, samples, features, ladder.context.progress)


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
