"""A run that is killed and resumed ends where an unbroken run ends."""

import csv
import os
import re
import resource
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from upfrost.image.images import PictureError
from upfrost.network import reference
from upfrost.network.modelfile import bundled_models, find_model, read_model
from upfrost_training import loop
from upfrost_training.cli import main
from upfrost_training.config import (
    Config,
    ConfigError,
    DataSettings,
    TrainSettings,
    read_config,
)
from upfrost_training.data import DataError, in_colour
from upfrost_training.losses import RGB_TO_YCC
from upfrost_training.networks import make_network

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
CONFIG = """
name = "tiny"
kind = "plain"
[network]
channels = 4
depth = 1
[data]
folders = ["pictures"]
patch = 8
holdout_every = 3
[train]
steps = 60
batch = 2
warmup = 5
compile = false
save_every = 5
validate_every = 20
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration and three noisy pictures, large enough for validation."""
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(256, size=(140, 140, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((280, 280), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "tiny.toml").write_text(CONFIG)
    return tmp_path


def run(folder: Path, name: str) -> list[str]:
    return [
        sys.executable,
        *("-m", "upfrost_training", "train", str(folder / "tiny.toml")),
        *("--data", str(folder), "--run", str(folder / name)),
    ]


def environment() -> dict[str, str]:
    paths = [p for p in sys.path if p]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def same_weights(a: Path, b: Path) -> bool:
    first, second = (loop.load_checkpoint(p / loop.CHECKPOINT) for p in (a, b))
    return first["step"] == second["step"] and all(
        torch.equal(first[part][name], second[part][name])
        for part in ("model", "ema")
        for name in first[part]
    )


def without_data(*_: object) -> None:
    pytest.fail("the data are read before a setting is refused")


def test_a_killed_run_goes_on_as_if_it_had_not_been(folder: Path) -> None:
    subprocess.run(run(folder, "whole"), check=True, env=environment())
    broken = folder / "broken" / loop.CHECKPOINT
    process = subprocess.Popen(run(folder, "broken"), env=environment())
    while not broken.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(run(folder, "broken"), check=True, env=environment())
    assert same_weights(folder / "whole", folder / "broken")
    with (folder / "broken" / loop.LOG).open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [20, 40, 60]


def test_soap_goes_on_as_if_it_had_not_been_interrupted(folder: Path) -> None:
    settings = TrainSettings(
        optimizer="soap",
        steps=30,
        batch=1,
        compile=False,
        save_every=12,  # its basis is turned every ten steps
        validate_every=20,
    )
    config = replace(read_config(folder / "tiny.toml"), train=settings)
    loop.train(config, [folder], folder / "whole", lambda _: None)

    def interrupt(line: str) -> None:
        if line.startswith("step 20"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(config, [folder], folder / "broken", interrupt)
    assert loop.load_checkpoint(folder / "broken" / loop.CHECKPOINT)["step"] == 12
    loop.train(config, [folder], folder / "broken", lambda _: None)
    assert same_weights(folder / "whole", folder / "broken")
    by_adam = replace(config, train=replace(settings, optimizer="adam"))
    loop.train(by_adam, [folder], folder / "adam", lambda _: None)
    assert not same_weights(folder / "whole", folder / "adam")


def test_a_run_goes_on_by_another_optimizer(folder: Path) -> None:
    settings = TrainSettings(steps=4, batch=1, compile=False)
    config = replace(read_config(folder / "tiny.toml"), train=settings)
    loop.train(config, [folder], folder / "run", lambda _: None)
    longer = replace(config, train=replace(settings, steps=8, optimizer="soap"))
    assert loop.train(longer, [folder], folder / "run", lambda _: None).step == 8


def test_pairs_of_another_scale_are_refused_before_the_first_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(read_config(folder / "tiny.toml"), report=("pairs",))
    (folder / "pairs").mkdir()
    Image.new("RGB", (48, 48)).save(folder / "pairs/1_HR.png")
    Image.new("RGB", (12, 12)).save(folder / "pairs/1_LR.png")
    monkeypatch.setattr(loop, "load_data", without_data)
    with pytest.raises(PictureError, match=r"1_LR\.png: 12×12 pixels are not those"):
        loop.train(config, [folder], folder / "run", lambda _: None)
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("teacher", "colour"),
    [("photo-x2", "rgb"), ("photo-x2", "luma"), ("live-x2-xs-clean", "luma")],
)
def test_a_bundled_model_teaches(teacher: str, colour: str, folder: Path) -> None:
    config = read_config(folder / "tiny.toml")
    config = replace(config, network={**config.network, "colour": colour})
    taught = replace(
        config, data=replace(config.data, teacher=teacher, teacher_share=1.0)
    )
    pairs, crops = loop.load_data(taught, [folder], folder / "answers")
    originals, plain = loop.load_data(config, [folder])
    small = loop.load_data(replace(config, network={}), [folder])[0].lr[0]
    graph = read_model(find_model(teacher))
    seen = in_colour(small, graph.colour or "rgb")
    answers = []
    for turns in range(4):
        for way in (1, -1):
            turned = np.rot90(seen, turns)[:, ::way]
            back = reference.run(graph, reference.from_bytes(graph, turned))
            answers.append(np.rot90(back[:, :, ::way], -turns, axes=(1, 2)))
    answer = reference.to_bytes(graph, np.mean(answers, axis=0))
    if graph.colour is None:
        answer = in_colour(answer, colour)
    # fp32 of another order of sums, rounded.
    difference = pairs.hr[0].astype(int) - answer
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01
    # Answers that were kept are the same.
    again, _ = loop.load_data(taught, [folder], folder / "answers")
    np.testing.assert_array_equal(again.hr[0], pairs.hr[0])
    kept = sorted((folder / "answers").iterdir())
    assert len(kept) == len(pairs.hr)
    # And are not computed again.
    for path in kept:
        with Image.open(path) as opened:
            black = Image.new(opened.mode, opened.size)
        black.save(path)
    again, _ = loop.load_data(taught, [folder], folder / "answers")
    assert np.ptp(again.hr[0]) == 0
    # What is held out is measured as it is.
    for crop, same in zip(crops, plain, strict=True):
        np.testing.assert_array_equal(crop.hr, same.hr)
    assert not np.array_equal(pairs.hr[0], originals.hr[0])


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("realtime-x4", "teacher: realtime-x4 enlarges ×4, not ×2"),
        ("realtime-x2", "realtime-x2 sees luma alone, .* name a model of RGB"),
        ("nothing", "teacher: nothing: model: neither a bundled model nor a file"),
    ],
)
def test_a_model_that_cannot_teach_is_refused(
    teacher: str, message: str, folder: Path
) -> None:
    # Before any video is read: this one is not there.
    config = read_config(folder / "tiny.toml")
    settings = replace(config.data, teacher=teacher, videos=("none.mkv",))
    other = replace(config, data=settings)
    with pytest.raises(ConfigError, match=message):
        loop.train(other, [folder], folder / "refused", lambda _: None)
    assert not (folder / "refused").exists()


