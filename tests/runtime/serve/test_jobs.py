"""Jobs outlive the process that has them, whenever it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from upfrost.serve.jobs import MOST_ATTEMPTS, FolderError, Job, Store, new_job
from upfrost.serve.speeds import Speeds


def add(store: Store, name: str = "photo.png") -> Job:
    upload = store.new_upload()
    upload.write_bytes(name.encode())
    return store.add(upload, new_job(name, "picture", "realtime-x2", ".png",
                                     bytes=len(name), input_suffix=".png"))  # fmt: skip


def reopened(store: Store) -> Store:
    store.close()
    return Store(store.folder)


def test_jobs_are_done_in_their_order_and_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = add(store, "first"), add(store, "second")
    taken = store.take(0)
    assert taken is not None
    assert (taken.id, taken.state, taken.attempts) == (first.id, "running", 1)
    store.change(first.id, state="done", output_size=(4, 6), share=1.0)
    store = reopened(store)
    assert [job.name for job in store.jobs()] == ["first", "second"]
    assert store.jobs()[0].output_size == (4, 6)
    assert store.input_path(second).read_bytes() == b"second"
    assert (store.take(0) or first).id == second.id
    assert store.take(0) is None
    store.close()


def test_what_was_running_at_a_kill_is_begun_again_but_not_for_ever(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    add(store)
    for _ in range(MOST_ATTEMPTS):
        assert store.jobs()[0].state == "queued"
        assert store.take(0) is not None
        store = reopened(store)
    (job,) = store.jobs()
    assert job.state == "failed"
    assert f"{MOST_ATTEMPTS} times" in (job.error or "")
    store.close()


def test_what_a_kill_left_half_made_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = add(store)
    store.new_upload().write_bytes(b"half")
    (tmp_path / "jobs" / f"{job.id[::-1]}.tmp").mkdir()
    newer = tmp_path / "jobs" / "newer"  # than this version can read
    newer.mkdir()
    (newer / "job.json").write_text("{}")
    about = tmp_path / "jobs" / job.id / "job.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"news": 1}))
    store = reopened(store)
    assert [known.id for known in store.jobs()] == [job.id]
    assert not list((tmp_path / "uploads").iterdir())
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {job.id, "newer"}
    store.remove(job.id)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["newer"]
    store.close()


def test_what_users_have_under_these_names_stays(tmp_path: Path) -> None:
    theirs = [
        tmp_path / name
        for name in ("lock", "uploads/photo.jpg", "uploads/2024/b.jpg", "jobs/cv.d/cv")
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    Store(tmp_path).close()
    assert [path.read_text() for path in theirs] == ["theirs"] * len(theirs)


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(FolderError, match="another upfrost serve"):
        Store(tmp_path)
    store.close()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(FolderError, match="file"):
        Store(file)


def test_speeds_are_learnt_for_each_device(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    speeds = Speeds(path)
    assert speeds.rate("a") is None
    speeds.learn("Mali", "a", 100)
    speeds.learn("Mali", "a", 999, first=True)
    assert speeds.rate("a") == 100
    speeds.learn("Mali", "a", 200)
    assert speeds.rate("a") == 150
    assert Speeds(path).rate("a") == 150
    speeds.learn("another", "b", 7)
    assert (speeds.rate("a"), speeds.rate("b")) == (None, 7)
    path.write_text("[]")
    assert Speeds(path).device is None
