"""Progress: one living line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest

from upfrost.status import COMPILING, PLAIN_INTERVAL, Status, duration, speed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def shown(stream: io.StringIO) -> str:
    """What a terminal would show of the last line."""
    return stream.getvalue().rsplit("\x1b[K", 1)[-1]


def test_a_terminal_shows_tiles_rate_and_time_left() -> None:
    stream, clock = Terminal(), Clock()
    status = Status(stream, clock=clock)
    status.begin("a.png")
    assert shown(stream) == "a.png"
    status.expect(8_000_000)
    clock.now += 2
    status.advance(1, 4)
    assert shown(stream) == "a.png:  25 %, 1 of 4 tiles, 1.00 Mpixel/s, 0:06 left"
    clock.now += 60
    status.advance(4, 4)
    assert shown(stream) == "a.png: 100 %, 4 of 4 tiles, 0.13 Mpixel/s, 0:00 left"
    status.say("done")
    assert stream.getvalue().endswith("\r\x1b[Kdone\n")
    assert stream.getvalue().count("\n") == 1


def test_the_line_is_not_drawn_for_every_tile() -> None:
    stream, clock = Terminal(), Clock()
    status = Status(stream, clock=clock)
    status.begin("a.png")
    for done in range(1, 1000):
        clock.now += 0.001
        status.advance(done, 1000)
    assert stream.getvalue().count("\r") <= 11


@pytest.mark.parametrize("columns", [10, 40, 80])
def test_the_line_is_narrower_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream, clock = Terminal(), Clock()
    status = Status(stream, clock=clock)
    status.begin("folder/" * 30 + "name.png")
    assert shown(stream).endswith("name.png")
    assert len(shown(stream)) < columns
    clock.now += 5
    status.advance(1, 2)
    assert len(shown(stream)) < columns


def test_elsewhere_a_plain_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    status = Status(stream, clock=clock)
    status.begin("a.png")
    for done in range(1, 101):
        clock.now += PLAIN_INTERVAL / 40
        status.advance(done, 100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("a.png: 40 %, 40 of 100 tiles")
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Status(stream).begin("a.png")
    assert stream.getvalue() == ""


def test_quiet_shows_only_warnings() -> None:
    stream, clock = Terminal(), Clock()
    status = Status(stream, quiet=True, clock=clock)
    status.begin("a.png")
    clock.now += 100
    status.advance(1, 2)
    status.say("done")
    status.warn("upfrost: something is wrong")
    status.clear()
    assert stream.getvalue() == "upfrost: something is wrong\n"


class Heard(io.StringIO):
    """Notes that something was written, by whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str, /) -> int:
        count = super().write(text)
        self.written.set()
        return count


def test_who_waits_for_the_first_tile_is_told_what_for() -> None:
    stream = Heard()
    status = Status(stream, silence=0)
    status.begin("a.png")
    assert stream.written.wait(30)
    status.clear()
    assert stream.getvalue() == f"a.png: {COMPILING}\n"


def test_that_is_not_said_once_a_tile_is_done() -> None:
    stream = io.StringIO()
    status = Status(stream, silence=1e6)
    before = threading.active_count()
    status.begin("a.png")
    assert threading.active_count() == before + 1
    status.advance(1, 100)
    assert threading.active_count() == before
    status.begin("b.png")
    assert threading.active_count() == before
    assert stream.getvalue() == ""


@pytest.mark.parametrize("end", [Status.clear, lambda status: status.warn("wrong")])
def test_nor_after_the_end(end: Callable[[Status], None]) -> None:
    before = threading.active_count()
    status = Status(io.StringIO(), silence=1e6)
    status.begin("a.png")
    end(status)
    assert threading.active_count() == before


def test_nor_when_quiet() -> None:
    before = threading.active_count()
    Status(io.StringIO(), quiet=True, silence=0).begin("a.png")
    assert threading.active_count() == before


def test_a_closed_terminal_does_not_stop_the_work() -> None:
    class Closed(Terminal):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError(text)

    status = Status(Closed())
    status.begin("a.png")
    status.say("done")
    status.clear()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3723, "1:02:03")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0.00"),
        (0.0012345, "0.0012"),
        (0.0999, "0.1"),
        (0.1, "0.10"),
        (31.4159, "31.42"),
    ],
)
def test_a_slow_speed_is_not_shown_as_none(rate: float, text: str) -> None:
    assert speed(rate) == text
