"""Which kernels are fastest on a device: measured once, kept in the cache folder.

A family's table in `families` names the candidates for each shape of convolution, the
usual choice first. `measure` times them within a network; `save` keeps the winners in
a file for each device and precision, and `tuned_family` gives the family with what is
kept. All candidates of a precision compute the same numbers, but for the rounding of
`winograd`, a candidate on Bifrost and, in single precision, on CPU devices, and of
`conv3x3_half` on GPUs in half precision: elsewhere only a result's time depends on what
is kept.
"""

from __future__ import annotations

import logging
import os
import stat
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from upfrost import __version__
from upfrost.files import new_file
from upfrost.gpu.cache import cache_folder, file_name
from upfrost.gpu.convolutions import conv_candidates, layer_key
from upfrost.gpu.device import Device, DeviceInfo, LoadedPlan
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import DISPATCH_SECONDS, Family
from upfrost.gpu.plan import Plan, Program, compile_graph, make_plan
from upfrost.network import strictjson
from upfrost.network.graph import Conv2d, Graph, alignment

HEIGHT, WIDTH = 180, 320  # pixels of the picture that is measured with
ROUNDS, MOST_SECONDS = 9, 4.0  # of a layer: at most so many rounds, or so long
# A candidate has to be this much faster than the usual choice, or chance decides.
WINS_BY = 0.03
# Of the slowest layer's measured speed: larger pictures miss caches, heat slows a chip.
SAFETY = 0.5
# MACs per second: less is no device's, and would ask for dispatches of next to nothing.
SLOWEST = 1e6
_MOST_BYTES = 1 << 20

Clock = Callable[[], float]
_log = logging.getLogger("upfrost")


class _UnusableError(Exception):
    """A file that is not used, and why."""


@dataclass(frozen=True)
class Measured:
    """Seconds of each candidate for a shape of convolution, the usual one first."""

    layer: str
    macs: int
    seconds: Mapping[str, float]

    @property
    def winner(self) -> str:
        usual = next(iter(self.seconds))
        best = min(self.seconds, key=self.seconds.__getitem__)
        worth_it = self.seconds[best] < self.seconds[usual] * (1 - WINS_BY)
        return best if worth_it else usual

    @property
    def macs_per_second(self) -> float:
        """The winner's."""
        return self.macs / self.seconds[self.winner]


@dataclass(frozen=True)
class Tuning:
    """What is kept: for which device and program, and the winners by layer."""

    upfrost: str
    device: str
    driver: str
    driver_version: str
    api_version: str  # of the driver, too: lavapipe's own number is always the same
    precision: str
    kernels: tuple[tuple[str, str, float], ...]  # layer, kernel, its MACs per second

    @property
    def macs_per_second(self) -> float:
        """MACs per second of the slowest layer."""
        return min(rate for _, _, rate in self.kernels)


def measure(
    graph: Graph,
    device: Device,
    precision: Precision,
    *,
    clock: Clock = time.perf_counter,
    progress: Callable[[str], None] = lambda _: None,
    skip: Collection[str] = (),
) -> Iterator[Measured]:
    """Time the candidates for each shape of convolution in `graph`, in turns.

    Seconds are the device's own where it has timestamps; `clock` bounds the rounds.
    A layer is measured where it stands in the network, on a picture of `WIDTH` ×
    `HEIGHT` pixels, or less where the device could not bind its buffers or a dispatch
    could take too long. It is given out once the device has proved that it still
    computes. `progress` is told the layer that comes next; layers in `skip` are left
    out. Raises what `Device.load` and `LoadedPlan.run` do.
    """
    family = device.info.family
    layers: dict[str, Conv2d] = {}
    for step in compile_graph(graph, family, precision).steps:
        node = step.node
        if isinstance(node, Conv2d) and not step.deconv4x4:
            key = layer_key(node, graph.tensors[node.weight].shape)
            if key not in skip:
                layers.setdefault(key, node)
    names = {
        key: [
            kernel.name
            for kernel in conv_candidates(
                node, graph.tensors[node.weight].shape, family, precision
            )
        ]
        for key, node in layers.items()
    }
    if not layers:
        return
    # A plan of everybody's first candidate, one of their second, and so on.
    programs = []
    for number in range(max(map(len, names.values()))):
        chosen = {key: each[min(number, len(each) - 1)] for key, each in names.items()}
        programs.append(compile_graph(graph, replace(family, tuned=chosen), precision))
    plans = [device.load(plan) for plan in _plans(programs, device.info)]
    size = plans[0].plan.height, plans[0].plan.width
    picture = np.zeros((*size, graph.channels), np.uint8)

    for plan in plans:
        plan.run(picture)  # so that pipelines and caches are warm
    for key, node in layers.items():
        dispatches = [c for c in plans[0].plan.dispatches if c.label == node.name]
        progress(key)
        times = _times(plans[: len(names[key])], node.name, clock)
        plans[0].run(picture)  # a device that was lost meanwhile took no time at all
        seconds = dict(zip(names[key], times, strict=True))
        yield Measured(key, sum(dispatch.macs for dispatch in dispatches), seconds)


