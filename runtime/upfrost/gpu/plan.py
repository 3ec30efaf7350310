"""Graph → dispatches over numbered buffers.

Two steps. `compile_graph` does what depends on the network and the kind of device
alone: it fuses nodes into steps, one kernel each, and packs the weights. `make_plan`
does what depends on the tile's size: it lays the values out, gives them buffers that
later values use again, and writes the dispatches down. A `Plan` is data; its
dispatches, in their order, turn the picture in buffer 0 into the one in buffer 1.

    step → step → … → pack

The first convolutions read the picture's bytes. Only where another kernel wants its
values, `unpack` comes before them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest

import numpy as np

from upfrost.gpu import convolutions, operations, winograd
from upfrost.gpu.convolutions import Convolution, PackedConv
from upfrost.gpu.dispatches import (
    HEADER_BYTES,
    BufferSlice,
    Dispatch,
    Epilogue,
    Layout,
    Merge,
    Precision,
    TensorView,
    given_bytes,
    result_bytes,
    row_words,
)
from upfrost.gpu.dispatches import alignment as grid_alignment
from upfrost.gpu.families import Family
from upfrost.gpu.frame import (
    FULL_CHROMA,
    ChromaFormat,
    FrameFormat,
    HostPlane,
    SampleFormat,
)
from upfrost.gpu.tiles import Tiling, frame_tiling, tile_step, tiling
from upfrost.network.graph import (
    INPUT,
    Add,
    Blocks,
    Clamp,
    Concat,
    Conv2d,
    Crop,
    GlobalMax,
    GlobalMean,
    Graph,
    GridSample,
    LayerNorm,
    LeakyRelu,
    MaxPool2d,
    Multiply,
    Node,
    Pad,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
    ResizeTo,
    Shape,
    Tensor,
    Unary,
    alignment,
    infer_shapes,
    stagger,
)

PICTURE_IN, PICTURE_OUT = 0, 1
_FIRST_VALUE = PICTURE_OUT + 1
BYTES_PER_SECOND = 2e9  # of memory, the slowest board's, to be safe
PICTURE_SAMPLES = SampleFormat()  # of grey and RGB
# Of the luma of RGB: of 8 bits in limited range, 256 greys would not come back.
_LUMA_BITS = 12
Rectifier = Relu | LeakyRelu | Prelu
# Functions that are not finite at 0, where the lanes beyond the last channel are: only
# the elementwise kernel clears those.
_INFINITE_AT_0 = ("reciprocal", "rsqrt")


@dataclass(frozen=True)
class Step:
    """One kernel's work: `node`, and the later nodes that its epilogue computes.

    It writes the value `output`. `other` names a second value, added or multiplied.
    """

    node: Node
    output: str
    other: str | None = None
    merge: Merge = "add_before"
    activation: Rectifier | Unary | None = None
    clamp: Clamp | None = None
    deconv4x4: bool = False  # and the pixel shuffle after it is a transposed one
    winograd: Blocks | None = None  # of a convolution by Winograd's method

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that the kernel reads."""
        return self.sources if self.other is None else (*self.sources, self.other)

    @property
    def sources(self) -> tuple[str, ...]:
        """Those of them that are not the epilogue's."""
        both = isinstance(self.node, Add | Multiply)
        return self.node.inputs[:1] if both else self.node.inputs


@dataclass(frozen=True)
class Tail:
    """The last kernel's work: shuffle `source` by `factor`, add `skip`, write bytes.

    It may be the last convolution's work as well: `step`, whose output `source` is.
    """

    source: str
    factor: int = 1
    skip: Resize | None = None
    step: Step | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that the kernel reads; of the picture it reads bytes."""
        skip = self.skip.inputs if self.skip else ()
        sources = self.step.inputs if self.step else (self.source,)
        return (*sources, *(name for name in skip if name != INPUT))


@dataclass(frozen=True)
class Program:
    """A network, fused and packed for a family of devices; good for every tile size."""

    graph: Graph
    steps: tuple[Step, ...]
    tail: Tail
    family: Family
    precision: Precision
    reading_sum: float  # of absolute weights; infinite where a step reads no samples
    tiling: Tiling  # of pictures, so that a tile's bits are those of the whole
    packed: Mapping[str, PackedConv]  # by node name
    slopes: Mapping[str, BufferSlice]  # of steps without products, by node name
    samples: SampleFormat = PICTURE_SAMPLES  # that the network reads and writes
    of_rgb: bool = False  # whether pictures are RGB, of which it computes the luma

    @property
    def unpacks(self) -> bool:
        """Whether samples become values before the first step.

        Where they do not, sums over samples stay within what half precision holds.
        """
        half = self.precision == "fp16"
        most = float(np.finfo(np.float16).max) if half else math.inf
        return not self.samples.full_scale * self.reading_sum < most

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights on the device."""
        parts = [*self.slopes.values()]
        for each in self.packed.values():
            parts += [each.weights, each.parameters]
        constants = {id(part.constant): part.constant for part in parts}
        return sum(constant.words.nbytes for constant in constants.values())


