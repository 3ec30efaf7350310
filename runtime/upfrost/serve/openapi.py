"""What the HTTP interface is, as OpenAPI 3.1 describes such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upfrost.serve.choices import SUFFIXES, VIDEO_SUFFIXES

_Schema = dict[str, Any]


def describe(version: str, models: Sequence[str]) -> _Schema:
    """The whole description. `models` are those that a job may name."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "upfrost",
            "version": version,
            "description": "Upscales pictures and videos on this machine's GPU.",
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/api/models": {
                "get": _operation(
                    "The choices that the page offers, and how fast each is here.",
                    {200: _json(_ref("Models"))},
                )
            },
            "/api/jobs": {
                "get": _operation(
                    "All jobs, the oldest first. With If-None-Match, 304 when nothing "
                    "has changed.",
                    {200: _json(_object(jobs=_array(_ref("Job")))), 304: None},
                ),
                "post": _operation(
                    "Upload a file, the request's body, to be upscaled.",
                    {
                        201: _json(_ref("Job")),
                        **dict.fromkeys((400, 408, 409, 413, 415, 503, 507), _ERROR),
                    },
                    parameters=[
                        _query("name", _STRING, "what the file is called"),
                        _query("model", {"enum": list(models)}, "see /api/models"),
                        _query(
                            "format",
                            {"enum": [*SUFFIXES, *VIDEO_SUFFIXES]},
                            "of the result; by default that of a picture, or mp4",
                        ),
                    ],
                    body=_BYTES,
                ),
            },
            "/api/jobs/{id}": {
                "parameters": [_ID],
                "get": _operation("One job.", {200: _json(_ref("Job")), 404: _ERROR}),
                "delete": _operation(
                    "Remove a job and its files; what is being done is ended.",
                    {204: None, 404: _ERROR},
                ),
            },
            "/api/jobs/{id}/retry": {
                "parameters": [_ID],
                "post": _operation(
                    "Try a job that failed once more. A video goes on where it was.",
                    {200: _json(_ref("Job")), 404: _ERROR, 409: _ERROR},
                ),
            },
            "/api/jobs/{id}/input": {
                "parameters": [_ID],
                "get": _operation(
                    "The upload, of TIFF a preview, whole or a range of it.",
                    {200: _BYTES, 206: _BYTES, 404: _ERROR, 416: None},
                ),
            },
            "/api/jobs/{id}/result": {
                "parameters": [_ID],
                "get": _operation(
                    "The result, whole or a range of it.",
                    {200: _BYTES, 206: _BYTES, 404: _ERROR, 409: _ERROR, 416: None},
                    parameters=[_query("download", _STRING, "save it, do not show it")],
                ),
            },
            "/api/openapi.json": {
                "get": _operation("This description.", {200: _json({"type": "object"})})
            },
            "/metrics": {
                "get": _operation(
                    "Counts for Prometheus.", {200: _content("text/plain", _STRING)}
                )
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Job": _JOB,
                "Models": _MODELS,
                "Error": _object(error=_STRING),
            },
        },
    }


def _operation(
    summary: str,
    answers: dict[int, _Schema | None],
    *,
    parameters: Sequence[_Schema] = (),
    body: _Schema | None = None,
) -> _Schema:
    told: _Schema = {
        "summary": summary,
        "responses": {
            str(code): {"description": _MEANING[code]} | (content or {})
            for code, content in answers.items()
        },
    }
    if parameters:
        told["parameters"] = list(parameters)
    if body is not None:
        told["requestBody"] = {"required": True} | body
    return told


def _content(kind: str, schema: _Schema) -> _Schema:
    return {"content": {kind: {"schema": schema}}}


def _json(schema: _Schema) -> _Schema:
    return _content("application/json", schema)


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: _Schema) -> _Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _array(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _query(name: str, schema: _Schema, description: str) -> _Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


_STRING: _Schema = {"type": "string"}
_INTEGER: _Schema = {"type": "integer"}
_NUMBER: _Schema = {"type": "number"}
_MAYBE_STRING: _Schema = {"type": ["string", "null"]}
_MAYBE_NUMBER: _Schema = {"type": ["number", "null"]}
_SIZE: _Schema = {
    "type": ["array", "null"],
    "items": _INTEGER,
    "description": "width and height in pixels",
}
_BYTES = _content("application/octet-stream", {})
_ERROR = _json(_ref("Error"))
_ID: _Schema = {"name": "id", "in": "path", "required": True, "schema": _STRING}
_KIND: _Schema = {"enum": ["picture", "video"]}
_JOB = _object(
    id=_STRING,
    name=_STRING,
    kind=_KIND,
    bytes=_INTEGER,
    model=_STRING,
    format=_STRING,
    created=_NUMBER | {"description": "seconds since 1970"},
    state={"enum": ["queued", "running", "done", "failed"]},
    share=_NUMBER | {"description": "of the work that is done, 0 to 1"},
    seconds_left=_MAYBE_NUMBER,
    seconds=_MAYBE_NUMBER,
    error=_MAYBE_STRING,
    notes=_array(_STRING),
    input_size=_SIZE,
    output_size=_SIZE,
    device=_MAYBE_STRING,
)
_MODELS = _object(
    version=_STRING,
    device=_MAYBE_STRING,
    problem=_MAYBE_STRING,
    upload_bytes=_INTEGER,
    models=_array(
        _object(
            model=_STRING,
            kind=_KIND,
            label=_STRING,
            about=_STRING,
            scale=_INTEGER,
            pixels_per_second=_MAYBE_NUMBER | {"description": "of results, if known"},
        )
    ),
)
_MEANING = {
    200: "as asked for",
    201: "the job, which waits for its turn",
    204: "removed",
    206: "the range that was asked for",
    304: "nothing has changed",
    400: "the request asks for what cannot be",
    404: "there is no such job",
    408: "nothing came for too long",
    409: "there are too many jobs, or this one's state does not allow it",
    413: "the file is larger than may be",
    415: "neither a picture nor a video that is known, or damaged",
    416: "the range is not in the file",
    503: "too many uploads at once",
    507: "the disk is full",
}
