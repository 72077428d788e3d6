"""Depthwise convolutions whose gradients oneDNN has no fast code for, taken apart into some for which it has.

On a CPU the gradient of a depthwise kernel has fast code up to a width of three; a wider one falls back to the code for
groups of any size, two to ten times as slow. In bfloat16 the gradient of the inputs falls back where the stride is
above one, thirty times as slow. Both are computed here from parts that have fast code: kernels at most three columns
wide, each on its own slice of the inputs, and gradients of inputs in float32. The sums are the same in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

WIDEST: Final = 3  # columns of a depthwise kernel for whose gradient oneDNN has fast code
Pair = tuple[int, int]


def has_slow_depthwise(module: nn.Module, halved: bool) -> bool:
    """Return whether a network has depthwise convolutions whose gradients are slow on a CPU.

    Args:
        module: The network.
        halved: Whether training steps are in bfloat16.

    Returns:
        Whether there is one that `ease_depthwise` would take apart.
    """
    return any(
        isinstance(part, nn.Conv2d)
        and part.groups > 1
        and part.weight.shape[1] == 1
        and (part.kernel_size[1] > WIDEST or (halved and max(part.stride) > 1))
        for part in module.modules()
    )


@contextmanager
def ease_depthwise() -> Iterator[None]:
    """Have slow gradients of depthwise convolutions computed from fast parts, for what is computed in the block.

    Yields:
        Nothing.
    """
    with _Redirected():
        yield


class _Redirected(TorchFunctionMode):
    """Sees every convolution, whichever library calls it, and leaves all alone but the slow ones."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and torch.is_grad_enabled():
            inputs, weight, bias, stride, padding, dilation, groups = args
            if torch.is_autocast_enabled("cpu"):
                half = torch.get_autocast_dtype("cpu")
                inputs, weight, bias = inputs.to(half), weight.to(half), bias if bias is None else bias.to(half)
            if _is_slow(inputs, weight, stride, padding, dilation, groups):
                return _Depthwise.apply(inputs, weight, bias, _pair(stride), _pair(padding))
        return func(*args, **(kwargs or {}))


def _is_slow(inputs: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether a convolution is depthwise, and its gradients would fall back to slow code."""
    depthwise = groups == weight.shape[0] == inputs.shape[1] > 1 and weight.shape[1] == 1 and inputs.dim() == 4
    if not depthwise or isinstance(padding, str) or _pair(dilation) != (1, 1):
        return False
    halved = inputs.dtype == torch.bfloat16
    wide = weight.shape[3] > WIDEST and inputs.dtype in (torch.float32, torch.bfloat16)
    return wide or (halved and max(_pair(stride)) > 1)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution; its gradients are computed from parts."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(inputs, weight, bias, stride, padding, (1, 1), weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_inputs, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _differentiate_inputs(gradient, inputs, weight, ctx.stride, ctx.padding) if of_inputs else None,
            _differentiate_weight(gradient, inputs, weight, ctx.stride, ctx.padding) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _differentiate_inputs(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of the inputs; with a stride in float32."""
    if max(stride) == 1 or inputs.dtype == torch.float32:
        return _call_backward(gradient, inputs, weight, stride, padding, (True, False))[0]
    shape = torch.empty_like(inputs, dtype=torch.float32)  # of the inputs only the shape is read
    return _call_backward(gradient.float(), shape, weight.float(), stride, padding, (True, False))[0].to(inputs.dtype)


def _differentiate_weight(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of the kernel, three of its columns at a time."""
    height, width = weight.shape[2:]
    if width <= WIDEST:
        return _call_backward(gradient, inputs, weight, stride, padding, (False, True))[1]
    padded = functional.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = ((size - 1) * step for size, step in zip(gradient.shape[2:], stride, strict=True))
    parts = []
    for first in range(0, width, WIDEST):
        last = min(first + WIDEST, width)
        seen = padded[:, :, : rows + height, first : columns + last].contiguous(memory_format=torch.channels_last)
        kernel = weight[..., first:last]
        parts.append(_call_backward(gradient, seen, kernel, stride, (0, 0), (False, True))[1])
    return torch.cat(parts, dim=3)


def _call_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """PyTorch's own gradients of a depthwise convolution's inputs and kernel, those that are wanted."""
    found = torch.ops.aten.convolution_backward(
        gradient, inputs, weight, None, stride, padding, (1, 1), False, (0, 0), weight.shape[0], (*wanted, False)
    )
    return found[0], found[1]
