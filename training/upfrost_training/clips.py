"""Runs of frames out of video files, for training on what streams look like."""

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upfrost.video.ffmpeg import find_ffmpeg
from upfrost_training.data import DataError
from upfrost_training.degradations import Frames

# Scene changes are looked for in thumbnails of this size.
THUMB_WIDTH, THUMB_HEIGHT = 32, 18
# Mean difference of successive thumbnails, in 8-bit units: above is a cut, not motion.
CUT = 18.0


def _decode(path: Path, filters: str, pixels: str) -> list[NDArray[np.uint8]]:
    """All frames, (H, W) with `pixels` "gray" or (H, W, 3) with "rgb24"."""
    command = [find_ffmpeg(), "-v", "error", "-nostdin", "-threads", "1"]
    command += ["-i", str(path), "-map", "0:v:0", "-vf", filters, "-fps_mode"]
    # Portable pixmaps say their own size, so ffmpeg need not be asked for it.
    command += ["passthrough", "-pix_fmt", pixels, "-f", "image2pipe", "-c:v"]
    command += ["pgm" if pixels == "gray" else "ppm", "pipe:1"]
    try:
        data = subprocess.run(command, check=True, capture_output=True).stdout
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(
            f"{path}: cannot be read as a video ({reason[-1] if reason else 'ffmpeg'})"
        ) from error
    return _split_pixmaps(data)


def _split_pixmaps(data: bytes) -> list[NDArray[np.uint8]]:
    frames: list[NDArray[np.uint8]] = []
    at = 0
    while at < len(data):
        # ffmpeg writes "P6\nWIDTH HEIGHT\n255\n" (P5 when grey) and the bytes.
        kind, size, depth = data[at : at + 64].split(b"\n", 3)[:3]
        at += len(kind) + len(size) + len(depth) + 3
        width, height = (int(number) for number in size.split())
        shape = (height, width) if kind == b"P5" else (height, width, 3)
        count = int(np.prod(shape))
        frames.append(np.frombuffer(data, np.uint8, count, at).reshape(shape))
        at += count
    return frames


def scene_starts(thumbnails: NDArray[np.uint8]) -> list[int]:
    """Numbers of the frames that begin a scene, from thumbnails (N, h, w)."""
    steps = np.abs(np.diff(thumbnails.astype(np.int16), axis=0)).mean(axis=(1, 2))
    return [0, *(int(i) + 1 for i in np.flatnonzero(steps > CUT))]


def choose_runs(
    starts: list[int], frames: int, length: int, count: int
) -> list[tuple[int, int]]:
    """First and last frame of at most `count` runs of `length`, spread evenly.

    A run begins at the start or in the middle of a scene and does not leave it.
    """
    ends = [*starts[1:], frames]
    runs = [
        (first, first + length - 1)
        for start, end in zip(starts, ends, strict=True)
        for first in sorted({start, (start + end) // 2})
        if first + length <= end
    ]
    keep = np.linspace(0, len(runs) - 1, min(count, len(runs))).round().astype(int)
    return [runs[i] for i in keep]


def _any_of(terms: list[str]) -> str:
    """The sum of ffmpeg terms as a tree: a chain of a hundred is too deep for it."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_any_of(terms[:half])}+{_any_of(terms[half:])})"


def read_runs(path: Path, length: int, count: int, shrink_by: int = 1) -> list[Frames]:
    """Runs (length, H, W, 3) of a video, scaled down by `shrink_by` (area).

    Scaling down removes what the file's own compression left. Raises DataError when
    the file cannot be read or has no scene of `length` frames.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video")
    small = _decode(path, f"scale={THUMB_WIDTH}:{THUMB_HEIGHT}:flags=area", "gray")
    runs = choose_runs(scene_starts(np.stack(small)), len(small), length, count)
    if not runs:
        raise DataError(f"{path}: no scene of {length} frames")
    chosen = _any_of([f"between(n,{first},{last})" for first, last in runs])
    scale = f"scale=iw/{shrink_by}:ih/{shrink_by}:flags=area"
    frames = _decode(path, f"select='{chosen}',{scale}", "rgb24")
    return [
        np.stack(frames[i : i + length]) for i in range(0, len(runs) * length, length)
    ]
