"""Prints what a package tells of the command `upfrost`: its manual, its completion.

usage: python tools/describe.py man|bash|zsh

All of it is read off the command's own parsers, so that it cannot say anything else.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from upfrost import __version__
from upfrost.cli.main import command_parser

MODELS = Path(__file__).parents[1] / "runtime/upfrost/network/models"


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command by its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise ValueError(f"{parser.prog} has no commands")


def summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    """One line of each command by its name."""
    return {
        choice.dest: choice.help or ""
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    }


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """What begins with a dash."""
    return (action for action in parser._actions if action.option_strings)


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An argument's help with its defaults filled in."""
    return str(parser._get_formatter()._expand_help(action)) if action.help else ""


def values_of(action: argparse.Action) -> str | None:
    """How an option's value is written in its help; None for one without a value."""
    if action.nargs == 0:
        return None
    if action.metavar is not None:
        return str(action.metavar)
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def model_names() -> list[str]:
    """The networks that come along."""
    return sorted(path.stem for path in MODELS.glob("*.upf"))


def _roff(text: str) -> str:
    """Text as troff's input."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    text = text.replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    return re.sub(r"^\.", r"\&.", text, flags=re.MULTILINE)


def _roff_lines(text: str) -> str:
    """Text whose lines stay as they are."""
    return f".nf\n{_roff(text.strip())}\n.fi"


def _roff_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        if action.option_strings:
            value = values_of(action)
            words = ", ".join(rf"\fB{_roff(word)}\fR" for word in action.option_strings)
            yield f".TP\n{words}" + (rf" \fI{_roff(value)}\fR" if value else "")
        else:
            yield f".TP\n\\fI{_roff(str(action.metavar or action.dest))}\\fR"
        yield _roff(help_of(parser, action))


def manual(parser: argparse.ArgumentParser) -> str:
    """The manual page, in the macros of man(7)."""
    known = summaries(parser)
    lines = [
        f'.TH UPFROST 1 "" "upfrost {__version__}" "User Commands"',
        ".SH NAME",
        r"upfrost \- super\-resolution of pictures and video on the GPU",
        ".SH SYNOPSIS",
        r"\fBupfrost\fR \fICOMMAND\fR [\fIARGUMENT\fR...]",
        ".SH DESCRIPTION",
        _roff(
            "upfrost upscales photographs and videos by light neural networks, which "
            "run as compute shaders on a Vulkan device: the GPU, or where there is "
            "none the CPU by Mesa's driver for it."
        ),
        ".SH OPTIONS",
        *_roff_options(parser),
        ".SH COMMANDS",
    ]
    for name, command in commands(parser).items():
        usage = command.format_usage().removeprefix("usage: ")
        usage = usage.replace("\n       ", "\n")
        lines += [
            f'.SS "upfrost {name}"',
            _roff(command.description or known[name].capitalize() + "."),
            ".PP",
            _roff_lines(usage),
            *_roff_options(command),
        ]
        # The exit codes are the same for all and stand at the end.
        epilog = (command.epilog or "").partition("exit codes:")[0]
        if epilog.strip():
            lines += [".PP", _roff_lines(epilog)]
    _, _, codes = (parser.epilog or "").partition("exit codes:")
    lines += [".SH EXIT STATUS", _roff_lines(codes)]
    lines += [
        ".SH FILES",
        ".TP\n" + _roff("~/.cache/upfrost/"),
        "What drivers have compiled, and what \\fBupfrost tune\\fR has measured.",
    ]
    return "\n".join(lines) + "\n"


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """A completion for bash; its helpers are those of bash-completion."""
    lines = [
        "# bash completion of upfrost",
        "_upfrost() {",
        "    local cur prev words cword",
        "    _init_completion || return",
        f'    local models="{" ".join(model_names())}" command=${{words[1]}}',
        "    if ((cword == 1)); then",
        f"        COMPREPLY=($(compgen -W '{_words(parser)}' -- \"$cur\"))",
        "        return",
        "    fi",
        '    case "$command $prev" in',
    ]
    for name, command in commands(parser).items():
        for action in options(command):
            if values_of(action) is None:
                continue
            pattern = " | ".join(f'"{name} {word}"' for word in action.option_strings)
            lines += [f"        {pattern})", f"            {_bash_value(action)}"]
            lines += ["            return", "            ;;"]
    lines += ["    esac", "    if [[ $cur == -* ]]; then", "        case $command in"]
    for name, command in commands(parser).items():
        words = " ".join(
            w for action in options(command) for w in action.option_strings
        )
        lines += [
            f"            {name}) COMPREPLY=($(compgen -W '{words}' -- \"$cur\")) ;;"
        ]
    named = " | ".join(
        name
        for name, command in commands(parser).items()
        if any(_is_model(action) for action in command._actions)
        and not any(_is_model(action) for action in options(command))
    )
    lines += [
        "        esac",
        "        return",
        "    fi",
        "    case $command in",
        f"        {named})",
        '            _filedir; COMPREPLY+=($(compgen -W "$models" -- "$cur")) ;;',
        "        *) _filedir ;;",
        "    esac",
        "} &&",
        "    complete -F _upfrost upfrost",
    ]
    return "\n".join(lines) + "\n"


def _words(parser: argparse.ArgumentParser) -> str:
    """What can follow the command's name."""
    dashed = (word for action in options(parser) for word in action.option_strings)
    return " ".join([*commands(parser), *dashed])


