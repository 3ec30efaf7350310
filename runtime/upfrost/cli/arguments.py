"""What commands have in common: shared arguments, and the upscaler they ask for."""

from __future__ import annotations

import argparse
import re
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from upfrost.cluster.connection import Cluster
    from upfrost.gpu.upscaler import Upscaler
    from upfrost.network.graph import Graph
    from upfrost.status import Status

    # What `add_subparsers` returns; argparse has no public name for it.
    Commands: TypeAlias = "argparse._SubParsersAction[Any]"


PICTURE_MODEL = "realtime-x2"
# A network for luma that has seen what video encoders leave (docs/models.md).
VIDEO_MODEL = "live-x2-m"
# No exponent: Python would compute all digits of 1e999999999.
_TIME_PART = re.compile(r"\d{1,9}(\.\d{0,99})?|\.\d{1,99}", re.ASCII)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"upfrost: {message} (see '{self.prog} --help')\n")


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """A new command's parser; texts keep their lines."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_model_argument(
    parser: argparse.ArgumentParser, default: str | None, said: str = "%(default)s"
) -> None:
    """The model; `said` is what the help says of the default."""
    parser.add_argument(
        "-m",
        "--model",
        default=default,
        help=f"a name from 'upfrost models' or a .upf file (default: {said})",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Device, precision, tile and memory, for every command that upscales."""
    add_device_choice(parser)
    parser.add_argument(
        "--tile",
        type=_tile,
        default=None,
        metavar="N|auto",
        help="largest side of a tile in pixels (default: auto, what memory allows)",
    )
    add_memory_argument(parser)


def add_halo_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--halo",
        type=_halo,
        default=None,
        metavar="N|full",
        help="pixels around a tile that its results look at (default: full, all that "
        "the network looks at; fewer show seams, whose size is then said)",
    )


def add_device_choice(parser: argparse.ArgumentParser) -> None:
    """Device and precision."""
    add_device_argument(parser)
    parser.add_argument(
        "--precision",
        choices=("auto", "fp16", "fp32"),
        default="auto",
        help="of values on the device (default: auto, fp16 on a GPU)",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        metavar="N|NAME",
        help="a number or part of a name from 'upfrost devices' (default: the best)",
    )


def add_memory_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        type=_megabytes,
        metavar="MB",
        help="device memory to use (default: a share of what there is)",
    )


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="have it done by the workers of a Dask cluster, by its scheduler's "
        "address: tcp://HOST:8786 or tls://HOST:8786 (docs/cluster.md)",
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="with --cluster: take workers whose precision or ffmpeg differs, too",
    )


def open_cluster(
    model: Path, options: argparse.Namespace, status: Status, ffmpeg: str | None = None
) -> Cluster:
    """The cluster that the arguments ask for, not yet connected to.

    `ffmpeg` is this machine's version, where a video is to be upscaled.
    """
    from upfrost.cluster.connection import Asked, Cluster, insecurity
    from upfrost.text import printable

    asked = Asked(
        model=model,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        memory=options.memory,
        halo=getattr(options, "halo", None),
        ffmpeg=ffmpeg,
        mixed=options.mixed,
    )
    if warning := insecurity(options.cluster):
        status.warn(f"upfrost: {warning}")
    status.begin(printable(options.cluster), "workers open their devices")
    return Cluster(options.cluster, asked)


def tell_of_workers(
    cluster: Cluster, options: argparse.Namespace, status: Status
) -> None:
    """Say who is there, and who computes without a GPU."""
    names = sorted(f"{about.name} ({about.device.name})" for about in cluster.met)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    count = f"{len(names)} workers" if len(names) > 1 else "1 worker"
    status.say(f"{count}: {', '.join(names[:8])}{more}")
    slow = [about.name for about in cluster.met if not about.device.is_gpu]
    if slow and options.device is None:
        status.warn(
            f"upfrost: no GPU on {', '.join(slow[:8])}"
            f"{' and others' if len(slow) > 8 else ''}: the CPU computes there, slowly"
        )


def add_ffmpeg_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ffmpeg", metavar="FILE", help="the ffmpeg to call")


def add_report_arguments(
    parser: argparse.ArgumentParser, on_stdout: str = "results on stdout"
) -> None:
    """--json and --quiet; `on_stdout` says what the first prints."""
    parser.add_argument("--json", action="store_true", help=on_stdout)
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, only what is wrong"
    )


def open_upscaler(graph: Graph, options: argparse.Namespace) -> Upscaler:
    """The upscaler that the arguments of `add_device_arguments` ask for.

    Raises `UsageError` for a tile that the network cannot work with.
    """
    from upfrost.errors import UsageError
    from upfrost.gpu.advice import address_space_advice
    from upfrost.gpu.tiles import smallest_side
    from upfrost.gpu.upscaler import Upscaler

    if advice := address_space_advice():
        # Before the driver is loaded, since nothing can be said after it.
        print(f"upfrost: {advice}", file=sys.stderr, flush=True)
    upscaler = Upscaler(
        graph,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        memory=options.memory,
        halo=getattr(options, "halo", None),
    )
    smallest = smallest_side(upscaler.tiling)
    if options.tile is not None and options.tile < smallest:
        upscaler.close()
        raise UsageError(
            f"{graph.name} looks at the whole picture: leave --tile out, or allow "
            "seams (upfrost upscale --halo 32)"
            if upscaler.tiling.needs_whole_picture
            else f"--tile {options.tile} is too small for {graph.name}: at least "
            f"{smallest} pixels are needed"
        )
    return upscaler


def warn_of_cpu(
    upscaler: Upscaler, options: argparse.Namespace, status: Status
) -> None:
    """Whoever meant a GPU must not wonder why it is slow."""
    if not upscaler.device.is_gpu and options.device is None:
        status.warn(
            f"upfrost: no GPU, this runs on the CPU ({upscaler.device.name}) "
            "and is slow; 'upfrost devices' says what to do"
        )


def existing_paths(names: Sequence[str]) -> list[Path]:
    """The paths of these names, all of which are there. Raises `UsageError`."""
    from pathlib import Path

    from upfrost.errors import UsageError
    from upfrost.text import printable

    for name in names:
        # An empty one would be the folder at hand.
        if not name or not Path(name).exists():
            raise UsageError(
                f"{printable(name) or repr(name)}: No such file or directory"
            )
    return [Path(name) for name in names]


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive number, found {text!r}")
    return int(text)


def time(text: str) -> Fraction:
    """Seconds of ``90``, ``1:30.5`` or ``0:01:30``."""
    total = Fraction(0)
    for part in text.split(":"):
        if not _TIME_PART.fullmatch(part):
            raise argparse.ArgumentTypeError(
                f"expected a time such as 90 or 1:30.5, found {text!r}"
            )
        total = total * 60 + Fraction(part)
    return total


def _megabytes(text: str) -> int:
    return positive(text) * 1_000_000


def _halo(text: str) -> int | None:
    return _number_or("full", text)


def _tile(text: str) -> int | None:
    return _number_or("auto", text)


def _number_or(word: str, text: str) -> int | None:
    """A whole number, 1 or more; None for the word."""
    if text == word:
        return None
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected a positive number or {word}, found {text!r}"
        ) from None
