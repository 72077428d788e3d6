"""What a run's report tells of the search that found it: what was tried, what each rung gave, why this network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from budwood.comparison.published_text import Cell, format_clock
from budwood.comparison.recipe_diff import describe_options
from budwood.comparison.text import format_p_value
from budwood.config.metric_registry import LOSS, describe_metric
from budwood.evaluation.intervals import Metric
from budwood.reporting.commands import write_longer_command
from budwood.reporting.ladder_text import (
    MEANINGS,
    count_candidates,
    describe_candidate_state,
    describe_gain,
    describe_rung_state,
    describe_time,
    format_accuracy,
    format_gain,
    name_best,
)
from budwood.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    describe_share,
    draw_frame,
    make_even_ticks,
    round_range,
    to_xml,
    wrap_svg,
)
from budwood.runs.ladder_record import Figure, LadderRecord, RungRecord
from budwood.runs.run_record import RunRecord
from budwood.text import Unit

NONE: Final[Cell] = ("–", "")
APART: Final = 16.0  # least distance of two dots, in units of the drawing
IN_MINUTES: Final = 120.0  # seconds from which on the axis of time is in minutes


@dataclass(frozen=True)
class ShownCandidate:
    """A candidate of a rung as a row.

    Attributes:
        name: Its name.
        accuracy: Its held-out accuracy, with the interval and the number of images as the addition.
        difference: Its figure minus that of the chosen one, likewise.
        seconds: What it took, or would have taken.
        state: What came of it.
        note: Why, where there is something to say.
        chosen: Whether its rung chose and kept it.
        options: Its options in words.
    """

    name: str
    accuracy: Cell
    difference: Cell
    seconds: str
    state: str
    note: str
    chosen: bool
    options: str


@dataclass(frozen=True)
class ShownRung:
    """A rung as a row and as a table.

    Attributes:
        number: Its place, from 1.
        name: Its name.
        state: What came of it.
        accuracy: Validation accuracy of its run, with the interval and the number of images as the addition.
        gain: That minus the best before, in points, likewise.
        p: The p-value of that difference.
        ended: When it ended.
        sentences: What it is, and why it was kept or not.
        method: How its candidates were compared and one was chosen.
        candidates: Its candidates.
        compared: What its candidates differ by from the chosen one, such as "loss minus chosen, nats"; empty where
            none has a difference.
    """

    number: int
    name: str
    state: str
    accuracy: Cell
    gain: Cell
    p: str
    ended: str
    sentences: Sequence[str]
    method: Sequence[str]
    candidates: Sequence[ShownCandidate]
    compared: str


@dataclass(frozen=True)
class ShownLadder:
    """What the report shows of a search.

    Attributes:
        sentences: What it was given, what it took, and what it chose.
        rungs: Its rungs.
        chart: Accuracy over time; empty where fewer than two rungs left a run.
        caveats: What the figures are worth.
        advice: What more time would likely give; empty where nothing is known of it.
        command: The command for that; empty where none is advised.
    """

    sentences: Sequence[str]
    rungs: Sequence[ShownRung]
    chart: Markup
    caveats: Sequence[str]
    advice: str
    command: str


def show_ladder_section(record: RunRecord, folder: Path | None = None) -> ShownLadder | None:
    """Prepare what the report shows of the search that found a run.

    Args:
        record: The record of the run.
        folder: The run's folder; None where it is not known.

    Returns:
        What is shown; None of a run whose recipe was given.
    """
    ladder = record.ladder
    if ladder is None:
        return None
    first: set[str] = set()
    rungs = []
    for number, rung in enumerate(ladder.rungs, 1):
        rungs.append(_show_rung(ladder, rung, number, explained=rung.name in first))
        first.add(rung.name)
    drawn = sum(rung.accuracy is not None for rung in ladder.rungs) > 1
    return ShownLadder(
        sentences=_describe_search(record, ladder),
        rungs=rungs,
        chart=Markup(draw_ladder(ladder)) if drawn else Markup(""),
        caveats=_list_caveats(record, ladder),
        advice=ladder.advice,
        command=write_longer_command(record, folder.absolute().parent if folder else None),
    )


def _describe_search(record: RunRecord, ladder: LadderRecord) -> list[str]:
    """What was searched for, in which time, and what was chosen."""
    sentences = [
        "No option said how to train, so Budwood searched for the best network, rung by rung. The search "
        f"{describe_time(ladder)}: {count_candidates(ladder)}."
    ]
    if ladder.given:
        sentences.append(f"Given, and the same in all of them: {describe_options(ladder.given)}.")
    if record.id == ladder.best:
        sentences.append(f"It chose this network: {name_best(ladder)}.")
    else:
        sentences.append(f"It did not choose this network, but run {ladder.best}: {name_best(ladder)}.")
    best = ladder.find_best()
    if best and (gain := describe_gain(best)):
        sentences.append(f"Validation accuracy: {gain}.")
    if ladder.interrupted:
        sentences.append("It was interrupted (Ctrl-C), and the best network so far was kept.")
    if ladder.images < ladder.of:
        sentences.append(
            f"It used a sample of the training images, as the time is too short for all: {ladder.images:,} of "
            f"{ladder.of:,}."
        )
    return sentences


def _show_rung(ladder: LadderRecord, rung: RungRecord, number: int, *, explained: bool) -> ShownRung:
    return ShownRung(
        number=number,
        name=rung.name,
        state=describe_rung_state(ladder, rung),
        accuracy=_format_cell(rung.accuracy),
        gain=_hold_together(format_gain(rung.gain, Unit())) if rung.gain else NONE,
        p=format_p_value(rung.p),
        ended=format_clock(rung.ended) if rung.ended else "–",
        sentences=[*([] if explained else [MEANINGS[rung.name]]), *([rung.note] if rung.note else [])],
        method=[*_describe_method(ladder, rung, number)],
        candidates=[_show_candidate(ladder, rung, place) for place in range(len(rung.candidates))],
        compared=_head_difference(ladder) if any(one.difference for one in rung.candidates) else "",
    )


def _head_difference(ladder: LadderRecord) -> str:
    """What the differences of candidates are, for the head of a column."""
    unit = "nats" if ladder.metric == LOSS else "points"
    return f"{describe_metric(ladder.metric)} minus chosen, {unit}"


def _describe_method(ladder: LadderRecord, rung: RungRecord, number: int) -> Iterator[str]:
    """How the candidates of a rung were compared, and how one was chosen."""
    tried = sum(one.state == "tried" for one in rung.candidates)
    if number == 1 and ladder.compared:
        yield f"Held-out accuracy and loss: {ladder.compared.rstrip('.')}."
        if "cross-validation" in ladder.compared.lower():
            yield (
                "Cross-validation: the images are parted into folds, and every image is answered by heads that were "
                "fitted without its fold."
            )
        if tried > 1:
            above = "above the least" if ladder.metric == LOSS else "below the greatest"
            yield (
                f"Of all candidates whose {describe_metric(ladder.metric)} is less than one standard error of the "
                f"paired difference {above}, one of the cheapest was chosen (one-standard-error rule, Breiman et al. "
                "1984), since so small a lead may be chance; of those that take less than twice as long as the "
                "cheapest of all, the best."
            )
    elif tried and rung.name == "frozen" and ladder.compared:
        yield "Held-out accuracy and loss: on the same images as before, and chosen alike."
    elif tried:
        yield "Held-out accuracy: on the validation images."


def _show_candidate(ladder: LadderRecord, rung: RungRecord, place: int) -> ShownCandidate:
    """A candidate; what was trained without being compared has the accuracy and the fate of its rung."""
    one, chosen = rung.candidates[place], place == rung.chosen
    alone = chosen and len(rung.candidates) == 1
    about = "about " if one.state == "no time" else ""
    behind = None if chosen else one.difference
    return ShownCandidate(
        name=one.name,
        accuracy=_format_cell(one.accuracy or (rung.accuracy if chosen else None)),
        difference=_hold_together(format_gain(behind, Unit(loss=ladder.metric == LOSS))) if behind else NONE,
        seconds=f"{about}{format_clock(one.seconds)}" if one.seconds else "–",
        state=describe_rung_state(ladder, rung) if alone else describe_candidate_state(one, chosen),
        note=one.note,
        chosen=chosen and rung.kept,
        options=describe_options(one.recipe),
    )


def _format_cell(figure: Figure | None) -> Cell:
    return _hold_together(format_accuracy(figure)) if figure else NONE


def _hold_together(cell: Cell) -> Cell:
    """The cell, in which a narrow page breaks an interval before the number of images only."""
    interval, comma, n = cell[1].partition(", ")
    return cell[0], f"{_bind(interval)}{comma}{_bind(n)}" if comma else cell[1]


def _bind(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _list_caveats(record: RunRecord, ladder: LadderRecord) -> list[str]:
    """What the figures are worth."""
    sealed = "the test split stayed sealed and took no part" if record.dataset.counts.test else "there is no test split"
    sentences = [f"Candidates and rungs were compared on training and validation images only; {sealed}."]
    runs = sum(rung.run is not None for rung in ladder.rungs)
    if runs > 1:
        unbiased = "; the test split has no part in that" if record.dataset.counts.test else ""
        sentences.append(
            "The validation accuracy of the chosen network is slightly too optimistic, as it is the best of "
            f"{runs} on the same images{unbiased}."
        )
    if record.dataset.several:
        sentences.append("Accuracy: the share of images with every label right.")
    sentences.append(
        "In small: 95 % confidence interval and number of images (n). Differences are paired, image by image, so they "
        "are surer than the two accuracies alone."
    )
    if any(rung.p is not None for rung in ladder.rungs):
        sentences.append(
            "p: how likely so large a difference is by chance alone (McNemar's test); above 0.05 it may be chance."
        )
    return sentences


def draw_ladder(ladder: LadderRecord) -> str:
    """Draw the validation accuracy of each rung's run at the time at which it was there, with the best so far.

    Args:
        ladder: The search; two or more of its rungs left a run.

    Returns:
        The figure as an SVG element. Dots have the numbers of their rungs.
    """
    points = [
        (number, rung, rung.accuracy.metric())
        for number, rung in enumerate(ladder.rungs, 1)
        if rung.accuracy is not None
    ]
    ends = [100 * end for _, _, metric in points for end in (metric.low, metric.value, metric.high) if end is not None]
    latest = max([ladder.budget, ladder.seconds, *(rung.ended for _, rung, _ in points)])
    unit, name = (60.0, "minutes") if latest >= IN_MINUTES else (1.0, "seconds")
    across = Scale(0, latest / unit, LEFT, WIDTH - RIGHT)
    up = Scale(*round_range(min(ends), max(ends)), HEIGHT - BOTTOM, TOP)
    frame = draw_frame(
        across,
        up,
        make_even_ticks(0, latest / unit),
        make_even_ticks(min(ends), max(ends)),
        f"{name} since the start",
        "validation accuracy, %",
    )
    places = _spread([across(rung.ended / unit) for _, rung, _ in points], WIDTH - RIGHT - APART / 2)
    end = max(across(ladder.seconds / unit), places[-1])
    kept = [
        (place, up(100 * (metric.value or 0.0)))
        for (_, rung, metric), place in zip(points, places, strict=True)
        if rung.kept
    ]
    parts = [*frame, *_draw_steps(kept, end)]
    for (number, rung, metric), place in zip(points, places, strict=True):
        parts.extend(_draw_rung(number, rung, metric, place, up))
    said = ". ".join(
        f"{number} {rung.name} after {format_clock(rung.ended)}: {describe_share(metric)}, n = {metric.n:,}, "
        f"{describe_rung_state(ladder, rung)}"
        for number, rung, metric in points
    )
    return wrap_svg("Validation accuracy of each rung over time", said, "".join(parts), HEIGHT)


def _spread(wanted: Sequence[float], last: float) -> list[float]:
    """Rising places at least so far apart that dots and their numbers can be told apart."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + APART) if places else max(place, LEFT + APART / 2))
    for number in range(len(places) - 1, -1, -1):
        places[number] = min(places[number], last - APART * (len(places) - 1 - number))
    return places


