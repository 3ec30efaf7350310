"""Networks from elsewhere into upfrost's weight file.

Each front end needs its own library, so none is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upfrost_exporter.builder import ExportError

if TYPE_CHECKING:
    from upfrost_exporter.torch_frontend import export_module, trace_module

__all__ = ["ExportError", "export_module", "trace_module"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from upfrost_exporter import torch_frontend

        return getattr(torch_frontend, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
