"""tools/setup.sh says what is wrong with a system, and asks the network for no more.

A stand-in for .venv's Python writes down what it is asked to do, one for the recipe
of kp makes an empty wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """\
#!/bin/bash
case "$*" in
    *--version*) echo "Python ${FAKE_VERSION:-3.11.2}" ;;
    *sys.version_info*) [[ ${FAKE_VERSION:-3.11.2} != 3.10* ]] ;;
    *"import hatchling"*) [[ -e hatchling ]] ;;
    *"import torch"*) false ;;
    *"pip install --dry-run"*) echo '{"requires_dist": ["filelock", "'$FAKE_NEED'"]}' ;;
    *"pip install hatchling"*) touch hatchling; echo "$@" >>asked ;;
    *"pip install"*) echo "$@" >>asked ;;
    *"-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
esac
"""
RECIPE = """\
#!/bin/bash
mkdir -p "$2" && touch "$2/kp-0.9.0+upfrost1-any.whl"
"""


@pytest.fixture
def tree() -> Iterator[Path]:
    """A work tree that any user may write, with a .venv."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "tools").mkdir()
        (root / "tools/kompute").mkdir()
        for file in (
            "tools/setup.sh",
            "tools/gstreamer.sh",
            "tools/kompute/versions.sh",
            "pyproject.toml",
        ):
            shutil.copy(ROOT / file, root / file)
        (root / ".venv/bin").mkdir(parents=True)
        (root / "tools/kompute/0001.patch").touch()
        for name, text in {
            ".venv/bin/python": PYTHON,
            "tools/kompute/build.sh": RECIPE,
        }.items():
            (root / name).write_text(text)
            (root / name).chmod(0o755)
        for path in (root, root / ".venv"):
            path.chmod(0o777)
        yield root


def run(
    tree: Path, *words: str, user: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key[:7] != "UPFROST"}
    return subprocess.run(
        words,
        cwd=tree,
        env=clean | {"HOME": str(tree)} | environment,
        user=user,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_every_file_asks_for_the_same_build_of_kp() -> None:
    release = re.search(
        r"^readonly KP_RELEASE=(\S+)[^$]*\$KP_RELEASE(\S+)",
        (ROOT / "tools/kompute/versions.sh").read_text(),
        re.MULTILINE,
    )
    assert release is not None
    version = "".join(release.groups())
    for file, text in {
        "pyproject.toml": f'"kp=={version}",',
        "runtime/upfrost/gpu/binding.py": f'KP_VERSION = "{version}"',
        "tools/kompute/0001-build.patch": f"version='{version}'",
    }.items():
        assert text in (ROOT / file).read_text(), file


def test_an_old_environment_is_named_with_what_to_do(tree: Path) -> None:
    done = run(
        tree,
        *("tools/setup.sh", "run"),
        UPFROST_SKIP_PACKAGES="1",
        FAKE_VERSION="3.10.12",
    )
    assert done.returncode == 1
    assert "is of Python 3.10.12; upfrost needs 3.11 or newer" in done.stderr
    assert f"rm -r '{tree.resolve()}/.venv'" in done.stderr
    assert not (tree / "asked").exists(), "pip is not called at all"


def test_a_change_of_pyproject_needs_no_network(tree: Path) -> None:
    for _ in range(2):
        run(tree, "tools/setup.sh", "run", UPFROST_SKIP_PACKAGES="1")
        with (tree / "pyproject.toml").open("a") as file:
            file.write("# changed\n")
    asked = [line for line in (tree / "asked").read_text().splitlines() if line]
    tools, kp, backend, *installed = asked
    assert "pybind11==" in tools
    assert "--no-deps" in kp
    assert "kp-0.9.0+upfrost1-any.whl" in kp
    assert "hatchling>=" in backend
    assert [line.split("install ")[1] for line in installed] == [
        "--no-build-isolation --no-deps -e .",
        "upfrost",
    ] * 2


@pytest.mark.parametrize(
    ("need", "said"), [("nvidia-cudnn-cu13==9.20", True), ("sympy>=1.13.3", False)]
)
def test_a_pytorch_for_cuda_is_said_before_it_is_fetched(
    tree: Path, need: str, said: bool
) -> None:
    done = run(
        tree, "tools/setup.sh", "test", UPFROST_SKIP_PACKAGES="1", FAKE_NEED=need
    )
    before, _, after = done.stdout.partition("Installing torch")
    assert after
    assert ("built for CUDA" in before) == said


def test_without_sudo_it_says_what_to_run_as_root(tree: Path) -> None:
    commands = tree / "commands"
    commands.mkdir()
    for name in ("bash", "dirname", "sed"):
        (commands / name).symlink_to(shutil.which(name) or "")
    for name in ("apt-get", "dpkg-query"):
        (commands / name).write_text("#!/bin/bash\n")
        (commands / name).chmod(0o755)
    nobody = 65534 if os.geteuid() == 0 else None
    done = run(tree, "tools/gstreamer.sh", user=nobody, PATH=str(commands))
    assert done.returncode == 1
    assert "As root, run:" in done.stderr
    assert "apt-get install --no-install-recommends libvulkan1" in done.stderr
    assert "gstreamer1.0-tools" in done.stderr
    assert "command not found" not in done.stderr
