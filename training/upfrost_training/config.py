"""Settings of a training run, read from one TOML file per released model."""

import math
import tomllib
from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from upfrost.errors import UpfrostError
from upfrost.network.graph import GraphError, check_name
from upfrost_training.data import BICUBIC
from upfrost_training.degradations import Degradation, check_degradations
from upfrost_training.losses import LOSSES
from upfrost_training.networks import NETWORKS, make_network

OPTIMIZERS = ("adam", "soap")

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class ConfigError(UpfrostError, ValueError):
    """A configuration file that cannot be used, with what to change."""


def _check_range(settings: object, least: float, most: float, *names: str) -> None:
    """Raise ValueError for the first of the settings that is out of the range."""
    for name in names:
        found = getattr(settings, name)
        # Written so that NaN is refused too.
        if not least <= found <= most or found == math.inf:
            limit = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise ValueError(f"{name} must be {limit}, not {found}")


def _check_positive(settings: object, *names: str) -> None:
    """Raise ValueError for the first of the settings that is not above 0."""
    for name in names:
        found = getattr(settings, name)
        if not 0 < found < math.inf:
            raise ValueError(f"{name} must be above 0, not {found}")


def _check_choice(settings: object, known: Collection[str], *names: str) -> None:
    """Raise ValueError for the first of the settings that is none of those known."""
    for name in names:
        found = getattr(settings, name)
        if found not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {found!r}")


@dataclass(frozen=True)
class DataSettings:
    """Which pictures are trained on."""

    # Folders of HR pictures; relative ones are looked up under --data.
    folders: tuple[str, ...] = ()
    # Folders of drawings, paintings and screens, and the share of crops out of them.
    # Hard edges and text are learned from few of them; many cost photographs quality.
    drawings: tuple[str, ...] = ()
    drawings_share: float = 0.1
    # Video files, of each of which `runs` runs of `run_length` frames are taken; codecs
    # among the degradations compress a run as a whole.
    videos: tuple[str, ...] = ()
    runs: int = 60
    run_length: int = 6
    # Videos are scaled down by this first, which removes their own compression.
    shrink_videos: int = 2
    # Side of an LR crop. Should exceed the receptive field (2 x layers + 1), so that
    # most output pixels are trained with all of their context.
    patch: int = 64
    # Crops of mean |Laplacian| (8-bit units) below this teach nothing: sky, blur.
    sharpness: float = 4.0
    # One picture of this many is validated on and never trained on.
    holdout_every: int = 12
    # Times that each picture is degraded, where something is left to chance.
    variants: int = 1
    # Share of pictures that are blurred before all else and learned as that. Those to
    # train on are scaled until they are sharp; who saw no other gives texture to what
    # is soft, as skin and all that is out of focus.
    softened: float = 0.0
    # A model of the same scale, by the name of a bundled one or by its file, whose
    # results have this share of what is learned, the originals the rest.
    teacher: str = ""
    teacher_share: float = 0.5

    def __post_init__(self) -> None:
        counts = ("runs", "run_length", "shrink_videos", "patch", "variants")
        _check_range(self, 1, math.inf, *counts)
        _check_range(self, 0, 1, "teacher_share", "softened", "drawings_share")
        # Of every piece there would be none to train on.
        _check_range(self, 2, math.inf, "holdout_every")


@dataclass(frozen=True)
class TrainSettings:
    """How long and how the network is trained."""

    steps: int = 50_000
    batch: int = 16
    # "adam", or "soap" (Vyas et al. 2024, arXiv:2409.11321): Adam in the eigenbasis of
    # Shampoo's preconditioner, which gets where Adam gets in a quarter of the steps.
    optimizer: str = "adam"
    # Peak rate. Folded branches stand a higher one than a bare convolution does.
    lr: float = 2e-3
    # Cosine from lr to lr * lr_floor over all steps.
    lr_floor: float = 0.005
    warmup: int = 500
    # Gradient norm: only the first steps and rare crops exceed it.
    clip: float = 1.0
    ema: float = 0.999
    loss: str = "l1"
    # Weight of each chroma plane against luma's 1: the eye sees luma's errors first.
    chroma: float = 0.1
    # The last share of the steps uses this loss. Squared error is what PSNR measures,
    # but from the start it trains worse than L1.
    finish_share: float = 0.2
    finish_loss: str = "rmse"
    # bfloat16 activations: twice the speed where the CPU has it. The rounding costs
    # the trained network 0.002 dB, and nothing where it is then run in fp32.
    bf16: bool = True
    # torch.compile fuses PReLU's gradient; needs a C++ compiler.
    compile: bool = True
    # Gradients by native.cpp, in fp32, instead of torch: for plain luma networks. Needs
    # a C++ compiler.
    native: bool = False
    seed: int = 1
    threads: int = 1
    # Steps between checkpoints, and between validations.
    save_every: int = 500
    validate_every: int = 1000
    # Start from the weights of the run of this name beside this run's folder, or of the
    # released model of this name: of those whose shape fits, so a network of another
    # scale will do.
    start_from: str = ""

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "threads", "save_every", "validate_every")
        _check_range(self, 1, math.inf, *counts)
        _check_range(self, 0, math.inf, "warmup", "seed", "chroma")
        _check_range(self, 0, 1, "lr_floor", "ema", "finish_share")
        _check_positive(self, "lr", "clip")
        _check_choice(self, OPTIMIZERS, "optimizer")
        _check_choice(self, LOSSES, "loss", "finish_loss")


# Distributions of patches are compared in squares of so many pixels, so that texture
# stays about where it belongs. A multiple of every scale.
AREA = 24


