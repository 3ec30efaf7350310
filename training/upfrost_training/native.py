"""Gradients of plain luma networks by native.cpp, two to four times as fast as torch.

Networks of 8 or 16 channels are too small for a library's general convolutions: what a
step costs is moving values about. native.cpp runs a crop through the whole network and
back while it is in the cache. It is compiled for this CPU when first used, by the C++
compiler that `torch.compile` needs too.
"""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upfrost_training.config import ConfigError
from upfrost_training.networks.folding import BranchedConv3x3
from upfrost_training.networks.plain import Plain

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math")
# Those of `pixel_loss` that native.cpp has, by its number.
LOSSES = {"l1": 0, "rmse": 1}
# (channels, scale) for which native.cpp is compiled. A narrower network is filled up
# with channels of zeros, which stay zeros.
SIZES = ((8, 2), (8, 3), (16, 2))
# Pixels of a row that are computed at once: a crop's side is a multiple.
TILE = 12

Crops = NDArray[np.uint8]
Numbers = NDArray[np.float32]


@cache
def library() -> ctypes.CDLL:
    """native.cpp, compiled. Raises ConfigError if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "native.so")
        command = [os.environ.get("CXX", "g++"), *FLAGS, "-std=c++17", "-shared"]
        command += ["-fPIC", str(SOURCE), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise ConfigError(
                f"native = true needs a C++ compiler, and there is no {command[0]}: "
                "install one, name it in CXX, or set native = false"
            ) from error
        except subprocess.CalledProcessError as error:
            raise ConfigError(
                f"{SOURCE.name} does not compile: {error.stderr.splitlines()[0]}; set "
                "native = false"
            ) from error
        loaded = ctypes.CDLL(str(target))
    loaded.upfrost_gradients.restype = ctypes.c_double
    return loaded


def filled(channels: int, scale: int) -> int:
    """The fewest channels of `SIZES` that hold these, or 0."""
    wide = (each for each, of in SIZES if of == scale and each >= channels)
    return min(wide, default=0)


def unsuitable(model: nn.Module, patch: int, losses: tuple[str, ...]) -> str:
    """Why native.cpp cannot train `model` on crops of this side, or nothing."""
    if not isinstance(model, Plain) or model.settings.colour != "luma":
        return "the network is not a plain one for luma"
    s = model.settings
    if s.activation != "prelu":
        return f"its activation is {s.activation}, not prelu"
    if s.skip != "bilinear" or s.unshuffle != 1:
        return "its skip is not bilinear, or its input is unshuffled"
    if not filled(s.channels, s.scale):
        known = ", ".join(f"{c} at x{scale}" for c, scale in SIZES)
        return f"{s.channels} channels at x{s.scale} fit none of {known}"
    if patch % TILE:
        return f"patch is {patch}, not a multiple of {TILE}"
    unknown = [loss for loss in losses if loss not in LOSSES]
    return f"the loss {unknown[0]} is none of {', '.join(LOSSES)}" if unknown else ""


class NativeGradients:
    """The gradient of `pixel_loss` by a plain luma network's folded parameters."""

    def __init__(self, model: Plain, threads: int) -> None:
        self.model = model
        self.layers = list(_layers(model))
        settings = model.settings
        self.channels = filled(settings.channels, settings.scale)
        self.missing = self.channels - settings.channels
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.run = library().upfrost_gradients

    def backward(self, lr: Crops, hr: Crops, loss: str) -> float:
        """Add to every parameter's `grad` as `loss.backward()` does; gives the loss.

        `lr` and `hr` are (B, P, P, 1) and (B, sP, sP, 1) uint8, `loss` one of `LOSSES`.
        """
        packed = self._packed()
        numbers: Numbers = np.ascontiguousarray(packed.detach().numpy())
        parts = np.array_split(np.arange(len(lr)), min(self.threads, len(lr)))
        share = 1.0 / len(lr)

        def part(rows: NDArray[np.int_]) -> tuple[float, Numbers]:
            first, last = int(rows[0]), int(rows[-1]) + 1
            return self._call(lr[first:last], hr[first:last], numbers, loss, share)

        results = list((self.pool.map if self.pool else map)(part, parts))
        # Summed in order, so that a run can be repeated.
        gradients = results[0][1]
        for _, more in results[1:]:
            gradients += more
        packed.backward(torch.from_numpy(gradients))  # type: ignore[no-untyped-call]
        return sum(value for value, _ in results)

    def _packed(self) -> Tensor:
        """Each layer's kernel [ky][kx][in][out], bias and slopes, as native.cpp has
        them: filled up to its channels, the last layer's outputs to vectors of four."""
        parts: list[Tensor] = []
        pad = nn.functional.pad
        for conv, slopes in self.layers:
            after = -conv.outputs % 4 if slopes is None else self.missing
            before = 0 if conv.inputs == 1 else self.missing
            kernel = conv.kernel().permute(2, 3, 1, 0)
            parts.append(pad(kernel, (0, after, 0, before)).flatten())
            parts.append(pad(conv.bias, (0, after)))
            if slopes is not None:
                parts.append(pad(slopes, (0, after)))
        return torch.cat(parts)

    def _call(
        self, lr: Crops, hr: Crops, numbers: Numbers, loss: str, share: float
    ) -> tuple[float, Numbers]:
        s = self.model.settings
        gradients = np.zeros_like(numbers)
        low, high = np.ascontiguousarray(lr), np.ascontiguousarray(hr)
        value = self.run(
            *(ctypes.c_void_p(a.ctypes.data) for a in (low, high)),
            *(len(low), low.shape[1], self.channels, s.scale, s.depth),
            *(ctypes.c_void_p(a.ctypes.data) for a in (numbers, gradients)),
            LOSSES[loss],
            ctypes.c_float(share),
        )
        return float(value), gradients


def _layers(model: Plain) -> Iterator[tuple[BranchedConv3x3, Tensor | None]]:
    """Each convolution with the slopes of the PReLU that follows it."""
    modules = [*model.body, None]
    for module, following in pairwise(modules):
        if isinstance(module, BranchedConv3x3):
            slopes = following.weight if isinstance(following, nn.PReLU) else None
            yield module, slopes
