"""The rules of the ladder: what is tried with so many images and so much time. Pure functions, without torch.

They were written from the figures of `studies/defaults.toml` and BENCHMARKS.md, and hold for any data set: nothing here
knows one by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budwood.networks.local_trunks import LocalTrunk

BUDGET: Final = 300.0  # seconds of the whole command, where none is given
FROZEN_SHARE: Final = 0.4  # of the budget, for the first rung where others follow
SHORT: Final = 90.0  # seconds, under which all of the time is the first rung's
MOST_SPENT: Final = 0.6  # of a short budget that computing features may take: solving and writing follow
STARTING: Final = 8.0  # seconds until a network that was never used is planned, exported and checked
WRITING: Final = 6.0  # seconds that a run takes to be scored and written
SCARCE: Final = 4.0  # seconds of computing, under which a smaller input saves too little to be worth it
MAC_RATE: Final = 4e10  # multiply-adds a second and processor, before anything was measured
DECODING: Final = 0.004  # seconds an image and processor, before anything was measured
SIZE_STEP: Final = 32
FEWEST_SAMPLED: Final = 2000  # training images that are used at least, however short the time
MOST_FROZEN: Final = 6  # candidates of the first rung: each has to beat the others by more than chance
FEWEST_TO_TUNE: Final = 100  # training images, under which fine-tuning learns them by heart
FEWEST_TO_JUDGE: Final = 30  # validation images, under which nothing tells whether it helped
SEEN: Final = 12_000  # augmented images that fine-tuning sees in all, where time allows
EPOCHS: Final = (4, 30)
WORTHWHILE: Final = 2  # epochs of fine-tuning, under which it is not begun
MEASURING: Final = 20.0  # seconds that measuring a step takes where the network was never trained here
STEP_COST: Final = 1.8  # passes of all of the network that a step on its last stages costs: five of a third of it
VIEWS: Final = (8, 4, 2)  # cached augmented versions of an image
BATCH: Final = 32
RATE: Final = 5e-4  # of AdamW, for the last blocks on cached maps
WHOLE_RATE: Final = 3e-4  # for the whole network
SMOOTHING: Final = 0.1


@dataclass(frozen=True)
class FrozenCandidate:
    """A frozen trunk with a solved head, to be compared with others.

    Attributes:
        trunk: The trunk.
        size: Side of its input, pixels.
        resize: How an image becomes a square.
        seconds: What it is expected to take, all images computed.
        seconds_an_image: What one image of them takes.
    """

    trunk: LocalTrunk
    size: int
    resize: str
    seconds: float
    seconds_an_image: float = 0.0

    @property
    def name(self) -> str:
        """Return some words that tell it from others."""
        return f"{self.trunk.name}, {self.size} pixels" + ("" if self.resize == "crop" else f", {self.resize}")

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of its recipe."""
        return {"model": self.trunk.name, "size": self.size, "resize": self.resize}


@dataclass(frozen=True)
class Speed:
    """How fast this machine is.

    Attributes:
        macs: Multiply-adds a second of the engine that runs what is frozen.
        decoding: Seconds to read and decode an image.
    """

    macs: float
    decoding: float

    def estimate(self, images: int, macs: float) -> float:
        """Estimate the seconds that a trunk takes.

        Args:
            images: Number of images.
            macs: Multiply-adds of the trunk for one image.

        Returns:
            Seconds, with those until the network is ready.
        """
        return STARTING + images * max(macs / self.macs, self.decoding)


def guess_speed(processors: int) -> Speed:
    """Guess how fast a machine is, before anything was measured.

    Args:
        processors: Number of processors.

    Returns:
        The speed.
    """
    return Speed(MAC_RATE * processors, DECODING / processors)


