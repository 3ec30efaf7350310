"""Compile the shaders in this folder to the SPIR-V that the runtime loads.

usage: python shaders/build.py [--check]

Every entry of upfrost.gpu.families.VARIANTS becomes
runtime/upfrost/gpu/spirv/NAME.spv.
With --check nothing is written: the names of files that are not what their source gives
are printed, and the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import pyshaderc

from upfrost.gpu.families import SPIRV_FOLDER, VARIANTS, Variant

SOURCE_FOLDER = Path(__file__).parent
_HEADER_WORDS = 5
_OP_EXTENSION = 10
_HALF_EXTENSION = b"SPV_AMD_gpu_shader_half_float"
_INCLUDE = re.compile(r'^#include "([\w./]+)"$', re.MULTILINE)


def source_text(variant: Variant) -> str:
    """GLSL of a variant: its macros after the #version line, its includes expanded.

    pyshaderc's own include callback hands out memory that Python may already have
    freed, so includes are expanded here.
    """
    text = _expand(SOURCE_FOLDER / f"{variant.source}.comp")
    version, rest = text.split("\n", 1)
    macros = "".join(
        f"#define {key} {value}\n" for key, value in variant.defines.items()
    )
    return f"{version}\n{macros}{rest}"


def compile_variant(variant: Variant) -> bytes:
    """SPIR-V of a variant. Raises `pyshaderc.CompilationError`."""
    spirv = pyshaderc.compile_into_spirv(
        source_text(variant).encode(),
        "comp",
        f"{variant.source}.comp",
        optimization="zero",
        warnings_as_errors=True,
    )
    return without_half_extension(spirv)


def without_half_extension(spirv: bytes) -> bytes:
    """The module without AMD's extension for half precision.

    The compiler knows half precision by that GLSL extension alone, and so declares the
    one of SPIR-V. What the kernels use of it is in the capabilities Float16 and
    StorageUniformBufferBlock16, which the module declares as well; few drivers have the
    extension, and Vulkan forbids to declare one that is not there. See "Physical Layout
    of a SPIR-V Module and Instruction" in the SPIR-V specification.
    """
    words = np.frombuffer(spirv, "<u4")
    parts, at = [words[:_HEADER_WORDS]], _HEADER_WORDS
    while at < len(words):
        instruction = words[at : at + (words[at] >> 16)]
        name = instruction[1:].tobytes().rstrip(b"\0")
        if (words[at] & 0xFFFF, name) != (_OP_EXTENSION, _HALF_EXTENSION):
            parts.append(instruction)
        at += len(instruction)
    return np.concatenate(parts).tobytes()


def stale(variants: dict[Path, bytes]) -> list[str]:
    """Names of files in the SPIR-V folder that are missing, differ or are left over."""
    names = {path.name for path in SPIRV_FOLDER.glob("*.spv")}
    wanted = {path.name for path in variants}
    differing = {
        path.name
        for path, spirv in variants.items()
        if path.name in names and path.read_bytes() != spirv
    }
    return sorted((names ^ wanted) | differing)


def _expand(path: Path) -> str:
    return _INCLUDE.sub(
        lambda match: _expand(SOURCE_FOLDER / match.group(1)), path.read_text()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the shaders to SPIR-V.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail on a stale file"
    )
    arguments = parser.parse_args()
    compiled = {variant.path: compile_variant(variant) for variant in VARIANTS.values()}
    outdated = stale(compiled)
    if arguments.check:
        sys.stdout.writelines(f"{name}\n" for name in outdated)
        return bool(outdated)
    SPIRV_FOLDER.mkdir(exist_ok=True)
    for name in outdated:
        path = SPIRV_FOLDER / name
        if path in compiled:
            path.write_bytes(compiled[path])
        else:
            path.unlink()
        sys.stdout.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
