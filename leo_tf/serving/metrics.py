"""Metrics of the server in the text format of Prometheus.

Their labels have few values: all unknown paths are one route.
"""

import time
from collections.abc import Callable

import prometheus_client as prometheus
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leo_tf.serving.model_versions import Versions

_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
# Requests take from 1 ms (a few classes) to seconds (hundreds of classes).
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts the requests to an application; `page` is the endpoint of the metrics.

    Args:
      versions: versions whose state is reported.
      route_of: maps a path to its route, one of few.
    """

    def __init__(self, versions: Versions, route_of: Callable[[str], str]):
        self._route_of = route_of
        self._registry = registry = prometheus.CollectorRegistry()
        says = "Requests answered."
        labels = "route", "status"
        self._requests = prometheus.Counter(
            "leo_requests", says, labels, registry=registry
        )
        says = "Seconds from the head of a request to the end of its answer."
        self._seconds = prometheus.Histogram(
            "leo_request_seconds", says, ["route"], buckets=_SECONDS, registry=registry
        )
        says = "Number of the version that is served; 0 if none is."
        prometheus.Gauge("leo_version", says, registry=registry).set_function(
            lambda: versions.current.version if versions.current else 0
        )
        says = "Versions that do not work."
        prometheus.Gauge("leo_versions_failed", says, registry=registry).set_function(
            lambda: sum(bool(wrong) for _, wrong in versions.states().values())
        )
        prometheus.ProcessCollector(registry=self._registry)  # memory, CPU, files

    async def page(self, unused_request: Request) -> Response:
        """Returns all metrics."""
        text = prometheus.generate_latest(self._registry)
        return Response(text, headers={"Content-Type": _FORMAT})

    def of(self, application: ASGIApp) -> ASGIApp:
        """Returns the application with its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            start, status = time.perf_counter(), 500

            async def recorded(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await application(scope, receive, recorded)
            finally:
                route = self._route_of(scope["path"])
                self._requests.labels(route, str(status)).inc()
                self._seconds.labels(route).observe(time.perf_counter() - start)

        return counted
