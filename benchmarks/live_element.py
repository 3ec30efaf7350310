"""Processor time for each frame in the GStreamer element, with an idle device.

usage: python -m benchmarks.live_element FRAMES PIPELINE

Runs in the Python of GStreamer's plugin loader, for benchmarks.live, which says which
pipelines: FRAMES in PIPELINE is their number. Prints the processor seconds for each
frame of the difference between a long and a short run, so that what is done once is not
in it.
"""

from __future__ import annotations

import sys

import gi

from benchmarks.idle import idle_device, processor_seconds

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

SHORT = 25


def run(pipeline: str, frames: int) -> float:
    """Processor seconds of a pipeline, from its start to its end."""
    began = processor_seconds()
    playing = Gst.parse_launch(pipeline.replace("FRAMES", str(frames)))
    playing.set_state(Gst.State.PLAYING)
    message = playing.get_bus().timed_pop_filtered(
        Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR
    )
    playing.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        raise RuntimeError(message.parse_error()[0].message)
    return processor_seconds() - began


def main() -> None:
    frames, pipeline = int(sys.argv[1]), sys.argv[2]
    Gst.init(None)
    with idle_device():
        run(pipeline, SHORT)  # imports, and caches
        seconds = run(pipeline, SHORT + frames) - run(pipeline, SHORT)
    print(seconds / frames)


if __name__ == "__main__":
    main()
