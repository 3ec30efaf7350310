"""Whole PyTorch networks arrive as graphs with the same result, or are refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from tests.exporter.networks import (
    Cascade,
    Normalised,
    Plain,
    Rearranging,
    Reparameterised,
    Spellings,
    UNet,
)
from tests.graphs import assert_same_graph
from upfrost.network import reference
from upfrost.network.graph import Graph, GridSample, alignment, parameter_count
from upfrost.network.modelfile import ModelFileError, read_model
from upfrost_exporter import ExportError, export_module, torch_frontend, trace_module

# Of the largest value: PyTorch's own rounding over a few layers in float32.
TOLERANCE = 1e-5


def make(network: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    module = network().eval()
    for parameter in module.parameters():
        # Fresh layers are alike, trained ones are not.
        parameter.data += 0.01 * torch.randn_like(parameter)
    return module


def assert_same_result(graph: Graph, module: nn.Module, seed: int) -> None:
    step = alignment(graph)
    for height, width in ((1, 1), (5, 2), (17, 31)):
        random = np.random.default_rng(seed)
        picture = graph.value_range * random.random(
            (graph.channels, height * step, width * step), np.float32
        )
        with torch.no_grad():
            expected = module(torch.from_numpy(picture)[None])[0].numpy()
        found = reference.run(graph, picture)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("seed", [0, 1], ids=lambda seed: f"seed{seed}")
@pytest.mark.parametrize(
    ("network", "scale"),
    [
        (Plain, 2),
        (lambda: Plain(5, 3, "bicubic"), 3),
        (lambda: Plain(4, 4, "nearest"), 4),
        (Cascade, 2),
        (lambda: Cascade(groups=1, shared=False, scale=3), 3),
        (Normalised, 2),
        (Spellings, 2),
        (Reparameterised, 2),
        (Rearranging, 2),
    ],
    ids=[
        "plain",
        "bicubic-x3",
        "nearest-x4",
        "cascade-shared",
        "cascade-x3",
        "normalised",
        "spellings",
        "reparameterised",
        "rearranging",
    ],
)
def test_a_network_gives_what_its_module_gives(
    network: Callable[[], nn.Module], scale: int, seed: int
) -> None:
    module = make(network, seed)
    assert_same_result(trace_module(module, name="net", scale=scale), module, seed)


def test_tensors_are_named_as_the_module_names_them() -> None:
    module = make(Plain, 0)
    graph = trace_module(module, name="net", scale=2)
    parameters = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert {name: t.shape for name, t in graph.tensors.items()} == parameters
    assert [node.name for node in graph.nodes] == [
        "head",
        "body.0",
        "body.1",
        "body.2",
        "body.3",
        "tail",
        "pixel_shuffle",
        "upsample_bilinear2d",
        "add",
    ]


def test_what_only_moves_numbers_costs_nothing_but_convolutions() -> None:
    graph = trace_module(make(Rearranging, 0), name="net", scale=2)
    assert [node.op for node in graph.nodes] == [
        *("conv2d", "conv2d", "relu"),  # what unshuffles; the first
        *("conv2d", "conv2d", "conv2d", "pixel_shuffle"),
    ]


def test_shared_blocks_are_stored_once() -> None:
    module = make(Cascade, 0)
    graph = trace_module(module, name="net", scale=2)
    own = sum(parameter.numel() for parameter in module.parameters())
    # The mean is subtracted before a padded convolution, by a scale of 1 and a shift
    # for each of three channels; added again, it is part of the last convolution.
    assert parameter_count(graph) == own + 6


def test_batch_normalisation_costs_nothing() -> None:
    graph = trace_module(make(Normalised, 0), name="net", scale=2)
    assert [node.op for node in graph.nodes] == [
        "conv2d",
        "leaky_relu",
        "conv2d",
        "conv2d",
        "conv2d",
        "pixel_shuffle",
    ]


def warped(x: Tensor) -> Tensor:
    """Each pixel from up to three pixels away; corners are at -1 and 1."""
    height, width = x.shape[2:]
    rows, columns = torch.arange(height), torch.arange(width)
    own = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    moved = own.float() - 3 * torch.tanh(x[:, :2]).permute(0, 2, 3, 1)
    last = torch.tensor([width - 1, height - 1])
    return functional.grid_sample(
        x, 2 * moved / last - 1, padding_mode="border", align_corners=True
    )


def test_pixels_from_where_the_network_says() -> None:
    network = nn.Sequential(Lambda(warped), nn.Conv2d(3, 3, 3, padding=1))
    graph = trace_module(network, name="net", scale=1)  # compares at two other sizes
    (node,) = (node for node in graph.nodes if isinstance(node, GridSample))
    assert (node.factor, node.groups) == (1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_picture_channels_and_value_range(channels: int, value_range: float) -> None:
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(channels, 4 * channels, 3, 1, 1), nn.PixelShuffle(2)
    )
    graph = trace_module(
        module, name="net", scale=2, channels=channels, value_range=value_range
    )
    assert (graph.channels, graph.value_range) == (channels, value_range)
    assert_same_result(graph, module, 3)


def test_a_module_for_luma_makes_such_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.upf"
    export_module(
        nn.Conv2d(1, 1, 3, 1, 1), path, name="net", scale=1, channels=1, colour="luma"
    )
    assert read_model(path).colour == "luma"
    path.unlink()
    with pytest.raises(ExportError, match="a network for luma has 1 channel, not 3"):
        export_module(make(Plain, 0), path, name="net", scale=2, colour="luma")
    assert not path.exists()


def test_the_module_is_left_as_it_was() -> None:
    module = make(Normalised, 0).train()
    module.layers[1].eval()  # type: ignore[index, union-attr]
    modes = [part.training for part in module.modules()]
    before = copy.deepcopy(module.state_dict())
    trace_module(module, name="net", scale=2)
    assert [part.training for part in module.modules()] == modes
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_half_precision_module_is_exported_as_its_numbers() -> None:
    module = make(Plain, 0).half()
    graph = trace_module(module, name="net", scale=2)
    assert_same_result(graph, module.float(), 0)
    assert next(module.parameters()).dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_file_holds_the_graph(precision: str, tmp_path: Path) -> None:
    module = make(Plain, 0)
    path = tmp_path / "net.upf"
    graph = export_module(
        module,
        path,
        name="net",
        scale=2,
        metadata={"licence": "MIT"},
        precision=precision,  # type: ignore[arg-type]
    )
    found = read_model(path)
    assert_same_graph(found, graph)
    assert found.metadata["licence"] == "MIT"
    assert f"torch {torch.__version__}" in str(found.metadata["generator"])
    half = precision == "fp16"
    assert {tensor.dtype for tensor in found.tensors.values()} == {
        np.dtype(np.float16 if half else np.float32)
    }
    rounded = module.half().float() if half else module
    assert_same_result(found, rounded, 0)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.softmax(x, dim=-1)


class Windows(nn.Module):
    """What a window transformer does before it attends."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        result = functional.scaled_dot_product_attention(rows, rows, rows)
        return result.transpose(1, 2).view(x.shape)


