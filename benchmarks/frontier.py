"""Quality over estimated time on Mali of networks for video: which sizes are worth it.

usage: python -m benchmarks.frontier [--panvk FOLDER]

Time is by the cost model of docs/mali.md, in fp16, and not measured; FOLDER as in
`benchmarks.mali_static`. Quality is that of the runs whose logs are in
training/results. A candidate without a run has a time only.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.mali_static import GPUS, Gpu, cost, with_panvk
from benchmarks.report import RESULTS, Row, publish
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network.graph import Graph
from upfrost_exporter import trace_module
from upfrost_training.config import Config, read_config
from upfrost_training.networks.plain import PLANES, Plain, PlainSettings

TRAINING = Path(__file__).parent.parent / "training"
G52, G610 = GPUS
# Streams as they come to a board: GPU, height, width.
STREAMS: dict[str, tuple[Gpu, int, int]] = {
    f"{gpu.board} {width}×{height} ms": (gpu, height, width)
    for gpu, height, width in (
        (G52, 360, 640),
        (G610, 540, 960),
        (G610, 1080, 1920),
    )
}
# Channels and inner layers.
SIZES = (
    *((4, 3), (8, 1), (8, 2), (8, 3), (8, 4), (8, 6)),
    *((12, 2), (12, 3), (12, 4), (12, 7)),
    *((16, 2), (16, 3), (16, 4), (16, 6), (16, 9), (16, 11)),
)
CANDIDATES = (
    *(
        PlainSettings(colour="luma", channels=channels, depth=depth)
        for channels, depth in SIZES
    ),
    # What another activation and RGB would cost or save.
    PlainSettings(colour="luma", channels=8, depth=4, activation="relu"),
    PlainSettings(colour="luma", channels=16, depth=4, activation="relu"),
    PlainSettings(colour="rgb", channels=16, depth=9),
)


@dataclass(frozen=True)
class Run:
    """The end of a training run: steps, and Y-PSNR in dB where it was logged."""

    name: str
    steps: int
    held_out: float
    set5: float
    set14: float


def label(s: PlainSettings) -> str:
    """Input channels, width and inner layers, as 1-8-4, and what is unusual."""
    words = [f"{PLANES[s.colour]}-{s.channels}-{s.depth}"]
    if s.scale != 2:
        words.append(f"×{s.scale}")
    if s.activation != "prelu":
        words.append(s.activation)
    if s.skip != "bilinear":
        words.append(f"{s.skip} skip" if s.skip != "none" else "no skip")
    if s.unshuffle != 1:
        words.append("unshuffled")
    return " ".join(words)


def graph_of(settings: PlainSettings) -> Graph:
    """The network as it would be exported, with untrained weights."""
    return trace_module(
        Plain(settings).folded(),
        name=label(settings).replace(" ", "-"),
        scale=settings.scale,
        channels=PLANES[settings.colour],
    )


def parameters(settings: PlainSettings) -> int:
    """Of the network as it runs."""
    return sum(p.numel() for p in Plain(settings).folded().parameters())


def milliseconds(panvk: Path, gpu: Gpu, graph: Graph, height: int, width: int) -> float:
    """A frame's estimated time, without submissions and copies."""
    plan = make_plan(compile_graph(graph, gpu.family, "fp16"), height, width)
    return 1e3 * sum(cost(panvk, dispatch, gpu).seconds for dispatch in plan.dispatches)


def clean_runs(training: Path) -> dict[PlainSettings, Run]:
    """The last row of each log of a plain network trained on clean bicubic pairs."""
    runs: dict[PlainSettings, Run] = {}
    for path in sorted((training / "configs").glob("*.toml")):
        config = read_config(path)
        log = training / "results" / f"{config.name}.csv"
        if config.kind != "plain" or not is_clean(config) or not log.is_file():
            continue
        with log.open(newline="", encoding="utf-8") as file:
            *_, last = csv.DictReader(file)
        set5, set14 = (float(last.get(f"{s}/x2") or "nan") for s in ("Set5", "Set14"))
        runs[PlainSettings(**config.network)] = Run(
            config.name, int(last["step"]), float(last["psnr"]), set5, set14
        )
    return runs


def is_clean(config: Config) -> bool:
    """Whether it is trained on what the field's figures are measured on."""
    return config.degrade == Config.degrade and config.scale == 2


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (time, quality) that none is better than in as little time, by time."""
    best: list[tuple[float, float]] = []
    for time, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or quality > best[-1][1]:
            best.append((time, quality))
    return best


def row(panvk: Path, settings: PlainSettings, run: Run | None) -> Row:
    graph = graph_of(settings)
    times = {
        stream: milliseconds(panvk, gpu, graph, height, width)
        for stream, (gpu, height, width) in STREAMS.items()
    }
    return {
        "network": label(settings),
        "parameters": parameters(settings),
        **times,
        "run": run.name if run else None,
        "steps": run.steps if run else None,
        "Set5": f"{run.set5:.2f}" if run else None,
        "Set14": f"{run.set14:.2f}" if run else None,
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Set14's PSNR over time, for each stream; the frontier as a line."""
    figure, panels = plt.subplots(1, len(STREAMS), sharey=True, figsize=(9, 4))
    for panel, stream in zip(panels, STREAMS, strict=True):
        trained = [r for r in rows if r["run"]]
        points = [(float(r[stream] or 0), float(r["Set14"] or 0)) for r in trained]
        for (time, quality), r in zip(points, trained, strict=True):
            panel.plot(time, quality, "o", color="#0072b2")
            panel.annotate(
                str(r["network"]),
                (time, quality),
                textcoords="offset points",
                xytext=(4, -10),
            )
        panel.plot(*zip(*frontier(points), strict=True), color="#0072b2")
        panel.set_xscale("log")
        panel.set_xlabel(stream)
    panels[0].set_ylabel("Set14, Y-PSNR in dB")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _, panvk = with_panvk(parser, "frontier")
    runs = clean_runs(TRAINING)
    candidates = dict.fromkeys([*CANDIDATES, *runs])
    rows = [row(panvk, settings, runs.get(settings)) for settings in candidates]
    publish(
        "frontier",
        "Networks for video: estimated time and quality, ×2",
        sorted(rows, key=lambda r: float(r[next(iter(STREAMS))] or 0)),
        [
            "network: input channels, width, inner 3×3 layers; PReLU unless said "
            "otherwise; bilinear skip",
            "ms: by the cost model of docs/mali.md in fp16, not measured; submissions "
            "and copies are not in it",
            "run: of training/configs, on clean bicubic pairs; Y-PSNR in dB as its log "
            "has it, in fp32",
        ],
    )
    if runs:
        draw(rows, RESULTS / "frontier.svg")


if __name__ == "__main__":
    main()
