"""tools/setup.sh says what is wrong with a system, and asks the network for no more.

A stand-in for .venv's Python writes down what it is asked to do.
"""

from __future__ import annotations

import os
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
esac
"""


@pytest.fixture
def tree() -> Iterator[Path]:
    """A work tree that any user may write, with a .venv."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "tools").mkdir()
        for file in ("tools/setup.sh", "tools/gstreamer.sh", "pyproject.toml"):
            shutil.copy(ROOT / file, root / file)
        (root / ".venv/bin").mkdir(parents=True)
        python = root / ".venv/bin/python"
        python.write_text(PYTHON)
        python.chmod(0o755)
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
    first, *installed = asked
    assert "hatchling>=" in first
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
