"""Tuning: candidates compute the same bits, winners are kept, bad files are ignored.

No test depends on how long anything takes: clocks and measurements are made up.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests import graphs
from tests.graphs import Builder
from upfrost.cli import main as cli
from upfrost.gpu import tuning
from upfrost.gpu.convolutions import conv_candidates, layer_key
from upfrost.gpu.device import (
    Device,
    DeviceInfo,
    DeviceLostError,
    LoadedPlan,
    choose_device,
)
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.execution import Ticks
from upfrost.gpu.families import CPU, DISPATCH_SECONDS, FAMILIES, MALI, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.gpu.tuning import Measured, merge, save, tuned_family
from upfrost.gpu.upscaler import Upscaler
from upfrost.network.graph import INPUT, Conv2d, Graph, PixelShuffle
from upfrost.network.modelfile import bundled_models, read_model

LAYERS: dict[str, dict[str, Any]] = {
    "3x3": {"kernel": 3},
    "1x1": {"kernel": 1},
    "5x5": {"kernel": 5},
    "stride 2": {"kernel": 3, "stride": (2, 2)},
    "groups of 3": {"kernel": 3, "groups": 2},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPFROST_CACHE", str(tmp_path))
    return tmp_path / "tuning"


@pytest.fixture
def info() -> DeviceInfo:
    return replace(choose_device(), name="Imagined GPU 7/b", kind="cpu")


def convolutions(graph: Graph) -> list[Conv2d]:
    return [node for node in graph.nodes if isinstance(node, Conv2d)]


def key_of(graph: Graph, node: Conv2d) -> str:
    return layer_key(node, graph.tensors[node.weight].shape)


def measured(**seconds: float) -> Measured:
    return Measured("3×3, 16 → 16", 10**9, seconds)


# The candidates


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("attributes", LAYERS.values(), ids=LAYERS)
def test_all_candidates_of_a_precision_compute_the_same_bits(
    device: Device, family: Family, precision: Precision, attributes: dict[str, Any]
) -> None:
    build = Builder(seed := 1)
    lifted = build.conv(INPUT, 3, 10, kernel=1)
    probe = build.conv(lifted, 10, 18, **attributes)
    step = attributes.get("stride", (1, 1))[0]
    last = build.conv(probe, 18, 3 * step**2, kernel=1)
    if step > 1:
        last = build.add(PixelShuffle, last, factor=step)
    graph = build.graph(last, scale=1)
    node = next(node for node in graph.nodes if node.name == probe)
    assert isinstance(node, Conv2d)
    shape = graph.tensors[node.weight].shape
    # Sums in half precision alone are others; test_kernels bounds their error.
    candidates = [
        candidate
        for candidate in conv_candidates(node, shape, family, precision)
        if candidate.source != "conv3x3_half"
    ]
    assert len(candidates) > 1
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (38, 70, 3), dtype=np.uint8)
    results = []
    for candidate in candidates:
        tuned = replace(family, tuned={layer_key(node, shape): candidate.name})
        plan = make_plan(compile_graph(graph, tuned, precision), *picture.shape[:2])
        shaders = [
            dispatch.shader for dispatch in plan.dispatches if dispatch.label == probe
        ]
        assert shaders == [f"{candidate.name}-{precision}"]
        loaded = device.load(plan, inspect=True)
        loaded.run(picture)
        results.append(loaded.value(probe))
    for found in results[1:]:
        assert np.array_equal(found, results[0]), f"seed {seed}"


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_each_candidate_can_be_chosen_by_name(name: str) -> None:
    graph = read_model(bundled_models()[name])
    for node in convolutions(graph):
        shape = graph.tensors[node.weight].shape
        for family in FAMILIES:
            for precision in ("fp32", "fp16"):
                found = conv_candidates(node, shape, family, precision)
                names = [each.name for each in found]
                assert len(set(names)) == len(names)


def test_a_choice_that_cannot_be_is_the_usual_one() -> None:
    graph = graphs.plain_network(seed=0)
    wrong = {key_of(graph, node): "conv_1x4" for node in convolutions(graph)}
    usual = make_plan(compile_graph(graph, CPU, "fp32"), 20, 30)
    found = make_plan(compile_graph(graph, replace(CPU, tuned=wrong), "fp32"), 20, 30)
    assert [c.shader for c in found.dispatches] == [c.shader for c in usual.dispatches]


# Measuring


class Clock:
    """Time passes only when something is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Work:
    clock: Clock
    seconds: Sequence[float]
    done: int = 0

    def __call__(self) -> float:
        seconds = self.seconds[self.done % len(self.seconds)]
        self.clock.now += seconds
        self.done += 1
        return seconds


