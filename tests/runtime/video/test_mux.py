"""What belongs to the video gets into the result, and what is untrue of it does not."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from tests.runtime.clips import (
    FFMPEG,
    ffmpeg,
    header,
    make_clip,
    packets,
    times,
    upscale,
)
from upfrost.video.ffmpeg import Stream, probe, read_metadata
from upfrost.video.metadata import Chapter, format_chapters
from upfrost.video.upscale import VideoOptions

PART = VideoOptions(start=Fraction(1, 2), duration=Fraction(1))


def titles(path: Path) -> list[tuple[str, float, float]]:
    """Title, beginning and end of each chapter, in tenths of a second."""
    return [
        (chapter.tags["title"], round(10 * chapter.start), round(10 * chapter.end))
        for chapter in read_metadata(FFMPEG, path).chapters
    ]


def covers(path: Path) -> list[Stream]:
    return [s for s in probe(FFMPEG, path).streams if s.attached_picture]


@pytest.fixture(scope="module")
def cover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("covers") / "cover.jpg"
    Image.new("RGB", (16, 16), "red").save(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds with a tone and three chapters."""
    folder = tmp_path_factory.mktemp("clips")
    marks = (("First", 0, 1), ("Second", 1, 3), ("Third", 3, 4))
    chapters = folder / "chapters.txt"
    chapters.write_text(
        format_chapters(
            Chapter(Fraction(start, 2), Fraction(end, 2), {"title": title})
            for title, start, end in marks
        )
    )
    return make_clip(
        folder / "clip.mov",
        *("-map", "0", "-map", "1", "-map_chapters", "2", "-c:a", "aac", "-shortest"),
        *("-timecode", "01:00:00:00"),
        seconds=2,
        inputs=("-f", "lavfi", "-i", "sine=440:d=2", "-i", chapters),
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_chapters_and_timecode_are_kept_and_not_said_to_be_lost(
    tmp_path: Path, clip: Path, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    record = upscale(clip, target)
    assert titles(target) == [("First", 0, 5), ("Second", 5, 15), ("Third", 15, 20)]
    assert "01:00:00:00" in header(target)
    assert not any("left out" in note for note in record.notes), record.notes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_chapters_are_cut_with_the_video(
    tmp_path: Path, clip: Path, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    record = upscale(clip, target, PART)
    assert titles(target) == [("Second", 0, 10)]
    # It would be that of a frame that is not there.
    assert "01:00:00:00" not in header(target)
    assert any("timecode is left out" in note for note in record.notes)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"], ids=["copied", "converted"])
def test_a_file_that_begins_late_is_cut_with_its_sound(
    tmp_path: Path, clip: Path, suffix: str
) -> None:
    source, target = tmp_path / "late.mkv", tmp_path / f"out{suffix}"
    ffmpeg("-i", clip, "-map", "0:v", "-map", "0:a", "-c", "copy", "-map_chapters",
           "-1", "-output_ts_offset", "100", source)  # fmt: skip
    record = upscale(source, target, PART)
    assert not any("before the file's length" in note for note in record.notes)
    assert times(target)[0] < Fraction(1, 10)
    lines = [line.split(",") for line in packets(target, "a").splitlines()]
    begin = int(lines[0][2])  # ms
    end = int(lines[-1][2]) + int(lines[-1][3])
    # To a frame of sound, or what primes its decoder.
    assert abs(begin) <= 50
    assert abs(end - 1000) <= 50


@pytest.mark.parametrize(
    ("origin", "suffix", "options"),
    [
        (".mp4", ".mp4", PART),
        (".mp4", ".mkv", VideoOptions()),
        (".mkv", ".mp4", VideoOptions()),
        (".mkv", ".mkv", PART),
    ],
)
def test_a_cover_stays_one_and_moves_nothing(
    tmp_path: Path,
    clip: Path,
    cover: Path,
    origin: str,
    suffix: str,
    options: VideoOptions,
) -> None:
    source, target = tmp_path / f"source{origin}", tmp_path / f"out{suffix}"
    if origin == ".mp4":
        ffmpeg("-i", clip, "-i", cover, "-map", "0:v", "-map", "0:a", "-map", "1",
               "-c", "copy", "-disposition:v:1", "attached_pic", source)  # fmt: skip
    else:
        ffmpeg("-i", clip, "-map", "0:v", "-map", "0:a", "-c", "copy", "-attach",
               cover, "-metadata:s:t", "mimetype=image/jpeg", "-metadata:s:t",
               "filename=front.jpg", source)  # fmt: skip
    upscale(source, target, options)
    (found,) = covers(target)
    copied = ["-map", f"0:{found.index}", "-c", "copy", "-f", "data", "-"]
    assert ffmpeg("-i", target, *copied) == cover.read_bytes()
    kinds = [s.kind for s in probe(FFMPEG, target).streams if not s.attached_picture]
    assert kinds.count("video") == 1
    assert times(target)[0] < Fraction(1, 20)
    if origin == suffix == ".mkv":
        assert found.tags["filename"] == "front.jpg"


def test_counts_of_the_sources_streams_are_not_those_of_the_result(
    tmp_path: Path, clip: Path
) -> None:
    source, target = tmp_path / "source.mkv", tmp_path / "out.mkv"
    counts = [
        word
        for kind in "va"
        for key in ("BPS", "NUMBER_OF_FRAMES-eng", "_STATISTICS_TAGS", "NUMBER_OF_YOU")
        for word in (f"-metadata:s:{kind}", f"{key}=12345678")
    ]
    ffmpeg("-i", clip, "-map", "0:v", "-map", "0:a", "-c", "copy", *counts, source)
    upscale(source, target)
    for stream in probe(FFMPEG, target).streams:
        kept = [key for key, value in stream.tags.items() if value == "12345678"]
        assert kept == ["NUMBER_OF_YOU"]


def test_an_opaque_result_does_not_say_that_it_is_transparent(tmp_path: Path) -> None:
    source, target = tmp_path / "source.webm", tmp_path / "out.webm"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x36:d=0.2,format=yuva420p", "-c:v",
           "libvpx-vp9", "-b:v", "0", "-crf", "40", source)  # fmt: skip
    assert probe(FFMPEG, source).video.tags["alpha_mode"] == "1"
    record = upscale(source, target)
    assert "transparency is left out" in record.notes
    assert "alpha_mode" not in probe(FFMPEG, target).video.tags


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
def test_what_quicktime_says_is_kept(tmp_path: Path, clip: Path, suffix: str) -> None:
    source, target = tmp_path / "source.mov", tmp_path / f"out{suffix}"
    place = "+27.5916+086.5640+8850/"
    ffmpeg("-i", clip, "-map", "0:v", "-c", "copy", "-movflags", "use_metadata_tags",
           "-metadata", f"com.apple.quicktime.location.ISO6709={place}",
           "-metadata", "title=A film", source)  # fmt: skip
    record = upscale(source, target)
    tags = {k.lower(): v for k, v in read_metadata(FFMPEG, target).tags.items()}
    assert tags["com.apple.quicktime.location.iso6709"] == place
    assert tags["title"] == "A film"
    # Said by the container of itself, and doubled by a copy.
    assert not any(";" in value for value in tags.values())
    assert not any("metadata" in note for note in record.notes)


def test_metadata_that_cannot_be_kept_is_named(tmp_path: Path, clip: Path) -> None:
    source, target = tmp_path / "source.mkv", tmp_path / "out.mp4"
    ffmpeg("-i", clip, "-map", "0:v", "-c", "copy", "-metadata", "MOOD=blue",
           "-metadata", "title=A film", source)  # fmt: skip
    notes = upscale(source, target).notes
    assert "the container has no place for some metadata: MOOD" in notes


def test_uneven_times_are_not_called_damage(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "source.webm", "-c:v", "libvpx", "-fps_mode", "passthrough"),
        *("-enc_time_base", "1:1000", "-b:v", "200k"),
        filters="settb=1/1000,setpts='33*N+mod(7*N*N\\,23)'",
    )
    record = upscale(source, tmp_path / "out.mkv")
    assert record.frames == 24
    assert not any(re.search("damaged|length", note) for note in record.notes)
