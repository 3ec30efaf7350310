"""Faults of Vulkan in the command: one line, no file, a quick end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.gpu import faults

LOST = "VK_ERROR_DEVICE_LOST"
HOST = "VK_ERROR_OUT_OF_HOST_MEMORY"
DEVICE = "VK_ERROR_OUT_OF_DEVICE_MEMORY"
TIMEOUT = "VK_TIMEOUT"
TILES = 3  # of the picture


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (48, 100, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(pixels).save(file)
    return file


def upscale(
    picture: Path, environment: dict[str, str], tile: int = 48
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "upfrost.cli.main", "upscale", str(picture)),
            *("-o", str(picture.with_name("large.png"))),
            *("--model", "realtime-x2", "--tile", str(tile)),
            *("--device", "0", "--quiet"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def the_error(picture: Path, found: subprocess.CompletedProcess[str]) -> str:
    """The line of a failed command, which has left nothing but the picture."""
    assert found.returncode == 1, found.stderr
    lines = found.stderr.splitlines()
    (error,) = [line for line in lines if "going on with tiles of" not in line]
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    return error


def test_a_tile_is_one_submission(picture: Path, tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=tmp_path.parent) as log:
        found = upscale(picture, faults.environment(log=Path(log.name)))
        calls = Path(log.name).read_text().split()
    assert found.returncode == 0, found.stderr
    # And one clears the buffers.
    assert calls.count("vkQueueSubmit") == 1 + TILES


@pytest.mark.parametrize(
    ("call", "number", "result", "line"),
    [
        *(("vkQueueSubmit", number, LOST, "was lost") for number in (2, 3, 1 + TILES)),
        ("vkQueueSubmit", 3, HOST, "gives no more memory"),
        ("vkQueueSubmit", 3, DEVICE, "gives no more memory"),
        *(
            ("vkWaitForFences", number, LOST, "was lost")
            for number in (2, 3, 1 + TILES)
        ),
        ("vkWaitForFences", 3, HOST, "gives no more memory"),
    ],
)
def test_a_fault_at_a_tile_is_an_error_of_one_line(
    picture: Path, call: str, number: int, result: str, line: str
) -> None:
    # A tile's wait may be several: from that one on, all fail.
    which = f"{number}+" if call == "vkWaitForFences" else number
    found = upscale(picture, faults.environment((call, which, result)))
    error = the_error(picture, found)
    assert line in error
    # Of a pipeline, its shader's name comes before.
    assert f"{call}: {result})" in error


@pytest.mark.parametrize(
    ("call", "result", "line"),
    [
        ("vkCreateInstance", "VK_ERROR_INITIALIZATION_FAILED", "cannot be started"),
        ("vkEnumeratePhysicalDevices", HOST, "cannot be started"),
        ("vkCreateDevice", LOST, "was lost"),
        ("vkCreatePipelineCache", HOST, "gives no more memory"),
        ("vkCreateBuffer", DEVICE, "gives no more memory"),
        ("vkAllocateMemory", DEVICE, "gives no more memory"),
        ("vkBindBufferMemory", HOST, "gives no more memory"),
        ("vkMapMemory", HOST, "gives no more memory"),
        ("vkCreateShaderModule", HOST, "gives no more memory"),
        ("vkCreateComputePipelines", HOST, "gives no more memory"),
        ("vkAllocateDescriptorSets", DEVICE, "gives no more memory"),
        ("vkCreateFence", HOST, "gives no more memory"),
        ("vkCreateCommandPool", HOST, "gives no more memory"),
        ("vkBeginCommandBuffer", HOST, "gives no more memory"),
        ("vkEndCommandBuffer", DEVICE, "gives no more memory"),
        ("vkQueueSubmit", LOST, "was lost"),
        ("vkWaitForFences", LOST, "was lost"),
    ],
)
def test_a_call_that_always_fails_is_an_error_of_one_line(
    picture: Path, call: str, result: str, line: str
) -> None:
    found = upscale(picture, faults.environment((call, "1+", result)))
    error = the_error(picture, found)
    assert line in error
    # Of a pipeline, its shader's name comes before.
    assert f"{call}: {result})" in error


@pytest.mark.parametrize("call", ["vkAllocateMemory", "vkCreateComputePipelines"])
def test_one_allocation_that_fails_makes_the_tiles_smaller(
    picture: Path, call: str
) -> None:
    large = picture.with_name("large.png")
    # Half of it is more than the smallest tile, of which there would be thousands.
    assert upscale(picture, faults.environment(), tile=100).returncode == 0
    expected = large.read_bytes()
    large.unlink()
    found = upscale(picture, faults.environment((call, 2, DEVICE)), tile=100)
    assert found.returncode == 0, found.stderr
    assert "going on with tiles of 50 pixels" in found.stderr
    assert large.read_bytes() == expected


# A GPU that never answers; a CPU would be waited for. Once it is closed the process
# ends at once, since the driver here is a CPU's, and at work on what was left alone.
HANGING = """
import os
import numpy as np
from dataclasses import replace
from upfrost.gpu import device, execution, upscaler
from upfrost import Upscaler
execution.ANSWER_SECONDS = 0.05
info = replace(device.list_devices()[0], kind="integrated", name="Mali-G52")
upscaler.choose_device = lambda _: info
picture = np.zeros((20, 30, 3), np.uint8)
with Upscaler("realtime-x2", precision="fp32") as upscale:
    for _ in range(2):
        try:
            list(upscale.pictures([picture] * 3))
        except device.DeviceLostError as error:
            print(error)
print("closed", flush=True)
os._exit(0)
"""


def test_a_device_that_never_answers_is_an_error_and_can_be_closed() -> None:
    found = subprocess.run(
        [sys.executable, "-c", HANGING],
        env=faults.environment(("vkWaitForFences", "2+", TIMEOUT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    first, second, last = found.stdout.splitlines()
    assert "Mali-G52 does not answer (vkWaitForFences: VK_TIMEOUT)" in first
    assert "Mali-G52 was lost before" in second
    assert last == "closed"
