"""Frames through libplacebo, the renderer of mpv and others, by ffmpeg's filter of it.

imageio-ffmpeg's program has no such filter; Debian's has.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
WANTED = "ffmpeg with the filter libplacebo (Debian: ffmpeg)"


@functools.cache
def find_player() -> str | None:
    """$UPFROST_FFMPEG or the system's ffmpeg, whichever has the filter."""
    for name in (os.environ.get("UPFROST_FFMPEG"), "ffmpeg"):
        found = shutil.which(name) if name else None
        if found is None:
            continue
        listed = subprocess.run(
            [found, "-hide_banner", "-filters"], capture_output=True, check=False
        )
        if b" libplacebo " in listed.stdout:
            return found
    return None


def arguments(shader: Path | None, scale: int, *, upscaler: str = "bilinear") -> str:
    """The filter's, for frames enlarged by `scale`, bilinearly where no shader does.

    Without dithering, so that a frame's samples are what was computed, rounded.
    """
    text = f"libplacebo=w={scale}*iw:h={scale}*ih:upscaler={upscaler}:dithering=none"
    return f"{text}:custom_shader_path={shader}" if shader else text


def enlarge(
    player: str,
    frame: bytes,
    size: tuple[int, int],
    pixel_format: str,
    scale: int,
    shader: Path | None,
    *,
    full_range: bool = False,
    upscaler: str = "bilinear",
) -> bytes:
    """One raw frame of `size` (width, height), enlarged; the format stays.

    Raises `RuntimeError` with what the player complains of.
    """
    sample_range = "full" if full_range else "limited"
    enlarging = arguments(shader, scale, upscaler=upscaler)
    found = subprocess.run(
        [
            *(player, "-hide_banner", "-loglevel", "error", "-f", "rawvideo"),
            *("-pix_fmt", pixel_format, "-s", f"{size[0]}x{size[1]}", "-i", "-"),
            *("-init_hw_device", "vulkan", "-vf"),
            f"setparams=range={sample_range}:colorspace=bt709,hwupload,"
            f"{enlarging},hwdownload,format={pixel_format}",
            *("-f", "rawvideo", "-"),
        ],
        input=frame,
        capture_output=True,
        check=False,
    )
    if found.returncode or found.stderr:
        raise RuntimeError(f"{player}: {found.stderr.decode(errors='replace')}")
    return found.stdout


def enlarge_luma(
    player: str,
    luma: Samples,
    scale: int,
    shader: Path | None,
    *,
    full_range: bool = False,
    upscaler: str = "bilinear",
) -> Samples:
    """The luma (height, width) of a grey frame, enlarged.

    8 bits for uint8, 10 for uint16.
    """
    wide = luma.dtype == np.uint16
    chroma = np.full((2, *luma.shape), 512 if wide else 128, luma.dtype)
    frame = enlarge(
        player,
        luma.tobytes() + chroma.tobytes(),
        (luma.shape[1], luma.shape[0]),
        "yuv444p10le" if wide else "yuv444p",
        scale,
        shader,
        full_range=full_range,
        upscaler=upscaler,
    )
    height, width = scale * luma.shape[0], scale * luma.shape[1]
    count = height * width
    if wide:
        return np.frombuffer(frame, np.uint16, count).reshape(height, width)
    return np.frombuffer(frame, np.uint8, count).reshape(height, width)
