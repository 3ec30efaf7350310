"""Pictures come back from a cluster as one machine makes them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("distributed")

from tests.runtime.clips import GRAPH
from tests.runtime.cluster import clusters
from tests.runtime.cluster.clusters import Fake, local_cluster
from upfrost.cluster import pictures, work
from upfrost.cluster.connection import Cluster
from upfrost.gpu.device import OutOfDeviceMemoryError
from upfrost.image import batch
from upfrost.image.images import MAX_PIXELS
from upfrost.status import Status

OPTIONS = batch.Options(quality=None, max_pixels=MAX_PIXELS, existing="refuse")

pytestmark = clusters.IGNORED


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster(2) as found:
        yield found


@pytest.fixture(autouse=True)
def without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "open_upscaler", lambda graph, _: Fake(graph))
    monkeypatch.setattr(work, "_machine", work._Machine())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several formats, one of which is damaged."""
    pixels = np.random.default_rng(4).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    found = tmp_path / "in"
    found.mkdir()
    for name in ("a.png", "b 100%.jpg", "c.webp", "d.tif"):
        Image.fromarray(pixels).save(found / name)
    (found / "e.png").write_bytes((found / "a.png").read_bytes()[:60])
    return found


def on_cluster(
    address: str, folder: Path, out: Path
) -> tuple[int, dict[str, batch.PictureRecord], str]:
    said = io.StringIO()
    records: list[batch.PictureRecord] = []
    plan = batch.plan_batch([str(folder)], f"{out}/", 2)
    model = clusters.write_network(folder.parent)
    with Cluster(address, clusters.asked(model, ffmpeg=None)) as cluster:
        failed = pictures.run_batch(
            plan, cluster, OPTIONS, Status(said), records.append
        )
    found = {Path(record.input).name: record for record in records}
    return failed, found, said.getvalue()


def test_results_are_those_of_one_machine(
    address: str, folder: Path, tmp_path: Path
) -> None:
    single = batch.plan_batch([str(folder)], f"{tmp_path / 'one'}/", 2)
    fake: Any = Fake(GRAPH)
    expected: list[batch.PictureRecord] = []
    batch.run_batch(single, fake, OPTIONS, Status(io.StringIO()), expected.append)
    failed, records, said = on_cluster(address, folder, tmp_path / "out")
    assert failed == 1
    assert "1 of 5 failed" in said
    for record in expected:
        found = records[Path(record.input).name]
        assert (found.status, found.input) == (record.status, record.input)
        assert found.error == record.error
        assert found.notes == record.notes
        assert (found.output_size, found.device) == (record.output_size, record.device)
        if record.status == "done":
            other = tmp_path / "out" / Path(record.output).name
            assert found.output == str(other)
            assert other.read_bytes() == Path(record.output).read_bytes()


def test_a_picture_too_large_for_one_device_goes_to_another(
    address: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[bool] = []

    class Small(Fake):
        def __call__(self, *arguments: Any) -> Any:
            if not failures:
                failures.append(True)
                raise OutOfDeviceMemoryError("the smallest tile does not fit")
            return super().__call__(*arguments)

    monkeypatch.setattr(work, "open_upscaler", lambda graph, _: Small(graph))
    (folder / "e.png").unlink()
    failed, records, said = on_cluster(address, folder, tmp_path / "out")
    assert not failed
    assert len(records) == 4
    assert "the smallest tile does not fit; what it had goes elsewhere" in said


def test_a_result_that_is_there_is_not_replaced(
    address: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a-x2.png").write_bytes(b"precious")
    failed, records, _ = on_cluster(address, folder, tmp_path / "out")
    assert failed == 2
    assert "exists already" in str(records["a.png"].error)
    assert (tmp_path / "out" / "a-x2.png").read_bytes() == b"precious"
