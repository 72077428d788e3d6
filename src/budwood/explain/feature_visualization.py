"""Activation maximisation: the picture that a class, a channel or a unit answers to most strongly.

After Olah, Mordvintsev and Schubert 2017, "Feature visualization": a picture is drawn by its Fourier coefficients, wide
structures weighing as much as small ones do, in colours that are decorrelated as those of photographs are; and it is
moved, turned and scaled at random in every step, so that what it shows does not hang on single pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from budwood.display import Displayed
from budwood.errors import RecipeError
from budwood.explain.layer_outputs import find_layers, make_layer_function
from budwood.explain.probe import NetworkProbe, eval_mode, reshape_to_maps
from budwood.inference.pytorch_backend import WithPreprocessing
from budwood.networks.layers import Layer
from budwood.progress import Progress, choose_progress

STEPS: Final = 64
RATE: Final = 0.03  # of the first step; it falls to 0 with the last
NOISE: Final = 16  # random images that an activation is told from
BATCH: Final = 16  # pictures that are drawn at a time
START: Final = 0.01  # deviation of the coefficients at the start: a picture that is nearly grey
POWER: Final = 1.25  # of the frequency that coefficients are divided by; at 1, fine texture covers what is drawn
CONTRAST: Final = 4.2  # mean (root mean square) of what coefficients are multiplied by, whatever the size
SHIFT: Final = 0.1  # of the side
TURN: Final = 10.0  # degrees
SCALE: Final = 0.15  # larger or smaller by up to this share
# The square root of the covariance of red, green and blue in photographs (ImageNet), as the source above has it.
COLOURS: Final = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@dataclass(frozen=True)
class VisualizationTarget:
    """What a picture is drawn for: a channel of a place, or a class.

    Attributes:
        place: Any layer, as `budwood.networks.layers.find_layer` finds it, or the trunk; None for the logits.
        channel: Number of the channel, or of the class where `place` is None.
    """

    place: str | None
    channel: int


@dataclass(frozen=True, repr=False)
class Maximisation(Displayed):
    """A picture drawn for a target, and how strongly the target responds.

    An activation is a logit, a unit's value, or a channel's mean over its map (class tokens left out) or its
    tokens.

    Attributes:
        target: What the picture was drawn for, with the full name of its place.
        pixels: The picture, uint8 [size, size, 3].
        before: Activation for the grey noise that drawing begins with.
        after: Activation for the picture itself.
        noise: Mean activation over 16 images of random pixels.
        flat: Whether no step found a gradient; then the picture is still its start and means nothing.
    """

    target: VisualizationTarget
    pixels: NDArray[np.uint8]
    before: float
    after: float
    noise: float
    flat: bool

    def __repr__(self) -> str:
        return f"Maximisation({self.target}: {self.before:.2f} -> {self.after:.2f})"


def maximise(
    subject: NetworkProbe,
    targets: Sequence[VisualizationTarget],
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Maximisation, ...]:
    """Draw the picture that each target responds to most strongly.

    The picture of a target is the same whatever other targets are drawn with it.

    Args:
        subject: Opened network.
        targets: Classes or channels to draw for.
        steps: Number of optimiser steps.
        seed: Seed of the starting noise and of the random shifts, turns and scalings.
        progress: Where progress is shown; None: below the cell of a notebook, else nowhere.

    Returns:
        One picture for each target, in order.

    Raises:
        RecipeError: When a place, channel or class does not exist.
    """
    progress = progress or choose_progress()
    places = list(dict.fromkeys(target.place for target in targets if target.place is not None))
    layers = dict(zip(places, find_layers(subject, places), strict=True))
    named = [_check_target(subject, target, layers) for target in targets]
    by_label = {layer.label: layer for layer in layers.values()}
    batches = _batch_targets(named)
    found: dict[VisualizationTarget, Maximisation] = {}
    with progress.bar("Visualising channels" if places else "Visualising classes", steps * len(batches)) as step:
        for batch in batches:
            layer = by_label.get(batch[0].place or "")
            found |= {drawn.target: drawn for drawn in _maximise_batch(subject, batch, layer, steps, seed, step)}
    return tuple(found[target] for target in named)


def _check_target(
    subject: NetworkProbe, target: VisualizationTarget, layers: Mapping[str, Layer]
) -> VisualizationTarget:
    """A target with the full name of its place."""
    layer = None if target.place is None else layers[target.place]
    count = len(subject.classes) if layer is None else count_channels(layer)
    if not 0 <= target.channel < count:
        what = f"channel: {layer.label} of {subject.plan.name} has no channel" if layer else "target: there is no class"
        raise RecipeError(f"{what} {target.channel}.", f"It has {count}: choose from 0 to {count - 1}.")
    return VisualizationTarget(layer.label if layer else None, target.channel)


def count_channels(layer: Layer) -> int:
    """Count the channels of a layer: those of its map or tokens, or its units.

    Args:
        layer: A layer that gives one tensor.

    Returns:
        The number of channels.
    """
    with torch.device("meta"):
        return average_by_channel(torch.empty(1, *(layer.shape or ()))).shape[1]


def _batch_targets(targets: Sequence[VisualizationTarget]) -> list[list[VisualizationTarget]]:
    """Targets of one place together, each once, as many as are drawn at a time."""
    by_place: dict[str | None, list[VisualizationTarget]] = {}
    for target in dict.fromkeys(targets):
        by_place.setdefault(target.place, []).append(target)
    return [batch[start : start + BATCH] for batch in by_place.values() for start in range(0, len(batch), BATCH)]


def _maximise_batch(
    subject: NetworkProbe,
    targets: Sequence[VisualizationTarget],
    layer: Layer | None,
    steps: int,
    seed: int,
    step: Callable[[int], None],
) -> Iterator[Maximisation]:
    """The pictures of targets of one place, which all start from the same noise and are moved alike."""
    random = torch.Generator().manual_seed(seed)
    rows, channels = torch.arange(len(targets)), torch.tensor([target.channel for target in targets])
    painter = _Painter(subject.plan.size, subject.plan.channels, subject.device)
    with eval_mode(subject):
        answers = _make_channel_function(subject, layer)
        spectra = painter.start(random).expand(len(targets), -1, -1, -1, -1).clone().requires_grad_()
        with torch.no_grad():
            before = answers(painter(spectra))[rows, channels].tolist()
            noise = answers(_make_noise(subject, random)).mean(dim=0)[channels].tolist()
        optimizer = torch.optim.Adam([spectra], RATE)
        slowing = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        felt = torch.zeros(len(targets), dtype=torch.bool, device=subject.device)
        for _ in range(steps):
            optimizer.zero_grad()
            seen = answers(_jitter(painter(spectra), random))[rows, channels]
            (-seen.sum()).backward()  # type: ignore[no-untyped-call]
            assert spectra.grad is not None
            felt |= (spectra.grad != 0).flatten(1).any(dim=1)
            optimizer.step()
            slowing.step()
            step(1)
        with torch.no_grad():
            pixels = (painter(spectra) * 255).round()
            after = answers(pixels / 255)[rows, channels].tolist()
    shown = pixels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    for row, target in enumerate(targets):
        yield Maximisation(target, shown[row], before[row], after[row], noise[row], not felt[row])


class _Painter:
    """Draws pictures [n, 3, size, size] in 0..1 from Fourier coefficients [n, channels, size, size // 2 + 1, 2].

    Coefficients are divided by a power of their frequency, and colours mixed by `COLOURS`. A network that sees grey
    gets grey.
    """

    def __init__(self, size: int, channels: int, device: str) -> None:
        self.size, self.channels = size, channels
        up, across = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
        scale = (up**2 + across**2).sqrt().clamp_min(1 / size) ** -POWER
        self.scale = (CONTRAST * scale / scale.square().mean().sqrt()).to(device)
        colours = torch.tensor(COLOURS)
        self.colours = (colours / colours.norm(dim=0).max()).to(device)

    def start(self, random: torch.Generator) -> Tensor:
        """The coefficients [1, channels, size, size // 2 + 1, 2] of noise that is nearly grey."""
        shape = (1, self.channels, *self.scale.shape, 2)
        return START * torch.randn(shape, generator=random).to(self.scale.device)

    def __call__(self, spectra: Tensor) -> Tensor:
        """The pictures of coefficients."""
        scaled = torch.view_as_complex(spectra) * self.scale
        values: Tensor = torch.fft.irfft2(scaled, s=(self.size, self.size), norm="ortho")
        if self.channels == 1:
            return values.sigmoid().expand(-1, 3, -1, -1)
        return torch.einsum("nchw,dc->ndhw", values, self.colours).sigmoid()


def _make_channel_function(subject: NetworkProbe, layer: Layer | None) -> Callable[[Tensor], Tensor]:
    """What every channel of a layer, or every class, answers [n, channels] to pictures [n, 3, size, size] in 0..1."""
    sight = WithPreprocessing(subject.module, subject.plan).to(subject.device)
    respond = subject.module if layer is None else make_layer_function(subject, layer)

    def answers(images: Tensor) -> Tensor:
        given = sight.normalised(255 * images.permute(0, 2, 3, 1))
        given = given.contiguous(memory_format=torch.channels_last)  # a fifth less time on a CPU
        return average_by_channel(respond(given))

    return answers


def average_by_channel(outputs: Tensor) -> Tensor:
    """Average outputs over their maps (class tokens left out) or tokens.

    Args:
        outputs: Tensor [n, ...] of any shape.

    Returns:
        One value for each channel or unit, [n, channels].
    """
    maps = reshape_to_maps(outputs)
    if maps is not None:
        return maps.flatten(2).mean(dim=2)
    return outputs if outputs.ndim == 2 else outputs.flatten(1, -2).mean(dim=1)


def _make_noise(subject: NetworkProbe, random: torch.Generator) -> Tensor:
    """Images of random pixels [16, 3, size, size], grey for a network that sees grey."""
    size = subject.plan.size
    pixels = torch.randint(0, 256, (NOISE, subject.plan.channels, size, size), generator=random)
    return (pixels / 255).expand(-1, 3, -1, -1).to(subject.device)


def _jitter(images: Tensor, random: torch.Generator) -> Tensor:
    """Pictures shifted, turned and scaled at random, all alike; what comes in at an edge is mirrored."""
    across, up, turn, scale = (2 * torch.rand(4, generator=random) - 1).tolist()
    angle, factor = math.radians(TURN * turn), 1 + SCALE * scale
    cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
    way = torch.tensor([[cosine, -sine, 2 * SHIFT * across], [sine, cosine, 2 * SHIFT * up]], device=images.device)
    places = nn.functional.affine_grid(way.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, places, padding_mode="reflection", align_corners=False)
