"""Faults of Vulkan in the command: one line, no file, a quick end."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


def arguments(picture: Path, tile: int = 48) -> list[str]:
    return [
        *("upscale", str(picture), "-o", str(picture.with_name("large.png"))),
        *("--model", "live-x2-xs-clean", "--tile", str(tile)),
        *("--device", "0", "--quiet"),
    ]


def upscale(
    picture: Path, environment: dict[str, str], tile: int = 48
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "upfrost.cli.main", *arguments(picture, tile)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_tile_is_one_submission(picture: Path, tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=tmp_path.parent) as log:
        found = upscale(picture, faults.environment(log=Path(log.name)))
        calls = Path(log.name).read_text().split()
    assert found.returncode == 0, found.stderr
    # And one clears the buffers.
    assert calls.count("vkQueueSubmit") == 1 + TILES


# The command for each fault, in a process forked before Vulkan is started: all share
# the imports. A line of JSON for each: the exit code, what was said, and the sum of the
# result, if there is one.
EACH_FAULT = """
import hashlib, json, os, sys, tempfile
from pathlib import Path
from upfrost.cli.main import main
import upfrost.cli.main, upfrost.gpu.upscaler, upfrost.image.batch
command, faults = json.loads(sys.argv[1])
for fault in faults:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 2)
            os.environ["VK_FAULT"] = fault
            os._exit(main(command))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        made = Path(command[command.index("-o") + 1])
        sum = hashlib.sha256(made.read_bytes()).hexdigest() if made.exists() else None
        made.unlink(missing_ok=True)
        print(json.dumps([code, said.read().decode(), sum]), flush=True)
"""
Fault = tuple[str, str, str]  # call, which of them, result


@dataclass(frozen=True)
class Outcome:
    """What became of the command: its last line, and its result's sum if there is."""

    code: int
    line: str | None
    result: str | None


def outcomes(
    picture: Path, cases: Sequence[Fault], *, gpu: bool = False
) -> list[Outcome]:
    """What becomes of the command for each fault.

    Raises unless it says one line at most, and leaves no other file than its result.
    """
    wanted = [
        f"{call}:{which}:{faults.RESULTS[result]}" for call, which, result in cases
    ]
    found = subprocess.run(
        [sys.executable, "-c", EACH_FAULT, json.dumps([arguments(picture), wanted])],
        env=faults.environment(gpu=gpu),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    made = []
    for case, text in zip(cases, found.stdout.splitlines(), strict=True):
        code, said, result = json.loads(text)
        lines = [x for x in said.splitlines() if "going on with tiles of" not in x]
        assert len(lines) <= 1, (case, said)
        made.append(Outcome(code, lines[0] if lines else None, result))
    return made


def errors(
    picture: Path, cases: Sequence[Fault], *, gpu: bool = False
) -> Iterator[tuple[Fault, str]]:
    """Each fault with the line that the command ends with, without a result."""
    for case, found in zip(cases, outcomes(picture, cases, gpu=gpu), strict=True):
        assert (found.code, found.result) == (1, None), case
        assert found.line is not None, case
        yield case, found.line


LINES = {
    LOST: "was lost",
    HOST: "gives no more memory",
    DEVICE: "gives no more memory",
    TIMEOUT: "does not answer",
}


def number_of_calls(picture: Path, call: str) -> int:
    """How often a picture needs that call; it is made."""
    with tempfile.NamedTemporaryFile(dir=picture.parent) as log:
        upscale(picture, faults.environment(log=Path(log.name)))
        return faults.number_of_calls(Path(log.name), call)


@pytest.mark.parametrize(
    "call",
    [
        *("vkCreateBuffer", "vkAllocateMemory", "vkCreateComputePipelines"),
        *("vkQueueSubmit", "vkWaitForFences"),
    ],
)
def test_a_fault_anywhere_is_an_error_of_one_line(picture: Path, call: str) -> None:
    """At the first, a middle and the last call, and all after it."""
    count = number_of_calls(picture, call)
    large = picture.with_name("large.png")
    expected = hashlib.sha256(large.read_bytes()).hexdigest()
    large.unlink()
    cases = [
        (call, f"{number}+", result)
        for number in (1, 1 + count // 2, count)
        for result in LINES
        # A CPU may take its time.
        if not (call == "vkWaitForFences" and result == TIMEOUT)
    ]
    for case, found in zip(cases, outcomes(picture, cases), strict=True):
        if found.code == 0:
            # Without memory for a second tile there is one at a time.
            assert LINES[case[2]] == LINES[DEVICE], case
            assert call in ("vkCreateBuffer", "vkAllocateMemory"), case
            assert found.result == expected
            continue
        assert (found.code, found.result) == (1, None), case
        assert found.line is not None, case
        assert LINES[case[2]] in found.line, case
        # Of a pipeline, its shader's name comes before.
        assert f"{call}: {case[2]})" in found.line


def test_a_wait_that_times_out_is_an_error_of_one_line(picture: Path) -> None:
    call = "vkWaitForFences"
    count = number_of_calls(picture, call)
    picture.with_name("large.png").unlink()
    cases = [(call, f"{n}+", TIMEOUT) for n in (1, 1 + count // 2, count)]
    for _, line in errors(picture, cases, gpu=True):
        assert "does not answer (vkWaitForFences: VK_TIMEOUT)" in line


def test_a_call_that_always_fails_is_an_error_of_one_line(picture: Path) -> None:
    wanted = {
        ("vkCreateInstance", "VK_ERROR_INITIALIZATION_FAILED"): "cannot be started",
        ("vkEnumeratePhysicalDevices", HOST): "cannot be started",
        ("vkCreateDevice", LOST): "was lost",
        ("vkCreatePipelineCache", HOST): "gives no more memory",
        ("vkBindBufferMemory", HOST): "gives no more memory",
        ("vkMapMemory", HOST): "gives no more memory",
        ("vkCreateShaderModule", HOST): "gives no more memory",
        ("vkAllocateDescriptorSets", DEVICE): "gives no more memory",
        ("vkCreateFence", HOST): "gives no more memory",
        ("vkCreateCommandPool", HOST): "gives no more memory",
        ("vkBeginCommandBuffer", HOST): "gives no more memory",
        ("vkEndCommandBuffer", DEVICE): "gives no more memory",
        ("vkResetFences", DEVICE): "gives no more memory",
    }
    cases = [(call, "1+", result) for call, result in wanted]
    for (call, _, result), line in errors(picture, cases):
        assert wanted[call, result] in line
        assert f"{call}: {result})" in line


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
