"""Real super-resolution on small ARM boards, on a completely open software stack."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler

__all__ = ["Upscaler"]


def __getattr__(name: str) -> object:
    """`Upscaler` on demand, since Kompute and Vulkan need not load for `--help`."""
    if name == "Upscaler":
        from upfrost.gpu.upscaler import Upscaler

        return Upscaler
    raise AttributeError(f"module 'upfrost' has no attribute {name!r}")
