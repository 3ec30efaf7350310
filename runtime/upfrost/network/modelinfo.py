"""What a model is, in figures and in its maker's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from upfrost.network import graph as graphs
from upfrost.network.modelfile import read_model

# What a model file's metadata carries (docs/format.md): name, decimals, unit.
METRICS = {
    "psnr_y": ("Y-PSNR", 2, " dB"),
    "ssim": ("SSIM", 4, ""),
    "vmaf": ("VMAF", 1, ""),
}


def rounded(means: Mapping[str, float]) -> dict[str, float]:
    """Means by their keys of `METRICS`, as metadata carries them."""
    return {key: round(mean, METRICS[key][1]) for key, mean in means.items()}


def in_words(key: str, value: object) -> str:
    """``Y-PSNR 37.02 dB``, or the key and the value as they are if it is no metric."""
    if key in METRICS and isinstance(value, int | float):
        name, decimals, unit = METRICS[key]
        return f"{name} {value:.{decimals}f}{unit}"
    return f"{key.replace('_', ' ')} {value}"


@dataclass(frozen=True)
class ModelInfo:
    """A weight file, described. What its metadata do not say is None."""

    name: str
    file: str
    file_bytes: int
    scale: int
    channels: int
    colour: str | None
    operations: int
    parameters: int
    weight_types: tuple[str, ...]
    macs_per_output_pixel: float
    receptive_field: tuple[int, int]  # height, width in pixels of the picture
    description: object
    licence: object
    attribution: object
    training_data: object
    source: object
    generator: object
    quality: object


def model_info(path: Path) -> ModelInfo:
    """Describe the weight file `path`. Raises `ModelFileError`."""
    graph = read_model(path)
    about = graph.metadata
    return ModelInfo(
        name=graph.name,
        file=str(path),
        file_bytes=path.stat().st_size,
        scale=graph.scale,
        channels=graph.channels,
        colour=graph.colour,
        operations=len(graph.nodes),
        parameters=graphs.parameter_count(graph),
        weight_types=tuple(sorted({str(t.dtype) for t in graph.tensors.values()})),
        macs_per_output_pixel=graphs.macs_per_output_pixel(graph),
        receptive_field=graphs.receptive_field(graph),
        description=about.get("description"),
        licence=about.get("licence"),
        attribution=about.get("attribution"),
        training_data=about.get("training_data"),
        source=about.get("source"),
        generator=about.get("generator"),
        quality=about.get("quality"),
    )


def quality_lines(info: ModelInfo) -> Iterator[str]:
    """``Set5: Y-PSNR 37.02 dB, SSIM 0.9580``, a line for each data set."""
    if not isinstance(info.quality, Mapping):
        return
    for data_set, metrics in info.quality.items():
        if isinstance(metrics, Mapping):
            parts = (in_words(str(key), value) for key, value in metrics.items())
            yield f"{data_set}: {', '.join(parts)}"
