"""All operations but convolutions as dispatches, and bytes to values and back."""

from __future__ import annotations

from collections.abc import Sequence

from upfrost.gpu.dispatches import (
    BufferSlice,
    Dispatch,
    Epilogue,
    Layout,
    Precision,
    TensorView,
    float_word,
    grid_of,
    row_words,
    slices,
)
from upfrost.gpu.frame import ChromaFormat, HostPlane, SampleFormat
from upfrost.network.graph import (
    Crop,
    GlobalMax,
    GlobalMean,
    GridSample,
    LayerNorm,
    MaxPool2d,
    Pad,
    Resize,
    ResizeTo,
)

MODES = {"nearest": 1, "bilinear": 2, "bicubic": 3}
_RGB_BYTES = 3  # of a pixel
CLEARED = 65535 * 64  # words of a dispatch: workgroups that every device has
_BANDS = 64  # of rows, whose sums make a mean; BANDS of shaders/bands.glsl


def unpack(
    given: TensorView,
    target: TensorView,
    samples: SampleFormat,
    value_range: float,
    precision: Precision,
) -> Dispatch:
    """The picture's bytes → values, for all but convolutions, which read bytes."""
    layout = target.layout
    return Dispatch(
        shader=f"unpack-{precision}",
        label="unpack",
        buffers=(given.buffer, target.buffer),
        grid=grid_of(layout.stride, layout.rows, 1),
        constants=(
            samples.pixel_format(layout.channels),
            float_word(value_range / samples.full_scale),
        ),
        push=(*given.layout.words, *layout.words),
    )