def _is_model(action: argparse.Action) -> bool:
    return action.dest in ("model", "models")


def _is_file(action: argparse.Action) -> bool:
    return str(action.metavar).split("|")[0] in ("FILE", "OUT", "IN", "FOLDER")


def _bash_value(action: argparse.Action) -> str:
    if action.choices is not None:
        words = " ".join(map(str, action.choices))
        return f"COMPREPLY=($(compgen -W '{words}' -- \"$cur\"))"
    if _is_model(action):
        return '_filedir upf; COMPREPLY+=($(compgen -W "$models" -- "$cur"))'
    return "_filedir" if _is_file(action) else ":"


def zsh_completion(parser: argparse.ArgumentParser) -> str:
    """A completion for zsh, by its function _arguments."""
    known = summaries(parser)
    lines = ["#compdef upfrost", "", "local -a commands=("]
    lines += [f"    {_quoted(f'{name}:{known[name]}')}" for name in commands(parser)]
    lines += [
        ")",
        "if ((CURRENT == 2)); then",
        "    _describe command commands",
        "    return",
        "fi",
        "local command=$words[2]",
        "shift words",
        "((CURRENT--))",
        "case $command in",
    ]
    for name, command in commands(parser).items():
        lines += [f"    {name})", "        _arguments -S \\"]
        for action in options(command):
            summary = help_of(command, action)
            for character in "[]:":
                summary = summary.replace(character, "\\" + character)
            tail = f"[{summary}]" + _zsh_value(action)
            lines += [
                f"            {_quoted(word + tail)} \\"
                for word in action.option_strings
            ]
        positional = [
            action for action in command._actions if not action.option_strings
        ]
        if any(_is_model(action) for action in positional):
            names = " ".join(model_names())
            lines += [
                "            "
                + _quoted(f"*:model or file:{{compadd {names}; _files}}")
                + " ;;"
            ]
        elif positional:
            lines += ["            '*:file:_files' ;;"]
        else:
            lines += ["            ;;"]
    lines += ["esac"]
    return "\n".join(lines) + "\n"


def _zsh_value(action: argparse.Action) -> str:
    value = values_of(action)
    if value is None:
        return ""
    label = action.dest.replace("_", " ")
    if action.choices is not None:
        return f":{label}:({' '.join(map(str, action.choices))})"
    if _is_model(action):
        return f":{label}:{{compadd {' '.join(model_names())}; _files -g '*.upf'}}"
    return f":{label}:_files" if _is_file(action) else f":{label}: "


def _quoted(text: str) -> str:
    """A word for the shell that is this text."""
    return "'" + text.replace("'", "'\\''") + "'"


KINDS = {"man": manual, "bash": bash_completion, "zsh": zsh_completion}


def main(arguments: list[str]) -> int:
    """Print one of them."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        print(f"usage: python tools/describe.py {'|'.join(KINDS)}", file=sys.stderr)
        return 2
    # Without the commands of other packages, which the runtime's package has not.
    sys.stdout.write(KINDS[arguments[0]](command_parser(["--version"])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
