"""PyTorch checkpoints: hostile ones are refused, and fused layers are recorded."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from upfrost.network import reference
from upfrost_exporter import ExportError, trace_module
from upfrost_exporter.settling import settle
from upfrost_exporter.spandrel_frontend import import_spandrel, read_checkpoint

needs_spandrel = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None,
    reason="pip install --no-deps spandrel",
)


class Fusing(nn.Module):
    """A layer that fuses its branches in every call, as SPAN's does."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 12, 3, padding=1)
        self.narrow = nn.Conv2d(3, 12, 1)
        self.eval_conv = nn.Conv2d(3, 12, 3, padding=1)

    def update_params(self) -> None:
        narrow = functional.pad(self.narrow.weight.data, (1, 1, 1, 1))
        assert self.wide.bias is not None
        assert self.narrow.bias is not None
        assert self.eval_conv.bias is not None
        self.eval_conv.weight.data = self.wide.weight.data + narrow
        self.eval_conv.bias.data = self.wide.bias.data + self.narrow.bias.data

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.update_params()
        return functional.pixel_shuffle(self.eval_conv(x), 2), x.mean()


def test_fused_layers_and_the_first_of_several_results_are_recorded() -> None:
    torch.manual_seed(0)
    module = Fusing()
    picture = torch.rand(1, 3, 8, 8)
    expected = module(picture)[0]
    with pytest.raises(ExportError, match="returns 2 values"):
        trace_module(module, name="net", scale=2)
    settled = settle(module, channels=3)
    torch.testing.assert_close(settled(picture), expected)
    graph = trace_module(settled, name="net", scale=2)
    assert [node.op for node in graph.nodes] == ["conv2d", "pixel_shuffle"]


class Attack:
    """A pickle that would make a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.target)!r}, 'w').close()",))


@needs_spandrel
def test_a_pickle_that_executes_code_is_refused_and_runs_nothing(
    tmp_path: Path,
) -> None:
    path, target = tmp_path / "net.pth", tmp_path / "made"
    torch.save({"weight": Attack(target)}, path)
    with pytest.raises(ExportError, match="none of it was run") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    # torch's own message advises to read it without that guard.
    assert "weights_only" not in str(error.value)
    assert not target.exists()


@needs_spandrel
@pytest.mark.parametrize("data", [b"", b"\x80hello", bytes(1000)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_checkpoint_is_refused(
    suffix: str, data: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(data)
    reason = "not a checkpoint of tensors" if data else "the file is empty"
    with pytest.raises(ExportError, match=reason):
        read_checkpoint(path)


@needs_spandrel
def test_tensors_of_no_known_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"some.weight": torch.zeros(3)}, path)
    reason = r"spandrel knows no architecture.*\('some.weight', ...\): export .* ONNX"
    with pytest.raises(ExportError, match=reason):
        read_checkpoint(path)
    torch.save({}, path)
    with pytest.raises(ExportError, match="holds no tensors"):
        read_checkpoint(path)


@needs_spandrel
def test_a_checkpoint_becomes_a_graph(tmp_path: Path) -> None:
    import_spandrel()
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    path = tmp_path / "small.pth"
    network = Compact(num_feat=8, num_conv=2, upscale=2)
    torch.save({"params_ema": network.state_dict()}, path)
    graph = read_checkpoint(path)
    assert (graph.name, graph.scale) == ("small", 2)
    assert graph.metadata["source"] == "small.pth"


@needs_spandrel
@pytest.mark.parametrize("owner", ["", "net."])
def test_a_checkpoint_that_lacks_a_tensor_is_told_apart(
    owner: str, tmp_path: Path
) -> None:
    import_spandrel()
    from spandrel.architectures.Compact import Compact

    path = tmp_path / "small.pth"
    state = Compact(num_feat=8, num_conv=2, upscale=2).state_dict()
    del state["body.2.bias"]
    torch.save({owner + key: tensor for key, tensor in state.items()}, path)
    reason = r"the tensors of .*Compact, but .*body\.2\.bias\W+; take the checkpoint as"
    with pytest.raises(ExportError, match=reason):
        read_checkpoint(path)
    torch.save({1: torch.zeros(3)}, path)
    with pytest.raises(ExportError, match="knows no architecture with these tensors"):
        read_checkpoint(path)


@needs_spandrel
@pytest.mark.parametrize(
    "owner",
    ["_orig_mod.", "module._orig_mod.", "model.", "model._orig_mod.net."],
)
def test_a_network_inside_others_is_found(owner: str, tmp_path: Path) -> None:
    """As torch.compile, DataParallel and trainers' modules hold it."""
    import_spandrel()
    from spandrel.architectures.Compact import Compact

    path = tmp_path / "net.pth"
    state = Compact(num_feat=4, num_conv=1, upscale=2).state_dict()
    tensors = {owner + key: tensor for key, tensor in state.items()}
    torch.save({"state_dict": tensors, "epoch": 1}, path)
    assert read_checkpoint(path).scale == 2


