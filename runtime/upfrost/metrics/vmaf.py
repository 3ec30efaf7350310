"""VMAF, PSNR and SSIM of a video against its original, by ffmpeg's libvmaf.

Z. Li et al., "Toward a practical perceptual video quality metric", 2016. The ffmpeg
that imageio-ffmpeg brings has libvmaf and its models; Debian's has not.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from upfrost.text import printable
from upfrost.video.ffmpeg import VideoError, last_error, probe, run_ffmpeg

_METRICS = {"vmaf": "vmaf", "psnr": "psnr_y", "ssim": "float_ssim"}


@dataclass(frozen=True)
class VideoQuality:
    """Values of each frame, and their means. PSNR is that of luma, in dB."""

    vmaf: tuple[float, ...]
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]

    def mean(self, metric: str) -> float:
        """The mean of vmaf, psnr or ssim over all frames."""
        values: tuple[float, ...] = getattr(self, metric)
        return sum(values) / len(values)

    def means(self) -> dict[str, float]:
        return {metric: self.mean(metric) for metric in _METRICS}


def measure_video(ffmpeg: str, original: Path, result: Path) -> VideoQuality:
    """Compare the videos frame by frame, in their order.

    A smaller result is enlarged by bicubic, as VMAF's authors do. Raises `VideoError`.
    """
    first, second = probe(ffmpeg, original), probe(ffmpeg, result)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        # Frames are paired by number: their times may differ by a container's rounding.
        paired = "settb=1/1000,setpts=N,format=yuv420p"
        graph = (
            f"[0:{second.video.index}]scale={first.width}:{first.height}:flags=bicubic,"
            f"{paired}[a];[1:{first.video.index}]{paired}[b];"
            f"[a][b]libvmaf=log_fmt=json:log_path={log.name}:n_threads=2"
            ":feature=name=psnr|name=float_ssim:shortest=1"
        )
        sources = ["-i", f"file:{result.resolve()}", "-i", f"file:{original.resolve()}"]
        found = run_ffmpeg(
            ffmpeg, [*sources, "-lavfi", graph, "-f", "null", "-"], folder=Path(folder)
        )
        if found.returncode or not log.exists():
            lines = found.stderr.decode(errors="replace").splitlines()
            missing = any("No such filter: 'libvmaf'" in line for line in lines)
            raise VideoError(
                "this ffmpeg has no libvmaf; pip install imageio-ffmpeg brings one"
                if missing
                else f"{printable(result)}: not measured: {last_error(lines)}"
            )
        frames = [frame["metrics"] for frame in json.loads(log.read_bytes())["frames"]]
    if not frames:
        raise VideoError(f"{printable(result)}: no frame to measure")
    return VideoQuality(
        **{
            name: tuple(float(frame[key]) for frame in frames)
            for name, key in _METRICS.items()
        }
    )
