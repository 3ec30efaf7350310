"""The server itself: a socket, uvicorn on it, and a tidy end."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from upfrost.errors import UsageError
from upfrost.files import new_file
from upfrost.text import printable

_CONNECTIONS = 256
_PATIENCE = 60.0  # seconds that a connection may say nothing
_GRACE = 0.4  # seconds that answers under way get at the end


class PatientProtocol(H11Protocol):
    """HTTP/1.1 on a connection that is closed once it asks nothing for a minute.

    Uvicorn waits without end for a request's head, so a client that opens connections
    and says nothing would keep others out. Uploads and answers under way are not
    looked at.
    """

    _asked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look = self.loop.call_later(_PATIENCE, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        self._asked = self._asked or self.cycle is not before

    def _give_up(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and not self._asked:
            self.transport.close()
            return
        self._asked = False
        self._look = self.loop.call_later(_PATIENCE, self._give_up)


class AddressError(UsageError):
    """An address that cannot be listened at."""


class TokenError(UsageError):
    """A token that a browser could not send."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `AddressError`."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_CONNECTIONS)
        except BaseException:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        # The second is of names that no name can be, such as two dots in a row.
        reason = error.strerror if isinstance(error, OSError) else "is no host name"
        raise AddressError(
            f"{printable(host)} port {port}: {reason}; choose another --host or --port"
        ) from error
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    name = str(listening.getsockname()[0])
    return name == "::1" or name.startswith("127.")


def check_token(token: str, name: str) -> str:
    """The token. Raises `TokenError`, which names where it is from, for what no header
    and no cookie carries as it is.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError(
            f"{name}: a token is of ASCII letters, digits and signs, without blanks"
        )
    return token


def kept_token(path: Path) -> str:
    """The token in a file that only its owner can read; a new one, if there is none.

    Raises `TokenError`.
    """
    with suppress(OSError):
        token = path.read_text("utf-8", errors="replace").strip()
        if token:
            return check_token(token, printable(path))
    token = secrets.token_urlsafe(24)
    with new_file(path, overwrite=True) as file:
        Path(file.name).chmod(0o600)
        file.write(token.encode() + b"\n")
    return token


@contextmanager
def serving(app: ASGIApp, listening: socket.socket) -> Iterator[threading.Thread]:
    """In its block a thread answers, as long as nothing goes wrong with it."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        http=PatientProtocol,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
    )
    server = uvicorn.Server(config)
    # In a thread of its own it leaves signals to the command, as all commands do.
    thread = threading.Thread(
        target=server.run, args=([listening],), name="http", daemon=True
    )
    thread.start()
    try:
        yield thread
    finally:
        server.should_exit = True
        thread.join(_GRACE)
        server.force_exit = True
        thread.join(_GRACE)
