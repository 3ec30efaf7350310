"""How fast: copies, a submission, the layers of models, frames a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from upfrost.check.jobs import Facts, Job, Request, Results, opened
from upfrost.check.report import Section
from upfrost.gpu.convolutions import layer_key
from upfrost.gpu.costs import BOARDS, board_of, dispatch_seconds
from upfrost.gpu.dispatches import Dispatch, Precision
from upfrost.gpu.plan import Plan, compile_graph, make_plan, submissions
from upfrost.network.graph import Conv2d, Graph
from upfrost.network.modelfile import find_model, read_model

if TYPE_CHECKING:
    from upfrost.gpu.device import DeviceInfo

NAME, TITLE = "speeds", "How fast it is"
COPIED = 8 << 20  # bytes, more than caches hold of boards
SMALL_WORDS = 64
MANY = 64  # dispatches of a submission, to tell their cost from the submission's
HEIGHT, WIDTH = 360, 640  # of a frame
GPU_SIZE, CPU_SIZE = (180, 320), (90, 160)  # of a picture whose layers are measured
LIVE = ("live-x2-xs", "live-x2-s", "live-x2-m", "live-x2-l")
# Narrow and wide layers, for luma and for RGB.
LAYERED = ("live-x2-s", "realtime-x4", "cascade-x2")
ROUNDS = 9
LAYER_SECONDS, FRAMES_SECONDS = 0.3, 2.0  # of each, at most
MOST_FRAMES = 60
# Beyond this the model is wrong, or the device slower than it should be.
SLOW = 2.0
# Seconds: less is a submission's or a cache's affair, and no driver ends it.
LEAST_PLANNED = 1e-3
_COLUMN = 44  # of a layer's name on the page


def jobs(request: Request) -> Mapping[str, Job]:
    """Copies, a submission, some models' layers one by one, and frames of live ones."""
    from upfrost.gpu.device import choose_device
    from upfrost.gpu.halfprecision import faster_precision

    info = choose_device(request.device)
    precision = faster_precision(info)
    # Wide layers only where a model says how long they should take.
    usual = LAYERED if board_of(info.name) else LAYERED[:2]
    layered = LAYERED[:1] if request.quick else usual
    live = LIVE[:1] if request.quick else LIVE
    return {
        "copies": Job(partial(_copies, info)),
        "a submission": Job(partial(_submission, info)),
        **{
            f"layers of {name}": Job(partial(_layers, info, name, precision))
            for name in layered
        },
        **{
            f"frames of {name}": Job(partial(_frames, info, name, precision))
            for name in live
        },
    }


def _copies(info: DeviceInfo) -> Facts:
    """Bytes a second from and to memory that the device sees, and that it does not."""
    from upfrost.check.bench import Bench, median_seconds
    from upfrost.gpu.binding import kp

    bench = Bench(info)
    words = COPIED // 4
    given = bench.tensor(words, kp.TensorTypes.host)
    result = bench.tensor(words, kp.TensorTypes.host_cached)
    to_device, from_device = given.data(), result.data()
    own = np.ones(words, np.uint32)
    other = np.empty_like(own)

    def rate(target: Any, source: Any) -> float:
        return COPIED / median_seconds(lambda: np.copyto(target, source), ROUNDS, 1.0)

    return {
        "to": rate(to_device, own),
        "from": rate(own, from_device),
        "own": rate(other, own),
        "cached": result.is_cached(),
        "coherent": result.is_coherent(),
    }


def _submission(info: DeviceInfo) -> Facts:
    """Seconds of a submission that does next to nothing, and of a dispatch in one."""
    from upfrost.check.bench import Bench, median_seconds

    bench = Bench(info)
    one, many = (bench.sequence(SMALL_WORDS, count) for count in (1, MANY))
    for each in (one, many):
        each.eval()
    alone = median_seconds(one.eval, 200, 1.0)
    together = median_seconds(many.eval, 50, 1.0)
    return {
        "submission": alone,
        "dispatch": max(together - alone, 0.0) / (MANY - 1),
    }


