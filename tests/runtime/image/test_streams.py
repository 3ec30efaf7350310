"""A picture that goes row by row comes out as one that is held whole."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from tests.graphs import every_operation, plain_network
from tests.runtime.fakes import UNLUCKY, FakeUpscaler, picture
from upfrost.gpu.device import DeviceLostError
from upfrost.gpu.upscaler import Upscaler
from upfrost.image import batch, streams
from upfrost.image.images import (
    Header,
    Picture,
    PictureError,
    read_header,
    read_picture,
    upscale_picture,
    write_picture,
)
from upfrost.network.graph import Graph, alignment
from upfrost.status import Status

pytest.importorskip("pyvips")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def sixteen_bit_grey(path: Path) -> None:
    values = np.random.default_rng(5).integers(0, 65536, (90, 70), dtype=np.uint16)
    Image.fromarray(values).save(path)


def grey(path: Path) -> None:
    Image.fromarray(picture(90, 70)[..., 0]).save(path)


def rgb(path: Path) -> None:
    Image.fromarray(picture(90, 70)).save(path)


def fake_stream(source: Path, target: Path, header: Header | None = None) -> None:
    streams.upscale_stream(
        source,
        target,
        header or read_header(source),
        FakeUpscaler(plain_network(0)),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("make", [rgb, grey, sixteen_bit_grey])
@pytest.mark.parametrize("target", ["b.png", "b.tif"])
@pytest.mark.parametrize("source", ["a.png", "a.tif"])
def test_the_pixels_are_those_of_the_whole_picture(
    tmp_path: Path, make: Callable[[Path], None], source: str, target: str
) -> None:
    given, whole, streamed = tmp_path / source, tmp_path / "w.png", tmp_path / target
    make(given)
    upscaler = FakeUpscaler(plain_network(0))
    write_picture(whole, upscale_picture(read_picture(given), upscaler, 2))
    header = read_header(given)
    assert streams.can_stream(header, streamed)
    fake_stream(given, streamed, header)
    with Image.open(whole) as expected, Image.open(streamed) as found:
        assert found.mode == expected.mode
        np.testing.assert_array_equal(np.array(found), np.array(expected))
    assert header.notes == read_picture(given).notes


def test_jpeg_in_and_out(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    y, x = np.mgrid[:90, :70]
    smooth = np.stack([x * 3, y * 2, x + y], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(source, quality=95)
    fake_stream(source, target)
    expected = FakeUpscaler(plain_network(0))(read_picture(source).rgb)
    with Image.open(target) as image:
        assert image.layer[0][1:3] == image.layer[1][1:3]  # type: ignore[attr-defined]
        # Quality 95 on a smooth picture.
        assert np.abs(np.array(image).astype(int) - expected).max() <= 8


@pytest.mark.parametrize("graph", [plain_network(1), every_operation(1)])
def test_a_real_network_with_strides(tmp_path: Path, graph: Graph) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    rgb = picture(61, 47)
    write_picture(source, Picture(rgb))
    assert alignment(graph) in (1, 2)
    with Upscaler(graph, tile=40) as upscaler:
        times, _ = streams.upscale_stream(source, target, read_header(source), upscaler)
        np.testing.assert_array_equal(read_picture(target).rgb, upscaler(rgb))
    assert min(times.read, times.upscale, times.write) > 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_what_a_file_says_is_kept(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.IFD.Exif] = {0xA002: 9, 0xA003: 6, 0x9003: "2026:01:02 03:04:05"}
    Image.fromarray(picture()).save(
        source, icc_profile=SRGB, exif=exif.tobytes(), dpi=(300, 300)
    )
    header = read_header(source)
    upscaler = FakeUpscaler(plain_network(0))
    _, notes = streams.upscale_stream(source, target, header, upscaler)  # type: ignore[arg-type]
    with Image.open(target) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        back = image.getexif()
        if suffix == ".tif":
            assert notes == (
                "the EXIF data is left out: a TIFF of this size is streamed",
            )
        else:
            assert notes == ()
            assert back[ExifTags.Base.Make] == "Maker"
            photograph = back.get_ifd(ExifTags.IFD.Exif)
            assert photograph[0x9003] == "2026:01:02 03:04:05"
            assert (photograph[0xA002], photograph[0xA003]) == (18, 12)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_xmp_is_kept(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    xmp = b"<x:xmpmeta>a hill</x:xmpmeta>"
    write_picture(source, Picture(picture(), xmp=xmp))
    fake_stream(source, target)
    assert read_picture(target).xmp == xmp


def test_what_is_not_rows_of_pixels_is_not_streamed(tmp_path: Path) -> None:
    target = tmp_path / "b.png"

    def can(name: str, image: Image.Image, **options: Any) -> bool:
        image.save(tmp_path / name, **options)
        return streams.can_stream(read_header(tmp_path / name), target)

    image = Image.fromarray(picture())
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    assert can("plain.png", image)
    assert not can("turned.jpg", image, exif=turned.tobytes())
    assert not can("progressive.jpg", image, progressive=True)
    assert not can("alpha.png", image.convert("RGBA"))
    assert not can("palette.png", image.quantize(8))
    assert not can("key.png", image, transparency=(0, 0, 0))
    assert not can("cmyk.tif", image.convert("CMYK"))
    assert not can("bits.png", image.convert("1"))
    assert not can("a.bmp", image)
    header = read_header(tmp_path / "plain.png")
    assert not streams.can_stream(header, tmp_path / "b.webp")


def test_a_picture_cut_short(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    write_picture(source, Picture(picture(300, 200)))
    source.write_bytes(source.read_bytes()[:-40_000])
    with pytest.raises(PictureError, match=r"a\.png: damaged or cut short") as caught:
        fake_stream(source, target)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_fault_of_the_device_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    rgb = picture(300, 200)
    rgb[200, 0, 0] = UNLUCKY  # the first row of a band of the fake
    write_picture(source, Picture(rgb))
    monkeypatch.setenv("FAKE_FAULT", "lost")
    with pytest.raises(DeviceLostError):
        fake_stream(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


SMALL_FILES = """
import sys
from pathlib import Path
from typing import Any
from tests.runtime.fakes import FakeUpscaler
from tests.graphs import plain_network
from upfrost.image.images import read_header, PictureError
from upfrost.image import streams
source, target = map(Path, sys.argv[1:])
try:
    streams.upscale_stream(
        source, target, read_header(source), FakeUpscaler(plain_network(0))
    )
