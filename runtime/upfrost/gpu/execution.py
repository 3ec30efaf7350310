"""A plan on a device: its buffers, pipelines and recorded dispatches, tiles in flight,
and the proof that the device really ran.

What the runtime relies on for the order of dependent dispatches stands in
docs/vulkan.md.
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from upfrost.arrays import Bytes
from upfrost.gpu.binding import (
    DeviceError,
    DeviceLostError,
    NotComputedError,
    NotFiniteError,
    OutOfDeviceMemoryError,
    device_errors,
    kp,
)
from upfrost.gpu.dispatches import Constant, Dispatch, Words
from upfrost.gpu.families import VARIANTS
from upfrost.gpu.frame import Samples
from upfrost.gpu.plan import PICTURE_IN, PICTURE_OUT, Plan, submissions

# Tiles at a time: the host writes one and reads another while the device works.
IN_FLIGHT = 2
# What a submission may take at the very most: Mali's kernel drivers end a job after
# half a second or five.
ANSWER_SECONDS = 10.0
_NEVER = (1 << 64) - 1  # nanoseconds
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Endurance:
    """How long a device and its kernel driver may work on a submission.

    `submission` bounds what is put into one, by the plan's estimate. After `job`
    seconds the kernel driver ends it and Vulkan reports success. `answers` says
    whether a device that does not answer in time counts as lost; a CPU may be slow.
    """

    submission: float
    job: float | None
    answers: bool

    @property
    def patience(self) -> int:
        """Nanoseconds that a submission is waited for, when none is before it."""
        return int(ANSWER_SECONDS * _SECOND) if self.answers else _NEVER

    def evaluate(self, sequence: kp.Sequence) -> None:
        """Run a sequence, and wait as long as it may take.

        Raises what `kp` does.
        """
        sequence.eval_async()
        sequence.eval_await(self.patience)


@dataclass(frozen=True)
class Ticks:
    """What timestamps count: units of `seconds`, by a counter of `bits` bits."""

    seconds: float
    bits: int

    def between(self, first: int, last: int) -> float:
        """Seconds from one timestamp to another."""
        return ((last - first) % (1 << self.bits)) * self.seconds


@dataclass(eq=False)
class _Slot:
    """The pictures of one tile in flight, and the dispatches recorded for them."""

    buffers: list[kp.Tensor]
    given: Words
    given_planes: list[Samples]
    result: Words
    result_planes: list[Samples]
    # By pipeline, of dispatches that touch its pictures.
    algorithms: dict[Dispatch, kp.Algorithm] = field(default_factory=dict)
    sequences: list[kp.Sequence] = field(default_factory=list)
    token: int = 0
    submitted: float = 0.0  # by the monotonic clock
    busy: float = 0.0  # seconds that its longest submission took, or more
    awaited: Future[None] | None = None  # by a thread of its own


class LoadedPlan:
    """A plan with its buffers and pipelines on a device.

    Belongs to one thread at a time.
    """

    def __init__(
        self,
        manager: kp.Manager,
        plan: Plan,
        constant: Callable[[Constant], kp.Tensor],
        name: str,
        endurance: Endurance,
        ticks: Ticks | None,
        *,
        inspect: bool = False,
    ) -> None:
        self.plan = plan
        self._manager = manager
        self._name = name
        self._endurance = endurance
        self._ticks = ticks
        self._inspect = inspect
        self._process = os.getpid()
        self._in_flight: deque[_Slot] = deque()
        # Where a submission's time says whether its driver has ended it, a thread waits
        # for each, so that the caller's own pace does not count.
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix="upfrost device")
        self._idle_since = 0.0  # when the device last was known to have finished
        self._lost = False
        self._most_slots = IN_FLIGHT
        self._alone = False  # a submission for each dispatch
        self._constants = {
            id(item): constant(item)
            for dispatch in plan.dispatches
            for item in dispatch.buffers
            if isinstance(item, Constant)
        }
        self._values = [
            _tensor(
                manager,
                size,
                kp.TensorTypes.host_cached if inspect else kp.TensorTypes.storage,
            )
            for size in plan.buffer_bytes[PICTURE_OUT + 1 :]
        ]
        self._algorithms: dict[Dispatch, kp.Algorithm] = {}  # of all slots
        self._slots = [self._new_slot()]
        if plan.setup:
            setup = manager.sequence()
            for dispatch in plan.setup:
                self._record(setup, self._slots[0], dispatch)
            endurance.evaluate(setup)

    @property
    def allocated_bytes(self) -> int:
        """Bytes of device memory: what `Plan.bytes` says when two are in flight."""
        pictures = [t for slot in self._slots for t in slot.buffers]
        tensors = (*pictures, *self._values, *self._constants.values())
        return sum(4 * tensor.size() for tensor in tensors)

    @property
    def submissions(self) -> int:
        """How many submissions a tile is."""
        return len(self._slots[0].sequences)

    @property
    def lost(self) -> bool:
        """Whether the device left something unanswered, or was lost."""
        return self._lost

    @property
    def in_flight(self) -> int:
        """How many tiles were started and not finished."""
        return len(self._in_flight)

    def can_start(self) -> bool:
        """Whether a tile can start before another one is finished.

        The first time it makes the buffers of a second tile, if there is memory.
        """
        if len(self._in_flight) < len(self._slots):
            return True
        if len(self._slots) == self._most_slots:
            return False
        try:
            with self._errors():
                self._slots.append(self._new_slot())
        except OutOfDeviceMemoryError:
            self._most_slots = len(self._slots)
            return False
        return True

    def run(self, picture: Bytes) -> Bytes:
        """The network's result for a tile: uint8 (H, W, C) → a view of (sH, sW, C).

        Otherwise as `start` and `finish`.
        """
        height, width, channels = picture.shape
        (rows,) = self.run_planes([picture.reshape(height, -1)])
        return rows.reshape(-1, width * self.plan.scale, channels).view(np.uint8)

    def run_planes(self, planes: Sequence[Samples]) -> list[Samples]:
        """The result for a tile of so many planes, by `start` and `finish`."""
        self.forget()
        self.start(planes)
        return self.finish()

    def start(self, planes: Sequence[Samples]) -> None:
        """Hand a tile to the device, planes of (H, samples of a row), and do not wait.

        To be called while `can_start`. Raises what `finish` does, and `DeviceError`
        in a process that was forked after the plan was loaded.
        """
        self._check_process()
        if self._lost:
            raise DeviceLostError(f"{self._name} was lost before; open it again")
        slot = next(each for each in self._slots if each not in self._in_flight)
        self._wait_for(slot)  # of a tile that was forgotten
        for target, plane in zip(slot.given_planes, planes, strict=True):
            target[...] = plane
        self._submit(slot)
        self._in_flight.append(slot)

    def finish(self) -> list[Samples]:
        """The result of the tile that was started first: (H, samples of a row) each.

        It is views of device memory, which hold until a tile is started. Raises
        `DeviceLostError` when the device was lost, does not answer or did not compute,
        `NotFiniteError` when the network's numbers went beyond all bounds, and
        `DeviceError` for another error of Vulkan's.
        """
        self._check_process()
        slot = self._in_flight.popleft()
        self._wait_for(slot)
        limit = self._endurance.job
        if limit is not None and slot.busy > limit:
            self._repeat(slot, limit)
        if slot.result[0] != slot.token ^ 0xFFFFFFFF:
            self._lost = True
            raise NotComputedError(
                "the device reported success but did not compute (it was lost, or its "
                "driver does nothing); no result was kept"
            )
        if slot.result[1] == slot.token:
            raise NotFiniteError(
                f"{self.plan.network}: the result is not finite, since its numbers are "
                f"too large for {self.plan.precision}"
                + ("; use --precision fp32" if self.plan.precision == "fp16" else "")
            )
        return slot.result_planes

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise DeviceError(
                "the device was opened before this process was forked, and works in "
                "its parent alone: open it again"
            )

    def close(self) -> None:
        """Wait for nothing any more. It cannot be used after it."""
        self._waiter.shutdown(cancel_futures=True)

    def forget(self) -> None:
        """Nobody wants what is in flight any more."""
        self._in_flight.clear()

    def layer(self, label: str) -> Callable[[], float]:
        """What dispatches all that has that label, and gives the seconds it took.

        They are the device's own where it has timestamps, and otherwise those of the
        clock, with what a submission costs. Calling raises what `finish` does.
        """
        plan, ticks = self.plan, self._ticks
        numbers = [n for n, d in enumerate(plan.dispatches) if d.label == label]
        sequences = self.record(
            [plan.dispatches[number] for number in numbers],
            [plan.dispatch_seconds[number] for number in numbers],
            self._endurance.submission,
            timestamps=ticks is not None,
        )

        def run() -> float:
            with self._errors():
                began = time.perf_counter()
                for sequence in sequences:
                    self._endurance.evaluate(sequence)
                elapsed = time.perf_counter() - began
                if ticks is None:
                    return elapsed
                stamps = [sequence.get_timestamps() for sequence in sequences]
            seconds = sum(ticks.between(each[0], each[-1]) for each in stamps)
            # A driver may have none to give, whatever it says.
            return seconds if 0 < seconds <= elapsed else elapsed

        return run

    def record(
        self,
        dispatches: Sequence[Dispatch],
        seconds: Sequence[float],
        most: float,
        slot: _Slot | None = None,
        *,
        timestamps: bool = False,
    ) -> list[kp.Sequence]:
        """Dispatches in submissions of `most` seconds, by the estimate of each.

        With `timestamps` the device notes when each begins and ends.
        """
        sequences = []
        for numbers in submissions(seconds, most):
            sequence = self._manager.sequence(0, len(numbers) if timestamps else 0)
            for number in numbers:
                self._record(sequence, slot or self._slots[0], dispatches[number])
            sequences.append(sequence)
        return sequences

    def value(self, name: str) -> npt.NDArray[np.float32]:
        """A value of the last run as (C, H, W), if its buffer is still its own.

        For tests and for people who look for an error. Raises `ValueError` unless the
        plan was loaded with `inspect`, and for what is no value in a buffer.
        """
        view = self.plan.views.get(name)
        if view is None or view.buffer == PICTURE_IN:
            raise ValueError(
                f"{name!r} is no value in a buffer: there is none of that name, or a "
                "kernel computes it on its way, or it is the picture, read as bytes"
            )
        layout = view.layout
        dtype = np.float16 if self.plan.precision == "fp16" else np.float32
        elements = self.words(view.buffer).view(dtype).reshape(-1, 4)
        planes = elements[layout.base :][: layout.slices * layout.plane]
        planes = planes.reshape(layout.slices, layout.rows, layout.stride, 4)
        channels = planes.transpose(0, 3, 1, 2).reshape(
            4 * layout.slices, layout.rows, layout.stride
        )
        pixels = channels[: layout.channels, : layout.height, : layout.width]
        found: npt.NDArray[np.float32] = pixels.astype(np.float32)
        return found

    def words(self, number: int) -> Words:
        """Buffer `number` as 32-bit words. Raises `ValueError` as `value` does."""
        if not self._inspect:
            raise ValueError("values can be read from a plan loaded with inspect=True")
        words: Words = self._buffer(self._slots[0], number).data()
        return words

    def _buffer(self, slot: _Slot, number: int) -> kp.Tensor:
        pictures = len(slot.buffers)
        return (
            slot.buffers[number]
            if number < pictures
            else self._values[number - pictures]
        )

    def _new_slot(self) -> _Slot:
        plan = self.plan
        # The host writes the one picture and reads the other.
        given, result = (
            _tensor(self._manager, plan.buffer_bytes[number], kind)
            for number, kind in (
                (PICTURE_IN, kp.TensorTypes.host),
                (PICTURE_OUT, kp.TensorTypes.host_cached),
            )
        )
        given_words: Words = given.data()
        result_words: Words = result.data()
        slot = _Slot(
            buffers=[given, result],
            given=given_words,
            given_planes=[plane.rows(given_words) for plane in plan.given],
            result=result_words,
            result_planes=[plane.rows(result_words) for plane in plan.result],
        )
        self._record_slot(slot)
        return slot

    def _record_slot(self, slot: _Slot) -> None:
        slot.sequences = self.record(
            self.plan.dispatches,
            self.plan.dispatch_seconds,
            0.0 if self._alone else self._endurance.submission,
            slot,
        )

    def _record(self, sequence: kp.Sequence, slot: _Slot, dispatch: Dispatch) -> None:
        push = np.array(dispatch.push, np.uint32)
        # Those that touch no picture are the same for all slots.
        pictures = any(
            number in (PICTURE_IN, PICTURE_OUT) for number in dispatch.buffers
        )
        algorithms = slot.algorithms if pictures else self._algorithms
        pipeline = dispatch.pipeline
        if pipeline not in algorithms:
            tensors = [
                self._constants[id(item)]
                if isinstance(item, Constant)
                else self._buffer(slot, item)
                for item in dispatch.buffers
            ]
            try:
                algorithms[pipeline] = self._manager.algorithm(
                    tensors,
                    _spirv(dispatch.shader),
                    list(dispatch.grid),
                    np.array(dispatch.constants, np.uint32),
                    push,
                )
            except kp.VulkanError as error:
                raise type(error)(f"{dispatch.shader}: {error}") from error
        sequence.record(kp.OpAlgoDispatch(algorithms[pipeline], push))

    def _submit(self, slot: _Slot) -> None:
        slot.token = secrets.randbits(32)
        slot.given[0] = slot.result[0] = slot.token
        with self._errors():
            slot.busy = 0.0
            slot.submitted = time.monotonic()
            for sequence in slot.sequences:
                sequence.eval_async()
        if self._endurance.job is not None:
            slot.awaited = self._waiter.submit(self._await, slot)

    def _wait_for(self, slot: _Slot) -> None:
        """Wait until nothing of it runs."""
        if slot.awaited is None:
            self._await(slot)
        else:
            slot.awaited.result()
            slot.awaited = None

    def _await(self, slot: _Slot) -> None:
        # Another tile's work may be before it in the queue.
        before = IN_FLIGHT * len(slot.sequences)
        nanoseconds = min(self._endurance.patience * before, _NEVER)
        with self._errors():
            for sequence in slot.sequences:
                if self._lost:
                    raise DeviceLostError(f"{self._name} was lost before")
                if not sequence.is_running():
                    continue
                sequence.eval_await(nanoseconds)
                now = time.monotonic()
                began = max(self._idle_since, slot.submitted)
                slot.busy = max(slot.busy, now - began)
                self._idle_since = now

    def _repeat(self, slot: _Slot, limit: float) -> None:
        """Compute a tile again that may have been ended by the kernel's driver.

        It took longer than `limit` seconds, or this process was stopped meanwhile,
        which cannot be told; so it is submitted again, and then with a submission for
        each dispatch.
        """
        for other in self._in_flight:
            self._wait_for(other)
            # Of that one it cannot be told either.
            other.busy = max(other.busy, slot.busy)
        self._submit(slot)
        self._wait_for(slot)
        if slot.busy > limit and not self._alone:
            self._alone = True
            for each in self._slots:
                self._record_slot(each)
            self._submit(slot)
            self._wait_for(slot)
        if slot.busy > limit:
            raise DeviceLostError(
                f"a dispatch took {self._name} {slot.busy:.1f} s, and its kernel's "
                f"driver ends what takes {limit:g} s; no result was kept. Try smaller "
                "tiles (--tile)"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """A block with the errors of `device_errors`; a lost device stays lost."""
        try:
            with device_errors(self._name):
                yield
        except DeviceLostError:
            self._lost = True
            raise


def _tensor(manager: kp.Manager, size: int, kind: kp.TensorTypes) -> kp.Tensor:
    return manager.tensor_t(np.zeros(-(-size // 4), np.uint32), kind)


@functools.cache
def _spirv(shader: str) -> bytes:
    return VARIANTS[shader].path.read_bytes()
