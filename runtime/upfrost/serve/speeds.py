"""How fast each model is on this device, as far as that is known."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

from upfrost.files import new_file

_WEIGHT = 0.5  # of the last job, in what is expected of the next one


class Speeds:
    """Pixels of results in a second, by model, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self.device: str | None = None
        self._rates: dict[str, float] = {}
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            told = json.loads(path.read_bytes())
            self._rates = {str(k): float(v) for k, v in told["rates"].items()}
            self.device = str(told["device"])

    def rate(self, model: str) -> float | None:
        with self._guard:
            return self._rates.get(model)

    def learn(
        self, device: str, model: str, rate: float, *, first: bool = False
    ) -> None:
        """Take note of a job's rate; `first` counts only where there is none."""
        with self._guard:
            if device != self.device:
                self.device, self._rates = device, {}
            known = self._rates.get(model)
            if known is not None:
                rate = known if first else known + _WEIGHT * (rate - known)
            self._rates[model] = rate
            told = {"device": self.device, "rates": self._rates}
            # Without it there is no estimate after a restart, and nothing else amiss.
            with suppress(OSError), new_file(self._path, overwrite=True) as file:
                file.write(json.dumps(told).encode())