class Wrapped(nn.Module):
    """A layer to refuse, deep inside a network."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 1, 1), nn.Sequential(layer))

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.body(x), 2)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            Attention(),
            r"aten.softmax.int in module 'body\.1\.0', "
            r"test_torch_frontend.py line \d+: `return x \* torch\.softmax\(x, dim=-1\)"
            r"`: .*transformers are out of scope",
        ),
        (
            Windows(),
            r"dot_product_attention.* in module 'body\.1\.0'.*transformers are out",
        ),
        (
            Lambda(lambda x: functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1))),
            r"grid_sampler in module 'body\.1\.0'.*not bilinear with edges replicated",
        ),
        (
            Lambda(
                lambda x: functional.grid_sample(
                    x, x[:, :2].permute(0, 2, 3, 1), padding_mode="border"
                )
            ),
            r"grid_sampler.*its grid is not that of the pixels themselves, moved by",
        ),
        (
            Lambda(lambda x: functional.relu(x.permute(0, 1, 3, 2))),
            r"pixel_shuffle.*is not \(1, channels, height, width\); replace it",
        ),
        (
            nn.AdaptiveAvgPool2d(3),
            r"'body\.1\.0'.*its blocks depend on the picture's size",
        ),
        (nn.BatchNorm2d(12, track_running_stats=False), r"in module 'body\.1\.0'"),
        (
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            r"upsample_bilinear2d.vec in module .*align_corners is set; use",
        ),
        (
            nn.Upsample(scale_factor=(1.5, 1), mode="bilinear"),
            "height and width are resized by 3/2 and 1, bilinear",
        ),
        (nn.Upsample(scale_factor=(2, 3)), "is 4 times as high and 6 times as wide"),
        (nn.Upsample(size=(9, 9)), "it resizes to 9×9, the size of no other value"),
    ],
    ids=[
        "attention",
        "windows",
        "grid-sample",
        "other-grid",
        "transposed",
        "pooling",
        "batch-statistics",
        "align-corners",
        "uneven",
        "uneven-result",
        "fixed-size",
    ],
)
def test_what_cannot_be_carried_is_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(ExportError, match=message) as error:
        trace_module(Wrapped(layer), name="net", scale=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "returns its input unchanged"),
        (lambda x: (x * 2, x * 3), "must return one picture"),
        (lambda x: {"picture": x * 2}, "Lambda cannot run .*: it returns dict, not"),
        (
            lambda x: x * torch.arange(x.shape[3]),
            "depend on the picture's size",
        ),
        (lambda x: x + torch.zeros(3, 1, 64), "cannot"),
        (
            lambda x: x * x.mean(2, keepdim=True).transpose(2, 3).mean(2, keepdim=True),
            "it works on a sum of pixels, or of rows or columns alone; reduce rows",
        ),
        (
            lambda x: x * functional.adaptive_avg_pool2d(x, (None, 1)),
            "its blocks depend on the picture's size",
        ),
        # As SimAM divides (Yang et al. 2021, ICML).
        (
            lambda x: x / ((x * x).sum((2, 3), keepdim=True) / (x[0, 0].numel() - 1)),
            r"div.*it is unbiased over the picture.*or divide by all pixels",
        ),
        (lambda x: x * x.std(), r"aten\.std.*it is unbiased over the picture"),
        (
            lambda x: x * x.amax((1, 2), keepdim=True),
            r"over axes \[1, 2\] of 4; reduce channels, or rows and columns together",
        ),
        (lambda x: x.cumsum(1), "no such operation"),
        # PyTorch 2.6 does not refuse these two itself, and the operation is named.
        (lambda x: x * int(x.argmax()), r"depends on what it sees|aten\.argmax"),
        (lambda x: x.transpose(2, 3), r"the shape \(1, 3, 64, 48\).* no picture"),
        (lambda x: x.flatten(2).view_as(x), "returns its input unchanged"),
        (lambda x: x[:, :, 1:], "47/48 times as large as the picture"),
        (lambda x: x[:, :, : x.shape[2] // 2], "1/2 times as large as the picture"),
        (lambda x: torch.cat([x, x], dim=2), "joins along dimension 2"),
        (lambda x: x if x.sum() > 0 else -x, "torch.export cannot record Lambda"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x.double() * 2, "converts to torch.float64"),
        (
            lambda x: functional.relu(x) + x.numpy().sum(),
            r"torch\.export cannot record|aten\.sum",
        ),
    ],
    ids=lambda given: None if callable(given) else given,
)
def test_functions_that_make_no_network_are_refused(
    function: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(ExportError, match=message) as error:
        trace_module(Lambda(function), name="net", scale=1)
    assert "\n" not in str(error.value)


class Keeping(nn.Module):
    """A layer that keeps what it computes in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.second.weight.data = self.first.weight.data.clone() * 2
        result: Tensor = self.second(x)
        return result


