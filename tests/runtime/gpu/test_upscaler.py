"""`Upscaler` against PyTorch, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from tests import graphs
from tests.exporter import networks
from tests.torch_graph import TorchGraph, torch_bytes
from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.gpu import upscaler
from upfrost.gpu.device import (
    Device,
    DeviceError,
    LoadedPlan,
    NotFiniteError,
    OutOfDeviceMemoryError,
    choose_device,
)
from upfrost.gpu.plan import Plan
from upfrost.gpu.seams import Seams
from upfrost.gpu.tiles import Tiling, smallest_side, tile_grid, tiling, with_halo
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Clamp,
    Graph,
    GridSample,
    Node,
    PixelShuffle,
    Relu,
)
from upfrost.network.modelfile import bundled_models, read_model
from upfrost_exporter import trace_module


def photograph(seed: int, height: int, width: int, channels: int = 3) -> Bytes:
    """A random picture without more detail than a photograph has."""
    rng = np.random.default_rng(seed)
    shape = (1, channels, height // 3 + 1, width // 3 + 1)
    coarse = torch.tensor(rng.uniform(0, 1, shape))
    smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic")
    noise = rng.normal(0, 0.02, (height, width, channels))
    noisy = smooth[0].permute(1, 2, 0).numpy() + noise
    picture: Bytes = (np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return picture


def psnr(one: Bytes, other: Bytes) -> float:
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def check_against_torch(graph: Graph, module: nn.Module, seed: int) -> None:
    picture = photograph(seed, 45, 58, graph.channels)
    expected = torch_bytes(module, picture)
    with Upscaler(graph, precision="fp32") as upscale:
        single = upscale(picture)
    difference = np.abs(single.astype(int) - expected)
    assert difference.max() <= 1
    assert np.mean(difference.max(axis=2) == 0) >= 0.999
    with Upscaler(graph, precision="fp16") as upscale:
        half = upscale(picture)
    assert psnr(half, single) >= 50


@pytest.mark.parametrize(
    ("asked", "given", "taken"),
    [
        (None, "auto", "fp16"),
        ("fp32", "auto", "fp32"),
        ("fp32", "fp16", "fp16"),
        ("nonsense", "auto", "fp16"),
    ],
)
def test_a_model_may_ask_for_single_precision(
    monkeypatch: pytest.MonkeyPatch,
    asked: str | None,
    given: Literal["auto", "fp16", "fp32"],
    taken: str,
) -> None:
    gpu = replace(choose_device(None), kind="integrated")
    monkeypatch.setattr(upscaler, "choose_device", lambda _: gpu)
    graph = replace(graphs.plain_network(0), metadata={"precision": asked})
    with Upscaler(graph, precision=given) as upscale:
        assert upscale.precision == taken


@pytest.mark.parametrize(
    "make",
    [networks.Plain, lambda: networks.Plain(scale=3, mode="bicubic"), networks.Cascade],
    ids=["plain", "plain ×3", "cascade"],
)
def test_exported_networks_give_pytorchs_bytes(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(seed := 1)
    module = make()
    scale = module(torch.zeros(1, 3, 8, 8)).shape[-1] // 8
    check_against_torch(trace_module(module, name="network", scale=scale), module, seed)


@pytest.mark.parametrize("model", sorted(bundled_models()))
def test_bundled_models_give_pytorchs_bytes(model: str) -> None:
    graph = read_model(bundled_models()[model])
    check_against_torch(graph, TorchGraph(graph), seed=3)


def test_a_picture_of_another_type_or_shape_is_refused() -> None:
    with Upscaler(graphs.plain_network(seed=0)) as upscale:
        for picture in (
            np.zeros((4, 4, 3), np.float32),
            np.zeros((4, 4), np.uint8),
            np.zeros((0, 4, 3), np.uint8),
        ):
            with pytest.raises(ValueError, match=r"uint8 with shape \(H, W, 3\)"):
                upscale(picture)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="takes 3 channels, found 4"):
            upscale(np.zeros((4, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"precision": "FP16"}, "precision is auto, fp16, fp32; found 'FP16'"),
        ({"precision": None}, "precision is auto, fp16, fp32; found None"),
        ({"tile": 0}, "tile is a whole number from 1 on, or None; found 0"),
        ({"tile": True}, "tile is a whole number from 1 on, or None; found True"),
        ({"memory": 1.5}, "memory is a whole number from 1 on, or None; found 1.5"),
        ({"halo": -1}, "halo is a whole number from 1 on, or None; found -1"),
        ({"device": 0.0}, "device is a number, part of a name or None; found 0.0"),
        ({"model": None}, "model is a name, a .upf file or a Graph; found None"),
        ({"model": b"realtime-x2"}, "model is a name, a .upf file or a Graph"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        Upscaler(**{"model": graphs.plain_network(seed=0), **arguments})


def test_a_device_before_the_first_is_none() -> None:
    with pytest.raises(DeviceError, match=r"'-1'; there is 0: "):
        Upscaler(graphs.plain_network(seed=0), device=-1)


def test_pictures_are_whatever_numpy_reads_as_one() -> None:
    picture = photograph(9, 12, 10)
    with Upscaler(graphs.plain_network(seed=0)) as upscale:
        expected = upscale(picture)
        pixels: Any = picture  # NumPy's older stubs know no buffers
        image: Any = Image.fromarray(picture)
        views: list[Any] = [image, memoryview(pixels)]
        for same in views:
            assert np.array_equal(upscale(same), expected)
        others: list[Any] = [picture.tolist(), image.convert("P"), "a", [[1], [2, 3]]]
        for other in others:
            with pytest.raises(UsageError, match=r"uint8 with shape \(H, W, 3\)"):
                upscale(other)
        with pytest.raises(UsageError, match="takes 3 channels, found 4"):
            upscale(image.convert("RGBA"))


@pytest.mark.parametrize("factor", [1e25, -1e25])
@pytest.mark.parametrize("activation", [None, Relu, Clamp])
def test_a_result_that_is_not_finite_is_an_error_and_not_black(
    factor: float, activation: type[Node] | None
) -> None:
    """Products of 1e50 overflow single precision, of both signs: inf - inf is NaN."""
    build = graphs.Builder(seed=1)
    value = INPUT
    for _ in range(3):
        value = build.conv(value, 3, 3)
        name = build.nodes[-1].name + ".weight"
        build.tensors[name] = (build.tensors[name] * factor).astype(np.float32)
        if activation is Relu:
            value = build.add(Relu, value)
    if activation is Clamp:
        value = build.add(Clamp, value, low=0.0, high=1.0)
    graph = build.graph(value, 1)
    with (
        Upscaler(graph, precision="fp32") as upscale,
        pytest.raises(NotFiniteError, match=r"example: .* too large for fp32$"),
    ):
        upscale(photograph(1, 9, 11))


def test_what_is_too_large_for_half_precision_alone_is_said() -> None:
    build = graphs.Builder(seed=2)
    value = INPUT
    for _ in range(2):
        value = build.conv(value, 3, 3)
        name = build.nodes[-1].name + ".weight"
        build.tensors[name] = (build.tensors[name] * 5000).astype(np.float32)
    graph = build.graph(value, 1)
    picture = photograph(2, 10, 11)
    with Upscaler(graph, precision="fp32") as upscale:
        upscale(picture)
    with (
        Upscaler(graph, precision="fp16") as upscale,
        pytest.raises(NotFiniteError, match=r"large for fp16; use --precision fp32"),
    ):
        upscale(picture)


def test_a_closed_upscaler_says_so() -> None:
    upscale = Upscaler(graphs.plain_network(seed=0))
    upscale.close()
    with pytest.raises(UsageError, match="this Upscaler is closed"):
        upscale(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_that_would_share_the_device_is_refused(
    copied: Callable[[Upscaler], object],
) -> None:
    with (
        Upscaler(graphs.plain_network(seed=0)) as upscale,
        pytest.raises(UsageError, match=r"cannot be copied .* make another one"),
    ):
        copied(upscale)


def test_streamed_rows_of_another_type_or_number_are_refused() -> None:
    def write(_: Bytes) -> None:
        raise AssertionError("nothing was upscaled")

    with Upscaler(graphs.plain_network(seed=0)) as upscale:
        for rows in (
            np.zeros((8, 6, 3), np.float32),
            np.zeros((1, 6, 3), np.uint8),
            np.zeros((8, 6, 1), np.uint8),
            [[0]],
        ):
            with pytest.raises(UsageError, match=r"uint8 with shape \(8, 6, 3\)"):
                upscale.stream(8, 6, lambda *_, rows=rows: rows, write)
    with (
        Upscaler(graphs.every_operation(seed=0)) as upscale,
        pytest.raises(UsageError, match="multiples of 2, found 6×7 pixels"),
    ):
        upscale.stream(7, 6, lambda *_: np.zeros((7, 6, 3), np.uint8), write)


def test_a_smaller_halo_makes_smaller_tiles_whose_seams_are_measured() -> None:
    graph = graphs.plain_network(seed=3, layers=6)
    picture = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    rules = tiling(graph)
    with Upscaler(graph, precision="fp32") as upscale:
        whole = upscale(picture)
        assert upscale.seam is None
    for halo in (2, max(rules.halo)):
        side = smallest_side(with_halo(rules, halo)) + 20
        with Upscaler(graph, precision="fp32", halo=halo, tile=side) as upscale:
            found = upscale(picture)
            grid = upscale.tiles(50, 70, side)
            exact = halo == max(rules.halo)
            assert np.array_equal(found, whole) == exact
            assert (upscale.seam is None) == exact
            if upscale.seam is not None:
                assert 0 < upscale.seam <= 255
                assert len(grid) > 4


def test_tiles_that_hold_what_a_grid_sample_moves_are_exact() -> None:
    """By themselves they are not taken: nothing in a network says how far it moves."""
    build = graphs.Builder(4)
    value = build.conv(INPUT, 3, 8)
    far = build.add(Clamp, build.conv(value, 8, 16), low=-5.0, high=5.0)
    moves = build.add(PixelShuffle, far, factor=2)
    large = build.add(GridSample, value, moves, factor=2, groups=2)
    graph = build.graph(build.conv(large, 8, 3, kernel=1), scale=2)
    picture = np.random.default_rng(4).integers(0, 256, (45, 52, 3), dtype=np.uint8)
    with Upscaler(graph, precision="fp32") as upscale:
        assert upscale.tiling.needs_whole_picture
        whole = upscale(picture)
        assert upscale.overhead == 1
    expected = reference.upscale_bytes(graph, picture).astype(int)
    assert np.abs(whole - expected).max() <= 1  # rounded to the other side
    # Two pixels for the convolutions, six for the moves and what lies behind them.
    for halo, is_exact in ((8, True), (2, False)):
        with Upscaler(graph, precision="fp32", halo=halo, tile=24) as upscale:
            found = upscale(picture)
            assert upscale.overhead > 1
            assert np.array_equal(found, whole) == is_exact
            assert upscale.seam is not None
            assert (upscale.seam == 0) == is_exact


def test_seams_are_where_two_tiles_differ() -> None:
    """Counted on tiles whose results are their own number, 10 apart."""
    rules = Tiling(alignment=1, step=1, halo=(2, 3))
    grid = tile_grid(rules, 20, 30, 12)
    seams, columns = Seams(scale=2), len(grid.windows[1])
    assert columns > 2
    for number, tile in enumerate(grid):
        level = 10 * (number // columns) + number % columns
        seams.add(tile, np.full((24, 24, 3), level, np.uint8))
    assert seams.largest == 10
    same = Seams(scale=2)
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for tile in grid:
        rows = slice(2 * tile.rows.start, 2 * tile.rows.stop)
        same.add(tile, picture[rows, 2 * tile.columns.start : 2 * tile.columns.stop])
    assert same.largest == 0


def test_the_error_of_a_budget_too_small_says_what_to_give() -> None:
    graph = graphs.plain_network(seed=0)
    with (
        Upscaler(graph, memory=1000) as upscale,
        pytest.raises(OutOfDeviceMemoryError) as raised,
    ):
        upscale(np.zeros((40, 30, 3), np.uint8))
    found = re.search(r"--memory (\d+)\)$", str(raised.value))
    assert found is not None, "a halo as small as this is not to be made smaller"
    with Upscaler(graph, memory=int(found[1]) * 1_000_000) as upscale:
        upscale(np.zeros((40, 30, 3), np.uint8))


def test_progress_counts_tiles() -> None:
    graph = graphs.plain_network(seed=0)
    seen: list[tuple[int, int]] = []
    with Upscaler(graph, tile=smallest_side(tiling(graph)) + 9) as upscale:
        upscale(
            np.zeros((40, 30, 3), np.uint8), lambda done, of: seen.append((done, of))
        )
    count = seen[0][1]
    assert count > 1
    assert seen == [(done, count) for done in range(1, count + 1)]


def test_a_budget_too_small_for_any_tile_is_one_clear_line() -> None:
    with (
        Upscaler(graphs.plain_network(seed=0), memory=1000) as upscale,
        pytest.raises(OutOfDeviceMemoryError, match=r"smallest tile .* budget is"),
    ):
        upscale(np.zeros((40, 30, 3), np.uint8))


@pytest.mark.parametrize("seed", [5, 6])
def test_a_network_that_looks_at_the_whole_picture_runs_without_tiles(
    seed: int,
) -> None:
    graph = graphs.imported_operations(seed)
    picture = photograph(seed, 70, 46)
    with Upscaler(graph, precision="fp32") as upscale:
        found = upscale(picture).astype(int)
        needed = upscale.plan(upscale.tiles(70, 46)).bytes
    expected = reference.upscale_bytes(graph, picture)
    assert np.abs(found - expected).max() <= 1
    with (
        Upscaler(graph, precision="fp32", memory=needed - 1) as upscale,
        pytest.raises(OutOfDeviceMemoryError, match=r"whole picture.* 46×70 pixels"),
    ):
        upscale(picture)


def test_an_unknown_device_lists_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"'Adreno'; there is 0: "):
        Upscaler(graphs.plain_network(seed=0), device="Adreno")


def test_pictures_of_many_sizes_through_one_upscaler() -> None:
    graph = graphs.plain_network(seed=0)
    picture = photograph(4, 30, 40)
    with Upscaler(graph) as upscale:
        first = upscale(picture)
        for size in (1, 7, 29):
            assert upscale(picture[:size, :size]).shape == (2 * size, 2 * size, 3)
        assert np.array_equal(upscale(picture), first)


def test_plans_that_are_kept_keep_to_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = graphs.plain_network(seed=0, channels=64)
    loads: list[tuple[int, int]] = []
    load = Device.load

    def counted(self: Device, plan: Plan) -> LoadedPlan:
        loads.append((plan.height, plan.width))
        return load(self, plan)

    monkeypatch.setattr(Device, "load", counted)
    small, large = photograph(5, 20, 30), photograph(5, 60, 90)
    with Upscaler(graph) as upscale:
        for _ in range(2):
            upscale(small)
            upscale(large)
        assert loads == [(20, 30), (60, 90)]
        plans = [upscale.plan(upscale.tiles(*size)) for size in loads]
    # The weights are there once.
    budget = plans[0].constant_bytes + sum(plan.own_bytes for plan in plans)
    for memory, expected in ((budget, loads[:]), (budget - 1, loads * 2)):
        loads.clear()
        with Upscaler(graph, memory=memory) as upscale:
            for _ in range(2):
                upscale(small)
                upscale(large)
        assert loads == expected


def test_frames_of_one_size_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graphs.plain_network(seed=0)
    picture = photograph(6, 30, 40)
    with Upscaler(graph) as upscale:
        first = upscale(picture)

        def refuse(*_: object) -> None:
            raise AssertionError("planned again")

        monkeypatch.setattr("upfrost.gpu.upscaler.make_plan", refuse)
        assert np.array_equal(upscale(picture), first)


def test_a_thousand_pictures_take_no_more_memory_than_ten() -> None:
    """In a process of its own, since what other tests freed would be used again."""
    program = """
from pathlib import Path
import numpy as np
from tests import graphs
from upfrost import Upscaler

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
with Upscaler(graphs.plain_network(seed=0)) as upscale:
    for number in range(1, 1001):
        upscale(picture[: 16 + 4 * (number % 3)])
        if number == 10:
            early = resident()
    print(early, resident())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    early, late = map(int, result.stdout.split())
    assert late <= 1.05 * early