@needs_spandrel
def test_a_run_of_upfrosts_own_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run = {"step": 1, "config": {}, "model": {"a": torch.zeros(1)}, "ema": {}}
    torch.save({**run, "optimizer": {}}, path)
    with pytest.raises(ExportError, match="a run of upfrost-train"):
        read_checkpoint(path)


@needs_spandrel
def test_a_choice_of_experts_is_all_of_them() -> None:
    import_spandrel()
    from spandrel.architectures.SeemoRe import SeemoRe

    torch.manual_seed(0)
    sizes = {"num_layers": 1, "embedding_dim": 8, "num_experts": 3}
    network = SeemoRe(scale=2, global_kernel_size=3, topk=2, **sizes).eval()
    gates = [each for each in network.modules() if hasattr(each, "num_expert")]
    for gate in gates:  # so that pictures differ in what they choose
        nn.init.normal_(gate.gate.body[2].weight, 0, 20)
    pictures = [torch.rand(1, 3, 32, 48) * scale for scale in (1, 0.1)]
    expected = [network(picture) for picture in pictures]
    graph = trace_module(settle(network, channels=3), name="net", scale=2)
    for picture, wanted in zip(pictures, expected, strict=True):
        found = reference.run(graph, picture[0].numpy())
        # As the exporter's own check.
        torch.testing.assert_close(
            torch.from_numpy(found), wanted[0], rtol=1e-4, atol=1e-4
        )


def test_without_spandrel_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    path = tmp_path / "net.pth"
    path.write_bytes(b"\x80content")
    with pytest.raises(ExportError, match="pip install --no-deps spandrel"):
        read_checkpoint(path)


# What torchvision raises beside a PyTorch that it was not built for.
BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')"


@needs_spandrel
@pytest.mark.parametrize("content", [None, BROKEN], ids=["missing", "broken"])
def test_a_checkpoint_needs_no_torchvision(content: str | None, tmp_path: Path) -> None:
    """In a Python of its own, since modules once imported stay."""
    if content is not None:
        (tmp_path / "torchvision.py").write_text(content)
    program = (
        "import sys\n"
        "from upfrost_exporter.spandrel_frontend import import_spandrel\n"
        "spandrel = import_spandrel()\n"
        "print(spandrel.ModelLoader.__name__, 'torchvision' in sys.modules)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "ModelLoader False\n", result.stderr


@needs_spandrel
def test_an_archive_of_a_checkpoint_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("4x/model.pth", b"")
    with pytest.raises(ExportError, match="a zip archive: unpack it, and give what"):
        read_checkpoint(path)


@needs_spandrel
def test_a_checkpoint_that_is_cut_short_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ExportError, match="a damaged archive, maybe cut short"):
        read_checkpoint(path)


@needs_spandrel
def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pth", tmp_path / "net.pth"
    torch.save({"weight": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(ExportError, match="compressed after PyTorch wrote it"):
        read_checkpoint(path)


@needs_spandrel
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_sites_answer_is_called_so(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_text("Entry not found")
    with pytest.raises(ExportError, match="a text that begins with 'Entry not found'"):
        read_checkpoint(path)


@needs_spandrel
def test_a_torchscript_program_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    program: Any = torch.jit.script(nn.ReLU())
    program.save(str(path))
    with pytest.raises(ExportError, match="a TorchScript program"):
        read_checkpoint(path)
