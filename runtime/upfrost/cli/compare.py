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
  upfrost compare --each *.jpg -o page/         every file, larger by each way

what is compared:
  Files are versions of one picture; with --each every file is one of its own.
  The first of the largest files is the original, unless it is the only one and
  a smaller one is named before it. Files of its size are shown as they are,
  smaller ones enlarged by nearest, bilinear, Lanczos and the model. The page
  opens on the last file of full size, or else on the model's result.
  Pictures of folders belong together when they have one name, with or without
  the -x2 of a result. They become files beside the page. Videos become second
  names beside the page, copies where that cannot be: they move in browsers that
  can play them. Where a picture is transparent, it lies on white. A page is
  written over an earlier one, and over nothing else.
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
        help="make the first file of a picture smaller by the model's scale, then "
        "larger again",
    )
    parser.add_argument(
        "--each",
        action="store_true",
        help="every file is a picture of its own, and the page shows them all",
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
    from upfrost.text import printable

    status = Status(sys.stderr, quiet=options.quiet)
    inputs = arguments.existing_paths(options.inputs)
    compare.check_folder(Path(options.output), inputs)
    are_folders = {path.is_dir() for path in inputs}
    if len(are_folders) > 1:
        raise compare.CompareError("compare folders with folders, and files with files")
    if options.each and are_folders == {True}:
        raise compare.CompareError("--each is for files; folders show every picture")
    groups = compare.group_pictures(inputs) if are_folders == {True} else []
    if options.each:
        groups = [[path] for path in inputs]
        for path in filter(compare.is_video, inputs):
            raise compare.CompareError(
                f"{printable(path)}: is a video; --each is for pictures"
            )
    is_video = not groups and compare.is_video(inputs[0])
    default = arguments.VIDEO_MODEL if is_video else arguments.PICTURE_MODEL
    graph = modelfile.read_model(modelfile.find_model(options.model or default))
    said_of_shots: list[dict[str, object]] = []
    failed: list[str] = []
    with arguments.open_upscaler(graph, options) as upscaler:
        arguments.warn_of_cpu(upscaler, options, status)
        network = compare.Network(graph.name, graph.scale, upscaler)
        if groups:
            quality: dict[str, VideoQuality] = {}
            shots: Iterable[compare.Shot] = _of_folders(
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
            embed=not groups,
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


def _of_folders(
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
