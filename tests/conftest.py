"""Settings of every test."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from upfrost.gpu.device import Device

# What a developer's own device was tuned to must not decide what the tests find. Not
# XDG_CACHE_HOME, where Mesa keeps what it has compiled.
_CACHE = tempfile.mkdtemp(prefix="upfrost-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["UPFROST_CACHE"] = _CACHE

# Under nohup, and as a shell's background job, signals are ignored; processes that a
# test starts, and then stops, would inherit that.
for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number,
            signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL,
        )


@pytest.fixture(scope="session")
def device() -> Iterator["Device"]:
    """The default device, one for all tests of a process: its pipelines stay."""
    from upfrost.gpu.device import Device, choose_device

    device = Device(choose_device())
    yield device
    device.close()
