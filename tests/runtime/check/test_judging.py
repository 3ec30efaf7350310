"""What is made of what the jobs found: what is wrong is said so, and what to do."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from tests.runtime.fakes import device_info
from upfrost.check import computing, devices, models, speeds
from upfrost.check.jobs import Facts, Result
from upfrost.check.report import Section
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network import reference
from upfrost.network.modelfile import bundled_models, read_model


def texts(section: Section) -> str:
    return "\n".join(f"{each.state}: {each.text}" for each in section.findings)


# Devices


def listed(**changes: Any) -> dict[str, Result]:
    info = device_info()
    facts: Facts = {
        "chosen": 0,
        "kp": "0.9.0",
        "devices": [asdict(info) | {"is_gpu": info.is_gpu} | changes],
        "job_seconds": 0.5,
        "submission_seconds": 0.17,
    }
    return {
        "the list of devices": Result(facts=facts),
        "half precision": Result(facts={"fp16": False}),
    }


def test_a_gpu_without_half_precision_is_noted() -> None:
    section = devices.judge(listed(), wanted=False, mali=True)
    assert not section.wrong
    assert "note: No half precision in this driver" in texts(section)
    assert section.facts["fp16"] is False


@pytest.mark.parametrize("mali", [True, False])
def test_a_mali_that_vulkan_does_not_show_is_wrong(mali: bool) -> None:
    found = listed(is_gpu=False, kind="cpu")
    section = devices.judge(found, wanted=False, mali=mali)
    assert bool(section.wrong) == mali
    asked = devices.judge(found, wanted=True, mali=mali)
    assert not asked.wrong, "whoever names the CPU means it"


def test_limits_below_vulkans_are_wrong() -> None:
    section = devices.judge(listed(max_workgroup=64), wanted=False, mali=False)
    assert "Limits are less" in section.wrong[0].text


# Does it compute?


def test_a_dispatch_that_did_a_part_of_its_work() -> None:
    one = Result(facts={"left": 3, "words": 1 << 20})
    section = computing.judge({"a dispatch": one, "a picture": Result(facts={})})
    assert "3 of 1,048,576 words" in section.wrong[0].text
    assert not computing.is_alive({"a dispatch": one})


def test_what_nobody_would_notice_is_wrong() -> None:
    silent = Result(facts={"noticed": False})
    section = computing.judge(
        {"a dead dispatch": silent, "a wait that is too short": silent}
    )
    assert len(section.wrong) == 2


# Models


def test_checksums_are_the_references() -> None:
    """Of every model that comes with upfrost."""
    table = models.expected()
    assert table.keys() == bundled_models().keys()
    for name, path in bundled_models().items():
        graph = read_model(path)
        small = models.picture(table[name].seed, graph.channels)
        result = reference.upscale_bytes(graph, small)
        assert models.digest(result) == table[name].sha256, (
            f"{name} has changed: python tools/checksums.py"
        )


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"exact": True}, ""),
        ({"exact": False, "off": 0.0005, "levels": 1}, ""),
        ({"exact": False, "off": 0.0005, "levels": 2}, "by up to 2 of 255"),
        ({"exact": False, "off": 0.5, "levels": 1}, "50.0% of the result's bytes"),
        ({"exact": False, "damaged": True}, "not the model"),
        ({"exact": False, "precision": "fp16", "psnr": 57.0}, ""),
        ({"exact": False, "precision": "fp16", "psnr": 31.0}, "31.0 dB"),
    ],
)
def test_a_model_is_right_or_wrong(facts: Facts, problem: str) -> None:
    usual: Facts = {"model": "m", "precision": "fp32", "damaged": False, "psnr": 60.0}
    section = models.judge({"m": Result(facts=usual | facts)})
    assert problem in (section.wrong[0].text if section.wrong else "")
    assert bool(problem) == bool(section.wrong)


# Speeds


def layers(seconds: float, modelled: float | None, planned: float) -> Result:
    row = {
        "layer": "3×3, 8 → 8",
        "shaders": ["conv3x3_half_1x12-fp16"],
        "dispatches": 1,
        "submissions": 1,
        "macs": 10**8,
        "seconds": seconds,
        "modelled": modelled,
        "planned": planned,
    }
    return Result(
        facts={
            "model": "live",
            "precision": "fp16",
            "height": 180,
            "width": 320,
            "rows": [row],
        }
    )


def test_layers_stand_beside_the_cost_model() -> None:
    section = speeds.judge(
        {"layers of live": layers(0.002, 0.0015, 0.01)}, {"name": "Mali-G610"}, 5.0
    )
    assert not section.wrong
    (line,) = [each.text for each in section.findings if "8 → 8" in each.text]
    assert line.split()[-3:] == ["2.00", "1.50", "50.0"]
    assert "RK3588" in texts(section)


def test_a_slow_layer_is_noted_and_one_that_may_time_out_is_wrong() -> None:
    results = {"layers of live": layers(0.1, 0.0015, 0.01)}
    section = speeds.judge(results, {"name": "Mali-G52"}, 0.5)
    assert "More than 2 times what the model says: 1 of" in texts(section)
    assert "Time-outs: the slowest layer takes 10 times" in section.wrong[0].text
    assert "upfrost tune" in (section.wrong[0].advice or "")


def test_a_device_without_a_model_is_said() -> None:
    results = {"layers of live": layers(0.1, None, 0.01)}
    section = speeds.judge(results, {"name": "Some GPU"}, None)
    assert "There is no cost model for Some GPU" in texts(section)
    assert not section.wrong


def test_a_small_layer_says_nothing_of_time_outs() -> None:
    """A submission alone takes many times what is planned for it."""
    results = {"layers of live": layers(0.0004, 0.0001, 0.00002)}
    section = speeds.judge(results, {"name": "Mali-G52"}, 0.5)
    assert not section.wrong
    assert "Time-outs" not in texts(section)


def test_a_board_of_the_model_has_it_beside_each_layer() -> None:
    graph = read_model(bundled_models()["live-x2-s-clean"])
    info = replace(device_info(), name="Mali-G52 r1")
    plan = make_plan(compile_graph(graph, info.family, "fp16"), *speeds.GPU_SIZE)
    labels = dict.fromkeys(each.label for each in plan.dispatches)
    rows = [speeds.row_of(plan, label, graph, info) for label in labels]
    assert all(row["modelled"] > 0 for row in rows)
    assert rows[0]["layer"] == "3×3, 1 → 8"
    unknown = speeds.row_of(plan, next(iter(labels)), graph, device_info())
    assert unknown["modelled"] is None
