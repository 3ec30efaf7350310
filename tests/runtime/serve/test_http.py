"""The HTTP interface: what it takes, what it refuses, and who may use it."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from tests.runtime import fakes
from tests.runtime.clips import frames, make_clip
from tests.runtime.serve.served import HERE, Served, png, served
from upfrost.serve.app import Limits
from upfrost.serve.choices import CHOICES
from upfrost.serve.jobs import Store


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Served]:
    """It takes jobs and does none."""
    with served(tmp_path / "serve") as it:
        yield it


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "serve", works=True) as it:
        yield it


def error_of(answer: Any) -> str:
    said: str = answer.json()["error"]
    assert "\n" not in said
    return said


# Jobs


def test_a_picture_becomes_larger(busy: Served) -> None:
    job = busy.send(png(), name="photo.png")
    assert (job["kind"], job["model"], job["format"]) == (
        "picture",
        "realtime-x2",
        "png",
    )
    done = busy.wait(job["id"], "done", "failed")
    assert (done["error"], done["input_size"], done["output_size"]) == (
        None, [9, 6], [18, 12],
    )  # fmt: skip
    answer = busy.client.get(f"/api/jobs/{job['id']}/result?download")
    disposition = answer.headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''photo-x2.png"
    with Image.open(io.BytesIO(answer.content)) as result:
        expected = fakes.picture().repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(np.asarray(result), expected)
    assert 'upfrost_jobs{state="done"} 1' in busy.client.get("/metrics").text
    assert busy.client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert busy.client.get(f"/api/jobs/{job['id']}").status_code == 404


def test_a_video_becomes_larger(busy: Served, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", seconds=0.3)
    job = busy.send(clip.read_bytes(), name="../../clip.mkv")
    assert (job["kind"], job["model"], job["format"]) == ("video", "live-x2-m", "mp4")
    done = busy.wait(job["id"], "done", "failed")
    assert (done["error"], done["output_size"]) == (None, [128, 72])
    result = tmp_path / "result.mp4"
    result.write_bytes(busy.client.get(f"/api/jobs/{job['id']}/result").content)
    assert len(frames(result, (128, 72))) == len(frames(clip, (64, 36)))


def test_formats_and_models_are_those_that_were_asked_for(busy: Served) -> None:
    file = io.BytesIO()
    Image.fromarray(fakes.picture()).save(file, "TIFF")
    default = busy.send(file.getvalue())
    asked = busy.send(png(), format="jpeg", model="realtime-x4")
    assert (default["format"], default["name"]) == ("png", "unnamed")
    assert asked["format"] == "jpeg"
    assert busy.wait(asked["id"], "done")["output_size"] == [36, 24]
    answer = busy.client.get(f"/api/jobs/{asked['id']}/result")
    assert answer.headers["content-type"] == "image/jpeg"
    # Browsers do not show TIFF: they get a preview of what was sent.
    shown = busy.client.get(f"/api/jobs/{default['id']}/input")
    assert shown.headers["content-type"] == "image/jpeg"
    for query, reason in (
        ({"model": "no\nsuch"}, "there is no model"),
        ({"format": "mp4"}, "a picture becomes"),
    ):
        refused = busy.client.post("/api/jobs", params=query, content=png())
        assert (refused.status_code, reason in error_of(refused)) == (400, True)


def test_a_job_goes_on_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TILES", "1000")
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    with served(tmp_path, works=True) as first:
        key = first.send(png())["id"]
        waiting = first.send(png())["id"]
        while not first.wait(key, "running")["share"]:
            pass
    monkeypatch.setenv("FAKE_SECONDS", "0")
    with served(tmp_path) as closed:
        assert [job.state for job in closed.store.jobs()] == ["queued", "queued"]
    with served(tmp_path, works=True) as second:
        assert second.wait(key, "done", "failed")["state"] == "done"
        assert second.wait(waiting, "done", "failed")["state"] == "done"


def test_what_is_stopped_is_gone_and_the_next_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "slow")
    with served(tmp_path, works=True) as it:
        slow = it.send(png(first=fakes.UNLUCKY))["id"]
        quick = it.send(png())["id"]
        it.wait(slow, "running")
        assert it.client.get(f"/api/jobs/{slow}/result").status_code == 409
        assert it.client.delete(f"/api/jobs/{slow}").status_code == 204
        it.wait(quick, "done")
        assert it.client.get(f"/api/jobs/{slow}").status_code == 404
        assert not it.store.job_folder(slow).exists()


def test_a_process_that_dies_costs_its_job_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "killed")
    with served(tmp_path, works=True) as it:
        key = it.send(png())["id"]
        assert "SIGKILL" in it.wait(key, "failed")["error"]
        monkeypatch.delenv("FAKE_FAULT")
        assert it.client.post(f"/api/jobs/{key}/retry").status_code == 200
        it.wait(key, "done")
        again = it.client.post(f"/api/jobs/{key}/retry")
        assert (again.status_code, error_of(again)) == (
            409,
            "the job is done, not failed",
        )


def test_what_goes_wrong_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "bug")
    with served(tmp_path, works=True) as it:
        job = it.send(png(first=fakes.UNLUCKY))
        error = it.wait(job["id"], "failed")["error"]
        assert error
        assert "\n" not in error
        assert str(tmp_path) not in error


# Uploads


HOSTILE_NAMES = [
    *("../../../etc/passwd", "..\\..\\boot.ini", "/etc/cron.d/x", "a/../../b.png"),
    *(".", "..", "", " ", "\0", "a\0.png", "con.png", "nul", "-rf", "--output=x"),
    *("%2e%2e%2fx", "%s%n", "%00", "$(id)", "`id`", "; rm -rf ~", "|id", "a&b=c#d?e"),
    *('"><script>alert(1)</script>.png', "<img src=x onerror=alert(1)>", "'; drop"),
    *(
        "a\r\nSet-Cookie: x=y",
        "a\nb",
        "\x1b[31mred",
        "\u202egnp.exe",
        "\u2028",
        "\ufeff",
    ),
    *("\ud800", "é" * 300 + ".png", "x" * 5000, "😀.png", "a" * 300 + "." + "b" * 300),
    *(
        "input",
        "job.json",
        "result.png",
        "~root",
        "~/x",
        "file:///etc/passwd",
        "C:\\x",
        "a:b",
    ),
    *("http://example.invalid/a.png", "a;b.png", "a,b", "name*=x", "{}", "{{7*7}}"),
]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_names_never_touch_the_disk(tmp_path: Path) -> None:
    assert len(HOSTILE_NAMES) >= 50
    (tmp_path / "beside").touch()
    with served(tmp_path / "serve") as it:
        before = tree(tmp_path)
        content = png()
        for name in HOSTILE_NAMES:
            query = {"name": name.encode("utf-8", "surrogatepass")}
            answer = it.client.post("/api/jobs", params=query, content=content)
            assert answer.status_code == 201, name
            job = answer.json()
            assert job["name"].isprintable()
            assert len(job["name"]) <= 120
            assert "/" not in job["name"]
            sent = it.client.get(f"/api/jobs/{job['id']}/input")
            assert sent.content == content
            disposition = sent.headers["content-disposition"]
            assert re.fullmatch(r"inline; filename\*=UTF-8''[\w.~%-]+", disposition)
            assert unquote(disposition.split("''")[1]) == job["name"]
            made = {
                f"serve/jobs/{job['id']}{end}" for end in ("", "/input", "/job.json")
            }
            assert tree(tmp_path) - before == made
            before |= made


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(
    b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")  # fmt: skip
MP4 = b"\0\0\0\x18ftypmp42"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a picture"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a picture"),
        (MP4 + b'<MPD xmlns="x" profiles="urn:mpeg:dash:profile:isoff">', "playlist"),
        (b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 1 RTP/AVP 96\r\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG"),
        (BOMB, "60000×60000 pixels"),
    ],
    ids=str,
)
def test_a_bad_upload_gets_a_clear_answer(
    idle: Served, content: bytes, reason: str
) -> None:
    answer = idle.client.post("/api/jobs?name=x.png", content=content)
    assert answer.status_code == 415
    said = error_of(answer)
    assert reason in said
    assert "uploads" not in said  # where it lay
    assert not idle.store.jobs()
    assert not list((idle.store.folder / "uploads").iterdir())


def test_uploads_are_limited_in_size_and_number(tmp_path: Path) -> None:
    content = png()
    with served(
        tmp_path, limits=Limits(upload_bytes=len(content), spare_bytes=0), most=1
    ) as it:
        told = it.client.post("/api/jobs", content=content + b"x")

        def chunks() -> Iterator[bytes]:
            yield content
            yield b"x"

        untold = it.client.post("/api/jobs", content=chunks())
        assert (told.status_code, untold.status_code) == (413, 413)
        it.send(content)
        full = it.client.post("/api/jobs", content=content)
        assert (full.status_code, "remove some" in error_of(full)) == (409, True)
        assert not list((tmp_path / "uploads").iterdir())


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_full_disk_is_said_and_loses_nothing(
    idle: Served, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    kept = idle.send(png())
    if when == "before":
        monkeypatch.setattr(Store, "free_bytes", lambda _: 1000)
    else:

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
    answer = idle.client.post("/api/jobs", content=png())
    assert (answer.status_code, "disk is full" in error_of(answer)) == (507, True)
    assert [job.id for job in idle.store.jobs()] == [kept["id"]]
    assert not list((idle.store.folder / "uploads").iterdir())


@pytest.mark.parametrize("end", ["disconnect", "silence"])
def test_a_half_upload_leaves_nothing(tmp_path: Path, end: str) -> None:
    """A client that goes away, and one that says nothing more."""
    sent: list[Any] = []

    async def upload(app: Any) -> None:
        messages = iter(
            [{"type": "http.request", "body": png()[:20], "more_body": True}]
        )

        async def receive() -> Any:
            for message in messages:
                return message
            if end == "silence":
                await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/api/jobs", "query_string": b"",
            "raw_path": b"/api/jobs", "root_path": "", "scheme": "http",
            "http_version": "1.1", "asgi": {"version": "3.0"},
            "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"500")],
        }  # fmt: skip
        await app(scope, receive, send)

    with served(tmp_path, limits=Limits(patience=0.05)) as it:
        asyncio.run(upload(it.client.app))
        assert sent[0]["status"] == (400 if end == "disconnect" else 408)
        assert not it.store.jobs()
        assert not list((tmp_path / "uploads").iterdir())
        it.send(png())  # its place is free again


# Answers


def test_parts_of_a_file_can_be_asked_for(idle: Served) -> None:
    content = png()
    address = f"/api/jobs/{idle.send(content)['id']}/input"
    size = len(content)
    for asked, first, last in (
        ("bytes=0-", 0, size - 1),
        ("bytes=3-7", 3, 7),
        ("bytes=5-99999999", 5, size - 1),
        ("bytes=-4", size - 4, size - 1),
    ):
        answer = idle.client.get(address, headers={"range": asked})
        assert answer.status_code == 206
        assert answer.content == content[first : last + 1]
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    beyond = idle.client.get(address, headers={"range": f"bytes={size}-"})
    assert beyond.status_code == 416
    odd = idle.client.get(address, headers={"range": "bytes=1-2,5-6"})
    assert (odd.status_code, odd.content) == (200, content)
    head = idle.client.head(address)
    assert (head.headers["content-length"], head.content) == (str(size), b"")


def test_nothing_is_sent_when_nothing_is_new(idle: Served) -> None:
    tag = idle.client.get("/api/jobs").headers["etag"]
    known = {"if-none-match": tag}
    assert idle.client.get("/api/jobs", headers=known).status_code == 304
    idle.send(png())
    assert len(idle.client.get("/api/jobs", headers=known).json()["jobs"]) == 1


def test_the_description_says_what_there_is(idle: Served) -> None:
    about = idle.client.get("/api/openapi.json").json()
    told = {
        (path, method.upper())
        for path, item in about["paths"].items()
        for method in item.keys() - {"parameters"}
    }
    routes = {
        (route.path, method)
        for route in idle.client.app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
        if route.path.startswith(("/api", "/metrics"))
    }
    assert told == routes
    schemas = about["components"]["schemas"]
    assert idle.send(png()).keys() == schemas["Job"]["properties"].keys()
    models = idle.client.get("/api/models").json()
    assert models.keys() == schemas["Models"]["properties"].keys()
    entry = schemas["Models"]["properties"]["models"]["items"]["properties"]
    assert all(model.keys() == entry.keys() for model in models["models"])


def test_everything_comes_from_here(idle: Served) -> None:
    """The page names no other address, and its policy forbids any."""
    page = idle.client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|unsafe|\*", policy)
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert files
    for address in (*files, "/"):
        answer = idle.client.get(address)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)


# Who may ask


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"host": "localhost:9"}, 201),
        ({"host": "[::1]:8080"}, 201),
        ({"host": "192.168.1.7"}, 201),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"host": "[::1"}, 421),
        ({"host": "127.0.0.1:none"}, 421),
        ({"origin": HERE}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
    ids=str,
)
def test_pages_of_other_sites_cannot_use_it(
    idle: Served, headers: dict[str, str], status: int
) -> None:
    answer = idle.client.post("/api/jobs", content=png(), headers=headers)
    assert answer.status_code == status
    assert len(idle.store.jobs()) == (status == 201)


def test_a_link_from_elsewhere_leads_to_the_page_and_nothing_else(idle: Served) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert idle.client.get("/", headers=link).status_code == 200
    assert idle.client.get("/api/jobs", headers=link).status_code == 403


def test_the_token_opens_the_door(tmp_path: Path) -> None:
    with served(tmp_path, token="sesame") as it:
        door = it.client.get("/")
        assert (door.status_code, "token" in door.text) == (401, True)
        for path in ("/api/jobs", "/metrics", "/serve.js", "/api/openapi.json"):
            assert it.client.get(path).status_code == 401
        for given in (b"Bearer wrong", b"Bearer", b"Basic sesame", b"Bearer s\xe9same"):
            answer = it.client.get("/api/jobs", headers={b"authorization": given})
            assert answer.status_code == 401
        known = {"authorization": "Bearer sesame"}
        assert it.client.get("/api/jobs", headers=known).status_code == 200
        assert it.client.get("/?token=wrong").status_code == 401
        entered = it.client.get("/?token=sesame", follow_redirects=False)
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite" in cookie
        assert it.client.get("/").status_code == 200
        # Another server on the same machine, which has the same cookies, has its own.
        assert it.client.get("/", headers={"host": "localhost:81"}).status_code == 401


def test_errors_of_the_program_say_no_more_than_their_kind(
    idle: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Store) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Store, "jobs", broken)
    answer = idle.client.get("/api/jobs")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_models_are_measured_while_nothing_else_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upfrost.serve.worker.CHOICES", CHOICES[:1])
    with served(tmp_path, works=True, measures=True) as it:
        deadline = time.monotonic() + 60
        while not (told := it.client.get("/api/models").json())["device"]:
            assert time.monotonic() < deadline
        assert told["device"] == "Pretender"
        assert told["models"][0]["pixels_per_second"] > 0
        assert told["models"][1]["pixels_per_second"] is None


def test_a_job_does_not_wait_for_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upfrost.serve.worker.CHOICES", CHOICES[:1])
    monkeypatch.setenv("FAKE_MEASURE", str(tmp_path / "measured"))
    with served(tmp_path / "serve", works=True, measures=True) as it:
        began = tmp_path / "measured"
        deadline = time.monotonic() + 60
        while not began.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # One that is never done; the next would be.
        monkeypatch.delenv("FAKE_MEASURE")
        it.wait(it.send(png(), model="realtime-x4")["id"], "done")
        while not it.client.get("/api/models").json()["models"][0]["pixels_per_second"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
