"""Which live model keeps up with a stream: the candidates, and when to change.

Nothing here takes time or knows of devices: `Pace` is told how long frames took.
"""

from __future__ import annotations

import re
import statistics
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from upfrost.errors import UsageError
from upfrost.gpu.frame import Samples
from upfrost.network.graph import macs_per_output_pixel
from upfrost.network.modelfile import bundled_models, read_model

# Shares of the time from one frame to the next. What decodes and shows frames may work
# on the same processor, or wait for the same device.
FITS = 0.75  # that a model may take where it is chosen
ROOM = 0.6  # that a larger one may be expected to take before it is tried
LEAST = 0.1  # that is worth saving where frames are late
WINDOW = 12  # frames, the median of whose times counts
# Seconds of the stream.
LATEST = 1.0  # that a smaller model waits for a cut
PATIENCE, MOST_PATIENCE = 5.0, 320.0  # of room, before a larger model is wanted
# Of the samples' range, on average: a larger difference is a cut.
CUT = 0.1
_GRID = 8  # columns and rows from one sample to the next that is looked at


def live_models(scale: int) -> dict[str, Path]:
    """The bundled live models of a factor, by name, the least work first.

    Where a model and its ``-clean`` sibling are there, the former alone: it has seen
    what encoders leave. Raises `UsageError` when there is none.
    """
    models = bundled_models()
    found = {
        name: path
        for name, path in models.items()
        if name.startswith(f"live-x{scale}-")
        and not (name.endswith("-clean") and name.removesuffix("-clean") in models)
    }
    if not found:
        factors = {
            f"×{match[1]}"
            for name in models
            if (match := re.match(r"live-x(\d+)-", name))
        }
        raise UsageError(
            f"no live model enlarges ×{scale}; there are such for "
            f"{', '.join(sorted(factors)) or 'no factor'}"
        )
    work = {
        name: macs_per_output_pixel(read_model(path)) for name, path in found.items()
    }
    return {name: found[name] for name in sorted(found, key=work.__getitem__)}


class Pace:
    """Which of several models, the quickest first, suits a stream at the moment.

    `seconds` is what a frame takes by each of them, measured or estimated, `budget` the
    seconds from one frame to the next. Frames are counted as they are done; `wanted`
    differs from `current` while another model would be better. The change is for the
    caller to prepare and to make, when it `may_change`: at a cut, where nobody sees it.
    A smaller model waits for one no longer than `LATEST`, since stuttering is seen,
    too; a larger one does.

    A larger model is wanted after `PATIENCE`, and after twice as long each time that
    one could not be kept.
    """

    # Of the current model.
    _recent: deque[float]
    _late: int  # frames in a row
    _last_late: float  # seconds, as are the next two
    _room: float
    _waited: float

    def __init__(self, seconds: Sequence[float], budget: float) -> None:
        self.budget = budget
        self._seconds = tuple(seconds)
        self._patience = PATIENCE
        self._came_up = False  # whether the current model took a smaller one's place
        self.current = self.wanted = self._largest(self._seconds)
        self._begin()

    @property
    def typical(self) -> float:
        """Seconds that a frame takes by the current model."""
        if len(self._recent) < WINDOW:
            return self._seconds[self.current]
        return statistics.median(self._recent)

    def frame(self, seconds: float, late: float = 0.0) -> None:
        """Count a frame: the seconds that it took, and by how many it was late."""
        self._recent.append(seconds)
        # A frame that is less late than the one before is on its way to be in time.
        behind = late > self.budget and late >= self._last_late
        self._late = self._late + 1 if behind else 0
        self._last_late = late
        if len(self._recent) < WINDOW:
            return
        # What slows one model, such as heat or other work, slows all alike.
        slower = self.typical / self._seconds[self.current]
        expected = [slower * each for each in self._seconds]
        if self._is_behind():
            smaller = max(self.current - 1, 0)
            self.wanted = min(self._largest(expected[: self.current]), smaller)
            self._room = 0.0
        elif self.wanted < self.current:
            # It was a hiccup if a model would be chosen that takes as long as this one.
            if self._late == 0 and self.typical <= FITS * self.budget:
                self.wanted = self.current
        elif self._late == 0 and self._has_room(expected):
            self._room += self.budget
            if self._room >= self._patience:
                self.wanted = self.current + 1
        else:
            self._room = 0.0
            self.wanted = self.current
        waits = self.wanted != self.current
        self._waited = self._waited + self.budget if waits else 0.0

    def may_change(self, *, cut: bool) -> bool:
        """Whether the next frame may be the wanted model's.

        `cut` says that it is the first one of a scene.
        """
        if self.wanted == self.current:
            return False
        return cut or (self.wanted < self.current and self._waited >= LATEST)

    def change(self) -> None:
        """Let the wanted model be the current one."""
        up = self.wanted > self.current
        if self._came_up and not up:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self._came_up = up
        self.current = self.wanted
        self._begin()

    def _begin(self) -> None:
        self._recent = deque(maxlen=WINDOW)
        self._late = 0
        self._last_late = 0.0
        self._room = self._waited = 0.0

    def _largest(self, seconds: Sequence[float]) -> int:
        """The largest that fits; the smallest where none does."""
        most = FITS * self.budget
        fitting = [number for number, each in enumerate(seconds) if each <= most]
        return max(fitting, default=0)

    def _is_behind(self) -> bool:
        share = self.typical / self.budget
        return share > 1 or (self._late >= WINDOW and share >= LEAST)

    def _has_room(self, expected: Sequence[float]) -> bool:
        larger = self.current + 1
        return larger < len(expected) and expected[larger] <= ROOM * self.budget


class Cuts:
    """Finds the first frames of scenes.

    By the measure of ffmpeg's filter `scdet`: the mean absolute difference of a frame
    from the one before, or by how much that has changed, whichever is less, is more
    than `CUT` of the samples' range. A sample of each 8×8 is looked at.
    """

    def __init__(self) -> None:
        self._samples: npt.NDArray[np.float32] | None = None
        self._difference: float | None = None

    def __call__(self, plane: Samples, full_scale: float) -> bool:
        """Whether a scene begins with a frame, by its luma or RGB (H, W, …)."""
        samples = plane[::_GRID, ::_GRID].astype(np.float32) / full_scale
        before, self._samples = self._samples, samples
        if before is None or before.shape != samples.shape:
            return False
        difference = float(np.abs(samples - before).mean())
        last, self._difference = self._difference, difference
        return last is not None and min(difference, abs(difference - last)) > CUT
