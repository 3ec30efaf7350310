"""Small work for Kompute's binding, without upfrost: copies from tensor to tensor."""

from __future__ import annotations

import kp
import numpy as np

from upfrost.gpu.families import VARIANTS


def tensors(manager: kp.Manager, count: int, side: int) -> list[kp.Tensor]:
    """Planes of `side` × `side` vec4: the first one counts from 0, others are zeros."""
    words = np.arange(4 * side * side, dtype=np.uint32)
    return [
        manager.tensor_t(words * (number == 0), kp.TensorTypes.host_cached)
        for number in range(count)
    ]


def copy(manager: kp.Manager, pair: list[kp.Tensor], side: int) -> kp.OpAlgoDispatch:
    """Copies the plane of the one to the other."""
    layout = [0, side, side * side, side, side]
    push = np.array([*layout, *layout], np.uint32)
    groups = -(-side // 8)
    return kp.OpAlgoDispatch(
        manager.algorithm(
            pair,
            VARIANTS["gather-fp32"].path.read_bytes(),
            [groups, groups, 1],
            np.array([0, 4], np.uint32),
            push,
        ),
        push,
    )
