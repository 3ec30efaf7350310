"""Kinds of devices, the register tiles that suit them, and the shaders for them.

`VARIANTS` lists every compiled shader: a source in shaders/, and what it is compiled
with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from upfrost.gpu.dispatches import Precision
from upfrost.network.graph import Blocks

SPIRV_FOLDER = Path(__file__).parent / "spirv"
DISPATCH_SECONDS = 0.1  # a Mali job is ended after about half a second


@dataclass(frozen=True)
class RegisterTile:
    """Pixels of one output slice that an invocation computes."""

    width: int
    height: int
    group: tuple[int, int]  # invocations of a workgroup in x and y

    @property
    def coverage(self) -> tuple[int, int]:
        """Pixels that a workgroup computes in x and y."""
        return self.width * self.group[0], self.height * self.group[1]

    @property
    def label(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def defines(self) -> dict[str, int]:
        return {
            "TILE_W": self.width,
            "TILE_H": self.height,
            "GROUP_X": self.group[0],
            "GROUP_Y": self.group[1],
        }


@dataclass(frozen=True)
class ConvKernel:
    """A convolution's shader source, and the register tile that it is compiled for."""

    source: str
    tile: RegisterTile
    least: int = 1  # channels in and out that it takes
    most: int = 1 << 16  # channels in
    rgb: bool = True  # whether it takes three, which may be a picture's bytes
    precisions: tuple[Precision, ...] = ("fp32", "fp16")

    @property
    def name(self) -> str:
        return f"{self.source}_{self.tile.label}"


@dataclass(frozen=True)
class Family:
    """Which kernels suit a kind of device, by the convolution's shape.

    The first kernel for whose `least` a layer has channels enough is taken; the others
    are what `upfrost tune` measures against it. `tuned` names those that won, by
    `layer_key`.
    """

    name: str
    conv3x3: tuple[ConvKernel, ...]
    conv1x1: tuple[ConvKernel, ...]
    deconv4x4: ConvKernel  # transposed, stride 2 (`deconv4x4_phases`)
    conv: tuple[ConvKernel, ...]  # anything else
    luma: tuple[ConvKernel, ...]  # last 3×3 layers that write samples of luma
    products: ConvKernel  # of Winograd's components, by elements and output slices
    macs_per_second: float  # of convolutions, the slowest member's, to be safe
    # Of each of the two buffers for a band of rows by Winograd's method, at most.
    scratch_bytes: int = 1 << 40
    tuned: Mapping[str, str] = field(default_factory=dict, hash=False)

    def luma_kernel(self, factor: int) -> ConvKernel | None:
        """The kernel that writes samples of luma enlarged by `factor`."""
        name = f"conv3x3_luma{factor}"
        return next((each for each in self.luma if each.source == name), None)

    @property
    def kernels(self) -> tuple[ConvKernel, ...]:
        return (
            *self.conv3x3,
            *self.conv1x1,
            self.deconv4x4,
            *self.conv,
            *self.luma,
            self.products,
        )


