"""Jobs that go wrong in each way that a driver can, for tests/…/test_jobs.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

from upfrost.check.jobs import Facts, Job, Request
from upfrost.gpu.binding import DeviceLostError


def jobs(request: Request) -> Mapping[str, Job]:
    if request.device == "none":
        raise ModuleNotFoundError("no module named kp", name="kp")

    def good() -> Facts:
        print("a driver says something on stdout")
        return {"process": os.getpid()}

    def wrong() -> Facts:
        raise ValueError("this\nis wrong")

    def crash() -> Facts:
        os.kill(os.getpid(), signal.SIGILL)
        return {}

    def hang() -> Facts:
        time.sleep(600)
        return {}

    def lost() -> Facts:
        raise DeviceLostError("the device was lost")

    some = {"first": good, "wrong": wrong, "lost": lost, "second": good}
    worst = {"crash": crash, "hang": hang, "last": good}
    chosen = {"some": some, "worst": worst, "crashes": dict.fromkeys("abcdefgh", crash)}
    return {
        name: Job(work, {"of": name})
        for name, work in chosen[str(request.device)].items()
    }
