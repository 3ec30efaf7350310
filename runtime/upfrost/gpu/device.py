"""Devices: what there is, which one to take, and one that is open."""

from __future__ import annotations

import functools
import math
import mmap
import os
import re
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from upfrost.gpu.binding import (
    DeviceError,
    DeviceLostError,
    NotFiniteError,
    OutOfDeviceMemoryError,
    device_errors,
    kp,
)
from upfrost.gpu.cache import PipelineFile
from upfrost.gpu.dispatches import Constant, Precision
from upfrost.gpu.execution import Endurance, LoadedPlan, Ticks
from upfrost.gpu.families import CPU, MALI, VALHALL, Family
from upfrost.gpu.plan import Plan

__all__ = [
    "Device",
    "DeviceError",
    "DeviceInfo",
    "DeviceLostError",
    "Kind",
    "LoadedPlan",
    "MemoryType",
    "NotFiniteError",
    "OutOfDeviceMemoryError",
    "choose_device",
    "list_devices",
]

Kind = Literal["discrete", "integrated", "virtual", "cpu", "other"]

# Names of Mali GPUs of the Valhall architecture and what followed it; those before are
# Mali-G31, G51, G52, G71, G72 and G76.
_VALHALL = re.compile(r"Mali-G(57|68|77|78|[3-9][1-9]\d)\b|Immortalis")
# Those of them that the kernel's panthor drives; the others are panfrost's. Both end a
# job that takes longer than this many seconds.
_CSF = re.compile(r"Mali-G([3-6]10|615|7[12]\d|[69]2[05])\b|Immortalis")
_PANFROST, _PANTHOR = 0.5, 5.0
_GOODBYE = 500_000_000  # nanoseconds that a device that was lost is waited for
# What lavapipe took for the pipelines of the bundled models was less than this.
COMPILER_BYTES = 128 << 20
_PREFERENCE: tuple[Kind, ...] = ("discrete", "integrated", "virtual", "other", "cpu")


@dataclass(frozen=True)
class MemoryType:
    """A kind of memory that a device has, by Vulkan's property flags."""

    device_local: bool
    host_visible: bool
    host_coherent: bool
    host_cached: bool


@dataclass(frozen=True)
class DeviceInfo:
    """What Vulkan says of a device. `index` is Vulkan's and Kompute's number of it."""

    index: int
    name: str
    driver: str
    driver_version: str
    api_version: str
    kind: Kind
    heap_bytes: int
    max_buffer_bytes: int
    max_workgroup: int  # invocations
    max_grid: tuple[int, int, int]  # workgroups
    max_shared_bytes: int
    has_float16: bool = False  # and 16-bit storage, as Vulkan's features say
    has_cached_memory: bool = False  # the device's own, that the host's cache holds
    ticks: Ticks | None = None  # of its timestamps, where it has them
    pipeline_cache: str = ""  # Vulkan's name for what its driver has compiled
    driver_info: str = ""  # in its own words, such as "Mesa 25.0.7"
    memory_types: tuple[MemoryType, ...] = ()

    @property
    def is_gpu(self) -> bool:
        return self.kind in ("discrete", "integrated", "virtual")

    @property
    def precision(self) -> Precision:
        """The faster one."""
        return "fp16" if self.is_gpu else "fp32"

    @property
    def family(self) -> Family:
        """The kernels' table that suits it."""
        if self.kind == "cpu":
            return CPU
        fast = self.kind == "discrete" or _VALHALL.search(self.name)
        return VALHALL if fast else MALI

    @property
    def endurance(self) -> Endurance:
        """How long it may work on what it is given at once."""
        if self.kind == "cpu":
            return Endurance(submission=math.inf, job=None, answers=False)
        if not self.name.startswith("Mali"):
            return Endurance(submission=_PANFROST / 3, job=None, answers=True)
        job = _PANTHOR if _CSF.search(self.name) else _PANFROST
        return Endurance(submission=job / 3, job=job, answers=True)


