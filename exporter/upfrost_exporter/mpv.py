"""Networks as user shaders of mpv and of all else that is built on libplacebo.

A user shader is a file of GLSL functions, each under a head of ``//!`` lines that say
on which plane of the player's rendering it runs, what it reads and what it writes
(https://libplacebo.org/custom-shaders/). Textures between passes hold four channels, a
*slice* of a value, in 16-bit floats, inside a margin of one pixel of zeros: textures by
themselves repeat their edge, and convolutions are padded with zeros.

A fragment shader writes one slice. A compute shader writes all slices of a value, one
below the other into one texture, so that it reads what they have in common once.
"""

from __future__ import annotations

import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from upfrost.files import new_file
from upfrost.network.graph import INPUT, Clamp, Graph, LeakyRelu, Relu
from upfrost.text import printable
from upfrost_exporter.builder import ExportError
from upfrost_exporter.fusion import Pass, Residual, Step, fuse

Form = Literal["fragment", "compute"]
FORMS: tuple[Form, ...] = ("fragment", "compute")
# How many textures mpv and libplacebo let a pass read.
MAX_TEXTURES = 16
_WORKGROUP = 8  # rows and columns
_PREFIX = "UPFROST"


def shader(graph: Graph, form: Form = "fragment") -> str:
    """The user shader of a network, for luma's plane or, of three channels, for RGB.

    It runs where the player enlarges by more than the square root of the network's
    scale, which is as far from the scale as from 1. Raises `ExportError` for a network
    that no shader is written for.
    """
    writer = {"fragment": _Fragments, "compute": _Computes}[form](graph)
    return "\n".join([*_about(graph), *writer.blocks(), ""])


def write_shader(
    graph: Graph, path: Path, form: Form = "fragment", *, overwrite: bool = True
) -> None:
    """Write `shader` to a file. Raises `ExportError`."""
    text = shader(graph, form)
    try:
        with new_file(path, overwrite=overwrite) as file:
            file.write(text.encode())
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"{path}: cannot be written: {reason}") from error


def _about(graph: Graph) -> Iterator[str]:
    """The comment at the file's head: what it is, whose, and how it came about."""
    about = graph.metadata
    plane = "the RGB picture" if graph.channels == 3 else "luma"
    yield f"// {graph.name}: enlarges {plane} {graph.scale} times"
    for key in ("description", "licence", "attribution", "training_data", "source"):
        entry = about.get(key)
        for each in entry if isinstance(entry, list) else [entry]:
            if each is not None:
                text = f"{key.replace('_', ' ')}: {printable(str(each))}"
                # Players look for the first such mark, and skip what is before it.
                yield from textwrap.wrap(
                    text.replace("//!", "// !"),
                    86,
                    initial_indent="// ",
                    subsequent_indent="//   ",
                    break_on_hyphens=False,
                )
    yield "// written by: upfrost export --to mpv"


