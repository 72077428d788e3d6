"""Plain PyTorch: every layer fine-tuned with AdamW and a cosine, as many epochs as fit the time.

    python plain_pytorch.py DATA_DIR SECONDS SEED [--predictions FILE]

The first steps are timed to plan the epochs. The epoch with the best validation accuracy is kept. Where not one epoch
fits, a part of one is trained, without validation.
"""

from __future__ import annotations

import copy
import math
import time
from typing import TYPE_CHECKING, Any, Final

from peer_job import Job, Loader, finish, list_calls, load_trunk, make_loader, predict, read_job

if TYPE_CHECKING:
    import torch

RATE: Final = 1e-4
WARM: Final = 2  # steps that are not timed
TIMED: Final = 6
FORWARD: Final = 1 / 3  # of a training step, what a step of validation costs


def plan_steps(left: float, done: int, step: float, train_steps: int, val_steps: int) -> int:
    """Plan how many steps there are in all: whole epochs with their validation, or a part of one.

    Args:
        left: Seconds left.
        done: Steps done.
        step: Seconds of a training step.
        train_steps: Training steps of an epoch.
        val_steps: Validation steps of an epoch.

    Returns:
        The number of steps from the first one on, at least `done`.
    """
    epoch = step * (train_steps + FORWARD * val_steps)
    epochs = int((left + done * step) // epoch)
    if epochs:
        return max(done, epochs * train_steps)
    return min(train_steps, done + max(0, int(left // step)))


def train(job: Job, model: torch.nn.Module, train_loader: Loader, val_loader: Loader) -> dict[str, Any]:
    """Train until the planned steps are done or the time is over; leave the best weights in the network."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    total, done, epochs, steps = None, 0, 0, len(train_loader)
    times = [0.0]
    best: tuple[float, dict[str, Any] | None] = (-1.0, None)
    labels = val_loader.dataset.targets
    while (total is None or done < total) and job.measure_left() > times[-1]:
        model.train()
        tick = time.perf_counter()
        for pixels, label in train_loader:
            if job.measure_left() <= times[-1] or (total is not None and done >= total):
                break
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 + math.cos(math.pi * done / total)) / 2 if total else RATE
            loss = torch.nn.functional.cross_entropy(model(pixels), label)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            tick, before = time.perf_counter(), tick
            times.append(tick - before)
            if done == WARM + TIMED:
                pace = sum(times[-TIMED:]) / TIMED
                total = plan_steps(job.measure_left(), done, pace, steps, len(val_loader))
        if done % steps == 0 and job.measure_left() > 0:
            epochs += 1
            right = sum(call == label for call, label in zip(predict(model, val_loader), labels, strict=True))
            if right / len(labels) > best[0]:
                best = (right / len(labels), copy.deepcopy(model.state_dict()))
    if best[1] is not None:
        model.load_state_dict(best[1])
    return {"steps": done, "epochs": round(done / steps, 2), "validated": epochs, "val": best[0] if epochs else None}


def main() -> None:
    """Fine-tune, keep the best epoch, and score the test images once."""
    job = read_job(__doc__)
    import torch
    from torchvision import transforms as images

    torch.manual_seed(job.seed)
    train_loader = make_loader(job, "train", changes=[images.RandomHorizontalFlip()])
    val_loader, test_loader = make_loader(job, "val"), make_loader(job, "test")
    model = torch.nn.Sequential(load_trunk(), torch.nn.Linear(1280, len(train_loader.dataset.classes)))
    said = train(job, model, train_loader, val_loader)
    trained = job.measure_elapsed()
    finish(job, "plain PyTorch", trained, list_calls(test_loader, predict(model, test_loader)), **said)


if __name__ == "__main__":
    main()
