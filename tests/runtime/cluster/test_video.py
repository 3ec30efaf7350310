"""A cluster's file is a single machine's, byte for byte, whatever goes wrong."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from tests.runtime import clips
from tests.runtime.clips import make_clip
from tests.runtime.cluster import clusters
from tests.runtime.cluster.clusters import Fake, local_cluster, upscale
from upfrost.cluster import connection, dispatch, work
from upfrost.cluster.connection import Cluster, ClusterError
from upfrost.gpu.device import DeviceLostError
from upfrost.video.ffmpeg import VideoError
from upfrost.video.job import job_folder
from upfrost.video.upscale import VideoOptions

# Six segments of 12 frames, with key frames elsewhere.
OPTIONS = VideoOptions(segment=Fraction(1, 2))
FRAMES = 72

pytestmark = clusters.IGNORED


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster(3) as found:
        yield found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return make_clip(folder / "clip.mp4", "-g", "17", seconds=3)


@pytest.fixture(scope="module")
def single(clip: Path) -> bytes:
    """What one machine makes of the clip."""
    target = clip.with_name("single.mkv")
    clips.upscale(clip, target, OPTIONS)
    return target.read_bytes()


@pytest.fixture(autouse=True)
def without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "open_upscaler", lambda graph, _: Fake(graph))
    monkeypatch.setattr(work, "_machine", work._Machine())


def spoil(monkeypatch: pytest.MonkeyPatch, change: Any, times: int = 1) -> list[object]:
    """Have so many segments come back changed; the list of those that did."""
    make, spoiled, lock = work._make_segment, list[object](), threading.Lock()

    def made(token: str, order: work.SegmentOrder, *others: Any) -> Any:
        with lock:
            is_spoiled = len(spoiled) < times and order.compared_from is not None
            if is_spoiled:
                spoiled.append(order.times)
        result = make(token, order, *others)
        return change(result) if is_spoiled else result

    monkeypatch.setattr(work, "_make_segment", made)
    return spoiled


def test_the_file_is_that_of_one_machine(
    address: str, clip: Path, single: bytes, tmp_path: Path
) -> None:
    record, said = upscale(address, clip, tmp_path / "out.mkv", OPTIONS)
    assert (tmp_path / "out.mkv").read_bytes() == single
    assert record.frames == FRAMES
    assert record.workers is not None
    assert sum(entry["done"] for entry in record.workers.values()) == FRAMES
    assert "frames/s" in said
    assert not job_folder(tmp_path / "out.mkv").exists()


def test_what_cannot_be_cut_is_decoded_here(address: str, tmp_path: Path) -> None:
    """Frames of 10 bits, as planes, in a file whose key frames are none."""
    clip = make_clip(
        *(tmp_path / "clip.mp4", "-g", "15", "-x264-params", "intra-refresh=1"),
        *("-pix_fmt", "yuv420p10le"),
        seconds=2,
    )
    clips.upscale(clip, tmp_path / "single.mp4", OPTIONS, Fake(clips.LUMA))
    out = tmp_path / "out.mp4"
    record, _ = upscale(address, clip, out, OPTIONS, graph=clips.LUMA)
    assert record.path == "luma, 4:2:0 of 10 bits"
    assert any("frames are decoded here" in note for note in record.notes)
    assert out.read_bytes() == (tmp_path / "single.mp4").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda made: replace(made, data=made.data[:-1] + bytes([made.data[-1] ^ 1])),
        # As if its decoder were broken.
        lambda made: replace(made, lead=tuple((t, c ^ 1) for t, c in made.lead)),
        lambda _: work.Unlike("11 frames in place of 12"),
    ],
    ids=["checksum", "decoding", "unlike"],
)
def test_a_wrong_segment_is_made_elsewhere(
    address: str,
    clip: Path,
    single: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
) -> None:
    spoiled = spoil(monkeypatch, change)
    record, said = upscale(address, clip, tmp_path / "out.mkv", OPTIONS)
    assert spoiled
    assert "goes elsewhere" in said
    assert (tmp_path / "out.mkv").read_bytes() == single
    assert not any("decoded here" in note for note in record.notes)


def test_a_lost_device_costs_its_segment(
    address: str,
    clip: Path,
    single: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(_: Any) -> Any:
        raise DeviceLostError("the device did not compute")

    assert not spoil(monkeypatch, lose)
    _, said = upscale(address, clip, tmp_path / "out.mkv", OPTIONS)
    assert "the device did not compute; what it had goes elsewhere" in said
    assert (tmp_path / "out.mkv").read_bytes() == single


def test_a_run_goes_on_whoever_began_it(
    address: str, clip: Path, single: bytes, tmp_path: Path
) -> None:
    """A cluster goes on with what one machine began; settings are the same."""
    target = tmp_path / "out.mkv"

    class Ending(Fake):
        frames = 0

        def start(self, picture: Any) -> Any:
            self.frames += 1
            if self.frames > 40:
                raise DeviceLostError("it ended")
            return super().start(picture)

    with pytest.raises(DeviceLostError):
        clips.upscale(clip, target, OPTIONS, Ending(clips.GRAPH))
    record, _ = upscale(address, clip, target, replace(OPTIONS, resume=True))
    assert record.resumed_frames
    assert target.read_bytes() == single


def test_workers_that_differ_are_refused_by_name(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(100))

    def opened(graph: Any, _: Any) -> Fake:
        fake = Fake(graph)
        fake.precision = "fp32" if next(count) % 2 else "fp16"
        return fake

    class Forgetful(work._Machine):
        def _open(self, wanted: Any) -> Any:
            self._opened = None
            return super()._open(wanted)

    monkeypatch.setattr(work, "open_upscaler", opened)
    monkeypatch.setattr(work, "_machine", Forgetful())
    model = clusters.write_network(tmp_path)
    with pytest.raises(ClusterError, match=r"mixed \(fp(16|32).*: .*; fp.*--mixed"):
        Cluster(address, clusters.asked(model)).__enter__()
    with Cluster(address, clusters.asked(model, mixed=True)) as cluster:
        assert cluster.fleet.precision == "several"


def test_who_comes_later_is_refused_by_name_or_was_gone_again(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(graph: Any, _: Any) -> Fake:
        fake = Fake(graph)
        fake.precision = "fp32"
        return fake

    model = clusters.write_network(tmp_path)
    with Cluster(address, clusters.asked(model)) as cluster:
        found = cluster.met[0].address
        monkeypatch.setattr(work, "open_upscaler", opened)
        monkeypatch.setattr(work, "_machine", work._Machine())
        with pytest.raises(ClusterError, match=r"^[012] is unlike the others \(fp32"):
            cluster.run(cluster.connection.greet(found))
        assert cluster.run(cluster.connection.greet("tcp://127.0.0.1:1")) is None


def test_another_version_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "__version__", "99")
    model = clusters.write_network(tmp_path)
    with pytest.raises(ClusterError, match="has upfrost 99"):
        Cluster(address, clusters.asked(model)).__enter__()


def test_no_scheduler_and_no_workers_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT", 1.0)
    model = clusters.write_network(tmp_path)
    with pytest.raises(ClusterError, match="no scheduler answers"):
        Cluster("tcp://127.0.0.1:1", clusters.asked(model)).__enter__()
    with pytest.raises(ClusterError, match="settings name the certificates"):
        Cluster("tls://127.0.0.1:1", clusters.asked(model)).__enter__()
    nobody = pytest.raises(ClusterError, match="has no workers; 'dask worker")
    with local_cluster(0) as empty, nobody:
        Cluster(empty, clusters.asked(model)).__enter__()


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.0 400 Bad request\r\n\r\n"], ids=["nothing", "words"]
)
def test_a_server_of_another_kind_is_no_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(connection, "CONNECT", 1.0)
    ended = threading.Event()

    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(greeting)
            ended.wait(30)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.server_address[1]}"
        model = clusters.write_network(tmp_path)
        with pytest.raises(ClusterError, match=r"as one|during handshake"):
            Cluster(address, clusters.asked(model)).__enter__()
        ended.set()
        server.shutdown()


def test_a_worker_that_dask_has_paused_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT", 1.0)
    model = clusters.write_network(tmp_path)

    def pause(dask_scheduler: Any) -> None:
        for worker in dask_scheduler.workers.values():
            dask_scheduler.handle_worker_status_change("paused", worker, "a test")

    with local_cluster(1) as paused:
        from distributed import Client

        with Client(paused, set_as_default=False) as client:
            client.run_on_scheduler(pause)
        refused = pytest.raises(ClusterError, match=r"Dask has paused it.*memory-l")
        with refused, Cluster(paused, clusters.asked(model)):
            pass


def test_what_nobody_waits_for_is_forgotten_some_time() -> None:
    for number in range(5000):
        work.cancel(f"{number}")
    assert "4999" in work._machine.cancelled
    assert len(work._machine.cancelled) < 5000


def test_the_end_of_the_scheduler_leaves_what_is_done(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "POLL", 0.05)
    target = tmp_path / "out.mkv"
    with local_cluster(1) as address:
        workers = connection.Connection.workers

        async def until_done(self: connection.Connection) -> list[str]:
            if len(list(job_folder(target).glob("*.mkv"))) > 1:
                raise self._ended()
            return await workers(self)

        monkeypatch.setattr(connection.Connection, "workers", until_done)
        with pytest.raises(ClusterError, match="scheduler has ended"):
            upscale(address, clip, target, OPTIONS)
        monkeypatch.setattr(connection.Connection, "workers", workers)
        assert job_folder(target).exists()
        with pytest.raises(VideoError, match="--resume goes on"):
            upscale(address, clip, target, OPTIONS)


def test_an_address_that_others_can_listen_to_is_said() -> None:
    assert connection.insecurity("tcp://8.8.8.8:8786") is not None
    assert connection.insecurity("8.8.8.8:8786") is not None
    assert connection.insecurity("tls://8.8.8.8:8786") is None
    assert connection.insecurity("tcp://127.0.0.1:8786") is None
    assert connection.insecurity("tcp://192.168.3.4:8786") is None
    assert connection.insecurity("tcp://[fd00::1]:8786") is None
    # A connection says what is amiss with those that are none.
    assert connection.insecurity("tcp://192.168..1:8786") is None
    assert connection.insecurity("tcp://[::1:8786") is None
