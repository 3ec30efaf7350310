"""The patched binding keeps what its patches promise (tools/kompute)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import kp
import numpy as np
import pytest

from tests.runtime.gpu import faults
from tests.runtime.gpu.chains import copy, tensors

SIDE = 256


@pytest.fixture
def manager() -> Iterator[kp.Manager]:
    manager = kp.Manager(0)
    yield manager
    manager.destroy()


def long_work(manager: kp.Manager) -> kp.Sequence:
    """A sequence that takes lavapipe some tenths of a second."""
    there = tensors(manager, 2, SIDE)
    ways = [copy(manager, there, SIDE), copy(manager, there[::-1], SIDE)]
    sequence = manager.sequence()
    for number in range(40):
        sequence.record(ways[number % 2])
    return sequence


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_version_tells_which_build_it_is() -> None:
    assert re.fullmatch(r"0\.9\.0\+upfrost\d+", kp.__version__)


def test_importing_leaves_logging_alone() -> None:
    program = (
        "import logging, sys\n"
        "import kp\n"
        "assert not logging.getLogger().handlers\n"
        "assert 'kp' not in logging.Logger.manager.loggerDict\n"
    )
    assert run(program).stderr == ""


def test_a_dispatch_sees_what_the_one_before_it_wrote(manager: kp.Manager) -> None:
    there = tensors(manager, 4, 64)
    sequence = manager.sequence()
    for number in range(3):
        sequence.record(copy(manager, there[number:][:2], 64))
    sequence.eval()
    assert np.array_equal(there[3].data(), np.arange(4 * 64 * 64))


def test_a_recorded_sequence_works_on_what_the_host_has_written_since(
    manager: kp.Manager,
) -> None:
    there = tensors(manager, 2, 16)
    sequence = manager.sequence().record(copy(manager, there, 16))
    for value in (3, 7):
        there[0].data()[...] = value
        sequence.eval()
        assert (there[1].data() == value).all()


def test_a_sequence_can_be_recorded_again(manager: kp.Manager) -> None:
    there = tensors(manager, 3, 16)
    sequence = manager.sequence()
    sequence.eval(copy(manager, [there[0], there[1]], 16))
    there[1].data()[0] = 99
    sequence.eval(copy(manager, [there[0], there[2]], 16))
    assert there[2].data()[5] == 5
    assert there[1].data()[0] == 99, "what was recorded before did not run again"


def test_two_sequences_are_in_flight_in_their_order(manager: kp.Manager) -> None:
    there = tensors(manager, 3, SIDE)
    first = manager.sequence().record(copy(manager, there[:2], SIDE))
    second = manager.sequence().record(copy(manager, there[1:], SIDE))
    first.eval_async()
    second.eval_async()
    assert first.is_running()
    assert second.is_running()
    second.eval_await()
    assert np.array_equal(there[2].data(), np.arange(4 * SIDE * SIDE))
    first.eval_await()
    assert not first.is_running()


def test_other_threads_run_while_the_device_works(manager: kp.Manager) -> None:
    sequence = long_work(manager)
    over = threading.Event()
    turns = 0

    def count() -> None:
        nonlocal turns
        while not over.wait(0.0005):
            turns += 1

    counter = threading.Thread(target=count)
    counter.start()
    before = turns
    sequence.eval()
    during = turns - before
    over.set()
    counter.join()
    assert during > 2, "the counter waits half a millisecond between its turns"


def test_a_wait_that_times_out_says_so_and_can_go_on(manager: kp.Manager) -> None:
    sequence = long_work(manager)
    sequence.eval_async()
    with pytest.raises(kp.TimeoutError, match="vkWaitForFences: VK_TIMEOUT"):
        sequence.eval_await(1)
    assert sequence.is_running()
    with pytest.raises(RuntimeError, match="without successful wait"):
        sequence.eval_async()
    sequence.eval_await(1 << 40)  # nanoseconds that 32 bits do not hold
    assert not sequence.is_running()


def test_signal_handlers_run_while_the_device_works(manager: kp.Manager) -> None:
    class InterruptedWaitError(Exception):
        pass

    interrupted = False

    def interrupt(_: int, __: FrameType | None) -> None:
        nonlocal interrupted
        # Once, and on a busy machine not before the device has anything to do.
        if sequence.is_running() and not interrupted:
            interrupted = True
            raise InterruptedWaitError

    sequence = long_work(manager)
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        with pytest.raises(InterruptedWaitError):
            sequence.eval()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert sequence.is_running()
    sequence.eval_await()


def test_a_manager_waits_for_what_runs_before_it_frees_it() -> None:
    manager = kp.Manager(0)
    sequence = long_work(manager)
    sequence.eval_async()
    manager.destroy()
    with pytest.raises(RuntimeError, match="Sequence was destroyed"):
        sequence.eval()


def test_what_was_destroyed_is_refused(manager: kp.Manager) -> None:
    (tensor,) = tensors(manager, 1, 16)
    manager.destroy()
    with pytest.raises(RuntimeError, match="Tensor was destroyed"):
        tensor.data()
    with pytest.raises(RuntimeError, match="Manager was destroyed"):
        manager.sequence()
    manager.destroy()


# What tells about the past, or has nothing left to do.
HARMLESS = {
    *("Manager.destroy", "Manager.list_devices", "Manager.get_device_properties"),
    *("Algorithm.destroy", "Algorithm.is_init", "Algorithm.get_tensors"),
    *("Tensor.destroy", "Tensor.is_init", "Tensor.size", "Tensor.tensor_type"),
    *("Tensor.is_cached", "Tensor.is_coherent", "Tensor.flush", "Tensor.invalidate"),
    *("Sequence.destroy", "Sequence.is_init"),
    *("Sequence.is_recording", "Sequence.is_running"),
}


def test_no_use_of_what_is_gone_or_missing_crashes() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.runtime.gpu.destroyed"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = found.stdout.splitlines()
    assert found.returncode == 0, f"crashed after {lines[-1:]}: {found.stderr}"
    assert {line.removesuffix(": fine") for line in lines if "fine" in line} == HARMLESS
    refused = [line for line in lines if "fine" not in line]
    assert all(
        re.search(": Kompute .*(was destroyed|was given no|no such|another)", line)
        for line in refused
    ), refused


@pytest.mark.parametrize("dropped", ["sequence", "manager"])
def test_a_device_that_hangs_does_not_keep_what_is_dropped(dropped: str) -> None:
    program = (
        "import kp, os\n"
        "from tests.runtime.gpu.chains import copy, tensors\n"
        "manager = kp.Manager(0)\n"
        "operation = copy(manager, tensors(manager, 2, 16), 16)\n"
        "sequence = manager.sequence().record(operation).eval_async()\n"
        f"del {dropped}\n"
        "manager = None\n"
        "print('gone')\n"
    )
    fault = ("vkWaitForFences", "1+", "VK_TIMEOUT")
    found = run(program, **faults.environment(fault, gpu=True))
    assert (found.returncode, found.stdout, found.stderr) == (0, "gone\n", "")


def test_a_forked_child_is_refused_and_can_open_the_device_itself() -> None:
    program = (
        "import os, sys\n"
        "import kp\n"
        "import numpy as np\n"
        "manager = kp.Manager(0)\n"
        "sequence = manager.sequence()\n"
        "words = np.arange(4, dtype=np.uint32)\n"
        "tensor = manager.tensor_t(words, kp.TensorTypes.device)\n"
        "sequence.eval(kp.OpTensorSyncDevice([tensor]))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n"
        "        sequence.eval()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "    mine = kp.Manager(0)\n"
        "    tensor = mine.tensor_t(words, kp.TensorTypes.device)\n"
        "    mine.sequence().eval(kp.OpTensorSyncDevice([tensor]))\n"
        "    sys.exit()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    found = run(program)
    assert found.returncode == 0, found.stderr
    assert "set up by another process: after a fork" in found.stdout


def test_a_manager_takes_the_pipelines_that_another_compiled(
    manager: kp.Manager,
) -> None:
    copy(manager, tensors(manager, 2, 16), 16)
    kept = manager.pipeline_cache()
    assert isinstance(kept, bytes)
    for given in (kept, kept[:20], b"\xff" * len(kept)):
        other = kp.Manager(0, pipeline_cache=given)
        there = tensors(other, 2, 16)
        other.sequence().eval(copy(other, there, 16))
        assert there[1].data()[7] == 7
        other.destroy()


def compiled(program: str, folder: Path) -> int:
    """How many pipelines a program makes that complains of nothing."""
    log = folder / "calls"
    assert run(program, **faults.environment(log=log)).stderr == ""
    return log.read_text().split().count("vkCreateComputePipelines")


def test_algorithms_that_differ_in_their_tensors_share_a_pipeline(
    tmp_path: Path,
) -> None:
    """The shader is compiled once, whatever it is bound to."""
    program = (
        "import kp, numpy as np\n"
        "from tests.runtime.gpu.chains import copy, tensors\n"
        "manager = kp.Manager(0)\n"
        "there = tensors(manager, 3, 16)\n"
        "sequence = manager.sequence()\n"
        "sequence.record(copy(manager, there[:2], 16))\n"
        "sequence.record(copy(manager, there[1:], 16))\n"
        "sequence.eval()\n"
        "assert there[2].data()[7] == 7\n"
    )
    assert compiled(program, tmp_path) == 1


def test_a_pipeline_outlives_its_algorithms(tmp_path: Path) -> None:
    """What needs other tensors, as a picture of another size does, compiles nothing."""
    program = (
        "import gc, kp\n"
        "from tests.runtime.gpu.chains import copy, tensors\n"
        "manager = kp.Manager(0)\n"
        "for size in (16, 48):\n"
        "    there = tensors(manager, 2, size)\n"
        "    manager.sequence().eval(copy(manager, there, size))\n"
        "    assert there[1].data()[7] == 7\n"
        "    del there\n"
        "    gc.collect()\n"
    )
    assert compiled(program, tmp_path) == 1


def test_memory_that_is_not_coherent_is_flushed_and_invalidated(
    tmp_path: Path,
) -> None:
    program = (
        "import kp\n"
        "from tests.runtime.gpu.chains import copy, tensors\n"
        "manager = kp.Manager(0)\n"
        "there = tensors(manager, 2, 16)\n"
        "assert there[0].is_cached() and not there[0].is_coherent()\n"
        "manager.sequence().eval(copy(manager, there, 16))\n"
    )
    log = tmp_path / "calls"
    found = run(program, **faults.environment(log=log, incoherent=True))
    assert found.stderr == ""
    calls = log.read_text().split()
    submitted, waited = map(calls.index, ("vkQueueSubmit", "vkWaitForFences"))
    assert calls[:submitted].count("vkFlushMappedMemoryRanges") == 2
    assert calls[waited:].count("vkInvalidateMappedMemoryRanges") == 2


def test_more_than_the_heap_is_refused(manager: kp.Manager) -> None:
    heap = max(heap["size"] for heap in manager.get_device_properties()["heaps"])
    # The system gives a page when it is touched, and nobody touches these.
    words = np.zeros(heap // 4 + 1, np.uint32)
    with pytest.raises(kp.OutOfMemoryError) as caught:
        manager.tensor_t(words, kp.TensorTypes.storage)
    # Mesa 25's drivers refuse the buffer already.
    assert caught.value.call in ("vkAllocateMemory", "vkCreateBuffer")
    assert caught.value.result == "VK_ERROR_OUT_OF_DEVICE_MEMORY"


def test_devices_say_what_they_are(manager: kp.Manager) -> None:
    devices = kp.list_devices()
    (here,) = [d for d in devices if d == manager.get_device_properties()][:1]
    assert here["device_type"] in ("integrated", "discrete", "virtual", "cpu", "other")
    assert here["driver_name"]
    assert here["api_version"] >= (1, 0, 0)
    assert here["max_storage_buffer_range"] >= 1 << 27
    assert any(kind["device_local"] for kind in here["memory_types"])
    assert any(kind["host_coherent"] for kind in here["memory_types"])


def test_timestamps_follow_each_other(manager: kp.Manager) -> None:
    if not manager.get_device_properties()["timestamps_supported"]:
        pytest.skip("the device has no timestamps")
    there = tensors(manager, 2, 64)
    sequence = manager.sequence(0, 2)
    sequence.record(copy(manager, there, 64)).record(copy(manager, there[::-1], 64))
    for _ in range(2):
        sequence.eval()
        stamps = sequence.get_timestamps()
        assert len(stamps) == 3
        assert stamps == sorted(stamps)


# A process for each fault, forked before Vulkan is started: the imports are shared.
EACH_FAULT = """
import json, os, sys
import kp
from tests.runtime.gpu.chains import copy, tensors
for call, number in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    os.environ["VK_FAULT"] = f"{call}:1:{number}"
    try:
        manager = kp.Manager(0)
        there = tensors(manager, 2, 16)
        manager.sequence().eval(copy(manager, there, 16))
        manager.pipeline_cache()
    except kp.VulkanError as error:
        print(call, type(error).__name__, error.call, error.result)
    else:
        print(call, "no error")
    manager = None
    sys.exit()
