"""Designs of networks for video, trained alike for a short while, over estimated time.

usage: python -m benchmarks.search --data FOLDER [--data FOLDER] [--steps 2000]
                                    [--panvk FOLDER] [DESIGN ...]

Each design begins anew and takes the same steps, on the same crops, as the first phase
of `live-x2-s` would: what differs is the network alone. Quality is the Y-PSNR of
crops of photographs that are held out, which is what no weights are chosen by but these
designs. A short training favours small networks; `benchmarks.frontier` has those that
were trained to the end. Time is by the cost model of docs/mali.md, in fp16. FOLDER of
--data holds what training/README.md says. A DESIGN is called as in the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.frontier import (
    SIZES,
    STREAMS,
    TRAINING,
    frontier,
    graph_of,
    label,
    milliseconds,
    parameters,
)
from benchmarks.mali_static import with_panvk
from benchmarks.report import Row, publish
from upfrost_training import loop
from upfrost_training.config import Config, read_config
from upfrost_training.data import Crop, Pairs, sample
from upfrost_training.native import unsuitable
from upfrost_training.networks import make_network
from upfrost_training.networks.plain import PlainSettings

_S = PlainSettings(colour="luma", channels=8, depth=4)
DESIGNS = (
    # Larger ones would say little after so few steps.
    *(replace(_S, channels=c, depth=d) for c, d in SIZES if c * c * d <= 16 * 16 * 4),
    replace(_S, activation="relu"),
    replace(_S, skip="nearest"),
    replace(_S, skip="none"),
    # About the time of `xs`, of `s` and of more. A picture of a fourth of the pixels
    # has room for more channels.
    *(
        replace(_S, channels=channels, depth=depth, unshuffle=2)
        for channels, depth in ((8, 2), (12, 4), (16, 2), (16, 4))
    ),
)


def config_of(design: PlainSettings, steps: int) -> Config:
    """The first phase of `live-x2-s` for another network, from nothing."""
    config = read_config(TRAINING / "configs" / "live-x2-s-clean.toml")
    config = replace(config, network=asdict(design), report=())
    reason = unsuitable(
        make_network(config.kind, config.network),
        config.data.patch,
        (config.train.loss, config.train.finish_loss),
    )
    return replace(
        config,
        name=label(design),
        data=replace(config.data, teacher="", patch=48),
        train=replace(
            config.train, steps=steps, warmup=100, start_from="", native=not reason
        ),
    )


def trained(config: Config, pairs: Pairs, crops: list[Crop]) -> float:
    """The Y-PSNR on held-out crops, in dB, after all steps."""
    s, device = config.train, torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:  # that has no run to go on from
        state = loop.start(config, Path(folder), device)
    state.model.train()
    if s.native:
        gradients = loop.native_gradients(state, s, config.data.patch)
    else:
        gradients = loop.torch_gradients(state, s, device)
    while state.step < s.steps:
        batch = sample(pairs, s.batch, s.seed, state.step)
        loop.train_step(state, gradients, batch, s)
    return loop.validate(state.ema.folded(), crops, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("designs", nargs="*", metavar="DESIGN")
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--steps", type=int, default=2000)
    arguments, panvk = with_panvk(parser, "search")
    named: Sequence[str] = arguments.designs
    if unknown := {*named} - {*map(label, DESIGNS)}:
        known = ", ".join(map(label, DESIGNS))
        sys.exit(f"search: there is no {', '.join(unknown)}; there are {known}")
    torch.set_num_threads(1)
    designs = [d for d in DESIGNS if not named or label(d) in named]
    pairs, crops = loop.load_data(
        config_of(designs[0], arguments.steps), arguments.data
    )
    rows: list[Row] = []
    for design in designs:
        graph = graph_of(design)
        times = {
            stream: milliseconds(panvk, gpu, graph, height, width)
            for stream, (gpu, height, width) in STREAMS.items()
        }
        quality = trained(config_of(design, arguments.steps), pairs, crops)
        print(f"{label(design)}: {quality:.3f} dB", file=sys.stderr)
        rows.append(
            {
                "network": label(design),
                "parameters": parameters(design),
                **times,
                "held out": f"{quality:.2f}",
            }
        )
    by = next(iter(STREAMS))
    rows.sort(key=lambda r: float(r[by] or 0))
    best = frontier([(float(r[by] or 0), float(r["held out"] or 0)) for r in rows])
    publish(
        "search",
        f"Designs of networks for video after {arguments.steps} steps, ×2",
        [
            {**r, "best": "yes" if (r[by], float(r["held out"] or 0)) in best else None}
            for r in rows
        ],
        [
            "network: input channels, width, inner 3×3 layers; PReLU and a bilinear "
            "skip unless said otherwise; unshuffled: squares of 2×2 pixels become "
            "channels first",
            "ms: by the cost model of docs/mali.md in fp16, not measured",
            "held out: Y-PSNR in dB on crops of photographs that are not trained on",
            f"best: none is better in as little time ({by.removesuffix(' ms')})",
        ],
    )


if __name__ == "__main__":
    main()
