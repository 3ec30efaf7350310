"""PyTorch modules in a form that torch.export can record."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from upfrost_exporter.builder import EXAMPLE

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network itself, of one that torch.compile or a trainer has wrapped."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, _WRAPPERS):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def fused(module: nn.Module) -> nn.Module:
    """The module, or a copy whose layers no longer fuse branches in every call."""
    if any(map(_fuses, module.modules())):
        module = copy.deepcopy(module).eval()
        _fuse(module)
    return module


def settle(module: nn.Module, channels: int) -> nn.Module:
    """The module in a form that torch.export can record.

    Layers that fuse their branches anew in every call fuse them once: SPAN's
    convolutions (arXiv:2311.12770) do that in `update_params`. Of several results, as
    MM-RealSR's picture and degradations (arXiv:2203.04962), the first is taken. A
    choice of experts, as SeemoRe's (arXiv:2402.03412), becomes all of them, those
    weighted by 0 that were not chosen.
    """
    module.eval()
    for layer in list(module.modules()):
        for name, part in layer.named_children():
            if _is_choice(part):
                setattr(layer, name, _AllExperts(part))
    _fuse(module)
    with torch.no_grad():
        result = module(torch.zeros(1, channels, *EXAMPLE))
    return module if isinstance(result, torch.Tensor) else _First(module)


def _fuse(module: nn.Module) -> None:
    for layer in filter(_fuses, module.modules()):
        layer.update_params()  # type: ignore[operator]
        # nn.Module takes no function for an attribute that its class has.
        object.__setattr__(layer, "update_params", lambda: None)


def _fuses(layer: nn.Module) -> bool:
    fuse = getattr(layer, "update_params", None)
    is_settled = "update_params" in vars(layer)
    has_result = isinstance(getattr(layer, "eval_conv", None), nn.Conv2d)
    return callable(fuse) and has_result and not is_settled


def _is_choice(layer: nn.Module) -> bool:
    experts, gate = getattr(layer, "experts", None), getattr(layer, "gate", None)
    return isinstance(experts, nn.ModuleList) and isinstance(gate, nn.Module)


class _AllExperts(nn.Module):
    """A sum of those experts that a gate finds best for the picture, computed as one
    of all experts: x + Σ weight · expert(x, k)."""

    def __init__(self, choice: Any) -> None:
        super().__init__()
        self.experts, self.gate = choice.experts, choice.gate
        self.count = int(choice.num_expert)

    def forward(self, x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.gate(x)[:, :, None, None], 1)
        # The largest of what is left, one after the other.
        chosen, left = weights * 0, weights
        for _ in range(self.count):
            best = (left >= left.amax(1, keepdim=True)).to(x.dtype)
            chosen = chosen + best * weights
            left = left - 2 * best  # below all weights
        result = x
        for index, expert in enumerate(self.experts):
            result = result + expert(x, k) * chosen[:, index : index + 1]
        return result


class _First(nn.Module):
    """A network's first result."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.network(x)[0]
        return first
