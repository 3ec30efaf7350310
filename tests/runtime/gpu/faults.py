"""Vulkan calls that fail when a test wants them to (see faults.c)."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
# VkResult's numbers, from the specification.
RESULTS = {
    "VK_TIMEOUT": 2,
    "VK_ERROR_OUT_OF_HOST_MEMORY": -1,
    "VK_ERROR_OUT_OF_DEVICE_MEMORY": -2,
    "VK_ERROR_INITIALIZATION_FAILED": -3,
    "VK_ERROR_DEVICE_LOST": -4,
}


@functools.cache
def _library() -> tempfile.TemporaryDirectory[str]:
    """A folder with the library, removed when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="upfrost-faults-")
    subprocess.run(
        [
            *("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"),
            *("-shared", "-fPIC", "-o", f"{folder.name}/faults.so"),
            *(str(SOURCE), "-ldl"),
        ],
        check=True,
    )
    return folder


def number_of_calls(log: Path, call: str) -> int:
    """How often the calls in a log have that one among them."""
    calls = log.read_text(encoding="utf-8").split()
    # What takes long is waited for several times, in another run perhaps not.
    return calls.count("vkQueueSubmit" if call == "vkWaitForFences" else call)


def environment(
    fault: tuple[str, int | str, str] | None = None,
    *,
    log: Path | None = None,
    incoherent: bool = False,
    half: bool = True,
    gpu: bool = False,
) -> dict[str, str]:
    """The environment of a process in which a call fails.

    `fault` names the call, which one of them counted from 1 (``"3+"``: that and all
    after it) and the result. `log` is a file that gets the name of every call.
    `incoherent` gives the device memory that is cached and not coherent. Without
    `half`, features say nothing of half precision. With `gpu` devices that are a CPU
    say that they are none.
    """
    variables = {**os.environ, "LD_PRELOAD": f"{_library().name}/faults.so"}
    if fault is not None:
        call, number, result = fault
        variables["VK_FAULT"] = f"{call}:{number}:{RESULTS[result]}"
    if log is not None:
        variables["VK_FAULT_LOG"] = str(log)
    if incoherent:
        variables["VK_FAULT_INCOHERENT"] = "1"
    if not half:
        variables["VK_FAULT_NO_HALF"] = "1"
    if gpu:
        variables["VK_FAULT_GPU"] = "1"
    return variables
