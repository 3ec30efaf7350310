"""What happens to a picture before it is upscaled: scaling, blur, noise, compression.

Each degradation is a function of a uint8 picture, its strength drawn from a range; a
configuration lists them in the order in which they are applied:

    [[degrade]]
    kind = "blur"
    strength = [0.2, 1.2]

    [[degrade]]
    kind = "bicubic"

    [[degrade]]
    kind = "jpeg"
    strength = [40, 95]
    share = 0.8

Exactly one of them scales down; without any list it is MATLAB's bicubic alone. What
follows one another and is `shuffled` is applied in a random order, since noise,
sharpening and compression come in any (Zhang et al., "Designing a Practical Degradation
Model for Deep Blind Image Super-Resolution", 2021).
"""

import io
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upfrost.video.ffmpeg import find_ffmpeg
from upfrost_training.resize import KERNELS, Picture, shrink

Rng = np.random.Generator
# uint8 (N, H, W, 3)
Frames = NDArray[np.uint8]

# Scales by a kernel drawn from all of them.
ANY_KERNEL = "resample"
SCALERS = (*KERNELS, ANY_KERNEL)
# The least and the most of a strength, in the units of `Degradation`. JPEG and codecs
# know no others; of the rest, the most leaves little of a picture, or, of photons, all.
STRENGTHS: dict[str, tuple[float, float]] = {
    "blur": (0.0, 50.0),
    "motion": (0.0, 100.0),
    "sharpen": (0.0, 10.0),
    "gauss": (0.0, 255.0),
    "grain": (0.0, 255.0),
    "poisson": (0.001, 1000.0),
    "jpeg": (1.0, 95.0),
    "h264": (0.0, 51.0),
    "h265": (0.0, 51.0),
}


@dataclass(frozen=True)
class Degradation:
    """One step: what, how strongly (the range it is drawn from), and how often.

    Units of `strength`: blur, the Gaussian's sigma in pixels; gauss, the noise's sigma
    in 8-bit units; grain, likewise; poisson, photons at white divided by 255, so less
    is noisier; motion, the length of the path in pixels; sharpen, the share of the
    detail that is added; jpeg, Pillow's quality; h264 and h265, the constant rate
    factor.
    """

    kind: str
    strength: tuple[float, float] = (0.0, 0.0)
    # Share of pictures that it is applied to.
    share: float = 1.0
    # Whether it changes places at random with neighbours that are shuffled, too.
    shuffled: bool = False

    def __post_init__(self) -> None:
        known = ", ".join((*SCALERS, *STEPS, *CODECS))
        if self.kind not in (*SCALERS, *STEPS, *CODECS):
            raise ValueError(f"unknown degradation {self.kind!r}: use one of {known}")
        low, high = self.strength
        least, most = STRENGTHS.get(self.kind, (0.0, 0.0))
        if not least <= low <= high <= most:
            limits = f"[low, high], from {least:g} to {most:g}"
            if self.kind in SCALERS:
                limits = "left out"
            raise ValueError(
                f"{self.kind}: strength must be {limits}, not [{low:g}, {high:g}]"
            )
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"{self.kind}: share must be from 0 to 1")
        if self.kind in SCALERS and self.share != 1.0:
            raise ValueError(
                f"{self.kind}: every picture is scaled, so share must be 1"
            )


def check_degradations(steps: tuple[Degradation, ...]) -> None:
    """Raise ValueError unless exactly one step scales down."""
    count = sum(step.kind in SCALERS for step in steps)
    if count != 1:
        raise ValueError(
            f"{count} degradations scale down: have exactly one of {', '.join(SCALERS)}"
        )


def degrade(
    frames: Frames, scale: int, steps: tuple[Degradation, ...], rng: Rng
) -> Frames:
    """The low-resolution partners of frames (N, sH, sW, 3): (N, H, W, 3).

    All frames are degraded alike; a codec sees them as one piece of video. A picture
    is one frame.
    """
    check_degradations(steps)
    for step in ordered(steps, rng):
        # Drawn even when unused, so that one step's share moves no other's numbers.
        applied, strength = rng.random() < step.share, rng.uniform(*step.strength)
        if step.kind in SCALERS:
            drawn = step.kind == ANY_KERNEL
            kernel = str(rng.choice([*KERNELS])) if drawn else step.kind
            frames = np.stack([shrink(frame, scale, kernel) for frame in frames])
        elif applied and step.kind in CODECS:
            frames = compress_frames(frames, CODECS[step.kind], strength)
        elif applied:
            frames = np.stack([STEPS[step.kind](f, strength, rng) for f in frames])
    return frames


def ordered(steps: tuple[Degradation, ...], rng: Rng) -> list[Degradation]:
    """The steps with each run of shuffled ones in a random order."""
    result: list[Degradation] = []
    for shuffled, run in groupby(steps, key=lambda step: step.shuffled):
        members = list(run)
        numbers = rng.permutation(len(members)) if shuffled else range(len(members))
        result.extend(members[number] for number in numbers)
    return result