@dataclass(frozen=True)
class Plan:
    """The dispatches for one tile of `height` × `width` pixels, and their buffers.

    Buffers 0 and 1 are the pictures in host memory; the others hold values. `setup` is
    dispatched once, when the buffers have been made, `dispatches` once a tile.
    """

    network: str  # its name
    height: int
    width: int
    scale: int
    setup: tuple[Dispatch, ...]
    dispatches: tuple[Dispatch, ...]
    buffer_bytes: tuple[int, ...]
    given: tuple[HostPlane, ...]  # of the picture in buffer 0
    result: tuple[HostPlane, ...]  # of the one in buffer 1
    constant_bytes: int
    longest_dispatch: float  # seconds, by the family's estimate
    dispatch_seconds: tuple[float, ...]  # of each, memory's included
    precision: Precision
    views: Mapping[str, TensorView]  # of values, while their buffer is theirs

    @property
    def bytes(self) -> int:
        """Device bytes in all, weights included."""
        return self.own_bytes + self.constant_bytes

    @property
    def own_bytes(self) -> int:
        """Device bytes of values, and of pictures of two tiles in flight."""
        return own_bytes(self.buffer_bytes)


@dataclass(frozen=True)
class Footprint:
    """What a plan asks of a device. It is found without writing the dispatches down."""

    buffer_bytes: tuple[int, ...]
    constant_bytes: int
    longest_dispatch: float  # seconds at the least, however small its band of rows

    @property
    def bytes(self) -> int:
        """Device bytes in all, as `Plan` has them."""
        return own_bytes(self.buffer_bytes) + self.constant_bytes


def own_bytes(buffer_bytes: Sequence[int]) -> int:
    """Bytes of a plan's buffers, those of pictures twice: two tiles are in flight."""
    return sum(buffer_bytes) + sum(buffer_bytes[: PICTURE_OUT + 1])


def compile_graph(graph: Graph, family: Family, precision: Precision) -> Program:
    """Fuse a graph into steps and pack its weights.

    Raises `GraphError` for an operation without a kernel, and for weights that half
    precision cannot hold.
    """
    tail, in_tail = _match_tail(graph)
    fused = _fuse(graph, in_tail)
    blocks = _winograd_blocks(fused, graph, family, precision)
    steps = tuple(replace(step, winograd=blocks.get(step.node.name)) for step in fused)
    if _writes_luma(steps, tail, graph, family, precision):
        tail = replace(tail, step=steps[-1])
    packed, slopes = _pack(steps, tail, graph, family, precision)
    return Program(
        graph,
        steps,
        tail,
        family,
        precision,
        _reading_sum(steps, tail, packed),
        tiling(graph, blocks),
        packed,
        slopes,
    )


def _pack(
    steps: Sequence[Step],
    tail: Tail,
    graph: Graph,
    family: Family,
    precision: Precision,
) -> tuple[dict[str, PackedConv], dict[str, BufferSlice]]:
    """Constants by node name: convolutions', and slopes of steps without products.

    All weights lie in one buffer, all parameters in another.
    """
    packed: dict[str, PackedConv] = {}
    slopes: dict[str, BufferSlice] = {}
    channels = infer_channels(graph)
    for step in steps:
        values = _slopes(step.activation, channels[step.output], graph)
        if isinstance(step.node, Conv2d):
            weight = graph.tensors[step.node.weight]
            bias = graph.tensors[step.node.bias] if step.node.bias else None
            pack = convolutions.pack_conv
            if step is tail.step:
                weight = convolutions.luma_rows(tail.factor, weight)
                if bias is not None:
                    bias = convolutions.luma_rows(tail.factor, bias)
            if step.deconv4x4:
                pack = convolutions.pack_deconv4x4
            elif step.winograd:
                pack = partial(winograd.pack, family=family)
            packed[step.node.name] = pack(
                step.node, weight, bias, values, precision=precision
            )
        elif _is_elementwise(step.node):
            slopes[step.node.name] = convolutions.pack_parameters(
                channels[step.output], None, values
            )
        elif isinstance(step.node, LayerNorm):
            slopes[step.node.name] = convolutions.pack_parameters(
                channels[step.output],
                graph.tensors[step.node.bias],
                graph.tensors[step.node.weight],
            )
    weights = convolutions.share_constants(
        {name: each.weights for name, each in packed.items()},
        4 * _value_bytes(precision),
    )
    parameters = convolutions.share_constants(
        slopes | {name: each.parameters for name, each in packed.items()}, 16
    )
    packed = {
        name: replace(each, weights=weights[name], parameters=parameters[name])
        for name, each in packed.items()
    }
    return packed, {name: parameters[name] for name in slopes}


def for_rgb(program: Program) -> Program:
    """The program of a network of one channel, for pictures of RGB.

    It computes their luma, of limited range where it is a network for luma, of full
    range where it is one for grey. Colours are enlarged beside it.
    """
    limited = program.graph.colour == "luma"
    kind = FrameFormat(bits=_LUMA_BITS, range="limited" if limited else "full")
    return replace(
        program,
        samples=kind.samples,
        of_rgb=True,
        tiling=frame_tiling(program.tiling, FULL_CHROMA),
    )