@functools.cache
def list_devices() -> tuple[DeviceInfo, ...]:
    """Every Vulkan device, in Vulkan's order. Raises `DeviceError` without Vulkan."""
    # Mesa 25.0 hides Mali-G52 and its like without this; it is set for this process
    # alone, before the driver is loaded.
    os.environ.setdefault("PAN_I_WANT_A_BROKEN_VULKAN_DRIVER", "1")
    try:
        return tuple(_info(i, told) for i, told in enumerate(kp.list_devices()))
    except kp.VulkanError as error:
        raise DeviceError(
            f"Vulkan cannot be started ({error}); "
            "install a driver, e.g. Debian's mesa-vulkan-drivers"
        ) from error


def choose_device(wanted: int | str | None = None) -> DeviceInfo:
    """The device with that index or part of a name, or the best one: a GPU if any.

    Raises `DeviceError`, listing what there is, when nothing or too much fits.
    """
    devices = list_devices()
    if not devices:
        raise DeviceError(
            "there is no Vulkan device; install a driver, "
            "e.g. Debian's mesa-vulkan-drivers"
        )
    if wanted is None:
        return min(devices, key=lambda info: _PREFERENCE.index(info.kind))
    there = ", ".join(f"{info.index}: {info.name}" for info in devices)
    if isinstance(wanted, int) or wanted.isdecimal():
        if int(wanted) < len(devices):
            return devices[int(wanted)]
        raise DeviceError(f"there is no device {wanted}; there is {there}")
    found = [info for info in devices if wanted.lower() in info.name.lower()]
    if len(found) != 1:
        problem = "no device is" if not found else f"{len(found)} devices are"
        raise DeviceError(f"{problem} called {wanted!r}; there is {there}")
    return found[0]


class Device:
    """A device that is open. Owns Kompute's manager and all tensors made of it."""

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info
        self._process = os.getpid()
        # Drivers have forgotten to put their version into Vulkan's name for it.
        build = f"{info.driver} {info.driver_version} {info.api_version}"
        self._pipelines = PipelineFile(info.name, f"{build} {info.pipeline_cache}")
        with device_errors(info.name):
            self._manager = kp.Manager(
                info.index, pipeline_cache=self._pipelines.read()
            )
        self._constants: dict[int, tuple[Constant, kp.Tensor]] = {}
        self._loaded: list[weakref.ref[LoadedPlan]] = []
        self._lost = False  # while a plan was loaded

    def load(self, plan: Plan, *, inspect: bool = False) -> LoadedPlan:
        """Make a plan's buffers and pipelines; with `inspect`, values can be read.

        Raises `OutOfDeviceMemoryError` where it needs more than the device has, and
        `DeviceError` where it asks for more than the device's limits, and for other
        errors of Vulkan's.
        """
        _check_limits(plan, self.info)
        if self.info.kind == "cpu":
            # Two tiles in flight have a picture in and out each.
            sizes = (*plan.buffer_bytes, *plan.buffer_bytes[:2])
            if not self._constants:
                sizes = (*sizes, plan.constant_bytes)
            _check_system_memory(sizes)
        try:
            with device_errors(self.info.name):
                loaded = LoadedPlan(
                    self._manager,
                    plan,
                    self._constant,
                    self.info.name,
                    self.info.endurance,
                    self.info.ticks,
                    inspect=inspect,
                )
        except DeviceLostError:
            self._lost = True
            raise
        self._loaded = [each for each in self._loaded if each() is not None]
        self._loaded.append(weakref.ref(loaded))
        return loaded

    def close(self) -> None:
        """Free everything. The device cannot be used after it.

        A device that did not answer is not waited for.
        """
        self._constants.clear()
        plans = [plan for each in self._loaded if (plan := each()) is not None]
        self._loaded.clear()
        if os.getpid() != self._process:  # there is nothing to wait for
            self._manager.destroy()
            return
        for plan in plans:
            plan.close()
        if self._lost or any(plan.lost for plan in plans):
            self._manager.destroy(_GOODBYE)
            return
        with suppress(kp.VulkanError, RuntimeError):
            self._pipelines.write(self._manager.pipeline_cache())
        self._manager.destroy()

    def _constant(self, constant: Constant) -> kp.Tensor:
        """The tensor of a constant, uploaded when it is first asked for."""
        known = self._constants.get(id(constant))
        if known is None:
            # Where the device reads the host's memory as fast as its own, a second
            # copy would be wasted.
            shared = self.info.kind in ("integrated", "cpu")
            kind = kp.TensorTypes.host if shared else kp.TensorTypes.device
            tensor = self._manager.tensor_t(constant.words, kind)
            if not shared:
                upload = self._manager.sequence()
                self.info.endurance.evaluate(
                    upload.record(kp.OpTensorSyncDevice([tensor]))
                )
            # The constant is kept so that its id stays its own.
            known = self._constants[id(constant)] = (constant, tensor)
        return known[1]


