"""TensorFlow Serving's REST interface for exported models, as an ASGI application.

    POST /v1/models/leo[/versions/N]:predict     GET /v1/models/leo[/versions/N]
    GET /v1/models/leo[/versions/N]/metadata     GET /healthz, /openapi.json, /docs
    GET /monitoring/prometheus/metrics           GET /, /page/...: see `pages`

A request first waits for its body, with a time limit. Then it waits for one of a few
threads that decompress, read JSON and compute.

Source: github.com/tensorflow/serving, g3doc/api_rest.md, model_servers/http_rest_api*.
"""

import asyncio
import concurrent.futures
import json
import os
import re
from collections.abc import Callable, Collection
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from leo_tf.errors import RequestError, quoted
from leo_tf.serving import pages
from leo_tf.serving.metrics import Metrics
from leo_tf.serving.model_versions import Served, Versions
from leo_tf.serving.pages.openapi import describe, page
from leo_tf.serving.rest_json import inflate, read_request, write_answer

MODEL = "leo"
# Requests that are read or waiting. Each may hold the most bytes of a request.
_MOST_WAITING = 64
_SECONDS_TO_READ = 60.0
_VERSION = "(?:/versions/([0-9]+))?"
_PREDICT = re.compile(f"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)")
_STATUS = re.compile(f"/v1/models(?:/([^/:]+))?{_VERSION}(/metadata)?")
_LARGEST_VERSION = 2**63 - 1
_METRICS = "/monitoring/prometheus/metrics"  # TensorFlow Serving's path
_INDEX = f"{pages.PREFIX}index.html"
_PAGES = ("/", "/docs", "/healthz", "/openapi.json", _METRICS)
_GZIP = (["gzip"], ["x-gzip"])  # names of one encoding


def application(
    versions: Versions, max_request_bytes: int, cors_origins: Collection[str] = ()
) -> ASGIApp:
    """Returns the application that answers with the current one of `versions`.

    Args:
      versions: versions of the exported model.
      max_request_bytes: limit of a body, also after decompression.
      cors_origins: origins of pages that may send requests; "*" for all.
    """
    rest, metrics = Rest(versions, max_request_bytes), Metrics(versions, _route)
    routes = [
        Route("/v1/{path:path}", rest),
        Route("/healthz", rest.health),
        Route("/openapi.json", rest.openapi),
        Route("/docs", rest.docs),
        Route("/", rest.page),
        Route(f"{pages.PREFIX}{{name}}", rest.page),
        Route(_METRICS, metrics.page),
    ]
    handlers = {HTTPException: _as_json, Exception: _our_fault}
    answering: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)
    # Outermost, so that a browser can read internal errors too.
    if cors_origins:
        answering = CORSMiddleware(
            answering,
            allow_origins=[*cors_origins],
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Encoding"],
            expose_headers=["Retry-After"],
        )
    return metrics.of(answering)


def _route(path: str) -> str:
    """Returns the route of a path in metrics: one of few names."""
    if _PREDICT.fullmatch(path):
        return "/v1/models/MODEL:predict"
    if found := _STATUS.fullmatch(path):
        return f"/v1/models/MODEL{found[3] or ''}"
    if path.startswith(pages.PREFIX):
        return pages.PREFIX
    return path if path in _PAGES else "other"


