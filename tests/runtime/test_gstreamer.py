"""The element `upfrostscale` in real pipelines, under Debian's own Python.

Needs what `make gstreamer` sets up; UPFROST_GSTREAMER names another place of it.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import luma_network, plain_network
from tests.runtime.clips import GRAPH, LUMA, make_clip
from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.gpu.frame import Frame, FrameFormat, Siting
from upfrost.network.modelfile import write_model

ROOT = Path(__file__).parents[2]
SETUP = Path(os.environ.get("UPFROST_GSTREAMER", ROOT / ".venv-gstreamer"))
pytestmark = pytest.mark.skipif(
    not (SETUP / "gstreamer.sh").is_file(), reason="needs what 'make gstreamer' sets up"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.upf"
    write_model(path, GRAPH)
    return path


@pytest.fixture(scope="module")
def tripling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tripling.upf"
    write_model(path, plain_network(seed=6, channels=4, layers=1, scale=3))
    return path


def shell(*words: str | Path, setup: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command where GStreamer knows the element, with a time limit."""
    command = shlex.join(map(str, words))
    if setup:
        command = f". {shlex.quote(str(SETUP / 'gstreamer.sh'))} && {command}"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        ["bash", "-c", command],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # a driver that compiles, on a machine that is busy
    )


def launch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return shell("gst-launch-1.0", "-q", *words)


