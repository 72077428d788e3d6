"""The file of `--format torch`: a `torch.export` program (.pt2), which loads with PyTorch alone, without Budwood.

Its input is uint8 [n, size, size, 3], RGB pixels of images that are already squares of the network's size; the program
normalises them. Its outputs are `probabilities`, calibrated, and `logits`, both float32 [n, classes]. `budwood.json`
within the file has the classes and the rule from probabilities to answers.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from budwood.data.loading import TTA_FLIPS
from budwood.exporting.destination import PROGRAM_NOTE
from budwood.inference.pytorch_backend import LUMA
from budwood.runs.run import Run
from budwood.storage.strict_json import encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram

PLACES: Final = {"h": 3, "v": 2}  # dimensions that a mirror image is turned around in
SAMPLE: Final = 2  # images of the sample input; with one, PyTorch takes the number of images as fixed


class PixelsToProbabilities(nn.Module):
    """A run's network from pixels to calibrated probabilities.

    Attributes:
        scale: Factor of each channel, float32 [1, channels, 1, 1].
        shift: Summand of each channel, float32 [1, channels, 1, 1].
        luma: Weights of red, green and blue in grey, float32 [1, 3, 1, 1].
        temperature: What logits are divided by, float32 [1] or [classes].
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor
    temperature: Tensor

    def __init__(self, run: Run) -> None:
        """Load a run's network.

        Args:
            run: A finished run; of an ensemble the network normalises itself.
        """
        super().__init__()
        self.network = run.network()
        network, ensemble = run.record.network, run.record.ensemble is not None
        mean, std = ((0.0,), (1.0,)) if ensemble else (network.mean, network.std)
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, -1, 1, 1)))
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1))
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))
        self.register_buffer("temperature", torch.tensor(run.decision_rule.temperature, dtype=torch.float32))
        self.grey = network.channels == 1 and not ensemble
        self.multilabel = run.task.multilabel
        self.views = TTA_FLIPS["none" if ensemble else run.recipe.tta]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute answers.

        Args:
            pixels: uint8 [n, size, size, 3].

        Returns:
            `probabilities` and `logits`, float32 [n, classes].
        """
        image = pixels.permute(0, 3, 1, 2).float()
        if self.grey:
            image = (image * self.luma).sum(dim=1, keepdim=True)
        image = image * self.scale + self.shift
        each = [self.network(image.flip([PLACES[letter] for letter in letters])) for letters in self.views]
        logits = torch.stack(each).mean(dim=0) if len(each) > 1 else each[0]
        calibrated = logits / self.temperature
        shares = calibrated.sigmoid() if self.multilabel else calibrated.softmax(dim=1)
        return {"probabilities": shares, "logits": logits}


def write_torch_program(run: Run, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a run's network as a program of PyTorch.

    Args:
        run: A finished run.
        file: The file to make.
        metadata: What is kept in it as `budwood.json`.

    Raises:
        RunError: The weights are missing or damaged, or members of an ensemble make images square in different ways.
        WeightsError: The weights do not fit the network.
        OSError: The file cannot be written.
    """
    program = export_program(PixelsToProbabilities(run).eval(), run.record.network.size)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={PROGRAM_NOTE: encode_json(metadata)})
    file.write_bytes(content.getvalue())


def export_program(module: nn.Module, size: int) -> ExportedProgram:
    """Export a module for any number of images, or, where its code fixes the number, for one.

    Args:
        module: From uint8 [n, size, size, 3] to a mapping of tensors.
        size: Side of the input in pixels.

    Returns:
        The program.
    """
    sample = torch.zeros((SAMPLE, size, size, 3), dtype=torch.uint8)
    try:
        return torch.export.export(module, (sample,), dynamic_shapes=({0: torch.export.Dim("n")},))
    except Exception:  # networks that are written for a fixed number of images fail in any way
        return torch.export.export(module, (sample[:1],))