def test_training_lowers_the_loss_and_leaves_a_network(folder: Path) -> None:
    config = read_config(folder / "tiny.toml")
    lines: list[str] = []
    state = loop.train(config, [folder], folder / "run", lines.append)
    assert state.step == 60
    assert "left" in lines[-1]
    with (folder / "run" / loop.LOG).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["psnr"]) > float(rows[0]["psnr"]) - 0.1
    network = loop.folded_network(folder / "run")
    assert network(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)


def test_the_row_where_the_finish_begins_has_the_loss_until_then(folder: Path) -> None:
    # Four fifths of 25 steps are 20, where a row is due.
    (folder / "tiny.toml").write_text(CONFIG.replace("steps = 60", "steps = 25"))
    config = read_config(folder / "tiny.toml")
    loop.train(config, [folder], folder / "run", lambda _: None)
    with (folder / "run" / loop.LOG).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20", "25"]
    assert all(float(row["loss"]) > 0.0 for row in rows)


def test_degradations_of_the_configuration_are_applied(folder: Path) -> None:
    degraded = """
    [[degrade]]
    kind = "area"
    [[degrade]]
    kind = "gauss"
    strength = [5, 9]
    """
    (folder / "tiny.toml").write_text(CONFIG.replace("[data]", f"{degraded}\n[data]"))
    noisy, crops = loop.load_data(read_config(folder / "tiny.toml"), [folder])
    (folder / "tiny.toml").write_text(CONFIG)
    clean, _ = loop.load_data(read_config(folder / "tiny.toml"), [folder])
    difference = noisy.lr[0].astype(int) - clean.lr[0]
    assert 4.0 < difference.std() < 20.0
    assert crops[0].lr.shape == (128, 128, 3)