def _draw_steps(kept: Sequence[tuple[float, float]], end: float) -> Iterator[str]:
    """The best so far, as a line of steps."""
    if kept:
        path = f"M{kept[0][0]:.1f},{kept[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in kept[1:])
        yield f'<path class="chosen" d="{path}H{end:.1f}" fill="none"/>'


def _draw_rung(number: int, rung: RungRecord, metric: Metric, x: float, up: Scale) -> Iterator[str]:
    colour = "var(--accent)" if rung.kept else "var(--soft)"
    value = 100 * (metric.value or 0.0)
    top = up(value) - 5
    if metric.low is not None and metric.high is not None:
        top = up(100 * metric.high)
        line = f'x1="{x:.1f}" x2="{x:.1f}" y1="{up(100 * metric.low):.1f}" y2="{top:.1f}"'
        yield f'<line class="range" {line} style="stroke: {colour}"/>'
    told = f"{rung.name} after {format_clock(rung.ended)}: {describe_share(metric)}"
    place = f'cx="{x:.1f}" cy="{up(value):.1f}"'
    yield f'<circle {place} r="4.5" style="fill: {colour}"><title>{to_xml(told)}</title></circle>'
    yield f'<text x="{x:.1f}" y="{top - 6:.1f}" text-anchor="middle">{number}</text>'
