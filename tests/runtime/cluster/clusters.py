"""Clusters for tests: workers in this process, with upscalers that need no device."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.clips import FFMPEG, GRAPH
from tests.runtime.fakes import FakeUpscaler
from upfrost.cluster import video
from upfrost.cluster.connection import Asked, Cluster
from upfrost.network.graph import Graph
from upfrost.network.modelfile import write_model
from upfrost.status import Status
from upfrost.video.ffmpeg import ffmpeg_version
from upfrost.video.upscale import VideoOptions, VideoRecord

# Dask's own warnings, and those of threads that end with the process.
IGNORED = [
    pytest.mark.filterwarnings("ignore:::distributed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    """The address of a scheduler with that many workers; all are threads."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        dashboard_address=None,
    ) as cluster:
        yield cluster.scheduler_address


class Fake(FakeUpscaler):
    """What a worker opens in place of a device."""

    def close(self) -> None:
        pass


def write_network(folder: Path, graph: Graph = GRAPH) -> Path:
    path = folder / "network.upf"
    write_model(path, graph)
    return path


def asked(model: Path, **others: Any) -> Asked:
    wanted: dict[str, Any] = {
        "model": model,
        "device": None,
        "precision": "auto",
        "tile": None,
        "memory": None,
        "halo": None,
        "ffmpeg": ffmpeg_version(FFMPEG),
        "mixed": False,
    }
    return Asked(**wanted | others)


def upscale(
    address: str,
    source: Path,
    target: Path,
    options: VideoOptions | None = None,
    graph: Graph = GRAPH,
) -> tuple[VideoRecord, str]:
    """Upscale a video on a cluster; the record, and what was said."""
    record = VideoRecord(str(source), str(target))
    said = io.StringIO()
    model = write_network(target.parent, graph)
    with Cluster(address, asked(model)) as cluster:
        status = Status(said)
        video.upscale_video(
            source, target, cluster, options or VideoOptions(), status, record
        )
    return record, said.getvalue()
