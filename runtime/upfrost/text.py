"""Text for terminals."""

from pathlib import Path


def printable(text: str | Path) -> str:
    """`text` for a terminal: on one line, and without control characters."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in str(text)
    )