def _layers(info: DeviceInfo, name: str, precision: Precision) -> Facts:
    """Seconds of each shape of layer in a model, beside those of the cost model."""
    from upfrost.check.bench import median_seconds
    from upfrost.gpu.device import Device
    from upfrost.gpu.tuning import tuned_family

    graph = read_model(find_model(name))
    family = tuned_family(info, precision)
    size = GPU_SIZE if info.is_gpu else CPU_SIZE
    plan = make_plan(compile_graph(graph, family, precision), *size)
    device = Device(info)
    loaded = device.load(plan)
    picture = np.zeros((*size, graph.channels), np.uint8)
    loaded.run(picture)
    rows: dict[str, Facts] = {}
    for label in dict.fromkeys(each.label for each in plan.dispatches):
        row = row_of(plan, label, graph, info)
        key = f"{row['layer']} {row['shaders']}"
        if key not in rows:
            layer = loaded.layer(label)
            layer()
            row["seconds"] = median_seconds(layer, ROUNDS, LAYER_SECONDS)
            rows[key] = row
    loaded.run(picture)  # a device that was lost meanwhile took no time at all
    device.close()
    return {
        "model": name,
        "precision": precision,
        "board": board_of(info.name),
        "height": size[0],
        "width": size[1],
        "rows": list(rows.values()),
    }


def row_of(plan: Plan, label: str, graph: Graph, info: DeviceInfo) -> Facts:
    """What is known of a layer before it is measured."""
    numbers = [n for n, each in enumerate(plan.dispatches) if each.label == label]
    dispatches = [plan.dispatches[n] for n in numbers]
    estimate = [plan.dispatch_seconds[n] for n in numbers]
    node = next((each for each in graph.nodes if each.name == label), None)
    return {
        "layer": layer_key(node, graph.tensors[node.weight].shape)
        if isinstance(node, Conv2d)
        else "picture"
        if node is None
        else node.op,
        "shaders": sorted({each.shader for each in dispatches}),
        "dispatches": len(dispatches),
        "submissions": len(submissions(estimate, info.endurance.submission)),
        "macs": sum(each.macs for each in dispatches),
        "planned": sum(estimate),
        "modelled": _modelled(info.name, dispatches),
    }


def _modelled(device: str, dispatches: list[Dispatch]) -> float | None:
    """Seconds by the model of docs/mali.md, None where it has no figures."""
    board = board_of(device)
    if board is None:
        return None
    seconds = [dispatch_seconds(board, each) for each in dispatches]
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def _frames(info: DeviceInfo, name: str, precision: Precision) -> Facts:
    """Seconds of a frame of `HEIGHT` × `WIDTH` in planes of 8 bits, copies included."""
    from upfrost.gpu.frame import Frame, FrameFormat
    from upfrost.gpu.upscaler import Upscaler

    kind = FrameFormat("420")
    frame = Frame.empty(kind, HEIGHT, WIDTH)
    for plane in frame.planes:
        plane[...] = 100
    # With a tile's side a frame does not go in bands, whose copies would lie beside the
    # work: what is compared with the model is one after the other.
    side = max(HEIGHT, WIDTH)
    with Upscaler(name, device=info.index, precision=precision, tile=side) as upscaler:
        result = upscaler.frame(frame)
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < MOST_FRAMES:
            start = time.perf_counter()
            upscaler.frame(frame, into=result)
            seconds.append(time.perf_counter() - start)
            if time.perf_counter() - began > FRAMES_SECONDS:
                break
        plan = upscaler.loaded_plan
        tiles = len(upscaler.tiles(HEIGHT, WIDTH, side, kind))
        scale = upscaler.graph.scale
    assert plan is not None
    estimate = submissions(plan.dispatch_seconds, info.endurance.submission)
    modelled = _modelled(info.name, list(plan.dispatches))
    return {
        "model": name,
        "precision": precision,
        "height": HEIGHT,
        "width": WIDTH,
        "scale": scale,
        "frames": len(seconds),
        "seconds": statistics.median(seconds),
        "submissions": tiles * len(estimate),
        "modelled": None if modelled is None else tiles * modelled,
        "bytes": kind.frame_bytes(HEIGHT, WIDTH)
        + kind.frame_bytes(result.height, result.width),
    }


def judge(results: Results, device: Mapping[str, Any], job: float | None) -> Section:
    """`device` are the facts of the device, `job` how long its kernel driver waits."""
    section = Section(NAME, TITLE)
    opening, results = opened(results)
    if opening:
        section.add("wrong", opening)
    for name, result in results.items():
        if result.facts is None:
            section.add("wrong", f"{name}: {result.failure}")
            continue
        facts = result.facts
        if name == "copies":
            section.facts["copies"] = facts
            _say_copies(section, facts)
        elif name == "a submission":
            section.facts["submission"] = facts
            section.add(
                "figure",
                f"A submission takes {_time(facts['submission'])}, each dispatch in it "
                f"{_time(facts['dispatch'])}",
            )
        elif "rows" in facts:
            section.facts.setdefault("layers", [])
            _list(section, "layers").append(facts)
        else:
            _list(section, "frames").append(facts)
    submission = results.get("a submission")
    alone = submission.facts["submission"] if submission and submission.facts else 0.0
    _say_layers(section, device["name"], job, alone)
    _say_frames(section)
    return section


