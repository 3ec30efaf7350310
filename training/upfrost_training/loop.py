"""The training loop: seeded, resumable after a kill at any moment, logged."""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upfrost.errors import UpfrostError
from upfrost.files import check_folder, new_file
from upfrost.network.modelfile import ModelFileError, find_model, read_model
from upfrost.text import printable
from upfrost_training.adversary import Adversary
from upfrost_training.clips import read_runs
from upfrost_training.config import Config, ConfigError, DataSettings, TrainSettings
from upfrost_training.data import (
    VALIDATED,
    Crop,
    DataError,
    Pairs,
    find_folder,
    listed_pictures,
    load_pairs,
    photographs,
    sample,
    validation_crops,
    with_drawings,
)
from upfrost_training.degradations import Frames
from upfrost_training.evaluate import check_pairs, evaluate_folder, y_psnr
from upfrost_training.losses import RGB_TO_YCC, pixel_loss
from upfrost_training.native import NativeGradients, unsuitable
from upfrost_training.networks import Network, make_network
from upfrost_training.networks.folding import BranchedConv3x3
from upfrost_training.networks.plain import Plain
from upfrost_training.plot import draw_log
from upfrost_training.resize import Picture

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
PLOT = "log.svg"
ANSWERS = "answers"

# uint8 (B, H, W, C)
Pictures = NDArray[np.uint8]
# LR and HR pictures and the kind of loss → the loss; sets every parameter's gradient.
Gradients = Callable[[Pictures, Pictures, str], float]


class RunError(UpfrostError, ValueError):
    """A run's folder that cannot be used, with what to do."""


@dataclass
class State:
    """What a checkpoint holds: all that the next step depends on."""

    step: int
    model: Network
    ema: Network
    optimizer: torch.optim.Optimizer
    seconds: float
    adversary: Adversary | None = None


