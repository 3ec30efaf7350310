"""ncnn models, a text `.param` with its `.bin`, into graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from upfrost import __version__
from upfrost.network.graph import INPUT, Graph, GraphError
from upfrost.network.reference import Array
from upfrost_exporter import lowering, passes
from upfrost_exporter.builder import (
    ExportError,
    GraphBuilder,
    check_is_network,
    unique_name,
    whole_scale,
)
from upfrost_exporter.check import Report, fits_full_size, verify, verify_large
from upfrost_exporter.ncnn_file import Layer, Weights, parse, read
from upfrost_exporter.ncnn_operations import Call, Given, advice, shape_of, translate

# Large enough that networks without padding leave something.
_EXAMPLE = (192, 256)
# What pnnx, and programs that run such networks, call a network's result.
_RESULTS = ("out0", "output", "out")
_MAX_SIDE = 1 << 12  # of pictures of one size alone
_MAX_TEXT = 4 << 20
_MAX_WEIGHTS = 1 << 29


def read_ncnn(
    param: str | Path,
    weights: str | Path | None = None,
    *,
    name: str | None = None,
    channels: int | None = None,
    value_range: float = 1.0,
    metadata: Mapping[str, object] | None = None,
    report: Report | None = None,
) -> Graph:
    """The network in an ncnn pair, checked against ncnn itself on the CPU.

    `weights` is the `.bin` beside `param` unless it is given. The network maps
    `channels` × height × width from 0 to `value_range` to the same times an integer
    scale; `channels` are what its first convolution takes unless they are given. A
    network that pads nothing, as waifu2x's, gives less than that: it gets the picture
    with its edges repeated by as much, as its own programs do. Raises `ExportError` for
    a damaged file, for what cannot be carried, naming the first layer in the way, and
    for results that differ.
    """
    param = Path(param)
    weights = param.with_suffix(".bin") if weights is None else Path(weights)
    check_is_network(param, is_text=True)
    layers = parse(read(param, _MAX_TEXT), param)
    # There are layers without weights.
    check_is_network(weights, may_be_empty=True)
    data = read(weights, _MAX_WEIGHTS)
    counts = (channels,) if channels else _picture_channels(layers)

    def translated(count: int, *others: int) -> _Translation:
        try:
            return _Translation(layers, Weights(data, weights), count)
        except ExportError:
            if others:
                with suppress(ExportError):
                    return translated(*others)
            raise

    translation = translated(*counts)
    shapes = translation.builder.shapes
    channels = shapes[INPUT].channels
    scale, margin = lowering.scale_and_margin(shapes[INPUT], shapes[translation.output])
    if margin:
        reader = Weights(data, weights)
        translation = _Translation(layers, reader, channels, margin)

    def finished(translation: _Translation) -> Graph:
        graph = translation.builder.graph(
            translation.output,
            name=name or unique_name(param.stem, ()),
            scale=whole_scale(scale),
            value_range=value_range,
            metadata={
                "source": param.name,
                "generator": f"upfrost {__version__}",
                **(metadata or {}),
            },
        )
        return passes.clean(graph)

    def again(*size: int) -> Graph:
        reader = Weights(data, weights)
        return finished(_Translation(layers, reader, channels, margin, size))

    graph = finished(translation)
    names = (translation.input_blob, translation.output_blob)
    runtime = _runtime(param, weights, *names)

    def source(picture: Array) -> Array:
        around = ((0, 0), (margin, margin), (margin, margin))
        return runtime(np.pad(picture, around, "edge"))

    sizes = [translation.size] if translation.size else None
    if sizes and not fits_full_size(graph, *sizes[0]):
        height, width = sizes[0]
        raise ExportError(
            f"{param}: the network is for {width}×{height} pixels alone, which is too "
            "much to compare: export it for a smaller picture"
        )
    graph = verify(graph, source, report=report, sizes=sizes)
    if not sizes:
        verify_large(graph, source, again)
    return graph


def _picture_channels(layers: Sequence[Layer]) -> Sequence[int]:
    """Channels that the picture may have, by what the first convolution of it takes.

    Those that are likelier come first.
    """
    # By blob, how many times the picture's channels it has.
    times: dict[str, Fraction] = {}
    for layer in layers:
        if layer.kind == "Input":
            times.update(dict.fromkeys(layer.outputs, Fraction(1)))
        given = [times[blob] for blob in layer.inputs if blob in times]
        if not given:
            continue
        if layer.kind == "Convolution":
            width = layer.integer(1, 0)
            taps = width * layer.integer(11, width)
            outputs = max(1, taps * layer.integer(0, 0))
            count = Fraction(layer.integer(6, 0), outputs) / given[0]
            return (1,) if count == 1 else (3,)
        found = _times(layer, given)
        if found is not None:
            times.update(dict.fromkeys(layer.outputs, found))
    return 3, 1


# Layers whose results have as many channels as what they are given.
_KEEP_CHANNELS = {
    *("BatchNorm", "BinaryOp", "Clip", "Dropout", "Eltwise", "Interp", "Noop"),
    *("PReLU", "Padding", "Pooling", "ReLU", "Scale", "Sigmoid", "Split", "TanH"),
    "UnaryOp",
}


def _times(layer: Layer, given: Sequence[Fraction]) -> Fraction | None:
    """How many times the picture's channels a layer gives; None where it is unknown."""
    match layer.kind:
        case "Concat" if len(given) == len(layer.inputs):
            return sum(given, Fraction(0)) if layer.integer(0, 0) == 0 else given[0]
        case "Reorg":
            return given[0] * layer.integer(0, 1) ** 2
        case "PixelShuffle":
            return given[0] / max(1, layer.integer(0, 1)) ** 2
    return max(given) if layer.kind in _KEEP_CHANNELS else None


