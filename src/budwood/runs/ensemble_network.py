"""An ensemble as one plain PyTorch module, from one image for all members to the logits of their mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from budwood.inference.pytorch_backend import LUMA
from budwood.runs.ensembles import refuse_different_views
from budwood.runs.run import Run
from budwood.runs.run_record import NetworkRecord


class MemberInput(nn.Module):
    """What makes a member's input of images with values of 0 to 1, float32 [n, 3, side, side].

    Attributes:
        mean: Mean of each channel, float32 [1, channels, 1, 1].
        std: Standard deviation of each channel, float32 [1, channels, 1, 1].
        luma: Weights of red, green and blue in grey, float32 [1, 3, 1, 1].
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, network: NetworkRecord) -> None:
        """Make the input of a network.

        Args:
            network: Gives size, channels, means and standard deviations.
        """
        super().__init__()
        self.size, self.grey = network.size, network.channels == 1
        self.register_buffer("mean", torch.tensor(network.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(network.std).view(1, -1, 1, 1))
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Scale images down to the member's size, and normalise them, float32 [n, channels, size, size]."""
        if images.shape[-1] != self.size:
            scaled = functional.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
            images = scaled.clamp(0, 1)
        if self.grey:
            images = (images * self.luma).sum(dim=1, keepdim=True)
        return (images - self.mean) / self.std


class EnsembleNetwork(nn.Module):
    """The mean of several networks' probabilities; a member's layer is called `members.0.layer4`.

    Attributes:
        log_weights: Logarithm of each member's weight, float32 [members].
    """

    log_weights: Tensor

    def __init__(
        self, members: Sequence[nn.Module], inputs: Sequence[MemberInput], weights: Sequence[float], multilabel: bool
    ) -> None:
        """Join networks.

        Args:
            members: The networks, each from its own input to logits float32 [n, classes].
            inputs: What makes the input of each.
            weights: Weight of each, adding up to 1.
            multilabel: Whether an image may have several labels.
        """
        super().__init__()
        self.members, self.inputs = nn.ModuleList(members), nn.ModuleList(inputs)
        self.register_buffer("log_weights", torch.tensor(weights, dtype=torch.float32).log())
        self.multilabel = multilabel

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of the mean probabilities.

        Args:
            images: Values of 0 to 1, float32 [n, 3, size, size].

        Returns:
            float32 [n, classes], whose softmax (or sigmoid, where an image has several labels) is the mean.
        """
        logits = torch.stack([member(make(images)) for member, make in zip(self.members, self.inputs, strict=True)])
        shares = self.log_weights.view(-1, 1, 1)
        if self.multilabel:
            yes, no = (functional.logsigmoid(signed) for signed in (logits, -logits))
            return torch.logsumexp(yes + shares, dim=0) - torch.logsumexp(no + shares, dim=0)
        return torch.logsumexp(logits.log_softmax(dim=2) + shares, dim=0)


def load_ensemble_network(run: Run) -> nn.Module:
    """Load an ensemble as one module in evaluation mode.

    Its input is that of the member with the largest one, so that no member is given more pixels than there are. What
    the others see is scaled down from it, not read from the file, so that their answers may differ slightly from those
    of a `Predictor`, which reads an image for each member.

    Args:
        run: An ensemble.

    Returns:
        The module.

    Raises:
        RunError: Members make images square in different ways; or a member is missing or damaged.
        WeightsError: The weights do not fit a network.
    """
    assert run.record.ensemble
    refuse_different_views(run, "one network")
    members = run.members()
    weights = [member.weight for member in run.record.ensemble.members]
    networks, inputs = ([one.network() for one in members], [MemberInput(one.record.network) for one in members])
    return EnsembleNetwork(networks, inputs, weights, run.task.multilabel).eval()
