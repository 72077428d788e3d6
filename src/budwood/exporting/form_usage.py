"""How an exported form is used, as the part of its model card that only this form has."""

from __future__ import annotations

from typing import Final

from budwood.config.options import Interpolation
from budwood.exporting.form_answers import Form
from budwood.runs.run import Run

USAGE: Final = "## How to use it"  # the part of a run's card before which that of a form is put
METHODS: Final[dict[Interpolation, str]] = {
    "bicubic": "BICUBIC",
    "bilinear": "BILINEAR",
    "nearest": "NEAREST",
    "area": "BOX",
}
LOAD: Final[dict[Form, str]] = {
    "timm": """\
import timm
from PIL import Image

model = timm.create_model("local-dir:THIS_FOLDER", pretrained=True).eval()  # on the Hub: "hf-hub:OWNER/NAME"
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
logits = model(transform(Image.open("photo.jpg").convert("{mode}"))[None])
names = model.pretrained_cfg["label_names"]
""",
    "torch": """\
import numpy as np
import torch
from PIL import Image

program = torch.export.load("THIS_FILE.pt2").module()
image = Image.open("photo.jpg").convert("RGB")
{square}
answers = program(torch.from_numpy(np.array(image))[None])  # uint8 [n, {size}, {size}, 3]
print(answers["probabilities"])
""",
    "openvino": """\
import numpy as np
import openvino
from PIL import Image

# Without f32, devices that compute in 16 bits do so, and probabilities may differ by a few hundredths.
model = openvino.Core().compile_model("model.xml", "AUTO", {{"INFERENCE_PRECISION_HINT": "f32"}})
image = Image.open("photo.jpg").convert("RGB")
{square}
print(model(np.array(image)[None])["probabilities"])  # uint8 [1, {size}, {size}, 3]
""",
}


def add_usage(card: str, form: Form, run: Run) -> str:
    """Add to a model card how one form of the model is used.

    Args:
        card: The run's card, Markdown.
        form: Which form.
        run: The run.

    Returns:
        The card, with a part "How to use this form" before the run's own; of timm also with the library's name in its
        head, by which the Hub shows an example.
    """
    network = run.record.network
    code = LOAD[form].format(
        size=network.size, square=write_square_code(run), mode="L" if network.channels == 1 else "RGB"
    )
    text = f"## How to use this form\n\n```python\n{code}```\n\n{describe_outputs(form, run)}\n\n"
    before, found, after = card.partition(USAGE)
    card = f"{before}{text}{found}{after}" if found else f"{card}\n{text}".lstrip("\n")
    return card.replace("\nlibrary_name: budwood\n", "\nlibrary_name: timm\n", 1) if form == "timm" else card


def write_square_code(run: Run) -> str:
    """Return lines of Python that make `image` the square that a run's network sees, as Budwood does."""
    resizing, size = run.recipe.resizing, run.record.network.size
    method = f"Image.Resampling.{METHODS[resizing.interpolation]}"
    gap = ", reducing_gap=3.0" if resizing.interpolation == "bicubic" else ""
    if resizing.how == "squash":
        return f"image = image.resize(({size}, {size}), {method}{gap})"
    if resizing.how == "crop":
        return (
            "side = min(image.size)\n"
            "left, top = (image.width - side) / 2, (image.height - side) / 2\n"
            "box = (left, top, left + side, top + side)\n"
            f"image = image.resize(({size}, {size}), {method}, box=box{gap})"
        )
    return (
        f"scale = {size} / max(image.size)\n"
        "small = image.resize([max(1, round(length * scale)) for length in image.size], "
        f"{method}{gap})\n"
        f'image = Image.new("RGB", ({size}, {size}))\n'
        f"image.paste(small, (({size} - small.width) // 2, ({size} - small.height) // 2))"
    )


def describe_outputs(form: Form, run: Run) -> str:
    """Return in words what the outputs of a form are, and what it leaves out."""
    if form != "timm":
        return "`probabilities` are calibrated; `logits` are without temperature. Both are in the order of the classes."
    temperature = run.decision_rule.temperature.tolist()
    shown = f"{temperature[0]:.4g}" if len(temperature) == 1 else "`budwood.temperature` of `config.json`"
    squash = "a sigmoid" if run.task.multilabel else "a softmax"
    lines = [f"Divide the logits by the temperature, {shown}, before {squash}: that makes calibrated probabilities."]
    if run.recipe.tta != "none":
        lines.append("Budwood averages the logits of mirror images, too, which this form leaves to you.")
    if run.recipe.resize == "pad":
        lines.append("timm fills the borders of images with the mean colour, Budwood with black: answers may differ.")
    return " ".join(lines)
