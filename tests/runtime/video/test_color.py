"""Colours: what is said of a stream's pixels, and what they become."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.clips import FFMPEG, MAKER, make_clip
from upfrost.video.color import Conversion, conversion, has_luma, luma_conversion
from upfrost.video.ffmpeg import Colors, VideoError, VideoInfo, probe, run_ffmpeg


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    clip = make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", seconds=0.1)
    return replace(probe(FFMPEG, clip), colors=Colors("tv", "bt709"))


def formats() -> list[tuple[str, int, int, list[int]]]:
    """Name, components, bits a pixel and depths of all software pixel formats."""
    listed = run_ffmpeg(MAKER, ["-pix_fmts"]).stdout.decode()
    flags, numbers = r"^[I.][O.]\.[P.][B.]", r" +(\d) +(\d+) +([\d-]+)$"
    rows = re.findall(rf"{flags} (\w+){numbers}", listed, re.MULTILINE)
    return [
        (name, int(parts), int(bits), list(map(int, depths.split("-"))))
        for name, parts, bits, depths in rows
    ]


def test_depth_alpha_and_chroma_of_every_format_are_told_right(info: VideoInfo) -> None:
    known = formats()
    assert len(known) > 200
    for name, parts, bits, depths in known:
        if re.match("bayer|xyz", name):  # neither RGB nor YCbCr
            continue
        found = conversion(replace(info, pixel_format=name))
        notes = " ".join(found.notes)
        assert ("more than 8 bits" in notes) == (max(depths) > 8), name
        assert ("transparency" in notes) == (parts in (2, 4)), name
        if parts < 3 or re.search(r"rgb|bgr|gbr", name):
            assert found.subsampling == "420", name
            continue
        # Samples of each plane of chroma for a pixel; alpha has as many as luma.
        luma = depths[0] * (2 if parts == 4 else 1)
        chroma = round(4 * (bits - luma) / 2 / depths[1]) / 4  # bits are rounded down
        ours = {"420": 1 / 4, "422": 1 / 2, "444": 1}[found.subsampling]
        assert chroma <= ours, name
        if not re.search("44[04]|41[01]", name):  # what encoders have no like of
            assert chroma == ours, name
        by_luma = luma_conversion(replace(info, pixel_format=name))
        assert by_luma.subsampling == found.subsampling, name
        assert by_luma.kind is not None, name
        assert by_luma.kind.bits == min(depths[0] + depths[0] % 2, 12), name


def test_every_format_with_luma_is_known_to_have_it(info: VideoInfo) -> None:
    for name, _, _, _ in formats():
        without = re.search("rgb|bgr|gbr|pal8|mono|bayer|xyz", name)
        assert has_luma(replace(info, pixel_format=name)) == (not without), name


def test_chroma_that_lies_otherwise_is_kept_too(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "packed.mkv", "-c:v", "rawvideo", "-pix_fmt", "uyvy422"),
        seconds=0.1,
    )
    found = probe(FFMPEG, source)
    assert found.pixel_format == "uyvy422"
    assert conversion(found).subsampling == "422"


def mark_dolby_vision(path: Path, profile: int, base: int) -> Path:
    """Say in an MP4 file that its video is Dolby Vision, as telephones' files do.

    Dolby Vision Streams Within the ISO Base Media File Format 2.0, 3.2: the box
    DOVIDecoderConfigurationBox, which goes into the entry of the sample's codec.
    """
    flags = (profile << 9 | 5 << 3 | 0b101).to_bytes(2, "big")  # level 5, RPU, base
    content = b"dvcC" + b"\1\0" + flags + bytes([base << 4]) + bytes(19)
    box = (len(content) + 4).to_bytes(4, "big") + content
    file, at = bytearray(path.read_bytes()), 0

    def length() -> int:
        return int.from_bytes(file[at : at + 4], "big")

    # It ends the innermost box. Samples lie before `moov`, and stay where they are.
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while bytes(file[at + 4 : at + 8]) != name:
            at += length()
        end = at + length()
        file[at : at + 4] = (length() + len(box)).to_bytes(4, "big")
        at += 16 if name == b"stsd" else 8
    file[end:end] = box
    path.write_bytes(file)
    return path


@pytest.mark.parametrize("convert", [conversion, luma_conversion])
def test_dolby_vision_is_left_out_where_there_is_a_picture_without_it(
    tmp_path: Path, convert: Callable[[VideoInfo], Conversion]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.1)
    assert not any("Dolby" in note for note in convert(probe(FFMPEG, clip)).notes)
    telephone = probe(FFMPEG, mark_dolby_vision(clip, profile=8, base=4))
    assert "Dolby Vision's own data are left out" in convert(telephone).notes[0]

    clip = make_clip(tmp_path / "own.mp4", seconds=0.1)
    film = probe(FFMPEG, mark_dolby_vision(clip, profile=5, base=0))
    with pytest.raises(VideoError, match=r"own\.mp4: Dolby Vision with colours of its"):
        convert(film)


def test_captions_that_are_lost_with_the_frames_are_named(tmp_path: Path) -> None:
    source = make_clip(
        *(tmp_path / "clip.m2v", "-c:v", "mpeg2video", "-f", "mpeg2video"), seconds=0.5
    )
    notes = [*conversion(probe(FFMPEG, source)).notes]
    # ATSC A/53 Part 4, 6.2: a picture's user data, here of one pair of bytes.
    caption = b"\0\0\1\xb2GA94\3\x41\xff\xfc\x94\x2c\xff"
    first_slice = b"\0\0\1\1"
    content = source.read_bytes().replace(first_slice, caption + first_slice)
    source.write_bytes(content)
    said = "closed captions, which are in the frames, are left out"
    for convert in (conversion, luma_conversion):
        assert [*convert(probe(FFMPEG, source)).notes] == [said, *notes]


def test_dynamic_metadata_that_are_lost_with_the_frames_are_named(
    tmp_path: Path,
) -> None:
    source = make_clip(tmp_path / "clip.hevc", "-c:v", "libx265", seconds=0.1)
    notes = [*conversion(probe(FFMPEG, source)).notes]
    # SMPTE ST 2094-40 of one window, all else zero, in a message of ITU-T T.35.
    message = b"\xb5\0\x3c\0\1\4\1" + b"\x40" + bytes(14)
    unit = b"\x4e\1\4" + bytes([len(message)]) + message + b"\x80"  # Rec. H.265, 7.3
    unit = b"\0\0\1" + unit.replace(b"\0\0", b"\0\0\3")
    first_slice = b"\0\0\1\x28\1"
    content = source.read_bytes()
    assert first_slice in content
    source.write_bytes(content.replace(first_slice, unit + first_slice))
    said = "the dynamic metadata of HDR10+ or HDR Vivid are left out"
    for convert in (conversion, luma_conversion):
        assert [*convert(probe(FFMPEG, source)).notes] == [said, *notes]


def test_hdr_is_refused_without_an_option_that_not_everybody_has(
    info: VideoInfo,
) -> None:
    hdr = replace(info, colors=Colors("tv", "bt2020nc", "bt2020", "smpte2084"))
    with pytest.raises(VideoError, match=r"HDR \(smpte2084\).*; map it to BT.709"):
        conversion(hdr)
