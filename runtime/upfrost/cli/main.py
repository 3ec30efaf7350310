"""The command `upfrost`: arguments in, exit codes and single-line errors out.

Each command imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from upfrost import __version__
from upfrost.cli import arguments
from upfrost.cli.arguments import Parser
from upfrost.cli.check import add_check
from upfrost.cli.compare import add_compare
from upfrost.cli.evaluate import add_eval
from upfrost.cli.serve import add_serve
from upfrost.cli.signals import Stopped, prompt_stop
from upfrost.cli.tune import add_tune
from upfrost.cli.video import add_video
from upfrost.errors import UpfrostError, UsageError

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands

# Other packages of the project add commands through entry points of this group: each
# names a function that gets the object of `add_subparsers` and adds its parser with
# `set_defaults(run=…)`, a function from the arguments to the exit code.
COMMAND_GROUP = "upfrost.commands"

EXIT_CODES = """\
exit codes:
  0    all is done
  1    a picture, a model or the device failed; the line on stderr says why
  2    the command line asks for what cannot be; nothing was done
  129, 130, 143
       stopped by SIGHUP, Ctrl-C, SIGTERM; no half file is left

UPFROST_TRACEBACK=1 in the environment shows where an error comes from."""

UPSCALE_HELP = """\
Upscale pictures: PNG, JPEG, WebP, TIFF, BMP. Without -o, photo.jpg becomes
photo-x2.jpg beside it."""

UPSCALE_EPILOG = (
    """\
examples:
  upfrost upscale photo.jpg                  photo-x2.jpg beside it
  upfrost upscale photo.jpg -o large.png     another name and format
  upfrost upscale holiday/ -o large/         every picture of a folder
  upfrost upscale 'scans/*.tif' --format png
  upfrost upscale -r photos/ -o large/ --skip-existing
                                             go on after an interruption
  upfrost upscale *.png --json | jq .seconds

what becomes of a picture:
  The name's suffix decides the format. JPEG is written at quality 95 with
  colour at full resolution, WebP lossless, both at --quality if given; TIFF
  compressed without loss. The orientation tag is applied to the pixels.
  Colour profile, EXIF and XMP (without thumbnails) and resolution are kept.
  Grey runs through the network as RGB and comes back grey. Alpha is enlarged
  by bicubic; colours under fully transparent pixels are taken from nearby.
  Palettes become RGB. 16 bits a channel are reduced to 8, CMYK becomes RGB,
  of several pictures in a file the first is used: each is said on stderr.
  In a folder, hidden files and earlier results (photo-x2.jpg beside
  photo.jpg, or with -r below any folder in it) are left out.

--json prints an object for each picture on a line of stdout: input, output,
status (done, skipped, failed), error, sizes, model, device, precision, tiles,
their overhead (pixels computed for each of the picture), seam (with --halo,
the largest difference at one, of 255), seconds for each phase, notes. All
else goes to stderr.

"""
    + EXIT_CODES
)

MAIN_EPILOG = (
    """\
examples:
  upfrost upscale photo.jpg            photo-x2.jpg beside it
  upfrost video clip.mp4 clip-x2.mp4
  upfrost check                        does it work here, and how fast?
  upfrost COMMAND --help               options, examples and what happens

"""
    + EXIT_CODES
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    # A file name need not be valid in the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with prompt_stop(_clean_up):
            parser = command_parser(words)
            options = parser.parse_args(words)
            if options.run is None:
                parser.print_help(sys.stderr)
                return 2
            code: int = options.run(options)
            sys.stdout.flush()
            return code
    except Stopped as stop:
        return _fail(stop.code, f"stopped by {stop}")
    except KeyboardInterrupt:  # before signals were ours
        return _fail(128 + signal.SIGINT, "stopped by SIGINT")
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    """Say what went wrong in one line; the exit code."""
    if os.environ.get("UPFROST_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, ImportError):
        return _fail(1, f"{error}; {missing_module(error)}")
    if isinstance(error, UpfrostError):
        return _fail(2 if isinstance(error, UsageError) else 1, str(error))
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{_plain(error.filename)}: "
        return _fail(1, where + error.strerror)
    name = type(error).__name__
    return _fail(1, f"{name}: {error} (UPFROST_TRACEBACK=1 shows where)")


def missing_module(error: ImportError) -> str:
    """What to do about a module that is not there, or does not load."""
    if error.name == "kp":
        return (
            "it is Kompute's binding, in a build of upfrost's own that no package "
            "index has: its wheel is published beside upfrost's (pip install "
            "--find-links FOLDER upfrost), and `make demo` in upfrost's source tree "
            "builds and installs it"
        )
    if "libvulkan" in str(error):
        return "it is Vulkan's loader (Debian: apt install libvulkan1)"
    if error.name in ("dask", "distributed"):
        return (
            "pip install 'upfrost[cluster]' brings it (Debian: apt install "
            "python3-distributed)"
        )
    if error.name in ("starlette", "uvicorn"):
        return (
            "pip install 'upfrost[serve]' brings it (Debian: apt install "
            "python3-starlette python3-uvicorn)"
        )
    return "pip install upfrost brings what upfrost itself needs"


def _open_streams() -> None:
    """Make what the caller closed of the standard streams lead nowhere.

    Otherwise the next file that is opened would be taken for one of them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _fail(code: int, reason: str) -> int:
    line = " ".join(reason.split())
    print(f"upfrost: {line}", file=sys.stderr)
    return code


