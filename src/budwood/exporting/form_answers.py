"""What an exported form answers, in a process of its own: `python -m budwood.exporting.form_answers FORM PLACE`.

Pixels come on the standard input and answers go to the standard output, both as NumPy's `.npy`.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from budwood.errors import RunError

Form = Literal["openvino", "timm", "torch"]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
SECONDS: Final = 600  # after which the other process counts as stuck


def compute_answers(form: Form, place: Path, pixels: Pixels) -> Floats:
    """Compute what an exported form answers, in another process.

    Args:
        form: Which form.
        place: Its file or folder.
        pixels: uint8 [n, size, size, 3].

    Returns:
        float32 [n, classes]: logits of timm's, probabilities of the others.

    Raises:
        RunError: The form cannot be loaded or fails.
    """
    given = io.BytesIO()
    np.save(given, pixels)
    command = [sys.executable, "-m", "budwood.exporting.form_answers", form, str(place)]
    done = subprocess.run(command, input=given.getvalue(), capture_output=True, check=False, timeout=SECONDS)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise RunError(
            f"The exported {form} model cannot be used ({reason}), and nothing was written.", "Use the format onnx."
        )
    answers: Floats = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return answers


def answer_openvino(place: Path, pixels: Pixels) -> Floats:
    """Return the probabilities of an OpenVINO folder, float32 [n, classes]."""
    from budwood.exporting.openvino_folder import load_openvino

    model = load_openvino(place)
    return np.concatenate([np.array(model(image[None])["probabilities"]) for image in pixels])


def answer_torch(place: Path, pixels: Pixels) -> Floats:
    """Return the probabilities of a `torch.export` program, float32 [n, classes]."""
    import torch

    program: Any = torch.export.load(place).module()
    with torch.inference_mode():
        answers = [program(torch.from_numpy(image[None]))["probabilities"] for image in pixels]
    return np.asarray(torch.cat(answers).numpy())


def answer_timm(place: Path, pixels: Pixels) -> Floats:
    """Return the logits of a folder of timm's, float32 [n, classes], of pixels normalised by its configuration."""
    import timm
    import torch

    from budwood.inference.pytorch_backend import LUMA

    model: Any = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    settings = model.pretrained_cfg
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    if settings["input_size"][0] == 1:
        image = (image * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    mean, std = (torch.tensor(settings[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        return np.asarray(model((image - mean) / std).numpy())


FORMS: Final[Mapping[Form, Callable[[Path, Pixels], Floats]]] = {
    "openvino": answer_openvino,
    "timm": answer_timm,
    "torch": answer_torch,
}


def main() -> None:
    """Answer for the arguments and the pixels of this process."""
    answers = FORMS[sys.argv[1]](Path(sys.argv[2]), np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False))  # type: ignore[index]
    out = io.BytesIO()
    np.save(out, answers.astype(np.float32))
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    main()
