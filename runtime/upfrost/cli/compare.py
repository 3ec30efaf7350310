"""The command `upfrost compare`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upfrost.cli import arguments

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands
    from upfrost.metrics.compare import Network, Shot
    from upfrost.metrics.vmaf import VideoQuality
    from upfrost.status import Status

HELP = """\
Write a page that shows pictures, or moments of videos, against each other under
a slider, with their metrics. It needs no server: open it in a browser."""

EPILOG = """\
examples:
  upfrost compare photo.png -o page/            a picture, larger by each way
  upfrost compare --shrink photo.png -o page/   as the original of a smaller one
  upfrost compare photo.png photo-x2.png -o page/
                                                a picture and its result
  upfrost compare original.mp4 large.mp4 small.mp4 -o page/
  upfrost compare holiday/ large/ -o page/      every picture of the folders
  upfrost compare a.png b.jpg c.png -o page/    one page for several pictures

what is compared:
  Pictures in a list that look alike from afar are versions of one picture; each
  of the others is one of its own. In folders they belong together by name, with
  or without the -x2 of a result. Several pictures are one page.
  The first of the largest versions is the original, unless it is the only one
  and a smaller one is named before it. Versions of its size are shown as they
  are, smaller ones enlarged by nearest, bilinear, Lanczos and the model. The
  page opens on the last file of full size, or else on the model's result.
  Several pictures become files beside the page. Videos become second names
  beside the page, copies where that cannot be: they move in browsers that can
  play them. What is transparent lies on white. A page is written over an
  earlier one, and over nothing else.
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
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="pictures, or videos, or folders of pictures",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="where index.html goes"
    )
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="make the first version smaller by the model's scale, then larger again",
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
    from upfrost.metrics import compare
    from upfrost.network import modelfile
    from upfrost.status import Status

    status = Status(sys.stderr, quiet=options.quiet)
    inputs = arguments.existing_paths(options.inputs)
    compare.check_folder(Path(options.output), inputs)
    are_folders = {path.is_dir() for path in inputs}
    if len(are_folders) > 1:
        raise compare.CompareError("compare folders with folders, and files with files")
    groups: list[list[Path]] = []
    if are_folders == {True}:
        groups = compare.group_pictures(inputs)
    elif len(inputs) > 1 and not any(map(compare.is_video, inputs)):
        groups = compare.group_by_content(inputs)
    several = are_folders == {True} or len(groups) > 1
    is_video = compare.is_video(inputs[0]) and not groups
    default = arguments.VIDEO_MODEL if is_video else arguments.PICTURE_MODEL
    graph = modelfile.read_model(modelfile.find_model(options.model or default))
    said_of_shots: list[dict[str, object]] = []
    failed: list[str] = []
    with arguments.open_upscaler(graph, options) as upscaler:
        arguments.warn_of_cpu(upscaler, options, status)
        network = compare.Network(graph.name, graph.scale, upscaler)
        if several:
            quality: dict[str, VideoQuality] = {}
            shots: Iterable[compare.Shot] = _of_groups(
                groups, network, failed, status, shrink=options.shrink
            )
        else:
            shots, quality = compare.compare(
                inputs,
                network,
                shrink=options.shrink,
                moments=options.frames,
                ffmpeg=options.ffmpeg,
            )
        page = compare.write_page(
            Path(options.output),
            _noting(shots, said_of_shots),
            quality,
            videos=inputs if is_video else (),
            embed=not several,
        )
    if options.json:
        about = {
            "page": str(page),
            "shots": said_of_shots,
            "videos": {
                name: {"means": values.means(), "frames": vars(values)}
                for name, values in quality.items()
            },
        }
        sys.stdout.write(json.dumps(about) + "\n")
    for name, values in quality.items():
        means = values.means()
        status.say(
            f"{name}: VMAF {means['vmaf']:.2f}, PSNR {means['psnr']:.2f} dB, "
            f"SSIM {means['ssim']:.4f}, {len(values.vmaf)} frames"
        )
    status.say(f"{page}: open it in a browser")
    return 1 if failed else 0


def _of_groups(
    groups: Sequence[Sequence[Path]],
    network: Network,
    failed: list[str],
    status: Status,
    *,
    shrink: bool,
) -> Iterator[Shot]:
    """A shot of each group of pictures; names of those without one go to `failed`.

    Raises `CompareError` where none has.
    """
    from upfrost.image.images import PictureError
    from upfrost.metrics import compare
    from upfrost.text import printable

    for number, paths in enumerate(groups, start=1):
        name = printable(paths[0])
        status.say(f"[{number}/{len(groups)}] {name}")
        try:
            yield compare.compare_pictures(paths, network, shrink=shrink)
        except (compare.CompareError, PictureError) as error:
            failed.append(name)
            status.warn(f"upfrost: {error}")
    if len(failed) == len(groups):
        raise compare.CompareError("none of the pictures can be compared")


def _noting(shots: Iterable[Shot], said: list[dict[str, object]]) -> Iterator[Shot]:
    """The same; what `--json` says of each goes to `said`, but no pixels are kept."""
    for shot in shots:
        metrics = ((part.name, part.metrics) for part in shot.layers)
        said.append({"name": shot.name, **dict(metrics)})
        yield shot


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, found {text!r}")
    return int(text)
