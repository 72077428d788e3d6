"""Words of the field in a sentence each, told where a page first uses them."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup, escape

MEANINGS: Final = {
    "accuracy": "The share of the images that are called what they are.",
    "balanced accuracy": "The mean over the classes of the share of their images that is found. A small class counts "
    "as much as a large one.",
    "macro F1": "The mean of the F1 of all classes. A small class counts as much as a large one.",
    "mean average precision": "How well the images that have a label are ranked above those that have not, averaged "
    "over the labels. 100 % is perfect; it needs no threshold.",
    "95 % confidence interval": "The range in which the score would lie for very many images of the same kind: a range "
    "made in this way holds it in 95 of 100 cases. More images make it narrower.",
    "n": "The number of images that a figure was counted on.",
    "validation": "Images that the network has not learned from. They chose among networks or epochs, so their score "
    "is slightly too good.",
    "test": "Images that took no part in training or in any choice. They are sealed until `budwood test`, so that "
    "their score is unbiased.",
    "looks": "How often the test set was used. Who chooses by its score makes it too good.",
    "F1": "One figure of precision and recall (their harmonic mean): high only where both are.",
    "precision": "Of the images that were called this class, the share that belongs to it.",
    "recall": "Of the images of this class, the share that was called so.",
    "average precision": "How well the images of this class are ranked above the others. It needs no threshold.",
    "parameters": "The numbers that a network consists of. Training changes those that are not frozen.",
    "multiply-adds": "The multiplications with an addition that one image costs: the work of an answer.",
    "p": "How often chance alone would make a difference at least as large, if there were none. Below 0.05 a "
    "difference is called significant.",
    "log loss": "What the probabilities cost that were given to the true classes, in nats: 0 is perfect, and a "
    "sure mistake is dear.",
    "calibrated": "As sure as it is right: of the answers given with 80 %, 80 in 100 are right.",
    "epoch": "One pass over all training images.",
    "frozen": "Not changed by training: the layers keep the weights that they came with.",
    "not distinguishable": "The images are too few, or the difference is too small, to say that one is better.",
    "slices": "Subsets of the images that share a property, such as the darkest quarter.",
}


class Glossary:
    """Explains each word where it first stands on a page: a button opens its meaning, without a script."""

    def __init__(self) -> None:
        """Begin a page on which no word was used yet."""
        self._told: set[str] = set()

    def __call__(self, shown: str, word: str = "") -> Markup:
        """Write a word, with its meaning where it is the first time.

        Args:
            shown: The word as it stands in the text.
            word: The word of `MEANINGS`, where that is another.

        Returns:
            The word; where it has a meaning that was not told yet, a button and what it opens.
        """
        word = word or shown
        if word not in MEANINGS or word in self._told:
            return escape(shown)
        self._told.add(word)
        place = "word-" + "".join(char if char.isalnum() else "-" for char in word.lower())
        return Markup(
            '<button type="button" class="term" popovertarget="{place}">{shown}</button>'
            '<span class="meaning" id="{place}" popover><b>{title}</b> {meaning}</span>'
        ).format(place=place, shown=shown, title=f"{word[0].upper()}{word[1:]}.", meaning=_mark(MEANINGS[word]))


def _mark(sentence: str) -> Markup:
    parts = [escape(part) for part in sentence.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))
