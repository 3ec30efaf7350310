"""What is kept of devices from one process to the next, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from upfrost.files import new_file

_DIGEST_BYTES = hashlib.sha256().digest_size
_MOST_BYTES = 64 << 20


def cache_folder() -> Path:
    """UPFROST_CACHE, or `upfrost` where the XDG base directory specification says.

    Raises `RuntimeError` for a user without a home.
    """
    own = os.environ.get("UPFROST_CACHE")
    if own:
        return Path(own)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # as the specification wants it
        base = Path.home() / ".cache"
    return base / "upfrost"


def file_name(device: str) -> str:
    """A device's name as a file may have it."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")[:80] or "device"


class PipelineFile:
    """The driver's pipeline cache for one device and driver, in a file of its own.

    `identity` tells drivers and their builds apart. A file that cannot be read or
    written is as good as none: it saves time alone.
    """

    def __init__(self, device: str, identity: str) -> None:
        self._kept = b""
        try:
            digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
            name = f"{file_name(device)}-{digest}.bin"
            self._path: Path | None = cache_folder() / "pipelines" / name
        except RuntimeError:
            self._path = None

    def read(self) -> bytes:
        """What was kept; nothing where it is damaged, which drivers do not look for."""
        if self._path is None:
            return b""
        try:
            with self._path.open("rb") as file:
                found = file.read(_MOST_BYTES)
        except OSError:
            return b""
        data = found[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != found[:_DIGEST_BYTES]:
            return b""
        self._kept = data
        return data

    def write(self, data: bytes) -> None:
        """Keep `data`, unless it is what was read."""
        if self._path is None or data == self._kept or len(data) > _MOST_BYTES:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(self._path, overwrite=True) as file:
                file.write(hashlib.sha256(data).digest() + data)
        except OSError:
            return
        self._kept = data
