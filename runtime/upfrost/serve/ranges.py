"""Files as answers, whole or in parts, which players of video ask for (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def send_file(
    request: Request, path: Path, media_type: str, headers: Mapping[str, str]
) -> Response:
    """The file, or the one range of bytes that is asked for. Raises `OSError`."""
    size = (await run_in_threadpool(path.stat)).st_size
    first, last = 0, size - 1
    status, told = 200, dict(headers) | {"accept-ranges": "bytes"}
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked and (asked[1] or asked[2]):
        if asked[1]:
            first = int(asked[1])
            last = min(last, int(asked[2])) if asked[2] else last
        else:
            first = max(0, size - int(asked[2]))
        if first > last:
            told["content-range"] = f"bytes */{size}"
            return Response(status_code=416, headers=told)
        status = 206
        told["content-range"] = f"bytes {first}-{last}/{size}"
    told["content-length"] = str(last - first + 1)
    if request.method == "HEAD":
        return Response(status_code=status, headers=told, media_type=media_type)
    content = _part(path, first, last - first + 1)
    return StreamingResponse(content, status, told, media_type)


async def _part(path: Path, first: int, length: int) -> AsyncIterator[bytes]:
    file = await run_in_threadpool(path.open, "rb")
    try:
        await run_in_threadpool(file.seek, first)
        while length:
            chunk = await run_in_threadpool(file.read, min(_CHUNK, length))
            if not chunk:
                break
            length -= len(chunk)
            yield chunk
    finally:
        file.close()