class _Writer(ABC):
    """Writes a network's passes in one form."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.passes, self.tail = fuse(graph)
        self.channels = {INPUT: graph.channels}
        self.channels.update((each.value, each.channels) for each in self.passes)
        self.numbers = {each.value: n for n, each in enumerate(self.passes, 1)}

    @abstractmethod
    def blocks(self) -> Iterator[str]:
        """The lines of all passes."""

    @abstractmethod
    def texture(self, value: str, index: int) -> str:
        """The name of the texture that holds slice `index` of a value."""

    @abstractmethod
    def texel(self, value: str, index: int, row: int, column: int) -> str:
        """GLSL for a slice at an offset from the pixel `texel`."""

    def slices(self, value: str) -> range:
        return range(math.ceil(self.channels[value] / 4))

    def head(
        self,
        description: str,
        reads: Sequence[str],
        *,
        width: str = "",
        height: str = "",
        save: str = "",
        compute: tuple[int, int] | None = None,
    ) -> Iterator[str]:
        """The ``//!`` lines of a pass; sizes are what follows HOOKED's in RPN."""
        graph = self.graph
        if len(reads) > MAX_TEXTURES:
            raise ExportError(
                f"{graph.name}: {description} reads {len(reads)} textures, and players "
                f"allow {MAX_TEXTURES}"
            )
        yield ""
        yield f"//!HOOK {'MAIN' if graph.channels == 3 else 'LUMA'}"
        yield from (f"//!BIND {name}" for name in reads)
        if save:
            yield f"//!SAVE {save}"
            yield "//!COMPONENTS 4"
        yield f"//!WIDTH HOOKED.w {width}"
        yield f"//!HEIGHT HOOKED.h {height}"
        if compute:
            yield f"//!COMPUTE {compute[0]} {compute[1]} {_WORKGROUP} {_WORKGROUP}"
        if graph.scale > 1:
            least = f"{math.floor(math.sqrt(graph.scale) * 100) / 100:g}"
            yield (
                f"//!WHEN OUTPUT.w HOOKED.w / {least} > OUTPUT.h HOOKED.h / {least} > *"
            )
        yield f"//!DESC {graph.name}: {description}"

    def textures(self, step: Pass) -> list[str]:
        """The names of all textures that a pass reads."""
        return list(
            dict.fromkeys(
                self.texture(value, index)
                for value in step.sources
                for index in self.slices(value)
            )
        )

    def tap(self, value: str, index: int, row: int, column: int) -> str:
        """GLSL for a slice, `row` and `column` pixels from the one at hand."""
        if value != INPUT:
            return self.texel(value, index, row, column)
        if not row and not column:
            return "picture(pos)"
        return f"picture(pos + HOOKED_rot * vec2({column}, {row}) * HOOKED_pt)"

    def centre(self, value: str, index: int) -> str:
        """GLSL for the vec4 of a slice at the pixel at hand."""
        read = self.tap(value, index, 0, 0)
        if value != INPUT:
            return read
        return f"vec4({read}{', 0.0' * (4 - self.graph.channels)})"

    def picture(self, step: Pass) -> Iterator[str]:
        """A function for the input at a position, 0 beyond the edge, if it is read."""
        if INPUT not in step.sources:
            return
        kind, parts = ("vec3", "rgb") if self.graph.channels == 3 else ("float", "x")
        read = f"HOOKED_tex(pos).{parts}{self.range_factor()}"
        yield f"{kind} picture(vec2 pos) {{"
        yield "    bool inside = all(lessThan(abs(pos - 0.5), vec2(0.5)));"
        yield f"    return inside ? {read} : {kind}(0.0);"
        yield "}"

    def range_factor(self) -> str:
        """What makes a network's value of a player's, in which white is 1."""
        full = self.graph.value_range
        return "" if full == 1 else f" * {_number(full)}"

    def computed(self, step: Pass, indices: Sequence[int]) -> Iterator[str]:
        """Statements that leave the pass's slices `indices` in res0, res1 and so on."""
        node, tensors = step.convolution, self.graph.tensors
        if node is None:
            for index in indices:
                yield f"vec4 res{index} = {self.centre(step.source, index)};"
        else:
            weight = tensors[node.weight]
            for index in indices:
                bias = tensors[node.bias] if node.bias else np.zeros(len(weight))
                yield f"vec4 res{index} = {_vector(_slice(bias, index))};"
            inputs = self.channels[step.source] if step.source == INPUT else 4
            yield f"{'float' if inputs == 1 else f'vec{inputs}'} v;"
            rows, columns = weight.shape[2:]
            for row in range(rows):
                for column in range(columns):
                    for part in self.slices(step.source):
                        place = row - rows // 2, column - columns // 2
                        yield f"v = {self.tap(step.source, part, *place)};"
                        taps = weight[:, 4 * part :, row, column]
                        for index in indices:
                            by_input = _slice(taps, index).T
                            yield f"res{index} += {_matrix(by_input, inputs)} * v;"
        for each in step.steps:
            for index in indices:
                yield self.step(each, index)

    def step(self, step: Step, index: int) -> str:
        """A statement that does a step to slice `index`."""
        name = f"res{index}"
        if isinstance(step, Residual):
            return f"{name} += {self.centre(step.value, index)};"
        if isinstance(step, Relu):
            return f"{name} = max({name}, 0.0);"
        if isinstance(step, Clamp):
            return f"{name} = clamp({name}, {_number(step.low)}, {_number(step.high)});"
        if isinstance(step, LeakyRelu):
            slope = _number(step.slope)
        else:
            slopes = self.graph.tensors[step.slope]
            same = len(slopes) == 1
            slope = _vector(np.tile(slopes, 4) if same else _slice(slopes, index))
        return f"{name} = max({name}, 0.0) + {slope} * min({name}, 0.0);"

    def finish(self) -> Iterator[str]:
        """A function: a pixel of the result, from the network's value and the skip."""
        rgb = self.graph.channels == 3
        yield "vec4 finish(vec4 res0, vec4 skip) {"
        if self.tail.skip:
            yield f"    res0 += skip{self.range_factor()};"
        for each in self.tail.steps:
            yield f"    {self.step(each, 0)}"
        if self.graph.value_range != 1:
            yield f"    res0 /= {_number(self.graph.value_range)};"
        yield "    res0 = clamp(res0, 0.0, 1.0);"
        parts = "res0.rgb, skip.a" if rgb else "res0.x, 0.0, 0.0, 1.0"
        yield f"    return vec4({parts});"
        yield "}"

    def channel(self, colour: int, place: int) -> tuple[int, int]:
        """Slice and component of a pixel's colour, at `place` in its shuffled block."""
        return divmod(colour * self.graph.scale**2 + place, 4)


