"""The exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """The exponential moving average of parameters (Polyak and Juditsky 1992), which may stand in for them.

    Attributes:
        values: The averages, one tensor for each parameter.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        """Start the average at the parameters as they are.

        Args:
            parameters: The parameters that are averaged.
            decay: Weight of the old average in each update, between 0 and 1.
        """
        self._parameters, self._decay = parameters, decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the parameters."""
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter, 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the parameters inside a block.

        Yields:
            Nothing; the parameters are put back afterwards.
        """
        trained = [parameter.data for parameter in self._parameters]
        for value, parameter in zip(self.values, self._parameters, strict=True):
            parameter.data = value
        try:
            yield
        finally:
            for data, parameter in zip(trained, self._parameters, strict=True):
                parameter.data = data
