"""The discriminator learns to tell pictures apart, and the network to mislead it."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from upfrost_training.adversary import (
    Adversary,
    Discriminator,
    in_colours_of,
    patch_distance,
    roughness,
    unevenness,
)
from upfrost_training.config import AdversarySettings
from upfrost_training.losses import RGB_TO_YCC

SETTINGS = AdversarySettings(weight=1.0, features=0.1, channels=8, lr=1e-3)
CPU = torch.device("cpu")


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, and the same blurred to blocks of four pixels."""
    real = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    soft = torch.nn.functional.avg_pool2d(real, 4)
    return real, torch.nn.functional.interpolate(soft, scale_factor=4.0)


def test_every_four_pixels_have_a_score() -> None:
    scores, features = Discriminator(4)(torch.rand(2, 3, 24, 40))
    assert scores.shape == (2, 1, 12, 20)
    assert [f.shape[2] for f in features] == [12, 6, 3]


def test_patches_are_compared_by_their_distribution() -> None:
    real = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def distance(output: torch.Tensor, target: torch.Tensor) -> float:
        drawn = torch.Generator().manual_seed(1)
        return float(patch_distance(output, target, 4, drawn))

    assert distance(real, real) == 0.0
    # Other noise of the same kind is nearer than the same noise made soft, though it
    # is further away by pixels. Of a place there are 36 patches in an area, too few to
    # be distributed alike.
    other = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    soft = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    assert (other - real).abs().mean() > (soft - real).abs().mean()
    assert distance(other, real) < 0.6 * distance(soft, real)
    # Brightness and colour are the pixel loss's business.
    assert distance(real + 0.1, real) < 0.02 * distance(soft, real)
    # Nor does a pattern that comes again with every pixel of the small picture pass for
    # noise of the same strength.
    pattern = other[:, :, :4, :4].repeat(1, 1, 16, 16)
    assert distance(pattern, real) > 2 * distance(other, real)


def test_detail_at_some_places_of_the_grid_is_uneven() -> None:
    real = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    # 576 random values a place and picture have a mean that is known to 3 %.
    even = float(unevenness(real, 4))
    assert even < 0.03
    assert float(unevenness(0.1 * real, 4)) == pytest.approx(even, rel=0.01)
    grid = torch.ones(96, 96)
    grid[::4] = 1.5
    assert float(unevenness(grid * real, 4)) > 4 * even
    assert float(unevenness(torch.full((1, 3, 8, 8), 0.5), 4)) == pytest.approx(0)


def test_detail_is_rough_where_the_original_is_flat_alone() -> None:
    noise = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    half = torch.zeros(48, 48)
    half[:, :24] = 1.0
    real = 0.5 + half * noise
    assert float(roughness(real, real)) == 0.0
    # Other noise where there is noise costs nothing, whatever its strength.
    assert float(roughness(0.5 + 2 * half * noise, real)) == pytest.approx(0, abs=1e-4)
    # On the flat half it costs as much as it has of detail, however small the half is.
    faint = float(roughness(real + 0.1 * (1 - half) * noise, real))
    assert float(roughness(real + 0.2 * (1 - half) * noise, real)) > 1.9 * faint > 0.02
    # One speck costs more than as much detail spread over all of the flat half.
    speck, spread = (torch.zeros(2, 1, 48, 48) for _ in range(2))
    speck[:, :, 24, 36] = 0.2
    spread[:, :, ::4, 26::4] = 0.2 / 72
    one, many = (float(roughness(real + each, real)) for each in (speck, spread))
    assert one > 5 * many > 0
    narrow = torch.cat([real[..., :24], real[..., :24], real[..., 24:]], dim=3)
    more = torch.nn.functional.pad((1 - half) * noise, (24, 0))
    assert float(roughness(narrow + 0.1 * more, narrow)) == pytest.approx(
        faint, rel=0.1
    )


def test_patches_drawn_depend_on_the_step_alone() -> None:
    settings = replace(SETTINGS, weight=0.0, features=0.0, patches=1.0)
    real = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole, resumed = (Adversary(settings, 4, CPU) for _ in range(2))
    losses = [float(whole.loss(0.5 * real, real)) for _ in range(3)]
    assert len({*losses}) == 3
    resumed.load_state_dict({**whole.state_dict(), "count": 2})
    assert float(resumed.loss(0.5 * real, real)) == losses[2]


def test_the_discriminator_learns() -> None:
    torch.manual_seed(0)
    adversary = Adversary(SETTINGS, 4, CPU)
    losses = []
    for step in range(40):
        real, soft = batch(step)
        losses.append(adversary.step(soft, real))
    # Two losses of log 2 each are a guess.
    assert losses[-1] < 0.5 * losses[0]
    real, soft = batch(99)
    with torch.no_grad():
        assert adversary.network(real)[0].mean() > adversary.network(soft)[0].mean()


def test_the_network_s_loss_reaches_its_output_and_not_the_discriminator() -> None:
    torch.manual_seed(0)
    adversary = Adversary(SETTINGS, 4, CPU)
    real, soft = batch(0)
    output = soft.clone().requires_grad_()
    adversary.loss(output, real).backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    assert output.grad.abs().sum() > 0
    assert all(p.grad is None for p in adversary.network.parameters())
    assert adversary.loss(real, real) < adversary.loss(soft, real)


def test_colours_are_not_judged() -> None:
    """Else a network paints texture in colour, on pictures without any, too."""
    torch.manual_seed(0)
    settings = replace(SETTINGS, patches=1.0, grid=1.0, flat=1.0)
    adversary = Adversary(settings, 4, CPU)
    real = torch.rand(1, 3, 32, 32)
    output = torch.rand(1, 3, 32, 32, requires_grad=True)
    seen = in_colours_of(real, output)
    luma = torch.tensor(RGB_TO_YCC[0]).view(1, 3, 1, 1)
    torch.testing.assert_close((seen * luma).sum(1), (output * luma).sum(1))
    chroma = (seen - real).diff(dim=1)  # as much in R, G and B
    torch.testing.assert_close(chroma, torch.zeros_like(chroma), rtol=0, atol=1e-6)
    adversary.loss(output, real).backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    # Along luma's weights, and so across every colour.
    along = (output.grad * luma).sum(1, keepdim=True) / luma.square().sum() * luma
    torch.testing.assert_close(output.grad, along, rtol=1e-4, atol=1e-8)


def test_a_checkpoint_brings_back_the_same_adversary() -> None:
    torch.manual_seed(0)
    first = Adversary(SETTINGS, 4, CPU)
    first.step(*batch(0))
    second = Adversary(SETTINGS, 4, CPU)
    # As from a file: the optimizer would share its moments otherwise.
    second.load_state_dict(deepcopy(first.state_dict()))
    for step in range(2):
        assert first.step(*batch(step)) == second.step(*batch(step))