def test_a_cut_off_checkpoint_is_refused_by_name(folder: Path) -> None:
    path = folder / loop.CHECKPOINT
    loop.write_atomically(path, {"config": {}, "ema": {}})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        loop.RunError, match=r"checkpoint\.pt: not a readable checkpoint"
    ):
        loop.load_checkpoint(path)


class Unsafe:
    """What only a checkpoint of someone else's making holds."""


@pytest.mark.parametrize("content", [Unsafe(), {"config": Unsafe(), "ema": {}}, [1]])
def test_a_checkpoint_of_something_else_is_one_clear_line(
    folder: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run").mkdir()
    torch.save(content, folder / "run" / loop.CHECKPOINT)
    words = ["train", str(folder / "tiny.toml"), "--data", str(folder)]
    assert main([*words, "--run", str(folder / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "checkpoint.pt: " in line
    assert "weights_only" not in line


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / loop.CHECKPOINT
    content = {"step": 1, "config": {}, "ema": {}}
    loop.write_atomically(path, content)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        loop.write_atomically(path, {**content, "step": 2})
    assert loop.load_checkpoint(path) == content


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Which the command prints as one line; torch.save's own is a RuntimeError."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            loop.write_atomically(tmp_path / "net.pt", {"ema": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def started_from_tiny(folder: Path, **network: object) -> loop.State:
    """A run whose network differs in these settings from that of the run tiny.

    Which is trained for a step.
    """
    config = replace(
        read_config(folder / "tiny.toml"),
        train=TrainSettings(steps=1, batch=1, compile=False),
    )
    loop.train(config, [folder], folder / "tiny", lambda _: None)
    other = replace(
        config,
        network={**config.network, **network},
        train=replace(config.train, start_from="tiny"),
    )
    return loop.start(other, folder / "other", torch.device("cpu"))


# A setting that is spelled out is no other than the same by default.
@pytest.mark.parametrize("said", [{}, {"colour": "rgb", "expand": 4}])
def test_another_run_s_weights_are_taken_where_they_fit(
    folder: Path, said: dict[str, object]
) -> None:
    state = started_from_tiny(folder, scale=4, **said)
    first = loop.load_checkpoint(folder / "tiny" / loop.CHECKPOINT)["ema"]
    now = state.model.state_dict()
    assert torch.equal(now["body.0.direct"], first["body.0.direct"])
    assert now["body.4.direct"].shape != first["body.4.direct"].shape


def test_a_run_folder_of_another_network_is_refused(folder: Path) -> None:
    config = replace(
        read_config(folder / "tiny.toml"),
        train=TrainSettings(steps=1, batch=1, compile=False),
    )
    loop.train(config, [folder], folder / "tiny", lambda _: None)
    other = replace(config, network={"channels": 8})
    with pytest.raises(loop.RunError, match="of another network"):
        loop.start(other, folder / "tiny", torch.device("cpu"))


def test_a_run_folder_of_another_kind_of_network_is_refused(folder: Path) -> None:
    # Two kinds may have settings of the same names.
    network = {"scale": 2}
    saved = {"config": {"kind": "plain", "network": network}, "ema": {}}
    loop.write_atomically(folder / loop.CHECKPOINT, saved)
    other = replace(read_config(folder / "tiny.toml"), kind="cascade", network=network)
    with pytest.raises(loop.RunError, match=r"plain .* instead of cascade"):
        loop.start(other, folder, torch.device("cpu"))


def test_one_piece_of_so_many_is_held_out() -> None:
    d = DataSettings(holdout_every=12)
    assert [i for i in range(24) if loop.held_out(i, d)] == [6, 18]


def test_pictures_too_small_to_validate_on_are_said_to_be(folder: Path) -> None:
    # One of them is not even a pixel of the small picture.
    for path in (folder / "pictures").iterdir():
        with Image.open(path) as picture:
            height = 1 if path.name == "1.png" else 255
            picture.crop((0, 0, 280, height)).save(path)
    config = read_config(folder / "tiny.toml")
    message = r"of 3 .* 1 are held out .* is 3\), and none of those has 256 pixels"
    with pytest.raises(DataError, match=message):
        loop.load_data(config, [folder])


def test_frames_of_videos_are_trained_on_too(folder: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    pictures = folder / "pictures"
    command = [ffmpeg, "-v", "error", "-i", str(pictures / "0.png"), "-vf"]
    command += ["loop=40:1", "-c:v", "ffv1", str(folder / "still.mkv")]
    subprocess.run(command, check=True)
    videos = 'videos = ["still.mkv"]\nruns = 2\nrun_length = 3\nshrink_videos = 1'
    (folder / "tiny.toml").write_text(CONFIG.replace("[data]", f"[data]\n{videos}"))
    pairs, crops = loop.load_data(read_config(folder / "tiny.toml"), [folder])
    # Two photographs and one run; the third photograph and the second run are held out.
    assert len(pairs.hr) == 2 + 3
    assert len(crops) == 2


def test_an_adversary_trains_along_and_is_kept(folder: Path) -> None:
    second_stage = "[adversary]\nweight = 0.01\nchannels = 4\n[train]"
    (folder / "tiny.toml").write_text(
        CONFIG.replace("[train]", second_stage).replace("steps = 60", "steps = 8")
    )
    config = read_config(folder / "tiny.toml")
    state = loop.train(config, [folder], folder / "run", lambda _: None)
    again = loop.start(config, folder / "run", torch.device("cpu"))
    assert state.adversary is not None
    assert again.adversary is not None
    before, after = (a.network.state_dict() for a in (state.adversary, again.adversary))
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Beside a network that hardly learns any more, it hardly does.
    (group,) = state.adversary.optimizer.param_groups
    share = loop.learning_rate(7, config.train) / config.train.lr
    assert group["lr"] == pytest.approx(share * config.adversary.lr)
    assert 0 < share < 0.9


def test_a_run_starts_from_released_weights(folder: Path) -> None:
    network = "scale = 4\nchannels = 32\nblocks = 3\nunits = 3"
    start = CONFIG.replace('kind = "plain"', 'kind = "cascade"')
    start = re.sub(r"(?s)\[network\].*?\n\[", f"[network]\n{network}\n[", start)
    start = start.replace("[train]", '[train]\nstart_from = "cascade-x4"')
    (folder / "tiny.toml").write_text(start)
    config = read_config(folder / "tiny.toml")
    state = loop.start(config, folder / "run", torch.device("cpu"))
    folded = dict(state.model.folded().named_parameters())
    for name, weight in read_model(find_model("cascade-x4")).tensors.items():
        # A kernel is what branches sum up to, in fp32.
        np.testing.assert_allclose(folded[name].detach(), weight, rtol=0, atol=1e-6)


def test_a_network_of_other_branches_starts_as_the_same_function(folder: Path) -> None:
    state = started_from_tiny(folder, expand=0, edges=False)
    x = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = loop.folded_network(folder / "tiny")(x)
        # fp32 sums in another order.
        torch.testing.assert_close(state.model.folded()(x), expected)


@pytest.mark.parametrize(
    ("kind", "network", "deeper"),
    [
        ("plain", "activation = 'prelu'\ndepth = 1", "activation = 'prelu'\ndepth = 3"),
        ("plain", "activation = 'relu'\ndepth = 1", "activation = 'relu'\ndepth = 3"),
        ("cascade", "blocks = 2\nunits = 1", "blocks = 2\nunits = 3"),
        ("cascade", "blocks = 1\nunits = 2", "blocks = 3\nunits = 2"),
        ("cascade", "blocks = 1\nunits = 1", "blocks = 2\nunits = 2"),
    ],
)
def test_a_deeper_network_starts_as_the_same_function(
    folder: Path, kind: str, network: str, deeper: str
) -> None:
    settings = f"[network]\nscale = 2\nchannels = 8\n{network}\n["
    shallow = CONFIG.replace('kind = "plain"', f'kind = "{kind}"')
    shallow = re.sub(r"(?s)\[network\].*?\n\[", settings, shallow)
    (folder / "shallow.toml").write_text(shallow)
    config = read_config(folder / "shallow.toml")
    first = loop.start(config, folder / "none", torch.device("cpu"))
    with torch.no_grad():
        for weights in first.ema.parameters():  # also biases, which begin as nothing
            weights.add_(0.01)
    (folder / "shallow").mkdir()
    loop.save(first, config, folder / "shallow")
    deep = shallow.replace(network, deeper)
    (folder / "deep.toml").write_text(
        deep.replace("[train]", '[train]\nstart_from = "shallow"')
    )
    state = loop.start(
        read_config(folder / "deep.toml"), folder / "deep", torch.device("cpu")
    )
    x = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = loop.folded_network(folder / "shallow")(x)
        # The folded kernels are those of the shallow network to fp32 rounding.
        torch.testing.assert_close(state.model.folded()(x), expected)


def test_a_luma_network_starts_as_what_one_of_rgb_does_to_grey(folder: Path) -> None:
    """Of a released model, and of a run."""
    network = 'colour = "luma"\nscale = 4\nchannels = 16\ndepth = 9'
    luma = re.sub(r"(?s)\[network\].*?\n\[", f"[network]\n{network}\n[", CONFIG)
    (folder / "rgb.toml").write_text(luma.replace('colour = "luma"\n', ""))
    first = loop.start(
        read_config(folder / "rgb.toml"), folder / "none", torch.device("cpu")
    )
    (folder / "rgb").mkdir()
    loop.save(first, read_config(folder / "rgb.toml"), folder / "rgb")
    released = deepcopy(first.model)
    weights = read_model(find_model("realtime-x4")).tensors
    loop.take_folded_weights(
        released, {k: torch.tensor(np.array(w)) for k, w in weights.items()}
    )
    grey = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor(RGB_TO_YCC[0]).view(1, 3, 1, 1)
    for name, rgb in (("rgb", first.ema), ("realtime-x4", released)):
        begun = luma.replace("[train]", f'[train]\nstart_from = "{name}"')
        (folder / "tiny.toml").write_text(begun)
        config = read_config(folder / "tiny.toml")
        found = loop.start(config, folder / "run", torch.device("cpu")).model.folded()
        wanted = (shares * rgb(grey.expand(-1, 3, -1, -1))).sum(1, keepdim=True)
        # The one difference is the order in which fp32 numbers are added up.
        assert (found(grey) - wanted.clamp(0, 1)).abs().max() < 1e-5


def test_a_start_from_nothing_known_is_refused_before_the_data_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace("[train]", '[train]\nstart_from = "nothing"')
    (folder / "tiny.toml").write_text(config)
    monkeypatch.setattr(loop, "load_data", without_data)
    message = (
        f"start_from: no run at {folder}/nothing and no bundled model nothing; train "
        "that run first, as by training/configs/nothing.toml, or change start_from"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        loop.train(
            read_config(folder / "tiny.toml"), [folder], folder / "run", lambda _: None
        )
    assert not (folder / "run").exists()


@pytest.mark.parametrize("setting", ['start_from = "nothing"', "native = true"])
def test_what_is_refused_of_a_configuration_names_its_file(
    folder: Path, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "tiny.toml"
    path.write_text(CONFIG.replace("[train]", f"[train]\n{setting}"))
    words = ["train", str(path), "--data", str(folder), "--run", str(folder / "run")]
    assert main(words) == 1
    key = setting.split()[0]
    assert capsys.readouterr().err.startswith(f"upfrost-train: {path}: {key}")


def test_a_network_without_native_gradients_is_refused_before_the_data_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tiny.toml").write_text(
        CONFIG.replace("[train]", "[train]\nnative = true")
    )
    monkeypatch.setattr(loop, "load_data", without_data)
    with pytest.raises(ConfigError, match="native = true cannot be"):
        loop.train(
            read_config(folder / "tiny.toml"), [folder], folder / "run", lambda _: None
        )
    assert not (folder / "run").exists()


def test_the_rate_warms_up_and_follows_a_cosine() -> None:
    s = TrainSettings(steps=1000, warmup=100, lr=1e-3, lr_floor=0.01)
    assert loop.learning_rate(0, s) == pytest.approx(1e-5)
    assert loop.learning_rate(99, s) == pytest.approx(1e-3)
    assert loop.learning_rate(550, s) == pytest.approx(0.505e-3)
    assert loop.learning_rate(1000, s) == pytest.approx(1e-5)
    rates = [loop.learning_rate(i, s) for i in range(100, 1001)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 60", "setps = 60"), r"\[train\]: unknown setting 'setps'"),
        (("steps = 60", 'steps = "many"'), "steps must be int"),
        (('name = "tiny"', ""), "name is missing"),
        (('kind = "plain"', 'kind = "plain"\ncolour = 1'), "unknown setting 'colour'"),
        (("[network]", "[network"), "not a TOML file"),
        (("[data]", '[[degrade]]\nkind = "fog"\n[data]'), "unknown degradation 'fog'"),
        (("[data]", '[[degrade]]\nkind = "blur"\n[data]'), "0 degradations scale"),
        (
            ("[data]", '[[degrade]]\nkind = "jpeg"\nstrength = [0, 300]\n[data]'),
            r"jpeg: strength must be \[low, high\], from 1 to 95, not \[0, 300\]",
        ),
        (
            ("[data]", '[[degrade]]\nkind = "jpeg"\nstrength = 40\n[data]'),
            r"tiny.toml \[\[degrade\]\]: strength must be a list of 2 numbers, not 40",
        ),
        (("[data]", "[[degrade]]\nshare = 0.5\n[data]"), "kind is missing"),
        (
            ('kind = "plain"', 'kind = "plain"\nreport = "Set5"'),
            "report must be a list",
        ),
        (('kind = "plain"', 'kind = "plain"\ndegrade = [1]'), r"cannot be \[1\]"),
        (("batch = 2", "batch = 0"), r"\[train\]: batch must be at least 1, not 0"),
        (("steps = 60", "steps = -5"), "steps must be at least 1, not -5"),
        (("save_every = 5", "save_every = 0"), "save_every must be at least 1"),
        (("save_every = 5", "threads = 0"), "threads must be at least 1"),
        (("save_every = 5", "ema = nan"), "ema must be 0 to 1, not nan"),
        (("save_every = 5", "clip = 0.0"), r"clip must be above 0, not 0\.0"),
        (("save_every = 5", 'finish_loss = "l3"'), "finish_loss must be one of l1, l2"),
        (("patch = 8", "patch = -3"), r"\[data\]: patch must be at least 1, not -3"),
        (
            ("holdout_every = 3", "holdout_every = 1"),
            "holdout_every must be at",
        ),
        (('["pictures"]', "[1]"), r"folders must be a list of strings, not \[1\]"),
        (('"tiny"', '"my net"'), "the run's name 'my net' is not 1 to 128 letters"),
        (
            ("[data]", "[adversary]\nweight = -1.0\n[data]"),
            r"tiny.toml \[adversary\]: weight must be at least 0, not -1\.0",
        ),
        (("[data]", "[adversary]\nflat = nan\n[data]"), "flat must be at least 0"),
        (("[data]", "[adversary]\nweight = inf\n[data]"), "at least 0, not inf"),
        (
            ("[data]", "[adversary]\nweight = 1\npatches = 1\n[data]"),
            "squares of 24 pixels, and crops have 16: make patch larger",
        ),
        (
            ("[data]", "[adversary]\nchannels = 0\n[data]"),
            "channels must be at least 1",
        ),
        (("[data]", "[adversary]\nlr = 0\n[data]"), r"lr must be above 0, not 0\.0"),
        (("channels = 4", 'channels = "a"'), r"\[network\]: channels must be int"),
        (
            ("channels = 4", "wide = 4"),
            r"tiny.toml \[network\]: unknown setting 'wide'",
        ),
        (
            ("channels = 4", "expand = -1"),
            r"tiny.toml: \[network\] .*negative dimension",
        ),
        (("depth = 1", 'activation = "tanh"'), "tiny.toml: activation must be relu or"),
        (('"plain"', '"plane"'), "tiny.toml: unknown kind of network 'plane'"),
        (
            ("save_every = 5", 'optimizer = "sgd"'),
            r"tiny.toml \[train\]: optimizer must be one of adam, soap, not 'sgd'",
        ),
        (
            ("[data]", 'colour = "luma"\n[adversary]\nweight = 1\n[data]'),
            r"\[adversary\]: it judges RGB of .*, not luma of 16x16",
        ),
    ],
)
def test_bad_configurations_are_one_clear_line(
    folder: Path,
    change: tuple[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "tiny.toml").write_text(CONFIG.replace(*change))
    with pytest.raises(ConfigError, match=message):
        read_config(folder / "tiny.toml")
    assert main(["train", str(folder / "tiny.toml"), "--data", str(folder)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_network_that_no_layer_can_have_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"kind plain: .*negative dimension"):
        make_network("plain", {"expand": -1})


def test_a_configuration_with_a_byte_order_mark_is_read(folder: Path) -> None:
    (folder / "tiny.toml").write_text(CONFIG, encoding="utf-8-sig")
    assert read_config(folder / "tiny.toml").name == "tiny"


def test_a_run_without_pictures_says_so(folder: Path) -> None:
    config = replace(read_config(folder / "tiny.toml"), data=DataSettings())
    with pytest.raises(DataError, match="name some in `folders`"):
        loop.load_data(config, [folder])


def test_a_run_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(loop.RunError, match="there is no such run: train it"):
        loop.folded_network(tmp_path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_released_configurations_are_sound(path: Path) -> None:
    config = read_config(path)
    assert config.name == path.stem
    assert make_network(config.kind, config.network)
    assert config.description
    assert config.training_data
    trained_on = [*config.data.folders]
    assert not any("Set5" in name or "Set14" in name for name in trained_on)
    starts = {"", *bundled_models(), *(other.stem for other in CONFIGS.glob("*.toml"))}
    assert config.train.start_from in starts


def test_settings_have_the_documented_defaults() -> None:
    config = Config(name="a", kind="plain", network={})
    assert config.data == DataSettings()
    assert config.train == TrainSettings()


@pytest.mark.parametrize("text", ["step,rate\nten,1\n", "a\n1\n", "step\n\0\n"])
def test_a_log_that_is_none_any_more_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / loop.LOG).write_text(text)
    with pytest.raises(DataError, match=r"log\.csv: is not a run's log any more"):
        loop.read_log(tmp_path, 10)
