"""What training tells of itself: what was chosen for the machine, what was selected, what came from the cache."""

from __future__ import annotations

from typing import Any

from budwood.config.records import FrozenRecord


class Choices(FrozenRecord):
    """The decisions that were made for the machine.

    Attributes:
        engine: What computes the frozen layers.
        engine_check: How well that engine agrees with PyTorch.
        threads: Processor threads for the frozen layers.
        training: What trains the other layers.
        batch: Images for each step, and the parts into which a batch was divided when memory ran out.
        data: Where the training data lay.
        freed_memory: Whether freed memory was kept between steps or handed back.
        lr: Learning rate, which a trial may have found.
        steps: Optimizer steps that were taken in all.
        probe: Figures of the head that was solved first, as columns of a history: `train_loss`, `val_accuracy` and
            others.
        wise_ft: Share of the trained weights in those that were kept; the rest is of the start.
        stopped_by: The callback of the user's own that has ended training, and why.
    """

    device: str = "cpu"
    engine: str = ""
    engine_check: str | None = None
    threads: int | None = None
    training: str | None = None
    precision: str | None = None
    batch: str | None = None
    data: str | None = None
    freed_memory: str | None = None
    training_threads: int | None = None
    compiled: bool | None = None
    lr: float | None = None
    steps: int | None = None
    probe: dict[str, float] | None = None
    wise_ft: float | None = None
    stopped_by: str | None = None

    def table(self) -> dict[str, Any]:
        """Return the decisions that were made, by name.

        Returns:
            Plain values; fields that were never set are left out.
        """
        return self.model_dump(exclude_unset=True)

    def merged(self, later: Choices) -> Choices:
        """Merge these decisions with later ones.

        Args:
            later: Decisions that replace these where both have one.

        Returns:
            The merged decisions.
        """
        return Choices(**{**self.table(), **later.table()})


class Selected(FrozenRecord):
    """The choice that validation made: an epoch or a strength of the L2 penalty.

    Attributes:
        epoch: The epoch whose weights were kept, from 1; 0: the solved head on the frozen trunk from which training
            started.
        regularisation: Strength of the L2 penalty.
    """

    epoch: int | None = None
    regularisation: float | None = None

    @property
    def axis(self) -> str:
        """Return the column of the history from which the choice was made."""
        return "regularisation" if self.epoch is None else "epoch"

    @property
    def value(self) -> float:
        """Return the chosen value in that column; 0 where nothing was chosen."""
        return float((self.regularisation if self.epoch is None else self.epoch) or 0.0)


class PrefixRecord(FrozenRecord):
    """The frozen layers whose features were computed once for each image.

    Attributes:
        stage: The last of these stages; None: nothing was computed once.
        computed: Number of images that were computed.
        reused: Number of images whose features were taken from earlier runs.
    """

    stage: str | None = None
    computed: int = 0
    reused: int = 0
