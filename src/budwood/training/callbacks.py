"""Callbacks of the user's own: what they are told while training goes on, and how they end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from budwood.config.own_calls import MOMENTS, find_moments
from budwood.config.registry import make_entry
from budwood.training.history import Rows
from budwood.training.own_calls import telling_failures

if TYPE_CHECKING:
    import torch

OF_EPOCHS, OF_STEPS = MOMENTS
Method = Callable[["Moment"], object]


@dataclass
class Moment:
    """Where a training stands, as a callback is told.

    Attributes:
        epoch: The epoch that is being trained or has just ended, from 1.
        step: Optimizer steps of this epoch that are done.
        loss: Mean training loss of this epoch so far.
        history: One row for every epoch that has ended, with columns such as `val_loss` and `val_accuracy`.
        network: The network that is trained; what is changed in it is trained further.
        optimizer: Its optimizer, with the rate of each group.
        stopped: Why training is to end; None: it goes on.
    """

    epoch: int
    step: int
    loss: float
    history: Rows
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    stopped: str | None = field(default=None, init=False)

    def stop(self, reason: str = "") -> None:
        """End the training; an epoch that is under way is ended at once, and evaluated.

        Args:
            reason: Why, for the run and its report.
        """
        self.stopped = reason


class Callbacks:
    """The callbacks of one training, in order."""

    def __init__(self, names: Sequence[str]) -> None:
        """Make the callbacks.

        Args:
            names: Their names in the recipe.

        Raises:
            RecipeError: One cannot be imported or made, or has nothing that would be called.
        """
        self._methods: Final = [(name, find_moments(make_entry(name, "callbacks"), name)) for name in names]
        self.stopped = ""  # who has ended the training, and why

    def call(self, method: str, make_moment: Callable[[], Moment]) -> bool:
        """Call a method of all callbacks that have it.

        Args:
            method: `OF_EPOCHS` or `OF_STEPS`.
            make_moment: Makes what they are told.

        Returns:
            Whether training is to end.

        Raises:
            RecipeError: One of them fails; the message says in which line.
        """
        for name, methods in self._methods:
            if method in methods and not self.stopped:
                moment = make_moment()
                with telling_failures(name, "callbacks"):
                    methods[method](moment)
                if moment.stopped is not None:
                    self.stopped = f"{name}: {moment.stopped}" if moment.stopped else name
        return bool(self.stopped)