"""
FAULTS = {
    "vkCreateInstance": "VK_ERROR_INITIALIZATION_FAILED",
    "vkEnumeratePhysicalDevices": "VK_ERROR_INITIALIZATION_FAILED",
    "vkCreateDevice": "VK_ERROR_DEVICE_LOST",
    "vkCreatePipelineCache": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateBuffer": "VK_ERROR_OUT_OF_DEVICE_MEMORY",
    "vkAllocateMemory": "VK_ERROR_OUT_OF_DEVICE_MEMORY",
    "vkBindBufferMemory": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkMapMemory": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateDescriptorSetLayout": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateShaderModule": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreatePipelineLayout": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateComputePipelines": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateDescriptorPool": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkAllocateDescriptorSets": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateFence": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkCreateCommandPool": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkAllocateCommandBuffers": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkBeginCommandBuffer": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkEndCommandBuffer": "VK_ERROR_OUT_OF_HOST_MEMORY",
    "vkResetFences": "VK_ERROR_OUT_OF_DEVICE_MEMORY",
    "vkQueueSubmit": "VK_ERROR_DEVICE_LOST",
    "vkWaitForFences": "VK_ERROR_DEVICE_LOST",
    "vkGetPipelineCacheData": "VK_ERROR_OUT_OF_HOST_MEMORY",
}
NAMES = {
    "VK_ERROR_DEVICE_LOST": "DeviceLostError",
    "VK_ERROR_OUT_OF_HOST_MEMORY": "OutOfMemoryError",
    "VK_ERROR_OUT_OF_DEVICE_MEMORY": "OutOfMemoryError",
}


def test_a_call_that_fails_is_an_exception_with_its_name() -> None:
    wanted = {call: faults.RESULTS[result] for call, result in FAULTS.items()}
    found = subprocess.run(
        [sys.executable, "-c", EACH_FAULT, json.dumps(wanted)],
        env=faults.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.stderr == ""
    assert found.stdout.splitlines() == [
        f"{call} {NAMES.get(result, 'VulkanError')} {call} {result}"
        for call, result in FAULTS.items()
    ]