def list_frozen(
    trunks: Sequence[LocalTrunk],
    resizes: Sequence[str],
    larger: Mapping[str, int | None],
    images: int,
    speed: Speed,
    size: int | None,
) -> tuple[FrozenCandidate, ...]:
    """List the frozen candidates, the cheapest first and then those of the best published accuracy.

    Each trunk at its own size; the cheapest and the best also at a larger one, where the images have the pixels; the
    other ways to make an image square for the cheapest alone.

    Args:
        trunks: The trunks whose weights are at hand.
        resizes: Ways to make an image square that the shapes of the images leave open, the most plausible first.
        larger: By trunk, a size above its own for which the images have the pixels; None: there is none.
        images: Number of images outside of the test split.
        speed: How fast this machine is.
        size: The size that was given; None: the ladder chooses.

    Returns:
        The candidates, at most `MOST_FROZEN`.
    """

    def make(trunk: LocalTrunk, side: int, resize: str) -> FrozenCandidate:
        seconds = speed.estimate(images, trunk.macs * (side / trunk.size) ** 2)
        return FrozenCandidate(trunk, side, resize, seconds, (seconds - STARTING) / max(images, 1))

    cheapest = min(trunks, key=lambda trunk: trunk.macs)
    ranked = sorted(trunks, key=lambda trunk: -(trunk.accuracy or 0.0))
    first = [make(cheapest, size or cheapest.size, way) for way in resizes]
    others = [make(trunk, size or trunk.size, resizes[0]) for trunk in ranked if trunk != cheapest]
    enlarged = [
        make(trunk, side, resizes[0])
        for trunk in dict.fromkeys((cheapest, ranked[0]))
        if size is None and (side := larger.get(trunk.name))
    ]
    return (*first, *others[:1], *enlarged, *others[1:])[:MOST_FROZEN]


def shrink(
    candidate: FrozenCandidate, smallest: int, images: int, speed: Speed, allowed: float
) -> tuple[FrozenCandidate, int]:
    """Make the first candidate fit into the time: by a smaller input first, where the images are small, then by fewer.

    Args:
        candidate: The first candidate.
        smallest: The smallest input that loses no pixels of the images.
        images: Number of images outside of the test split.
        speed: How fast this machine is.
        allowed: Seconds that it may take.

    Returns:
        The candidate, and the number of images that are used.
    """
    size = candidate.size
    allowed = max(allowed, STARTING + SCARCE)
    while size - SIZE_STEP >= smallest and _estimate(candidate, size, images, speed) > allowed:
        size -= SIZE_STEP
    seconds = _estimate(candidate, size, images, speed)
    used = images
    if seconds > allowed:
        each = (seconds - STARTING) / images
        used = min(images, max(FEWEST_SAMPLED, int((allowed - STARTING) / each)))
        seconds = STARTING + used * each
    return FrozenCandidate(candidate.trunk, size, candidate.resize, seconds), used


def _estimate(candidate: FrozenCandidate, size: int, images: int, speed: Speed) -> float:
    return speed.estimate(images, candidate.trunk.macs * (size / candidate.trunk.size) ** 2)


def rank_costs(costs: Sequence[float]) -> list[int]:
    """Rank costs coarsely, so that a little more of one is no reason against a better candidate.

    Args:
        costs: Multiply-adds of each candidate.

    Returns:
        How often each is twice the least, rounded down: 0 for less than twice, 1 for less than four times.
    """
    return [int(math.log2(cost / min(costs)) + 1e-9) for cost in costs]


def share_for_frozen(budget: float, quick: bool) -> float:
    """Return the seconds at which the first rung should end.

    Args:
        budget: Seconds of the whole command.
        quick: Whether nothing follows, and all of the time is for it.

    Returns:
        Seconds since the start.
    """
    return budget - WRITING if quick or budget < SHORT else FROZEN_SHARE * budget


