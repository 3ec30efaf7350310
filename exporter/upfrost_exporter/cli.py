"""The command `upfrost export`: networks from elsewhere into weight files, and back."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from upfrost.cli import arguments
from upfrost.errors import UsageError
from upfrost.files import check_file
from upfrost.network.graph import (
    MAX_SIZE,
    Conv2d,
    Graph,
    GraphError,
    alignment,
    macs_per_output_pixel,
    parameter_count,
    receptive_field,
)
from upfrost.network.modelfile import (
    ModelFileError,
    find_model,
    read_model,
    write_model,
)
from upfrost_exporter import passes
from upfrost_exporter.builder import ExportError
from upfrost_exporter.check import mark_precision
from upfrost_exporter.mpv import FORMS, write_shader
from upfrost_exporter.quiet import quiet

_INSTALL = ".venv/bin/pip install -e '.[export]'"
# What can be written, and how such a file's name ends.
_SUFFIXES = {"upf": ".upf", "onnx": ".onnx", "mpv": ".glsl"}
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")
# Bytes of a result on a device in fp32 and those of the reference: an exact tie may
# round to the other side.
_MAX_OFF = 1

DESCRIPTION = """\
Turn a network into a weight file that upfrost runs: an ONNX model, an ncnn
.param with its .bin, or a PyTorch checkpoint whose architecture spandrel knows.
The result is compared with the source's own runtime before anything is written.

With --to onnx, turn a weight file or a bundled model into an ONNX model; with
--to mpv, into a shader for mpv and other players (docs/players.md)."""

EPILOG = """\
examples:
  upfrost export 4x_model.pth                 4x_model.upf beside it
  upfrost export realesr-animevideov3-x2.param -o anime-x2.upf
  upfrost export model.onnx --precision fp16 --check photo.jpg
  upfrost export --to onnx realtime-x2 -o realtime-x2.onnx
  upfrost export --to mpv realtime-x2          realtime-x2.glsl"""


def add_export(commands: Any) -> None:
    """Add `export` to what `ArgumentParser.add_subparsers` returned."""
    parser = commands.add_parser(
        "export",
        help="turn a network from elsewhere into a weight file",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=".onnx, .param, .pth, .pt, .ckpt or .safetensors; with --to onnx or mpv "
        "a .upf file, or a name from 'upfrost models'",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="beside the source if left out",
    )
    parser.add_argument(
        "--to",
        choices=tuple(_SUFFIXES),
        default="upf",
        help="what to write (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        default=FORMS[0],
        help="with --to mpv: fragment shaders, for every player, or compute shaders, "
        "for Vulkan and OpenGL 4.3 (default: %(default)s)",
    )
    parser.add_argument(
        "--scale", type=int, metavar="N", help="refuse a network of another scale"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of the weights in the file (default: %(default)s)",
    )
    parser.add_argument("--name", help="of the network, as `upfrost info` shows it")
    parser.add_argument(
        "--licence", help="of the weights, as an SPDX expression; kept in the file"
    )
    parser.add_argument(
        "--value-range",
        type=int,
        choices=(1, 255),
        help="the network's number for white, for ONNX and ncnn (default: 1)",
    )
    parser.add_argument(
        "--luma",
        action="store_true",
        help="its one channel is luma as video has it, 16 to 235 of 255, not grey",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that exists"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="PICTURE",
        help="run it on the Vulkan device too, on this picture",
    )
    arguments.add_device_argument(parser)
    arguments.add_memory_argument(parser)
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    try:
        with quiet():
            graph, output = _load(options)
        if options.check:
            graph, equal = _check_on_device(graph, options)
            print(f"{'device':16}{equal}")
        for label, value in _describe(graph):
            print(f"{label:16}{value}")
        if options.to == "onnx":
            from upfrost_exporter.onnx_backend import write_onnx

            write_onnx(graph, output, overwrite=options.overwrite)
        elif options.to == "mpv":
            write_shader(graph, output, options.form, overwrite=options.overwrite)
        else:
            write_model(output, graph, overwrite=options.overwrite)
    except (ExportError, GraphError, ModelFileError) as error:
        print(f"upfrost: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"upfrost: {error}: {_INSTALL}", file=sys.stderr)
        return 1
    print(f"{'written':16}{output}")
    return 0


def _load(options: argparse.Namespace) -> tuple[Graph, Path]:
    """The graph as it is to be written, and where."""
    source = _source(options)
    suffix = _SUFFIXES[options.to]
    output: Path = options.output or source.with_suffix(suffix)
    try:
        check_file(output, overwrite=options.overwrite, read=_inputs(options, source))
    except UsageError as error:
        raise ExportError(str(error)) from None
    others = {*_SUFFIXES.values(), ".param", ".bin", *_CHECKPOINTS} - {suffix}
    if output.suffix.lower() in others:
        raise ExportError(
            f"{output}: the name is another kind's; --to {options.to} writes {suffix}, "
            f"and --to takes {', '.join(_SUFFIXES)}"
        )
    graph = _read(options, source)
    if options.scale is not None and options.scale != graph.scale:
        raise ExportError(
            f"{source}: the network is ×{graph.scale}, not ×{options.scale}"
        )
    metadata = dict(graph.metadata)
    if options.licence:
        metadata["licence"] = options.licence
    graph = dataclasses.replace(
        graph,
        name=options.name or graph.name,
        metadata=metadata,
        colour="luma" if options.luma else graph.colour,
    )
    if options.precision == "fp16":
        graph = passes.round_tensors(graph)
    return graph, output


def _source(options: argparse.Namespace) -> Path:
    """The file to read: of ncnn's two the `.param`, to convert back a weight file."""
    if options.to != "upf":
        return Path(find_model(options.source).name)
    source = Path(options.source)
    # A binary .param.bin is refused by its content.
    is_binary = source.name.endswith(".param.bin")
    is_weights = source.suffix.lower() == ".bin" and not is_binary
    return source.with_suffix(".param") if is_weights else source


