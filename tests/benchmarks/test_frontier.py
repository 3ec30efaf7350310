"""The frontier: which networks are drawn, and with what quality."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from benchmarks.frontier import (
    CANDIDATES,
    G52,
    clean_runs,
    frontier,
    graph_of,
    label,
    milliseconds,
    parameters,
)

from upfrost_training.networks.plain import PlainSettings

SMALL = PlainSettings(colour="luma", channels=8, depth=2)
CONFIG = """
name = "{name}"
kind = "plain"
[network]
colour = "luma"
channels = 8
depth = 2
"""
LOG = (
    "step,seconds,rate,loss,psnr,Set5/x2,Set14/x2\n1,1,1,1,30,31,32\n2,1,1,1,33,34,35\n"
)


def test_the_frontier_leaves_out_what_something_faster_is_as_good_as() -> None:
    points = [(3.0, 32.0), (1.0, 30.0), (2.0, 30.0), (4.0, 31.0), (3.0, 32.5)]
    assert frontier(points) == [(1.0, 30.0), (3.0, 32.5)]


def test_candidates_are_told_apart_by_their_labels() -> None:
    labels = [label(settings) for settings in CANDIDATES]
    assert len(set(labels)) == len(labels)
    assert {"1-8-4", "1-8-4 relu", "3-16-9"} <= set(labels)


def test_a_candidate_is_a_chain_of_its_layers() -> None:
    graph = graph_of(SMALL)
    assert graph.channels == 1
    kinds = [type(node).__name__ for node in graph.nodes]
    assert kinds.count("Conv2d") == SMALL.depth + 2
    # 9·8 + 8 + 8, twice 9·64 + 8 + 8, 9·32 + 4.
    assert parameters(SMALL) == 88 + 2 * 592 + 292


def test_quality_is_the_end_of_a_clean_run_s_log(tmp_path: Path) -> None:
    for folder in ("configs", "results"):
        (tmp_path / folder).mkdir()
    streams = CONFIG.format(name="streams").replace(
        "[network]",
        '[[degrade]]\nkind = "bicubic"\n[[degrade]]\nkind = "h264"\n[network]',
    )
    for name, text in (("clean", CONFIG.format(name="clean")), ("streams", streams)):
        (tmp_path / "configs" / f"{name}.toml").write_text(text)
        (tmp_path / "results" / f"{name}.csv").write_text(LOG)
    unfinished = CONFIG.format(name="other").replace("depth = 2", "depth = 3")
    (tmp_path / "configs" / "other.toml").write_text(unfinished)
    runs = clean_runs(tmp_path)
    assert list(runs) == [SMALL]
    run = runs[SMALL]
    assert (run.name, run.steps, run.held_out) == ("clean", 2, 33.0)
    assert (run.set5, run.set14) == (34.0, 35.0)


def test_a_deeper_network_takes_longer() -> None:
    folder = os.environ.get("UPFROST_PANVK")
    if not folder:
        pytest.skip("UPFROST_PANVK names no folder with mali-stats")
    short, long = (
        milliseconds(Path(folder), G52, graph_of(settings), 360, 640)
        for settings in (SMALL, PlainSettings(colour="luma", channels=8, depth=4))
    )
    assert 0.0 < short < long
