"""The command `upfrost serve` on real sockets, and the page in a real Chromium."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import fakes
from tests.runtime.clips import make_clip
from tests.runtime.metrics.browser import AVAILABLE, Browser
from tests.runtime.serve.served import Served, png, served
from upfrost.cli import main as cli
from upfrost.serve import server
from upfrost.serve.jobs import Store
from upfrost.serve.server import (
    TokenError,
    check_token,
    kept_token,
    listen,
    serving,
)

RIGHT = "\ue014"


def ask(
    address: str, content: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    request = urllib.request.Request(address, data=content, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


UPFROST = ("-m", "upfrost.cli.main")
# Its jobs are done without a device.
PRETENDING = (
    "-c",
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
    "from tests.runtime.serve.served import FAKE_WORK\n"
    "from upfrost.cli import main\n"
    "from upfrost.serve.worker import Worker\n"
    "Worker.__init__.__kwdefaults__['command'] = FAKE_WORK\n"
    "sys.exit(main.main())",
)


@contextlib.contextmanager
def command(
    folder: Path, *words: str, program: tuple[str, ...] = UPFROST
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and the address that it prints. Ended if it was not before."""
    process = subprocess.Popen(
        [sys.executable, *program, "serve", "--port", "0",
         "--folder", str(folder), "--device", "none such", *words],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.fullmatch(r"upfrost: (http://\S+)\n", line):
                break
        else:
            raise AssertionError("it ended")
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.stderr.close()
        process.wait()


def resident(process: int) -> int:
    """Bytes of memory that a process uses."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_connection_that_asks_nothing_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.2)
    with served(tmp_path) as site, listen("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        with serving(site.client.app, listening), contextlib.ExitStack() as stack:
            silent, begun, used = (
                stack.enter_context(socket.create_connection(address, timeout=30))
                for _ in range(3)
            )
            begun.sendall(b"GET / HTTP/1.1\r\nHost: ")
            used.sendall(b"GET /api/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert used.recv(12) == b"HTTP/1.1 200"
            for connection in (silent, begun):
                assert connection.recv(1) == b""
            while used.recv(65536):
                pass


def test_many_at_once_and_half_ones_do_it_no_harm(tmp_path: Path) -> None:
    """Two hundred uploads at once, and some that never end."""
    folder = tmp_path / "serve"
    with command(folder) as (process, address):
        host, port = re.findall(r"//(.*):(\d+)/", address)[0]
        ask(f"{address}api/jobs", png())  # all that is loaded once
        before = resident(process.pid)
        half: list[socket.socket] = []
        for _ in range(3):
            half.append(socket.create_connection((host, int(port)), timeout=60))
            half[-1].sendall(
                b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Content-Length: 1000000\r\n\r\n" + bytes(1000)
            )
        content = png(200, 200)
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            codes = pool.map(
                lambda _: ask(f"{address}api/jobs", content)[0], range(200)
            )
            found = set(codes)
        # Refused for now (503), or for good, since there are as many as may be (409).
        assert found <= {201, 409, 503}
        assert 201 in found
        assert resident(process.pid) - before < 64 << 20
        for connection in half:
            connection.close()
        code, told = ask(f"{address}api/jobs")
        assert code == 200
        kept = json.loads(told)["jobs"]
        assert len(list((folder / "jobs").iterdir())) == len(kept)
        deadline = time.monotonic() + 30
        while list((folder / "uploads").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        said = process.stderr.read().splitlines()
        assert said[-1] == "upfrost: stopped by SIGTERM"
        assert not any("Traceback" in line for line in said)
    with command(folder) as (_, address):
        again = json.loads(ask(f"{address}api/jobs")[1])["jobs"]
        assert [job["id"] for job in again] == [job["id"] for job in kept]


def test_beyond_this_machine_it_wants_a_token(tmp_path: Path) -> None:
    with command(tmp_path, "--host", "0.0.0.0") as (_, address):
        plain, _, token = address.partition("?token=")
        here = re.sub("//.*:", "//127.0.0.1:", plain)
        assert token
        assert ask(f"{here}api/jobs")[0] == 401
        assert ask(f"{here}api/jobs", Authorization=f"Bearer {token}")[0] == 200
    assert kept_token(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_an_emptied_file_gets_a_new_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch()
    assert kept_token(path) == kept_token(path) == path.read_text().strip() != ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_that_no_browser_could_send_is_named(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for token in ("schlüssel", "two words", "\xff"):
        path.write_text(token, "latin-1")
        with pytest.raises(TokenError, match=rf"^{path}: a token is of ASCII"):
            kept_token(path)
    with pytest.raises(TokenError, match=r"^UPFROST_TOKEN: a token is"):
        check_token("schlüssel", "UPFROST_TOKEN")


def test_ctrl_c_ends_a_job_that_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal's Ctrl-C, which every process in the foreground gets."""
    monkeypatch.setenv("FAKE_FAULT", "slow")
    with command(tmp_path, program=PRETENDING) as (process, address):
        code, _ = ask(f"{address}api/jobs", png(first=fakes.UNLUCKY))
        assert code == 201
        deadline = time.monotonic() + 60
        while not json.loads(ask(f"{address}api/jobs")[1])["jobs"][0]["share"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # The command is the last to see it, as it may be on a busy machine.
        process.send_signal(signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 128 + signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == "upfrost: stopped by SIGINT\n"
    with contextlib.closing(Store(tmp_path)) as store:
        assert [job.state for job in store.jobs()] == ["queued"]


def test_what_cannot_be_listened_at_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        words = ["serve", "--port", port, "--folder", str(tmp_path)]
        assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"127.0.0.1 port {port}: Address already in use" in line
    words = ["serve", "--host", "192.168..1", "--folder", str(tmp_path)]
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "192.168..1 port 8080: is no host name; choose another" in line


def test_the_address_that_is_printed_opens_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a name that only the resolver knows, and a token as `openssl rand` makes."""
    monkeypatch.setenv("UPFROST_TOKEN", "a+b/c&d=")
    site = tmp_path / "sitecustomize.py"
    site.write_text(
        "import socket\n"
        "found = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, *more, **named: found(\n"
        "    host.replace('board.lan', '0.0.0.0'), *more, **named)\n"
    )
    paths = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with command(tmp_path / "serve", "--host", "board.lan") as (_, address):
        place, _, rest = address.removeprefix("http://").partition("/")
        assert place.startswith("board.lan:")
        to = int(place.partition(":")[2])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", to)) as here:
            here.request("GET", f"/{rest}", headers={"Host": place})
            assert here.getresponse().status == 303


# In the browser


@dataclass
class Window:
    browser: Browser
    served: Served
    address: str

    def text(self, selector: str) -> str:
        found: str = self.browser.run(
            f"return document.querySelector('{selector}')?.innerText ?? ''"
        )
        return found

    def give(self, selector: str, *files: Path) -> None:
        """Choose files, as a user does in the browser's own window."""
        self.browser.choose(selector, *files)

    def job(self) -> Any:
        (job,) = self.served.client.get("/api/jobs").json()["jobs"]
        return job


@pytest.fixture(params=["desktop", "phone"])
def window(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Window]:
    if not AVAILABLE:
        pytest.skip("needs Debian's chromium and chromium-driver")
    phone = request.param == "phone"
    size = (390, 844) if phone else (1280, 800)
    with (
        served(tmp_path / "serve", works=True) as it,
        listen("127.0.0.1", 0) as listening,
        serving(it.client.app, listening),
        Browser(*size, touch=phone) as browser,
    ):
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        browser.open(address)
        browser.wait("return document.querySelectorAll('.choice').length")
        yield Window(browser, it, address)
        assert browser.errors() == []


def test_a_picture_and_a_video_from_choosing_to_comparing(
    window: Window, tmp_path: Path
) -> None:
    photo, clip = tmp_path / "<b>photo.png", tmp_path / "clip.mp4"
    photo.write_bytes(png(60, 80))
    make_clip(clip, seconds=0.5)
    browser = window.browser
    window.give("#files", photo, clip)
    assert window.text("#start") == "Start 2 files"
    browser.wait("return document.querySelectorAll('.time:not(:empty)').length > 1")
    assert "about" in window.text("#pictures .time")
    browser.screenshot(tmp_path / "order.png")
    for dark in (False, True):
        browser.dark(dark)
        assert browser.accessibility() == []
    # By keyboard alone: the first choice has the focus.
    browser.key("\ue007")
    browser.wait("return document.querySelectorAll('.done').length === 2")
    assert {job.name for job in window.served.store.jobs()} == {photo.name, clip.name}
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.screenshot(tmp_path / "done.png")
    assert browser.accessibility() == []
    for number, name in enumerate([photo.name, clip.name]):
        browser.run(
            "[...document.querySelectorAll('#jobs li')].find((line) => line.innerText"
            f".includes({json.dumps(name)})).querySelector('.compare').click()"
        )
        browser.wait("return by('unplayable').hidden")
        assert window.text("#compared") == name
        assert browser.run("return viewer.width") == [160, 128][number]
        # The browser's own kind of element, of what this machine sent.
        assert browser.run("return viewer.below.localName") == ["img", "video"][number]
        before = browser.run("return viewer.share")
        browser.key(RIGHT)
        assert browser.run("return viewer.share") == pytest.approx(before + 0.01)
        view = browser.run("return viewer.view.getBoundingClientRect().bottom")
        assert view <= browser.run("return innerHeight")
        assert browser.accessibility() == []
        browser.screenshot(tmp_path / f"compare-{number}.png")
        browser.key("\ue00c")
        assert not browser.run("return by('comparison').open")
    browser.click("#jobs li .remove")
    browser.wait("return document.querySelectorAll('#jobs li').length === 1")


def test_what_cannot_be_is_said_where_it_is_seen(
    window: Window, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    window.give("#files", bad)
    window.browser.click("#start")
    window.browser.wait("return document.querySelector('.failed')")
    assert "Not sent: not a picture" in window.text(".failed .state")
    assert not window.served.store.jobs()
    # The server's own complaint about the request, which browsers report.
    assert any("415" in line for line in window.browser.errors())


def test_a_server_that_went_away_is_said_of_every_file(
    window: Window, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.png" for name in ("one", "two")]
    for file in files:
        file.write_bytes(png())
    browser = window.browser
    browser.run("window.fetch = () => Promise.reject(new TypeError('gone'))")
    browser.wait("return by('problem').innerText.includes('gone')")
    window.give("#files", *files)
    browser.run(
        "XMLHttpRequest.prototype.send = function () { setTimeout(this.onerror) }"
    )
    browser.click("#start")
    browser.wait("return document.querySelectorAll('.failed').length === 2")
    assert browser.run("return sending") == 0


def test_a_file_that_cannot_be_sent_is_said_until_others_are_chosen(
    window: Window, tmp_path: Path
) -> None:
    empty, good = tmp_path / "empty.png", tmp_path / "good.png"
    empty.touch()
    good.write_bytes(png())
    browser = window.browser
    window.give("#files", empty)
    assert window.text("#problem") == "empty.png is empty"
    browser.run("return learnModels()")
    assert window.text("#problem") == "empty.png is empty"
    window.give("#files", good)
    assert window.text("#problem") == ""