def _json(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _error(status: int, message: str, **headers: str) -> Response:
    """Returns an error in TensorFlow Serving's format."""
    return _json({"error": message}, status, **headers)


async def _as_json(request: Request, error: Any) -> Response:
    headers, said = dict(error.headers or {}), error.detail
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        said = f"method: expected {headers['Allow']}, received {request.method[:20]}."
    return _error(error.status_code, said, **headers)


async def _our_fault(unused_request: Request, error: Exception) -> Response:
    # Starlette raises it again, and it is logged with its traceback.
    return _error(500, f"internal error: {type(error).__name__}")


class Rest:
    """The endpoints. A body of more than `max_request_bytes` is refused."""

    def __init__(self, versions: Versions, max_request_bytes: int):
        self._versions, self._most_bytes = versions, max_request_bytes
        self._waiting, self._files = 0, pages.read_files()
        # Cores that this process may use, where the system tells.
        has_affinity = hasattr(os, "sched_getaffinity")
        count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
        self._threads = concurrent.futures.ThreadPoolExecutor(count, "predict")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers all requests below /v1."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path, method = request.scope["path"], request.method
        to_predict = _PREDICT.fullmatch(path)
        match = to_predict or _STATUS.fullmatch(path)
        if not match:
            return _error(400, f"Malformed request: {method} {_inline(path)}")
        allowed = "POST" if to_predict else "GET, HEAD"
        if method not in allowed.split(", "):
            raise HTTPException(405, headers={"Allow": allowed})
        name, number, what = match.groups()
        if number and (len(number) > 19 or int(number) > _LARGEST_VERSION):
            number = _inline(number)
            return _error(400, f"Failed to convert version: {number} to numeric.")
        version = int(number) if number else None
        if to_predict:
            return await self._predict(request, name, version, what)
        if not name:
            return _error(400, "Missing model name in request.")
        return (self._metadata if what else self._status)(name, version)

    async def health(self, unused_request: Request) -> Response:
        """Answers while the server is alive."""
        return _json({"status": "ok"})

    async def openapi(self, unused_request: Request) -> Response:
        """Returns the description for programs."""
        return _json(self._description())

    async def docs(self, unused_request: Request) -> Response:
        """Returns the description for people."""
        return HTMLResponse(page(self._description()), headers=pages.HEADERS)

    async def page(self, request: Request) -> Response:
        """Returns a file of the page, or the model's metadata for it."""
        path = request.scope["path"]
        if path == pages.MODEL:
            about = pages.about(self._versions.require(), self._most_bytes)
            return _json(about, 200, **pages.HEADERS)
        found = self._files.get(_INDEX if path == "/" else path)
        if found is None:
            raise HTTPException(404, f"Malformed request: GET {_inline(path)}")
        content, kind = found
        return Response(content, 200, pages.HEADERS, media_type=kind)

    def _description(self) -> dict[str, Any]:
        return describe(self._versions.require(), self._most_bytes)

    async def _predict(
        self, request: Request, name: str, version: int | None, method: str
    ) -> Response:
        if self._waiting >= _MOST_WAITING:
            message = f"{_MOST_WAITING} requests are waiting; try again"
            return _error(503, message, **{"Retry-After": "1"})
        self._waiting += 1
        try:
            body = await asyncio.wait_for(self._body(request), _SECONDS_TO_READ)
            if body is None:
                return _too_long(self._most_bytes)
            encoding = _encoding(request)
            if encoding and encoding not in _GZIP:
                expected = "gzip, identity or none"
                received = _inline(", ".join(encoding))
                message = f"Content-Encoding: expected {expected}, received {received}."
                return _error(415, message, **{"Accept-Encoding": "gzip, identity"})
            served = self._chosen(name, version)
            if method.lower() != "predict":
                expected = "predict, with the `signature_name` classify"
                return _error(400, f"method: expected {expected}.")
            loop = asyncio.get_running_loop()
            most = self._most_bytes if encoding else None
            work = served, body, most, self._versions.warn_beyond_test
            return await loop.run_in_executor(self._threads, _compute, *work)
        except (asyncio.TimeoutError, TimeoutError):
            return _error(408, f"body: expected it within {_SECONDS_TO_READ:.0f} s")
        except ClientDisconnect:
            return _error(400, "body: expected all of it, received a part")
        finally:
            self._waiting -= 1

    async def _body(self, request: Request) -> bytes | None:
        """Returns the body, or None if it is too long.

        A long body is read to its end and dropped. Otherwise a client that is still
        sending would see a reset connection instead of the answer.
        """
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > self._most_bytes:
                parts.clear()
        return None if size > self._most_bytes else b"".join(parts)

    def _chosen(self, name: str, version: int | None) -> Served:
        served = self._versions.require()
        if name == MODEL and version in (None, served.version):
            return served
        name = _inline(name)
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise HTTPException(404, f"Servable not found for request: {which}")

    def _metadata(self, name: str, version: int | None) -> Response:
        served = self._chosen(name, version)
        spec = {"name": MODEL, "signature_name": "", "version": str(served.version)}
        signatures = {"signature_def": {"signature_def": served.signature_def}}
        return _json({"model_spec": spec, "metadata": signatures})

    def _status(self, name: str, version: int | None) -> Response:
        if name != MODEL:
            message = f"Could not find any versions of model {_inline(name)}"
            return _error(404, message)
        listed = []
        for number, (state, wrong) in self._versions.states().items():
            if version in (None, number):
                code = "UNKNOWN" if wrong else "OK"
                status = {"error_code": code, "error_message": wrong}
                listed.append(
                    {"version": str(number), "state": state, "status": status}
                )
        if not listed:
            message = f"Could not find version {version} of model {MODEL}"
            return _error(404, message)
        return _json({"model_version_status": listed})


def _encoding(request: Request) -> list[str]:
    """Returns the encodings of the body, in order, without identity."""
    names = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    return [name for name in map(str.strip, names) if name not in ("", "identity")]


def _too_long(most_bytes: int) -> Response:
    message = f"body: expected {most_bytes} bytes or fewer, received more."
    return _error(413, message)


def _compute(
    served: Served, body: bytes, inflate_to: int | None, warn: Callable
) -> Response:
    """Answers a body, in a thread. Decompresses it first if `inflate_to` is given."""
    try:
        if inflate_to is not None:
            inflated = inflate(body, inflate_to)
            if inflated is None:
                return _too_long(inflate_to)
            body = inflated
        signature, inputs, by_rows = read_request(body, served.model.inputs)
        answer = write_answer(served.model(signature, inputs), by_rows)
        labels, headers = inputs.get("labels"), {}
        if labels is not None and (beyond := served.model.beyond_test(labels)):
            warn(served, beyond)
            headers["Warning"] = f'299 - "{beyond}"'  # as in RFC 7234
        return Response(answer, headers=headers, media_type="application/json")
    except RequestError as error:
        return _error(400, str(error))


def _inline(text: str) -> str:
    """Returns text of a request, escaped and shortened, without quotes."""
    return quoted(text)[1:-1]
