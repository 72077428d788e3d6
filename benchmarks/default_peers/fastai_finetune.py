"""fastai's fine_tune as documented, with its own head and augmentation, as many epochs as fit the time.

    python fastai_finetune.py DATA_DIR SECONDS SEED [--predictions FILE]

A few training steps on a copy of the network are timed to plan the epochs; there is one at least, however long.
Exit code 3: fastai is not installed.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import sys
import time
from pathlib import Path
from typing import Any, Final

from peer_job import BATCH, finish, load_trunk, read_job

ABSENT: Final = 3
TIMED: Final = 6
FROZEN: Final = 0.5  # an epoch of the head alone, beside one of everything
FORWARD: Final = 1 / 3  # of a training step, what a step of validation costs


def plan_epochs(left: float, step: float, train_steps: int, val_steps: int) -> int:
    """Plan how many epochs follow the frozen one.

    Args:
        left: Seconds left.
        step: Seconds of a training step of the whole network.
        train_steps: Training steps of an epoch.
        val_steps: Validation steps of an epoch.

    Returns:
        The number of epochs, at least 1.
    """
    frozen = step * (FROZEN * train_steps + FORWARD * val_steps)
    return max(1, int((left - frozen) // (step * (train_steps + FORWARD * val_steps))))


def time_step(model: Any, batches: Any) -> float:
    """Measure the seconds of a training step of everything, with loading, on a copy of the network."""
    import torch

    trial = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(trial.parameters())
    ticks = []
    for pixels, label in itertools.islice(itertools.cycle(batches), TIMED + 1):
        logits = trial(pixels.as_subclass(torch.Tensor))  # the types of fastai know no plain loss
        loss = torch.nn.functional.cross_entropy(logits, label.as_subclass(torch.Tensor))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        ticks.append(time.perf_counter())
    return (ticks[-1] - ticks[0]) / TIMED


def main() -> int:
    """Fine-tune, and score the test images once.

    Returns:
        The exit code: 0, or 3 where fastai is not installed.
    """
    job = read_job(__doc__)
    if importlib.util.find_spec("fastai") is None:
        print("fastai is not installed: pip install fastai, and name that Python by --peers-python", file=sys.stderr)
        return ABSENT
    import fastai.vision.all as vision
    import torch

    vision.set_seed(job.seed)
    changes = [*vision.aug_transforms(size=224), vision.Normalize.from_stats([0.5] * 3, [0.5] * 3)]
    count = len(vision.get_image_files(job.data / "train"))
    dls = vision.ImageDataLoaders.from_folder(
        job.data,
        train="train",
        valid="val",
        item_tfms=vision.Resize(256),
        batch_tfms=changes,
        bs=min(BATCH, count // 2),  # batches that are not full are left out
        num_workers=2,
        device=torch.device("cpu"),
    )
    trunk = load_trunk()
    trunk.reset_classifier(0, "")  # type: ignore[operator]
    head = vision.create_head(1280, len(dls.vocab))
    vision.apply_init(head, torch.nn.init.kaiming_normal_)

    def split(model: Any) -> list[Any]:
        return [vision.params(model[0]), vision.params(model[1])]

    learn = vision.Learner(dls, torch.nn.Sequential(trunk, head), metrics=vision.accuracy, splitter=split)
    with learn.no_bar(), learn.no_logging():
        step = time_step(learn.model, dls.train)
        epochs = plan_epochs(job.measure_left(), step, len(dls.train), len(dls.valid))
        learn.fine_tune(epochs)
        val, trained = float(learn.recorder.values[-1][-1]), job.measure_elapsed()
        files = sorted(Path(file) for file in vision.get_image_files(job.data / "test"))
        likely = learn.get_preds(dl=dls.test_dl(files))[0].argmax(dim=1).tolist()
    calls = [(file, file.parent.name, str(dls.vocab[call])) for file, call in zip(files, likely, strict=True)]
    finish(job, "fastai fine_tune", trained, calls, epochs=epochs, val=val)
    return 0


if __name__ == "__main__":
    sys.exit(main())