def _list(section: Section, name: str) -> list[Facts]:
    found = section.facts.setdefault(name, [])
    assert isinstance(found, list)
    return found


def _say_copies(section: Section, facts: Facts) -> None:
    cached = "cached" if facts["cached"] else "not cached"
    section.add(
        "figure",
        f"Copies: {_rate(facts['to'])} to memory that the device sees, "
        f"{_rate(facts['from'])} from it ({cached}); {_rate(facts['own'])} within the "
        "CPU's own",
    )


def _say_layers(
    section: Section, device: str, job: float | None, submission: float
) -> None:
    models = _list(section, "layers")
    if not models:
        return
    board = board_of(device)
    if board is None:
        section.add(
            "note", f"There is no cost model for {device}; it has {', '.join(BOARDS)}"
        )
    else:
        section.add(
            "note",
            f"'model' is docs/mali.md's for {board}, its GPU at "
            f"{BOARDS[board].clock / 1e9:g} GHz; computed, before anybody had a board",
        )
    section.add(
        "figure", f"{'layer, kernel':{_COLUMN}} {'ms':>7} {'model':>7} {'GMAC/s':>6}"
    )
    slow, longest = [], 0.0
    for model in models:
        size = f"{model['width']}×{model['height']}"
        section.add("figure", f"{model['model']}, {model['precision']}, {size}")
        for row in model["rows"]:
            section.add("figure", _layer_line(row))
            if row["modelled"] and row["seconds"] > SLOW * row["modelled"]:
                slow.append(row)
            if row["planned"] >= LEAST_PLANNED:
                took = row["seconds"] - row["submissions"] * submission
                longest = max(longest, took / row["planned"])
    if slow:
        section.add(
            "note",
            f"More than {SLOW:g} times what the model says: {len(slow)} of the layers",
            "Attach upfrost-report.json to an issue: it makes the model true. Heat and "
            "the clock's governor (devfreq) make a GPU slow, too",
        )
    if job is not None and longest:
        # A submission is planned to take a third of the driver's limit at most.
        safe = longest < 3
        section.add(
            "good" if safe else "wrong",
            f"Time-outs: the slowest layer takes {longest:.2g} times what is planned "
            f"for it; three times would reach the {job:g} s of the kernel's driver",
            None if safe else "'upfrost tune' measures the device, and plans by that",
        )


def _layer_line(row: Facts) -> str:
    seconds, modelled = row["seconds"], row["modelled"]
    what = f"  {row['layer']}, {_kernels(row['shaders'])}"
    model = f"{1e3 * modelled:.2f}" if modelled is not None else "–"
    rate = f"{row['macs'] / seconds / 1e9:.1f}" if row["macs"] else "–"
    return f"{what[:_COLUMN]:{_COLUMN}} {1e3 * seconds:7.2f} {model:>7} {rate:>6}"


def _kernels(shaders: list[str]) -> str:
    names = [shader.rsplit("-", 1)[0] for shader in shaders]
    # Winograd's method has three, of which the middle one multiplies.
    return next((each for each in names if "products" in each), names[0])


def _say_frames(section: Section) -> None:
    for facts in _list(section, "frames"):
        modelled = facts["modelled"]
        model = "" if modelled is None else f"; the model says {1 / modelled:.0f}"
        section.add(
            "figure",
            f"{facts['model']}, {facts['precision']}: {1 / facts['seconds']:.1f} "
            f"frames/s of {facts['width']}×{facts['height']}, "
            f"×{facts['scale']}{model}",
        )


def _rate(bytes_per_second: float) -> str:
    gigabytes = bytes_per_second / 1e9
    if gigabytes >= 1:
        return f"{gigabytes:.1f} GB/s"
    return f"{1e3 * gigabytes:.0f} MB/s"


def _time(seconds: float) -> str:
    if seconds >= 1e-3:
        return f"{1e3 * seconds:.1f} ms"
    return f"{1e6 * seconds:.0f} µs"