def test_what_is_kept_in_forward_is_named() -> None:
    if torch.__version__ < "2.7":  # which records it as it is
        network = make(Keeping, 0)
        assert_same_result(trace_module(network, name="net", scale=1), network, 0)
        return
    with pytest.raises(ExportError, match="a tensor that it computes in forward"):
        trace_module(Keeping(), name="net", scale=1)


def made_of_others(x: Tensor) -> Tensor:
    """What torch makes of other operations, and upfrost with it."""
    a, b = functional.glu(torch.cat([x, x - 0.5], 1), 1), torch.square(x)
    y = torch.addcmul(a, b, a, value=0.5) + torch.lerp(a, b, 0.3)
    y = torch.subtract(y, torch.zeros_like(y)).masked_fill(y < -9, 0.0)
    y = torch.concat([y, y.unbind(1)[0].unsqueeze(1)], 1)
    return functional.channel_shuffle(y, 2)[:, :3]


def with_constants(x: Tensor) -> Tensor:
    """Constants in a value's place."""
    y = torch.maximum(x, torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))
    y = torch.min(y, torch.full_like(y, 0.8)) + x.new_ones(x.shape)
    blank = torch.zeros(x.shape[0], 2, x.shape[2], x.shape[3])
    grey = nn.Parameter(torch.full((1, 1, 1, 1), 0.5)).expand(1, 1, *x.shape[2:])
    y = torch.cat([y, blank, grey], 1)
    y = functional.pad(y, (1, 1, 1, 1, 1, 0), value=0.5)
    return functional.avg_pool2d(y, 3, 1, count_include_pad=False)[:, 1:4]


