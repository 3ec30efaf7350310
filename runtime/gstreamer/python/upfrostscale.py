"""The GStreamer element `upfrostscale`: a scaler whose factor is its model's.

GStreamer's plugin loader runs this file in the Python that it was built with, Debian's
own. upfrost is imported when the element is used, not when it is listed: a scan that
failed would stay in GStreamer's registry.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, GObject, Gst, GstVideo  # noqa: E402

if TYPE_CHECKING:
    from upfrost.gpu.frame import Siting, Subsampling

# Where Debian's package keeps upfrost. What an environment has comes before it.
sys.path.append("/usr/lib/upfrost")


def _base_transform() -> Any:
    """GstBase.BaseTransform, with its virtual methods.

    PyGObject makes a class without them when a program holds an element of that kind
    before GstBase is imported, and would give it to the import, too: frames would then
    pass a subclass by.
    """
    try:
        known = GObject.type_from_name("GstBaseTransform")
    except RuntimeError:
        pass  # there was no such element yet
    else:
        # The module that PyGObject names where it had no namespace.
        if getattr(known.pytype, "__module__", None) == "__gi__":
            known.pytype = None
    from gi.repository import GstBase

    return GstBase.BaseTransform


_Base = _base_transform()
# What measures frames for model=auto.
_clock = time.perf_counter
_AUTO = "auto"
_MEASURED = 3  # frames of each model, after one that makes pipelines
_LARGEST = 32767
# The fields of caps that say what samples of planes mean, and whole systems of colours.
_ALTERNATE = GstVideo.VideoChromaSite.ALT_LINE
_MEANING = ("colorimetry", "chroma-site")
_SYSTEMS = ("bt601", "bt709", "bt2020")
# What a network for luma takes as it is; RGB every network takes.
_PLANES = ("I420", "NV12", "Y42B", "Y444", "I420_10LE", "P010_10LE")


def _caps(*formats: str) -> Gst.Caps:
    return Gst.Caps.from_string(
        f"video/x-raw,format={{{','.join(formats)}}},width=[1,{_LARGEST}],"
        f"height=[1,{_LARGEST}],framerate=[0/1,2147483647/1]"
    )


_CAPS = _caps(*_PLANES, "RGB")
_ADVICE = (
    f"upfrost cannot be imported by Python {sys.version.split()[0]}, which is in "
    "GStreamer's plugin loader ({}); 'make gstreamer' sets up an environment of "
    "Debian's python3 for it, and a shell uses that after "
    "'. .venv-gstreamer/gstreamer.sh'"
)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The element's properties."""

    model: str = "live-x2-m"
    scale: int = 2  # of the models that model=auto chooses from
    device: str | None = None
    precision: Any = "auto"

    def read_models(self) -> list[Any]:
        """The model's graph, or those of the live models, the quickest first.

        It raises what says why there is none.
        """
        from upfrost.network.modelfile import find_model, read_model

        if self.model == _AUTO:
            from upfrost.video.live import live_models

            return [read_model(path) for path in live_models(self.scale).values()]
        graph = read_model(find_model(self.model))
        if graph.channels != 3 and graph.colour is None:
            raise ValueError(f"{self.model} is not a network for colour")
        return [graph]

    def open_upscaler(self, graph: Any) -> Any:
        """An upscaler of that graph, which the caller closes."""
        from upfrost import Upscaler

        return Upscaler(graph, device=self.device or None, precision=self.precision)


@dataclasses.dataclass
class _Choice:
    """An upscaler, and with model=auto what it was chosen from."""

    graphs: list[Any]  # of the models, the quickest first
    number: int
    upscaler: Any
    pace: Any = None  # of model=auto, once frames are known

    @property
    def scale(self) -> int:
        return int(self.graphs[0].scale)

    @property
    def name(self) -> str:
        return str(self.graphs[self.number].name)


def _pad(name: str, direction: Gst.PadDirection) -> Gst.PadTemplate:
    return Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, _CAPS)


