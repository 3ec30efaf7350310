"""The cost model knows the boards that it was made for, and no others."""

from __future__ import annotations

import pytest

from upfrost.gpu.costs import board_of


@pytest.mark.parametrize(
    ("device", "board"),
    [
        ("Mali-G610", "RK3588"),
        ("Mali-G610 MC4", "RK3588"),
        ("Mali-G52 r1 (Panfrost)", "RK3568"),
        ("Mali-G520", None),
        ("Mali-G57", None),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", None),
    ],
)
def test_the_board_of_a_device(device: str, board: str | None) -> None:
    assert board_of(device) == board