def reduced(x: Tensor) -> Tensor:
    """Means, norms and minima."""
    y = functional.normalize(x + 0.1, dim=1) * x.mean() + x.mean(
        (1, 2, 3), keepdim=True
    )
    variance, mean = torch.var_mean(y, 1, keepdim=True, unbiased=False)
    y = (y - mean) / torch.sqrt(variance + 0.1)
    return y - y.min(1, keepdim=True)[0] + x.amin((2, 3), keepdim=True)


def in_windows(x: Tensor) -> Tensor:
    """Windows of all kinds."""
    batch, channels, height, width = x.shape
    y = functional.unfold(x, 3, padding=1).view(batch, 9 * channels, height, width)
    y = functional.avg_pool2d(y, 3, 1, 1, count_include_pad=False)[:, 4::9]
    small = functional.interpolate(y, scale_factor=0.5, mode="area")
    large: Tensor = functional.interpolate(small, None, 2, mode="nearest-exact")
    return large + y


def bent(x: Tensor) -> Tensor:
    y = functional.softshrink(x - 0.5, 0.2) + functional.hardshrink(x - 0.5, 0.2)
    y = y + torch.where(x > 0.4, x, x - 2) + functional.threshold(x, 0.3, 5.0)
    return functional.rrelu(y - 0.5 * torch.sign(x - 0.6))


def pooled_beside_blocks(x: Tensor) -> Tensor:
    """A variance of the picture meets what is smaller, as in SMFANet's blocks."""
    height, width = x.shape[2:]
    blocks = functional.adaptive_max_pool2d(x, (height // 8, width // 8))
    mixed = blocks + x.var((2, 3), keepdim=True, unbiased=False)
    large: Tensor = functional.interpolate(mixed, size=(height, width), mode="nearest")
    return x * large


def wavelets(x: Tensor) -> Tensor:
    """Haar's, as MWCNN slices it (arXiv:1805.07071), and channels one by one."""
    upper, lower = x[:, :, 0::2, :] / 2, x[:, :, 1::2, :] / 2
    a, b = upper[:, :, :, 0::2], lower[:, :, :, 0::2]
    c, d = upper[:, :, :, 1::2], lower[:, :, :, 1::2]
    bands = torch.cat([a + b + c + d, b - a + d - c, c - a + d - b, a - b - c + d], 1)
    y = functional.pixel_shuffle(bands.abs(), 2)
    mixed = torch.stack([y[:, 2], y[:, 0], y[:, 1]], 1)
    behind = [each.permute(0, 2, 3, 1) for each in (y[:, :2], mixed[:, 1:2])]
    return mixed + torch.cat(behind, -1).permute(0, 3, 1, 2)


def put_in(x: Tensor) -> Tensor:
    """Channels replaced, several (PLKSR, arXiv:2404.11848) and one by one."""
    y = x * 2
    y[:, :2] = functional.max_pool2d(y[:, :2], 3, 1, 1)
    for channel, mean in enumerate((0.4, 0.5)):
        y[:, channel] = y[:, channel] - mean
    return y


def attended(x: Tensor) -> Tensor:
    """As CBAM does it (arXiv:1807.06521): whole windows, and axes not kept."""
    size = x.size(2), x.size(3)
    y = functional.avg_pool2d(x, size, stride=size) + functional.max_pool2d(x, size)
    mean = torch.mean(x, 1).unsqueeze(1)
    norm: Tensor = torch.linalg.vector_norm(x, dim=1).unsqueeze(1)
    return x * torch.sigmoid(y) + torch.max(x, 1)[0].unsqueeze(1) - mean * norm


def repeated(x: Tensor) -> Tensor:
    large = x.repeat_interleave(2, 2).repeat_interleave(3, 3)
    blocks = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    double = blocks.flatten(4).flatten(2, 3)
    y = large[:, :, ::2, ::3] + x.repeat_interleave(2, 1)[:, 1:4]
    return y + double[:, :, ::2, ::2]


@pytest.mark.parametrize(
    "function",
    [
        repeated,
        attended,
        put_in,
        pooled_beside_blocks,
        wavelets,
        made_of_others,
        with_constants,
        reduced,
        in_windows,
        bent,
    ],
    ids=lambda function: function.__name__,
)
def test_functions_as_people_write_them(
    function: Callable[[Tensor], Tensor],
) -> None:
    trace_module(Lambda(function), name="net", scale=1)  # compares with torch


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        nn.DataParallel,
        AveragedModel,
        lambda network: nn.DataParallel(cast(nn.Module, torch.compile(network))),
        lambda network: Lambda(lambda x: (network(x),)),
        lambda network: Lambda(lambda x: [network(x)]),
    ],
    ids=["compiled", "parallel", "averaged", "both", "tuple", "list"],
)
def test_a_network_inside_what_training_puts_around_it(wrap: Any) -> None:
    network = make(Plain, 0)
    graph = trace_module(wrap(network), name="net", scale=2)
    assert_same_result(graph, network, 0)


