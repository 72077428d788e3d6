"""`budwood predict`: what images show, said as they come, and into files."""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_path, complete_run
from budwood.cli.device_option import add_device_option, refuse_device
from budwood.cli.exit_codes import INPUT, SOME_UNREADABLE
from budwood.cli.options import add_common_options, add_out_option, make_terminal_progress
from budwood.text import counted, show_unprintable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from budwood.data.image_streams import StreamedImage
    from budwood.evaluation.prediction_table import ImagePrediction
    from budwood.runs.base_predictor import Predictor
    from budwood.workflows.prediction_files import PredictionFile, Tally

LABELS_SHOWN: Final = 12  # of those that an image has not, where it may have several
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class _Wanted:
    """What is to be written, and how much is said of each image."""

    csv: Path | None
    jsonl: Path | None
    parquet: Path | None
    features: Path | None
    sort_into: Path | None
    copies: bool
    top: int
    as_json: bool

    @property
    def paths(self) -> list[Path]:
        """Return the files that are asked for."""
        return [path for path in (self.csv, self.jsonl, self.parquet, self.features) if path]


@click.command(cls=BudwoodCommand)
@click.argument("run", metavar="RUN|FILE", shell_complete=complete_run)
@click.argument("images", metavar="IMAGES...|-", nargs=-1, required=True, shell_complete=complete_path)
@click.option("--csv", type=_FILE, help="Also write a table for spreadsheets, as predictions are made.")
@click.option("--jsonl", type=_FILE, help="Also write JSON Lines: one document for each image.")
@click.option("--parquet", type=_FILE, help="Also write a Parquet file.")
@click.option("--features", type=_FILE, help="Also write what the head receives: FILE.npy, or FILE.parquet.")
@click.option("--sort-into", type=click.Path(path_type=Path), help="Also link the images into a folder for each class.")
@click.option("--copy", "copies", is_flag=True, help="With --sort-into: copy the images, in place of links.")
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Number of likeliest classes to list."
)
@click.option("--coverage", type=float, help="Share of images whose true class is to be in their set, such as 0.95.")
@click.option("--int8", is_flag=True, help="Use 8-bit integers, unless fewer validation images are then correct.")
@add_out_option
@add_device_option
@add_common_options
def predict(
    run: str,
    images: tuple[str, ...],
    csv: Path | None,
    jsonl: Path | None,
    parquet: Path | None,
    features: Path | None,
    sort_into: Path | None,
    copies: bool,
    top: int,
    coverage: float | None,
    int8: bool,
    out: Path,
    as_json: bool,
    debug: bool,
) -> int:
    """Predict what images show with a run's network: the likeliest classes, or that it is none of them.

    Where images have several labels (multi-label), each label is answered with yes or no and its probability.

    IMAGES are files, folders, archives (tar, zip) and patterns such as 'photos/**/*.jpg'; - stands for a list of paths
    on the standard input, one a line or ended by NUL characters. The network is told its images one after another, so
    there may be any number. In place of a run, FILE is a model that `budwood export` made.

    A command that writes files and was interrupted goes on where it stopped when it is repeated; with --json it starts
    anew. In a CSV file a text that begins like a formula (= + - @) has an apostrophe before it.
    """
    from budwood.runs.base_predictor import Predictor
    from budwood.runs.bundle_predictor import is_bundle
    from budwood.runs.run import open_run
    from budwood.workflows.predict import check_sources

    wanted = _Wanted(csv, jsonl, parquet, features, sort_into, copies, top, as_json)
    _refuse_senseless(wanted, images)
    check_sources(images)
    progress = make_terminal_progress()
    if is_bundle(run):
        refuse_device(f"{run} is an exported file, which ONNX Runtime computes on the processor.")
    place = run if is_bundle(run) else open_run(run, out)
    predictor = Predictor.open(place, int8=int8, coverage=coverage, progress=progress)
    tally = _predict_all(predictor, images, wanted)
    return _tell_unreadable(tally)


def _refuse_senseless(wanted: _Wanted, images: Sequence[str]) -> None:
    if wanted.copies and not wanted.sort_into:
        raise click.UsageError("--copy: needs --sort-into DIR.")
    from budwood.workflows.prediction_files import list_written

    places = [place.absolute() for path in wanted.paths for place in list_written(path)]
    if len(set(places)) < len(places):
        raise click.UsageError("--csv, --jsonl, --parquet, --features: two of them name the same file.")
    if wanted.sort_into:
        target = wanted.sort_into.resolve()
        inside = next((image for image in images if Path(image).is_dir() and _contains(Path(image), target)), None)
        if inside:
            raise click.UsageError(f"--sort-into: {wanted.sort_into} lies in {inside}, whose images it is to receive.")


def _contains(folder: Path, place: Path) -> bool:
    return place.is_relative_to(folder.resolve())


def _predict_all(predictor: Predictor, images: Sequence[str], wanted: _Wanted) -> Tally:
    """Predict all images, say each and write it to the files."""
    from budwood.data.image_streams import LIST, stream_images
    from budwood.networks.plan import hash_json
    from budwood.workflows.predict import predict_stream
    from budwood.workflows.prediction_files import PartialFiles, Tally, list_written
    from budwood.workflows.sorting import SortedFolders

    files = _make_files(predictor, wanted)
    written = {place.absolute() for path in wanted.paths for place in list_written(path)}

    def open_images() -> Iterator[StreamedImage]:
        return stream_images(images, sys.stdin.buffer, lambda path: path.absolute() in written)

    with ExitStack() as stack:
        stream, partial = open_images(), None
        if files:
            said = [wanted.top, wanted.as_json, *(str(path.absolute()) for path in wanted.paths)]
            partial = stack.enter_context(
                PartialFiles(files, hash_json([predictor.identity, images, str(Path.cwd()), said]))
            )
            stream = partial.begin(open_images, LIST not in images, wanted.as_json, make_terminal_progress())
        teller, tally = stack.enter_context(_Teller(predictor.classes, wanted.as_json)), Tally()
        sorter = SortedFolders(wanted.sort_into, predictor.classes, wanted.copies) if wanted.sort_into else None
        pending: deque[StreamedImage] = deque()
        stream = _keep(stream, pending) if sorter else stream
        for answers in predict_stream(predictor, stream, top=wanted.top, features=wanted.features is not None):
            if sorter:
                for answer in answers:
                    sorter.put(pending.popleft(), answer)
            if partial:
                partial.add(answers)
            tally.add(answers)
            teller.tell(answers)
    return partial.tally if partial else tally


