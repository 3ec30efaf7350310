"""The command `upfrost-train`."""

import argparse
import sys
from pathlib import Path

from upfrost_training.config import ConfigError, read_config
from upfrost_training.data import DataError
from upfrost_training.loop import train
from upfrost_training.release import release


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
            "--data", type=Path, default=Path("data"), help="folder of picture folders"
        )
        command.add_argument(
            "--run", type=Path, help="folder of checkpoints (default: runs/NAME)"
        )
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        config = read_config(options.config)
        folder = options.run or Path("runs") / config.name
        if options.command == "train":
            train(config, options.data, folder, _say)
        else:
            release(config, folder, options.data, options.output, _say, options.measure)
    except (ConfigError, DataError, ValueError, FloatingPointError) as error:
        print(f"upfrost-train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("upfrost-train: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