class _Fragments(_Writer):
    """Fragment shaders, one for each slice of each value."""

    def texture(self, value: str, index: int) -> str:
        if value == INPUT:
            return "HOOKED"
        return f"{_PREFIX}{self.numbers[value]}_{index}"

    def texel(self, value: str, index: int, row: int, column: int) -> str:
        raw = f"{self.texture(value, index)}_raw"
        if not row and not column:
            return f"texelFetch({raw}, texel, 0)"
        return f"texelFetchOffset({raw}, texel, 0, ivec2({column}, {row}))"

    def blocks(self) -> Iterator[str]:
        for step in self.passes:
            number = self.numbers[step.value]
            for index in self.slices(step.value):
                yield from self.head(
                    f"pass {number}, channels {4 * index} to {4 * index + 3}",
                    self.textures(step),
                    save=self.texture(step.value, index),
                    width="2 +",
                    height="2 +",
                )
                yield from self.picture(step)
                yield "vec4 hook() {"
                yield from _indented(self.place(step))
                yield from _indented(self.computed(step, [index]))
                yield f"    return inside ? res{index} : vec4(0.0);"
                yield "}"
        yield from self.shuffle()

    def place(self, step: Pass) -> Iterator[str]:
        """Statements: where the pixel lies, and whether it is not of the margin.

        In the margin the nearest pixel is computed and then dropped: no read lies
        beyond a texture, and control flow is the same everywhere.
        """
        saved = [name for name in self.textures(step) if name != "HOOKED"]
        if saved:
            name = saved[0]
            yield f"ivec2 at = ivec2({name}_pos * {name}_size);"
            yield f"ivec2 texel = clamp(at, ivec2(1), ivec2({name}_size) - 2);"
            yield "bool inside = at == texel;"
        if INPUT in step.sources:
            yield "vec2 pos = HOOKED_pos + (2.0 * HOOKED_pos - 1.0) * HOOKED_pt;"
            if not saved:
                yield "bool inside = all(lessThan(abs(pos - 0.5), vec2(0.5)));"

    def shuffle(self) -> Iterator[str]:
        """The pass that shuffles pixels and adds the skip."""
        value, scale = self.tail.value, self.graph.scale
        names = [self.texture(value, index) for index in self.slices(value)]
        size = f"{scale} *"
        yield from self.head("result", [*names, "HOOKED"], width=size, height=size)
        yield from self.finish()
        yield "vec4 hook() {"
        size = f"({names[0]}_size - 2.0)"
        yield f"    vec2 at = floor({names[0]}_pos * {size} * {scale}.0);"
        yield f"    vec2 small = floor(at / {scale}.0);"
        yield "    ivec2 texel = ivec2(small) + 1;"
        yield f"    ivec2 block = ivec2(at - small * {scale}.0);"
        yield f"    int place = block.y * {scale} + block.x;"
        reads = []
        for colour in range(self.graph.channels):
            # All places that a pixel may have, by the slice that holds them.
            first = self.channel(colour, 0)
            last = self.channel(colour, scale**2 - 1)[0]
            read = self.texel(value, last, 0, 0)
            for index in reversed(range(first[0], last)):
                bound = 4 * (index + 1) - colour * scale**2
                read = f"place < {bound} ? {self.texel(value, index, 0, 0)} : {read}"
            offset = first[1] or ""
            component = f"(place + {offset})" if offset else "place"
            reads.append(f"({read})[{component} % 4]")
        parts = ", ".join([*reads, *["0.0"] * (4 - len(reads))])
        yield f"    vec4 res = vec4({parts});"
        if self.tail.skip == "nearest":
            yield f"    vec2 back = small + 0.5 - (at + 0.5) / {scale}.0;"
            pos = "HOOKED_pos + HOOKED_rot * back * HOOKED_pt"
            yield f"    return finish(res, HOOKED_tex({pos}));"
        else:
            yield from _indented(_bilinear())
            yield "    return finish(res, skip);"
        yield "}"


