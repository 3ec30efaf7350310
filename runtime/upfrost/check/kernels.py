"""Every kernel in use, against the NumPy reference, on the device at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from upfrost.check.jobs import OPENING, Facts, Job, Request, Result, Results
from upfrost.check.probes import HEIGHT, SEED, WIDTH, Probe, probes
from upfrost.check.report import Section
from upfrost.gpu.dispatches import Precision
from upfrost.network import reference

if TYPE_CHECKING:
    from upfrost.gpu.device import Device, DeviceInfo

NAME, TITLE = "kernels", "The kernels, against NumPy"
# Of the largest value. fp32: sums of a few hundred products differ by their order, and
# F(4,3), which CPU devices take, by twenty times that (docs/vulkan.md). fp16: values
# and weights have 11 bits, and errors of a hundred products add up.
TOLERANCE: Mapping[Precision, float] = {"fp32": 3e-5, "fp16": 1e-2}
# Of the samples, in levels of 255: what values off by that much may become.
LEVELS: Mapping[Precision, int] = {"fp32": 1, "fp16": 8}
# With --quick: a kernel of each kind, in the precision that is used.
QUICK = ("3×3 by", "bytes of the result", "chroma and luma")


def jobs(request: Request) -> Mapping[str, Job]:
    """One for each kernel and precision, named after both."""
    from upfrost.gpu.device import Device, choose_device

    info = choose_device(request.device)
    device = Device(info)
    return {
        f"{probe.name}, {precision}": partial(_try, device, probe, precision)
        for precision in precisions(info, quick=request.quick)
        for probe in probes(info.family, precision)
        if not request.quick or probe.name.startswith(QUICK)
    }


def precisions(info: DeviceInfo, *, quick: bool) -> Sequence[Precision]:
    """What the device computes in, the usual one first; with `quick` that alone."""
    from upfrost.gpu.halfprecision import faster_precision

    usual = faster_precision(info)
    if quick:
        return (usual,)
    if usual == "fp16":
        return ("fp16", "fp32")
    return ("fp32", "fp16") if info.has_float16 and not info.is_gpu else ("fp32",)


def _try(device: Device, probe: Probe, precision: Precision) -> Facts:
    """How far a probe's value and samples are from the reference's, and its kernels."""
    from upfrost.gpu.binding import DeviceLostError
    from upfrost.gpu.frame import FrameFormat
    from upfrost.gpu.plan import compile_graph, make_plan

    graph = probe.graph
    program = compile_graph(graph, probe.family, precision)
    kind = FrameFormat("420") if probe.of_frames else None
    plan = make_plan(program, HEIGHT, WIDTH, kind.chroma if kind else None)
    shaders = {each.shader for each in (*plan.setup, *plan.dispatches)}
    facts: Facts = {"precision": precision, "shaders": sorted(shaders)}
    rng = np.random.default_rng(SEED)
    try:
        loaded = device.load(plan, inspect=True)
        if kind is not None:
            # Chroma is enlarged from these; around the middle, so that nothing clips.
            planes = [
                rng.integers(60, 190, shape, dtype=np.uint8)
                for shape in kind.shapes(HEIGHT, WIDTH)
            ]
            found = loaded.run_planes(planes)
            bounds = kind.samples.low, kind.samples.high
            chroma = kind.chroma
            assert chroma is not None
            ratio, (across, down) = chroma.ratio[::-1], chroma.offset
            expected = [
                reference.upscale_luma(graph, planes[0], kind.bits, *bounds),
                *(
                    reference.upscale_chroma(
                        plane, graph.scale, ratio, (down / 2, across / 2), *bounds
                    )
                    for plane in planes[1:]
                ),
            ]
            levels = [_apart(a, b) for a, b in zip(found, expected, strict=True)]
            return facts | {"error": 0.0, "levels": max(levels)}
        shape = HEIGHT, WIDTH, graph.channels
        picture = rng.integers(0, 256, shape, dtype=np.uint8)
        values = reference.evaluate(graph, reference.from_bytes(graph, picture))
        # Twice: a second run finds what the first one left in the buffers.
        loaded.run(picture)
        result = loaded.run(picture)
        probed = loaded.value("probe")
        error = np.abs(probed - values["probe"]).max() / np.abs(values["probe"]).max()
        samples = reference.to_bytes(graph, values[graph.output])
        return facts | {
            # What is no number is as wrong as can be.
            "error": float(error) if np.isfinite(error) else 1e9,
            "levels": _apart(result, samples),
        }
    except DeviceLostError as error:
        # One that answers for nothing else: another probe may do well.
        return facts | {"lost": str(error)}


def _apart(found: Any, expected: Any) -> int:
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def judge(results: Results) -> Section:
    section = Section(NAME, TITLE)
    if OPENING in results:
        section.add("wrong", results[OPENING].failure)
        return section
    problems = {
        name: problem
        for name, result in results.items()
        if (problem := _problem(result)) is not None
    }
    shaders = {
        name: set(result.facts["shaders"])
        for name, result in results.items()
        if result.facts is not None
    }
    good = set().union(*(shaders[name] for name in results if name not in problems))
    section.facts["probes"] = {
        name: result.facts or {"failure": result.failure}
        for name, result in results.items()
    }
    for culprits, names in _culprits(problems, shaders, good):
        what = problems[names[0]]
        others = f" (and in {len(names) - 1} more)" if len(names) > 1 else ""
        who = " or ".join(culprits) or "its kernel"
        section.add(
            "wrong",
            f"{who} is wrong: {names[0]}: {what}{others}",
            "If the file was damaged, install upfrost again; otherwise it is the "
            "driver's compiler: attach upfrost-report.md to an issue",
        )
    for precision in TOLERANCE:
        done = [
            result.facts
            for name, result in results.items()
            if name not in problems
            and result.facts is not None
            and result.facts["precision"] == precision
        ]
        if done:
            kernels = set().union(*(facts["shaders"] for facts in done))
            worst = max(facts["error"] for facts in done)
            section.add(
                "good",
                f"{precision}: {len(kernels)} kernels compute what NumPy does, to "
                f"{worst:.0e} of the largest value",
            )
    return section


def _problem(result: Result) -> str | None:
    """What is wrong with a probe, None if nothing is."""
    facts = result.facts
    if facts is None:
        return result.failure
    if "lost" in facts:
        return str(facts["lost"])
    if facts["error"] > TOLERANCE[facts["precision"]]:
        return f"off by {facts['error']:.1e} of the largest value"
    if facts["levels"] > LEVELS[facts["precision"]]:
        return f"samples are off by {facts['levels']} of 255"
    return None


def _culprits(
    problems: Mapping[str, str], shaders: Mapping[str, set[str]], good: set[str]
) -> list[tuple[list[str], list[str]]]:
    """Kernels that would explain the problems, with the probes that each explains.

    A kernel that did well in another probe is none of them. Of the others that one is
    taken which is in most of the probes, and so on; several that are always together
    cannot be told apart.
    """
    left = list(problems)
    found: list[tuple[list[str], list[str]]] = []
    while left:
        suspects = {name: shaders.get(name, set()) - good for name in left}
        count = Counter(one for each in suspects.values() for one in each)
        if not count:
            return [*found, *(([], [name]) for name in left)]
        most = max(count.values())
        first = next(one for one in sorted(count) if count[one] == most)
        names = [name for name in left if first in suspects[name]]
        together = set.intersection(*(suspects[name] for name in names))
        found.append((sorted(together), names))
        left = [name for name in left if name not in names]
    return found
