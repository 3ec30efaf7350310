"""The command `upfrost compare`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from upfrost.cli import arguments

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands

HELP = """\
Write a page that shows pictures, or moments of videos, against each other under
a slider, with their metrics. It is one file and needs no server."""

EPILOG = """\
examples:
  upfrost compare photo.png -o page/            a picture, larger by each way
  upfrost compare --shrink photo.png -o page/   as the original of a smaller one
  upfrost compare original.mp4 large.mp4 small.mp4 -o page/

what is compared:
  The first of the largest files is the original. Files of its size are shown as
  they are, smaller ones enlarged by nearest, bilinear, Lanczos and the model.
  Metrics are against the original: Y-PSNR and SSIM of what is shown, for whole
  videos of one size VMAF, PSNR and SSIM of each frame as charts. These pair
  frames by their number, as far as the shorter video goes; where frames come
  at other distances, that is said. HDR is refused.

--json prints an object on stdout: page, shots with the metrics of each version,
and for each video its means and the values of each frame.
"""


def add_compare(commands: Commands) -> None:
    """Add the command's parser."""
    parser = arguments.add_command(
        commands, "compare", "show pictures or videos against each other", HELP, EPILOG
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="pictures, or videos")
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="where index.html goes"
    )
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="make the first file smaller by the model's scale, then larger again",
    )
    parser.add_argument(
        "--frames",
        type=_count,
        default=4,
        metavar="N",
        help="moments of a video to show (default: %(default)s)",
    )
    said = f"{arguments.PICTURE_MODEL}, for videos {arguments.VIDEO_MODEL}"
    arguments.add_model_argument(parser, None, said)
    arguments.add_device_arguments(parser)
    arguments.add_ffmpeg_argument(parser)
    arguments.add_report_arguments(parser, "metrics on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from upfrost.image.images import sniff_format
    from upfrost.metrics import compare
    from upfrost.network import modelfile
    from upfrost.status import Status

    status = Status(sys.stderr, quiet=options.quiet)
    inputs = [Path(name) for name in options.inputs]
    is_video = sniff_format(inputs[0]) is None
    default = arguments.VIDEO_MODEL if is_video else arguments.PICTURE_MODEL
    graph = modelfile.read_model(modelfile.find_model(options.model or default))
    with arguments.open_upscaler(graph, options) as upscaler:
        arguments.warn_of_cpu(upscaler, options, status)

        shots, quality = compare.compare(
            inputs,
            compare.Network(graph.name, graph.scale, upscaler),
            shrink=options.shrink,
            moments=options.frames,
            ffmpeg=options.ffmpeg,
        )
    page = compare.write_page(Path(options.output), shots, quality)
    if options.json:
        said = {
            "page": str(page),
            "shots": [
                {"name": shot.name} | {part.name: part.metrics for part in shot.layers}
                for shot in shots
            ],
            "videos": {
                name: {"means": values.means(), "frames": vars(values)}
                for name, values in quality.items()
            },
        }
        sys.stdout.write(json.dumps(said) + "\n")
    for name, values in quality.items():
        means = values.means()
        status.say(
            f"{name}: VMAF {means['vmaf']:.2f}, PSNR {means['psnr']:.2f} dB, "
            f"SSIM {means['ssim']:.4f}, {len(values.vmaf)} frames"
        )
    status.say(f"{page}: open it in a browser")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, found {text!r}")
    return int(text)