def raw_frames(path: Path, width: int, height: int) -> Bytes:
    """Frames of RGB video as GStreamer writes it: rows padded to four bytes."""
    stride = -(-width * 3 // 4) * 4
    data = np.fromfile(path, np.uint8).reshape(-1, height, stride)
    return data[:, :, : width * 3].reshape(-1, height, width, 3)


def test_it_is_listed_with_its_properties() -> None:
    listed = shell("gst-inspect-1.0", "upfrostscale")
    assert listed.returncode == 0, listed.stderr
    for word in (
        "model",
        "device",
        "precision",
        "qos",
        "Filter/Converter/Video/Scaler",
        'Default: "live-x2-m"',
    ):
        assert word in listed.stdout


def test_frames_are_those_of_the_upscaler(tmp_path: Path, model: Path) -> None:
    source = ["videotestsrc", "num-buffers=3", "pattern=ball", "!"]
    source += ["video/x-raw,format=RGB,width=33,height=17,framerate=25/1", "!"]
    given, result = tmp_path / "given.raw", tmp_path / "result.raw"
    for path, words in ((given, []), (result, ["upfrostscale", f"model={model}", "!"])):
        done = launch(*source, *words, "filesink", f"location={path}")
        assert done.returncode == 0, done.stderr
    with Upscaler(GRAPH) as upscaler:
        expected = [upscaler(frame) for frame in raw_frames(given, 33, 17)]
    np.testing.assert_array_equal(raw_frames(result, 66, 34), expected)


@pytest.mark.parametrize("width", [64, 65])
def test_it_negotiates_what_its_model_can_make(
    tmp_path: Path, model: Path, width: int
) -> None:
    result = tmp_path / "result.raw"
    done = launch(
        *("videotestsrc", "num-buffers=1", "!", "upfrostscale", f"model={model}", "!"),
        *(f"video/x-raw,width={width},height=32", "!", "filesink"),
        f"location={result}",
    )
    if width % 2:  # refused before anything runs
        assert "can't handle caps video/x-raw, width=(int)65" in done.stderr
        assert done.returncode == 1
    else:
        assert done.returncode == 0, done.stderr
        assert len(raw_frames(result, 64, 32)) == 1


@pytest.mark.parametrize(
    ("pad", "given", "other"),
    [
        ("sink", "[1, 64]", "[ 2, 128, 2 ]"),
        ("src", "[1, 64]", "[ 1, 32 ]"),
        ("src", "[3, 63, 3]", "[ 3, 30, 3 ]"),
        ("src", "[3, 5]", "2"),
        ("src", "{ 3, [ 6, 9 ], 16 }", "{ [ 3, 4 ], 8 }"),
        ("sink", "{ 3, 20000 }", "6"),
        ("src", "7", "nothing"),
    ],
)
def test_sizes_on_the_other_side_are_exact(
    tmp_path: Path, model: Path, pad: str, given: str, other: str
) -> None:
    script = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        model, pad, given = sys.argv[1:]
        p = Gst.parse_launch(f"upfrostscale name=up model={model} ! capsfilter name=c")
        caps = Gst.Caps(f"video/x-raw,format=RGB,width=(int){given},height=32")
        if pad == "src":
            p.get_by_name("c").set_property("caps", caps)
            found = p.get_by_name("up").get_static_pad("sink").query_caps(None)
        else:
            end = Gst.ElementFactory.make("capsfilter")
            end.set_property("caps", caps)
            p.add(end)
            end.link(p.get_by_name("up"))
            found = p.get_by_name("up").get_static_pad("src").query_caps(None)
        sizes = found.to_string().partition("width=(int)")[2]
        print(sizes.partition(", height")[0] or "nothing")
    """
    done = python(tmp_path, script, model, pad, given)
    assert done.stdout == f"{other}\n", done.stderr


def test_a_change_of_size_in_the_middle(tmp_path: Path, model: Path) -> None:
    script = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        p = Gst.parse_launch(
            "videotestsrc num-buffers=12 ! capsfilter name=caps "
            "caps=video/x-raw,format=RGB,width=16,height=16 ! upfrostscale name=up "
            # One waits at most: all twelve could be made before the size changes.
            f"model={sys.argv[1]} ! appsink name=sink sync=false max-buffers=1")
        p.set_state(Gst.State.PLAYING)
        sizes = []
        while (sample := p.get_by_name("sink").emit("pull-sample")):
            sizes.append(sample.get_buffer().get_size() // (3 * 32))
            if len(sizes) == 3:
                p.get_by_name("caps").set_property(
                    "caps", Gst.Caps("video/x-raw,format=RGB,width=24,height=16"))
        p.set_state(Gst.State.NULL)
        print(len(sizes), sorted(set(sizes)))
    """
    done = python(tmp_path, script, model)
    assert done.stdout == "12 [32, 48]\n", done.stderr


def test_flushing_seeks_and_restarts_never_hang(tmp_path: Path, model: Path) -> None:
    script = """
        import random, sys, time, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        p = Gst.parse_launch(
            "videotestsrc num-buffers=2000 ! video/x-raw,width=16,height=16 ! "
            f"videoconvert ! upfrostscale model={sys.argv[1]} ! fakesink sync=true")
        rng = random.Random(5)
        p.set_state(Gst.State.PLAYING)
        p.get_state(Gst.CLOCK_TIME_NONE)
        for _ in range(12):
            time.sleep(rng.uniform(0, 0.1))
            p.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH,
                          rng.randrange(60) * Gst.SECOND)
        p.set_state(Gst.State.READY)
        p.set_state(Gst.State.PLAYING)
        p.get_state(Gst.CLOCK_TIME_NONE)
        p.send_event(Gst.Event.new_eos())
        message = p.get_bus().timed_pop_filtered(
            20 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
        p.set_state(Gst.State.NULL)
        print(message.type.first_value_nick)
    """
    done = python(tmp_path, script, model)
    assert done.stdout == "eos\n", done.stderr


def test_late_frames_are_dropped_when_asked_to(tmp_path: Path, model: Path) -> None:
    script = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        for qos in ("true", "false"):
            p = Gst.parse_launch(
                "videotestsrc num-buffers=60 ! "
                "video/x-raw,format=RGB,width=160,height=160,framerate=2000/1 ! "
                f"upfrostscale qos={qos} model={sys.argv[1]} ! "
                "fakesink name=sink sync=true qos=true")
            p.set_state(Gst.State.PLAYING)
            p.get_bus().timed_pop_filtered(
                50 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
            stats = p.get_by_name("sink").get_property("stats")
            print(stats.get_value("rendered") + stats.get_value("dropped"))
            p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, script, model)
    with_qos, without = map(int, done.stdout.split())
    assert without == 60
    assert with_qos < 60


def test_a_file_is_decoded_upscaled_and_ends(tmp_path: Path, model: Path) -> None:
    """VP8 in WebM, since plugins-good decode no H.264."""
    clip = make_clip(tmp_path / "clip.webm", "-c:v", "libvpx", "-b:v", "1M")
    source = ["filesrc", f"location={clip}", "!", "decodebin", "!", "videoconvert", "!"]
    given, result = tmp_path / "given.raw", tmp_path / "result.raw"
    larger = ["upfrostscale", f"model={model}", "!", "videoconvert", "!"]
    for path, words in ((given, []), (result, larger)):
        rgb = ["video/x-raw,format=RGB", "!", "filesink", f"location={path}"]
        done = launch(*source, *words, *rgb)
        assert done.returncode == 0, done.stderr
    with Upscaler(GRAPH) as upscaler:
        expected = [upscaler(frame) for frame in raw_frames(given, 64, 36)]
    assert len(expected) == 24
    np.testing.assert_array_equal(raw_frames(result, 128, 72), expected)


def test_a_transform_made_before_does_not_let_frames_pass_by(
    tmp_path: Path, model: Path
) -> None:
    script = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        before = Gst.ElementFactory.make("videoconvert")
        p = Gst.parse_launch(
            "videotestsrc num-buffers=2 ! video/x-raw,width=16,height=16 ! "
            f"videoconvert ! upfrostscale model={sys.argv[1]} ! appsink name=sink")
        p.set_state(Gst.State.PLAYING)
        caps = p.get_by_name("sink").emit("pull-sample").get_caps().to_string()
        p.set_state(Gst.State.NULL)
        print("width=(int)32" in caps, caps)
    """
    assert python(tmp_path, script, model).stdout.startswith("True")


# Properties that change. PULL gives the size and the bytes of the next frame.

PLAYER = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        model, other = sys.argv[1:3]
        p = Gst.parse_launch(
            "videotestsrc num-buffers=200 pattern=smpte75 ! "
            "video/x-raw,format=RGB,width=16,height=16 ! upfrostscale name=up "
            f"model={model} ! capsfilter name=filter ! "
            "appsink name=sink sync=false max-buffers=1")
        up, sink, bus = p.get_by_name("up"), p.get_by_name("sink"), p.get_bus()
        kinds = Gst.MessageType.ERROR | Gst.MessageType.WARNING | Gst.MessageType.EOS
        def pull():
            sample = sink.emit("pull-sample")
            buffer = sample.get_buffer()
            return int((buffer.get_size() / 3) ** 0.5), buffer.extract_dup(0, 9999)
        def said():
            message = bus.timed_pop_filtered(20 * Gst.SECOND, kinds)
            if message.type == Gst.MessageType.WARNING:
                return message.parse_warning()[0].message
            if message.type == Gst.MessageType.ERROR:
                return message.parse_error()[0].message
            return "the end"
"""


def test_a_model_set_after_linking_is_the_one_that_runs(
    tmp_path: Path, model: Path, tripling: Path
) -> None:
    script = """
        up.set_property("model", other)
        p.set_state(Gst.State.PLAYING)
        print(pull()[0])
        p.set_state(Gst.State.NULL)
        up.set_property("model", model)
        p.set_state(Gst.State.PLAYING)
        print(pull()[0])
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, PLAYER + script, model, tripling)
    assert done.stdout.split() == ["48", "32"], done.stderr


def test_after_a_wrong_model_a_right_one_works(tmp_path: Path, model: Path) -> None:
    script = """
        up.set_property("model", "nonsense")
        p.set_state(Gst.State.PLAYING)
        print(said())
        p.set_state(Gst.State.NULL)
        up.set_property("model", model)
        p.set_state(Gst.State.PLAYING)
        print(pull()[0])
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, PLAYER + script, model, "")
    first, second = done.stdout.splitlines()
    assert "nonsense" in first
    assert second == "32", done.stderr


