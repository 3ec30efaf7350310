"""The machine: its kernel, the GPU's nodes and who may open them, Mesa's drivers.

Nothing here needs Vulkan. `root` is where dev, etc, proc, sys, usr and var are.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from upfrost.check.report import Section
from upfrost.gpu.advice import (
    CLOSED_DRIVER,
    MALI_KERNEL,
    OTHER_KERNEL,
    RenderNode,
    access_advice,
    address_space_advice,
    has_closed_driver,
    release,
    render_nodes,
    vulkan_driver,
)

MALI_DRIVERS = ("panfrost", "panthor")
NAME, TITLE = "machine", "The machine"
# What decides which drivers Vulkan's loader and Mesa show.
VARIABLES = (
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_INSTANCE_LAYERS",
    "LD_PRELOAD",
    "PAN_I_WANT_A_BROKEN_VULKAN_DRIVER",
    "MESA_SHADER_CACHE_DISABLE",
)
_PACKAGES = ("numpy", "Pillow", "pyvips", "imageio-ffmpeg")


def look(root: Path = Path("/")) -> Section:
    """The section on the machine."""
    section = Section(NAME, TITLE)
    facts = section.facts
    about = release(root)
    facts["kernel"] = f"{platform.system()} {platform.release()}"
    facts["machine"] = platform.machine()
    facts["system"] = about.get("PRETTY_NAME") or "unknown"
    facts["board"] = _board(root)
    facts["processor"] = _processor(root)
    facts["processors"] = os.cpu_count()
    facts["memory_bytes"] = _memory(root)
    facts["python"] = platform.python_version()
    facts["packages"] = {name: _version(name) for name in _PACKAGES}
    facts["gpu_clocks"] = _clocks(root)
    mesa = facts["mesa"] = _mesa(root)
    facts["vulkan_drivers"] = _icds(root)
    section.add(
        "good",
        f"{facts['kernel']}, {facts['machine']}, {facts['system']}"
        + (f", {facts['board']}" if facts["board"] else ""),
    )
    nodes = render_nodes(root)
    facts["nodes"] = [vars(node) for node in nodes]
    _say_nodes(section, nodes, root)
    _say_mesa(section, nodes, mesa, root)
    for name in VARIABLES:
        if value := os.environ.get(name):
            names = ", ".join(Path(part).name for part in value.split(":"))
            section.add("note", f"{name} is set: {names}")
    if advice := address_space_advice():
        section.add("note", advice)
    return section


def _say_nodes(section: Section, nodes: list[RenderNode], root: Path) -> None:
    if has_closed_driver(root):
        section.add("wrong" if not nodes else "note", CLOSED_DRIVER, OTHER_KERNEL)
    elif not nodes:
        section.add(
            "note",
            "The kernel drives no GPU here: there is no /dev/dri/renderD128",
            MALI_KERNEL,
        )
    for node in nodes:
        by = f"{node.path}, driven by {node.driver or 'an unknown driver'}"
        if not node.accessible:
            advice = access_advice(node, "$USER")
            section.add("wrong", f"{by}: you may not open it", advice)
        elif node.driver == "lima":
            section.add("wrong", f"{by}: Mali-400 to 470 have no Vulkan")
        else:
            section.add("good", f"{by}: you may open it")


def _say_mesa(
    section: Section, nodes: list[RenderNode], mesa: str | None, root: Path
) -> None:
    """PanVK is what a Mali needs; other GPUs need other drivers of Mesa's."""
    installed = bool(list(root.glob("usr/share/vulkan/icd.d/panfrost_icd*.json")))
    section.facts["panvk"] = installed
    version = f"Mesa {mesa}" if mesa else "Mesa, not installed as a Debian package"
    if installed:
        section.add("good", f"{version}, with PanVK, its Vulkan driver for Mali")
    elif any(node.driver in MALI_DRIVERS for node in nodes):
        section.add(
            "wrong",
            f"{version}, without PanVK, its Vulkan driver for Mali",
            vulkan_driver(root),
        )
    else:
        section.add("note", f"{version}, without PanVK; there is no Mali for it")


def _board(root: Path) -> str | None:
    """The board's model, as its device tree has it; PCs have none."""
    try:
        text = (root / "proc/device-tree/model").read_text("utf-8", "replace")
    except OSError:
        return None
    return text.strip("\0\n ") or None


def _processor(root: Path) -> str | None:
    try:
        lines = (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    fields = dict(_fields(lines))
    return fields.get("model name") or fields.get("CPU part")


def _memory(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    total = dict(_fields(lines)).get("MemTotal", "").split()
    return 1024 * int(total[0]) if total and total[0].isdecimal() else None


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _clocks(root: Path) -> list[dict[str, object]]:
    """Of each GPU that the kernel scales: its clocks in Hz, and by which rule."""
    found = []
    for folder in sorted((root / "sys/class/devfreq").glob("*gpu*")):
        clocks: dict[str, object] = {}
        for name in ("min_freq", "max_freq", "governor"):
            try:
                text = (folder / name).read_text("ascii", "replace").strip()
            except OSError:
                continue
            clocks[name] = int(text) if text.isdecimal() else text
        found.append(clocks)
    return found


def _mesa(root: Path) -> str | None:
    """The version of Debian's package mesa-vulkan-drivers, where that is installed."""
    try:
        text = (root / "var/lib/dpkg/status").read_text("utf-8", "replace")
    except OSError:
        return None
    for paragraph in text.split("\n\n"):
        fields = dict(_fields(paragraph.splitlines()))
        if (
            fields.get("Package") == "mesa-vulkan-drivers"
            and fields.get("Status") == "install ok installed"
        ):
            return fields.get("Version")
    return None


def _icds(root: Path) -> list[str]:
    """Names of the files by which Vulkan's loader finds drivers."""
    folders = ("usr/share/vulkan/icd.d", "etc/vulkan/icd.d")
    return sorted(
        file.name for folder in folders for file in (root / folder).glob("*.json")
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
