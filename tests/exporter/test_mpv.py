"""Shaders for players: what they hold, and what libplacebo and mpv make of them."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from benchmarks import libplacebo
from tests.graphs import Builder, luma_network, plain_network
from upfrost.network import reference
from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Concat,
    Graph,
    LeakyRelu,
    PixelShuffle,
    Relu,
    Unary,
)
from upfrost_exporter.builder import ExportError
from upfrost_exporter.cli import add_export
from upfrost_exporter.mpv import FORMS, Form, shader, write_shader

PHOTO = Path(__file__).parents[2] / "examples" / "bee.png"
# Samples are rounded, and values between passes have eleven bits: 48 dB, the aim, is an
# error of one 8-bit sample everywhere. Found: 55 and more.
LEAST_PSNR = 48.0
Values = npt.NDArray[np.float64]

needs_libplacebo = pytest.mark.skipif(
    libplacebo.find_player() is None, reason=f"there is no {libplacebo.WANTED}"
)
needs_mpv = pytest.mark.skipif(
    not (shutil.which("mpv") and shutil.which("Xvfb")),
    reason="mpv and Xvfb (Debian: mpv, xvfb) are missing",
)


def player() -> str:
    found = libplacebo.find_player()
    assert found is not None
    return found


def photo(height: int = 47, width: int = 61, *, full_range: bool = False) -> Values:
    """A piece of a photograph, (height, width, 3), 0 to 1 in full or limited range."""
    picture = np.asarray(Image.open(PHOTO).convert("RGB"), np.float64)
    piece = picture[200 : 200 + height, 300 : 300 + width] / 255
    return piece if full_range else (16 + 219 * piece) / 255


def quiet(graph: Graph) -> Graph:
    """The network with smaller weights: its results stay in the range of samples."""
    for tensor in graph.tensors.values():
        tensor *= 0.6
    return graph


def every_step() -> Graph:
    """×3, by 255, with all that a shader knows, a sum of a value with itself included.

    The values that are added come before and after those that they are added to.
    """
    build = Builder(3)
    first = build.add(Relu, build.conv(INPUT, 1, 5))
    second = build.add(LeakyRelu, build.conv(first, 5, 5, kernel=1), slope=0.2)
    third = build.conv(first, 5, 5, bias=False)
    total = build.add(Add, second, third)
    total = build.add(Clamp, build.add(Add, total, first), low=-120.0, high=130.0)
    doubled = build.add(Add, total, total)
    mixed = build.add(Add, build.conv(doubled, 5, 1), INPUT)
    result = build.add(PixelShuffle, build.conv(mixed, 1, 9), factor=3)
    result = build.add(Add, result, build.resize(INPUT, "nearest", 3))
    result = build.add(Clamp, result, low=10.0, high=240.0)
    return build.graph(result, 3, 1, name="every-step", value_range=255.0)


def assert_close(found: Values, expected: Values) -> None:
    """Fail for less than `LEAST_PSNR`, at the edges too, or a shift.

    Both (channels, height, width), 0 to 1.
    """
    assert found.shape == expected.shape
    error = found - expected
    inner = error[:, 8:-8, 8:-8]
    edges = (error**2).sum() - (inner**2).sum()
    for what, mean in (
        ("everywhere", (error**2).mean()),
        ("at the edges", edges / (error.size - inner.size)),
    ):
        psnr = -10 * np.log10(max(mean, 1e-12))
        print(f"{what}: {psnr:.1f} dB")
        assert psnr >= LEAST_PSNR, what
    for axis in (1, 2):
        # A shift of the picture by t is an error of t times its gradient.
        slope = np.gradient(expected, axis=axis)
        shift = (slope * error).sum() / (slope**2).sum()
        assert abs(shift) < 0.02, f"shifted by {shift:.3f} pixels along axis {axis}"


def enlarged_luma(
    graph: Graph,
    folder: Path,
    form: Form = "fragment",
    *,
    bits: int = 8,
    full_range: bool = False,
) -> tuple[Values, Values]:
    """A photograph's luma by the player and by the reference, 0 to 1 of the samples."""
    path = folder / "network.glsl"
    write_shader(graph, path, form)
    white = 255 * 2 ** (bits - 8)
    values = photo(full_range=full_range)[:, :, 1]
    luma = np.floor(values * white + 0.5).astype(np.uint8 if bits == 8 else np.uint16)
    found = libplacebo.enlarge_luma(
        player(), luma, graph.scale, path, full_range=full_range
    )
    small = (luma / white * graph.value_range).astype(np.float32)
    expected = reference.run(graph, small[None]).astype(np.float64) / graph.value_range
    # Of ten bits, samples from 1020 to 1023 are beyond 1.
    return (found / white)[None].clip(0, 1), expected.clip(0, 1)