def test_a_program_that_was_recorded_before() -> None:
    network = make(Plain, 0)
    free: Any = cast(Any, torch.export.Dim).AUTO
    sides = {2: free, 3: free}
    picture = torch.rand(1, 3, 24, 20)
    program = torch.export.export(network, (picture,), dynamic_shapes=(sides,))
    graph = trace_module(program.module(), name="net", scale=2)
    assert_same_result(graph, network, 0)
    program = torch.export.export(network, (picture,))
    with pytest.raises(ExportError, match="recorded for pictures of one size; give"):
        trace_module(program.module(), name="net", scale=2)


class Fusing(nn.Module):
    """A convolution that fuses its branches in every call, as SPAN's does."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 3, 3, 1, 1), nn.Conv2d(3, 3, 1)
        self.eval_conv = nn.Conv2d(3, 3, 3, 1, 1)

    def update_params(self) -> None:
        self.weight = functional.pad(self.narrow.weight.data, (1, 1, 1, 1))
        self.eval_conv.weight.data = self.weight + self.wide.weight.data

    def forward(self, x: Tensor) -> Tensor:
        self.update_params()
        result: Tensor = self.eval_conv(x)
        return result


def test_a_layer_that_fuses_its_branches_in_every_call() -> None:
    module = make(Fusing, 0)
    before = vars(module).keys()
    graph = trace_module(module, name="net", scale=1)
    assert vars(module).keys() == before
    assert_same_result(graph, module, 0)


def test_what_another_size_cannot_mend_is_recorded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Formulas for the sizes of a window transformer take minutes."""
    recorded = []
    record = torch_frontend._record

    def counted(*given: Any) -> Any:
        recorded.append(given)
        return record(*given)

    monkeypatch.setattr(torch_frontend, "_record", counted)
    with pytest.raises(ExportError, match="transformers are out of scope"):
        trace_module(Wrapped(Windows()), name="net", scale=2)
    assert len(recorded) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.amin((1, 2, 3), keepdim=True),
        lambda x: x / (1 + x.amax((1, 2, 3), keepdim=True)),
        lambda x: x * x.max() - x.min(),
        lambda x: x / x.std((1, 2, 3), keepdim=True, unbiased=False),
        lambda x: x * x.std(unbiased=False) + x.var((1, 2, 3), correction=0).view(1),
        lambda x: x - x.mean((1, 2, 3), keepdim=True) + x.mean(),
    ],
    ids=["amin", "amax", "max-min", "std", "std-var", "mean"],
)
def test_reductions_of_all_numbers(function: Callable[[Tensor], Tensor]) -> None:
    graph = trace_module(Lambda(function), name="net", scale=1)
    assert_same_result(graph, Lambda(function), 0)


