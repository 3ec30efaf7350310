"""Kompute's binding `kp`, in the build that upfrost needs, and errors in its place.

Import `kp` from here, so that another build is refused before it does harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import kp

from upfrost.errors import UpfrostError

__all__ = ["DeviceError", "DeviceLostError", "OutOfDeviceMemoryError", "kp"]

# Of tools/kompute: without its patches a lost device passes for one that computes.
KP_VERSION = "0.9.0+upfrost1"

if (_found := getattr(kp, "__version__", "of unknown version")) != KP_VERSION:
    raise ImportError(
        f"kp {_found} is installed, and upfrost works with its own build "
        f"{KP_VERSION} alone",
        name="kp",
    )


class DeviceError(UpfrostError, RuntimeError):
    """No device, or one that cannot do what is asked."""


class DeviceLostError(DeviceError):
    """The device was lost, or reported success and did not compute."""


class NotComputedError(DeviceLostError):
    """The device reported success, and a result's proof did not come back."""


class NotFiniteError(UpfrostError, ArithmeticError):
    """A network's result is no picture, since numbers went beyond all bounds."""


class OutOfDeviceMemoryError(DeviceError):
    """A plan needs more than the device has."""


@contextmanager
def device_errors(name: str) -> Iterator[None]:
    """A block in which errors of Vulkan become those of the device `name`.

    Raises `OutOfDeviceMemoryError`, `DeviceLostError` or `DeviceError`.
    """
    try:
        yield
    except kp.OutOfMemoryError as error:
        raise OutOfDeviceMemoryError(
            f"{name} gives no more memory ({error})"
        ) from error
    except kp.DeviceLostError as error:
        raise DeviceLostError(
            f"{name} was lost ({error}); no result was kept"
        ) from error
    except kp.TimeoutError as error:
        raise DeviceLostError(
            f"{name} does not answer ({error}); no result was kept. The kernel's log "
            "(dmesg) may say why"
        ) from error
    except kp.VulkanError as error:
        raise DeviceError(f"{name} failed ({error})") from error
    except MemoryError as error:
        raise OutOfDeviceMemoryError("the system gives no more memory") from error
