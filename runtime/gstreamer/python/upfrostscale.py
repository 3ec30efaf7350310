"""The GStreamer element `upfrostscale`: a scaler whose factor is its model's.

GStreamer's plugin loader runs this file in the Python that it was built with, Debian's
own. upfrost is imported when the element is used, not when it is listed: a scan that
failed would stay in GStreamer's registry.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, GObject, Gst, GstVideo  # noqa: E402

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


_LARGEST = 32767
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

    model: str = "video-x2"
    device: str | None = None
    precision: Any = "auto"

    def read_model(self) -> Any:
        """The model's graph; it raises what says why there is none."""
        from upfrost.network.modelfile import find_model, read_model

        graph = read_model(find_model(self.model))
        if graph.channels != 3 and graph.colour is None:
            raise ValueError(f"{self.model} is not a network for colour")
        return graph

    def open_upscaler(self, graph: Any) -> Any:
        """An upscaler of that graph, which the caller closes."""
        from upfrost import Upscaler

        return Upscaler(graph, device=self.device or None, precision=self.precision)


def _pad(name: str, direction: Gst.PadDirection) -> Gst.PadTemplate:
    return Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, _CAPS)


class UpfrostScale(_base_transform()):  # type: ignore[misc]
    """Upscales frames; late ones are dropped when the property `qos` is set.

    A network for luma takes planes as decoders give them, any other takes RGB.

    Properties can be set at any time. While frames pass, the new upscaler is made by
    who sets them, then takes the place of the old one between two frames; settings that
    cannot be had are refused by a warning on the bus, and the old ones stay.
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
        self._graph: Any = None  # of the settings' model
        self._error: Exception | None = None  # why there is none
        self._upscaler: Any = None
        self._next: Any = None  # an upscaler of newer settings
        self._in: Any = None
        self._out: Any = None

    @GObject.Property(
        type=str,
        default=_Settings.model,
        nick="Model",
        blurb="A name from 'upfrost models' or a .upf file",
    )
    def model(self) -> str:
        return self._settings.model

    @model.setter  # type: ignore[no-redef]
    def model(self, value: str) -> None:
        self._change(model=value)

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

    def _change(self, **values: Any) -> None:
        """Take new settings, or refuse them when frames pass and they cannot be had."""
        with self._changing:
            settings = dataclasses.replace(self._settings, **values)
            if settings == self._settings:
                return
            graph = upscaler = None
            if self._upscaler is not None:
                try:
                    graph = settings.read_model()
                    self._check_neighbour(graph)
                    upscaler = settings.open_upscaler(graph)
                except Exception as error:
                    self._warn(_refusal(values, self._settings, error))
                    return
            with self._lock:
                if self._upscaler is None:  # stopped, perhaps meanwhile
                    _close(upscaler)
                else:
                    _close(self._next)
                    self._next = upscaler
                self._settings, self._graph, self._error = settings, graph, None
        self.reconfigure_src()

    def _check_neighbour(self, graph: Any) -> None:
        """Refuse a model that cannot take these frames, or whose the next element."""
        if self._in is not None and graph.channels == 3 and _has_planes(self._in):
            raise ValueError(f"it takes RGB, and frames of {self._in.finfo.name} come")
        if self._in is None or graph.scale == self._upscaler.graph.scale:
            return
        pad = self.get_static_pad("src")
        caps = _scaled_caps(self.get_static_pad("sink").get_current_caps(), graph.scale)
        if not pad.peer_query_caps(None).can_intersect(caps):
            width, height = self._in.width, self._in.height
            raise ValueError(
                f"it makes {width * graph.scale}×{height * graph.scale} of "
                f"{width}×{height}, and the next element does not take that"
            )

    def _scale(self) -> int:
        """The model's factor, known before there are caps; 0 when there is no model."""
        with self._lock:
            if self._graph is None and self._error is None:
                try:
                    self._graph = self._settings.read_model()
                except Exception as error:
                    self._error = error
            return int(self._graph.scale) if self._graph is not None else 0

    def _fail(self, error: Exception) -> None:
        self.post_message(
            Gst.Message.new_error(self, _problem(error), type(error).__name__)
        )

    def _warn(self, error: Exception) -> None:
        self.post_message(
            Gst.Message.new_warning(self, _problem(error), type(error).__name__)
        )

    def do_start(self) -> bool:
        with self._changing, self._lock:
            try:
                # Read anew: what was wrong with the file may have been mended.
                self._graph = self._settings.read_model()
                self._upscaler = self._settings.open_upscaler(self._graph)
            except Exception as error:
                self._fail(error)
                return False
        return True

    def do_stop(self) -> bool:
        with self._lock:
            _close(self._upscaler)
            _close(self._next)
            self._upscaler = self._next = None
            self._graph = self._error = None
            self._in = self._out = None
        return True

    def do_transform_caps(
        self, direction: Gst.PadDirection, caps: Gst.Caps, allowed: Gst.Caps | None
    ) -> Gst.Caps:
        """Sizes on the other side of the element; all else is the same."""
        with self._lock:
            scale = self._scale()
            of_rgb = bool(scale) and self._graph.channels == 3
        # Without a model all can be linked, and the reason is said when it starts.
        larger = direction == Gst.PadDirection.SINK
        result = _scaled_caps(caps, scale, larger) if scale else _CAPS.copy()
        if of_rgb:
            result = result.intersect_full(_caps("RGB"), Gst.CapsIntersectMode.FIRST)
        if allowed is None:
            return result
        return allowed.intersect_full(result, Gst.CapsIntersectMode.FIRST)

    def do_set_caps(self, given: Gst.Caps, wanted: Gst.Caps) -> bool:
        frame, large = _video_info(given), _video_info(wanted)
        if frame is None or large is None:
            return False
        if frame.interlace_mode != GstVideo.VideoInterlaceMode.PROGRESSIVE:
            mode = GstVideo.VideoInterlaceMode.to_string(frame.interlace_mode)
            self._fail(
                ValueError(
                    f"the video is interlaced (interlace-mode={mode}) and upfrostscale "
                    "takes progressive frames: put 'deinterlace' before it"
                )
            )
            return False
        with self._lock:
            scale = self._scale()
            if (frame.width * scale, frame.height * scale) != (
                large.width,
                large.height,
            ):
                return False
            self._in, self._out = frame, large
            self._adopt()
        return True

    def _adopt(self) -> None:
        """Let the newer upscaler take over, once frames have the size that it makes."""
        with self._lock:
            upscaler = self._next
            if upscaler is not None and (
                self._in.width * upscaler.graph.scale == self._out.width
            ):
                _close(self._upscaler)
                self._upscaler, self._next = upscaler, None

    def do_transform_size(
        self,
        direction: Gst.PadDirection,  # noqa: ARG002
        caps: Gst.Caps,  # noqa: ARG002
        size: int,  # noqa: ARG002
        other_caps: Gst.Caps,
    ) -> tuple[bool, int]:
        info = _video_info(other_caps)
        return (True, info.size) if info is not None else (False, 0)

    def do_transform(self, given: Gst.Buffer, result: Gst.Buffer) -> Gst.FlowReturn:
        import numpy as np

        self._adopt()
        if self._upscaler is None:
            return Gst.FlowReturn.ERROR
        try:
            from upfrost.gpu.channels import upscale_channels

            with (
                given.map(Gst.MapFlags.READ) as small,
                result.map(Gst.MapFlags.WRITE) as large,
            ):
                source = np.frombuffer(small.data, np.uint8)
                target = np.frombuffer(large.data, np.uint8)
                if _has_planes(self._in):
                    into = _frame(target, self._out, self._in)
                    self._upscaler.frame(_frame(source, self._in, self._in), into=into)
                else:
                    picture = np.ascontiguousarray(_rows(source, self._in))
                    pixels = upscale_channels(self._upscaler, picture)
                    _rows(target, self._out)[...] = pixels
        except Exception as error:
            self._fail(error)
            return Gst.FlowReturn.ERROR
        return Gst.FlowReturn.OK


