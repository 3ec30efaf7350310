"""The SPIR-V that ships is what the shaders' sources give, and is valid."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from upfrost.gpu.families import SPIRV_FOLDER, VARIANTS

BUILD = Path(__file__).parents[3] / "shaders" / "build.py"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    pytest.importorskip("pyshaderc", reason="the shader compiler is not installed")
    spec = importlib.util.spec_from_file_location("build_shaders", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", VARIANTS)
def test_committed_file_is_what_its_source_gives(build: ModuleType, name: str) -> None:
    variant = VARIANTS[name]
    assert variant.path.read_bytes() == build.compile_variant(variant), (
        f"{variant.path.name} is stale: run `make shaders`"
    )


def test_no_file_is_left_over() -> None:
    found = {path.name for path in SPIRV_FOLDER.glob("*")}
    assert found == {variant.path.name for variant in VARIANTS.values()}


@pytest.mark.skipif(
    shutil.which("spirv-val") is None, reason="spirv-val (spirv-tools) is missing"
)
@pytest.mark.parametrize("name", VARIANTS)
def test_validator_accepts_file(name: str) -> None:
    # Vulkan 1.0 is what PanVK on Bifrost offers.
    done = subprocess.run(
        ["spirv-val", "--target-env", "vulkan1.0", VARIANTS[name].path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
