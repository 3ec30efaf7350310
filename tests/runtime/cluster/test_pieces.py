"""A video's pieces decode, each alone, to the frames that the whole video has there."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tests.runtime.clips import FFMPEG, GRAPH, ffmpeg, make_clip
from upfrost.cluster.pieces import CutError, Piece, cut
from upfrost.cluster.work import SegmentOrder, UnlikeError, Wanted, decode_piece
from upfrost.video.decode import Decoder
from upfrost.video.formats import CONTAINERS
from upfrost.video.upscale import VideoOptions, Work, plan_work

Sums = list[tuple[int, int]]  # times and checksums of frames
OPTIONS = VideoOptions(segment=Fraction(1, 2))
WANTED = Wanted("", None, "auto", None, None, None)


def work_on(path: Path, options: VideoOptions = OPTIONS) -> Work:
    return plan_work(FFMPEG, path, CONTAINERS[".mkv"], GRAPH, options)


def whole(work: Work) -> Sums:
    """All frames of the video, decoded at once."""
    decoder = Decoder(FFMPEG, work.info, work.conversion.to_frames)
    try:
        return [(frame.pts, zlib.crc32(frame.pixels.data)) for frame in decoder]
    finally:
        decoder.close()


def decoded(work: Work, piece: Piece, path: Path) -> tuple[Sums, Sums]:
    path.write_bytes(piece.data)
    order = SegmentOrder(WANTED, work, piece.times, piece.origin, piece.compared_from)
    return decode_piece(order, path)


def variable_rate(folder: Path) -> Path:
    """A frame in seven is missing, as are those that a telephone leaves out."""
    return make_clip(
        *(folder / "variable.mp4", "-g", "17", "-fps_mode", "vfr"),
        filters=r"select=mod(n\,7)",
        seconds=3,
    )


def edit_list(folder: Path) -> Path:
    """Cut without encoding: frames before 0 are decoded, and not shown."""
    clip = make_clip(folder / "whole.mp4", "-g", "30", seconds=4)
    ffmpeg("-ss", "0.7", "-i", clip, "-c", "copy", folder / "cut.mp4")
    return folder / "cut.mp4"


def open_groups(folder: Path) -> Path:
    """Frames before a key frame refer to the group before it."""
    parameters = "open-gop=1:bframes=4:b-pyramid=normal"
    return make_clip(
        *(folder / "open.mkv", "-g", "20", "-x264-params", parameters), seconds=3
    )


def fields(folder: Path) -> Path:
    """A picture is made of its own fields and of its neighbours'."""
    return make_clip(
        *(folder / "fields.mp4", "-flags", "+ilme+ildct", "-g", "15"),
        filters="interlace",
        seconds=4,
    )


def transport_stream(folder: Path) -> Path:
    """Times begin anywhere, and parameters are in the stream."""
    return make_clip(folder / "broadcast.ts", "-g", "18", seconds=3)


@pytest.mark.parametrize(
    "make", [variable_rate, edit_list, open_groups, fields, transport_stream]
)
def test_pieces_decode_as_the_whole_does(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    work = work_on(make(tmp_path))
    expected = whole(work)
    found: Sums = []
    for number, piece in enumerate(cut(work, 0, None)):
        lead, own = decoded(work, piece, tmp_path / "piece.mkv")
        assert piece.number == number
        # What proves a cut: frames of earlier segments, as they were. Frames that are
        # not to be shown are in no segment.
        times = {pts for pts, _ in found}
        again = {(pts, crc) for pts, crc in lead if pts in times}
        assert again <= set(found)
        assert again or not number
        found += own
        full = len(own) == work.segment_frames
        assert full or len(found) == len(expected)
    assert found == expected


def test_a_part_of_a_video_is_cut(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "-g", "30", seconds=4)
    part = replace(OPTIONS, start=Fraction(3, 2), duration=Fraction(2))
    work = work_on(clip, part)
    expected = [
        (pts, crc) for pts, crc in whole(work) if 1.5 <= pts * work.info.time_base < 3.5
    ]
    found: Sums = []
    for piece in cut(work, 0, None):
        found += decoded(work, piece, tmp_path / "piece.mkv")[1]
    assert found == expected


def test_a_cut_goes_on_after_the_last_frame_that_is_done(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "-g", "30", seconds=4)
    work = work_on(clip)
    expected = whole(work)
    done = expected[: 3 * work.segment_frames]
    pieces = list(cut(work, 3, done[-1][0]))
    lead, own = decoded(work, pieces[0], tmp_path / "piece.mkv")
    assert pieces[0].number == 3
    assert lead
    assert set(lead) <= set(done)
    assert own == expected[len(done) : len(done) + work.segment_frames]


def test_a_file_without_times_cannot_be_cut(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x36:d=1", "-c:v", "mpeg4", "-bf", "2"),
        clip,
    )
    with pytest.raises(CutError):
        list(cut(work_on(clip), 0, None))


def test_key_frames_that_are_none_are_found_out(tmp_path: Path) -> None:
    """By intra refresh a decoder that begins in the middle shows less, or others."""
    clip = make_clip(
        *(tmp_path / "refresh.mp4", "-g", "30", "-x264-params", "intra-refresh=1"),
        seconds=4,
    )
    work = work_on(clip)
    expected = whole(work)
    wrong = 0
    for piece in cut(work, 0, None):
        try:
            lead, own = decoded(work, piece, tmp_path / "piece.mkv")
        except UnlikeError:
            wrong += 1
        else:
            wrong += not set(lead + own) <= set(expected)
    assert wrong
