"""What `--json` says of one input, be it a picture or a video."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from upfrost.gpu.device import DeviceInfo
    from upfrost.network.graph import Graph


class Computer(Protocol):
    """What results are computed by: an `Upscaler`, or a cluster of them."""

    @property
    def graph(self) -> Graph: ...

    @property
    def device(self) -> DeviceInfo: ...

    @property
    def precision(self) -> str: ...

    @property
    def tuned_kernels(self) -> dict[str, str]: ...


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

    def describe(self, computer: Computer) -> None:
        """Say what it is upscaled with."""
        self.model, self.scale = computer.graph.name, computer.graph.scale
        self.device, self.device_kind = computer.device.name, computer.device.kind
        self.precision = computer.precision

    def to_json(self) -> str:
        """One line of ASCII; what is not known is left out."""
        known = dataclasses.asdict(self).items()
        return json.dumps({key: value for key, value in known if value is not None})
