"""The small networks of the studies: a perceptron, a plain convolutional network, a small VGG.

Each is a plain `nn.Sequential` of named stages that ends in `head`, a place for the classifier: one function here, one
entry in `OWN_NETWORKS` (own_networks.py) with its options, which are the recipe's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn

Options = Mapping[str, Any]

ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def mlp(channels: int, size: int, options: Options) -> nn.Sequential:
    """Build a perceptron on raw pixels (study 3: 3072-4096-4096-N).

    Its stages are flatten, fc1, fc2, ..., head.

    Args:
        channels: Number of input channels.
        size: Side of the input in pixels.
        options: `fc`, `activation`, `batch_norm` and `dropout`.

    Returns:
        The network with random weights; its `head` is a placeholder with one output.
    """
    return _assemble(OrderedDict(), channels * size**2, options)


def cnn(channels: int, size: int, options: Options) -> nn.Sequential:
    """Build a plain convolutional network (study 3: 32/32/32/64).

    Its stages are conv1, ..., flatten, fc1, ..., head.

    Args:
        channels: Number of input channels.
        size: Side of the input in pixels.
        options: `widths`, `kernels`, `strides` and `pools` (one value each for each convolution), `padding`,
            `conv_norm`, `norm_momentum`, `norm_affine`, `fc`, `activation`, `batch_norm` and `dropout`.

    Returns:
        The network with random weights; its `head` is a placeholder with one output.

    Raises:
        ValueError: Nothing is left of the image after a convolution, or the lists differ in length.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    layers = zip(options["widths"], options["kernels"], options["strides"], options["pools"], strict=True)
    for number, (width, kernel, stride, pool) in enumerate(layers, 1):
        layer = _make_convolution(channels, width, kernel, stride, options["padding"], options)
        stages[f"conv{number}"] = nn.Sequential(*layer, *([nn.MaxPool2d(pool)] if pool > 1 else []))
        channels, size = width, ((size + 2 * options["padding"] - kernel) // stride + 1) // pool
        if size < 1:
            raise ValueError(f"nothing is left of the image after conv{number}")
    return _assemble(stages, channels * size**2, options)


def vgg_small(channels: int, size: int, options: Options) -> nn.Sequential:
    """Build a small VGG (study 2, models A to C): blocks of 3 x 3 convolutions, each halved by max-pooling.

    Its stages are block1, ..., flatten, fc1, ..., head.

    Args:
        channels: Number of input channels.
        size: Side of the input in pixels.
        options: `blocks` (the widths of each block), `conv_norm` (`between`: after all of a block's convolutions but
            the last), `norm_momentum`, `norm_affine`, `fc`, `activation`, `batch_norm` and `dropout`.

    Returns:
        The network with random weights; its `head` is a placeholder with one output.

    Raises:
        ValueError: Nothing is left of the image after a block.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number, widths in enumerate(options["blocks"], 1):
        layers: list[nn.Module] = []
        for place, width in enumerate(widths, 1):
            norm = place < len(widths) if options["conv_norm"] == "between" else options["conv_norm"]
            layers += _make_convolution(channels, width, 3, 1, 1, {**options, "conv_norm": norm})
            channels = width
        stages[f"block{number}"] = nn.Sequential(*layers, nn.MaxPool2d(2))
        size //= 2
        if size < 1:
            raise ValueError(f"nothing is left of the image after block{number}")
    return _assemble(stages, channels * size**2, options)


def make_dense(before: int, after: int, activation: str, batch_norm: bool, dropout: float) -> nn.Sequential:
    """Make a hidden fully connected layer: linear, batch norm, activation, dropout.

    Args:
        before: Number of inputs.
        after: Number of outputs.
        activation: Name in `ACTIVATIONS`.
        batch_norm: Whether a batch norm follows the linear layer, which then has no bias.
        dropout: Probability of dropout, 0 to 1; 0 for none.

    Returns:
        The layers in sequence.
    """
    norm = [nn.BatchNorm1d(after)] if batch_norm else []
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.Linear(before, after, bias=not batch_norm), *norm, ACTIVATIONS[activation](), *drop)


def _make_convolution(
    before: int, after: int, kernel: int, stride: int, padding: int, options: Options
) -> list[nn.Module]:
    """A convolution, batch norm if asked for, activation."""
    momentum, affine = options["norm_momentum"], options["norm_affine"]
    norm = [nn.BatchNorm2d(after, momentum=momentum, affine=affine)] if options["conv_norm"] else []
    layer = nn.Conv2d(before, after, kernel, stride, padding, bias=not norm)
    return [layer, *norm, ACTIVATIONS[options["activation"]]()]


def _assemble(stages: OrderedDict[str, nn.Module], features: int, options: Options) -> nn.Sequential:
    """The stages, then the fully connected layers and the head's place, which gets `features` or the last width.

    Dropout follows every fully connected layer but the last: there it is the head's.
    """
    stages["flatten"] = nn.Flatten()
    for number, width in enumerate(options["fc"], 1):
        dropout = options["dropout"] if number < len(options["fc"]) else 0.0
        stages[f"fc{number}"] = make_dense(features, width, options["activation"], options["batch_norm"], dropout)
        features = width
    stages["head"] = nn.Linear(features, 1)
    return nn.Sequential(stages)
