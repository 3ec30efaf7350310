"""The command `upfrost video`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from upfrost.cli import arguments
from upfrost.video.formats import CODECS

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands
    from upfrost.video.upscale import VideoRecord

HELP = """\
Upscale a video: all that ffmpeg reads. Sound, subtitles, chapters, covers and
metadata come along."""

EPILOG = """\
examples:
  upfrost video clip.mp4 clip-x2.mp4
  upfrost video film.mkv film-x2.mkv --codec h265 --crf 22 --preset slow
  upfrost video film.mkv film-x2.mkv --resume      go on after an interruption
  upfrost video film.mkv test.mkv --start 12:30 --duration 10
  upfrost video film.mkv film-x2.mkv --cluster tcp://pc:8786
                                                   by several machines

what becomes of a video:
  OUT's suffix decides the container: .mkv, .mp4, .m4v, .mov or .webm. Frames
  keep their times, also at variable rates. Rotation is applied to the pixels.
  Colours are converted with the video's own matrix and range, which OUT names,
  too. Streams that OUT's container cannot hold are converted or left out, and
  each is said. Interlaced video is made progressive (--deinterlace).
  --codec ffv1 keeps every frame as it was computed.

  A model for luma takes planes as they are: 4:2:0, 4:2:2, 4:4:4, to 12 bits,
  HDR (PQ, HLG) included, and enlarges chroma beside. Any other model takes
  RGB of 8 bits: more are reduced to 8, and HDR is refused, or mapped to BT.709
  with --tone-map. The first line says which way the frames go.

  A frame that equals the last one, and black bars, are not computed again; the
  result is the same.

interruptions:
  Until all is done, the work is in the folder OUT.upfrost beside OUT, in
  segments of 4 or 10 seconds (--segment). Whatever ends the run, --resume
  goes on after the last finished segment, and OUT becomes what it had become at
  once. It refuses to, where kernels, versions or settings are others than
  before.

ffmpeg is the one that --ffmpeg or UPFROST_FFMPEG names, else that of the
package imageio-ffmpeg (pip install imageio-ffmpeg), else the system's.

--json prints an object on a line of stdout: input, output, status (done,
skipped, failed), error, sizes, codec, path, model, device, precision, frames
(computed, duplicate, black), the share of pixels that was computed, frames per
second, speed (1 is real time), seconds for each phase, notes; with --cluster,
the frames of each of the workers and how many it makes in a second.
"""


def add_video(commands: Commands) -> None:
    """Add the command's parser."""
    parser = arguments.add_command(commands, "video", "upscale a video", HELP, EPILOG)
    parser.add_argument("input", metavar="IN", help="a video file")
    parser.add_argument("output", metavar="OUT", help="the upscaled video")
    parser.add_argument(
        "--codec",
        choices=tuple(CODECS),
        help="of OUT (default: h264; vp9 in .webm; ffv1 is lossless)",
    )
    parser.add_argument(
        "--crf",
        type=_crf,
        metavar="N",
        help="quality for the encoder: a smaller number looks better and takes more "
        "room (default: 18 for h264, 20 for h265, 28 for av1 and vp9; at most 51 for "
        "h264 and h265, 63 for the others)",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="the encoder's: fast, medium, slow, … (av1: a number)",
    )
    parser.add_argument(
        "--start",
        type=arguments.time,
        metavar="T",
        help="leave out what is before: 90, 1:30.5",
    )
    parser.add_argument(
        "--duration", type=arguments.time, metavar="T", help="how much to upscale"
    )
    parser.add_argument(
        "--deinterlace",
        choices=("auto", "always", "never"),
        default="auto",
        help="make whole pictures of fields (default: auto, where the video says so)",
    )
    parser.add_argument(
        "--tone-map",
        action="store_true",
        help="turn HDR (PQ, HLG) into ordinary video, BT.709",
    )
    parser.add_argument(
        "--segment",
        type=arguments.time,
        metavar="T",
        help="seconds of video that an interruption can cost (default: 4, of H.265 "
        "and AV1 10)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="go on where an earlier run ended"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="replace OUT, begin anew"
    )
    arguments.add_model_argument(parser, arguments.VIDEO_MODEL)
    arguments.add_device_arguments(parser)
    arguments.add_cluster_arguments(parser)
    arguments.add_ffmpeg_argument(parser)
    arguments.add_report_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from upfrost.errors import UsageError
    from upfrost.network import modelfile
    from upfrost.status import Status
    from upfrost.video import upscale as video
    from upfrost.video.ffmpeg import ffmpeg_version, find_ffmpeg

    status = Status(sys.stderr, quiet=options.quiet)
    if not options.input or not options.output:
        raise UsageError("an empty name: name a video's file")
    source, target = Path(options.input), Path(options.output)
    record = video.VideoRecord(str(source), str(target))
    settings = video.VideoOptions(
        codec=options.codec,
        crf=options.crf,
        preset=options.preset,
        start=options.start or Fraction(0),
        duration=options.duration,
        deinterlace=options.deinterlace,
        tone_map=options.tone_map,
        segment=options.segment,
        ffmpeg=options.ffmpeg,
        resume=options.resume,
        overwrite=options.overwrite,
    )
    ffmpeg = find_ffmpeg(options.ffmpeg)
    model = modelfile.find_model(options.model)
    graph = modelfile.read_model(model)
    try:
        if options.cluster is not None:
            from upfrost.cluster.video import upscale_video

            version = ffmpeg_version(ffmpeg)
            with arguments.open_cluster(model, options, status, version) as cluster:
                arguments.tell_of_workers(cluster, options, status)
                upscale_video(source, target, cluster, settings, status, record)
        else:
            with arguments.open_upscaler(graph, options) as upscaler:
                arguments.warn_of_cpu(upscaler, options, status)
                video.upscale_video(source, target, upscaler, settings, status, record)
    except Exception as error:
        record.error = str(error)
        raise
    finally:
        status.clear()
        if options.json and (record.error or record.status != "failed"):
            sys.stdout.write(record.to_json() + "\n")
    if record.status == "done":
        status.say(_summary(record))
    return 0


def _summary(record: VideoRecord) -> str:
    from upfrost.status import duration
    from upfrost.text import printable

    assert record.input_size is not None
    assert record.output_size is not None
    before, after = record.input_size, record.output_size
    said = (
        f"{printable(record.output)}: {before[0]}×{before[1]} → {after[0]}×{after[1]}, "
        f"{record.frames} frames in {duration(record.seconds['all'])}"
    )
    # A resumed run may have had nothing left to do but to join what was there.
    if not record.frames_per_second:
        return said
    return f"{said}, {record.frames_per_second:.2f} frames/s"


def _crf(text: str) -> int:
    if not text.isdecimal() or int(text) > 63:
        raise argparse.ArgumentTypeError(f"expected 0 to 63, found {text!r}")
    return int(text)
