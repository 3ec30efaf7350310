"""`upfrost.serve.work` without a device; see `fakes` for what the environment says."""

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.runtime.fakes import FakeUpscaler
from upfrost.network.modelfile import find_model, read_model
from upfrost.serve import work


def open_fake(model: str, _: argparse.Namespace) -> FakeUpscaler:
    if os.environ.get("FAKE_FAULT") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return FakeUpscaler(read_model(find_model(model)))


if __name__ == "__main__":
    work.open_upscaler = open_fake  # type: ignore[assignment]
    sys.exit(work.main())