def learning_rate(step: int, s: TrainSettings) -> float:
    """Linear warm-up, then a cosine from `lr` down to `lr * lr_floor`."""
    if step < s.warmup:
        return s.lr * (step + 1) / s.warmup
    done = (step - s.warmup) / max(1, s.steps - s.warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return s.lr * (s.lr_floor + (1.0 - s.lr_floor) * cosine)


def finish_step(s: TrainSettings) -> int:
    """The first step of the finish: it has its own loss."""
    return s.steps - round(s.steps * s.finish_share)


def to_tensor(pictures: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, H, W, C) uint8 → (B, C, H, W) in [0, 1], channels last in memory."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255.0


def to_picture(tensor: Tensor) -> Picture:
    """(1, C, H, W) in [0, 1] → uint8 (H, W, C)."""
    rounded = (tensor[0].clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    picture: Picture = rounded.permute(1, 2, 0).contiguous().cpu().numpy()
    return picture


def upscaler(network: nn.Module, device: torch.device) -> Callable[[Picture], Picture]:
    """A folded network as a function of uint8 pictures, in fp32."""
    network = network.to(device).eval()

    def upscale(picture: Picture) -> Picture:
        with torch.no_grad():
            return to_picture(network(to_tensor(picture[None], device)))

    return upscale


def torch_gradients(state: State, s: TrainSettings, device: torch.device) -> Gradients:
    """Gradients by torch, for any network."""
    model = state.model
    forward = torch.compile(model) if s.compile else model

    def gradients(low: Pictures, high: Pictures, kind: str) -> float:
        lr, hr = (to_tensor(pictures, device) for pictures in (low, high))
        with torch.autocast(device.type, torch.bfloat16, enabled=s.bf16):
            output = forward(lr)
        loss = pixel_loss(output, hr, kind, s.chroma)
        if state.adversary is not None:
            with torch.autocast(device.type, torch.bfloat16, enabled=s.bf16):
                state.adversary.step(output, hr)
                loss = loss + state.adversary.loss(output, hr)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return gradients


def native_gradients(state: State, s: TrainSettings, patch: int) -> Gradients:
    """Gradients by native.cpp. Raises ConfigError where it has none for the network."""
    model = state.model
    why = unsuitable(model, patch, (s.loss, s.finish_loss))
    if state.adversary is not None:
        why = "there is an adversary"
    if why or not isinstance(model, Plain):
        raise ConfigError(f"native = true cannot be: {why}; set native = false")
    native = NativeGradients(model, s.threads)

    def gradients(low: Pictures, high: Pictures, kind: str) -> float:
        state.optimizer.zero_grad(set_to_none=True)
        return native.backward(low, high, kind)

    return gradients


def train_step(
    state: State,
    gradients: Gradients,
    batch: tuple[Pictures, Pictures],
    s: TrainSettings,
) -> float:
    """One step of the optimizer and of the EMA. Returns the loss."""
    finish = state.step >= finish_step(s)
    rate = learning_rate(state.step, s)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    if state.adversary is not None:
        state.adversary.slow_down(rate / s.lr)
    loss = gradients(*batch, s.finish_loss if finish else s.loss)
    nn.utils.clip_grad_norm_(state.model.parameters(), s.clip)
    state.optimizer.step()
    state.step += 1
    # Early on the average follows quickly, so that a young checkpoint is usable too.
    decay = min(s.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        ema: list[Tensor] = list(state.ema.parameters())
        now: list[Tensor] = list(state.model.parameters())
        torch._foreach_lerp_(ema, now, 1.0 - decay)
    return loss


def write_atomically(path: Path, content: Any) -> None:
    """`torch.save` under a temporary name, then rename: a kill leaves the old file."""
    # torch.save makes a RuntimeError of its own of a disk that is full.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with new_file(path, overwrite=True) as file:
        file.write(buffer.getbuffer())


def save(state: State, config: Config, folder: Path) -> None:
    """Write the checkpoint."""
    content = {
        "step": state.step,
        "seconds": state.seconds,
        "config": asdict(config),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    if state.adversary is not None:
        content["adversary"] = state.adversary.state_dict()
    write_atomically(folder / CHECKPOINT, content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content; nothing but tensors and plain data is unpickled."""
    if not path.exists():
        raise RunError(
            f"{path}: there is no such run: train it, or say with --run where it is"
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    # torch raises whatever a damaged or unsafe file leads to.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        # torch's own advice is to run what such a file holds.
        if "weights_only" in str(error):
            reason = "it holds more than tensors and plain data, and none of it was run"
        raise RunError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict) or not content.keys() >= {"config", "ema"}:
        raise RunError(f"{path}: holds no training run; remove it, or name another")
    return content


def averaged_network(checkpoint: Mapping[str, Any]) -> Network:
    """The training form of a checkpoint's network, with its EMA weights."""
    config = checkpoint["config"]
    network = make_network(config["kind"], config["network"])
    network.load_state_dict(checkpoint["ema"])
    return network


def folded_network(folder: Path) -> nn.Module:
    """The inference form of a run's EMA weights."""
    folded: nn.Module = averaged_network(load_checkpoint(folder / CHECKPOINT)).folded()
    return folded


def take_weights(model: nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy the weights whose name and shape fit; returns how many did.

    A network of another scale differs in its last layer alone, so it may start from
    this one's weights.
    """
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    model.load_state_dict({**own, **fitting})
    return len(fitting)


def _of_grey(weight: Tensor, shape: torch.Size) -> Tensor:
    """The weight, of `shape`, that does to luma what an RGB network's does to grey.

    Of a first layer (N, 3, 3, 3) the sum over inputs, which are all luma; of a last
    layer's 3 s² outputs (pixel_shuffle's order: the colour varies slowest) their luma.
    All others as they are.
    """
    if weight.dim() == 4 and weight.shape[1] == 3 and shape[1] == 1:
        weight = weight.sum(dim=1, keepdim=True)
    if weight.shape[0] == 3 * shape[0]:
        colours = weight.reshape(3, shape[0], *weight.shape[1:])
        weight = torch.einsum("c,c...->...", torch.tensor(RGB_TO_YCC[0]), colours)
    return weight


def take_folded_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Copy the weights that fit of an inference form; returns how many did.

    Its convolutions are folded: the difference to what the model's own branches sum up
    to is added to the 3x3 branch, so that the sum is the folded kernel. To a luma
    network, one of RGB gives what it does to grey; to a deeper network, a shallower
    one what it computes.
    """
    if isinstance(model, Network):
        weights = model.deepened(weights)
    fitting = 0
    with torch.no_grad():
        for key, folded in weights.items():
            owner, _, attribute = key.rpartition(".")
            try:
                module = model.get_submodule(owner)
            except AttributeError:
                continue
            if isinstance(module, BranchedConv3x3) and attribute == "weight":
                own: Tensor = module.direct
                now = module.kernel()
            else:
                own = now = getattr(module, attribute)
            value = _of_grey(folded, own.shape)
            if own.shape == value.shape:
                own += value - now
                fitting += 1
    return fitting


def _alike(network: Network, other: Network) -> bool:
    """Whether the networks have the same colour, depth and branches.

    Of these settings a kind of network has some.
    """
    return all(
        getattr(network.settings, key, None) == getattr(other.settings, key, None)
        for key in ("colour", "depth", "blocks", "units", "expand", "identity", "edges")
    )


def take_start(model: Network, run: Path) -> None:
    """Copy the weights that fit of `run`, or of the released model of its name.

    Raises ConfigError where there is neither, and where no weight fits.
    """
    if not (run / CHECKPOINT).exists():
        try:
            released = find_model(run.name)
        except ModelFileError as error:
            raise ConfigError(
                f"start_from: no run at {printable(run)} and no bundled model "
                f"{printable(run.name)}; train that run first, as by "
                f"training/configs/{printable(run.name)}.toml, or change start_from"
            ) from error
        weights = {
            name: torch.from_numpy(np.array(weight, dtype=np.float32))
            for name, weight in read_model(released).tensors.items()
        }
        fitting = take_folded_weights(model, weights)
    else:
        trained = averaged_network(load_checkpoint(run / CHECKPOINT))
        if _alike(trained, model):
            fitting = take_weights(model, trained.state_dict())
        else:
            folded = trained.folded()
            fitting = take_folded_weights(model, dict(folded.named_parameters()))
    if not fitting:
        raise ConfigError(f"start_from: no weight of {run.name} fits this network")


def make_optimizer(model: nn.Module, s: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer that the settings name."""
    if s.optimizer == "soap":
        # Its import takes seconds.
        from pytorch_optimizer import SOAP

        return SOAP(model.parameters(), lr=s.lr, weight_decay=0.0)
    return torch.optim.Adam(model.parameters(), lr=s.lr, fused=True)


def start(config: Config, folder: Path, device: torch.device) -> State:
    """The state to go on from: the run's checkpoint, another's weights, or new."""
    torch.manual_seed(config.train.seed)
    model = make_network(config.kind, config.network).to(device)
    if config.train.start_from and not (folder / CHECKPOINT).exists():
        take_start(model, folder.parent / config.train.start_from)
    ema = deepcopy(model)
    optimizer = make_optimizer(model, config.train)
    adversary = None
    if config.adversary.weight > 0.0:
        adversary = Adversary(config.adversary, config.scale, device)
    state = State(0, model, ema, optimizer, 0.0, adversary)
    if (folder / CHECKPOINT).exists():
        content = load_checkpoint(folder / CHECKPOINT)
        saved = content["config"]["kind"], content["config"]["network"]
        if saved != (config.kind, config.network):
            raise RunError(
                f"{folder / CHECKPOINT} is of another network: {saved[0]} {saved[1]} "
                f"instead of {config.kind} {config.network}; "
                "choose another run folder or remove this one"
            )
        model.load_state_dict(content["model"])
        ema.load_state_dict(content["ema"])
        # Another optimizer's moments mean something else: this one begins anew.
        before = content["config"]["train"].get("optimizer", TrainSettings.optimizer)
        if before == config.train.optimizer:
            optimizer.load_state_dict(content["optimizer"])
        if adversary is not None and "adversary" in content:
            adversary.load_state_dict(content["adversary"])
        state.step, state.seconds = content["step"], content["seconds"]
    return state


def validate(network: nn.Module, crops: list[Crop], device: torch.device) -> float:
    """Mean Y-PSNR in dB of a folded network over the held-out crops."""
    upscale = upscaler(network, device)
    border = crops[0].hr.shape[0] // crops[0].lr.shape[0]
    return float(np.mean([y_psnr(upscale(c.lr), c.hr, border) for c in crops]))


def read_log(folder: Path, before: int) -> list[dict[str, str]]:
    """Rows of the run's log up to step `before`: later ones will be done again.

    Raises `DataError` where somebody else has written into it.
    """
    path = folder / LOG
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if int(row["step"]) <= before]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise DataError(
            f"{printable(path)}: is not a run's log any more; move it away, and a new "
            "one begins"
        ) from error


def write_log(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write all rows; columns are those of the widest row."""
    columns = max((list(row) for row in rows), key=len, default=[])
    temporary = folder / f".{LOG}.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(folder / LOG)


def held_out(number: int, settings: DataSettings) -> bool:
    """Whether the piece of this number is validated on, and so never trained on."""
    every = settings.holdout_every
    return number % every == every // 2


def load_data(
    config: Config, roots: list[Path], answers: Path | None = None
) -> tuple[Pairs, list[Crop]]:
    """Training pairs and validation crops of the configured folders and videos.

    `answers` is the folder in which a teacher's answers are kept.
    """
    d = config.data
    # First, since it may be refused, and videos take long to read.
    teacher = None
    if d.teacher:
        # ONNX Runtime is needed for nothing else in training.
        from upfrost_training.teacher import read_teacher

        teacher = read_teacher(config, answers)
    files = listed_pictures(roots, d.folders)
    drawings = listed_pictures(roots, d.drawings)
    runs: list[Frames] = []
    for name in d.videos:
        video = next((r / name for r in roots if (r / name).is_file()), Path(name))
        runs.extend(read_runs(video, d.run_length, d.runs, d.shrink_videos))
    load = partial(
        load_pairs,
        scale=config.scale,
        patch=d.patch,
        threshold=d.sharpness,
        degradations=config.degrade,
        variants=d.variants,
        seed=config.train.seed,
        colour=config.colour,
        teacher=teacher,
        teacher_share=d.teacher_share,
        softened_share=d.softened,
    )
    pairs = load(
        chain(
            photographs([f for i, f in enumerate(files) if not held_out(i, d)]),
            (run for i, run in enumerate(runs) if not held_out(i, d)),
        )
    )
    if drawings:
        # None of these is held out: the figure logged stays that of photographs.
        drawn = load(photographs(drawings))
        pairs = with_drawings(pairs, drawn, d.drawings_share)
    crops = validation_crops(
        chain(
            photographs([f for i, f in enumerate(files) if held_out(i, d)]),
            (run for i, run in enumerate(runs) if held_out(i, d)),
        ),
        config.scale,
        degradations=config.degrade,
        colour=config.colour,
    )
    if not crops:
        kept = sum(held_out(i, d) for each in (files, runs) for i in range(len(each)))
        raise DataError(
            f"nothing to validate on: of {len(files) + len(runs)} pictures and runs of "
            f"frames {kept} are held out (`holdout_every` is {d.holdout_every}), and "
            f"none of those has {VALIDATED} pixels a side"
        )
    return pairs, crops


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def measured(
    state: State,
    config: Config,
    loss: float,
    crops: list[Crop],
    data: list[Path],
    device: torch.device,
) -> dict[str, str]:
    """One row of the log: the EMA's PSNR on held-out crops and the report's folders."""
    folded: nn.Module = state.ema.folded()
    row = {
        "step": str(state.step),
        "seconds": f"{state.seconds:.0f}",
        "rate": f"{learning_rate(state.step, config.train):.3e}",
        "loss": f"{loss:.6f}",
        "psnr": f"{validate(folded, crops, device):.3f}",
    }
    for name, pairs_folder in report_folders(config, data).items():
        quality = evaluate_folder(
            pairs_folder, upscaler(folded, device), config.scale, config.colour
        )
        row[name] = f"{quality.psnr:.3f}"
    return row


def report_folders(config: Config, data: list[Path]) -> dict[str, Path]:
    """The configuration's report folders by name, those that are under `data`."""
    found = {name: find_folder(data, name) for name in config.report}
    return {name: folder for name, folder in found.items() if folder is not None}


def train(
    config: Config, data: list[Path], folder: Path, say: Callable[[str], None]
) -> State:
    """Train until `config.train.steps`, going on from the folder's checkpoint.

    `data` are folders under which the configured folders lie; `folder` receives
    checkpoint.pt, log.csv and its plot log.svg. `say` is given one line of progress at
    a time.
    """
    s = config.train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Beside native.cpp's threads, those of torch would only wait, and wait by spinning.
    torch.set_num_threads(1 if s.native else s.threads)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Before the data, which take long to read, and longer with a teacher.
        state = start(config, folder, device)
        if s.native:
            gradients = native_gradients(state, s, config.data.patch)
        else:
            gradients = torch_gradients(state, s, device)
        rows = read_log(folder, state.step)
        # The first validation would fail by them, before the first checkpoint.
        for pairs_folder in report_folders(config, data).values():
            check_pairs(pairs_folder, config.scale)
        if config.data.teacher:
            say(f"{config.name}: {config.data.teacher} answers for all pictures first")
        pairs, crops = load_data(config, data, folder / ANSWERS)
    except UpfrostError:
        # Of a run that never began nothing is left but what a teacher took long to say.
        with suppress(OSError):
            folder.rmdir()
        raise
    pixels = sum(p.shape[0] * p.shape[1] for p in pairs.hr) / 1e6
    say(
        f"{config.name}: {len(pairs.hr)} pictures, {pixels:.0f} megapixels, "
        f"{len(pairs.origins)} sharp places, {len(crops)} validation crops; "
        f"step {state.step} of {s.steps}"
    )
    state.model.train()
    mean_loss, begun, begun_step = 0.0, time.monotonic(), state.step
    last = time.monotonic()
    while state.step < s.steps:
        batch = sample(pairs, s.batch, s.seed, state.step)
        loss = train_step(state, gradients, batch, s)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {state.step}: lower lr or clip"
            )
        mean_loss += (loss - mean_loss) / min(200, state.step - begun_step)
        now = time.monotonic()
        state.seconds += now - last
        last = now
        ending = state.step == s.steps
        if state.step % s.validate_every == 0 or ending:
            row = measured(state, config, mean_loss, crops, data, device)
            rows.append(row)
            write_log(folder, rows)
            draw_log(rows, config.name, folder / PLOT)
            pace = (now - begun) / max(1, state.step - begun_step)
            left = clock(pace * (s.steps - state.step))
            figures = "  ".join(f"{k} {v}" for k, v in row.items() if k != "seconds")
            say(f"{figures}  {pace * 1000:.0f} ms/step, {left} left")
            last = time.monotonic()
        if state.step % s.save_every == 0 or ending:
            save(state, config, folder)
        if state.step == finish_step(s):
            # Another loss begins: its mean is its own.
            mean_loss, begun_step, begun = 0.0, state.step, time.monotonic()
    return state