def _inputs(options: argparse.Namespace, source: Path) -> list[Path]:
    """All files that are read."""
    if options.to != "upf":
        return [find_model(options.source)]
    weights = [source.with_suffix(".bin")] if source.suffix.lower() == ".param" else []
    return [source, *weights, *([options.check] if options.check else [])]


def _read(options: argparse.Namespace, source: Path) -> Graph:
    """The graph in the source, compared with the source's own runtime."""
    suffix = source.suffix.lower()

    def report(difference: float) -> None:
        print(f"{'checked':16}differs by {difference:.1e} of the range at most")

    value_range = options.value_range
    if options.to != "upf":
        if value_range is not None:
            raise UsageError(
                f"--value-range {value_range}: a weight file says itself what white "
                "is; leave it out"
            )
        return read_model(find_model(options.source))
    if suffix == ".onnx":
        from upfrost_exporter.onnx_frontend import read_onnx

        return read_onnx(source, value_range=value_range, report=report)
    if suffix in (".param", ".bin"):
        from upfrost_exporter.ncnn_frontend import read_ncnn

        return read_ncnn(source, value_range=float(value_range or 1), report=report)
    if suffix in _CHECKPOINTS:
        if value_range not in (None, 1):
            raise UsageError(
                f"--value-range {value_range}: networks in checkpoints take values "
                "from 0 to 1, as spandrel builds them; leave it out"
            )
        try:
            from upfrost_exporter.spandrel_frontend import read_checkpoint
        except ImportError as error:
            raise ExportError(
                f"reading checkpoints needs PyTorch ({error}): {_INSTALL}, then "
                ".venv/bin/pip install --no-deps spandrel"
            ) from None
        return read_checkpoint(source, report=report)
    raise ExportError(
        f"{source}: unknown kind of network: upfrost reads .onnx, ncnn's .param and "
        f"PyTorch's {', '.join(_CHECKPOINTS)}"
    )