def _plans(programs: Sequence[Program], info: DeviceInfo) -> list[Plan]:
    """Plans of the largest picture that suits the device, or else of the smallest."""
    multiple = alignment(programs[0].graph)
    plans: list[Plan] = []
    for divisor in (1, 2, 4, 8):
        height, width = (
            -(-extent // divisor // multiple) * multiple for extent in (HEIGHT, WIDTH)
        )
        plans = [make_plan(program, height, width) for program in programs]
        if all(
            max(plan.buffer_bytes) <= info.max_buffer_bytes
            and plan.longest_dispatch <= DISPATCH_SECONDS
            for plan in plans
        ):
            break
    return plans


def _times(plans: Sequence[LoadedPlan], label: str, clock: Clock) -> list[float]:
    """The median seconds of the dispatches of that name in each plan."""
    times: list[list[float]] = [[] for _ in plans]
    layers = [plan.layer(label) for plan in plans]
    began = clock()
    for _ in range(ROUNDS):
        for layer, seconds in zip(layers, times, strict=True):
            seconds.append(layer())
        if clock() - began > MOST_SECONDS:
            break
    return [statistics.median(each) for each in times]


def merge(
    measured: Sequence[Measured], info: DeviceInfo, precision: Precision
) -> Tuning:
    """What is to be kept: winners, and what is kept already for other layers."""
    try:
        kept = _read(info, precision)
    except _UnusableError:
        kept = None
    rows = {row[0]: row for row in kept.kernels} if kept else {}
    rows |= {m.layer: (m.layer, m.winner, m.macs_per_second) for m in measured}
    return Tuning(**_key(info, precision), kernels=tuple(sorted(rows.values())))


def save(tuning: Tuning) -> Path:
    """Keep `tuning`; the file's name. Raises `OSError`."""
    path = _path(tuning.device, tuning.precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, overwrite=True) as file:
        file.write(strictjson.canonical(asdict(tuning)) + b"\n")
    return path


def forget() -> int:
    """Remove what is kept, for all devices; how many files there were."""
    try:
        folder = _folder()
    except RuntimeError:  # a user without a home has kept nothing
        return 0
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)


def tuned_family(info: DeviceInfo, precision: Precision) -> Family:
    """The device's family, with what is kept for it.

    A file that cannot be used is no error: one line says so, and the family is as it
    is without one.
    """
    try:
        tuning = _read(info, precision)
    except _UnusableError as error:
        _log.warning(
            "what 'upfrost tune' kept in %s; it is ignored: tune again, or "
            "'upfrost tune --forget'",
            error,
        )
        return info.family
    if tuning is None:
        return info.family
    return replace(
        info.family,
        tuned={layer: kernel for layer, kernel, _ in tuning.kernels},
        # Not more than untuned: layers that were not measured may be slower.
        macs_per_second=min(
            info.family.macs_per_second, SAFETY * tuning.macs_per_second
        ),
    )


def _read(info: DeviceInfo, precision: Precision) -> Tuning | None:
    """What is kept, None if nothing is. Raises `_UnusableError`."""
    try:
        path = _path(info.name, precision)
    except RuntimeError:  # a user without a home has kept nothing
        return None
    try:
        # A pipe of that name would keep us waiting for whoever writes.
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _UnusableError("is not a regular file")
            return _parse(file.read(_MOST_BYTES + 1), info, precision)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _UnusableError(f"{path} cannot be read ({error.strerror})") from None
    except _UnusableError as error:
        raise _UnusableError(f"{path} {error}") from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _parse(data: bytes, info: DeviceInfo, precision: Precision) -> Tuning:
    """Raises `_UnusableError`, whose message goes on after the file's name."""
    if len(data) > _MOST_BYTES:
        raise _UnusableError("is too large to be one")
    try:
        value = strictjson.mapping(strictjson.parse(data), "tuning")
        tuning = Tuning(**strictjson.convert_fields(value, Tuning, "tuning"))
    except strictjson.FieldError as error:
        raise _UnusableError(f"is damaged ({error})") from None
    for name, expected in _key(info, precision).items():
        if (found := getattr(tuning, name)) != expected:
            label = name.replace("_", " ")
            raise _UnusableError(f"is of {label} {found}, this is {expected}")
    known = {kernel.name for kernel in info.family.kernels}
    if unknown := [name for _, name, _ in tuning.kernels if name not in known]:
        raise _UnusableError(f"names a kernel that is not there ({unknown[0]})")
    if not tuning.kernels:
        raise _UnusableError("is damaged (no kernels)")
    if not tuning.macs_per_second >= SLOWEST:
        raise _UnusableError(
            f"is damaged (a speed of {tuning.macs_per_second:g} products a second)"
        )
    return tuning


def _key(info: DeviceInfo, precision: Precision) -> dict[str, str]:
    """What a tuning is good for."""
    return {
        "upfrost": __version__,
        "device": info.name,
        "driver": info.driver,
        "driver_version": info.driver_version,
        "api_version": info.api_version,
        "precision": precision,
    }


def _folder() -> Path:
    return cache_folder() / "tuning"


def _path(device: str, precision: str) -> Path:
    return _folder() / f"{file_name(device)}-{precision}.json"