def footprint(
    program: Program, height: int, width: int, chroma: ChromaFormat | None = None
) -> Footprint:
    """What tiles of `height` × `width` pixels ask of a device; of frames with `chroma`.

    Raises `GraphError` as `make_plan` does.
    """
    place = _arrange(program, height, width, chroma)
    return Footprint(
        place.buffer_bytes,
        program.constant_bytes,
        max(
            (
                convolutions.shortest_band_macs(
                    step.node,
                    program.graph.tensors[step.node.weight].shape,
                    place.layouts[step.sources[0]],
                    place.layouts[step.output],
                    program.family,
                    program.precision,
                    deconv4x4=step.deconv4x4,
                )
                for step in program.steps
                if isinstance(step.node, Conv2d)
            ),
            default=0,
        )
        / program.family.macs_per_second,
    )


def make_plan(
    program: Program, height: int, width: int, chroma: ChromaFormat | None = None
) -> Plan:
    """Dispatches and buffers for tiles of `height` × `width` pixels.

    With `chroma`, tiles are of frames, and so much of those' chroma comes and goes with
    them as belongs to their luma. Raises `GraphError` where the network cannot work on
    a picture of that size.
    """
    place = _arrange(program, height, width, chroma)
    dispatches = _dispatches(program, place, chroma)
    if program.of_rgb:
        dispatches = _by_luma(dispatches, program, place)
    computing = [d.macs / program.family.macs_per_second for d in dispatches]
    return Plan(
        network=program.graph.name,
        height=height,
        width=width,
        scale=program.graph.scale,
        setup=tuple(_setup(program, place)),
        dispatches=tuple(dispatches),
        buffer_bytes=place.buffer_bytes,
        given=place.given,
        result=place.result,
        constant_bytes=program.constant_bytes,
        longest_dispatch=max(computing),
        dispatch_seconds=tuple(
            seconds or _moving_seconds(dispatch, place.buffer_bytes)
            for seconds, dispatch in zip(computing, dispatches, strict=True)
        ),
        precision=program.precision,
        views=place.views,
    )


def _dispatches(
    program: Program, place: _Arrangement, chroma: ChromaFormat | None
) -> list[Dispatch]:
    """From the samples of buffer `PICTURE_IN` to those of `PICTURE_OUT`."""
    graph, samples, views = program.graph, program.samples, place.views
    scratch = range(_FIRST_VALUE + len(place.value_bytes), len(place.buffer_bytes))
    given = TensorView(PICTURE_IN, place.layouts[INPUT])
    dispatches = []
    if program.unpacks:
        dispatches.append(
            operations.unpack(
                given, views[INPUT], samples, graph.value_range, program.precision
            )
        )
    for step in program.steps:
        if step is not program.tail.step:
            dispatches += _step_dispatches(step, program, views, scratch)
    if chroma:
        dispatches.append(
            operations.chroma(
                place.given[1],
                place.result[1],
                (PICTURE_IN, PICTURE_OUT),
                chroma,
                samples,
                graph.scale,
                len(place.given) - 1,
            )
        )
    # The last one, since it answers for all of them: it carries the token.
    return [*dispatches, *_tail_dispatches(program, views, given, place.layouts)]


def _by_luma(
    dispatches: Sequence[Dispatch], program: Program, place: _Arrangement
) -> list[Dispatch]:
    """What computes a picture's luma, for pictures of RGB."""
    given, result = place.luma_buffers
    return [
        operations.luma_of_rgb(
            (PICTURE_IN, given), place.given[0], place.layouts[INPUT], program.samples
        ),
        *(_with_luma(dispatch, (given, result)) for dispatch in dispatches),
        operations.rgb_by_luma(
            (PICTURE_IN, result, PICTURE_OUT),
            place.given[0],
            place.result[0],
            program.samples,
            program.graph.scale,
        ),
    ]


def _setup(program: Program, place: _Arrangement) -> list[Dispatch]:
    """What clears the zeros before the first slice of each value, and of the luma.

    And all of a buffer whose margins nobody need write.
    """
    zeros = {view.buffer for view in place.views.values() if view.has_zeros}
    front = place.front * _value_bytes(program.precision)
    words = {
        number: whole // 4 if number in zeros else front
        for number, whole in enumerate(place.value_bytes, _FIRST_VALUE)
    }
    if program.of_rgb:
        luma = HEADER_BYTES + program.samples.bytes * place.front
        words[place.luma_buffers[0]] = luma // 4
    return [
        operations.clear(number, end, first)
        for number, end in words.items()
        for first in range(0, end, operations.CLEARED)
    ]


def _with_luma(dispatch: Dispatch, luma: tuple[int, int]) -> Dispatch:
    """The dispatch with the buffers `luma` in the place of the pictures."""
    pictures = {PICTURE_IN: luma[0], PICTURE_OUT: luma[1]}
    buffers = tuple(
        pictures.get(item, item) if isinstance(item, int) else item
        for item in dispatch.buffers
    )
    return replace(dispatch, buffers=buffers)


def _moving_seconds(dispatch: Dispatch, buffer_bytes: Sequence[int]) -> float:
    """What a dispatch takes that only moves values, if it moves all of its buffers."""
    moved = (buffer_bytes[item] for item in dispatch.buffers if isinstance(item, int))
    return sum(moved) / BYTES_PER_SECOND


def submissions(seconds: Sequence[float], most: float) -> list[range]:
    """Numbers of the dispatches that one command buffer each holds, in their order.

    As few as take `most` seconds at the most, by the estimate of each dispatch in
    `seconds`; a dispatch that takes longer is alone.
    """
    parts = []
    first, total = 0, 0.0
    for number, each in enumerate(seconds):
        if number > first and total + each > most:
            parts.append(range(first, number))
            first, total = number, 0.0
        total += each
    return [*parts, range(first, len(seconds))] if seconds else []


