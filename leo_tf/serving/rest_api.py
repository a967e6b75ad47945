"""TensorFlow Serving's REST interface for exported models, as an ASGI application.

    POST /v1/models/leo[/versions/N]:predict     GET /v1/models/leo[/versions/N]
    GET /v1/models/leo[/versions/N]/metadata     GET /healthz, /openapi.json, /docs

A request waits in this order: until its body is read, which is quick or ends it; and
for one of a few threads that read JSON and compute.

Source: github.com/tensorflow/serving, g3doc/api_rest.md, model_servers/http_rest_api*.
"""

import asyncio
import concurrent.futures
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from leo_tf.errors import shown
from leo_tf.serving.model_versions import Served, Versions
from leo_tf.serving.models import RequestError
from leo_tf.serving.openapi import describe, page
from leo_tf.serving.rest_json import read_request, write_answer

MODEL = "leo"
# Requests read or waiting; each may hold as many bytes as one may have.
_MOST_WAITING = 64
_SECONDS_TO_READ = 60.0
_VERSION = "(?:/versions/([0-9]+))?"
_PREDICT = re.compile(f"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)")
_STATUS = re.compile(f"/v1/models(?:/([^/:]+))?{_VERSION}(/metadata)?")
_NOTHING = re.compile("(?!)")
_LARGEST_VERSION = 2**63 - 1
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]


def application(versions: Versions, max_request_bytes: int) -> Starlette:
    """The application that answers with the current one of `versions`."""
    rest = Rest(versions, max_request_bytes)
    routes = [
        Route("/v1/{path:path}", rest.answer, methods=_METHODS),
        Route("/healthz", rest.health),
        Route("/openapi.json", rest.openapi),
        Route("/docs", rest.docs),
        Route("/", rest.docs),
    ]
    handlers = {HTTPException: _as_json, Exception: _our_fault}
    return Starlette(routes=routes, exception_handlers=handlers)


def error_response(status: int, message: str, **headers: str) -> Response:
    """Returns an error as TensorFlow Serving words it."""
    return json_response({"error": message}, status, **headers)


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """Returns what JSON can say."""
    return _json_bytes(json.dumps(value).encode(), status, headers)


def _json_bytes(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(body, status, headers, media_type="application/json")


async def _as_json(unused_request: Request, error: Any) -> Response:
    return error_response(error.status_code, error.detail, **(error.headers or {}))


async def _our_fault(unused_request: Request, error: Exception) -> Response:
    # It is raised again behind us, and so logged whole.
    return error_response(500, f"internal error: {type(error).__name__}")


class Rest:
    """The endpoints.

    Args:
      versions: what is served.
      max_request_bytes: a longer body is refused.
    """

    def __init__(self, versions: Versions, max_request_bytes: int):
        self._versions = versions
        self._most_bytes = max_request_bytes
        self._waiting = 0
        self._threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "predict")

    async def answer(self, request: Request) -> Response:
        """Everything below /v1."""
        path, method = request.scope["path"], request.method
        match = {"POST": _PREDICT, "GET": _STATUS}.get(method, _NOTHING).fullmatch(path)
        if not match:
            return error_response(400, f"Malformed request: {method} {_inline(path)}")
        name, number, what = match.groups()
        if number and (len(number) > 19 or int(number) > _LARGEST_VERSION):
            message = f"Failed to convert version: {_inline(number)} to numeric."
            return error_response(400, message)
        version = int(number) if number else None
        if method == "GET":
            return self._status(name, version, what)
        return await self._predict(request, name, version, what)

    async def health(self, unused_request: Request) -> Response:
        """Says that the server lives."""
        return json_response({"status": "ok"})

    async def openapi(self, unused_request: Request) -> Response:
        """The description that programs read."""
        return json_response(self._description())

    async def docs(self, unused_request: Request) -> Response:
        """The description that people read."""
        return HTMLResponse(page(self._description()))

    def _description(self) -> dict[str, Any]:
        return describe(self._versions.require(), MODEL, self._most_bytes)

    async def _predict(
        self, request: Request, name: str, version: int | None, method: str
    ) -> Response:
        if self._waiting >= _MOST_WAITING:
            message = f"{_MOST_WAITING} requests are waiting; try again"
            return error_response(503, message, **{"Retry-After": "1"})
        self._waiting += 1
        try:
            body = await asyncio.wait_for(self._body(request), _SECONDS_TO_READ)
            if body is None:
                message = f"body: expected {self._most_bytes} bytes or fewer"
                return error_response(413, f"{message}, received more.")
            served = self._chosen(name, version)
            if served is None:
                return _no_servable(name, version)
            if method.lower() != "predict":
                expected = "predict, with the `signature_name` classify"
                return error_response(400, f"method: expected {expected}.")
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _compute, served, body)
        except (asyncio.TimeoutError, TimeoutError):
            message = f"body: expected all within {_SECONDS_TO_READ:.0f} s"
            return error_response(408, message)
        except ClientDisconnect:
            return error_response(400, "body: expected all, received a part")
        finally:
            self._waiting -= 1

    async def _body(self, request: Request) -> bytes | None:
        """The body, or None if it is too long.

        What is too long is read to its end and dropped: a client still sending would
        see a reset connection in place of our answer.
        """
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > self._most_bytes:
                parts.clear()
        return None if size > self._most_bytes else b"".join(parts)

    def _chosen(self, name: str, version: int | None) -> Served | None:
        served = self._versions.require()
        right = name == MODEL and version in (None, served.version)
        return served if right else None

    def _status(
        self, name: str | None, version: int | None, metadata: str | None
    ) -> Response:
        if not name:
            return error_response(400, "Missing model name in request.")
        if metadata:
            served = self._chosen(name, version)
            return _metadata(served) if served else _no_servable(name, version)
        if name != MODEL:
            message = f"Could not find any versions of model {_inline(name)}"
            return error_response(404, message)
        states = self._versions.states()
        if version is not None:
            states = {n: state for n, state in states.items() if n == version}
        if not states:
            message = f"Could not find version {version} of model {MODEL}"
            return error_response(404, message)
        listed = [_version_status(number, *state) for number, state in states.items()]
        return json_response({"model_version_status": listed})


def _compute(served: Served, body: bytes) -> Response:
    """In a thread: what a body asks for."""
    try:
        request = read_request(body, served.model.inputs)
        outputs = served.model(request.signature, request.inputs)
        return _json_bytes(write_answer(outputs, request.by_rows))
    except RequestError as error:
        return error_response(400, str(error))


def _no_servable(name: str, version: int | None) -> Response:
    which = f"Latest({_inline(name)})"
    if version is not None:
        which = f"Specific({_inline(name)}, {version})"
    return error_response(404, f"Servable not found for request: {which}")


def _inline(text: str) -> str:
    """Text from a request, escaped and cut, without quotes."""
    return shown(text)[1:-1]


def _version_status(version: int, state: str, wrong: str) -> dict[str, Any]:
    status = {"error_code": "UNKNOWN" if wrong else "OK", "error_message": wrong}
    return {"version": str(version), "state": state, "status": status}


def _metadata(served: Served) -> Response:
    spec = {"name": MODEL, "signature_name": "", "version": str(served.version)}
    signatures = {"signature_def": {"signature_def": served.signature_def}}
    return json_response({"model_spec": spec, "metadata": signatures})
