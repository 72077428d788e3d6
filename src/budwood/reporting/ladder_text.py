"""A search for the best network in words, for the page, the model card and the terminal."""

from __future__ import annotations

from typing import Final

from budwood.comparison.published_text import format_clock
from budwood.comparison.text import format_p_value
from budwood.runs.ladder_record import CandidateRecord, Figure, LadderRecord, RungName, RungRecord, find_states
from budwood.text import LEAST_TOLD, TOO_FEW, Unit, counted, format_difference

LEFT_OUT: Final = "left out: no time"
MEANINGS: Final[dict[RungName, str]] = {
    "frozen": "Frozen: the trunk, a network that has learned from other images before, stays as it is. Only a new last "
    "layer, the head, is fitted to your images.",
    "fine-tuned": "Fine-tuned: from the best frozen network on, layers of the trunk are trained on your images, too.",
    "together": "Together: several networks of the rungs above answer as one, by the mean of their probabilities (an "
    "ensemble).",
}


def format_accuracy(figure: Figure) -> tuple[str, str]:
    """Format an accuracy.

    Args:
        figure: The accuracy, 0 to 1.

    Returns:
        Its value, and its interval with the number of images.
    """
    if figure.n < LEAST_TOLD:
        return "too few to tell", f"n = {figure.n}"
    value = f"{100 * figure.value:.1f} %"
    if figure.low is None or figure.high is None:
        return value, f"{TOO_FEW} (n = {figure.n:,})"
    return value, f"{100 * figure.low:.1f} to {100 * figure.high:.1f} %, n = {figure.n:,}"


def format_gain(figure: Figure, unit: Unit) -> tuple[str, str]:
    """Format a paired difference.

    Args:
        figure: The difference, of shares or of losses in nats.
        unit: Which of the two.

    Returns:
        Its value with its sign, and its interval with the number of images.
    """
    if figure.n < LEAST_TOLD:
        return "too few to tell", f"n = {figure.n}"
    value = format_difference(figure.value, unit)
    if figure.low is None or figure.high is None:
        return value, f"{TOO_FEW} (n = {figure.n:,})"
    ends = (format_difference(end, unit) for end in (figure.low, figure.high))
    return value, f"{' to '.join(ends)}, n = {figure.n:,}"


def describe_gain(rung: RungRecord) -> str:
    """Describe what a rung has gained over the best network before it.

    Args:
        rung: The rung.

    Returns:
        For example "+2.6 points over the best before (95 % interval +0.5 to +4.7, n = 391; p = 0.021)"; empty where
        it was compared with none.
    """
    if rung.gain is None:
        return ""
    value, interval = format_gain(rung.gain, Unit())
    interval = interval if rung.gain.low is None else f"95 % interval {interval}"
    p = "" if rung.p is None else f"; p {_relate(format_p_value(rung.p))}"
    return f"{value} points over the best before ({interval}{p})"


def _relate(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def describe_rung_state(record: LadderRecord, rung: RungRecord) -> str:
    """Describe in a word or two what came of a rung.

    Args:
        record: The search.
        rung: One of its rungs.

    Returns:
        `chosen`, `kept`, `not kept`, `no time`, `failed` or `not begun`.
    """
    if rung.run is not None:
        return "chosen" if rung is record.find_best() else "kept" if rung.kept else "not kept"
    states = {one.state for one in rung.candidates}
    if not states:
        return "not begun"
    return "no time" if states == {"no time"} else "failed" if states == {"failed"} else "not kept"


def describe_candidate_state(one: CandidateRecord, chosen: bool) -> str:
    """Describe in a word or two what came of a candidate.

    Args:
        one: The candidate.
        chosen: Whether it is the one that its rung has chosen.

    Returns:
        `chosen`, `tried`, `failed` or `left out: no time`.
    """
    return "chosen" if chosen else LEFT_OUT if one.state == "no time" else one.state


def name_best(record: LadderRecord) -> str:
    """Name what a search has chosen.

    Args:
        record: The search.

    Returns:
        Its rung and its candidate, such as "fine-tuned (lite0 at 320 pixels)"; the id of the run where the record does
        not know more.
    """
    rung = record.find_best()
    if rung is None:
        return record.best
    return rung.name if rung.chosen is None else f"{rung.name} ({rung.candidates[rung.chosen].name})"


def count_candidates(record: LadderRecord) -> str:
    """Count what a search has tried.

    Args:
        record: The search.

    Returns:
        For example "9 candidates were tried, 2 were left out for want of time and 1 failed".
    """
    states = list(find_states(record.rungs).values())
    tried, left, failed = (states.count(state) for state in ("tried", "no time", "failed"))
    parts = [f"{counted(tried, 'candidate')} {'was' if tried == 1 else 'were'} tried"]
    parts += [f"{left} {'was' if left == 1 else 'were'} left out for want of time"] if left else []
    parts += [f"{failed} failed"] if failed else []
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def describe_time(record: LadderRecord) -> str:
    """Describe the time of a search.

    Args:
        record: The search.

    Returns:
        For example "had 5 min and took 4 min 43 s".
    """
    return f"had {format_clock(record.budget)} and took {format_clock(record.seconds)}"


def describe_ladder(record: LadderRecord, run: str) -> str:
    """Describe in a few sentences how a run was found.

    Args:
        record: The search that found it.
        run: Id of the run.

    Returns:
        Sentences on the time, on what was tried and what was chosen, and on which images took part.
    """
    names = ", ".join(dict.fromkeys(rung.name for rung in record.rungs))
    sentences = [
        f"Found by a search (rungs: {names}) that {describe_time(record)}: {count_candidates(record)}",
        f"Chosen was {name_best(record)}"
        if run == record.best
        else f"This run was not chosen: run {record.best} was ({name_best(record)})",
        "Only training and validation images took part, no test image",
    ]
    return " ".join(f"{sentence}." for sentence in sentences)
