"""What `--json` says of one input, be it a picture or a video."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from upfrost.gpu.upscaler import Upscaler


@dataclass
class Record:
    """What pictures and videos have in common. Sizes are width and height in pixels."""

    input: str
    output: str
    status: Literal["done", "skipped", "failed"] = "failed"
    error: str | None = None
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    model: str | None = None
    scale: int | None = None
    device: str | None = None
    device_kind: str | None = None
    precision: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    notes: list[str] = field(default_factory=list)

    def describe(self, upscaler: Upscaler) -> None:
        """Say what it is upscaled with."""
        self.model, self.scale = upscaler.graph.name, upscaler.graph.scale
        self.device, self.device_kind = upscaler.device.name, upscaler.device.kind
        self.precision = upscaler.precision

    def to_json(self) -> str:
        """One line of ASCII; what is not known is left out."""
        known = dataclasses.asdict(self).items()
        return json.dumps({key: value for key, value in known if value is not None})
