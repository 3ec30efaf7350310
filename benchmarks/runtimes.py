"""One runtime on one picture, in a process of its own, for `benchmarks.peers`.

usage: python -m benchmarks.runtimes RUNTIME FOLDER --threads N --started SECONDS
       --warm SECONDS

FOLDER holds the network in each runtime's form and the picture. The result goes there
too; times and memory are printed as one line of JSON. Nothing is imported before it is
needed: what a runtime loads is part of its first picture.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from upfrost.arrays import Bytes

Run = Callable[[Bytes], Bytes]

MOST_PICTURES = 50


@dataclass(frozen=True)
class Task:
    """A network in FOLDER, as model.upf, model.onnx and model.param with model.bin."""

    folder: Path
    threads: int
    value_range: float


@dataclass(frozen=True)
class Measurement:
    """What one process reports."""

    first: float  # seconds from the start of the process to the first result
    warm: list[float]  # seconds of each further picture, bytes to bytes
    peak: int  # bytes of memory, the driver's on a CPU included
    device: str


def upfrost_vulkan(task: Task, precision: Literal["fp16", "fp32"]) -> tuple[Run, str]:
    from upfrost import Upscaler

    upscale = Upscaler(task.folder / "model.upf", precision=precision)
    return upscale, upscale.device.name


def ncnn(task: Task, *, vulkan: bool, half: bool) -> tuple[Run, str]:
    import ncnn

    # Without a device ncnn would quietly take the CPU.
    if vulkan and not ncnn.get_gpu_count():
        sys.exit("ncnn finds no Vulkan device")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = vulkan
    net.opt.num_threads = task.threads
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, half)
    param = task.folder / "model.param"
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        sys.exit("ncnn refuses the model")
    (source,), (result,) = net.input_names(), net.output_names()
    factors = [task.value_range / 255] * 3

    def run(picture: Bytes) -> Bytes:
        height, width, _ = picture.shape
        pixels = ncnn.Mat.PixelType.PIXEL_RGB
        planes = ncnn.Mat.from_pixels(picture, pixels, width, height)
        planes.substract_mean_normalize([], factors)
        extractor = net.create_extractor()
        extractor.input(source, planes)
        status, output = extractor.extract(result)
        if status:
            sys.exit(f"ncnn cannot run the model: status {status}")
        return to_bytes(np.array(output), task.value_range)

    return run, ncnn.get_gpu_info(0).device_name() if vulkan else "CPU"


def onnx_runtime(task: Task) -> tuple[Run, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(
        task.folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    source = session.get_inputs()[0].name

    def run(picture: Bytes) -> Bytes:
        (output,) = session.run(None, {source: to_planes(picture, task.value_range)})
        return to_bytes(output[0], task.value_range)

    return run, "CPU"


def pytorch(task: Task) -> tuple[Run, str]:
    import torch
    from tests.torch_graph import TorchGraph

    from upfrost.network.modelfile import read_model

    torch.set_num_threads(task.threads)
    module = TorchGraph(read_model(task.folder / "model.upf")).eval()

    def run(picture: Bytes) -> Bytes:
        with torch.inference_mode():
            planes = torch.from_numpy(to_planes(picture, task.value_range))
            return to_bytes(module(planes)[0].numpy(), task.value_range)

    return run, "CPU"


def to_planes(picture: Bytes, value_range: float) -> npt.NDArray[np.float32]:
    """(H, W, C) bytes as (1, C, H, W) from 0 to the value range."""
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)
    return planes[None] * np.float32(value_range / 255)


def to_bytes(planes: npt.NDArray[np.float32], value_range: float) -> Bytes:
    """(C, H, W) as (H, W, C) bytes, halves rounded up as upfrost does it."""
    scaled = planes * np.float32(255 / value_range) + np.float32(0.5)
    rounded: Bytes = np.clip(scaled, 0, 255).astype(np.uint8)
    return rounded.transpose(1, 2, 0)


# Name → what makes it ready: a function of a picture, and the device's name.
RUNTIMES: Mapping[str, Callable[[Task], tuple[Run, str]]] = {
    "upfrost Vulkan fp32": lambda task: upfrost_vulkan(task, "fp32"),
    "upfrost Vulkan fp16": lambda task: upfrost_vulkan(task, "fp16"),
    "ncnn Vulkan fp32": lambda task: ncnn(task, vulkan=True, half=False),
    "ncnn Vulkan fp16": lambda task: ncnn(task, vulkan=True, half=True),
    "ncnn CPU": lambda task: ncnn(task, vulkan=False, half=False),
    "ONNX Runtime CPU": onnx_runtime,
    "torch CPU": pytorch,
}
REFERENCE = "torch CPU"


def peak_memory() -> int:
    """Bytes. Of this program alone: `ru_maxrss` remembers the one that started it."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--value-range", type=float, required=True)
    parser.add_argument("--started", type=float, required=True)
    parser.add_argument("--warm", type=float, required=True)
    chosen = parser.parse_args()
    picture = np.load(chosen.folder / "picture.npy")
    task = Task(chosen.folder, chosen.threads, chosen.value_range)
    run, device = RUNTIMES[chosen.runtime](task)
    result = run(picture)
    first = time.monotonic() - chosen.started
    warm: list[float] = []
    while sum(warm) < chosen.warm and len(warm) < MOST_PICTURES:
        before = time.monotonic()
        result = run(picture)
        warm.append(time.monotonic() - before)
    np.save(chosen.folder / "result.npy", result)
    print(json.dumps(asdict(Measurement(first, warm, peak_memory(), device))))


if __name__ == "__main__":
    main()
