"""How soon the command ends once a call of Vulkan has failed.

usage: python -m benchmarks.faults [--runs N]

A picture in three tiles, by `upfrost upscale` in a process of its own, on the first
device; the library of tests/runtime/gpu/faults.c makes the first, a middle or the last
of a call, and all after it, give an error. Times are from the first call that failed to
the end of the process, medians of the runs. Of a device that is called lost the time
includes what it still computes, since the one here is not lost: the library waits for
it. A call that times out does so at once; how long a device may take before is not in
it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from tests.runtime.gpu import faults

from benchmarks.report import Row, publish

CALLS = (
    *("vkCreateBuffer", "vkAllocateMemory", "vkCreateComputePipelines"),
    *("vkQueueSubmit", "vkWaitForFences"),
)
RESULTS = (
    *("VK_ERROR_DEVICE_LOST", "VK_ERROR_OUT_OF_HOST_MEMORY"),
    *("VK_ERROR_OUT_OF_DEVICE_MEMORY", "VK_TIMEOUT"),
)
SIZE, TILE = (100, 48), 48  # width and height


def command(folder: Path, environment: dict[str, str]) -> tuple[int, float]:
    """The exit code of an upscaling, and the clock's seconds when it had ended."""
    words = [
        *("upscale", str(folder / "picture.png"), "-o", str(folder / "large.png")),
        *("--model", "live-x2-xs-clean", "--tile", str(TILE), "--device", "0"),
    ]
    found = subprocess.run(
        [sys.executable, "-m", "upfrost.cli.main", *words, "--quiet", "--overwrite"],
        env=environment,
        capture_output=True,
        check=False,
    )
    return found.returncode, time.clock_gettime(time.CLOCK_MONOTONIC)


def number_of_calls(folder: Path) -> dict[str, int]:
    """How often that upscaling makes each call."""
    log = folder / "calls"
    code, _ = command(folder, faults.environment(log=log))
    if code:
        raise SystemExit("the picture was not upscaled, without any fault")
    return {call: faults.number_of_calls(log, call) for call in CALLS}


def to_the_end(folder: Path, call: str, number: int, result: str) -> float | None:
    """Seconds from the fault to the end; None if the command went on without it."""
    # A CPU may take its time; so of time-outs the device says that it is none.
    environment = faults.environment(
        (call, f"{number}+", result), gpu=result == "VK_TIMEOUT"
    )
    failed = folder / "failed"
    failed.unlink(missing_ok=True)
    code, ended = command(folder, {**environment, "VK_FAULT_TIME": str(failed)})
    if not failed.exists():
        raise SystemExit(f"{call} was made fewer than {number} times")
    if code == 0:
        return None
    return ended - 1e-9 * int(failed.read_text(encoding="utf-8").split()[0])


def median(times: list[float | None]) -> float | None:
    """That of the runs that ended with an error."""
    found = [each for each in times if each is not None]
    return statistics.median(found) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.effect_noise(SIZE, 50).convert("RGB").save(folder / "picture.png")
        for call, count in number_of_calls(folder).items():
            for result in RESULTS:
                # Nothing but a wait times out.
                if result == "VK_TIMEOUT" and call != "vkWaitForFences":
                    continue
                numbers = {"first": 1, "middle": 1 + count // 2, "last": count}
                times = {
                    which: [
                        to_the_end(folder, call, number, result)
                        for _ in range(arguments.runs)
                    ]
                    for which, number in numbers.items()
                }
                rows.append(
                    {
                        "call": call,
                        "result": result,
                        **{which: median(each) for which, each in times.items()},
                    }
                )
    publish(
        "faults",
        "Seconds from a failed call of Vulkan to the end of the command",
        rows,
        [
            f"a picture of {SIZE[0]}×{SIZE[1]} in three tiles; that call and all after "
            "it fail; –: the command went on with one tile at a time, and made its "
            "picture",
            f"medians of {arguments.runs}; load average {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} processors",
        ],
    )


if __name__ == "__main__":
    main()
