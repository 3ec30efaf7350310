"""What a file holds, whatever its tags say, and what is no video."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from tests.runtime.clips import FFMPEG, ffmpeg, make_clip
from upfrost.video.ffmpeg import VideoError, probe

FORGED = "\u2028  Stream #0:7: Video: h264\u2028  Duration: 00:01:00.00, start: 7"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(
        tmp_path_factory.mktemp("clips") / "clip.mp4",
        *("-c:a", "aac", "-shortest"),
        inputs=("-f", "lavfi", "-i", "sine=440:d=1"),
    )


@pytest.fixture(scope="module")
def cover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("covers") / "cover.jpg"
    Image.new("RGB", (16, 16), "red").save(path)
    return path


def kinds(path: Path) -> list[str]:
    return [stream.kind for stream in probe(FFMPEG, path).streams]


@pytest.mark.parametrize("language", ["pt BR", "x: Video: h264 (", FORGED])
def test_no_language_hides_a_stream(tmp_path: Path, clip: Path, language: str) -> None:
    source = tmp_path / "source.mkv"
    ffmpeg("-i", clip, "-c", "copy", "-metadata:s:a", f"language={language}", source)
    assert kinds(source) == ["video", "audio"]
    assert probe(FFMPEG, source).streams[1].tags["language"] == language


def test_no_title_is_a_stream_or_a_length(tmp_path: Path, clip: Path) -> None:
    source = tmp_path / "source.mkv"
    ffmpeg("-i", clip, "-c", "copy", "-metadata", f"title={FORGED}", source)
    found = probe(FFMPEG, source)
    assert [stream.kind for stream in found.streams] == ["video", "audio"]
    assert abs(found.start) < 0.1  # ffmpeg 5.1 counts what primes the decoder
    assert found.duration is not None
    assert found.duration < 2


def test_a_cover_is_not_the_video(tmp_path: Path, clip: Path, cover: Path) -> None:
    source = tmp_path / "source.mp4"
    ffmpeg(
        *("-i", cover, "-i", clip, "-map", "0", "-map", "1", "-c", "copy"),
        *("-disposition:v:0", "attached_pic", source),
    )
    found = probe(FFMPEG, source)
    covers = [stream for stream in found.streams if stream.attached_picture]
    assert [stream.codec for stream in covers] == ["mjpeg"]
    assert found.video.codec == "h264"
    assert (found.width, found.height) == (64, 36)


def test_a_stream_that_cannot_be_made_out_does_not_hide_the_others(
    tmp_path: Path,
) -> None:
    """The sound is announced, and comes after the part of the file that is there."""
    whole = tmp_path / "whole.ts"
    make_clip(
        *(whole, "-c:a", "aac"),
        seconds=2,
        inputs=("-itsoffset", "1.5", "-f", "lavfi", "-i", "sine=440:d=1"),
    )
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: 188 * 60])
    assert kinds(cut) == ["video", "data"]


def test_a_file_is_not_read_to_its_end_for_what_is_in_it(tmp_path: Path) -> None:
    """In it is a subtitle at its end; in a process of its own, to be measured."""
    words, source = tmp_path / "words.srt", tmp_path / "source.mkv"
    words.write_text("1\n00:00:59,000 --> 00:01:00,000\nHello\n")
    ffmpeg("-f", "lavfi", "-i", "color=s=320x180:r=10:d=60", "-i", words, "-c:v",
           "rawvideo", "-c:s", "srt", source)  # fmt: skip
    program = """
import sys
from pathlib import Path
from upfrost.video.ffmpeg import find_ffmpeg, probe
def read():
    return int(Path("/proc/self/io").read_text().split()[1])
before = read()
probe(find_ffmpeg(), Path(sys.argv[1]))
print(read() - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, source], capture_output=True, check=True
    )
    # Each look takes ffmpeg some frames to guess the rate with.
    assert int(result.stdout) < source.stat().st_size / 2


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_uneven_times_are_no_damage(tmp_path: Path, suffix: str) -> None:
    """Frames closer together than the file's usual rate, as browsers record them."""
    source = make_clip(
        *(tmp_path / f"source{suffix}", "-c:v", "libvpx", "-fps_mode", "passthrough"),
        *("-enc_time_base", "1:1000", "-g", "4", "-b:v", "200k"),
        seconds=2,
        filters="settb=1/1000,setpts='33*N+mod(7*N*N\\,23)'",
    )
    assert probe(FFMPEG, source, Fraction(1, 2)).seekable


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_file_that_begins_late_is_as_long_as_it_is(
    tmp_path: Path, suffix: str
) -> None:
    source = make_clip(tmp_path / f"late{suffix}", "-output_ts_offset", "100")
    found = probe(FFMPEG, source)
    assert found.start > 99
    assert found.duration is not None
    assert float(found.duration) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile clip.ts\n",
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">',
    ],
)
def test_a_playlist_does_not_make_other_files_the_video(
    tmp_path: Path, text: str
) -> None:
    make_clip(tmp_path / "clip.ts", seconds=0.2)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(text)
    with pytest.raises(VideoError, match="is a playlist"):
        probe(FFMPEG, playlist)


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    named = tmp_path / "f%03d.png"
    Image.new("RGB", (8, 8)).save(named)
    for number in range(3):
        Image.new("RGB", (24, 24)).save(tmp_path / f"f{number:03d}.png")
    assert probe(FFMPEG, named).width == 8


def test_a_pipe_is_told_from_an_empty_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    with pytest.raises(VideoError, match=r"is not a file; .* save it as one first"):
        probe(FFMPEG, pipe)
