"""The HTTP interface and the page: routes, uploads to disk, clear answers."""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from upfrost import __version__
from upfrost.image.images import MAX_PIXELS
from upfrost.network.modelfile import bundled_models, read_model
from upfrost.serve.choices import (
    CHOICES,
    MEDIA_TYPES,
    SUFFIXES,
    VIDEO_SUFFIXES,
    Kind,
    default_choice,
)
from upfrost.serve.guard import Guard
from upfrost.serve.jobs import (
    PREVIEW,
    Job,
    QueueFullError,
    Store,
    is_full,
    new_job,
)
from upfrost.serve.openapi import describe
from upfrost.serve.ranges import send_file
from upfrost.serve.speeds import Speeds
from upfrost.serve.uploads import UploadError, identify
from upfrost.serve.worker import Worker
from upfrost.text import printable

# The page's files: address, package, name, type.
_PAGE = (
    ("/", "upfrost.serve", "page/index.html", "text/html"),
    ("/serve.css", "upfrost.serve", "page/serve.css", "text/css"),
    ("/serve.js", "upfrost.serve", "page/serve.js", "text/javascript"),
    ("/icon.svg", "upfrost.serve", "page/icon.svg", "image/svg+xml"),
    ("/viewer.css", "upfrost.metrics", "viewer.css", "text/css"),
    ("/viewer.js", "upfrost.metrics", "viewer.js", "text/javascript"),
)
_LONGEST_NAME = 120
_FORMATS = {suffix: name for name, suffix in (SUFFIXES | VIDEO_SUFFIXES).items()}


@dataclass(frozen=True)
class Limits:
    """What one client, or all together, may ask for."""

    upload_bytes: int = 4_000_000_000
    uploads: int = 8  # at the same time
    patience: float = 60.0  # seconds without a byte of an upload
    spare_bytes: int = 500_000_000  # of the disk that uploads leave free
    pixels: int = MAX_PIXELS


class RefusedError(HTTPException):
    """A request that cannot be; the answer says why."""

    def __init__(
        self, status: int, reason: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, reason, headers)


def make_app(
    store: Store,
    worker: Worker,
    speeds: Speeds,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    names: Collection[str] = (),
) -> Starlette:
    """The application, for any ASGI server. `worker` is started by the caller."""
    handlers = _Handlers(store, worker, speeds, limits or Limits())
    routes = [
        Route("/api/models", handlers.models),
        Route("/api/jobs", handlers.jobs),
        Route("/api/jobs", handlers.create, methods=["POST"]),
        Route("/api/jobs/{id}", handlers.job),
        Route("/api/jobs/{id}", handlers.remove, methods=["DELETE"]),
        Route("/api/jobs/{id}/retry", handlers.retry, methods=["POST"]),
        Route("/api/jobs/{id}/input", handlers.input),
        Route("/api/jobs/{id}/result", handlers.result),
        Route("/api/openapi.json", handlers.openapi),
        Route("/metrics", handlers.metrics),
        *(_static(*entry) for entry in _PAGE),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token, names=names)],
        exception_handlers={HTTPException: _say_why, Exception: _say_sorry},
    )


@functools.cache
def _scales() -> dict[str, int]:
    """The models that a job may name, each with its scale."""
    return {name: read_model(path).scale for name, path in bundled_models().items()}