def _to_bytes(values: NDArray[np.float64]) -> Picture:
    return np.floor(np.clip(values, 0.0, 255.0) + 0.5).astype(np.uint8)


def _smoothed(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Values (H, W, C) after a Gaussian, separable, the edge pixel repeated."""
    radius = int(np.ceil(3.0 * sigma))
    if radius == 0:
        return values
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(values, pad, mode="edge")
        size = values.shape[axis]
        values = np.zeros_like(values)
        for i, weight in enumerate(taps):
            values += weight * np.take(padded, range(i, i + size), axis=axis)
    return values


def blur(picture: Picture, sigma: float, _: Rng) -> Picture:
    """Gaussian blur, as of optics out of focus."""
    return _to_bytes(_smoothed(picture.astype(np.float64), sigma))


def motion(picture: Picture, length: float, rng: Rng) -> Picture:
    """The mean along a straight path of random direction, as of a hand that moved."""
    count = int(np.ceil(length)) + 1
    angle = rng.uniform(0.0, np.pi)
    way = np.linspace(-0.5, 0.5, count) * length
    radius = int(np.ceil(length / 2.0)) + 1
    pad = ((radius, radius), (radius, radius), (0, 0))
    padded = np.pad(picture.astype(np.float64), pad, mode="edge")
    height, width = picture.shape[:2]
    total = np.zeros(picture.shape)
    for y, x in zip(way * np.sin(angle), way * np.cos(angle), strict=True):
        top, left = int(np.floor(y)), int(np.floor(x))
        for row, tall in ((top, 1.0 - (y - top)), (top + 1, y - top)):
            for column, wide in ((left, 1.0 - (x - left)), (left + 1, x - left)):
                r, c = radius + row, radius + column
                total += tall * wide * padded[r : r + height, c : c + width]
    return _to_bytes(total / count)


def sharpen(picture: Picture, amount: float, rng: Rng) -> Picture:
    """Unsharp masking of a random radius, as cameras and the web's scalers do."""
    values = picture.astype(np.float64)
    sigma = rng.uniform(0.5, 1.5)
    return _to_bytes(values + amount * (values - _smoothed(values, sigma)))


def grain(picture: Picture, sigma: float, rng: Rng) -> Picture:
    """Noise that a camera has demosaiced and smoothed: its neighbours are alike."""
    noise = rng.normal(0.0, 1.0, picture.shape)
    noise = _smoothed(noise, rng.uniform(0.4, 1.2))
    return _to_bytes(picture + noise * (sigma / noise.std()))


def gauss(picture: Picture, sigma: float, rng: Rng) -> Picture:
    """Noise that does not depend on the signal, as a sensor's electronics add."""
    return _to_bytes(picture + rng.normal(0.0, sigma, picture.shape))


def poisson(picture: Picture, photons: float, rng: Rng) -> Picture:
    """Noise of counted photons: its variance grows with the signal."""
    counts: NDArray[np.int64] = rng.poisson(picture * photons)
    return _to_bytes(counts / photons)


def jpeg(picture: Picture, quality: float, _: Rng) -> Picture:
    """JPEG with halved chroma, as cameras and the web use."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=round(quality))
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


STEPS: dict[str, Callable[[Picture, float, Rng], Picture]] = {
    "blur": blur,
    "motion": motion,
    "sharpen": sharpen,
    "gauss": gauss,
    "grain": grain,
    "poisson": poisson,
    "jpeg": jpeg,
}
CODECS = {"h264": "libx264", "h265": "libx265"}


def compress_frames(frames: Frames, codec: str, rate: float) -> Frames:
    """Frames (N, H, W, 3) after the video codec at a constant rate factor.

    4:2:0 and BT.601 as ffmpeg's default for RGB input; odd sides are padded by one
    and cut again. The mean stays: what swscale does by default darkens by a level, and
    a network that learns to undo that brightens every video.
    """
    exact = "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    height, width = frames.shape[1:3]
    padded = np.pad(
        frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge"
    )
    size = f"{padded.shape[2]}x{padded.shape[1]}"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24")
    quiet = (find_ffmpeg(), "-v", "error", "-nostdin", "-y", "-threads", "1")
    with tempfile.TemporaryDirectory() as folder:
        source, video = Path(folder, "frames.rgb"), Path(folder, "frames.mkv")
        source.write_bytes(padded.tobytes())
        encode = (*quiet, *raw, "-s", size, "-i", str(source), "-vf", exact)
        options = ("-c:v", codec, "-crf", f"{rate:.1f}", "-pix_fmt", "yuv420p")
        decode = (*quiet, "-i", str(video), "-vf", exact, *raw, "pipe:1")
        subprocess.run(
            (*encode, *options, str(video)), check=True, stderr=subprocess.DEVNULL
        )
        result = subprocess.run(decode, check=True, stdout=subprocess.PIPE)
    decoded = np.frombuffer(result.stdout, np.uint8).reshape(padded.shape)
    return decoded[:, :height, :width].copy()