def _check_system_memory(sizes: Sequence[int]) -> None:
    """Whether the system gives a driver on the CPU buffers of these sizes in bytes.

    Besides, it takes the zeros that Kompute copies into a buffer, and what the driver
    takes to compile: some drivers abort where they get none, and some are given what
    they cannot touch. Raises `OutOfDeviceMemoryError`.
    """
    needed = sum(sizes) + max(sizes) + COMPILER_BYTES
    try:
        mmap.mmap(-1, needed, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise OutOfDeviceMemoryError(
            f"the system does not give {needed / 2**20:.0f} MiB"
        ) from error


def _check_limits(plan: Plan, info: DeviceInfo) -> None:
    largest = max(plan.buffer_bytes)
    if largest > info.max_buffer_bytes:
        raise OutOfDeviceMemoryError(
            f"a buffer of {largest / 2**20:.0f} MiB is needed, {info.name} binds "
            f"at most {info.max_buffer_bytes / 2**20:.0f} MiB"
        )
    if plan.bytes > info.heap_bytes:
        raise OutOfDeviceMemoryError(
            f"{plan.bytes / 2**20:.0f} MiB are needed, {info.name} has "
            f"{info.heap_bytes / 2**20:.0f} MiB"
        )
    for dispatch in plan.dispatches:
        weights = [w.words.nbytes for w in dispatch.buffers if isinstance(w, Constant)]
        if max(weights, default=0) > info.max_buffer_bytes:
            raise DeviceError(
                f"{dispatch.label}: {max(weights) / 2**20:.0f} MiB of weights are "
                f"needed, {info.name} binds at most "
                f"{info.max_buffer_bytes / 2**20:.0f} MiB"
            )
        if any(
            n > limit for n, limit in zip(dispatch.grid, info.max_grid, strict=True)
        ):
            raise DeviceError(
                f"{dispatch.label}: a grid of {dispatch.grid} workgroups is beyond "
                f"{info.name}'s {info.max_grid}"
            )


def _info(index: int, told: dict[str, Any]) -> DeviceInfo:
    heaps = told["heaps"]
    own = [heap for heap in heaps if heap["device_local"]]
    packed = told["driver_version"]
    return DeviceInfo(
        index=index,
        name=told["device_name"],
        driver=told["driver_name"] or told["device_name"],
        driver_version=f"{packed >> 22}.{packed >> 12 & 0x3FF}.{packed & 0xFFF}",
        api_version=".".join(map(str, told["api_version"])),
        kind=told["device_type"],
        heap_bytes=max(heap["size"] for heap in own or heaps),
        max_buffer_bytes=told["max_storage_buffer_range"],
        max_workgroup=told["max_work_group_invocations"],
        max_grid=told["max_work_group_count"],
        max_shared_bytes=told["max_compute_shared_memory_size"],
        has_float16=told["shader_float16"] and told["storage_buffer_16bit_access"],
        has_cached_memory=any(
            kind["device_local"] and kind["host_visible"] and kind["host_cached"]
            for kind in told["memory_types"]
        ),
        ticks=(
            Ticks(told["timestamp_period"] * 1e-9, told["timestamp_valid_bits"])
            if told["timestamps_supported"]
            else None
        ),
        pipeline_cache=told["pipeline_cache_uuid"].hex(),
        driver_info=told["driver_info"],
        memory_types=tuple(
            MemoryType(
                kind["device_local"],
                kind["host_visible"],
                kind["host_coherent"],
                kind["host_cached"],
            )
            for kind in told["memory_types"]
        ),
    )