class _Handlers:
    def __init__(
        self, store: Store, worker: Worker, speeds: Speeds, limits: Limits
    ) -> None:
        self._store = store
        self._worker = worker
        self._speeds = speeds
        self._limits = limits
        self._uploads = 0  # under way
        self._received = 0  # bytes since the start
        self._scales = _scales()

    async def models(self, _: Request) -> Response:
        entries = [
            {
                "model": choice.model,
                "kind": choice.kind,
                "label": choice.label,
                "about": choice.about,
                "scale": self._scales[choice.model],
                "pixels_per_second": self._speeds.rate(choice.model),
            }
            for choice in CHOICES
        ]
        return JSONResponse(
            {
                "version": __version__,
                "device": self._speeds.device,
                "problem": self._worker.problem,
                "models": entries,
                "upload_bytes": self._limits.upload_bytes,
            }
        )

    async def jobs(self, request: Request) -> Response:
        # A page asks each second: mostly nothing is new.
        tag = f'"{os.getpid()}-{self._store.version}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        jobs = [self._told(job) for job in self._store.jobs()]
        return JSONResponse({"jobs": jobs}, headers=headers)

    async def job(self, request: Request) -> Response:
        return JSONResponse(self._told(self._find(request)))

    async def create(self, request: Request) -> Response:
        query, limits = request.query_params, self._limits
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() else 0
        _check_size(size, limits)
        if self._store.free_bytes() < size + limits.spare_bytes:
            raise _no_room()
        if self._uploads >= limits.uploads:
            raise RefusedError(
                503, "too many uploads at once; try again", {"retry-after": "2"}
            )
        try:
            path = self._store.new_upload()
        except QueueFullError as error:
            raise RefusedError(409, str(error)) from error
        self._uploads += 1
        try:
            await self._receive(request, path)
            try:
                kind, suffix, found = await run_in_threadpool(
                    identify, path, limits.pixels
                )
            except UploadError as error:
                raise RefusedError(415, str(error)) from error
            wanted = self._wanted(query, kind, suffix)
            job = new_job(
                _display_name(query.get("name", "")),
                kind,
                *wanted,
                bytes=path.stat().st_size,
                input_suffix=suffix,
                input_size=found,
            )
            job = await run_in_threadpool(self._store.add, path, job)
            await run_in_threadpool(self._worker.attend)
        except QueueFullError as error:
            raise RefusedError(409, str(error)) from error
        except OSError as error:
            if is_full(error):
                raise _no_room() from error
            raise
        finally:
            self._uploads -= 1
            path.unlink(missing_ok=True)
        headers = {"location": f"/api/jobs/{job.id}"}
        return JSONResponse(self._told(job), 201, headers)

    async def remove(self, request: Request) -> Response:
        await run_in_threadpool(self._worker.remove, self._find(request).id)
        return Response(status_code=204)

    async def retry(self, request: Request) -> Response:
        job = self._find(request)
        if job.state != "failed":
            raise RefusedError(409, f"the job is {job.state}, not failed")
        changed = await run_in_threadpool(
            lambda: self._store.change(job.id, state="queued", error=None, attempts=0)
        )
        await run_in_threadpool(self._worker.attend)
        return JSONResponse(self._told(changed or job))

    async def input(self, request: Request) -> Response:
        job = self._find(request)
        path = self._store.input_path(job)
        preview = self._store.job_folder(job.id) / PREVIEW
        if job.input_suffix == ".tif" and preview.exists():
            return await self._file(request, preview, "image/jpeg", job.name)
        kind = MEDIA_TYPES.get(job.input_suffix, "video/mp4")
        return await self._file(request, path, kind, job.name)

    async def result(self, request: Request) -> Response:
        job = self._find(request)
        if job.state != "done":
            raise RefusedError(409, f"the job is {job.state}, there is no result yet")
        kind = MEDIA_TYPES[job.result_suffix]
        scale = self._scales[job.model]
        name = f"{Path(job.name).stem}-x{scale}{job.result_suffix}"
        return await self._file(request, self._store.result_path(job), kind, name)

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(describe(__version__, sorted(self._scales)))

    async def metrics(self, _: Request) -> Response:
        """Prometheus' text format, version 0.0.4."""
        jobs = self._store.jobs()
        lines = ["# TYPE upfrost_jobs gauge"]
        for state in ("queued", "running", "done", "failed"):
            count = sum(job.state == state for job in jobs)
            lines.append(f'upfrost_jobs{{state="{state}"}} {count}')
        lines += [
            "# TYPE upfrost_uploads gauge",
            f"upfrost_uploads {self._uploads}",
            "# TYPE upfrost_received_bytes_total counter",
            f"upfrost_received_bytes_total {self._received}",
            "# TYPE upfrost_disk_free_bytes gauge",
            f"upfrost_disk_free_bytes {self._store.free_bytes()}",
            "# TYPE upfrost_pixels_per_second gauge",
        ]
        for choice in CHOICES:
            rate = self._speeds.rate(choice.model)
            if rate is not None:
                lines.append(
                    f'upfrost_pixels_per_second{{model="{choice.model}"}} {rate:.6g}'
                )
        kind = "text/plain; version=0.0.4"
        return PlainTextResponse("\n".join(lines) + "\n", media_type=kind)

    def _told(self, job: Job) -> dict[str, Any]:
        """A job as clients see it."""
        return {
            "id": job.id,
            "name": job.name,
            "kind": job.kind,
            "bytes": job.bytes,
            "model": job.model,
            "format": _FORMATS[job.result_suffix],
            "created": job.created,
            "state": job.state,
            "share": round(job.share, 4),
            "seconds_left": None if job.left is None else round(job.left, 1),
            "seconds": job.seconds,
            "error": job.error,
            "notes": list(job.notes),
            "input_size": job.input_size,
            "output_size": job.output_size,
            "device": job.device,
        }

    def _find(self, request: Request) -> Job:
        job = self._store.get(request.path_params["id"])
        if job is None:
            raise RefusedError(404, "there is no such job")
        return job

    async def _receive(self, request: Request, path: Path) -> None:
        """Write an upload to `path`, and see that it is on disk."""
        received = 0
        with await run_in_threadpool(path.open, "xb") as file:
            async for chunk in _patient(request.stream(), self._limits.patience):
                received += len(chunk)
                self._received += len(chunk)
                _check_size(received, self._limits)
                await run_in_threadpool(file.write, chunk)
            await run_in_threadpool(file.flush)
            await run_in_threadpool(os.fsync, file.fileno())

    def _wanted(
        self, query: Mapping[str, str], kind: Kind, suffix: str
    ) -> tuple[str, str]:
        """The model and the result's suffix that a request asks for."""
        model = query.get("model") or default_choice(kind).model
        if model not in self._scales:
            there = ", ".join(sorted(self._scales))
            raise RefusedError(400, f"there is no model {printable(model)!r}: {there}")
        suffixes = SUFFIXES if kind == "picture" else VIDEO_SUFFIXES
        wanted = query.get("format")
        if wanted and wanted not in suffixes:
            raise RefusedError(
                400,
                f"a {kind} becomes {', '.join(suffixes)}, not {printable(wanted)!r}",
            )
        if wanted:
            return model, suffixes[wanted]
        if kind == "video":
            return model, ".mp4"
        # What browsers do not show, and what knows no compression, becomes PNG.
        return model, ".png" if suffix in (".tif", ".bmp") else suffix

    async def _file(
        self, request: Request, path: Path, kind: str, name: str
    ) -> Response:
        shown = "attachment" if "download" in request.query_params else "inline"
        headers = {
            "content-disposition": f"{shown}; filename*=UTF-8''{quote(name, safe='')}",
            # Whatever it really is, it is no page of ours.
            "content-security-policy": "sandbox; default-src 'none'",
            "cache-control": "private, max-age=3600",
        }
        try:
            return await send_file(request, path, kind, headers)
        except FileNotFoundError:
            raise RefusedError(404, "the file is gone") from None


