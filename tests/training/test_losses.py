"""Losses weigh luma first and agree with their formulas."""

import pytest
import torch

from upfrost_training.losses import pixel_loss


@pytest.mark.parametrize("kind", ["l1", "l2", "charbonnier", "rmse"])
def test_a_grey_error_has_the_formula_s_value(kind: str) -> None:
    target = torch.full((2, 3, 8, 8), 0.5)
    expected = {"l1": 0.1, "l2": 0.01, "charbonnier": 0.1, "rmse": 0.1}[kind]
    # Charbonnier's offset adds 5e-6 at this error, and 1e-3 to each plane without one.
    loss = pixel_loss(target + 0.1, target, kind, chroma=0.0)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["l1", "rmse"])
def test_luma_alone_has_the_loss_of_a_grey_picture(kind: str) -> None:
    torch.manual_seed(0)
    output, target = torch.rand(2, 2, 1, 8, 8)
    grey = pixel_loss(output.expand(2, 3, 8, 8), target.expand(2, 3, 8, 8), kind)
    # Chroma's rows of the matrix sum to zero up to fp32 rounding.
    assert pixel_loss(output, target, kind).item() == pytest.approx(
        grey.item(), abs=1e-5
    )


def test_chroma_counts_by_its_weight() -> None:
    target = torch.zeros(1, 3, 4, 4)
    tinted = target.clone()
    # An error of no luma: Cb alone.
    tinted[:, 1], tinted[:, 2] = -0.344136 * 0.1, 1.772 * 0.1
    assert pixel_loss(tinted, target, chroma=0.0).item() == pytest.approx(0, abs=1e-6)
    assert pixel_loss(tinted, target, chroma=0.5).item() == pytest.approx(0.05, 1e-3)


def test_rmse_has_gradients_of_l1_s_size() -> None:
    torch.manual_seed(0)
    target = torch.rand(4, 3, 16, 16)
    sizes = []
    for kind in ("l1", "rmse"):
        output = (target + 0.03 * torch.randn_like(target)).requires_grad_()
        pixel_loss(output, target, kind, chroma=0.0).backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        sizes.append(output.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown loss 'huber'"):
        pixel_loss(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), "huber")
