"""What a notebook shows of an explanation: one function a kind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup
from PIL import Image

from budwood.evaluation.intervals import Metric, describe_share_of
from budwood.explain.embeddings import Embedding
from budwood.explain.heatmaps import Attribution
from budwood.explain.image_grid import make_grid, make_png_uri
from budwood.explain.label_errors import Suspects
from budwood.explain.overlays import draw_overlay
from budwood.explain.scatter import describe_sample, sample_dots
from budwood.reporting.display_card import (
    ROWS_SHOWN,
    Card,
    CardChart,
    CardPicture,
    CardTable,
    PictureGroup,
    render_card,
    tell_more,
)
from budwood.reporting.svg import WIDTH, wrap_svg
from budwood.reporting.thumbnails import encode_jpeg, make_data_uri

if TYPE_CHECKING:
    from budwood.explain.activations import Maps, Strip
    from budwood.explain.convolutions import Filters
    from budwood.explain.deletion_insertion import Faithfulness
    from budwood.explain.feature_visualization import Maximisation
    from budwood.explain.sanity_checks import SanityCheck

IMAGES: Final = 8
DOTS: Final = 300
PLANE: Final = 320  # height of a scatter plot


def draw_attribution(found: Attribution) -> str:
    """Draw heat maps over their images; over nothing where the images are not kept."""
    pictures = []
    for row in range(min(len(found.maps), IMAGES)):
        if found.pixels is None:
            drawn = make_grid(found.maps[row : row + 1], 1, 224).convert("RGB")
        else:
            drawn = draw_overlay(found.pixels[row], found.maps[row])
        number = int(found.classes[row])
        name = found.names[number] if found.names else f"class {number}"
        said = "nothing speaks for it" if found.empty[row] else f"probability {found.probabilities[row]:.2f}"
        pictures.append(CardPicture(make_data_uri(encode_jpeg(drawn)), f"what speaks for {name}", (name, said)))
    facts = [("method", found.method), *([("stage", found.place)] if found.place else [])]
    notes = ["`bw.explain.sanity` tests whether such maps depend on what was learned."]
    if len(found.maps) > IMAGES:
        notes.insert(0, f"The first {IMAGES} of {len(found.maps):,} images.")
    groups = [PictureGroup("", pictures, "large")]
    return render_card(Card("What speaks for a class", facts=facts, pictures=groups, notes=notes))


def draw_suspects(found: Suspects) -> str:
    """Draw the images with suspect labels as a table, the most doubtful first."""
    shown = found.rows[:ROWS_SHOWN]
    rows = [
        (one.path, one.label, f"{100 * one.p_label:.1f} %", one.suggested, f"{100 * one.p_suggested:.1f} %", one.split)
        for one in shown
    ]
    header = ("image", "label", "p", "rather", "p", "split")
    facts = [
        ("suspected", f"{len(found.rows):,} of {found.n:,} images judged, about {found.expected:,} errors expected"),
        ("out-of-fold accuracy", describe_share_of(found.accuracy)),
        ("features", found.trunk),
    ]
    table = CardTable(header, rows, (2, 4), tell_more(len(shown), len(found.rows)))
    return render_card(Card("Suspect labels", facts=facts, tables=[table] if rows else []))


def draw_embedding(found: Embedding) -> str:
    """Draw the images as dots, mistakes in another colour and shape."""
    shown = sample_dots(found, DOTS)
    low, high = shown.points.min(axis=0), shown.points.max(axis=0)
    places = (shown.points - low) / np.where(high > low, high - low, 1)
    dots = []
    for row in np.argsort(~shown.correct, kind="stable").tolist():  # mistakes last, above the others
        x, y = 10 + places[row, 0] * (WIDTH - 20), 10 + (1 - places[row, 1]) * (PLANE - 20)
        if shown.correct[row]:
            dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="var(--accent)" fill-opacity="0.55"/>')
        else:
            shape = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y + 4:.1f} {x - 5:.1f},{y + 4:.1f}"
            dots.append(f'<polygon points="{shape}" fill="var(--second)"/>')
    said = describe_sample(shown)
    chart = CardChart(
        "Dots: called what they are; triangles: mistakes.", Markup(wrap_svg("", said, "".join(dots), PLANE))
    )
    return render_card(Card("Images by their features", charts=[chart], notes=[said]))


def draw_filters(found: Filters) -> str:
    """Draw the filters of a convolution."""
    from budwood.explain.convolutions import draw_filters as draw

    facts = [
        ("layer", found.layer),
        ("weights", " × ".join(map(str, found.weights.shape))),
        ("dead, alike", f"{len(found.dead):,}, {len(found.duplicates):,} pairs"),
    ]
    return render_card(Card("Filters", facts=facts, pictures=[_show_whole(draw(found), "filters", crisp=True)]))


def draw_maps(found: Maps) -> str:
    """Draw the feature maps that vary most, of the first images."""
    from budwood.explain.activations import draw_maps as draw

    count = min(len(found.values), 3)
    groups = [_show_whole(draw(found, row), f"maps of image {row}") for row in range(count)]
    facts = [("layer", found.name), ("maps", " × ".join(map(str, found.values.shape)))]
    more = [f"The first {count} of {len(found.values):,} images."] if count < len(found.values) else []
    return render_card(Card("Feature maps", facts=facts, pictures=groups, notes=more))


def draw_strip(found: Strip) -> str:
    """Draw an image's maps along the network."""
    from budwood.explain.activations import draw_strip as draw

    groups = []
    for stage, picture in zip(found.stages, draw(found), strict=True):
        title = f"{stage.name}: {' × '.join(map(str, stage.shape))}"
        groups.append(replace(_show_whole(picture, f"maps after {stage.name}"), title=title))
    notes = [f"Not shown: {', '.join(found.left_out)}."] if found.left_out else []
    return render_card(Card("One image along the network", pictures=groups, notes=notes))


