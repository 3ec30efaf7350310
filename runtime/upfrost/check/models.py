"""Every model that comes with upfrost, on a small picture, against what it should give.

`CHECKSUMS` has, of each model, a picture's seed and the SHA-256 of the reference's
result. Rounding of drivers differs, and so would their bytes: tools/checksums.py takes
pictures none of whose results lies close to where a byte turns into the next.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from upfrost.arrays import Bytes
from upfrost.check.jobs import Facts, Job, Request, Results, opened
from upfrost.check.kernels import precisions
from upfrost.check.report import Section
from upfrost.gpu.dispatches import Precision

NAME, TITLE = "models", "The models"
CHECKSUMS = Path(__file__).with_name("checksums.json")
SIDE = 16  # of a picture
# On lavapipe, by Mali's kernels and by the CPU's, it is 56 dB at least: differences of
# one level. Another driver's order of sums may cost a little.
LEAST_PSNR = 50.0
# Of the bytes may be off by one, where a driver's rounding is worse than expected.
MOST_OFF = 1e-3
QUICK = ("realtime-x4", "live-x2-xs-clean")


@dataclass(frozen=True)
class Expected:
    """The seed of a model's picture, and its result's SHA-256."""

    seed: int
    sha256: str


def expected() -> dict[str, Expected]:
    """By the model's name."""
    table = json.loads(CHECKSUMS.read_text(encoding="utf-8"))
    return {name: Expected(row["seed"], row["sha256"]) for name, row in table.items()}


def picture(seed: int, channels: int) -> Bytes:
    """Noise, (`SIDE`, `SIDE`, channels), the same for ever."""
    noise = hashlib.shake_128(str(seed).encode()).digest(SIDE * SIDE * channels)
    return np.frombuffer(noise, np.uint8).reshape(SIDE, SIDE, channels)


def digest(result: Bytes) -> str:
    """The SHA-256 of a picture's bytes."""
    return hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest()


def jobs(request: Request) -> Mapping[str, Job]:
    """One for each model and precision."""
    from upfrost.gpu.device import choose_device
    from upfrost.network.modelfile import bundled_models

    info = choose_device(request.device)
    computing = precisions(info, quick=request.quick)
    return {
        f"{name}, {precision}": Job(partial(_try, name, info.index, precision))
        for name in bundled_models()
        if not request.quick or name in QUICK
        for precision in computing
    }


def _try(name: str, device: int, precision: Precision) -> Facts:
    from upfrost.gpu.upscaler import Upscaler
    from upfrost.network import reference

    facts: Facts = {"model": name, "precision": precision}
    wanted = expected().get(name)
    if wanted is None:
        return facts | {"unknown": True}
    with Upscaler(name, device=device, precision=precision) as upscaler:
        graph = upscaler.graph
        small = picture(wanted.seed, graph.channels)
        found = upscaler(small)
    facts["exact"] = digest(found) == wanted.sha256
    if facts["exact"]:
        return facts
    right = reference.upscale_bytes(graph, small)
    facts["damaged"] = digest(right) != wanted.sha256
    apart = np.abs(found.astype(np.int16) - right)
    error = float(np.mean(np.square(apart.astype(np.float64))))
    return facts | {
        "off": float(np.mean(apart > 0)),
        "levels": int(apart.max()),
        "psnr": 10 * math.log10(255**2 / error) if error else None,
    }


def judge(results: Results) -> Section:
    """The section of the report, by what the jobs found."""
    section = Section(NAME, TITLE)
    opening, results = opened(results)
    if opening:
        section.add("wrong", opening)
    section.facts["models"] = {
        name: result.facts or {"failure": result.failure}
        for name, result in results.items()
    }
    exact: list[str] = []
    near: list[tuple[float, str]] = []
    for name, result in results.items():
        facts = result.facts
        problem = result.failure if facts is None else _problem(facts)
        if problem:
            section.add(
                "wrong",
                f"{name}: {problem}",
                "If a kernel is wrong, it is said above; a file that was damaged comes "
                "back when upfrost is installed again",
            )
        elif facts is not None and facts.get("unknown"):
            section.add("note", f"{name}: no checksum is stored")
        elif facts is not None and facts["precision"] == "fp16":
            psnr = facts.get("psnr") or math.inf
            near.append((psnr, facts["model"]))
        elif facts is not None:
            exact.append(facts["model"])
            if not facts["exact"]:
                section.add(
                    "note",
                    f"{name}: {facts['off']:.2%} of the bytes are off by one, which is "
                    "the driver's rounding",
                )
    if exact:
        section.add("good", f"fp32: {_models(exact)} as they should")
    if near:
        least, name = min(near)
        section.add(
            "good",
            f"fp16: {_models([name for _, name in near])} as they should, to "
            f"{least:.1f} dB ({name}) against single precision",
        )
    return section


def _models(names: list[str]) -> str:
    return f"{len(names)} models compute" if len(names) > 1 else f"{names[0]} computes"


def _problem(facts: Facts) -> str | None:
    if facts.get("unknown") or facts["exact"]:
        return None
    if facts["damaged"]:
        return "not the model that the checksum is of, even by NumPy"
    psnr = facts["psnr"]
    if facts["precision"] == "fp16":
        if psnr is not None and psnr < LEAST_PSNR:
            return f"{psnr:.1f} dB against single precision, {LEAST_PSNR:g} expected"
        return None
    if facts["levels"] > 1 or facts["off"] > MOST_OFF:
        return (
            f"{facts['off']:.1%} of the result's bytes are wrong, by up to "
            f"{facts['levels']} of 255"
        )
    return None
