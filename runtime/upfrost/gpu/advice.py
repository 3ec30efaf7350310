"""What stands between this machine and its GPU, and what to do about it."""

from __future__ import annotations

import getpass
import grp
import os
import resource
from dataclasses import dataclass
from pathlib import Path

ADDRESS_SPACE = 1_000_000_000  # lavapipe was seen to crash with 650 to 900 MB
_BOOKWORM = "sudo apt install -t bookworm-backports mesa-vulkan-drivers"
_NEWER = "sudo apt install mesa-vulkan-drivers"
MALI_KERNEL = (
    "A Mali board needs a kernel with panfrost (Mali-G31, G51, G52, G72, G76) "
    "or panthor (Mali-G310, G610; with a Mesa newer than 25.0: G720, G725), which "
    "loads the GPU's firmware, mali_csffw.bin of linux-firmware."
)
CLOSED_DRIVER = "The kernel has Arm's closed driver for Mali (/dev/mali0)"
OTHER_KERNEL = (
    "Mesa needs a kernel with panfrost or panthor in its place, such as Debian 13's or "
    "Armbian's 'current'"
)


@dataclass(frozen=True)
class RenderNode:
    """A file through which programs reach a GPU, and the kernel's driver behind it."""

    path: str
    driver: str  # empty where the kernel does not say
    group: str
    accessible: bool


def render_nodes(root: Path = Path("/")) -> list[RenderNode]:
    """The nodes of all GPUs that the kernel drives. `root` is where dev and sys are."""
    return [
        RenderNode(
            path=f"/{node.relative_to(root)}",
            driver=_kernel_driver(root, node.name),
            group=_group(node),
            accessible=os.access(node, os.R_OK | os.W_OK),
        )
        for node in sorted((root / "dev/dri").glob("renderD*"))
    ]


def gpu_advice(root: Path = Path("/")) -> list[str]:
    """One line for each thing to check when Vulkan shows no GPU, the likeliest first.

    `root` is where dev, sys and etc are.
    """
    lines = []
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        if files := os.environ.get(variable):
            lines.append(f"{variable} is set: only the drivers of {files} are seen.")
    nodes = render_nodes(root)
    if has_closed_driver(root):
        lines.append(f"{CLOSED_DRIVER}. {OTHER_KERNEL}.")
    elif not nodes:
        lines.append(
            "The kernel drives no GPU here: there is no /dev/dri/renderD128. "
            + MALI_KERNEL
        )
    lines += [access_advice(node) for node in nodes if not node.accessible]
    drivers = sorted({node.driver for node in nodes} - {""})
    known = f"The kernel drives it by {', '.join(drivers)}; " if drivers else ""
    lines.append(known + vulkan_driver(root))
    if "panfrost" in drivers or not nodes:
        wanted = "PAN_I_WANT_A_BROKEN_VULKAN_DRIVER"
        if os.environ.get(wanted, "1") != "1":
            lines.append(
                f"{wanted} is {os.environ[wanted]!r}: Mesa 25.0 shows Mali-G31 to "
                "G76 only when it is 1. Unset it."
            )
        else:
            lines.append(
                f"Mesa 25.0 shows Mali-G31 to G76 only with {wanted}=1; upfrost sets "
                "that for itself, other programs do not."
            )
    return lines


def has_closed_driver(root: Path) -> bool:
    """Whether the GPU is in the hands of a driver that Mesa cannot use.

    Kernels of boards' makers have it.
    """
    return (root / "dev/mali0").exists()


def access_advice(node: RenderNode, user: str | None = None) -> str:
    """How `user`, by default whoever asks, may come to open a node."""
    return (
        f"You may not open {node.path}, its group {node.group} may: "
        f"sudo usermod -aG {node.group} {user or _user()}, then log in again."
    )


def address_space_advice() -> str | None:
    """A line for whoever limits a process's memory below what a CPU driver wants."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= ADDRESS_SPACE:
        return None
    return (
        f"address space is limited to {limit // 1_000_000} MB (ulimit -v); where there "
        f"is no GPU, Vulkan's driver needs {ADDRESS_SPACE // 1_000_000} and crashes "
        "without a word when it gets less"
    )


def vulkan_driver(root: Path) -> str:
    """Whether Mesa's Vulkan driver for Mali is there, or how to get it."""
    about = release(root)
    bookworm = about.get("VERSION_CODENAME") == "bookworm"
    if files := sorted(root.glob("usr/share/vulkan/icd.d/panfrost_icd*.json")):
        name = files[0].relative_to(root)
        return f"Mesa's Vulkan driver for Mali is installed (/{name})."
    # Debian's builds for x86-64 have none for Mali, and neither has 22.3 for boards.
    if not bookworm and any(root.glob("var/lib/dpkg/info/mesa-vulkan-drivers*.list")):
        return (
            "mesa-vulkan-drivers is installed, and its build for this machine has no "
            "driver for Mali."
        )
    package = "Mesa's Vulkan driver for it:"
    if bookworm:
        return f"{package} {_BOOKWORM} (its own 22.3 has none for Mali)."
    if about.get("ID") == "debian":
        return f"{package} {_NEWER}."
    return (
        f"{package} {_NEWER} on Debian 13, {_BOOKWORM} on Debian 12, 25.0 or newer "
        "elsewhere."
    )


def release(root: Path) -> dict[str, str]:
    """What os-release says, empty where there is none."""
    try:
        text = (root / "etc/os-release").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    entries = (line.partition("=") for line in text.splitlines())
    return {key: value.strip("\"'") for key, _, value in entries}


def _group(node: Path) -> str:
    number = node.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "$USER"


def _kernel_driver(root: Path, node: str) -> str:
    link = root / "sys/class/drm" / node / "device/driver"
    return link.resolve().name if link.exists() else ""