def draw_maximisation(found: Maximisation) -> str:
    """Draw what a class or channel looks for."""
    place = found.target.place or "class"
    lines = (f"{place}, {found.target.channel}", f"activation {found.before:.2f} to {found.after:.2f}")
    picture = CardPicture(make_data_uri(encode_jpeg(Image.fromarray(found.pixels))), lines[0], lines)
    notes = ["No step found a gradient, so the picture means nothing."] if found.flat else []
    groups = [PictureGroup("", [picture], "large")]
    return render_card(Card("What it looks for", pictures=groups, notes=notes))


def draw_sanity(found: SanityCheck) -> str:
    """Draw how like the maps stay as ever more of the network is made random."""
    rows = [(place, _write(metric)) for place, metric in zip(found.places, found.likeness, strict=True)]
    table = CardTable(
        ("random from here on", "likeness of the maps"), [*rows, ("other images", _write(found.unrelated))]
    )
    verdict = "depend" if found.depends else "do not depend"
    return render_card(
        Card("Sanity check", f"The maps of {found.method} {verdict} on what was learned.", tables=[table])
    )


def draw_faithfulness(found: Faithfulness) -> str:
    """Draw how much better than chance the maps are."""
    rows = [(name, _write(gain), f"{gain.p:.3g}") for name, gain in found.gains.items()]
    table = CardTable(("", "better than maps moved at random by", "p"), rows, (2,))
    return render_card(Card("Faithfulness", tables=[table] if rows else [], notes=["Above 0 is better."]))


def _write(metric: Metric) -> str:
    """A figure with its interval and number of images."""
    if metric.value is None:
        return "–"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.2f} (n = {metric.n:,})"
    return f"{metric.value:.2f} ({metric.low:.2f} to {metric.high:.2f}, n = {metric.n:,})"


def _show_whole(image: Image.Image, alt: str, *, crisp: bool = False) -> PictureGroup:
    return PictureGroup("", [CardPicture(make_png_uri(image), alt)], "whole crisp" if crisp else "whole")
