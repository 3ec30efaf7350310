"""The command `upfrost-train`."""

import argparse
import sys
from pathlib import Path

from upfrost_training.config import ConfigError, read_config
from upfrost_training.data import DataError
from upfrost_training.loop import train
from upfrost_training.release import release
from upfrost_training.sources import DEBIAN_SOURCES, prepare


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="upfrost-train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "train", help="train a network, or go on where a run was stopped"
    )
    run.add_argument("config", type=Path, help="TOML file, see training/configs/")
    out = commands.add_parser(
        "export", help="write a run's weights as a .upf file, with measured quality"
    )
    out.add_argument("config", type=Path, help="the run's TOML file")
    out.add_argument("-o", "--output", type=Path, required=True, help=".upf file")
    out.add_argument(
        "--measure",
        choices=("vulkan", "torch"),
        default="vulkan",
        help="what upscales for the measured quality (default: vulkan)",
    )
    for command in (run, out):
        command.add_argument(
            "--data",
            type=Path,
            action="append",
            metavar="FOLDER",
            help="where the configured folders lie; may be given again (default: data)",
        )
        command.add_argument(
            "--run", type=Path, help="folder of checkpoints (default: runs/NAME)"
        )
    data = commands.add_parser(
        "data",
        help="prepare freely licensed photographs and their attribution",
        description="Prepare freely licensed photographs from Debian packages: "
        + ", ".join(source.package for source in DEBIAN_SOURCES)
        + ". Get them with `apt-get download`; nothing is installed.",
    )
    data.add_argument("output", type=Path, help="folder for the pictures")
    data.add_argument(
        "packages", type=Path, nargs="*", metavar="PACKAGE.deb", help="to unpack"
    )
    data.add_argument(
        "--listed",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="pictures to attribute that stay where they are, listed in a README",
    )
    data.add_argument(
        "--leave-out",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="evaluation pictures, which must never be trained on",
    )
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "data":
            prepare(
                options.packages,
                options.listed,
                options.leave_out,
                options.output,
                _say,
            )
            return 0
        config = read_config(options.config)
        folder = options.run or Path("runs") / config.name
        roots = options.data or [Path("data")]
        if options.command == "train":
            train(config, roots, folder, _say)
        else:
            release(config, folder, roots, options.output, _say, options.measure)
    except (ConfigError, DataError, ValueError, FloatingPointError) as error:
        print(f"upfrost-train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("upfrost-train: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
