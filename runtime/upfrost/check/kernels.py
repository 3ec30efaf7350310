"""Every kernel in use, against the NumPy reference, on the device at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from upfrost.arrays import Bytes
from upfrost.check.jobs import Facts, Job, Request, Result, Results, opened
from upfrost.check.probes import HEIGHT, SEED, WIDTH, Probe, probes
from upfrost.check.report import Section
from upfrost.gpu.dispatches import Dispatch, Precision
from upfrost.gpu.frame import FrameFormat, Samples
from upfrost.gpu.plan import Plan, compile_graph, for_rgb, make_plan
from upfrost.network import reference
from upfrost.network.graph import Graph

if TYPE_CHECKING:
    from upfrost.gpu.device import Device, DeviceInfo

NAME, TITLE = "kernels", "The kernels, against NumPy"
FRAME = FrameFormat("420")
# Of the largest value. fp32: sums of a few hundred products differ by their order, and
# F(4,3), which CPU devices take, by twenty times that (docs/vulkan.md). fp16: values
# and weights have 11 bits, and errors of a hundred products add up.
TOLERANCE: Mapping[Precision, float] = {"fp32": 3e-5, "fp16": 1e-2}
# Of the samples, in levels of 255: what values off by that much may become.
LEVELS: Mapping[Precision, int] = {"fp32": 1, "fp16": 8}
# With --quick: a kernel of each kind, in the precision that is used.
QUICK = ("3×3", "1×1 by", "bytes of the result", "chroma and luma")


def jobs(request: Request) -> Mapping[str, Job]:
    """One for each kernel and precision, named after both."""
    from upfrost.gpu.device import Device, choose_device

    info = choose_device(request.device)
    device = Device(info)
    found = {}
    for precision in precisions(info, quick=request.quick):
        for probe in probes(info.family, precision):
            if request.quick and not probe.name.startswith(QUICK):
                continue
            plan = plan_of(probe, precision)
            found[f"{probe.name}, {precision}"] = Job(
                partial(_try, device, probe, plan),
                {"precision": precision, **about(plan)},
            )
    return found


def plan_of(probe: Probe, precision: Precision) -> Plan:
    program = compile_graph(probe.graph, probe.family, precision)
    if probe.of == "photographs":
        program = for_rgb(program)
    chroma = FRAME.chroma if probe.of == "frames" else None
    return make_plan(program, HEIGHT, WIDTH, chroma)


def about(plan: Plan) -> Facts:
    """A plan's kernels as they are specialized, and those before the probe's value."""
    labels = [each.label for each in plan.dispatches]
    until = len(labels) - labels[::-1].index("probe") if "probe" in labels else 0
    return {
        "kernels": _specialized((*plan.setup, *plan.dispatches)),
        "before": _specialized(plan.dispatches[:until]),
    }


def _specialized(dispatches: Sequence[Dispatch]) -> list[str]:
    """``pack-fp32(3 1132396544 2)``: a shader and its specialization constants."""
    return sorted(
        {f"{each.shader}({' '.join(map(str, each.constants))})" for each in dispatches}
    )


def shader(kernel: str) -> str:
    return kernel.partition("(")[0]


def precisions(info: DeviceInfo, *, quick: bool) -> Sequence[Precision]:
    """What the device computes in, the usual one first; with `quick` that alone."""
    from upfrost.gpu.halfprecision import faster_precision

    usual = faster_precision(info)
    if quick:
        return (usual,)
    if usual == "fp16":
        return ("fp16", "fp32")
    return ("fp32", "fp16") if info.has_float16 and not info.is_gpu else ("fp32",)


def _try(device: Device, probe: Probe, plan: Plan) -> Facts:
    """How far a probe's value and samples are from the reference's."""
    from upfrost.gpu.binding import NotComputedError

    graph = probe.graph
    rng = np.random.default_rng(SEED)
    loaded = device.load(plan, inspect=True)
    if probe.of == "photographs":
        picture = rng.integers(60, 190, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        wanted = reference.upscale_rgb_by_luma(graph, picture)
        return {"error": 0.0, "levels": _apart(loaded.run(picture), wanted)}
    if probe.of == "frames":
        # Around the middle, so that nothing clips.
        planes = [
            rng.integers(60, 190, shape, dtype=np.uint8)
            for shape in FRAME.shapes(HEIGHT, WIDTH)
        ]
        found = loaded.run_planes(planes)
        expected = _expected_frame(graph, planes)
        levels = [_apart(a, b) for a, b in zip(found, expected, strict=True)]
        return {"error": 0.0, "levels": max(levels)}
    shape = HEIGHT, WIDTH, graph.channels
    picture = rng.integers(0, 256, shape, dtype=np.uint8)
    values = reference.evaluate(graph, reference.from_bytes(graph, picture))
    samples = reference.to_bytes(graph, values[graph.output])
    facts: Facts = {}
    try:
        # Twice: a second run finds what the first one left in the buffers.
        loaded.run(picture)
        facts["levels"] = _apart(loaded.run(picture), samples)
    except NotComputedError as error:
        # The last kernel alone answers for that: the value may be right.
        facts["lost"] = str(error)
    apart = np.abs(loaded.value("probe") - values["probe"]).max()
    off = float(apart / np.abs(values["probe"]).max())
    # What is no number is as wrong as can be.
    return facts | {"error": off if np.isfinite(off) else 1e9}


def _expected_frame(graph: Graph, planes: Sequence[Bytes]) -> list[Samples]:
    """The planes of the reference's result."""
    bounds = FRAME.samples.low, FRAME.samples.high
    chroma = FRAME.chroma
    assert chroma is not None
    offset = chroma.offset[1] / 2, chroma.offset[0] / 2  # as the result's
    luma = reference.upscale_luma(graph, planes[0], FRAME.bits, *bounds)
    return [
        luma,
        *(
            reference.upscale_chroma(
                plane,
                graph.scale,
                chroma.ratio[::-1],
                offset,
                offset,
                *bounds,
            )
            for plane in planes[1:]
        ),
    ]


