"""The command `upfrost check`: its arguments, and the page that it prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from upfrost.cli import arguments

if TYPE_CHECKING:
    from upfrost.check.report import Section
    from upfrost.cli.arguments import Commands

HELP = """\
Check all that stands between you and an upscaled picture: the kernel's driver,
who may open the GPU, Vulkan, every kernel and model, time-outs, speeds."""

EPILOG = """\
examples:
  upfrost check                    of the device that upfrost would take
  upfrost check --device 1         of another one
  upfrost check --quick            a few kernels and models, some seconds

what it does:
  Each part runs in a process of its own, so that a driver that crashes or hangs
  is named and the rest goes on. Kernels are compared with NumPy, models with
  stored checksums. For each thing that is wrong the page says what to do.
  upfrost-report.json and upfrost-report.md are written, without host name, user
  name, folders or serial numbers: attach them to an issue, also when all holds.
  On a board, figures that nobody has measured yet are in them.

exit codes: 0 if all holds, 1 if something is wrong.
"""


def add_check(commands: Commands) -> None:
    """Add the command's parser."""
    parser = arguments.add_command(
        commands,
        "check",
        "find out whether this device works, and how fast",
        HELP,
        EPILOG,
    )
    arguments.add_device_argument(parser)
    parser.add_argument(
        "--quick", action="store_true", help="a few kernels and models, in seconds"
    )
    parser.add_argument(
        "-o",
        "--output",
        default=".",
        metavar="FOLDER",
        help="where the report goes (default: here)",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress on stderr"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from upfrost import __version__
    from upfrost.check import run
    from upfrost.check.report import page
    from upfrost.cli.main import missing_module
    from upfrost.files import check_folder
    from upfrost.status import Status
    from upfrost.text import printable

    status = Status(sys.stderr, quiet=options.quiet)
    check_folder(Path(options.output))  # not after minutes

    def say(section: Section) -> None:
        status.clear()
        print("\n".join(["", *page(section)]), flush=True)

    print(f"upfrost check, upfrost {__version__}", flush=True)
    try:
        report = run.check(
            run.Options(options.device, options.quick),
            missing_module,
            begin=status.begin,
            progress=lambda text: status.show(text) if status.is_due() else None,
            say=say,
        )
    finally:
        status.clear()
    print(f"\nIn all: {report.verdict}.")
    paths = run.write(report, Path(options.output))
    print(f"Written: {', '.join(printable(path) for path in paths)}")
    return 0 if report.passed else 1
