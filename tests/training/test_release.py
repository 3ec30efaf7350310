"""What ships says what it is, what it was trained on, and how good it is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from upfrost.image.images import PictureError
from upfrost.network import reference
from upfrost.network.modelfile import bundled_models, read_model
from upfrost_training import loop
from upfrost_training.cli import main
from upfrost_training.config import Config, TrainSettings, read_config
from upfrost_training.release import release
from upfrost_training.resize import imresize, shrink

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_a_bundled_model_can_be_trained_again_and_names_its_sources(name: str) -> None:
    path = bundled_models()[name]
    metadata = read_model(path).metadata
    config = read_config(CONFIGS / f"{name}.toml")
    assert metadata["licence"] == config.licence
    assert metadata["training_data"] == list(config.training_data)
    quality = metadata["quality"]
    assert isinstance(quality, dict)
    assert set(quality) == {"Set5", "Set14"}
    credits_file = path.with_name("ATTRIBUTION.md").read_text(encoding="utf-8")
    folders = (*config.data.folders, *config.data.drawings)
    assert all(f"## {folder}\n" in credits_file for folder in folders)


def tiny_run(folder: Path, colour: str = "rgb") -> tuple[Config, loop.State]:
    """An untrained run in `folder`/run, with a pair of ×2 in `folder`/pairs/x2."""
    config = Config(
        name="tiny",
        kind="plain",
        network={"channels": 4, "depth": 1, "colour": colour},
        train=TrainSettings(steps=1, compile=False),
        report=("pairs/x2", "missing/x2"),
        description="a test",
    )
    rng = np.random.default_rng(0)
    coarse = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
    hr = imresize(coarse, 48, 48)
    (folder / "pairs/x2").mkdir(parents=True)
    Image.fromarray(hr).save(folder / "pairs/x2/001_HR.png")
    Image.fromarray(shrink(hr, 2)).save(folder / "pairs/x2/001_LR.png")
    (folder / "run").mkdir()
    state = loop.start(config, folder / "run", torch.device("cpu"))
    loop.save(state, config, folder / "run")
    return config, state


@pytest.mark.parametrize("colour", ["rgb", "luma"])
def test_a_run_becomes_a_file_of_measured_quality(tmp_path: Path, colour: str) -> None:
    config, state = tiny_run(tmp_path, colour)
    lines: list[str] = []
    output = tmp_path / "tiny.upf"
    release(config, tmp_path / "run", [tmp_path], output, lines.append, "torch")
    graph = read_model(output)
    assert graph.metadata["description"] == "a test"
    quality = graph.metadata["quality"]
    assert isinstance(quality, dict)
    assert set(quality) == {"pairs"}
    assert any("missing/x2 is not under --data" in line for line in lines)
    assert graph.colour == ("luma" if colour == "luma" else None)
    x = torch.rand(1, graph.channels, 6, 5)
    with torch.no_grad():
        expected = state.ema.folded()(x)[0].numpy()
    # Two fp32 convolutions in another order of summation.
    result = reference.run(graph, x[0].numpy())
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_an_export_that_cannot_be_measured_leaves_all_as_it_was(tmp_path: Path) -> None:
    config, _ = tiny_run(tmp_path)
    Image.new("RGB", (12, 12)).save(tmp_path / "pairs/x2/001_LR.png")
    output = tmp_path / "tiny.upf"
    for before in (None, b"of an earlier run"):
        if before is not None:
            output.write_bytes(before)
        with pytest.raises(PictureError, match=r"by the model.s scale of 2"):
            release(
                config,
                tmp_path / "run",
                [tmp_path],
                output,
                lambda _: None,
                "torch",
                overwrite=before is not None,
            )
        assert (output.read_bytes() if output.exists() else None) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs", "run", "tiny.upf"]


def test_an_export_never_replaces_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run(tmp_path)
    written = tmp_path / "tiny.toml"
    written.write_text('name = "tiny"\nkind = "plain"\n')
    checkpoint = tmp_path / "run" / loop.CHECKPOINT
    for read in (written, checkpoint):
        before = read.read_bytes()
        words = ["export", str(written), "--run", str(tmp_path / "run")]
        assert main([*words, "-o", str(read), "--overwrite"]) == 1
        said = f"{read.name}: would replace a file that is read"
        assert said in capsys.readouterr().err
        assert read.read_bytes() == before


def test_the_commands_help_without_pytorch() -> None:
    """And say what to install when it is needed."""
    code = "import sys; sys.modules['torch'] = None\n"
    code += "from upfrost_training.cli import main; sys.exit(main(sys.argv[1:]))"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "--run" in run("train", "--help").stdout
    result = run("train", str(CONFIGS / "realtime-x2.toml"))
    assert result.returncode == 1
    assert "pip install -e '.[training]'" in result.stderr
    assert result.stderr.count("\n") == 1
