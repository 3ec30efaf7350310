"""Tiles in flight, in as few submissions as a device endures, by threads in turn."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import graphs
from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.gpu.binding import kp
from upfrost.gpu.cache import PipelineFile
from upfrost.gpu.device import Device, DeviceLostError, list_devices
from upfrost.gpu.execution import Endurance, LoadedPlan, _Slot
from upfrost.gpu.families import CPU
from upfrost.gpu.plan import compile_graph, make_plan, submissions
from upfrost.gpu.upscaler import Upscaler


@pytest.fixture
def loaded(device: Device) -> LoadedPlan:
    graph = graphs.plain_network(seed=4)
    return device.load(make_plan(compile_graph(graph, CPU, "fp32"), 9, 11))


def tile(seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (9, 33), dtype=np.uint8)


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ([0.1, 0.1, 0.1], math.inf, [range(3)]),
        ([0.1, 0.1, 0.1], 0.25, [range(2), range(2, 3)]),
        ([0.3, 0.1, 0.1, 0.3], 0.2, [range(1), range(1, 3), range(3, 4)]),
        ([0.0, 0.0], 0.0, [range(2)]),
        ([], 1.0, []),
    ],
)
def test_dispatches_share_a_submission_while_it_is_short_enough(
    seconds: list[float], most: float, expected: list[range]
) -> None:
    assert submissions(seconds, most) == expected


@pytest.mark.parametrize(
    ("name", "kind", "job"),
    [
        ("Mali-G52 r1", "integrated", 0.5),
        ("Mali-G72", "integrated", 0.5),
        ("Mali-G57", "integrated", 0.5),
        ("Mali-G610 MC4", "integrated", 5.0),
        ("Mali-G310", "integrated", 5.0),
        ("Mali-G720-Immortalis MC12", "integrated", 5.0),
        ("V3D 7.1", "integrated", None),
        ("llvmpipe", "cpu", None),
    ],
)
def test_a_submission_keeps_to_a_third_of_what_the_kernels_driver_ends(
    name: str, kind: str, job: float | None
) -> None:
    info = replace(list_devices()[0], name=name, kind=kind)  # type: ignore[arg-type]
    endurance = info.endurance
    assert endurance.job == job
    assert endurance.answers == (kind != "cpu")
    expected = math.inf if kind == "cpu" else (job or 0.5) / 3
    assert endurance.submission == expected


def test_tiles_in_flight_are_the_tiles_one_by_one(loaded: LoadedPlan) -> None:
    tiles = [tile(seed) for seed in range(5)]
    expected = [loaded.run_planes([each])[0].copy() for each in tiles]
    found = []
    for each in tiles:
        if not loaded.can_start():
            found.append(loaded.finish()[0].copy())
        loaded.start([each])
    while loaded.in_flight:
        found.append(loaded.finish()[0].copy())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_what_is_forgotten_disturbs_nothing(loaded: LoadedPlan) -> None:
    expected = loaded.run_planes([tile(1)])[0].copy()
    loaded.start([tile(2)])
    loaded.forget()
    assert loaded.in_flight == 0
    assert np.array_equal(loaded.run_planes([tile(1)])[0], expected)


def test_many_submissions_give_the_bits_of_one(
    loaded: LoadedPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded.submissions == 1
    expected = loaded.run_planes([tile(1)])[0].copy()
    monkeypatch.setattr(loaded, "_alone", True)
    (slot,) = loaded._slots
    loaded._record_slot(slot)
    computing = sum(1 for each in loaded.plan.dispatch_seconds if each)
    assert loaded.submissions >= computing > 1
    assert np.array_equal(loaded.run_planes([tile(1)])[0], expected)


def test_a_tile_that_may_have_been_ended_is_computed_again(
    loaded: LoadedPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It, or this process: hours have passed, of which one was allowed."""
    expected = loaded.run_planes([tile(1)])[0].copy()
    limit = Endurance(submission=math.inf, job=3600.0, answers=False)
    monkeypatch.setattr(loaded, "_endurance", limit)
    moments = itertools.chain([1e6], itertools.repeat(2e6))
    clock = "upfrost.gpu.execution.time.monotonic"
    monkeypatch.setattr(clock, moments.__next__)
    loaded.start([tile(1)])
    (slot,) = loaded._slots
    loaded._wait_for(slot)
    slot.result[8] ^= 0xFF
    assert np.array_equal(loaded.finish()[0], expected)
    assert not loaded._alone