def _clean_up() -> None:
    """What must not be left when the process ends without unwinding."""
    files = sys.modules.get("upfrost.files")
    if files is not None:
        files.remove_unfinished()
    # By descriptor: the main thread may hold the lock of `sys.stderr`.
    os.write(2, b"upfrost: stopped\n")


def command_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command, for the arguments `words`.

    Other packages' commands are loaded when these may ask for them: loading takes time.
    """
    parser = Parser(
        prog="upfrost",
        description="Super-resolution on the GPU, for boards with open drivers.",
        epilog=MAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"upfrost {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", parser_class=Parser
    )
    _add_upscale(commands)
    add_video(commands)
    add_compare(commands)
    add_eval(commands)
    add_tune(commands)
    add_serve(commands)
    add_check(commands)
    _add_devices(commands)
    _add_models(commands)
    _add_info(commands)
    if not words or words[0] not in (*commands.choices, "--version"):
        from importlib.metadata import entry_points

        for entry in sorted(entry_points(group=COMMAND_GROUP), key=lambda e: e.name):
            try:
                add = entry.load()
            except ImportError:
                # What one command lacks is no reason to hide the others.
                if words and words[0] == entry.name:
                    raise
            else:
                add(commands)
    return parser


def _add_upscale(commands: Commands) -> None:
    parser = arguments.add_command(
        commands, "upscale", "upscale pictures", UPSCALE_HELP, UPSCALE_EPILOG
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="IN", help="a file, a folder or a quoted glob"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a folder, or a file if there is one picture",
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="folders below folders, too"
    )
    parser.add_argument(
        "--format",
        type=_format,
        metavar="FORMAT",
        help="png, jpeg, webp, tiff or bmp (default: that of the input)",
    )
    parser.add_argument(
        "--quality",
        type=_quality,
        metavar="1-100",
        help="of JPEG (default: 95) and WebP (default: lossless)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--overwrite", action="store_true", help="replace files that exist"
    )
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave out what is done already"
    )
    arguments.add_model_argument(parser, arguments.PICTURE_MODEL)
    arguments.add_device_arguments(parser)
    arguments.add_halo_argument(parser)
    arguments.add_cluster_arguments(parser)
    parser.add_argument(
        "--max-megapixels",
        type=arguments.positive,
        metavar="N",
        help="refuse larger pictures, as decompression bombs (default: 179)",
    )
    arguments.add_report_arguments(parser)
    parser.set_defaults(run=_upscale)


def _upscale(options: argparse.Namespace) -> int:
    from upfrost.image import batch, images
    from upfrost.network import modelfile
    from upfrost.status import Status

    status = Status(sys.stderr, quiet=options.quiet)
    model = modelfile.find_model(options.model)
    graph = modelfile.read_model(model)
    plan = batch.plan_batch(
        options.inputs,
        options.output,
        graph.scale,
        wanted=images.FORMAT_OF_SUFFIX[options.format] if options.format else None,
        recursive=options.recursive,
    )
    settings = batch.Options(
        quality=options.quality,
        max_pixels=images.MAX_PIXELS
        if options.max_megapixels is None
        else options.max_megapixels * 1_000_000,
        existing="replace"
        if options.overwrite
        else "skip"
        if options.skip_existing
        else "refuse",
    )

    def emit(record: batch.PictureRecord) -> None:
        if options.json:
            status.clear()
            print(record.to_json(), flush=True)

    try:
        if options.cluster is not None:
            from upfrost.cluster.pictures import run_batch

            with arguments.open_cluster(model, options, status) as cluster:
                arguments.tell_of_workers(cluster, options, status)
                failed = run_batch(plan, cluster, settings, status, emit)
            return 1 if failed else 0
        with arguments.open_upscaler(graph, options) as upscaler:
            arguments.warn_of_cpu(upscaler, options, status)
            failed = batch.run_batch(plan, upscaler, settings, status, emit)
    finally:
        status.clear()
    return 1 if failed else 0


def _add_devices(commands: Commands) -> None:
    parser = commands.add_parser(
        "devices",
        help="list what upfrost can run on",
        description="List every Vulkan device. A star marks the one that is used "
        "when --device is not given.",
    )
    parser.add_argument("--json", action="store_true", help="the same as one object")
    parser.set_defaults(run=_devices)


def _devices(options: argparse.Namespace) -> int:
    from upfrost.gpu import device
    from upfrost.gpu.advice import gpu_advice

    try:
        devices = device.list_devices()
        chosen = device.choose_device()
        problem = None
    except device.DeviceError as error:
        devices, chosen, problem = (), None, str(error)
    advice = [] if any(info.is_gpu for info in devices) else gpu_advice()
    if options.json:
        entries = [
            dataclasses.asdict(info) | {"is_gpu": info.is_gpu, "chosen": info == chosen}
            for info in devices
        ]
        said = {"devices": entries, "error": problem, "advice": advice}
        print(json.dumps(said, indent=2))
        return 1 if problem else 0
    for info in devices:
        mark = "*" if info == chosen else " "
        kind = f"{info.kind} GPU" if info.is_gpu else f"{info.kind}, not a GPU"
        print(f"{mark} {info.index}: {_plain(info.name)} ({kind})")
        for label, text in (
            ("driver", f"{_plain(info.driver)} {info.driver_version}"),
            ("Vulkan", info.api_version),
            ("memory", f"{_bytes(info.heap_bytes)} in the largest heap"),
            ("buffer", f"at most {_bytes(info.max_buffer_bytes)}"),
            (
                "workgroup",
                f"at most {info.max_workgroup} invocations, "
                f"{_bytes(info.max_shared_bytes)} shared",
            ),
        ):
            print(f"     {label:10} {text}")
    if advice:
        print("\nNo GPU is among them. On a board:" if devices else "On a board:")
        for line in advice:
            print(_wrap(line, "  - ", "    "))
    return _fail(1, problem) if problem else 0


def _add_models(commands: Commands) -> None:
    parser = commands.add_parser(
        "models",
        help="list the models that come with upfrost",
        description="List the models that come with upfrost.",
    )
    parser.add_argument("--json", action="store_true", help="the same as one array")
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from upfrost.network.modelfile import bundled_models
    from upfrost.network.modelinfo import model_info, quality_lines

    infos = [model_info(path) for path in bundled_models().values()]
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in infos], indent=2))
        return 0
    rows = [("name", "scale", "parameters", "MACs/px", "licence", "measured")]
    for info in infos:
        row = (
            info.name,
            f"×{info.scale}",
            f"{info.parameters:,}",
            f"{info.macs_per_output_pixel:,.0f}",
            str(info.licence or "–"),
            next(quality_lines(info), "–").split(",")[0],
        )
        rows.append(row)
    widths = [
        max(len(_plain(cell)) for cell in column) for column in zip(*rows, strict=True)
    ]
    for row in rows:
        cells = (
            _plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())
    return 0


def _add_info(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="say what a model is",
        description="Say what a model is: size, work, origin, measured quality.",
    )
    parser.add_argument(
        "model", metavar="MODEL|FILE", help="a name from 'upfrost models' or a file"
    )
    parser.add_argument("--json", action="store_true", help="the same as one object")
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    from upfrost.network.graph import MAX_SIZE
    from upfrost.network.modelfile import find_model
    from upfrost.network.modelinfo import model_info, quality_lines

    info = model_info(find_model(options.model))
    if options.json:
        print(json.dumps(dataclasses.asdict(info), indent=2))
        return 0
    height, width = info.receptive_field
    rows: list[tuple[str, object]] = [
        ("name", info.name),
        ("description", info.description),
        ("file", f"{info.file} ({_bytes(info.file_bytes)})"),
        ("scale", f"×{info.scale}"),
        ("input", info.colour or ("RGB" if info.channels == 3 else "grey")),
        ("parameters", f"{info.parameters:,} ({', '.join(info.weight_types)})"),
        ("operations", f"{info.operations:,}"),
        ("work", f"{info.macs_per_output_pixel:,.0f} MACs per output pixel"),
        (
            "receptive field",
            "the whole picture"
            if max(height, width) > MAX_SIZE
            else f"{width}×{height} pixels",
        ),
        ("licence", info.licence),
        ("attribution", info.attribution),
        ("training data", info.training_data),
        ("made from", info.source),
        ("written by", info.generator),
        ("quality", list(quality_lines(info))),
    ]
    for label, value in rows:
        lines = value if isinstance(value, list | tuple) else [value]
        for number, line in enumerate(line for line in lines if line is not None):
            start = "" if number else label
            print(_wrap(_plain(line), f"{start:16}", " " * 16))
    return 0


def _plain(text: object) -> str:
    from upfrost.text import printable

    return printable(str(text))


def _wrap(text: str, first: str, rest: str) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(
        text,
        max(width, 40),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def _quality(text: str) -> int:
    value = arguments.positive(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, found {text}")
    return value


def _format(text: str) -> str:
    """The suffix of a format."""
    suffixes = {"png": ".png", "jpeg": ".jpg", "jpg": ".jpg", "webp": ".webp"}
    suffixes |= {"tiff": ".tif", "tif": ".tif", "bmp": ".bmp"}
    try:
        return suffixes[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"expected png, jpeg, webp, tiff or bmp, found {text!r}"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
