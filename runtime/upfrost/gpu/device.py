"""Everything Kompute: choosing a device, its limits, tensors, submission, and the proof
that the device really ran.

What the runtime relies on for the order of two dependent dispatches stands in
docs/vulkan.md: each dispatch is a submission of its own that has been waited for.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import kp
import numpy as np
import numpy.typing as npt
import vulkan

from upfrost.arrays import Bytes
from upfrost.errors import UpfrostError
from upfrost.gpu.dispatches import (
    Constant,
    Dispatch,
    Precision,
    Words,
)
from upfrost.gpu.families import CPU, MALI, VALHALL, VARIANTS, Family
from upfrost.gpu.frame import Samples
from upfrost.gpu.plan import PICTURE_IN, PICTURE_OUT, Plan

Kind = Literal["discrete", "integrated", "virtual", "cpu", "other"]

_KINDS: dict[int, Kind] = {
    vulkan.VK_PHYSICAL_DEVICE_TYPE_OTHER: "other",
    vulkan.VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: "integrated",
    vulkan.VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: "discrete",
    vulkan.VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: "virtual",
    vulkan.VK_PHYSICAL_DEVICE_TYPE_CPU: "cpu",
}
# Names of Mali GPUs of the Valhall architecture and what followed it; those before are
# Mali-G31, G51, G52, G71, G72 and G76.
_VALHALL = re.compile(r"Mali-G(57|68|77|78|[3-9][1-9]\d)\b|Immortalis")
# What lavapipe took for the pipelines of the bundled models was less than this.
COMPILER_BYTES = 128 << 20
_PREFERENCE: tuple[Kind, ...] = ("discrete", "integrated", "virtual", "other", "cpu")


class DeviceError(UpfrostError, RuntimeError):
    """No device, or one that cannot do what is asked."""


class DeviceLostError(DeviceError):
    """The device reported success and did not compute."""


class NotFiniteError(UpfrostError, ArithmeticError):
    """A network's result is no picture, since numbers went beyond all bounds."""


class OutOfDeviceMemoryError(DeviceError):
    """A plan needs more than the device has."""


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


@functools.cache
def list_devices() -> tuple[DeviceInfo, ...]:
    """Every Vulkan device, in Vulkan's order. Raises `DeviceError` without Vulkan."""
    try:
        instance = _instance()
        devices = vulkan.vkEnumeratePhysicalDevices(instance)
        return tuple(_info(i, device, instance) for i, device in enumerate(devices))
    except vulkan.VkError as error:
        raise DeviceError(f"Vulkan lists no device ({type(error).__name__})") from error


