"""What every bundled model gives for a small picture, for `upfrost check`.

    python tools/checksums.py

writes runtime/upfrost/check/checksums.json anew where a model has changed: of each a
picture's seed, and the SHA-256 of the reference's result for it. Of `SEEDS` pictures
that one is taken whose results stay furthest from where they would be rounded to
another byte; `margin` is how far, in steps of a byte.
"""

from __future__ import annotations

import json

import numpy as np

from upfrost.check.models import CHECKSUMS, digest, picture
from upfrost.network import reference
from upfrost.network.graph import Graph
from upfrost.network.modelfile import bundled_models, read_model

SEEDS = 1024


def margin(graph: Graph, seed: int) -> float:
    """How close a result comes to where it is rounded to another byte, in steps."""
    small = picture(seed, graph.channels)
    result = reference.run(graph, reference.from_bytes(graph, small))
    steps = 255 * result.astype(np.float64) / graph.value_range
    # Beyond black and white rounding changes nothing.
    turns = np.clip(np.floor(steps), 0, 254) + 0.5
    return float(np.abs(steps - turns).min())


def checksum(graph: Graph, seed: int) -> str:
    """The SHA-256 of the reference's result for a picture."""
    return digest(reference.upscale_bytes(graph, picture(seed, graph.channels)))


def main() -> None:
    kept = json.loads(CHECKSUMS.read_text(encoding="utf-8"))
    table = {}
    for name, path in bundled_models().items():
        graph = read_model(path)
        if name in kept and checksum(graph, kept[name]["seed"]) == kept[name]["sha256"]:
            table[name] = kept[name]
            continue
        best, seed = max((margin(graph, seed), seed) for seed in range(SEEDS))
        table[name] = {
            "seed": seed,
            "margin": float(f"{best:.2g}"),
            "sha256": checksum(graph, seed),
        }
        print(f"{name}: {best:.1e} of a step")
    CHECKSUMS.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