def test_a_model_set_while_frames_pass_takes_over_between_two(
    tmp_path: Path, model: Path, tripling: Path
) -> None:
    """One of the same factor, then one whose frames have another size."""
    other = tmp_path / "other.upf"
    graph = plain_network(seed=7, channels=4, layers=1)
    write_model(other, graph)
    script = """
        p.set_state(Gst.State.PLAYING)
        first = [pull()]
        up.set_property("model", other)
        second = [pull() for _ in range(8)]
        up.set_property("model", sys.argv[3])
        third = [pull() for _ in range(8)]
        p.set_state(Gst.State.NULL)
        print([size for size, _ in first + second + third])
        for name, frames in (("first", first), ("second", second)):
            with open(f"{sys.argv[4]}/{name}", "wb") as file:
                file.write(frames[-1][1])
    """
    done = python(tmp_path, PLAYER + script, model, other, tripling, tmp_path)
    sizes = [int(size) for size in done.stdout.strip("[]\n").split(",")]
    assert sizes[:9] == [32] * 9, done.stderr
    # Frames that waited between the elements have the old size still.
    assert sorted(sizes[9:]) == sizes[9:]
    assert sizes[-1] == 48
    given = tmp_path / "given"
    launch(
        *("videotestsrc", "num-buffers=1", "pattern=smpte75", "!"),
        *("video/x-raw,format=RGB,width=16,height=16", "!"),
        *("filesink", f"location={given}"),
    )
    for name, network in (("first", GRAPH), ("second", graph)):
        with Upscaler(network) as upscaler:
            expected = upscaler(raw_frames(given, 16, 16)[0])
        np.testing.assert_array_equal(raw_frames(tmp_path / name, 32, 32)[0], expected)


def test_settings_that_cannot_be_had_are_refused_and_frames_go_on(
    tmp_path: Path, model: Path, tripling: Path
) -> None:
    script = """
        fixed = Gst.Caps("video/x-raw,width=32,height=32")
        p.get_by_name("filter").set_property("caps", fixed)
        p.set_state(Gst.State.PLAYING)
        pull()
        for name, value in (("model", "nonsense"), ("model", other),
                            ("device", "no such device"), ("precision", "fp8")):
            before = up.get_property(name)
            up.set_property(name, value)
            print(up.get_property(name) == before, said())
        frames = [pull()[0] for _ in range(5)]
        p.set_state(Gst.State.NULL)
        print(frames)
    """
    done = python(tmp_path, PLAYER + script, model, tripling)
    *refused, frames = done.stdout.splitlines()
    assert frames == str([32] * 5), done.stderr
    assert len(refused) == 4
    for line, name, word in zip(
        refused,
        ("model", "model", "device", "precision"),
        ("nonsense", "48×48 of 16×16", "no such device", "fp8"),
        strict=True,
    ):
        assert line.startswith(f"True {name} stays "), line
        assert word in line


# Frames that are not what they should be


