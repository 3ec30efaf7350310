"""Devices: which there are, which one is taken, its memory, limits and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from upfrost.check.jobs import Facts, Job, Request, Results
from upfrost.check.report import Section

NAME, TITLE = "devices", "The device"
# What the kernels ask for, beyond what Vulkan 1.0 promises everywhere: docs/vulkan.md.
LEAST_WORKGROUP = 96
LEAST_BUFFER = 1 << 27


def jobs(request: Request) -> Mapping[str, Job]:
    """One that lists devices, and one that finds the chosen one's precisions."""
    # Here, since judging must do without Vulkan and its binding.
    from upfrost.gpu.binding import KP_VERSION
    from upfrost.gpu.device import choose_device, list_devices
    from upfrost.gpu.halfprecision import faster_precision

    info = choose_device(request.device)

    def what_there_is() -> Facts:
        return {
            "chosen": info.index,
            "kp": KP_VERSION,
            "devices": [
                asdict(each) | {"is_gpu": each.is_gpu} for each in list_devices()
            ],
            "job_seconds": info.endurance.job,
            "submission_seconds": info.endurance.submission
            if info.endurance.job
            else None,
        }

    def precisions() -> Facts:
        half = faster_precision(info) == "fp16" if info.is_gpu else info.has_float16
        return {"fp16": half}

    return {
        "the list of devices": Job(what_there_is),
        "half precision": Job(precisions),
    }


def chosen(results: Results) -> Mapping[str, Any] | None:
    """The facts of the device that is taken, None where there is none."""
    listed = results.get("the list of devices")
    if listed is None or listed.facts is None:
        return None
    found: Mapping[str, Any] = listed.facts["devices"][listed.facts["chosen"]]
    return found


def judge(results: Results, *, wanted: bool, mali: bool) -> Section:
    """`wanted` says that a device was asked for by name, `mali` that the kernel has a
    driver for a Mali."""
    section = Section(NAME, TITLE)
    info = chosen(results)
    for name, result in results.items():
        if result.failure:
            what = f"{name}: " if name else ""
            section.add("wrong", f"{what}{result.failure}")
    if info is None:
        return section
    listed = results["the list of devices"].facts or {}
    half = results.get("half precision")
    fp16 = bool(half and half.facts and half.facts["fp16"])
    section.facts.update(device=dict(info), fp16=fp16, all=listed["devices"])
    section.facts["kp"] = listed["kp"]
    section.facts["job_seconds"] = listed["job_seconds"]
    driver = info["driver_info"] or info["driver_version"]
    section.add(
        "good",
        f"{info['name']} (number {info['index']} of {len(listed['devices'])}), driver "
        f"{info['driver']}, {driver}, Vulkan {info['api_version']}",
    )
    _say_kind(section, info, wanted=wanted, mali=mali)
    _say_memory(section, info)
    if info["max_workgroup"] < LEAST_WORKGROUP or info["max_buffer_bytes"] < (
        LEAST_BUFFER
    ):
        section.add(
            "wrong",
            f"Limits are less than Vulkan promises: {info['max_workgroup']} "
            f"invocations, buffers of {info['max_buffer_bytes'] >> 20} MiB",
            "A newer driver may have larger ones",
        )
    else:
        section.add(
            "good",
            f"Limits: buffers of {info['max_buffer_bytes'] >> 20:,} MiB, workgroups of "
            f"{info['max_workgroup']:,}",
        )
    if fp16:
        section.add(
            "good",
            "Half precision: yes"
            + ("" if info["has_float16"] else ", though Vulkan's features do not say"),
        )
    elif half is not None and not half.failure:
        section.add(
            "note",
            "No half precision in this driver: single precision is used, which takes "
            "a GPU about twice the time",
        )
    if listed["job_seconds"] is not None:
        section.add(
            "good",
            f"The kernel's driver ends what takes {listed['job_seconds']:g} s; upfrost "
            f"asks for {listed['submission_seconds']:.2g} s at once at most",
        )
    return section


def _say_kind(
    section: Section, info: Mapping[str, Any], *, wanted: bool, mali: bool
) -> None:
    if info["is_gpu"] or wanted:
        return
    if mali:
        section.add(
            "wrong",
            "Vulkan shows no GPU, though the kernel drives a Mali",
            "'upfrost devices' says what is in the way; what follows is of the CPU",
        )
    else:
        section.add(
            "note", "No GPU: what follows is of the CPU, which is slow at this work"
        )


def _say_memory(section: Section, info: Mapping[str, Any]) -> None:
    visible = [kind for kind in info["memory_types"] if kind["host_visible"]]
    words = [
        ("cached" if kind["host_cached"] else "not cached")
        + (", coherent" if kind["host_coherent"] else ", to be flushed")
        for kind in visible
    ]
    text = (
        f"Memory: {info['heap_bytes'] / 2**30:.3g} GiB; what the CPU sees of it is "
        + "; ".join(dict.fromkeys(words))
    )
    if info["has_cached_memory"] or info["kind"] == "discrete":
        section.add("good", text)
    else:
        section.add(
            "note",
            text,
            "Reading results is slower without a cache; newer Mesa on newer kernels "
            "(6.19 and later) has cached memory for Mali",
        )