def why_not_tuned(training: int, validation: int) -> str:
    """Explain why a network is not fine-tuned.

    Args:
        training: Number of training images.
        validation: Number of validation images.

    Returns:
        A sentence; empty where it may be.
    """
    if training < FEWEST_TO_TUNE:
        return f"{training:,} training images are too few to train more than a head (from {FEWEST_TO_TUNE} on)."
    if validation < FEWEST_TO_JUDGE:
        return f"{validation:,} validation images are too few to tell whether it helps (from {FEWEST_TO_JUDGE} on)."
    return ""


def count_epochs(images: int, most: float) -> int:
    """Choose the epochs of fine-tuning: fewer images are seen more often.

    Args:
        images: Number of training images.
        most: Epochs that the time allows.

    Returns:
        The number of epochs, at least 1.
    """
    wanted = min(max(math.ceil(SEEN / images), EPOCHS[0]), EPOCHS[1])
    return max(1, min(wanted, int(most)))


def choose_views(images: int, flips: bool, seconds_a_view: float, allowed: float) -> int:
    """Choose how many augmented versions of each image are made once.

    Args:
        images: Number of training images.
        flips: Whether there is a harmless flip; without one all versions would be alike.
        seconds_a_view: Seconds that one version of all images takes.
        allowed: Seconds that all versions may take.

    Returns:
        The number; 0 where there is no time for two, or no flip: the images are then used as they are.
    """
    if not flips:
        return 0
    wanted = VIEWS if images < SEEN // 16 else VIEWS[1:]
    return next((count for count in wanted if count * seconds_a_view <= allowed), 0)


def estimate_tuning(seconds: float) -> float:
    """Estimate how long it takes to fine-tune the last stages well, before a step was measured.

    Args:
        seconds: What one pass of the training images through the frozen network takes.

    Returns:
        Seconds of the fewest views and of some epochs.
    """
    return MEASURING + seconds * (VIEWS[-1] + EPOCHS[0] * STEP_COST)


def make_tuning_options(
    freeze: str,
    images: int,
    epochs: int,
    views: int,
    flips: Sequence[str],
    multilabel: bool,
    halved: bool = False,
    norms: bool = False,
) -> dict[str, Any]:
    """Make the options that fine-tune a network from its solved head.

    AdamW with one cycle of the learning rate (Loshchilov and Hutter 2019; Smith 2018) and an average of the weights
    over about the last tenth of the steps, which is evaluated and kept.

    Args:
        freeze: What stays frozen, as in a recipe.
        images: Number of training images.
        epochs: Number of epochs.
        views: Cached versions of each image; 0: images are changed anew in every epoch, or not at all where something
            is frozen.
        flips: The flips that are harmless: `h`, `v`.
        multilabel: Whether images have several labels; no head is then solved to start from.
        halved: Whether steps are taken in bfloat16, which the device leaves to the recipe.
        norms: Whether there is batch norm in what is trained. It keeps the statistics that the weights came with, where
            training starts from a solved head: those of batches change the features that the head was solved on, and
            the first steps undo it (solar cells: validation loss 0.39 instead of 0.28 after two epochs, 0.30 before).

    Returns:
        Options of a recipe, without those of the network.
    """
    steps = epochs * max(1, math.ceil(images / BATCH))
    views = views if flips else 0
    changes: dict[str, Any] = {}
    if views or freeze == "none":
        changes |= {"flip": 0.5} if "h" in flips else {}
        changes |= {"flip_vertical": 0.5} if "v" in flips else {}
    solved: dict[str, Any] = {} if multilabel else {"label_smoothing": SMOOTHING, "probe": True, "wise_ft": "auto"}
    if solved and norms:
        solved["trained_norm"] = "eval"
    return {
        "freeze": freeze,
        "optimizer": "adamw",
        "lr": WHOLE_RATE if freeze == "none" else RATE,
        "schedule": "onecycle",
        "epochs": epochs,
        "batch": BATCH,
        "ema": round(min(max(1 - 10 / steps, 0.9), 0.999), 4),
        **({"precision": "bfloat16"} if halved else {}),
        **solved,
        **changes,
        **({"views": views} if views else {}),
    }
