"""A network, or its frozen prefix, through PyTorch: the reference, the export for other engines, half precision."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from budwood.networks.network_plan import NetworkPlan
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import slice_stages
from budwood.networks.surgery import build, load_network
from budwood.progress import Progress

InferenceFn = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
LUMA: Final = (0.299, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601), as Pillow has it


@dataclass(frozen=True)
class NetworkSlice:
    """A part of a recipe's network: from the image to the end of the place `stop` (None: the logits)."""

    spec: NetworkSpec
    stop: str | None


class WithPreprocessing(nn.Module):
    """A network with the preprocessing in front: takes uint8 pixels [n, size, size, 3].

    `mean` and `std` have one value a channel that the network sees, for pixels of 0 to 1; one channel is grey.
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(self, network: nn.Module, plan: NetworkPlan) -> None:
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (plan.mean, plan.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))
        self.grey = plan.channels == 1

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network is given for pixels: float32 [n, channels, size, size]."""
        image = pixels.permute(0, 3, 1, 2).float()
        if self.grey:
            image = (image * self.luma).sum(dim=1, keepdim=True)
        return image * self.scale + self.shift

    def forward(self, pixels: Tensor) -> Tensor:
        """The network's output for pixels."""
        output: Tensor = self.network(self.normalised(pixels))
        return output


def export(part: NetworkSlice, folder: Path) -> dict[str, Any]:
    """Write a part's weights, and its graph where it can be exported, into a folder.

    The files are `part.safetensors` and `part.onnx`. The result tells what was set aside of the weights file, and why
    there is no graph if there is none.
    """
    made, aside = load_network(part.spec)
    module = slice_stages(made.staged, None, part.stop).eval()
    state = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    (folder / "part.safetensors").write_bytes(save(state))
    try:
        graph = _export_onnx(WithPreprocessing(module, part.spec.plan).eval(), part.spec.plan.size)
    except Exception as error:  # an exporter fails in any way
        return {"aside": aside, "no_graph": (str(error).strip().splitlines() or [type(error).__name__])[0][:200]}
    (folder / "part.onnx").write_bytes(graph)
    return {"aside": aside, "no_graph": ""}


def run_eager(part: NetworkSlice, state: Path, device: str) -> InferenceFn:
    """A part in full precision, as PyTorch computes it: the reference."""
    module = _load_module(part, state).to(device)

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(batch).to(device)).cpu().numpy())

    return run


def run_rest(part: NetworkSlice) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What follows a part in its network, as PyTorch computes it: from the part's outputs to the logits.

    Batch norms take the statistics of the batch, as they do in training, which makes small differences larger.
    """
    made, _ = load_network(part.spec)
    module = slice_stages(made.staged, part.stop, None).eval()
    for layer in module.modules():
        layer.train(isinstance(layer, nn.modules.batchnorm._BatchNorm))

    def run(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(outputs)).numpy())

    return run


def run_half_cuda(part: NetworkSlice, state: Path, compiles: bool, progress: Progress) -> InferenceFn:
    """A part in half precision and channels-last on a CUDA device; compiled where that pays.

    In float16, which has eight times the precision of bfloat16 at the same speed.
    """
    plain = _load_module(part, state).to("cuda").to(memory_format=torch.channels_last)
    module = compile_module(plain, progress) if compiles else plain

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            return np.asarray(module(torch.from_numpy(batch).to("cuda")).float().cpu().numpy())

    return run


def compile_module(module: Callable[[Tensor], Tensor], progress: Progress) -> Callable[[Tensor], Tensor]:
    """A module through `torch.compile`; where the compiler fails that is said, and the module is used as it is."""
    fast: Callable[[Tensor], Tensor] = torch.compile(module)
    failed = False

    def run(inputs: Tensor) -> Tensor:
        nonlocal failed
        if not failed:
            try:
                return fast(inputs)
            except torch._dynamo.exc.TorchDynamoException as error:
                failed = True
                progress.note(f"torch.compile failed ({type(error).__name__}); continuing without it.")
        return module(inputs)

    return run


def has_cuda() -> bool:
    """Whether PyTorch sees a CUDA device."""
    return torch.cuda.is_available()


def _load_module(part: NetworkSlice, state: Path) -> nn.Module:
    made, _, _ = build(part.spec)
    module = slice_stages(made.staged, None, part.stop)
    module.load_state_dict(load_file(state))
    return WithPreprocessing(module, part.spec.plan).eval()


def _export_onnx(module: nn.Module, size: int) -> bytes:
    graph = io.BytesIO()
    sample = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), _silence_output():
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


@contextmanager
def _silence_output() -> Iterator[None]:
    """Whatever is printed in the block, by C++ code too, goes nowhere: an exporter that fails prints its whole graph to
    the standard output, where a command's result belongs."""
    sys.stdout.flush()
    before = os.dup(1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
