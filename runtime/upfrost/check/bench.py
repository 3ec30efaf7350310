"""The simplest work for a device, without plans and proofs: clearing memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from upfrost.gpu import operations
from upfrost.gpu.binding import device_errors, kp
from upfrost.gpu.device import DeviceInfo
from upfrost.gpu.families import VARIANTS

_ONES = 0xFFFFFFFF


class Bench:
    """Kompute's manager of a device, and dispatches that write zeros."""

    def __init__(self, info: DeviceInfo) -> None:
        self._name = info.name
        with device_errors(info.name):
            self._manager = kp.Manager(info.index)

    def tensor(self, words: int, kind: kp.TensorTypes) -> kp.Tensor:
        """A buffer of ones."""
        with device_errors(self._name):
            return self._manager.tensor_t(np.full(words, _ONES, np.uint32), kind)

    def sequence(
        self, words: int, dispatches: int, tensor: kp.Tensor | None = None
    ) -> kp.Sequence:
        """So many dispatches in one submission, each of which clears `words`."""
        if tensor is None:
            tensor = self.tensor(words, kp.TensorTypes.storage)
        dispatch = operations.clear(0, words)
        push = np.array(dispatch.push, np.uint32)
        with device_errors(self._name):
            algorithm = self._manager.algorithm(
                [tensor],
                VARIANTS[dispatch.shader].path.read_bytes(),
                list(dispatch.grid),
                np.array(dispatch.constants, np.uint32),
                push,
            )
            sequence = self._manager.sequence()
            for _ in range(dispatches):
                sequence.record(kp.OpAlgoDispatch(algorithm, push))
        return sequence

    def clear(self, words: int) -> int:
        """How many words are not zero after a dispatch that clears them."""
        tensor = self.tensor(words, kp.TensorTypes.host_cached)
        sequence = self.sequence(words, 1, tensor)
        with device_errors(self._name):
            sequence.eval_async()
            sequence.eval_await(10_000_000_000)
        return int(np.count_nonzero(tensor.data()))


def median_seconds(work: Callable[[], object], rounds: int, most: float) -> float:
    """The median of `rounds` times, or of as many as begin within `most` seconds."""
    seconds = []
    began = time.perf_counter()
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        end = time.perf_counter()
        seconds.append(end - start)
        if end - began > most:
            break
    return statistics.median(seconds)
