"""Asks an exported file about images, as any program may that has ONNX Runtime, Pillow and NumPy.

It is run as a script in a process of its own, without Budwood and PyTorch: `python -I answer_images.py JOB RESULT`.
JOB is JSON with `model` and `images`, a list of image files or of arrays (.npy); RESULT becomes a file of arrays.
"""

import hashlib
import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read_image(path: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Return the pixels of a file, uint8 [height, width, 3]: upright, in colour, on white where it is transparent."""
    if path.endswith(".npy"):
        return np.asarray(np.load(path), np.uint8)
    image = ImageOps.exif_transpose(Image.open(path))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def main(job: str, result: str) -> None:
    """Answer all images of a job."""
    with open(job, encoding="utf-8") as file:  # noqa: PTH123 - as any program does
        task = json.load(file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(task["model"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers: dict[str, list[Any]] = {name: [] for name in names}
    digests = []
    for path in task["images"]:
        pixels = read_image(path)
        digests.append(hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest())
        for name, value in zip(names, session.run(None, {"image": pixels[None]}), strict=True):
            answers[name].append(value[0])
    unwanted = {"budwood", "torch"} & set(sys.modules)
    assert not unwanted, f"{unwanted} were imported"
    arrays: dict[str, Any] = {name: np.stack(values) for name, values in answers.items()}
    arrays |= {"digests": np.array(digests), "engine": np.array(f"ONNX Runtime {onnxruntime.__version__}")}
    np.savez(result, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
