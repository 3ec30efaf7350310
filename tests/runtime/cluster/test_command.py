"""The command with `--cluster`, on Dask's own processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("distributed")

from tests.runtime import clips
from tests.runtime.cluster import clusters
from upfrost.video.job import job_folder
from upfrost.video.upscale import VideoOptions

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from upfrost.cli import run; sys.exit(run())",
)
PRELOAD = Path(__file__).with_name("preload.py")


@contextmanager
def started(
    environment: dict[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's, which is ended with all that it started."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def processes(environment: dict[str, str], scheme: str, folder: Path) -> Iterator[str]:
    """The address of a scheduler with two workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"{scheme}://127.0.0.1:{port}"
    worker = (
        *("distributed.cli.dask_worker", address, "--no-dashboard", "--nthreads", "2"),
        *("--no-nanny", "--preload", f"{PRELOAD}", "--host", "127.0.0.1"),
    )
    with (
        started(
            environment,
            *("distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"),
            *("--dashboard-address", "127.0.0.1:0"),
        ),
        started(
            environment, *worker, "--name", "one", "--local-directory", f"{folder}/1"
        ),
        started(
            environment, *worker, "--name", "two", "--local-directory", f"{folder}/2"
        ) as second,
    ):
        environment["SECOND"] = f"{second.pid}"
        wait = "from distributed import Client; Client('{}').wait_for_workers(2)"
        subprocess.run(
            [sys.executable, "-c", wait.format(address)], env=environment, check=True
        )
        yield address


def tls(folder: Path) -> dict[str, str]:
    """Dask's settings, as docs/cluster.md has them, in the environment."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-subj", "/CN=upfrost", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    comm = "DASK_DISTRIBUTED__COMM__"
    settings = {
        f"{comm}REQUIRE_ENCRYPTION": "True",
        f"{comm}TLS__CA_FILE": f"{certificate}",
    }
    for who in ("SCHEDULER", "WORKER", "CLIENT"):
        settings[f"{comm}TLS__{who}__CERT"] = f"{certificate}"
        settings[f"{comm}TLS__{who}__KEY"] = f"{key}"
    return settings


def test_videos_and_pictures_go_by_tls_and_a_killed_worker_is_made_up_for(
    tmp_path: Path,
) -> None:
    clip = clips.make_clip(tmp_path / "clip.mp4", "-g", "17", seconds=3)
    segments = VideoOptions(segment=Fraction(1, 2))
    clips.upscale(clip, tmp_path / "single.mkv", segments)
    pixels = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = clusters.write_network(tmp_path)
    environment = os.environ | tls(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with processes(environment, "tls", tmp_path) as address:
        shared = ["-m", f"{model}", "--cluster", address]
        out = tmp_path / "out.mkv"
        with subprocess.Popen(
            [*COMMAND, "video", f"{clip}", f"{out}", "--segment", "0.5", *shared],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            while not list(job_folder(out).glob("*.mkv")) and client.poll() is None:
                time.sleep(0.02)
            os.kill(int(environment["SECOND"]), signal.SIGKILL)
            assert client.stderr is not None
            said = client.stderr.read()
        assert client.returncode == 0, said
        assert "2 workers: one (Pretender), two (Pretender)" in said
        assert out.read_bytes() == (tmp_path / "single.mkv").read_bytes()
        done = subprocess.run(
            [*COMMAND, "upscale", f"{tmp_path / 'a.png'}", *shared],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    large = np.asarray(Image.open(tmp_path / "a-x2.png"))
    assert (large == pixels.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_without_dask_it_says_what_brings_it(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    hidden = "import sys; sys.modules['distributed'] = None; "
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"{hidden}{COMMAND[2]}"),
            *("upscale", f"{tmp_path / 'a.png'}", "--cluster", "tcp://127.0.0.1:1"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'upfrost[cluster]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_dask_is_not_loaded_for_those_who_do_without() -> None:
    program = (
        "import sys; from upfrost.cli.main import main; import upfrost.cluster.video; "
        "import upfrost.cluster.pictures; main(['models']); "
        "print({'dask', 'distributed', 'tornado'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
