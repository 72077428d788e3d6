"""Gradients of depthwise convolutions from fast parts: those of PyTorch, in any shape."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from budwood.training.depthwise import ease_depthwise, has_slow_depthwise

CASES = [  # kernel, stride, padding, height, width
    (5, 1, 2, 9, 12),
    (5, 2, 2, 9, 12),
    (5, 2, 0, 11, 8),
    (7, 1, 3, 10, 7),
    (7, 3, 0, 17, 16),
    ((3, 5), (1, 2), (1, 2), 8, 9),
    (3, 2, 1, 9, 10),
    (3, 1, 1, 8, 8),
]


def differentiate(layer: nn.Module, images: Tensor, eased: bool, halved: bool) -> list[Tensor]:
    """The outputs and the gradients of a sum of squares with respect to images and parameters."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        if eased:
            with ease_depthwise():
                outputs = layer(images)
        else:
            outputs = layer(images)
    outputs.float().square().sum().backward()
    assert images.grad is not None
    gradients = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    return [outputs.detach().float(), images.grad, *gradients]


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Each as near as a share of the largest value."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_double_precision(case: tuple[object, ...], bias: bool) -> None:
    kernel, stride, padding, height, width = case
    torch.manual_seed(3)
    layer = nn.Conv2d(16, 16, kernel, stride, padding, groups=16, bias=bias)  # type: ignore[arg-type]
    images = torch.randn(3, 16, height, width).contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = differentiate(layer, images, eased=True, halved=False)
    half = differentiate(layer, images, eased=True, halved=True)
    expected = [part.float() for part in differentiate(layer.double(), images.double(), eased=False, halved=False)]
    assert_close(found, expected, 1e-5)
    assert_close(half, expected, 0.03)


def test_other_convolutions_are_left_as_they_are() -> None:
    torch.manual_seed(3)
    for layer in (
        nn.Conv2d(8, 8, 5, padding=2),
        nn.Conv2d(8, 16, 5, groups=8),
        nn.Conv2d(8, 8, 5, padding=4, dilation=2, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
    ):
        images = torch.randn(2, 8, 12, 12)
        plain, eased = (differentiate(layer, images, eased, halved=False) for eased in (False, True))
        assert all(torch.equal(one, other) for one, other in zip(plain, eased, strict=True))


def test_a_frozen_layer_has_no_gradient() -> None:
    layer = nn.Conv2d(8, 8, 5, padding=2, groups=8).requires_grad_(False)
    images = torch.randn(2, 8, 9, 9)
    found = differentiate(layer, images, eased=True, halved=False)
    assert len(found) == 2
    assert_close(found, differentiate(layer, images, eased=False, halved=False), 1e-5)


def test_what_is_slow_is_known() -> None:
    wide, strided, plain = (nn.Conv2d(8, 8, *shape, groups=8) for shape in ((5, 1), (3, 2), (3, 1)))
    assert has_slow_depthwise(nn.Sequential(plain, wide), halved=False)
    assert not has_slow_depthwise(nn.Sequential(plain, strided), halved=False)
    assert has_slow_depthwise(nn.Sequential(plain, strided), halved=True)
    assert not has_slow_depthwise(nn.Sequential(plain, nn.Conv2d(8, 8, 5)), halved=True)
