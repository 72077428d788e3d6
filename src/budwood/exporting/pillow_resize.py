"""Pillow's resize as ONNX operators: the pixels that a network was trained on, computed inside its file.

ONNX's own `Resize` is close to Pillow's but not equal: Pillow rounds its coefficients to 22 bits and the pixels to 8
between its two passes, cuts its filters at the border of the image, averages whole blocks first for bicubic with a
`reducing_gap`, and from version 13 on begins with the rows of tall images. Here the same is computed: coefficients from
height and width inside the graph, then one product of matrices for each pass, in float64, which holds every sum
exactly. The sources are Pillow's `Resample.c`, `Reduce.c`, `Geometry.c` and `Image.resize`; of the order of the passes,
its pull request 9549 and what version 13.0 answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import PIL

from budwood.config.options import Interpolation, Resizing
from budwood.exporting.graph_builder import GraphBuilder, Name

SUPPORT: Final[dict[Interpolation, float]] = {"bicubic": 2.0, "bilinear": 1.0, "area": 0.5}
REDUCING_GAP: Final = 3.0  # of bicubic, as `data.images.resize_to_square` has it
PRECISION: Final = float(2**22)  # of coefficients, as whole numbers
ROWS_FIRST_SINCE: Final = (13,)  # Pillow, of images that lose more than twice as many rows as columns
BLOCKS: Final = float(2**24)  # of the reciprocals with which blocks are averaged


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


@dataclass(frozen=True)
class _Axis:
    """One axis of the resize: the stretch of the image that is seen, and the pixels that it becomes.

    Attributes:
        length: Pixels of the image, int64 scalar.
        low: Begin of the stretch, float64 scalar.
        high: Its end, float64 scalar.
        out: Pixels of the result, int64 scalar.
    """

    length: Name
    low: Name
    high: Name
    out: Name


def add_resize(
    graph: GraphBuilder, image: Name, size: int, resizing: Resizing, pillow_version: tuple[int, ...] | None = None
) -> Name:
    """Add the nodes that make an image the square that a network sees.

    Args:
        graph: The graph.
        image: uint8 [1, h, w, 3], of any h and w from 1 on.
        size: Side of the square.
        resizing: How the image becomes a square, and by which interpolation.
        pillow_version: The Pillow whose pixels it gives; None: the one that is installed.

    Returns:
        uint8 [1, size, size, 3].
    """
    pillow_version = pillow_version or parse_version(PIL.__version__)
    shape = graph.add("Shape", image)
    height, width = (graph.add("Gather", shape, graph.whole(axis)) for axis in (1, 2))
    vertical, horizontal = _place_axes(graph, height, width, size, resizing)
    planes = graph.add("Transpose", graph.add("Squeeze", image, graph.whole([0])), perm=[2, 0, 1])  # uint8 [3, h, w]
    if resizing.interpolation == "nearest":
        planes = _take_nearest(graph, planes, horizontal, 2)
        planes = _take_nearest(graph, planes, vertical, 1)
    else:
        planes = _resample(graph, planes, vertical, horizontal, resizing.interpolation, pillow_version)
    if resizing.how == "pad":
        planes = _paste(graph, planes, vertical.out, horizontal.out, size)
    square = graph.add("Transpose", planes, perm=[1, 2, 0])
    # Stated as a constant, for shapes that are known let ONNX Runtime fold most of the network's nodes.
    return graph.add("Reshape", square, graph.whole([1, size, size, 3]))


def _place_axes(graph: GraphBuilder, height: Name, width: Name, size: int, resizing: Resizing) -> tuple[_Axis, _Axis]:
    """Rows and columns: what is seen of each, and how long it becomes."""
    side, lengths = graph.whole(size), (height, width)
    if resizing.how == "crop":
        square = graph.cast(graph.add("Min", height, width), np.float64)
        lows = [
            graph.add("Div", graph.add("Sub", graph.cast(length, np.float64), square), graph.real(2))
            for length in lengths
        ]
        rows, columns = (
            _Axis(length, low, graph.add("Add", low, square), side) for length, low in zip(lengths, lows, strict=True)
        )
        return rows, columns
    outs = [side, side]
    if resizing.how == "pad":
        longest = graph.cast(graph.add("Max", height, width), np.float64)
        scale = graph.add("Div", graph.real(size), longest)
        for axis, length in enumerate(lengths):
            rounded = graph.add("Round", graph.add("Mul", graph.cast(length, np.float64), scale))
            outs[axis] = graph.add("Max", graph.whole(1), graph.cast(rounded, np.int64))
    rows, columns = (
        _Axis(length, graph.real(0), graph.cast(length, np.float64), out)
        for length, out in zip(lengths, outs, strict=True)
    )
    return rows, columns


def _paste(graph: GraphBuilder, planes: Name, height: Name, width: Name, size: int) -> Name:
    """Planes uint8 [3, height, width] in the middle of black ones [3, size, size]."""
    zero, begins, ends = graph.whole([0]), [], []
    for length in (height, width):
        gap = graph.add("Sub", graph.whole(size), length)
        begin = graph.add("Div", gap, graph.whole(2))
        begins.append(graph.add("Unsqueeze", begin, zero))
        ends.append(graph.add("Unsqueeze", graph.add("Sub", gap, begin), zero))
    pads = graph.add("Concat", zero, *begins, zero, *ends, axis=0)
    return graph.add("Pad", planes, pads, graph.constant(0, np.uint8))


def _take_nearest(graph: GraphBuilder, planes: Name, axis: _Axis, place: int) -> Name:
    """The nearest pixels along an axis; the positions are added up one by one, as Pillow does."""
    step = graph.add("Div", _subtract_floats(graph, axis.high, axis.low), graph.cast(axis.out, np.float64))
    first = graph.add("Add", axis.low, graph.add("Mul", step, graph.real(0.5)))
    count = graph.add("Unsqueeze", graph.add("Sub", axis.out, graph.whole(1)), graph.whole([0]))
    steps = graph.add("Expand", step, count)
    places = graph.add("Concat", graph.add("Unsqueeze", first, graph.whole([0])), steps, axis=0)
    numbers = graph.cast(graph.add("CumSum", places, graph.whole(0)), np.int64)
    last = graph.add("Sub", axis.length, graph.whole(1))
    return graph.add("Gather", planes, graph.add("Min", numbers, last), axis=place)


def _resample(
    graph: GraphBuilder,
    planes: Name,
    rows: _Axis,
    columns: _Axis,
    interpolation: Interpolation,
    pillow_version: tuple[int, ...],
) -> Name:
    """The planes by a filter: one axis first, then the other, each rounded to uint8."""
    if interpolation == "bicubic":
        planes, rows, columns = _reduce(graph, planes, rows, columns)
    else:
        planes = graph.cast(planes, np.float64)
    down = _make_coefficients(graph, rows, interpolation)
    across = graph.add("Transpose", _make_coefficients(graph, columns, interpolation), perm=[1, 0])

    def resize_rows(image: Name) -> Name:
        return _round_pixels(graph, graph.add("MatMul", down, image))

    def resize_columns(image: Name) -> Name:
        return _round_pixels(graph, graph.add("MatMul", image, across))

    def columns_first() -> Name:
        return resize_rows(resize_columns(planes))

    if pillow_version < ROWS_FIRST_SINCE:
        return graph.cast(columns_first(), np.uint8)
    lost_rows, lost_columns = (graph.add("Sub", axis.length, axis.out) for axis in (rows, columns))
    lost_columns = graph.add("Mul", graph.add("Max", lost_columns, graph.whole(0)), graph.whole(2))
    many_rows = graph.add("Greater", lost_rows, lost_columns)
    made = graph.choose(many_rows, lambda: resize_columns(resize_rows(planes)), columns_first, np.float64)
    return graph.cast(made, np.uint8)


def _round_pixels(graph: GraphBuilder, sums: Name) -> Name:
    """Sums of pixels times whole coefficients, as whole values of 0 to 255, float64."""
    halves = graph.add("Add", sums, graph.real(PRECISION / 2))
    rounded = graph.add("Floor", graph.add("Div", halves, graph.real(PRECISION)))
    return graph.add("Clip", rounded, graph.real(0), graph.real(255))


def _make_coefficients(graph: GraphBuilder, axis: _Axis, interpolation: Interpolation) -> Name:
    """What each pixel of an axis adds to each pixel of the result, float64 [out, length], whole numbers."""
    low = _round_to_float(graph, axis.low)
    scale = graph.add("Div", _subtract_floats(graph, axis.high, axis.low), graph.cast(axis.out, np.float64))
    wide = graph.add("Max", scale, graph.real(1))
    support = graph.add("Mul", graph.real(SUPPORT[interpolation]), wide)
    centres = graph.add("Mul", graph.add("Add", _count_up(graph, axis.out), graph.real(0.5)), scale)
    centres = graph.add("Unsqueeze", graph.add("Add", low, centres), graph.whole([1]))  # [out, 1]
    half = graph.real(0.5)
    first = graph.add("Floor", graph.add("Add", graph.add("Sub", centres, support), half))
    beyond = graph.add("Floor", graph.add("Add", graph.add("Add", centres, support), half))
    pixels = _count_up(graph, axis.length)  # [length]
    inside = graph.add("And", graph.add("GreaterOrEqual", pixels, first), graph.add("Less", pixels, beyond))
    distance = graph.add("Add", graph.add("Sub", pixels, centres), half)
    distance = graph.add("Mul", distance, graph.add("Div", graph.real(1), wide))
    weights = graph.add("Where", inside, _filter(graph, distance, interpolation), graph.real(0))
    sums = graph.add("ReduceSum", weights, graph.whole([1]), keepdims=1)
    shares = graph.add("Div", weights, graph.add("Where", graph.add("Equal", sums, graph.real(0)), graph.real(1), sums))
    scaled = graph.add("Mul", graph.add("Abs", shares), graph.real(PRECISION))
    return graph.add("Mul", graph.add("Sign", shares), graph.add("Floor", graph.add("Add", scaled, half)))


def _filter(graph: GraphBuilder, distance: Name, interpolation: Interpolation) -> Name:
    """The filter's value at distances from its middle, in pixels of the coarser of image and result."""
    real = graph.real
    if interpolation == "area":
        above, below = graph.add("Greater", distance, real(-0.5)), graph.add("LessOrEqual", distance, real(0.5))
        return graph.cast(graph.add("And", above, below), np.float64)
    far = graph.add("Abs", distance)
    if interpolation == "bilinear":
        return graph.add("Max", graph.add("Sub", real(1), far), real(0))
    sharpness = -0.5  # the `a` of Keys 1981
    near = graph.add("Sub", graph.add("Mul", real(sharpness + 2), far), real(sharpness + 3))
    near = graph.add("Add", graph.add("Mul", graph.add("Mul", near, far), far), real(1))
    outer = graph.add("Add", graph.add("Mul", graph.add("Sub", far, real(5)), far), real(8))
    outer = graph.add("Mul", graph.add("Sub", graph.add("Mul", outer, far), real(4)), real(sharpness))
    outer = graph.add("Where", graph.add("Less", far, real(2)), outer, real(0))
    return graph.add("Where", graph.add("Less", far, real(1)), near, outer)


