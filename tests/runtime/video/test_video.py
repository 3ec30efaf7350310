"""`upfrost video`: what goes in comes out, larger, whatever happens on the way.

Most tests repeat pixels instead of running a network (see fakes.py), so that what came
out can be told exactly.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.clips import (
    FFMPEG,
    GRAPH,
    HDR,
    LUMA,
    MAKER,
    ffmpeg,
    frames,
    header,
    make_clip,
    packets,
    times,
    upscale,
)
from tests.runtime.fakes import FakeUpscaler, Promise
from upfrost import Upscaler, status
from upfrost.arrays import Bytes
from upfrost.cli import main as cli
from upfrost.files import ExistsError, TargetError
from upfrost.gpu.frame import FULL_CHROMA, Frame, FrameFormat
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model, write_model
from upfrost.video.color import conversion, luma_conversion
from upfrost.video.ffmpeg import Colors, VideoError, find_ffmpeg, probe, run_ffmpeg
from upfrost.video.formats import CODECS, CONTAINERS, encoder_arguments
from upfrost.video.job import job_folder
from upfrost.video.matroska import frame_header, read_packets, stream_header
from upfrost.video.upscale import (
    VideoOptions,
    VideoRecord,
    plan_work,
    upscale_video,
)

FAKE = Path(__file__).parents[1] / "fakes.py"
# From Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0:
# one second from 2:13, scaled down to 160×90.
REAL_CLIP = Path(__file__).parents[1] / "bunny.mp4"
LOSSLESS = VideoOptions(codec="ffv1")
# In short segments, so that short clips have several of them.
SEGMENTS = VideoOptions(codec="ffv1", segment=Fraction(1, 3))


def larger(source: list[Bytes]) -> list[Bytes]:
    return [frame.repeat(2, axis=0).repeat(2, axis=1) for frame in source]


def same(found: list[Bytes], expected: list[Bytes]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def to_rgb(matrix: str, reach: str = "tv") -> tuple[str, ...]:
    """How the pictures of a clip become RGB, said independently of the product."""
    flags = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    convert = f"in_color_matrix={matrix}:in_range={reach}:out_range=pc:flags={flags}"
    left = "in_h_chr_pos=0:in_v_chr_pos=128"
    return ("-vf", f"scale={convert}:{left}")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(FAKE), "video", *map(str, arguments)]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of 24 frames, and a tone."""
    return make_clip(
        tmp_path_factory.mktemp("clips") / "clip.mp4",
        *("-c:a", "aac", "-shortest"),
        inputs=("-f", "lavfi", "-i", "sine=440:d=1"),
    )


# Frames, times, sizes


