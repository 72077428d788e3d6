"""A frozen prefix through PyTorch: the reference, the export for other engines, and half precision on a GPU."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from budwood.networks import Network, trunk

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class FromPixels(nn.Module):
    """A trunk with the preprocessing in front: uint8 pixels [n, size, size, 3] to outputs [n, features]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, trunk: nn.Module, net: Network) -> None:
        super().__init__()
        self.trunk = trunk
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (net.mean, net.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, pixels: Tensor) -> Tensor:
        """The trunk's outputs for pixels."""
        outputs: Tensor = self.trunk(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return outputs


def export(net: Network, weights: Path, size: int, folder: Path) -> int:
    """Write `trunk.onnx` and `trunk.safetensors` into a folder; the number of the trunk's parameters."""
    module = trunk(net, weights)
    (folder / "trunk.onnx").write_bytes(_onnx_graph(FromPixels(module, net).eval(), size))
    (folder / "trunk.safetensors").write_bytes(save(module.state_dict()))
    return sum(parameter.numel() for parameter in module.parameters())


def eager(net: Network, state: Path, device: str) -> Engine:
    """The prefix in full precision, as PyTorch computes it: the reference."""
    module = _module(net, state).to(device)

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(batch).to(device)).cpu().numpy())

    return run


def half_cuda(net: Network, state: Path) -> Engine:
    """The prefix in half precision and channels-last on a CUDA device."""
    module = _module(net, state).to("cuda").to(memory_format=torch.channels_last)

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            return np.asarray(module(torch.from_numpy(batch).to("cuda")).float().cpu().numpy())

    return run


def has_cuda() -> bool:
    """Whether PyTorch sees a CUDA device."""
    return torch.cuda.is_available()


def _module(net: Network, state: Path) -> nn.Module:
    module = net.build(0)
    module.load_state_dict(load_file(state))
    return FromPixels(module, net).eval()


def _onnx_graph(module: nn.Module, size: int) -> bytes:
    graph = io.BytesIO()
    sample = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            # The tracing exporter takes half a second where the newer one takes seven, for the same graph.
            torch.onnx.export(
                module,
                (sample,),
                graph,  # type: ignore[arg-type]  # the tracing exporter writes to any file
                dynamo=False,
                input_names=["pixels"],
                output_names=["outputs"],
                dynamic_axes={"pixels": {0: "n"}, "outputs": {0: "n"}},
            )
        finally:
            logger.setLevel(level)
    return graph.getvalue()
