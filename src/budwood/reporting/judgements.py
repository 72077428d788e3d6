"""Whether the images were enough to judge by: of subsets of images, and of labels that may be wrong."""

from __future__ import annotations

from typing import Final

from budwood.runs.explanation_record import JudgedLabels, SliceScore
from budwood.text import LEAST_TOLD, say_too_few

SIGNIFICANT: Final = 0.05
WIDE: Final = 0.2  # an interval of a difference that says nothing, from end to end: ± 10 points
AGREES: Final = 0.7  # the share of labels that a judge must at least agree with, by the lower end of its interval


def judge_slice(one: SliceScore) -> str:
    """Judge whether a subset of the images is answered worse or better than the others.

    Args:
        one: The accuracy on both.

    Returns:
        `worse`, `better`, `no difference seen`, or that the images are too few to tell.
    """
    fewest = min(one.n, one.rest.n)
    if fewest < LEAST_TOLD:
        return say_too_few(fewest)
    if one.p < SIGNIFICANT:
        return "better" if (one.difference.value or 0) > 0 else "worse"
    low, high = one.difference.low, one.difference.high
    if low is None or high is None or high - low > WIDE:
        return "too few to tell"
    return "no difference seen"


def judge_slices(slices: tuple[SliceScore, ...]) -> str:
    """Judge in a sentence what a table of subsets can say.

    Args:
        slices: The subsets.

    Returns:
        How many differ, and how many are too small to judge.
    """
    told = [judge_slice(one) for one in slices]
    differing = sum(one in ("worse", "better") for one in told)
    weak = sum(one.startswith("too few") for one in told)
    found = f"{differing} of {len(told)} subsets {'differs' if differing == 1 else 'differ'} from the other images"
    if weak == len(told):
        return "All of these subsets are too small to judge: a difference of 10 points could not be seen in them."
    if not weak:
        return f"{found}."
    are = "is" if weak == 1 else "are"
    return f"{found}; {weak} {are} too small to judge: a difference of 10 points could not be seen there."


def judge_suspects(labels: JudgedLabels) -> str:
    """Judge whether suspected label errors can be believed.

    Args:
        labels: The suspects, and how they were found.

    Returns:
        Why they are weak evidence; empty where they are not.
    """
    agrees = labels.accuracy
    if agrees.value is None or agrees.n < LEAST_TOLD:
        return f"Too weak to judge: {say_too_few(agrees.n)}."
    if agrees.low is not None and agrees.low >= AGREES:
        return ""
    return (
        f"Too weak to judge: the head that checked the labels agrees with only {100 * agrees.value:.0f} % of them, so "
        "most of the images below are rather hard for it than labelled wrongly."
    )
