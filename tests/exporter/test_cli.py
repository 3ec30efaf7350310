"""The command `upfrost export`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.graphs import (
    Builder,
    deep_network,
    imported_operations,
    plain_network,
)
from upfrost.errors import UsageError
from upfrost.network.graph import INPUT, PixelShuffle
from upfrost.network.modelfile import read_model, write_model
from upfrost_exporter.cli import add_export
from upfrost_exporter.onnx_backend import write_onnx

PHOTO = "{folder}/photo.png"


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_export(parser.add_subparsers())
    options = parser.parse_args(["export", *map(str, words)])
    code: int = options.run(options)
    return code


def write_photo(folder: Path, height: int, width: int) -> Path:
    path = Path(PHOTO.format(folder=folder))
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    write_onnx(plain_network(0), path)
    return path


def test_an_onnx_file_becomes_a_weight_file_beside_it(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source) == 0
    graph = read_model(source.with_suffix(".upf"))
    assert (graph.name, graph.scale) == ("plain", 2)
    output = capsys.readouterr().out
    for words in (
        *("×2", "layers          8, of them 3 convolutions", "parameters"),
        *("MACs per output pixel", "receptive field 7×7 pixels", "net.upf"),
    ):
        assert words in output
    assert "cannot run it yet" not in output


def test_options_decide_what_is_written(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "other.upf"
    code = run(
        source,
        "-o",
        output,
        "--precision",
        "fp16",
        "--name",
        "mine",
        "--licence",
        "MIT",
    )
    assert code == 0
    graph = read_model(output)
    assert graph.name == "mine"
    assert graph.metadata["licence"] == "MIT"
    assert {tensor.dtype for tensor in graph.tensors.values()} == {np.dtype(np.float16)}


def test_a_weight_file_becomes_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "net.upf"
    write_model(path, plain_network(0))
    output = tmp_path / "out.onnx"
    assert run("--to", "onnx", path, "-o", output) == 0
    onnx.checker.check_model(onnx.load_model(str(output)))


def test_a_network_for_luma_stays_one_by_way_of_onnx(tmp_path: Path) -> None:
    path, again = tmp_path / "net.onnx", tmp_path / "again.upf"
    assert run("--to", "onnx", "live-x2-xs-clean", "-o", path) == 0
    assert run(path, "-o", again) == 0
    assert read_model(again).colour == "luma"


def test_one_channel_is_luma_where_the_user_says_so(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder(0)
    path = tmp_path / "one.onnx"
    write_onnx(build.graph(build.conv(INPUT, 1, 1), channels=1, scale=1), path)
    for options, colour in (((), None), (("--luma",), "luma")):
        assert run(path, "--overwrite", *options) == 0
        assert read_model(path.with_suffix(".upf")).colour == colour
    capsys.readouterr()
    assert run(source, "--luma") == 1
    assert "a network for luma has 1 channel, found 3" in capsys.readouterr().err
    assert not source.with_suffix(".upf").exists()


def test_the_device_is_checked_within_the_memory_that_it_may_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    write_onnx(plain_network(0, layers=4, channels=128), path)
    photo = write_photo(tmp_path, 20, 30)
    assert run(path, "--check", photo, "--memory", "20") == 0
    # How many bytes differ is the driver's; 40×60 pixels of three channels are there.
    said = r"device .*: (equal in all|off by 1 in [\d,]+ of) 7,200 bytes\n"
    assert re.search(said, capsys.readouterr().out)
    assert run(path, "--overwrite", "--check", photo, "--memory", "1") == 1
    assert "the budget is 1.0 MiB" in capsys.readouterr().err


def test_a_network_with_an_alignment_is_checked_on_a_picture_of_any_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder(0)
    half = build.conv(INPUT, 3, 8, kernel=2, stride=(2, 2))
    output = build.add(PixelShuffle, build.conv(half, 8, 12), factor=2)
    path = tmp_path / "net.onnx"
    write_onnx(build.graph(output, scale=1), path)
    assert run(path, "--check", write_photo(tmp_path, 21, 33)) == 0
    assert " 2,079 bytes\n" in capsys.readouterr().out


def test_an_operation_without_a_kernel_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.upf"
    write_model(path, imported_operations(0))
    assert run("--to", "onnx", path, "-o", tmp_path / "out.onnx") == 0
    assert "the whole picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{source}", "--scale", "4"], "the network is ×2, not ×4"),
        (["{source}", "--name", "../net"], "graph name '../net'"),
        (["{folder}/none.onnx"], "cannot be read"),
        (["{folder}/net.gguf"], "unknown kind of network"),
        (["{source}", "-o", "{folder}/none/net.upf"], "none: no such folder"),
        (["{source}", "--check", "{folder}/none.png"], "none.png"),
        (["{source}", "--check", PHOTO, "--device", "none"], "no device is called"),
        (["{folder}/none.param.bin"], "none.param.bin: cannot be read"),
        (["--to", "onnx", "nothing-like-it"], "neither a bundled model nor a file"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    message: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_photo(tmp_path, 20, 30)
    code = run(*(word.format(source=source, folder=tmp_path) for word in words))
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.startswith("upfrost: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.glob("*.upf")) == []


def test_a_range_that_the_network_says_itself_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"not looked at")
    with pytest.raises(UsageError, match=r"--value-range 255: .* leave it out"):
        run(path, "--value-range", "255")
    output = tmp_path / "out.onnx"
    with pytest.raises(UsageError, match=r"--value-range 255: .* leave it out"):
        run("--to", "onnx", "live-x2-xs", "-o", output, "--value-range", "255")
    assert not output.exists()


def test_weights_beyond_half_precision_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder(0)
    output = build.conv(INPUT, 3, 3)
    build.tensors[f"{output}.bias"] = np.array([0, 7e4, 0], np.float32)
    path = tmp_path / "net.onnx"
    write_onnx(build.graph(output, scale=1), path)
    assert run(path, "--precision", "fp16") == 1
    assert "export with precision fp32" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["onnx", "param", "pth", "safetensors"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer",
        ),
        ("\n<!DOCTYPE html><title>net.pth</title>", "a web page"),
        ("", "the file is empty"),
    ],
    ids=["git-lfs", "page", "empty"],
)
def test_what_downloads_leave_in_a_network_s_place_is_named(
    suffix: str,
    text: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / f"net.{suffix}"
    path.write_text(text)
    assert run(path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"upfrost: {path}: {message}")


def test_what_the_network_will_cost_is_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source) == 0
    output = capsys.readouterr().out
    assert re.search(
        r"smallest tile   7×7 pixels, [1-9]\d* KB in fp16 on Mali\n", output
    )
    assert "--memory" not in output
    for board in ("RK3588", "RK3568"):
        assert f"1080p on {board} " in output
    deep = tmp_path / "deep.upf"
    write_model(deep, deep_network(layers=220))
    assert run("--to", "onnx", deep, "-o", tmp_path / "deep.onnx") == 0
    output = capsys.readouterr().out
    assert "more than the 403 MB that upfrost takes unasked: --memory " in output


def test_a_file_that_exists_is_kept_unless_the_user_says_so(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = source.with_suffix(".upf")
    output.write_text("mine")
    assert run(source) == 1
    assert f"{output}: exists already; --overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert run(source, "--overwrite") == 0
    assert read_model(output).name == "plain"
    assert run("--to", "onnx", output, "-o", source) == 1
    assert "exists already" in capsys.readouterr().err
    assert run("--to", "onnx", output, "-o", source, "--overwrite") == 0


def test_what_is_read_is_never_replaced(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = source.read_bytes()
    assert run(source, "-o", source, "--overwrite") == 1
    assert "net.onnx: would replace a file that is read" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert run(source) == 0
    model = source.with_suffix(".upf")
    assert run("--to", "mpv", model, "-o", model, "--overwrite") == 1
    assert "net.upf: would replace a file that is read" in capsys.readouterr().err
    assert read_model(model).name == "plain"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("large.onnx", "--to upf writes .upf"),
        ("large.GLSL", "--to upf writes .upf"),
        ("large.pth", "--to upf writes .upf"),
        ("large.upf", "--to onnx writes .onnx"),
    ],
)
def test_no_file_is_called_what_it_is_not(
    source: Path,
    tmp_path: Path,
    name: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / name
    kind = words.split()[1]
    assert run(source, "--to", kind, "-o", output) == 1
    error = capsys.readouterr().err
    assert f"{name}: the name is another kind's; {words}" in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("upfrost_exporter.cli._read", None)
    assert run(source, "-o", source.parent / "none" / "x.upf") == 1
    assert capsys.readouterr().err.endswith("none: no such folder\n")


def test_what_libraries_say_stays_off_the_terminal(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from upfrost_exporter import onnx_frontend

    read = onnx_frontend.read_onnx

    def noisy(path: Path, **options: object) -> object:
        os.write(2, b"layer Foo not exists or registered\n")
        warnings.warn("overflow encountered", RuntimeWarning, stacklevel=1)
        return read(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_frontend, "read_onnx", noisy)
    assert run(source, "--scale", "3") == 1
    assert capfd.readouterr().err == "upfrost: " + (
        f"{source}: the network is ×2, not ×3\n"
    )


def test_a_network_too_large_for_half_precision_asks_for_single(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder(0)
    output = build.conv(INPUT, 3, 3)
    build.tensors[f"{output}.bias"] = np.array([0, 6e4, 0], np.float32)
    path = tmp_path / "net.onnx"
    write_onnx(build.graph(output, scale=1), path)
    assert run(path) == 0
    assert "precision       fp32 on every device: " in capsys.readouterr().out
    assert read_model(path.with_suffix(".upf")).metadata["precision"] == "fp32"


def test_the_package_offers_the_command() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    name, value = "export", "upfrost_exporter.cli:add_export"
    assert f'{name} = "{value}"' in text
    assert EntryPoint(name, value, "upfrost.commands").load() is add_export


def test_what_is_not_installed_is_said_with_what_to_do(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "upfrost_exporter.onnx_frontend", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run(source) == 1
    assert "pip install -e '.[export]'" in capsys.readouterr().err