def _close(upscaler: Any) -> None:
    if upscaler is not None:
        upscaler.close()


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
    return ValueError(f"{name} stays {kept}, since {value} cannot be had: {error}")


def _video_info(caps: Gst.Caps) -> Any:
    """What the caps say of frames; None where they are not one format."""
    # A constructor since 1.20; before, a method that returned whether it worked.
    return GstVideo.VideoInfo.new_from_caps(caps) if caps.is_fixed() else None


def _has_planes(info: Any) -> bool:
    return info.finfo.name in _PLANES


def _check_size(data: Any, info: Any) -> None:
    if len(data) < info.size:
        raise ValueError(
            f"a frame of {len(data)} bytes came, and by its caps, {info.finfo.name} of "
            f"{info.width}×{info.height}, it has {info.size}: the element before sends "
            "frames that are not what it announced"
        )


def _frame(data: Any, info: Any, meaning: Any) -> Any:
    """The planes in a frame's bytes, as a view; `meaning` says what samples mean."""
    import numpy as np

    from upfrost.gpu.frame import Frame, FrameFormat

    _check_size(data, info)
    name = info.finfo.name
    sites = {
        GstVideo.VideoChromaSite.NONE: "centre",  # as JPEG has it
        GstVideo.VideoChromaSite.COSITED: "top-left",
    }
    # Whose name begins with a digit, and so is no attribute.
    full = getattr(GstVideo.VideoColorRange, "0_255", None) or getattr(
        GstVideo.VideoColorRange, "_0_255", None
    )
    kind = FrameFormat(
        subsampling={"Y42B": "422", "Y444": "444"}.get(name, "420"),  # type: ignore[arg-type]
        interleaved=name in ("NV12", "P010_10LE"),
        bits=10 if name.endswith("10LE") else 8,
        shift=6 if name == "P010_10LE" else 0,
        range="full" if meaning.colorimetry.range == full else "limited",
        siting=sites.get(meaning.chroma_site, "left"),  # type: ignore[arg-type]
    )
    size = kind.dtype.itemsize
    planes = []
    for number, shape in enumerate(kind.shapes(info.height, info.width)):
        steps = (info.stride[number], size * math.prod(shape[2:]), size)
        planes.append(
            np.lib.stride_tricks.as_strided(
                data[info.offset[number] :].view(kind.dtype),
                shape,
                steps[: len(shape)],
                writeable=data.flags.writeable,
            )
        )
    return Frame(kind, tuple(planes))


def _rows(data: Any, info: Any) -> Any:
    """A view of a frame's bytes as (H, W, 3): rows are padded to four bytes."""
    import numpy as np

    _check_size(data, info)
    return np.lib.stride_tricks.as_strided(
        data[info.offset[0] :],
        (info.height, info.width, 3),
        (info.stride[0], 3, 1),
        writeable=data.flags.writeable,
    )


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