def test_a_frame_shorter_than_its_caps_say_is_refused(
    tmp_path: Path, model: Path
) -> None:
    script = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        p = Gst.parse_launch(
            "appsrc name=source caps=video/x-raw,format=RGB,width=16,height=16,"
            "framerate=25/1 ! upfrostscale "
            f"model={sys.argv[1]} ! fakesink")
        p.set_state(Gst.State.PLAYING)
        p.get_by_name("source").emit("push-buffer", Gst.Buffer.new_wrapped(bytes(100)))
        message = p.get_bus().timed_pop_filtered(
            20 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
        print(message.parse_error()[0].message)
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, script, model)
    assert "100 bytes" in done.stdout, done.stderr
    assert "16×16, it has 768" in done.stdout


@pytest.mark.parametrize("mode", ["interleaved", "mixed", "alternate"])
def test_interlaced_video_is_refused_by_name(
    tmp_path: Path, model: Path, mode: str
) -> None:
    # Not by gst-launch-1.0: an error that comes before its main loop begins ends a loop
    # that is not there yet, and it waits for ever.
    script = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        model, mode = sys.argv[1:]
        p = Gst.parse_launch(
            "appsrc name=source ! upfrostscale name=up "
            f"model={model} ! fakesink")
        feature = "(format:Interlaced)" if mode == "alternate" else ""
        source = p.get_by_name("source")
        source.set_property("caps", Gst.Caps(
            f"video/x-raw{feature},format=RGB,width=16,height=16,framerate=25/1,"
            f"interlace-mode={mode}"))
        source.emit("push-buffer", Gst.Buffer.new_wrapped(bytes(768)))
        p.set_state(Gst.State.PLAYING)
        message = p.get_bus().timed_pop_filtered(
            20 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
        print(message.parse_error()[0].message)
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, script, model, mode)
    assert f"interlace-mode={mode}" in done.stdout, done.stderr
    assert "put 'deinterlace' before it" in done.stdout


@pytest.mark.parametrize("before", ["", "import numpy"])
def test_frames_that_take_long_are_waited_for(tmp_path: Path, before: str) -> None:
    """Waiting throws in C++; NumPy's and GStreamer's libraries differ in how."""
    script = f"""
        {before}
        import gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        p = Gst.parse_launch(
            "videotestsrc num-buffers=1 ! video/x-raw,format=I420,width=640,height=360"
            " ! upfrostscale model=live-x2-m ! fakesink")
        p.set_state(Gst.State.PLAYING)
        ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
        print(p.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends).type)
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, script)
    assert "MESSAGE_EOS" in done.stdout, done.stderr


def test_without_upfrost_the_error_says_what_to_do(tmp_path: Path) -> None:
    plugins = ROOT / "runtime" / "gstreamer"
    done = shell(
        # Debian's own Python; with another first in PATH, none of our lines is run.
        *("env", "-u", "VIRTUAL_ENV", "PATH=/usr/bin:/bin"),
        *(f"GST_PLUGIN_PATH={plugins}", f"GST_REGISTRY={tmp_path / 'registry'}"),
        *("gst-launch-1.0", "videotestsrc", "num-buffers=1", "!", "upfrostscale", "!"),
        "fakesink",
        setup=False,
    )
    assert done.returncode != 0
    assert "make gstreamer" in done.stderr


def test_a_model_that_is_not_there_is_an_error_on_the_bus() -> None:
    done = launch("videotestsrc", "!", "upfrostscale", "model=nothing", "!", "fakesink")
    assert done.returncode != 0
    assert "nothing" in done.stderr


def python(
    folder: Path, script: str, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a script under the Python of the element's environment."""
    lines = script.splitlines()
    path = folder / "script.py"
    path.write_text("\n".join(line[8:] for line in lines))
    return shell("python", path, *arguments)


# Luma


@pytest.fixture(scope="module")
def luma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "luma.upf"
    write_model(path, LUMA)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("I420", FrameFormat("420")),
        ("NV12", FrameFormat("420", interleaved=True, siting="centre")),
        ("Y42B", FrameFormat("422", range="full")),
        ("Y444", FrameFormat("444")),
        ("I420_10LE", FrameFormat("420", bits=10, siting="top-left")),
        ("P010_10LE", FrameFormat("420", interleaved=True, bits=10, shift=6)),
    ],
)
def test_a_network_for_luma_takes_planes_as_they_are(
    tmp_path: Path, luma: Path, name: str, kind: FrameFormat
) -> None:
    site = {"left": "mpeg2", "centre": "jpeg", "top-left": "cosited"}[kind.siting]
    reach = {"limited": 2, "full": 1}[kind.range]
    # Of a size whose rows have no padding, and numbers of strides are none.
    source = [*("videotestsrc", "num-buffers=2", "pattern=ball", "!")]
    source += [
        f"video/x-raw,format={name},width=32,height=18,framerate=25/1,"
        f"chroma-site={site},colorimetry={reach}:4:5:4"
    ]
    given, result = tmp_path / "given.raw", tmp_path / "result.raw"
    for path, words in ((given, []), (result, ["!", "upfrostscale", f"model={luma}"])):
        done = launch(*source, *words, "!", "filesink", f"location={path}")
        assert done.returncode == 0, done.stderr
    small = np.fromfile(given, np.uint8).reshape(2, kind.frame_bytes(18, 32))
    large = np.fromfile(result, np.uint8).reshape(2, kind.frame_bytes(36, 64))
    with Upscaler(LUMA) as upscaler:
        for one, other in zip(small, large, strict=True):
            expected = upscaler.frame(Frame.of_bytes(kind, 18, 32, one))
            found = Frame.of_bytes(kind, 36, 64, other)
            for plane, wanted in zip(found.planes, expected.planes, strict=True):
                np.testing.assert_array_equal(plane, wanted)