# Mali: a column of six pixels has the fewest instructions per product that stay within
# 64 registers, and 16 invocations of a row read whole cache lines (docs/mali.md).
# Four for the transposed convolution, which needs registers for two places; its
# workgroups of 16 × 3 cover, in the output, as many rows as those of the others.
# CPU: wide tiles load less, and wider ones than this take seconds to compile.
# Layers of few channels add up in half precision alone, which leaves registers for
# columns of twelve, one beside the other, since video's heights are multiples of twelve
# and not of 24; the last one of luma needs some for the picture that it adds, and
# where it trebles two pixels side by side, since their six bytes are whole halves of
# words.
# A family's tiles have small common multiples: planes are padded to the least of them.
# Bifrost computes slowly for the memory it has: Winograd's method (`winograd`) wins
# there from 16 channels on, by docs/mali.md's figures; its workgroups cover what those
# of the direct kernel do.
HALF_SUMS = 16  # input channels whose products are added up in half precision
_DIRECT_3X3 = (
    ConvKernel("conv3x3", RegisterTile(1, 6, (16, 4))),
    ConvKernel("conv3x3", RegisterTile(1, 3, (16, 4))),
)
_HALF_3X3 = ConvKernel(
    "conv3x3_half",
    RegisterTile(1, 12, (32, 1)),
    most=HALF_SUMS,
    rgb=False,  # a column of twelve of them spills registers
    precisions=("fp16",),
)
MALI = Family(
    "mali",
    conv3x3=(
        _HALF_3X3,
        ConvKernel("winograd", RegisterTile(2, 2, (8, 12)), least=16),
        *_DIRECT_3X3,
    ),
    conv1x1=(
        ConvKernel("conv1x1", RegisterTile(1, 6, (16, 4))),
        ConvKernel("conv1x1", RegisterTile(1, 3, (16, 4))),
    ),
    deconv4x4=ConvKernel("deconv4x4", RegisterTile(1, 4, (16, 3))),
    conv=(
        ConvKernel("conv", RegisterTile(1, 4, (16, 4))),
        ConvKernel("conv", RegisterTile(1, 2, (16, 4))),
    ),
    luma=(
        ConvKernel(
            "conv3x3_luma2",
            RegisterTile(1, 8, (16, 3)),
            most=HALF_SUMS,
            precisions=("fp16",),
        ),
        ConvKernel(
            "conv3x3_luma3",
            RegisterTile(2, 4, (8, 6)),
            most=HALF_SUMS,
            precisions=("fp16",),
        ),
    ),
    products=ConvKernel("winograd_products", RegisterTile(6, 1, (64, 1))),
    macs_per_second=4e9,  # a sixth of what Mali-G52's arithmetic could do in fp16
)
CPU = Family(
    "cpu",
    conv3x3=(
        ConvKernel(
            "winograd", RegisterTile(4, 4, (8, 1)), least=32, precisions=("fp32",)
        ),
        ConvKernel("conv3x3_cpu", RegisterTile(2, 6, (8, 1))),
        ConvKernel("conv3x3_cpu", RegisterTile(4, 2, (8, 1))),
        ConvKernel("conv3x3", RegisterTile(1, 6, (16, 4))),
    ),
    conv1x1=(
        ConvKernel("conv1x1", RegisterTile(4, 1, (8, 1))),
        ConvKernel("conv1x1", RegisterTile(4, 2, (8, 1))),
        ConvKernel("conv1x1", RegisterTile(1, 6, (16, 4))),
    ),
    deconv4x4=ConvKernel("deconv4x4", RegisterTile(1, 4, (16, 3))),
    conv=(
        ConvKernel("conv", RegisterTile(4, 1, (8, 1))),
        ConvKernel("conv", RegisterTile(4, 2, (8, 1))),
        ConvKernel("conv", RegisterTile(1, 4, (16, 4))),
    ),
    luma=(),
    products=ConvKernel("winograd_products", RegisterTile(8, 2, (8, 1))),
    # Two cores of a server. Nothing ends what takes a slower CPU longer, and dispatches
    # for which 2e9 is enough cost a deep network a sixth of its time in submissions.
    macs_per_second=8e9,
    scratch_bytes=4 << 20,
)
# Valhall GPUs and larger ones: the same kernels but Winograd's, which lose there, and
# more work in a dispatch. The smallest of them, Mali-G310 with one core, has about a
# tenth of the arithmetic of the Mali-G610 that docs/mali.md estimates 160 GMAC/s and
# more for.
VALHALL = replace(
    MALI,
    name="valhall",
    conv3x3=(_HALF_3X3, *_DIRECT_3X3),
    macs_per_second=16e9,
)
FAMILIES = (MALI, CPU)


@dataclass(frozen=True)
class Variant:
    """One SPIR-V file: a shader source and the macros that it is compiled with."""

    name: str
    source: str
    defines: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return SPIRV_FOLDER / f"{self.name}.spv"


def _variants() -> dict[str, Variant]:
    plain = (
        "unpack",
        "pack",
        "pixel_shuffle",
        "resize",
        "elementwise",
        "gather",
        "pad",
        "max_pool",
        "band_sums",
        "mean",
        "layer_norm",
        "resize_to",
        "grid_sample",
    )
    both: tuple[Precision, ...] = ("fp32", "fp16")
    shaders = [(Variant(name, name), both) for name in plain]
    for family in FAMILIES:
        for kernel in family.kernels:
            defines = kernel.tile.defines
            if kernel.source == "winograd":
                if Blocks(kernel.tile.width).mixes:  # where they may be staggered
                    defines = {**defines, "LEADS": 1}
                for name in ("winograd_input", "winograd_output"):
                    shader = Variant(f"{name}_{kernel.tile.label}", name, defines)
                    shaders.append((shader, kernel.precisions))
                continue
            shader = Variant(kernel.name, kernel.source, defines)
            shaders.append((shader, kernel.precisions))
            if kernel in (family.deconv4x4, *family.luma, family.products):
                continue
            reader = Variant(
                f"{kernel.name}_bytes", kernel.source, {**defines, "BYTES": 1}
            )
            shaders.append((reader, kernel.precisions))
    exact = ("clear", "chroma", "luma_of_rgb", "rgb_by_luma")
    variants = [Variant(name, name) for name in exact]
    for shader, precisions in shaders:
        for precision in precisions:
            half = {"FP16": 1} if precision == "fp16" else {}
            variants.append(
                Variant(
                    f"{shader.name}-{precision}",
                    shader.source,
                    {**shader.defines, **half},
                )
            )
    return {variant.name: variant for variant in variants}


VARIANTS: Mapping[str, Variant] = _variants()