def test_a_tile_may_be_asked_for_as_late_as_one_likes(
    loaded: LoadedPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it was done is known all the same: it is not computed again."""
    limit = Endurance(submission=math.inf, job=3600.0, answers=False)
    monkeypatch.setattr(loaded, "_endurance", limit)
    now = [1e6]
    clock = "upfrost.gpu.execution.time.monotonic"
    monkeypatch.setattr(clock, lambda: now[0])
    loaded.start([tile(1)])
    assert loaded.can_start()
    loaded.start([tile(2)])
    for slot in loaded._slots:
        assert slot.awaited is not None
        slot.awaited.result()
    now[0] = 2e6

    def again(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(loaded, "_repeat", again)
    loaded.finish()
    loaded.finish()


def test_a_dispatch_that_the_kernels_driver_ends_is_refused(
    loaded: LoadedPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Endurance(submission=math.inf, job=1e-9, answers=False)
    monkeypatch.setattr(loaded, "_endurance", limit)
    with pytest.raises(DeviceLostError, match=r"its kernel's driver ends what takes"):
        loaded.run_planes([tile(1)])
    assert loaded._alone, "a submission for each dispatch was tried"


def test_threads_take_turns() -> None:
    rng = np.random.default_rng(6)
    pictures = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(4)]
    with Upscaler(graphs.plain_network(seed=5)) as upscale:
        expected = [upscale(picture) for picture in pictures]
        wrong: list[int] = []

        def work(number: int) -> None:
            for _ in range(10):
                if not np.array_equal(upscale(pictures[number]), expected[number]):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_pictures_one_after_the_other_are_those_of_calls() -> None:
    rng = np.random.default_rng(7)
    sizes = [(20, 30), (20, 30), (20, 30), (33, 21), (20, 30)]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    with Upscaler(graphs.plain_network(seed=5), tile=24) as upscale:
        expected = [upscale(picture) for picture in pictures]
        found = list(upscale.pictures(pictures))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_results_come_before_the_error_of_a_later_picture() -> None:
    good = np.random.default_rng(8).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    def source() -> Iterator[Bytes]:
        yield from [good, good]
        raise OSError("no more of them")

    bad = np.zeros((20, 30, 4), np.uint8)
    with Upscaler(graphs.plain_network(seed=5), tile=24) as upscale:
        expected = upscale(good)
        for pictures, error in (
            (source(), "no more of them"),
            (iter([good, good, bad, good]), "takes 3 channels"),
        ):
            found = upscale.pictures(pictures)
            for _ in range(2):
                assert np.array_equal(next(found), expected)
            with pytest.raises((OSError, ValueError), match=error):
                next(found)
            assert next(found, None) is None


def test_pictures_that_nobody_goes_on_with_are_in_nobodys_way() -> None:
    """Calls between two of them, from any thread, and the end of it all."""
    rng = np.random.default_rng(9)
    sizes = [(20, 30), (20, 30), (12, 40), (20, 30), (20, 30)]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    upscale = Upscaler(graphs.plain_network(seed=5), tile=24)
    expected = [upscale(picture) for picture in pictures]
    iterator = upscale.pictures(pictures)
    found = [next(iterator)]
    assert np.array_equal(upscale(pictures[2]), expected[2])
    thread = threading.Thread(target=lambda: found.append(next(iterator)))
    thread.start()
    thread.join(60)
    found += [next(iterator), next(iterator)]
    for one, other in zip(found, expected, strict=False):
        assert np.array_equal(one, other)
    assert len(found) == 4
    upscale.close()
    with pytest.raises(UsageError, match="this Upscaler is closed"):
        next(iterator)


def test_what_is_stopped_in_the_middle_disturbs_nothing() -> None:
    picture = np.random.default_rng(10).integers(0, 256, (20, 90, 3), dtype=np.uint8)
    with Upscaler(graphs.plain_network(seed=5), tile=24) as upscale:
        expected = upscale(picture)
        before = upscale.start(picture[:, ::-1])

        def stop(done: int, _: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            upscale(picture, stop)
        assert np.array_equal(upscale(picture), expected)
        assert np.array_equal(before.result(), upscale(picture[:, ::-1]))


def test_a_second_tile_for_which_there_is_no_memory_leaves_nothing(
    loaded: LoadedPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = loaded.run_planes([tile(1)])[0].copy()
    before = len(loaded._algorithms), loaded.allocated_bytes
    record = loaded._record_slot

    def fail(slot: _Slot) -> None:
        record(slot)
        raise kp.OutOfMemoryError("what comes last")

    monkeypatch.setattr(loaded, "_record_slot", fail)
    loaded.start([tile(1)])
    assert not loaded.can_start()
    assert (len(loaded._algorithms), loaded.allocated_bytes) == before
    assert np.array_equal(loaded.finish()[0], expected)


def test_a_call_within_a_call_is_refused() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    with Upscaler(graphs.plain_network(seed=5)) as upscale:

        def again(*_: int) -> None:
            upscale(picture)

        with pytest.raises(RuntimeError, match="by what it calls while it works"):
            upscale(picture, again)
        scale = upscale.graph.scale
        assert upscale(picture).shape == (20 * scale, 30 * scale, 3)


FORKED = """
import os, sys
import numpy as np
from upfrost import Upscaler
from upfrost.gpu.device import DeviceError
picture = np.zeros((20, 30, 3), np.uint8)
upscale = Upscaler("realtime-x2")
expected = upscale(picture)
child = os.fork()
if not child:
    try:
        upscale(picture)
    except DeviceError as error:
        print(error)
    upscale.close()
    with Upscaler("realtime-x2") as mine:
        assert np.array_equal(mine(picture), expected)
    sys.exit()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert np.array_equal(upscale(picture), expected)
upscale.close()
sys.exit(code)
"""


def test_a_forked_child_is_refused_and_makes_its_own() -> None:
    found = subprocess.run(
        [sys.executable, "-c", FORKED],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    assert "works in its parent alone: open it again" in found.stdout


def test_another_build_of_the_binding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kp.py").write_text('__version__ = "0.9.0"\n')
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    found = subprocess.run(
        [sys.executable, "-m", "upfrost.cli.main", "devices"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert "kp 0.9.0 is installed, and upfrost works with its own build" in line


def test_what_a_driver_compiled_is_kept_by_device_and_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPFROST_CACHE", str(tmp_path))
    assert PipelineFile("Mali-G610", "25.0").read() == b""
    PipelineFile("Mali-G610", "25.0").write(b"compiled")
    assert PipelineFile("Mali-G610", "25.0").read() == b"compiled"
    assert PipelineFile("Mali-G610", "25.1").read() == b""
    (file,) = (tmp_path / "pipelines").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert PipelineFile("Mali-G610", "25.0").read() == b"", "it is damaged"
    monkeypatch.setenv("UPFROST_CACHE", str(file))
    PipelineFile("Mali-G610", "25.0").write(b"where no folder can be")