@dataclass(frozen=True)
class _Arrangement:
    """Where a plan's values lie, and the bytes of its buffers."""

    layouts: Mapping[str, Layout]
    front: int  # elements of zeros before the first slice of each
    views: Mapping[str, TensorView]
    value_bytes: Sequence[int]
    buffer_bytes: tuple[int, ...]  # of all: pictures, values, scratch, luma of RGB
    given: tuple[HostPlane, ...]
    result: tuple[HostPlane, ...]

    @property
    def luma_buffers(self) -> tuple[int, int]:
        """Of a picture of RGB, the luma that goes in and the one that comes out."""
        return len(self.buffer_bytes) - 2, len(self.buffer_bytes) - 1


def _arrange(
    program: Program, height: int, width: int, chroma: ChromaFormat | None
) -> _Arrangement:
    graph, samples = program.graph, program.samples
    pixel_bytes = graph.channels * samples.bytes
    shapes = infer_shapes(graph, height, width)
    layouts, front, overread = _layouts(program, shapes)
    views, value_bytes = _views(program, layouts, front + overread)
    # Steps follow each other, so that all can use the same.
    scratch_bytes = [
        max(sizes)
        for sizes in zip_longest(
            *(_scratch_bytes(step, program, layouts) for step in program.steps),
            fillvalue=0,
        )
    ]
    result, given = shapes[graph.output], layouts[INPUT]
    given_size = given_bytes(given, pixel_bytes, overread)
    result_size = result_bytes(result.width, result.height, pixel_bytes)
    if program.of_rgb:
        planes = _rgb_plane(height, width), _rgb_plane(result.height, result.width)
        # A word more, since a pixel's bytes are looked for in two.
        pictures = [4 + plane.offset + plane.stride * plane.height for plane in planes]
        return _Arrangement(
            layouts,
            front,
            views,
            value_bytes,
            (*pictures, *value_bytes, *scratch_bytes, given_size, result_size),
            planes[:1],
            planes[1:],
        )
    given_planes, given_end = _host_planes(
        HostPlane(
            HEADER_BYTES + pixel_bytes * given.base,
            pixel_bytes * given.stride,
            height,
            width * graph.channels,
            samples.bytes,
        ),
        given_size,
        chroma,
    )
    result_planes, result_end = _host_planes(
        HostPlane(
            HEADER_BYTES,
            4 * row_words(result.width, pixel_bytes),
            result.height,
            result.width * graph.channels,
            samples.bytes,
        ),
        result_size,
        chroma,
        graph.scale,
    )
    return _Arrangement(
        layouts,
        front,
        views,
        value_bytes,
        (given_end, result_end, *value_bytes, *scratch_bytes),
        given_planes,
        result_planes,
    )


def _rgb_plane(height: int, width: int) -> HostPlane:
    """A picture of RGB in host memory, its rows whole words."""
    return HostPlane(HEADER_BYTES, 4 * row_words(width, 3), height, 3 * width)


def _tail_dispatches(
    program: Program,
    views: Mapping[str, TensorView],
    given: TensorView,
    layouts: Mapping[str, Layout],
) -> Sequence[Dispatch]:
    """The dispatches that write the samples of the result."""
    graph, tail, samples = program.graph, program.tail, program.samples
    result = layouts[graph.output]
    if tail.step is None:
        resize = tail.skip
        known = {**views, INPUT: given}
        return [
            operations.pack(
                views[tail.source],
                (PICTURE_IN, PICTURE_OUT),
                (result.height, result.width),
                graph.channels,
                samples,
                factor=tail.factor,
                skip=(known[resize.inputs[0]], resize) if resize else None,
                value_range=graph.value_range,
                precision=program.precision,
            )
        ]
    node = tail.step.node
    assert isinstance(node, Conv2d)
    return convolutions.luma(
        Convolution(
            node,
            graph.tensors[node.weight].shape,
            program.packed[node.name],
            views[tail.step.sources[0]],
            TensorView(PICTURE_OUT, layouts[tail.source]),
            Epilogue(),
            program.family,
            program.precision,
        ),
        given,
        row_words(result.width, samples.bytes),
        samples,
        graph.value_range,
        factor=tail.factor,
        skip=tail.skip is not None,
    )


def _writes_luma(
    steps: Sequence[Step],
    tail: Tail,
    graph: Graph,
    family: Family,
    precision: Precision,
) -> bool:
    """Whether the last convolution can write samples of enlarged luma itself."""
    kernel = family.luma_kernel(tail.factor)
    if kernel is None or precision not in kernel.precisions or not steps:
        return False
    step, skip = steps[-1], tail.skip
    if step != _head(step.node) or not isinstance(step.node, Conv2d):
        return False
    shape = graph.tensors[step.node.weight].shape
    bilinear = skip is None or (
        skip.inputs == (INPUT,)
        and skip.mode == "bilinear"
        and skip.ratio == (tail.factor, 1)
    )
    return (
        graph.channels == 1
        and bilinear
        and step.output == tail.source
        and step.inputs != (INPUT,)
        and step.node.padding == (1, 1, 1, 1)
        and convolutions.is_plain(step.node)
        and shape[2:] == (3, 3)
        and shape[1] <= kernel.most
    )