class _Computes(_Writer):
    """Compute shaders, one for each value; the last one shuffles, too."""

    def texture(self, value: str, index: int) -> str:  # noqa: ARG002 - one for all
        return "HOOKED" if value == INPUT else f"{_PREFIX}{self.numbers[value]}"

    def texel(self, value: str, index: int, row: int, column: int) -> str:
        raw = f"{self.texture(value, index)}_raw"
        rows = f"{index} * size.y + {row}" if index else f"{row}"
        return f"texelFetch({raw}, texel + ivec2({column}, {rows}), 0)"

    def blocks(self) -> Iterator[str]:
        *before, last = self.passes
        for step in before:
            indices = self.slices(step.value)
            count = len(indices)
            yield from self.head(
                f"pass {self.numbers[step.value]}",
                self.textures(step),
                save=self.texture(step.value, 0),
                width="2 +",
                height=f"2 + {count} *",
                compute=(_WORKGROUP, _WORKGROUP * count),
            )
            yield from self.picture(step)
            yield "void hook() {"
            yield f"    ivec2 size = imageSize(out_image) / ivec2(1, {count});"
            yield "    ivec2 at = ivec2(gl_GlobalInvocationID);"
            yield "    ivec2 texel = clamp(at, ivec2(1), size - 2);"
            yield "    bool inside = at == texel;"
            if INPUT in step.sources:
                place = "(vec2(at) - 0.5) / vec2(size - 2) * vec2(imageSize(out_image))"
                yield f"    vec2 pos = HOOKED_map({place} - 0.5);"
            yield from _indented(self.computed(step, indices))
            yield "    if (at.x < size.x && at.y < size.y) {"
            for index in indices:
                target = f"at + ivec2(0, {index} * size.y)"
                pixel = f"inside ? res{index} : vec4(0.0)"
                yield f"        imageStore(out_image, {target}, {pixel});"
            yield "    }"
            yield "}"
        yield from self.last(last)

    def last(self, step: Pass) -> Iterator[str]:
        """The last pass, whose pixels are blocks of the result."""
        scale = self.graph.scale
        block = _WORKGROUP * scale
        reads = list(dict.fromkeys([*self.textures(step), "HOOKED"]))
        yield from self.head(
            "result",
            reads,
            width=f"{scale} *",
            height=f"{scale} *",
            compute=(block, block),
        )
        yield from self.picture(step)
        yield from self.finish()
        yield "void hook() {"
        yield f"    ivec2 size = imageSize(out_image) / {scale} + 2;"
        yield "    ivec2 at = ivec2(gl_GlobalInvocationID);"
        yield "    ivec2 texel = min(at + 1, size - 2);"
        yield f"    vec2 pos = HOOKED_map((vec2(at) + 0.5) * {scale}.0 - 0.5);"
        yield from _indented(self.computed(step, self.slices(step.value)))
        yield "    if (at.x < size.x - 2 && at.y < size.y - 2) {"
        yield from _indented(_indented(self.store()))
        yield "    }"
        yield "}"

    def store(self) -> Iterator[str]:
        """Statements that write a block of the result."""
        scale = self.graph.scale
        reach = (0,) if self.tail.skip == "nearest" else (-1, 0, 1)
        for row in reach:
            for column in reach:
                place = f"pos + HOOKED_rot * vec2({column}, {row}) * HOOKED_pt"
                yield f"vec4 near{row + 1}{column + 1} = HOOKED_tex({place});"
        for row in range(scale):
            for column in range(scale):
                parts = []
                for colour in range(self.graph.channels):
                    index, component = self.channel(colour, row * scale + column)
                    parts.append(f"res{index}.{'xyzw'[component]}")
                parts += ["0.0"] * (4 - len(parts))
                skip = self.skip(row, column) if len(reach) > 1 else "near11"
                pixel = f"finish(vec4({', '.join(parts)}), {skip})"
                target = f"at * {scale} + ivec2({column}, {row})"
                yield f"imageStore(out_image, {target}, {pixel});"

    def skip(self, row: int, column: int) -> str:
        """GLSL for the input, enlarged bilinearly, at a pixel of the block."""
        (top, down), (left, right) = (
            divmod((place + 0.5) / self.graph.scale + 0.5, 1) for place in (row, column)
        )
        upper, lower = (
            f"mix(near{line}{int(left)}, near{line}{int(left) + 1}, {_number(right)})"
            for line in (int(top), int(top) + 1)
        )
        return f"mix({upper}, {lower}, {_number(down)})"


