"""The command `upfrost tune`: its arguments, and the table that it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from upfrost.cli import arguments

if TYPE_CHECKING:
    from pathlib import Path

    from upfrost.cli.arguments import Commands
    from upfrost.gpu.device import DeviceInfo
    from upfrost.gpu.dispatches import Precision
    from upfrost.gpu.tuning import Measured

HELP = """\
Measure which kernels are fastest on this device, and use them from then on."""

EPILOG = """\
examples:
  upfrost tune                     for the models that come with upfrost
  upfrost tune -m mine.upf         for a network of your own, too
  upfrost tune --forget            back to the usual choice

what it does:
  Each shape of convolution in the models is computed by every kernel that can,
  in turns, and the winner is kept in ~/.cache/upfrost (XDG_CACHE_HOME moves
  it, UPFROST_CACHE names another folder), for this device, its driver's
  version, this version of upfrost and the precision, as soon as it is known:
  what ends early keeps what it has measured. Let nothing else run meanwhile.
  All kernels compute the same picture, on GPUs in half precision but for
  rounding; only the time differs.
"""


def add_tune(commands: Commands) -> None:
    """Add the command's parser."""
    parser = arguments.add_command(
        commands, "tune", "find this device's fastest kernels", HELP, EPILOG
    )
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        metavar="MODEL",
        help="a name or a .upf file, as often as you like (default: all that come "
        "with upfrost)",
    )
    arguments.add_device_choice(parser)
    parser.add_argument(
        "--forget", action="store_true", help="remove what was kept, for all devices"
    )
    arguments.add_report_arguments(parser, on_stdout="the table as one object")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from upfrost.gpu import tuning

    if options.forget:
        count = tuning.forget()
        sys.stdout.write(f"{count} removed\n" if count else "nothing was kept\n")
        return 0

    from upfrost.gpu.device import Device, DeviceLostError, choose_device
    from upfrost.gpu.halfprecision import faster_precision
    from upfrost.network.modelfile import bundled_models, find_model, read_model
    from upfrost.status import Status

    graphs = [
        read_model(find_model(name)) for name in options.model or bundled_models()
    ]
    info = choose_device(options.device)
    precision = options.precision
    if precision == "auto":
        precision = faster_precision(info)
    status = Status(sys.stderr, quiet=options.quiet)
    measured: dict[str, Measured] = {}
    path = None
    device = Device(info)
    try:
        for graph in graphs:
            status.begin(graph.name)
            for each in tuning.measure(
                graph,
                device,
                precision,
                progress=status.show,
                skip=measured,
            ):
                measured[each.layer] = each
                path = _keep(each, info, precision)
    except DeviceLostError as error:
        kept = "what was measured before is kept" if path else "nothing is kept"
        raise DeviceLostError(
            f"{info.name} was lost while a layer was measured; {kept}"
        ) from error
    finally:
        status.clear()
        device.close()
    rows = list(measured.values())
    if options.json:
        said = {
            "device": info.name,
            "driver_version": info.driver_version,
            "precision": precision,
            "clock": "host" if info.ticks is None else "device",
            "file": None if path is None else str(path),
            "layers": [vars(each) | {"winner": each.winner} for each in rows],
        }
        sys.stdout.write(json.dumps(said, ensure_ascii=False, indent=2) + "\n")
        return 0
    size = f"at most {tuning.WIDTH}×{tuning.HEIGHT} pixels"
    by = "wall time" if info.ticks is None else "device time"
    _print_table(f"{info.name}, {precision}, {size}, {by}", rows)
    if path is not None:
        sys.stdout.write(f"Kept in {path}\n")
    return 0


def _keep(measured: Measured, info: DeviceInfo, precision: Precision) -> Path:
    from upfrost.errors import UsageError
    from upfrost.gpu import tuning

    try:
        return tuning.save(tuning.merge([measured], info, precision))
    except (OSError, RuntimeError) as error:  # no home is a RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the cache folder cannot be written ({reason}); "
            "UPFROST_CACHE names another one"
        ) from error


def _print_table(title: str, rows: Sequence[Measured]) -> None:
    from upfrost.text import printable

    lines = [printable(title), f"  {'layer':24} {'kernel':20} {'ms':>8} {'GMAC/s':>8}"]
    for row in rows:
        layer = row.layer
        for kernel, seconds in row.seconds.items():
            mark = "*" if kernel == row.winner else " "
            speed = row.macs / seconds / 1e9
            lines.append(
                f"{mark} {layer:24} {kernel:20} {1e3 * seconds:8.2f} {speed:8.2f}"
            )
            layer = ""
    lines.append("* is used from now on.")
    sys.stdout.write("\n".join(lines) + "\n")
