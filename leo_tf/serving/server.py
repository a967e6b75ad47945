"""Serves exported models over HTTP: `--mode=serve`.

It uses Starlette on uvicorn, which are small, well kept and pure Python. The protocol
is TensorFlow Serving's, so a larger framework would not help. Both are in the extra
`serve`, with Prometheus's client. Training imports nothing from here.
"""

import contextlib
import errno
import importlib.util
import os
import signal
import socket
import sys
import typing
from collections.abc import Collection

from leo_tf.console import SILENT, Console
from leo_tf.errors import FlagError

if typing.TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from leo_tf.serving.model_versions import Served

_PACKAGES = ("starlette", "uvicorn", "prometheus_client")
# Time for running requests to finish after a signal to stop.
_SECONDS_TO_FINISH = 30
# Time to keep an idle connection. A request is lost if the connection closes while it
# is sent, so this is longer than the usual pause between requests.
_SECONDS_IDLE = 75
# Each holds a file descriptor. Most systems allow a process 1,024 of them.
_MOST_CONNECTIONS = 900


def check_installed() -> None:
    """Checks that the extra `serve` is installed.

    Raises:
      FlagError: if the packages of the extra are not installed.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            expected = "the packages of the extra `serve`"
            hint = "pip install 'leo-tf[serve]' installs them."
            raise FlagError("--mode=serve", expected, f"no {package}", hint)


def serve(
    export_dir: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    max_request_bytes: int = 2**25,
    cors_origins: Collection[str] = (),
    console: Console = SILENT,
) -> None:
    """Answers requests until SIGINT or SIGTERM, then finishes the running ones.

    Args:
      export_dir: directory of exported models, one per version; the newest is served.
      host: address to listen on; "0.0.0.0" allows requests from other machines.
      port: port to listen on; 0 for any free one.
      max_request_bytes: limit of a request's size.
      cors_origins: origins of pages that may send requests, such as
        "https://example.org"; "*" for all.
      console: reports the address, and versions that are served or skipped.

    Raises:
      FlagError: if the extra is not installed, or nothing can listen at host and port.
      InputError: if the directory has no version that works.
      SystemExit: with status 0, at a signal.
    """
    check_installed()
    import uvicorn

    from leo_tf.serving.model_versions import Versions
    from leo_tf.serving.rest_api import application

    with bound(host, port) as listening:
        versions = Versions(export_dir, console)
        versions.refresh()
        served = versions.require()
        versions.watch()
        listening.listen()
        for number in (signal.SIGINT, signal.SIGTERM):
            # For signals before uvicorn runs, and for those it raises again at its end.
            signal.signal(number, lambda *unused: sys.exit(0))
        console.say(_described(served, listening))
        answering = application(versions, max_request_bytes, cors_origins)
        config = configured(answering)
        with contextlib.closing(versions):
            uvicorn.Server(config).run(sockets=[listening])


def configured(application: "ASGIApp") -> "uvicorn.Config":
    """Returns uvicorn's configuration: quiet, with a graceful stop."""
    import uvicorn

    return uvicorn.Config(
        application,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_SECONDS_IDLE,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address, which does not listen yet.

    Raises:
      FlagError: if the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's name asyncio does not recognise TCP and leaves Nagle's
    # algorithm on. Each answer of two packets would then take 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        return listening
    except (OSError, UnicodeError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        expected = "an address to listen on"
        received = f"{host}:{port}: {reason}"
        taken = errno.EADDRINUSE, errno.EACCES
        is_taken = getattr(error, "errno", None) in taken
        hint = "--port=0 takes any free port." if is_taken else ""
        raise FlagError("--host, --port", expected, received, hint) from None


def _described(served: "Served", listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    method = served.metadata.get("method", "model")
    tested = ""
    if served.model.tested is not None:
        way, shot = served.model.tested
        tested = f", measured at {way}-way {shot}-shot"
    version = f"version {served.version}{tested}"
    return f"Serving {method}, {version}, on {where} ({where}/docs)."