def _host_planes(
    first: HostPlane, end: int, chroma: ChromaFormat | None, scale: int = 1
) -> tuple[tuple[HostPlane, ...], int]:
    """The planes of a picture in host memory, and the bytes of its buffer.

    `first` is that of luma or RGB, which ends at byte `end`. Chroma covers the last row
    and column of luma, and is `scale` times as large as before.
    """
    if chroma is None:
        return (first,), end
    planes = [first]
    rows, columns = (
        scale * -(-extent // scale // ratio)
        for extent, ratio in zip(
            (first.height, first.width), chroma.ratio[::-1], strict=True
        )
    )
    width = columns * chroma.components
    for _ in range(3 - chroma.components):
        stride = _round_up(width * first.sample_bytes, 4)
        plane = HostPlane(_round_up(end, 4), stride, rows, width, first.sample_bytes)
        planes.append(plane)
        end = plane.offset + stride * rows
    return tuple(planes), end


def _reading_sum(
    steps: Sequence[Step], tail: Tail, packed: Mapping[str, PackedConv]
) -> float:
    """The largest sum of absolute weights by which a convolution reads the picture.

    Infinite where a kernel reads it that cannot read samples.
    """
    if tail.source == INPUT:
        return math.inf
    readers = [step for step in steps if INPUT in step.inputs]
    return max(
        (
            packed[step.node.name].largest_sum
            if isinstance(step.node, Conv2d)
            and not step.deconv4x4
            and step.other != INPUT
            else math.inf
            for step in readers
        ),
        default=0.0,
    )


def _winograd_blocks(
    steps: Sequence[Step], graph: Graph, family: Family, precision: Precision
) -> dict[str, Blocks]:
    """The blocks of each convolution that is computed by Winograd's method."""
    sides = {}
    for step in steps:
        if not isinstance(step.node, Conv2d) or step.deconv4x4:
            continue
        shape = graph.tensors[step.node.weight].shape
        kernel = convolutions.conv_kernel(step.node, shape, family, precision)
        if kernel.source == "winograd":
            sides[step.node.name] = kernel.tile.width
    return stagger(graph, tile_step(graph, sides), sides)


def infer_channels(graph: Graph) -> dict[str, int]:
    """Channels of every value, whatever the picture's size."""
    size = 64 * alignment(graph)  # a size that every valid graph takes
    return {
        name: shape.channels for name, shape in infer_shapes(graph, size, size).items()
    }


# Fusion


def _match_tail(graph: Graph) -> tuple[Tail, set[str]]:
    """What of the graph's end the last kernel computes, and the nodes that it takes.

    [pixel shuffle] [+ picture or interpolated value] [clamp to the value range], from
    the end on.
    """
    nodes = {node.name: node for node in graph.nodes}
    uses = _uses(graph)
    taken: set[str] = set()
    value = graph.output

    def mine(name: str) -> Node | None:
        """The node `name`, if nobody but the node after it needs its value."""
        single = uses[name] == (0 if name == graph.output else 1)
        return nodes.get(name) if single else None

    node = mine(value)
    if isinstance(node, Clamp) and node.holds(graph.value_range):
        taken.add(value)
        value = node.inputs[0]
        node = mine(value)
    skip = None
    if isinstance(node, Add):
        for other, name in (node.inputs, node.inputs[::-1]):
            if name == INPUT != other:
                # The picture itself is the picture interpolated by a ratio of one.
                skip = Resize(name=name, inputs=(INPUT,), mode="nearest", ratio=(1, 1))
                taken.add(value)
                value = other
                node = mine(value)
                break
            candidate = mine(name)
            if isinstance(candidate, Resize):
                skip = candidate
                taken |= {value, name}
                value = other
                node = mine(value)
                break
    factor = 1
    if isinstance(node, PixelShuffle) and not (
        isinstance(before := mine(node.inputs[0]), Conv2d)
        and _is_deconv4x4(before, node, graph)
    ):
        factor = node.factor
        taken.add(value)
        value = node.inputs[0]
    return Tail(value, factor, skip), taken


def _fuse(graph: Graph, taken: set[str]) -> tuple[Step, ...]:
    """Nodes → steps, in an order in which every step finds its inputs computed.

    A step stands where the last node stands that it absorbed: a residual's other
    operand is an earlier value there.
    """
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    uses = _uses(graph)
    consumer = {name: node for node in graph.nodes for name in node.inputs}
    absorbed = set(taken)
    steps = []
    for node in graph.nodes:
        if node.name in absorbed:
            continue
        step = _head(node)
        while (
            uses[step.output] == 1
            and step.output != graph.output
            and (follower := consumer[step.output]).name not in absorbed
            and (longer := _absorb(step, follower, graph)) is not None
        ):
            absorbed.add(follower.name)
            step = longer
        steps.append(step)
    return tuple(sorted(steps, key=lambda step: position[step.output]))


def _head(node: Node) -> Step:
    match node:
        case Add():
            return Step(node, node.name, other=node.inputs[1])
        case Multiply():
            return Step(node, node.name, other=node.inputs[1], merge="multiply_before")
        case Relu() | LeakyRelu() | Prelu() | Unary():
            return Step(node, node.name, activation=node)
        case Clamp():
            return Step(node, node.name, clamp=node)
        case Conv2d() | Concat() | PixelShuffle() | Resize():
            return Step(node, node.name)
        case Pad() | Crop() | MaxPool2d() | GlobalMean() | GlobalMax():
            return Step(node, node.name)
        case ResizeTo() | LayerNorm() | GridSample():
            return Step(node, node.name)
    raise node.fail("there is no kernel for this operation")


def _is_deconv4x4(node: Conv2d, follower: PixelShuffle, graph: Graph) -> bool:
    """Whether the two are a transposed 4×4 convolution of stride 2."""
    weight = graph.tensors[node.weight]
    if follower.factor != 2 or convolutions.deconv4x4_phases(node, weight) is None:
        return False
    if node.bias is None:
        return True
    bias = graph.tensors[node.bias].reshape(-1, 4)
    return bool((bias == bias[:, :1]).all())


def _absorb(step: Step, follower: Node, graph: Graph) -> Step | None:
    """`step` with `follower` in its epilogue, or None where that cannot be."""
    if isinstance(follower, PixelShuffle) and step == _head(step.node):
        if isinstance(step.node, Conv2d) and _is_deconv4x4(step.node, follower, graph):
            return replace(step, output=follower.name, deconv4x4=True)
        return None
    convolution = isinstance(step.node, Conv2d)
    if not convolution and not _is_elementwise(step.node):
        return None
    if step.clamp is not None:
        return None
    match follower:
        case Unary() if convolution and follower.function in _INFINITE_AT_0:
            return None
        case Relu() | LeakyRelu() | Prelu() | Unary():
            if step.activation is None and step.merge.endswith("before"):
                return replace(step, output=follower.name, activation=follower)
        case Add() | Multiply() if step.other is None:
            mine = follower.inputs.index(step.output)
            return replace(
                step,
                output=follower.name,
                other=follower.inputs[1 - mine],
                merge=_merge(follower, step.activation is not None),
            )
        case Clamp():
            return replace(step, output=follower.name, clamp=follower)
    return None


def _merge(node: Add | Multiply, after: bool) -> Merge:
    if isinstance(node, Add):
        return "add_after" if after else "add_before"
    return "multiply_after" if after else "multiply_before"


def _is_elementwise(node: Node) -> bool:
    return isinstance(node, Add | Multiply | Relu | LeakyRelu | Prelu | Unary | Clamp)


def _uses(graph: Graph) -> Counter[str]:
    return Counter(name for node in graph.nodes for name in node.inputs)


def _slopes(
    activation: Rectifier | Unary | None, channels: int, graph: Graph
) -> Tensor | None:
    match activation:
        case None | Unary():
            return None
        case Relu():
            return np.zeros(channels, np.float32)
        case LeakyRelu():
            return np.full(channels, activation.slope, np.float32)
        case Prelu():
            slope = graph.tensors[activation.slope].astype(np.float32)
            return np.broadcast_to(slope, (channels,))


# Layout and buffers


def _layouts(
    program: Program, shapes: Mapping[str, Shape]
) -> tuple[dict[str, Layout], int, int]:
    """A layout for every value, the slices of zeros before the first plane, and those
    after the last, which a register tile at the lower right corner reads.

    Values of one size have one layout, so that a residual or a piece of a concatenation
    needs no other.
    """
    graph = program.graph
    margins: dict[tuple[int, int], int] = {}
    extents: dict[tuple[int, int], tuple[int, int]] = {}
    coverages = []
    for step in program.steps:
        for name in step.inputs:
            size = shapes[name].height, shapes[name].width
            padding = step.node.padding if isinstance(step.node, Conv2d) else (0,)
            # The transposed convolution reads up to two rows and columns more.
            margin = max(*padding, 2 if step.deconv4x4 else 0)
            # Its first blocks may begin before the first pixel's taps.
            lead = step.winograd.lead if step.winograd else 0
            margins[size] = max(margins.get(size, 0), margin + lead)
        if step.winograd:
            # Those pixels of the blocks are written, as zeros.
            size = shapes[step.output].height, shapes[step.output].width
            margins[size] = max(margins.get(size, 0), step.winograd.lead)
        if isinstance(step.node, Conv2d):
            weight = graph.tensors[step.node.weight]
            family = program.family
            if step.deconv4x4:
                x, y = family.deconv4x4.tile.coverage
                coverages.append((2 * x, 2 * y))
            elif step is program.tail.step and (
                kernel := family.luma_kernel(program.tail.factor)
            ):
                coverages.append(kernel.tile.coverage)
            else:
                plain = convolutions.conv_kernel(
                    step.node, weight.shape, family, program.precision
                )
                coverages.append(plain.tile.coverage)
            if step.winograd:
                source, result = shapes[step.sources[0]], shapes[step.output]
                size = source.height, source.width
                wanted = winograd.extent(
                    step.node, step.winograd, result.height, result.width
                )
                known = extents.get(size, wanted)
                extents[size] = max(known[0], wanted[0]), max(known[1], wanted[1])
    align_x, align_y = grid_alignment(coverages)
    strides = {}
    rows = {}
    for shape in shapes.values():
        size = shape.height, shape.width
        margin = margins.get(size, 0)
        height, width = extents.get(size, size)
        rows[size] = _round_up(max(shape.height + margin, height), align_y)
        strides[size] = _round_up(max(shape.width + margin, width), align_x)
    front = max(
        (margin * (strides[size] + 1) for size, margin in margins.items()), default=0
    )
    front = _round_up(front, 16)
    layouts = {
        name: Layout(
            base=front,
            stride=strides[shape.height, shape.width],
            plane=strides[shape.height, shape.width] * rows[shape.height, shape.width],
            width=shape.width,
            height=shape.height,
            channels=shape.channels,
        )
        for name, shape in shapes.items()
    }
    reaches = (
        convolutions.overread(step.node, layouts[step.sources[0]], layouts[step.output])
        for step in program.steps
        if isinstance(step.node, Conv2d)
        # A transposed one reads no more than its margin, which `front` holds.
        and not step.deconv4x4
        and graph.tensors[step.node.weight].shape[2:] == (3, 3)
    )
    return layouts, front, max([front, *reaches])


def _views(
    program: Program, layouts: Mapping[str, Layout], around: int
) -> tuple[dict[str, TensorView], list[int]]:
    """A view for every value that a step writes, and the bytes of each buffer.

    A buffer is given to another value once the last step that reads it is over; slices
    of a concatenation, until they are written. It has `around` slices more than its
    planes, before and after them.
    """
    inside = _place_concatenations(program, layouts)
    writes = _slice_writes(program, layouts, inside)
    last_read: dict[str, int] = {}
    end = len(program.steps)
    for index, step in enumerate(program.steps):
        last_read |= {_root(inside, name)[0]: index for name in step.inputs}
    last_read |= {_root(inside, name)[0]: end for name in program.tail.inputs}

    buffers: dict[str, int] = {}  # of roots
    sizes: list[int] = []
    free_from: list[int] = []  # step after which each buffer is free
    values = [(-1, INPUT)] if program.unpacks else []
    values += [
        (i, step.output)
        for i, step in enumerate(program.steps)
        if step is not program.tail.step
    ]
    guests: dict[str, int] = {}  # by the root that one is in: its last step
    for index, name in values:
        root, _ = _root(inside, name)
        if root in buffers:
            continue
        layout, until = layouts[root], last_read.get(root, index)
        host = next(
            (
                (host, first)
                for host in buffers
                if index < last_read.get(host, -1)
                and guests.get(host, -1) < index
                and layouts[host].same_rows(layout)
                and (first := _unwritten(writes[host], index, until)) is not None
                and first + layout.slices <= layouts[host].slices
            ),
            None,
        )
        if host is not None:
            inside[root] = host[0], 4 * host[1]
            guests[host[0]] = until
            continue
        elements = around + layout.slices * layout.plane
        size = elements * 4 * _value_bytes(program.precision)
        free = [i for i, until in enumerate(free_from) if until < index]
        if free:
            fitting = [i for i in free if sizes[i] >= size]
            number = (
                min(fitting, key=sizes.__getitem__)
                if fitting
                else max(free, key=sizes.__getitem__)
            )
            sizes[number] = max(sizes[number], size)
        else:
            number = len(sizes)
            sizes.append(size)
            free_from.append(0)
        free_from[number] = until
        buffers[root] = number
    alike = {
        number: all(
            layouts[first].same_rows(layouts[root])
            for first, root in pairwise(
                root for root, buffer in buffers.items() if buffer == number
            )
        )
        for number in range(len(sizes))
    }
    views = {INPUT: TensorView(PICTURE_IN, layouts[INPUT])}
    for _, name in values:
        root, channel = _root(inside, name)
        layout = layouts[root].channels_from(channel)
        views[name] = TensorView(
            _FIRST_VALUE + buffers[root],
            replace(layout, channels=layouts[name].channels),
            has_zeros=alike[buffers[root]],
        )
    return views, sizes


def _slice_writes(
    program: Program,
    layouts: Mapping[str, Layout],
    inside: Mapping[str, tuple[str, int]],
) -> dict[str, list[tuple[int, range]]]:
    """Of every root, which of its slices are written at which step."""
    writes: dict[str, list[tuple[int, range]]] = {}

    def add(index: int, value: str, begin: int, channels: int) -> None:
        root, channel = _root(inside, value)
        first, last = channel + begin, channel + begin + channels
        writes.setdefault(root, []).append((index, range(first // 4, -(-last // 4))))

    add(-1, INPUT, 0, layouts[INPUT].channels)
    for index, step in enumerate(program.steps):
        if not isinstance(step.node, Concat):
            add(index, step.output, 0, layouts[step.output].channels)
            continue
        begin = 0
        for name in step.node.inputs:
            channels = layouts[name].channels
            if inside.get(name) != (step.output, begin):  # it is copied
                add(index, step.output, begin, channels)
            begin += channels
    return writes


def _unwritten(
    writes: Sequence[tuple[int, range]], index: int, until: int
) -> int | None:
    """The slice from which on nothing is written before step `index`, nor to `until`.

    All slices before it are, since convolutions read the zeros at the end of the one
    before. None if there is no such slice.
    """
    before = [slices for step, slices in writes if step < index]
    first = max((slices.stop for slices in before), default=0)
    gaps = set(range(first)).difference(*before)
    busy = any(
        slices.stop > first and step <= until
        for step, slices in writes
        if step >= index
    )
    return None if gaps or busy else first


def _place_concatenations(
    program: Program, layouts: Mapping[str, Layout]
) -> dict[str, tuple[str, int]]:
    """Values that their producer writes into a concatenation: which, at which channel.

    A piece can be written in place where it begins at a whole slice. What lies before
    its first slice must be there before it, since convolutions read the zeros at that
    slice's end: so the pieces before it have to be in place and written earlier.
    """
    first_write = {INPUT: -1}
    complete = {INPUT: -1}
    for index, step in enumerate(program.steps):
        first_write[step.output] = complete[step.output] = index
        if isinstance(step.node, Concat):
            first_write[step.output] = min(first_write[n] for n in step.node.inputs)
    inside: dict[str, tuple[str, int]] = {}
    for step in reversed(program.steps):
        if not isinstance(step.node, Concat):
            continue
        channel = 0
        before: str | None = None
        pieces = Counter(step.node.inputs)
        for name in step.node.inputs:
            in_place = (
                channel % 4 == 0
                and name not in inside
                and pieces[name] == 1
                and (before is None or first_write[name] > complete[before])
            )
            if not in_place:
                break
            inside[name] = (step.output, channel)
            channel += layouts[name].channels
            before = name
    return inside


def _root(inside: Mapping[str, tuple[str, int]], name: str) -> tuple[str, int]:
    """The value in whose buffer `name` lies, and its first channel there."""
    channel = 0
    while name in inside:
        name, offset = inside[name]
        channel += offset
    return name, channel


def _scratch_bytes(
    step: Step, program: Program, layouts: Mapping[str, Layout]
) -> tuple[int, ...]:
    """Bytes of the buffers that a step needs for itself."""
    node, layout = step.node, layouts[step.output]
    match node:
        case GlobalMean() | GlobalMax():
            return (operations.sums_bytes(layout.channels),)
        case Conv2d() if step.winograd:
            return winograd.scratch_bytes(
                node,
                program.graph.tensors[node.weight].shape,
                layout,
                program.family,
                program.precision,
            )
    return ()


def _step_dispatches(
    step: Step,
    program: Program,
    views: Mapping[str, TensorView],
    scratch: Sequence[int],
) -> Sequence[Dispatch]:
    """The dispatches of a step: one; several bands of rows for a convolution that takes
    long, and three of each by Winograd's method; for a concatenation one per piece to
    copy, two for a mean. `scratch` are buffers for the step itself."""
    node, precision, samples = step.node, program.precision, program.samples
    unit = program.graph.value_range / samples.full_scale
    target = views[step.output]
    sources = [views[name] for name in step.sources]
    epilogue = Epilogue(
        other=views[step.other] if step.other else None,
        merge=step.merge,
        activation=_activation(step.activation),
    )
    if step.clamp:
        epilogue = replace(epilogue, low=step.clamp.low, high=step.clamp.high)
    match node:
        case Conv2d():
            of_bytes = sources[0].buffer == PICTURE_IN
            compute = convolutions.conv
            if step.deconv4x4:
                compute = convolutions.deconv4x4
            elif step.winograd:
                compute = winograd.conv
            return compute(
                Convolution(
                    node,
                    program.graph.tensors[node.weight].shape,
                    program.packed[node.name],
                    sources[0],
                    target,
                    epilogue,
                    program.family,
                    precision,
                    unit if of_bytes else None,
                    samples.pixel_format(sources[0].layout.channels),
                    tuple(scratch),
                    step.winograd.lead if step.winograd else 0,
                )
            )
        case Concat():
            return _gathers(node, sources, target, precision)
        case PixelShuffle():
            return [
                operations.pixel_shuffle(
                    node.name, node.factor, sources[0], target, precision
                )
            ]
        case Resize():
            return [operations.resize(node, sources[0], target, precision)]
        case Pad() | Crop():
            return [operations.pad(node, sources[0], target, precision)]
        case MaxPool2d():
            return [operations.max_pool(node, sources[0], target, precision)]
        case GlobalMean() | GlobalMax():
            return operations.over_picture(
                node, sources[0], target, scratch[0], precision
            )
        case LayerNorm():
            parameters = program.slopes[node.name]
            return [
                operations.layer_norm(node, parameters, sources[0], target, precision)
            ]
        case ResizeTo():
            return [operations.resize_to(node, sources[0], target, precision)]
        case GridSample():
            return [operations.grid_sample(node, sources, target, precision)]
        case _:
            return [
                operations.elementwise(
                    node.name,
                    program.slopes[node.name],
                    sources[0],
                    target,
                    epilogue,
                    precision,
                )
            ]


def _activation(node: Rectifier | Unary | None) -> str | None:
    if isinstance(node, Unary):
        return node.function
    return None if node is None else "rectify"


def _gathers(
    node: Concat,
    sources: Sequence[TensorView],
    target: TensorView,
    precision: Precision,
) -> list[Dispatch]:
    dispatches = []
    channel = 0
    for source in sources:
        layout = target.layout.channels_from(channel)
        in_place = (
            channel % 4 == 0
            and source.buffer == target.buffer
            and source.layout.base == layout.base
        )
        if not in_place:
            dispatches.append(
                operations.gather(node.name, source, target, channel, precision)
            )
        channel += source.layout.channels
    return dispatches


def _value_bytes(precision: Precision) -> int:
    return 2 if precision == "fp16" else 4


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