def fake_plan(**work: Work) -> Any:
    return SimpleNamespace(layer=work.__getitem__)


def test_the_median_of_a_layers_calls_is_taken_and_no_other_call_is_made() -> None:
    clock = Clock()
    other = Work(clock, [100.0])
    noisy = Work(clock, [0.01, 0.01, 0.5])
    plans = [
        fake_plan(a=other, b=noisy),
        fake_plan(b=Work(clock, [0.05]), c=other),
    ]
    assert tuning._times(plans, "b", clock) == pytest.approx([0.01, 0.05])
    assert other.done == 0
    assert noisy.done == tuning.ROUNDS


def test_slow_layers_are_measured_less_often() -> None:
    clock = Clock()
    work = Work(clock, [tuning.MOST_SECONDS / 2.5])
    tuning._times([fake_plan(a=work)], "a", clock)
    assert work.done == 3


class Stamped:
    """A manager whose sequences have been told what they measured."""

    def __init__(self, manager: Any, stamps: list[int]) -> None:
        self._manager, self._stamps = manager, stamps
        self.asked: list[int] = []

    def sequence(self, queue: int, timestamps: int) -> Any:
        self.asked.append(timestamps)
        sequence = self._manager.sequence(queue, 0)
        return SimpleNamespace(
            record=sequence.record,
            eval_async=sequence.eval_async,
            eval_await=sequence.eval_await,
            get_timestamps=lambda: self._stamps,
        )


@pytest.mark.parametrize(
    ("ticks", "stamps", "seconds"),
    [
        (Ticks(1e-9, 64), [5, 7, 105], 1e-7),
        (Ticks(2e-9, 36), [(1 << 36) - 40, 60], 2e-7),  # they begin again at 0
        (Ticks(1e-9, 64), [0, 0], None),  # there are none in truth
        (Ticks(1.0, 64), [0, 1 << 40], None),
        (None, [], None),
    ],
)
def test_a_layers_time_is_the_devices_own_where_it_can_be(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    ticks: Ticks | None,
    stamps: list[int],
    seconds: float | None,
) -> None:
    program = compile_graph(graphs.plain_network(seed=0), device.info.family, "fp32")
    loaded = device.load(make_plan(program, 8, 8))
    manager = Stamped(loaded._manager, stamps)
    monkeypatch.setattr(loaded, "_manager", manager)
    monkeypatch.setattr(loaded, "_ticks", ticks)
    moments = iter([1.0, 4.0])
    monkeypatch.setattr("upfrost.gpu.execution.time.perf_counter", moments.__next__)
    layer = loaded.layer(loaded.plan.dispatches[0].label)
    assert layer() == pytest.approx(3.0 if seconds is None else seconds)
    assert manager.asked == [0 if ticks is None else 1]


