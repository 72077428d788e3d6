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
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn

from budwood.hardware import find_best_device
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.networks.stages import slice_stages
from budwood.networks.surgery import build, load_network
from budwood.progress import Progress

InferenceFn = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
LUMA: Final = (0.299, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601), as Pillow has it


@dataclass(frozen=True)
class NetworkSlice:
    """A part of a recipe's network, from the image to a place.

    Attributes:
        spec: The whole network.
        stop: Place with which the part ends; None for the logits.
    """

    spec: NetworkSpec
    stop: str | None


class WithPreprocessing(nn.Module):
    """A network with its preprocessing in front, which takes uint8 pixels [n, size, size, 3].

    The plan's `mean` and `std` have one value for each channel that the network sees, for pixels of 0 to 1. One
    channel means grey.

    Attributes:
        scale: Factor of each channel, float32 [1, channels, 1, 1].
        shift: Summand of each channel, float32 [1, channels, 1, 1].
        luma: Weights of red, green and blue in grey, float32 [1, 3, 1, 1].
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(self, network: nn.Module, plan: NetworkPlan) -> None:
        """Put the preprocessing in front of a network.

        Args:
            network: Module that takes normalised images, float32 [n, channels, size, size].
            plan: Gives channels, means and standard deviations.
        """
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (plan.mean, plan.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))
        self.grey = plan.channels == 1

    def normalised(self, pixels: Tensor) -> Tensor:
        """Convert pixels to the network's input.

        Args:
            pixels: Images, uint8 [n, size, size, 3].

        Returns:
            Normalised images, float32 [n, channels, size, size].
        """
        image = pixels.permute(0, 3, 1, 2).float()
        if self.grey:
            image = (image * self.luma).sum(dim=1, keepdim=True)
        return image * self.scale + self.shift

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the network's output for pixels.

        Args:
            pixels: Images, uint8 [n, size, size, 3].

        Returns:
            The output, [n, ...].
        """
        output: Tensor = self.network(self.normalised(pixels))
        return output


def export(part: NetworkSlice) -> tuple[dict[str, bytes], str, str]:
    """Make the files of a part: its weights, and its graph where it can be exported.

    Args:
        part: Part of the network.

    Returns:
        The content of `part.safetensors` and of `part.onnx` by name; a sentence on which weights were left out; and
        the reason why there is no graph. Either text is empty where there is nothing to say.

    Raises:
        WeightsError: The weights cannot be read or do not fit.
    """
    network, aside = load_network(part.spec)
    module = slice_stages(network.staged, None, part.stop).eval()
    state = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    files = {"part.safetensors": save(state)}
    try:
        files["part.onnx"] = _export_onnx(WithPreprocessing(module, part.spec.plan).eval(), part.spec.plan.size)
    except Exception as error:  # an exporter fails in any way
        return files, aside, (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return files, aside, ""


def run_eager(part: NetworkSlice, state: bytes, device: str) -> InferenceFn:
    """Load a part in full precision, as PyTorch computes it: the reference for other engines.

    Args:
        part: Part of the network.
        state: Its weights as safetensors, as `export` makes them.
        device: PyTorch device, such as `cpu` or `cuda`.

    Returns:
        Function from uint8 pixels [n, size, size, 3] to float32 outputs [n, *shape].
    """
    module = _load_module(part, state).to(device)

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(batch).to(device)).cpu().numpy())

    return run


def run_with_features(
    part: NetworkSlice, state: bytes, half: bool
) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Load a whole network as its trunk and its head, so that both are known from one pass.

    Args:
        part: The whole network.
        state: Its weights as safetensors, as `export` makes them.
        half: Whether it runs in half precision on a CUDA device, else in full precision on the CPU.

    Returns:
        Function from uint8 pixels [n, size, size, 3] to features float32 [n, features] and logits float32 [n, classes].
    """
    network, _, _ = build(part.spec)
    slice_stages(network.staged, None, None).load_state_dict(load(state))
    trunk = WithPreprocessing(slice_stages(network.staged, None, TRUNK), part.spec.plan).eval()
    head = slice_stages(network.staged, TRUNK, None).eval()
    device = "cuda" if half else "cpu"
    trunk.to(device), head.to(device)

    def run(batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            features = trunk(torch.from_numpy(batch).to(device))
            return features.float().cpu().numpy(), head(features).float().cpu().numpy()

    return run


def run_rest(part: NetworkSlice) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Load what follows a part in its network, as PyTorch computes it.

    Batch norms use the statistics of the batch, as in training, which amplifies small differences.

    Args:
        part: Part of the network that is left out.

    Returns:
        Function from the part's float32 outputs [n, *shape] to float32 logits [n, classes].

    Raises:
        WeightsError: The weights cannot be read or do not fit.
    """
    network, _ = load_network(part.spec)
    module = slice_stages(network.staged, part.stop, None).eval()
    for layer in module.modules():
        layer.train(isinstance(layer, nn.modules.batchnorm._BatchNorm))

    def run(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(outputs)).numpy())

    return run


def run_half_cuda(part: NetworkSlice, state: bytes, compiles: bool, progress: Progress) -> InferenceFn:
    """Load a part in half precision and channels-last on a CUDA device.

    Half precision is float16, which is eight times as precise as bfloat16 at the same speed.

    Args:
        part: Part of the network.
        state: Its weights as safetensors, as `export` makes them.
        compiles: Whether to use `torch.compile`, which pays for many images.
        progress: Receives a note if the compiler fails.

    Returns:
        Function from uint8 pixels [n, size, size, 3] to float32 outputs [n, *shape].
    """
    plain = _load_module(part, state).to("cuda").to(memory_format=torch.channels_last)
    module = compile_module(plain, progress) if compiles else plain

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            return np.asarray(module(torch.from_numpy(batch).to("cuda")).float().cpu().numpy())

    return run


def compile_module(module: Callable[[Tensor], Tensor], progress: Progress) -> Callable[[Tensor], Tensor]:
    """Compile a module with `torch.compile`, and go on without where the compiler fails.

    Args:
        module: Module or function of one tensor.
        progress: Receives a note if the compiler fails.

    Returns:
        Function with the same outputs; it compiles at its first call.
    """
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
    """Tell whether networks are computed on a CUDA device.

    Returns:
        True if there is one, and none other was asked for.
    """
    return find_best_device() == "cuda"


def _load_module(part: NetworkSlice, state: bytes) -> nn.Module:
    network, _, _ = build(part.spec)
    module = slice_stages(network.staged, None, part.stop)
    module.load_state_dict(load(state))
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
    """Discard whatever is printed in the block, by C++ code too.

    An exporter that fails prints its whole graph to the standard output, where a command's result belongs.
    """
    sys.stdout.flush()
    before = os.dup(1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