def _bilinear() -> Iterator[str]:
    """Statements: the input at HOOKED_pos, between its four pixels, as `skip`.

    The sampler is not asked to: it may do this with eight bits for textures of eight.
    """
    yield "vec2 between = HOOKED_pos * HOOKED_size - 0.5;"
    yield "vec2 pos = (floor(between) + 0.5) * HOOKED_pt;"
    yield "between = fract(between);"
    reads = [
        f"HOOKED_tex(pos + vec2({column}, {row}) * HOOKED_pt)"
        for row in (0, 1)
        for column in (0, 1)
    ]
    yield f"vec4 above = mix({reads[0]}, {reads[1]}, between.x);"
    yield f"vec4 below = mix({reads[2]}, {reads[3]}, between.x);"
    yield "vec4 skip = mix(above, below, between.y);"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _slice(values: npt.NDArray[np.floating], index: int) -> npt.NDArray[np.floating]:
    """Four entries of the first axis, zeros where there are fewer."""
    found = values[4 * index : 4 * index + 4]
    missing = [(0, 4 - len(found))] + [(0, 0)] * (found.ndim - 1)
    return np.pad(found, missing)


def _number(value: float) -> str:
    """The shortest literal that is the same float32."""
    return str(np.float32(value))


def _vector(values: npt.NDArray[np.floating]) -> str:
    return f"vec4({', '.join(map(_number, values))})"


def _matrix(by_input: npt.NDArray[np.floating], inputs: int) -> str:
    """A matrix of four rows and `inputs` columns, of an array (inputs at most, 4)."""
    if inputs == 1:
        return _vector(by_input[0])
    padded = np.pad(by_input[:inputs], ((0, max(0, inputs - len(by_input))), (0, 0)))
    name = "mat4" if inputs == 4 else f"mat{inputs}x4"
    return f"{name}({', '.join(map(_number, padded.flat))})"