@functools.cache
def _instance() -> object:
    """Vulkan, to be asked. It stays: drivers unload with the last instance, and
    loading them again takes time."""
    # Mesa 25.0 hides Mali-G52 and its like without this; it is set for this process
    # alone, before the driver is loaded.
    os.environ.setdefault("PAN_I_WANT_A_BROKEN_VULKAN_DRIVER", "1")
    extension = "VK_KHR_get_physical_device_properties2"
    application = vulkan.VkApplicationInfo(
        pApplicationName="upfrost", apiVersion=vulkan.VK_MAKE_VERSION(1, 0, 0)
    )
    try:
        available = {
            properties.extensionName
            for properties in vulkan.vkEnumerateInstanceExtensionProperties(None)
        }
        return vulkan.vkCreateInstance(
            vulkan.VkInstanceCreateInfo(
                pApplicationInfo=application,
                ppEnabledExtensionNames=[extension] if extension in available else [],
            ),
            None,
        )
    except vulkan.VkError as error:
        raise DeviceError(
            f"Vulkan cannot be started ({type(error).__name__}); "
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
        self._manager = kp.Manager(info.index)
        self._constants: dict[int, tuple[Constant, kp.Tensor]] = {}

    def load(self, plan: Plan, *, inspect: bool = False) -> LoadedPlan:
        """Make a plan's buffers and pipelines; with `inspect`, values can be read.

        Raises `OutOfDeviceMemoryError` where it needs more than the device has, and
        `DeviceError` where it asks for more than the device's limits.
        """
        _check_limits(plan, self.info)
        sizes = plan.buffer_bytes
        if plan.constant_bytes and not self._constants:
            sizes = (*sizes, plan.constant_bytes)
        if self.info.kind == "cpu":
            # Of the same memory are the zeros that Kompute copies into a buffer, and
            # what the driver takes to compile: it aborts where it gets none.
            sizes = (*sizes, max(sizes) + COMPILER_BYTES)
        try_allocation(self.info, sizes)
        try:
            return LoadedPlan(self._manager, plan, self._constant, inspect=inspect)
        except MemoryError as error:
            raise OutOfDeviceMemoryError(
                f"{plan.bytes / 2**20:.0f} MiB are needed, the system gives no more"
            ) from error

    def close(self) -> None:
        """Free everything. The device cannot be used after it."""
        self._constants.clear()
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
                self._manager.sequence().eval(kp.OpTensorSyncDevice([tensor]))
            # The constant is kept so that its id stays its own.
            known = self._constants[id(constant)] = (constant, tensor)
        return known[1]


class LoadedPlan:
    """A plan with its buffers and pipelines on a device."""

    def __init__(
        self,
        manager: kp.Manager,
        plan: Plan,
        constant: Callable[[Constant], kp.Tensor],
        *,
        inspect: bool = False,
    ) -> None:
        self.plan = plan
        self._inspect = inspect
        self._buffers = [
            _tensor(manager, size, host=inspect or number in (PICTURE_IN, PICTURE_OUT))
            for number, size in enumerate(plan.buffer_bytes)
        ]
        constants = {
            id(item): constant(item)
            for dispatch in plan.dispatches
            for item in dispatch.buffers
            if isinstance(item, Constant)
        }
        self.allocated_bytes = sum(
            4 * tensor.size() for tensor in (*self._buffers, *constants.values())
        )
        algorithms: dict[Dispatch, kp.Algorithm] = {}

        def submission(dispatch: Dispatch) -> kp.Sequence:
            push = np.array(dispatch.push, np.uint32)
            alike = dispatch.pipeline
            if alike not in algorithms:
                tensors = [
                    constants[id(item)]
                    if isinstance(item, Constant)
                    else self._buffers[item]
                    for item in dispatch.buffers
                ]
                algorithms[alike] = manager.algorithm(
                    tensors,
                    _spirv(dispatch.shader),
                    list(dispatch.grid),
                    np.array(dispatch.constants, np.uint32),
                    push,
                )
            return manager.sequence().record(kp.OpAlgoDispatch(algorithms[alike], push))

        self.submissions = [submission(dispatch) for dispatch in plan.dispatches]
        for dispatch in plan.setup:
            submission(dispatch).eval()
        self._given: Words = self._buffers[PICTURE_IN].data()
        self._given_planes = [plane.rows(self._given) for plane in plan.given]
        self._result: Words = self._buffers[PICTURE_OUT].data()
        self._result_planes = [plane.rows(self._result) for plane in plan.result]

    def run(self, picture: Bytes) -> Bytes:
        """The network's result for a tile: uint8 (H, W, C) → a view of (sH, sW, C).

        Otherwise as `run_planes`.
        """
        height, width, channels = picture.shape
        (rows,) = self.run_planes([picture.reshape(height, -1)])
        return rows.reshape(-1, width * self.plan.scale, channels).view(np.uint8)

    def run_planes(self, planes: Sequence[Samples]) -> list[Samples]:
        """The result for a tile of so many planes: (H, samples of a row) each.

        It is views of device memory: copy what is needed before the next call. Raises
        `DeviceLostError` when the device did not compute, `NotFiniteError` when the
        network's numbers went beyond all bounds.
        """
        token = secrets.randbits(32)
        self._given[0] = self._result[0] = token
        for target, plane in zip(self._given_planes, planes, strict=True):
            target[...] = plane
        for submission in self.submissions:
            submission.eval()
        if self._result[0] != token ^ 0xFFFFFFFF:
            raise DeviceLostError(
                "the device reported success but did not compute (it was lost, or its "
                "driver does nothing); no result was kept"
            )
        if self._result[1] == token:
            raise NotFiniteError(
                f"{self.plan.network}: the result is not finite, since its numbers are "
                f"too large for {self.plan.precision}"
                + ("; use --precision fp32" if self.plan.precision == "fp16" else "")
            )
        return self._result_planes

    def value(self, name: str) -> npt.NDArray[np.float32]:
        """A value of the last run as (C, H, W), if its buffer is still its own.

        For tests and for people who look for an error. Raises `ValueError` unless the
        plan was loaded with `inspect`, and for what is no value in a buffer.
        """
        place = self.plan.views.get(name)
        if place is None or place.buffer == PICTURE_IN:
            raise ValueError(
                f"{name!r} is no value in a buffer: there is none of that name, or a "
                "kernel computes it on its way, or it is the picture, read as bytes"
            )
        layout = place.layout
        dtype = np.float16 if self.plan.precision == "fp16" else np.float32
        elements = self.words(place.buffer).view(dtype).reshape(-1, 4)
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
        words: Words = self._buffers[number].data()
        return words


def try_allocation(info: DeviceInfo, sizes: Sequence[int]) -> None:
    """Allocate and free memory of these sizes in bytes, all at once.

    Kompute does not look whether its allocations succeeded, so this asks before it.
    Raises `OutOfDeviceMemoryError`.
    """
    device = None
    held = []
    try:
        physical = vulkan.vkEnumeratePhysicalDevices(_instance())[info.index]
        queue = vulkan.VkDeviceQueueCreateInfo(
            queueFamilyIndex=0, queueCount=1, pQueuePriorities=[1.0]
        )
        device = vulkan.vkCreateDevice(
            physical, vulkan.VkDeviceCreateInfo(pQueueCreateInfos=[queue]), None
        )
        # Kompute, too, takes the first type that is local to the device.
        memory = vulkan.vkGetPhysicalDeviceMemoryProperties(physical)
        local = next(
            i
            for i in range(memory.memoryTypeCount)
            if memory.memoryTypes[i].propertyFlags
            & vulkan.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
        )
        for size in sizes:
            wanted = vulkan.VkMemoryAllocateInfo(
                allocationSize=size, memoryTypeIndex=local
            )
            held.append(vulkan.vkAllocateMemory(device, wanted, None))
    except (vulkan.VkErrorOutOfDeviceMemory, vulkan.VkErrorOutOfHostMemory) as error:
        raise OutOfDeviceMemoryError(
            f"{info.name} does not give {sum(sizes) / 2**20:.0f} MiB"
        ) from error
    finally:
        for allocation in held:
            vulkan.vkFreeMemory(device, allocation, None)
        if device is not None:
            vulkan.vkDestroyDevice(device, None)


def _tensor(manager: kp.Manager, size: int, *, host: bool) -> kp.Tensor:
    kind = kp.TensorTypes.host if host else kp.TensorTypes.storage
    return manager.tensor_t(np.zeros(-(-size // 4), np.uint32), kind)


@functools.cache
def _spirv(shader: str) -> bytes:
    return VARIANTS[shader].path.read_bytes()


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


def _info(index: int, device: object, instance: object) -> DeviceInfo:
    properties = vulkan.vkGetPhysicalDeviceProperties(device)
    memory = vulkan.vkGetPhysicalDeviceMemoryProperties(device)
    heaps = [memory.memoryHeaps[i] for i in range(memory.memoryHeapCount)]
    own = [h for h in heaps if h.flags & vulkan.VK_MEMORY_HEAP_DEVICE_LOCAL_BIT]
    limits = properties.limits
    return DeviceInfo(
        index=index,
        name=properties.deviceName,
        driver=_driver_name(device, instance, properties.deviceName),
        driver_version=_version(properties.driverVersion),
        api_version=_version(properties.apiVersion),
        kind=_KINDS.get(properties.deviceType, "other"),
        heap_bytes=max(heap.size for heap in own or heaps),
        max_buffer_bytes=limits.maxStorageBufferRange,
        max_workgroup=limits.maxComputeWorkGroupInvocations,
        max_grid=tuple(limits.maxComputeWorkGroupCount),
        max_shared_bytes=limits.maxComputeSharedMemorySize,
    )


def _driver_name(device: object, instance: object, device_name: str) -> str:
    """The driver's own name where it has VK_KHR_driver_properties."""
    try:
        query = vulkan.vkGetInstanceProcAddr(
            instance, "vkGetPhysicalDeviceProperties2KHR"
        )
        driver = vulkan.VkPhysicalDeviceDriverProperties()
        query(device, vulkan.VkPhysicalDeviceProperties2(pNext=driver))
        name = driver.driverName
        text = name if isinstance(name, str) else vulkan.ffi.string(name).decode()
        return text or device_name
    except (vulkan.ProcedureNotFoundError, vulkan.ExtensionNotSupportedError):
        return device_name


def _version(packed: int) -> str:
    return f"{packed >> 22}.{packed >> 12 & 0x3FF}.{packed & 0xFFF}"