except PictureError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_full_disk(tmp_path: Path, suffix: str) -> None:
    """It is said, the encoder's failure stops the work, nothing is left."""
    source, target = tmp_path / "a.png", tmp_path / f"b{suffix}"
    write_picture(source, Picture(picture(600, 600)))
    result = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, str(source), str(target)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.startswith(f"{target}: cannot be written: ")
    assert len(result.stdout.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


MEMORY = """
import resource, sys
from pathlib import Path
from typing import Any
from tests.runtime.fakes import FakeUpscaler
from tests.graphs import plain_network
from upfrost.image.images import read_header
from upfrost.image import streams
streams._vips()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source, target = map(Path, sys.argv[1:])
streams.upscale_stream(
    source, target, read_header(source), FakeUpscaler(plain_network(0))
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_header_costs_no_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    # Nothing of the pixels is left: whoever reads them fails.
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"IDAT") + 4])
    assert read_header(path).size == (9, 6)


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    """Resident memory, for a result of 24 MB and one of 192 MB."""
    grown = []
    for height in (1000, 8000):
        source, target = tmp_path / f"{height}.png", tmp_path / f"{height}-x2.png"
        flat = np.zeros((height, 2000, 3), np.uint8)
        flat[:, ::7] = 99
        Image.fromarray(flat).save(source, compress_level=1)
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(source), str(target)],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        grown.append(int(result.stdout) / 1024)
    # Of the 168 MB more, libvips keeps some lines, and allocators are not exact.
    assert grown[1] - grown[0] < 40, grown


def test_exif_is_worth_some_memory(tmp_path: Path) -> None:
    """EXIF data, which a streamed TIFF loses, are kept until memory is at stake."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png", exif=exif)
    header = read_header(tmp_path / "a.png")

    def streamed(name: str, megapixels: int) -> bool:
        return streams.should_stream(header, tmp_path / name, megapixels * 10**6)

    assert [streamed("b.png", size) for size in (16, 17, 101)] == [False, True, True]
    assert [streamed("b.tif", size) for size in (16, 17, 101)] == [False, False, True]


def test_the_batch_streams_what_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STREAM_ABOVE", 1000)
    records: list[batch.PictureRecord] = []
    for name, size in (("large.png", 20), ("small.png", 10)):
        write_picture(tmp_path / name, Picture(picture(size, size)))
    plan = batch.plan_batch([str(tmp_path)], None, 2)
    failed = batch.run_batch(
        plan,
        FakeUpscaler(plain_network(0)),  # type: ignore[arg-type]
        batch.Options(None, 1000, "refuse"),
        Status(io.StringIO()),
        records.append,
    )
    assert failed == 0
    assert [record.streamed for record in records] == [True, False]
    for record in records:
        assert list(record.seconds) == ["read", "upscale", "write"]
        assert record.tiles == 1
        given = read_picture(Path(record.input)).rgb
        result = read_picture(Path(record.output)).rgb
        np.testing.assert_array_equal(result, given.repeat(2, 0).repeat(2, 1))
