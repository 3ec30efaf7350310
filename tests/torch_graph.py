"""A graph's operations by PyTorch, as far as released models use them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from upfrost.arrays import Bytes
from upfrost.network.graph import (
    INPUT,
    Add,
    Clamp,
    Concat,
    Conv2d,
    Graph,
    LeakyRelu,
    PixelShuffle,
    Prelu,
    Relu,
    Resize,
)


class TorchGraph(nn.Module):
    """A graph as a module: (1, channels, height, width) from 0 to the value range."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.tensors = {
            name: torch.tensor(array.astype(np.float32))
            for name, array in graph.tensors.items()
        }

    def forward(self, picture: Tensor) -> Tensor:
        values = {INPUT: picture}
        for node in self.graph.nodes:
            inputs = [values[name] for name in node.inputs]
            match node:
                case Conv2d():
                    top, left, bottom, right = node.padding
                    padding, value = (top, left), inputs[0]
                    if padding != (bottom, right):
                        value = functional.pad(value, (left, right, top, bottom))
                        padding = (0, 0)
                    result = functional.conv2d(
                        value,
                        self.tensors[node.weight],
                        self.tensors[node.bias] if node.bias else None,
                        node.stride,
                        padding,
                        node.dilation,
                        node.groups,
                    )
                case Relu():
                    result = functional.relu(inputs[0])
                case LeakyRelu():
                    result = functional.leaky_relu(inputs[0], node.slope)
                case Prelu():
                    result = functional.prelu(inputs[0], self.tensors[node.slope])
                case Clamp():
                    result = inputs[0].clamp(node.low, node.high)
                case Add():
                    result = inputs[0] + inputs[1]
                case Concat():
                    result = torch.cat(inputs, dim=1)
                case PixelShuffle():
                    result = functional.pixel_shuffle(inputs[0], node.factor)
                case Resize():
                    factor = node.ratio[0] / node.ratio[1]
                    result = functional.interpolate(
                        inputs[0], scale_factor=factor, mode=node.mode
                    )
                case _:
                    raise TypeError(node.op)
            values[node.name] = result
        return values[self.graph.output]


def torch_bytes(module: nn.Module, picture: Bytes) -> Bytes:
    """What PyTorch makes of the picture, rounded as the runtime rounds."""
    batch = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.no_grad():
        result = module.eval()(batch)[0].clamp(0, 1)
    return torch.floor(result * 255 + 0.5).byte().permute(1, 2, 0).numpy()
