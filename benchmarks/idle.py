"""A device that takes no time, to measure all that is around it.

Buffers, tiles and copies are the runtime's own; nothing is recorded or computed, so
results are whatever the buffers hold.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from upfrost.gpu import device
from upfrost.gpu.execution import LoadedPlan


class IdlePlan(LoadedPlan):
    """A plan whose dispatches are over when they are submitted."""

    def _record_slot(self, slot: Any) -> None:
        slot.sequences = []

    def _submit(self, slot: Any) -> None:
        slot.token = 0
        slot.result[:2] = 0xFFFFFFFF


@contextmanager
def idle_device() -> Iterator[None]:
    """A block in which every device that is opened takes no time."""
    with mock.patch.object(device, "LoadedPlan", IdlePlan):
        yield


def processor_seconds() -> float:
    """User and system time of this process and of those that it waited for."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in both]
    return sum(each.ru_utime + each.ru_stime for each in used)
