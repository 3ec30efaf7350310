"""The command `upfrost eval`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from upfrost.cli import arguments

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands
    from upfrost.gpu.upscaler import Upscaler
    from upfrost.metrics.evaluate import EnlargedPair
    from upfrost.metrics.vmaf import VideoQuality
    from upfrost.status import Status

# By way of enlarging and metric; None where a metric cannot be had.
Means: TypeAlias = Mapping[str, Mapping[str, float | None]]

HELP = """\
Measure how good a model is, beside nearest, bilinear, bicubic and Lanczos."""

EPILOG = """\
examples:
  upfrost eval realtime-x2 Set5/x2/ Set14/x2/
  upfrost eval realtime-x2 clip.mp4 --plot vmaf.svg

what is measured:
  A folder holds pairs, 001_HR.png and 001_LR.png: Y-PSNR and SSIM of what the
  small one becomes, by the super-resolution field's convention (BT.601 luma, a
  border of `scale` pixels left out). NIQE says how natural a result looks
  without its original, lower is better; DETAIL is the variance of the Laplacian
  over the original's, 1 where fine detail is as rich; noise counts as detail.
  NIQE needs 192×96 pixels; how many pictures have one is said where not all do.
  A video is the original: its first frames are made small by bicubic and large
  again. VMAF, PSNR of luma and SSIM come from ffmpeg's libvmaf, for each frame
  (--json, --plot) and as means. HDR is refused.
"""


def add_eval(commands: Commands) -> None:
    """Add the command's parser."""
    parser = arguments.add_command(
        commands, "eval", "measure how good a model is", HELP, EPILOG
    )
    parser.add_argument("model", metavar="MODEL", help="a name or a .upf file")
    parser.add_argument(
        "inputs", nargs="+", metavar="IN", help="folders of pairs, and videos"
    )
    parser.add_argument(
        "--frames",
        type=arguments.positive,
        default=48,
        metavar="N",
        help="of each video (default: %(default)s)",
    )
    parser.add_argument(
        "--start",
        type=arguments.time,
        default=Fraction(0),
        metavar="T",
        help="where in each video to begin: 90, 1:30.5",
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="an SVG of VMAF over the video's frames"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a plot that exists"
    )
    arguments.add_device_arguments(parser)
    arguments.add_ffmpeg_argument(parser)
    parser.add_argument("--json", action="store_true", help="the same as one array")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from upfrost.errors import UsageError
    from upfrost.files import check_file
    from upfrost.metrics.niqe import BLOCK
    from upfrost.network import modelfile
    from upfrost.status import Status
    from upfrost.text import printable

    paths = arguments.existing_paths(options.inputs)
    videos = [path for path in paths if not path.is_dir()]
    if options.plot and len(videos) != 1:
        raise UsageError("--plot draws one video; name one")
    # Before an hour's measuring, not after it.
    if options.plot:
        plot = Path(options.plot)
        check_file(plot, overwrite=options.overwrite, read=paths)
        if plot.suffix.lower() != ".svg":
            raise UsageError(
                f"--plot {printable(plot)}: it is an SVG, so the name ends in .svg"
            )
    graph = modelfile.read_model(modelfile.find_model(options.model))
    results: list[dict[str, object]] = []
    with arguments.open_upscaler(graph, options) as upscaler:
        status = Status(sys.stderr)
        arguments.warn_of_cpu(upscaler, options, status)
        for path in paths:
            frames: Mapping[str, object] = {}
            counts: Mapping[str, int] = {}
            if path.is_dir():
                means, counts = _of_pairs(path, upscaler, status)
            else:
                measured = _of_video(path, upscaler, options)
                means = {way: found.means() for way, found in measured.items()}
                frames = {way: vars(found) for way, found in measured.items()}
            found = {"input": str(path), "means": means, "frames": frames}
            results.append({**found, "pictures": counts})
            if not options.json:
                _print_table(path, means)
            if counts and counts["niqe"] < counts["psnr"]:
                status.say(
                    f"  NIQE is of {counts['niqe']} of {counts['psnr']} pictures: the "
                    f"others are smaller than {2 * BLOCK}×{BLOCK}, or of one level"
                )
    if options.json:
        sys.stdout.write(json.dumps(results) + "\n")
    return 0


def _of_pairs(
    path: Path, upscaler: Upscaler, status: Status
) -> tuple[Means, Mapping[str, int]]:
    """What a folder of pairs shows of each way of enlarging, and of how many pictures
    each metric is."""
    from upfrost.metrics import evaluate
    from upfrost.text import printable

    notes: Counter[str] = Counter()

    def noted(pairs: Iterable[EnlargedPair]) -> Iterator[EnlargedPair]:
        for pair in pairs:
            notes.update(pair.notes)
            yield pair

    scale, ways = upscaler.graph.scale, evaluate.all_ways(upscaler)
    pairs, textures = evaluate.measure_pairs(
        noted(evaluate.enlarged_pairs(path, ways, scale)), scale, texture=True
    )
    for note, count in sorted(notes.items()):
        status.warn(f"upfrost: {printable(path)}: {note} (of {count} pairs)")
    name = upscaler.graph.name
    counts = {"psnr": pairs[name].pictures, "niqe": textures[name].niqe_pictures}
    means = {
        way: {
            "psnr": pairs[way].psnr if way in pairs else None,
            "ssim": pairs[way].ssim if way in pairs else None,
            "niqe": texture.niqe,
            "detail": texture.detail,
        }
        for way, texture in textures.items()
    }
    return means, counts


def _of_video(
    path: Path, upscaler: Upscaler, options: argparse.Namespace
) -> Mapping[str, VideoQuality]:
    """What a video shows of each way of enlarging; drawn, if that is asked for."""
    from upfrost.files import new_file
    from upfrost.metrics import evaluate
    from upfrost.metrics.chart import line_chart
    from upfrost.video.ffmpeg import find_ffmpeg

    measured: Mapping[str, VideoQuality] = evaluate.evaluate_video(
        find_ffmpeg(options.ffmpeg),
        path,
        upscaler,
        start=options.start,
        frames=options.frames,
    )
    if options.plot:
        lines = {way: list(enumerate(found.vmaf)) for way, found in measured.items()}
        chart = line_chart(f"VMAF of {path.name}", "frame", lines)
        with new_file(Path(options.plot), overwrite=options.overwrite) as file:
            file.write(f"{chart}\n".encode())
    return measured


def _print_table(path: Path, means: Means) -> None:
    from upfrost.text import printable

    digits = {"vmaf": 2, "psnr": 2, "ssim": 4, "niqe": 2, "detail": 2}
    columns = list(next(iter(means.values())))
    width = max(len(way) for way in means)
    head = "".join(f"{column.upper():>9}" for column in columns)
    lines = [printable(path), f"  {'':{width}}{head}"]
    for way, values in means.items():
        cells = "".join(
            f"{'–':>9}" if values[key] is None else f"{values[key]:9.{digits[key]}f}"
            for key in columns
        )
        lines.append(f"  {way:{width}}{cells}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
