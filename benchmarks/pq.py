"""What a network for luma makes of PQ, beside what it makes of ordinary video.

usage: python -m benchmarks.pq [--data FOLDER] [--peak NITS] [-m MODEL…]

FOLDER holds pictures as Set5/x2/001_HR.png. Their luma is taken for light, its white
`--peak` cd/m², and coded by PQ (SMPTE ST 2084). The signal is halved by bicubic, as
streams of less size are made, and enlarged: as it is, as `upfrost video` does it, and
for comparison by way of the gamma of ordinary video and of linear light. PSNR is of the
PQ signal. A ramp shows whether levels stay what they are. Computed by the reference in
NumPy, so that no rounding of samples is in it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.report import Row, publish
from upfrost.network import reference
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model
from upfrost.video.live import live_models

Signal = npt.NDArray[np.float64]  # (H, W), 0 to 1
Change = Callable[[Signal], Signal]

LARGEST = 10_000.0  # cd/m², that PQ codes
GAMMA = 2.4  # BT.1886
# SMPTE ST 2084's constants.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
BORDER = 2  # pixels left out of the PSNR, the scale


def pq_of_light(light: Signal) -> Signal:
    """The signal for light in cd/m²."""
    power = (light.clip(0) / LARGEST) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def light_of_pq(signal: Signal) -> Signal:
    """Light in cd/m² of the signal."""
    power = signal.clip(0, 1) ** (1 / _M2)
    ratio = (power - _C1).clip(0) / (_C2 - _C3 * power)
    return np.asarray(LARGEST * ratio ** (1 / _M1))


def resized(signal: Signal, scale: float) -> Signal:
    """By bicubic, with antialiasing where it becomes smaller."""
    height, width = (round(extent * scale) for extent in signal.shape)
    image = Image.fromarray(signal.astype(np.float32))
    large = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large).astype(np.float64)


def enlarged(graph: Graph, signal: Signal) -> Signal:
    """A signal through the network, as luma of limited range."""
    samples = (16 + 219 * signal) / 255 * graph.value_range
    result = reference.run(graph, samples[None].astype(np.float32))[0]
    return np.asarray((result.astype(np.float64) / graph.value_range * 255 - 16) / 219)


def psnr(one: Signal, other: Signal) -> float:
    inside = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    error = np.mean((one[inside].clip(0, 1) - other[inside]) ** 2)
    return float(-10 * np.log10(error))


def ways(peak: float) -> dict[str, tuple[Change, Change]]:
    """From PQ to what the network is given, and back, by name."""
    return {
        "PQ as it is": (_same, _same),
        "by gamma": (
            lambda s: (light_of_pq(s) / peak).clip(0) ** (1 / GAMMA),
            lambda s: pq_of_light(peak * s.clip(0) ** GAMMA),
        ),
        "by linear light": (
            lambda s: light_of_pq(s) / peak,
            lambda s: pq_of_light(peak * s),
        ),
    }


def lights(folder: Path, peak: float) -> Iterator[Signal]:
    """Light of the pictures' luma, of even sides."""
    paths = sorted(folder.glob("x2/*_HR.png"))
    if not paths:
        sys.exit(f"pq: {folder} holds no x2/*_HR.png")
    for path in paths:
        grey = np.asarray(Image.open(path).convert("L")).astype(np.float64) / 255
        height, width = (extent // 2 * 2 for extent in grey.shape)
        yield peak * grey[:height, :width] ** GAMMA


def rows_of(graph: Graph, data: Path, peak: float) -> Iterator[Row]:
    """PSNR by set and signal, of bicubic and of the network."""
    for name in ("Set5", "Set14"):
        found = list(lights(data / name, peak))
        signals = [pq_of_light(light) for light in found]
        for signal, (give, take) in ways(peak).items():
            yield _row(graph, name, signal, signals, give, take)
        ordinary = [(light / peak) ** (1 / GAMMA) for light in found]
        yield _row(graph, name, "ordinary, not PQ", ordinary, _same, _same)


def _row(
    graph: Graph,
    pictures: str,
    signal: str,
    large: Sequence[Signal],
    give: Change,
    take: Change,
) -> Row:
    small = [give(resized(each, 0.5)) for each in large]
    bicubic, network = (
        float(
            np.mean(
                [
                    psnr(take(enlarge(one)), other)
                    for one, other in zip(small, large, strict=True)
                ]
            )
        )
        for enlarge in (partial(resized, scale=2), partial(enlarged, graph))
    )
    return {
        "model": graph.name,
        "pictures": pictures,
        "signal": signal,
        "bicubic dB": bicubic,
        "network dB": network,
        "gain dB": network - bicubic,
    }


def _same(signal: Signal) -> Signal:
    return signal


def ramp_row(graph: Graph, peak: float) -> Row:
    """How far a ramp of PQ, from black to the peak, is from the ramp that it was."""
    most = float(pq_of_light(np.array([[peak]]))[0, 0])
    places = np.arange(1024)
    large = np.tile(most * places / 1023, (16, 1))
    small = np.tile(most * (np.arange(512) * 2 + 0.5) / 1023, (8, 1))
    found = enlarged(graph, small)
    inside = np.s_[4:-4, 16:-16]
    error = 876 * (found - large)[inside]  # steps of 10 bits, limited range
    return {
        "model": graph.name,
        "largest error": float(np.abs(error).max()),
        "mean error": float(error.mean()),
        "rises everywhere": bool((np.diff(found[inside], axis=1) > 0).all()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("UPFROST_DATA"),
        metavar="FOLDER",
        help="with Set5 and Set14 (default: what UPFROST_DATA names)",
    )
    parser.add_argument("--peak", type=float, default=1000.0, help="white, in cd/m²")
    parser.add_argument("-m", "--model", nargs="+", default=list(live_models(2)))
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("pq: name the folder with Set5 and Set14: --data FOLDER")
    data = Path(arguments.data)
    graphs = [read_model(find_model(name)) for name in arguments.model]
    publish(
        "pq",
        f"Networks for luma on PQ, white at {arguments.peak:g} cd/m²",
        [row for graph in graphs for row in rows_of(graph, data, arguments.peak)],
        [
            "PSNR of the PQ signal, 0 to 1, but for the last row of each set, which is "
            f"of the same pictures by a gamma of {GAMMA:g}.",
            "The signal is halved by bicubic before it is changed.",
        ],
    )
    publish(
        "pq_ramp",
        f"A ramp of PQ up to {arguments.peak:g} cd/m² through networks for luma",
        [ramp_row(graph, arguments.peak) for graph in graphs],
        ["Errors in steps of 10 bits, away from the edges."],
    )


if __name__ == "__main__":
    main()
