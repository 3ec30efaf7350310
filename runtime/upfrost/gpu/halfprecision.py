"""Whether a driver computes in half precision, tried once where it does not say.

Vulkan's features do not tell: Mali-G31 to G76 have them in no version of Mesa and
compute all the same, while another driver without them ends the process by SIGILL when
it compiles such a kernel. So a child process tries, and what it found is kept in the
user's cache folder by device and driver.

``python -m upfrost.gpu.halfprecision INDEX`` is that child.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np

from upfrost import children
from upfrost.files import new_file
from upfrost.gpu.cache import cache_folder, file_name
from upfrost.gpu.device import Device, DeviceInfo, DeviceLostError, list_devices
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network.modelfile import find_model, read_model

MODEL = "realtime-x4"  # its kernels are those of all networks
MOST_SECONDS = 120.0

_log = logging.getLogger("upfrost")


def faster_precision(info: DeviceInfo) -> Precision:
    """What ``auto`` stands for: half precision on a GPU whose driver computes it.

    Where it does not, a warning says so in a line.
    """
    if info.precision == "fp32" or info.has_float16 or _computes(info):
        return info.precision
    _log.warning(
        "the driver of %s does not compile half precision; single precision is used",
        info.name,
    )
    return "fp32"


def _computes(info: DeviceInfo) -> bool:
    """Whether a child process gets by, asked once for each device and driver."""
    driver = f"{info.driver} {info.driver_version} {info.api_version}"
    digest = hashlib.sha256(f"{driver} {info.pipeline_cache}".encode()).hexdigest()[:16]
    path = None
    with suppress(RuntimeError):  # a user without a home keeps nothing
        path = cache_folder() / "half" / f"{file_name(info.name)}-{digest}.txt"
    if path is not None:
        with suppress(OSError):
            kept = path.read_text(encoding="ascii", errors="replace").strip()
            if kept in ("yes", "no"):
                return kept == "yes"
    found = _try(info)
    if path is not None and found is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path, overwrite=True) as file:
                file.write(b"yes\n" if found else b"no\n")
    return bool(found)


def _try(info: DeviceInfo) -> bool | None:
    """Whether a child computes; None where it could not try, or was ended."""
    try:
        child = subprocess.run(
            children.command("upfrost.gpu.halfprecision", str(info.index)),
            env=children.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=MOST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if child.returncode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        return None
    return child.returncode == 0


def main(index: int) -> None:
    """Compute a small picture in half precision; raise what goes wrong."""
    info = list_devices()[index]
    graph = read_model(find_model(MODEL))
    plan = make_plan(compile_graph(graph, info.family, "fp16"), 16, 16)
    device = Device(info)
    # A device that does not compute at all is for whoever uses it to find.
    with suppress(DeviceLostError):
        device.load(plan).run(np.zeros((16, 16, graph.channels), np.uint8))
    device.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