def _reduce(graph: GraphBuilder, planes: Name, rows: _Axis, columns: _Axis) -> tuple[Name, _Axis, _Axis]:
    """The planes, float64, with whole blocks averaged where an image is much larger than the result."""
    one = graph.whole(1)
    factors = []
    for axis in (rows, columns):
        ratio = graph.add("Div", graph.add("Sub", axis.high, axis.low), graph.cast(axis.out, np.float64))
        whole = graph.cast(graph.add("Div", ratio, graph.real(REDUCING_GAP)), np.int64)
        factors.append(graph.add("Max", whole, one))
    any_reduced = graph.add("Greater", graph.add("Mul", *factors), one)
    begins, ends = zip(*(_find_safe_stretch(graph, axis, any_reduced) for axis in (rows, columns)), strict=True)
    zero = graph.whole([0])
    planes = graph.add(
        "Slice",
        planes,
        *(
            graph.add("Concat", *(graph.add("Unsqueeze", one_end, zero) for one_end in both), axis=0)
            for both in (begins, ends)
        ),
        graph.whole([1, 2]),
    )
    planes, counts = _average_blocks(graph, planes, (rows, columns), begins, ends, factors)
    made = []
    for axis, begin, factor, count in zip((rows, columns), begins, factors, counts, strict=True):
        start, divisor = graph.cast(begin, np.float64), graph.cast(factor, np.float64)
        low, high = (graph.add("Div", graph.add("Sub", end, start), divisor) for end in (axis.low, axis.high))
        made.append(_Axis(count, low, high, axis.out))
    return planes, made[0], made[1]


