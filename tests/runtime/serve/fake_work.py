"""`upfrost.serve.work` without a device; see `fakes` for what the environment says.

FAKE_MEASURE names a file that is made when a measurement begins, which then has no end.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.runtime.fakes import FakeUpscaler
from upfrost.network.modelfile import find_model, read_model
from upfrost.serve import work


def open_fake(model: str, options: argparse.Namespace) -> FakeUpscaler:
    if options.measure and (begun := os.environ.get("FAKE_MEASURE")):
        Path(begun).touch()
        signal.pause()
    if os.environ.get("FAKE_FAULT") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return FakeUpscaler(read_model(find_model(model)))


if __name__ == "__main__":
    work.open_upscaler = open_fake  # type: ignore[assignment]
    sys.exit(work.main())
