"""A server for tests, in this process, whose jobs are done without a device."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from tests.runtime import fakes
from upfrost.serve.app import Limits, make_app
from upfrost.serve.choices import CHOICES
from upfrost.serve.jobs import Store
from upfrost.serve.speeds import Speeds
from upfrost.serve.worker import Worker

FAKE_WORK = (sys.executable, str(Path(__file__).with_name("fake_work.py")))
HERE = "http://127.0.0.1:8080"


@dataclass
class Served:
    """A store with what works on it; `client` asks the application."""

    store: Store
    worker: Worker
    client: TestClient

    def send(self, content: bytes, **query: str) -> Any:
        """The job that an upload becomes."""
        answer = self.client.post("/api/jobs", params=query, content=content)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def wait(self, key: str, *states: str) -> Any:
        """The job, when it has come to one of these states."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job = self.client.get(f"/api/jobs/{key}").json()
            if job["state"] in states:
                return job
            time.sleep(0.02)
        raise AssertionError(f"{job} came to none of {states}")


@contextmanager
def served(
    folder: Path,
    *,
    works: bool = False,
    measures: bool = False,
    limits: Limits | None = None,
    token: str | None = None,
    most: int = 200,
) -> Iterator[Served]:
    """A server that does its jobs only if it `works`."""
    store = Store(folder, most)
    speeds = Speeds(folder / "speeds.json")
    if not measures:
        for choice in CHOICES:
            speeds.learn("Pretender", choice.model, 1e6)
    worker = Worker(store, speeds, command=FAKE_WORK)
    app = make_app(store, worker, speeds, limits=limits, token=token)
    client = TestClient(app, base_url=HERE, raise_server_exceptions=False)
    if works:
        worker.start()
    try:
        yield Served(store, worker, client)
    finally:
        if works:
            worker.stop()
        client.close()
        store.close()


def png(height: int = 6, width: int = 9, first: int = 200) -> bytes:
    file = io.BytesIO()
    Image.fromarray(fakes.picture(height, width, first)).save(file, "PNG")
    return file.getvalue()