@needs_libplacebo
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "graph",
    [quiet(luma_network(1, channels=6, layers=2)), every_step()],
    ids=["plain", "every-step"],
)
def test_the_player_computes_what_upfrost_does(
    graph: Graph, form: Form, tmp_path: Path
) -> None:
    assert_close(*enlarged_luma(graph, tmp_path, form))


@needs_libplacebo
@pytest.mark.parametrize(("bits", "full_range"), [(8, True), (10, False), (10, True)])
def test_every_depth_and_range_is_right(
    bits: int, full_range: bool, tmp_path: Path
) -> None:
    graph = quiet(luma_network(2, channels=4, layers=1))
    assert_close(*enlarged_luma(graph, tmp_path, bits=bits, full_range=full_range))


@needs_libplacebo
@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_three_channels_enlarges_rgb(form: Form, tmp_path: Path) -> None:
    graph = quiet(plain_network(3, channels=4, layers=1))
    path = tmp_path / "network.glsl"
    write_shader(graph, path, form)
    picture = np.floor(photo(full_range=True) * 255 + 0.5).astype(np.uint8)
    height, width, _ = picture.shape
    alpha = np.full((height, width, 1), 255, np.uint8)
    frame = np.concatenate([picture, alpha], 2).tobytes()
    size = (width, height)
    result = libplacebo.enlarge(player(), frame, size, "rgba", 2, path, full_range=True)
    found = np.frombuffer(result, np.uint8).reshape(2 * height, 2 * width, 4)
    small = (picture.transpose(2, 0, 1) / 255).astype(np.float32)
    expected = reference.run(graph, small).astype(np.float64).clip(0, 1)
    assert_close(found[:, :, :3].transpose(2, 0, 1) / 255, expected)


@needs_libplacebo
def test_the_shader_rests_where_little_is_enlarged(tmp_path: Path) -> None:
    build = Builder(0)
    output = build.add(PixelShuffle, build.conv(INPUT, 1, 16), factor=4)
    path = tmp_path / "network.glsl"
    write_shader(build.graph(output, scale=4, channels=1, colour="luma"), path)
    luma = np.floor(photo()[:, :, 1] * 255 + 0.5).astype(np.uint8)
    without = libplacebo.enlarge_luma(player(), luma, 2, None)
    assert np.array_equal(libplacebo.enlarge_luma(player(), luma, 2, path), without)
    larger = libplacebo.enlarge_luma(player(), luma, 3, None)
    assert np.any(libplacebo.enlarge_luma(player(), luma, 3, path) != larger)


@pytest.fixture
def display(tmp_path: Path) -> Iterator[str]:
    """A display that nobody sees."""
    reading, writing = os.pipe()
    with (tmp_path / "xvfb.log").open("wb") as log:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-nolisten", "tcp"],
            pass_fds=[writing],
            stderr=log,
        )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


SCREENSHOT = """
mp.register_event("playback-restart", function()
    mp.add_timeout(0.2, function()
        mp.commandv("screenshot-to-file", os.getenv("SCREENSHOT"), "window")
        mp.command("quit")
    end)
end)
"""


