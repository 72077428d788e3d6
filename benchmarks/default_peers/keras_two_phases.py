"""Two phases as Keras' guide to transfer learning has them, in PyTorch: the head first, then everything, slowly.

    python keras_two_phases.py DATA_DIR SECONDS SEED [--predictions FILE]

Images are mirrored and turned by up to a tenth of a circle. Dropout 0.2 and a linear head are trained by Adam at 1e-3
on the frozen trunk for a third of the time, then the whole network at 1e-5 with its batch norms in inference mode. The
last weights are kept, and nothing is spent on validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from peer_job import Job, Loader, finish, list_calls, load_trunk, make_loader, predict, read_job

if TYPE_CHECKING:
    import torch

HEAD_RATE: Final = 1e-3
WHOLE_RATE: Final = 1e-5
HEAD_SHARE: Final = 1 / 3
TURN: Final = 36.0  # degrees, a tenth of a circle


def train_until(
    loader: Loader,
    compute: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    job: Job,
    end: float,
) -> int:
    """Take steps until so many seconds are left.

    Args:
        loader: Training images and labels.
        compute: Gives the logits of images.
        optimizer: The optimizer of what is trained.
        job: The job, whose clock counts.
        end: Seconds that must be left.

    Returns:
        The number of steps.
    """
    import torch

    steps, pace, tick = 0, 0.0, time.perf_counter()
    while job.measure_left() - pace > end:
        for pixels, label in loader:
            loss = torch.nn.functional.cross_entropy(compute(pixels), label)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            tick, before = time.perf_counter(), tick
            pace = tick - before
            if job.measure_left() - pace <= end:
                break
    return steps


def main() -> None:
    """Train the head, then everything, and score the test images once."""
    job = read_job(__doc__)
    import torch
    from torchvision import transforms as images

    torch.manual_seed(job.seed)
    loader = make_loader(job, "train", changes=[images.RandomHorizontalFlip(), images.RandomRotation(TURN)])
    test_loader = make_loader(job, "test")
    trunk = load_trunk().eval()
    head = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(1280, len(loader.dataset.classes)))

    def compute_on_frozen(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = trunk(pixels)
        return head(features)  # type: ignore[no-any-return]

    model = torch.nn.Sequential(trunk, head)
    adam = torch.optim.Adam(head.parameters(), lr=HEAD_RATE)
    first = train_until(loader, compute_on_frozen, adam, job, job.measure_left() * (1 - HEAD_SHARE))
    second = train_until(loader, model, torch.optim.Adam(model.parameters(), lr=WHOLE_RATE), job, 0)
    trained = job.measure_elapsed()
    calls = list_calls(test_loader, predict(model, test_loader))
    epochs = [round(steps / len(loader), 2) for steps in (first, second)]
    finish(job, "two phases, as in Keras' guide", trained, calls, epochs=epochs)


if __name__ == "__main__":
    main()
