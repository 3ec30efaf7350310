"""The runtime's packages form floors: each imports only those below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import upfrost

ROOT = Path(upfrost.__file__).parent
# From the ground up; modules of the root count as the ground floor.
FLOORS = (
    *("", "network", "gpu", "image", "video", "metrics", "check", "cluster", "serve"),
    "cli",
)
# Said of what must not load with a package, even below `TYPE_CHECKING`.
OUTSIDE = ("upfrost_exporter", "upfrost_training", "benchmarks", "tests")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the module of every import in a file, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            if module == "upfrost":
                module += f".{node.names[0].name}"
            yield node.lineno, module


def floor_of(module: str) -> int:
    package = module.split(".")[1] if "." in module else ""
    return FLOORS.index(package) if package in FLOORS else 0


def wrong_imports(path: Path, package: str) -> list[str]:
    own = FLOORS.index(package)
    return [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for line, module in imports(path)
        if module.split(".")[0] in OUTSIDE
        or (module.split(".")[0] == "upfrost" and floor_of(module) > own)
    ]


def test_every_package_has_its_floor() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(FLOORS) - {""}


@pytest.mark.parametrize("package", FLOORS)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    pattern = "**/*.py" if package else "*.py"
    # The root's own file loads `Upscaler` on demand: the one look upstairs.
    files = set((ROOT / package).glob(pattern)) - {ROOT / "__init__.py"}
    assert files
    assert not [line for path in sorted(files) for line in wrong_imports(path, package)]


def test_an_import_from_above_is_found(tmp_path: Path) -> None:
    path = ROOT / "network" / "graph.py"
    above = tmp_path / "above.py"
    above.write_text("from upfrost.gpu import plan\nimport upfrost.cli.main\n")
    assert [module for _, module in imports(above)] == [
        "upfrost.gpu",
        "upfrost.cli.main",
    ]
    assert floor_of("upfrost.gpu.plan") > FLOORS.index("network")
    assert not wrong_imports(path, "network")


def test_processes_find_the_runtime_by_one_rule() -> None:
    """As `children` starts them; `sys.executable` alone would need an environment."""
    files = set(ROOT.rglob("*.py")) - {ROOT / "children.py"}
    assert not [path for path in files if "sys.executable" in path.read_text("utf-8")]
