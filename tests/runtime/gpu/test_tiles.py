"""Tiles cover the picture once, and their seams cannot be seen."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import graphs
from upfrost.errors import UsageError
from upfrost.gpu.budget import MOST_MEMORY, Budget, choose_grid
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, MALI, VALHALL, Family
from upfrost.gpu.plan import compile_graph, footprint
from upfrost.gpu.tiles import (
    BAND_BYTES,
    MOST_OVERHEAD,
    WIDE_BAND_BYTES,
    Tiling,
    align,
    cheapest_grid,
    smallest_side,
    tile_grid,
    tiling,
)
from upfrost.gpu.upscaler import Upscaler
from upfrost.network.graph import MAX_SIZE, Graph, alignment
from upfrost.network.modelfile import bundled_models, read_model

CASES = 400


@settings(max_examples=CASES, deadline=None)
@given(
    seed=st.integers(0, 30),
    blocks=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    extra=st.integers(0, 300),
    multiple=st.sampled_from([1, 2, 6]),
)
def test_every_pixel_is_kept_once_and_far_enough_from_a_seam(
    seed: int, blocks: tuple[int, int], extra: int, multiple: int
) -> None:
    graph = graphs.random_network(seed)
    height, width = (count * alignment(graph) for count in blocks)
    rules = tiling(graph)
    rules = replace(rules, step=math.lcm(rules.step, multiple))
    side = smallest_side(rules) + extra
    grid = tile_grid(rules, height, width, side)
    for axis, extent in enumerate((height, width)):
        reach = rules.halo[axis]
        expected = 0
        for window, kept in grid.windows[axis]:
            assert window.start % rules.step == kept.start % rules.step == 0
            assert 0 <= window.start < window.stop <= extent
            assert window.stop - window.start == (grid.height, grid.width)[axis] <= side
            assert kept.start == expected < kept.stop
            expected = kept.stop
            assert window.start == 0 or kept.start - window.start >= reach
            assert window.stop == extent or window.stop - kept.stop >= reach
        assert expected == extent


def test_a_tile_within_the_halo_is_refused() -> None:
    graph = graphs.plain_network(seed=0, layers=4)
    with pytest.raises(ValueError, match=r"too small.*at least 11"):
        tile_grid(tiling(graph), 100, 100, 10)


def test_a_network_that_looks_at_the_whole_picture_gets_no_tiles() -> None:
    rules = tiling(graphs.imported_operations(seed=0))
    assert len(tile_grid(rules, 100, 80, 100)) == 1
    with pytest.raises(ValueError, match=r"80×100 pixels .*upfrost upscale --halo 32"):
        tile_grid(rules, 100, 80, 99)


@settings(max_examples=CASES, deadline=None)
@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    halo=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    step=st.sampled_from([1, 2, 4]),
    budget=st.integers(10_000, 1_000_000),
)
def test_the_cheapest_tiles_fit_and_cost_less_than_square_ones(
    size: tuple[int, int], halo: tuple[int, int], step: int, budget: int
) -> None:
    rules = Tiling(alignment=1, step=step, halo=halo)

    def fits(height: int, width: int) -> bool:
        return height * width <= budget

    grid = cheapest_grid(rules, *size, fits)
    smallest = smallest_side(rules)
    fitting = fits(grid.height, grid.width)
    assert fitting or not fits(min(smallest, size[0]), min(smallest, size[1]))
    for axis, extent in enumerate(size):
        edges = [kept.start for _, kept in grid.windows[axis]]
        assert edges == sorted(set(edges))
        assert grid.windows[axis][-1][1].stop == extent
    square = tile_grid(rules, *size, max(math.isqrt(budget), smallest))
    # Sizes are tried in steps of a seventh of what a window keeps, along both axes.
    if fitting and fits(square.height, square.width):
        assert grid.overhead <= (8 / 7) ** 2 * square.overhead


@given(
    step=st.sampled_from([1, 2, 6]),
    halo=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    side=st.integers(1, 99),
)
def test_a_tile_that_is_too_small_is_told_the_side_that_is_not(
    step: int, halo: tuple[int, int], size: tuple[int, int], side: int
) -> None:
    rules = Tiling(alignment=1, step=step, halo=halo)
    try:
        tile_grid(rules, *size, side)
    except UsageError as error:
        named = re.search(r"at least (\d+) are needed", str(error))
        assert named is not None
        tile_grid(rules, *size, int(named[1]))


def test_long_pictures_are_cut_across() -> None:
    """By a budget of as many pixels as a square of 500 has."""
    rules = Tiling(alignment=1, step=1, halo=(14, 14))
    for size, most in (((60_000, 8), 4), ((8, 60_000), 4), ((100, 30_000), 15)):
        grid = cheapest_grid(rules, *size, lambda h, w: h * w <= 250_000)
        assert len(grid) <= most
        assert grid.overhead < 1.02


def test_a_row_of_tiles_takes_little_of_the_hosts_memory_and_no_absurd_work() -> None:
    rules = Tiling(alignment=1, step=1, halo=(14, 14))
    for width, row_bytes in ((4_000, 192_000), (30_000, 1_440_000)):
        grid = cheapest_grid(
            rules, 3_000, width, lambda h, w: h * w <= 400_000, row_bytes
        )
        assert grid.overhead <= MOST_OVERHEAD
        wide = width > 4_000
        most = WIDE_BAND_BYTES if wide else BAND_BYTES
        assert grid.height * row_bytes <= most


@pytest.mark.parametrize("name", sorted(bundled_models()))
@pytest.mark.parametrize(
    ("family", "precision"),
    [(MALI, "fp16"), (VALHALL, "fp16"), (CPU, "fp32")],
    ids=["mali", "valhall", "cpu"],
)
def test_bundled_models_waste_little_on_large_pictures(
    name: str, family: Family, precision: Precision
) -> None:
    """By the default budget of a board, counted without one.

    Sides of more than 4 megapixels, and those of scans and panoramas; the widest of
    them times the largest scale fill `WIDE_BAND_BYTES` with a few rows.
    """
    graph = read_model(bundled_models()[name])
    program = compile_graph(graph, family, precision)
    budget = Budget(MOST_MEMORY, buffer=128 << 20)
    sizes = [(2000, 2100), (3000, 4000), (3000, 30_000), (30_000, 3000)]
    for height, width in sizes:
        grid = choose_grid(program, height, width, budget)
        # In single precision a buffer of 128 MiB holds few pixels of a cascade.
        most = 1.2 if family == CPU else MOST_OVERHEAD
        assert grid.overhead <= most, f"{height}×{width}"
        assert footprint(program, grid.height, grid.width).bytes <= MOST_MEMORY


def test_a_side_longer_than_any_value_may_be_is_cut() -> None:
    graph = graphs.plain_network(seed=0)
    program = compile_graph(graph, MALI, "fp16")
    grid = choose_grid(program, 9, 2 * MAX_SIZE, Budget(MOST_MEMORY, 128 << 20))
    assert grid.width <= MAX_SIZE
    assert grid.overhead < 1.01


NETWORKS = {
    "plain": graphs.plain_network(seed=1, layers=3),
    "every operation": graphs.every_operation(seed=1),
    "random": graphs.random_network(seed=4),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (19, 41), (44, 13)], ids=str)
def test_tiles_give_the_bits_of_the_whole(
    name: str, precision: Precision, size: tuple[int, int]
) -> None:
    assert_seamless(NETWORKS[name], precision, size)


@pytest.mark.parametrize("seed", range(4))
def test_tiles_of_imported_networks_give_the_bits_of_the_whole(seed: int) -> None:
    graph = graphs.random_network(seed, imported=True)
    # The smallest tiles of these give few pixels each, so that there are thousands.
    assert_seamless(graph, "fp16", (67, 121), (3,))


@pytest.mark.parametrize("model", graphs.one_of_each_structure())
def test_bundled_models_give_the_bits_of_the_whole(model: str) -> None:
    # In single precision a CPU's blocks would make tiles larger than the picture. Here
    # they are 2×3 or more, those of the middle with a seam on both sides.
    assert_seamless(read_model(bundled_models()[model]), "fp16", (49, 73), (19,))


def assert_seamless(
    graph: Graph,
    precision: Precision,
    size: tuple[int, int],
    wider: tuple[int, ...] = (0, 7),
) -> None:
    """Tiles that are so many pixels wider than the smallest give the whole's bits."""
    shape = (*size, graph.channels)
    picture = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    with Upscaler(graph, precision=precision) as upscale:
        whole, rules = upscale(picture), upscale.tiling
    for extra in wider:
        side = smallest_side(rules) + extra
        with Upscaler(graph, precision=precision, tile=side) as upscale:
            tiled = upscale(picture)
        assert np.array_equal(tiled, whole), f"tiles of {side}"


def test_a_budget_bounds_the_plans_bytes() -> None:
    graph = dataclasses.replace(graphs.plain_network(seed=2, channels=16))
    budget = 300_000
    with Upscaler(graph, memory=budget) as upscale:
        grid = upscale.tiles(500, 700)
        assert len(grid) > 1
        assert upscale.plan(grid).bytes <= budget


def test_strides_repeat_the_last_row_and_column() -> None:
    graph = graphs.every_operation(seed=0)
    picture = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    aligned = align(picture, tiling(graph))
    assert aligned.shape == (4, 6, 3)
    assert np.array_equal(aligned[3], aligned[2])
    assert np.array_equal(aligned[:, 5], aligned[:, 4])