def _find_safe_stretch(graph: GraphBuilder, axis: _Axis, any_reduced: Name) -> tuple[Name, Name]:
    """The pixels of an axis that the result depends on, from where to where; all of them where nothing is reduced."""
    scale = graph.add("Div", graph.add("Sub", axis.high, axis.low), graph.cast(axis.out, np.float64))
    support = graph.add("Mul", graph.real(SUPPORT["bicubic"] - 0.5), scale)
    begin = graph.cast(graph.add("Sub", axis.low, support), np.int64)
    end = graph.cast(graph.add("Ceil", graph.add("Add", axis.high, support)), np.int64)
    begin = graph.add("Max", begin, graph.whole(0))
    end = graph.add("Min", end, axis.length)
    return (
        graph.add("Where", any_reduced, begin, graph.whole(0)),
        graph.add("Where", any_reduced, end, axis.length),
    )


def _average_blocks(
    graph: GraphBuilder,
    planes: Name,
    axes: tuple[_Axis, _Axis],
    begins: tuple[Name, ...],
    ends: tuple[Name, ...],
    factors: list[Name],
) -> tuple[Name, list[Name]]:
    """Averages of blocks, float64 [3, rows, columns], the last of which may be cut; and how many there are."""
    zero, one = graph.whole([0]), graph.whole(1)
    counts, pads, kept = [], [], []
    for begin, end, factor in zip(begins, ends, factors, strict=True):
        length = graph.add("Sub", end, begin)
        count = graph.add("Div", graph.add("Sub", graph.add("Add", length, factor), one), factor)
        missing = graph.add("Sub", graph.add("Mul", count, factor), length)
        pads.append(graph.add("Unsqueeze", missing, zero))
        left = graph.add("Sub", length, graph.add("Mul", graph.add("Range", graph.whole(0), count, one), factor))
        kept.append(graph.cast(graph.add("Min", left, factor), np.float32))  # pixels of each block along the axis
        counts.append(count)
    padded = graph.add(
        "Pad", planes, graph.add("Concat", graph.whole([0, 0, 0, 0]), *pads, axis=0), graph.constant(0, np.uint8)
    )
    parts = [graph.add("Unsqueeze", part, zero) for part in (counts[0], factors[0], counts[1], factors[1])]
    minus = graph.whole([-1])
    tall = graph.add("Concat", graph.whole([3]), parts[0], parts[1], minus, axis=0)
    sums = graph.add(
        "ReduceSum", graph.cast(graph.add("Reshape", padded, tall), np.float32), graph.whole([2]), keepdims=0
    )
    wide = graph.add("Concat", graph.whole([3]), parts[0], parts[2], parts[3], axis=0)
    sums = graph.add("ReduceSum", graph.add("Reshape", sums, wide), graph.whole([3]), keepdims=0)
    pixels = graph.add("Mul", graph.add("Unsqueeze", kept[0], graph.whole([1])), kept[1])
    half = graph.cast(graph.add("Floor", graph.add("Div", pixels, graph.constant(2, np.float32))), np.float64)
    reciprocal = graph.add("Floor", graph.add("Div", graph.constant(BLOCKS, np.float32), pixels))
    scaled = graph.add("Mul", graph.add("Add", graph.cast(sums, np.float64), half), graph.cast(reciprocal, np.float64))
    return graph.add("Floor", graph.add("Div", scaled, graph.real(BLOCKS))), counts


def _count_up(graph: GraphBuilder, count: Name) -> Name:
    """The numbers from 0 below a count, float64 [count]."""
    return graph.cast(graph.add("Range", graph.whole(0), count, graph.whole(1)), np.float64)


def _round_to_float(graph: GraphBuilder, value: Name) -> Name:
    """A value that Pillow keeps in 32 bits."""
    return graph.cast(graph.cast(value, np.float32), np.float64)


def _subtract_floats(graph: GraphBuilder, one: Name, other: Name) -> Name:
    """A difference that Pillow computes in 32 bits, as float64."""
    both = (graph.cast(value, np.float32) for value in (one, other))
    return graph.cast(graph.add("Sub", *both), np.float64)
