"""ffmpeg's metadata files: what tags hold stays in them, and chapters are cut right."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from tests.runtime.clips import FFMPEG, ffmpeg, make_clip
from upfrost.video.ffmpeg import read_metadata
from upfrost.video.metadata import (
    Chapter,
    chapters_between,
    format_chapters,
    parse_metadata,
)

# What the format's own characters are, and what looks like a section.
NASTY = "a=b;c#d\\e\n[CHAPTER]\n;x"


def chapter(start: int, end: int, title: str = "") -> Chapter:
    return Chapter(Fraction(start), Fraction(end), {"title": title})


def test_tags_cannot_look_like_anything_else() -> None:
    found = parse_metadata(
        ";FFMETADATA1\ntitle=a\\=b\\\n[STREAM]\n[STREAM]\nlanguage=pt BR\n[STREAM]\n"
        "[CHAPTER]\nTIMEBASE=1/2\nSTART=3\nEND=5\n\\[x\\;=\\#\\\\\n"
    )
    assert found.tags == {"title": "a=b\n[STREAM]"}
    assert found.chapters == (Chapter(Fraction(3, 2), Fraction(5, 2), {"[x;": "#\\"}),)


def test_ffmpeg_reads_the_chapters_that_are_written(tmp_path: Path) -> None:
    chapters = (chapter(0, 1, NASTY), chapter(1, 2, "\u2028 Stream #0:7: Video: x"))
    written = tmp_path / "chapters.txt"
    written.write_text(format_chapters(chapters), "utf-8")
    clip = make_clip(tmp_path / "clip.mkv", seconds=0.1)
    target = tmp_path / "out.mkv"
    ffmpeg("-i", clip, "-i", written, "-map_chapters", "1", "-c", "copy", target)
    assert read_metadata(FFMPEG, target).chapters == chapters


def test_chapters_are_cut_and_moved_with_the_video() -> None:
    chapters = [chapter(0, 10), chapter(10, 20), chapter(20, 30), chapter(30, 40)]
    cut = chapters_between(chapters, Fraction(10), Fraction(25))
    assert list(cut) == [chapter(0, 10), chapter(10, 15)]
    assert list(chapters_between(chapters, Fraction(35), None)) == [chapter(0, 5)]
    # Some writers say where chapters begin, and no more.
    marks = [chapter(5, 5), chapter(20, 20)]
    assert list(chapters_between(marks, Fraction(5), Fraction(20))) == [chapter(0, 0)]