def _keep(stream: Iterator[StreamedImage], pending: deque[StreamedImage]) -> Iterator[StreamedImage]:
    for image in stream:
        pending.append(image)
        yield image


def _make_files(predictor: Predictor, wanted: _Wanted) -> list[PredictionFile]:
    from budwood.workflows import prediction_files as make

    multilabel = predictor.task.multilabel
    files = [make.make_csv(wanted.csv, predictor.classes, wanted.top, multilabel)] if wanted.csv else []
    files += [make.make_jsonl(wanted.jsonl, predictor.classes)] if wanted.jsonl else []
    files += [make.make_parquet(wanted.parquet, predictor.classes, multilabel)] if wanted.parquet else []
    return files + ([make.make_features(wanted.features)] if wanted.features else [])


class _Teller:
    """Says predictions as they come; as JSON all at the end, so that an error is one document, too."""

    def __init__(self, classes: Sequence[str], as_json: bool) -> None:
        self._classes, self._as_json = classes, as_json
        self._kept: IO[str] | None = None

    def __enter__(self) -> _Teller:
        if self._as_json:
            self._kept = tempfile.SpooledTemporaryFile(2**22, "w+", encoding="utf-8", errors="surrogatepass")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._kept is None:
            return
        if kind is None:
            self._kept.write("\n]" if self._kept.tell() else "[]")
            self._kept.seek(0)
            while text := self._kept.read(2**20):
                sys.stdout.write(text)
            sys.stdout.write("\n")
        self._kept.close()

    def tell(self, answers: Sequence[ImagePrediction]) -> None:
        from budwood.evaluation.prediction_rows import make_document
        from budwood.storage.strict_json import encode_json

        readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        for answer in answers:
            if self._kept is None:
                print(describe_prediction(answer, self._classes))
                continue
            text = encode_json(make_document(answer, self._classes), indent=1, ensure_ascii=not readable)
            self._kept.write(",\n " if self._kept.tell() else "[\n ")
            self._kept.write(text.replace("\n", "\n "))
        sys.stdout.flush()  # who reads them at the other end of a pipe need not wait for the next thousand


def describe_prediction(answer: ImagePrediction, classes: Sequence[str] = ()) -> str:
    """Describe a prediction in one line.

    Args:
        answer: The prediction.
        classes: Names of the classes; needed where an image may have several of them.

    Returns:
        Path, what it is called, the likeliest classes, and the set where it has more than one class; where an image may
        have several classes, yes or no and the probability of each.
    """
    path = show_unprintable(answer.path)
    if answer.problem:
        return f"{path}: cannot be read ({answer.problem})"
    ranked = ", ".join(f"{show_unprintable(name)} {share:.1%}" for name, share in answer.top)
    several = answer.candidates is not None and len(answer.candidates) > 1
    notes = [f"may be: {', '.join(map(show_unprintable, answer.candidates or ()))}"] if several else []
    notes += answer.notes
    tail = f" [{'; '.join(notes)}]" if notes else ""
    if answer.refused:
        return f"{path}: none of these (nearest: {ranked}){tail}"
    if answer.decisions is not None and answer.probabilities is not None:
        told = _list_decisions(answer.decisions, answer.probabilities, classes)
        return f"{path}: {show_unprintable(answer.label)} ({told}){tail}"
    called = "" if answer.label == answer.top[0][0] else f"{show_unprintable(answer.label)}: "
    return f"{path}: {called}{ranked}{tail}"


def _list_decisions(decisions: Sequence[bool], probabilities: NDArray[np.float64], classes: Sequence[str]) -> str:
    """Yes or no and the probability of each label, the likeliest first; of those that are no at most 12."""
    order = sorted(range(len(classes)), key=lambda number: -probabilities[number])
    shown = [k for k in order if decisions[k]] + [k for k in order if not decisions[k]][:LABELS_SHOWN]
    told = [f"{show_unprintable(classes[k])} {'yes' if decisions[k] else 'no'} {probabilities[k]:.1%}" for k in shown]
    left = len(order) - len(shown)
    return ", ".join([*told, *([f"{left:,} more no"] if left else [])])


def _tell_unreadable(tally: Tally) -> int:
    """Tell which images could not be read; the exit code says whether none, some or all could be."""
    if not tally.images:
        print("There are no images in what was named. Check the folder, the pattern or the list.", file=sys.stderr)
        return INPUT
    if not tally.unreadable:
        return 0
    print(f"{tally.unreadable:,} of {counted(tally.images, 'image')} cannot be read.", file=sys.stderr)
    for path, problem in tally.bad or ():
        print(f"  {show_unprintable(path)} ({problem})", file=sys.stderr)
    if tally.unreadable > len(tally.bad or ()):
        print(f"  and {tally.unreadable - len(tally.bad or ()):,} more", file=sys.stderr)
    return INPUT if tally.unreadable == tally.images else SOME_UNREADABLE