def _apart(found: Samples, expected: Samples) -> int:
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def judge(results: Results) -> Section:
    """The section of the report, by what the jobs found."""
    section = Section(NAME, TITLE)
    opening, results = opened(results)
    if opening:
        section.add("wrong", opening)
    problems = {
        name: problem
        for name, result in results.items()
        if (problem := _problem(result)) is not None
    }
    right: set[str] = set()
    for name, result in results.items():
        if name not in problems:
            right.update(result.about["kernels"])
        elif _is_value_right(result):
            right.update(result.about["before"])
    suspects = {name: _suspects(results[name], right) for name in problems}
    section.facts["probes"] = {
        name: result.about | (result.facts or {"failure": result.failure})
        for name, result in results.items()
    }
    for culprits, names in _culprits(suspects, {shader(kernel) for kernel in right}):
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
            result
            for name, result in results.items()
            if name not in problems and result.about["precision"] == precision
        ]
        if done:
            kernels = {
                shader(kernel) for result in done for kernel in result.about["kernels"]
            }
            worst = max(result.facts["error"] for result in done if result.facts)
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
    precision = result.about["precision"]
    if facts["error"] > TOLERANCE[precision]:
        return f"off by {facts['error']:.1e} of the largest value"
    if "lost" in facts:
        return str(facts["lost"])
    if facts["levels"] > LEVELS[precision]:
        return f"samples are off by {facts['levels']} of 255"
    return None


def _is_value_right(result: Result) -> bool:
    facts = result.facts
    within = TOLERANCE[result.about["precision"]]
    return facts is not None and facts["error"] <= within


def _suspects(result: Result, right: set[str]) -> set[str]:
    """Shaders that may be why a probe has a problem: the one that it names, or all but
    those that were right elsewhere, specialized as here."""
    kernels = set(result.about.get("kernels", ()))
    shaders = {shader(each) for each in kernels}
    named = {each for each in shaders if f"({each}:" in result.failure}
    return named or {shader(each) for each in kernels - right}


def _culprits(
    suspects: Mapping[str, set[str]], right: set[str]
) -> list[tuple[list[str], list[str]]]:
    """Shaders that would explain the problems, with the probes that each explains.

    The one that is suspected in most of the probes is taken first, and so on. Of those
    that are suspected in the same ones, it is such as nobody has seen to be right.
    """
    left = list(suspects)
    found: list[tuple[list[str], list[str]]] = []
    while left:
        count = Counter(one for name in left for one in suspects[name])
        if not count:
            return [*found, *(([], [name]) for name in left)]
        first = min(count, key=lambda one: (-count[one], one in right, one))
        names = [name for name in left if first in suspects[name]]
        together = set.intersection(*(suspects[name] for name in names))
        worse = [one for one in together if (one in right) == (first in right)]
        found.append((sorted(worse), names))
        left = [name for name in left if name not in names]
    return found
