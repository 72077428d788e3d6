"""A predictor: how fast it opens and answers, beside raw ONNX Runtime, and whether many threads get the same answers.

    .venv/bin/python benchmarks/predictor.py FOLDER [--images 400] [--calls 10000] [--repeats 5]

FOLDER has JPEG files in class folders; a head is trained on them first. Opening and the first answer are those of whole
new processes, from `import budwood` on, with the network exported before. Throughput is measured in turns, ours and the
other's, and told as the median of the turns' ratios, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from PIL import Image

import budwood as bw
from budwood.data.image_streams import stream_images
from budwood.hardware import count_processors, count_threads
from budwood.inference.bundle import GRAPH, read_bundle_file
from budwood.inference.engines import BATCH
from budwood.runs.machine import describe_hardware, library_versions
from budwood.runs.predictor import RunPredictor
from budwood.workflows.predict import predict_stream

THREADS: Final = 16
START: Final = """
import sys, time
started = time.perf_counter()
import budwood as bw
predictor = bw.Predictor.open(sys.argv[1])
opened = time.perf_counter() - started
predictor.predict(sys.argv[2])
print(opened, time.perf_counter() - started, 'torch' in sys.modules)
"""


def time_start(run: Path, image: Path, repeats: int) -> tuple[float, float]:
    """Median seconds until a new process has opened the run, and until it has its first answer."""
    times = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", START, str(run), str(image)], check=True, capture_output=True, text=True
        )
        opened, answered, torch = done.stdout.split()
        assert torch == "False"
        times.append((float(opened), float(answered)))
    return statistics.median(one for one, _ in times), statistics.median(two for _, two in times)


def open_raw(predictor: RunPredictor) -> Any:
    """ONNX Runtime with the same graph and as many threads, as one would write it by hand."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    options.add_free_dimension_override_by_name("n", BATCH)
    return onnxruntime.InferenceSession(read_bundle_file(predictor.part, GRAPH), options)


def loop_plainly(session: Any, files: list[Path], size: int) -> None:
    """What a user would write: decode a batch with Pillow, resize, run."""
    for first in range(0, len(files) - BATCH + 1, BATCH):
        images = [Image.open(file).convert("RGB") for file in files[first : first + BATCH]]
        squares = [crop_square(image).resize((size, size), Image.Resampling.BICUBIC) for image in images]
        session.run(None, {"pixels": np.stack([np.asarray(square) for square in squares])})


def crop_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def compare(ours: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio of the other's to ours in one turn."""
    ours(), other()
    turns = [(time_call(ours), time_call(other)) for _ in range(repeats)]
    mine, theirs = (statistics.median(times) for times in zip(*turns, strict=True))
    return mine, theirs, statistics.median(two / one for one, two in turns)


def time_call(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def count_different(predictor: bw.Predictor, files: list[Path], calls: int) -> int:
    """How many of so many calls from 16 threads have another answer than one by one, to the last bit."""
    few = [file.read_bytes() for file in files[:THREADS]]
    alone = [predictor.compute_probabilities(image) for image in few]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda call: predictor.compute_probabilities(few[call % len(few)]), range(calls))
        return sum(not np.array_equal(one, alone[call % len(few)]) for call, one in enumerate(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    files = sorted(given.folder.rglob("*.jpg"))[:: max(1, len(list(given.folder.rglob("*.jpg"))) // given.images)]
    files = files[: given.images // BATCH * BATCH]
    with tempfile.TemporaryDirectory() as out:
        run = bw.train(bw.select_per_class(bw.scan(given.folder), images_per_class=20), bw.Recipe(), out=Path(out))
        predictor = bw.Predictor.open(run)
        assert isinstance(predictor, RunPredictor)
        print(f"{describe_hardware(count_processors())}; {library_versions()}; {run.record.network.name}")
        opened, answered = time_start(run.path, files[0], given.repeats)
        print(f"open {opened:.2f} s, first answer {answered:.2f} s, of a new process (median of {given.repeats})")
        pixels = np.stack([predictor.read(file, "").pixels[0] for file in files])
        session, size = open_raw(predictor), pixels.shape[1]

        def run_raw() -> None:
            for first in range(0, len(pixels), BATCH):
                session.run(None, {"pixels": pixels[first : first + BATCH]})

        for what, ours, other in (
            ("pixels in memory", lambda: predictor.compute_outputs(pixels), run_raw),
            (
                "JPEG files",
                lambda: list(predict_stream(predictor, stream_images(files))),
                lambda: loop_plainly(session, files, size),
            ),
        ):
            mine, theirs, ratio = compare(ours, other, given.repeats)
            print(
                f"{what}: {len(files) / mine:.0f} images/s, raw {len(files) / theirs:.0f}, ratio {ratio:.2f} "
                f"({len(files)} images, median of {given.repeats} turns)"
            )
        different = count_different(predictor, files, given.calls)
        print(f"{THREADS} threads, {given.calls:,} calls: {different} answers differ from those one by one")


if __name__ == "__main__":
    main()
