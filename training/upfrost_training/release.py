"""Turn a run into the weight file that ships, with what was measured in it."""

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
) -> None:
    """Write the EMA weights of the run in `folder` to `output`.

    Quality is measured on the configuration's report folders under `data`: with
    `measure` "vulkan" through the file itself, as a user runs it; with "torch" through
    the network, for machines without any Vulkan driver.
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

    def write() -> None:
        graph = trace_module(
            network,
            name=config.name,
            scale=config.scale,
            channels=PLANES[config.colour],
            metadata=metadata,
        )
        if config.colour == "luma":
            graph = replace(graph, colour="luma")
        write_model(output, graph)

    write()
    if measure == "torch":
        quality = _measure(config, data, upscaler(network, torch.device("cpu")), say)
    else:
        with Upscaler(output) as vulkan:
            quality = _measure(config, data, vulkan, say)
    if quality:
        metadata["quality"] = quality
        write()
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
