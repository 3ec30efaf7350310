"""What the comparison makes of the runtimes' results."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers import PeerError, Record, compare, table, verdict
from benchmarks.runtimes import Measurement

from benchmarks import peers
from tests import graphs
from upfrost.arrays import Bytes


def record(runtime: str, seconds: list[float], psnr: float = 70.0) -> Record:
    measurements = [
        Measurement(first=9.0, warm=[each, each, 99.0], peak=2**30, device="GPU")
        for each in seconds
    ]
    return Record(runtime, measurements=measurements, psnr=psnr)


def test_ratios_are_to_the_better_precision_in_the_same_round() -> None:
    records = [
        record("upfrost Vulkan fp32", [1.0, 2.0, 10.0]),
        record("upfrost Vulkan fp16", [3.0, 3.0, 11.0]),
        record("ncnn Vulkan fp32", [4.0, 8.0, 40.0]),
    ]
    rows = table(records)
    assert [row["× upfrost"] for row in rows] == [1.0, 1.5, 4.0]
    assert [row["s"] for row in rows] == [2.0, 3.0, 8.0]
    assert verdict(rows).endswith("takes 0.25 of ncnn Vulkan's best time")


def test_a_wrong_picture_cannot_win() -> None:
    records = [
        record("upfrost Vulkan fp32", [1.0]),
        record("ncnn Vulkan fp32", [0.1], psnr=6.0),
    ]
    rows = table(records)
    assert rows[1]["× upfrost"] is None
    assert rows[1]["remark"] == "wrong picture"
    assert "no valid result" in verdict(rows)


def test_a_failure_is_a_row_that_says_so() -> None:
    failed = dataclasses.replace(record("ncnn CPU", [1.0]), failure="ended by signal 9")
    rows = table([record("upfrost Vulkan fp32", [1.0, 1.0]), failed])
    assert rows[1]["remark"] == "ended by signal 9"
    assert rows[1]["s"] is rows[1]["PSNR dB"] is None


def test_runtimes_take_turns_and_one_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = []

    def measure(record: Record, *_: object) -> tuple[Measurement, Bytes]:
        order.append(record.runtime)
        if record.runtime == "ncnn CPU" and order.count(record.runtime) == 2:
            raise PeerError("no result within 9 s")
        return Measurement(1.0, [1.0], 1, "CPU"), np.zeros((2, 2, 3), np.uint8)

    def rounds(minutes: float) -> list[Record]:
        order.clear()
        records = [Record("ncnn CPU"), Record("torch CPU")]
        graph = graphs.plain_network(seed=0)
        peers.run_rounds(
            records, Path(), graph, rounds=3, minutes=minutes, threads=1, limit=9
        )
        return records

    monkeypatch.setattr(peers, "measure", measure)
    failed, whole = rounds(minutes=60)
    assert failed.failure == "no result within 9 s"
    assert len(whole.measurements) == 3
    assert order == ["torch CPU", *["ncnn CPU", "torch CPU"] * 2, *["torch CPU"] * 2]
    assert len(rounds(minutes=0)[1].measurements) == 1


def test_another_checkouts_runtime_runs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "python"
    child.write_text(
        '#!/bin/sh\n[ "$PYTHONPATH" = "$PWD/runtime:$PWD" ] && pwd >&2; exit 1\n'
    )
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    graph = graphs.plain_network(seed=0)
    there = Record("upfrost Vulkan fp32", tree=tmp_path)
    with pytest.raises(PeerError, match=f"^{str(tmp_path)[:160]}$"):
        peers.measure(there, tmp_path, graph, 1, 60)
    here = record("upfrost Vulkan fp32", [1.0])
    rows = table([dataclasses.replace(here, tree=tmp_path, psnr=99.0), here])
    assert rows[0]["runtime"] == "upfrost Vulkan fp32, before"


def test_equal_pictures_are_called_equal() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    assert compare(picture, picture) == float("inf")
    assert compare(picture, picture[:1]) == 0
    assert compare(picture, picture + np.uint8(255)) == 0
    assert table([record("torch CPU", [1.0], compare(picture, picture))])[0][
        "PSNR dB"
    ] == ("equal")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(60)", r"no result within 0\.5 s"),
        ("raise SystemExit('ncnn refuses the model')", "ncnn refuses the model"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("", "no reason given"),
    ],
)
def test_a_process_without_a_result_says_why(
    program: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "python"
    child.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    limit = 0.5 if "sleep" in program else 60
    graph = graphs.plain_network(seed=0)
    with pytest.raises(PeerError, match=reason):
        peers.measure(Record("ncnn CPU"), tmp_path, graph, 1, limit)
