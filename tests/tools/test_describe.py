"""The manual and the completions say what the command's parsers say."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from upfrost.cli.main import command_parser

SCRIPT = Path(__file__).parents[2] / "tools/describe.py"
# Stand-ins for what the package bash-completion has.
HELPERS = """
_init_completion() {
    words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
    cur=${words[cword]} prev=${words[cword - 1]}
}
_filedir() { COMPREPLY=("a file${1:+ .$1}"); }
"""


@pytest.fixture(scope="module")
def describe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("describe", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_manual_has_every_option_of_every_command(describe: ModuleType) -> None:
    page = describe.manual(command_parser(["--version"]))
    for name, command in describe.commands(command_parser(["--version"])).items():
        _, found, section = page.partition(f'.SS "upfrost {name}"\n')
        assert found, name
        section = section.partition(".SS ")[0]
        for action in describe.options(command):
            for word in action.option_strings:
                assert "\\fB" + word.replace("-", "\\-") + "\\fR" in section
    assert "%(default)s" not in page
    assert not [
        line for line in page.splitlines() if line.startswith("'") or "\t" in line
    ], "troff would take it for a request"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("up", ["upscale"]),
        ("upscale --ov", ["--overwrite"]),
        ("upscale -m rea", ["a file .upf", "realtime-x2", "realtime-x4"]),
        ("video --codec h", ["h264", "h265"]),
        ("upscale --tile ", []),
        ("upscale ", ["a file"]),
        ("info cascade-x2", ["a file", "cascade-x2"]),
    ],
)
def test_bash_completes(describe: ModuleType, line: str, offered: list[str]) -> None:
    script = describe.bash_completion(command_parser(["--version"]))
    words = ["upfrost", *line.split(" ")]
    done = subprocess.run(
        [
            "bash",
            "-c",
            HELPERS + script + 'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))\n'
            '_upfrost\nprintf "%s\\n" "${COMPREPLY[@]}"',
            "bash",
            *words,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert [reply for reply in done.stdout.splitlines() if reply] == offered


def test_zsh_gets_every_option_of_every_command(describe: ModuleType) -> None:
    script = describe.zsh_completion(command_parser(["--version"]))
    for name, command in describe.commands(command_parser(["--version"])).items():
        section = script.partition(f"    {name})\n")[2].partition(";;")[0]
        for action in describe.options(command):
            for word in action.option_strings:
                assert f"'{word}[" in section