@dataclass(frozen=True)
class AdversarySettings:
    """Weights of the second stage's losses; the pixel loss has weight 1."""

    # No adversary at 0. More invents more texture, and costs more PSNR.
    weight: float = 0.0
    features: float = 0.05
    # Of the distance between the distributions of patches: how much fine detail there
    # is, whatever its place.
    patches: float = 0.0
    # Of how unevenly detail lies in the grid of the small picture's pixels.
    grid: float = 0.0
    # Of detail where the original is flat: dots beside a hard edge.
    flat: float = 0.0
    # Channels of the discriminator's first layer.
    channels: int = 32
    # Peak rate, which rises and falls as the network's own does.
    lr: float = 1e-4

    def __post_init__(self) -> None:
        weights = ("weight", "features", "patches", "grid", "flat")
        _check_range(self, 0, math.inf, *weights)
        _check_range(self, 1, math.inf, "channels")
        _check_positive(self, "lr")


@dataclass(frozen=True)
class Config:
    """One training run."""

    name: str
    kind: str
    network: dict[str, Any]
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    adversary: AdversarySettings = field(default_factory=AdversarySettings)
    # How LR pictures are made; see `degradations`.
    degrade: tuple[Degradation, ...] = BICUBIC
    # Folders of HR/LR pairs whose figures are logged, never used to choose weights;
    # relative ones are looked up under --data, and skipped with a note when missing.
    report: tuple[str, ...] = ()
    # Said in the weight file: what it is for, and what it was trained on.
    description: str = ""
    licence: str = "MIT"
    training_data: tuple[str, ...] = ()
    attribution: str = ""

    @property
    def scale(self) -> int:
        """Of the network."""
        return int(self.network.get("scale", 2))

    @property
    def colour(self) -> str:
        """Of the network: "rgb", or "luma" where it sees Y alone."""
        return str(self.network.get("colour", "rgb"))


def _typed(value: Any, default: Any, where: str) -> Any:
    """A setting's value as the type of its default; without one it is a string."""
    if isinstance(default, tuple):
        return _numbers(value, len(default), where) if default else _texts(value, where)
    expected = str if default is MISSING else type(default)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ConfigError(f"{where} must be {expected.__name__}, not {value!r}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or any(type(each) is not str for each in value):
        raise ConfigError(f"{where} must be a list of strings, not {value!r}")
    return tuple(value)


def _numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or any(type(each) not in (int, float) for each in value)
    ):
        raise ConfigError(f"{where} must be a list of {count} numbers, not {value!r}")
    return tuple(map(float, value))


def _section(cls: type[T], table: dict[str, Any], where: str) -> T:
    known = {f.name: f.default for f in fields(cls)}
    for key in table:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown setting {key!r}; known: {', '.join(known)}"
            )
    for key, default in known.items():
        if default is MISSING and key not in table:
            raise ConfigError(f"{where}: {key} is missing; it must be a string")
    values = {
        key: _typed(value, known[key], f"{where}: {key}")
        for key, value in table.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _degradations(entries: list[dict[str, Any]], where: str) -> tuple[Degradation, ...]:
    steps = tuple(_section(Degradation, entry, where) for entry in entries)
    try:
        check_degradations(steps)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return steps


def _check_network(kind: str, table: dict[str, Any], path: Path) -> None:
    """Raise ConfigError for a network that cannot be made."""
    if kind in NETWORKS:
        _section(NETWORKS[kind][0], table, f"{path} [network]")
    try:
        # Its weights take no memory, and draw no random numbers.
        with torch.device("meta"):
            make_network(kind, table)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_config(path: Path) -> Config:
    """Read and check a configuration file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    top = {f.name: f for f in fields(Config)}
    for key in ("name", "kind"):
        if key not in table:
            raise ConfigError(f"{path}: {key} is missing; it must be a string")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "network" and isinstance(value, dict):
            values[key] = value
        elif key == "data" and isinstance(value, dict):
            values[key] = _section(DataSettings, value, f"{path} [data]")
        elif key == "train" and isinstance(value, dict):
            values[key] = _section(TrainSettings, value, f"{path} [train]")
        elif key == "adversary" and isinstance(value, dict):
            values[key] = _section(AdversarySettings, value, f"{path} [adversary]")
        elif key == "degrade" and _is_tables(value):
            values[key] = _degradations(value, f"{path} [[degrade]]")
        elif key in ("report", "training_data"):
            values[key] = _texts(value, f"{path}: {key}")
        elif key not in top:
            raise ConfigError(
                f"{path}: unknown setting {key!r}; known: {', '.join(top)}"
            )
        elif isinstance(value, str) and top[key].type in (str, "str"):
            values[key] = value
        else:
            raise ConfigError(f"{path}: {key} cannot be {value!r}")
    config = Config(network=values.pop("network", {}), **values)
    try:
        # Of the weight file, too, which is written when all is trained.
        check_name("the run's", config.name)
    except GraphError as error:
        raise ConfigError(f"{path}: {error}") from error
    _check_network(config.kind, config.network, path)
    side = config.scale * config.data.patch
    if config.adversary.weight > 0.0 and (side % 8 or config.colour != "rgb"):
        raise ConfigError(
            f"{path} [adversary]: it judges RGB of whole blocks of 8x8 pixels, not "
            f"{config.colour} of {side}x{side}: scale times patch must be a multiple "
            "of 8"
        )
    judges_patches = config.adversary.weight > 0.0 and config.adversary.patches > 0.0
    if judges_patches and side < AREA:
        raise ConfigError(
            f"{path} [adversary]: patches are compared in squares of {AREA} pixels, "
            f"and crops have {side}: make patch larger, or patches 0"
        )
    return config
