"""Which stages of a network are worth more than others: to be pooled beside the trunk, or to end what is frozen.

Both are rules on a plan's shapes and costs, so that they hold for networks that nobody has tried. They load no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Final

from budwood.networks.network_plan import NetworkPlan, StagePlan
from budwood.networks.registry import TRUNK, is_channels_last

MOST_TAPS: Final = 4
TOKEN_TAPS: Final = 3  # beside the last block, as DINO's linear evaluation takes four (arxiv.org/abs/2104.14294, F.2)
LEAST_STEP: Final = 8  # a map of more than 1/8 of the image's side shows edges and textures, which pooling loses
LEAST_WORK: Final = 0.04  # of all multiply-adds: what less separates from the stage before says nearly the same
MOST_TRAINED: Final = 0.4  # of all multiply-adds: about a third, as after `blocks.4` of EfficientNet-Lite (0.37)
LEAST_TRAINED: Final = 0.1  # of all multiply-adds: with less there is little to fine-tune
COLOURS: Final = 3  # bytes of a pixel in the cache
HALF: Final = 2  # bytes of a value of a map in the cache


def choose_taps(plan: NetworkPlan) -> tuple[str, ...]:
    """Choose the stages whose pooled outputs are worth having beside those of the trunk.

    Of a convolutional network these are the last stages of each number of channels and resolution, from 1/8 of the
    image's side down, at most four; of a transformer or a mixer the three blocks before the last. What the trunk itself
    pools is not among them, nor a stage that little work separates from the one before.

    Args:
        plan: Plan of the network.

    Returns:
        Names of stages in order; empty for a network without maps and tokens, or too shallow for any.
    """
    stages = _list_stages(plan)
    last = max((place for place, row in enumerate(stages) if _is_map(row) or _is_tokens(row)), default=-1)
    if last < 0:
        return ()
    if _is_tokens(stages[last]):
        return _choose_blocks(stages)
    runs = [list(run) for _, run in groupby(stages[: last + 1], key=lambda row: _describe_map(row.shape))]
    if not any(row.macs for row in plan.places[last + 1 :]):
        runs.pop()  # the trunk pools it
    chosen = [
        run[-1].name
        for run in runs
        if _is_map(run[-1])
        and _describe_map(run[-1].shape)[1] <= math.ceil(plan.size / LEAST_STEP)
        and sum(row.macs for row in run) >= LEAST_WORK * plan.macs
    ]
    return tuple(chosen[-MOST_TAPS:])


def choose_freeze_stage(plan: NetworkPlan) -> str | None:
    """Choose the stage up to which everything is frozen when the rest is fine-tuned on cached maps.

    It is the first whose map takes no more room in the cache than the image's pixels, and after which at most 40 % of
    the multiply-adds remain (one step of training costs about three forward passes of what it trains), but at least
    10 %. Stages that compute nothing, such as norms and activations, stay with the stage before.

    Args:
        plan: Plan of the network.

    Returns:
        Name of the stage, for `freeze = "upto:STAGE"`; None where no stage is so.
    """
    stages = _list_stages(plan)
    pixels = plan.size**2 * COLOURS
    done = 0
    for row, after in pairwise(stages):
        done += row.macs
        left = 1 - done / plan.macs
        small = len(row.shape) > 1 and math.prod(row.shape) * HALF <= pixels
        if after.macs and small and LEAST_TRAINED <= left <= MOST_TRAINED:
            return row.name
    return None


def _list_stages(plan: NetworkPlan) -> tuple[StagePlan, ...]:
    return tuple(row for row in plan.places if row.name != TRUNK)


def _choose_blocks(stages: Sequence[StagePlan]) -> tuple[str, ...]:
    """The blocks of tokens before the last one, by their cost, which what stands between them does not have."""
    tokens = [row for row in stages if _is_tokens(row)]
    dearest = max(row.macs for row in tokens)
    blocks = [row.name for row in tokens if row.macs * 2 >= dearest]
    return tuple(blocks[:-1][-TOKEN_TAPS:])


def _is_map(row: StagePlan) -> bool:
    return len(row.shape) == 3 and _describe_map(row.shape)[1] > 1


def _is_tokens(row: StagePlan) -> bool:
    return len(row.shape) == 2 and row.shape[0] > 1


def _describe_map(shape: Sequence[int]) -> tuple[int, int]:
    """The channels and the side of a map; no channels and no side for what is none."""
    if len(shape) != 3:
        return 0, 0
    return (shape[2], shape[0]) if is_channels_last(shape) else (shape[0], shape[1])