@needs_mpv
@pytest.mark.parametrize(
    ("renderer", "embedded", "form"),
    [
        ("gpu", "no", "fragment"),
        # Here mpv's own renderer has no compute shaders.
        ("gpu", "yes", "fragment"),
        ("gpu", "no", "compute"),
        ("gpu-next", "no", "compute"),
    ],
)
def test_mpv_shows_what_upfrost_computes(
    renderer: str, embedded: str, form: Form, display: str, tmp_path: Path
) -> None:
    """By mpv's own renderer, in OpenGL and OpenGL ES, and by libplacebo."""
    graph = quiet(luma_network(4, channels=4, layers=1))
    write_shader(graph, tmp_path / "network.glsl", form)
    (tmp_path / "screenshot.lua").write_text(SCREENSHOT)
    luma = np.floor(photo(64, 96)[:, :, 1] * 255 + 0.5).astype(np.uint8)
    chroma = np.full(luma.size // 2, 128, np.uint8)
    (tmp_path / "frame.yuv").write_bytes(luma.tobytes() + chroma.tobytes())
    screenshot = tmp_path / "screenshot.png"
    subprocess.run(
        [
            *("mpv", "--no-config", f"--vo={renderer}", "--gpu-api=opengl"),
            f"--opengl-es={embedded}",
            *("--gpu-context=x11egl", "--gpu-sw", "--no-border", "--no-osc"),
            *("--geometry=192x128+0+0", "--dither-depth=no", "--pause", "--no-audio"),
            *("--demuxer=rawvideo", "--demuxer-rawvideo-w=96"),
            *("--demuxer-rawvideo-h=64", "--demuxer-rawvideo-mp-format=yuv420p"),
            *("--video-aspect-override=no", "--osd-level=0"),
            f"--glsl-shaders={tmp_path / 'network.glsl'}",
            f"--script={tmp_path / 'screenshot.lua'}",
            str(tmp_path / "frame.yuv"),
        ],
        env={**os.environ, "DISPLAY": display, "SCREENSHOT": str(screenshot)},
        check=True,
        timeout=120,
    )
    shown = np.asarray(Image.open(screenshot).convert("RGB"), np.float64) / 255
    small = (luma / 255).astype(np.float32)[None]
    expected = reference.run(graph, small).astype(np.float64)
    # What is shown is of full range, each of red, green and blue for a grey frame.
    expected = ((expected * 255 - 16) / 219).clip(0, 1)
    assert_close(shown[:, :, 1][None], expected)


def test_a_shader_says_what_it_is_and_whose() -> None:
    build = Builder(0)
    shuffled = build.add(PixelShuffle, build.conv(INPUT, 1, 4), factor=2)
    metadata: dict[str, object] = {
        "licence": "MIT",
        "attribution": "Somebody,\n//!HOOK RGB",
        "training_data": ["photographs", "films"],
    }
    text = shader(build.graph(shuffled, 2, 1, "tiny", metadata=metadata, colour="luma"))
    head, mark, _ = text.partition("//!")
    assert mark
    for words in ("// tiny", "2 times", "licence: MIT", "Somebody", "photographs"):
        assert words in head
    assert all(line.startswith("//") for line in head.splitlines() if line)
    assert set(re.findall("//!HOOK (.*)", text)) == {"LUMA"}


def test_fragment_passes_write_four_channels_and_compute_passes_all() -> None:
    graph = luma_network(0, channels=8, layers=3)
    fragments, computes = shader(graph, "fragment"), shader(graph, "compute")
    # Three layers of two slices, the last one's four channels, the pixel shuffle.
    assert fragments.count("//!HOOK") == 3 * 2 + 1 + 1
    # The last layer shuffles, too.
    assert computes.count("//!HOOK") == 4
    for text in (fragments, computes):
        assert text.count("//!WHEN OUTPUT.w HOOKED.w / 1.41 >") == text.count("HOOK ")
    taps = 9 * (2 * 1 + 2 * 2 * 2 + 2)
    fetches = fragments.count("texelFetch") + fragments.count("= picture(")
    assert fetches == taps + 1


def refused() -> Iterator[tuple[str, Graph, str]]:
    """Networks that no shader is written for, and what is said of each."""
    for name, attributes, words in (
        ("kernel", {"kernel": 5}, "(conv2d): its kernel is 5×5"),
        ("padding", {"padding": (0, 0, 2, 2)}, "its padding is 0, 0, 2, 2"),
        ("dilation", {"dilation": (2, 2)}, "its dilation is 2, 2"),
    ):
        build = Builder(0)
        output = build.conv(INPUT, 1, 4, **attributes)
        output = build.add(PixelShuffle, output, factor=2)
        yield name, build.graph(output, 2, 1), words
    build = Builder(0)
    first = build.conv(INPUT, 1, 4)
    output = build.add(PixelShuffle, build.conv(first, 4, 4, groups=2), factor=2)
    yield "groups", build.graph(output, 2, 1), "its groups is 2"
    build = Builder(0)
    first = build.conv(INPUT, 1, 2)
    output = build.add(Concat, first, first)
    output = build.add(PixelShuffle, output, factor=2)
    yield "concat", build.graph(output, 2, 1), "(concat): it has no form as a shader"
    build = Builder(0)
    first = build.add(Unary, build.conv(INPUT, 1, 4), function="silu")
    output = build.add(PixelShuffle, first, factor=2)
    yield "unary", build.graph(output, 2, 1), "(unary): it has no form as a shader"
    build = Builder(0)
    output = build.conv(build.resize(INPUT, "nearest", 2), 1, 1)
    yield "resize", build.graph(output, 2, 1), "where a pixel_shuffle by 2 should"
    build = Builder(0)
    output = build.add(PixelShuffle, build.conv(INPUT, 1, 4), factor=2)
    output = build.add(Add, output, build.resize(INPUT, "bicubic", 2))
    yield "bicubic", build.graph(output, 2, 1), "(resize): only the input is enlarged"
    build = Builder(0)
    first = build.add(PixelShuffle, build.conv(INPUT, 1, 4), factor=2)
    output = build.add(PixelShuffle, build.conv(first, 1, 4), factor=2)
    yield "twice", build.graph(output, 4, 1), "where a pixel_shuffle by 4 should"
    build = Builder(0)
    larger = build.resize(INPUT, "nearest", Fraction(2))
    output = build.add(Add, larger, build.resize(INPUT, "bilinear", 2))
    yield "no-network", build.graph(output, 2, 1), "where a pixel_shuffle by 2 should"
    wide = luma_network(0, channels=68, layers=2)
    yield (
        "wide",
        wide,
        "pass 2, channels 0 to 3 reads 17 textures, and players allow 16",
    )


@pytest.mark.parametrize(
    ("graph", "words"),
    [(graph, words) for _, graph, words in refused()],
    ids=[name for name, _, _ in refused()],
)
def test_what_no_shader_holds_is_refused_by_name(graph: Graph, words: str) -> None:
    with pytest.raises(ExportError, match=re.escape(words)):
        shader(graph)


def test_compute_passes_read_any_number_of_channels() -> None:
    assert shader(luma_network(0, channels=68, layers=2), "compute")


def test_the_command_writes_a_shader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_export(parser.add_subparsers())
    words = ["export", "--to", "mpv", "realtime-x4"]
    options = parser.parse_args(words)
    assert options.run(options) == 0
    text = (tmp_path / "realtime-x4.glsl").read_text()
    assert "//!HOOK MAIN" in text
    assert "licence: MIT" in text
    options = parser.parse_args([*words, "--form", "compute", "-o", "other.glsl"])
    assert options.run(options) == 0
    assert "//!COMPUTE 8 " in (tmp_path / "other.glsl").read_text()


def test_a_folder_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_export(parser.add_subparsers())
    output = tmp_path / "none" / "x.glsl"
    options = parser.parse_args(
        ["export", "--to", "mpv", "realtime-x2", "-o", str(output)]
    )
    assert options.run(options) == 1
    message = capsys.readouterr().err
    assert "none: no such folder" in message
    assert message.count("\n") == 1