@pytest.mark.parametrize("joins", [True, False], ids=["joined", "plain"])
@pytest.mark.parametrize("depth", [4, 5, 6])
def test_networks_may_halve_the_picture_six_times(depth: int, joins: bool) -> None:
    module = make(lambda: UNet(depth, joins), 0)
    graph = trace_module(module, name="net", scale=1)
    assert alignment(graph) == 2**depth
    assert_same_result(graph, module, 0)


def test_a_module_that_fails_at_other_sizes_is_refused() -> None:
    def of_one_size(x: Tensor) -> Tensor:
        return x + torch.zeros(1, 1, 48, 64)

    with pytest.raises(ExportError, match=r"Lambda cannot run on a 56×40 picture: The"):
        trace_module(Lambda(of_one_size), name="net", scale=1)


def test_the_scale_must_be_the_networks_own() -> None:
    with pytest.raises(ExportError, match=r"2 times as large .* not 4"):
        trace_module(make(Plain, 0), name="net", scale=4)


def test_a_result_that_depends_on_the_size_is_refused() -> None:
    def padded(x: Tensor) -> Tensor:
        # Zero for the even sizes that the recording sees.
        odd = x.shape[2] % 2
        return functional.relu(x) + odd

    with pytest.raises(ExportError, match=r"differs|cannot|depend"):
        trace_module(Lambda(padded), name="net", scale=1)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            lambda x: functional.relu(x) if x.shape[2] <= 80 else -functional.relu(x),
            r"1920×1088 the network does otherwise at '\w+' than with a small one",
        ),
        # A context of at most so many pixels, which no factor can say at 1920×1088.
        (
            lambda x: (
                x
                + functional.interpolate(
                    functional.interpolate(x, size=[min(n, 90) for n in x.shape[2:]]),
                    size=x.shape[2:],
                )
            ),
            r"960×544 picture, seed 0: does the network depend on the picture's size",
        ),
    ],
)
def test_a_choice_by_size_beyond_the_compared_is_refused(
    forward: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        trace_module(Lambda(forward), name="net", scale=1)


def test_nothing_is_written_when_the_export_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.upf"
    with pytest.raises(ExportError):
        export_module(Wrapped(Attention()), path, name="net", scale=2)
    assert not path.exists()


def test_torch_is_imported_only_when_it_is_needed() -> None:
    program = (
        "import sys, upfrost_exporter.passes, upfrost_exporter.check\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Plain().state_dict(), "a network's tensors alone: give the module"),
        (lambda: functional.relu, "the network is function, not a torch.nn.Module"),
        (
            lambda: nn.Conv2d(3, 3, 1, device="meta"),
            "'weight' is on the meta device, which holds no numbers: load the weights",
        ),
        (
            lambda: torch.jit.script(nn.Conv2d(3, 3, 1)),
            "a TorchScript program: give the module that it was made from",
        ),
    ],
    ids=["tensors", "function", "meta", "script"],
)
def test_what_is_no_module_with_numbers_is_refused(
    network: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export_module(network(), tmp_path / "net.upf", name="net", scale=1)


def test_a_precision_that_no_file_has_is_refused(tmp_path: Path) -> None:
    path, precision = tmp_path / "net.upf", cast(Any, "int8")
    with pytest.raises(ExportError, match="'int8'; weight files have fp32 or fp16"):
        export_module(Plain(), path, name="net", scale=2, precision=precision)
    assert not path.exists()


@pytest.mark.parametrize(
    ("folder", "more"),
    [("none", {}), ("", {"metadata": {"note": object()}}), ("", {"scale": 2.0})],
    ids=["folder", "metadata", "scale"],
)
def test_what_cannot_be_written_raises_the_writer_s_error(
    folder: str, more: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / folder / "net.upf"
    with pytest.raises(ModelFileError):
        export_module(
            nn.Upsample(scale_factor=2), path, name="net", **{"scale": 2} | more
        )
