"""native.cpp has torch's gradients, and says where it has none."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upfrost_training import loop, native
from upfrost_training.config import Config, ConfigError, DataSettings, TrainSettings
from upfrost_training.losses import pixel_loss
from upfrost_training.networks import make_network
from upfrost_training.networks.plain import Plain

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="there is no g++"
)


def luma_network(seed: int, **settings: Any) -> Plain:
    """A network all of whose branches, biases and slopes matter."""
    torch.manual_seed(seed)
    network = make_network("plain", {"colour": "luma", **settings})
    assert isinstance(network, Plain)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@needs_compiler
@pytest.mark.parametrize("loss", list(native.LOSSES))
@pytest.mark.parametrize(("channels", "scale"), [*native.SIZES, (12, 2), (5, 3)])
def test_gradients_are_those_of_torch(channels: int, scale: int, loss: str) -> None:
    seed = 3
    network = luma_network(seed, channels=channels, scale=scale, depth=2)
    rng = np.random.default_rng(seed)
    side = native.TILE
    low, high = (
        rng.integers(256, size=(3, n, n, 1), dtype=np.uint8)
        for n in (side, side * scale)
    )
    device = torch.device("cpu")
    lr, hr = (loop.to_tensor(pictures, device) for pictures in (low, high))
    expected = pixel_loss(network(lr), hr, loss)
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    # Three crops on two threads, so that the parts are of different size.
    value = native.NativeGradients(network, threads=2).backward(low, high, loss)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        # fp32 sums of some thousand terms in another order.
        close = 2e-4 * float(gradient.abs().max())
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=close)


@needs_compiler
def test_a_step_by_native_gradients_is_torch_s(tmp_path: Path) -> None:
    config = Config(
        name="a",
        kind="plain",
        network={"colour": "luma", "channels": 8, "depth": 1},
        data=DataSettings(patch=12),
        train=TrainSettings(compile=False, bf16=False, native=True, loss="rmse"),
    )
    rng = np.random.default_rng(0)
    batch = tuple(
        rng.integers(256, size=(2, n, n, 1), dtype=np.uint8) for n in (12, 24)
    )
    weights = []
    for is_native in (False, True):
        device = torch.device("cpu")
        state = loop.start(config, tmp_path, device)
        if is_native:
            gradients = loop.native_gradients(state, config.train, config.data.patch)
        else:
            gradients = loop.torch_gradients(state, config.train, device)
        for _ in range(3):
            loop.train_step(state, gradients, (batch[0], batch[1]), config.train)
        weights.append(list(state.ema.parameters()))
    for by_torch, by_native in zip(*weights, strict=True):
        # Adam's first steps have the size of the rate, 2e-3 / 500 and on, whatever the
        # gradient's; this is a hundredth of the first.
        torch.testing.assert_close(by_native, by_torch, rtol=0, atol=4e-8)


@pytest.mark.parametrize(
    ("network", "changed", "why"),
    [
        ({}, {}, "not a plain one for luma"),
        ({"colour": "luma", "channels": 20}, {}, "20 channels at x2 fit none of 8 at"),
        (
            {"colour": "luma", "channels": 8, "scale": 4},
            {},
            "8 channels at x4 fit none of 8 at x2, 8 at x3, 16 at x2",
        ),
        ({"colour": "luma", "channels": 8, "activation": "relu"}, {}, "relu"),
        ({"colour": "luma", "channels": 8}, {"loss": "l2"}, "the loss l2 is none of"),
    ],
)
def test_what_it_cannot_train_is_refused_by_name(
    network: dict[str, Any], changed: dict[str, Any], why: str, tmp_path: Path
) -> None:
    train = replace(TrainSettings(native=True), **changed)
    config = Config(name="a", kind="plain", network=network, train=train)
    state = loop.start(config, tmp_path, torch.device("cpu"))
    with pytest.raises(ConfigError, match=f"native = true cannot be: .*{why}"):
        loop.native_gradients(state, train, 48)


def test_a_crop_s_side_is_a_multiple_of_the_tile() -> None:
    network = luma_network(0, channels=8)
    assert native.unsuitable(network, native.TILE * 4, ("l1",)) == ""
    assert "not a multiple of 12" in native.unsuitable(network, 50, ("l1",))


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.library.cache_clear()
    with pytest.raises(ConfigError, match="no-such-compiler: install one"):
        native.library()
    native.library.cache_clear()
