"""The GStreamer element `upfrostscale`: a scaler whose factor is its model's.

GStreamer's plugin loader runs this file in the Python that it was built with, Debian's
own. upfrost is imported when the element is used, not when it is listed: a scan that
failed would stay in GStreamer's registry.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import math
import sys
import types
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, GObject, Gst, GstBase, GstVideo  # noqa: E402

_LARGEST = 32767
_CAPS = Gst.Caps.from_string(
    f"video/x-raw,format=RGB,width=[1,{_LARGEST}],height=[1,{_LARGEST}],"
    "framerate=[0/1,2147483647/1]"
)
_ADVICE = (
    f"upfrost cannot be imported by Python {sys.version.split()[0]}, which is in "
    "GStreamer's plugin loader ({}); 'make gstreamer' sets up an environment of "
    "Debian's python3 for it, and a shell uses that after "
    "'. .venv-gstreamer/gstreamer.sh'"
)


def _pad(name: str, direction: Gst.PadDirection) -> Gst.PadTemplate:
    return Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, _CAPS)


class UpfrostScale(GstBase.BaseTransform):  # type: ignore[misc]
    """Upscales RGB frames; late ones are dropped when the property `qos` is set."""

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
    model = GObject.Property(
        type=str,
        default="video-x2",
        nick="Model",
        blurb="A name from 'upfrost models' or a .upf file",
    )
    device = GObject.Property(
        type=str,
        default=None,
        nick="Device",
        blurb="A number or part of a name from 'upfrost devices' (the best if not set)",
    )
    precision = GObject.Property(
        type=str,
        default="auto",
        nick="Precision",
        blurb="auto, fp16 or fp32, of values on the device",
    )

    def __init__(self) -> None:
        super().__init__()
        self._graph: Any = None
        self._upscaler: Any = None
        self._error: Exception | None = None  # why there is no model
        self._in: Any = None
        self._out: Any = None

    # The model decides the factor, so it is read before there are caps.

    def _scale(self) -> int:
        """The model's factor; 0 when there is no model."""
        if self._graph is None and self._error is None:
            try:
                from upfrost.network.modelfile import find_model, read_model

                self._graph = read_model(find_model(self.model))
                if self._graph.channels != 3:
                    raise ValueError(f"{self.model} is not a network for colour")
            except Exception as error:
                self._graph = None
                self._error = error
        return int(self._graph.scale) if self._graph is not None else 0

    def _fail(self, error: Exception) -> None:
        text = _ADVICE.format(error) if isinstance(error, ImportError) else str(error)
        problem = GLib.Error.new_literal(
            Gst.resource_error_quark(), text, Gst.ResourceError.SETTINGS
        )
        self.post_message(Gst.Message.new_error(self, problem, type(error).__name__))

    def do_start(self) -> bool:
        if not self._scale():
            assert self._error is not None
            self._fail(self._error)
            return False
        try:
            from upfrost import Upscaler

            _keep_for_ever()
            self._upscaler = Upscaler(
                self._graph,
                device=self.device or None,
                precision=self.precision,
            )
        except Exception as error:
            self._fail(error)
            return False
        return True

    def do_stop(self) -> bool:
        if self._upscaler is not None:
            self._upscaler.close()
        self._upscaler = self._graph = None
        self._error = None
        return True

    def do_transform_caps(
        self, direction: Gst.PadDirection, caps: Gst.Caps, allowed: Gst.Caps | None
    ) -> Gst.Caps:
        """Sizes on the other side of the element; all else is the same."""
        scale = self._scale()
        # Without a model all can be linked, and the reason is said when it starts.
        result = Gst.Caps.new_empty() if scale else _CAPS.copy()
        for index in range(caps.get_size() if scale else 0):
            structure = caps.get_structure(index).copy()
            for name in filter(structure.has_field, ("width", "height")):
                size = _scaled(
                    structure.get_value(name), scale, direction == Gst.PadDirection.SINK
                )
                if size is None:
                    break
                structure.set_value(name, size)
            else:
                result.append_structure(structure)
        if allowed is None:
            return result
        return allowed.intersect_full(result, Gst.CapsIntersectMode.FIRST)

    def do_set_caps(self, given: Gst.Caps, wanted: Gst.Caps) -> bool:
        self._in = _video_info(given)
        self._out = _video_info(wanted)
        scale = self._scale()
        return bool(
            self._in is not None
            and self._out is not None
            and (self._in.width * scale, self._in.height * scale)
            == (self._out.width, self._out.height)
        )

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

        if self._upscaler is None:
            return Gst.FlowReturn.ERROR
        try:
            with given.map(Gst.MapFlags.READ) as data:
                picture = _rows(np.frombuffer(data.data, np.uint8), self._in)
                large = self._upscaler(np.ascontiguousarray(picture))
            with result.map(Gst.MapFlags.WRITE) as data:
                _rows(np.frombuffer(data.data, np.uint8), self._out)[...] = large
        except Exception as error:
            self._fail(error)
            return Gst.FlowReturn.ERROR
        return Gst.FlowReturn.OK


@functools.cache
def _keep_for_ever() -> None:
    """Keep what Kompute's binding frees at the process's end, without Python's lock.

    It has the methods of a logger in static variables. A program that only embeds
    Python, such as gst-launch-1.0, would crash after its last frame.
    """
    import kp  # noqa: F401

    for found in gc.get_referrers(logging.getLogger("kp")):
        if isinstance(found, types.MethodType):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(found))


def _video_info(caps: Gst.Caps) -> Any:
    """What the caps say of frames; None where they are not one format."""
    # A constructor since 1.20; before, a method that returned whether it worked.
    return GstVideo.VideoInfo.new_from_caps(caps) if caps.is_fixed() else None


def _rows(data: Any, info: Any) -> Any:
    """A view of a frame's bytes as (H, W, 3): rows are padded to four bytes."""
    import numpy as np

    return np.lib.stride_tricks.as_strided(
        data[info.offset[0] :],
        (info.height, info.width, 3),
        (info.stride[0], 3, 1),
        writeable=data.flags.writeable,
    )


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
