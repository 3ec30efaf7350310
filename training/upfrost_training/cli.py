"""The command `upfrost-train`, whose `train` is `upfrost train` as well."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upfrost.files import check_file
from upfrost.text import printable
from upfrost_training.sources import DEBIAN_SOURCES, prepare

# What needs PyTorch is imported when it is used, so that help does not need it.
if TYPE_CHECKING:
    from upfrost_training.config import Config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="upfrost-train",
        description="Train networks for upfrost, and release them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_train(commands)
    _add_export(commands)
    _add_blend(commands)
    _add_pairs(commands)
    _add_data(commands)
    return parser


def add_train(commands: Any) -> None:
    """Add `train` to what `ArgumentParser.add_subparsers` returned."""
    parser = commands.add_parser(
        "train",
        help="train a network, or go on where a run was stopped",
        description="Train a network as a TOML file says, or go on where the run was "
        "stopped: the same command does both.",
    )
    parser.add_argument("config", type=Path, help="TOML file, see training/configs/")
    _add_places(parser)
    parser.set_defaults(run=_reporting(_train))


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write a run's weights as a .upf file, with measured quality",
        description="Write the averaged weights of a run's last checkpoint as a .upf "
        "file, with the quality measured on the configuration's report folders.",
    )
    parser.add_argument("config", type=Path, help="the run's TOML file")
    _add_output(parser)
    parser.add_argument(
        "--measure",
        choices=("vulkan", "torch"),
        default="vulkan",
        help="what upscales for the measured quality (default: vulkan)",
    )
    _add_places(parser)
    parser.set_defaults(run=_reporting(_export))


def _add_blend(commands: Any) -> None:
    parser = commands.add_parser(
        "blend",
        help="write a network between two: a second stage at a strength of choice",
        description="Interpolate the weights of a network and of one that was trained "
        "on from it, such as cascade-x4 and cascade-x4-gan.",
    )
    parser.add_argument("first", metavar="MODEL", help="bundled, or a .upf file")
    parser.add_argument("second", metavar="MODEL", help="the one trained on from it")
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        metavar="S",
        help="of the second: 0 is the first, 1 the second (default: %(default)s)",
    )
    parser.add_argument(
        "--onto",
        metavar="MODEL",
        help="add what leads from the first to the second to this one, which was "
        "trained on from the first, too",
    )
    _add_output(parser)
    parser.set_defaults(run=_reporting(_blend))


def _add_pairs(commands: Any) -> None:
    parser = commands.add_parser(
        "pairs",
        help="make pairs of pictures to measure models on",
        description="Write 001_HR.png, 001_LR.png, ... of the pictures of a folder: "
        "cut to multiples of the scale, and made small by MATLAB's bicubic.",
    )
    parser.add_argument(
        "pictures", type=Path, help="folder of pictures, or of *_HR.png"
    )
    parser.add_argument("output", type=Path, help="folder for the pairs")
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), required=True)
    parser.set_defaults(run=_reporting(_pairs))


def _add_data(commands: Any) -> None:
    parser = commands.add_parser(
        "data",
        help="prepare freely licensed pictures and their attribution",
        description="Prepare freely licensed pictures from Debian packages: "
        + ", ".join(source.package for source in DEBIAN_SOURCES)
        + ". Get them with `apt-get download`; nothing is installed.",
    )
    parser.add_argument("output", type=Path, help="folder for the pictures")
    parser.add_argument(
        "packages",
        type=Path,
        nargs="*",
        metavar="PACKAGE.deb",
        help="to unpack; the file's name says which package it is",
    )
    parser.add_argument(
        "--listed",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="pictures to attribute that stay where they are, listed in a README or "
        "prepared by this command before",
    )
    parser.add_argument(
        "--leave-out",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="evaluation pictures, which must never be trained on",
    )
    parser.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="TEXT",
        help="attribution of a video that is trained on: its name, author and licence",
    )
    parser.set_defaults(run=_reporting(_prepare))


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help=".upf file")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that exists"
    )


def _output(options: argparse.Namespace, *read: Path) -> Path:
    output: Path = options.output
    check_file(output, overwrite=options.overwrite, read=read)
    if output.suffix != ".upf":
        raise ValueError(f"{printable(output)}: a weight file's name ends in .upf")
    return output


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="where the configured folders lie; may be given again (default: data)",
    )
    parser.add_argument(
        "--run",
        dest="checkpoints",
        type=Path,
        metavar="FOLDER",
        help="of checkpoints (default: runs/NAME)",
    )


def _places(options: argparse.Namespace) -> "tuple[Config, Path, list[Path]]":
    """The run's configuration, its folder, and where its data lie."""
    from upfrost_training.config import read_config

    config = read_config(options.config)
    folder = options.checkpoints or Path("runs") / config.name
    return config, folder, options.data or [Path("data")]


def _train(options: argparse.Namespace) -> None:
    from upfrost_training.config import ConfigError
    from upfrost_training.loop import train

    config, folder, roots = _places(options)
    try:
        train(config, roots, folder, _say)
    except ConfigError as error:
        raise ConfigError(f"{options.config}: {error}") from error


def _export(options: argparse.Namespace) -> None:
    from upfrost_training.loop import CHECKPOINT
    from upfrost_training.release import release

    config, folder, roots = _places(options)
    output = _output(options, options.config, folder / CHECKPOINT)
    release(
        config,
        folder,
        roots,
        output,
        _say,
        options.measure,
        overwrite=options.overwrite,
    )


def _blend(options: argparse.Namespace) -> None:
    from upfrost.network.modelfile import find_model
    from upfrost_training.blend import write_blend

    ends = options.first, options.second
    read = [*ends] if options.onto is None else [*ends, options.onto]
    output = _output(options, *map(find_model, read))
    write_blend(*ends, options.share, output, options.onto)
    _say(f"wrote {options.output}")


def _pairs(options: argparse.Namespace) -> None:
    from upfrost_training.evaluate import write_pairs

    count = write_pairs(options.pictures, options.output, options.scale)
    _say(f"wrote {count} pairs to {options.output}")


def _prepare(options: argparse.Namespace) -> None:
    prepare(
        options.packages,
        options.listed,
        options.leave_out,
        options.output,
        _say,
        options.video,
    )


def _reporting(
    action: Callable[[argparse.Namespace], None],
) -> Callable[[argparse.Namespace], int]:
    """`action` with its errors as one line each; the result is the exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            action(options)
        except (ValueError, FloatingPointError) as error:
            print(f"upfrost-train: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            where = f"{printable(error.filename)}: " if error.filename else ""
            print(f"upfrost-train: {where}{error.strerror}", file=sys.stderr)
            return 1
        except ModuleNotFoundError as error:
            advice = ".venv/bin/pip install -e '.[training]' installs what is needed"
            print(f"upfrost-train: {error}; {advice}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("upfrost-train: stopped; the same command goes on", file=sys.stderr)
            return 130
        return 0

    return run


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    options = _parser().parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