# The bindings have no types, and which class the base is turns out when it is imported.
class UpfrostScale(_Base):  # type: ignore[misc,valid-type]
    """Upscales frames; late ones are dropped when the property `qos` is set.

    A network for luma takes planes as decoders give them, any other takes RGB.

    Properties can be set at any time. While frames pass, the new upscaler is made by
    who sets them, then takes the place of the old one between two frames; settings that
    cannot be had are refused by a warning on the bus, and the old ones stay.

    With model=auto the largest live model that keeps the frame rate runs. They are
    measured when the frames' size is known; then `upfrost.video.live.Pace` decides, a
    thread prepares the model that it wants, and an element message tells of a change.
    """

    __gstmetadata__ = (
        "upfrost super-resolution",
        "Filter/Converter/Video/Scaler",
        "Upscales video by a neural network on the GPU (Vulkan)",
        "upfrost",
    )
    __gsttemplates__ = (
        _pad("sink", Gst.PadDirection.SINK),
        _pad("src", Gst.PadDirection.SRC),
    )

    def __init__(self) -> None:
        super().__init__()
        # Properties are set by any thread. Who sets one may take seconds, which no
        # frame shall wait for: the second lock is held while fields are replaced.
        self._changing = threading.RLock()
        self._lock = threading.RLock()
        self._settings = _Settings()
        self._graphs: list[Any] = []  # of the settings' models
        self._error: Exception | None = None  # why there are none
        self._running: _Choice | None = None
        self._next: _Choice | None = None  # of newer settings, or for another pace
        self._preparing: threading.Thread | None = None
        self._cuts: Any = None  # looked for while a choice of the same pace waits
        self._late = 0.0  # seconds, by what the sink said last
        self._caps: Any = None  # of the frames that come, with what samples mean
        self._kind: Any = None  # of their planes; None for RGB
        self._in: Any = None
        self._out: Any = None
        self.get_static_pad("src").add_probe(
            Gst.PadProbeType.EVENT_UPSTREAM, self._listen
        )
        self.get_static_pad("sink").add_probe(
            Gst.PadProbeType.EVENT_DOWNSTREAM, self._look
        )

    @GObject.Property(
        type=str,
        default=_Settings.model,
        nick="Model",
        blurb="A name from 'upfrost models', a .upf file, or auto: the largest live "
        "model that keeps the frame rate",
    )
    def model(self) -> str:
        return self._settings.model

    @model.setter  # type: ignore[no-redef]
    def model(self, value: str) -> None:
        self._change(model=value or "")

    @GObject.Property(
        type=str,
        default=None,
        nick="Device",
        blurb="A number or part of a name from 'upfrost devices' (the best if not set)",
    )
    def device(self) -> str | None:
        return self._settings.device

    @device.setter  # type: ignore[no-redef]
    def device(self, value: str | None) -> None:
        self._change(device=value)

    @GObject.Property(
        type=str,
        default=_Settings.precision,
        nick="Precision",
        blurb="auto, fp16 or fp32, of values on the device",
    )
    def precision(self) -> str:
        return self._settings.precision

    @precision.setter  # type: ignore[no-redef]
    def precision(self, value: str) -> None:
        self._change(precision=value)

    @GObject.Property(
        type=int,
        default=_Settings.scale,
        minimum=1,
        maximum=8,
        nick="Scale",
        blurb="The factor that model=auto enlarges by; any other model has its own",
    )
    def scale(self) -> int:
        return self._settings.scale

    @scale.setter  # type: ignore[no-redef]
    def scale(self, value: int) -> None:
        self._change(scale=value)

    @GObject.Property(  # type: ignore[untyped-decorator]
        type=str,
        default=None,
        nick="Running model",
        blurb="The model that frames go through at the moment",
        flags=GObject.ParamFlags.READABLE,
    )
    def running_model(self) -> str | None:
        running = self._running
        return running.name if running is not None else None

    def _change(self, **values: Any) -> None:
        """Take new settings, or refuse them when frames pass and they cannot be had."""
        with self._changing:
            settings = dataclasses.replace(self._settings, **values)
            if settings == self._settings:
                return
            if set(values) == {"scale"} and settings.model != _AUTO:
                self._settings = settings
                return
            graphs: list[Any] = []
            choice = None
            if self._running is not None:
                try:
                    graphs = settings.read_models()
                    self._check_neighbour(graphs[0])
                    choice = self._choose(settings, graphs)
                except Exception as error:
                    self._warn(_refusal(values, self._settings, error))
                    return
            with self._lock:
                if self._running is None:  # stopped, perhaps meanwhile
                    _close(choice)
                else:
                    _close(self._next)
                    self._next = choice
                self._settings, self._graphs, self._error = settings, graphs, None
        self.reconfigure_src()

    def _check_neighbour(self, graph: Any) -> None:
        """Refuse a model that cannot take these frames, or whose the next element."""
        if self._in is not None and graph.channels == 3 and _has_planes(self._in):
            raise ValueError(f"it takes RGB, and frames of {self._in.finfo.name} come")
        running = self._running
        if self._in is None or running is None or graph.scale == running.scale:
            return
        pad = self.get_static_pad("src")
        caps = _scaled_caps(self._caps, graph.scale)
        if not pad.peer_query_caps(None).can_intersect(caps):
            width, height = self._in.width, self._in.height
            raise ValueError(
                f"it makes {width * graph.scale}×{height * graph.scale} of "
                f"{width}×{height}, and the next element does not take that"
            )

    def _models(self) -> list[Any]:
        """The models' graphs, known before there are caps; none where they cannot be
        read."""
        with self._lock:
            if not self._graphs and self._error is None:
                try:
                    self._graphs = self._settings.read_models()
                except Exception as error:
                    self._error = error
            return self._graphs

    def _choose(
        self, settings: _Settings, graphs: list[Any], quickest: Any = None
    ) -> _Choice:
        """The model to begin with, its upscaler open; of several the largest that fits.

        `quickest` is an upscaler of the first, where there is one. Without frames it is
        the first one.
        """
        if settings.model != _AUTO or self._in is None:
            return _Choice(graphs, 0, quickest or settings.open_upscaler(graphs[0]))
        from upfrost.errors import UpfrostError
        from upfrost.network.graph import macs_per_output_pixel
        from upfrost.video.live import FITS, Pace

        budget = _frame_seconds(self._in)
        seconds: list[float] = []
        chosen: _Choice | None = None
        for number, graph in enumerate(graphs):
            if seconds and seconds[-1] > FITS * budget:
                work = [macs_per_output_pixel(each) for each in graphs]
                seconds.append(seconds[-1] * work[number] / work[number - 1])
                continue
            upscaler = quickest if number == 0 else None
            try:
                upscaler = upscaler or settings.open_upscaler(graph)
                seconds.append(self._measure(upscaler, graph.scale))
            except UpfrostError:
                _close(upscaler)
                if number == 0:
                    raise
                seconds.append(math.inf)
                continue
            if chosen is None or seconds[-1] <= FITS * budget:
                _close(chosen)
                chosen = _Choice(graphs, number, upscaler)
            else:
                _close(upscaler)
        assert chosen is not None  # the first one, at least
        chosen.pace = Pace(seconds, budget)
        return chosen

    def _measure(self, upscaler: Any, scale: int) -> float:
        """Seconds that a frame takes, once pipelines have been made."""
        import numpy as np

        source = np.full(self._in.size, 64, np.uint8)
        large = _video_info(_scaled_caps(self._caps, scale))
        target = np.empty(large.size, np.uint8)
        times = []
        for _ in range(1 + _MEASURED):
            began = _clock()
            _upscale(
                upscaler,
                _view(source, self._in, self._kind),
                _view(target, large, self._kind),
            )
            times.append(_clock() - began)
        return sorted(times[1:])[_MEASURED // 2]

    def _fail(self, error: Exception) -> None:
        self.post_message(
            Gst.Message.new_error(self, _problem(error), type(error).__name__)
        )

    def _warn(self, error: Exception) -> None:
        self.post_message(
            Gst.Message.new_warning(self, _problem(error), type(error).__name__)
        )

    def _announce(
        self, running: _Choice, reason: str, previous: str, seconds: float
    ) -> None:
        """Say on the bus which model frames go through from now on, and why."""
        message = Gst.Structure.new_empty("upfrost-model")
        message.set_value("model", running.name)
        message.set_value("previous", previous)
        message.set_value("reason", reason)
        message.set_value("frame-ms", 1e3 * seconds)
        message.set_value("budget-ms", 1e3 * running.pace.budget)
        self.post_message(Gst.Message.new_element(self, message))
        self.notify("running-model")

    def _refuse_interlaced(self, mode: str) -> None:
        self._fail(
            ValueError(
                f"the video is interlaced (interlace-mode={mode}) and upfrostscale "
                "takes progressive frames: put 'deinterlace' before it"
            )
        )

    def do_start(self) -> bool:
        with self._changing, self._lock:
            try:
                # Read anew: what was wrong with the file may have been mended.
                self._graphs = self._settings.read_models()
                self._running = self._choose(self._settings, self._graphs)
            except Exception as error:
                self._fail(error)
                return False
        return True

    def do_stop(self) -> bool:
        with self._lock:
            _close(self._running)
            _close(self._next)
            self._running = self._next = None
            self._graphs, self._error = [], None
            self._caps = self._kind = self._in = self._out = None
            self._late = 0.0
        return True

    def do_transform_caps(
        self, direction: Gst.PadDirection, caps: Gst.Caps, allowed: Gst.Caps | None
    ) -> Gst.Caps:
        """Sizes on the other side of the element; all else is the same.

        But what is not said of colours before the element is said after it.
        """
        graphs = self._models()
        # Without a model all can be linked, and the reason is said when it starts.
        larger = direction == Gst.PadDirection.SINK
        result = _scaled_caps(caps, graphs[0].scale, larger) if graphs else _CAPS.copy()
        if graphs and graphs[0].channels == 3:
            result = result.intersect_full(_caps("RGB"), Gst.CapsIntersectMode.FIRST)
        result = _loosened_caps(result, larger)
        if allowed is None:
            return result
        return allowed.intersect_full(result, Gst.CapsIntersectMode.FIRST)

    def do_fixate_caps(
        self, direction: Gst.PadDirection, caps: Gst.Caps, other: Gst.Caps
    ) -> Gst.Caps:
        """Caps of frames; of larger ones they say what samples mean."""
        fixed = _Base.do_fixate_caps(self, direction, caps, other)
        if direction != Gst.PadDirection.SINK:
            return fixed
        meaning = _meaning(caps)
        full = _with_fields(fixed, meaning)
        peer = self.get_static_pad("src").peer_query_caps(None)
        if not meaning or peer.can_intersect(full):
            return full
        # Who names colours after the element, in other words or where nothing was said
        # before it, is believed: a capsfilter, for instance.
        bare = _with_fields(fixed, dict.fromkeys(_MEANING))
        wanted = peer.intersect_full(bare, Gst.CapsIntersectMode.FIRST)
        for number in range(wanted.get_size()):
            one = wanted.copy_nth(number)
            one = _Base.do_fixate_caps(self, direction, caps, one)
            if _agree(caps, one):
                more = _meaning(caps, one)
                for name in filter(_structure(one).has_field, list(more)):
                    del more[name]
                return _with_fields(one, more)
        return full

    def do_set_caps(self, given: Gst.Caps, wanted: Gst.Caps) -> bool:
        frame, large = _video_info(given), _video_info(wanted)
        if frame is None or large is None:
            return False
        if frame.interlace_mode != GstVideo.VideoInterlaceMode.PROGRESSIVE:
            mode = GstVideo.VideoInterlaceMode.to_string(frame.interlace_mode)
            self._refuse_interlaced(mode)
            return False
        with self._lock:
            graphs = self._models()
            scale = graphs[0].scale if graphs else 0
            if (frame.width * scale, frame.height * scale) != (
                large.width,
                large.height,
            ):
                return False
            before = self._in
            self._caps = _with_fields(given, _meaning(given, wanted))
            meant = _video_info(self._caps)
            self._kind = _kind(meant)
            self._in, self._out = frame, large
            self._adopt()
        if self._kind is not None and meant.chroma_site & _ALTERNATE:
            site = GstVideo.VideoChromaSite.to_string(meant.chroma_site)
            where = self._kind.siting
            self._warn(
                ValueError(
                    f"chroma-site={site}: U and V lie on lines in turn, and both are "
                    f"enlarged as if they lay {where}"
                )
            )
        return self._choose_again(before)

    def _choose_again(self, before: Any) -> bool:
        """Measure the models of model=auto where frames are not what they were."""
        with self._changing:
            running, settings = self._running, self._settings
            same = before is not None and _work(before) == _work(self._in)
            if running is None or settings.model != _AUTO or (running.pace and same):
                return True
            begun = running.pace is not None
            quickest = None if begun or running.number else running.upscaler
            try:
                choice = self._choose(settings, running.graphs, quickest)
            except Exception as error:
                self._fail(error)
                return False
            with self._lock:
                if running.upscaler not in (choice.upscaler, quickest):
                    _close(running)
                _close(self._next)
                self._running, self._next = choice, None
            previous = running.name if begun else ""
            self._announce(choice, "start", previous, choice.pace.typical)
        return True

    def _adopt(self, given: Gst.Buffer | None = None, source: Any = None) -> None:
        """Let another choice take over.

        That of newer settings once frames have the size that it makes; that of the same
        pace where nobody sees it, which the next frame's buffer and samples tell.
        """
        with self._lock:
            choice, running = self._next, self._running
            if choice is None or running is None:
                return
            if self._in.width * choice.scale != self._out.width:
                return
            pace, reason = choice.pace, "start"
            seconds = pace.typical if pace is not None else 0.0
            if pace is not None and pace is running.pace:
                if choice.number != pace.wanted:
                    _close(choice)
                    self._next = None
                    return
                if source is None or not pace.may_change(
                    cut=self._is_cut(given, source)
                ):
                    return
                reason = "room" if choice.number > running.number else "behind"
                pace.change()
            self._running, self._next = choice, None
            self._cuts = None
        _close(running)
        if pace is not None:
            self._announce(choice, reason, running.name, seconds)

    def _is_cut(self, given: Gst.Buffer, source: Any) -> bool:
        """Whether a frame begins a scene, or follows a gap."""
        from upfrost.video.live import Cuts

        if self._cuts is None:
            self._cuts = Cuts()
        if self._kind is not None:
            most = ((1 << self._kind.bits) - 1) << self._kind.shift
            cut = self._cuts(source.planes[0], most)
        else:
            cut = self._cuts(source, 255)
        return bool(cut) or given.has_flags(Gst.BufferFlags.DISCONT)

    def _keep_pace(self, running: _Choice, seconds: float) -> None:
        """Count a frame, and have the model prepared that is wanted from now on."""
        pace = running.pace
        if pace is None:
            return
        pace.frame(seconds, self._late)
        if pace.wanted == pace.current or self._preparing is not None:
            return
        waiting = self._next
        if waiting is not None and waiting.number == pace.wanted:
            return
        self._preparing = threading.Thread(
            target=self._prepare, args=[running, pace.wanted], daemon=True
        )
        self._preparing.start()

    def _prepare(self, running: _Choice, number: int) -> None:
        """Open the upscaler of another model, whose pipelines are then there."""
        choice = None
        try:
            with self._changing:
                settings, pace = self._settings, running.pace
                with self._lock:
                    current = self._running is running and self._in is not None
                if not current or settings.model != _AUTO:
                    return
                try:
                    upscaler = settings.open_upscaler(running.graphs[number])
                    choice = _Choice(running.graphs, number, upscaler, pace)
                    self._measure(upscaler, choice.scale)
                except Exception as error:
                    _close(choice)
                    running.pace = None
                    name = running.graphs[number].name
                    reason = f"{name} cannot be had: {error}"
                    self._warn(
                        ValueError(f"model stays {running.name}, since {reason}")
                    )
                    return
                with self._lock:
                    if self._running is running:
                        _close(self._next)
                        self._next = choice
                    else:
                        _close(choice)
        finally:
            self._preparing = None

    def _listen(self, _: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        """Hear from the sink how late frames are."""
        event = info.get_event()
        if event.type == Gst.EventType.QOS:
            *_, late, _ = event.parse_qos()
            self._late = late / Gst.SECOND
        return Gst.PadProbeReturn.OK

    def _look(self, _: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        """Say why caps of single fields, which no template has, will be refused."""
        event = info.get_event()
        if event.type == Gst.EventType.CAPS:
            features = event.parse_caps().get_features(0)
            if features is not None and features.contains("format:Interlaced"):
                self._refuse_interlaced("alternate")
        return Gst.PadProbeReturn.OK

    def do_transform_size(
        self,
        direction: Gst.PadDirection,  # noqa: ARG002
        caps: Gst.Caps,  # noqa: ARG002
        size: int,  # noqa: ARG002
        other_caps: Gst.Caps,
    ) -> tuple[bool, int]:
        info = _video_info(other_caps)
        return (True, info.size) if info is not None else (False, 0)

    def do_propose_allocation(
        self, decided: Gst.Query | None, query: Gst.Query
    ) -> bool:
        """Let decoders send frames whose rows are padded as their hardware has it."""
        if not _Base.do_propose_allocation(self, decided, query):
            return False
        if decided is not None:  # otherwise the answer is the next element's
            query.add_allocation_meta(GstVideo.video_meta_api_get_type(), None)
        return True

    def do_transform(self, given: Gst.Buffer, result: Gst.Buffer) -> Gst.FlowReturn:
        import numpy as np

        if self._running is None:
            return Gst.FlowReturn.ERROR
        try:
            with (
                given.map(Gst.MapFlags.READ) as small,
                result.map(Gst.MapFlags.WRITE) as large,
            ):
                source = _view(
                    np.frombuffer(small.data, np.uint8),
                    self._in,
                    self._kind,
                    GstVideo.buffer_get_video_meta(given),
                )
                target = _view(
                    np.frombuffer(large.data, np.uint8),
                    self._out,
                    self._kind,
                    GstVideo.buffer_get_video_meta(result),
                )
                self._adopt(given, source)
                running = self._running
                began = _clock()
                _upscale(running.upscaler, source, target)
                self._keep_pace(running, _clock() - began)
        except Exception as error:
            self._fail(error)
            return Gst.FlowReturn.ERROR
        return Gst.FlowReturn.OK


def _upscale(upscaler: Any, source: Any, target: Any) -> None:
    """A frame to its result, both as `_view` has them."""
    import numpy as np

    if isinstance(source, np.ndarray):
        target[...] = upscaler(np.ascontiguousarray(source))
    else:
        upscaler.frame(source, into=target)


def _close(choice: Any) -> None:
    """Close a choice's upscaler, or an upscaler."""
    if choice is not None:
        getattr(choice, "upscaler", choice).close()


def _frame_seconds(info: Any) -> float:
    """From one frame to the next; where caps do not say it, of 30 in a second."""
    return info.fps_d / info.fps_n if info.fps_n else 1 / 30


def _work(info: Any) -> tuple[Any, ...]:
    """What decides how long a frame takes, and how long it may."""
    return info.finfo.name, info.width, info.height, info.fps_n, info.fps_d


def _problem(error: Exception) -> GLib.Error:
    """What a message on the bus carries."""
    text = _ADVICE.format(error) if isinstance(error, ImportError) else str(error)
    return GLib.Error.new_literal(
        Gst.resource_error_quark(), text, Gst.ResourceError.SETTINGS
    )


def _refusal(
    values: dict[str, Any], settings: _Settings, error: Exception
) -> Exception:
    """Why a property keeps its value while frames pass."""
    name, value = next(iter(values.items()))
    kept = getattr(settings, name)
    wanted = value or "an empty name"
    return ValueError(f"{name} stays {kept}, since {wanted} cannot be had: {error}")


def _video_info(caps: Gst.Caps) -> Any:
    """What the caps say of frames; None where they are not one format."""
    # A constructor since 1.20; before, a method that returned whether it worked.
    return GstVideo.VideoInfo.new_from_caps(caps) if caps.is_fixed() else None


def _has_planes(info: Any) -> bool:
    return info.finfo.name in _PLANES


def _kind(info: Any) -> Any:
    """The `FrameFormat` of planes; None of RGB."""
    from upfrost.gpu.frame import FrameFormat

    if not _has_planes(info):
        return None
    name = info.finfo.name
    site = GstVideo.VideoChromaSite
    sites: dict[Any, Siting] = {
        site.NONE: "centre",  # as JPEG has it
        site.COSITED: "top-left",
        site.V_COSITED: "top",
        site.DV: "top-left",
    }
    subsamplings: dict[str, Subsampling] = {"Y42B": "422", "Y444": "444"}
    # Whose name begins with a digit, and so is no attribute.
    full = getattr(GstVideo.VideoColorRange, "0_255", None) or getattr(
        GstVideo.VideoColorRange, "_0_255", None
    )
    return FrameFormat(
        subsampling=subsamplings.get(name, "420"),
        interleaved=name in ("NV12", "P010_10LE"),
        bits=10 if name.endswith("10LE") else 8,
        shift=6 if name == "P010_10LE" else 0,
        range="full" if info.colorimetry.range == full else "limited",
        siting=sites.get(info.chroma_site, "left"),
    )


def _view(data: Any, info: Any, kind: Any, meta: Any = None) -> Any:
    """A frame's bytes as a `Frame` of that kind, or those of RGB as (H, W, 3).

    A buffer's GstVideoMeta, if it has one, says where planes and rows lie; otherwise
    they lie as caps have them.
    """
    import numpy as np

    from upfrost.gpu.frame import Frame

    what = f"{info.finfo.name} of {info.width}×{info.height}"
    if meta is None and len(data) < info.size:
        raise ValueError(
            f"a frame of {len(data)} bytes came, and by its caps, {what}, it has "
            f"{info.size}: the element before sends frames that are not what it "
            "announced"
        )
    fits = meta is None or (
        meta.format == info.finfo.format
        and meta.width >= info.width
        and meta.height >= info.height
    )
    offsets, strides = (meta or info).offset, (meta or info).stride
    shapes = ((info.height, info.width, 3),)
    if kind is not None:
        shapes = kind.shapes(info.height, info.width)
    dtype = np.dtype(np.uint8) if kind is None else kind.dtype
    planes = []
    for shape, offset, stride in zip(shapes, offsets, strides, strict=False):
        row = math.prod(shape[1:]) * dtype.itemsize
        last = (shape[0] - 1) * stride  # negative where the lowest row is the first
        begin, end = offset + min(last, 0), offset + max(last, 0) + row
        if not fits or abs(stride) < row or begin < 0 or end > len(data):
            raise ValueError(
                f"a frame came whose GstVideoMeta does not fit its {len(data)} bytes "
                f"and its caps, {what}: planes at {offsets[: len(shapes)]}, rows of "
                f"{strides[: len(shapes)]} bytes"
            )
        steps = (stride, math.prod(shape[2:]) * dtype.itemsize, dtype.itemsize)
        planes.append(np.ndarray(shape, dtype, data, offset, steps[: len(shape)]))
    return planes[0] if kind is None else Frame(kind, tuple(planes))


def _with_fields(caps: Gst.Caps, fields: dict[str, str | None]) -> Gst.Caps:
    """The caps with these fields; without those that are None."""

    def change(_: Gst.CapsFeatures, structure: Gst.Structure, __: None) -> bool:
        for name, value in fields.items():
            if value is None:
                structure.remove_field(name)
            else:
                structure.set_value(name, value)
        return True

    result = caps.copy()
    result.filter_and_map_in_place(change, None)
    return result


def _colours(text: str | None) -> tuple[int, ...]:
    """Range, matrix, transfer and primaries; what planes cannot have, or what is not
    known, is 0."""
    found = GstVideo.VideoColorimetry()
    if text is None or not found.from_string(text):
        return (0, 0, 0, 0)
    rgb = found.matrix == GstVideo.VideoColorMatrix.RGB
    matrix = 0 if rgb else int(found.matrix)
    return int(found.range), matrix, int(found.transfer), int(found.primaries)


def _name(colours: Iterable[int]) -> str:
    """The word for them, if there is one."""
    numbers = ":".join(map(str, colours))
    found = GstVideo.VideoColorimetry()
    found.from_string(numbers)
    return found.to_string() or numbers


def _structure(caps: Gst.Caps) -> Gst.Structure:
    """The first one, for no longer than the caps are kept."""
    found = caps.get_structure(0)
    # Since 1.26 in a context of its own.
    return found.__enter__() if hasattr(found, "__enter__") else found


def _named(caps: Gst.Caps) -> tuple[tuple[int, ...], str | None]:
    """What the caps themselves say of colours and of where chroma lies."""
    structure = _structure(caps)
    site = structure.get_string("chroma-site")
    known = site is not None and int(GstVideo.VideoChromaSite.from_string(site))
    return _colours(structure.get_string("colorimetry")), site if known else None


def _meaning(caps: Gst.Caps, first: Gst.Caps | None = None) -> dict[str, str | None]:
    """The fields of caps that say what samples of planes mean, with nothing unknown.

    What `first` says goes before what the caps say. What neither does is what GStreamer
    takes for frames of the caps' size. It takes something else for larger ones, which
    therefore must say it.
    """
    info = _video_info(caps)
    if info is None or not _has_planes(info):
        return {}
    given, site = _named(caps)
    if first is not None:
        words, place = _named(first)
        given = tuple(map(_either, words, given))
        site = place or site
    # Without a matrix GstVideoInfo drops what else is named, range and siting, too.
    usual = _video_info(_with_fields(caps, dict.fromkeys(_MEANING)))
    like = next((name for name in _SYSTEMS if _colours(name)[1] == given[1]), None)
    default = _colours(like or usual.colorimetry.to_string())
    colours = _name(map(_either, given, default))
    fields: dict[str, str | None] = {"colorimetry": colours}
    if site is None and info.finfo.name != "Y444":
        # Left, as H.264 and H.265 have it, where a decoder names all but that.
        left = GstVideo.VideoChromaSite.H_COSITED
        place = left if given[1] else usual.chroma_site
        site = GstVideo.VideoChromaSite.to_string(place)
    if site is not None:
        fields["chroma-site"] = site
    return fields


def _either(one: int, other: int) -> int:
    return one or other


def _agree(caps: Gst.Caps, other: Gst.Caps) -> bool:
    """Whether both say the same of what samples mean, where both say something."""
    (one, site), (two, place) = _named(caps), _named(other)
    return all(a == b or 0 in (a, b) for a, b in zip(one, two, strict=True)) and (
        site == place or None in (site, place)
    )


def _loosened_caps(caps: Gst.Caps, larger: bool) -> Gst.Caps:
    """The caps of the other side, where colours may be named less or more completely.

    Smaller frames may leave unknown any part of what larger ones name. What is unknown
    of smaller ones is filled in when caps are fixed.
    """

    def change(_: Gst.CapsFeatures, structure: Gst.Structure, __: None) -> bool:
        if not structure.has_field("colorimetry") or (
            structure.get_value("format") == "RGB"
        ):
            return True
        value = structure.get_value("colorimetry")
        names = [value] if isinstance(value, str) else list(value)
        parts = [_colours(name) for name in names]
        if larger:
            if not all(map(all, parts)):
                structure.remove_field("colorimetry")
            return True
        for part in filter(all, parts):
            choices = itertools.product(*((known, 0) for known in part))
            names += [_name(part), *(":".join(map(str, each)) for each in choices)]
        if len(names) > len(parts):
            structure.set_value("colorimetry", Gst.ValueList(names))
        return True

    result = caps.copy()
    result.filter_and_map_in_place(change, None)
    return result


def _scaled_caps(caps: Gst.Caps, scale: int, larger: bool = True) -> Gst.Caps:
    """The caps with sizes of the other side; what has none there is left out."""

    def change(_: Gst.CapsFeatures, structure: Gst.Structure, __: None) -> bool:
        for name in filter(structure.has_field, ("width", "height")):
            size = _scaled(structure.get_value(name), scale, larger)
            if size is None:
                return False
            structure.set_value(name, size)
        return True

    result = caps.copy()
    result.filter_and_map_in_place(change, None)
    return result


def _scaled(value: Any, scale: int, larger: bool) -> Any:
    """A size on the other side, of whatever kind caps have; None when there is none.

    Exact, so that a size that the model cannot make is refused when elements are
    linked: an error of the first frame can be too early for gst-launch-1.0 up to 1.22,
    which waits for ever when the error comes before its main loop runs.
    """
    if isinstance(value, int):
        if not larger and value % scale:
            return None
        size = value * scale if larger else value // scale
        return size if 0 < size <= _LARGEST else None
    if isinstance(value, Gst.IntRange):
        # GStreamer's ranges end with their last value, unlike Python's; both ends are
        # multiples of the step.
        first, last, step = value.range.start, value.range.stop, value.range.step
        if larger:
            first, step = first * scale, step * scale
            last = min(last * scale, _LARGEST // step * step)
        else:
            step = math.lcm(step, scale) // scale
            first = -(-first // (step * scale)) * step
            last = last // (step * scale) * step
        if first < last:
            return Gst.IntRange(range(first, last, step))
        return first if first == last else None
    sizes = [_scaled(item, scale, larger) for item in value]
    kept = [size for size in sizes if size is not None]
    return Gst.ValueList(kept) if len(kept) > 1 else next(iter(kept), None)


GObject.type_register(UpfrostScale)
__gstelementfactory__ = ("upfrostscale", Gst.Rank.NONE, UpfrostScale)
