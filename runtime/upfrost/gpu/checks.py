"""What an `Upscaler` is asked for, checked where it comes in."""

from __future__ import annotations

import operator
import os
from typing import Any, get_args

import numpy as np

from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.frame import Frame
from upfrost.network.graph import Graph, alignment
from upfrost.network.modelfile import find_model, read_model


def check_precision(precision: object) -> None:
    """Raise `UsageError` unless it is ``auto`` or a `Precision`."""
    known = ("auto", *get_args(Precision))
    if precision not in known:
        raise UsageError(f"precision is {', '.join(known)}; found {precision!r}")


def network_of(model: Any) -> Graph:
    """A graph, or the one in a weight file or of a bundled name.

    Raises `UsageError` for another type, and `ModelFileError`.
    """
    if isinstance(model, Graph):
        return model
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"model is a name, a .upf file or a Graph; found {model!r}")
    return read_model(find_model(model))


def positive(name: str, value: Any) -> int | None:
    """A whole number, 1 or more, or None. Raises `UsageError`, naming it."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise UsageError(
            f"{name} is a whole number from 1 on, or None; found {value!r}"
        )
    return number


def device_name(device: Any) -> str | None:
    """A device's number or part of its name, as text. Raises `UsageError`."""
    if device is None or isinstance(device, str):
        return device
    try:
        return str(operator.index(device))
    except TypeError:
        raise UsageError(
            f"device is a number, part of a name or None; found {device!r}"
        ) from None


def picture_of(picture: Any, graph: Graph) -> Bytes:
    """A picture of anything that NumPy reads as an array, such as Pillow's pictures.

    uint8 (H, W, C), C as `channels_of` has it. Raises `UsageError` for what it is not.
    """
    channels = "1 or 3" if graph.channels == 1 else str(graph.channels)
    wanted = f"a picture is uint8 with shape (H, W, {channels})"
    try:
        array = np.asarray(picture)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{wanted}, found {type(picture).__name__}: {error}") from None
    if array.dtype != np.uint8 or array.ndim != 3 or not array.size:
        raise UsageError(f"{wanted}, found {array.dtype} {array.shape}")
    channels_of(array.shape[2], graph)
    return array


def check_frame(frame: object) -> None:
    """Raise `UsageError` unless it is a `Frame`."""
    if not isinstance(frame, Frame):
        raise UsageError(
            f"a frame is a Frame of planes, found {type(frame).__name__}; a picture is "
            "upscaled by calling the Upscaler"
        )


def channels_of(channels: int, graph: Graph) -> int:
    """Channels of pictures: the network's, or 3 for a network of one.

    Raises `UsageError` for others.
    """
    if channels != graph.channels and (graph.channels, channels) != (1, 3):
        known = f"{graph.channels} channels" if graph.channels > 1 else "1 channel or 3"
        raise UsageError(f"{graph.name} takes {known}, found {channels}")
    return channels


def check_size(height: int, width: int, graph: Graph) -> None:
    """Raise `UsageError` for a size that a network's strides do not divide."""
    multiple = alignment(graph)
    if min(height, width) < 1 or height % multiple or width % multiple:
        raise UsageError(
            f"{graph.name} takes pictures whose sides are multiples of {multiple}, "
            f"found {width}×{height} pixels"
        )


def check_rows(rows: object, shape: tuple[int, int, int]) -> Bytes:
    """The rows that a picture's reader gave. Raises `UsageError` for another shape."""
    if isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.shape == shape:
        return rows
    found = (
        f"{rows.dtype} {rows.shape}"
        if isinstance(rows, np.ndarray)
        else type(rows).__name__
    )
    raise UsageError(f"rows to upscale are uint8 with shape {shape}, found {found}")