def test_the_devices_timestamps_are_taken(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.info.ticks is None:
        pytest.skip("the device has no timestamps")
    program = compile_graph(graphs.plain_network(seed=0), device.info.family, "fp32")
    loaded = device.load(make_plan(program, 40, 40))
    layer = loaded.layer(loaded.plan.dispatches[0].label)
    age = 1e12
    monkeypatch.setattr(
        "upfrost.gpu.execution.time.perf_counter", iter([0.0, age]).__next__
    )
    assert 0 < layer() < age


@pytest.mark.parametrize(
    ("seconds", "winner"),
    [
        ({"usual": 1.0, "other": 0.5, "third": 0.9}, "other"),
        ({"usual": 1.0, "other": 1.5}, "usual"),
        ({"usual": 1.0, "other": 0.99}, "usual"),  # by chance
    ],
)
def test_the_fastest_wins_if_it_is_worth_it(
    seconds: dict[str, float], winner: str
) -> None:
    assert measured(**seconds).winner == winner


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_shape_of_a_network_is_measured_with_every_candidate(
    device: Device, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "HEIGHT", 20)
    monkeypatch.setattr(tuning, "WIDTH", 30)
    monkeypatch.setattr(tuning, "ROUNDS", 1)
    graph = graphs.every_operation(seed=0)
    found = list(tuning.measure(graph, device, precision))
    nodes = {key_of(graph, node): node for node in convolutions(graph)}
    assert {each.layer for each in found} == set(nodes)
    for each in found:
        node = nodes[each.layer]
        shape = graph.tensors[node.weight].shape
        found_kernels = conv_candidates(node, shape, device.info.family, precision)
        names = [kernel.name for kernel in found_kernels]
        assert list(each.seconds) == names
        assert each.macs > 0
    skip = {found[0].layer}
    rest = tuning.measure(graph, device, precision, skip=skip)
    assert {each.layer for each in rest} == set(nodes) - skip


def test_a_smaller_picture_is_measured_where_buffers_would_be_too_large(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "HEIGHT", 40)
    monkeypatch.setattr(tuning, "WIDTH", 60)
    monkeypatch.setattr(tuning, "_times", lambda plans, *_: [1.0] * len(plans))
    graph = graphs.plain_network(seed=0)
    usual = list(tuning.measure(graph, device, "fp32"))
    program = compile_graph(graph, device.info.family, "fp32")
    limit = max(make_plan(program, 40, 60).buffer_bytes) - 1
    monkeypatch.setattr(device, "info", replace(device.info, max_buffer_bytes=limit))
    small = list(tuning.measure(graph, device, "fp32"))
    assert [each.layer for each in small] == [each.layer for each in usual]
    for less, more in zip(small, usual, strict=True):
        assert 4 * less.macs == more.macs


def test_a_smaller_picture_is_measured_where_a_dispatch_could_take_too_long(
    device: Device,
) -> None:
    build = Builder(0)
    value = build.conv(INPUT, 3, 64)
    value = build.conv(build.conv(value, 64, 64, kernel=9), 64, 3)
    program = compile_graph(build.graph(value, 1), MALI, "fp16")
    (plan,) = tuning._plans([program], device.info)
    assert plan.longest_dispatch <= DISPATCH_SECONDS
    assert plan.width < tuning.WIDTH
    usual = make_plan(program, tuning.HEIGHT, tuning.WIDTH)
    assert usual.longest_dispatch > DISPATCH_SECONDS


def test_a_device_that_is_lost_while_it_is_measured_is_an_error(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "HEIGHT", 20)
    monkeypatch.setattr(tuning, "WIDTH", 30)

    def lose(plans: Sequence[LoadedPlan], *_: object) -> list[float]:
        for plan in plans:
            for slot in plan._slots:
                slot.sequences.clear()  # nothing is submitted, and nothing fails
        return [1e-9] * len(plans)

    monkeypatch.setattr(tuning, "_times", lose)
    with pytest.raises(DeviceLostError):
        next(tuning.measure(graphs.plain_network(seed=0), device, "fp32"))


# What is kept


def test_what_is_kept_is_used_for_that_device_and_precision_alone(
    info: DeviceInfo,
) -> None:
    layer = measured(conv3x3_cpu_2x6=1.0, conv3x3_cpu_4x2=0.25)
    save(merge([layer], info, "fp32"))
    family = tuned_family(info, "fp32")
    assert family.tuned == {"3×3, 16 → 16": "conv3x3_cpu_4x2"}
    assert family.macs_per_second == tuning.SAFETY * 4e9
    assert tuned_family(info, "fp16") == info.family
    other = replace(info, name="Another GPU")
    assert tuned_family(other, "fp32") == other.family


def test_a_second_tuning_keeps_the_layers_of_the_first(info: DeviceInfo) -> None:
    one = measured(conv3x3_cpu_2x6=1.0, conv3x3_cpu_4x2=0.5)
    two = replace(one, layer="3×3, 3 → 16", seconds={"conv3x3_1x6": 4.0})
    save(merge([one], info, "fp32"))
    save(merge([two], info, "fp32"))
    family = tuned_family(info, "fp32")
    assert set(family.tuned) == {one.layer, two.layer}
    assert family.macs_per_second == tuning.SAFETY * 0.25e9


def test_a_layer_measured_again_is_kept_as_measured_last(info: DeviceInfo) -> None:
    for seconds in (0.5, 2.0, 1.0):
        layer = measured(conv3x3_cpu_2x6=seconds)
        save(merge([layer], info, "fp32"))
        rate = tuning.SAFETY * 1e9 / seconds
        assert tuned_family(info, "fp32").macs_per_second == rate


def test_the_measured_speed_bounds_a_dispatch(info: DeviceInfo) -> None:
    graph = graphs.plain_network(seed=0, channels=16)
    node = convolutions(graph)[1]
    slow = Measured(key_of(graph, node), 10**6, {"conv3x3_cpu_2x6": 0.1})
    save(merge([slow], info, "fp32"))
    family = tuned_family(info, "fp32")
    plan = make_plan(compile_graph(graph, family, "fp32"), 200, 8)
    # A workgroup's rows are the least that a band can have.
    rows = 16 * 16 * 9 * 8 * 3
    most = max(dispatch.macs for dispatch in plan.dispatches)
    assert most <= max(rows, DISPATCH_SECONDS * tuning.SAFETY * 10**7)
    assert len(plan.dispatches) > len(
        make_plan(compile_graph(graph, CPU, "fp32"), 200, 8).dispatches
    )


def test_fast_layers_do_not_let_others_take_longer(info: DeviceInfo) -> None:
    save(merge([measured(**{GOOD: 1e-6})], info, "fp32"))
    family = tuned_family(info, "fp32")
    assert family.tuned
    assert family.macs_per_second == info.family.macs_per_second


def test_the_picture_is_the_same_with_every_tuning() -> None:
    graph = graphs.plain_network(seed=3)
    picture = np.random.default_rng(3).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    with Upscaler(graph) as upscale:
        expected = upscale(picture)
        info, precision = upscale.device, upscale.precision
    keys = {key_of(graph, node) for node in convolutions(graph)}
    narrow = [kernel for kernel in info.family.conv3x3 if kernel.least == 1]
    for kernel in narrow:
        layers = [Measured(key, 10**9, {kernel.name: 1.0}) for key in keys]
        save(merge(layers, info, precision))
        with Upscaler(graph) as upscale:
            assert np.array_equal(upscale(picture), expected)
            plan = upscale.loaded_plan
            assert plan is not None
            assert f"{kernel.name}-{precision}" in {
                dispatch.shader for dispatch in plan.dispatches
            }


GOOD = "conv3x3_cpu_4x2"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"driver_version": "9.9"}, "is of driver version 9.9, this is"),
        ({"api_version": "1.0.0"}, "is of api version 1.0.0, this is"),
        ({"device": "Mali"}, "is of device Mali, this is Imagined GPU"),
        ({"upfrost": "0.0.1"}, "is of upfrost 0.0.1, this is"),
        ({"precision": "fp16"}, "is of precision fp16, this is fp32"),
        (
            {"kernels": [["3×3, 16 → 16", "rm", 1.0]]},
            "names a kernel that is not there",
        ),
        ({"kernels": 7}, "is damaged (tuning.kernels: expected an array, found 7)"),
        ({"kernels": []}, "is damaged (no kernels)"),
        ({"kernels": [["3×3", "conv3x3_cpu_4x2", -1.0]]}, "is damaged (a speed of -1 "),
        ({"kernels": [["3×3", "conv3x3_cpu_4x2", 1e-300]]}, "(a speed of 1e-300 prod"),
        ({"extra": 1}, "is damaged (tuning: unknown key"),
    ],
)
def test_a_file_that_is_foreign_or_stale_is_ignored_with_a_line(
    info: DeviceInfo,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    reason: str,
) -> None:
    path = save(merge([measured(**{GOOD: 1.0})], info, "fp32"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert tuned_family(info, "fp32") == info.family
    (line,) = [record.getMessage() for record in caplog.records]
    assert reason in line
    assert str(path) in line
    assert "\n" not in line
    assert "'upfrost tune --forget'" in line


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10**5, b'{"a": 1' * 200_000],
    ids=lambda data: repr(data[:4]) + f" {len(data)}",
)
def test_a_damaged_file_is_ignored_with_a_line(
    info: DeviceInfo, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    path = save(merge([measured(**{GOOD: 1.0})], info, "fp32"))
    path.write_bytes(data)
    assert tuned_family(info, "fp32") == info.family
    assert len(caplog.records) == 1


def test_a_folder_in_the_files_place_is_ignored(
    info: DeviceInfo, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    path = save(merge([measured(**{GOOD: 1.0})], info, "fp32"))
    path.unlink()
    path.mkdir()
    assert tuned_family(info, "fp32") == info.family
    assert "cannot be read" in caplog.records[0].getMessage()
    assert path.parent == cache


def test_a_pipe_in_the_files_place_keeps_nobody_waiting(
    info: DeviceInfo, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(merge([measured(**{GOOD: 1.0})], info, "fp32"))
    path.unlink()
    os.mkfifo(path)
    assert tuned_family(info, "fp32") == info.family
    assert "is not a regular file" in caplog.records[0].getMessage()


def test_nobody_without_a_home_has_kept_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UPFROST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", refuse)
    assert cli.main(["tune", "--forget"]) == 0
    assert capsys.readouterr().out == "nothing was kept\n"


@pytest.mark.parametrize("given", ["", "relative/folder", "{home}/elsewhere"])
def test_the_cache_folder_is_where_the_xdg_specification_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    monkeypatch.delenv("UPFROST_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given.format(home=tmp_path))
    base = tmp_path / ("elsewhere" if given.startswith("{") else ".cache")
    assert tuning._folder() == base / "upfrost" / "tuning"


# The command


def test_the_command_prints_a_table_and_keeps_the_winners(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    layer = measured(conv3x3_cpu_2x6=0.5, conv3x3_cpu_4x2=0.25)
    asked = []

    def fake(graph: Graph, *_: object, **__: object) -> list[Measured]:
        asked.append(graph.name)
        return [layer]

    monkeypatch.setattr(tuning, "measure", fake)
    assert cli.main(["tune", "--precision", "fp32"]) == 0
    assert asked == list(bundled_models())
    out = capsys.readouterr().out.splitlines()
    assert [line.split() for line in out[2:4]] == [
        ["3×3,", "16", "→", "16", "conv3x3_cpu_2x6", "500.00", "2.00"],
        ["*", "conv3x3_cpu_4x2", "250.00", "4.00"],
    ]
    assert max(map(len, out[:-1])) < 80
    (file,) = cache.iterdir()
    assert out[-1] == f"Kept in {file}"
    assert json.loads(file.read_text())["kernels"] == [
        ["3×3, 16 → 16", "conv3x3_cpu_4x2", 4e9]
    ]
    assert cli.main(["tune", "--precision", "fp32", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["layers"]
    assert row["winner"] == "conv3x3_cpu_4x2"
    assert row["seconds"] == layer.seconds


def test_a_lost_device_keeps_what_was_measured_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    layers = [measured(conv3x3_cpu_4x2=1.0)]

    def lose(*_: object, **__: object) -> Iterator[Measured]:
        yield from layers
        raise DeviceLostError("the device did not compute")

    monkeypatch.setattr(tuning, "measure", lose)
    command = ["tune", "-m", "realtime-x4", "--precision", "fp32"]
    assert cli.main(command) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"upfrost: .* was lost while a layer was measured; what was measured before "
        r"is kept\n",
        error,
    )
    (file,) = cache.iterdir()
    assert [row[0] for row in json.loads(file.read_text())["kernels"]] == [
        layer.layer for layer in layers
    ]
    assert cli.main(["tune", "--forget"]) == 0
    layers.clear()
    assert cli.main(command) == 1
    assert "nothing is kept" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    cache.write_text("no folder")
    layer = measured(conv3x3_cpu_4x2=1.0)
    monkeypatch.setattr(tuning, "measure", lambda *_, **__: iter([layer]))
    assert cli.main(["tune", "-m", "realtime-x4", "--precision", "fp32"]) == 2
    assert "UPFROST_CACHE names another one" in capsys.readouterr().err


def test_forget_removes_what_was_kept_and_nothing_else(
    info: DeviceInfo, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune", "--forget"]) == 0
    assert capsys.readouterr().out == "nothing was kept\n"
    save(merge([measured(**{GOOD: 1.0})], info, "fp32"))
    save(merge([measured(**{GOOD: 1.0})], info, "fp16"))
    beside = cache.parent / "wheels"
    beside.mkdir()
    assert cli.main(["tune", "--forget"]) == 0
    assert capsys.readouterr().out == "2 removed\n"
    assert list(cache.iterdir()) == []
    assert beside.exists()
    assert tuned_family(info, "fp32") == info.family


def test_a_user_without_a_home_has_kept_nothing(
    info: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("UPFROST_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert tuned_family(info, "fp32") is info.family
    # A home that is a device file, as services have it.
    monkeypatch.setattr(Path, "home", lambda: Path("/dev/null"))
    assert tuned_family(info, "fp32") is info.family