class _Translation:
    """Walks the layers and builds the graph; `output` names the result."""

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Weights,
        channels: int,
        margin: int = 0,
        size: tuple[int, ...] | None = None,
    ) -> None:
        samples = any(layer.kind == "GridSample" for layer in layers)
        self.size = _size_of_grid(layers) if samples else None
        self.builder = GraphBuilder(channels, *(size or self.size or _EXAMPLE))
        self._values: dict[str, Given] = {}
        inputs = [layer for layer in layers if layer.kind == "Input"]
        if len(inputs) != 1 or len(inputs[0].outputs) != 1:
            raise ExportError(f"the network has {len(inputs)} inputs, not one")
        self.input_blob = inputs[0].outputs[0]
        for layer in layers:
            # What pnnx left as PyTorch's runs nowhere, whatever else stands before it.
            if "." in layer.kind:
                raise layer.refuse("it is no layer of ncnn's", advice(layer.kind))
        for layer in layers:
            if layer.kind == "Input":
                padded = lowering.padded_input(self.builder, margin)
                self._values[self.input_blob] = padded
                continue
            for blob in layer.inputs:
                if blob not in self._values:
                    raise layer.refuse(f"no earlier layer gives its input {blob!r}", "")
            values = [self._values[blob] for blob in layer.inputs]
            try:
                call = Call(self.builder, layer, values, weights, samples)
                results = translate(call)
            except ExportError:
                raise
            # ValueError: of an expression that is none.
            except (GraphError, ValueError) as error:
                raise layer.refuse(str(error), "") from None
            self._values.update(zip(layer.outputs, results, strict=False))
        weights.end()
        read = {blob for layer in layers for blob in layer.inputs}
        loose = [blob for blob in self._values if blob not in read]
        # Of what no layer reads that is the picture which is called so.
        named = [blob for blob in loose if blob in _RESULTS]
        if len(loose) != 1 and len(named) == 1:
            loose = named
        if len(loose) != 1:
            shown = ", ".join(map(repr, loose[:4]))
            raise ExportError(
                f"the network has {len(loose)} outputs, not one: {shown}; of several "
                f"the one that is called {' or '.join(_RESULTS)} is taken"
            )
        self.output_blob = loose[0]
        output = self._values[loose[0]]
        if not isinstance(output, str):
            shape = shape_of(self.builder, output)
            raise ExportError(
                f"the network's result has the shape {shape}: upfrost takes networks "
                "that give a picture"
            )
        self.output = output


def _size_of_grid(layers: Sequence[Layer]) -> tuple[int, int] | None:
    """Height and width for which pnnx wrote the places of pixels down, None if it did
    not: such a file is for pictures of that size alone."""
    for layer in layers:
        if layer.kind == "MemoryData":
            columns, rows = layer.integer(0, 0), layer.integer(1, 0)
            if 1 < rows <= _MAX_SIDE and 1 < columns <= _MAX_SIDE:
                return rows, columns
    return None


def _runtime(
    param: Path, weights: Path, input_blob: str, output_blob: str
) -> Callable[[Array], Array]:
    """The network in ncnn on the CPU, in float32 and without approximations."""
    try:
        import ncnn
    except ImportError:
        raise ExportError("the check needs ncnn: pip install ncnn") from None
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    # They would make float32 results less exact.
    for approximation in (
        "use_winograd_convolution",
        "use_fp16_packed",
        "use_fp16_storage",
        "use_fp16_arithmetic",
        "use_bf16_storage",
    ):
        setattr(net.opt, approximation, False)
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise ExportError(f"{param}: ncnn refuses the model")

    def run(picture: Array) -> Array:
        extractor = net.create_extractor()
        extractor.input(input_blob, ncnn.Mat(np.ascontiguousarray(picture)).clone())
        status, result = extractor.extract(output_blob)
        if status:
            raise ExportError(f"{param}: ncnn cannot run the model")
        return np.array(result)

    return run
