"""Devices: what is chosen, and that no fault of one becomes a picture."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import graphs
from upfrost.gpu import device as device_module
from upfrost.gpu.device import (
    Device,
    DeviceError,
    DeviceInfo,
    DeviceLostError,
    Kind,
    OutOfDeviceMemoryError,
    choose_device,
    list_devices,
)
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, MALI, VALHALL, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.upscaler import Upscaler


def fake_devices(monkeypatch: pytest.MonkeyPatch, *kinds: Kind) -> list[DeviceInfo]:
    there = list_devices()[0]
    devices = [
        replace(there, index=i, kind=kind, name=f"{kind} {i}")
        for i, kind in enumerate(kinds)
    ]
    monkeypatch.setattr(device_module, "list_devices", lambda: tuple(devices))
    return devices


@pytest.mark.parametrize(
    ("kinds", "best"),
    [
        (("cpu", "integrated"), 1),
        (("integrated", "discrete", "cpu"), 1),
        (("cpu", "virtual"), 1),
        (("cpu",), 0),
    ],
)
def test_a_gpu_is_preferred(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[Kind, ...], best: int
) -> None:
    devices = fake_devices(monkeypatch, *kinds)
    assert choose_device() == devices[best]


def test_a_device_is_chosen_by_number_or_part_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices = fake_devices(monkeypatch, "cpu", "integrated", "integrated")
    assert choose_device(2) == devices[2]
    assert choose_device("1") == devices[1]
    assert choose_device("CPU") == devices[0]
    with pytest.raises(DeviceError, match=r"2 devices are called 'integrated'"):
        choose_device("integrated")
    with pytest.raises(DeviceError, match=r"no device 3; there is 0: cpu 0, 1: "):
        choose_device(3)


@pytest.mark.parametrize(
    ("name", "kind", "family"),
    [
        ("Mali-G52 r1", "integrated", MALI),
        ("Mali-G31", "integrated", MALI),
        ("Mali-G610", "integrated", VALHALL),
        ("Mali-G310", "integrated", VALHALL),
        ("V3D 7.1", "integrated", MALI),
        ("llvmpipe", "cpu", CPU),
    ],
)
def test_a_device_gets_the_kernels_of_its_family(
    name: str, kind: Kind, family: Family
) -> None:
    assert replace(list_devices()[0], name=name, kind=kind).family is family


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("size", [(1, 1), (30, 50), (64, 64)], ids=str)
def test_a_plan_says_what_is_allocated(
    device: Device, precision: Precision, size: tuple[int, int]
) -> None:
    program = compile_graph(graphs.plain_network(seed=0), CPU, precision)
    plan = make_plan(program, *size)
    loaded = device.load(plan)
    picture = np.zeros((size[0], 3 * size[1]), np.uint8)
    while loaded.can_start():
        loaded.start([picture])
    assert loaded.in_flight == 2
    assert loaded.allocated_bytes == plan.bytes


@pytest.mark.parametrize("lost_after", [0, 1, 3])
def test_a_device_lost_on_the_way_is_an_error(
    device: Device, monkeypatch: pytest.MonkeyPatch, lost_after: int
) -> None:
    """What some drivers do: they say nothing, and nothing is computed."""
    plan = make_plan(compile_graph(graphs.plain_network(seed=0), CPU, "fp32"), 9, 9)
    loaded = device.load(plan)
    picture = np.zeros((9, 9, 3), np.uint8)
    loaded.run(picture)  # so that the result's buffer holds a token and a picture
    (slot,) = loaded._slots
    alive = plan.dispatches[:lost_after]
    monkeypatch.setattr(
        slot, "sequences", loaded.record(alive, [0.0] * lost_after, 1.0)
    )
    with pytest.raises(DeviceLostError, match="no result was kept"):
        loaded.run(picture)
    with pytest.raises(DeviceLostError, match="was lost before; open it again"):
        loaded.run(picture)


def test_what_is_no_value_in_a_buffer_cannot_be_read(device: Device) -> None:
    graph = graphs.plain_network(seed=0)
    plan = make_plan(compile_graph(graph, CPU, "fp32"), 9, 9)
    loaded = device.load(plan, inspect=True)
    for name in ("input", graph.nodes[0].name, "nonsense"):
        with pytest.raises(ValueError, match=f"'{name}' is no value in a buffer"):
            loaded.value(name)


def test_weights_that_the_device_cannot_bind_are_refused() -> None:
    graph = graphs.plain_network(seed=0, channels=128)
    plan = make_plan(compile_graph(graph, VALHALL, "fp32"), 1, 1)
    most = max(plan.buffer_bytes)
    assert plan.constant_bytes > 2 * most  # of two buffers: weights and parameters
    small = Device(replace(choose_device(), max_buffer_bytes=most))
    with pytest.raises(DeviceError, match=r"weights are needed, .* binds at most"):
        small.load(plan)
    small.close()


def test_more_memory_than_the_system_gives_is_refused() -> None:
    with pytest.raises(OutOfDeviceMemoryError, match=r"does not give \d+ MiB"):
        device_module._check_system_memory([1 << 50])


def test_a_failed_allocation_halves_the_tile_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    graph = graphs.plain_network(seed=1)
    picture = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    with Upscaler(graph) as upscale:
        expected = upscale(picture)
    refused: list[int] = []

    def small_device(sizes: Sequence[int]) -> None:
        if sum(sizes) > 100_000:
            refused.append(sum(sizes))
            raise OutOfDeviceMemoryError("the device is full")

    monkeypatch.setattr(device_module, "_check_system_memory", small_device)
    with Upscaler(graph) as upscale:
        assert np.array_equal(upscale(picture), expected)
    pattern = re.compile(r"the device is full; going on with tiles of (\d+) pixels")
    matches = [pattern.fullmatch(record.getMessage()) for record in caplog.records]
    sides = [80, *(int(match[1]) for match in matches if match)]
    assert len(refused) == len(matches) == len(sides) - 1 >= 2
    assert all(2 * after <= before for before, after in itertools.pairwise(sides))


# Run by a process of its own, since the limit holds for the whole process.
WITH_LITTLE_MEMORY = """
import logging, resource, sys
import numpy as np
from tests import graphs
from upfrost import Upscaler