async def _patient(
    stream: AsyncIterator[bytes], patience: float
) -> AsyncIterator[bytes]:
    """The chunks of `stream`, none later than `patience` seconds after the last."""
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), patience)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RefusedError(
                408, f"nothing came for {patience:g} s; the upload was given up",
                {"connection": "close"},
            ) from None  # fmt: skip
        except ClientDisconnect:
            # Nobody is there to read it; the half file goes.
            raise RefusedError(400, "the upload ended early") from None


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.upload_bytes:
        raise RefusedError(
            413,
            f"the file is larger than {limits.upload_bytes / 1e6:.0f} MB "
            "(upfrost serve --max-upload)",
            {"connection": "close"},
        )


def _no_room() -> RefusedError:
    return RefusedError(
        507, "the disk is full: remove results that are no longer needed"
    )


def _display_name(name: str) -> str:
    """What a file was called, for people to see: without folders, on one line."""
    name = re.split(r"[/\\]", name)[-1]
    shown = printable(name.encode("utf-8", "replace").decode()).strip()
    if len(shown) > _LONGEST_NAME:
        stem, dot, suffix = shown.rpartition(".")
        keep = _LONGEST_NAME - len(suffix) - 2
        shown = f"{stem[:keep]}…{dot}{suffix}" if keep > 0 else shown[:_LONGEST_NAME]
    return shown or "unnamed"


def _static(address: str, package: str, name: str, kind: str) -> Route:
    content = resources.files(package).joinpath(name).read_bytes()

    async def answer(_: Request) -> Response:
        # Asked for again after an upgrade.
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return Route(address, answer)


async def _say_why(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _say_sorry(_: Request, error: Exception) -> Response:
    said = f"{type(error).__name__}: the server's log says more"
    return JSONResponse({"error": said}, 500)
