"""Machines that are network namespaces, with a delay on the way between them.

Each namespace has an Ethernet device of its own (Linux's tun/tap driver), and this
process carries their frames to each other, each so many milliseconds late. It does what
`tc … netem delay` does, where a kernel has no netem. For root.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import selectors
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_NAME = "upfrost{}"
_MTU = 9000


class DelayedNetwork:
    """`machines` namespaces; use it in a `with` block.

    `delay` is that of one way, in seconds.
    """

    def __init__(self, machines: int, delay: float) -> None:
        self.delay = delay
        self.carried = 0  # bytes
        self._files: list[int] = []
        self._machines = machines
        self._ended = False
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def address(self, machine: int) -> str:
        return f"10.79.0.{machine + 1}"

    def inside(self, machine: int, command: Sequence[str]) -> list[str]:
        """The command that runs another one on a machine."""
        return ["ip", "netns", "exec", _NAME.format(machine), *command]

    def __enter__(self) -> Self:
        try:
            for machine in range(self._machines):
                self._add(machine)
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        self._thread.join()
        self._remove()

    def _add(self, machine: int) -> None:
        name = _NAME.format(machine)
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._files.append(file)
        asked = struct.pack("16sH22s", name.encode(), _IFF_TAP | _IFF_NO_PI, b"")
        fcntl.ioctl(file, _TUNSETIFF, asked)
        _ip("netns", "add", name)
        _ip("link", "set", name, "netns", name)
        there = ("-n", name)
        _ip(*there, "addr", "add", f"{self.address(machine)}/24", "dev", name)
        _ip(*there, "link", "set", name, "mtu", f"{_MTU}", "up")
        _ip(*there, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for file in self._files:
            os.close(file)
        for machine in range(self._machines):
            subprocess.run(
                ["ip", "netns", "del", _NAME.format(machine)],
                capture_output=True,
                check=False,
            )

    def _carry(self) -> None:
        late: list[tuple[float, int, int, bytes]] = []  # when, order, from, frame
        count = 0
        with selectors.DefaultSelector() as selector:
            for file in self._files:
                selector.register(file, selectors.EVENT_READ)
            while not self._ended:
                wait = late[0][0] - time.monotonic() if late else 0.1
                for key, _ in selector.select(max(0.0, min(wait, 0.1))):
                    frame = os.read(key.fd, _MTU + 64)
                    count += 1
                    due = time.monotonic() + self.delay
                    heapq.heappush(late, (due, count, key.fd, frame))
                while late and late[0][0] <= time.monotonic():
                    _, _, origin, frame = heapq.heappop(late)
                    self.carried += len(frame)
                    # To all others: each takes what is meant for it.
                    for file in self._files:
                        if file != origin:
                            os.write(file, frame)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