logging.basicConfig(format="%(message)s")
picture = np.load(sys.argv[1])
with Upscaler(graphs.plain_network(seed=1), memory=1 << 30) as upscale:
    upscale(picture[:64, :64])
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize()
    limit += int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    result = upscale(picture)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    np.save(sys.argv[1], result)
"""


def test_a_limit_of_the_system_on_memory_halves_the_tile(tmp_path: Path) -> None:
    """What `ulimit -v` does: the system refuses, in the middle of the work."""
    picture = np.random.default_rng(1).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    with Upscaler(graphs.plain_network(seed=1), memory=1 << 30) as upscale:
        grid = upscale.tiles(700, 700)
        assert len(grid) == 1
        needed = upscale.plan(grid).bytes
        expected = upscale(picture)
    file = tmp_path / "picture.npy"
    np.save(file, picture)
    # Half of what the buffers need, with what the driver takes to compile.
    given = needed // 2 + device_module.COMPILER_BYTES
    found = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, str(file), str(given)],
        # Threads with arenas of their own would map memory as they please.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert re.search(r"does not give \d+ MiB; going on with tiles of", found.stderr)
    assert np.array_equal(np.load(file), expected)


def test_a_device_without_any_memory_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OutOfDeviceMemoryError("the device is full")

    monkeypatch.setattr(device_module, "_check_system_memory", full)
    with (
        Upscaler(graphs.plain_network(seed=1)) as upscale,
        pytest.raises(OutOfDeviceMemoryError),
    ):
        upscale(np.zeros((60, 80, 3), np.uint8))
