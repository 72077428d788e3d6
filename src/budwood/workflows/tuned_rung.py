"""The second rung: the best frozen network fine-tuned from its solved head, the last stages first, then all of it.

best frozen recipe -> harmless flips -> measured cost of a step -> as many epochs as fit the time -> run
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budwood.errors import RecipeError
from budwood.hardware import find_best_device, has_fast_bfloat16
from budwood.networks.plan import load_plan
from budwood.networks.stage_choice import choose_freeze_stage
from budwood.runs.ladder_record import CandidateRecord, PlannedRow
from budwood.text import format_seconds
from budwood.training.cost_estimate import CostEstimate
from budwood.workflows import ladder_rules as rules
from budwood.workflows.flips import find_harmless_flips
from budwood.workflows.frozen_rung import share_features
from budwood.workflows.ladder_state import FlipFindings, Ladder
from budwood.workflows.train import measure_recipe_cost

BASE: Final = ("model", "size", "resize", "tta", "taps", "logit_adjustment")  # what a tuned network has of a frozen one
VIEWS_SHARE: Final = 0.35  # of the time left, for computing augmented versions of the images
ENDING: Final = 0.05  # of the budget, for what tells strangers and for joining networks
SURE: Final = 0.75  # of the time left, that is planned for: a step is not always as fast as measured
GAIN: Final = "0 to 2 points"


@dataclass(frozen=True)
class TuningPlan:
    """How a network will be fine-tuned.

    Attributes:
        options: The options of its recipe, as the ladder chose them; empty where there is no time.
        name: Some words that tell it from others.
        seconds: What it is expected to take; of a plan without time, what the least would.
    """

    options: Mapping[str, Any]
    name: str
    seconds: float


def climb_tuned(ladder: Ladder) -> None:
    """Fine-tune the best frozen network: its last stages on cached maps, then the whole network, as time allows.

    Args:
        ladder: The search, which has a frozen run.

    Raises:
        BudwoodError: Training failed.
    """
    reason = rules.why_not_tuned(ladder.images, len(ladder.data.samples("val")))
    if reason:
        ladder.close_rung("fine-tuned", (), None, note=reason)
        return
    base = _choose_base(ladder)
    taps = base.pop("taps", ())
    stage = choose_freeze_stage(ladder.plan(base).spec.plan)
    if ladder.left() < rules.MEASURING + 2 * rules.WRITING:
        name = "the last stages" if stage else "the whole network"
        late = CandidateRecord(name=name, recipe={}, state="no time", seconds=round(2 * rules.MEASURING, 1))
        ladder.close_rung("fine-tuned", (late,), None, note="No time was left for it.")
        return
    found = find_harmless_flips(ladder)
    ladder.context.progress.note(found.sentence)
    steps = [f"upto:{stage}"] if stage else []
    for freeze in (*steps, "none"):
        later = taps if freeze == "none" else _list_later(ladder, base, taps, freeze.removeprefix("upto:"))
        _tune(ladder, {**base, **({"taps": later} if later else {})}, freeze, found)


def _choose_base(ladder: Ladder) -> dict[str, Any]:
    """The options of the frozen network to start from: the best, or a cheaper one of which more epochs fit the time."""
    table = ladder.best_run().recipe.table()
    best = {name: table[name] for name in BASE if table.get(name)}
    macs = ladder.plan(best).spec.plan.macs
    least = min((head.cost for head in ladder.heads), default=macs)
    seconds = ladder.seconds_an_image * macs / least * ladder.images
    if rules.estimate_tuning(seconds) <= ladder.left() - ENDING * ladder.budget - rules.WRITING or least >= macs:
        return best
    first = next(head.candidate for head in ladder.heads if head.cost == least)
    same = [head for head in ladder.heads if head.candidate == first]
    return dict(min(same, key=lambda head: head.loss).options)


def _list_later(ladder: Ladder, base: Mapping[str, Any], taps: Sequence[str], stage: str) -> tuple[str, ...]:
    """The taps from a stage on: what is frozen can only be computed apart up to the first of them.

    The features of a head on fewer stages are part of those on more, which are in the cache: they are kept for it.
    """
    names = [row.name for row in ladder.plan(base).spec.plan.stages]
    later = tuple(tap for tap in taps if names.index(tap) >= names.index(stage))
    if later and later != tuple(taps):
        wide, narrow = (ladder.plan({**base, "taps": each}) for each in (taps, later))
        share_features(ladder, wide, narrow)
    return later


def list_planned_tuning(ladder: Ladder, frozen: Sequence[PlannedRow]) -> list[PlannedRow]:
    """List what would be fine-tuned, with the time that would be left for it.

    Args:
        ladder: The search.
        frozen: What the first rung would try.

    Returns:
        The rows of the second and the last rung.
    """
    spent = ladder.spent() + sum(row.seconds for row in frozen if row.fits)
    left = max(ladder.budget - spent - 2 * rules.WRITING, 0.0)
    reason = rules.why_not_tuned(ladder.images, len(ladder.data.samples("val")))
    fits = left > 2 * rules.MEASURING and not reason
    several = fits or sum(row.fits for row in frozen) > 1
    what = reason or "the last stages, on cached maps; then all of it where time is left"
    return [
        PlannedRow("fine-tuned", what, left if fits else 2 * rules.MEASURING, GAIN, fits),
        PlannedRow("together", "the mean of several networks", rules.WRITING, "0 to 1 point", several),
    ]


def _tune(ladder: Ladder, base: Mapping[str, Any], freeze: str, found: FlipFindings) -> None:
    """Fine-tune with something frozen, if there is time, and note the rung."""
    plan = _plan_tuning(ladder, base, freeze, found)
    record = CandidateRecord(name=plan.name, recipe=plan.options, seconds=round(plan.seconds, 1), note=found.sentence)
    if not plan.options:
        late = record.model_copy(update={"state": "no time", "note": ""})
        ladder.close_rung("fine-tuned", (late,), None, note="No time was left for it.")
        return
    ladder.context.progress.note(
        f"Fine-tuning {plan.name}: {plan.options['epochs']} epochs, about {format_seconds(plan.seconds)}."
    )
    started = ladder.spent()
    ladder.carry_out(plan.options, limit=max(ladder.left() - ENDING * ladder.budget - rules.WRITING, 1.0))
    taken = record.model_copy(update={"seconds": round(ladder.spent() - started, 1)})
    ladder.close_rung("fine-tuned", (taken,), 0)
    gain = ladder.rungs[-1].gain
    assert gain is not None
    ladder.context.progress.note(
        f"Fine-tuned: {100 * gain.value:+.1f} points on validation (95 % interval {100 * (gain.low or 0):+.1f} to "
        f"{100 * (gain.high or 0):+.1f}, n = {gain.n:,}). {ladder.rungs[-1].note}"
    )


def _plan_tuning(ladder: Ladder, base: Mapping[str, Any], freeze: str, found: FlipFindings) -> TuningPlan:
    """Measure a step, and choose views and epochs by the time that is left."""
    n = ladder.images
    whole = freeze == "none"
    name = "the whole network" if whole else f"all after {freeze.removeprefix('upto:')}"
    if ladder.left() < rules.MEASURING + 2 * rules.WRITING:
        return TuningPlan({}, name, 2 * rules.MEASURING)
    measured = 2 if found.harmless and not whole else 0
    fixed = (found.harmless, ladder.multilabel, _is_halved(), _has_norms(ladder, {**base, "freeze": freeze}))
    probing = rules.make_tuning_options(freeze, n, 1, measured, *fixed)
    cost = _measure(ladder, {**base, **probing})
    left = SURE * (ladder.left() - ENDING * ladder.budget - rules.WRITING) - cost.seconds.get("starting", 0.0)
    left -= cost.seconds.get("choosing weights", 0.0)
    each = cost.seconds["training"] + cost.seconds["evaluating"]
    reading = cost.seconds["reading images"]
    views = rules.choose_views(n, bool(found.harmless), reading / 2, VIEWS_SHARE * left) if measured else 0
    reading = reading / 2 * max(views, 1) if measured else reading
    most = (left - reading) / each
    if most < rules.WORTHWHILE:
        return TuningPlan({}, name, reading + rules.WORTHWHILE * each)
    epochs = rules.count_epochs(n, most)
    options = rules.make_tuning_options(freeze, n, epochs, views, *fixed)
    return TuningPlan({**base, **options}, name, reading + epochs * each)


def _has_norms(ladder: Ladder, options: Mapping[str, Any]) -> bool:
    """Whether there is batch norm in what options leave to be trained, whose statistics can be kept."""
    try:
        recipe = ladder.make_recipe({**options, "trained_norm": "eval"})
        load_plan(recipe, len(ladder.data.classes), ladder.context.cache)
    except RecipeError:
        return False
    return True


def _is_halved() -> bool:
    """Whether steps are asked for in bfloat16: on a processor that has it; a GPU chooses for itself."""
    return find_best_device() == "cpu" and has_fast_bfloat16()


def _measure(ladder: Ladder, options: Mapping[str, Any]) -> CostEstimate:
    recipe = ladder.make_recipe(options)
    return measure_recipe_cost(ladder.data, recipe, ladder.out, ladder.leaks, ladder.context, ladder.findings)[1]
