"""The exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """The exponential moving average of parameters, which may stand in for them."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step towards the parameters."""
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter, 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the parameters, for a block."""
        held = [parameter.data for parameter in self._parameters]
        for value, parameter in zip(self.values, self._parameters, strict=True):
            parameter.data = value
        try:
            yield
        finally:
            for data, parameter in zip(held, self._parameters, strict=True):
                parameter.data = data
