"""What a check found: findings in sections, as a page, as Markdown and as JSON."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Literal

from upfrost.text import printable

FORMAT = "upfrost-report"
VERSION = 1
WIDTH = 80
# good and wrong speak for themselves; a note is worth knowing and stops nobody; a
# figure is measured and not judged; skipped could not be looked at.
State = Literal["good", "note", "wrong", "figure", "skipped"]
_MARKS: Mapping[State, str] = {
    "good": "ok",
    "note": "note",
    "wrong": "WRONG",
    "figure": "",
    "skipped": "skipped",
}
_INDENT = 10
# Folders whose names say nothing of who asks.
_PUBLIC = ("dev", "etc", "lib", "proc", "sys", "usr")
# Names of users and hosts that are everybody's, and words of a report.
_COMMON = ("root", "localhost", "user", "debian", "ubuntu", "armbian", "linux", "mali")
_PATH = re.compile(r"(?<![\w.<>-])(?:/[^/\s:;,'\"()]+)+")


@dataclass(frozen=True)
class Finding:
    """A sentence on one thing that was looked at, and what to do where it is wrong."""

    state: State
    text: str
    advice: str | None = None


@dataclass
class Section:
    """Findings that belong together, and the facts behind them, for machines."""

    name: str
    title: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    def add(self, state: State, text: str, advice: str | None = None) -> None:
        """One more finding."""
        self.findings.append(Finding(state, text, advice))

    @property
    def wrong(self) -> list[Finding]:
        return [each for each in self.findings if each.state == "wrong"]


@dataclass
class Report:
    """A whole check: of which version, on which day, how thorough, what it found."""

    upfrost: str
    date: str
    quick: bool
    sections: list[Section] = field(default_factory=list)

    @property
    def wrong(self) -> list[Finding]:
        return [each for section in self.sections for each in section.wrong]

    @property
    def passed(self) -> bool:
        """Whether all holds. What was skipped was so for something that is wrong."""
        return not self.wrong

    def to_json(self) -> str:
        """The report for benchmarks/boards.py and others, without what is private."""
        said = {
            "format": FORMAT,
            "version": VERSION,
            "upfrost": self.upfrost,
            "date": self.date,
            "quick": self.quick,
            "passed": self.passed,
            "sections": {
                section.name: {
                    "title": section.title,
                    "findings": [vars(each) for each in section.findings],
                    "facts": section.facts,
                }
                for section in self.sections
            },
        }
        text = json.dumps(without_private(said), indent=1, ensure_ascii=False)
        return text + "\n"

    def to_markdown(self) -> str:
        """The page as it is attached to an issue, without what is private."""
        lines = [
            f"# upfrost check: {self.verdict}",
            "",
            f"upfrost {self.upfrost}, {self.date}"
            + (", --quick" if self.quick else ""),
        ]
        for section in self.sections:
            lines += ["", f"## {section.title}", ""]
            for are_figures, findings in groupby(
                section.findings, lambda each: each.state == "figure"
            ):
                if are_figures:  # some are in columns
                    lines += ["```", *(each.text for each in findings), "```"]
                    continue
                for each in _advised_once(list(findings)):
                    lines.append(f"- **{_MARKS[each.state]}** {each.text}")
                    if each.advice:
                        lines.append(f"  - → {each.advice}")
        return str(without_private("\n".join(lines) + "\n"))

    @property
    def verdict(self) -> str:
        """All of it in a few words."""
        count = len(self.wrong)
        if not count:
            return "all holds"
        return f"{count} thing{'s are' if count > 1 else ' is'} wrong"


def page(section: Section) -> Iterator[str]:
    """A section's lines for a terminal of `WIDTH` columns."""
    yield section.title
    for each in _advised_once(section.findings):
        first = f"  {_MARKS[each.state]:{_INDENT - 2}}"
        yield from _wrap(each.text, first)
        if each.advice:
            yield from _wrap(f"→ {each.advice}", " " * _INDENT)


def _advised_once(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Findings of which the last one alone has an advice that follows several."""
    for each, after in zip_longest(findings, findings[1:]):
        again = after is not None and after.advice == each.advice
        yield replace(each, advice=None) if again else each


def _wrap(text: str, first: str) -> Sequence[str]:
    # Figures in columns stay as they are.
    if len(first) + len(text) <= WIDTH:
        return [(first + printable(text)).rstrip()]
    return textwrap.wrap(
        printable(text),
        min(WIDTH, max(40, shutil.get_terminal_size((WIDTH, 24)).columns)),
        initial_indent=first,
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def without_private(value: object) -> object:
    """The same without host name, user name, and folders that may say who it was.

    Of a path outside of the system's own folders the last part is kept.
    """
    if isinstance(value, Mapping):
        return {str(key): without_private(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_private(each) for each in value]
    if not isinstance(value, str):
        return value
    text = _PATH.sub(_short_path, value)
    for name, instead in ((platform.node(), "HOST"), (_user(), "$USER")):
        # Of one or two letters it would be found in words.
        if len(name) > 2 and name not in _COMMON:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, text)
    return text


def _short_path(found: re.Match[str]) -> str:
    path = Path(found[0])
    if len(path.parts) < 3 or path.parts[1] in _PUBLIC:
        return found[0]
    # A folder's name right below /home is a user's.
    return f"…/{path.name}" if len(path.parts) > 3 else "…"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return os.environ.get("USER", "")