def test_a_network_for_luma_takes_rgb_and_one_for_rgb_no_planes(
    tmp_path: Path, luma: Path, model: Path
) -> None:
    words = ["videotestsrc", "num-buffers=1", "!"]
    ends = ["filesink", f"location={tmp_path / 'out.raw'}"]
    rgb = "video/x-raw,format=RGB,width=32,height=18"
    done = launch(*words, rgb, "!", "upfrostscale", f"model={luma}", "!", *ends)
    assert done.returncode == 0, done.stderr
    assert raw_frames(tmp_path / "out.raw", 64, 36).shape == (1, 36, 64, 3)
    planes = "video/x-raw,format=I420,width=32,height=18"
    done = launch(*words, planes, "!", "upfrostscale", f"model={model}", "!", *ends)
    assert done.returncode != 0


# What samples mean. FRAMES pushes buffers, and pulls results with their caps.

FRAMES = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        gi.require_version("GstVideo", "1.0")
        from gi.repository import Gst, GstVideo
        Gst.init(None)
        def caps_of(fields):
            return Gst.Caps(f"video/x-raw,framerate=25/1,{fields}")
        p = Gst.parse_launch(
            f"appsrc name=source format=time ! upfrostscale name=up model={sys.argv[1]}"
            " ! capsfilter name=filter ! appsink name=sink sync=false")
        source, up, sink = map(p.get_by_name, ("source", "up", "sink"))
        bus = p.get_bus()
        def start(caps):
            source.set_property("caps", caps)
            p.set_state(Gst.State.PLAYING)
        def push(buffer):
            source.emit("push-buffer", buffer)
            while (sample := sink.emit("try-pull-sample", Gst.SECOND // 10)) is None:
                message = bus.pop_filtered(Gst.MessageType.ERROR)
                if message is not None:
                    return message.parse_error()[0].message
            return sample
        def push_empty(caps):
            size = GstVideo.VideoInfo.new_from_caps(caps).size
            return push(Gst.Buffer.new_wrapped(bytes([99]) * size))
        def structure_of(caps):
            found = caps.get_structure(0)
            # Since 1.26 in a context of its own.
            return found.__enter__() if hasattr(found, "__enter__") else found
"""


def larger_caps(
    folder: Path, luma: Path, given: str, wanted: str = "video/x-raw"
) -> dict[str, str]:
    """Fields of the results' caps, or an error, for frames of `given` caps."""
    script = """
        caps = caps_of(sys.argv[2])
        p.get_by_name("filter").set_property("caps", Gst.Caps(sys.argv[3]))
        start(caps)
        found = push_empty(caps)
        if isinstance(found, str):
            print("error", found, sep="=")
        else:
            caps = found.get_caps()  # which keep what is in them
            fields = structure_of(caps)
            for number in range(fields.n_fields()):
                name = fields.nth_field_name(number)
                print(name, fields.get_value(name), sep="=")
        p.set_state(Gst.State.NULL)
    """
    done = python(folder, FRAMES + script, luma, given, wanted)
    assert done.stdout, done.stderr
    lines = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in lines}


@pytest.mark.parametrize(
    ("given", "colours", "site"),
    [
        ("height=360", "bt601", "jpeg"),
        ("height=720", "bt709", "mpeg2"),
        ("height=360,colorimetry=2:0:0:0", "bt601", "jpeg"),
        ("height=720,colorimetry=2:0:0:0", "bt709", "mpeg2"),
        ("height=360,colorimetry=1:0:0:0", "1:4:16:4", "jpeg"),
        ("height=360,colorimetry=2:3:0:0", "bt709", "mpeg2"),
        ("height=360,colorimetry=bt709", "bt709", "mpeg2"),
        ("height=360,colorimetry=bt601,chroma-site=cosited", "bt601", "cosited"),
        ("height=360,chroma-site=mpeg2", "bt601", "mpeg2"),
    ],
)
def test_larger_frames_say_what_was_meant_by_the_small_ones(
    tmp_path: Path, luma: Path, given: str, colours: str, site: str
) -> None:
    found = larger_caps(tmp_path, luma, f"format=I420,width=16,{given}")
    assert found["colorimetry"] == colours
    assert found["chroma-site"] == site


def test_colours_stay_where_sd_becomes_hd(tmp_path: Path) -> None:
    pixels = []
    for words in ([], ["upfrostscale", "model=live-x2-xs", "!"]):
        path = tmp_path / "out.raw"
        done = launch(
            *("videotestsrc", "num-buffers=1", "pattern=red", "!"),
            *("video/x-raw,format=I420,width=16,height=360", "!", *words),
            *("videoconvert", "!", "video/x-raw,format=RGB", "!"),
            *("filesink", f"location={path}"),
        )
        assert done.returncode == 0, done.stderr
        height = 360 * (2 if words else 1)
        pixels.append(raw_frames(path, height // 360 * 16, height)[0, 100, 8])
    # A network may move a flat colour by a level; another matrix moves green by 21.
    before, after = (pixel.astype(int) for pixel in pixels)
    np.testing.assert_allclose(after, before, rtol=0, atol=2)


@pytest.mark.parametrize(
    ("given", "wanted", "colours"),
    [
        ("", "colorimetry=bt601", "bt601"),
        ("", "colorimetry=2:4:16:4", "2:4:16:4"),
        # Of frames that say nothing a filter may say what they are.
        ("", "colorimetry=bt709", "bt709"),
        (",colorimetry=2:0:0:0", "colorimetry=bt709", "bt709"),
        (",colorimetry=2:0:0:0", "colorimetry=2:0:0:0", "2:0:0:0"),
        (",colorimetry=bt601", "chroma-site=jpeg", "bt601"),
        (",colorimetry=bt601", "colorimetry=bt709", None),
        (",colorimetry=2:0:0:0", "colorimetry=1:3:5:1", None),
        (",chroma-site=jpeg", "chroma-site=mpeg2", None),
    ],
)
def test_a_filter_after_it_is_negotiated_with(
    tmp_path: Path, luma: Path, given: str, wanted: str, colours: str | None
) -> None:
    caps = f"format=I420,width=16,height=360{given}"
    found = larger_caps(tmp_path, luma, caps, f"video/x-raw,{wanted}")
    assert found.get("colorimetry") == colours
    assert ("error" in found) == (colours is None)


def test_a_source_learns_which_colours_the_next_element_takes(
    tmp_path: Path, luma: Path
) -> None:
    caps = "video/x-raw,format=I420,width=16,height=36"
    for given in ("", ",colorimetry=2:0:0:0", ",colorimetry=0:4:0:0"):
        done = launch(
            *("videotestsrc", "num-buffers=1", "!", f"{caps}{given}", "!"),
            *("upfrostscale", f"model={luma}", "!", "video/x-raw,colorimetry=bt601"),
            *("!", "filesink", f"location={tmp_path / 'out.raw'}"),
        )
        assert done.returncode == 0, done.stderr


def test_what_is_known_of_hdr_is_carried(tmp_path: Path, luma: Path) -> None:
    display = "35400:14600:8500:39850:6550:2300:15635:16450:10000000:1"
    found = larger_caps(
        tmp_path,
        luma,
        "format=P010_10LE,width=16,height=16,colorimetry=bt2100-pq,chroma-site=cosited,"
        f"mastering-display-info=(string){display},content-light-level=(string)1000:400",
    )
    assert found["colorimetry"] == "bt2100-pq"
    assert found["chroma-site"] == "cosited"
    assert found["mastering-display-info"] == display
    assert found["content-light-level"] == "1000:400"


def test_rgb_says_no_more_than_before(tmp_path: Path, luma: Path) -> None:
    found = larger_caps(tmp_path, luma, "format=RGB,width=16,height=360")
    assert "colorimetry" not in found
    assert "chroma-site" not in found


def test_colours_follow_caps_that_change(tmp_path: Path, luma: Path) -> None:
    script = """
        first = caps_of("format=I420,width=16,height=360")
        start(first)
        for caps in (first, caps_of("format=I420,width=16,height=720"), first):
            source.set_property("caps", caps)
            found = push_empty(caps).get_caps()
            fields = structure_of(found)
            print(fields.get_value("height"), fields.get_value("colorimetry"))
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, FRAMES + script, luma)
    lines = ["720 bt601", "1440 bt709", "720 bt601"]
    assert done.stdout.splitlines() == lines, done.stderr


@pytest.mark.parametrize(
    ("fields", "siting"),
    [
        ("", "centre"),
        (",chroma-site=mpeg2", "left"),
        (",chroma-site=cosited", "top-left"),
        (",chroma-site=v-cosited", "top"),
        (",chroma-site=mpeg2,colorimetry=2:0:0:0", "left"),
    ],
)
def test_where_chroma_lies_is_heard_without_colorimetry(
    tmp_path: Path, luma: Path, fields: str, siting: Siting
) -> None:
    kind = FrameFormat("420", siting=siting)
    given, result = tmp_path / "given.raw", tmp_path / "result.raw"
    caps = f"video/x-raw,format=I420,width=32,height=18{fields}"
    source = ["videotestsrc", "num-buffers=1", "pattern=smpte", "!", caps, "!"]
    for path, words in ((given, []), (result, ["upfrostscale", f"model={luma}", "!"])):
        done = launch(*source, *words, "filesink", f"location={path}")
        assert done.returncode == 0, done.stderr
    # Strides are multiples of four, which 16 columns of chroma are.
    small = Frame.of_bytes(kind, 18, 32, np.fromfile(given, np.uint8))
    large = Frame.of_bytes(kind, 36, 64, np.fromfile(result, np.uint8))
    with Upscaler(LUMA) as upscaler:
        expected = upscaler.frame(small)
    for plane, wanted in zip(large.planes, expected.planes, strict=True):
        np.testing.assert_array_equal(plane, wanted)


@pytest.mark.parametrize("site", ["dv", "alt-line"])
def test_chroma_on_lines_in_turn_is_warned_of(
    tmp_path: Path, luma: Path, site: str
) -> None:
    script = """
        caps = caps_of(f"format=I420,width=16,height=36,chroma-site={sys.argv[2]}")
        start(caps)
        push_empty(caps)
        said = bus.pop_filtered(Gst.MessageType.WARNING)
        print(said.parse_warning()[0].message)
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, FRAMES + script, luma, site)
    assert f"chroma-site={site}: U and V lie on lines in turn" in done.stdout, (
        done.stderr
    )


# Rows that are padded as decoders' hardware has it


@pytest.mark.parametrize("name", ["I420", "NV12", "Y42B", "P010_10LE", "RGB"])
def test_planes_lie_where_the_buffer_says(
    tmp_path: Path, luma: Path, name: str
) -> None:
    script = """
        import random
        name = sys.argv[2]
        caps = caps_of(f"format={name},width=32,height=18,colorimetry=bt601")
        info = GstVideo.VideoInfo.new_from_caps(caps)
        rng = random.Random(5)
        data = rng.randbytes(info.size)
        count = info.finfo.n_planes
        ends = [*info.offset[1:count], info.size]
        planes = [data[a:b] for a, b in zip(info.offset, ends)]
        def meta(bytes, offsets, strides):
            buffer = Gst.Buffer.new_wrapped(bytes)
            GstVideo.buffer_add_video_meta_full(
                buffer, 0, info.finfo.format, 32, 18, count,
                offsets + [0] * (4 - count), strides + [0] * (4 - count))
            return buffer
        def padded(extra, gap, upside_down=False):
            whole, offsets, strides = b"", [], []
            for plane, stride in zip(planes, info.stride):
                rows = [plane[i:i + stride] + rng.randbytes(extra)
                        for i in range(0, len(plane), stride)]
                whole += rng.randbytes(gap)
                step = stride + extra
                offsets.append(len(whole) + upside_down * step * (len(rows) - 1))
                strides.append(-step if upside_down else step)
                whole += b"".join(rows[::-1] if upside_down else rows)
            return meta(whole, offsets, strides)
        start(caps)
        def pull(buffer):
            sample = push(buffer)
            return sample.get_buffer().extract_dup(0, 1 << 20)
        expected = pull(Gst.Buffer.new_wrapped(data))
        print(pull(padded(0, 0)) == expected, pull(padded(32, 64)) == expected,
              pull(padded(6, 2, True)) == expected, len(set(expected)) > 9)
        print(push(meta(data, [0] * count, [100] * count)))
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, FRAMES + script, luma, name)
    equal, refused = done.stdout.splitlines()
    assert equal == "True True True True", done.stderr
    assert "GstVideoMeta" in refused
    assert f"{name} of 32×18" in refused


def test_frames_that_a_decoder_pads_are_those_that_it_does_not(
    tmp_path: Path, luma: Path
) -> None:
    """libvpx lends its own frames, with borders, to elements that know the meta."""
    clip = make_clip(tmp_path / "clip.webm", "-c:v", "libvpx-vp9", "-b:v", "1M")
    source = ["filesrc", f"location={clip}", "!", "matroskademux", "!", "vp9dec", "!"]
    given, result = tmp_path / "given.raw", tmp_path / "result.raw"
    for path, words in ((given, []), (result, ["upfrostscale", f"model={luma}", "!"])):
        done = launch(*source, *words, "filesink", f"location={path}")
        assert done.returncode == 0, done.stderr
    # The clip names no colours, and of SD GStreamer then takes chroma for centred.
    kind = FrameFormat("420", siting="centre")
    small = np.fromfile(given, np.uint8).reshape(-1, kind.frame_bytes(36, 64))
    large = np.fromfile(result, np.uint8).reshape(-1, kind.frame_bytes(72, 128))
    with Upscaler(LUMA) as upscaler:
        for one, other in zip(small, large, strict=True):
            expected = upscaler.frame(Frame.of_bytes(kind, 36, 64, one))
            found = Frame.of_bytes(kind, 72, 128, other)
            for plane, wanted in zip(found.planes, expected.planes, strict=True):
                np.testing.assert_array_equal(plane, wanted)


def test_decoders_learn_that_rows_may_be_padded(tmp_path: Path, luma: Path) -> None:
    script = """
        caps = caps_of("format=I420,width=32,height=18")
        start(caps)
        push_empty(caps)
        query = Gst.Query.new_allocation(caps, True)
        print(up.get_static_pad("sink").query(query),
              query.find_allocation_meta(GstVideo.video_meta_api_get_type())[0])
        p.set_state(Gst.State.NULL)
    """
    done = python(tmp_path, FRAMES + script, luma)
    assert done.stdout == "True True\n", done.stderr


# model=auto. AUTO has an upscaler that takes no time but a clock's, which it moves by
# its model and by `load`.


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, each with more work than the one before."""
    folder = tmp_path_factory.mktemp("models")
    for name, channels in (("xs", 4), ("s", 8), ("m", 12)):
        graph = luma_network(seed=5, channels=channels, layers=1)
        path = folder / f"live-x2-{name}.upf"
        write_model(path, dataclasses.replace(graph, name=path.stem))
    return folder


AUTO = """
        import sys, gi
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
        Gst.init(None)
        p = Gst.parse_launch(
            "appsrc name=source format=time caps=video/x-raw,format=I420,width=64,"
            "height=32,framerate=25/1 ! upfrostscale name=up model=auto ! "
            "appsink name=sink sync=false")
        up, sink, bus = p.get_by_name("up"), p.get_by_name("sink"), p.get_bus()
        import pathlib, upfrost
        from upfrost.video import live
        models = {path.stem: path for path in pathlib.Path(sys.argv[1]).glob("*.upf")}
        live.bundled_models = lambda: models
        seconds = {"live-x2-xs": 0.004, "live-x2-s": 0.007, "live-x2-m": 0.025}
        state = {"now": 0.0, "load": 1.0, "number": 0}
        class Pretender:
            def __init__(self, graph, device=None, precision="auto"):
                if device == "none":
                    raise ValueError("no such device")
                self.seconds = seconds[graph.name]
            def frame(self, frame, into):
                state["now"] += self.seconds * state["load"]
                into.planes[0][...] = 7
            def close(self):
                pass
        upfrost.Upscaler = Pretender
        element = sys.modules[type(up).__module__]
        element._clock = lambda: state["now"]
        kinds = Gst.MessageType.ERROR | Gst.MessageType.WARNING
        kinds |= Gst.MessageType.ELEMENT
        def said(timeout=0):
            message = bus.timed_pop_filtered(timeout, kinds)
            if message is None:
                return None
            if message.type == Gst.MessageType.WARNING:
                return message.parse_warning()[0].message
            if message.type == Gst.MessageType.ERROR:
                return message.parse_error()[0].message
            return message.get_structure()
        def push(scene):
            buffer = Gst.Buffer.new_wrapped(bytes([scene]) * 3072)
            buffer.pts = state["number"] * Gst.SECOND // 25
            state["number"] += 1
            p.get_by_name("source").emit("push-buffer", buffer)
            sink.emit("pull-sample")
        def until_said(scene, most=20000):
            for _ in range(most):
                push(scene)
                if (message := said()) is not None:
                    return message
        def show(message):
            print(*map(message.get_value, ("previous", "model", "reason")),
                  round(message.get_value("frame-ms")), message.get_value("budget-ms"),
                  message.get_value("model") == up.get_property("running-model"))
        p.set_state(Gst.State.PLAYING)
        push(30)
        show(said(20 * Gst.SECOND))
"""


def test_auto_takes_the_largest_model_that_keeps_up_and_says_so(
    tmp_path: Path, live: Path
) -> None:
    script = """
        state["load"] = 2
        show(until_said(30))
        state["load"] = 0.4
        print(until_said(30, 1000))
        for scene in (30, 200):
            push(scene)
        show(until_said(200))
        for number in range(200):  # what a sink says
            late = (1000 + number) * Gst.MSECOND
            event = Gst.Event.new_qos(Gst.QOSType.UNDERFLOW, 1.5, late, 0)
            up.get_static_pad("src").send_event(event)
            push(200)
            if (message := said()) is not None:
                show(message)
                break
        p.set_state(Gst.State.NULL)
        print(up.get_property("running-model"))
    """
    lines = python(tmp_path, AUTO + script, live).stdout.splitlines()
    small, large = "live-x2-s", "live-x2-m"
    assert lines == [
        f" {large} start 25 40.0 True",
        f"{large} {small} behind 50 40.0 True",
        "None",  # without a cut all stays as it is
        f"{small} {large} room 3 40.0 True",
        f"{large} {small} behind 10 40.0 True",
        "None",
    ]


def test_what_auto_cannot_have_is_refused_and_frames_go_on(
    tmp_path: Path, live: Path
) -> None:
    script = """
        up.set_property("scale", 4)
        print(up.get_property("scale"), said(20 * Gst.SECOND))
        up.set_property("device", "none")
        print(up.get_property("device"), said(20 * Gst.SECOND))
        push(30)
        up.set_property("model", str(models["live-x2-xs"]))
        push(30)
        print(up.get_property("running-model"))
        up.set_property("model", "auto")
        push(30)
        show(said(20 * Gst.SECOND))
        p.set_state(Gst.State.NULL)
    """
    lines = python(tmp_path, AUTO + script, live).stdout.splitlines()
    assert lines[1].startswith("2 scale stays 2, since 4 cannot be had: no live model")
    assert (
        lines[2] == "None device stays None, since none cannot be had: no such device"
    )
    assert lines[3] == "live-x2-xs"
    assert lines[4] == "live-x2-xs live-x2-m start 25 40.0 True"
