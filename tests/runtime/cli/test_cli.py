"""The command as a user meets it: exit codes, one line for each error, no half files.

Most tests run it in a process of its own, on a fake device where the device does not
matter (see fakes.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.runtime.fakes import UNLUCKY, picture
from upfrost import Upscaler, __version__
from upfrost.cli import main as cli
from upfrost.cli import run as entry_point
from upfrost.gpu.advice import address_space_advice
from upfrost.image.images import Picture, read_picture, write_picture
from upfrost.network.modelfile import bundled_models

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands

FAKE = Path(__file__).parents[1] / "fakes.py"
REAL = ["-m", "upfrost.cli.main"]
COMMANDS = [
    *("upscale", "video", "compare", "eval", "tune", "check"),
    *("devices", "models", "info"),
]
PANVK = os.environ.get("UPFROST_PANVK")


def command(*arguments: str | Path, real: bool = False) -> list[str]:
    return [sys.executable, *(REAL if real else [str(FAKE)]), *map(str, arguments)]


def upfrost(
    *arguments: str | Path, real: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, real=real),
        env=os.environ | {"COLUMNS": "80"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def only_error(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on stderr of a command that failed with `code`."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("upfrost: ")
    assert result.stdout == ""
    return lines[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# Help and usage


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_help_fits_eighty_columns(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: upfrost")
    assert max(map(len, text.splitlines())) <= 80


def test_help_names_every_command_and_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for word in (*COMMANDS, "0  ", "1  ", "2  ", "129, 130, 143", "UPFROST_TRACEBACK"):
        assert word in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from upfrost.cli import main as cli\n"
        "try: cli.main(['upscale', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "PIL", "kp", "vulkan", "torch"} & set(result.stderr.split())


def test_version() -> None:
    result = upfrost("--version", real=True)
    assert (result.returncode, result.stdout) == (0, f"upfrost {__version__}\n")


def test_no_command_shows_the_help_on_stderr() -> None:
    result = upfrost()
    assert result.returncode == 2
    assert result.stdout == ""
    assert "commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["upscale"], "IN"),
        (["upscale", "a.png", "--qualty", "3"], "--qualty"),
        (["upscale", "a.png", "--quality", "101"], "expected 1 to 100"),
        (["upscale", "a.png", "--quality", "x"], "expected a positive number"),
        (["upscale", "a.png", "--halo", "x"], "expected a positive number or full"),
        (["upscale", "a.png", "--format", "gif"], "expected png, jpeg, webp"),
        (["upscale", "a.png", "--precision", "int8"], "invalid choice: 'int8'"),
        (["upscale", "a.png", "--tile", "-3"], "--tile"),
        (["upscale", "a.png", "--memory", "0"], "--memory"),
        (["upscale", "a.png", "--overwrite", "--skip-existing"], "not allowed with"),
        (["upscale", "a.png", "-o", "a.png"], "would replace a.png"),
        (["video", "a.mp4", "b.mp4", "--start", "1e400"], "expected a time"),
        (["video", "a.mp4", "b.mp4", "--duration", "1:2/3"], "expected a time"),
        (["scale"], "invalid choice: 'scale'"),
    ],
)
def test_usage_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    result = subprocess.CompletedProcess(arguments, code, out, err)
    assert what in only_error(result, 2)


def test_an_unknown_model_is_one_line() -> None:
    line = only_error(upfrost("upscale", "a.png", "-m", "realtime-x3"), 1)
    assert "realtime-x3" in line
    assert "realtime-x2" in line


class OtherCommand:
    """An entry point of another package."""

    def __init__(self, name: str, missing: str | None = None) -> None:
        self.name = name
        self._missing = missing

    def load(self) -> Callable[[Commands], None]:
        if self._missing:
            raise ModuleNotFoundError(f"No module named {self._missing!r}")

        def add(commands: Commands) -> None:
            parser = commands.add_parser(self.name, help="something else")
            parser.set_defaults(run=lambda _: 7)

        return add


def test_commands_of_other_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [OtherCommand("grow"), OtherCommand("bake", missing="oven")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)  # noqa: ARG005
    assert cli.main(["grow"]) == 7
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "something else" in capsys.readouterr().out
    assert cli.main(["bake"]) == 1
    assert "No module named 'oven'; pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            ModuleNotFoundError("No module named 'kp'", name="kp"),
            "`make demo` in upfrost's source tree",
        ),
        (ImportError("libvulkan.so.1: cannot open"), "apt install libvulkan1"),
    ],
)
def test_what_pip_does_not_bring_is_named_with_what_does(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: ImportError,
    advice: str,
) -> None:
    """In words for whoever has the wheel alone."""

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "command_parser", fail)
    assert cli.main(["devices"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert advice in line
    assert "tools/" not in line


def test_an_interruption_while_the_command_loads_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_open_streams", lambda: interrupt(0))
    assert entry_point() == 130
    monkeypatch.undo()
    monkeypatch.setattr(cli, "command_parser", interrupt)
    assert cli.main(["devices"]) == 130
    assert capfd.readouterr().err == "upfrost: stopped by SIGINT\n" * 2


def test_without_stderr_no_file_is_taken_for_it(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    write_picture(source, Picture(picture()))
    words = ["upscale", str(source), str(tmp_path / "gone.png")]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command(*words)],
        stdout=subprocess.PIPE,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert files(tmp_path) == ["a-x2.png", "a.png"]
    assert read_picture(tmp_path / "a-x2.png").size == (18, 12)


def test_little_address_space_is_said_before_a_driver_crashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unlimited = resource.RLIM_INFINITY
    for limit, said in ((unlimited, False), (1 << 31, False), (800_000_000, True)):
        monkeypatch.setattr("resource.getrlimit", lambda _, limit=limit: (limit, -1))
        advice = address_space_advice()
        assert (advice is not None) == said
        assert advice is None or "limited to 800 MB (ulimit -v)" in advice


@pytest.mark.parametrize("long", ["in", "out"])
def test_a_name_that_is_too_long_is_one_line(tmp_path: Path, long: str) -> None:
    source = tmp_path / "a.png"
    write_picture(source, Picture(picture()))
    name = tmp_path / ("n" * 300 + ".png")
    words = [name] if long == "in" else [source, "-o", name]
    line = only_error(upfrost("upscale", *words), 1)
    assert line.endswith(".png: File name too long")
    assert "Errno" not in line


def test_a_result_whose_name_is_too_long_fails_before_the_work(tmp_path: Path) -> None:
    source = tmp_path / ("n" * 250 + ".png")
    write_picture(source, Picture(picture()))
    line = only_error(upfrost("upscale", source), 1)
    assert line.endswith("-x2.png: File name too long")


# Devices and models


def test_devices_lists_them_and_marks_one() -> None:
    result = upfrost("devices", "--json", real=True)
    assert result.returncode == 0
    said = json.loads(result.stdout)
    assert sum(entry["chosen"] for entry in said["devices"]) == 1
    for entry in said["devices"]:
        assert entry["is_gpu"] == (entry["kind"] not in ("cpu", "other"))
        assert entry["heap_bytes"] > 0
        assert entry["max_buffer_bytes"] > 0
        assert re.fullmatch(r"\d+\.\d+\.\d+", entry["api_version"])
    gpu = any(entry["is_gpu"] for entry in said["devices"])
    assert bool(said["advice"]) == (not gpu)
    text = upfrost("devices", real=True).stdout
    for entry in said["devices"]:
        assert entry["name"] in text
    assert ("mesa-vulkan-drivers" in text) == (not gpu)
    assert max(map(len, text.splitlines())) <= 80


def test_no_vulkan_driver_at_all(tmp_path: Path) -> None:
    nothing = str(tmp_path / "none.json")
    result = upfrost(
        *("devices", "--json"),
        real=True,
        VK_DRIVER_FILES=nothing,
        VK_ICD_FILENAMES=nothing,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    said = json.loads(result.stdout)
    assert said["devices"] == []
    assert "Vulkan" in said["error"]
    assert any("mesa-vulkan-drivers" in line for line in said["advice"])
    write_picture(tmp_path / "a.png", Picture(picture()))
    result = upfrost(
        *("upscale", tmp_path / "a.png"),
        real=True,
        VK_DRIVER_FILES=nothing,
        VK_ICD_FILENAMES=nothing,
    )
    assert "mesa-vulkan-drivers" in only_error(result, 1)


def test_models_and_info_agree() -> None:
    models = json.loads(upfrost("models", "--json", real=True).stdout)
    assert [entry["name"] for entry in models] == list(bundled_models())
    for entry in models:
        info = upfrost("info", entry["name"], "--json", real=True)
        assert json.loads(info.stdout) == entry
        assert entry["parameters"] > 0
        assert entry["macs_per_output_pixel"] > 0
        assert min(entry["receptive_field"]) >= 1
        assert entry["licence"]
        assert entry["training_data"]
    table = upfrost("models", real=True).stdout
    assert len(table.splitlines()) == 1 + len(models)
    assert max(map(len, table.splitlines())) < 80


def test_info_for_people() -> None:
    result = upfrost("info", "realtime-x2", real=True)
    assert result.returncode == 0
    labels = {line[:16].strip() for line in result.stdout.splitlines()} - {""}
    assert labels >= {"name", "scale", "parameters", "work", "receptive field"}
    assert labels >= {"licence", "training data"}
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_info_on_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.upf"
    path.write_bytes(bundled_models()["realtime-x2"].read_bytes())
    assert upfrost("info", path, real=True).returncode == 0
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in only_error(upfrost("info", path, real=True), 1)
    only_error(upfrost("info", tmp_path / "gone.upf", real=True), 1)


# Upscaling


def test_a_real_picture_on_the_real_device(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "a-x2.png"
    rgb = picture(24, 35)
    write_picture(source, Picture(rgb))
    result = upfrost("upscale", source, "--json", real=True)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    with Upscaler("realtime-x2") as upscaler:
        np.testing.assert_array_equal(read_picture(target).rgb, upscaler(rgb))
        assert said["device"] == upscaler.device.name
        assert said["precision"] == upscaler.precision
        plan = upscaler.loaded_plan
        assert plan is not None
        assert said["tile_size"] == [plan.width, plan.height]
        assert said["device_bytes"] == plan.bytes
        assert said["overhead"] == upscaler.overhead == 1
        on_cpu = not upscaler.device.is_gpu
    assert said["output_size"] == [70, 48]
    assert ("runs on the CPU" in result.stderr) == on_cpu


@pytest.mark.skipif(PANVK is None, reason="UPFROST_PANVK names no dead GPU's driver")
@pytest.mark.parametrize("product", ["7402", "a867"])
def test_a_dead_gpu_is_an_error_and_leaves_no_file(
    tmp_path: Path, product: str
) -> None:
    assert PANVK is not None
    source = tmp_path / "a.png"
    write_picture(source, Picture(picture(24, 35)))
    driver = str(Path(PANVK, "panfrost_icd.json"))
    result = upfrost(
        *("upscale", source),
        real=True,
        PAN_GPU_ID=product,
        VK_DRIVER_FILES=driver,
        VK_ICD_FILENAMES=driver,
        LD_PRELOAD=str(Path(PANVK, "libpanfrost_noop_drm_shim.so")),
    )
    assert result.returncode == 1
    assert "a.png: the device reported success but did not compute" in result.stderr
    assert files(tmp_path) == ["a.png"]


def test_folders_formats_and_names(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    write_picture(source / "a.png", Picture(picture()))
    write_picture(source / "b.webp", Picture(picture()))
    write_picture(source / "deep/c.bmp", Picture(picture()))
    result = upfrost("upscale", source, "-r", "-o", out, "--format", "tiff")
    assert result.returncode == 0, result.stderr
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.tif")) == [
        "a-x2.tif",
        "b-x2.tif",
        "deep/c-x2.tif",
    ]
    assert read_picture(out / "deep/c-x2.tif").size == (18, 12)
    assert result.stdout == ""
    # Another run leaves everything as it is.
    times = [path.stat().st_mtime_ns for path in sorted(out.rglob("*.tif"))]
    again = upfrost("upscale", source, "-r", "-o", out, "--format", "tiff")
    assert again.returncode == 1
    assert again.stderr.count("exists already; --overwrite") == 3
    skipped = upfrost(
        *("upscale", source, "-r", "-o", out, "--format", "tiff", "--skip-existing")
    )
    assert skipped.returncode == 0
    assert times == [path.stat().st_mtime_ns for path in sorted(out.rglob("*.tif"))]


def test_bad_inputs_get_one_line_each(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(picture(100, 150)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("words\n")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "void").mkdir()
    bad = ["cut.jpg", "empty.png", "text.png", "loop.png", "void", "gone.png", "x*.png"]
    result = upfrost("upscale", *(tmp_path / name for name in bad), whole, "--json")
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if "upfrost: " in line]
    for name in bad:
        assert sum(f"{tmp_path / name}: " in line for line in lines) == 1, name
    assert len(lines) == len(bad) + 1
    assert lines[-1].startswith("upfrost: 7 of 8 failed: ")
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert {
        Path(entry["input"]).name: entry["status"] for entry in said
    } == dict.fromkeys(bad, "failed") | {"whole.jpg": "done"}
    assert all(("error" in entry) == (entry["status"] == "failed") for entry in said)
    assert "whole-x2.jpg" in files(tmp_path)


def test_two_results_of_one_name_stop_everything(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "b.png"):
        write_picture(tmp_path / name, Picture(picture()))
    result = upfrost(
        *("upscale", tmp_path / "b.png", tmp_path / "a.png", tmp_path / "a.bmp"),
        *("--format", "png", "-o", tmp_path / "out"),
    )
    assert "would both become" in only_error(result, 2)
    assert not (tmp_path / "out").exists()


def test_a_cpu_device_is_said_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, Picture(picture()))
    result = upfrost("upscale", tmp_path, "--quiet", FAKE_CPU="1")
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) == 1
    assert "no GPU" in result.stderr
    chosen = upfrost(
        "upscale", tmp_path, "-q", "--overwrite", "--device", "0", FAKE_CPU="1"
    )
    assert chosen.stderr == "", "whoever names the device knows it"


def test_plain_output_has_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[1m.png"
    write_picture(path, Picture(picture()))
    result = upfrost("upscale", path, FAKE_TILES="3")
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr


def test_names_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    write_picture(path, Picture(picture()))
    result = upfrost("upscale", path, "--json", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["status"] == "done"


def test_a_traceback_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture(first=UNLUCKY)))
    arguments = ("upscale", path)
    line = only_error(upfrost(*arguments, FAKE_FAULT="bug"), 1)
    assert "UPFROST_TRACEBACK=1" in line
    result = upfrost(*arguments, FAKE_FAULT="bug", UPFROST_TRACEBACK="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    result = upfrost("info", tmp_path / "gone", real=True, UPFROST_TRACEBACK="1")
    assert "Traceback" in result.stderr


def test_an_output_folder_that_vanishes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, first in (("a.png", 1), ("b.png", UNLUCKY), ("c.png", 1)):
        write_picture(tmp_path / name, Picture(picture(first=first)))
    result = upfrost("upscale", tmp_path, "-o", out, FAKE_FAULT="folder")
    assert result.returncode == 1
    assert "b-x2.png: cannot be written: No such file or directory" in result.stderr
    assert f"{out}: no such folder" in result.stderr
    assert not out.exists(), "it may be where a disk was: not made again"


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit of the kernel's on the size of a file stands for the end of a disk."""
    for name, size in (("a.png", 200), ("b.png", 5)):
        write_picture(tmp_path / name, Picture(picture(size, size)))
    result = subprocess.run(
        command("upscale", tmp_path, "-o", tmp_path / "out", "--format", "bmp"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert "a-x2.bmp: cannot be written: File too large" in result.stderr
    assert files(tmp_path / "out") == ["b-x2.bmp"], "the next one fits"


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    """`upfrost models | head -0`: no traceback, no complaint at exit."""
    process = subprocess.Popen(
        command("models", "--json", real=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, text = process.communicate(timeout=60)
    assert text == b""
    assert process.returncode == 1


def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture()))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command("upscale", path),
        env=os.environ | {"TERM": "xterm", "FAKE_TILES": "5", "FAKE_SECONDS": "0.15"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            seen += os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
    os.close(leader)
    assert process.wait(timeout=60) == 0
    assert b"\r\x1b[K" in seen
    assert b"of 5 tiles" in seen
    assert b"Mpixel/s" in seen
    assert seen.count(b"\n") == 1, "one line stays"


# Stopping


def start(tmp_path: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """A command on three pictures that has written the first and is in the second."""
    source = tmp_path / "in"
    source.mkdir()
    for name, first in (("a.png", 1), ("b.png", UNLUCKY), ("c.png", 1)):
        write_picture(source / name, Picture(picture(first=first)))
    process = subprocess.Popen(
        command("upscale", source, "-o", tmp_path / "out", *options),
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (tmp_path / "out/a-x2.png").exists():
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("streamed", ["", "1"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_it_without_half_files(
    tmp_path: Path, number: signal.Signals, code: int, streamed: str
) -> None:
    with start(tmp_path, FAKE_FAULT="slow", FAKE_STREAM=streamed) as process:
        process.send_signal(number)
        _, text = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"upfrost: stopped by {number.name}" in text.splitlines()
    assert "Traceback" not in text
    assert set(files(tmp_path / "out")) <= {"a-x2.png"}


def main_thread_ticks(process: int) -> int:
    """Processor time of its main thread, in ticks of the kernel's (mostly 10 ms)."""
    about = Path(f"/proc/{process}/task/{process}/stat").read_text()
    return int(about.rpartition(")")[2].split()[11])


def test_a_call_that_does_not_return_is_ended_too(tmp_path: Path) -> None:
    """The main thread is in a C function for hours; see `signals.GRACE`."""
    with start(tmp_path, FAKE_FAULT="stuck") as process:
        assert process.stderr is not None
        while process.stderr.readline() != "stuck\n":
            assert process.poll() is None
        # From that line to the call it is microseconds of the thread's own time.
        begun = main_thread_ticks(process.pid) + 10
        while main_thread_ticks(process.pid) < begun:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=60)
    assert process.returncode == 143
    assert text.splitlines()[-1] == "upfrost: stopped"
    assert files(tmp_path / "out") == ["a-x2.png"]


def test_a_signal_while_the_device_works(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    write_picture(source, Picture(picture(800, 800)))
    terminal, theirs = os.openpty()
    process = subprocess.Popen(
        command("upscale", source, "-o", target, "--tile", "40", real=True),
        env=os.environ | {"TERM": "xterm"},
        stderr=theirs,
    )
    os.close(theirs)
    # Some of hundreds of tiles are done when their number is shown.
    seen = b""
    while b" tiles" not in seen:
        seen += os.read(terminal, 1000)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # how a terminal's end is told
        while os.read(terminal, 1000):
            pass
    assert process.wait(timeout=60) == 130
    os.close(terminal)
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_a_signal_while_writing(tmp_path: Path, suffix: str) -> None:
    """At whatever moment it comes, there is a whole file or none."""
    rng = np.random.default_rng(4)
    for moment in rng.uniform(0, 0.5, 2):
        source, out = tmp_path / "a.png", tmp_path / f"out{moment}"
        out.mkdir()
        if not source.exists():
            noise = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)
            write_picture(source, Picture(noise))
        process = subprocess.Popen(
            command("upscale", source, "-o", out, "--format", suffix),
            stderr=subprocess.DEVNULL,
        )
        # The temporary file shows when writing has begun.
        while process.poll() is None and not any(out.iterdir()):
            time.sleep(0.001)
        time.sleep(moment)
        process.send_signal(signal.SIGTERM)
        # Python itself is ended by the signal when it comes after the command.
        assert process.wait(timeout=60) in (0, 143, -signal.SIGTERM)
        left = list(out.iterdir())
        assert len(left) <= 1
        for path in left:
            assert path.name.startswith("a-x2.")
            assert read_picture(path).size == (1800, 1400)


# Two processes


def test_two_processes_on_one_device(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    write_picture(source, Picture(picture(60, 80)))
    processes = [
        subprocess.Popen(
            command("upscale", source, "--overwrite", real=True),
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    with Upscaler("realtime-x2") as upscaler:
        expected = upscaler(picture(60, 80))
    np.testing.assert_array_equal(read_picture(tmp_path / "a-x2.png").rgb, expected)
    assert files(tmp_path) == ["a-x2.png", "a.png"]


def test_two_processes_on_one_output_folder(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = [f"{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        write_picture(source / name, Picture(picture(40, 60, first=i)))

    def both(out: str, *options: str) -> list[subprocess.Popen[str]]:
        processes = [
            subprocess.Popen(
                command("upscale", source, "-o", tmp_path / out, "--json", *options),
                env=os.environ | {"FAKE_SECONDS": "0.02"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in processes:
            text, _ = process.communicate(timeout=60)
            said.append([json.loads(line)["status"] for line in text.splitlines()])
        assert files(tmp_path / out) == sorted(f"{i}-x2.png" for i in range(8))
        for i in range(8):
            expected = picture(40, 60, first=i).repeat(2, axis=0).repeat(2, axis=1)
            result = read_picture(tmp_path / out / f"{i}-x2.png").rgb
            np.testing.assert_array_equal(result, expected)
        return processes

    said: list[list[str]] = []
    both("plain")
    # Each picture is written by exactly one of them; the other says that it is there.
    assert all({a, b} == {"done", "failed"} for a, b in zip(*said, strict=True)), said
    said.clear()
    assert [process.returncode for process in both("skip", "--skip-existing")] == [0, 0]
    assert all({a, b} == {"done", "skipped"} for a, b in zip(*said, strict=True)), said
    said.clear()
    processes = both("over", "--overwrite")
    assert [process.returncode for process in processes] == [0, 0]
    assert said == [["done"] * 8] * 2
