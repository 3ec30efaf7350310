"""ffmpeg's own metadata files: tags of a file or of a stream, and chapters.

They say what the log says, so that no tag can be taken for anything else: the format
has escapes (https://ffmpeg.org/ffmpeg-formats.html, "Metadata").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

_LINE = re.compile(r"(?:\\.|[^\\\n])+", re.DOTALL)
_PAIR = re.compile(r"((?:\\.|[^\\=])*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Chapter:
    """A part of a video. Times are seconds by the file's clock."""

    start: Fraction
    end: Fraction
    tags: dict[str, str]


@dataclass(frozen=True)
class Metadata:
    """Tags of a file, or of one of its streams, and chapters."""

    tags: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Chapter, ...] = ()


def parse_metadata(text: str) -> Metadata:
    """Read a file that ffmpeg's muxer `ffmetadata` wrote."""
    tags: dict[str, str] = {}
    sections: list[tuple[str, dict[str, str]]] = [("", tags)]
    for line in _LINE.findall(text):
        if line in ("[STREAM]", "[CHAPTER]"):
            sections.append((line, {}))
        elif line[0] not in ";#" and (found := _PAIR.fullmatch(line)):
            sections[-1][1][_unescape(found[1])] = _unescape(found[2])
    return Metadata(
        tags,
        tuple(_chapter(pairs) for kind, pairs in sections if kind == "[CHAPTER]"),
    )


def chapters_between(
    chapters: Iterable[Chapter], begin: Fraction, end: Fraction | None
) -> Iterator[Chapter]:
    """The chapters of the part from `begin` to `end`, by a clock that is 0 at `begin`.

    Those that reach over its ends are cut.
    """
    for chapter in chapters:
        until = chapter.end if end is None else min(chapter.end, end)
        start = max(chapter.start, begin)
        if start < until or start == until == chapter.start == chapter.end != end:
            yield replace(chapter, start=start - begin, end=until - begin)


def format_chapters(chapters: Iterable[Chapter]) -> str:
    """A file of metadata that has these chapters and no tags."""
    lines = [";FFMETADATA1"]
    for chapter in chapters:
        base = Fraction(1, 1_000_000_000)
        lines += ["[CHAPTER]", f"TIMEBASE={base.numerator}/{base.denominator}"]
        lines += [f"START={round(chapter.start / base)}"]
        lines += [f"END={round(chapter.end / base)}"]
        lines += [f"{_escape(k)}={_escape(v)}" for k, v in chapter.tags.items()]
    return "\n".join(lines) + "\n"


def _chapter(pairs: dict[str, str]) -> Chapter:
    base = Fraction(pairs.pop("TIMEBASE"))
    start, end = int(pairs.pop("START")), int(pairs.pop("END"))
    return Chapter(start * base, end * base, pairs)


def _escape(text: str) -> str:
    return re.sub(r"([=;#\\\n])", r"\\\1", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
