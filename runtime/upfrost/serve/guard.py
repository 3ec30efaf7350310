"""Who may ask: no page of another site, and nobody without the token, if there is one.

A page of another site can make a browser send requests here, and read the answers if
its name can be made to mean this machine (DNS rebinding). So the Host must be an
address or a name that is this machine's, and what changes anything must come from our
own page or from no page at all.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upfrost.text import printable

# What a page may load: its own files, and what users chose from their disks.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# All that somebody without the token sees: a place to enter it.
_DOOR = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>upfrost</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"></head>
<body><main><h1>upfrost</h1>
<form method="get" action="/"><p><label>Token, as <code>upfrost serve</code> printed it:
<input name="token" type="password" autocomplete="current-password" required></label>
<button>Enter</button></p></form></main></body></html>
"""


class Guard:
    """Middleware around everything. `names` are Hosts besides this machine's own."""

    def __init__(
        self, app: ASGIApp, token: str | None = None, names: Collection[str] = ()
    ) -> None:
        self._app = app
        self._token = token
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", *map(str.lower, names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for key, value in _HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else refusal
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _answer(
                421,
                f"{printable(host)} is not this machine's name: use its address, or "
                "start with --allow-host NAME",
            )
        # Where browsers say that another site's page asks, only following a link is
        # allowed, and that only to the page itself.
        site = headers.get("sec-fetch-site", "none")
        is_link = headers.get("sec-fetch-mode") == "navigate" and path == "/"
        is_reading = scope["method"] in ("GET", "HEAD")
        if site not in ("none", "same-origin") and not (is_link and is_reading):
            return _answer(403, "pages of other sites may not use this")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return _answer(403, "pages of other sites may not use this")
        if self._token is None or self._knows_token(headers):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if path == "/" and is_reading and self._is_token(given):
            # Not left in the address, which is shown and kept.
            answer = RedirectResponse("/", 303)
            answer.set_cookie(
                *(_cookie_of(host), given, 365 * 86400), httponly=True, samesite="lax"
            )
            return answer
        if path == "/" and is_reading:
            return Response(_DOOR, 401, media_type="text/html")
        return _answer(
            401,
            "the token is missing or wrong: send it as Authorization: Bearer TOKEN",
            {"www-authenticate": "Bearer"},
        )

    def _is_ours(self, host: str) -> bool:
        """Whether a Host is an address, which no other site can be, or a known name."""
        try:
            parts = urlsplit(f"//{host}")
            name = parts.hostname or ""
            _ = parts.port
        except ValueError:  # no address, or a port that is none
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.removesuffix(".") in self._names
        return True

    def _knows_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given.strip()):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        cookie = cookies.get(_cookie_of(headers.get("host", "")))
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode(), self._token.encode())


def _cookie_of(host: str) -> str:
    """The cookie's name at a Host: browsers keep one for all ports of a machine."""
    return f"upfrost-token-{urlsplit(f'//{host}').port or 80}"


def _answer(
    status: int, reason: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)