def pack(
    source: TensorView,
    pictures: tuple[int, int],
    size: tuple[int, int],
    channels: int,
    samples: SampleFormat,
    *,
    factor: int,
    skip: tuple[TensorView, Resize] | None,
    value_range: float,
    precision: Precision,
) -> Dispatch:
    """The network's last value → bytes of the picture `pictures[1]`, `size` = (H, W).

    Pixel shuffle by `factor`; `skip`, interpolated as its node says, is added: a value
    or the picture `pictures[0]` itself, whose token goes over to `pictures[1]`.
    """
    height, width = size
    added, resize = skip or (source, None)
    return Dispatch(
        shader=f"pack-{precision}",
        label="pack",
        buffers=(source.buffer, pictures[1], pictures[0], added.buffer),
        grid=grid_of(-(-width // 4), height, 1),
        constants=(
            samples.pixel_format(channels),
            float_word(samples.full_scale / value_range),
            factor,
            MODES[resize.mode] if resize else 0,
            *(resize.ratio if resize else (1, 1)),
            int(added.buffer == pictures[0]),
            float_word(samples.low),
            float_word(samples.high),
        ),
        push=(
            *source.layout.words,
            *added.layout.words,
            width,
            height,
            row_words(width, channels * samples.bytes),
        ),
    )


def chroma(
    given: HostPlane,
    target: HostPlane,
    buffers: tuple[int, int],
    chroma_format: ChromaFormat,
    samples: SampleFormat,
    scale: int,
    planes: int,
) -> Dispatch:
    """Chroma of the picture `buffers[0]` → `scale` times as large, in `buffers[1]`.

    `given` and `target` are the first of `planes` planes that follow each other.
    """
    words = target.stride // 4
    return Dispatch(
        shader="chroma",
        label="chroma",
        buffers=buffers,
        # Three words of a row an invocation where the scale is three.
        grid=grid_of(-(-words // 3) if scale == 3 else words, target.height, planes),
        constants=(
            chroma_format.components,
            samples.bytes,
            samples.shift,
            scale,
            *chroma_format.ratio,
            *chroma_format.offset,
            *chroma_format.result_offset,
            float_word(samples.low),
            float_word(samples.high),
        ),
        push=(
            *(given.offset // 4, given.stride // 4),
            *(given.width // chroma_format.components, given.height),
            *(target.offset // 4, words),
        ),
    )


def luma_of_rgb(
    buffers: tuple[int, int],
    given: HostPlane,
    target: Layout,
    samples: SampleFormat,
) -> Dispatch:
    """RGB of the picture `buffers[0]` → its luma, in `buffers[1]`, for a network.

    `target` is the layout of what the network reads, `samples` of 12 bits.
    """
    return Dispatch(
        shader="luma_of_rgb",
        label="luma",
        buffers=buffers,
        grid=grid_of(target.stride // 2, target.rows, 1),
        constants=_luma_range(samples),
        push=(given.stride // _RGB_BYTES, *target.words),
    )


def rgb_by_luma(
    buffers: tuple[int, int, int],
    given: HostPlane,
    target: HostPlane,
    samples: SampleFormat,
    scale: int,
) -> Dispatch:
    """RGB of the picture `buffers[0]`, by its luma `scale` times as large.

    The luma, a row of it whole words, is in `buffers[1]`; the result goes to
    `buffers[2]`.
    """
    width, luma_bytes = target.width // _RGB_BYTES, samples.bytes
    return Dispatch(
        shader="rgb_by_luma",
        label="colours",
        buffers=buffers,
        grid=grid_of(-(-width // 4), target.height, 1),
        constants=(*_luma_range(samples), scale),
        push=(
            given.stride // _RGB_BYTES,
            given.width // _RGB_BYTES,
            given.height,
            row_words(width, luma_bytes),
            target.stride // 4,
        ),
    )


def _luma_range(samples: SampleFormat) -> tuple[int, int]:
    """Black's luma, and the steps of luma for each of a channel of RGB, of 8 bits."""
    black = samples.low >> samples.bits - 8
    return float_word(16.0 * black), float_word(219 / 255 if black else 1.0)


def resize(
    node: Resize,
    source: TensorView,
    target: TensorView,
    precision: Precision,
) -> Dispatch:
    """Interpolation of a value."""
    return Dispatch(
        shader=f"resize-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(MODES[node.mode], *node.ratio),
        push=(*source.layout.words, *target.layout.words),
    )


def pixel_shuffle(
    label: str,
    factor: int,
    source: TensorView,
    target: TensorView,
    precision: Precision,
) -> Dispatch:
    """Channels to pixels."""
    return Dispatch(
        shader=f"pixel_shuffle-{precision}",
        label=label,
        buffers=(source.buffer, target.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(factor, target.layout.channels),
        push=(*source.layout.words, *target.layout.words),
    )


def elementwise(
    label: str,
    parameters: BufferSlice,
    source: TensorView,
    target: TensorView,
    epilogue: Epilogue,
    precision: Precision,
) -> Dispatch:
    """A value with an epilogue, where no convolution could take it.

    `parameters` holds the rectifier's slopes.
    """
    other = epilogue.other or source
    return Dispatch(
        shader=f"elementwise-{precision}",
        label=label,
        buffers=(source.buffer, target.buffer, parameters.constant, other.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(target.layout.channels, *epilogue.constants),
        push=(
            *source.layout.words,
            *target.layout.words,
            other.layout.base,
            parameters.first,
        ),
    )


def gather(
    label: str,
    source: TensorView,
    target: TensorView,
    first: int,
    precision: Precision,
) -> Dispatch:
    """Copies a value's channels to channel `first` and on of another."""
    channels = source.layout.channels
    return Dispatch(
        shader=f"gather-{precision}",
        label=label,
        buffers=(source.buffer, target.buffer),
        grid=grid_of(
            target.layout.stride,
            target.layout.rows,
            slices(first + channels) - first // 4,
        ),
        constants=(first, channels),
        push=(*source.layout.words, *target.layout.words),
    )


def pad(
    node: Pad | Crop, source: TensorView, target: TensorView, precision: Precision
) -> Dispatch:
    """A value with more rows and columns around it, or with fewer."""
    if isinstance(node, Pad):
        top, left = node.padding[:2]
    else:
        top, left = -node.margins[0], -node.margins[1]
    reflect = isinstance(node, Pad) and node.mode == "reflect"
    return Dispatch(
        shader=f"pad-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(int(reflect), top & 0xFFFFFFFF, left & 0xFFFFFFFF),
        push=(*source.layout.words, *target.layout.words),
    )


def max_pool(
    node: MaxPool2d, source: TensorView, target: TensorView, precision: Precision
) -> Dispatch:
    """The largest number of each window."""
    return Dispatch(
        shader=f"max_pool-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(*node.kernel, *node.stride, *node.padding[:2]),
        push=(*source.layout.words, *target.layout.words),
    )


def sums_bytes(channels: int) -> int:
    """Bytes of the buffer for what bands of rows of the whole picture come to."""
    return slices(channels) * _BANDS * 16


def over_picture(
    node: GlobalMean | GlobalMax,
    source: TensorView,
    target: TensorView,
    sums: int,
    precision: Precision,
) -> list[Dispatch]:
    """Each channel's mean or maximum, by way of bands of rows in the buffer `sums`."""
    layout = target.layout
    constants = (int(isinstance(node, GlobalMax)),)
    return [
        Dispatch(
            shader=f"band_sums-{precision}",
            label=node.name,
            buffers=(source.buffer, sums),
            grid=(_BANDS, 1, layout.slices),
            constants=constants,
            push=source.layout.words,
        ),
        Dispatch(
            shader=f"mean-{precision}",
            label=node.name,
            buffers=(sums, target.buffer),
            grid=(-(-layout.stride // _BANDS), -(-layout.rows // 16), layout.slices),
            constants=constants,
            push=layout.words,
        ),
    ]


def layer_norm(
    node: LayerNorm,
    parameters: BufferSlice,
    source: TensorView,
    target: TensorView,
    precision: Precision,
) -> Dispatch:
    """Each pixel's channels, normalised. `parameters` holds bias and weight."""
    layout = target.layout
    return Dispatch(
        shader=f"layer_norm-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer, parameters.constant),
        grid=grid_of(layout.stride, layout.rows, 1),
        constants=(
            layout.channels,
            int(node.kind == "layer"),
            float_word(node.epsilon),
        ),
        push=(*source.layout.words, *layout.words, parameters.first),
    )


def resize_to(
    node: ResizeTo, source: TensorView, target: TensorView, precision: Precision
) -> Dispatch:
    """Interpolation of a value to the size of the target."""
    return Dispatch(
        shader=f"resize_to-{precision}",
        label=node.name,
        buffers=(source.buffer, target.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(MODES[node.mode],),
        push=(*source.layout.words, *target.layout.words),
    )


def grid_sample(
    node: GridSample,
    sources: Sequence[TensorView],
    target: TensorView,
    precision: Precision,
) -> Dispatch:
    """A value, taken from where another says; `sources` are both."""
    value, moves = sources
    return Dispatch(
        shader=f"grid_sample-{precision}",
        label=node.name,
        buffers=(value.buffer, target.buffer, moves.buffer),
        grid=grid_of(target.layout.stride, target.layout.rows, target.layout.slices),
        constants=(node.factor, node.groups, value.layout.channels // node.groups),
        push=(*value.layout.words, *target.layout.words, moves.layout.base),
    )


def clear(buffer: int, words: int, first: int = 0) -> Dispatch:
    """Zeros from word `first` of a buffer up to `words`, or `CLEARED` of them."""
    return Dispatch(
        shader="clear",
        label="clear",
        buffers=(buffer,),
        grid=(-(-min(CLEARED, words - first) // 64), 1, 1),
        constants=(),
        push=(first, words),
    )
