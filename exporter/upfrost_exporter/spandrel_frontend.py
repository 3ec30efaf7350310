"""PyTorch checkpoints, as OpenModelDB lists them, into graphs.

spandrel (https://github.com/chaiNNer-org/spandrel) knows the architectures: it finds
the one that a checkpoint's tensors belong to, and builds it.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from upfrost.network.graph import Graph
from upfrost_exporter.builder import (
    ExportError,
    check_is_network,
    line,
    unique_name,
)
from upfrost_exporter.check import Report
from upfrost_exporter.settling import settle
from upfrost_exporter.torch_frontend import trace_module

_TORCHVISION = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
_UNUSED_NAMES = ("InterpolationMode", "normalize", "rotate")


def read_checkpoint(
    path: str | Path,
    *,
    name: str | None = None,
    metadata: Mapping[str, object] | None = None,
    report: Report | None = None,
) -> Graph:
    """The network in a `.pth`, `.pt`, `.ckpt` or `.safetensors` file.

    Only tensors are read; a pickle that holds anything else is refused, and runs
    nothing. The graph is checked against the network in PyTorch. Raises `ExportError`.
    """
    path = Path(path)
    check_is_network(path, may_be_zip=True)
    spandrel = import_spandrel()
    state = _read(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the networks' authors' own code
            descriptor = _load(spandrel, path, state)
    except spandrel.UnsupportedModelError:
        keys = spandrel.canonicalize_state_dict(state)
        first = ", ".join(repr(key)[:80] for key in itertools.islice(keys, 3))
        raise ExportError(
            f"{path}: spandrel knows no architecture with these tensors "
            f"({first}, ...): export the network as ONNX, or by export_module"
        ) from None
    except ExportError:
        raise
    # What names that are none, and the like, lead to before an architecture is known.
    except Exception as error:
        raise ExportError(
            f"{path}: spandrel knows no architecture with these tensors: {line(error)}"
        ) from None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ExportError(f"{path}: the network takes more than a picture")
    architecture = descriptor.architecture.name
    if descriptor.input_channels != descriptor.output_channels:
        raise ExportError(
            f"{path}: {architecture} maps {descriptor.input_channels} channels to "
            f"{descriptor.output_channels}: upfrost takes networks that keep them"
        )
    model = settle(descriptor.model, descriptor.input_channels)
    return trace_module(
        model,
        name=name or unique_name(path.stem, ()),
        scale=descriptor.scale,
        channels=descriptor.input_channels,
        metadata={
            "source": path.name,
            "description": f"{architecture}, {descriptor.purpose}",
            **(metadata or {}),
        },
        report=report,
    )


def import_spandrel() -> ModuleType:
    """spandrel, whether or not torchvision works. Raises `ExportError`.

    spandrel depends on torchvision, and torchvision works beside one build of PyTorch
    alone: without CUDA, or on a board, it is often missing or fails when it is
    imported. Two of spandrel's architectures import three names of it, LaMa and
    RestoreFormer, which fill holes and mend faces; upfrost takes neither. So where
    torchvision fails, empty modules hold its place while spandrel is imported.
    """
    absent = not _has_torchvision()
    if absent:
        sys.modules.update({name: ModuleType(name) for name in _TORCHVISION})
        vars(sys.modules[_TORCHVISION[-1]]).update(dict.fromkeys(_UNUSED_NAMES))
    try:
        return importlib.import_module("spandrel")
    except ImportError as error:
        raise ExportError(
            f"reading checkpoints needs spandrel ({error}): "
            "pip install --no-deps spandrel, and pip install einops safetensors"
        ) from None
    finally:
        if absent:
            _forget_torchvision()


def _load(spandrel: ModuleType, path: Path, state: dict[str, Any]) -> Any:
    """spandrel's description of the network with these tensors, whatever held it.

    torch.compile calls what it compiled ``_orig_mod``; a trainer's module, as
    Lightning's, calls the network as it likes. Raises spandrel's
    `UnsupportedModelError`, and `ExportError` for tensors of an architecture that do
    not fit each other.
    """
    state = {
        key.replace("_orig_mod.", ""): value
        for key, value in spandrel.canonicalize_state_dict(state).items()
    }
    while True:
        try:
            return spandrel.ModelLoader("cpu").load_from_state_dict(state)
        except spandrel.UnsupportedModelError:
            owners = {key.partition(".")[0] for key in state}
            if len(owners) != 1 or not all("." in key for key in state):
                raise
            state = {key.partition(".")[2]: value for key, value in state.items()}
        # Its architectures raise whatever a tensor leads to that is missing, or of a
        # wrong shape.
        except Exception as error:
            reason = line(error).rstrip(".")
            if isinstance(error, KeyError):
                reason = f"there is no {reason}"
            raise ExportError(
                f"{path}: these are the tensors of {_detected(spandrel, state)}, but a "
                f"network of them cannot be built: {reason}; take the checkpoint as it "
                "was saved"
            ) from None


def _detected(spandrel: ModuleType, state: dict[str, Any]) -> str:
    """The architecture that spandrel takes the tensors for."""
    for known in spandrel.MAIN_REGISTRY.architectures("detection"):
        with suppress(Exception):
            if known.detect(state):
                return str(known.architecture.name)
    return "an architecture that spandrel knows"


def _has_torchvision() -> bool:
    try:
        importlib.import_module(_TORCHVISION[-1])
    # Beside another build of PyTorch than its own it raises what that leads to.
    except Exception:
        _forget_torchvision()
        return False
    return True


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that is none of PyTorch's. Raises `ExportError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # No archive, or a damaged one, of which zipfile raises many kinds.
    except Exception:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise ExportError(
                    f"{path}: a damaged archive, maybe cut short: download or copy it "
                    "again"
                ) from None
        return
    names = [member.filename for member in members]
    if not any(name.endswith("data.pkl") for name in names):
        raise ExportError(f"{path}: a zip archive: unpack it, and give what is in it")
    if any("/code/" in name for name in names):
        raise ExportError(
            f"{path}: a TorchScript program, which does not say its architecture: "
            "give the checkpoint that it was made from, or an ONNX file of it"
        )
    # PyTorch compresses no tensors, and a little that is compressed may be a lot.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ExportError(
            f"{path}: an archive that was compressed after PyTorch wrote it: load it "
            "and save it again by torch.save"
        )


def _read(path: Path) -> dict[str, Any]:
    _check_archive(path)
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None
    except ImportError:
        raise ExportError(
            f"{path}: needs safetensors: pip install safetensors"
        ) from None
    # Both libraries raise kinds of their own.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        # torch's own advice is to run what such a file holds.
        if "weights_only" in str(error):
            reason = (
                "it holds more, and none of it was run; save the network's "
                "state_dict() instead, or use a .safetensors file"
            )
        raise ExportError(f"{path}: not a checkpoint of tensors: {reason}") from None
    if not isinstance(found, dict):
        raise ExportError(f"{path}: holds {type(found).__name__}, not named tensors")
    if not found:
        raise ExportError(f"{path}: holds no tensors")
    if found.keys() >= {"config", "ema", "optimizer"}:
        raise ExportError(
            f"{path}: a run of upfrost-train, of which 'upfrost-train export CONFIG "
            "-o FILE.upf' writes the network"
        )
    return found