def test_every_frame_is_the_picture_paths_result(tmp_path: Path) -> None:
    model, target, pictures = (tmp_path / n for n in ("tiny.upf", "out.mkv", "png"))
    write_model(model, GRAPH)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "upfrost.cli.main",
                "video",
                REAL_CLIP,
                target,
                "-q",
            ),
            *("-m", model, "--codec", "ffv1", "--json", "--segment", "0.4"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pictures.mkdir()
    given = frames(REAL_CLIP, (160, 90), *to_rgb("bt709"))
    for number, pixels in enumerate(given):
        Image.fromarray(pixels).save(pictures / f"{number:02d}.png")
    large = tmp_path / "large"
    words = ["upscale", str(pictures), "-o", str(large), "-m", str(model), "--quiet"]
    assert cli.main(words) == 0
    expected = [np.asarray(Image.open(path)) for path in sorted(large.iterdir())]
    assert same(frames(target, (320, 180)), expected)
    record = json.loads(done.stdout)
    assert record["status"] == "done"
    assert record["frames"] == 24
    assert record["computed_frames"] + record["duplicate_frames"] == 24
    assert record["output_size"] == [320, 180]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_uneven_times_are_kept(tmp_path: Path, suffix: str) -> None:
    source = make_clip(
        tmp_path / "source.mp4",
        *("-fps_mode", "passthrough", "-enc_time_base", "1:90000"),
        *("-video_track_timescale", "90000", "-bf", "2"),
        filters="settb=1/90000,setpts='3003*N+997*mod(N*N\\,7)'",
    )
    before = times(source)
    assert len({b - a for a, b in itertools.pairwise(before)}) > 3
    target = tmp_path / f"out{suffix}"
    upscale(source, target, VideoOptions(segment=Fraction(1, 3)))
    after = times(target)
    if suffix == ".mkv":  # which knows milliseconds
        before = [Fraction(round(moment * 1000), 1000) for moment in before]
    assert after == before


@pytest.mark.parametrize("size", [(65, 37), (2, 2), (7, 50)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make_clip(
        *(tmp_path / "source.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"),
        size="128x128",
        seconds=0.5,
        filters=f"format=gbrp,crop={size[0]}:{size[1]}",
    )
    upscale(source, tmp_path / "out.mkv", LOSSLESS)
    result = frames(tmp_path / "out.mkv", (size[0] * 2, size[1] * 2))
    assert same(result, larger(frames(source, size)))


def test_what_an_encoder_refuses_is_said_before_the_work(
    tmp_path: Path, clip: Path
) -> None:
    class Unasked(FakeUpscaler):
        def __call__(self, *_: object) -> Bytes:
            raise AssertionError("a frame's result was waited for")

    with pytest.raises(VideoError, match="ffmpeg cannot encode 128×72 frames"):
        upscale(
            *(clip, tmp_path / "out.mp4", VideoOptions(preset="hasty")),
            Unasked(GRAPH),
        )
    assert list(tmp_path.iterdir()) == []


def test_start_and_duration(tmp_path: Path, clip: Path) -> None:
    target = tmp_path / "out.mkv"
    options = VideoOptions(codec="ffv1", start=Fraction(1, 4), duration=Fraction(1, 2))
    upscale(clip, target, options)
    everything = frames(clip, (64, 36), *to_rgb("smpte170m"))
    assert same(frames(target, (128, 72)), larger(everything[6:18]))
    assert times(target)[0] == 0
    assert float(packets(target, "a").split(",")[2]) == pytest.approx(0, abs=30)  # ms


def test_a_start_at_what_is_wrongly_marked_a_key_frame(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", "-g", "250", "-bf", "0", seconds=4)
    tracks, found = read_packets(whole)
    source = tmp_path / "source.mkv"
    data = whole.read_bytes()
    parts = [stream_header(tracks)]
    for number, packet in enumerate(found):
        parts.append(frame_header(Fraction(number, 24), packet.size))
        parts.append(data[packet.offset : packet.offset + packet.size])
    source.write_bytes(b"".join(parts))
    target = tmp_path / "out.mkv"
    options = VideoOptions(codec="ffv1", start=Fraction(3), duration=Fraction(1, 2))
    upscale(source, target, options)
    everything = frames(whole, (64, 36), *to_rgb("smpte170m"))
    assert same(frames(target, (128, 72)), larger(everything[72:84]))


def test_rotation_is_applied(tmp_path: Path, clip: Path) -> None:
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", clip, "-c", "copy", turned)
    target = tmp_path / "out.mp4"
    record = upscale(turned, target)
    assert record.output_size == (72, 128)
    assert "128x72" not in header(target)
    assert "rotation of" in header(turned)
    assert "rotation of" not in header(target)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_chroma_of_turned_frames_lies_where_the_tag_says(
    tmp_path: Path, degrees: int
) -> None:
    """A ramp of chroma says where it lies: left of the middle before it is turned."""
    kind = FrameFormat("420", bits=10)
    rows, columns = 64, 96
    ramp = Frame.empty(kind, rows, columns)
    ramp.planes[0][...] = 512
    ramp.planes[1][...] = 160 + 8 * np.arange(columns // 2) * 2
    ramp.planes[2][...] = 160 + 8 * (np.arange(rows // 2)[:, None] * 2 + 0.5)
    given, source, target = (tmp_path / name for name in ("raw", "in.mp4", "out.mkv"))
    given.write_bytes(b"".join(plane.tobytes() for plane in ramp.planes))
    told = ("-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{columns}x{rows}")
    exact = ("-x265-params", "lossless=1:chromaloc=0:log-level=none")
    ffmpeg(*told, "-i", given, "-c:v", "libx265", *exact, tmp_path / "upright.mp4")
    turn = ("-display_rotation", str(degrees), "-i", tmp_path / "upright.mp4")
    ffmpeg(*turn, "-c", "copy", source)
    with Upscaler(LUMA) as upscaler:
        upscale(source, target, LOSSLESS, upscaler)
    size = (columns, rows) if degrees % 180 == 0 else (rows, columns)
    width, height = size[0] * 2, size[1] * 2
    raw = ffmpeg("-i", target, "-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-")
    found = Frame.of_bytes(kind, height, width, np.frombuffer(raw, np.uint8))
    assert probe(MAKER, target).siting in (None, "left")
    # Where a sample of the result lies in the frame, from its edges, and then in the
    # frame before it was turned counter-clockwise.
    y, x = np.mgrid[: height // 2, : width // 2]
    y, x = y + 0.5, x + 0.25
    x, y = {
        0: (x, y),
        90: (columns - y, x),
        180: (columns - x, rows - y),
        270: (y, rows - x),
    }[degrees]
    inside = np.s_[4:-4, 4:-4]
    for plane, place in zip(found.planes[1:], (x, y), strict=True):
        off = (plane - (160 + 8 * (place - 0.5)))[inside]
        assert np.abs(off).max() <= 1, off.mean()


@pytest.mark.parametrize(("number", "place"), [(0, 0.0), (1, 0.5), (2, 0.0)])
def test_rgb_has_colours_where_they_lie(
    tmp_path: Path, number: int, place: float
) -> None:
    """And so have planes made of it: `scale` alone takes chroma for centred.

    By H.273's number of the siting; chroma lies so much right of a pixel.
    """
    rows, columns = 32, 96
    raw, source = tmp_path / "raw", tmp_path / "in.mp4"
    u = np.broadcast_to(4 + 5 * np.arange(columns // 2), (rows // 2, columns // 2))
    planes = (np.full((rows, columns), 128), u, np.full(u.shape, 128))
    raw.write_bytes(b"".join(plane.astype(np.uint8).tobytes() for plane in planes))
    told = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{columns}x{rows}")
    exact = ("-x265-params", f"lossless=1:chromaloc={number}:log-level=none")
    ffmpeg(*told, "-i", raw, "-c:v", "libx265", *exact, source)
    by = conversion(probe(MAKER, source))
    (rgb,) = frames(source, (columns, rows), "-vf", by.to_frames)
    blue = (rgb[..., 2].astype(float) - rgb[..., 0]).mean(axis=0)
    # U is 128 between samples 24 and 25, at 24.8.
    neutral = np.interp(0, blue[20:76], np.arange(20, 76))
    # Bytes are a quarter of a pixel apart; what is taken for centred is half a one off.
    assert neutral == pytest.approx(2 * 24.8 + place, abs=0.2)

    raw.write_bytes(rgb.tobytes())
    told = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}")
    back = ffmpeg(
        *(*told, "-i", raw, "-vf", by.from_rgb("yuv420p")),
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-"),
    )
    begin = rows * columns
    found = np.frombuffer(back, np.uint8)[begin : begin + u.size].reshape(u.shape)
    middle = np.interp(128, found.mean(axis=0)[10:38], np.arange(10, 38))
    assert 2 * middle == pytest.approx(neutral, abs=0.2)  # left, as untagged video is


@pytest.mark.parametrize(("number", "place"), [(0, 0.0), (1, 0.5), (2, 0.0)])
def test_mapped_tones_have_colours_where_they_lie(
    tmp_path: Path, number: int, place: float
) -> None:
    """By way of 4:4:4, from which planes are made anew: to where the tag says."""
    rows, columns = 32, 96
    raw, source = tmp_path / "raw", tmp_path / "in.mp4"
    u = np.broadcast_to(328 + 8 * np.arange(columns // 2), (rows // 2, columns // 2))
    planes = (np.full((rows, columns), 400), u, np.full(u.shape, 512))
    raw.write_bytes(b"".join(plane.astype("<u2").tobytes() for plane in planes))
    told = ("-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{columns}x{rows}")
    said = "range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc=smpte2084"
    exact = f"lossless=1:chromaloc={number}:log-level=none"
    exact += ":colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    ffmpeg(
        *(*told, "-i", raw, "-vf", f"setparams={said}"),
        *("-c:v", "libx265", "-x265-params", exact, source),
    )
    info = probe(FFMPEG, source)

    def converted(filters: str) -> Bytes:
        arguments = ("-i", str(source), "-vf", filters, "-f", "rawvideo", "-")
        return np.frombuffer(run_ffmpeg(FFMPEG, arguments).stdout, np.uint8)

    neutral = 2 * (512 - 328) / 8 + place
    rgb = converted(conversion(info, tone_map=True).to_frames)
    pixels = rgb.reshape(rows, columns, 3).astype(float)
    blue = (pixels[..., 2] - pixels[..., 0]).mean(axis=0)
    assert np.interp(0, blue[20:76], np.arange(20, 76)) == pytest.approx(
        neutral, abs=0.2
    )
    luma = luma_conversion(info, tone_map=True)
    assert luma.kind is not None
    small = converted(luma.to_frames)[rows * columns :][: u.size].reshape(u.shape)
    middle = np.interp(128, small.astype(float).mean(axis=0)[10:40], np.arange(10, 40))
    across = (luma.kind.chroma or FULL_CHROMA).offset[0] / 2
    assert across == place
    assert 2 * middle + across == pytest.approx(neutral, abs=0.2)


def test_rotation_by_any_angle_is_applied(tmp_path: Path, clip: Path) -> None:
    """Which ffmpeg warns of, in half a line."""
    turned, target = tmp_path / "turned.mp4", tmp_path / "out.mkv"
    ffmpeg("-display_rotation", "40", "-i", clip, "-c", "copy", turned)
    upscale(turned, target, VideoOptions(codec="ffv1"))
    given = frames(turned, (64, 36), *to_rgb("smpte170m"))
    assert same(frames(target, (128, 72)), larger(given))


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mp4", filters="setsar=16/15")
    for suffix in (".mkv", ".mp4"):
        upscale(source, tmp_path / f"out{suffix}")
        found = probe(FFMPEG, tmp_path / f"out{suffix}")
        assert found.pixel_aspect == Fraction(16, 15), suffix


# What belongs to the video


def test_sound_is_copied(tmp_path: Path, clip: Path) -> None:
    target = tmp_path / "out.mp4"
    record = upscale(clip, target)
    assert packets(target, "a") == packets(clip, "a")
    assert record.notes == [
        "no colour matrix is named: BT.601 assumed, as for its size"
    ]


def test_sound_and_picture_stay_together(tmp_path: Path, clip: Path) -> None:
    source = tmp_path / "late.ts"  # begins at 1.4 s, its sound half a second later
    ffmpeg(
        *("-i", clip, "-itsoffset", "0.5", "-i", clip, "-map", "0:v", "-map", "1:a"),
        *("-c", "copy", source),
    )
    target = tmp_path / "out.mkv"
    upscale(source, target)
    sound = [
        float(packets(path, "a").split(",")[2]) * unit
        for path, unit in ((source, 1 / 90000), (target, 1 / 1000))
    ]
    picture = [float(times(path)[0]) for path in (source, target)]
    before, after = sound[0] - picture[0], sound[1] - picture[1]
    assert before == pytest.approx(after, abs=0.0015)
    assert after == pytest.approx(0.5, abs=0.1)


def test_sound_that_ends_early_does_not_keep_the_video_in_memory(
    tmp_path: Path,
) -> None:
    """90 MB of video after the last sound; in a process of its own, to be measured."""
    source = tmp_path / "source.mkv"
    ffmpeg(
        *("-f", "lavfi", "-i", "color=s=640x360:r=10:d=30", "-f", "lavfi", "-i"),
        *("sine=440:d=1", "-c:v", "rawvideo", "-c:a", "flac", source),
    )
    program = """
import resource, sys
from fractions import Fraction
from pathlib import Path
from upfrost.video.ffmpeg import find_ffmpeg, probe
from upfrost.video.formats import CONTAINERS
from upfrost.video.mux import OtherStreams, Result, write_result
from upfrost.video.job import Segment, open_job
source = Path(sys.argv[1])
job = open_job(source.with_name("out"), {}, resume=False, overwrite=False)
part = job.part_file("segment")
Path(sys.argv[2]).rename(part)
info = probe(find_ffmpeg(), source)
times = tuple(range(0, 30_000, 100))
job.add(part, Segment(times, None, times))
others = OtherStreams(("-map", "1:1", "-c:1", "copy"), ())
result = Result(info, CONTAINERS[".mkv"], "none", Fraction(0), None, others)
write_result(find_ffmpeg(), job, result, job.part_file("result"))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    silent = tmp_path / "silent.mkv"
    ffmpeg("-i", source, "-map", "0:v", "-c", "copy", silent)
    result = subprocess.run(
        [sys.executable, "-c", program, source, silent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # ffmpeg alone takes 40 to 60 MB; it holds 10 s of video, which are 35 MB.
    assert int(result.stdout) < 110_000


def test_subtitles_chapters_and_metadata_come_along(tmp_path: Path, clip: Path) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,100 --> 00:00:00,900\nHello\n")
    chapters = tmp_path / "chapters.txt"
    chapters.write_text(
        ";FFMETADATA1\ntitle=A film\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\n"
        "title=First\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=500\nEND=1000\ntitle=Second\n"
    )
    source = tmp_path / "source.mkv"
    ffmpeg(
        *("-i", clip, "-i", words, "-i", chapters, "-map", "0", "-map", "1"),
        *("-map_metadata", "2", "-map_chapters", "2", "-c", "copy", "-c:s", "srt"),
        *("-metadata:s:a", "language=isl", source),
    )
    record = upscale(source, tmp_path / "out.mkv")
    copied = header(tmp_path / "out.mkv")
    for text in ("A film", "First", "Second", "(isl)", "Subtitle: subrip"):
        assert text in copied, text
    assert not any("stream" in note for note in record.notes)
    # To the first frame, since ffmpeg 5.1 moves all by the 23 ms that AAC begins early.
    (before, after) = (
        round(float(packets(path, "s").split(",")[2]) - 1000 * float(times(path)[0]))
        for path in (source, tmp_path / "out.mkv")
    )
    assert before == after == 100

    record = upscale(source, tmp_path / "out.mp4")
    converted = header(tmp_path / "out.mp4")
    for text in ("A film", "First", "Second", "(isl)", "Subtitle: mov_text"):
        assert text in converted, text
    notes = "\n".join(record.notes)
    assert "stream 2 (subtitle, subrip) becomes mov_text" in notes


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out.webm"])
def test_subtitles_after_a_cut_are_where_they_were(
    tmp_path: Path, clip: Path, name: str
) -> None:
    """What is on screen at the cut does not move others against the frames; WebM has
    no attachments, and that is said."""
    words = tmp_path / "words.srt"
    words.write_text(
        "1\n00:00:00,100 --> 00:00:00,600\nfirst\n\n"
        "2\n00:00:00,700 --> 00:00:00,900\nsecond\n"
    )
    source = tmp_path / "source.mkv"
    ffmpeg(
        *("-i", clip, "-i", words, "-map", "0", "-map", "1", "-c", "copy"),
        *("-c:s", "srt", "-attach", words, "-metadata:s:t", "mimetype=text/plain"),
        source,
    )
    options = VideoOptions(start=Fraction(1, 2))
    record = upscale(source, tmp_path / name, options)
    shown = ffmpeg("-copyts", "-i", tmp_path / name, "-map", "0:s", "-f", "srt", "-")
    *_, when, text = shown.decode().split("\n\n")[-2].strip().splitlines()
    assert text == "second"
    first, last = (
        int(moment[6:8] + moment[9:]) - round(1000 * times(tmp_path / name)[0])
        for moment in when.split(" --> ")
    )
    assert (first, last) == (200, 400)
    assert (b"first" in shown) == (name == "out.webm")
    assert any("(attachment" in note for note in record.notes) == (name != "out.mkv")


# Colours


@pytest.mark.parametrize(
    "colors",
    [
        Colors("tv", "bt709", "bt709", "bt709"),
        Colors("pc", "smpte170m", "smpte170m", "smpte170m"),
        Colors("tv", "bt2020nc", "bt2020", "bt2020-10"),
    ],
)
def test_colours_and_their_tags_are_kept(tmp_path: Path, colors: Colors) -> None:
    source = tmp_path / "source.mkv"
    matrix = str(colors.matrix).removesuffix("nc")
    tags = (
        f"range={colors.range}:colorspace={colors.matrix}"
        f":color_primaries={colors.primaries}:color_trc={colors.transfer}"
    )
    ffmpeg(
        *("-f", "lavfi", "-i", "color=0xC86432:s=32x32:d=0.2", "-vf"),
        f"scale=out_color_matrix={matrix}:out_range={colors.range}:"
        f"flags=accurate_rnd,format=yuv420p,setparams={tags}",
        *("-c:v", "libx264", "-crf", "1", source),
    )
    assert probe(FFMPEG, source).colors == colors
    upscale(source, tmp_path / "lossless.mkv", LOSSLESS)
    picture = frames(tmp_path / "lossless.mkv", (64, 64))[0]
    # 8-bit YCbCr cannot hold every colour: two steps, and one of x264's.
    assert np.abs(picture[20, 20].astype(int) - (0xC8, 0x64, 0x32)).max() <= 3
    upscale(source, tmp_path / "out.mp4", VideoOptions(crf=1))
    assert probe(FFMPEG, tmp_path / "out.mp4").colors == colors
    again = frames(tmp_path / "out.mp4", (64, 64), *to_rgb(matrix, str(colors.range)))[
        0
    ]
    assert np.abs(again[20, 20].astype(int) - (0xC8, 0x64, 0x32)).max() <= 4


def test_a_matrix_that_is_not_named_is_named_in_the_result(tmp_path: Path) -> None:
    # Else a player would take BT.709 for the larger picture.
    source = make_clip(tmp_path / "source.mp4", size="640x360", seconds=0.1)
    record = upscale(source, tmp_path / "out.mp4")
    assert record.output_size == (1280, 720)
    assert probe(FFMPEG, tmp_path / "out.mp4").colors.matrix == "smpte170m"


@pytest.mark.parametrize("format_name", ["yuv444p", "yuv422p"])
def test_chroma_keeps_its_resolution(tmp_path: Path, format_name: str) -> None:
    source = make_clip(tmp_path / "source.mp4", "-pix_fmt", format_name, seconds=0.2)
    upscale(source, tmp_path / "out.mp4")
    assert probe(FFMPEG, tmp_path / "out.mp4").pixel_format == format_name


def test_hdr_is_refused_or_mapped(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "hdr.mp4", seconds=0.2, filters=HDR)
    target = tmp_path / "out.mp4"
    with pytest.raises(VideoError, match=r"HDR .* --tone-map"):
        upscale(source, target)
    record = upscale(source, target, VideoOptions(tone_map=True))
    assert probe(FFMPEG, target).colors == Colors("tv", "bt709", "bt709", "bt709")
    assert "HDR mapped to BT.709" in record.notes


def test_interlaced_video_becomes_progressive_and_this_is_said(
    tmp_path: Path,
) -> None:
    source = make_clip(
        tmp_path / "fields.mp4",
        *("-flags", "+ilme+ildct", "-x264opts", "tff=1"),
        rate=50,
        seconds=0.5,
        filters="tinterlace=interleave_top,fieldorder=tff",
    )
    assert probe(FFMPEG, source).interlaced
    record = upscale(source, tmp_path / "out.mp4")
    assert any("bwdif" in note for note in record.notes)
    assert not probe(FFMPEG, tmp_path / "out.mp4").interlaced
    assert times(tmp_path / "out.mp4") == times(source)


def test_transparency_and_depth_are_said_to_be_lost(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "deep.mkv", "-c:v", "ffv1", "-pix_fmt", "yuva444p10le"),
        seconds=0.2,
    )
    notes = "\n".join(upscale(source, tmp_path / "out.mp4").notes)
    assert "transparency is left out" in notes
    assert "more than 8 bits a channel reduced to 8" in notes


# Luma


def raw(path: Path, pixel_format: str) -> Bytes:
    """All frames' planes, one after the other."""
    data = ffmpeg(
        *("-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", pixel_format, "-"),
    )
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize(
    ("pixel_format", "kind"),
    [
        ("yuv420p", FrameFormat("420")),
        ("yuv422p", FrameFormat("422")),
        ("yuv444p10le", FrameFormat("444", bits=10)),
        ("yuv420p12le", FrameFormat("420", bits=12)),
        ("gray", FrameFormat("400")),
        ("gray10le", FrameFormat("400", bits=10)),
        ("yuvj420p", FrameFormat("420", range="full")),
    ],
)
def test_planes_go_through_a_network_for_luma_as_they_are(
    tmp_path: Path, pixel_format: str, kind: FrameFormat
) -> None:
    source, target = tmp_path / "source.mkv", tmp_path / "out.mkv"
    full = "full" in kind.range or kind.subsampling == "400"
    make_clip(
        *(source, "-c:v", "ffv1", "-pix_fmt", pixel_format),
        *("-color_range", "pc" if full else "tv"),
        filters="scale=35:21",
        seconds=0.2,
    )
    fake = FakeUpscaler(LUMA)
    record = upscale(source, target, LOSSLESS, fake)
    found = probe(FFMPEG, target)
    assert found.pixel_format.replace("j", "") == pixel_format.replace("j", "")
    assert found.colors.range == probe(FFMPEG, source).colors.range
    assert record.path == (f"luma, {':'.join(kind.subsampling)} of {kind.bits} bits")
    size = kind.frame_bytes(21, 35)
    given = raw(source, pixel_format).reshape(-1, size)
    results = raw(target, pixel_format).reshape(len(given), -1)
    for one, large in zip(given, results, strict=True):
        expected = fake.frame(Frame.of_bytes(kind, 21, 35, one))
        planes = np.concatenate([p.reshape(-1).view(np.uint8) for p in expected.planes])
        np.testing.assert_array_equal(large, planes)


@pytest.mark.parametrize("codec", ["h265", "h264", "av1", "vp9", "ffv1"])
def test_hdr_goes_through_a_network_for_luma_as_it_is(
    tmp_path: Path, codec: str
) -> None:
    source, target = tmp_path / "hdr.mkv", tmp_path / "out.mkv"
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    make_clip(
        *(source, "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params"),
        f"log-level=error:chromaloc=2:max-cll=1000,400:master-display={display}",
        seconds=0.2,
        filters="setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020"
        ":color_trc=smpte2084",
    )
    before = probe(FFMPEG, source)
    assert before.mastering is not None
    assert before.light == (1000, 400)
    record = upscale(source, target, VideoOptions(codec=codec), FakeUpscaler(LUMA))
    assert record.path == "luma, 4:2:0 of 10 bits, PQ as it is"
    # Older ones do not find, in H.264, what was told the encoder.
    after = probe(MAKER, target)
    assert after.pixel_format == "yuv420p10le"
    assert after.colors == before.colors
    assert (after.mastering, after.light) == (before.mastering, before.light)
    assert (before.siting, after.siting) == ("topleft", "topleft")
    assert not any("does not say" in each for each in record.notes)


def test_a_change_of_range_and_depth_is_a_note(tmp_path: Path) -> None:
    parts = []
    for number, told in enumerate(
        (
            ("-pix_fmt", "yuv420p", "-color_range", "tv"),
            ("-pix_fmt", "yuv420p10le", "-color_range", "pc"),
        )
    ):
        path = tmp_path / f"{number}.ts"
        parts.append(make_clip(path, "-c:v", "libx264", *told, seconds=0.2))
    source = tmp_path / "changes.ts"
    source.write_bytes(b"".join(path.read_bytes() for path in parts))
    record = upscale(source, tmp_path / "out.mkv", LOSSLESS, FakeUpscaler(LUMA))
    said = "\n".join(record.notes)
    assert re.search(r"several formats \(yuv420p.*; yuv420p10le, pc", said), said


@pytest.mark.parametrize("pixel_format", ["gray", "gray16be", "ya8"])
def test_grey_goes_by_luma_whatever_its_matrix_is_called(
    tmp_path: Path, pixel_format: str
) -> None:
    source = make_clip(
        tmp_path / "in.mkv", "-c:v", "png", "-pix_fmt", pixel_format, seconds=0.2
    )
    record = upscale(source, tmp_path / "out.mkv", LOSSLESS, FakeUpscaler(LUMA))
    bits = 12 if "16" in pixel_format else 8
    assert record.path == f"luma, 4:0:0 of {bits} bits"
    # No colours, no matrix to guess.
    assert not any("matrix" in each for each in record.notes)
    result = probe(MAKER, tmp_path / "out.mkv")
    assert result.pixel_format == ("gray12le" if bits == 12 else "gray")


def test_where_chroma_lies_is_a_note_if_the_result_cannot_say_it(
    tmp_path: Path,
) -> None:
    # JPEG's 4:2:2 lies in the centre, and H.264 has a tag for 4:2:0 alone.
    source = make_clip(
        *(tmp_path / "camera.avi", "-c:v", "mjpeg", "-pix_fmt", "yuvj422p"), seconds=0.1
    )
    said = "chroma lies center, which the result does not say"
    options = VideoOptions(codec="h264")
    record = upscale(source, tmp_path / "out.mp4", options, FakeUpscaler(LUMA))
    assert said in "\n".join(record.notes)
    record = upscale(source, tmp_path / "out.mkv", LOSSLESS, FakeUpscaler(LUMA))
    assert said not in "\n".join(record.notes)
    assert probe(MAKER, tmp_path / "out.mkv").siting == "center"


@pytest.mark.parametrize("graph", [LUMA, GRAPH])
@pytest.mark.parametrize(
    ("codec", "given", "kept", "is_less"),
    [
        ("av1", "yuv422p", "yuv420p", True),
        ("av1", "yuv444p", "yuv420p", True),
        ("av1", "yuv420p", "yuv420p", False),
        ("vp9", "yuv422p", "yuv422p", False),
        ("vp9", "gray", "yuv420p", False),  # given grey it would write RGB
    ],
)
def test_chroma_that_a_codec_has_no_room_for_is_reduced_and_named(
    tmp_path: Path, graph: Graph, codec: str, given: str, kept: str, is_less: bool
) -> None:
    source, target = tmp_path / "source.mkv", tmp_path / "out.mkv"
    make_clip(source, "-c:v", "ffv1", "-pix_fmt", given, seconds=0.1)
    record = upscale(source, target, VideoOptions(codec=codec), FakeUpscaler(graph))
    assert probe(MAKER, target).pixel_format.replace("j", "") == kept
    note = f"{codec}: chroma reduced to 4:2:0"
    assert (note in record.notes) == is_less


@pytest.mark.parametrize(
    ("given", "suffix", "path"),
    [("yvyu422", "avi", "luma, 4:2:2"), ("yuv411p", "mkv", "luma, 4:2:2")],
)
def test_planes_are_made_of_what_has_luma_in_another_order(
    tmp_path: Path, given: str, suffix: str, path: str
) -> None:
    source = tmp_path / f"source.{suffix}"
    codec = "rawvideo" if suffix == "avi" else "ffv1"
    make_clip(source, "-c:v", codec, "-pix_fmt", given, seconds=0.1)
    assert probe(FFMPEG, source).pixel_format == given
    record = upscale(source, tmp_path / "out.mkv", LOSSLESS, FakeUpscaler(LUMA))
    assert record.path == f"{path} of 8 bits"


def test_hdr_in_rgb_is_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "hdr.mkv"
    make_clip(
        *(source, "-c:v", "ffv1", "-pix_fmt", "gbrp10le"),
        filters="format=gbrp10le,setparams=range=pc:colorspace=gbr"
        ":color_primaries=bt2020:color_trc=smpte2084",
        seconds=0.1,
    )
    with pytest.raises(VideoError, match="of YCbCr in place of RGB"):
        upscale(source, tmp_path / "out.mkv", LOSSLESS, FakeUpscaler(LUMA))


def test_a_matrix_that_nothing_is_converted_by_is_no_obstacle(tmp_path: Path) -> None:
    source, target = tmp_path / "source.mkv", tmp_path / "out.mkv"
    make_clip(
        *(source, "-c:v", "ffv1", "-colorspace", "ictcp"),
        filters="format=yuv420p,setparams=colorspace=ictcp:range=tv",
        seconds=0.1,
    )
    fake = FakeUpscaler(LUMA)
    assert upscale(source, target, LOSSLESS, fake).path == "luma, 4:2:0 of 8 bits"
    assert probe(FFMPEG, target).colors.matrix == "ictcp"
    kind = FrameFormat("420", matrix="ictcp")
    first = raw(source, "yuv420p")[: kind.frame_bytes(36, 64)]
    expected = fake.frame(Frame.of_bytes(kind, 36, 64, first)).planes[0]
    found = raw(target, "yuv420p")[: expected.size]
    np.testing.assert_array_equal(found, expected.reshape(-1))


def test_what_has_no_luma_goes_by_rgb(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "rgb.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"), seconds=0.1
    )
    with Upscaler(LUMA, precision="fp32") as upscaler:
        record = upscale(source, tmp_path / "out.mkv", LOSSLESS, upscaler)
    assert record.path == "RGB, 8 bits"
    assert probe(FFMPEG, tmp_path / "out.mkv").pixel_format in ("gbrp", "bgr0")


def test_the_plan_says_model_path_and_depth(tmp_path: Path) -> None:
    model = tmp_path / "tiny.upf"
    write_model(model, LUMA)
    source = make_clip(tmp_path / "source.mp4", seconds=0.1)
    done = run(source, tmp_path / "out.mp4", "-m", model)
    assert done.returncode == 0, done.stderr
    assert "plain by luma, 4:2:0 of 8 bits; h264, yuv420p" in done.stderr


class Counting(FakeUpscaler):
    """Counts what it was given and nobody has asked for yet."""

    def __init__(self) -> None:
        super().__init__(GRAPH)
        self.begun = self.most = 0

    def start(self, picture: Bytes) -> Promise[Bytes]:
        self.begun += 1
        self.most = max(self.most, self.begun)
        return Promise(partial(self._finish, super().start(picture)))

    def _finish(self, promise: Promise[Bytes]) -> Bytes:
        self.begun -= 1
        return promise.result()


def test_a_frame_is_given_to_the_device_before_the_last_one_is_asked_for(
    tmp_path: Path, clip: Path
) -> None:
    upscaler = Counting()
    assert upscale(clip, tmp_path / "out.mkv", LOSSLESS, upscaler).frames == 24
    assert (upscaler.most, upscaler.begun) == (2, 0)
    given = frames(clip, (64, 36), *to_rgb("smpte170m"))
    assert same(frames(tmp_path / "out.mkv", (128, 72)), larger(given))


# What is not computed twice


def test_equal_frames_and_bars_are_counted(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "source.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"),
        rate=12,
        filters="loop=3:1:5,pad=64:96:0:30:black,trim=end_frame=12",
    )
    record = upscale(source, tmp_path / "out.mkv", LOSSLESS)
    given = frames(source, (64, 96))
    equal = sum(map(np.array_equal, given, given[1:]))
    assert 3 <= equal < 10
    assert (record.frames, record.duplicate_frames) == (12, equal)
    assert record.computed_frames == 12 - equal
    assert record.computed_share is not None
    assert record.computed_share < 0.75
    result = frames(tmp_path / "out.mkv", (128, 192))
    assert same(result, larger(given))


# Bad input


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a video\n" * 100, "not a video, or damaged"),
        (None, "No such file"),
    ],
)
def test_what_is_no_video_gets_one_line(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    source = tmp_path / "in.mp4"
    if content is not None:
        source.write_bytes(content)
    result = run(source, tmp_path / "out.mp4")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("upfrost: ")
    assert reason in line
    assert not (tmp_path / "out.mp4").exists()


def test_sound_alone_is_no_video(tmp_path: Path, clip: Path) -> None:
    ffmpeg("-i", clip, "-vn", "-c", "copy", tmp_path / "sound.mp4")
    with pytest.raises(VideoError, match="there is no video in it"):
        upscale(tmp_path / "sound.mp4", tmp_path / "out.mp4")


def test_a_video_that_is_cut_short_is_kept_as_far_as_it_goes(
    tmp_path: Path,
) -> None:
    whole = make_clip(tmp_path / "whole.mkv", seconds=4, size="96x64")
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) * 2 // 3])
    record = upscale(cut, tmp_path / "out.mp4")
    assert record.status == "done"
    assert 24 < (record.frames or 0) < 90
    assert any("damaged" in note or "cut short" in note for note in record.notes)


def test_a_video_without_its_index_is_refused(tmp_path: Path, clip: Path) -> None:
    data = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="moov atom not found"):
        upscale(tmp_path / "cut.mp4", tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["out.avi"], "does not end in .mkv, .mp4, .m4v, .mov or .webm"),
        (["out.webm", "--codec", "h264"], "a webm file holds vp9, av1, not h264"),
        (["out.mkv", "--codec", "ffv1", "--crf", "3"], "ffv1 is lossless"),
        (["out.mkv", "--duration", "0"], "a duration of 0 s leaves no frame"),
        (["out.mp4", "--crf", "52"], "--crf 52: h264 takes 0 to 51"),
        (["out.mp4", "--codec", "h265", "--crf", "63"], "h265 takes 0 to 51"),
        (["out.mkv", "--segment", "0"], "a segment of 0 s has no frame"),
        (["out.webm", "--preset", "slow"], "--preset means nothing to vp9"),
        (["out.mkv", "--codec", "av1", "--preset", "slow"], "av1 takes a number"),
        (["out.mkv", "--preset", "7"], "--preset 7: h264 takes a name"),
        (["out.mkv", "--ffmpeg", "/missing/ffmpeg"], "no such program"),
        (["out.mkv", "--ffmpeg", "true"], "true: is not ffmpeg"),
    ],
)
def test_what_cannot_be_written_gets_one_line(
    tmp_path: Path, clip: Path, arguments: list[str], reason: str
) -> None:
    result = run(clip, tmp_path / arguments[0], *arguments[1:])
    # A program that is not there is not the command line's fault.
    expected = 1 if "--ffmpeg" in arguments else 2
    assert result.returncode == expected, result.stderr
    (line,) = result.stderr.splitlines()
    assert reason in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_odd_sides_are_refused_where_the_encoder_takes_none(
    tmp_path: Path, clip: Path, codec: str
) -> None:
    """As a model by 3 makes them of odd sides."""
    odd = tmp_path / "odd.mkv"
    ffmpeg("-i", clip, "-vf", "scale=21:15", "-c:v", "ffv1", odd)
    graph = read_model(find_model("live-x3-s"))
    options = VideoOptions(codec=codec)
    with pytest.raises(VideoError, match=r"no frames of 63×45 .* av1, vp9, ffv1 do"):
        plan_work(FFMPEG, odd, CONTAINERS[".mkv"], graph, options)
    plan_work(FFMPEG, odd, CONTAINERS[".mkv"], graph, VideoOptions(codec="av1"))


def test_a_folder_that_is_not_there_is_an_error_of_usage(
    tmp_path: Path, clip: Path
) -> None:
    result = run(clip, tmp_path / "missing" / "out.mkv")
    assert result.returncode == 2, result.stderr
    assert result.stderr == f"upfrost: {tmp_path}/missing: no such folder\n"


def test_the_largest_crf_of_each_codec_is_its_encoder_s(clip: Path) -> None:
    # One more, and the encoder refuses it or takes the largest for it.
    for codec in CODECS.values():
        if codec.crf is None:
            continue
        sizes = []
        for crf in (codec.most_crf - 1, codec.most_crf):
            arguments = encoder_arguments(codec, crf, None)
            made = run_ffmpeg(
                find_ffmpeg(), ["-i", str(clip), *arguments, "-f", "matroska", "-"]
            )
            assert made.returncode == 0, codec
            sizes.append(len(made.stdout))
        assert sizes[0] > sizes[1], codec


def test_a_file_in_the_way_of_the_job_s_folder_is_named(
    tmp_path: Path, clip: Path
) -> None:
    target = tmp_path / "out.mkv"
    job_folder(target).write_text("somebody's")
    with pytest.raises(VideoError, match="a file, where a folder of this name"):
        upscale(clip, target)
    assert job_folder(target).read_text() == "somebody's"


def test_a_run_without_a_frame_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    # The last frame is at 0.958 s.
    options = VideoOptions(start=Fraction(99, 100))
    with pytest.raises(VideoError, match="there is no frame to upscale"):
        upscale(clip, tmp_path / "out.mkv", options)
    assert list(tmp_path.iterdir()) == []


def test_without_any_ffmpeg_it_is_said_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UPFROST_FFMPEG", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_the_model_is_the_one_that_knows_compressed_video(
    tmp_path: Path, clip: Path
) -> None:
    result = run(clip, tmp_path / "out.mkv", "--json", "--quiet")
    assert json.loads(result.stdout)["model"] == "live-x2-m"


def test_the_result_does_not_replace_what_exists(tmp_path: Path, clip: Path) -> None:
    target = tmp_path / "out.mkv"
    target.write_bytes(b"precious")
    with pytest.raises(ExistsError, match="exists already; --overwrite"):
        upscale(clip, target)
    assert target.read_bytes() == b"precious"
    upscale(clip, target, VideoOptions(overwrite=True))
    assert target.read_bytes() != b"precious"
    with pytest.raises(TargetError, match="would replace a file that is read"):
        upscale(clip, clip, VideoOptions(overwrite=True))


def test_a_folder_in_the_way_is_found_before_the_work(
    tmp_path: Path, clip: Path
) -> None:
    target = tmp_path / "out.mkv"
    target.mkdir()
    upscaler = FakeUpscaler(GRAPH)
    with pytest.raises(TargetError, match=r"out\.mkv: is a folder$"):
        upscale(clip, target, VideoOptions(overwrite=True), upscaler)
    assert not job_folder(target).exists()


def test_a_link_is_followed(tmp_path: Path, clip: Path) -> None:
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    target = tmp_path / "out.mkv"
    target.symlink_to(elsewhere / "film.mkv")
    upscale(clip, target)
    assert target.is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["film.mkv"]


class Rival(FakeUpscaler):
    """Lets another program write a file while the video is upscaled."""

    def __init__(self, path: Path) -> None:
        super().__init__(GRAPH)
        self.path = path

    def __call__(
        self, picture: Bytes, progress: Callable[[int, int], None] | None = None
    ) -> Bytes:
        self.path.write_bytes(b"precious")
        return super().__call__(picture, progress)


def test_a_file_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, clip: Path
) -> None:
    target = tmp_path / "out.mkv"
    with pytest.raises(VideoError, match=r"is left alone; .*; --resume goes on"):
        upscale(clip, target, upscaler=Rival(target))
    for _ in range(2):
        assert target.read_bytes() == b"precious"
        with pytest.raises(VideoError, match=r"is left alone; .*; --resume goes on"):
            upscale(clip, target, VideoOptions(resume=True))
    target.unlink()
    record = upscale(clip, target, VideoOptions(resume=True))
    assert record.resumed_frames == record.frames
    assert not job_folder(target).exists()
    # A run that was to replace it has said so.
    upscale(clip, target, VideoOptions(overwrite=True), Rival(target))
    assert target.read_bytes() != b"precious"


# Stopping and going on


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 frames with B-frames and sound, in several groups."""
    return make_clip(
        tmp_path_factory.mktemp("clips") / "long.mp4",
        *("-g", "30", "-bf", "2", "-c:a", "aac", "-shortest"),
        inputs=("-f", "lavfi", "-i", "sine=440:d=4"),
        seconds=4,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, long_clip: Path) -> Path:
    target = tmp_path_factory.mktemp("clips") / "uninterrupted.mp4"
    run(long_clip, target, "--segment", "0.3333333")
    return target


def processes_about(folder: Path) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def segments(target: Path) -> int:
    return len(list(job_folder(target).glob("*.json"))) - 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_is_killed_again_and_again_gives_the_same_file(
    tmp_path: Path, long_clip: Path, uninterrupted: Path, seed: int
) -> None:
    rng = random.Random(seed)
    target = tmp_path / "out.mp4"
    arguments: list[str | Path]
    arguments = [long_clip, target, "--segment", "0.3333333", "--resume", "--quiet"]
    seen = [0]
    for _ in range(4):
        process = subprocess.Popen(
            command(*arguments),
            env=os.environ | {"FAKE_SECONDS": "0.01"},
            stderr=subprocess.DEVNULL,
        )
        goal = seen[-1] + rng.randint(0, 3)
        while process.poll() is None and segments(target) < goal:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        if target.exists():
            # Then it is complete, even if its folder was not removed any more.
            assert packets(target, "v") == packets(uninterrupted, "v"), seed
            break
        seen.append(max(0, segments(target)))
    assert seen == sorted(seen), f"seed {seed}: work was lost"
    assert max(seen) > 0, f"seed {seed}: nothing was ever finished"
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert packets(target, "v") == packets(uninterrupted, "v"), seed
    assert packets(target, "a") == packets(uninterrupted, "a"), seed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_soon_and_keeps_what_is_done(
    tmp_path: Path, long_clip: Path, number: signal.Signals
) -> None:
    target = tmp_path / "out.mkv"
    process = subprocess.Popen(
        command(long_clip, target, "--segment", "0.3333333"),
        env=os.environ | {"FAKE_SECONDS": "0.03"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while segments(target) < 1:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(number)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    *_, before, last = log.splitlines()
    assert "stopped by SIG" in last
    assert re.search(
        r"out\.mkv: \d+ frames are done; --resume goes on from there", before
    )
    assert segments(target) >= 1
    assert not target.exists()
    assert not list(job_folder(target).glob("*.part"))
    deadline = time.monotonic() + 10
    while any(processes_about(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(processes_about(tmp_path))


def test_a_video_that_cannot_be_sought_is_resumed_all_the_same(
    tmp_path: Path,
) -> None:
    # A raw stream without times: seeking gives frames with other numbers.
    source = tmp_path / "raw.h264"
    make_clip(source, "-g", "250", "-bf", "0", seconds=4)
    whole = tmp_path / "whole.mkv"
    upscale(source, whole, SEGMENTS)
    target = tmp_path / "out.mkv"
    interrupt(source, target, done=2)
    assert segments(target) >= 2
    upscale(source, target, replace(SEGMENTS, resume=True))
    assert packets(target, "v") == packets(whole, "v")


class Failing(FakeUpscaler):
    """Fails when that many segments are finished."""

    def __init__(self, target: Path, done: int) -> None:
        super().__init__(GRAPH)
        self.target, self.done = target, done

    def __call__(
        self, picture: Bytes, progress: Callable[[int, int], None] | None = None
    ) -> Bytes:
        if segments(self.target) >= self.done:
            raise RuntimeError("interrupted")
        time.sleep(0.02)
        return super().__call__(picture, progress)


def interrupt(source: Path, target: Path, done: int) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        upscale(source, target, SEGMENTS, Failing(target, done))


def test_an_unfinished_run_is_neither_lost_nor_mixed_with_another(
    tmp_path: Path, long_clip: Path
) -> None:
    target = tmp_path / "out.mkv"
    interrupt(long_clip, target, done=2)
    with pytest.raises(VideoError, match=r"an unfinished run is there; --resume"):
        upscale(long_clip, target, SEGMENTS)
    other = replace(SEGMENTS, codec="h264", resume=True)
    with pytest.raises(VideoError, match="was begun with another encoding"):
        upscale(long_clip, target, other)
    assert segments(target) >= 2
    begin = replace(SEGMENTS, overwrite=True)
    record = upscale(long_clip, target, begin)
    assert record.resumed_frames == 0
    done = upscale(long_clip, target, replace(SEGMENTS, resume=True))
    assert done.status == "skipped"


def test_a_run_killed_while_it_tidied_up_is_complete(
    tmp_path: Path, clip: Path
) -> None:
    target = tmp_path / "out.mkv"
    upscale(clip, target)
    job_folder(target).mkdir()
    (job_folder(target) / "000000.mkv").write_bytes(b"not removed")
    assert upscale(clip, target, VideoOptions(resume=True)).status == "skipped"


def test_damaged_segments_are_made_again(tmp_path: Path, long_clip: Path) -> None:
    target = tmp_path / "out.mkv"
    interrupt(long_clip, target, done=3)
    (job_folder(target) / "000002.json").write_text('{"times": [1')
    record = upscale(long_clip, target, replace(SEGMENTS, resume=True))
    assert record.resumed_frames == 16
    assert record.frames == 96


def test_a_segment_that_changed_meanwhile_is_made_again(
    tmp_path: Path, long_clip: Path
) -> None:
    target = tmp_path / "out.mkv"
    interrupt(long_clip, target, done=3)
    damaged = job_folder(target) / "000001.mkv"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    record = upscale(long_clip, target, replace(SEGMENTS, resume=True))
    assert record.resumed_frames == 8
    assert record.frames == 96


@pytest.mark.parametrize("what", ["driver", "tuning", "upfrost"])
def test_kernels_that_may_round_otherwise_are_not_mixed(
    tmp_path: Path, long_clip: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    target = tmp_path / "out.mkv"
    interrupt(long_clip, target, done=1)
    other = FakeUpscaler(GRAPH)
    if what == "driver":
        other.device = replace(other.device, driver_version="1.2.4")
    elif what == "tuning":
        other.tuned_kernels = {"3×3, 4 → 4": "another"}
    else:
        monkeypatch.setattr("upfrost.video.upscale.__version__", "99")
    with pytest.raises(VideoError, match=f"was begun with another {what}"):
        upscale(long_clip, target, replace(SEGMENTS, resume=True), other)


class Murderer(FakeUpscaler):
    """Ends the process that decodes when it gets that frame."""

    def __init__(self, folder: Path, frame: int, number: signal.Signals) -> None:
        super().__init__(GRAPH)
        self.folder, self.frames_left, self.number = folder, frame, number

    def __call__(
        self, picture: Bytes, progress: Callable[[int, int], None] | None = None
    ) -> Bytes:
        self.frames_left -= 1
        if not self.frames_left:
            for process in processes_about(self.folder):
                if b"pipe:1" in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, self.number)
        return super().__call__(picture, progress)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_decoder_that_is_killed_is_not_the_end_of_the_video(
    tmp_path: Path, number: signal.Signals
) -> None:
    # Frames so large that few of them wait between the processes.
    source = make_clip(tmp_path / "source.mkv", "-g", "12", size="640x360", seconds=2)
    target = tmp_path / "out.mkv"
    options = VideoOptions(segment=Fraction(1, 3), preset="ultrafast")
    with pytest.raises(VideoError, match=r"decoder was ended by .*--resume goes on"):
        upscale(source, target, options, Murderer(tmp_path, 20, number))
    assert not target.exists()
    assert segments(target) >= 1
    assert upscale(source, target, replace(options, resume=True)).frames == 48


def test_two_processes_do_not_work_on_one_file(tmp_path: Path, long_clip: Path) -> None:
    target = tmp_path / "out.mkv"
    process = subprocess.Popen(
        command(long_clip, target, "--quiet"),
        env=os.environ | {"FAKE_SECONDS": "1"},
    )
    while not (job_folder(target) / "job.json").exists():
        time.sleep(0.01)
        assert process.poll() is None
    result = run(long_clip, target, "--resume")
    assert result.returncode == 1
    assert "another process is working on it" in result.stderr
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_a_full_disk_is_said_and_the_run_goes_on_later(
    tmp_path: Path, uninterrupted: Path, long_clip: Path
) -> None:
    target = tmp_path / "out.mp4"

    def limit() -> None:
        # Enough for segments, and not for the whole.
        size = uninterrupted.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    arguments: list[str | Path]
    arguments = [long_clip, target, "--segment", "0.3333333", "--resume"]
    process = subprocess.run(
        command(*arguments, "--quiet"),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "--resume goes on from there" in process.stderr.splitlines()[-1]
    assert not target.exists()
    assert run(*arguments).returncode == 0
    assert packets(target, "v") == packets(uninterrupted, "v")


def test_a_lost_device_ends_the_run_with_one_line(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "source.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"),
        filters="geq=r=13:g=N*3:b=9",
    )
    result = run(source, tmp_path / "out.mkv", "--json", FAKE_FAULT="lost")
    assert result.returncode == 1
    assert "did not compute" in result.stderr.splitlines()[-1]
    assert json.loads(result.stdout)["status"] == "failed"
    # Nothing that the next run would stumble over.
    assert [path.name for path in tmp_path.iterdir()] == ["source.mkv"]


def test_progress_shows_frames_rate_speed_and_time_left(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "PLAIN_INTERVAL", 0.0)
    log = io.StringIO()
    target = tmp_path / "out.mkv"
    upscale_video(
        clip,
        target,
        FakeUpscaler(GRAPH),  # type: ignore[arg-type]
        VideoOptions(),
        status.Status(log),
        VideoRecord(str(clip), str(target)),
    )
    lines = [line for line in log.getvalue().splitlines() if "frame " in line]
    assert re.search(
        r"clip\.mp4: frame 24 of 24, [\d.]+ frames/s, [\d.]+× real time, 0:00 left",
        lines[-1],
    )


def test_a_resumed_run_with_nothing_left_to_compute_names_no_speed(
    tmp_path: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "out.mkv"
    words = ["video", "-m", "live-x2-xs", "--device", "0", str(clip), str(target)]
    with monkeypatch.context() as patch:
        patch.setattr("upfrost.video.upscale.write_result", full)
        assert cli.main(words) == 1
    assert cli.main([*words, "--resume"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"out\.mkv: 64×36 → 128×72, 24 frames in 0:\d\d$", last)
