"""Turn a run into the weight file that ships, with what was measured in it."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from upfrost import Upscaler
from upfrost.network.modelfile import write_model
from upfrost.network.modelinfo import rounded
from upfrost_exporter import trace_module
from upfrost_training.config import Config
from upfrost_training.data import find_folder
from upfrost_training.evaluate import Upscale, evaluate_folder
from upfrost_training.loop import folded_network, upscaler
from upfrost_training.networks.plain import PLANES


def release(
    config: Config,
    folder: Path,
    data: list[Path],
    output: Path,
    say: Callable[[str], None],
    measure: str = "vulkan",
    *,
    overwrite: bool = False,
) -> None:
    """Write the EMA weights of the run in `folder` to `output`, when all is measured.

    Quality is measured on the configuration's report folders under `data`: with
    `measure` "vulkan" through a file of these weights, as a user runs it; with "torch"
    through the network, for machines without any Vulkan driver. A file at `output` is
    replaced if `overwrite` says so.
    """
    network = folded_network(folder)
    metadata: dict[str, Any] = {
        "description": config.description,
        "licence": config.licence,
        "training_data": list(config.training_data),
        "attribution": config.attribution,
        "source": f"training/configs/{config.name}.toml",
    }
    metadata = {key: value for key, value in metadata.items() if value}

    graph = trace_module(
        network,
        name=config.name,
        scale=config.scale,
        channels=PLANES[config.colour],
        metadata=metadata,
    )
    if config.colour == "luma":
        graph = replace(graph, colour="luma")
    # Not yet at `output`: measuring may fail.
    with tempfile.TemporaryDirectory() as unmeasured:
        file = Path(unmeasured, "unmeasured.upf")
        write_model(file, graph)
        if measure == "torch":
            upscale = upscaler(network, torch.device("cpu"))
            quality = _measure(config, data, upscale, say)
        else:
            with Upscaler(file) as vulkan:
                quality = _measure(config, data, vulkan, say)
    if quality:
        graph = replace(graph, metadata={**metadata, "quality": quality})
    write_model(output, graph, overwrite=overwrite)
    say(f"wrote {output}")


def _measure(
    config: Config, data: list[Path], upscale: Upscale, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Data set → metric → number, as the metadata carries them."""
    quality: dict[str, dict[str, float]] = {}
    for name in config.report:
        pairs_folder = find_folder(data, name)
        if pairs_folder is None:
            say(f"{name} is not under --data: its quality is not measured")
            continue
        measured = evaluate_folder(pairs_folder, upscale, config.scale, config.colour)
        quality[name.split("/")[0]] = rounded(
            {"psnr_y": measured.psnr, "ssim": measured.ssim}
        )
        say(f"{name}: Y-PSNR {measured.psnr:.3f} dB, SSIM {measured.ssim:.4f}")
    return quality
