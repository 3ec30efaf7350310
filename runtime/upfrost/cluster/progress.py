"""How far a cluster is, and how fast each of its workers."""

from __future__ import annotations

import time
from typing import Any

from upfrost.cluster.dispatch import Dispatcher, Worker
from upfrost.status import Status, duration, speed

_MOST_NAMED = 4
WAITING = "workers send what is whole, which takes them a while"


class Speeds:
    """Progress of a run on the status line, and speeds for its end.

    Things are counted by `unit`, and their speed said as `rate_unit`, which is `scale`
    of what pieces' sizes are.
    """

    def __init__(
        self,
        unit: str,
        rate_unit: str,
        scale: float,
        total: int | None,
        status: Status,
    ) -> None:
        self.failed: list[str] = []
        self._unit = unit
        self._rate_unit = rate_unit
        self._scale = scale
        self._total = total
        self._status = status
        self._before = self._done = 0
        self._workers: dict[str, dict[str, Any]] = {}
        self._began = time.monotonic()
        self._size = 0

    def resume(self, before: int) -> None:
        """Say how many were done by earlier runs."""
        self._before = before

    def done(self, count: int, size: int) -> None:
        """Say that some more are done for good."""
        self._done += count
        self._size += size

    def tick(self, dispatcher: Dispatcher) -> None:
        """Show how far it is, when it is time for that."""
        done = self._before + self._done
        self._status.count(done, self._total)
        if not self._done or not self._status.is_due():
            return
        # What is under way counts as far as it is: pieces come back whole, all at about
        # the same time at first, and then in no order.
        ahead = dispatcher.under_way()
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self._size + ahead) / seconds
        total = f" of {max(self._total, done)}" if self._total else ""
        how_fast = f"{speed(rate / self._scale)} {self._rate_unit}"
        text = f"{self._unit} {done}{total}, {how_fast}"
        if self._total and rate:
            size = self._size / self._done * max(0, self._total - done)
            text += f", {duration(max(0, size - ahead) / rate)} left"
        # Last: where the line is too long, its end is cut off.
        workers = [w for w in dispatcher.workers.values() if w.rate and w.usable]
        if workers:
            text += f" ({self._by_worker(workers)})"
        self._status.show(text)

    def add(self, dispatcher: Dispatcher) -> None:
        """Take up what a run's workers did."""
        for worker in dispatcher.workers.values():
            if worker.size:
                entry = self._workers.setdefault(worker.name, {"done": 0, "rate": 0.0})
                entry["done"] += worker.size
                entry["rate"] = worker.rate or 0.0
        if dispatcher.failed:
            names = ", ".join(dispatcher.failed)
            self.failed.append(f"failed twice, and got nothing more: {names}")

    def by_worker(self) -> dict[str, dict[str, Any]]:
        """What each worker did, and how many it does in a second."""
        return {
            name: {"done": entry["done"], "rate": round(entry["rate"] / self._scale, 3)}
            for name, entry in sorted(self._workers.items())
        }

    def tell(self) -> None:
        """Say the same to people, and who failed."""
        unit = self._rate_unit.removesuffix("/s")
        for name, entry in sorted(
            self._workers.items(), key=lambda item: -item[1]["done"]
        ):
            done, rate = entry["done"] / self._scale, entry["rate"] / self._scale
            how_fast = f"{speed(rate)} {self._rate_unit}"
            self._status.say(f"{name}: {done:.6g} {unit}, {how_fast}")
        for line in self.failed:
            self._status.warn(f"upfrost: {line}")

    def _by_worker(self, workers: list[Worker]) -> str:
        rates = sorted(((w.rate or 0.0, w.name) for w in workers), reverse=True)
        words = [f"{name} {speed(rate / self._scale)}" for rate, name in rates]
        more = len(words) - _MOST_NAMED
        return ", ".join([*words[:_MOST_NAMED], *([f"{more} more"] * (more > 0))])