def _describe(graph: Graph) -> Iterator[tuple[str, str]]:
    height, width = receptive_field(graph)
    is_whole = max(height, width) > MAX_SIZE
    field = "the whole picture" if is_whole else f"{width}×{height} pixels"
    yield "name", graph.name
    yield "scale", f"×{graph.scale}"
    convolutions = sum(isinstance(node, Conv2d) for node in graph.nodes)
    yield "layers", f"{len(graph.nodes):,}, of them {convolutions:,} convolutions"
    yield "parameters", f"{parameter_count(graph):,}"
    yield "work", f"{macs_per_output_pixel(graph):,.0f} MACs per output pixel"
    yield "receptive field", field
    if note := graph.metadata.get("quantised"):
        yield "weights", f"{note}"
    if _no_kernel(graph) is None:
        yield from _costs(graph)
    if (step := alignment(graph)) > 1:
        yield (
            "sides",
            f"multiples of {step} pixels; others are filled up by repeating the last "
            "row and column, which the source may do otherwise",
        )
    if reason := graph.metadata.get("precision_reason"):
        yield "precision", f"fp32 on every device: {reason}"
    if reason := _no_kernel(graph):
        yield "note", f"upfrost cannot run it yet: {reason}"


def _costs(graph: Graph) -> Iterator[tuple[str, str]]:
    """Memory, and time by the model of docs/mali.md, on a GPU."""
    from upfrost.gpu.budget import MOST_MEMORY
    from upfrost.gpu.costs import BOARDS
    from upfrost_exporter import costs

    precision = costs.precision_of(graph)
    tile = costs.smallest_tile(graph, precision)
    if tile is None:
        needed = costs.whole_picture_bytes(graph, precision)
        yield (
            "memory",
            f"{_megabytes(needed)} for 1920×1080 pixels, without tiles; less with "
            "seams (--halo 32)",
        )
    else:
        side, size = tile.side, _megabytes(tile.bytes)
        words = f"{side}×{side} pixels, {size} in {precision} on Mali"
        if not tile.fits:
            words += (
                f", more than the {_megabytes(MOST_MEMORY)} that upfrost takes "
                f"unasked: --memory {math.ceil(tile.bytes / 1e6)}, or seams by a "
                "smaller halo: --halo 32"
            )
        yield "smallest tile", words
    for board in BOARDS:
        found = costs.estimate(graph, board, precision)
        longest = ", ".join(f"{label} {part:.0%}" for label, part in found.layers[:3])
        words = f"{_seconds(found.seconds)} by the cost model; most of it {longest}"
        if found.unknown:
            words += f"; without {', '.join(found.unknown)}, which it does not know"
        yield f"1080p on {board}", words


def _megabytes(count: int) -> str:
    if count < 1e5:
        return f"{count / 1e3:.0f} KB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def _seconds(count: float) -> str:
    return f"{1e3 * count:.0f} ms" if count < 1 else f"{count:.1f} s"


def _no_kernel(graph: Graph) -> str | None:
    """Why no device can run the graph, or None."""
    from upfrost.gpu.families import FAMILIES
    from upfrost.gpu.plan import compile_graph

    try:
        # All families know the same operations.
        compile_graph(graph, FAMILIES[0], "fp32")
    except GraphError as error:
        return str(error)
    return None


def _check_on_device(graph: Graph, options: argparse.Namespace) -> tuple[Graph, str]:
    """Compare the device's bytes with the reference's. Raises `ExportError`.

    Returns the graph, marked as `mark_precision` does, and what was found.
    """
    from upfrost.gpu import device
    from upfrost.gpu.tiles import align
    from upfrost.gpu.upscaler import Upscaler
    from upfrost.image.images import PictureError, read_picture
    from upfrost.network import reference

    path: Path = options.check
    try:
        picture = read_picture(path).rgb
        if graph.channels == 1:
            picture = picture[..., 1:2]
        with Upscaler(
            graph, device=options.device, precision="fp32", memory=options.memory
        ) as upscale:
            found, name = upscale(picture), upscale.device.name
            # As the device gets it.
            aligned = align(picture, upscale.tiling)
    except (PictureError, device.DeviceError) as error:
        raise ExportError(str(error)) from None
    values = reference.evaluate(graph, reference.from_bytes(graph, aligned))
    expected = reference.to_bytes(graph, values[graph.output])
    expected = expected[: found.shape[0], : found.shape[1]]
    off = np.abs(found.astype(np.int16) - expected)
    if off.max() > _MAX_OFF:
        raise ExportError(
            f"{name} is off by {off.max()} of 255 on {path}: this is a fault of "
            "upfrost or of the driver, please report it"
        )
    others = np.count_nonzero(off)
    words = f"off by 1 in {others:,} of" if others else "equal in all"
    return mark_precision(graph, values), f"{name}: {words} {off.size:,} bytes"
