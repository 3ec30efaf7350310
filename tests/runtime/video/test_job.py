"""The folder of an unfinished run: what counts, what stands in the way, what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from upfrost.video.ffmpeg import VideoError
from upfrost.video.job import (
    RESULT,
    Job,
    Segment,
    job_folder,
    open_job,
    remove_published,
)

ASKED: dict[str, object] = {"device": "one", "tuning": {"3×3": "a"}}


def new(
    target: Path,
    asked: dict[str, object] = ASKED,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Job:
    return open_job(target, asked, resume=resume, overwrite=overwrite)


def add(job: Job, frames: int = 2) -> None:
    part = job.part_file("segment")
    part.write_bytes(b"segment " * 100)
    job.add(part, Segment(tuple(range(frames)), None, (7,) * frames))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The target of a run that ended after three segments."""
    target = tmp_path / "out.mkv"
    job = new(target)
    for _ in range(3):
        add(job)
    job.close()
    return target


def test_finished_segments_are_gone_on_with(begun: Path) -> None:
    job = new(begun, resume=True)
    assert (job.segments, job.frames) == (3, 6)
    job.close()


@pytest.mark.parametrize("content", [b"", b'{"device": ', b"[]"])
def test_a_damaged_job_file_erases_nothing(begun: Path, content: bytes) -> None:
    folder = job_folder(begun)
    (folder / "job.json").write_bytes(content)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(VideoError, match=r"job.json: is damaged.* --overwrite"):
        new(begun, resume=True)
    assert {path.name for path in folder.iterdir()} == before
    job = new(begun, overwrite=True)
    assert job.segments == 0
    job.close()


def test_other_kernels_are_not_mixed_in(begun: Path) -> None:
    with pytest.raises(VideoError, match="was begun with another tuning"):
        new(begun, ASKED | {"tuning": {"3×3": "b"}}, resume=True)


def test_another_input_is_said_before_what_follows_from_it(tmp_path: Path) -> None:
    asked: dict[str, object] = {"input": ["a.mkv", 5, 7], "conversion": "scale"}
    job = new(tmp_path / "out.mkv", asked)
    add(job)
    job.close()
    other: dict[str, object] = {"input": ["b.mkv", 5, 8], "conversion": "crop"}
    with pytest.raises(VideoError, match=r"another input \(a\.mkv, not b\.mkv\);"):
        new(tmp_path / "out.mkv", other, resume=True)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (["-c:v", "libx264", "-crf", "30"], "-crf 18, not 30"),
        (["-c:v", "libx264", "-crf", "18", "-preset", "slow"], "nothing, not -preset"),
        (["-c:v", "libx265", "-crf", "18"], "-c:v libx264, not libx265"),
    ],
)
def test_of_another_encoding_what_differs_is_said(
    tmp_path: Path, now: list[str], said: str
) -> None:
    job = new(tmp_path / "out.mkv", {"encoding": ["-c:v", "libx264", "-crf", "18"]})
    add(job)
    job.close()
    with pytest.raises(VideoError, match=rf"another encoding \({said}"):
        new(tmp_path / "out.mkv", {"encoding": now}, resume=True)


def test_a_segment_whose_bytes_changed_is_made_again(begun: Path) -> None:
    changed = job_folder(begun) / "000001.mkv"
    content = bytearray(changed.read_bytes())
    content[99] ^= 1
    changed.write_bytes(content)
    job = new(begun, resume=True)
    assert job.segments == 1
    job.close()


def test_a_segment_that_was_cut_is_made_again(begun: Path) -> None:
    cut = job_folder(begun) / "000001.mkv"
    cut.write_bytes(cut.read_bytes()[:-1])
    job = new(begun, resume=True)
    assert job.segments == 1
    job.close()


def test_a_rejected_segment_is_made_again_and_those_after_it(begun: Path) -> None:
    job = new(begun, resume=True)
    job.reject(1)
    job.close()
    job = new(begun, resume=True)
    assert job.segments == 1
    job.close()


def test_without_a_segment_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    new(target).close()
    assert not job_folder(target).exists()

    # A killed process does not tidy up.
    job = new(target)
    job.part_file("segment").write_bytes(b"half")
    job._lock.close()
    job = new(target, ASKED | {"device": "another"})
    assert not list(job.folder.glob("*.part"))
    job.close()


def test_a_run_with_segments_is_not_begun_anew_by_accident(begun: Path) -> None:
    with pytest.raises(VideoError, match="an unfinished run is there"):
        new(begun)
    assert (job_folder(begun) / "000002.mkv").exists()


def test_whether_it_may_replace_a_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    job = new(target, overwrite=True)
    job._lock.close()  # killed before its first segment
    job = new(target, resume=True)
    assert job.replaces
    add(job)
    job.close()
    job = new(target, resume=True)
    assert (job.segments, job.replaces) == (1, True)
    job.close()


def test_a_run_killed_right_after_it_gave_its_result_a_name_is_done(
    begun: Path,
) -> None:
    job = new(begun, resume=True)
    assert not job.replaces
    part = job.part_file(RESULT)
    part.write_bytes(b"film")
    job._lock.close()
    begun.write_bytes(b"film")  # somebody's that happens to be the same
    assert not remove_published(begun)
    begun.unlink()
    begun.hardlink_to(part)
    assert remove_published(begun)
    assert not job_folder(begun).exists()
    assert begun.read_bytes() == b"film"


def test_files_of_others_stay(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    precious = job_folder(target) / "notes.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    job = new(target, overwrite=True)
    add(job)
    job.remove()
    job.close()
    assert [path.name for path in precious.parent.iterdir()] == ["notes.txt"]
