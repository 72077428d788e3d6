"""Which flips are harmless for a data set: measured with its best frozen network on validation images."""

from __future__ import annotations

from typing import Final

from budwood.data.splits import stratified_sample
from budwood.evaluation.harmless_flips import FlipVerdict, judge_flips
from budwood.inference.bundle import make_prefix
from budwood.inference.feature_cache import compute_features, flip_transform
from budwood.networks.registry import TRUNK
from budwood.runs.preflight import check_and_plan
from budwood.workflows.ladder_state import FlipFindings, Ladder

FLIPS: Final = ("h", "v")
MOST: Final = 300  # validation images that are mirrored: so many are enough to tell


def find_harmless_flips(ladder: Ladder) -> FlipFindings:
    """Measure which flips are harmless, on validation images, which the head has not seen.

    It is measured once in a search, which keeps what was found.

    Args:
        ladder: The search; where it has not measured this yet, its best run has a linear head on a frozen trunk.

    Returns:
        The flips.

    Raises:
        BudwoodError: The trunk, or the data, cannot be used.
    """
    if ladder.flips is None:
        ladder.flips = _measure_flips(ladder)
    return ladder.flips


def _measure_flips(ladder: Ladder) -> FlipFindings:
    if ladder.multilabel:
        return FlipFindings((), "Images have several labels, so which flips are harmless was not measured.")
    run = ladder.best_run()
    flight = check_and_plan(ladder.data, run.recipe, ladder.out, ladder.leaks, ladder.context, ladder.findings)
    prefix, progress = make_prefix(flight.spec, TRUNK, ladder.context.cache), ladder.context.progress
    chosen = stratified_sample(flight.validation.ids, flight.validation.labels, MOST)
    samples = flight.validation.subset(chosen.nonzero()[0])
    unchanged = compute_features(prefix, samples, progress).values
    mirrored = {flip: compute_features(prefix, samples, progress, flip_transform(flip)).values for flip in FLIPS}
    verdicts = judge_flips(*run.head(), samples.labels, unchanged, mirrored)
    return FlipFindings(
        tuple(flip for flip in FLIPS if verdicts[flip].harmless), _join([verdicts[flip] for flip in FLIPS])
    )


def _join(verdicts: list[FlipVerdict]) -> str:
    return " ".join(verdict.sentence for verdict in verdicts)
